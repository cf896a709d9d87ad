"""`validating_files`: is the data sound? Asked before a job waits for hardware."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

from serving.errors import CorralError
from serving.finetuning.child import environment
from serving.finetuning.prepare import MissingFile, prepare_check
from serving.finetuning.shop import Shop
from serving.store.errors import StoreUnavailable
from serving.store.jobs import Job

MAX_MESSAGE = 16_384
"""Characters of a message; of more faults than fit, the number is said."""


async def validate(shop: Shop, job: Job) -> None:
    """Queue the job, or fail it with every fault by row. Raises StoreUnavailable."""
    try:
        config = await asyncio.to_thread(prepare_check, shop, job)
        found = await _look_through(shop, str(config))
    except MissingFile as exc:
        error = _error(exc.part, str(exc))
    except StoreUnavailable:
        raise
    except CorralError as exc:
        error = {"code": "cannot_train", "message": str(exc), "param": None}
    else:
        if found["error"] is None and not found["faults"]:
            await asyncio.to_thread(shop.jobs.validated, job.id)
            return
        error = _of_data(found)
    await asyncio.to_thread(shop.jobs.refuse, job.id, error)


async def _look_through(shop: Shop, config: str) -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "serving.finetuning.launch"),
        *("10", str(os.getpid()), sys.executable, "-P", "-m", "serving.finetuning.check", config),
        cwd=os.path.dirname(config),
        env=environment(shop.settings),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        output, words = await process.communicate()
    except asyncio.CancelledError:
        process.kill()
        raise
    if process.returncode != 0:
        last = words.decode(errors="replace").strip().rpartition("\n")[2]
        raise CorralError(f"the data could not be looked through: {last[:500]}")
    found: dict[str, Any] = json.loads(output)
    return found


def _of_data(found: dict[str, Any]) -> dict[str, Any]:
    if found["error"] is not None:
        return _error("training", found["error"])
    faults = found["faults"]
    in_validation = all(fault["source"] == "validation_file" for fault in faults)
    part = "validation" if in_validation else "training"
    lines, size = [], 0
    for fault in faults:
        lines.append(_line(fault, part))
        size += len(lines[-1]) + 1
        if size > MAX_MESSAGE:
            lines[-1] = f"and {len(faults) - len(lines) + 1} more"
            break
    return _error(part, "\n".join(lines))


def _line(fault: dict[str, Any], part: str) -> str:
    where = f"row {fault['row']}: " if fault["row"] else ""
    if fault["source"] != f"{part}_file":
        where = f"{fault['source']}, {where}" if where else f"{fault['source']}: "
    field = f"{fault['field']}: " if fault["field"] else ""
    return f"{where}{field}{fault['reason']}"


def _error(part: str, message: str) -> dict[str, Any]:
    return {"code": f"invalid_{part}_file", "message": message, "param": f"{part}_file"}
