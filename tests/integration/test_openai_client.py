"""The unmodified `openai` package, sync and async, on every endpoint that it covers."""

from __future__ import annotations

import base64

import numpy as np
import pytest
from openai import (
    APIStatusError,
    AsyncOpenAI,
    BadRequestError,
    NotFoundError,
    OpenAI,
)
from openai.types.chat import ChatCompletionMessageParam
from openai.types.responses import ResponseCompletedEvent, ResponseTextDeltaEvent

from tests.integration.conftest import EMBEDDER, MODEL

pytestmark = pytest.mark.engine

TOKENS = 8
MESSAGES: list[ChatCompletionMessageParam] = [
    {"role": "system", "content": "You are terse."},
    {"role": "user", "content": "What is the capital of France?"},
]


def test_models_are_listed_and_retrieved(client: OpenAI) -> None:
    listed = {model.id: model for model in client.models.list()}
    assert {MODEL, EMBEDDER} <= listed.keys()
    assert client.models.retrieve(MODEL) == listed[MODEL]
    assert listed[MODEL].object == "model"


async def test_models_are_listed_and_retrieved_async(async_client: AsyncOpenAI) -> None:
    listed = [model.id async for model in async_client.models.list()]
    assert {MODEL, EMBEDDER} <= set(listed)
    assert (await async_client.models.retrieve(EMBEDDER)).id == EMBEDDER


def test_streamed_chat_is_the_plain_answer_in_pieces(client: OpenAI) -> None:
    plain = client.chat.completions.create(
        model=MODEL, messages=MESSAGES, max_tokens=TOKENS, temperature=0
    )
    assert plain.model == MODEL
    assert plain.choices[0].message.role == "assistant"
    assert plain.usage is not None
    assert plain.usage.completion_tokens <= TOKENS
    pieces, finish = [], None
    for chunk in client.chat.completions.create(
        model=MODEL, messages=MESSAGES, max_tokens=TOKENS, temperature=0, stream=True
    ):
        assert (chunk.object, chunk.model) == ("chat.completion.chunk", MODEL)
        pieces.append(chunk.choices[0].delta.content or "")
        finish = chunk.choices[0].finish_reason or finish
    assert "".join(pieces) == plain.choices[0].message.content
    assert len([piece for piece in pieces if piece]) > 2
    assert finish == plain.choices[0].finish_reason


async def test_streamed_chat_is_the_plain_answer_in_pieces_async(
    async_client: AsyncOpenAI,
) -> None:
    plain = await async_client.chat.completions.create(
        model=MODEL, messages=MESSAGES, max_tokens=TOKENS, temperature=0
    )
    stream = await async_client.chat.completions.create(
        model=MODEL, messages=MESSAGES, max_tokens=TOKENS, temperature=0, stream=True
    )
    pieces = [chunk.choices[0].delta.content or "" async for chunk in stream]
    assert "".join(pieces) == plain.choices[0].message.content


def test_streamed_completion_is_the_plain_one_in_pieces(client: OpenAI) -> None:
    plain = client.completions.create(
        model=MODEL, prompt="The capital of France is", max_tokens=TOKENS, temperature=0
    )
    assert plain.choices[0].text.startswith(" Paris")
    stream = client.completions.create(
        model=MODEL,
        prompt="The capital of France is",
        max_tokens=TOKENS,
        temperature=0,
        stream=True,
    )
    assert "".join(chunk.choices[0].text for chunk in stream) == plain.choices[0].text


async def test_several_prompts_are_completed_in_order_async(async_client: AsyncOpenAI) -> None:
    prompts = ["The capital of France is", "1, 2, 3, 4,"]
    both = await async_client.completions.create(
        model=MODEL, prompt=prompts, max_tokens=4, temperature=0
    )
    assert [choice.index for choice in both.choices] == [0, 1]
    assert both.choices[0].text.startswith(" Paris")
    assert both.choices[1].text.startswith(" 5")


def test_streamed_response_is_the_plain_one_in_pieces(client: OpenAI) -> None:
    plain = client.responses.create(
        model=MODEL,
        instructions="You are terse.",
        input="What is the capital of France?",
        max_output_tokens=TOKENS,
        temperature=0,
    )
    assert plain.output_text
    assert plain.usage is not None
    assert plain.usage.output_tokens <= TOKENS
    events = list(
        client.responses.create(
            model=MODEL,
            instructions="You are terse.",
            input="What is the capital of France?",
            max_output_tokens=TOKENS,
            temperature=0,
            stream=True,
        )
    )
    deltas = [event.delta for event in events if isinstance(event, ResponseTextDeltaEvent)]
    assert events[0].type == "response.created"
    assert "".join(deltas) == plain.output_text
    assert isinstance(events[-1], ResponseCompletedEvent)
    assert events[-1].response.output_text == plain.output_text


