"""`corral chat`: a conversation in the terminal, through the ordinary OpenAI client."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console

from serving.commands.client import api_key, base_url, trust
from serving.errors import CorralError
from serving.home import Home

if TYPE_CHECKING:
    from openai import OpenAI
    from openai.types.chat import ChatCompletionMessageParam


def run(home: Home, *, url: str | None, model: str | None, system: str | None, once: str) -> None:
    """Talk until end of input; with `once`, ask that and return."""
    from httpx import HTTPError  # raised when a stream breaks off
    from openai import DefaultHttpxClient, OpenAI, OpenAIError

    console = Console()
    client = OpenAI(
        base_url=base_url(home, url) + "/v1",
        api_key=api_key(home) or "none",
        http_client=DefaultHttpxClient(verify=trust(home, url)),
    )
    try:
        name = model or _first_model(client)
        messages: list[ChatCompletionMessageParam] = []
        if system:
            messages.append({"role": "system", "content": system})
        if once:
            _turn(console, client, name, messages, once)
            return
        console.print(f"[dim]{name} · an empty line or Ctrl-D ends, /reset starts afresh[/dim]")
        while text := _ask(console):
            if text == "/reset":
                del messages[1 if system else 0 :]
                continue
            _turn(console, client, name, messages, text)
    except (OpenAIError, HTTPError) as exc:
        raise CorralError(str(exc)) from exc


def _turn(
    console: Console,
    client: OpenAI,
    model: str,
    messages: list[ChatCompletionMessageParam],
    text: str,
) -> None:
    """One question, its answer printed as it comes; Ctrl-C cuts the answer short."""
    messages.append({"role": "user", "content": text})
    answer = ""
    stream = client.chat.completions.create(model=model, messages=messages, stream=True)
    try:
        for chunk in stream:
            piece = chunk.choices[0].delta.content if chunk.choices else None
            if piece:
                answer += piece
                console.print(piece, end="", markup=False, highlight=False, soft_wrap=True)
    except KeyboardInterrupt:
        stream.close()
    console.print()
    messages.append({"role": "assistant", "content": answer})


def _ask(console: Console) -> str:
    try:
        return console.input("[bold]> [/bold]").strip()
    except (EOFError, KeyboardInterrupt):
        return ""


def _first_model(client: OpenAI) -> str:
    for card in client.models.list():
        return card.id
    raise CorralError("no model is served")
