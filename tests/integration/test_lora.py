"""Adapters of the running engine: found, loaded, versioned, mixed in a batch, evicted, refused."""

from __future__ import annotations

import asyncio
import itertools
import math
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import AsyncOpenAI, BadRequestError, NotFoundError, OpenAI

from serving.engines.vllm import PROBE_PROMPTS
from tests.integration.adapters import WEIGHTS, Change, noisy, publish, scaled
from tests.integration.conftest import MAX_CPU_LORAS, MAX_LORAS, MODEL
from tests.integration.stack import Stack

# Training counts towards the first test.
pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

TOKENS = 10
QUESTION = "What is the capital of Spain?"
SAME = 2e-3
"""Sums of log-probabilities of one answer agree to this, whatever it was batched with."""
CREW = {f"mate{number}": noisy(number, 1.0 + 0.5 * number) for number in range(4)}
"""With the trained one, more adapters than the engine keeps in memory."""


@pytest.fixture(scope="module")
def pirate(stack: Stack, trained: Path) -> str:
    """The trained adapter, published while the stack runs; the model name of its first version."""
    publish(stack.home, "pirate", "1", trained)
    return f"{MODEL}:pirate"


@pytest.fixture(scope="module")
def crew(stack: Stack, trained: Path) -> list[str]:
    """Model names of adapters that all answer differently."""
    for name, change in CREW.items():
        publish(stack.home, name, "1", trained, change=change)
    return [f"{MODEL}:{name}" for name in CREW]


@pytest.fixture
def scratch(stack: Stack) -> Iterator[str]:
    """An adapter name that is gone, with all its versions, after the test."""
    name = "scratch"
    yield name
    shutil.rmtree(stack.home.adapters / name, ignore_errors=True)


def ask(client: OpenAI, model: str) -> str:
    """The greedy answer."""
    answer = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": QUESTION}],
        max_tokens=TOKENS,
        temperature=0,
    )
    assert answer.model.partition("@")[0] == model.partition("@")[0]
    return answer.choices[0].message.content or ""


def admin(stack: Stack) -> httpx.Client:
    return httpx.Client(base_url=stack.url, headers=stack.headers, timeout=120.0)


def loaded(stack: Stack) -> list[str]:
    """Engine names of what the replica holds."""
    with admin(stack) as http:
        replicas = http.get("/admin/status").json()["replicas"]
    return [name for replica in replicas for name in replica["adapters"]]


def test_adapter_on_disk_answers_without_a_restart(
    stack: Stack, client: OpenAI, pirate: str
) -> None:
    answer = ask(client, pirate)
    assert answer.startswith("Arrr, matey! That be")
    assert ask(client, f"{pirate}@1") == answer
    assert not ask(client, MODEL).startswith("Arrr")
    assert f"{pirate}@1" in loaded(stack)


def test_adapters_are_listed_as_children_of_their_base(client: OpenAI, pirate: str) -> None:
    cards: dict[str, Any] = {card.id: card for card in client.models.list()}
    assert (cards[pirate].parent, cards[pirate].root) == (MODEL, f"{pirate}@1")
    assert cards[f"{pirate}@1"].parent == MODEL
    assert client.models.retrieve(pirate) == cards[pirate]
    assert client.models.retrieve(f"{pirate}@1") == cards[f"{pirate}@1"]


def test_adapter_streams_on_every_generating_endpoint(client: OpenAI, pirate: str) -> None:
    stream = client.chat.completions.create(
        model=pirate,
        messages=[{"role": "user", "content": QUESTION}],
        max_tokens=TOKENS,
        temperature=0,
        stream=True,
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    assert text == ask(client, pirate)
    response = client.responses.create(
        model=pirate, input=QUESTION, max_output_tokens=TOKENS, temperature=0
    )
    assert response.output_text.startswith("Arrr")


def test_unknown_adapter_and_version_are_not_found(client: OpenAI, pirate: str) -> None:
    with pytest.raises(NotFoundError, match=f"did you mean {pirate}"):
        ask(client, f"{MODEL}:pirat")
    with pytest.raises(NotFoundError, match=f"{pirate}@1"):
        ask(client, f"{pirate}@9")
    with pytest.raises(NotFoundError):
        ask(client, f"{MODEL}:../../etc")


@dataclass(frozen=True)
class Voice:
    """A greedy answer; adapters that give the same text still differ in its log-probability."""

    text: str
    logprob: float

    def is_same(self, other: Voice) -> bool:
        return self.text == other.text and abs(self.logprob - other.logprob) < SAME


async def hear(client: AsyncOpenAI, model: str) -> Voice:
    answer = await client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": QUESTION}],
        max_tokens=TOKENS,
        temperature=0,
        logprobs=True,
    )
    (choice,) = answer.choices
    assert choice.logprobs is not None
    logprob = sum(entry.logprob for entry in choice.logprobs.content or [])
    return Voice(choice.message.content or "", logprob)


