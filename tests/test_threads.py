"""One client and many threads, many clients, and closing in the middle of it all."""

from __future__ import annotations

import asyncio
import gc
import os
import queue
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import psutil
import pytest

import espresso
from espresso.sandbox import Exchange
from tests.children import PRELUDE, default_environment, environment, run
from tests.obstacles import Gate, running

pytestmark = pytest.mark.alone

THREADS = int(os.environ.get("TEST_THREADS", "64"))  # 256 for a release
ROUNDS = 4
IDLE_MAX = 64  # connections that a client keeps
SYMBOL = "ADAUSDM"

# Seconds in which calls must have left a client that was closed. It is promised in
# 0.1 s; who hangs would need the 20 s of the calls.
CLOSE_BOUND = 5.0

CLOSED = (espresso.ConnectError, espresso.ConnectionLostError)


def make(exchange: Exchange, key: str | None = None, **options: Any) -> espresso.Client:
    options = {"base_url": exchange.url, "timeout": 20, **options}
    return espresso.Client(key or exchange.key, ca_file=exchange.ca_file, **options)


class Outcomes:
    """What became of the calls of many threads."""

    def __init__(self) -> None:
        self.all: queue.SimpleQueue[object] = queue.SimpleQueue()

    def caller(self, client: espresso.Client, **options: Any) -> Callable[[], None]:
        def call() -> None:
            try:
                self.all.put(client.cancel_all(SYMBOL, missing_ok=True, **options))
            except Exception as error:
                self.all.put(error)

        return call

    def take(self, n: int) -> list[Any]:
        return [self.all.get(timeout=30) for _ in range(n)]


# --- many calls at once ----------------------------------------------------------


def cancel_each(
    exchange: Exchange, client_of: Callable[[int], espresso.Client]
) -> None:
    """Each thread cancels symbols of its own, and gets its own ids."""
    wrong: list[object] = []

    def caller(number: int) -> Callable[[], None]:
        client = client_of(number)

        def call() -> None:
            for n in range(ROUNDS):
                symbol = f"T{number}-{n}"
                ids = exchange.place(symbol, 2)
                result = client.cancel_all(symbol)
                if result != {"symbol": symbol, "order_ids": ids}:
                    wrong.append(result)

        return call

    with running(*map(caller, range(THREADS))):
        pass
    assert not wrong
    assert len(exchange.calls) == THREADS * ROUNDS
    assert max(Counter(call.symbol for call in exchange.calls).values()) == 1
    assert not exchange.open_orders()


def test_64_threads_on_one_client(exchange: Exchange) -> None:
    with make(exchange) as client:
        cancel_each(exchange, lambda number: client)
    assert len({call.connection for call in exchange.calls}) <= THREADS


def test_64_threads_with_a_client_each(exchange: Exchange) -> None:
    clients = [make(exchange) for _ in range(THREADS)]
    cancel_each(exchange, clients.__getitem__)
    assert len({call.connection for call in exchange.calls}) == THREADS


def test_64_connections_are_kept_and_no_call_waits_for_one(exchange: Exchange) -> None:
    """Calls in flight are not bounded; what stays open afterwards is."""
    process, calls = psutil.Process(), IDLE_MAX + 16
    exchange.fault("hang", times=None)
    options = {"connect_timeout": 19, "attempt_timeout": 19}
    client, outcomes = make(exchange, **options), Outcomes()
    with running(*[outcomes.caller(client)] * calls):
        exchange.wait_for_calls(calls, 30)  # all of them at once
        client.close()
        outcomes.take(calls)
    exchange.clear_faults()

    together = threading.Barrier(calls, timeout=30)
    with make(exchange, on_event=lambda event: together.wait(), **options) as client:
        # Each call still holds its connection while it waits for all the others.
        with running(*[outcomes.caller(client)] * calls):
            assert all(isinstance(end, dict) for end in outcomes.take(calls))
        assert own_sockets(process, exchange) == IDLE_MAX
    assert own_sockets(process, exchange) == 0


