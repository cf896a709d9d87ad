"""`configs.load`: strict, frozen, and helpful about what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field, ValidationError

from configs import ConfigError, StrictModel, load, parse


class Cat(StrictModel):
    kind: Literal["cat"] = "cat"
    whiskers: int = 24


class Dog(StrictModel):
    kind: Literal["dog"] = "dog"
    loudness: float = 1.0


class Pen(StrictModel):
    keeper: str = "nobody"
    """Who feeds them."""
    animals: tuple[Annotated[Cat | Dog, Field(discriminator="kind")], ...] = ()


class Farm(StrictModel):
    pen: Pen = Pen()
    acres: int = Field(1, ge=1)
    spare: Pen | None = None


def _write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "farm.yaml"
    path.write_text(text)
    return path


def test_a_file_is_read_and_defaults_fill_the_rest(tmp_path: Path) -> None:
    path = _write(tmp_path, "pen:\n  animals:\n    - {kind: dog, loudness: 2}\n")
    assert load(Farm, path) == Farm(pen=Pen(animals=(Dog(loudness=2.0),)))


@pytest.mark.parametrize("text", ["", "# only a comment\n", "{}"])
def test_an_empty_file_is_all_defaults(tmp_path: Path, text: str) -> None:
    assert load(Farm, _write(tmp_path, text)) == Farm()


def test_configs_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Farm().acres = 2  # type: ignore[misc]


def test_docstrings_are_descriptions() -> None:
    assert Pen.model_fields["keeper"].description == "Who feeds them."


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("acres=3", 3),
        ("acres = 3", 3),
        ("pen.keeper=Ada", "Ada"),
        ("pen.keeper='3'", "3"),
        ("pen.keeper=a=b", "a=b"),
        ("pen.animals.1.loudness=0.5", 0.5),
        ("pen.animals.0={kind: cat, whiskers: 3}", Cat(whiskers=3)),
        ("spare.keeper=Bo", "Bo"),
    ],
)
def test_overrides_are_yaml_at_a_path(override: str, value: object) -> None:
    data = {"pen": {"animals": [{"kind": "cat"}, {"kind": "dog"}]}, "spare": None}
    found: object = parse(Farm, data, [override])
    for part in override.partition("=")[0].strip().split("."):
        found = found[int(part)] if isinstance(found, tuple) else getattr(found, part)
    assert found == value


def test_later_overrides_win_and_the_data_is_left_alone() -> None:
    data = {"pen": {"keeper": "Ada"}}
    assert parse(Farm, data, ["pen.keeper=B", "pen.keeper=C"]).pen.keeper == "C"
    assert data == {"pen": {"keeper": "Ada"}}


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("acres", "not of the form a.b=value"),
        ("=3", "not of the form a.b=value"),
        ("pen..keeper=3", "not of the form a.b=value"),
        ("acres.x=3", "holds a plain value"),
        ("pen.animals.7.loudness=3", "no index of a list of 1"),
        ("pen.animals.first=3", "no index of a list of 1"),
        ("acres={", "not valid YAML"),
        ("acre=3", "did you mean 'acres'"),
        ("pen.keepr=Ada", "did you mean 'keeper'"),
        ("pen.animals.0.whisker=3", "did you mean 'whiskers'"),
        ("spare.keepr=Ada", "did you mean 'keeper'"),
        ("pen.animals.0.loudness=3", "unknown key"),
        ("acres=0", "greater than or equal to 1"),
        ("acres=three", "acres: "),
        ("pen.animals.0.kind=cow", "cow"),
    ],
)
def test_a_wrong_override_says_what_is_wrong(override: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse(Farm, {"acres": 1, "pen": {"animals": [{"kind": "cat"}]}}, [override])


def test_every_fault_is_named_at_once(tmp_path: Path) -> None:
    path = _write(tmp_path, "acres: 0\npens: {}\npen: {keeper: 7}\n")
    with pytest.raises(ConfigError) as caught:
        load(Farm, path)
    message = str(caught.value)
    assert message.startswith(str(path))
    for words in ("acres: ", "pens: unknown key; did you mean 'pen'?", "pen.keeper: "):
        assert words in message


@pytest.mark.parametrize(
    ("text", "words"), [("a: [", "not valid YAML"), ("- 1\n", "a mapping at the top, not a list")]
)
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load(Farm, _write(tmp_path, text))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: No such file"):
        load(Farm, tmp_path / "nowhere.yaml")


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "farm.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not UTF-8 text"):
        load(Farm, path)
