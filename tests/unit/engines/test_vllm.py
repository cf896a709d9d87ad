"""What vLLM is told, and what it is not given, without running it."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.engines.base import AdapterRef
from serving.engines.vllm import check_patterns
from serving.errors import AdapterRefused
from tests.adapter_files import write_adapter

KNOWN_TO_0_26 = ("r", "lora_alpha", "target_modules")
KNOWN_TO_0_32 = (*KNOWN_TO_0_26, "rank_pattern", "alpha_pattern")


@pytest.mark.parametrize("setting", ["rank_pattern", "alpha_pattern"])
def test_settings_of_single_modules_are_refused_where_vllm_ignores_them(
    tmp_path: Path, setting: str
) -> None:
    adapter = AdapterRef("tiny:a@1", write_adapter(tmp_path / "1", config={setting: {"q_proj": 2}}))
    check_patterns(adapter, KNOWN_TO_0_32)
    with pytest.raises(AdapterRefused, match=f"'tiny:a@1' sets {setting}"):
        check_patterns(adapter, KNOWN_TO_0_26)


@pytest.mark.parametrize("value", [{}, None])
def test_empty_patterns_are_accepted_everywhere(tmp_path: Path, value: object) -> None:
    config = {"rank_pattern": value, "alpha_pattern": value}
    check_patterns(
        AdapterRef("tiny:a@1", write_adapter(tmp_path / "1", config=config)), KNOWN_TO_0_26
    )
