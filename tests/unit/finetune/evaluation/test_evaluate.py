"""From rows to metrics, gate and reports, with a model that says what the test wants."""

from __future__ import annotations

import json
import math
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from tokenizers import Tokenizer

from finetune.config import FinetuneConfig
from finetune.errors import ModelUnavailable, SourceUnreadable
from finetune.evaluation import Evaluation, evaluate, require
from finetune.evaluation.model import Answer, Version
from finetune.events import EventLog
from tests.unit.finetune.data.test_check import row, write
from tests.unit.finetune.evaluation.scripted import Scripted
from tests.unit.finetune.models import CHATML, chat_tokenizer, trained

HOSTILE = (
    '<script>alert(1)</script> "><img src=x onerror=alert(2)> | ``` \n````\n# Title\n'
    "[link](javascript:alert(3)) </pre></svg> $\\frac{1}{0}$ &amp; \x00\x1b[31m \u202eesrever "
)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model's folder, without weights."""
    folder = tmp_path / "model"
    folder.mkdir()
    Tokenizer.from_str(trained()).save(str(folder / "tokenizer.json"))
    settings = {"eos_token": "<|im_end|>", "bos_token": "<|begin_of_text|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"chat_template": CHATML}))
    return folder


def configured(
    model: Path, folder: Path, rows: list[dict[str, Any]], **evaluation: Any
) -> FinetuneConfig:
    train = write(folder / "train.jsonl", [row(f"t{i}") for i in range(3)])
    held = write(folder / "held.jsonl", rows)
    return FinetuneConfig.model_validate(
        {
            "model": str(model),
            "data": {"train": [train], "validation": [held], "max_length": 100_000},
            "evaluation": {"resamples": 100, "forgetting": None, "robustness": ()} | evaluation,
        }
    )


def ran(
    config: FinetuneConfig,
    folder: Path,
    candidate: str = "right",
    losses: dict[Version, float] | None = None,
) -> Evaluation:
    """The base is always wrong, `live` always right; the candidate says `candidate`."""
    said = {"base": "wrong", "live": "right", "candidate": candidate}

    def answer(version: Version, prompt: str) -> Answer:
        return Answer(said[version], "length" if version == "base" else "stop")

    found = losses or {"base": 3.0, "live": 2.0, "candidate": 1.0}
    scripted = Scripted(chat_tokenizer(), answer, found)
    return evaluate(config, folder / "run", folder / "adapter", model=scripted)


def rows(count: int = 20, **more: Any) -> list[dict[str, Any]]:
    return [row(f"question number {i}", "right", **more) for i in range(count)]


def test_metrics_are_those_of_what_was_said(model: Path, tmp_path: Path) -> None:
    (tmp_path / "live").mkdir()
    (tmp_path / "live" / "adapter_config.json").touch()
    config = configured(model, tmp_path, rows(), live_adapter=str(tmp_path / "live"))
    found = ran(config, tmp_path)
    by = {name: metric.versions for name, metric in found.metrics.items()}
    assert by["loss"]["base"].value == pytest.approx(3)
    assert by["perplexity"]["candidate"].value == pytest.approx(math.e)
    assert [by["exact_match"][v].value for v in found.versions] == [0, 1, 1]
    assert [by["over_length_rate"][v].value for v in found.versions] == [1, 0, 0]
    assert found.metrics["loss"].differences["base"].value == pytest.approx(-2)
    assert found.metrics["loss"].differences["live"].value == pytest.approx(-1)
    assert found.metrics["loss"].examples == 20
    assert "preference_accuracy" not in found.metrics
    assert found.gate.passed is False, "the gate asks for forgetting, which was not measured"
    assert found.gate.reasons == (
        "forgetting_accuracy less base's must be at least -0.1: was not measured",
    )


def test_the_default_gate_passes_a_better_adapter_and_stops_a_worse_one(
    model: Path, tmp_path: Path
) -> None:
    config = configured(model, tmp_path, rows(), forgetting="builtin")
    assert ran(config, tmp_path).gate.passed
    worse = ran(config, tmp_path, losses={"base": 1.0, "candidate": 1.5})
    assert [reason.split()[0] for reason in worse.gate.reasons] == ["loss", "loss"]
    nan = ran(config, tmp_path, losses={"base": 1.0, "candidate": math.nan})
    assert "is nan, no number" in nan.gate.reasons[0]
    silent = ran(config, tmp_path, candidate=" \n")
    assert [reason.split()[0] for reason in silent.gate.reasons] == ["empty_rate"]


def test_without_held_out_rows_a_gate_that_asks_fails(model: Path, tmp_path: Path) -> None:
    train = write(tmp_path / "train.jsonl", [row(i) for i in range(3)])
    config = configured(model, tmp_path, rows(), on="held_out")
    bare = config.model_copy(
        update={"data": config.data.model_copy(update={"validation": (), "train": (train,),
                                                       "validation_fraction": 0.0})}
    )  # fmt: skip
    found = ran(bare, tmp_path)
    assert found.examples == 0
    assert not found.gate.passed
    assert "no row is held out" in found.warnings[0]
    assert "no row is held out" in (tmp_path / "run" / "report.md").read_text()


def test_slices_show_who_is_served_worse(model: Path, tmp_path: Path) -> None:
    good = [row(f"bonjour {i}", "right", who={"language": "fr"}) for i in range(6)]
    bad = [row(f"hello {i}", "something else", who={"language": "en"}) for i in range(8)]
    few = [row("hallo", "else", who={"language": "de"}), row("?", "else", who=[1])]
    config = configured(
        model,
        tmp_path,
        good + bad + few,
        slices=("who.language",),
        gate=[{"metric": "slice_gap.who.language.token_f1", "at_most": 0.5}],
    )
    found = ran(config, tmp_path)
    assert [(each.value, each.examples) for each in found.slices] == [
        ("en", 8), ("fr", 6), ("(missing)", 1), ("de", 1),
    ]  # fmt: skip
    assert found.metrics["slice_gap.who.language.token_f1"].versions["candidate"].value == 1
    assert found.metrics["slice_gap.who.language.token_f1"].examples == 14
    assert found.metrics["slice_gap.who.language.loss"].versions["candidate"].value == 0
    assert not found.gate.passed
    assert (tmp_path / "run" / "plots" / "slices-1.svg").is_file()


def test_forgetting_and_robustness_are_drops(model: Path, tmp_path: Path) -> None:
    config = configured(
        model, tmp_path, rows(), forgetting="builtin", robustness=("case", "paraphrase")
    )

    def answer(version: Version, prompt: str) -> Answer:
        if "capital of France" in prompt:
            return Answer("Paris" if version == "base" else "right", "stop")
        fragile = version == "candidate" and "question number" not in prompt
        return Answer("wrong" if fragile else "right", "stop")

    scripted = Scripted(chat_tokenizer(), answer, {"base": 2.0, "candidate": 1.0})
    found = evaluate(config, tmp_path / "run", tmp_path / "adapter", model=scripted)
    drops = {name: metric.versions for name, metric in found.metrics.items() if "drop" in name}
    assert drops["robustness_drop.paraphrase"]["candidate"].value == 0
    share = drops["robustness_drop.case"]["candidate"].value
    assert 0 < share < 1, "lower case leaves these questions as they are, upper case does not"
    assert drops["robustness_drop.case"]["base"].value == 0
    forgetting = found.metrics["forgetting_accuracy"]
    assert forgetting.differences["base"].value == pytest.approx(-1 / forgetting.examples)
    assert [each.prompt for each in found.forgotten] == ["What is the capital of France?"]


def test_preferences_are_told_apart_by_likelihood(model: Path, tmp_path: Path) -> None:
    pair = {"chosen": "short", "rejected": "a very much longer answer than the other one"}
    train = write(tmp_path / "t.jsonl", [{"prompt": f"t{i}", **pair} for i in range(3)])
    held = write(tmp_path / "h.jsonl", [{"prompt": f"q{i}", **pair} for i in range(5)])
    config = configured(model, tmp_path, rows())
    data = config.data.model_copy(update={"train": (train,), "validation": (held,)})
    found = ran(config.model_copy(update={"data": data}), tmp_path)
    assert found.metrics["preference_accuracy"].versions["candidate"].value == 1
    assert found.metrics["preference_accuracy"].examples == 5


def test_what_evaluation_reads_is_looked_for_before_training(model: Path, tmp_path: Path) -> None:
    absent = str(tmp_path / "absent")
    with pytest.raises(ModelUnavailable, match=r"evaluation\.live_adapter: .*absent has no"):
        require(configured(model, tmp_path, rows(), live_adapter=absent))
    with pytest.raises(SourceUnreadable, match=r"evaluation\.forgetting: cannot read"):
        require(configured(model, tmp_path, rows(), forgetting=absent))
    require(configured(model, tmp_path, rows(), forgetting="builtin"))


class Strict(HTMLParser):
    """Collects tags and what would run or load something."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}


def test_hostile_texts_are_only_shown(model: Path, tmp_path: Path) -> None:
    hostile = [row(f"{i} {HOSTILE}", HOSTILE, kind=HOSTILE + "\ud800") for i in range(6)]
    hostile.append(row("huge " * 20_000, "x" * 50_000, kind="plain"))
    config = configured(model, tmp_path, hostile, slices=("kind",), gate=[])
    ran(config, tmp_path, candidate=HOSTILE)
    run = tmp_path / "run"
    page = (run / "report.html").read_text(encoding="utf-8")
    parser = Strict()
    parser.feed(page)
    assert "script" not in parser.tags
    assert "img" not in parser.tags
    assert "a" not in parser.tags
    assert not {name for name in parser.attributes if name.startswith("on") or name == "src"}
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert not {"\x00", "\x1b", "\u202e"} & set(page)
    assert "&lt;U+202E&gt;" in page
    assert len(page) < 200_000
    for svg in (run / "plots").glob("*.svg"):
        assert ElementTree.parse(svg).getroot().tag.endswith("svg")
    text = (run / "report.md").read_text(encoding="utf-8")
    outside = "".join(part for i, part in enumerate(_fences(text)) if i % 2 == 0)
    assert "<script" not in outside
    assert "<img" not in outside
    assert "](javascript" not in outside
    assert "\n# Title" not in outside
    assert json.loads((run / "evaluation.json").read_text())["slices"]


def _fences(text: str) -> list[str]:
    """Text outside and inside of fenced blocks in turns, by CommonMark's rule for their ends."""
    parts, fence = [""], ""
    for line in text.splitlines(keepends=True):
        ticks = len(line) - len(line.lstrip("`"))
        closes = fence and ticks >= len(fence) and not line.strip("`\n")
        opens = not fence and ticks >= 3
        if opens or closes:
            fence = "`" * ticks if opens else ""
            parts.append("")
        else:
            parts[-1] += line
    assert not fence
    return parts


def test_the_json_is_strict_and_holds_everything(model: Path, tmp_path: Path) -> None:
    config = configured(model, tmp_path, rows(), slices=("absent",))
    (tmp_path / "run").mkdir()
    log = EventLog(tmp_path / "run")
    log.emit("metrics", "", {"step": 1, "train_loss": 4.0})
    log.emit("metrics", "", {"step": 2, "train_loss": math.nan, "valid_loss": 3.5})
    log.emit("metrics", "", {"step": 1, "full_valid_loss": 3.0})
    ran(config, tmp_path, losses={"base": 1000.0, "candidate": math.nan})

    def refuse(name: str) -> Any:
        raise AssertionError(f"{name} is no JSON")

    text = (tmp_path / "run" / "evaluation.json").read_text()
    found = json.loads(text, parse_constant=refuse)
    assert found["metrics"]["loss"]["versions"]["candidate"]["value"] is None
    assert found["metrics"]["perplexity"]["versions"]["base"]["value"] is None
    assert found["gate"]["passed"] is False
    assert len(found["gate"]["rules"]) == len(config.evaluation.gate)
    assert found["curve"] == [
        {"step": 1, "train": 4.0, "validation": 3.0},
        {"step": 2, "train": None, "validation": 3.5},
    ]
    assert "Loss while training" in (tmp_path / "run" / "report.html").read_text()


def test_the_same_run_gives_the_same_report(model: Path, tmp_path: Path) -> None:
    config = configured(model, tmp_path, rows(), forgetting="builtin")
    ran(config, tmp_path)
    run = tmp_path / "run"
    before = {path.name: path.read_bytes() for path in run.rglob("*.[mhs]*") if path.is_file()}
    ran(config, tmp_path)
    assert {"report.md", "report.html", "loss.svg", "shares.svg"} <= set(before)
    for path in run.rglob("*.[mhs]*"):
        if path.is_file():
            assert path.read_bytes() == before[path.name]
