"""The fake engine over a real socket, asked by the clients that users have."""

from __future__ import annotations

import asyncio
import base64
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anthropic
import httpx
import openai
import pytest
import pytest_asyncio
import uvicorn
from openai.types.responses import ResponseTextDeltaEvent

from serving.config import FakeConfig, LoraConfig
from serving.engines.base import AdapterHost, AdapterRef, EngineSpec
from serving.engines.fake import HANG_ENV, FakeEngine
from serving.engines.fake.pace import Pacer, Turn
from serving.errors import AdapterRefused, EngineStalled

pytestmark = pytest.mark.asyncio(loop_scope="module")

ADAPTER = "fake:pirate@v1"
HELLO = "hello big world"
CONTEXT = 64
X = b'"messages": [{"role": "user", "content": "x"}]'


@asynccontextmanager
async def serving(engine: FakeEngine) -> AsyncIterator[str]:
    """Base URL of `engine`, served by uvicorn on a free port."""
    app = await engine.start()
    config = uvicorn.Config(app, port=0, lifespan="off", log_level="critical")
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await engine.stop()
        await task


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    engine = FakeEngine(EngineSpec("fake", None), FakeConfig(tokens=4, max_model_len=CONTEXT))
    await engine.load_adapter(AdapterRef(ADAPTER, tmp_path_factory.mktemp("adapter")))
    async with serving(engine) as base:
        yield base


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def http(url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=url, verify=False) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(url: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as made:
        yield made


async def test_chat_echoes_the_last_user_text_to_the_wanted_length(
    client: openai.AsyncOpenAI,
) -> None:
    answer = await client.chat.completions.create(
        model="fake",
        messages=[
            {"role": "user", "content": "not this"},
            {"role": "assistant", "content": "nor this"},
            {"role": "user", "content": [{"type": "text", "text": HELLO}]},
        ],
        max_completion_tokens=5,
        n=2,
    )
    assert [choice.message.content for choice in answer.choices] == [f"{HELLO} hello big"] * 2
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (7, 10)


async def test_chat_stream_has_role_deltas_finish_usage_and_done(http: httpx.AsyncClient) -> None:
    body = {
        "model": "fake",
        "messages": [{"role": "user", "content": 'say "ü"'}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    answer = await http.post("/v1/chat/completions", json=body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [line for line in answer.text.split("\n\n") if line]
    assert events[-1] == "data: [DONE]"
    chunks = [httpx.Response(200, text=event[6:]).json() for event in events[:-1]]
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks[:-1]]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert "".join(delta["content"] for delta in deltas) == 'say "ü" say "ü"'
    finishes = [chunk["choices"][0]["finish_reason"] for chunk in chunks[:-1]]
    assert finishes == [None] * 4 + ["stop"]
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] == 4


async def test_streamed_and_whole_answers_agree_with_several_choices(
    client: openai.AsyncOpenAI,
) -> None:
    texts = ["", "", ""]
    stream = await client.chat.completions.create(
        model="fake", messages=[{"role": "user", "content": HELLO}], n=3, stream=True
    )
    async for chunk in stream:
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert texts == [f"{HELLO} hello"] * 3


async def test_an_adapter_puts_its_engine_name_before_the_answer(
    client: openai.AsyncOpenAI,
) -> None:
    answer = await client.completions.create(model=ADAPTER, prompt=HELLO, max_tokens=3)
    assert answer.choices[0].text == f"[{ADAPTER}] {HELLO}"
    assert answer.model == ADAPTER


async def test_stop_cuts_the_answer_and_is_named(http: httpx.AsyncClient) -> None:
    body = {"prompt": "one two three four", "max_tokens": 8, "stop": ["ree f", "four"]}
    choice = (await http.post("/v1/completions", json=body)).json()["choices"][0]
    assert choice["text"] == "one two th"
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", "ree f")


async def test_responses_stream_in_the_order_the_sdk_expects(client: openai.AsyncOpenAI) -> None:
    numbers, text = [], ""
    async with client.responses.stream(model="fake", input=HELLO, max_output_tokens=3) as stream:
        async for event in stream:
            numbers.append(event.sequence_number)
            if event.type == "response.output_text.delta":
                assert isinstance(event, ResponseTextDeltaEvent)
                text += event.delta
        final = await stream.get_final_response()
    assert numbers == list(range(len(numbers)))
    assert text == final.output_text == HELLO
    assert final.status == "incomplete"
    whole = await client.responses.create(model="fake", input=[{"role": "user", "content": HELLO}])
    assert whole.output_text == f"{HELLO} hello"
    assert whole.usage is not None
    assert whole.usage.total_tokens == 7


async def test_messages_answer_anthropics_client(url: str) -> None:
    async with anthropic.AsyncAnthropic(base_url=url, api_key="none", max_retries=0) as client:
        async with client.messages.stream(
            model=ADAPTER, max_tokens=3, messages=[{"role": "user", "content": HELLO}]
        ) as stream:
            text = "".join([part async for part in stream.text_stream])
            final = await stream.get_final_message()
        assert text == f"[{ADAPTER}] {HELLO}"
        assert final.stop_reason == "max_tokens"
        assert (final.usage.input_tokens, final.usage.output_tokens) == (3, 3)
        with pytest.raises(anthropic.NotFoundError, match="no-such"):
            await client.messages.create(
                model="no-such", max_tokens=1, messages=[{"role": "user", "content": "x"}]
            )


async def test_embeddings_are_deterministic_normalised_and_the_same_in_base64(
    client: openai.AsyncOpenAI, http: httpx.AsyncClient
) -> None:
    made = await client.embeddings.create(
        model="fake", input=["a cat", "a cat", "stock market"], encoding_format="float"
    )
    first, again, other = (entry.embedding for entry in made.data)
    assert first == again
    assert first != other
    assert sum(value * value for value in first) == pytest.approx(1.0)
    raw = {"input": "a cat", "encoding_format": "base64"}
    packed = (await http.post("/v1/embeddings", json=raw)).json()["data"][0]["embedding"]
    assert struct.unpack("<64f", base64.b64decode(packed)) == pytest.approx(first)


async def test_rerank_and_score_count_shared_words(http: httpx.AsyncClient) -> None:
    body = {"query": "red fox", "documents": ["a dog", "the red fox", "red car"], "top_n": 2}
    results = (await http.post("/v1/rerank", json=body)).json()["results"]
    assert [(one["index"], one["relevance_score"]) for one in results] == [(1, 1.0), (2, 0.5)]
    pairs = {"text_1": "red fox", "text_2": ["red car", "a dog"]}
    data = (await http.post("/v1/score", json=pairs)).json()["data"]
    assert [one["score"] for one in data] == [0.5, 0.0]
    uneven = {"text_1": ["a", "b"], "text_2": ["a", "b", "c"]}
    assert (await http.post("/v1/score", json=uneven)).status_code == 400


async def test_detokenize_undoes_tokenize(http: httpx.AsyncClient) -> None:
    tokens = (await http.post("/tokenize", json={"prompt": HELLO})).json()
    assert tokens["count"] == 3
    back = await http.post("/detokenize", json={"tokens": tokens["tokens"]})
    assert back.json() == {"prompt": HELLO}
    assert (await http.post("/detokenize", json={"tokens": [1]})).status_code == 400


async def test_models_lists_adapters_with_their_parent(client: openai.AsyncOpenAI) -> None:
    cards = [card.model_dump() async for card in client.models.list()]
    assert [(card["id"], card["parent"]) for card in cards] == [("fake", None), (ADAPTER, "fake")]


@pytest.mark.parametrize(
    ("body", "status", "kind", "param"),
    [
        (b'{"model": "nope", %b}' % X, 404, "NotFoundError", "model"),
        (b"{not json", 400, "BadRequestError", None),
        (b'{%b, "max_tokens": "many"}' % X, 400, "BadRequestError", "max_tokens"),
        (b'{"messages": []}', 400, "BadRequestError", "messages"),
        (b'{%b, "max_tokens": %d}' % (X, CONTEXT), 400, "BadRequestError", "max_tokens"),
    ],
    ids=["unknown model", "bad json", "wrong type", "no messages", "context overflow"],
)
async def test_bad_requests_get_openais_error_envelope(
    http: httpx.AsyncClient, body: bytes, status: int, kind: str, param: str | None
) -> None:
    answer = await http.post("/v1/chat/completions", content=body)
    error = answer.json()["error"]
    assert answer.status_code == error["code"] == status
    assert (error["type"], error["param"]) == (kind, param)
    assert error["message"]


async def test_unknown_routes_and_methods_get_the_envelope_too(http: httpx.AsyncClient) -> None:
    assert (await http.get("/nope")).json()["error"]["code"] == 404
    assert (await http.put("/v1/models")).json()["error"]["code"] == 405
    assert (await http.get("/health")).status_code == 200


async def _metric(http: httpx.AsyncClient, name: str) -> float:
    lines = (await http.get("/metrics")).text.splitlines()
    found = [line for line in lines if line.startswith(f"vllm:{name}{{")]
    assert 'model_name="fake"' in found[0]
    return float(found[0].rsplit(" ", 1)[1])


async def _until(http: httpx.AsyncClient, running: float) -> None:
    async with asyncio.timeout(5):
        while await _metric(http, "num_requests_running") != running:  # noqa: ASYNC110
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_ends_its_generation_at_once(stream: bool) -> None:
    config = FakeConfig(tokens=4000, token_interval_s=0.05, first_token_s=0.0, max_model_len=9000)
    engine = FakeEngine(EngineSpec("fake", None), config)
    body = {"messages": [{"role": "user", "content": HELLO}], "stream": stream}
    async with serving(engine) as url, httpx.AsyncClient(base_url=url, verify=False) as http:
        other = asyncio.create_task(http.post("/v1/chat/completions", json=body, timeout=None))
        await _until(http, running=1)
        assert await _metric(http, "kv_cache_usage_perc") > 0
        other.cancel()
        await _until(http, running=0)
        produced = await _metric(http, "generation_tokens_total")
        await asyncio.sleep(0.15)
        assert await _metric(http, "generation_tokens_total") == produced
        assert 0 < produced < 4000
        assert await _metric(http, "kv_cache_usage_perc") == 0


async def test_turns_wake_in_the_order_they_are_due_and_leave_when_told() -> None:
    pacer, woken, gone = Pacer(None), [], Turn()
    loop = asyncio.get_running_loop()

    async def wait(name: str, turn: Turn, after_s: float) -> None:
        await pacer.wait(turn, loop.time() + after_s)
        woken.append(name)

    waits = [wait("late", Turn(), 0.03), wait("soon", Turn(), 0.01), wait("never", gone, 3600)]
    tasks = [asyncio.create_task(one) for one in waits]
    await asyncio.sleep(0)
    gone.leave()
    await asyncio.gather(*tasks)
    assert woken == ["never", "soon", "late"]
    assert gone.gone


async def test_the_hang_switch_stalls_generation_and_probe_but_not_health(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    switch = tmp_path / "hang"
    monkeypatch.setenv(HANG_ENV, str(switch))
    engine = FakeEngine(EngineSpec("fake", None), FakeConfig(tokens=2))
    await engine.probe(1.0)
    switch.touch()
    with pytest.raises(EngineStalled, match=HANG_ENV):
        await engine.probe(0.05)
    body = {"prompt": HELLO, "max_tokens": 2}
    async with serving(engine) as url, httpx.AsyncClient(base_url=url, verify=False) as http:
        asked = asyncio.create_task(http.post("/v1/completions", json=body))
        await _until(http, running=1)
        assert (await http.get("/health")).status_code == 200
        assert not asked.done()
        switch.unlink()
        assert (await asked).json()["choices"][0]["text"] == "hello big"
        switch.touch()
        await engine.probe(0.05)
        with pytest.raises(EngineStalled):
            await engine.probe(0.05)


async def test_adapters_are_kept_least_recently_used_first(tmp_path: Path) -> None:
    small = FakeConfig(lora=LoraConfig(max_loras=1, max_cpu_loras=2))
    host = FakeEngine(EngineSpec("fake", None), small)
    assert isinstance(host, AdapterHost)
    for name in ("a", "b"):
        await host.load_adapter(AdapterRef(name, tmp_path))
    host.resolve("a")
    assert host.adapters() == ["b", "a"]
    await host.load_adapter(AdapterRef("c", tmp_path))
    assert host.adapters() == ["a", "c"]
    await host.unload_adapter("a")
    await host.unload_adapter("never loaded")
    assert host.adapters() == ["c"]


async def test_adapters_are_refused_without_room_or_files(tmp_path: Path) -> None:
    without = FakeEngine(EngineSpec("fake", None), FakeConfig(lora=LoraConfig(max_loras=0)))
    with pytest.raises(AdapterRefused, match="max_loras"):
        await without.load_adapter(AdapterRef("a", tmp_path))
    with_room = FakeEngine(EngineSpec("fake", None), FakeConfig())
    with pytest.raises(AdapterRefused, match="not a directory"):
        await with_room.load_adapter(AdapterRef("a", tmp_path / "missing"))
