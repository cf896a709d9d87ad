"""Builds the embedded index's graph in a child process, on a copy of the shard.

The engine holds Python's interpreter lock while it builds, minutes for 100,000 chunks, which would
stop a server: so `python -m rag.index.edge_optimize FOLDER` does it, and the index adopts the copy.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from rag.errors import IndexUnavailable

if TYPE_CHECKING:
    from rag.index.edge import EdgeIndex

__all__ = ["Optimizer"]

_log = logging.getLogger(__name__)


class Optimizer:
    """Runs at most one build at a time."""

    def __init__(self, index: EdgeIndex) -> None:
        self._index = index
        self._busy = threading.Lock()
        self._thread: threading.Thread | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._stopping = False

    def consider(self) -> None:
        """Begin a build in the background if enough was added and none is under way."""
        index = self._index
        if self._busy.locked() or index.outside_graph < index._config.optimize_after:
            return
        self._thread = threading.Thread(target=self._quietly, name="rag-optimize", daemon=True)
        self._thread.start()

    def run(self) -> None:
        """Build now. Raises IndexUnavailable if the child fails."""
        with self._busy:
            if self._stopping or self._index.outside_graph == 0:
                return
            target = self._index._files.next_shard()
            with self._index.copied(target):
                self._build(target)
                if not self._stopping:
                    self._index.adopt(target)

    def stop(self) -> None:
        """End a build that is under way, without effect."""
        self._stopping = True
        if (child := self._child) is not None:
            child.terminate()
        if self._thread is not None:
            self._thread.join()

    def _build(self, target: Path) -> None:
        command = [sys.executable, "-m", "rag.index.edge_optimize", str(target)]
        path = os.pathsep.join(filter(None, [_import_root(), os.environ.get("PYTHONPATH")]))
        self._child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
        )  # fmt: skip
        _, errors = self._child.communicate()
        status, self._child = self._child.returncode, None
        if status and not self._stopping:
            raise IndexUnavailable(
                f"building the graph of {self._index.path} failed (exit status {status}); searches "
                f"stay exact, and slower: {errors.decode(errors='replace')[-500:]}"
            )

    def _quietly(self) -> None:
        try:
            self.run()
        except IndexUnavailable as exc:
            _log.warning("%s", exc)


def _import_root() -> str:
    return str(Path(__file__).parents[2])


def main(folder: str) -> None:
    """The child: optimise the shard in `folder`."""
    import qdrant_edge

    shard = qdrant_edge.EdgeShard.load(folder)
    shard.optimize()
    shard.flush()
    shard.close()


if __name__ == "__main__":
    main(sys.argv[1])
