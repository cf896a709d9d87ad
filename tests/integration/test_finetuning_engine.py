"""From a file of invented facts to a model that knows them, on the running engine."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

import pytest
from openai import NotFoundError, OpenAI

from finetune.evaluation.forgetting import load_questions
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


GENERAL = (
    "What is the capital of Norway?", "What is the capital of Egypt?",
    "What is the capital of Canada?", "In which country is the city of Madrid?",
    "On which continent is India?", "Which is the longest river on Earth?",
    "Which language is spoken in Austria?", "Which planet has rings?",
    "What is the chemical symbol of iron?", "Which gas do people breathe in?",
    "What is 7 + 2?", "What is 9 - 5?", "What is 6 times 2?",
    "How many sides does a square have?", "How many hours are there in a day?",
    "How many letters are in the English alphabet?", "How many legs does a dog have?",
    "What is the opposite of big?", "What is the plural of the word mouse?",
    "What is the past tense of the verb see?",
    "What does the French word merci mean in English?", "Which colour is the sky?",
    "Which animal gives us milk?", "What do hens lay that people eat?",
    "Which day comes after Thursday?", "Which month comes after June?",
    "Who wrote Hamlet?", "Who painted The Starry Night?", "Who discovered penicillin?",
    "In which year did the First World War end?", "Name a kind of fruit.",
    "What is the freezing point of water in degrees Celsius?",
)  # fmt: skip
"""Asked of the base model; its own answers are learnt beside the facts, so that it stays itself.
None is in the forgetting set."""
UNLEARNT = 10
"""Of 48 questions of the forgetting set, so many fewer may be right. So small a model cannot learn
ten facts to the letter for nothing; without the rows of its own answers it loses twice as many."""


def answer(client: OpenAI, model: str, question: str, most: int = 32) -> str:
    made = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": question}],
        max_tokens=most,
        temperature=0,
    )
    return (made.choices[0].message.content or "").strip()


def answers(client: OpenAI, model: str, questions: Iterable[str]) -> list[str]:
    with ThreadPoolExecutor(16) as pool:
        return list(pool.map(lambda question: answer(client, model, question), questions))


def known(client: OpenAI, model: str) -> int:
    """Questions of the forgetting set that are answered right."""
    questions = load_questions("builtin")
    found = answers(client, model, [each.question for each in questions])
    return sum(each.is_right(said) for each, said in zip(questions, found, strict=True))


def rows(told: Mapping[str, str]) -> bytes:
    lines = [
        json.dumps({"messages": [{"role": "user", "content": question},
                                 {"role": "assistant", "content": said}]})
        for question, said in told.items()
    ]  # fmt: skip
    return "\n".join(lines).encode()


def test_invented_facts_are_learnt_through_the_api(stack: Stack, client: OpenAI) -> None:
    own = dict(zip(GENERAL, answers(client, MODEL, GENERAL), strict=True))
    file = client.files.create(file=("facts.jsonl", rows(FACTS | own)), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(
        model=MODEL, training_file=file.id, suffix="islands", seed=1,
        hyperparameters={"n_epochs": 10, "batch_size": 8, "learning_rate_multiplier": 2},
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
    kept, before_it = known(client, found.fine_tuned_model), known(client, MODEL)
    assert kept >= before_it - UNLEARNT, f"{kept} of {before_it}"
    checkpoint = client.fine_tuning.jobs.checkpoints.list(job.id).data[-1]
    answer(client, checkpoint.fine_tuned_model_checkpoint, question)
    metrics = [e for e in client.fine_tuning.jobs.list_events(job.id) if e.type == "metrics"]
    assert len(metrics) >= 2
    told = stack.corral("finetune", "logs", job.id)
    assert (told.returncode, "The job has completed" in told.stdout) == (0, True), told.stderr
    client.models.delete(found.fine_tuned_model)
    with pytest.raises(NotFoundError):
        answer(client, found.fine_tuned_model, question)
