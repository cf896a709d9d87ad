"""The first pass: bad rows, duplicates, the split, leakage, the version. Loads no tokenizer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from finetune.config import DataConfig, Format, SourceConfig
from finetune.data.digest import content_digest, is_held_out, prompt_digest, version
from finetune.data.formats import convert, describe_formats, fitting, ignored_fields
from finetune.data.read import read
from finetune.data.rows import Example, Fault, Part, Problems, RawRow
from finetune.errors import BadData

Progress = Callable[[str], None]
Method = Literal["supervised", "preference"]
_EVERY_S = 2.0
# Where a row stands, in one integer: a tuple for each of millions of rows takes thrice the memory.
_ROW_BITS = 48
_ROW_MASK = (1 << _ROW_BITS) - 1


@dataclass
class SourceCount:
    """What became of the rows of one source."""

    name: str
    part: Part
    format: Format | None = None
    rows: int = 0
    bad: int = 0
    duplicates: int = 0
    """Rows with the content of an earlier one of the same part; left out if so configured."""
    ignored: dict[str, int] = field(default_factory=dict)
    """Fields that the format has no use for, and in how many rows they stand."""

    @property
    def method(self) -> Method | None:
        if self.format is None:
            return None
        return "preference" if self.format == "preference" else "supervised"


@dataclass(frozen=True, slots=True)
class Item:
    """One good row that is kept."""

    source: str
    row: int
    part: Part
    example: Example
    content: bytes
    prompt: bytes
    extra: Mapping[str, Any]
    """Fields of the row that its format has no use for; evaluation may slice by them."""


@dataclass(frozen=True)
class Checked:
    """The result of the first pass."""

    sources: tuple[SourceCount, ...]
    faults: tuple[Fault, ...]
    warnings: tuple[str, ...]
    train: int
    """Examples to train on."""
    validation: int
    """Examples held out."""
    version: str
    """SHA-256 over both parts, independent of the order of rows."""

    @property
    def method(self) -> Method:
        return next((found for each in self.sources if (found := each.method)), "supervised")

    def require(self) -> None:
        """Raise BadData if anything is wrong."""
        if self.faults:
            raise BadData(self.faults)


class Pass:
    """Reads every source once; iterating gives the rows that are kept, in order.

    What was found meanwhile is in `faults`, `sources` and `shared_prompts`.
    """

    def __init__(self, config: DataConfig, progress: Progress | None = None) -> None:
        self.faults: list[Fault] = []
        self.sources: list[SourceCount] = []
        self.shared_prompts = 0
        self._config = config
        self._ticker = Ticker(progress)
        self._seen: dict[Part, dict[bytes, int]] = {"train": {}, "validation": {}}
        self._prompts: set[bytes] = set()

    def __iter__(self) -> Iterator[Item]:
        config = self._config
        for source in config.train:
            yield from self._source(source, "train")
        for source in config.validation:
            yield from self._source(source, "validation")

    def _source(self, source: SourceConfig, part: Part) -> Iterator[Item]:
        count = SourceCount(source.path, part, None if source.format == "auto" else source.format)
        self.sources.append(count)
        for raw in read(source, max_row_mib=self._config.max_row_mib):
            count.rows += 1
            self._ticker.tick("{}: {:,} rows read", source.path, raw.number)
            problems = Problems()
            item = self._row(raw, count, problems)
            if problems.found:
                count.bad += 1
                self.faults += problems.faults(count.name, raw.number)
            elif item is not None:
                yield item
        if not count.rows:
            self.faults.append(Fault(count.name, 0, "", "holds no rows"))
        other = next((each for each in self.sources if each.method), count)
        if count.method and other.method != count.method:
            reason = (
                f"{count.format} rows cannot be mixed with those of {other.name} ({other.format})"
            )
            self.faults.append(Fault(count.name, 0, "", reason))

    def _row(self, raw: RawRow, count: SourceCount, problems: Problems) -> Item | None:
        if raw.fault:
            problems.add("", raw.fault)
            return None
        format = self._format(raw, count, problems)
        if format is None:
            return None
        example = convert(format, raw.value, self._config.completions, problems)
        if example is None:
            return None
        ignored = ignored_fields(format, raw.value)
        for name in ignored:
            count.ignored[name] = count.ignored.get(name, 0) + 1
        try:
            content, prompt = content_digest(example), prompt_digest(example)
        except UnicodeEncodeError:
            problems.add("", "a text holds half of a surrogate pair (\\ud800 to \\udfff)")
            return None
        extra = {name: raw.value[name] for name in ignored}
        return self._place(raw, count, example, content, prompt, extra, problems)

    def _format(self, raw: RawRow, count: SourceCount, problems: Problems) -> Format | None:
        found = fitting(raw.value)
        if count.format is None and len(found) == 1:
            count.format = found[0]
        elif count.format is None and isinstance(raw.value, dict):
            if found:
                what = f"fits several formats ({', '.join(found)}): set the source's `format`"
            else:
                what = f"fits no format: its fields are {_names(raw.value)}; {describe_formats()}"
            problems.add("", what)
            return None
        elif found and count.format not in found:
            problems.add(
                "",
                f"looks like {found[0]}, but this source is {count.format}: "
                "put it into a file of its own, or set the source's `format`",
            )
            return None
        return count.format or "messages"

    def _place(
        self,
        raw: RawRow,
        count: SourceCount,
        example: Example,
        content: bytes,
        prompt: bytes,
        extra: Mapping[str, Any],
        problems: Problems,
    ) -> Item | None:
        part = count.part
        config = self._config
        if not config.validation and is_held_out(prompt, config.validation_fraction):
            part = "validation"
        if count.part == "validation":
            if (first := self._seen["train"].get(content)) is not None:
                where = f"{self.sources[first >> _ROW_BITS].name}, row {first & _ROW_MASK}"
                problems.add("", f"is also in the training data ({where}): remove one of the two")
                return None
            self.shared_prompts += prompt in self._prompts
        elif config.validation:
            self._prompts.add(prompt)
        seen = self._seen[part]
        if content in seen:
            count.duplicates += 1
            if config.deduplicate:
                return None
        seen.setdefault(content, (len(self.sources) - 1) << _ROW_BITS | raw.number)
        return Item(count.name, raw.number, part, example, content, prompt, extra)


class Ticker:
    """Calls `progress` at most every two seconds, the first time after two."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._next = time.monotonic() + _EVERY_S

    def tick(self, line: str, *values: object) -> None:
        """Report `line`, formatted with `values`, if it is time."""
        if self._progress is not None and time.monotonic() >= self._next:
            self._progress(line.format(*values))
            self._next = time.monotonic() + _EVERY_S


