"""Becomes another program, which then steps back behind serving and dies with its parent:

    python -m serving.finetuning.launch NICE PARENT_PID COMMAND...

The kernel ends it with SIGTERM when the thread that started it ends, whatever ended that.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Never returns."""
    nice, parent, *command = sys.argv[1:]
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):
        sys.exit(1)
    os.nice(int(nice))
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
