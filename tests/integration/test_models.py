"""The built-in models as they come out of their packages."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from serving.home import Home
from serving.models import prepare, verify

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def smollm2(home: Home) -> Path:
    """Converted after a first attempt was killed while it read the weights."""
    with subprocess.Popen(
        [sys.executable, "-m", "serving.models", "smollm2-135m"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "CORRAL_HOME": str(home.root)},
    ) as process:
        assert process.stdout is not None
        assert any("expanding" in line for line in process.stdout), "it ended before the kill"
        process.kill()
    assert not (home.models / "smollm2-135m").exists()
    return prepare("smollm2-135m", home, progress=print).path


def test_killed_conversion_is_repeated_whole(smollm2: Path) -> None:
    assert verify(smollm2, checksums=True) == []
    assert [path.name for path in smollm2.parent.iterdir() if ".tmp-" in path.name] == []


def test_converted_model_knows_the_capital_of_france(smollm2: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(smollm2))
    model = AutoModelForCausalLM.from_pretrained(str(smollm2))
    assert (type(model).__name__, model.dtype) == ("LlamaForCausalLM", torch.bfloat16)
    prompt = tokenizer("The capital of France is", return_tensors="pt")
    tokens = model.float().generate(**prompt, max_new_tokens=3, do_sample=False)
    assert tokenizer.decode(tokens[0]) == "The capital of France is Paris.\n"


def test_converted_tokenizer_has_its_template_and_splits_digits(smollm2: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(smollm2))
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "hello"}], tokenize=False, add_generation_prompt=True
    )
    assert text.endswith("<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n")
    assert tokenizer.tokenize("x  52<|im_end|>") == ["x", "ĠĠ", "5", "2", "<|im_end|>"]
    assert (tokenizer.eos_token, tokenizer.model_max_length) == ("<|im_end|>", 8192)


def test_embedder_puts_like_beside_like(home: Home) -> None:
    from sentence_transformers import SentenceTransformer

    path = prepare("all-minilm-l6-v2", home, progress=print).path
    model = SentenceTransformer(str(path), device="cpu")
    cat, kitten, tax = model.encode(["a cat sleeps", "a kitten naps", "a tax return"])
    assert cat.shape == (384,)
    assert cat @ kitten > 0.5 > cat @ tax
