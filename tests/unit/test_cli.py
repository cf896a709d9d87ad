"""The command: which file `--config` names, how errors end, and what commands print."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from starlette.types import Receive, Scope, Send
from typer.testing import CliRunner

from configs import ConfigError
from serving import cli
from serving.cli import CONFIGS, config_path
from serving.commands import client
from serving.errors import CorralError, StartError
from serving.home import Home
from serving.runtime import admin_key
from tests.unit.gateway.in_process import (
    ADMIN_KEY,
    Site,
    StubPool,
    gateway,
    listening,
    local,
    write_adapter,
)

NOBODY = "http://127.0.0.1:9"
Run = Callable[..., Any]


@pytest_asyncio.fixture
async def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    monkeypatch.setenv("CORRAL_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setattr("serving.commands.status.RATE_WINDOW_S", 0.01)
    (tmp_path / "credentials").write_text(f"admin_key: {ADMIN_KEY}\n")
    write_adapter(tmp_path, "pirate", "v1")
    write_adapter(tmp_path, "pirate", "v2")
    async with gateway(tmp_path, local("fake", tokens=3)) as running:
        yield running


async def corral(site: Site, *arguments: str, **options: Any) -> str:
    """What a command prints; it runs on a thread, since the gateway needs this one."""
    result = await asyncio.to_thread(
        CliRunner().invoke, cli.app, [*arguments, "--url", site.url], **options
    )
    assert result.exit_code == 0, (result.output, result.exception)
    return str(result.output)


def test_a_name_is_a_file_of_the_bundled_folder() -> None:
    assert config_path("fake") == CONFIGS / "fake.yaml"


@pytest.mark.parametrize("name", ["mine.yaml", "/no/such.yml"])
def test_a_yaml_path_is_taken_as_it_is(name: str) -> None:
    assert config_path(name) == Path(name)


def test_an_existing_file_needs_no_suffix(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    assert config_path(str(tmp_path / "mine")) == tmp_path / "mine"


def test_a_folder_of_that_name_does_not_hide_the_bundled_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "local").mkdir()
    assert config_path("local") == CONFIGS / "local.yaml"


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"no configuration named 'nothing'; there are: .*fake"):
        config_path("nothing")


@pytest.mark.parametrize(
    ("error", "lines"),
    [
        (StartError("port 1 is [taken]", "End it."), ["error port 1 is [taken]", "End it."]),
        (CorralError("no [/such] model"), ["error no [/such] model"]),
        (ConfigError("a.b: unknown key"), ["error a.b: unknown key"]),
    ],
    ids=["start", "corral", "config"],
)
def test_errors_end_in_plain_lines_and_status_1(
    error: Exception,
    lines: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 1
    assert capsys.readouterr().err.splitlines() == lines


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["serve", "--config", "nothing"], "no configuration named 'nothing'"),
        (["serve", "--set", "gateway.prot=1"], "did you mean 'port'"),
        (["status"], "Start it with `corral serve`"),
        (["models", "--url", NOBODY], "does not answer"),
        (["models", "--url", "http://["], "does not answer"),
        (["chat", "hello", "--url", NOBODY], "Connection error"),
    ],
    ids=["config", "set", "not serving", "gone", "bad url", "chat"],
)
def test_a_failed_command_says_why_without_a_traceback(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    words: str,
) -> None:
    monkeypatch.setenv("CORRAL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setattr(sys, "argv", ["corral", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 1
    assert words in capsys.readouterr().err
    assert not (tmp_path / "home").exists(), "a command that only asks leaves nothing behind"


def test_the_command_is_a_module_too() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "serving.cli", "--help"],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    commands = ("serve", "stop", "status", "chat", "models", "adapters", "doctor")
    assert all(command in done.stdout for command in commands)


async def test_models_names_each_with_its_parent(site: Site) -> None:
    lines = (await corral(site, "models")).splitlines()
    assert lines[0] == "fake"
    assert "fake:pirate  (adapter of fake, fake:pirate@v2)" in lines
    assert len(lines) == 4


async def test_status_has_a_row_for_each_replica(site: Site) -> None:
    output = await corral(site, "status")
    assert f"{site.url}  ready" in output
    (row,) = [line for line in output.splitlines() if line.startswith("│")]
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    assert cells == ["fake", "local", "0", "0", "0.0%", "–"]


async def test_status_fails_when_a_model_does_not_generate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CORRAL_HOME", str(tmp_path))
    monkeypatch.setattr("serving.commands.status.RATE_WINDOW_S", 0.01)
    (tmp_path / "credentials").write_text(f"admin_key: {ADMIN_KEY}\n")
    async with gateway(tmp_path, local("fake"), pools={"fake": StubPool([])}) as site:
        result = await asyncio.to_thread(CliRunner().invoke, cli.app, ["status", "--url", site.url])
    assert result.exit_code == 1
    assert "not ready" in result.output


async def test_adapters_are_loaded_shown_and_unloaded(site: Site) -> None:
    loaded = await corral(site, "adapters", "load", "fake:pirate@v1")
    assert loaded == "fake:pirate@v1 is loaded and live as fake:pirate\n"
    rows = [line for line in (await corral(site, "adapters", "list")).splitlines() if "│" in line]
    states = [[cell.strip() for cell in row.strip("│").split("│")] for row in rows]
    assert states == [
        ["pirate", "v1", "fake", "4", "live"],
        ["pirate", "v2", "fake", "4", "available"],
    ]
    assert '"replica": "local"' in await corral(site, "adapters", "show", "pirate")
    assert "fake:pirate@v1 is unloaded" in await corral(site, "adapters", "unload", "pirate")
    assert (await corral(site, "adapters", "list")).count("unloaded") == 2


async def test_a_refused_adapter_is_shown_with_its_reason_verbatim(site: Site) -> None:
    (site.home.adapters / "odd [bold]" / "v1").mkdir(parents=True)
    output = await corral(site, "adapters", "list")
    assert "odd [bold]" in output
    assert "refused:" in output


async def test_chat_asks_once_and_prints_the_answer(site: Site) -> None:
    assert await corral(site, "chat", "one two", "--model", "fake:pirate@v1") == (
        "[fake:pirate@v1] one two one\n"
    )


async def test_chat_goes_on_until_an_empty_line(site: Site) -> None:
    output = await corral(site, "chat", "--system", "x", input="one\n/reset\ntwo\n\n")
    assert "one one one" in output
    assert "two two two" in output
    assert output.startswith("fake ·")


async def test_the_server_says_what_is_wrong(site: Site) -> None:
    with pytest.raises(CorralError, match=r"did you mean fake.* \(HTTP 404\)"):
        await asyncio.to_thread(client.call, site.home, site.url, "GET", "/v1/models/fakes")


async def test_commands_present_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bytes | None] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(dict(scope["headers"]).get(b"authorization"))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    home = Home(tmp_path)
    async with listening(app) as url:
        await asyncio.to_thread(client.call, home, url, "GET", "/v1/models")
        own = admin_key(home)
        await asyncio.to_thread(client.call, home, url, "GET", "/v1/models")
        monkeypatch.setenv("CORRAL_API_KEY", "sk-mine")
        await asyncio.to_thread(client.call, home, url, "GET", "/v1/models")
    assert seen == [None, f"Bearer {own}".encode(), b"Bearer sk-mine"]