async def test_response_takes_a_conversation_async(async_client: AsyncOpenAI) -> None:
    answer = await async_client.responses.create(
        model=MODEL,
        input=[
            {"role": "user", "content": "My name is Ada."},
            {"role": "assistant", "content": "Hello, Ada."},
            {"role": "user", "content": "Say hello."},
        ],
        max_output_tokens=TOKENS,
        temperature=0,
    )
    assert answer.output_text
    stream = await async_client.responses.create(
        model=MODEL, input="Say hello.", max_output_tokens=TOKENS, temperature=0, stream=True
    )
    kinds = [event.type async for event in stream]
    assert kinds[0] == "response.created"
    assert kinds.count("response.output_text.delta") > 1


def test_embeddings_are_the_same_in_float_and_base64(client: OpenAI) -> None:
    texts = ["a cat sleeps", "a kitten naps", "a tax return"]
    plain = client.embeddings.create(model=EMBEDDER, input=texts, encoding_format="float")
    vectors = np.array([item.embedding for item in plain.data], dtype=np.float32)
    assert vectors.shape == (3, 384)
    assert [item.index for item in plain.data] == [0, 1, 2]
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1.0, abs=1e-4)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]
    assert plain.usage.prompt_tokens > 9
    packed = client.embeddings.create(model=EMBEDDER, input=texts, encoding_format="base64")
    for item, vector in zip(packed.data, vectors, strict=True):
        raw = base64.b64decode(str(item.embedding))
        assert np.frombuffer(raw, dtype="<f4") == pytest.approx(vector, abs=1e-6)


async def test_embedding_of_one_text_is_that_of_a_list_of_one_async(
    async_client: AsyncOpenAI,
) -> None:
    one = await async_client.embeddings.create(model=EMBEDDER, input="a cat sleeps")
    many = await async_client.embeddings.create(model=EMBEDDER, input=["a cat sleeps"])
    assert one.data[0].embedding == pytest.approx(many.data[0].embedding, abs=1e-6)


def test_unknown_model_is_not_found_with_the_near_name(client: OpenAI) -> None:
    with pytest.raises(NotFoundError, match="did you mean smollm2-135m") as caught:
        client.chat.completions.create(model="smolm2-135", messages=MESSAGES)
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    with pytest.raises(NotFoundError, match="did you mean all-minilm-l6-v2"):
        client.models.retrieve("all-minilm-l6")


async def test_unknown_model_is_not_found_async(async_client: AsyncOpenAI) -> None:
    with pytest.raises(NotFoundError, match="did you mean smollm2-135m"):
        await async_client.responses.create(model="smolm2-135", input="Hello")
    with pytest.raises(NotFoundError):
        await async_client.chat.completions.create(
            model=f"{MODEL}:absent", messages=MESSAGES, stream=True
        )


@pytest.mark.parametrize("stream", [False, True])
def test_context_overflow_is_a_bad_request(client: OpenAI, stream: bool) -> None:
    long = "word " * 5000
    with pytest.raises(BadRequestError, match="maximum context length is 4096"):
        client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": long}], max_tokens=2, stream=stream
        )
    with pytest.raises(BadRequestError, match="maximum context length is 4096"):
        client.responses.create(model=MODEL, input=long, max_output_tokens=2, stream=stream)
    with pytest.raises(BadRequestError, match="maximum context length is 256"):
        client.embeddings.create(model=EMBEDDER, input=long)


def test_wrong_types_are_bad_requests(client: OpenAI) -> None:
    with pytest.raises(BadRequestError, match="temperature"):
        client.chat.completions.create(
            model=MODEL, messages=MESSAGES, extra_body={"temperature": "hot"}
        )
    with pytest.raises(BadRequestError, match="input"):
        client.embeddings.create(model=EMBEDDER, input="a", extra_body={"input": {"text": "a"}})
    with pytest.raises(BadRequestError, match="does not answer /v1/embeddings"):
        client.embeddings.create(model=MODEL, input="a")


def test_too_large_a_request_is_refused(client: OpenAI) -> None:
    with pytest.raises(APIStatusError, match="larger than 1 MiB") as caught:
        client.completions.create(model=MODEL, prompt="x" * 2**21)
    assert caught.value.status_code == 413
