"""Errors of `corral pack`.

PackError (CorralError)
└── FatbinError           a shared library's kernels cannot be told apart; it is left as it is
"""

from __future__ import annotations

from serving.errors import CorralError


class PackError(CorralError):
    """The bundle cannot be made as asked; the message says what is missing and the mend."""


class FatbinError(PackError):
    """The bytes do not have the layout that `fatbin.py` knows."""
