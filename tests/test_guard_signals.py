"""Signals, event loops and forks while a guard is armed, or at work."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import espresso
from espresso import _guard_link, _guard_signals
from espresso.sandbox import Exchange
from tests.children import Child, default_environment, environment, run
from tests.guarded import (
    ARMED,
    SYMBOL,
    bot,
    has_ended,
    nothing_open,
    wait_until,
    watchdog_pid,
)

TERM, HUP, INT = signal.SIGTERM, signal.SIGHUP, signal.SIGINT


@pytest.fixture(autouse=True)
def locks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "locks"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))


@pytest.fixture
def default_handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (TERM, HUP, INT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def handlers() -> list[Any]:
    return [signal.getsignal(number) for number in (TERM, HUP, INT)]


def raise_soon(number: int, seconds: float = 0.2) -> None:
    """Send this process a signal from another thread."""
    threading.Timer(seconds, os.kill, [os.getpid(), number]).start()


# ---- handlers ------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [(TERM, 143), (HUP, 129)])
def test_a_signal_that_nobody_handles_is_a_system_exit(
    number: int, code: int, client: espresso.Client, exchange: Exchange
) -> None:
    before = handlers()
    exchange.place(SYMBOL)
    with pytest.raises(SystemExit) as caught, client.guard(SYMBOL):
        raise_soon(number)
        time.sleep(5)
    assert caught.value.code == code
    assert exchange.open_orders() == []
    assert handlers() == before


def test_the_users_handler_is_called(
    client: espresso.Client, exchange: Exchange, default_handlers: None
) -> None:
    """It alone decides what becomes of the program; and it is there again after."""
    seen: list[int] = []

    def mine(number: int, frame: object) -> None:
        seen.append(number)

    signal.signal(TERM, mine)
    with client.guard(SYMBOL, when="error"):
        os.kill(os.getpid(), TERM)
        wait_until(lambda: seen, "the handler runs")
    assert signal.getsignal(TERM) is mine
    assert seen == [TERM]
    assert exchange.calls == []


def test_one_that_was_ignored_stays_ignored(
    client: espresso.Client, exchange: Exchange, default_handlers: None
) -> None:
    """As under nohup."""
    signal.signal(HUP, signal.SIG_IGN)
    signal.signal(INT, signal.SIG_IGN)
    with client.guard(SYMBOL, when="error"):
        assert signal.getsignal(HUP) is signal.getsignal(INT) is signal.SIG_IGN
        for number in (HUP, INT):
            os.kill(os.getpid(), number)
        time.sleep(0.1)
    assert exchange.calls == []


def test_a_handler_put_in_meanwhile_stays(
    client: espresso.Client, default_handlers: None
) -> None:
    def mine(number: int, frame: object) -> None:
        pass

    with client.guard(SYMBOL):
        signal.signal(TERM, mine)
    assert signal.getsignal(TERM) is mine


def test_nested_guards_share_the_handlers(
    client: espresso.Client, exchange: Exchange
) -> None:
    before = handlers()
    with (
        pytest.raises(SystemExit),
        client.guard(SYMBOL),
        client.guard("NIGHTUSDM"),
    ):
        assert handlers() != before
        raise_soon(TERM)
        time.sleep(5)
    assert handlers() == before
    assert exchange.open_orders() == []


def test_in_another_thread_no_handler_is_touched(client: espresso.Client) -> None:
    before = handlers()
    g = client.guard(SYMBOL)
    thread = threading.Thread(target=g.start)
    thread.start()
    thread.join()
    assert handlers() == before
    g.stop()
    assert handlers() == before


def test_stopped_by_another_thread(
    client: espresso.Client, default_handlers: None
) -> None:
    """Handlers stay then, and do what was done before; the next guard mends it."""
    g = client.guard(SYMBOL).start()
    thread = threading.Thread(target=g.stop)
    thread.start()
    thread.join()
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), INT)
        time.sleep(1)
    with pytest.raises(SystemExit):
        os.kill(os.getpid(), TERM)
        time.sleep(1)
    with client.guard(SYMBOL):
        pass
    assert signal.getsignal(INT) is signal.default_int_handler
    assert signal.getsignal(TERM) is signal.SIG_DFL


# ---- on the way out ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "expected"), [(TERM, SystemExit), (INT, KeyboardInterrupt)]
)
def test_the_first_signal_does_not_interrupt_the_cancel(
    number: int,
    expected: type[BaseException],
    client: espresso.Client,
    exchange: Exchange,
) -> None:
    """It is delivered when the proof is there."""
    exchange.place(SYMBOL)
    exchange.fault("slow", seconds=0.6)
    with pytest.raises(expected), client.guard(SYMBOL) as g:
        raise_soon(number)
    assert exchange.open_orders() == []
    assert [call.status for call in exchange.calls] == [200, 400]
    assert "left" in repr(g)


def test_a_signal_after_ones_own_exception(
    client: espresso.Client, exchange: Exchange
) -> None:
    """SIGTERM is not lost because the bot was failing already."""
    with pytest.raises(SystemExit) as caught, client.guard(SYMBOL):
        raise_soon(TERM)
        raise ZeroDivisionError
    assert isinstance(caught.value.__context__, ZeroDivisionError)


def test_a_second_sigterm_is_nothing_new(
    client: espresso.Client, exchange: Exchange
) -> None:
    with pytest.raises(SystemExit) as caught, client.guard(SYMBOL):
        raise_soon(TERM, 0.3)
        sys.exit(5)
    assert caught.value.code == 5


def test_a_second_ctrl_c_ends_the_waiting(
    client: espresso.Client, exchange: Exchange
) -> None:
    """And nothing else: the watchdog goes on until it is proven."""
    exchange.place(SYMBOL)
    with pytest.raises(KeyboardInterrupt) as caught, client.guard(SYMBOL) as g:
        watchdog = g._watchdog_pid()
        assert watchdog is not None
        exchange.fault("hang", times=1)
        raise_soon(INT, 0.2)
        raise_soon(INT, 0.6)
        began = time.monotonic()
        time.sleep(5)
    assert time.monotonic() - began < 1.5
    assert f"the watchdog, process {watchdog}, goes on" in caught.value.__notes__[-1]
    nothing_open(exchange)
    wait_until(lambda: has_ended(watchdog), "the watchdog ends")


def test_a_ctrl_c_while_arming(exchange: Exchange, clean_env: dict[str, str]) -> None:
    """It ends the waiting, and nothing is left behind."""
    program = f"""{ARMED}
