"""Wire format of the pooling engines: embeddings, rerank, score, tokenize, detokenize.

Requests are decoded and answers built here; nothing is computed and nothing is
said about HTTP beyond status codes. Shapes follow OpenAI's embeddings API and
vLLM's rerank and score APIs (those in turn Jina's and Cohere's rerank). Fields
not named here are ignored, as vLLM does.
"""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol, TypeVar

import msgspec

from serving.errors import CorralError

__all__ = [
    "DetokenizeRequest",
    "EmbeddingRequest",
    "Pairs",
    "RequestError",
    "RerankRequest",
    "ScoreRequest",
    "ScoringRequest",
    "TokenizeRequest",
    "Vector",
    "decode",
    "embeddings_answer",
    "rerank_answer",
    "score_answer",
    "texts_and_ids",
]

S = TypeVar("S", bound=msgspec.Struct)

NonNegative = Annotated[int, msgspec.Meta(ge=0)]
Positive = Annotated[int, msgspec.Meta(ge=1)]
Document = str | dict[str, Any]
OneOrMany = Document | list[Document]


class RequestError(CorralError):
    """A request that cannot be answered; `body` is the OpenAI error envelope."""

    def __init__(
        self, message: str, *, status: int = 400, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.param, self.code = status, param, code

    @property
    def body(self) -> bytes:
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        error = {"message": str(self), "type": kind, "param": self.param, "code": self.code}
        return msgspec.json.encode({"error": error})


class Vector(Protocol):
    """One embedding: a little-endian float32 array of shape (dim,), such as NumPy's."""

    def tolist(self) -> Any: ...
    def tobytes(self) -> bytes: ...


class _Truncating(msgspec.Struct):
    model: str | None = None
    user: str | None = None
    truncate_prompt_tokens: Annotated[int, msgspec.Meta(ge=-1)] | None = None
    truncation_side: Literal["left", "right"] | None = None


class EmbeddingRequest(_Truncating, kw_only=True):
    """`POST /v1/embeddings`. Token ids are used as they are, without special tokens added."""

    input: str | list[str | int | list[int]]
    encoding_format: Literal["float", "base64"] | None = None
    """None is `float`: some clients send null for what they leave to the server."""
    dimensions: Positive | None = None
    add_special_tokens: bool = True
    embed_dtype: Literal["float32"] = "float32"
    endianness: Literal["native", "little"] = "little"


class ScoringRequest(_Truncating, kw_only=True):
    """What rerank and score have in common. Zero means no limit on a query or document."""

    max_tokens_per_query: NonNegative = 0
    max_tokens_per_doc: NonNegative = 0


class RerankRequest(ScoringRequest, kw_only=True):
    """`POST /v1/rerank`. `top_n: 0` returns every document."""

    query: Document
    documents: OneOrMany
    top_n: NonNegative | None = None
    return_documents: bool = True


class ScoreRequest(ScoringRequest, kw_only=True):
    """`POST /v1/score`: exactly one pair of fields is given."""

    text_1: OneOrMany | None = None
    text_2: OneOrMany | None = None
    queries: OneOrMany | None = None
    documents: OneOrMany | None = None
    items: OneOrMany | None = None
    data_1: OneOrMany | None = None
    data_2: OneOrMany | None = None

    def sides(self) -> Pairs:
        """The two sides, 1:1, 1:N or N:N. Raises RequestError."""
        for left, right in _SIDES:
            first, second = getattr(self, left), getattr(self, right)
            if first is not None and second is not None:
                return Pairs.of(first, second, left, right)
        names = ", ".join(f"{left!r} with {right!r}" for left, right in _SIDES)
        raise RequestError(f"a score needs two fields: {names}")


_SIDES = (
    ("text_1", "text_2"),
    ("queries", "documents"),
    ("queries", "items"),
    ("data_1", "data_2"),
)


class TokenizeRequest(msgspec.Struct, kw_only=True):
    """`POST /tokenize`."""

    prompt: str
    model: str | None = None
    add_special_tokens: bool = True
    return_token_strs: bool | None = False


class DetokenizeRequest(msgspec.Struct, kw_only=True):
    """`POST /detokenize`."""

    tokens: list[NonNegative]
    model: str | None = None


@dataclass(frozen=True)
class Pairs:
    """Texts to score: one query for all documents, or one for each."""

    queries: list[str]
    documents: list[str]
    query_param: str
    document_param: str

    @staticmethod
    def of(queries: OneOrMany, documents: OneOrMany, left: str, right: str) -> Pairs:
        """Raises RequestError unless the lengths are 1:1, 1:N or N:N."""
        pairs = Pairs(_texts(queries, left), _texts(documents, right), left, right)
        if not pairs.queries or not pairs.documents:
            empty = right if pairs.queries else left
            raise RequestError(f"{empty!r} is an empty list", param=empty)
        if len(pairs.queries) not in (1, len(pairs.documents)):
            raise RequestError(
                f"{left!r} has {len(pairs.queries)} entries and {right!r} has "
                f"{len(pairs.documents)}; give one for all, or as many on both sides",
                param=left,
            )
        return pairs


def decode(kind: type[S], body: bytes) -> S:
    """The request in `body`. Raises RequestError for bad JSON and wrong types."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as exc:
        at = re.search(r"(?: - at `\$\.|field `)(\w+)", str(exc))
        raise RequestError(str(exc), param=at and at[1]) from exc
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise RequestError(f"the request body is not valid JSON: {exc}") from exc


def texts_and_ids(given: str | list[str | int | list[int]]) -> list[str | list[int]]:
    """The inputs of an embeddings request, one each. Raises RequestError for a mixture."""
    if isinstance(given, str):
        return [given]
    if not given:
        raise RequestError("'input' is an empty list", param="input")
    kinds = {type(one) for one in given}
    if kinds == {int}:
        return [[one for one in given if isinstance(one, int)]]
    if int in kinds or len(kinds) > 1:
        raise RequestError(
            "'input' must hold texts only, token ids only, or lists of token ids only",
            param="input",
        )
    return [one for one in given if not isinstance(one, int)]


def _texts(given: OneOrMany, param: str) -> list[str]:
    return [_text(one, param) for one in (given if isinstance(given, list) else [given])]


def _text(given: Document, param: str) -> str:
    if isinstance(given, str):
        return given
    text = given.get("text")
    if not isinstance(text, str):
        raise RequestError('an entry must be a text or {"text": ...}', param=param)
    return text


def embeddings_answer(
    model: str, request_id: str, vectors: Sequence[Vector], tokens: int, *, base64_encoded: bool
) -> bytes:
    """The JSON answer. Encodes one vector at a time, so that a thread can be switched out."""
    data = [
        {"object": "embedding", "index": at, "embedding": msgspec.Raw(_vector(one, base64_encoded))}
        for at, one in enumerate(vectors)
    ]
    return _answer(f"embd-{request_id}", model, data, tokens)


def _vector(vector: Vector, base64_encoded: bool) -> bytes:
    if base64_encoded:
        return b'"' + base64.b64encode(vector.tobytes()) + b'"'
    return msgspec.json.encode(vector.tolist())


def score_answer(model: str, request_id: str, scores: Sequence[float], tokens: int) -> bytes:
    """The JSON answer, in the order of the pairs."""
    data = [{"index": at, "object": "score", "score": one} for at, one in enumerate(scores)]
    return _answer(f"score-{request_id}", model, data, tokens)


def _answer(answer_id: str, model: str, data: list[dict[str, Any]], tokens: int) -> bytes:
    return msgspec.json.encode(
        {
            "id": answer_id,
            "object": "list",
            "created": int(time.time()),
            "model": model,
            "data": data,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
    )


def rerank_answer(
    model: str,
    request_id: str,
    request: RerankRequest,
    documents: Sequence[str],
    scores: Sequence[float],
    tokens: int,
) -> bytes:
    """The JSON answer: best first, ties in the order given, at most `top_n`."""
    order = sorted(range(len(scores)), key=lambda at: -scores[at])[: request.top_n or None]
    results = []
    for at in order:
        result: dict[str, Any] = {"index": at, "relevance_score": scores[at]}
        if request.return_documents:
            result["document"] = {"text": documents[at]}
        results.append(result)
    return msgspec.json.encode(
        {
            "id": f"rerank-{request_id}",
            "model": model,
            "results": results,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
    )
