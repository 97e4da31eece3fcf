"""However a bot ends: no order stays open, and its own end is what it was.

Each way is a program of its own. They run side by side, since each has to wait a
second for the order that lands half a second after its death.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pexpect
import pytest

from benchmarks import guard as benchmark
from espresso.sandbox import Exchange
from tests.children import Child, default_environment
from tests.conftest import asked, cleaned
from tests.guarded import (
    SYMBOL,
    bot,
    has_ended,
    nothing_open,
    place_later,
    wait_until,
    watchdog_pid,
)

AT_ONCE = 4
REPEATS = int(os.environ.get("GUARD_REPEATS", "1"))

INT, TERM, HUP = signal.SIGINT, signal.SIGTERM, signal.SIGHUP


class Death(NamedTuple):
    """A way to end."""

    name: str
    status: int
    body: str = "time.sleep(60)"
    signals: tuple[int, ...] = ()
    says: str = ""
    """What stderr must hold."""
    clean: bool = False
    """No order can be on its way any more."""


DEATHS = (
    Death("end of block", 0, "pass", clean=True),
    Death("exception", 1, "raise ValueError('mine')", says="\nValueError: mine\n"),
    Death("sys.exit", 3, "sys.exit(3)"),
    Death("sys.exit(0)", 0, "sys.exit(0)", clean=True),
    Death("sys.exit with words", 1, "sys.exit('my words')", says="my words\n"),
    Death("Ctrl-C", -INT, signals=(INT,), says="\nKeyboardInterrupt\n"),
    Death("Ctrl-C twice", -INT, signals=(INT, INT), says="\nKeyboardInterrupt\n"),
    Death("SIGTERM", 128 + TERM, signals=(TERM,)),
    Death("SIGHUP", 128 + HUP, signals=(HUP,)),
    Death("SIGQUIT", -signal.SIGQUIT, signals=(signal.SIGQUIT,)),
    Death("SIGKILL", -signal.SIGKILL, signals=(signal.SIGKILL,)),
    Death("os._exit", 7, "os._exit(7)"),
    Death("abort", -signal.SIGABRT, "os.abort()"),
    Death("segfault", -signal.SIGSEGV, "ctypes.string_at(0)"),
    Death("execv", 0, "os.execv('/bin/sleep', ['sleep', '4'])"),
    Death(
        "no memory left",
        1,
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 28, -1)); bytearray(1 << 30)",
        says="\nMemoryError\n",
    ),
    Death(
        "the main thread hangs in C, then SIGKILL",
        -signal.SIGKILL,
        "ctypes.PyDLL(None).sleep(60)",
        (TERM, signal.SIGKILL),
    ),
)


def die(death: Death, env: dict[str, str]) -> str:
    """One bot's end; "" if all is well."""
    with Exchange(rate=None) as exchange:
        program = bot(death.body)
        with Child(program, default_environment(env, exchange)) as child:
            watchdog = watchdog_pid(child.line())
            exchange.place(SYMBOL, 3)
            child.tell()
            began = time.monotonic()
            for number in death.signals:
                time.sleep(0.2)
                child.signal(number)
            if not death.clean:
                place_later(exchange).join()
            ended = child.end()
            took = time.monotonic() - began
        said = f"{ended.out}\n{ended.err}"
        if ended.status != death.status:
            return f"status {ended.status}: {said}"
        if death.says not in ended.err:
            return f"stderr: {said}"
        if exchange.key in said:
            return f"the key: {said}"
        wait_until(lambda: has_ended(watchdog), "the watchdog ends")
        if exchange.open_orders():
            return f"left open after {took:.1f} s: {exchange.calls}\n{said}"
    return ""


@pytest.fixture(scope="module")
def deaths(
    request: pytest.FixtureRequest,
) -> Iterator[dict[str, list[Future[str]]]]:
    """All that are asked for, under way."""
    env = cleaned()
    chosen = {str(one["name"]) for one in asked(request, "deaths")}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {
            death.name: [pool.submit(die, death, env) for _ in range(REPEATS)]
            for death in DEATHS
            if death.name in chosen
        }


def marks(name: str) -> list[pytest.MarkDecorator]:
    """A sanitizer ends in its own way what reads at 0 or gets no memory."""
    return [pytest.mark.memory] if name in ("segfault", "no memory left") else []


