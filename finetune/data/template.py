"""Renders conversations with a model's chat template. The one file that imports transformers,
and of it only the renderer, which needs no torch: vLLM renders with the same function."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError, TemplateSyntaxError

from finetune.data.rows import Message
from finetune.errors import TokenizerUnavailable, Unrenderable

_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")


@dataclass(frozen=True)
class Rendered:
    """Text, and where the template says that the assistant's parts are (characters)."""

    text: str
    answers: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class ChatTemplate:
    """A Jinja chat template with the variables that every rendering of it gets."""

    source: str
    variables: Mapping[str, Any]

    @property
    def marks_answers(self) -> bool:
        """Whether it encloses the assistant's parts in `{% generation %}`."""
        return _GENERATION.search(self.source) is not None

    @property
    def shows_the_date(self) -> bool:
        """Whether its text changes from day to day, since nothing sets the date for it."""
        return "strftime_now" in self.source and "date_string" not in self.variables

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[dict[str, Any]] = (),
        *,
        generation_prompt: bool = False,
    ) -> Rendered:
        """Render as the server does. Raises Unrenderable, and TokenizerUnavailable for a template
        that cannot render anything."""
        # Takes a second, which checking data without a tokenizer need not wait for.
        from transformers.utils.chat_template_utils import render_jinja_template

        plain = [{key: item for key, item in m.items() if key != "weight"} for m in messages]
        try:
            texts, spans = render_jinja_template(
                [plain],
                tools=list(tools) or None,
                chat_template=self.source,
                return_assistant_tokens_mask=self.marks_answers,
                add_generation_prompt=generation_prompt,
                **self.variables,
            )
        except TemplateSyntaxError as exc:
            raise TokenizerUnavailable(
                f"the chat template is not valid Jinja: {exc.message} (line {exc.lineno})"
            ) from exc
        except (TemplateError, TypeError, ValueError, KeyError, AttributeError) as exc:
            raise Unrenderable(f"the chat template refuses it: {exc}") from exc
        return Rendered(texts[0], tuple(spans[0]) if spans else ())
