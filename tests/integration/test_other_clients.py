"""Other clients as they come: anthropic, langchain-openai, litellm, and plain HTTP."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import httpx
import pytest
from anthropic import Anthropic, AsyncAnthropic, NotFoundError

from tests.integration.conftest import EMBEDDER, MODEL, TIMEOUT_S
from tests.integration.stack import Stack

pytestmark = pytest.mark.engine

QUESTION = "What is the capital of France?"
TOKENS = 8
GREEDY = {"temperature": 0}
"""The package has no field for it any more; the servers still take it."""


@pytest.fixture(scope="module")
def anthropic(stack: Stack) -> Iterator[Anthropic]:
    with Anthropic(
        base_url=stack.url, api_key=stack.key, timeout=TIMEOUT_S, max_retries=0
    ) as client:
        yield client


def test_anthropic_streams_the_plain_answer_in_pieces(anthropic: Anthropic) -> None:
    plain = anthropic.messages.create(
        model=MODEL,
        system="You are terse.",
        messages=[{"role": "user", "content": QUESTION}],
        max_tokens=TOKENS,
        extra_body=GREEDY,
    )
    assert plain.stop_reason in ("end_turn", "max_tokens")
    assert plain.usage.output_tokens <= TOKENS
    (block,) = plain.content
    assert block.type == "text"
    with anthropic.messages.stream(
        model=MODEL,
        system="You are terse.",
        messages=[{"role": "user", "content": QUESTION}],
        max_tokens=TOKENS,
        extra_body=GREEDY,
    ) as stream:
        pieces = list(stream.text_stream)
        final = stream.get_final_message()
    assert "".join(pieces) == block.text
    assert len(pieces) > 2
    assert (final.stop_reason, final.usage.output_tokens) == (
        plain.stop_reason,
        plain.usage.output_tokens,
    )


async def test_anthropic_knows_an_unknown_model_async(stack: Stack) -> None:
    async with AsyncAnthropic(
        base_url=stack.url, api_key=stack.key, timeout=TIMEOUT_S, max_retries=0
    ) as client:
        with pytest.raises(NotFoundError, match="did you mean smollm2-135m"):
            await client.messages.create(
                model="smollm2", messages=[{"role": "user", "content": "Hi"}], max_tokens=2
            )


def test_langchain_chats_streams_and_embeds(stack: Stack) -> None:
    langchain = pytest.importorskip("langchain_openai")
    chat = langchain.ChatOpenAI(
        base_url=f"{stack.url}/v1",
        api_key=stack.key,
        model=MODEL,
        temperature=0,
        max_tokens=TOKENS,
        timeout=TIMEOUT_S,
        max_retries=0,
    )
    answer = chat.invoke(QUESTION)
    assert answer.content
    assert answer.usage_metadata["output_tokens"] <= TOKENS
    assert "".join(chunk.content for chunk in chat.stream(QUESTION)) == answer.content
    # Token ids are those of OpenAI's tokenizer unless the length check is off.
    embedder = langchain.OpenAIEmbeddings(
        base_url=f"{stack.url}/v1",
        api_key=stack.key,
        model=EMBEDDER,
        check_embedding_ctx_length=False,
    )
    first, second = embedder.embed_documents(["a cat sleeps", "a tax return"])
    assert len(first) == len(second) == 384
    assert embedder.embed_query("a cat sleeps") == pytest.approx(first, abs=1e-5)


def test_litellm_chats_streams_and_embeds(stack: Stack) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        litellm = pytest.importorskip("litellm")
        options = {
            "model": f"openai/{MODEL}",
            "api_base": f"{stack.url}/v1",
            "api_key": stack.key,
            "messages": [{"role": "user", "content": QUESTION}],
            "max_tokens": TOKENS,
            "temperature": 0,
            "timeout": TIMEOUT_S,
        }
        plain = litellm.completion(**options).choices[0].message.content
        chunks = litellm.completion(**options, stream=True)
        pieces = [chunk.choices[0].delta.content or "" for chunk in chunks]
        embedded = litellm.embedding(
            model=f"openai/{EMBEDDER}",
            input=["a cat sleeps"],
            api_base=f"{stack.url}/v1",
            api_key=stack.key,
        )
    assert plain
    assert "".join(pieces) == plain
    assert len(embedded.data[0]["embedding"]) == 384


@pytest.mark.parametrize("path", ["/v1/rerank", "/rerank", "/v2/rerank"])
def test_rerank_puts_the_nearest_document_first(http: httpx.Client, path: str) -> None:
    documents = ["Tax law of 1987", "A kitten naps on the sofa", "The cat sleeps all day"]
    answer = http.post(
        path,
        json={"model": EMBEDDER, "query": "a sleeping cat", "documents": documents, "top_n": 2},
    )
    assert answer.status_code == 200, answer.text
    results = answer.json()["results"]
    assert [row["index"] for row in results] == [2, 1]
    scores = [row["relevance_score"] for row in results]
    assert scores == sorted(scores, reverse=True)
    assert results[0]["document"]["text"] == documents[2]


def test_score_of_a_text_against_itself_is_the_highest(http: httpx.Client) -> None:
    answer = http.post(
        "/v1/score",
        json={
            "model": EMBEDDER,
            "text_1": "a cat sleeps",
            "text_2": ["a cat sleeps", "a tax return"],
        },
    )
    assert answer.status_code == 200, answer.text
    same, other = (row["score"] for row in answer.json()["data"])
    assert same == pytest.approx(1.0, abs=1e-3)
    assert other < same


@pytest.mark.parametrize("text", ["Hello world", "Grüße, 東京 🤔\n\tdef f(x): return x"])
def test_tokens_come_back_as_the_same_text(http: httpx.Client, text: str) -> None:
    cut = http.post("/tokenize", json={"model": MODEL, "prompt": text}).json()
    assert cut["count"] == len(cut["tokens"]) > 1
    assert cut["max_model_len"] == 4096
    back = http.post("/detokenize", json={"model": MODEL, "tokens": cut["tokens"]})
    assert back.json()["prompt"] == text


def test_tokenize_applies_the_chat_template(http: httpx.Client) -> None:
    messages = [{"role": "user", "content": "Hello"}]
    cut = http.post("/tokenize", json={"model": MODEL, "messages": messages}).json()
    back = http.post("/detokenize", json={"model": MODEL, "tokens": cut["tokens"]}).json()
    assert back["prompt"].endswith("<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n")


def test_embedder_tokenizes_with_its_own_tokenizer(http: httpx.Client) -> None:
    cut = http.post("/tokenize", json={"model": EMBEDDER, "prompt": "hello world"}).json()
    assert (cut["count"], cut["max_model_len"]) == (4, 256)
    back = http.post("/detokenize", json={"model": EMBEDDER, "tokens": cut["tokens"]}).json()
    assert "hello world" in back["prompt"]
