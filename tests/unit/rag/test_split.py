"""Chunks cover the text, their spans are exact, and none is longer than the embedder takes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from rag.embed.config import FakeEmbedConfig
from rag.embed.fake import FakeEmbedder
from rag.embed.tokenizer import ModelTokens
from rag.errors import EmbedderUnavailable
from rag.load.parse import parse
from rag.protocols import RawFile, Tokens
from rag.split.config import SplitConfig
from rag.split.splitter import Splitter
from rag.types import Chunk, Document


def _byte_pairs() -> ModelTokens:
    """A small byte-level BPE, whose tokens depend on the white space around a word."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(["the pump of the north loop is cooled " * 5], trainer)
    return ModelTokens(tokenizer, 24)


TOKENS: dict[str, Tokens] = {
    "fake": FakeEmbedder(FakeEmbedConfig(max_tokens=24)),
    "byte pairs": _byte_pairs(),
}
WORDS = st.sampled_from(
    ["the", "Pump.", "north", "# Heading", "## Sub", "\n", "\n\n", " ", "- item", "| a | b |",
     "```", "\u00e9t\u00e9", "\u4e2d\u6587\u3002", "x" * 90, "\U0001f600", "Dr. No.", "e.g.",
     "\r\n", "\u0301", "\u2028"]
)  # fmt: skip
READABLE = st.characters(exclude_characters="\0", exclude_categories=["Cs"])
TEXTS = st.lists(st.one_of(WORDS, st.text(READABLE, max_size=12)), max_size=80).map(" ".join)
CONFIGS = st.builds(
    SplitConfig,
    by=st.sampled_from(["heading", "recursive", "sentence", "token"]),
    max_tokens=st.sampled_from([None, 8, 13]),
    overlap_tokens=st.sampled_from([0, 3]),
    heading_context=st.booleans(),
    parent_tokens=st.sampled_from([None, 16, 60]),
)


def document(text: str, name: str = "a.md") -> Document:
    (found,) = parse(RawFile(name, text.encode("utf-8", "surrogatepass"))) or (None,)
    assert found is not None
    return found


@pytest.mark.parametrize("which", TOKENS)
@settings(max_examples=150)
@given(text=TEXTS, config=CONFIGS)
def test_chunks_cover_the_text_exactly_and_fit(which: str, text: str, config: SplitConfig) -> None:
    found = parse(RawFile("a.md", text.encode("utf-8", "surrogatepass")))
    splitter = Splitter(config, TOKENS[which])
    for one in found:
        chunks = splitter.split(one)
        _check(one, chunks, splitter, TOKENS[which])


def _check(one: Document, chunks: list[Chunk], splitter: Splitter, tokens: Tokens) -> None:
    children = [chunk for chunk in chunks if not chunk.is_parent]
    parents = {chunk.id: chunk for chunk in chunks if chunk.is_parent}
    covered = [False] * len(one.text)
    for chunk in children:
        assert chunk.text == chunk.span.of(one.text)
        covered[chunk.span.start : chunk.span.end] = [True] * len(chunk.span)
        if chunk.parent_id:
            around = parents[chunk.parent_id].span
            assert around.start <= chunk.span.start
            assert chunk.span.end <= around.end
    assert all(done or sign.isspace() for done, sign in zip(covered, one.text, strict=True))
    counts = tokens.count_tokens([chunk.embedded for chunk in children])
    assert max(counts, default=0) <= splitter.max_tokens
    assert len({chunk.id for chunk in chunks}) == len(chunks)
    assert [chunk.position for chunk in children] == list(range(len(children)))


def split(text: str, name: str = "a.md", **config: object) -> list[Chunk]:
    return Splitter(SplitConfig.model_validate(config), TOKENS["fake"]).split(document(text, name))


def test_no_chunk_crosses_a_heading() -> None:
    chunks = split("# A\n\nOne.\n\n## B\n\nTwo.\n\n# C\n\nThree.")
    assert [chunk.heading_path for chunk in chunks] == [("A",), ("A", "B"), ("C",)]
    assert chunks[1].text == "## B\n\nTwo."
    assert chunks[1].embedded == "A > B\n## B\n\nTwo."


def test_a_heading_with_nothing_under_it_goes_with_what_follows() -> None:
    chunks = split("# A\n\n## B\n\nTwo.")
    assert [chunk.text for chunk in chunks] == ["# A\n\n## B\n\nTwo."]


def test_sentences_are_not_cut() -> None:
    text = "Dr. Lise Meitner left in 1938. She went to Stockholm. There she stayed for years. End."
    chunks = split(text, "a.txt", by="sentence", max_tokens=12)
    assert [chunk.text[-1] for chunk in chunks] == ["."] * len(chunks)
    assert chunks[0].text == "Dr. Lise Meitner left in 1938."


def test_paragraphs_stay_whole_where_they_fit() -> None:
    text = "\n\n".join(f"Paragraph {number} has a few words." for number in range(6))
    chunks = split(text, "a.txt", by="recursive", max_tokens=16)
    assert all(chunk.text.startswith("Paragraph") for chunk in chunks)
    assert all(chunk.text.endswith("words.") for chunk in chunks)


def test_windows_overlap_by_what_was_asked() -> None:
    text = " ".join(f"w{number}" for number in range(40))
    chunks = split(text, "a.txt", by="token", max_tokens=10, overlap_tokens=4)
    assert chunks[0].text.split()[-4:] == chunks[1].text.split()[:4]


def test_one_huge_line_is_cut() -> None:
    chunks = split("x" * 100_000, "a.txt")
    assert sum(len(chunk.text) for chunk in chunks) == 100_000
    assert max(len(chunk.text) for chunk in chunks) <= 24 * 16


def test_ids_follow_from_the_content() -> None:
    assert [c.id for c in split("# A\n\nOne.")] == [c.id for c in split("# A\n\nOne.")]
    assert [c.id for c in split("# A\n\nOne.")] != [c.id for c in split("# A\n\nTwo.")]


def test_more_tokens_than_the_embedder_takes_are_refused() -> None:
    with pytest.raises(ValueError, match="the embedder takes 24"):
        split("A", max_tokens=25)


def test_a_folder_without_a_tokenizer_names_the_mend(tmp_path: Path) -> None:
    with pytest.raises(EmbedderUnavailable, match=r"tokenizer\.json"):
        ModelTokens.load(tmp_path)
