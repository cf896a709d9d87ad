"""Adapters made to harm: each is refused before a weight is read, and none by a crash."""

from __future__ import annotations

import json
import os
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.adapters import BaseModel, Limits, check
from serving.adapters.files import parse_json
from serving.adapters.patterns import is_cheap
from serving.adapters.safetensors_header import read_header
from serving.errors import AdapterRefused
from tests.adapter_files import CONFIG, WEIGHTS, safetensors_bytes, shape_of, write_adapter

TINY = BaseModel("tiny", shape=shape_of())
A = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
B = A.replace("lora_A", "lora_B")


@pytest.fixture
def adapters(tmp_path: Path) -> Path:
    (tmp_path / "adapters").mkdir()
    return tmp_path / "adapters"


@pytest.fixture
def adapter(adapters: Path) -> Path:
    return write_adapter(adapters / "x" / "1", modules=["q_proj"])


def refusal(path: Path, inside: Path | None = None) -> str:
    with pytest.raises(AdapterRefused) as refused:
        check(path, TINY, Limits(), inside=inside)
    return str(refused.value)


def entry(start: int, end: int, shape: Any = (4, 16), dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (os._exit, (1,))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "truncated or not safetensors"),
        (b"\x01\x00\x00", "truncated or not safetensors"),
        ((1 << 60).to_bytes(8, "little") + b"{}", "truncated or not safetensors"),
        (b"\xff" * 64, "truncated or not safetensors"),
        ((5 << 20).to_bytes(8, "little") + b" " * (5 << 20), "a header of 5242880 bytes"),
        (pickle.dumps(Bomb()), "a pickle under another name"),
        (b"PK\x03\x04" + b"\0" * 60, "a pickle under another name"),
        (safetensors_bytes(b""), "the header is not valid JSON"),
        (safetensors_bytes(b"[]"), "must hold a JSON object"),
        (safetensors_bytes(b"{"), "the header is not valid JSON"),
        (safetensors_bytes(b'{"\xff": 1}'), "the header is not valid JSON"),
        (safetensors_bytes(b'{"a":' * 200_000), "nested too deeply"),
        (safetensors_bytes(b'{"a": 1, "a": 2}'), "the key 'a' stands twice"),
        (safetensors_bytes(b'{"a": NaN}'), "NaN is not JSON"),
        (safetensors_bytes(b'{"a": ' + b"9" * 5000 + b"}"), "the header is not valid JSON"),
        (safetensors_bytes({}), "holds no LoRA tensor"),
        (safetensors_bytes({"__metadata__": {"a": 1}}), "__metadata__ must map"),
        (safetensors_bytes({"__metadata__": []}), "__metadata__ must map"),
        (safetensors_bytes({A: []}), "lacks dtype, shape or data_offsets"),
        (safetensors_bytes({A: {"dtype": "F32"}}), "lacks dtype, shape or data_offsets"),
        (safetensors_bytes({A: entry(0, 256) | {"extra": 1}}, b"\0" * 256), "lacks dtype"),
        (safetensors_bytes({A: entry(0, 256, dtype="I8")}, b"\0" * 256), "has dtype 'I8'"),
        (safetensors_bytes({A: entry(0, 256, (-4, -16))}, b"\0" * 256), "whole numbers"),
        (safetensors_bytes({A: entry(0, 256, (4.0, 16))}, b"\0" * 256), "whole numbers"),
        (safetensors_bytes({A: entry(0, 256, (True, 64))}, b"\0" * 256), "whole numbers"),
        (safetensors_bytes({A: entry(0, 256, "4x16")}, b"\0" * 256), "whole numbers"),
        (safetensors_bytes({A: entry(0, 256, [1] * 99)}, b"\0" * 256), "whole numbers"),
        (safetensors_bytes({A: entry(0, 256, (1 << 62, 4))}, b"\0" * 256), "whole numbers"),
        (safetensors_bytes({A: entry(-256, 0)}, b"\0" * 256), "whole numbers"),
        (safetensors_bytes({A: entry(0, 255)}, b"\0" * 255), "has 255 bytes"),
        (safetensors_bytes({A: entry(256, 0)}, b"\0" * 256), "has -256 bytes"),
        (safetensors_bytes({A: entry(0, 256)}, b"\0" * 255), "copy it again"),
        (safetensors_bytes({A: entry(0, 256)}, b"\0" * 999), "copy it again"),
        (safetensors_bytes({A: entry(64, 320)}, b"\0" * 320), "overlap or leave a hole"),
        (
            safetensors_bytes({A: entry(0, 256), B: entry(0, 512, (32, 4))}, b"\0" * 512),
            "overlap or leave a hole",
        ),
        (
            safetensors_bytes({A: entry(0, 256), B: entry(128, 640, (32, 4))}, b"\0" * 640),
            "overlap or leave a hole",
        ),
        (
            safetensors_bytes({f"{A}{i}": entry(0, 0, (0, 0)) for i in range(10_000)}),
            "10000 tensors are more than the 8192",
        ),
        (safetensors_bytes({"x" * 100_000: entry(0, 0, (0,))}), "is no LoRA tensor"),
        (safetensors_bytes({"\ud800\n\x1b[2J": entry(0, 0, (0,))}), "is no LoRA tensor"),
    ],
)
def test_a_malformed_weights_file_is_refused(adapter: Path, content: bytes, said: str) -> None:
    (adapter / WEIGHTS).write_bytes(content)
    message = refusal(adapter)
    assert said in message
    assert len(message) < 600
    assert message.isprintable()


