"""The tool `file_search` of `/v1/responses`: what is asked for is found before the engine answers.

Any served model and adapter can be asked: the engine gets passages, and no tool.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from serving.gateway.errors import ApiError
from serving.gateway.request import EngineRequest
from serving.gateway.vector_models import FileSearchTool, to_search
from serving.gateway.vector_stores import lively, permitted, translated
from serving.retrieval.service import Retrieval
from serving.store.identity import Identity

if TYPE_CHECKING:
    from serving.retrieval.finding import FoundPassage
    from serving.retrieval.grounded import Grounding

PATH = "/v1/responses"
_RESULTS = "file_search_call.results"
_MAX_QUESTION = 8192


class Grounder:
    """Makes requests into ones that the engine can answer from passages."""

    def __init__(self, retrieval: Retrieval) -> None:
        self._retrieval = retrieval

    async def ground(self, request: EngineRequest, identity: Identity) -> Grounding | None:
        """Search, and put what was found into the request; None where it asks for no search.

        Raises ApiError, CorralError.
        """
        if request.path != PATH or b"file_search" not in (request.raw("tools") or b""):
            return None
        tools = request.value("tools") or []
        mine = [tool for tool in tools if tool.get("type") == "file_search"]
        if not mine:
            return None
        if len(mine) > 1:
            raise ApiError(400, "`tools`: file_search may be there once", param="tools")
        return await asyncio.to_thread(self._ground, request, identity, mine[0])

    def _ground(
        self, request: EngineRequest, identity: Identity, given: dict[str, Any]
    ) -> Grounding:
        from rag.retrieve.pack import pack
        from serving.retrieval.grounded import Grounding

        try:
            tool = FileSearchTool.model_validate(given)
        except ValidationError as exc:
            first = exc.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise ApiError(400, f"`tools`: {where}: {first['msg']}", param="tools") from exc
        question = _question(request.value("input"))
        config = self._retrieval.config
        with translated():
            found = self._found(tool, identity, question)
            packing = config.search.model_copy(update={"limit": tool.max_num_results})
            hits = [one.hit for one in found]
            passages = pack(hits, packing, self._retrieval.library().embedder)
        include = request.value("include") or []
        names = ("tools", "tool_choice", "instructions")
        grounding = Grounding(
            question, found, passages, config.cite,
            {name: request.value(name) for name in names if name in request}, _RESULTS in include,
        )  # fmt: skip
        _rewrite(request, grounding, include)
        return grounding

    def _found(self, tool: FileSearchTool, identity: Identity, question: str) -> list[FoundPassage]:
        """Of all stores together, the best first."""
        from serving.retrieval.finding import find

        wanted = to_search([question], tool)
        found: list[FoundPassage] = []
        for id in dict.fromkeys(tool.vector_store_ids):
            store = lively(permitted(self._retrieval, identity, id))
            found += find(self._retrieval, store, wanted)
            self._retrieval.stores.touch(store)
        found.sort(key=lambda one: -one.hit.score)
        return found[: wanted.limit]


def _rewrite(request: EngineRequest, grounding: Grounding, include: list[str]) -> None:
    """Passages in, the tool out."""
    request.set("instructions", grounding.instructions(request.value("instructions")))
    others = [tool for tool in request.value("tools") if tool.get("type") != "file_search"]
    choice = request.value("tool_choice")
    if others:
        request.set("tools", others)
    else:
        request.remove("tools")
    if not others or (isinstance(choice, dict) and choice.get("type") == "file_search"):
        request.remove("tool_choice")
    if _RESULTS in include:
        rest = [name for name in include if name != _RESULTS]
        if rest:
            request.set("include", rest)
        else:
            request.remove("include")


def _question(given: Any) -> str:
    """The last text of the user's. Raises ApiError (400)."""
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given or []
    for item in reversed(items):
        if not isinstance(item, dict) or item.get("role") != "user":
            continue
        content = item.get("content")
        parts = [{"text": content}] if isinstance(content, str) else content or []
        text = "\n".join(part["text"] for part in parts if isinstance(part.get("text"), str))
        if text.strip():
            return text[:_MAX_QUESTION]
    raise ApiError(400, "`input` has no text of the user's to search for", param="input")
