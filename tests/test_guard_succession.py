"""One watchdog for a symbol: the orphan, its successor, and two that live."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import espresso
from espresso._watchdog_lock import Held, Holder, Locks
from espresso.sandbox import Exchange
from tests.children import ROOT, Child, default_environment
from tests.guarded import (
    ARMED,
    SYMBOL,
    Relay,
    bot,
    has_ended,
    lock_folder,
    nothing_open,
    wait_until,
    watchdog_pid,
)

OTHER = "NIGHTUSDM"
OUTAGE = float(os.environ.get("GUARD_OUTAGE", "3"))  # seconds


@pytest.fixture
def relay(exchange: Exchange) -> Iterator[Relay]:
    with Relay(exchange.url) as running:
        yield running


@pytest.fixture
def env(
    exchange: Exchange, relay: Relay, clean_env: dict[str, str], tmp_path: Path
) -> dict[str, str]:
    there = default_environment(clean_env, exchange) | {"DELTADEFI_BASE_URL": relay.url}
    return lock_folder(there, tmp_path)


def orphan(child: Child, relay: Relay) -> int:
    """Kill the bot while the exchange is down; the watchdog that cannot rest."""
    watchdog = watchdog_pid(child.line())
    relay.go_down()
    child.signal(signal.SIGKILL)
    child.end()
    return watchdog


def test_the_exchange_is_down_when_the_bot_dies(
    exchange: Exchange, relay: Relay, env: dict[str, str], tmp_path: Path
) -> None:
    with Child(bot("time.sleep(60)"), env) as child:
        exchange.place(SYMBOL)
        watchdog = orphan(child, relay)
        time.sleep(OUTAGE)
        assert exchange.open_orders()
        assert not has_ended(watchdog)
        relay.come_back()
        nothing_open(exchange, 5)
        wait_until(lambda: has_ended(watchdog), "the watchdog ends")
    assert [path.name for path in tmp_path.iterdir()] == []


def test_a_successor_takes_over_and_keeps_its_fresh_quotes(
    exchange: Exchange, relay: Relay, env: dict[str, str]
) -> None:
    """Before the body runs the old orders are gone, and the orphan is too."""
    body = "say('quoting'); sys.stdin.readline(); os._exit(0)"
    with Child(bot("time.sleep(60)"), env) as first:
        old = exchange.place(SYMBOL)
        watchdog = orphan(first, relay)
        time.sleep(0.5)
        relay.come_back()
        with Child(bot(body), env) as second:
            successor = watchdog_pid(second.line())
            assert has_ended(watchdog)
            assert exchange.open_orders() == []
            fresh = exchange.place(SYMBOL)
            second.tell()
            second.expect("quoting")
            time.sleep(2.5)
            assert exchange.open_orders() == fresh != old
            second.tell()
            second.end()
            nothing_open(exchange)
            wait_until(lambda: has_ended(successor), "the watchdog ends")


def test_a_successor_that_comes_up_while_the_exchange_is_down(
    exchange: Exchange, relay: Relay, env: dict[str, str]
) -> None:
    """It is not armed, and the orphan keeps its duty."""
    with Child(bot("time.sleep(60)"), env) as first:
        exchange.place(SYMBOL)
        watchdog = orphan(first, relay)
        with Child(bot("pass", "timeout=1.0"), env) as second:
            ended = second.end()
        assert ended.status == 1
        assert "GuardError: the watchdog has no connection" in ended.err
        assert not has_ended(watchdog)
        assert exchange.calls == []
        relay.come_back()
        nothing_open(exchange)


def test_a_successor_that_cannot_cancel_inherits_the_duty(
    exchange: Exchange, relay: Relay, env: dict[str, str]
) -> None:
    """The orphan has gone, the sweep fails: the new watchdog goes on."""
    with Child(bot("time.sleep(60)"), env) as first:
        exchange.place(SYMBOL)
        watchdog = orphan(first, relay)
        exchange.fault("envoy_503", times=None)
        relay.come_back()
        with Child(bot("pass", "timeout=1.0"), env) as second:
            ended = second.end()
        assert ended.status == 1
        assert "UnavailableError" in ended.err
        assert has_ended(watchdog)
        assert exchange.open_orders()
        exchange.clear_faults()
        nothing_open(exchange)


def test_what_the_successor_does_not_want_is_proven_too(
    exchange: Exchange, relay: Relay, env: dict[str, str]
) -> None:
    symbols = repr([SYMBOL, OTHER])
    with Child(bot("time.sleep(60)", symbol=symbols), env) as first:
        exchange.place(SYMBOL)
        exchange.place(OTHER)
        orphan(first, relay)
        time.sleep(0.2)
        relay.come_back()
        with Child(bot("sys.stdin.readline()", "when='error'"), env) as second:
            successor = watchdog_pid(second.line())
            nothing_open(exchange, 4)
            second.tell()
            second.tell()
            second.end().check()
            wait_until(lambda: has_ended(successor), "the watchdog ends")


def test_bot_and_watchdog_killed_together(
    exchange: Exchange, relay: Relay, env: dict[str, str], tmp_path: Path
) -> None:
    """Nobody is left to cancel; the lock file tells the next one to."""
    with Child(bot("time.sleep(60)"), env) as first:
        watchdog = watchdog_pid(first.line())
        os.kill(first.pid, signal.SIGSTOP)  # so that it cannot start another one
        os.kill(watchdog, signal.SIGKILL)
        first.signal(signal.SIGKILL)
        first.end()
    exchange.place(SYMBOL)
    assert len(list(tmp_path.iterdir())) == 1
    with Child(bot("pass", "when='error'"), env) as second:
        watchdog_pid(second.line())
        assert exchange.open_orders() == []
        second.tell()
        second.end().check()
    assert list(tmp_path.iterdir()) == []


def test_a_bot_that_replaces_itself_and_guards_again(
    exchange: Exchange, relay: Relay, env: dict[str, str]
) -> None:
    """execv keeps the pid: the guard before it is an orphan's all the same."""
    again = bot("say('again'); sys.stdin.readline(); os._exit(0)")
    body = f"os.execv(sys.executable, [sys.executable, '-c', {again!r}])"
    with Child(bot(body), env) as child:
        first = watchdog_pid(child.line())
        exchange.place(SYMBOL)
        child.tell()
        second = watchdog_pid(child.line())
        assert second != first
        assert exchange.open_orders() == []
        fresh = exchange.place(SYMBOL)
        child.tell()
        child.expect("again")
        time.sleep(1.5)
        assert exchange.open_orders() == fresh
        child.tell()
        child.end()
        nothing_open(exchange)


