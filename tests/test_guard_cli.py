"""``espresso guard``: any program under a guard."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pexpect
import psutil
import pytest

from espresso.sandbox import Exchange
from tests.children import ROOT, default_environment
from tests.guarded import (
    SYMBOL,
    has_ended,
    lock_folder,
    nothing_open,
    place_later,
    wait_until,
)

PATIENCE = 30.0  # seconds


@pytest.fixture
def env(
    exchange: Exchange, clean_env: dict[str, str], tmp_path: Path
) -> dict[str, str]:
    return lock_folder(default_environment(clean_env, exchange), tmp_path)


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "espresso", "guard", *words]


def run(env: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*words),
        env=env,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


@contextmanager
def started(env: dict[str, str], *words: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command(*words),
        env=env,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def sh(script: str) -> Sequence[str]:
    return ("--", "sh", "-c", script)


@pytest.mark.parametrize(
    ("script", "status"),
    [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137), ("kill -TERM $$", 143)],
)
def test_the_programs_own_exit_status(
    script: str, status: int, exchange: Exchange, env: dict[str, str]
) -> None:
    exchange.place(SYMBOL, 2)
    done = run(env, SYMBOL, *sh(script))
    assert done.returncode == status, done.stderr
    assert exchange.open_orders() == []
    assert done.stdout == ""
    first = done.stderr.splitlines()
    host = exchange.url.removeprefix("https://")
    assert f"espresso guard: guarding {SYMBOL} at {host}" in first
    assert exchange.key not in done.stderr


def test_stdin_stdout_and_arguments_are_the_programs(env: dict[str, str]) -> None:
    done = subprocess.run(
        command(SYMBOL, "--", "sh", "-c", 'cat; echo "$@"', "x", "--pid", "-k", "--"),
        env=env,
        input="from stdin\n",
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "from stdin\n--pid -k --\n"


def test_an_order_that_lands_after_a_crash(
    exchange: Exchange, env: dict[str, str]
) -> None:
    with started(env, SYMBOL, *sh("echo up; kill -9 $$")) as process:
        assert said(process) == "up"
        place_later(exchange).join()
        assert process.wait(PATIENCE) == 137
    assert exchange.open_orders() == []


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        ([SYMBOL, "--", "/no/such/program"], 127, "No such file"),
        ([SYMBOL, "--", "/etc/passwd"], 126, "Permission denied"),
        ([SYMBOL], 2, "name either a program, after --, or a --pid"),
        ([SYMBOL, "--pid", "1", "--", "true"], 2, "name either"),
        ([SYMBOL, "--pid", "4194304"], 2, "no such process"),
        ([SYMBOL, "--pid", "0"], 2, "no process has that number"),
        ([SYMBOL, "--pid", "1", "--heartbeat", "5"], 2, "--heartbeat needs a program"),
        ([SYMBOL, "--heartbeat", "1", "--", "true"], 2, "heartbeat must be 2"),
        (["ADA/USDM", "--", "true"], 2, "ADAUSDM"),
        (["--", "true"], 2, "SYMBOL"),
    ],
)
def test_what_cannot_be(
    words: list[str], status: int, text: str, exchange: Exchange, env: dict[str, str]
) -> None:
    exchange.place(SYMBOL)
    done = run(env, *words)
    assert done.returncode == status, done.stderr
    assert text in done.stderr
    assert "Traceback" not in done.stderr
    assert exchange.open_orders()  # nothing was started, nothing was cancelled


def test_without_a_key_nothing_is_started(env: dict[str, str], tmp_path: Path) -> None:
    del env["DELTADEFI_API_KEY"]
    done = run(env, SYMBOL, "--", "touch", str(tmp_path / "started"))
    assert done.returncode == 2
    assert "DELTADEFI_API_KEY" in done.stderr
    assert not (tmp_path / "started").exists()


def test_not_armed_nothing_is_started(
    exchange: Exchange, env: dict[str, str], tmp_path: Path
) -> None:
    exchange.fault("403_empty", times=None)
    done = run(env, SYMBOL, "--at-start", "--", "touch", str(tmp_path / "started"))
    assert done.returncode == 125
    assert "403" in done.stderr
    assert not (tmp_path / "started").exists()


def test_a_cancel_that_fails_is_125(
    exchange: Exchange, env: dict[str, str], tmp_path: Path
) -> None:
    exchange.place(SYMBOL)
    exchange.fault("403_empty", times=None)
    # A file: the watchdog keeps stderr, and would keep a pipe open.
    with (tmp_path / "stderr").open("w") as stderr:
        words = command(SYMBOL, *sh("exit 0"))
        status = subprocess.call(words, env=env, cwd=ROOT, stderr=stderr, timeout=30)
    assert status == 125
    lines = (tmp_path / "stderr").read_text().splitlines()
    (told,) = [line for line in lines if line.endswith("goes on")][-1:]
    pid = int(told.split("process ")[1].split(",")[0])
    exchange.clear_faults()
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: has_ended(pid), "the watchdog ends", 40)
    assert exchange.open_orders() == []


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1"])
def test_signals_are_passed_on(
    name: str, exchange: Exchange, env: dict[str, str]
) -> None:
    number = getattr(signal, name)
    script = (
        f"trap 'echo got; exit 9' {name[3:]}; echo up; while :; do sleep 0.05; done"
    )
    exchange.place(SYMBOL)
    with started(env, SYMBOL, *sh(script)) as process:
        assert said(process) == "up"
        process.send_signal(number)
        assert said(process) == "got"
        assert process.wait(PATIENCE) == 9
    assert exchange.open_orders() == []


def test_ctrl_c_of_a_terminal_reaches_the_program_once(
    exchange: Exchange, env: dict[str, str]
) -> None:
    script = "trap 'echo got' INT; echo up; for i in 1 2 3 4 5 6; do sleep 0.1; done"
    exchange.place(SYMBOL)
    words = command(SYMBOL, *sh(f"{script}; exit 4"))
    with pexpect.spawn(words[0], words[1:], env=env, encoding="utf-8") as terminal:
        terminal.expect("up")
        terminal.sendintr()
        terminal.expect(pexpect.EOF)
        assert terminal.before.count("got") == 1
        terminal.wait()
        assert terminal.exitstatus == 4
    assert exchange.open_orders() == []


def test_killed_itself_its_watchdog_cancels(
    exchange: Exchange, env: dict[str, str]
) -> None:
    with started(env, SYMBOL, *sh("echo up; exec sleep 3")) as process:
        assert said(process) == "up"
        exchange.place(SYMBOL)
        process.kill()
        nothing_open(exchange)


def test_beats_of_a_shell_script(exchange: Exchange, env: dict[str, str]) -> None:
    """A byte to the descriptor of ESPRESSO_BEAT_FD is a beat."""
    beats = "for i in 1 2 3 4 5 6; do sleep 0.5; echo >&$ESPRESSO_BEAT_FD; done"
    exchange.place(SYMBOL)
    script = f"{beats}; echo beaten; sleep 3.5; echo slept; exit 3"
    with started(env, SYMBOL, "--heartbeat", "2", *sh(script)) as process:
        assert said(process) == "beaten"
        assert exchange.open_orders()
        nothing_open(exchange, 3.0)
        assert said(process) == "slept"
        assert process.wait(PATIENCE) == 3


@pytest.mark.parametrize("how", ["ends", "is killed"])
def test_a_process_that_runs_already(
    how: str, exchange: Exchange, env: dict[str, str]
) -> None:
    stranger = subprocess.Popen(["sleep", "60" if how == "is killed" else "1.5"])
    try:
        with started(env, SYMBOL, "--pid", str(stranger.pid)) as process:
            wait_until(lambda: exchange.requests, "the watchdog is warm")
            time.sleep(0.3)
            exchange.place(SYMBOL)
            if how == "is killed":
                stranger.kill()
            else:
                stranger.wait(PATIENCE)
            place_later(exchange).join()
            assert process.wait(PATIENCE) == 0
    finally:
        stranger.kill()
        stranger.wait()
    assert exchange.open_orders() == []


def test_told_to_leave_a_stranger_it_cancels(
    exchange: Exchange, env: dict[str, str]
) -> None:
    with started(env, SYMBOL, "--pid", str(os.getpid())) as process:
        wait_until(lambda: exchange.requests, "the watchdog is warm")
        time.sleep(0.3)
        exchange.place(SYMBOL)
        process.terminate()
        assert process.wait(PATIENCE) == 143
    assert exchange.open_orders() == []


@pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0,
    reason="makes a pid namespace, which takes root on Linux",
)
def test_as_process_1_of_a_container(exchange: Exchange, env: dict[str, str]) -> None:
    """It buries orphans, passes signals on, and waits for its watchdog."""
    script = (
        "(sleep 0.2 & ) ; sleep 0.6;"
        "echo $(cat /proc/[0-9]*/stat 2>/dev/null | grep -c ' Z ');"
        "trap 'exit 5' TERM; echo up; while :; do sleep 0.05; done"
    )
    words = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    process = subprocess.Popen(
        [*words, *command(SYMBOL, *sh(script))],
        env=env,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert said(process) == "0"
        assert said(process) == "up"
        exchange.place(SYMBOL)
        exchange.fault("envoy_503", times=12)
        (init,) = psutil.Process(process.pid).children()
        init.terminate()
        assert process.wait(PATIENCE) == 5
    finally:
        process.kill()
        process.communicate()
    assert exchange.open_orders() == []


def test_help_says_what_the_exit_status_means(env: dict[str, str]) -> None:
    done = run(env, "--help")
    assert done.returncode == 0
    for words in ("125", "126", "127", "ESPRESSO_BEAT_FD", "-- CMD ARGS"):
        assert words in done.stdout
