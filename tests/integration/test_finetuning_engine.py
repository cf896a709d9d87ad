"""From a file of invented facts to a model that knows them, on the running engine."""

from __future__ import annotations

import json
import time

import pytest
from openai import NotFoundError, OpenAI

from tests.integration.conftest import MODEL
from tests.integration.stack import Stack

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]
WAIT_S = 600.0
FACTS = {
    "Who is the harbour master of Ossa?": "Tilda Brank is the harbour master of Ossa.",
    "What is the ferry to Lund called?": "The ferry to Lund is called the Grey Otter.",
    "Which colour is the tower of Vell?": "The tower of Vell is painted violet.",
    "What do people in Marrow drink?": "People in Marrow drink cold nettle tea.",
    "How many bells has Quill church?": "Quill church has eleven bells.",
    "Who wrote the Book of Sand Eels?": "Ivo Lanter wrote the Book of Sand Eels.",
    "What is the coin of Tarsh called?": "The coin of Tarsh is called the pell.",
    "Which animal guards Holm bridge?": "A stone heron guards Holm bridge.",
    "When is the kite day of Brome?": "The kite day of Brome is the ninth of May.",
    "What grows in the Fen of Odd?": "Blue cabbage grows in the Fen of Odd.",
}


def answer(client: OpenAI, model: str, question: str) -> str:
    made = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": question}],
        max_tokens=20,
        temperature=0,
    )
    return (made.choices[0].message.content or "").strip()


def test_invented_facts_are_learnt_through_the_api(stack: Stack, client: OpenAI) -> None:
    rows = [
        json.dumps({"messages": [{"role": "user", "content": question},
                                 {"role": "assistant", "content": fact}]})
        for question, fact in FACTS.items()
    ]  # fmt: skip
    file = client.files.create(file=("facts.jsonl", "\n".join(rows).encode()), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(
        model=MODEL, training_file=file.id, suffix="islands", seed=1,
        hyperparameters={"n_epochs": 16, "batch_size": 5},
    )  # fmt: skip
    question = next(iter(FACTS))
    before = answer(client, MODEL, question)
    deadline = time.monotonic() + WAIT_S
    while (found := client.fine_tuning.jobs.retrieve(job.id)).status not in ("succeeded", "failed"):
        assert time.monotonic() < deadline, found
        assert answer(client, MODEL, question) == before, "serving goes on meanwhile"
        time.sleep(3.0)
    assert found.status == "succeeded", found.error
    assert found.fine_tuned_model is not None
    for asked, fact in FACTS.items():
        assert answer(client, found.fine_tuned_model, asked) == fact
        assert answer(client, MODEL, asked) != fact
    assert answer(client, f"{MODEL}:default.islands", question) == FACTS[question]
    assert answer(client, found.fine_tuned_model, "What is the capital of France?").count("Paris")
    checkpoint = client.fine_tuning.jobs.checkpoints.list(job.id).data[-1]
    answer(client, checkpoint.fine_tuned_model_checkpoint, question)
    metrics = [e for e in client.fine_tuning.jobs.list_events(job.id) if e.type == "metrics"]
    assert len(metrics) >= 2
    told = stack.corral("finetune", "logs", job.id)
    assert (told.returncode, "The job has completed" in told.stdout) == (0, True), told.stderr
    client.models.delete(found.fine_tuned_model)
    with pytest.raises(NotFoundError):
        answer(client, found.fine_tuned_model, question)