def test_a_file_cut_short_anywhere_is_refused(adapter: Path) -> None:
    whole = (adapter / WEIGHTS).read_bytes()
    for length in [*range(200), *range(200, len(whole), 97), len(whole) - 1]:
        (adapter / WEIGHTS).write_bytes(whole[:length])
        with pytest.raises(AdapterRefused):
            check(adapter, TINY)
    (adapter / WEIGHTS).write_bytes(whole)
    assert check(adapter, TINY).pairs == 2


@given(data=st.binary(max_size=400), framed=st.booleans())
def test_any_bytes_are_refused_and_nothing_else_is_raised(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, framed: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "bytes.safetensors"
    path.write_bytes(safetensors_bytes(data) if framed else data)
    try:
        header = read_header(path, 1 << 20, 100)
    except AdapterRefused:
        return
    assert header.tensors == {}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
SETTINGS = ["r", "lora_alpha", "target_modules", "bias", "rank_pattern", "alpha_pattern"]
SETTINGS += ["peft_type", "base_model_name_or_path", "use_dora", "init_lora_weights"]


@given(st.dictionaries(st.sampled_from(SETTINGS), JSON, min_size=1))
def test_any_settings_are_served_or_refused_and_nothing_else_is_raised(
    tmp_path_factory: pytest.TempPathFactory, settings: dict[str, Any]
) -> None:
    path = tmp_path_factory.getbasetemp() / "settings"
    if not path.exists():
        write_adapter(path)
        (path / "kept").write_bytes((path / CONFIG).read_bytes())
    sound = json.loads((path / "kept").read_bytes())
    (path / CONFIG).write_text(json.dumps(sound | settings))
    message = None
    try:
        rank = check(path, TINY).rank
    except AdapterRefused as exc:
        rank, message = 4, str(exc)
    assert rank == 4
    assert message is None or CONFIG in message


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is not valid JSON"),
        (b"\xff\xfe{\0}\0", "is not valid JSON"),
        (b'{"r": NaN}', "NaN is not JSON"),
        (b'{"r": -Infinity}', "-Infinity is not JSON"),
        (b'{"r": 4, "r": 400}', "the key 'r' stands twice"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "nested too deeply"),
        (b"[]", "must hold a JSON object"),
        (b'"LORA"', "must hold a JSON object"),
        (b" " * (1 << 20) + b"{}", "is larger than 1048576 bytes"),
    ],
)
def test_a_malformed_config_is_refused(adapter: Path, content: bytes, said: str) -> None:
    (adapter / CONFIG).write_bytes(content)
    message = refusal(adapter)
    assert CONFIG in message
    assert said in message


@given(st.binary(max_size=200))
def test_json_is_parsed_or_refused(data: bytes) -> None:
    parsed, message = None, ""
    try:
        parsed = parse_json(data, "header")
    except AdapterRefused as exc:
        message = str(exc)
    assert isinstance(parsed, dict) != message.startswith("header ")