def test_no_thread_starves(exchange: Exchange) -> None:
    """64 threads press as fast as they can: each of them gets its turns."""
    threads = min(THREADS, IDLE_MAX)  # more would connect again and again
    pressed = [0] * threads
    start, enough = threading.Barrier(threads, timeout=30), threading.Event()
    with make(exchange, connect_timeout=19, attempt_timeout=19) as client:

        def caller(number: int) -> Callable[[], None]:
            def call() -> None:
                client.cancel_all(SYMBOL, missing_ok=True)  # that connects
                start.wait()
                while not enough.is_set():
                    client.cancel_all(SYMBOL, missing_ok=True)
                    pressed[number] += 1
                    if sum(pressed) >= threads * 30:
                        enough.set()

            return call

        with running(*map(caller, range(threads))):
            pass
    print(f"{min(pressed)} to {max(pressed)} calls a thread")
    assert min(pressed) >= 3  # a tenth of an equal share
    assert len({call.connection for call in exchange.calls}) <= threads


def test_keys_do_not_mix(exchange: Exchange) -> None:
    """One process-wide client, many keys: each request carries its own."""
    keys = [exchange.new_key() for _ in range(16)]
    wrong: list[object] = []

    def caller(key: str) -> Callable[[], None]:
        def call() -> None:
            for n in range(ROUNDS):
                ids = exchange.place(SYMBOL, n + 1, key=key)
                result = espresso.cancel_all(SYMBOL, api_key=key, base_url=exchange.url)
                if result["order_ids"] != ids:
                    wrong.append(result)

        return call

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", exchange.ca_file)
        with running(*map(caller, keys)):
            pass
    assert not wrong
    assert {call.key for call in exchange.calls} == set(keys)
    assert len(exchange.calls) == len(keys) * ROUNDS


def test_a_slow_on_event_holds_no_other_thread_up(exchange: Exchange) -> None:
    release, reached = threading.Event(), threading.Event()

    def wait(event: espresso.Event) -> None:
        if event.symbol == "SLOW":
            reached.set()
            assert release.wait(30)

    exchange.place("SLOW")
    client = make(exchange, on_event=wait)
    with running(lambda: client.cancel_all("SLOW")):
        assert reached.wait(30)
        client.cancel_all(SYMBOL, missing_ok=True)
        release.set()


# --- made here, dropped there ----------------------------------------------------


def test_made_in_one_thread_and_dropped_in_another(exchange: Exchange) -> None:
    process = psutil.Process()
    made: queue.SimpleQueue[espresso.Client] = queue.SimpleQueue()

    def maker() -> None:
        for _ in range(20):
            client = make(exchange)
            client.cancel_all(SYMBOL, missing_ok=True)
            made.put(client)
            del client

    def dropper() -> None:
        for _ in range(20):
            client = made.get(timeout=30)
            client.cancel_all(SYMBOL, missing_ok=True)
            del client
        gc.collect()

    def both() -> None:
        with running(maker, dropper):
            pass

    both()
    before = own_sockets(process, exchange)
    both()
    assert own_sockets(process, exchange) == before == 0
    # The second call of each went over the connection that the first had opened.
    connections = Counter(call.connection for call in exchange.calls)
    assert set(connections.values()) == {2}


def own_sockets(process: psutil.Process, exchange: Exchange) -> int:
    """Our connections to the exchange that are still open."""
    port = int(exchange.url.rpartition(":")[2])
    connections = process.net_connections("tcp")
    return [one.raddr[1:] for one in connections].count((port,))


# --- closing ---------------------------------------------------------------------


def close_and_time(client: espresso.Client) -> float:
    started = time.monotonic()
    client.close()
    elapsed = time.monotonic() - started
    print(f"close: {elapsed:.4f} s")
    return elapsed


def test_close_ends_the_calls_of_others(exchange: Exchange) -> None:
    exchange.fault("hang", times=None)
    client, outcomes = make(exchange, attempt_timeout=20), Outcomes()
    with running(*[outcomes.caller(client)] * 16):
        exchange.wait_for_calls(16)
        assert close_and_time(client) < CLOSE_BOUND
        for error in outcomes.take(16):
            assert type(error) is espresso.ConnectionLostError
            assert error.outcome == "unknown"
    with pytest.raises(RuntimeError, match="closed"):
        client.cancel_all(SYMBOL)
    with pytest.raises(RuntimeError, match="closed"):
        client.warm_up()
    with pytest.raises(RuntimeError, match="closed"):
        client.__enter__()
    client.close()
    assert len(exchange.calls) == 16  # nothing was tried again