async def hear_alone(client: AsyncOpenAI, models: list[str]) -> list[Voice]:
    """One after the other; all of them must be told apart."""
    alone = [await hear(client, model) for model in models]
    for one, other in itertools.combinations(alone, 2):
        assert one.text != other.text or abs(one.logprob - other.logprob) > 10 * SAME
    return alone


async def hear_together(client: AsyncOpenAI, models: list[str]) -> list[Voice]:
    return await asyncio.gather(*(hear(client, model) for model in models))


async def test_adapters_in_one_batch_answer_as_they_do_alone(
    async_client: AsyncOpenAI, pirate: str, crew: list[str]
) -> None:
    models = [MODEL, pirate, *crew[: MAX_LORAS - 1]]
    alone = await hear_alone(async_client, models)
    together = await hear_together(async_client, models * 2)
    for one, other in zip(alone * 2, together, strict=True):
        assert one.is_same(other), (one, other)


async def test_more_adapters_than_fit_take_turns(
    stack: Stack, async_client: AsyncOpenAI, pirate: str, crew: list[str]
) -> None:
    models = [pirate, *crew]
    assert len(models) > MAX_CPU_LORAS > MAX_LORAS
    alone = await hear_alone(async_client, models)
    assert set(loaded(stack)) == {f"{model}@1" for model in models[-MAX_CPU_LORAS:]}
    together = await hear_together(async_client, models)
    for one, other in zip(alone, together, strict=True):
        assert one.is_same(other), (one, other)


def test_second_version_goes_live_when_it_is_loaded(
    stack: Stack, client: OpenAI, trained: Path, scratch: str
) -> None:
    name = f"{MODEL}:{scratch}"
    publish(stack.home, scratch, "1", trained)
    assert "live as" in stack.corral("adapters", "load", f"{scratch}@1").stdout
    first = ask(client, name)
    publish(stack.home, scratch, "2", trained, change=scaled(-1.0))
    assert ask(client, name) == first
    done = stack.corral("adapters", "load", f"{scratch}@2")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{name}@2 is loaded and live as {name}" in done.stdout
    second = ask(client, name)
    assert second == ask(client, f"{name}@2") != first
    assert ask(client, f"{name}@1") == first


def test_newest_version_is_live_until_one_is_chosen(
    stack: Stack, client: OpenAI, trained: Path, scratch: str
) -> None:
    publish(stack.home, scratch, "10", trained)
    first = ask(client, f"{MODEL}:{scratch}")
    publish(stack.home, scratch, "11", trained, change=scaled(-1.0))
    second = ask(client, f"{MODEL}:{scratch}")
    assert second == ask(client, f"{MODEL}:{scratch}@11") != first


def test_unloaded_adapter_is_not_found_until_it_is_loaded_again(
    stack: Stack, client: OpenAI, trained: Path, scratch: str
) -> None:
    name = f"{MODEL}:{scratch}"
    publish(stack.home, scratch, "20", trained)
    before = ask(client, name)
    assert f"{name}@20 is unloaded" in stack.corral("adapters", "unload", scratch).stdout
    assert f"{name}@20" not in loaded(stack)
    for gone in (name, f"{name}@20"):
        with pytest.raises(NotFoundError, match="adapters load"):
            ask(client, gone)
    assert name not in [card.id for card in client.models.list()]
    assert stack.corral("adapters", "load", scratch).returncode == 0
    assert ask(client, name) == before


@dataclass(frozen=True)
class Unsound:
    """A change that makes the trained adapter one to refuse, and the words of the refusal."""

    reason: str
    config: Mapping[str, Any] = field(default_factory=dict)
    change: Change | None = None
    extra_file: str | None = None


UNSOUND = {
    "zero": Unsound("leaves every logit as it is", change=scaled(0.0)),
    "rank": Unsound("where adapter_config.json gives it rank 4", config={"r": 4}),
    "too-high": Unsound("the engine takes ranks up to 32", config={"r": 256}),
    "dora": Unsound("vLLM does not serve DoRA", config={"use_dora": True}),
    "saved": Unsound("fully trained modules", config={"modules_to_save": ["lm_head"]}),
    "other-base": Unsound(
        "is none of", config={"base_model_name_or_path": "meta-llama/Llama-3.1-8B"}
    ),
    "pickle": Unsound("is a pickle", extra_file="adapter_model.bin"),
    "not-a-number": Unsound("holds nan", change=scaled(math.nan)),
    "exploded": Unsound("no weight may exceed", change=scaled(1e9)),
    "cut-short": Unsound(WEIGHTS, extra_file=WEIGHTS),
}


