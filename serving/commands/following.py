"""A job's events as lines, the oldest first, until the job is over."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from serving.commands.client import call
from serving.home import Home

OVER = ("succeeded", "failed", "cancelled")
POLL_S = 1.0
PAGE = 100


def follow(home: Home, url: str | None, id: str, *, once: bool = False) -> Iterator[str]:
    """Lines of what has happened and, unless `once`, of what happens. Raises CorralError."""
    seen: str | None = None
    while True:
        job = call(home, url, "GET", f"/v1/fine_tuning/jobs/{id}")
        for event in _since(home, url, id, seen):
            seen = event["id"]
            yield line(event)
        if once or job["status"] in (*OVER, "paused"):
            return
        time.sleep(POLL_S)


def line(event: dict[str, Any]) -> str:
    """One event for people: time, words, and the numbers that the words leave out."""
    at = time.strftime("%H:%M:%S", time.localtime(event["created_at"]))
    mark = {"info": "", "warn": "warning: ", "error": "error: "}[event["level"]]
    data = event["data"] or {}
    more = []
    if event["type"] == "metrics":
        for name, words in _NUMBERS:
            value = data.get(name)
            if isinstance(value, int | float):
                more.append(words.format(value))
        if isinstance(data.get("eta_s"), int | float):
            more.append(f"{_duration(data['eta_s'])} left")
        if isinstance(data.get("peak_memory_bytes"), int | float):
            more.append(f"{data['peak_memory_bytes'] / 2**30:.1f} GiB")
    return " · ".join([f"{at} {mark}{event['message']}", *more])


_NUMBERS = (("valid_loss", "validation {:.3f}"), ("tokens_per_second", "{:,.0f} tokens/s"))


def _since(home: Home, url: str | None, id: str, seen: str | None) -> list[dict[str, Any]]:
    """Events newer than `seen`, the oldest first."""
    found: list[dict[str, Any]] = []
    after: str | None = None
    while True:
        params: dict[str, Any] = {"limit": PAGE} | ({"after": after} if after else {})
        page = call(home, url, "GET", f"/v1/fine_tuning/jobs/{id}/events", params=params)
        for event in page["data"]:
            if event["id"] == seen:
                return found[::-1]
            found.append(event)
        if not page["has_more"]:
            return found[::-1]
        after = found[-1]["id"]


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