import psutil
silent = __import__("socket").create_server(("127.0.0.1", 0))
url = "https://127.0.0.1:%d" % silent.getsockname()[1]
import threading
threading.Timer(0.7, os.kill, [os.getpid(), signal.SIGINT]).start()
began = time.monotonic()
try:
    with connect(base_url=url).guard("ADAUSDM", timeout=30):
        say("the body ran")
except KeyboardInterrupt:
    say("interrupted", time.monotonic() - began < 5)
for child in psutil.Process().children():
    child.wait(5)
say(len(psutil.Process().children()))
"""
    ended = run(program, environment(clean_env, exchange)).check()
    assert ended.out.splitlines() == ["interrupted True", "0"]


RANDOM = f"""{ARMED}
import psutil, random, threading
symbol, seed, rounds = sys.argv[1:]
random.seed(seed)
signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
client = connect()
def strike():
    os.kill(os.getpid(), random.choice([signal.SIGINT, signal.SIGTERM]))
struck = 0
for _ in range(int(rounds)):
    timer = threading.Timer(random.uniform(0, 0.25), strike)
    try:
        timer.start()
        with client.guard(symbol):
            time.sleep(random.uniform(0, 0.1))
        timer.join()
        time.sleep(0.1)
    except (KeyboardInterrupt, SystemExit):
        struck += 1
with client.guard(symbol):  # on a slow machine no other may ever have been armed
    pass
after = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
for child in psutil.Process().children():
    child.wait(10)
