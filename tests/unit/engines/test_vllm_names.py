"""Every name, option and field that `serving/engines/vllm.py` uses exists in the installed vLLM.

Reads vLLM's sources without importing them, so that a release that renames
something fails here in seconds; the integration tests show that it works.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

from serving.config import LoraConfig, VllmConfig
from serving.engines.base import EngineSpec
from serving.engines.vllm_options import command_line

ENGINE = Path(__file__).parents[3] / "serving" / "engines" / "vllm.py"
SPEC = find_spec("vllm")
pytestmark = pytest.mark.skipif(SPEC is None, reason="vLLM is not installed")


@cache
def tree(module: str) -> ast.Module | None:
    """The parsed source of one of vLLM's modules; None where there is no such module."""
    assert SPEC is not None
    assert SPEC.origin is not None
    path = Path(SPEC.origin).parents[1].joinpath(*module.split("."))
    sources = (path.with_suffix(".py"), path / "__init__.py")
    source = next((source for source in sources if source.exists()), None)
    return ast.parse(source.read_text(encoding="utf-8")) if source else None


def names(module: str) -> set[str]:
    """What a module defines; of `vllm` itself and `vllm.platforms`, also what they load lazily."""
    found: set[str] = set()
    for node in ast.walk(tree(module) or ast.Module([], [])):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.ImportFrom):
            found |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.AnnAssign):
            found.add(ast.unparse(node.target))
        elif isinstance(node, ast.Dict):
            found |= {str(key.value) for key in node.keys if isinstance(key, ast.Constant)}
    return found


def members(module: str, name: str) -> set[str]:
    """Methods, annotated fields and attributes set on `self` of a class, without its bases."""
    body = getattr(tree(module), "body", [])
    (found,) = [node for node in body if isinstance(node, ast.ClassDef) and node.name == name]
    methods = {n.name for n in found.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)}
    fields: list[ast.expr] = []
    for node in ast.walk(found):
        if isinstance(node, ast.AnnAssign):
            fields.append(node.target)
        elif isinstance(node, ast.Assign):
            fields += node.targets
    return methods | {ast.unparse(field).removeprefix("self.") for field in fields}


def test_imported_names_exist_in_one_of_the_modules_they_are_imported_from() -> None:
    modules: dict[str, list[str]] = {}
    for node in ast.walk(ast.parse(ENGINE.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "vllm":
            for alias in node.names:
                modules.setdefault(alias.name, []).append(str(node.module))
        elif isinstance(node, ast.Import):
            for place, _, name in (alias.name.rpartition(".") for alias in node.names):
                if place.split(".")[0] == "vllm":
                    modules.setdefault(name, []).append(place)
    assert len(modules) > 5
    missing = {
        name: places
        for name, places in modules.items()
        if not any(name in names(place) or tree(f"{place}.{name}") for place in places)
    }
    assert missing == {}


def test_options_of_every_setting_exist() -> None:
    config = VllmConfig(
        task="pooling",
        max_model_len=1,
        max_num_batched_tokens=1,
        quantization="fp8",
        tool_call_parser="hermes",
        reasoning_parser="qwen3",
        chat_template="template.jinja",
        lora=LoraConfig(max_loras=1),
    )
    given = command_line(EngineSpec("tiny", Path("weights")), config)
    options = {
        re.sub(r"^--(no-)?", "", option).replace("-", "_")
        for option in given
        if option.startswith("--")
    }
    launchers = "vllm.entrypoints.launchers.cli_args", "vllm.entrypoints.openai.cli_args"
    module = next(module for module in launchers if tree(module))
    known = members("vllm.engine.arg_utils", "EngineArgs")
    known |= members(module, "BaseFrontendArgs") | members(module, "FrontendArgs")
    assert len(options) > 20
    assert options <= known


@pytest.mark.parametrize(
    ("module", "name", "used"),
    [
        ("vllm.lora.request", "LoRARequest", "lora_name lora_int_id lora_path"),
        (
            "vllm.v1.engine.async_llm",
            "AsyncLLM",
            "add_lora remove_lora encode generate errored from_engine_args get_supported_tasks "
            "model_config shutdown",
        ),
        ("vllm.entrypoints.openai.models.serving", "OpenAIServingModels", "lora_requests"),
        ("vllm.sampling_params", "SamplingParams", "logprobs max_tokens temperature"),
        ("vllm.pooling_params", "PoolingParams", "task"),
    ],
)
def test_members_exist(module: str, name: str, used: str) -> None:
    assert set(used.split()) <= members(module, name)


def test_counters_that_show_progress_are_exported() -> None:
    source = ast.unparse(tree("vllm.v1.metrics.loggers") or ast.Module([], []))
    exported = set(re.findall(r"vllm:\w+", source))
    assert {"vllm:generation_tokens", "vllm:prompt_tokens"} <= exported
