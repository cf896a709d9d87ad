"""The one file that imports MLflow: one run in a tracking store or on a server.

Every method may be called again after it failed, or by a later process on the same run: MLflow
keeps one of equal parameters, tags and points of a curve.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from finetune.errors import MissingExtra
from finetune.events import Event

_FILES = (
    "config.yaml", "summary.json", "result.csv", "evaluation.json", "report.md", "report.html",
    "card.json", "card.md", "adapter/lineage.json", "adapter/adapter_config.json",
)  # fmt: skip
_FOLDERS = ("plots",)
_WEIGHTS = "adapter/adapter_model.safetensors"
_MAX_VALUE = 6000
_BATCH_METRICS, _BATCH_PARAMETERS = 500, 100
_MAX_DIGEST = 36
_STATUS = {"succeeded": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}


class MlflowRun:
    """One run. Raises what MLflow raises."""

    def __init__(self, uri: str, experiment: str, name: str, artifacts: Path | None) -> None:
        """`artifacts` is where a store without a server keeps files."""
        self._client = _client(uri)
        self._experiment = self._find_experiment(experiment, artifacts)
        self._name = name
        self._is_server = uri.startswith(("http://", "https://"))
        self.run_id = ""

    def open(self, run_id: str | None, tags: Mapping[str, str]) -> str:
        """Go on with the run `run_id`, or begin one; its id."""
        if run_id is not None and self._is_there(run_id):
            self.run_id = run_id
            self._client.update_run(run_id, status="RUNNING")
        else:
            created = self._client.create_run(self._experiment, tags=dict(tags))
            self.run_id = created.info.run_id
            self._client.set_tag(self.run_id, "mlflow.runName", self._name)
        return self.run_id

    def parameters(self, values: Mapping[str, Any]) -> None:
        """A nested configuration, flattened to dotted names."""
        from mlflow.entities import Param

        found = [Param(name, value[:_MAX_VALUE]) for name, value in _flat(values)]
        for start in range(0, len(found), _BATCH_PARAMETERS):
            part = found[start : start + _BATCH_PARAMETERS]
            self._client.log_batch(self.run_id, params=part)

    def tags(self, values: Mapping[str, str]) -> None:
        """Set them, over earlier ones."""
        for name, value in values.items():
            self._client.set_tag(self.run_id, name, value)

    def data_set(self, name: str, digest: str, sources: Sequence[str]) -> None:
        """What was trained on, by its content hash."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        digest = digest.removeprefix("sha256:")[:_MAX_DIGEST]
        source = json.dumps({"sources": list(sources)})
        data = Dataset(name[:500], digest, "local", source)
        context = [InputTag("mlflow.data.context", "training")]
        self._client.log_inputs(self.run_id, [DatasetInput(data, context)])

    def curves(self, events: Sequence[Event]) -> None:
        """The numbers of metric events, at their steps and times."""
        from mlflow.entities import Metric

        found = [
            Metric(name, float(value), round(event.at * 1000), int(event.data["step"]))
            for event in events
            for name, value in event.data.items()
            if name not in ("step", "total_steps") and isinstance(value, int | float)
        ]
        for start in range(0, len(found), _BATCH_METRICS):
            part = found[start : start + _BATCH_METRICS]
            self._client.log_batch(self.run_id, metrics=part)

    def files(self, folder: Path) -> None:
        """What a run's folder holds for people; the adapter's weights go to servers only, since
        a local store would keep them a second time on the same disk."""
        weights = (_WEIGHTS,) if self._is_server else ()
        for name in (*_FILES, *weights):
            if (path := folder / name).is_file():
                parent = Path(name).parent.as_posix()
                self._client.log_artifact(self.run_id, str(path), None if parent == "." else parent)
        for name in _FOLDERS:
            if (folder / name).is_dir():
                self._client.log_artifacts(self.run_id, str(folder / name), name)

    def samples(self, rows: Sequence[Mapping[str, str]]) -> None:
        """Prompts and answers, as the table that MLflow's pages show."""
        columns = list(dict.fromkeys(name for row in rows for name in row))
        data = [[row.get(name, "") for name in columns] for row in rows]
        self._client.log_dict(self.run_id, {"columns": columns, "data": data}, "samples.json")
        kept = json.dumps([{"path": "samples.json", "type": "table"}])
        self._client.set_tag(self.run_id, "mlflow.loggedArtifacts", kept)

    def numbers(self, values: Mapping[str, float], at: float) -> None:
        """Figures of the whole run, at `at` (seconds since 1970)."""
        from mlflow.entities import Metric

        found = [Metric(name, value, round(at * 1000), 0) for name, value in values.items()]
        self._client.log_batch(self.run_id, metrics=found)

    def close(self, status: str) -> None:
        """End the run as `succeeded`, `failed` or `interrupted`."""
        self._client.set_terminated(self.run_id, _STATUS.get(status, "FAILED"))

    def _find_experiment(self, name: str, artifacts: Path | None) -> str:
        from mlflow.exceptions import MlflowException

        found = self._client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        location = None if artifacts is None else artifacts.absolute().as_uri()
        try:
            return str(self._client.create_experiment(name, artifact_location=location))
        except MlflowException:
            # Another run began it just now.
            found = self._client.get_experiment_by_name(name)
            if found is None:
                raise
            return str(found.experiment_id)

    def _is_there(self, run_id: str) -> bool:
        from mlflow.exceptions import MlflowException

        try:
            return bool(self._client.get_run(run_id).info.lifecycle_stage == "active")
        except MlflowException as exc:
            if exc.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise


def _client(uri: str) -> Any:
    # MLflow's own reports to its makers, and minutes of retries, are nothing for a training run.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    try:
        from mlflow.tracking import MlflowClient
    except ImportError as exc:
        raise MissingExtra(
            f"MLflow cannot be imported ({exc}): pip install 'corral[finetune]', or set "
            "tracking.enabled to false"
        ) from exc
    logging.getLogger("alembic").setLevel(logging.WARNING)
    _hush_sqlalchemy()
    with _one_at_a_time(uri):
        client = MlflowClient(tracking_uri=uri)
        client.search_experiments(max_results=1)
        return client


def _hush_sqlalchemy() -> None:
    """MLflow's own queries are in a style that SQLAlchemy 2.1 warns of."""
    with suppress(ImportError):
        from sqlalchemy.exc import SADeprecationWarning

        warnings.filterwarnings("ignore", category=SADeprecationWarning)


@contextmanager
def _one_at_a_time(uri: str) -> Iterator[None]:
    """Two processes that make the tables of one SQLite file at once would fail."""
    path = uri.removeprefix("sqlite:///")
    if path == uri:
        yield
        return
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        with suppress(OSError):
            os.close(handle)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        path = f"{prefix}{name}"
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{path}.")
        else:
            plain = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            yield path, plain
