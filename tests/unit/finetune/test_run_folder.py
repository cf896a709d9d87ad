"""A run's folder, its events, its summary and how progress is shown."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import pytest

from configs import parse
from finetune.base_model import base_revision
from finetune.config import FinetuneConfig
from finetune.errors import ModelUnavailable, RunConflict
from finetune.events import Event, EventLog, read_events
from finetune.export import export_adapter
from finetune.progress import ProgressView
from finetune.result import write_results
from finetune.run_folder import RunFolder, new_folder
from finetune.summary import RunError, Summary, load_summary, save_summary


def config(**settings: object) -> FinetuneConfig:
    return parse(FinetuneConfig, {"model": "m", **settings})


def test_folders_are_numbered(tmp_path: Path) -> None:
    names = [new_folder(tmp_path / "runs", "mine").name for _ in range(3)]
    assert names == ["mine-1", "mine-2", "mine-3"]


def test_a_folder_is_taken_up_again_only_with_the_same_settings(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.start(config(seed=3))
    run.start(config(seed=3))
    with pytest.raises(RunConflict, match=r"other settings \(seed, lora\)"):
        run.start(config(lora={"rank": 8}))
    run.config.write_text("model: [")
    with pytest.raises(RunConflict, match="cannot be read"):
        run.start(config())


def test_two_processes_do_not_share_a_folder(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    with run.locked(), pytest.raises(RunConflict, match="another process"), run.locked():
        pass
    with run.locked():
        pass


def test_only_whole_checkpoints_count(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert run.steps() == []
    for name in ("step-20", "step-3", ".step-30.part", "step-x", ".step-2.old"):
        (run.checkpoints / name).mkdir(parents=True)
    assert run.steps() == [3, 20]


def test_events_are_read_on_from_where_reading_ended(tmp_path: Path) -> None:
    seen: list[Event] = []
    assert read_events(tmp_path).events == ()
    log = EventLog(tmp_path, seen.append)
    log.emit("metrics", "step 1", {"train_loss": math.nan, "deep": [math.inf, {"x": 1.5}]})
    first = read_events(tmp_path)
    assert first.events == tuple(seen)
    assert first.events[0].data == {"train_loss": None, "deep": [None, {"x": 1.5}]}
    with (tmp_path / "events.jsonl").open("a") as file:
        file.write('{"at": 1, "le')
    assert read_events(tmp_path, first.after) == type(first)((), first.after)
    EventLog(tmp_path).state("failed", {"code": "bad_data", "message": "no", "param": None})
    (last,) = read_events(tmp_path, first.after).events
    assert (last.level, last.type, last.message) == ("error", "state", "failed: no")
    assert last.data["error"]["code"] == "bad_data"


def test_a_summary_comes_back_as_it_was(tmp_path: Path) -> None:
    assert load_summary(tmp_path) is None
    error = RunError(code="bad_data", message="row 3", param="data")
    summary = Summary(status="failed", error=error, metrics={"train_loss": 1.5})
    save_summary(tmp_path, summary)
    assert load_summary(tmp_path) == summary
    (tmp_path / "summary.json").write_text("{")
    assert load_summary(tmp_path) is None


def test_results_have_the_columns_of_openais_files(tmp_path: Path) -> None:
    held_out = {"full_valid_loss": 0.25, "valid_mean_token_accuracy": 1.0}
    step = {"step": 2, "train_loss": 0.5, "train_mean_token_accuracy": 0.75}
    write_results(tmp_path, [{"step": 1, "train_loss": 1.0}, step | held_out])
    assert (tmp_path / "result.csv").read_text().splitlines() == [
        "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy",
        "1,1.000000,,,",
        "2,0.500000,0.750000,0.250000,1.000000",
    ]


def test_an_exported_adapter_is_whole_and_never_changed(tmp_path: Path) -> None:
    source = tmp_path / "step-1"
    source.mkdir()
    (source / "weights").write_text("first")
    target = export_adapter(source, tmp_path / "adapter", {"data_hash": "x"})
    (source / "weights").write_text("second")
    export_adapter(source, target, {"data_hash": "y"})
    assert (target / "weights").read_text() == "first"
    assert json.loads((target / "lineage.json").read_text())["data_hash"] == "x"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["adapter", "step-1"]


def test_a_base_model_is_known_by_its_weights(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match=r"no \*.safetensors"):
        base_revision(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"one")
    first = base_revision(tmp_path)
    assert first.startswith("sha256:")
    manifest = {"files": {"model.safetensors": {"size": 3, "sha256": "of the manifest"}}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    assert base_revision(tmp_path) != first, "the manifest is believed"
    weights.write_bytes(b"longer")
    (tmp_path / "manifest.json").unlink()
    by_content = base_revision(tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    assert base_revision(tmp_path) == by_content, "unless the file is another"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def metrics(step: int, **more: float) -> Event:
    data = {"tokens_per_second": 1234.4, "eta_s": 3723, "peak_memory_bytes": 3 << 30, **more}
    return Event(0.0, "info", "metrics", f"step {step}/9: loss 0.5000", data)


def test_a_terminal_has_one_line_and_a_file_has_plain_ones() -> None:
    for out, wanted in (
        (
            Terminal(),
            "running\n\r\x1b[Kstep 1/9: loss 0.5000  1,234 tokens/s  1:02:03 left  3.0 GiB"
            "\r\x1b[Kstep 2/9: loss 0.5000  1,234 tokens/s  1:02:03 left  3.0 GiB\nwarn: slow\n",
        ),
        (
            io.StringIO(),
            "running\nstep 1/9: loss 0.5000  1,234 tokens/s  1:02:03 left  3.0 GiB\nwarn: slow\n",
        ),
    ):
        view = ProgressView(out)
        for event in (Event(0.0, "info", "state", "running"), metrics(1), metrics(2)):
            view(event)
        view(Event(0.0, "warn", "message", "slow"))
        assert out.getvalue() == wanted
