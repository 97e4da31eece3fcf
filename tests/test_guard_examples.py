"""The examples of the guard, run as their own heads say, against the sandbox."""

from __future__ import annotations

import configparser
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from espresso.sandbox import Exchange
from tests.children import ROOT, default_environment
from tests.guarded import SYMBOL, lock_folder, nothing_open

EXAMPLES = ROOT / "examples"
PATIENCE = 30.0  # seconds


@pytest.fixture
def env(
    exchange: Exchange, clean_env: dict[str, str], tmp_path: Path
) -> dict[str, str]:
    env = lock_folder(default_environment(clean_env, exchange), tmp_path)
    return env | {"PYTHONPATH": str(ROOT), "PAUSE": "0.1"}


@pytest.fixture
def espresso_program(tmp_path: Path) -> str:
    """What `espresso guard` runs, as a program."""
    program = tmp_path / "espresso"
    verb = shlex.join([sys.executable, "-m", "espresso"])
    program.write_text(f'#!/bin/sh\nexec {verb} "$@"\n')
    program.chmod(0o755)
    return str(program)


@contextmanager
def running(env: dict[str, str], *words: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        words, env=env, cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def quotes(process: subprocess.Popen[str], number: int) -> None:
    """Wait until it has quoted so often."""
    assert process.stdout is not None
    for turn in range(number):
        assert process.stdout.readline() == f"{SYMBOL}: quote {turn}\n"


@pytest.mark.parametrize("name", ["bot.py", "bot_asyncio.py"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_bot(
    name: str, number: signal.Signals, exchange: Exchange, env: dict[str, str]
) -> None:
    old = exchange.place(SYMBOL)
    with running(env, sys.executable, str(EXAMPLES / name), SYMBOL) as bot:
        quotes(bot, 2)
        assert not set(old) & set(exchange.open_orders())
        exchange.place(SYMBOL, 2)
        bot.send_signal(number)
        status = bot.wait(PATIENCE)
        assert status == (143 if number == signal.SIGTERM else -number)
        nothing_open(exchange)


@pytest.mark.parametrize("name", ["bot.py", "bot_asyncio.py"])
def test_a_bot_without_symbols(name: str, env: dict[str, str]) -> None:
    command = [sys.executable, str(EXAMPLES / name)]
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0
    assert "usage" in done.stderr


def test_a_bot_in_another_language(
    exchange: Exchange, env: dict[str, str], espresso_program: str
) -> None:
    script = str(EXAMPLES / "bot.sh")
    words = (espresso_program, "guard", SYMBOL, "--heartbeat", "10", "--")
    exchange.place(SYMBOL)
    with running(env | {"TURNS": "3"}, *words, script, SYMBOL) as bot:
        quotes(bot, 3)
        assert bot.wait(PATIENCE) == 0
    assert exchange.open_orders() == []


def test_the_entry_point_of_a_container(
    exchange: Exchange, env: dict[str, str], espresso_program: str
) -> None:
    script = str(EXAMPLES / "container-entrypoint.sh")
    bot = str(EXAMPLES / "bot.sh")
    env |= {"SYMBOLS": f"{SYMBOL} NIGHTUSDM", "ESPRESSO": espresso_program}
    exchange.place("NIGHTUSDM")
    with running(env, script, bot, SYMBOL) as container:
        quotes(container, 2)
        assert exchange.open_orders() == []
        exchange.place(SYMBOL)
        container.terminate()  # what `docker stop` sends
        assert container.wait(PATIENCE) == 143
    assert exchange.open_orders() == []


def test_the_entry_point_needs_symbols(env: dict[str, str]) -> None:
    script = str(EXAMPLES / "container-entrypoint.sh")
    done = subprocess.run([script, "true"], env=env, capture_output=True, text=True)
    assert done.returncode != 0
    assert "SYMBOLS" in done.stderr


def test_the_unit_says_what_the_docs_ask_for() -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read(EXAMPLES / "espresso-bot.service")
    service = unit["Service"]
    assert service["KillMode"] == "mixed"
    assert int(service["TimeoutStopSec"]) > 10
    assert service["Environment"] == "XDG_RUNTIME_DIR=/run/espresso-bot"
    assert service["RuntimeDirectory"] == "espresso-bot"
    assert service["RuntimeDirectoryMode"] == "0700"


@pytest.mark.skipif(
    not os.path.exists("/usr/bin/systemd-analyze"), reason="no systemd-analyze here"
)
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    text = (EXAMPLES / "espresso-bot.service").read_text()
    unit = tmp_path / "espresso-bot.service"
    unit.write_text(text.replace("/opt/bot/venv/bin/python", "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    told = [line for line in done.stderr.splitlines() if "espresso-bot" in line]
    assert told == []
