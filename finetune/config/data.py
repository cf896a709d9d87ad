"""What is learnt from."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from configs import StrictModel

Format = Literal["messages", "prompt_completion", "alpaca", "sharegpt", "preference"]


class FileSource(StrictModel):
    """A file of examples: JSON Lines, or Parquet (told by its first bytes)."""

    kind: Literal["file"] = "file"
    path: str = Field(min_length=1)
    """Where it is; relative to the working directory."""
    format: Format | Literal["auto"] = "auto"
    """What a row looks like. `auto` decides by the fields of the first row that fits a format;
    every other row must then fit it too."""


class HubSource(StrictModel):
    """A data set of the Hugging Face Hub, or a folder in its layout. Needs the extra `finetune`."""

    kind: Literal["hub"] = "hub"
    name: str = Field(min_length=1)
    """`owner/name`, or a folder."""
    subset: str | None = None
    """Its configuration, where it has several."""
    split: str = "train"
    """Which of its splits; slices such as `train[:1000]` work."""
    revision: str | None = None
    """A commit. Without one the newest is read, and the same run may read other rows later."""
    format: Format | Literal["auto"] = "auto"
    """As for a file."""

    @property
    def path(self) -> str:
        """How reports call it."""
        subset = f":{self.subset}" if self.subset else ""
        revision = f"@{self.revision}" if self.revision else ""
        return f"{self.name}{subset}{revision}[{self.split}]"


def _kind(source: Any) -> str:
    found = source.get("kind") if isinstance(source, dict) else getattr(source, "kind", None)
    return "file" if found is None else str(found)


SourceConfig = Annotated[
    Annotated[FileSource, Tag("file")] | Annotated[HubSource, Tag("hub")],
    Discriminator(
        _kind, custom_error_type="source_kind", custom_error_message="`kind` is `file` or `hub`"
    ),
]


class DataConfig(StrictModel):
    """What is learnt from, and what becomes of rows that do not fit."""

    train: tuple[SourceConfig, ...] = ()
    """Read in this order; together they are one data set."""
    validation: tuple[SourceConfig, ...] = ()
    """Held out. A row that is in the training data too is an error."""
    validation_fraction: float = Field(0.05, ge=0, le=0.5)
    """Without `validation`: about this share of the training rows is held out, chosen by a hash
    of the prompt, so that a row stays on its side when others are added."""
    deduplicate: bool = True
    """Keep the first of rows with the same content; reports count the others."""
    max_length: int = Field(2048, ge=2)
    """Tokens an example may have, its chat template's included; and those of a pack."""
    over_long: Literal["error", "drop", "truncate_left", "truncate_right"] = "error"
    """What becomes of a longer example. `truncate_left` keeps its last `max_length` tokens (the
    answer), `truncate_right` its first. Preference pairs are never cut. Reports count each."""
    min_examples: int = Field(10, ge=1)
    """Fewer training examples are refused. 10 is the least that OpenAI's API takes; it is no
    promise that so few are enough."""
    max_row_mib: int = Field(16, ge=1)
    """A longer line of a JSON Lines file is a bad row: this bounds what reading holds."""
    completions: Literal["chat", "text"] = "chat"
    """How prompt/completion rows are trained: `chat` as a user's and an assistant's message,
    `text` as the plain continuation that `/v1/completions` sees."""
    chat_template: str | None = None
    """A Jinja file that replaces the model's own chat template. Serve with the same one."""
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Variables for the chat template, such as `enable_thinking: false`."""

    @model_validator(mode="after")
    def _reserved(self) -> DataConfig:
        reserved = {"messages", "tools", "add_generation_prompt"} & set(self.chat_template_kwargs)
        if reserved:
            raise ValueError(
                f"chat_template_kwargs cannot set {', '.join(sorted(reserved))}: the data does"
            )
        return self
