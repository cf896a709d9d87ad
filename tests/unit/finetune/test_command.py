"""`python -m finetune check`: its report and its exit status."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from finetune.__main__ import main
from finetune.base_model import find_model
from finetune.errors import TokenizerUnavailable
from tests.unit.finetune.data.test_check import row, write
from tests.unit.finetune.models import CHATML, LLAMA3, trained

ROOT = Path(__file__).parents[3]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model's folder, without weights."""
    folder = tmp_path / "model"
    folder.mkdir()
    Tokenizer.from_str(trained()).save(str(folder / "tokenizer.json"))
    settings = {"eos_token": {"content": "<|im_end|>"}, "bos_token": "<|begin_of_text|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"chat_template": CHATML}))
    return folder


@pytest.fixture
def good(tmp_path: Path) -> str:
    return write(tmp_path / "good.jsonl", [row(i) for i in range(30)]).path


def test_good_data_gives_a_card_and_status_0(
    model: Path, good: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "card"
    assert main(["check", good, "--model", str(model), "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert printed.out.rstrip("\n") == (out / "card.md").read_text().rstrip("\n")
    card = json.loads((out / "card.json").read_text())
    assert card["tokenizer"] == str(model)
    assert card["tokens"]["train"]["trainable_tokens"] > 0
    assert main(["check", good, "--model", str(model), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == card


def test_bad_rows_are_all_printed_and_no_tokenizer_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "model"
    broken.mkdir()
    (broken / "tokenizer.json").write_text("not a tokenizer")
    rows = [row("a"), {"messages": []}, row("b"), {"messages": 3}]
    path = write(tmp_path / "bad.jsonl", rows).path
    arguments = ["check", path, "--model", str(broken), "--set", "data.min_examples=2"]
    assert main(arguments) == 1
    assert capsys.readouterr().err.splitlines() == [
        f"{path}, row 2: messages: is empty",
        f"{path}, row 4: messages: must be a list of messages, not a number",
        "faults: 2, all listed; rows or files: 2",
    ]


def test_over_long_rows_give_status_1(
    model: Path, good: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["check", good, "--model", str(model), "--set", "data.max_length=4"]
    assert main(arguments) == 1
    assert capsys.readouterr().err.count("more than data.max_length 4") == 30


def test_a_template_of_ones_own_replaces_the_models(
    model: Path, good: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def tokens(*more: str) -> int:
        assert main(["check", good, "--model", str(model), "--json", *more]) == 0
        return int(json.loads(capsys.readouterr().out)["tokens"]["train"]["tokens"])

    template = tmp_path / "own.jinja"
    template.write_text(LLAMA3)
    assert tokens("--set", f"data.chat_template={template}") > tokens()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["none.jsonl"], "cannot read none.jsonl: No such file"),
        (["x", "--model", "/nowhere"], "no model '/nowhere'"),
        (["x", "--set", "data.max_lenght=3"], "did you mean 'max_length'"),
        (["x", "--config", "none.yaml"], "cannot read the configuration none.yaml"),
        (
            ["x", "--set", "data.chat_template_kwargs={tools: 1}"],
            "chat_template_kwargs cannot set tools: the data does",
        ),
    ],
)
def test_what_cannot_be_read_gives_status_2(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", *arguments]) == 2
    assert words in capsys.readouterr().err


def test_formats_and_validation_files_can_be_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"instruction": f"{i}", "output": "A", "messages": "notes"} for i in range(12)]
    train = write(tmp_path / "train.jsonl", rows[:10]).path
    held = write(tmp_path / "held.jsonl", rows[10:]).path
    given = ["check", train, "--validation", held, "--format", "alpaca", "--no-tokens", "--json"]
    assert main(given) == 0
    card = json.loads(capsys.readouterr().out)
    assert card["examples"] == {"train": 10, "validation": 2}


def test_a_model_is_a_folder_or_a_name(model: Path) -> None:
    assert find_model("model", model.parent) == model
    assert find_model(str(model), Path("/nowhere")) == model
    with pytest.raises(TokenizerUnavailable, match="prepare the built-in model"):
        find_model("other", model.parent)


def test_it_runs_as_a_command_without_a_prepared_model(tmp_path: Path, good: str) -> None:
    env = {**os.environ, "CORRAL_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "finetune", "check", good]
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "tokens are not counted: no model 'smollm2-135m'" in done.stderr
    assert done.stdout.startswith("# Data card")