def test_close_before_the_request_is_a_connect_error(exchange: Exchange) -> None:
    with Gate(exchange.url) as gate:
        outcomes = Outcomes()
        client = make(exchange, base_url=gate.url, connect_timeout=20)
        with running(*[outcomes.caller(client)] * 8):
            gate.wait_for(8)
            assert close_and_time(client) < CLOSE_BOUND
            for error in outcomes.take(8):
                assert type(error) is espresso.ConnectError
                assert error.outcome == "not_sent"
    assert not exchange.calls


@pytest.mark.parametrize(
    ("fault", "outcome"), [("locked_5002", "rejected"), ("envoy_503", "unknown")]
)
def test_close_during_a_pause(fault: str, outcome: str, exchange: Exchange) -> None:
    """The error speaks of the close, not of the answer before it."""
    attempts: queue.SimpleQueue[object] = queue.SimpleQueue()
    exchange.fault(fault, times=None)
    outcomes = Outcomes()
    client = make(exchange, on_event=attempts.put, max_retries=100)
    with running(outcomes.caller(client)):
        for _ in range(4):  # the pause after the fourth lasts 0.4 s or more
            attempts.get(timeout=30)
        assert close_and_time(client) < CLOSE_BOUND
        (error,) = outcomes.take(1)
    assert isinstance(error, CLOSED)
    assert error.outcome == outcome
    assert error.attempts == 4
    assert error.code is None
    assert error.status_code is None
    assert not error.body
    assert len(exchange.calls) == 4


def test_close_in_on_event(exchange: Exchange) -> None:
    """Of a call that would go on: it ends; of one that succeeded: a success."""
    exchange.fault("envoy_503")
    client: espresso.Client = make(exchange, on_event=lambda event: client.close())
    with pytest.raises(espresso.TransportError) as caught:
        client.cancel_all(SYMBOL)
    assert isinstance(caught.value, CLOSED)
    assert caught.value.outcome == "unknown"
    assert client.closed

    ids = exchange.place(SYMBOL, 2)
    other: espresso.Client = make(exchange, on_event=lambda event: other.close())
    assert other.cancel_all(SYMBOL)["order_ids"] == ids
    with pytest.raises(RuntimeError, match="closed"):
        other.cancel_all(SYMBOL)


def test_two_calls_that_close_in_on_event_do_not_deadlock(
    exchange: Exchange,
) -> None:
    together = threading.Barrier(2, timeout=30)
    took: queue.SimpleQueue[float] = queue.SimpleQueue()

    def close(event: object) -> None:
        together.wait()
        took.put(close_and_time(client))

    client, outcomes = make(exchange, on_event=close), Outcomes()
    with running(*[outcomes.caller(client)] * 2):
        for result in outcomes.take(2):
            assert result == {"symbol": SYMBOL, "order_ids": []}
    assert max(took.get(), took.get()) < CLOSE_BOUND


def test_close_by_many_at_once(exchange: Exchange) -> None:
    exchange.fault("hang", times=None)
    client, outcomes = make(exchange), Outcomes()
    with running(*[outcomes.caller(client)] * 8):
        exchange.wait_for_calls(8)
        with running(*[client.close] * 8):
            pass
        assert {type(error) for error in outcomes.take(8)} <= set(CLOSED)


@pytest.mark.clock
def test_close_at_any_moment(exchange: Exchange) -> None:
    """Whenever it comes, a call ends with its answer or with one of three errors."""
    random.seed(5)
    seen: Counter[str] = Counter()
    for _ in range(60):
        client, outcomes = make(exchange), Outcomes()
        with running(*[outcomes.caller(client)] * 4):
            time.sleep(random.uniform(0, 6e-3))
            client.close()
            for end in outcomes.take(4):
                assert isinstance(end, dict | RuntimeError) or type(end) in CLOSED
                seen[type(end).__name__] += 1
    print(dict(seen))
    assert seen["dict"]
    assert seen["ConnectionLostError"] + seen["ConnectError"]


