"""Tools, structured outputs, log-probabilities, stop, seed, n and usage, through the gateway."""

from __future__ import annotations

import json
import math
from typing import Any, Literal

import pytest
from openai import OpenAI
from openai.types.chat import (
    ChatCompletionFunctionToolParam,
    ChatCompletionMessageParam,
    ChatCompletionToolChoiceOptionParam,
)
from pydantic import BaseModel, ConfigDict, Field

from tests.integration.conftest import MODEL

pytestmark = pytest.mark.engine

WEATHER: list[ChatCompletionMessageParam] = [
    {"role": "user", "content": "What is the weather in Paris?"}
]
# vLLM holds arguments to their schema only when `strict` asks for it.
TOOLS: list[ChatCompletionFunctionToolParam] = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Weather of a city",
            "strict": True,
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string", "pattern": "^[A-Z][a-z]{2,8}$"}},
                "required": ["city"],
                "additionalProperties": False,
            },
        },
    },
    {
        "type": "function",
        "function": {
            "name": "set_alarm",
            "strict": True,
            "parameters": {
                "type": "object",
                "properties": {"hour": {"type": "integer", "minimum": 0, "maximum": 23}},
                "required": ["hour"],
                "additionalProperties": False,
            },
        },
    },
]
LOOSE_TOOLS: list[ChatCompletionFunctionToolParam] = [
    {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}
]
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'


class City(BaseModel):
    model_config = ConfigDict(extra="forbid")

    city: str = Field(pattern="^[A-Z][a-z]{2,8}$")


class Alarm(BaseModel):
    model_config = ConfigDict(extra="forbid")

    hour: int = Field(ge=0, le=23)


ARGUMENTS: dict[str, type[BaseModel]] = {"get_weather": City, "set_alarm": Alarm}