def test_a_second_live_process_is_refused(
    exchange: Exchange, relay: Relay, env: dict[str, str]
) -> None:
    with Child(bot("pass"), env) as first:
        watchdog_pid(first.line())
        exchange.place(SYMBOL)
        with Child(bot("pass"), env) as second:
            ended = second.end()
        assert ended.status == 1
        assert f"{SYMBOL} is guarded by process {first.pid} already" in ended.err
        assert exchange.open_orders()
        with Child(bot("pass", symbol=repr(OTHER)), env) as third:
            watchdog_pid(third.line())
            third.tell()
            third.end().check()
        first.tell()
        first.end().check()


def test_another_account_is_another_matter(
    exchange: Exchange, relay: Relay, env: dict[str, str]
) -> None:
    stranger = env | {"DELTADEFI_API_KEY": exchange.new_key()}
    with Child(bot("pass"), env) as first, Child(bot("pass"), stranger) as second:
        for child in (first, second):
            watchdog_pid(child.line())
            child.tell()
            child.end().check()


def test_of_many_at_once_one_is_armed(
    exchange: Exchange, relay: Relay, env: dict[str, str]
) -> None:
    """They want the same symbols in other orders, and nobody waits for ever."""
    program = (
        ARMED
        + """
symbols = ["ADAUSDM", "NIGHTUSDM", "IAGUSDM"]
number = int(sys.argv[1])
try:
    g = espresso.guard(symbols[number % 3:] + symbols[: number % 3]).start()
    say("armed")
except espresso.GuardError as error:
    say("refused")
sys.stdin.readline()
"""
    )
    children = [Child(program, env, str(n)) for n in range(4)]
    try:
        said = sorted(child.line() for child in children)
        assert said == ["armed", "refused", "refused", "refused"]
    finally:
        for child in children:
            child.tell()
            child.end()
            child.__exit__(None, None, None)


# ---- the lock files ------------------------------------------------------------------


def locks_of(folder: Path, bot: int = 1) -> Locks:
    return Locks(str(folder), "account", bot)


def test_a_lock_is_a_file_that_goes_with_it(tmp_path: Path) -> None:
    mine, other = locks_of(tmp_path, os.getpid()), locks_of(tmp_path, 1)
    claim = mine.claim([SYMBOL, OTHER])
    assert claim.attempt()
    assert claim.left == []
    assert len(list(tmp_path.iterdir())) == 2
    with pytest.raises(Held, match=str(os.getpid())):
        other.claim([SYMBOL]).attempt()
    mine.drop([SYMBOL])
    taken = other.claim([SYMBOL])
    assert taken.attempt()
    assert taken.left == []
    other.drop([SYMBOL])
    mine.drop([OTHER])
    assert list(tmp_path.iterdir()) == []


def test_a_pid_that_was_given_to_another_is_not_signalled(tmp_path: Path) -> None:
    """A file that lies: its watchdog is this very process, which is none."""
    mine = locks_of(tmp_path)
    mine.claim([SYMBOL]).attempt()
    (path,) = tmp_path.iterdir()
    before = signal.signal(signal.SIGUSR1, lambda *_: pytest.fail("was signalled"))
    try:
        path.write_text(f"{os.getpid()} {2**22 - 1} orphan {SYMBOL}\n")
        assert not locks_of(tmp_path, 2).claim([SYMBOL]).attempt()
        time.sleep(0.05)
    finally:
        signal.signal(signal.SIGUSR1, before)
    mine.drop([SYMBOL])


@pytest.mark.parametrize(
    "text", ["", "\n", "12", "a b c d", "-1 5 live X", "1 2 live", "\xff" * 9]
)
def test_a_lock_file_that_says_nothing(text: str, tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_text(text, encoding="latin-1")
    file = os.open(path, os.O_RDWR)
    try:
        assert Holder.read(file) is None
    finally:
        os.close(file)


def test_a_lock_is_never_taken_through_a_symlink(tmp_path: Path) -> None:
    target = tmp_path / "target"
    locks = locks_of(tmp_path)
    Path(locks._path(SYMBOL)).symlink_to(target)
    with pytest.raises(OSError):
        locks.claim([SYMBOL]).attempt()
    assert not target.exists()


def test_a_watchdog_started_by_hand_ends() -> None:
    """Without a guard at the other end it has nothing to do."""
    program = ROOT / "espresso/_watchdog.py"
    command = [sys.executable, "-I", "-S", str(program), "0"]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, timeout=20, capture_output=True
    )
    assert done.returncode != -signal.SIGSEGV
    assert espresso.__version__.encode() not in done.stdout
