"""Whole runs of a tiny model, in this process."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

import finetune
from configs import parse
from finetune.config import FinetuneConfig
from finetune.errors import RunConflict
from finetune.events import Event, read_events
from finetune.stop import Stop
from finetune.summary import load_summary
from serving.adapters.base_model import BaseModel
from serving.adapters.checks import check
from tests.integration.finetune import tiny

WEIGHTS = "adapter_model.safetensors"


def losses(folder: Path) -> list[float]:
    with (folder / "result.csv").open() as file:
        return [float(row["train_loss"]) for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def done(model: Path, facts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run with packing."""
    config = tiny.config(model, facts, packing=True, batch_size=2, evaluate_every=3)
    result = finetune.run(config, folder := tmp_path_factory.mktemp("runs") / "done")
    assert result.exit_status == 0, result.summary.error
    return folder


def test_a_run_learns_and_leaves_all_its_files(done: Path) -> None:
    found = losses(done)
    assert len(found) == 6
    assert found[-1] < found[0] - 0.15
    summary = load_summary(done)
    assert summary is not None
    assert summary.status == "succeeded"
    assert summary.steps == 6
    assert summary.precision == "fp32"
    assert summary.packing_efficiency
    assert 0.5 < summary.packing_efficiency <= 1
    assert summary.tokens_per_second
    assert summary.flops_per_second
    assert summary.base_revision
    assert set(summary.seconds) == {"check", "load", "train", "export"}
    assert {each.name for each in done.iterdir()} >= {"config.yaml", "card.json", "card.md"}


def test_its_events_tell_of_states_metrics_and_checkpoints(done: Path) -> None:
    events = read_events(done).events
    states = [each.data["state"] for each in events if each.type == "state"]
    assert states == ["validating", "running", "exporting", "succeeded"]
    metrics = [each.data for each in events if each.type == "metrics"]
    assert [each["step"] for each in metrics] == [1, 2, 3, 4, 5, 6]
    assert all(each["total_steps"] == 6 and each["tokens_per_second"] > 0 for each in metrics)
    assert ["full_valid_loss" in each for each in metrics] == [False, False, True] * 2
    saved = [each.data["path"] for each in events if each.type == "checkpoint"]
    assert saved
    assert all((done / path / "adapter" / WEIGHTS).is_file() for path in saved[-1:])


def test_the_adapter_loads_in_peft_and_is_what_was_trained(done: Path, model: Path) -> None:
    base = AutoModelForCausalLM.from_pretrained(model)
    tokens = torch.arange(20, 40)[None]
    before = base(tokens).logits
    loaded = PeftModel.from_pretrained(base, done / "adapter")
    assert (loaded(tokens).logits - before).abs().max() > 0.01
    lineage = json.loads((done / "adapter" / "lineage.json").read_text())
    summary = load_summary(done)
    assert summary is not None
    assert lineage["data_hash"] == summary.data_hash
    assert lineage["base_revision"] == summary.base_revision
    assert lineage["config"]["lora"]["rank"] == 4


def test_the_server_accepts_the_adapter_and_every_checkpoint(done: Path, model: Path) -> None:
    base = BaseModel.from_weights("tiny", model)
    checked = check(done / "adapter", base, inside=done)
    assert checked.rank == 4
    assert checked.pairs == 14
    for each in (done / "checkpoints").iterdir():
        assert check(each / "adapter", base, inside=done).pairs == 14


def test_two_runs_of_one_config_give_the_same_bytes(
    done: Path, model: Path, facts: Path, tmp_path: Path
) -> None:
    config = tiny.config(model, facts, packing=True, batch_size=2, evaluate_every=3)
    finetune.run(config, tmp_path / "again")
    bytes_of = [(each / "adapter" / WEIGHTS).read_bytes() for each in (done, tmp_path / "again")]
    assert bytes_of[0] == bytes_of[1]
    other = config.model_copy(update={"seed": 1})
    finetune.run(other, tmp_path / "other")
    assert (tmp_path / "other" / "adapter" / WEIGHTS).read_bytes() != bytes_of[0]


def test_a_finished_run_is_not_run_again(done: Path, model: Path, facts: Path) -> None:
    config = tiny.config(model, facts, packing=True, batch_size=2, evaluate_every=3)
    before = read_events(done).after
    assert finetune.run(config, done).already_done
    assert read_events(done).after == before


def test_a_folder_with_another_run_is_refused(done: Path, model: Path, facts: Path) -> None:
    with pytest.raises(RunConflict, match=r"other settings \(train\)"):
        finetune.run(tiny.config(model, facts), done)


