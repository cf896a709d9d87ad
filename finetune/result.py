"""`result.csv`: the curves of a run, one line a step, as OpenAI's result files have them."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from finetune.run_folder import write_whole

RESULTS = "result.csv"
_COLUMNS = {
    "step": "step",
    "train_loss": "train_loss",
    "train_accuracy": "train_mean_token_accuracy",
    "valid_loss": "full_valid_loss",
    "valid_mean_token_accuracy": "valid_mean_token_accuracy",
}


def write_results(folder: Path, history: Sequence[Mapping[str, Any]]) -> None:
    """Write the metrics of every step, whole; a quantity not measured at a step is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for metrics in history:
        writer.writerow([_cell(metrics.get(name)) for name in _COLUMNS.values()])
    write_whole(folder / RESULTS, text.getvalue())


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6f}" if isinstance(value, float) else str(value)
