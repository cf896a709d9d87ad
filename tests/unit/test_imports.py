"""Imports go one way, and heavy modules stay in the leaves that need them."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("configs", "rag", "finetune", "benchmarks", "serving")
MAY_IMPORT = {
    "configs": set(),
    "rag": {"configs"},
    "finetune": {"configs"},
    # A library is measured as a library.
    "benchmarks": {"configs", "rag"},
    "serving": {"configs", "rag", "finetune"},
}
VLLM_FILES = {"serving/engines/vllm.py"}
RAY_FILES = {
    "serving/app.py",
    "serving/finetuning/ray_runner.py",
    "serving/ingress.py",
    "serving/loopback.py",
    "serving/private_cluster.py",
    "serving/ray_pool.py",
    "serving/replica.py",
    "serving/stack.py",
}
HEAVY = ("torch", "vllm", "ray", "bitsandbytes", "qdrant_client", "transformers")


def _sources(room: str) -> Iterator[Path]:
    return (ROOT / room).rglob("*.py")


def _imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_import_only_what_lies_below_them(room: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in _sources(room)
        for name in _imported(path)
        if name.split(".")[0] in set(ROOMS) - {room} - MAY_IMPORT[room]
    ]
    assert wrong == []


@pytest.mark.parametrize(("package", "files"), [("vllm", VLLM_FILES), ("ray", RAY_FILES)])
def test_heavy_packages_are_imported_only_by_named_files(package: str, files: set[str]) -> None:
    found = {
        str(path.relative_to(ROOT))
        for path in _sources("serving")
        for name in _imported(path)
        if name.split(".")[0] == package
    }
    assert found == files


@pytest.mark.parametrize(
    "module",
    ["serving.gateway.app", "serving.cli", "serving.supervisor", "serving.engines.fake",
     "serving.adapters", "serving.models", "serving.store.accounts", "serving.local_stack",
     "finetune.__main__", "finetune.data.card", "finetune.events", "finetune.summary",
     "finetune.pipeline", "finetune.train.schedule", "finetune.train.rates",
     "finetune.evaluation",
     "serving.finetuning.watch", "serving.finetuning.fake",
     "rag.__main__", "rag.ingest.pipeline", "serving.retrieval.worker",
     "serving.retrieval.library", "serving.retrieval.grounded",
     "benchmarks.client", "benchmarks.gpu.__main__", "benchmarks.gpu.step"],
)  # fmt: skip
def test_importing_it_loads_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print([m for m in {HEAVY!r} if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert result.stdout.strip() == "[]"
