"""The heart: a bot that lives but does not beat is a dead bot."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time

import pytest

import espresso
from espresso import _guard_wire
from espresso._guard_wire import BEAT_SLACK, clock
from espresso.sandbox import Exchange
from tests.children import Child, default_environment
from tests.guarded import ARMED, SYMBOL, has_ended, nothing_open, wait_until

HEARTBEAT = 2.0  # seconds; the least
LATE = 0.5  # seconds a trip may come late


def lateness(exchange: Exchange, last_beat: float) -> float:
    """How long after its time the first cancel came; times are of time.time."""
    (first, *_) = exchange.wait_for_calls(1, HEARTBEAT + 5)
    return first.time - last_beat - HEARTBEAT


def test_a_missed_beat_trips(client: espresso.Client, exchange: Exchange) -> None:
    exchange.place(SYMBOL)
    with (
        pytest.raises(espresso.GuardTrippedError, match="were cancelled"),
        client.guard(SYMBOL, heartbeat=HEARTBEAT) as g,
    ):
        for _ in range(5):
            time.sleep(HEARTBEAT / 4)
            g.beat()
        last = time.time()
        assert exchange.calls == []
        assert 0 <= lateness(exchange, last) <= LATE
        nothing_open(exchange)
        wait_until(lambda: g.tripped, "the guard knows")
        assert "tripped" in repr(g)
        with pytest.raises(espresso.GuardTrippedError, match="stop quoting"):
            g.beat()
        calls = len(exchange.calls)
    assert len(exchange.calls) > calls  # leaving sweeps once more


def test_the_heart_starts_on_entering(
    client: espresso.Client, exchange: Exchange
) -> None:
    exchange.place(SYMBOL)
    g = client.guard(SYMBOL, heartbeat=HEARTBEAT).start()
    began = time.time()
    assert 0 <= lateness(exchange, began) <= LATE
    nothing_open(exchange)
    with pytest.raises(espresso.GuardTrippedError):
        g.stop()
    g.stop()


def test_a_slow_at_start_does_not_count(
    client: espresso.Client, exchange: Exchange
) -> None:
    exchange.fault("slow", seconds=HEARTBEAT + 0.5)
    with client.guard(SYMBOL, heartbeat=HEARTBEAT, at_start=True, timeout=8) as g:
        assert not g.tripped
        g.beat()


def test_a_trip_under_way_to_an_exception(
    client: espresso.Client, exchange: Exchange
) -> None:
    """The program's own exception leaves unchanged, tripped or not."""
    exchange.place(SYMBOL)
    with pytest.raises(ZeroDivisionError), client.guard(SYMBOL, heartbeat=2) as g:
        wait_until(lambda: g.tripped, "it trips")
        raise ZeroDivisionError
    assert exchange.open_orders() == []


def test_when_error_and_tripped(client: espresso.Client, exchange: Exchange) -> None:
    """A tripped guard sweeps once more also after a clean end."""
    with (
        pytest.raises(espresso.GuardTrippedError),
        client.guard(SYMBOL, heartbeat=2, when="error") as g,
    ):
        wait_until(lambda: g.tripped, "it trips")
        exchange.wait_for_calls(1)
        exchange.place(SYMBOL)
    assert exchange.open_orders() == []


def test_any_threads_beat_counts(client: espresso.Client, exchange: Exchange) -> None:
    over = threading.Event()

    def beat() -> None:
        while not over.wait(0.2):
            g.beat()

    with client.guard(SYMBOL, heartbeat=HEARTBEAT, when="error") as g:
        thread = threading.Thread(target=beat)
        thread.start()
        time.sleep(HEARTBEAT + LATE)
        over.set()
        thread.join()
        assert not g.tripped
    assert exchange.calls == []


def test_two_hearts(client: espresso.Client, exchange: Exchange) -> None:
    """Each guard has its own; the one that stops takes only its symbols along."""
    exchange.place(SYMBOL)
    exchange.place("NIGHTUSDM")
    fast = client.guard(SYMBOL, heartbeat=HEARTBEAT).start()
    slow = client.guard("NIGHTUSDM", heartbeat=60).start()
    wait_until(lambda: fast.tripped, "it trips")
    nothing_open_on(exchange, SYMBOL)
    slow.beat()
    assert exchange.open_orders("NIGHTUSDM")
    with pytest.raises(espresso.GuardTrippedError):
        fast.stop()
    slow.stop()


def nothing_open_on(exchange: Exchange, symbol: str) -> None:
    wait_until(lambda: not exchange.open_orders(symbol), "no open order")