def test_accumulation_weighs_every_token_the_same(model: Path, facts: Path, tmp_path: Path) -> None:
    for name, batch, accumulation in (("whole", 6, 1), ("parts", 1, 6)):
        settings = {"batch_size": batch, "accumulation": accumulation, "max_steps": 3}
        finetune.run(tiny.config(model, facts, **settings), tmp_path / name)
    assert losses(tmp_path / "parts") == pytest.approx(losses(tmp_path / "whole"), abs=2e-5)


def test_stopping_writes_a_checkpoint_and_going_on_gives_the_same_bytes(
    model: Path, facts: Path, tmp_path: Path
) -> None:
    # Dropout: its random numbers must not depend on where the run was cut.
    config = tiny.config(model, facts, "lora.dropout=0.1", gradient_checkpointing=True)
    stop = Stop()

    def at_two(event: Event) -> None:
        if event.type == "metrics" and event.data["step"] == 2:
            stop.request()

    cut = finetune.run(config, tmp_path / "cut", at_two, stop)
    assert cut.exit_status == 75
    assert cut.summary.steps == 2
    assert (tmp_path / "cut" / "checkpoints" / "step-2").is_dir()
    assert finetune.run(config, tmp_path / "cut").exit_status == 0
    assert finetune.run(config, tmp_path / "whole").exit_status == 0
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    found = [(tmp_path / each / "adapter" / WEIGHTS).read_bytes() for each in ("cut", "whole")]
    assert found[0] == found[1]


def test_the_best_checkpoint_is_exported_and_stopping_is_early(
    model: Path, facts: Path, tmp_path: Path
) -> None:
    config = tiny.config(
        model, facts, "train.early_stopping.patience=2",
        evaluate_every=1, keep_checkpoints=1, learning_rate=0.5, max_steps=40, epochs=100,
        schedule="constant",
    )  # fmt: skip
    result = finetune.run(config, tmp_path / "run")
    best = result.summary.best_step
    assert best is not None
    assert result.summary.steps == best + 2 < 40
    saved = tmp_path / "run" / "checkpoints" / f"step-{best}" / "adapter" / WEIGHTS
    assert saved.read_bytes() == (tmp_path / "run" / "adapter" / WEIGHTS).read_bytes()


def test_dpo_learns_to_prefer(model: Path, pairs: Path, tmp_path: Path) -> None:
    config = tiny.config(model, pairs, method="dpo", learning_rate=2e-3, max_steps=8, epochs=10)
    assert finetune.run(config, tmp_path / "run").exit_status == 0
    found = losses(tmp_path / "run")
    assert found[0] == pytest.approx(math.log(2), abs=1e-4)
    assert found[-1] < 0.66


def test_nf4_trains_an_adapter(model: Path, facts: Path, tmp_path: Path) -> None:
    config = tiny.config(model, facts, "precision=nf4", "quantisation.compute_dtype=fp32")
    result = finetune.run(config, tmp_path / "run")
    assert result.exit_status == 0
    assert result.summary.precision == "nf4"
    found = losses(tmp_path / "run")
    assert found[-1] < found[0] - 0.15


def test_data_of_another_method_is_refused(model: Path, pairs: Path, tmp_path: Path) -> None:
    result = finetune.run(tiny.config(model, pairs), tmp_path / "run")
    assert result.exit_status == 1
    assert result.summary.error is not None
    assert (result.summary.error.code, result.summary.error.param) == ("bad_config", "train.method")
    assert "set train.method to dpo" in result.summary.error.message
    state = read_events(tmp_path / "run").events[-1].data
    assert state["state"] == "failed"
    assert state["error"]["code"] == "bad_config"


def test_an_unknown_module_is_refused_with_those_there_are(
    model: Path, facts: Path, tmp_path: Path
) -> None:
    config = tiny.config(model, facts, "lora.target_modules=[q_proj, qkv]")
    error = finetune.run(config, tmp_path / "run").summary.error
    assert error is not None
    assert error.code == "not_servable"
    assert "qkv" in error.message
    assert "down_proj" in error.message


def test_a_loss_that_is_no_number_ends_the_run(model: Path, facts: Path, tmp_path: Path) -> None:
    broken = AutoModelForCausalLM.from_pretrained(model)
    broken.model.norm.weight.data.fill_(float("inf"))
    folder = tmp_path / "broken"
    broken.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((model / name).read_bytes())
    error = finetune.run(tiny.config(folder, facts), tmp_path / "run").summary.error
    assert error is not None
    assert error.code == "diverged"
    assert "lower train.learning_rate" in error.message


def test_a_saved_configuration_is_the_one_that_ran(done: Path, model: Path, facts: Path) -> None:
    import yaml

    held = parse(FinetuneConfig, yaml.safe_load((done / "config.yaml").read_text()))
    assert held == tiny.config(model, facts, packing=True, batch_size=2, evaluate_every=3)
