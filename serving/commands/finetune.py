"""`corral finetune`: train adapters on the running stack, and look at data and runs without one."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from serving.commands.client import call
from serving.commands.following import OVER, follow
from serving.errors import CorralError
from serving.home import Home

app = typer.Typer(
    no_args_is_help=True,
    help="Train adapters, and use them at once.\n\n"
    "corral finetune check talk.jsonl  looks for bad rows, without a stack.\n\n"
    "corral finetune run talk.jsonl --suffix my-bot  trains on the running stack and shows how it "
    "goes; Ctrl-C leaves the job running. The result answers as model ft:BASE:TENANT:my-bot:ID, "
    "and, once live, as BASE:TENANT.my-bot.\n\n"
    "A row of talk.jsonl: "
    '{"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}',
)
Url = Annotated[str | None, typer.Option(help="Address of another stack.")]
Id = Annotated[str, typer.Argument(help="Id of the job: ftjob-…")]
JOBS = "/v1/fine_tuning/jobs"


@app.command("run")
def run(
    file: Annotated[Path, typer.Argument(help="Training data: JSON Lines or Parquet.")],
    model: Annotated[
        str | None, typer.Option(help="Base model; default: the first that is served.")
    ] = None,
    validation: Annotated[
        Path | None, typer.Option(help="Held-out data; default: a part of the training data.")
    ] = None,
    suffix: Annotated[
        str | None, typer.Option(help="Name; runs with the same make versions of one adapter.")
    ] = None,
    method: Annotated[str, typer.Option(help="supervised, or dpo for pairs.")] = "supervised",
    epochs: Annotated[int | None, typer.Option(help="Times through the data.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Examples in a step.")] = None,
    rate: Annotated[float | None, typer.Option(help="Multiplies the learning rate.")] = None,
    beta: Annotated[float | None, typer.Option(help="Of dpo.")] = None,
    seed: Annotated[int | None, typer.Option(help="Decides everything random.")] = None,
    detach: Annotated[bool, typer.Option(help="Do not wait for the end.")] = False,
    url: Url = None,
) -> None:
    """Upload data, train an adapter on it, and show the progress. Exit status 1 if it fails."""
    settings = {
        "n_epochs": epochs, "batch_size": batch_size, "learning_rate_multiplier": rate,
        "beta": beta,
    }  # fmt: skip
    given = {name: value for name, value in settings.items() if value is not None}
    home = Home.from_env()
    asked: dict[str, Any] = {
        "model": model or call(home, url, "GET", "/v1/models")["data"][0]["id"],
        "training_file": _upload(home, url, file),
        "method": {"type": method, method: {"hyperparameters": given}},
    }
    if validation is not None:
        asked["validation_file"] = _upload(home, url, validation)
    asked |= {name: value for name, value in (("suffix", suffix), ("seed", seed)) if value}
    job = call(home, url, "POST", JOBS, json=asked)
    print(job["id"], flush=True)
    if not detach:
        _await(home, url, job["id"])


@app.command("list")
def list_jobs(
    limit: Annotated[int, typer.Option(help="How many, the newest first.")] = 20, url: Url = None
) -> None:
    """Jobs and what they made."""
    rows = call(Home.from_env(), url, "GET", JOBS, params={"limit": limit})["data"]
    table = Table("job", "base", "status", "created", "model or reason")
    for row in rows:
        what = row["fine_tuned_model"] or (row["error"] or {}).get("message", "")
        made = time.strftime("%Y-%m-%d %H:%M", time.localtime(row["created_at"]))
        cells = [row["id"], row["model"], row["status"], made, what.partition("\n")[0]]
        table.add_row(*map(escape, cells))
    Console().print(table if rows else "no jobs")


@app.command("logs")
def logs(
    id: Id,
    following: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the job is over.")
    ] = False,
    url: Url = None,
) -> None:
    """What has happened in a job: loss, tokens/s, time left, memory, checkpoints."""
    home = Home.from_env()
    if following:
        _await(home, url, id)
        return
    for event in follow(home, url, id, once=True):
        Console().print(event, highlight=False, markup=False, soft_wrap=True)


@app.command("cancel")
def cancel(id: Id, url: Url = None) -> None:
    """End a job for good. Its checkpoints stay usable."""
    _decide(id, url, "cancel")


@app.command("pause")
def pause(id: Id, url: Url = None) -> None:
    """Stop a job with a checkpoint, and free its hardware."""
    _decide(id, url, "pause")


@app.command("resume")
def resume(id: Id, url: Url = None) -> None:
    """Queue a paused job again; it goes on from its last checkpoint."""
    _decide(id, url, "resume")


_OWN = {
    "check": "Look for bad rows and count tokens; without a stack.",
    "estimate": "Memory, time and cost of a run before it starts.",
    "compare": "Two runs side by side: settings, curves, evaluation.",
    "evaluate": "Measure an adapter against the base model and the gate.",
    "sweep": "Search a space of settings for the best run.",
    "merge": "Write base model and adapter as one whole model.",
    "export": "Write a whole model as GGUF or ONNX.",
}
"""What the trainer's own command does, by name: it needs no stack."""
PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
"""Settings of a typer command that leaves its arguments to another parser."""


def _hand_over(command: str, summary: str) -> None:
    def passed_on(context: typer.Context) -> None:
        from finetune.__main__ import main

        raise typer.Exit(main([command, *context.args]))

    explained = f"{summary} `python -m finetune {command} --help`."
    app.command(command, help=explained, context_settings=PASS_ON, add_help_option=False)(passed_on)


for _command, _summary in _OWN.items():
    _hand_over(_command, _summary)


def _upload(home: Home, url: str | None, file: Path) -> str:
    try:
        with file.open("rb") as content:
            made = call(
                home, url, "POST", "/v1/files",
                files={"file": (file.name, content)}, data={"purpose": "fine-tune"},
            )  # fmt: skip
    except OSError as exc:
        raise CorralError(f"cannot read {file}: {exc.strerror}") from exc
    return str(made["id"])


def _await(home: Home, url: str | None, id: str) -> None:
    console = Console()
    try:
        for line in follow(home, url, id):
            console.print(line, highlight=False, markup=False, soft_wrap=True)
    except KeyboardInterrupt:
        console.print(f"the job goes on; `corral finetune logs -f {id}` shows it again")
        return
    job = call(home, url, "GET", f"{JOBS}/{id}")
    assert job["status"] in OVER or job["status"] == "paused", job["status"]
    if job["fine_tuned_model"]:
        name = job["fine_tuned_model"]
        console.print(f"corral chat --model {name}", highlight=False, soft_wrap=True)
    if job["status"] not in ("succeeded", "paused"):
        raise typer.Exit(1)


def _decide(id: str, url: str | None, verb: str) -> None:
    job = call(Home.from_env(), url, "POST", f"{JOBS}/{id}/{verb}")
    Console().print(f"{job['id']} is {job['status']}", highlight=False)
