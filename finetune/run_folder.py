"""A run's folder: where things are, which config it was started with. Loads nothing heavy."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from configs import ConfigError, load
from finetune.config import FinetuneConfig
from finetune.errors import RunConflict

_STEP = re.compile(r"step-(\d+)")


@dataclass(frozen=True)
class RunFolder:
    """Paths of one run."""

    path: Path

    @property
    def config(self) -> Path:
        """The whole resolved configuration."""
        return self.path / "config.yaml"

    @property
    def checkpoints(self) -> Path:
        """Holds `step-<N>` folders, each whole."""
        return self.path / "checkpoints"

    @property
    def adapter(self) -> Path:
        """The exported adapter; there once the run is done."""
        return self.path / "adapter"

    def checkpoint(self, step: int) -> Path:
        """The folder of one checkpoint."""
        return self.checkpoints / f"step-{step}"

    def steps(self) -> list[int]:
        """Steps that have a whole checkpoint, ascending."""
        if not self.checkpoints.is_dir():
            return []
        found = [_STEP.fullmatch(each.name) for each in self.checkpoints.iterdir()]
        return sorted(int(match[1]) for match in found if match)

    def start(self, config: FinetuneConfig) -> None:
        """Create the folder for `config`, or make sure that it holds a run of the same.

        Raises RunConflict.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        if not self.config.exists():
            write_whole(self.config, dump(config))
            return
        try:
            held = load(FinetuneConfig, self.config)
        except ConfigError as exc:
            raise RunConflict(
                f"{self.config} cannot be read, so the run cannot be resumed: {exc}. "
                "Name another folder with --run"
            ) from exc
        if held != config:
            raise RunConflict(
                f"{self.path} holds a run with other settings ({_differences(held, config)}): "
                "name another folder with --run, or run it with the settings in its config.yaml"
            )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One process at a time works in the folder. Raises RunConflict where another does."""
        handle = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as exc:
                raise RunConflict(
                    f"another process is working in {self.path}: wait for it, or stop it"
                ) from exc
            yield
        finally:
            os.close(handle)


def dump(config: FinetuneConfig) -> str:
    """The configuration as YAML, every default included."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def new_folder(runs: Path, name: str) -> Path:
    """The next free `<name>-<n>` in `runs`, created."""
    runs.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        try:
            (found := runs / f"{name}-{number}").mkdir()
        except FileExistsError:
            number += 1
        else:
            return found


def write_whole(path: Path, text: str) -> None:
    """Write a file so that readers see the old or the new one, never a part."""
    part = path.with_name(f".{path.name}.part")
    with part.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def _differences(held: FinetuneConfig, wanted: FinetuneConfig) -> str:
    old, new = held.model_dump(mode="json"), wanted.model_dump(mode="json")
    return ", ".join(name for name in new if old.get(name) != new[name])