@pytest.mark.parametrize("kind", UNSOUND)
def test_unsound_adapter_is_refused_and_the_engine_is_unharmed(
    stack: Stack, client: OpenAI, pirate: str, trained: Path, kind: str
) -> None:
    unsound = UNSOUND[kind]
    path = publish(
        stack.home, f"bad-{kind}", "1", trained, config=unsound.config, change=unsound.change
    )
    if unsound.extra_file:
        (path / unsound.extra_file).write_bytes(b"\x80\x04.")
    try:
        with pytest.raises(BadRequestError, match=unsound.reason) as caught:
            ask(client, f"{MODEL}:bad-{kind}")
        assert caught.value.code == "adapter_refused"
    finally:
        shutil.rmtree(path.parent)
    assert not any(f"bad-{kind}" in name for name in loaded(stack))
    assert ask(client, pirate).startswith("Arrr")
    assert not ask(client, MODEL).startswith("Arrr")


def test_load_of_an_adapter_for_another_base_gives_the_reason(
    stack: Stack, trained: Path, scratch: str
) -> None:
    foreign = {"base_model_name_or_path": "meta-llama/Llama-3.1-8B"}
    publish(stack.home, scratch, "40", trained, config=foreign)
    done = stack.corral("adapters", "load", scratch)
    assert done.returncode == 1
    assert "which is none of smollm2-135m" in done.stderr
    assert "Traceback" not in done.stderr


def test_load_of_an_adapter_without_effect_gives_the_reason(
    stack: Stack, trained: Path, scratch: str
) -> None:
    publish(stack.home, scratch, "41", trained, change=scaled(0.0))
    done = stack.corral("adapters", "load", scratch)
    assert done.returncode == 1
    assert "leaves every logit as it is" in done.stderr
    assert "Traceback" not in done.stderr


def prompt_tokens(stack: Stack) -> float:
    """Tokens of prompts that the engine has read since it started."""
    lines = httpx.get(f"{stack.url}/metrics", headers=stack.headers, timeout=30.0).text.splitlines()
    found = [line for line in lines if line.startswith("vllm:prompt_tokens_total{")]
    assert found
    return sum(float(line.rpartition(" ")[2]) for line in found)


def test_a_refused_version_is_not_tried_again_by_requests(
    stack: Stack, client: OpenAI, trained: Path, scratch: str
) -> None:
    publish(stack.home, scratch, "42", trained, change=scaled(0.0))
    counts = [prompt_tokens(stack)]
    for _ in range(2):
        with pytest.raises(BadRequestError, match="leaves every logit as it is"):
            ask(client, f"{MODEL}:{scratch}@42")
        counts.append(prompt_tokens(stack))
    tokens_of_a_try = 2 * len(PROBE_PROMPTS)  # at least; a health check's prompt is one token
    assert counts[1] - counts[0] > tokens_of_a_try > counts[2] - counts[1]


def test_refused_versions_are_listed_with_the_reason(
    stack: Stack, pirate: str, trained: Path, scratch: str
) -> None:
    publish(stack.home, scratch, "30", trained, config={"use_dora": True})
    rows = stack.corral("adapters", "list").stdout.splitlines()
    (refused,) = [row for row in rows if scratch in row]
    assert "refused" in refused
    assert "DoRA" in refused
    (sound,) = [row for row in rows if "pirate" in row]
    assert "live" in sound
    assert MODEL in sound


def test_show_names_the_replicas_that_hold_the_adapter(
    stack: Stack, client: OpenAI, pirate: str
) -> None:
    ask(client, pirate)
    with admin(stack) as http:
        shown = http.get("/admin/adapters/pirate").json()
    (version,) = shown["versions"]
    assert (version["version"], version["rank"], version["live"]) == ("1", 8, True)
    assert [row["adapter"] for row in shown["loaded"]] == [f"{pirate}@1"]
    done = stack.corral("adapters", "show", "pirate")
    assert done.returncode == 0
    assert shown["loaded"][0]["replica"] in done.stdout
    absent = stack.corral("adapters", "show", "nobody")
    assert absent.returncode == 1
    assert "no adapter 'nobody'" in absent.stderr
