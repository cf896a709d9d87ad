"""A home directory with adapters, for the tests of the store."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from serving.adapters import AdapterStore, AdapterVersion
from serving.config import EmbeddingConfig, FakeConfig, LoraConfig, ModelConfig, VllmConfig
from serving.home import Home
from tests.adapter_files import WEIGHTS, write_adapter, write_base


@dataclass
class Site:
    """A home directory with adapters for the models `tiny` and `other`."""

    root: Path
    adapters: dict[str, str] = field(default_factory=dict)
    max_rank: int = 8

    @property
    def home(self) -> Home:
        return Home(self.root)

    def store(self) -> AdapterStore:
        """A store with nothing remembered, as another process has."""
        lora = LoraConfig(max_loras=2, max_rank=self.max_rank)
        models = [
            ModelConfig(name="tiny", engine=VllmConfig(lora=lora), adapters=self.adapters),
            ModelConfig(name="other", source="org/other", engine=FakeConfig()),
            ModelConfig(name="plain", engine=VllmConfig()),
            ModelConfig(name="vectors", engine=EmbeddingConfig()),
        ]
        weights = {"tiny": write_base(self.root / "weights")}
        return AdapterStore(self.home, models, weights=weights, aliases={"tiny": ["org/tiny"]})

    def add(self, name: str, version: str, **options: Any) -> Path:
        return write_adapter(self.home.adapters / name / version, **options)


def row(store: AdapterStore, version: str, name: str = "pirate") -> AdapterVersion:
    """What the list says of one version."""
    [found] = [v for v in store.list() if (v.name, v.version) == (name, version)]
    return found


def overwrite(path: Path) -> None:
    """Put other weights into the files of a version."""
    write_adapter(path.with_name("3"), seed=7)
    (path / WEIGHTS).write_bytes((path.with_name("3") / WEIGHTS).read_bytes())
    shutil.rmtree(path.with_name("3"))


def replace(path: Path) -> None:
    """Put another directory in a version's place."""
    shutil.rmtree(path)
    write_adapter(path, seed=7)
