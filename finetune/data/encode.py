"""Examples to token sequences in which exactly the assistant's words are learnt.

What is learnt of an answer is what the model must produce when it is served: everything that
the template puts after the generation prompt, up to and with the end-of-turn token. Where the
template marks answers itself (`{% generation %}`) those marks count. Otherwise the
conversation is rendered up to each answer, with the generation prompt, and past it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import takewhile
from typing import Any

from finetune.data.rows import Completion, Conversation, Example, Message, Preference
from finetune.data.template import Rendered
from finetune.data.tokenizer import ChatTokenizer, Encoded, Span
from finetune.errors import TokenizerUnavailable, Unrenderable


def encode(example: Example, chat: ChatTokenizer) -> list[Encoded]:
    """The sequences of one example; of a preference, chosen and rejected.

    A conversation is one sequence, unless its template rewrites earlier turns (drops their
    reasoning, say): then each answer is learnt in a sequence of its own, in the context that
    the server would give it. Raises Unrenderable and TokenizerUnavailable.
    """
    match example:
        case Conversation():
            return _conversation(example.messages, example.tools, chat)
        case Completion():
            return [_completion(example, chat)]
        case Preference():
            prompt, tools = example.prompt, example.tools
            return [
                _last_answer([*prompt, *answer], tools, chat)
                for answer in (example.chosen, example.rejected)
            ]


def _completion(example: Completion, chat: ChatTokenizer) -> Encoded:
    if chat.eos_id is None:
        raise TokenizerUnavailable(
            f"{chat.name} names no eos_token in tokenizer_config.json: plain text needs its end"
        )
    text = example.prompt + example.completion
    found = chat.encode(text, [(len(example.prompt), len(text))])
    first = list(chat.first)
    return _first_unlearnt(
        Encoded(
            [*first, *found.tokens, chat.eos_id],
            [*(False for _ in first), *found.trainable, True],
        )
    )


def _conversation(
    messages: list[Message], tools: list[dict[str, Any]], chat: ChatTokenizer
) -> list[Encoded]:
    answers = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    learnt = [i for i in answers if messages[i].get("weight", 1)]
    for index in learnt:
        _refuse_control_tokens(messages[index], index, chat)
    full = chat.chat.render(messages, tools)
    if chat.chat.marks_answers:
        spans = _marked(full, answers, learnt, chat)
    else:
        found = [_span(messages[: i + 1], tools, chat) for i in learnt]
        if any(not full.text.startswith(text[: span[1]]) for text, span in found):
            return [_last_answer(messages[: i + 1], tools, chat) for i in learnt]
        spans = [span for _, span in found]
    rendered = "".join(full.text[low:high] for low, high in spans)
    for index in learnt:
        _require_all_of(messages[index], rendered, index)
    return [_first_unlearnt(chat.encode(full.text, spans))]


def _last_answer(
    messages: list[Message], tools: list[dict[str, Any]], chat: ChatTokenizer
) -> Encoded:
    last = len(messages) - 1
    _refuse_control_tokens(messages[last], last, chat)
    if chat.chat.marks_answers:
        full = chat.chat.render(messages, tools)
        before = chat.chat.render(messages[:-1], tools, generation_prompt=True).answers
        text, spans = full.text, _marked(full, [last], [last], chat, skip=len(before))
    else:
        text, span = _span(messages, tools, chat)
        spans = [span]
    _require_all_of(messages[last], "".join(text[low:high] for low, high in spans), last)
    return _first_unlearnt(chat.encode(text, spans))


def _span(
    messages: list[Message], tools: list[dict[str, Any]], chat: ChatTokenizer
) -> tuple[str, Span]:
    """The text up to the end of the last message, and the range of it that is generated."""
    prompt = chat.chat.render(messages[:-1], tools, generation_prompt=True).text
    text = chat.chat.render(messages, tools).text
    if not text.startswith(prompt):
        same = takewhile(lambda pair: pair[0] == pair[1], zip(prompt, text, strict=False))
        shared = sum(1 for _ in same)
        raise Unrenderable(
            f"messages[{len(messages) - 1}]: the chat template prompts the model with "
            f"{prompt[shared:][:40]!r} where it renders this answer as {text[shared:][:40]!r}; "
            "enclose answers in {% generation %} in a template of your own (data.chat_template)"
        )
    return text, (len(prompt), _end_of_turn(text, len(prompt), messages[-1], chat))


def _end_of_turn(text: str, start: int, message: Message, chat: ChatTokenizer) -> int:
    """Past the control token that ends the answer; what follows is the template's, not the
    model's. Without one, the end of the text."""
    content = message["content"].strip()
    if content and not message.get("tool_calls"):
        # No answer holds a control token, so it lies whole between two of them.
        ends, at = [], start
        for marker in chat.special.finditer(text, start):
            if content in text[at : marker.start()]:
                ends.append(marker.end())
            at = marker.end()
        if ends:
            return ends[-1]
    return _without_white_space(text, (start, len(text)), chat)[1]


def _without_white_space(text: str, span: Span, chat: ChatTokenizer) -> Span:
    """The range without white space that follows its last control token."""
    markers = [match.end() for match in chat.special.finditer(text, *span)]
    ends = bool(markers) and not text[markers[-1] : span[1]].strip()
    return (span[0], markers[-1]) if ends else span


def _marked(
    full: Rendered, answers: list[int], learnt: list[int], chat: ChatTokenizer, skip: int = 0
) -> list[Span]:
    """What the template marks of the answers that are learnt, after the first `skip` marks."""
    marks = [_without_white_space(full.text, span, chat) for span in full.answers[skip:]]
    if answers == learnt and len(marks) >= len(answers):
        return marks
    if len(marks) != len(answers):
        raise Unrenderable(
            f"the chat template marks {len(marks)} answers ({{% generation %}}), and there "
            f"are {len(answers)}: its tags must enclose every message of the assistant"
        )
    at = dict(zip(answers, marks, strict=True))
    return [at[index] for index in learnt]


def _texts(message: Message) -> Iterator[str]:
    yield message.get("content", "")
    yield message.get("reasoning_content", "")
    for call in message.get("tool_calls", []):
        yield call["function"]["name"]


def _refuse_control_tokens(message: Message, index: int, chat: ChatTokenizer) -> None:
    for text in _texts(message):
        if found := chat.special.search(text):
            raise Unrenderable(
                f"messages[{index}]: the answer holds the control token {found[0]!r}: remove it"
            )


def _require_all_of(message: Message, rendered: str, index: int) -> None:
    """The template may move white space, but leaves out nothing of an answer."""
    squeezed = "".join(rendered.split())
    for text in _texts(message):
        if "".join(text.split()) not in squeezed:
            raise Unrenderable(
                f"messages[{index}]: the chat template leaves out or rewrites part of this "
                f"answer: {text[:60]!r}"
            )


def _first_unlearnt(found: Encoded) -> Encoded:
    if found.trainable:
        found.trainable[0] = False
    return found
