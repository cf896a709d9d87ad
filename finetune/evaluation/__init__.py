"""Evaluation of a trained adapter, and the gate in front of the server. Knows no serving.

    require(config)                     # before training: is there what evaluation reads?
    found = evaluate(config, run_folder, run_folder / "adapter")
    found.gate.passed, found.gate.reasons

Base, live version and candidate share one copy of the weights. What was measured is in
`evaluation.json`; `report.md` and `report.html` show it.
"""

from finetune.evaluation.evaluator import evaluate, require
from finetune.evaluation.result import Evaluation

__all__ = ["Evaluation", "evaluate", "require"]
