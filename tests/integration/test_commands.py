"""`corral chat`, `models` and `status` against a running stack."""

from __future__ import annotations

import httpx
import pytest
from openai import OpenAI

from tests.integration.conftest import EMBEDDER, MODEL
from tests.integration.stack import Stack, make_home

pytestmark = pytest.mark.engine


def test_chat_prints_the_answer(stack: Stack, client: OpenAI) -> None:
    done = stack.corral("chat", "Say yes.", "--system", "Answer in one word.")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip()


def test_chat_with_an_unknown_model_says_which_there_are(stack: Stack) -> None:
    done = stack.corral("chat", "Hello", "--model", "smollm2")
    assert done.returncode == 1
    assert "did you mean smollm2-135m" in done.stderr
    assert "Traceback" not in done.stderr


def test_models_are_printed_one_a_line(stack: Stack) -> None:
    done = stack.corral("models")
    assert (done.returncode, done.stderr) == (0, "")
    assert {MODEL, EMBEDDER} <= {line.split()[0] for line in done.stdout.splitlines()}


def test_status_shows_every_replica(stack: Stack, http: httpx.Client) -> None:
    done = stack.corral("status")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{stack.url}  ready" in done.stdout
    rows = {line.split("│")[1].strip(): line for line in done.stdout.splitlines() if "│" in line}
    assert {MODEL, EMBEDDER} <= rows.keys()
    assert "%" in rows[MODEL]


def test_commands_without_a_stack_say_how_to_start_one(
    stack: Stack, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = Stack(make_home(tmp_path_factory.mktemp("empty"), ()), "", stack.process)
    for command in ("status", "models"):
        done = elsewhere.corral(command)
        assert done.returncode == 1
        assert "Start it with `corral serve`" in done.stderr
    assert stack.corral("status", "--url", "http://127.0.0.1:9").returncode == 1
