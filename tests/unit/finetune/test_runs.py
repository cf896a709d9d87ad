"""Lists, logs and comparisons of run folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune.__main__ import COMMANDS, main
from finetune.comparison import compare
from finetune.errors import RunNotFound
from finetune.events import EventLog
from finetune.run_folder import RunFolder
from finetune.runs import find_run, find_runs, view
from finetune.summary import Gate, Summary, save_summary


def run_at(
    folder: Path, losses: list[float], state: Any = "succeeded", rank: int = 16, data: str = "one"
) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({"model": "m", "lora": {"rank": rank}}))
    log = EventLog(folder)
    log.state("running")
    for step, loss in enumerate(losses, start=1):
        found = {"step": step, "total_steps": 9, "train_loss": loss, "full_valid_loss": loss + 1}
        log.emit("metrics", f"step {step}/9", found)
    log.state(state)
    gate = Gate(passed=False, reasons=("too high",))
    status = state if state in ("succeeded", "failed", "interrupted") else "running"
    save_summary(
        folder,
        Summary(
            status=status, steps=len(losses), data_hash=data, gate=gate, tokens_per_second=2.5e3
        ),
    )
    return folder


def evaluated(folder: Path, f1: float, loss: float) -> Path:
    metrics = {
        "loss": {"higher_is_better": False, "versions": {"candidate": {"value": loss}}},
        "token_f1": {"higher_is_better": True, "versions": {"candidate": {"value": f1}}},
    }
    gate = {"passed": True, "reasons": [], "rules": [{"rule": {"metric": "token_f1"}}]}
    (folder / "evaluation.json").write_text(json.dumps({"metrics": metrics, "gate": gate}))
    return folder


def test_runs_and_trials_are_listed_newest_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_at(tmp_path / "m-1", [2.0, 1.0])
    run_at(tmp_path / "m-sweep-1" / "trial-0", [2.0], "failed")
    (tmp_path / "mlflow-artifacts").mkdir()
    assert [each.folder.name for each in find_runs(tmp_path)] == ["trial-0", "m-1"]
    assert main(["list", str(tmp_path)]) == 0
    head, first, second = capsys.readouterr().out.splitlines()
    assert head.split() == [
        "run", "state", "step", "loss", "validation", "tokens/s", "precision", "gate",
    ]  # fmt: skip
    assert first.split()[:3] == ["m-sweep-1/trial-0", "failed", "1/9"]
    assert second.split() == ["m-1", "succeeded", "2/9", "1", "2", "2500", "–", "failed"]
    assert main(["list", str(tmp_path / "none")]) == 0
    assert "no runs in" in capsys.readouterr().out


def test_a_run_whose_process_is_gone_was_killed(tmp_path: Path) -> None:
    folder = run_at(tmp_path / "m-1", [2.0], "running")
    assert view(folder).state == "killed"
    with RunFolder(folder).locked():
        assert view(folder).state == "running"


def test_logs_follow_to_the_end_of_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run_at(tmp_path / "m-1", [2.0, 1.0])
    assert main(["logs", "-f", "-n", "2", str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[1] for line in lines] == ["step 2/9", "succeeded"]
    assert main(["logs", "-f", "--json", str(run_at(tmp_path / "m-2", [2.0], "running"))]) == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert json.loads(last)["data"] == {"state": "running", "error": None}


def test_a_run_is_found_by_name_or_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORRAL_HOME", str(tmp_path))
    folder = run_at(tmp_path / "runs" / "m-1", [1.0])
    assert find_run("m-1") == find_run(str(folder)) == folder
    with pytest.raises(RunNotFound, match="no run 'm-2'"):
        find_run("m-2")


def test_comparison_shows_what_differs_and_judges_by_the_gates_metric(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a = evaluated(run_at(tmp_path / "a", [2.0, 1.0]), f1=0.9, loss=1.5)
    b = evaluated(run_at(tmp_path / "b", [2.0, 0.5], rank=8), f1=0.8, loss=1.0)
    found = compare(a, b)
    assert found.settings == {"lora.rank": (16, 8)}
    ends = {each.name: each.difference for each in found.figures}
    assert ends["train_loss"] == ends["best_valid_loss"] == -0.5
    assert {each.name: each.difference for each in found.metrics} == {
        "loss": -0.5, "token_f1": pytest.approx(-0.1),
    }  # fmt: skip
    assert found.better == "A"
    assert main(["compare", str(a), str(b)]) == 0
    assert "A is better by token_f1: 0.9 (A), 0.8 (B)" in capsys.readouterr().out
    assert main(["compare", str(a), str(b), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["better"] == "A"


def test_without_evaluation_the_validation_loss_judges(tmp_path: Path) -> None:
    a, b = run_at(tmp_path / "a", [2.0, 1.0]), run_at(tmp_path / "b", [0.5, 3.0], data="other")
    found = compare(a, b)
    assert found.verdict == "B is better by best_valid_loss: 2 (A), 1.5 (B)"
    assert found.warnings == (
        "the data differs, and so may the held-out part: losses are not comparable",
    )
    none = run_at(tmp_path / "c", [])
    assert compare(a, none).verdict.startswith("which is better cannot be said")
    assert compare(a, a).verdict == "neither is better by best_valid_loss"


@pytest.mark.parametrize("name", [command.NAME for command in COMMANDS])
def test_every_command_teaches_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([name, "--help"])
    assert caught.value.code == 0
    assert f"python -m finetune {name}" in capsys.readouterr().out.partition("\n\n")[2]
