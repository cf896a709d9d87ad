from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.engine_overhead.config import OverheadConfig, sides, vllm_flags
from configs import ConfigError, load

ROOT = Path(__file__).parents[3]
SERVED = """
models:
  - name: tiny
    engine: {kind: vllm, dtype: bfloat16, max_num_seqs: 8, enforce_eager: true,
             tool_call_parser: hermes, lora: {max_loras: 2, max_rank: 16}}
"""


def test_an_engines_fields_become_vllms_own_flags() -> None:
    flags = vllm_flags(
        {
            "kind": "vllm",
            "dtype": "bfloat16",
            "max_model_len": None,
            "enforce_eager": True,
            "enable_prefix_caching": False,
            "lora": {"max_loras": 0},
            "extra_args": {"swap_space": 4},
        }
    )
    assert flags == [
        "--dtype=bfloat16",
        "--enforce-eager",
        "--no-enable-prefix-caching",
        "--swap-space=4",
    ]


def test_both_sides_serve_the_same_model_with_the_same_flags(tmp_path: Path) -> None:
    (tmp_path / "serve.yaml").write_text(SERVED)
    (tmp_path / "config.json").write_text("{}")
    config = OverheadConfig(
        serve_config=str(tmp_path / "serve.yaml"), model="tiny", weights=str(tmp_path)
    )
    vllm, corral = sides(config)
    assert {"--max-num-seqs=8", "--enable-lora", "--max-lora-rank=16"} <= set(vllm.command)
    assert f"--model={tmp_path}" in vllm.command
    assert config.serve_config in corral.command
    with pytest.raises(ConfigError, match="no model called 'other'"):
        sides(config.model_copy(update={"model": "other"}))


def test_missing_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=str(tmp_path)):
        sides(OverheadConfig(weights=str(tmp_path)))


def test_the_shipped_configuration_is_valid() -> None:
    shipped = load(OverheadConfig, ROOT / "configs/bench/engine_overhead.yaml")
    assert (ROOT / shipped.serve_config).exists()
