"""The data card: what a data set is, in JSON for machines and Markdown for people."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from finetune.config import DataConfig
from finetune.data.check import Checked
from finetune.data.statistics import PartStatistics, statistics
from finetune.data.tokenise import Tokenised


@dataclass(frozen=True)
class DataCard:
    """Everything that a reader needs to judge the data by. Without a tokenizer, no tokens."""

    config: DataConfig
    checked: Checked
    tokenizer: str | None = None
    tokenised: Tokenised | None = None

    @cached_property
    def parts(self) -> dict[str, PartStatistics]:
        """Statistics of both parts; empty without a tokenizer."""
        if self.tokenised is None:
            return {}
        limit = self.config.max_length
        return {
            "train": statistics(self.tokenised.train, limit),
            "validation": statistics(self.tokenised.validation, limit),
        }

    @property
    def warnings(self) -> list[str]:
        """Of both passes."""
        return [*self.checked.warnings, *(self.tokenised.warnings if self.tokenised else ())]

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        checked, found = self.checked, self.tokenised
        return {
            "version": checked.version,
            "method": checked.method,
            "examples": {"train": checked.train, "validation": checked.validation},
            "sources": [asdict(source) for source in checked.sources],
            "faults": len(checked.faults) + (len(found.faults) if found else 0),
            "warnings": self.warnings,
            "tokenizer": self.tokenizer,
            "over_long": None
            if found is None
            else {
                "policy": self.config.over_long,
                "max_length": self.config.max_length,
                "found": found.over_long,
                "dropped": found.dropped,
                "truncated": found.truncated,
            },
            "conversations_learnt_answer_by_answer": found.split_rows if found else None,
            "tokens": {
                name: asdict(part) | {"trainable_share": part.trainable_share}
                for name, part in self.parts.items()
            },
            "config": self.config.model_dump(mode="json"),
        }

    def as_markdown(self) -> str:
        """The same as a page."""
        checked = self.checked
        lines = [
            "# Data card",
            "",
            f"- Version: `{checked.version}` (content of both parts; order and files do not count)",
            f"- Method: {checked.method}",
            f"- Examples: {checked.train:,} to train on, {checked.validation:,} held out",
            f"- Held out: {self._held_out()}",
            "",
            "| source | part | format | rows | bad | duplicates |",
            "|---|---|---|---:|---:|---:|",
        ]
        lines += [
            f"| {each.name} | {each.part} | {each.format or 'unknown'} | {each.rows:,} "
            f"| {each.bad:,} | {each.duplicates:,} |"
            for each in checked.sources
        ]
        left_out = "left out; the first of equal rows stays" if self.config.deduplicate else "kept"
        lines += ["", f"Duplicates are {left_out}.", ""]
        lines += self._tokens()
        if self.warnings:
            lines += ["## Warnings", "", *(f"- {text}" for text in self.warnings), ""]
        return "\n".join(lines)

    def _held_out(self) -> str:
        if self.config.validation:
            return "the validation sources"
        return f"{self.config.validation_fraction:.1%} of prompts, by their hash"

    def _tokens(self) -> list[str]:
        found = self.tokenised
        if found is None:
            bad = len(self.checked.faults)
            why = f"{bad} faults come first" if bad else "no tokenizer was loaded"
            return [f"Tokens were not counted: {why}.", ""]
        lines = [
            "## Tokens",
            "",
            f"Counted with `{self.tokenizer}`, chat template included.",
            "",
            "| part | examples | tokens | trainable | min | mean | p50 | p95 | max "
            "| packed into | filled |",
            "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
        ]
        for name, part in self.parts.items():
            if (of := part.lengths) is None:
                continue
            packed = f"{part.packs:,} | {part.packing_efficiency:.1%}" if part.packs else "– | –"
            lines.append(
                f"| {name} | {part.examples:,} | {part.tokens:,} | {part.trainable_share:.1%} "
                f"| {of.min:,} | {of.mean:,.1f} | {of.p50:,} | {of.p95:,} | {of.max:,} | {packed} |"
            )
        config = self.config
        lines += [
            "",
            f"Over-long (more than {config.max_length:,} tokens): {found.over_long:,}; policy "
            f"`{config.over_long}`: {found.dropped:,} dropped, {found.truncated:,} truncated.",
            "",
        ]
        if found.split_rows:
            lines += [
                f"{found.split_rows:,} conversations are learnt answer by answer: the chat "
                "template rewrites earlier turns.",
                "",
            ]
        return lines


def save_card(card: DataCard, folder: Path) -> None:
    """Write `card.json` and `card.md`."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(card.as_json(), indent=2, ensure_ascii=False)
    (folder / "card.json").write_text(f"{text}\n", encoding="utf-8")
    (folder / "card.md").write_text(card.as_markdown(), encoding="utf-8")