@pytest.mark.parametrize(
    "name", [pytest.param(death.name, marks=marks(death.name)) for death in DEATHS]
)
def test_death(name: str, deaths: dict[str, list[Future[str]]]) -> None:
    faults = [future.result() for future in deaths[name]]
    assert [fault for fault in faults if fault] == []


# ---- ways that need a machine of their own -------------------------------------------


def test_a_terminal_that_is_closed(
    exchange: Exchange, clean_env: dict[str, str]
) -> None:
    """The kernel sends SIGHUP to the bot; the watchdog is in a session of its own."""
    env = default_environment(clean_env, exchange)
    terminal = pexpect.spawn(
        sys.executable, ["-c", bot("time.sleep(60)")], env=env, encoding="utf-8"
    )
    try:
        terminal.expect(r"armed (\d+)")
        watchdog = int(terminal.match[1])
        terminal.sendline("")
        exchange.place(SYMBOL, 3)
        os.close(terminal.child_fd)
        place_later(exchange).join()
        wait_until(lambda: has_ended(terminal.pid), "the bot ends")
        wait_until(lambda: has_ended(watchdog), "the watchdog ends")
        assert exchange.open_orders() == []
    finally:
        terminal.closed = True
        reap(terminal.pid)


def reap(pid: int) -> None:
    try:
        if os.waitpid(pid, os.WNOHANG) == (0, 0):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    except ChildProcessError:
        pass


def test_ctrl_c_in_a_terminal(exchange: Exchange, clean_env: dict[str, str]) -> None:
    """It reaches all of the foreground: the bot, not the watchdog."""
    env = default_environment(clean_env, exchange)
    with pexpect.spawn(
        sys.executable, ["-c", bot("time.sleep(60)")], env=env, encoding="utf-8"
    ) as terminal:
        terminal.expect(r"armed (\d+)")
        watchdog = int(terminal.match[1])
        terminal.sendline("")
        exchange.place(SYMBOL, 3)
        time.sleep(0.2)
        terminal.sendintr()
        place_later(exchange).join()
        terminal.expect("KeyboardInterrupt")
        terminal.expect(pexpect.EOF)
        assert has_ended(watchdog)
        assert exchange.open_orders() == []


CGROUPS = (Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup"))


@contextmanager
def memory_group(limit: int) -> Iterator[Path]:
    """A control group of our own in which no more than that can be had."""
    files = ("memory.limit_in_bytes", "memory.max")
    for root, file in zip(CGROUPS, files, strict=True):
        group = root / f"espresso-test-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            if (group / file).exists():
                (group / file).write_text(str(limit))
                yield group
                return
        except OSError:
            continue
        finally:
            wait_until(lambda group=group: remove(group), "the group is empty")
    pytest.skip("no control group with a memory limit can be made here")


def remove(group: Path) -> bool:
    try:
        group.rmdir()
    except OSError:
        return False
    return True


def test_an_out_of_memory_kill(exchange: Exchange, clean_env: dict[str, str]) -> None:
    """The kernel kills the largest of the group: the bot, not its watchdog."""
    body = "hoard = []\nwhile True:\n    hoard.append(bytearray(b'x') * (1 << 20))"
    env = default_environment(clean_env, exchange)
    with memory_group(160 << 20) as group:
        join = f"open({str(group / 'cgroup.procs')!r}, 'w').write(str(os.getpid()))"
        program = f"import os\n{join}\n{bot(body)}"
        with Child(program, env) as child:
            watchdog = watchdog_pid(child.line())
            exchange.place(SYMBOL, 3)
            child.tell()
            assert child.end().status == -signal.SIGKILL
            place_later(exchange).join()
        nothing_open(exchange)
        wait_until(lambda: has_ended(watchdog), "the watchdog ends")


def test_the_groups_of_this_machine_are_left_as_they_were() -> None:
    name = f"espresso-test-{os.getpid()}"
    assert not [root for root in CGROUPS if (root / name).exists()]


def test_death_to_the_first_request() -> None:
    """The bar is that of `make guard-latency`; here the machine may be busy."""
    runs = [benchmark.latency() for _ in range(3)]
    assert min(runs) < 10 * benchmark.BAR