def test_aclose_at_any_moment(exchange: Exchange) -> None:
    """The same of a loop, closed by itself or by another one in another thread."""
    random.seed(6)
    seen: Counter[str] = Counter()

    def note(end: object) -> None:
        assert isinstance(end, dict | list | RuntimeError) or type(end) in CLOSED
        seen[type(end).__name__] += 1

    async def call(client: espresso.AsyncClient, symbol: Any) -> None:
        try:
            note(await client.cancel_all(symbol, missing_ok=True))
        except espresso.PartialCancelError as error:
            for one in error.exceptions:
                note(one)
        except Exception as error:
            note(error)

    async def round(client: espresso.AsyncClient, pause: float, own: bool) -> None:
        symbols: list[Any] = [SYMBOL, SYMBOL, [SYMBOL, "NIGHTUSDM"], SYMBOL]
        calls = [asyncio.create_task(call(client, symbol)) for symbol in symbols]
        await asyncio.sleep(pause)
        if not pause:  # with one that has ended, at least
            await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        if own:
            await client.aclose()
        await asyncio.gather(*calls)

    def close_later(client: espresso.AsyncClient, pause: float) -> None:
        time.sleep(pause)
        asyncio.run(client.aclose())

    for number in range(60):
        client = espresso.AsyncClient(
            exchange.key, base_url=exchange.url, ca_file=exchange.ca_file, timeout=20
        )
        pause = random.uniform(1e-4, 6e-3) if number % 10 else 0.0
        own = number % 2 == 0
        others = [] if own else [lambda c=client, p=pause: close_later(c, p)]
        with running(*others):
            asyncio.run(round(client, pause, own))
    print(dict(seen))
    assert seen["dict"]
    assert seen["ConnectionLostError"] + seen["ConnectError"]


def test_a_dropped_client_lives_until_its_last_call_ends(exchange: Exchange) -> None:
    ids = exchange.place(SYMBOL, 2)
    exchange.fault("slow", seconds=0.3)
    outcomes = Outcomes()
    with running(outcomes.caller(make(exchange))):
        exchange.wait_for_calls(1)
        gc.collect()
        (result,) = outcomes.take(1)
    assert result == {"symbol": SYMBOL, "order_ids": ids}


# --- in a process of their own ---------------------------------------------------


def test_a_small_stack_is_enough(exchange: Exchange, clean_env: dict[str, str]) -> None:
    """Handshake, answer, error and event on 64 KiB, or the least the system allows.

    An overflow would be a segmentation fault.
    """
    program = f"""{PRELUDE}
import threading
for kilobytes in (64, 128, 256):
    try:
        threading.stack_size(kilobytes * 1024)
        break
    except ValueError:
        pass
events = []
def call(n):
    client = connect(on_event=events.append)
    client.warm_up()
    client.cancel_all(f"K{{n}}")
    try:
        client.cancel_all(f"K{{n}}")
    except espresso.OrderNotFoundError as error:
        str(error)
    client.close()
import espresso._watch  # what on_event imports at first is Python's own affair
threads = [threading.Thread(target=call, args=[n]) for n in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(len(events))
"""
    for n in range(8):
        exchange.place(f"K{n}", 200)
    env = environment(clean_env, exchange)
    assert run(program, env).check().out.split() == ["16"]


def test_the_first_calls_of_many_threads_share_one_client(
    exchange: Exchange, clean_env: dict[str, str]
) -> None:
    """32 threads race to make the process-wide client; every one gets its answer."""
    program = """
import threading, espresso
start = threading.Barrier(32)
results = []
def call(n):
    start.wait()
    results.append(espresso.cancel_all(f"R{n}"))
threads = [threading.Thread(target=call, args=[n]) for n in range(32)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(sum(len(result["order_ids"]) for result in results))
"""
    for n in range(32):
        exchange.place(f"R{n}", 2)
    env = default_environment(clean_env, exchange)
    assert run(program, env).check().out.split() == ["64"]
    assert len(exchange.calls) == 32
