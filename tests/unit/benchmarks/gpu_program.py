"""A step's process that does as its task says: `settings.do` is one of the names below.

`hang` starts a process in a session of its own, and waits for ever. `once` fails the first
time, keeping a part, and then says what it was given of it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


def main() -> int:
    task = json.loads(Path(sys.argv[1]).read_text())
    settings = task["run"]["settings"]
    out = Path(task["out"])
    with (out / "calls").open("a") as calls:
        calls.write(settings["do"] + "\n")

    def found(status: str, result: dict[str, Any], cause: str = "") -> None:
        outcome = {"status": status, "cause": cause, "result": result}
        Path(sys.argv[2]).write_text(json.dumps(outcome))

    match settings["do"]:
        case "work":
            found("ok", {"value": 7, "engines": [engine["url"] for engine in task["engines"]]})
        case "lack":
            found("missing", {}, "no such library")
        case "die":
            print("the reason", flush=True)
            return 3
        case "hang":
            away = subprocess.Popen(["sleep", "600"], start_new_session=True)
            (out / "away").write_text(str(away.pid))
            found("partial", {"value": 1})
            time.sleep(600)
        case "once" if not task["partial"]:
            found("failed", {"value": 1}, "not yet")
            return 1
        case "once":
            found("ok", {"before": task["partial"]})
    return 0


if __name__ == "__main__":
    sys.exit(main())
