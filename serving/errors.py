"""Errors of the serving stack.

CorralError (Exception)
├── StartError            the stack could not start; message = cause + one line of advice
├── ModelUnavailable      weights cannot be found or prepared
├── AdapterRefused        an adapter fails a check; the engine is unharmed
├── AdapterNotFound       (also LookupError) no such adapter or version
├── PoolBusy              no replica can take the request now; carries retry_after_s
├── PoolUnavailable       no healthy replica
├── CannotSleep           the engine cannot leave its GPU to a fine-tuning job
├── EngineStalled         the engine makes no forward progress
├── BatcherClosed         (engines/batching.py) the engine stops before it took the request
└── RequestError          (engines/pooling_api.py) a request the engine answers with 4xx
"""

from __future__ import annotations


class CorralError(Exception):
    """Base of every error that corral raises on purpose."""


class StartError(CorralError):
    """The stack could not start. `advice` is one line on how to mend it."""

    def __init__(self, cause: str, advice: str) -> None:
        super().__init__(f"{cause}\n{advice}")
        self.cause = cause
        self.advice = advice


class ModelUnavailable(CorralError):
    """A model's weights cannot be found, downloaded or prepared."""


class AdapterRefused(CorralError):
    """An adapter failed a check before it reached the engine."""


class AdapterNotFound(CorralError, LookupError):
    """No adapter of that name, or no such version of it."""


class PoolBusy(CorralError):
    """Every replica is at its limit. `retry_after_s` is an estimate from the load."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class PoolUnavailable(CorralError):
    """No replica of the model is alive."""


class EngineStalled(CorralError):
    """The engine has requests but produces nothing."""


class CannotSleep(CorralError):
    """The engine has no way to give its memory back for a while."""
