"""The `corral` command. Only this file and `commands/` read argv and the environment."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

import configs
from configs import ConfigError, load
from serving.commands import (
    adapters,
    finetune,
    keys,
    pack,
    rag,
    registry,
    store,
    tenants,
    usage,
)
from serving.commands.finetune import PASS_ON
from serving.config import ServeConfig
from serving.errors import CorralError, StartError
from serving.home import Home
from serving.processes import RunState
from serving.runtime import admin_key, read_admin_key

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Serve language models, adapters and embeddings behind one OpenAI-compatible API.",
)
app.add_typer(adapters.app, name="adapters")
app.add_typer(finetune.app, name="finetune")
app.add_typer(registry.app, name="registry")
app.command("rag", context_settings=PASS_ON, add_help_option=False)(rag.rag)
app.add_typer(keys.app, name="keys")
app.add_typer(tenants.app, name="tenants")
app.add_typer(store.app, name="store")
app.command("usage")(usage.usage)
app.command()(pack.pack)

CONFIGS = Path(configs.__file__).parent / "serve"
Url = Annotated[str | None, typer.Option(help="Address of another stack.")]
Config = Annotated[
    str, typer.Option("--config", "-c", help="A YAML file, or the name of one in configs/serve/.")
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override one value: --set gateway.port=9000. Repeatable."),
]


@app.command()
def serve(config: Config = "local", override: Set = None) -> None:
    """Start the stack and serve until Ctrl-C.

    The default, configs/serve/local.yaml, runs a small real model on the CPU.
    """
    from serving.supervisor import Supervisor

    console = Console(stderr=True)
    settings = load(ServeConfig, config_path(config), override or [])
    home = Home.from_env()
    first_start = read_admin_key(home) is None
    supervisor = Supervisor(
        settings, home, lambda line: console.print(line, style="dim", highlight=False)
    )
    model = settings.models[0].name

    def on_ready(state: RunState) -> None:
        console.print(f"[bold green]ready[/bold green] {state.url}/v1")
        key = admin_key(home) if first_start else "..."
        about = _NEW_KEY if first_start else _KNOWN_KEY
        text = _EXAMPLE.format(url=state.url, model=model, key=key, about=about)
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    raise typer.Exit(supervisor.run(on_ready))


@app.command()
def stop(timeout: Annotated[float, typer.Option(help="Seconds to wait.")] = 60.0) -> None:
    """Let running requests finish, then end the stack and all its processes."""
    from serving.supervisor import stop as stop_stack

    console = Console()
    if not stop_stack(Home.from_env(), timeout, lambda line: console.print(line, highlight=False)):
        console.print("nothing was running")


@app.command()
def status(url: Url = None) -> None:
    """Replicas, adapters, tokens per second and KV cache."""
    from serving.commands.status import show

    if not show(Home.from_env(), url, Console()):
        raise typer.Exit(1)


@app.command()
def models(url: Url = None) -> None:
    """What clients may put in `model`."""
    from serving.commands.client import call

    for card in call(Home.from_env(), url, "GET", "/v1/models")["data"]:
        parent = f"  (adapter of {card['parent']}, {card['root']})" if card["parent"] else ""
        print(card["id"] + parent)


@app.command()
def chat(
    prompt: Annotated[str, typer.Argument(help="Ask this once, instead of a conversation.")] = "",
    model: Annotated[str | None, typer.Option(help="Default: the first one served.")] = None,
    system: Annotated[str | None, typer.Option(help="System message.")] = None,
    url: Url = None,
) -> None:
    """Talk to a model in the terminal."""
    from serving.commands.chat import run

    run(Home.from_env(), url=url, model=model, system=system, once=prompt)


@app.command()
def doctor(config: Config = "local", override: Set = None) -> None:
    """Check Python, GPU, memory, ports, packages and model files; each failure with its mend."""
    from serving.commands.doctor import render, run_checks

    checks = run_checks(Home.from_env(), load(ServeConfig, config_path(config), override or []))
    if not render(checks, Console()):
        raise typer.Exit(1)


def config_path(name: str) -> Path:
    """The file that `--config` names. Raises ConfigError with the names there are."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        return path
    bundled = CONFIGS / f"{name}.yaml"
    if bundled.exists():
        return bundled
    known = ", ".join(sorted(file.stem for file in CONFIGS.glob("*.yaml")))
    raise ConfigError(f"no configuration named {name!r}; there are: {known}")


_EXAMPLE = """
  from openai import OpenAI
  client = OpenAI(base_url="{url}/v1", api_key="{key}")
  answer = client.chat.completions.create(
      model="{model}", messages=[{{"role": "user", "content": "Hello!"}}])
  print(answer.choices[0].message.content)

or in another terminal: corral chat          stop with Ctrl-C
{about}
"""
_NEW_KEY = """
This is the admin key, shown this once; `corral keys admin` prints it again.
For everybody else: corral keys create"""
_KNOWN_KEY = "the admin key: corral keys admin"


def main() -> None:
    """Entry point: errors that corral raises on purpose end in one or two plain lines."""
    try:
        app()
    except StartError as exc:
        _fail(exc.cause, exc.advice)
    except (CorralError, ConfigError) as exc:
        _fail(str(exc))


def _fail(cause: str, advice: str = "") -> None:
    console = Console(stderr=True)
    console.print("[bold red]error[/bold red]", escape(cause), highlight=False)
    if advice:
        console.print(escape(advice), highlight=False)
    sys.exit(1)


if __name__ == "__main__":
    main()
