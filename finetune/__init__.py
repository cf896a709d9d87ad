"""Fine-tuning of adapters: data → train → evaluate → export.

A library and a command of its own; it knows nothing of serving.

    result = finetune.run(config, "runs/mine")      # or: python -m finetune run
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from finetune.pipeline import RunResult, run

__all__ = ["RunResult", "run"]


def __getattr__(name: str) -> Any:
    """The pipeline is loaded when it is asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from finetune import pipeline

    return getattr(pipeline, name)
