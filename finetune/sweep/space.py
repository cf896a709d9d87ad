"""The declared space: checked before the first trial, and applied to a configuration."""

from __future__ import annotations

import json
from collections.abc import Mapping

from configs import ConfigError, parse
from finetune.config import FinetuneConfig, Range

Value = bool | int | float | str


def configure(config: FinetuneConfig, values: Mapping[str, Value], name: str) -> FinetuneConfig:
    """`config` with the settings `values`, without its space. Raises ConfigError."""
    base = config.model_dump(mode="json", exclude_unset=True) | {"name": name}
    base.pop("sweep", None)
    overrides = [f"{path}={json.dumps(value)}" for path, value in values.items()]
    return parse(FinetuneConfig, base, overrides, where="the sweep's settings")


def check_space(config: FinetuneConfig) -> None:
    """Raise ConfigError, with every fault, for an empty space, for a path that is no setting, and
    for a value that the setting cannot have."""
    if not config.sweep.space:
        raise ConfigError(
            "sweep.space is empty: declare settings to try, such as\n"
            "  sweep: {space: {train.learning_rate: {low: 1.0e-5, high: 1.0e-3, log: true}}}"
        )
    faults = []
    for path, each in config.sweep.space.items():
        for value in edges(each):
            try:
                configure(config, {path: value}, "check")
            except ConfigError as exc:
                faults.append(f"sweep.space.{path}, value {value}: {_last_line(exc)}")
    if faults:
        raise ConfigError("\n".join(faults))


def edges(each: Range) -> tuple[Value, ...]:
    """Every choice, or both ends of the interval."""
    if each.choices:
        return each.choices
    assert each.low is not None
    assert each.high is not None
    return (round(each.low), round(each.high)) if each.whole else (each.low, each.high)


def _last_line(exc: ConfigError) -> str:
    return str(exc).splitlines()[-1].strip()
