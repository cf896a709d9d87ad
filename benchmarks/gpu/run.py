"""Starts the measurement by its path, from any folder: `python benchmarks/gpu/run.py --list`."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    runpy.run_module("benchmarks.gpu", run_name="__main__")