say(struck, before == after)
"""


def test_signals_at_random_moments(
    exchange: Exchange, clean_env: dict[str, str]
) -> None:
    """Wherever they strike, in the block, entering or leaving: each is delivered
    once, nothing stays open, nothing is left behind."""
    rounds = os.environ.get("GUARD_ROUNDS", "10")
    env = environment(clean_env, exchange)
    seed = str(time.time_ns() % 1000)
    for symbol in (SYMBOL, "NIGHTUSDM"):
        exchange.place(symbol)
    with (
        Child(RANDOM, env, SYMBOL, seed, rounds) as one,
        Child(RANDOM, env, "NIGHTUSDM", seed + "0", rounds) as two,
    ):
        said = [child.end(600).check().out for child in (one, two)]
    assert said == [f"{rounds} True\n"] * 2, f"seed {seed}"
    nothing_open(exchange)


@pytest.mark.parametrize("step", ["start", "enter", "_listen"])
def test_broken_off_where_the_watchdog_has_just_come_up(
    step: str, client: espresso.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anybody knows of it: it is not left behind."""
    whole = getattr(_guard_link.Link, step)

    def broken(self: _guard_link.Link, *args: Any) -> None:
        if step != "_listen":
            whole(self, *args)
        raise KeyboardInterrupt

    if step == "_listen":
        monkeypatch.setattr(threading.Thread, "start", broken)
    else:
        monkeypatch.setattr(_guard_link.Link, step, broken)
    before = set(psutil.Process().children())
    with pytest.raises(KeyboardInterrupt), client.guard(SYMBOL):
        pass
    monkeypatch.undo()
    assert set(psutil.Process().children()) == before
    assert _guard_link._links == {}
    with client.guard(SYMBOL):
        pass


def test_protected_from_the_first_step_on() -> None:
    """The handler sees that it strikes the guard's own entrance."""
    noted = _guard_signals.Signals()
    noted.protect(espresso.Guard.__exit__)
    frames: list[Any] = []

    def trace(frame: Any, event: str, arg: object) -> None:
        if frame.f_code is espresso.Guard.__exit__.__code__:
            frames.append(frame)

    sys.setprofile(trace)
    try:
        espresso.guard(SYMBOL).__exit__(None, None, None)
    finally:
        sys.setprofile(None)
    noted._handle(TERM, frames[0])
    assert noted._noted == [TERM]
    with pytest.raises(SystemExit):
        noted._handle(TERM, sys._getframe())


# ---- asyncio -------------------------------------------------------------------------


def test_async_with(client: espresso.Client, exchange: Exchange) -> None:
    """The loop goes on while it is armed and left."""

    async def main() -> int:
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0.005)
                turns += 1

        counting = asyncio.create_task(count())
        async with client.guard(SYMBOL, at_start=True):
            exchange.place(SYMBOL)
            exchange.fault("slow", seconds=0.3)
            turns = 0
        counting.cancel()
        return turns

    assert asyncio.run(main()) > 10
    assert exchange.open_orders() == []


def test_a_cancelled_task_is_no_clean_end(
    client: espresso.Client, exchange: Exchange
) -> None:
    async def main() -> None:
        async def work() -> None:
            async with client.guard(SYMBOL, when="error"):
                exchange.place(SYMBOL)
                await asyncio.sleep(5)

        task = asyncio.create_task(work())
        while not exchange.open_orders():
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert exchange.open_orders() == []


def test_a_cancel_on_the_way_out_is_delivered_after(
    client: espresso.Client, exchange: Exchange
) -> None:
    async def main() -> list[str]:
        said: list[str] = []

        async def work() -> None:
            async with client.guard(SYMBOL):
                exchange.place(SYMBOL)
                exchange.fault("slow", seconds=0.5)
            said.append("went on")

        task = asyncio.create_task(work())
        while not exchange.calls:
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return said

    assert asyncio.run(main()) == []
    assert exchange.open_orders() == []


def test_a_timeout_around_it_works(client: espresso.Client, exchange: Exchange) -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                async with client.guard(SYMBOL):
                    exchange.place(SYMBOL)
                    await asyncio.sleep(5)

    asyncio.run(main())
    assert exchange.open_orders() == []


def test_cancelled_while_arming(client: espresso.Client, exchange: Exchange) -> None:
    async def main() -> None:
        async def work() -> None:
            async with client.guard(SYMBOL):
                pytest.fail("the body ran")

        task = asyncio.create_task(work())
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert exchange.calls == []
    assert psutil.Process().children() == []


