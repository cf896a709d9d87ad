"""`file_search` in `/v1/responses`. The fake engine says what it is asked, markers and all: so the
question decides what the answer claims, and of which passage."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from openai import BadRequestError, NotFoundError
from openai.types.responses import (
    Response,
    ResponseFileSearchToolCall,
    ResponseOutputMessage,
    ResponseOutputText,
)

from tests.unit.retrieval.site import Library, library, upload

BEES = "Bees dance to tell where the flowers are."
SONG = "Whales sing songs that travel through whole oceans."
CLAIM = "Bees dance to tell where the flowers are [1]. Bees have 900 legs [1]. All is well [7]."
HELD = "Bees dance to tell where the flowers are [1]. Bees have 900 legs . All is well ."


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Library]:
    async with library(
        tmp_path_factory.mktemp("grounded"), answer_tokens=len(CLAIM.split())
    ) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def store(running: Library) -> tuple[str, str]:
    """A store, and the id of the file about bees."""
    client = running.client("acme")
    made = await client.vector_stores.create(name="animals")
    bees, whales = await upload(client, "bees.txt", BEES), await upload(client, "w.txt", SONG)
    await client.vector_stores.file_batches.create_and_poll(
        made.id,
        files=[{"file_id": bees, "attributes": {"kind": "insect"}}, {"file_id": whales}],
    )
    return made.id, bees


shared = pytest.mark.asyncio(loop_scope="module")


def tool(store: str, **more: Any) -> Any:
    return [{"type": "file_search", "vector_store_ids": [store], **more}]


def parts(response: Response) -> tuple[ResponseFileSearchToolCall, ResponseOutputText]:
    call, message = response.output
    assert isinstance(call, ResponseFileSearchToolCall)
    assert isinstance(message, ResponseOutputMessage)
    text = message.content[0]
    assert isinstance(text, ResponseOutputText)
    return call, text


@shared
async def test_an_answer_cites_what_supports_it_and_nothing_else(
    running: Library, store: tuple[str, str]
) -> None:
    id, bees = store
    insects = {"type": "eq", "key": "kind", "value": "insect"}
    response = await running.client("acme").responses.create(
        model="chat", input=CLAIM, tools=tool(id, filters=insects), instructions="Be kind.",
        include=["file_search_call.results"],
    )  # fmt: skip
    call, text = parts(response)
    assert (call.status, call.queries) == ("completed", [CLAIM])
    assert [(r.file_id, r.filename, r.text) for r in call.results or ()] == [
        (bees, "bees.txt", BEES)
    ]
    assert text.text == HELD
    [cited] = [annotation.to_dict() for annotation in text.annotations]
    assert cited == {
        "type": "file_citation", "file_id": bees, "filename": "bees.txt",
        "index": text.text.index("[1]"),
    }  # fmt: skip
    assert response.instructions == "Be kind."
    assert response.tools[0].type == "file_search"
    assert response.usage is not None
    assert response.usage.input_tokens > 50  # the passages were there
    plain = await running.client("acme").responses.create(model="chat", input=CLAIM)
    assert CLAIM in plain.output_text


@shared
async def test_a_stream_says_the_same_event_by_event(
    running: Library, store: tuple[str, str]
) -> None:
    id, bees = store
    insects = {"type": "eq", "key": "kind", "value": "insect"}
    stream = await running.client("acme").responses.create(
        model="chat", input=CLAIM, tools=tool(id, filters=insects), stream=True
    )
    events = [event async for event in stream]
    kinds = [event.type for event in events]
    assert kinds[:7] == [
        "response.created", "response.in_progress", "response.output_item.added",
        "response.file_search_call.in_progress", "response.file_search_call.searching",
        "response.file_search_call.completed", "response.output_item.done",
    ]  # fmt: skip
    assert [event.sequence_number for event in events] == list(range(len(events)))
    shown = "".join(e.delta for e in events if e.type == "response.output_text.delta")
    assert kinds.count("response.output_text.delta") > 5
    assert shown == HELD
    [noted] = [e for e in events if e.type == "response.output_text.annotation.added"]
    assert (noted.output_index, noted.annotation_index) == (1, 0)
    last = events[-1]
    assert last.type == "response.completed"
    call, text = parts(last.response)
    assert (text.text, call.results) == (shown, None)
    assert str(text.annotations) == str([noted.annotation])
    assert text.annotations[0].to_dict()["file_id"] == bees


@shared
async def test_where_nothing_is_found_nothing_is_claimed(
    running: Library, store: tuple[str, str]
) -> None:
    nothing = {"type": "eq", "key": "kind", "value": "fish"}
    client, asked = running.client("acme"), tool(store[0], filters=nothing)
    response = await client.responses.create(model="chat", input=CLAIM, tools=asked)
    assert response.output_text == "I could not find this in the documents."
    stream = await client.responses.create(model="chat", input=CLAIM, tools=asked, stream=True)
    shown = [e.delta async for e in stream if e.type == "response.output_text.delta"]
    assert shown == ["I could not find this in the documents."]


@shared
async def test_others_stores_and_senseless_tools_are_refused(
    running: Library, store: tuple[str, str]
) -> None:
    id, _ = store
    for client in (running.client("rival"), running.client("acme", stores=["other"])):
        with pytest.raises(NotFoundError):
            await client.responses.create(model="chat", input="bees", tools=tool(id))
    client = running.client("acme")
    wrong: list[Any] = [
        tool(id) * 2, tool(id, max_num_results=51), tool(id, sort="x"),
        [{"type": "file_search", "vector_store_ids": []}],
        tool(id, filters={"type": "like", "key": "a", "value": 1}),
    ]  # fmt: skip
    for tools in wrong:
        with pytest.raises(BadRequestError, match="tools"):
            await client.responses.create(model="chat", input="bees", tools=tools)
    with pytest.raises(BadRequestError, match="no text of the user's"):
        await client.responses.create(
            model="chat", input=[{"role": "assistant", "content": "x"}], tools=tool(id)
        )


async def test_without_vector_stores_the_tool_is_refused(tmp_path: Path) -> None:
    async with library(tmp_path, enabled=False) as off:
        with pytest.raises(Exception, match=r"retrieval\.enabled is off"):
            await off.client().responses.create(model="chat", input="x", tools=tool("vs_x"))
