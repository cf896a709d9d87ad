"""A wheel without what a given GPU generation never loads, and its RECORD put right.

Files are stored uncompressed, so that the bundle's own compression sees their content.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from serving.pack import fatbin
from serving.pack.cache import Wheel
from serving.pack.errors import FatbinError

EPOCH = (1980, 1, 1, 0, 0, 0)
NOTHING: Mapping[str, bytes] = MappingProxyType({})
CUDA_LIBRARY = re.compile(r"\.so(\.\d+)*$")


@dataclass(frozen=True)
class Rule:
    """Files of a package that are left out. `pattern` must match the whole path."""

    package: str
    pattern: str
    reason: str
    archs: tuple[int, ...] = ()
    """Applies to these GPU architectures only; empty: to every bundle."""

    def matches(self, package: str, path: str, arch: int | None) -> bool:
        return (
            package == self.package
            and (not self.archs or arch in self.archs)
            and re.fullmatch(self.pattern, path) is not None
        )


HOPPER = (90,)
RULES = (
    Rule("vllm", r"vllm/vllm_flash_attn/_vllm_fa2_C\..*", "Hopper runs FlashAttention 3", HOPPER),
    Rule("vllm", r"vllm/vllm_flash_attn/cute/flash_bwd.*", "training kernels"),
    Rule("vllm", r"vllm/third_party/(fmha_sm100|tml_fa4)/.*", "kernels for Blackwell", HOPPER),
    Rule("vllm", r"vllm/_qutlass_C\..*", "fp4 kernels for Blackwell", HOPPER),
    Rule("vllm", r"vllm/vllm-rs", "another frontend; corral serves vLLM's Python one"),
    Rule("vllm", r".*\.jpg", "a picture"),
    Rule("ray", r"ray/jars/.*", "Ray for Java"),
    Rule("ray", r"ray/cpp/.*", "Ray for C++"),
    Rule("ray", r"ray/dashboard/client/build/.*", "the dashboard's pages; corral switches it off"),
    Rule("ray", r"ray/rllib/.*", "reinforcement learning"),
    Rule("ray", r"ray/(tune|train|data)/(examples|tests)/.*", "examples"),
    Rule("pycountry", r"pycountry/locales/.*", "translations"),
    Rule("scipy", r"scipy/.*/tests/.*", "tests"),
    Rule("scikit-learn", r"sklearn/(.*/)?tests/.*", "tests"),
    Rule("numpy", r"numpy/(.*/)?tests/.*", "tests"),
)
DEEP_GEMM = re.compile(r"vllm/third_party/deep_gemm/_C\.cpython-(\d+)-.*\.so")


@dataclass
class Trim:
    """What became of one wheel. Sizes in bytes, before compression."""

    removed: dict[str, list[int]] = field(default_factory=dict)
    """Reason to [files, bytes]."""
    blanked: dict[str, int] = field(default_factory=dict)
    """Shared library to bytes of kernels for other architectures."""
    untouched: dict[str, str] = field(default_factory=dict)
    """Shared library to why its kernels were left as they are."""

    @property
    def changed(self) -> bool:
        return bool(self.removed or self.blanked)

    def drop(self, reason: str, size: int) -> None:
        """Count a removed file."""
        count = self.removed.setdefault(reason, [0, 0])
        count[0] += 1
        count[1] += size


def trim_wheel(
    wheel: Wheel,
    directory: Path,
    *,
    arch: int | None,
    python: str,
    rules: Sequence[Rule] = RULES,
    added: Mapping[str, bytes] = NOTHING,
) -> tuple[Path, Trim]:
    """Write `wheel` without what the rules name, uncompressed, into `directory`.

    `arch` is 90 for sm_90; None keeps the kernels of every architecture. `added` are further
    files, by their path beside the packages.
    """
    done, path = Trim(), directory / wheel.path.name
    record: list[tuple[str, str, str]] = []
    with zipfile.ZipFile(wheel.path) as source, zipfile.ZipFile(path, "w") as out:
        entry = next(n for n in source.namelist() if re.fullmatch(r"[^/]+\.dist-info/RECORD", n))
        for info in source.infolist():
            if info.is_dir() or info.filename == entry:
                continue
            reason = _reason(wheel.name, info.filename, arch, python, rules)
            if reason is not None:
                done.drop(reason, info.file_size)
                continue
            content = source.read(info)
            if arch is not None and CUDA_LIBRARY.search(info.filename):
                content = _blank(info.filename, content, arch, done)
            _store(out, info, content)
            record.append((info.filename, _digest(content), str(len(content))))
        for name, content in added.items():
            _store(out, _file(name), content)
            record.append((name, _digest(content), str(len(content))))
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([*record, (entry, "", "")])
        _store(out, source.getinfo(entry), text.getvalue().encode())
    return path, done


def _reason(
    package: str, path: str, arch: int | None, python: str, rules: Sequence[Rule]
) -> str | None:
    if "__pycache__/" in path or path.endswith(".pyc"):
        return "bytecode"
    if (found := DEEP_GEMM.fullmatch(path)) and found[1] != python.replace(".", ""):
        return "for another Python"
    return next((rule.reason for rule in rules if rule.matches(package, path, arch)), None)


def _blank(path: str, content: bytes, arch: int, done: Trim) -> bytes:
    if fatbin.SECTION.encode() not in content:
        return content
    try:
        content, dropped = fatbin.blank(content, arch)
    except FatbinError as exc:
        done.untouched[path] = str(exc)
        return content
    if dropped:
        done.blanked[path] = sum(image.size for image in dropped)
    return content


def _file(name: str) -> zipfile.ZipInfo:
    """A plain file, for all to read."""
    info = zipfile.ZipInfo(name)
    info.external_attr = 0o100644 << 16
    return info


def _store(out: zipfile.ZipFile, like: zipfile.ZipInfo, content: bytes) -> None:
    info = zipfile.ZipInfo(like.filename, EPOCH)
    info.external_attr = like.external_attr
    info.create_system = like.create_system
    out.writestr(info, content, zipfile.ZIP_STORED)


def _digest(content: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest())
    return f"sha256={digest.rstrip(b'=').decode()}"