def test_its_own_exception_through_async_with(
    client: espresso.Client, exchange: Exchange
) -> None:
    async def main() -> None:
        async with client.guard(SYMBOL):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(main())
    assert len(exchange.calls) == 2


ASYNC_BOT = f"""{ARMED}
import asyncio
async def main():
    async with espresso.guard("ADAUSDM") as g:
        armed(g)
        await asyncio.sleep(60)
asyncio.run(main())
"""


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_under_asyncio_run(
    times: int, exchange: Exchange, clean_env: dict[str, str]
) -> None:
    exchange.place(SYMBOL)
    with Child(ASYNC_BOT, default_environment(clean_env, exchange)) as child:
        pid = int(child.line().split()[1])
        if times == 2:
            exchange.fault("hang", times=1)
        child.signal(INT)
        if times == 2:
            exchange.wait_for_calls(1)
            time.sleep(0.1)
            at = child.signal(INT)
        ended = child.end()
        assert ended.status == -INT
        assert "KeyboardInterrupt" in ended.err
        if times == 2:
            assert ended.at - at < 1.5
            assert f"the watchdog, process {pid}, goes on" in ended.err
        nothing_open(exchange)
        wait_until(lambda: has_ended(pid), "the watchdog ends")


def test_sigterm_under_asyncio_run(
    exchange: Exchange, clean_env: dict[str, str]
) -> None:
    exchange.place(SYMBOL)
    with Child(ASYNC_BOT, default_environment(clean_env, exchange)) as child:
        pid = int(child.line().split()[1])
        child.signal(TERM)
        assert child.end().status == 143
        assert exchange.open_orders() == []
        wait_until(lambda: has_ended(pid), "the watchdog ends")


# ---- fork ----------------------------------------------------------------------------

FORKS = {
    "leaves the block": "pass",
    "fails": "raise ValueError",
    "calls sys.exit": "sys.exit(0)",
    "is killed by SIGTERM": "os.kill(os.getpid(), signal.SIGTERM); time.sleep(5)",
    "stops the guard": "g.stop()",
    "forks": "os.fork()",
}


@pytest.mark.parametrize("body", FORKS.values(), ids=FORKS)
def test_a_child_never_fires_its_parents_guard(
    body: str, exchange: Exchange, clean_env: dict[str, str]
) -> None:
    program = f"""{ARMED}
with espresso.guard("ADAUSDM") as g:
    armed(g)
    sys.stdin.readline()
    pid = os.fork()
    if pid == 0:
        {body}
    else:
        _, status = os.waitpid(pid, 0)
        time.sleep(0.3)
        g.beat()
        say("child", os.waitstatus_to_exitcode(status))
        sys.stdin.readline()
os._exit(0)
"""
    with Child(program, default_environment(clean_env, exchange)) as child:
        child.line()
        ids = exchange.place(SYMBOL)
        child.tell()
        said = child.line()
        assert exchange.open_orders() == ids, said
        if "SIGTERM" in body:
            assert said == f"child {-TERM}"
        child.tell()
        child.end()
    assert exchange.open_orders() == []


def test_a_child_that_lives_on_does_not_hide_the_death(
    exchange: Exchange, clean_env: dict[str, str]
) -> None:
    """Neither one of os.fork, nor of multiprocessing, nor a program."""
    program = f"""{ARMED}
import multiprocessing, subprocess
g = armed(espresso.guard("ADAUSDM").start())
if os.fork() == 0:
    time.sleep(4); os._exit(0)
multiprocessing.get_context("fork").Process(target=time.sleep, args=[4]).start()
subprocess.Popen(["sleep", "4"], close_fds=False)
say("ready")
sys.stdin.readline()
"""
    exchange.place(SYMBOL)
    with Child(program, default_environment(clean_env, exchange)) as child:
        child.line()
        child.expect("ready")
        at = time.time()
        child.signal(signal.SIGKILL)
        (first, *_) = exchange.wait_for_calls(1)
        assert first.time - at < 1.0
        nothing_open(exchange)