@pytest.mark.long
def test_started_again_after_a_trip_it_is_swept(
    client: espresso.Client, exchange: Exchange
) -> None:
    first = client.guard(SYMBOL, heartbeat=HEARTBEAT).start()
    wait_until(lambda: first.tripped, "it trips")
    exchange.wait_for_calls(1)
    exchange.place(SYMBOL)
    second = client.guard(SYMBOL, heartbeat=60).start()
    assert exchange.open_orders() == []
    calls = len(exchange.calls)
    exchange.place(SYMBOL)
    time.sleep(5.5)
    assert len(exchange.calls) == calls  # the old trip is over
    second.stop()


@pytest.mark.long
def test_a_tripped_guard_sweeps_every_5_s(
    client: espresso.Client, exchange: Exchange
) -> None:
    with (
        pytest.raises(espresso.GuardTrippedError),
        client.guard(SYMBOL, heartbeat=HEARTBEAT),
    ):
        exchange.wait_for_calls(1, 5)
        exchange.place(SYMBOL)
        nothing_open(exchange, 6.5)
        exchange.place(SYMBOL)
        nothing_open(exchange, 6.5)


FROZEN = f"""{ARMED}
g = armed(espresso.guard("ADAUSDM", heartbeat=2).start())
while True:
    time.sleep(0.1)
    try:
        g.beat()
    except espresso.EspressoError as error:
        say(type(error).__name__, g.tripped)
        break
time.sleep(0.5)
os._exit(0)
"""


def test_a_frozen_bot_and_its_revival(
    exchange: Exchange, clean_env: dict[str, str]
) -> None:
    """SIGSTOP stops all of it; awake again, its first beat tells it."""
    exchange.place(SYMBOL)
    with Child(FROZEN, default_environment(clean_env, exchange)) as child:
        pid = int(child.line().split()[1])
        time.sleep(0.3)
        child.signal(signal.SIGSTOP)
        assert lateness(exchange, time.time()) <= LATE
        nothing_open(exchange)
        child.signal(signal.SIGCONT)
        child.expect("GuardTrippedError True")
        child.end().check()
        wait_until(lambda: has_ended(pid), "the watchdog ends")


async def beating(client: espresso.Client, seconds: float, blocked: float) -> bool:
    async with client.guard(SYMBOL, heartbeat=HEARTBEAT, auto_beat=True) as g:
        await asyncio.sleep(seconds)
        time.sleep(blocked)  # the very thing that must not happen in a loop
        await asyncio.sleep(0.1)
        return g.tripped


def test_a_loop_that_turns(client: espresso.Client, exchange: Exchange) -> None:
    assert asyncio.run(beating(client, HEARTBEAT + 1, 0)) is False
    assert [call.status for call in exchange.calls] == [400]


def test_a_loop_that_is_blocked(client: espresso.Client, exchange: Exchange) -> None:
    exchange.place(SYMBOL)
    began = time.time()
    with pytest.raises(espresso.GuardTrippedError):
        asyncio.run(beating(client, 0.1, HEARTBEAT + 1))
    assert exchange.calls[0].time - began < 0.1 + HEARTBEAT + LATE + 1
    assert exchange.calls[0].time - began > HEARTBEAT - 0.5
    assert exchange.open_orders() == []


# ---- its clock -----------------------------------------------------------------------


def test_the_clock_goes_on_while_the_machine_sleeps() -> None:
    expected = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    assert expected == _guard_wire._CLOCK
    assert abs(clock() - time.clock_gettime(expected)) < 1


def test_a_clock_that_jumps_trips_at_the_next_beat(
    client: espresso.Client, exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after the sleep of a machine: the bot knows it before the watchdog."""
    from espresso import _guard

    exchange.place(SYMBOL)
    with (
        pytest.raises(espresso.GuardTrippedError, match="stop quoting"),
        client.guard(SYMBOL, heartbeat=60) as g,
    ):
        now = clock()
        monkeypatch.setattr(_guard, "clock", lambda: now + 59.9 + BEAT_SLACK)
        g.beat()
        monkeypatch.setattr(_guard, "clock", lambda: now + 120.1 + BEAT_SLACK)
        try:
            g.beat()
        finally:
            monkeypatch.undo()
            nothing_open(exchange)  # the watchdog was told


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # threads and fork, 3.12
def test_beats_in_a_forked_child_raise(client: espresso.Client) -> None:
    with client.guard(SYMBOL, heartbeat=60) as g:
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                g.beat()
            except espresso.GuardError as error:
                os.write(writer, str(error).encode())
            os._exit(0)
        os.close(writer)
        assert b"forked" in os.read(reader, 1000)
        os.close(reader)
        os.waitpid(pid, 0)
        g.beat()
