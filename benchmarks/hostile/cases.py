"""Runs schemathesis against a stack and counts: cases, failures, replicas that went.

Schemathesis generates requests from the document: valid ones, ones that break it in every
field, boundary values, and sequences along the document's links. Any 5xx, any status, type
or answer that the document does not name is a failure.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
)
_REPLICA = re.compile(r'replica="([^"]+)"')


@dataclass(frozen=True)
class Tally:
    """Of one run, or of several."""

    cases: int = 0
    failures: int = 0
    seconds: float = 0.0
    output: str = ""
    """What schemathesis printed, for whoever wants to know what failed."""

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.cases + other.cases,
            self.failures + other.failures,
            self.seconds + other.seconds,
            self.output + other.output,
        )


def attack(url: str, *, key: str, seed: int, examples: int, phases: Sequence[str] = ()) -> Tally:
    """One run: `examples` generated requests an operation, besides the fixed boundary values.

    Raises RuntimeError when schemathesis itself fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json"),
            *("--header", f"Authorization: Bearer {key}", "--checks", ",".join(CHECKS)),
            *("--mode", "all", "--seed", str(seed), "--max-examples", str(examples)),
            *("--continue-on-failure", "--no-shrink", "--no-color", "--warnings", "off"),
            *("--suppress-health-check", "all", "--generation-database", "none"),
            *("--request-timeout", "60", "--report-json-path", str(report)),
        ]
        if phases:
            command += ["--phases", ",".join(phases)]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if not report.exists():
            raise RuntimeError(f"schemathesis did not run:\n{done.stdout}\n{done.stderr}")
        result = json.loads(report.read_text(encoding="utf-8"))
    counted = result["test_cases"]
    return Tally(
        counted["generated"],
        counted["with_failures"] + counted["errored"] + result["operations"]["errored"],
        result["running_time"],
        done.stdout,
    )


def replicas(url: str, key: str) -> set[str]:
    """Names of the engine replicas, as the stack's metrics tell them apart."""
    headers = {"authorization": f"Bearer {key}"}
    answer = httpx.get(f"{url}/metrics", headers=headers, timeout=30.0).raise_for_status()
    return set(_REPLICA.findall(answer.text))