def test_a_child_that_keeps_the_pipe_does_not_hide_the_death(
    exchange: Exchange, clean_env: dict[str, str]
) -> None:
    """One that Python has not heard of: the pipe stays open, the process has ended."""
    program = f"""{ARMED}
libc = ctypes.CDLL(None)
g = armed(espresso.guard("ADAUSDM").start())
if libc.fork() == 0:
    libc.sleep(20); libc._exit(0)
say("ready")
sys.stdin.readline()
"""
    exchange.place(SYMBOL)
    with Child(program, default_environment(clean_env, exchange)) as child:
        watchdog = watchdog_pid(child.line())
        child.expect("ready")
        at = time.time()
        child.signal(signal.SIGKILL)
        (first, *_) = exchange.wait_for_calls(1, 15)
        assert first.time - at < 15
        wait_until(lambda: has_ended(watchdog), "the watchdog ends")
    assert not exchange.open_orders()


def test_another_program_in_its_place_does_not_hide_the_death(
    exchange: Exchange, clean_env: dict[str, str]
) -> None:
    """The process lives on, but its end of the pipe is closed."""
    program = bot("os.execv('/bin/sleep', ['sleep', '30'])")
    exchange.place(SYMBOL)
    with Child(program, default_environment(clean_env, exchange)) as child:
        watchdog = watchdog_pid(child.line())
        child.tell()
        wait_until(lambda: has_ended(watchdog), "the watchdog ends")
    assert not exchange.open_orders()


def test_a_child_may_have_a_guard_of_its_own(
    exchange: Exchange, clean_env: dict[str, str]
) -> None:
    program = f"""{ARMED}
with espresso.guard("ADAUSDM", when="error") as g:
    pid = os.fork()
    if pid == 0:
        with espresso.guard("NIGHTUSDM") as own:
            own.beat()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
"""
    exchange.place("NIGHTUSDM")
    exchange.place(SYMBOL)
    with Child(program, default_environment(clean_env, exchange)) as child:
        child.end().check()
    assert exchange.open_orders("NIGHTUSDM") == []
    assert exchange.open_orders(SYMBOL)


# ---- the end of the interpreter ------------------------------------------------------


@pytest.mark.parametrize("watchdog", [True, False])
def test_started_and_never_stopped(
    watchdog: bool, exchange: Exchange, clean_env: dict[str, str]
) -> None:
    """The interpreter's exit is the bot's end; an order may still be on its way."""
    program = f"""{ARMED}
def main():
    espresso.guard("ADAUSDM", when="error", watchdog={watchdog}).start()
main()
import gc; gc.collect()
say("armed")
sys.stdin.readline()
"""
    with Child(program, default_environment(clean_env, exchange)) as child:
        child.line()
        exchange.place(SYMBOL)
        child.tell()
        time.sleep(0.5)
        exchange.place(SYMBOL)
        child.end().check()
    assert exchange.open_orders() == []


def test_nothing_is_left_after_a_clean_exit(
    exchange: Exchange, clean_env: dict[str, str]
) -> None:
    """No zombie while it lives, no orphan when it has gone."""
    program = f"""{ARMED}
import psutil
for _ in range(3):
    with espresso.guard("ADAUSDM") as g:
        armed(g)
    say(len(psutil.Process().children()))
"""
    with Child(program, default_environment(clean_env, exchange)) as child:
        for _ in range(3):
            pid = int(child.line().split()[1])
            child.expect("0")
            assert has_ended(pid)
        child.end().check()


def test_a_program_that_ignores_sigchld(
    exchange: Exchange, clean_env: dict[str, str]
) -> None:
    """Or reaps all children itself: the kernel keeps no status for us."""
    program = f"""{ARMED}
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
with espresso.guard("ADAUSDM") as g:
    armed(g)
say("left")
"""
    with Child(program, default_environment(clean_env, exchange)) as child:
        pid = int(child.line().split()[1])
        child.expect("left")
        child.end().check()
        assert has_ended(pid)


def test_under_other_warnings_it_is_silent(
    exchange: Exchange, clean_env: dict[str, str]
) -> None:
    program = bot("pass", "at_start=True").replace("espresso.guard", "connect().guard")
    env = environment(clean_env, exchange)
    with Child(program, env, flags=["-X", "dev", "-W", "error"]) as child:
        child.line()
        child.tell()
        assert child.end().check().err == ""
