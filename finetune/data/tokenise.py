"""The second pass: every kept row to tokens, with the over-long policy applied and counted."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import pairwise

from finetune.config import DataConfig
from finetune.data.check import Item, Pass, Progress, Ticker
from finetune.data.digest import version
from finetune.data.encode import encode
from finetune.data.rows import Fault, Part, Preference
from finetune.data.tokenizer import ChatTokenizer, Encoded
from finetune.errors import BadData, Unrenderable


class Sequences(Sequence[Encoded]):
    """Many sequences in three flat arrays, 5 bytes a token."""

    def __init__(self) -> None:
        self.tokens = array("i")
        self.trainable = bytearray()
        self.starts = array("q", [0])

    def append(self, found: Encoded) -> None:
        """Add one at the end."""
        self.tokens.extend(found.tokens)
        self.trainable.extend(found.trainable)
        self.starts.append(len(self.tokens))

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, index: int) -> Encoded:  # type: ignore[override]
        if not 0 <= index < len(self):
            raise IndexError(index)
        low, high = self.starts[index], self.starts[index + 1]
        return Encoded(
            self.tokens[low:high].tolist(), [bool(flag) for flag in self.trainable[low:high]]
        )

    def lengths(self) -> list[int]:
        """Tokens of each."""
        return [high - low for low, high in pairwise(self.starts)]

    def trainable_counts(self) -> list[int]:
        """Tokens of each that are learnt."""
        return [self.trainable.count(1, low, high) for low, high in pairwise(self.starts)]


class TokenisedPart:
    """Training or validation data as tokens.

    Train in the order that `order` gives, and the run does not depend on that of the files.
    """

    def __init__(self) -> None:
        self.chosen = Sequences()
        """What is learnt; of preferences, the preferred answers."""
        self.rejected = Sequences()
        """Of preferences the other answers, pair by pair; else empty."""
        self._digests: list[bytes] = []

    def append(self, digest: bytes, chosen: Encoded, rejected: Encoded | None = None) -> None:
        """Add one example."""
        self._digests.append(digest)
        self.chosen.append(chosen)
        if rejected is not None:
            self.rejected.append(rejected)

    def __len__(self) -> int:
        return len(self.chosen)

    def order(self, seed: int, epoch: int = 0) -> list[int]:
        """The examples' indexes, shuffled by a hash of seed, epoch and content.

        The same on every machine and Python; examples that are added do not reorder the others.
        """
        key = seed.to_bytes(16, "big") + epoch.to_bytes(8, "big")
        ranks = [blake2b(digest, key=key, digest_size=16).digest() for digest in self._digests]
        return sorted(range(len(self)), key=ranks.__getitem__)


@dataclass
class Tokenised:
    """The result of the second pass."""

    train: TokenisedPart
    validation: TokenisedPart
    faults: list[Fault]
    over_long: int = 0
    """Sequences (or pairs) longer than `max_length`."""
    dropped: int = 0
    """Of those, left out."""
    truncated: int = 0
    """Of those, cut."""
    unended: int = 0
    """Examples after whose answer no control token is learnt, so that it may go on and on."""
    version: str = ""
    """As `Checked.version`; another one means that the files changed in between."""
    warnings: list[str] = field(default_factory=list)
    """What to know of the tokens."""
    split_rows: int = 0
    """Conversations learnt answer by answer, since the template rewrites earlier turns."""

    def require(self) -> None:
        """Raise BadData if anything is wrong."""
        if self.faults:
            raise BadData(self.faults)


def tokenise(
    config: DataConfig, chat: ChatTokenizer, progress: Progress | None = None
) -> Tokenised:
    """Read the data again and tokenise it. Every row that cannot be is in `faults`.

    Raises BadData if `check` would have found faults, and TokenizerUnavailable.
    """
    result = Tokenised(TokenisedPart(), TokenisedPart(), [])
    reading = Pass(config)
    ticker = Ticker(progress)
    contents: dict[Part, list[bytes]] = {"train": [], "validation": []}
    for done, item in enumerate(reading, start=1):
        ticker.tick("{:,} examples tokenised", done)
        contents[item.part].append(item.content)
        try:
            _example(item, config, chat, result)
        except Unrenderable as exc:
            result.faults.append(Fault(item.source, item.row, "", str(exc)))
    if reading.faults:
        raise BadData(reading.faults)
    result.version = version(contents["train"], contents["validation"])
    if result.unended:
        result.warnings.append(
            f"in {result.unended:,} examples no control token ends the answer: the model does not "
            "learn to stop; give the chat template one (data.chat_template)"
        )
    if chat.template is not None and chat.template.shows_the_date:
        result.warnings.append(
            "the chat template shows today's date, so tokens change from day to day: set "
            "data.chat_template_kwargs.date_string"
        )
    if not result.faults and not len(result.train):
        reason = f"no example is left to train on ({result.dropped} over-long ones were dropped)"
        result.faults.append(Fault("all training data", 0, "", reason))
    return result


def _example(item: Item, config: DataConfig, chat: ChatTokenizer, result: Tokenised) -> None:
    part = _part(result, item.part)
    found = encode(item.example, chat)
    result.unended += not all(chat.ends_with_control_token(one) for one in found)
    is_pair = isinstance(item.example, Preference)
    if is_pair:
        found = _pair(found, config, result)
    else:
        result.split_rows += len(found) > 1
        found = [fit for one in found if (fit := _fit(one, config, result)) is not None]
    for one in found:
        if not any(one.trainable):
            raise Unrenderable("no token of it is trainable")
    if is_pair and found:
        part.append(item.content, found[0], found[1])
    elif not is_pair:
        for one in found:
            part.append(item.content, one)


def _part(result: Tokenised, part: Part) -> TokenisedPart:
    return result.train if part == "train" else result.validation


def _pair(found: list[Encoded], config: DataConfig, result: Tokenised) -> list[Encoded]:
    longest = max(len(one.tokens) for one in found)
    if longest <= config.max_length:
        return found
    result.over_long += 1
    if config.over_long != "drop":
        raise Unrenderable(_too_long(longest, config) + " (a pair is never truncated)")
    result.dropped += 1
    return []


def _fit(one: Encoded, config: DataConfig, result: Tokenised) -> Encoded | None:
    limit = config.max_length
    if len(one.tokens) <= limit:
        return one
    result.over_long += 1
    match config.over_long:
        case "error":
            raise Unrenderable(_too_long(len(one.tokens), config))
        case "drop":
            result.dropped += 1
            return None
        case "truncate_left":
            cut = Encoded(one.tokens[-limit:], [False, *one.trainable[-limit:][1:]])
        case "truncate_right":
            cut = Encoded(one.tokens[:limit], one.trainable[:limit])
    result.truncated += 1
    if not any(cut.trainable):
        raise Unrenderable(
            f"has {len(one.tokens)} tokens, and none of the {limit} that {config.over_long} "
            "leaves is trainable"
        )
    return cut


def _too_long(tokens: int, config: DataConfig) -> str:
    return (
        f"has {tokens} tokens, more than data.max_length {config.max_length}: shorten it, raise "
        "max_length, or set data.over_long to drop, truncate_left or truncate_right"
    )