@pytest.mark.parametrize(
    "name",
    ["adapter_model.bin", "adapter_model.pt", "x.pth", "x.PKL", "training_args.bin", "x.pickle"],
)
def test_a_pickle_beside_the_weights_is_refused(adapter: Path, name: str) -> None:
    (adapter / name).write_bytes(pickle.dumps(Bomb()))
    assert "only safetensors adapters are served" in refusal(adapter)


def test_a_pipe_does_not_hold_the_check_up(adapter: Path) -> None:
    (adapter / WEIGHTS).unlink()
    os.mkfifo(adapter / WEIGHTS)
    assert "is not a regular file" in refusal(adapter)
    (adapter / CONFIG).unlink()
    (adapter / CONFIG).mkdir()
    assert f"{CONFIG} is not a regular file" in refusal(adapter)


def test_a_link_out_of_the_folder_is_refused(adapters: Path, tmp_path: Path) -> None:
    outside = write_adapter(tmp_path / "elsewhere", modules=["q_proj"])
    (adapters / "etc").symlink_to("/etc")
    (adapters / "out").symlink_to(outside)
    (adapters / "loop").symlink_to(adapters / "loop")
    for path in (adapters / "etc", adapters / "out", adapters / "x" / ".." / ".."):
        assert "leads out of" in refusal(path, adapters)
    assert "cannot be read" in refusal(adapters / "loop", adapters)
    assert check(outside, TINY).pairs == 2


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS, "README.md"])
def test_a_file_linked_from_outside_is_refused(
    adapters: Path, adapter: Path, tmp_path: Path, name: str
) -> None:
    outside = write_adapter(tmp_path / "elsewhere", modules=["q_proj"])
    (outside / "README.md").touch()
    (adapter / name).unlink(missing_ok=True)
    (adapter / name).symlink_to(outside / name)
    assert f"'{name}' is a link out of" in refusal(adapter, adapters)
    assert check(adapter, TINY).pairs == 2


def test_a_folder_whose_name_begins_like_the_real_one_is_outside(tmp_path: Path) -> None:
    (tmp_path / "adapters").mkdir()
    twin = write_adapter(tmp_path / "adapters-evil" / "1")
    assert "leads out of" in refusal(twin, tmp_path / "adapters")


def test_thousands_of_files_are_not_read(adapter: Path) -> None:
    for number in range(1001):
        (adapter / f"{number}.txt").touch()
    assert "more than 1000 files" in refusal(adapter)


COSTLY = [
    "(a+)+$",
    "(a|a)*b",
    "((a{1000}){1000}){1000}",
    "a{1000000}",
    "(.*)(.*)(.*)(.*)x",
    ".*.*.*.*x",
    "a?a?a?a?a?a?aaaaaa",
    "(a|b)(a|b)(a|b)(a|b)",
    "((a))",
    r"(a)\1",
    "(?P<n>a)",
    "(?i)a",
    "(?=.*)a",
    "a" * 300,
    "(" + "|".join("a" * 20) + ")",
    "a**",
    "(a",
    "a)",
    "[a",
    "*a",
]


@pytest.mark.parametrize("pattern", COSTLY)
def test_a_costly_pattern_is_never_tried(adapter: Path, pattern: str) -> None:
    assert not is_cheap(pattern)
    config = json.loads((adapter / CONFIG).read_bytes())
    for setting, rank in (("rank_pattern", 4), ("alpha_pattern", 8)):
        patterns = {pattern: rank}
        (adapter / CONFIG).write_text(json.dumps(config | {setting: patterns}))
        if re.fullmatch(r"\w+", pattern):
            assert check(adapter, TINY).pairs == 2
        else:
            assert "name the modules without wildcards" in refusal(adapter)
    (adapter / CONFIG).write_text(json.dumps(config | {"target_modules": pattern}))
    assert check(adapter, TINY).pairs == 2


@given(st.text(alphabet="ab.*+?()|[]\\{}^$:d", max_size=24))
def test_what_counts_as_cheap_repeats_no_group_and_counts_nothing(pattern: str) -> None:
    if is_cheap(pattern):
        assert "{" not in pattern
        assert not re.search(r"\)[*+?]", pattern.replace(r"\)", ""))
        assert sum(pattern.count(sign) for sign in "*+") <= 3
