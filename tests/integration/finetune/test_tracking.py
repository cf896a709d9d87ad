"""Runs in MLflow: in a local store, on a real server, and when there is none."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from finetune.config import FinetuneConfig
from finetune.events import Event
from finetune.summary import Gate, Summary
from finetune.tracking import LINK, Tracker

mlflow: Any = pytest.importorskip("mlflow")


def config_for(uri: str | None) -> FinetuneConfig:
    return FinetuneConfig.model_validate(
        {
            "model": "tiny",
            "data": {"train": [{"kind": "file", "path": "rows.jsonl"}]},
            "tracking": {"mlflow": uri, "experiment": "tests"},
        }
    )


def steps(first: int, last: int) -> list[Event]:
    return [
        Event(1000.0 + i, "info", "metrics", "", {"step": i, "total_steps": 9, "train_loss": 1 / i})
        for i in range(first, last + 1)
    ]


def run_folder(path: Path) -> Path:
    (path / "adapter").mkdir(parents=True)
    (path / "adapter" / "lineage.json").write_text('{"data_hash": "sha256:abc"}')
    (path / "adapter" / "adapter_model.safetensors").write_text("weights")
    (path / "config.yaml").write_text("model: tiny\n")
    found = {
        "metrics": {"loss": {"versions": {"candidate": {"value": 0.5}}}},
        "shown": [{"prompt": "Who?", "reference": "Ada",
                   "answers": {"base": "?", "candidate": "Ada"}}],
    }  # fmt: skip
    (path / "evaluation.json").write_text(json.dumps(found))
    return path


SUMMARY = Summary(
    status="succeeded", steps=4, tokens_per_second=12.5, data_hash="sha256:abc",
    base_revision="sha256:def", code_version="0.1.0", gate=Gate(passed=True),
    seconds={"train": 3.0},
)  # fmt: skip


def track(tracker: Tracker, events: list[Event], summary: Summary = SUMMARY) -> str | None:
    for event in events:
        tracker(event)
    return tracker.finish(summary)


def assert_all_is_there(uri: str, run_id: str, *, weights: bool) -> None:
    client = mlflow.MlflowClient(tracking_uri=uri)
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "tiny-1"
    assert run.data.params["lora.rank"] == "16"
    assert run.data.params["train.learning_rate"] == "0.0002"
    tags = run.data.tags
    assert (tags["data_hash"], tags["code_version"], tags["gate"]) == (
        "sha256:abc", "0.1.0", "passed",
    )  # fmt: skip
    curve = client.get_metric_history(run_id, "train_loss")
    assert [(point.step, point.value) for point in curve] == [(i, 1 / i) for i in range(1, 5)]
    assert run.data.metrics["tokens_per_second"] == 12.5
    assert run.data.metrics["eval_loss"] == 0.5
    (data,) = run.inputs.dataset_inputs
    assert data.dataset.digest == "abc"
    files = {each.path for each in client.list_artifacts(run_id)}
    assert files >= {"config.yaml", "evaluation.json", "samples.json", "adapter"}
    held = {each.path for each in client.list_artifacts(run_id, "adapter")}
    assert ("adapter/adapter_model.safetensors" in held) is weights


def test_a_local_store_has_everything(tmp_path: Path) -> None:
    said: list[str] = []
    folder = run_folder(tmp_path / "runs" / "tiny-1")
    run_id = track(Tracker(config_for(None), folder, tmp_path / "runs", said.append), steps(1, 4))
    assert said == []
    assert run_id is not None
    uri = f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}"
    assert_all_is_there(uri, run_id, weights=False)


def test_a_resumed_run_goes_on_in_the_same_one(tmp_path: Path) -> None:
    said: list[str] = []
    folder = run_folder(tmp_path / "runs" / "tiny-1")
    config, runs = config_for(None), tmp_path / "runs"
    stopped = Summary(status="interrupted", steps=2)
    first = track(Tracker(config, folder, runs, said.append), steps(1, 2), stopped)
    second = track(Tracker(config, folder, runs, said.append), steps(3, 4))
    assert said == []
    assert first is not None
    assert first == second
    assert json.loads((folder / LINK).read_text())["run_id"] == first
    assert_all_is_there(f"sqlite:///{runs / 'mlflow.db'}", first, weights=False)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A real MLflow server, a child process on a free port."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [
        sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1",
        "--backend-store-uri", f"sqlite:///{tmp_path / 'server.db'}",
        "--artifacts-destination", str(tmp_path / "artifacts"),
    ]  # fmt: skip
    env = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (tmp_path / "server.log").open("wb") as log:
        child = subprocess.Popen(
            command, stdout=log, stderr=log, env=env, cwd=tmp_path, start_new_session=True
        )
        try:
            _await(url, child, tmp_path / "server.log")
            yield url
        finally:
            os.killpg(child.pid, 15)
            child.wait(30)


def _await(url: str, child: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(480):
        assert child.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.25)
    raise AssertionError(log.read_text())


def test_a_server_has_everything_and_the_weights(server: str, tmp_path: Path) -> None:
    said: list[str] = []
    folder = run_folder(tmp_path / "runs" / "tiny-1")
    run_id = track(Tracker(config_for(server), folder, tmp_path / "runs", said.append), steps(1, 4))
    assert said == []
    assert run_id is not None
    assert_all_is_there(server, run_id, weights=True)
    assert not (tmp_path / "runs" / "mlflow.db").exists()


def test_a_server_that_is_not_there_is_warned_of_once(tmp_path: Path) -> None:
    said: list[str] = []
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{held.getsockname()[1]}"
        folder = run_folder(tmp_path / "runs" / "tiny-1")
        tracker = Tracker(config_for(uri), folder, tmp_path / "runs", said.append)
        assert track(tracker, steps(1, 4)) is None
    assert len(said) == 1
    assert said[0].startswith(f"MLflow ({uri}) failed: ")
    assert "The run goes on" in said[0]
