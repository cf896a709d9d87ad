"""`python -m rag search`, `ask`, `eval`, `snapshot` and `restore`, on a folder just ingested."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from rag.__main__ import main

LEAVE = "# Leave\n\nEmployees receive 25 days of annual leave.\n"
TRAVEL = "# Travel\n\nTrain journeys are booked by Maria Keller.\n"


class _Model(BaseHTTPRequestHandler):
    """Answers every chat with one sentence and two markers, and reranks by length."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path.endswith("/rerank"):
            results = [
                {"index": at, "relevance_score": -len(text)}
                for at, text in enumerate(body["documents"])
            ]
            answer: dict[str, object] = {"results": results}
        else:
            said = "Employees receive 25 days of annual leave [1][2]."
            answer = {"choices": [{"message": {"content": said}}]}
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on standard error."""


@pytest.fixture
def model() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Model)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> list[str]:
    """Arguments that name a knowledge base with two documents in it."""
    monkeypatch.setenv("CORRAL_HOME", str(tmp_path / "home"))
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "leave.md").write_text(LEAVE)
    (tmp_path / "docs" / "travel.md").write_text(TRAVEL)
    (tmp_path / "rag.yaml").write_text("embed: {kind: fake}\n")
    arguments = ["--config", str(tmp_path / "rag.yaml")]
    assert main(["ingest", *arguments, str(tmp_path / "docs")]) == 0
    capsys.readouterr()
    return arguments


def test_search_prints_passages(base: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", *base, "--json", "--limit", "1", "days of annual leave"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["uri"].endswith("leave.md")
    assert found["text"].strip().endswith("annual leave.")
    assert main(["search", *base, "--store", "other", "days of annual leave"]) == 1
    assert capsys.readouterr().out == ""


def test_search_reranks_through_an_endpoint(
    base: list[str], model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rerank = ["--set", "retrieve.rerank=cross_encoder", "--set", "retrieve.rerank_weight=1"]
    url = ["--set", f"retrieve.cross_encoder.url={model}"]
    assert main(["search", *base, *rerank, *url, "--json", "annual leave days"]) == 0
    texts = [json.loads(line)["text"] for line in capsys.readouterr().out.splitlines()]
    assert len(texts) == 2
    assert len(texts[0]) < len(texts[1])


def test_ask_credits_the_one_passage_that_says_it(
    base: list[str], model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*base, "--set", f"generate.url={model}", "How many days of annual leave?"]
    assert main(["ask", *arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    [citation] = found["citations"]
    assert citation["uri"].endswith("leave.md")
    assert found["removed"] == {"overlap": 1}
    assert LEAVE[slice(*citation["support"])].strip().endswith("25 days of annual leave.")
    assert main(["ask", *arguments]) == 0
    assert "leave.md" in capsys.readouterr().out


def test_a_model_that_is_not_there_is_named(
    base: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = "generate.url=http://127.0.0.1:9/v1"
    assert main(["ask", *base, "--set", nowhere, "How many days?"]) == 2
    assert "http://127.0.0.1:9/v1 gave no answer" in capsys.readouterr().err


def test_eval_compares_two_configurations(
    base: list[str], model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    span = {"document": "leave.md", "start": 10, "end": 40}
    questions = [
        {"question": "days of annual leave", "relevant": {"leave.md": 1}, "spans": [span]},
        {"question": "who books train journeys", "relevant": {"travel.md": 1}},
    ]
    path = tmp_path / "q.jsonl"
    path.write_text("\n".join(json.dumps(one) for one in questions))
    out = tmp_path / "report"
    arguments = [*base, "--set", f"generate.url={model}", str(path), "--out", str(out)]
    assert main(["eval", *arguments, "--against", "mode=text", "--answers", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["configurations"]["configuration"]["MRR@10"]["mean"] == 1
    assert found["configurations"]["configuration"]["span_recall@10"]["mean"] == 1
    assert found["configurations"]["mode=text"]["citations"]["count"] == 2
    assert found["comparison"]["nDCG@10"]["difference"]["mean"] == 0
    assert "<svg" in (out / "report.html").read_text()


def test_a_snapshot_restores_into_a_new_index(
    base: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(tmp_path / "s.zip")
    assert main(["snapshot", *base, file]) == 0
    fresh = [*base, "--set", "index.path=index/fresh"]
    assert main(["restore", *fresh, file]) == 0
    capsys.readouterr()
    assert main(["search", *fresh, "--json", "--limit", "1", "days of annual leave"]) == 0
    assert json.loads(capsys.readouterr().out)["uri"].endswith("leave.md")
    assert main(["restore", *base, file]) == 2
    assert "empty index" in capsys.readouterr().err


def test_another_chunking_is_refused(base: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", *base, "--set", "split.by=token", "leave"]) == 2
    assert "chunking: the index has" in capsys.readouterr().err
