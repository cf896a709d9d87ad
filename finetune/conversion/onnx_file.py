"""ONNX, by torch's own exporter: `input_ids` and `attention_mask` to `logits`."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from finetune.errors import ExportFailed, MissingExtra
from finetune.export import whole_folder

FILE = "model.onnx"
_TOLERANCE = 1e-3


def write_onnx(model: Path, target: Path) -> Path:
    """Write the model of the folder `model`, in float32, to the folder `target`, whole; `target`.

    The graph has no cache of keys and values: it scores whole sequences of any number and length,
    and generating with it computes the prompt anew for each token. Where onnxruntime is
    installed its logits are held against torch's. Raises ExportFailed, MissingExtra.
    """
    if target.exists():
        raise ExportFailed(f"{target} is there already: name another folder")
    import torch
    from transformers import AutoModelForCausalLM

    class Logits(torch.nn.Module):  # type: ignore[misc]
        def __init__(self, inner: Any) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            """(batch, length) twice to (batch, length, vocabulary)."""
            found: torch.Tensor = self.inner(
                input_ids=input_ids, attention_mask=attention_mask, use_cache=False
            ).logits
            return found

    found = AutoModelForCausalLM.from_pretrained(
        model, dtype=torch.float32, local_files_only=True, attn_implementation="sdpa"
    )
    wrapped = Logits(found).eval()
    with whole_folder(target) as part:
        _export(wrapped, part / FILE)
        _verify(wrapped, part / FILE)
        for name in (
            "tokenizer.json",
            "tokenizer_config.json",
            "chat_template.jinja",
            "config.json",
        ):
            if (model / name).is_file():
                (part / name).write_bytes((model / name).read_bytes())
    return target


def _example() -> Any:
    import torch

    ids = torch.arange(2 * 7).reshape(2, 7) % 50
    mask = torch.ones_like(ids)
    mask[1, :3] = 0
    return ids, mask


def _export(model: Any, path: Path) -> None:
    import torch

    try:
        import onnxscript  # noqa: F401
    except ImportError as exc:
        raise MissingExtra(f"ONNX export needs onnx and onnxscript: {exc}") from exc
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length", min=2)}
    try:
        with warnings.catch_warnings():
            # torch warns of what it traces; what counts is verified afterwards.
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                model,
                _example(),
                dynamo=True,
                dynamic_shapes={"input_ids": axes, "attention_mask": axes},
                input_names=["input_ids", "attention_mask"],
                output_names=["logits"],
                verbose=False,
            )
    except RuntimeError as exc:
        raise ExportFailed(f"torch cannot export this model: {exc}") from exc
    assert program is not None
    program.save(str(path), external_data=True)


def _verify(model: Any, path: Path) -> None:
    """With other numbers and lengths than those exported with, and with padding."""
    try:
        import onnxruntime
    except ImportError:
        return
    import torch

    ids = torch.arange(3 * 11).reshape(3, 11) % 50
    mask = torch.ones_like(ids)
    mask[2, :4] = 0
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    given = {"input_ids": ids.numpy(), "attention_mask": mask.numpy()}
    found = torch.from_numpy(session.run(["logits"], given)[0])
    with torch.no_grad():
        expected = model(ids, mask)
    seen = mask.bool()
    worst = (found - expected)[seen].abs().max().item()
    if not worst <= _TOLERANCE * max(1.0, expected[seen].abs().max().item()):
        raise ExportFailed(f"{path.name} gives other logits than the model, by up to {worst:.3g}")
