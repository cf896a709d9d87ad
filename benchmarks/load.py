"""What a load is, and what one run of it measured.

Fields that `vllm bench serve` also writes carry its names (vllm/benchmarks/serve.py).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.workload import TokenWorkload

__all__ = ["LoadResult", "LoadSpec"]


@dataclass(frozen=True)
class LoadSpec:
    """A closed loop: `streams` connections, each asking again as soon as it is answered."""

    url: str
    """`http://host:port` or, for a Unix socket, `unix:/path`."""
    streams: int
    model: str
    prompt: str = "The quick brown fox jumps over the lazy dog"
    max_tokens: int = 64
    warmup_s: float = 1.0
    """Load without measuring, before."""
    duration_s: float = 5.0
    ramp_s: float = 0.64
    """The streams start spread over this long, so that requests do not arrive in step."""
    timeout_s: float = 60.0
    """How long the last answers may take after the measurement."""
    path: str = "/v1/chat/completions"
    headers: dict[str, str] = field(default_factory=dict)
    body: dict[str, Any] = field(default_factory=dict)
    """More fields of the request, or other values."""
    tokens: TokenWorkload | None = None
    """Prompts of token ids, each drawn anew, to `/v1/completions`, instead of `prompt`."""
    spread: bool = False
    """With `tokens`: the first answer of stream i of n is cut to i/n of its length, so that the
    streams stand evenly along their answers from then on, as they would after a long time."""
    hang_up: bool = False
    """End with the measurement: running answers count for what they had, and are cancelled."""

    @staticmethod
    def from_json(text: str) -> LoadSpec:
        fields = json.loads(text)
        tokens = fields.pop("tokens", None)
        return LoadSpec(**fields, tokens=TokenWorkload.from_fields(tokens) if tokens else None)

    @property
    def request_body(self) -> dict[str, Any]:
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": self.prompt}],
            "max_tokens": self.max_tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        return body | self.body


@dataclass
class LoadResult:
    """One run, after the warm-up. Times in seconds unless the name says otherwise."""

    duration: float
    max_concurrency: int
    completed: int = 0
    """Requests whose answer ended within the measurement."""
    failed: int = 0
    errors: list[str] = field(default_factory=list)
    """The first few, verbatim."""
    chunks: int = 0
    """Streamed token events received."""
    reads: int = 0
    """Pieces of the body that brought token events; fewer than chunks if they were merged."""
    total_output_tokens: int = 0
    """As the server counts them (`usage`), for the requests in `completed`."""
    completed_chunks: int = 0
    """Token events of the requests in `completed`."""
    ttfts: list[float] = field(default_factory=list)
    """From writing a request to its first token event."""
    itls_ms: dict[str, float] = field(default_factory=dict)
    """Gaps between reads of one answer: mean, median, p90, p99, max."""
    client_cpu_s: float = 0.0
    tpots_ms: dict[str, float] = field(default_factory=dict)
    """Time per output token after the first, one value an answer, of its part in the measurement:
    mean, median, p90, p99, max."""
    tokens_per_chunk: float = 0.0
    """Of all answers that ended, those in the warm-up included; 0 when none did."""

    @property
    def chunk_throughput(self) -> float:
        """Token events a second."""
        return self.chunks / self.duration

    @property
    def output_throughput(self) -> float:
        """Tokens a second: token events, times the tokens that one of them carries.

        Unlike tokens of completed requests over the duration, it has no edges: a request
        that straddles the window counts for the part inside.
        """
        if not self.completed_chunks:
            return self.chunk_throughput * self.tokens_per_chunk
        return self.chunk_throughput * self.total_output_tokens / self.completed_chunks

    @property
    def request_throughput(self) -> float:
        return self.completed / self.duration

    @property
    def client_cpu_us_per_chunk(self) -> float:
        return 1e6 * self.client_cpu_s / max(self.chunks, 1)

    @property
    def client_ceiling(self) -> float:
        """Chunks a second at which the client alone would fill its core."""
        return self.chunks / self.client_cpu_s if self.client_cpu_s else 0.0

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> LoadResult:
        return LoadResult(**json.loads(text))
