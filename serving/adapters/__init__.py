"""Adapter versions on disk: their names, the checks before one is served, live and disabled."""

from serving.adapters.base_model import BaseModel, ModelShape
from serving.adapters.checks import CheckedAdapter, Limits, check
from serving.adapters.listing import AdapterVersion
from serving.adapters.names import AdapterName, FineTunedName, version_key
from serving.adapters.store import AdapterStore

__all__ = [
    "AdapterName",
    "AdapterStore",
    "AdapterVersion",
    "BaseModel",
    "CheckedAdapter",
    "FineTunedName",
    "Limits",
    "ModelShape",
    "check",
    "version_key",
]