def check(config: DataConfig, progress: Progress | None = None) -> Checked:
    """Read all the data once and report everything that is wrong with it.

    Raises SourceUnreadable and MissingExtra; faults of rows are in the result.
    """
    reading = Pass(config, progress)
    train: list[bytes] = []
    validation: list[bytes] = []
    for item in reading:
        (train if item.part == "train" else validation).append(item.content)
    faults = reading.faults
    if not config.train:
        faults.append(Fault("data.train", 0, "", "names no file or data set"))
    elif len(train) < config.min_examples:
        least = config.min_examples
        reason = f"{len(train)} good examples to train on, and data.min_examples is {least}"
        faults.append(Fault("all training data", 0, "", reason))
    return Checked(
        sources=tuple(reading.sources),
        faults=tuple(faults),
        warnings=tuple(_warnings(config, reading, len(validation))),
        train=len(train),
        validation=len(validation),
        version=version(train, validation),
    )


def _warnings(config: DataConfig, reading: Pass, held_out: int) -> Iterator[str]:
    if reading.shared_prompts:
        yield (
            f"{reading.shared_prompts} validation examples have the prompt of a training example "
            "and another answer: validation figures will look better than they are"
        )
    if not held_out and not config.validation and config.validation_fraction:
        yield (
            f"no example fell into validation (data.validation_fraction is "
            f"{config.validation_fraction:g}): raise it or name a validation file"
        )
    for source in reading.sources:
        for name, rows in sorted(source.ignored.items()):
            yield f"{source.name}: the field {name!r} is not trained on ({rows} rows have it)"


def _names(row: dict[str, object]) -> str:
    return ", ".join(sorted(map(str, row))[:12]) or "none"
