"""What a run needs, which precision it takes, and why it is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune.errors import ModelUnavailable, PlanRefused
from finetune.plan.devices import CLASSES, GIB, Device, free_host_bytes, named_device, this_machine
from finetune.plan.memory import estimate_memory
from finetune.plan.plan import Plan, make_plan
from finetune.plan.shape import read_shape
from finetune.plan.speed import Rate, probe_cpu
from finetune.plan.workload import workload
from tests.unit.finetune.plan.shapes import LLAMA_8B, SMOLLM, config_of, tokens_of, write_model

RATE = Rate(1000.0, "given")
CPU = Device("cpu", "a CPU", 16 * GIB, 16 * GIB, bf16=False)


def plan_8b(tmp_path: Path, device: Device, **values: object) -> Plan:
    model = write_model(tmp_path / "llama", LLAMA_8B)
    given = {"data": {"max_length": 4096}, "train": {"batch_size": 1}, **values}
    return make_plan(config_of(**given), model, tokens_of([2000] * 40), device=device)


def gpu(gib: float, *, bf16: bool = True) -> Device:
    return Device("cuda", "a GPU", round(gib * GIB), 64 * GIB, bf16=bf16, peak_flop_s=1e15)


def codes(plan: Plan) -> list[str]:
    return [refusal.code for refusal in plan.refusals]


@pytest.mark.parametrize(("config", "count"), [(SMOLLM, 134_515_008), (LLAMA_8B, 8_030_261_248)])
def test_parameters_are_those_of_the_model(
    tmp_path: Path, config: dict[str, object], count: int
) -> None:
    assert read_shape(write_model(tmp_path, config)).parameters == count


def test_an_adapters_size_is_that_of_its_matrices(tmp_path: Path) -> None:
    shape = read_shape(write_model(tmp_path, SMOLLM))
    assert shape.adapter_parameters(16, ("q_proj",)) == 30 * 16 * (576 + 576)
    assert shape.adapter_parameters(8, ("down_proj", "k_proj")) == 30 * 8 * (1536 + 576 + 576 + 192)


def test_4_bit_weights_count_their_scales(tmp_path: Path) -> None:
    shape = read_shape(write_model(tmp_path, LLAMA_8B))
    linear, others = 6_979_321_856, 8_030_261_248 - 6_979_321_856
    for double, bits in ((True, 4 + 8 / 64 + 32 / (64 * 256)), (False, 4 + 32 / 64)):
        config = config_of(precision="nf4", quantisation={"double": double})
        work = workload(config, tokens_of([100] * 10))
        memory = estimate_memory(config, shape, work, "nf4", "cuda")
        assert memory.weights == pytest.approx(linear * bits / 8 + 2 * others)


def test_checkpointing_keeps_less_and_a_larger_batch_more(tmp_path: Path) -> None:
    plain = plan_8b(tmp_path, gpu(139)).decision.memory
    saving = plan_8b(
        tmp_path, gpu(139), train={"batch_size": 1, "gradient_checkpointing": True}
    ).decision.memory
    double = plan_8b(tmp_path, gpu(139), train={"batch_size": 2}).decision.memory
    assert saving.activations < plain.activations / 5
    assert double.activations == 2 * plain.activations
    assert saving.weights == plain.weights == double.weights


def test_auto_takes_bf16_where_it_fits_and_says_why(tmp_path: Path) -> None:
    plan = plan_8b(tmp_path, gpu(139))
    assert (plan.decision.precision, plan.refusals) == ("bf16", ())
    need = plan.decision.memory.total / GIB
    assert plan.decision.reason == (
        f"bf16, since it needs {need:.1f} of the 139.0 GiB that are free on a GPU"
    )


def test_auto_takes_nf4_where_bf16_does_not_fit(tmp_path: Path) -> None:
    smaller = plan_8b(
        tmp_path, gpu(15), train={"batch_size": 1, "gradient_checkpointing": True},
        data={"max_length": 2048},
    )  # fmt: skip
    assert (smaller.decision.precision, codes(smaller)) == ("nf4", [])
    assert smaller.decision.reason.startswith("nf4, since in bf16 it needs ")


def test_auto_takes_fp32_on_a_cpu(tmp_path: Path) -> None:
    model = write_model(tmp_path, SMOLLM)
    plan = make_plan(config_of(), model, tokens_of([100] * 20), device=CPU, rate=RATE)
    assert plan.decision.precision == "fp32"
    assert "a CPU has no fast bf16" in plan.decision.reason


@pytest.mark.parametrize(
    ("gib", "train", "mend"),
    [
        (40, {"batch_size": 1}, "it fits with train.gradient_checkpointing true"),
        (45, {"batch_size": 4, "gradient_checkpointing": True}, None),
        (26, {"batch_size": 2, "gradient_checkpointing": True},
         "it fits with train.batch_size 1 (and train.accumulation 2, for the same step)"),
        (14, {"batch_size": 1, "gradient_checkpointing": True}, "it fits with precision nf4"),
        (4, {"batch_size": 1}, "no setting makes it fit ("),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_what_would(
    tmp_path: Path, gib: float, train: dict[str, object], mend: str | None
) -> None:
    plan = plan_8b(tmp_path, gpu(gib), precision="bf16", train=train)
    assert codes(plan) == ([] if mend is None else ["does_not_fit"])
    if mend is not None:
        assert mend in plan.refusals[0].message
        with pytest.raises(PlanRefused, match="memory: bf16 needs"):
            plan.require()


def test_a_host_too_small_to_load_is_refused(tmp_path: Path) -> None:
    device = Device("cuda", "a GPU", 139 * GIB, 2 * GIB, peak_flop_s=1e15)
    (refusal,) = plan_8b(tmp_path, device).refusals
    assert "on the host, and 2.0 GiB are free" in refusal.message


def test_every_reason_is_given_at_once(tmp_path: Path) -> None:
    model = write_model(tmp_path / "small", LLAMA_8B, max_position_embeddings=512)
    config = config_of(train={"method": "sft", "workers": 3, "batch_size": 1}, precision="bf16")
    plan = make_plan(
        config, model, tokens_of([1, 1000]), method="preference", device=gpu(14, bf16=False)
    )
    assert [refusal.param for refusal in plan.refusals] == [
        "train.method", "data.max_length", "precision", "train.workers", "memory",
    ]  # fmt: skip
    with pytest.raises(PlanRefused) as caught:
        plan.require()
    assert str(caught.value).count("\n") == 4
    assert (caught.value.code, caught.value.param) == ("bad_config", "train.method")


def test_modules_that_the_base_lacks_are_refused(tmp_path: Path) -> None:
    config = config_of(lora={"target_modules": ["q_proj", "c_attn"]})
    with pytest.raises(PlanRefused, match="the base model has no c_attn: choose among q_proj"):
        make_plan(config, write_model(tmp_path, SMOLLM), tokens_of([9]), device=CPU, rate=RATE)


def test_another_family_is_refused(tmp_path: Path) -> None:
    model = write_model(tmp_path, SMOLLM, architectures=["GPT2LMHeadModel"])
    with pytest.raises(ModelUnavailable, match="is a GPT2LMHeadModel; adapters are trained"):
        make_plan(config_of(), model, tokens_of([9]), device=CPU, rate=RATE)


@pytest.mark.parametrize("content", ["", "[]", '{"architectures": ["LlamaForCausalLM"]}'])
def test_a_broken_config_is_an_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ModelUnavailable, match=r"config\.json"):
        read_shape(tmp_path)


def test_no_trainable_token_is_refused(tmp_path: Path) -> None:
    plan = make_plan(
        config_of(), write_model(tmp_path, SMOLLM), tokens_of([]), device=CPU, rate=RATE
    )
    assert codes(plan) == ["no_trainable_token"]


def test_a_full_disk_is_refused(tmp_path: Path) -> None:
    model = write_model(tmp_path, SMOLLM)
    config = config_of(lora={"rank": 512}, serve={"max_rank": 512}, train={
        "keep_checkpoints": 10**7, "checkpoint_every": 1, "epochs": 1000, "packing": False,
        "batch_size": 1})  # fmt: skip
    plan = make_plan(
        config, model, tokens_of([100] * 500), device=CPU, rate=RATE, folder=tmp_path / "run"
    )
    assert codes(plan) == ["disk_full"]
    assert "lower train.keep_checkpoints" in plan.refusals[0].message


def test_time_and_cost_follow_from_the_rate(tmp_path: Path) -> None:
    model = write_model(tmp_path, SMOLLM)
    config = config_of(train={"epochs": 2, "packing": False}, cost={"usd_per_gpu_hour": 3.6})
    plan = make_plan(
        config, model, tokens_of([100] * 40, [50] * 10), device=CPU, rate=Rate(100.0, "given")
    )
    assert (plan.work.steps, plan.work.trained_tokens, plan.work.evaluations) == (20, 8000, 2)
    assert plan.time.train_s == pytest.approx(80)
    assert 0 < plan.time.validation_s < plan.time.train_s
    assert plan.cost_usd == pytest.approx(plan.time.total_s * 3.6 / 3600)


def test_steps_of_packs_are_those_of_the_schedule() -> None:
    config = config_of(data={"max_length": 100}, train={"batch_size": 2, "epochs": 1})
    work = workload(config, tokens_of([50] * 20))
    assert (work.steps, work.widest) == (5, 200)


def test_classes_of_devices_can_be_named() -> None:
    for name in CLASSES:
        assert named_device(name).memory_bytes > 10 * GIB
    assert this_machine(cpu=True).memory_bytes == pytest.approx(free_host_bytes(), rel=0.5)


def test_a_probe_of_the_cpu_gives_a_rate() -> None:
    assert probe_cpu() > 1e8
