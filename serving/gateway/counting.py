"""Counts a prompt's tokens by asking the engine, for requests that only just fit a limit."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from serving.gateway.directory import Target
from serving.gateway.estimate import COUNTED
from serving.gateway.exchange import Exchanger, Message
from serving.gateway.request import EngineRequest

Counter = Callable[[], Awaitable[int | None]]
"""Tokens of the prompt, chat template included; None when they cannot be counted."""

_PROMPT_FIELDS = (
    *("messages", "tools", "prompt", "documents", "chat_template_kwargs"),
    *("add_generation_prompt", "continue_final_message", "add_special_tokens"),
)


class _Counted(msgspec.Struct):
    count: int


_decode = msgspec.json.Decoder(_Counted).decode


def prompt_counter(
    exchanger: Exchanger, request: EngineRequest, target: Target, request_id: str
) -> Counter:
    """Counts as the engine will when it answers `request`."""

    async def count() -> int | None:
        prompt = request.value("prompt")
        if request.path not in COUNTED or isinstance(prompt, list):
            return None
        known = ((name, request.raw(name)) for name in _PROMPT_FIELDS)
        fields = {name: msgspec.Raw(raw) for name, raw in known if raw is not None}
        fields["model"] = msgspec.Raw(msgspec.json.encode(target.served.config.name))
        message = Message("/tokenize", request_id, msgspec.json.encode(fields), stream=False)
        exchange = await exchanger.start(message, Target(target.served))
        body = await exchanger.rest(exchange)
        if exchange.head.status != 200:
            return None
        return _decode(body).count

    return count
