"""Labelled sets, read from a folder given by the caller: Cranfield (TREC XML), the chunking
evaluation of Smith and Troynikov (2024), XQuAD (Artetxe et al., 2020; its English part)."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import dataclass
from pathlib import Path

from rag.evaluate.labelled import LabelledSpan, Question

__all__ = ["Labelled", "cranfield", "span_documents", "xquad"]


@dataclass(frozen=True, slots=True)
class Labelled:
    """A set of documents and questions about them."""

    name: str
    documents: dict[str, str]
    questions: tuple[Question, ...]


def cranfield(folder: Path) -> Labelled:
    """1,400 abstracts. Topics are numbered by their order, as the judgements number them; grade 0
    marks a document that was judged of no interest."""
    xml = (folder / "cran.all.1400.xml").read_text(encoding="utf-8")
    documents = {
        _inside("docno", entry): _inside("text", entry)
        for entry in re.findall(r"<doc>(.*?)</doc>", xml, re.S)
    }
    judged: dict[str, dict[str, int]] = {}
    for line in (folder / "cranqrel.trec.txt").read_text(encoding="utf-8").splitlines():
        topic, _, document, grade = line.split()
        judged.setdefault(topic, {})[document] = max(0, int(grade))
    topics = re.findall(r"<top>(.*?)</top>", (folder / "cran.qry.xml").read_text(), re.S)
    questions = tuple(
        Question(
            question=_inside("title", topic),
            relevant=judged.get(str(number), {}),
            id=str(number),
        )
        for number, topic in enumerate(topics, 1)
    )
    return Labelled("cranfield", documents, questions)


def span_documents(folder: Path) -> Labelled:
    """Five long documents and 472 questions with the character spans that answer them."""
    documents = {path.stem: path.read_text(encoding="utf-8") for path in folder.glob("*.md")}
    questions = []
    with (folder / "questions_df.csv").open(encoding="utf-8", newline="") as file:
        for number, row in enumerate(csv.DictReader(file)):
            references = json.loads(row["references"])
            name = row["corpus_id"]
            spans = tuple(
                LabelledSpan(document=name, start=one["start_index"], end=one["end_index"])
                for one in references
            )
            questions.append(Question(question=row["question"], spans=spans, id=str(number)))
    return Labelled("chunking_eval", documents, tuple(questions))


def xquad(folder: Path) -> Labelled:
    """240 paragraphs and 1,190 questions; the paragraph a question was written for is relevant."""
    data = json.loads((folder / "xquad.en.json").read_text(encoding="utf-8"))["data"]
    documents: dict[str, str] = {}
    questions = []
    for article in data:
        for number, paragraph in enumerate(article["paragraphs"]):
            name = f"{article['title']}#{number}"
            documents[name] = paragraph["context"]
            for entry in paragraph["qas"]:
                answers = tuple(dict.fromkeys(a["text"] for a in entry["answers"]))
                questions.append(
                    Question(
                        question=entry["question"],
                        relevant={name: 1},
                        answers=answers,
                        id=entry["id"],
                    )
                )
    return Labelled("xquad", documents, tuple(questions))


def _inside(tag: str, text: str) -> str:
    found = re.search(rf"<{tag}>(.*?)</{tag}>", text, re.S)
    return found.group(1).strip() if found else ""
