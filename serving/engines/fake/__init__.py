"""An engine without a model: deterministic answers at a set pace, over the real wire format.

For tests and for measuring everything around an engine. It echoes the last user text,
prefixed with `[adapter] ` when an adapter is asked for. As a server of its own:

    python -m serving.engines.fake --port 9000 --interval 0.01 --tokens 64

Fault switch, for tests: while the file named by the environment variable
`CORRAL_FAKE_HANG` exists, generation and `probe` stall as a hung engine does;
`/health` goes on answering 200, as vLLM's does.

requests.py  what a request asks for, and the answer that follows    pace.py   who speaks when
wire*.py     the answer in each API's format                         pooling.py  embeddings, scores
engine.py    the state: adapters, counters, probe                    app.py    the ASGI routes
"""

from serving.engines.fake.engine import HANG_ENV, FakeEngine

__all__ = ["HANG_ENV", "FakeEngine"]