class Person(BaseModel):
    """Bounded in every field, so that even a small model comes to an end."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(pattern="^[A-Z][a-z]{1,8}$")
    age: int = Field(ge=0, le=120)
    mood: Literal["happy", "sad"]


def _call(client: OpenAI, choice: ChatCompletionToolChoiceOptionParam) -> tuple[str, str, str]:
    """Name, arguments and finish reason of the one call, plain and streamed alike."""
    plain = client.chat.completions.create(
        model=MODEL,
        messages=WEATHER,
        tools=TOOLS,
        tool_choice=choice,
        max_tokens=64,
        temperature=0,
    )
    calls = plain.choices[0].message.tool_calls
    assert calls is not None
    assert len(calls) == 1
    assert calls[0].type == "function"
    name, arguments, finish = "", "", ""
    for chunk in client.chat.completions.create(
        model=MODEL,
        messages=WEATHER,
        tools=TOOLS,
        tool_choice=choice,
        max_tokens=64,
        temperature=0,
        stream=True,
    ):
        finish = chunk.choices[0].finish_reason or finish
        for delta in chunk.choices[0].delta.tool_calls or []:
            assert delta.index == 0
            assert delta.function is not None
            name += delta.function.name or ""
            arguments += delta.function.arguments or ""
    assert name == calls[0].function.name
    assert json.loads(arguments) == json.loads(calls[0].function.arguments)
    assert finish == plain.choices[0].finish_reason
    return name, arguments, finish


def test_required_tool_choice_calls_one_with_valid_arguments(client: OpenAI) -> None:
    name, arguments, finish = _call(client, "required")
    ARGUMENTS[name].model_validate_json(arguments)
    assert finish == "tool_calls"


def test_named_tool_choice_calls_that_tool_with_valid_arguments(client: OpenAI) -> None:
    """Asked for the weather, it sets an alarm, since it is told to."""
    name, arguments, _ = _call(client, {"type": "function", "function": {"name": "set_alarm"}})
    assert name == "set_alarm"
    Alarm.model_validate_json(arguments)


@pytest.mark.parametrize("stream", [False, True])
def test_auto_tool_choice_parses_a_call_out_of_the_answer(client: OpenAI, stream: bool) -> None:
    """The model is held to writing a call, since one of its size would seldom do so itself."""
    options: dict[str, Any] = {
        "model": MODEL,
        "messages": WEATHER,
        "tools": LOOSE_TOOLS,
        "tool_choice": "auto",
        "max_tokens": 64,
        "temperature": 0,
        "extra_body": {"structured_outputs": {"choice": [CALL]}},
    }
    if stream:
        chunks = [c.choices[0] for c in client.chat.completions.create(**options, stream=True)]
        deltas = [delta for chunk in chunks for delta in chunk.delta.tool_calls or []]
        name = "".join(delta.function.name or "" for delta in deltas if delta.function)
        arguments = "".join(delta.function.arguments or "" for delta in deltas if delta.function)
        finish = chunks[-1].finish_reason
    else:
        choice = client.chat.completions.create(**options).choices[0]
        (call,) = choice.message.tool_calls
        name, arguments = call.function.name, call.function.arguments
        finish = choice.finish_reason
    assert (name, json.loads(arguments)) == ("get_weather", {"city": "Paris"})
    assert finish == "tool_calls"


def test_auto_tool_choice_may_answer_in_words(client: OpenAI) -> None:
    choice = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Say hello."}],
        tools=TOOLS,
        tool_choice="auto",
        max_tokens=8,
        temperature=0,
    ).choices[0]
    assert choice.message.content
    assert not choice.message.tool_calls


def test_json_schema_holds_the_answer_to_it(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Describe a person as JSON."}],
        max_tokens=64,
        temperature=0,
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "person", "schema": Person.model_json_schema()},
        },
    )
    assert answer.choices[0].finish_reason == "stop"
    Person.model_validate_json(answer.choices[0].message.content or "")


def test_parse_of_the_openai_package_gives_the_object(client: OpenAI) -> None:
    answer = client.chat.completions.parse(
        model=MODEL,
        messages=[{"role": "user", "content": "Describe a sad person as JSON."}],
        max_tokens=64,
        temperature=0,
        response_format=Person,
    )
    assert isinstance(answer.choices[0].message.parsed, Person)


def test_responses_hold_to_a_json_schema(client: OpenAI) -> None:
    answer = client.responses.create(
        model=MODEL,
        input="Describe a person as JSON.",
        max_output_tokens=64,
        temperature=0,
        text={"format": {"type": "json_schema", "name": "p", "schema": Person.model_json_schema()}},
    )
    Person.model_validate_json(answer.output_text)


def test_greedy_logprobs_are_the_best_of_each_position(client: OpenAI) -> None:
    choice = client.chat.completions.create(
        model=MODEL,
        messages=WEATHER,
        max_tokens=6,
        temperature=0,
        logprobs=True,
        top_logprobs=4,
    ).choices[0]
    assert choice.logprobs is not None
    entries = choice.logprobs.content or []
    assert len(entries) == 6
    for entry in entries:
        ranked = [top.logprob for top in entry.top_logprobs]
        assert len(ranked) == 4
        assert ranked == sorted(ranked, reverse=True)
        assert entry.logprob == pytest.approx(ranked[0])
        assert sum(map(math.exp, ranked)) <= 1.0 + 1e-5
    spelled = b"".join(bytes(entry.bytes or []) for entry in entries)
    assert spelled.decode() == choice.message.content


def test_streamed_logprobs_are_the_plain_ones(client: OpenAI) -> None:
    plain = client.completions.create(
        model=MODEL, prompt="The sky is", max_tokens=5, temperature=0, logprobs=2
    )
    assert plain.choices[0].logprobs is not None
    streamed: list[float | None] = []
    for chunk in client.completions.create(
        model=MODEL, prompt="The sky is", max_tokens=5, temperature=0, logprobs=2, stream=True
    ):
        if chunk.choices[0].logprobs is not None:
            streamed += chunk.choices[0].logprobs.token_logprobs or []
    assert streamed == pytest.approx(plain.choices[0].logprobs.token_logprobs, abs=1e-4)


def test_stop_ends_the_answer_before_the_stop_text(client: OpenAI) -> None:
    prompt = "One, two, three, four, five,"
    whole = client.completions.create(model=MODEL, prompt=prompt, max_tokens=12, temperature=0)
    text = whole.choices[0].text
    stop = text[len(text) // 2 :][:4]
    cut = client.completions.create(
        model=MODEL, prompt=prompt, max_tokens=12, temperature=0, stop=[stop, "\n\n\n"]
    ).choices[0]
    assert cut.text == text[: text.index(stop)]
    assert cut.finish_reason == "stop"


def test_seed_makes_samples_repeatable(client: OpenAI) -> None:
    def sample(seed: int) -> str:
        answer = client.chat.completions.create(
            model=MODEL, messages=WEATHER, max_tokens=16, temperature=1.0, seed=seed
        )
        return answer.choices[0].message.content or ""

    assert sample(7) == sample(7)
    assert sample(7) != sample(8)


def test_n_gives_that_many_different_samples(client: OpenAI) -> None:
    plain = client.chat.completions.create(
        model=MODEL, messages=WEATHER, max_tokens=12, temperature=1.0, seed=3, n=2
    )
    assert [choice.index for choice in plain.choices] == [0, 1]
    texts = [choice.message.content for choice in plain.choices]
    assert texts[0] != texts[1]
    assert plain.usage is not None
    assert plain.usage.completion_tokens > 12
    streamed = ["", ""]
    for chunk in client.chat.completions.create(
        model=MODEL, messages=WEATHER, max_tokens=12, temperature=1.0, seed=3, n=2, stream=True
    ):
        for choice in chunk.choices:
            streamed[choice.index] += choice.delta.content or ""
    assert streamed == texts


def test_stream_ends_with_usage_when_asked(client: OpenAI) -> None:
    *chunks, last = client.chat.completions.create(
        model=MODEL,
        messages=WEATHER,
        max_tokens=5,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.completion_tokens == 5
    assert last.usage.total_tokens == last.usage.prompt_tokens + 5
    assert all(chunk.usage is None for chunk in chunks)


def test_length_limit_is_named_as_the_reason(client: OpenAI) -> None:
    choice = client.chat.completions.create(
        model=MODEL, messages=WEATHER, max_tokens=3, temperature=0
    ).choices[0]
    assert choice.finish_reason == "length"
