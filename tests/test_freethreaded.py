"""Threads that really run at once: what a GIL would have hidden.

Every test runs on every build. Only on a free-threaded one, ``make
test-freethreaded``, do the threads collide in the middle of a C function.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import sys
import sysconfig
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

import espresso
from espresso.sandbox import Exchange
from tests.children import PRELUDE, environment, run
from tests.obstacles import running

FREE = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
SYMBOL = "ADAUSDM"
THREADS = 8
TIMEOUT = 25.0
PRESSES = 25
ROUNDS = 10

needs_free = pytest.mark.skipif(
    not FREE, reason="this Python has a GIL: make test-freethreaded"
)


def make(kind: type[Any], exchange: Exchange, **options: Any) -> Any:
    """A client with all the patience that a busy machine may need."""
    patience = dict.fromkeys(("timeout", "attempt_timeout", "connect_timeout"), TIMEOUT)
    where = {"base_url": exchange.url, "ca_file": exchange.ca_file}
    return kind(exchange.key, **where, **patience, **options)


def together(*targets: Callable[[], object]) -> None:
    """Run them in threads that start at the same moment; raise what one raised."""
    start = threading.Barrier(len(targets))
    raised: list[BaseException] = []

    def runner(target: Callable[[], object]) -> Callable[[], None]:
        def run_target() -> None:
            start.wait(30)
            try:
                target()
            except BaseException as error:
                raised.append(error)

        return run_target

    with running(*map(runner, targets)):
        pass
    if raised:
        raise raised[0]


@needs_free
def test_nothing_turns_the_gil_on(
    exchange: Exchange, clean_env: dict[str, str]
) -> None:
    """An extension that does not say it can do without would turn it on for all."""
    program = f"""{PRELUDE}
client = connect(on_event=lambda event: None)
client.cancel_all("ADAUSDM", missing_ok=True)
import espresso.sandbox, pickle
pickle.dumps(espresso.OrderNotFoundError("x"))
say(sys._is_gil_enabled())
"""
    env = environment(clean_env, exchange)
    ended = run(program, env, flags=["-W", "error"]).check()
    assert ended.out.split() == ["False"]
    assert ended.err == ""
    assert not sys._is_gil_enabled()  # type: ignore[attr-defined]  # new in 3.13


# --- making a client -------------------------------------------------------------


def test_one_of_many_inits_wins() -> None:
    """The others find a client that is made, or being made, and are refused."""
    for _ in range(500 if FREE else 20):
        client = espresso.Client.__new__(espresso.Client)
        refused: list[RuntimeError] = []

        def init(
            client: espresso.Client = client,
            refused: list[RuntimeError] = refused,
        ) -> None:
            try:
                client.__init__("sandbox-key", base_url="http://127.0.0.1:1")  # type: ignore[misc]  # that is the test
            except RuntimeError as error:
                refused.append(error)

        together(*[init] * 4)
        assert len(refused) == 3
        assert repr(client).startswith("<espresso.Client http://127.0.0.1:1 key=set")


class Reentrant:
    """Seconds, to be read while the client that asks for them is not yet made."""

    def __init__(self, client: espresso.Client) -> None:
        self.client = client

    def __float__(self) -> float:
        make_again(self.client)
        return 3.0


def make_again(client: espresso.Client) -> None:
    espresso.Client.__init__(client, "sandbox-inner", base_url="http://127.0.0.1:2")


def test_init_within_init(exchange: Exchange) -> None:
    """No thread is needed: code of the caller runs in the middle of __init__."""
    client = espresso.Client.__new__(espresso.Client)
    with pytest.raises(RuntimeError, match="called before"):
        client.__init__("sandbox-outer", timeout=Reentrant(client))  # type: ignore[misc]
    make_again(client)  # the outer one has failed, and blocks nobody
    assert client.base_url == "http://127.0.0.1:2"


# --- using it --------------------------------------------------------------------


def test_one_client_used_and_closed_by_all(exchange: Exchange) -> None:
    """Calls, looks at attributes and one close at a random moment."""
    dice = random.Random(11)
    for _ in range(30):
        client = make(espresso.Client, exchange)

        def call(client: espresso.Client = client) -> None:
            ended = (RuntimeError, espresso.ConnectError, espresso.ConnectionLostError)
            with contextlib.suppress(*ended):
                for _ in range(4):
                    client.cancel_all(SYMBOL, missing_ok=True)
                    client.warm_up()

        def look(client: espresso.Client = client) -> None:
            while not client.closed:
                assert client.base_url == exchange.url
                assert client.timeout == TIMEOUT
                repr(client)

        def close(
            client: espresso.Client = client, pause: float = dice.uniform(0, 0.02)
        ) -> None:
            time.sleep(pause)
            client.close()

        together(*[call] * THREADS, look, close)
        with pytest.raises(RuntimeError, match="closed"):
            client.cancel_all(SYMBOL)


def test_one_async_client_in_the_loops_of_all_threads(exchange: Exchange) -> None:
    """Loops come and go; each has its own answers, on what earlier ones kept warm."""
    client = make(espresso.AsyncClient, exchange)

    def caller(number: int) -> Callable[[], None]:
        async def calls(names: list[str]) -> None:
            one, *several = names
            results = await asyncio.gather(
                client.cancel_all(one), client.cancel_all(several)
            )
            assert results[0]["order_ids"] == ids[one]
            assert [it["order_ids"] for it in results[1]] == [ids[n] for n in several]

        ids: dict[str, list[str]] = {}

        def loops() -> None:
            for turn in range(ROUNDS):
                names = [f"A{number}-{turn}-{n}" for n in range(4)]
                ids.update((name, exchange.place(name, 2)) for name in names)
                asyncio.run(calls(names))

        return loops

    together(*map(caller, range(THREADS)))
    asyncio.run(client.aclose())
    assert not exchange.open_orders()
    assert len(exchange.calls) == THREADS * ROUNDS * 4


def test_one_async_client_used_and_closed_by_all(exchange: Exchange) -> None:
    dice = random.Random(12)
    for _ in range(ROUNDS):
        client = make(espresso.AsyncClient, exchange)

        async def calls(client: espresso.AsyncClient = client) -> None:
            ended = (RuntimeError, espresso.ConnectError, espresso.ConnectionLostError)
            with contextlib.suppress(*ended):
                for _ in range(4):
                    await client.cancel_all(SYMBOL, missing_ok=True)

        async def cancelled(client: espresso.AsyncClient = client) -> None:
            task = asyncio.create_task(calls(client))
            await asyncio.sleep(0.002)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

        async def close(
            client: espresso.AsyncClient = client, pause: float = dice.uniform(0, 0.02)
        ) -> None:
            await asyncio.sleep(pause)
            await client.aclose()

        bodies = [calls] * 4 + [cancelled] * 4 + [close]
        together(*[partial(asyncio.run, body()) for body in bodies])
        with pytest.raises(RuntimeError, match="closed"):
            asyncio.run(client.cancel_all(SYMBOL))


def test_errors_of_all_threads_are_their_own(exchange: Exchange) -> None:
    """Half the symbols exist; each thread gets the error of its own symbol."""
    wrong: list[object] = []
    with make(espresso.Client, exchange) as client:

        def caller(number: int) -> Callable[[], None]:
            def call() -> None:
                for n in range(40):
                    symbol = f"E{number}-{n}"
                    if n % 2:
                        exchange.place(symbol, 0)
                    try:
                        wrong.append(client.cancel_all(symbol))
                    except espresso.APIError as error:
                        if (error.code, error.symbol) != ((4106, 4200)[n % 2], symbol):
                            wrong.append(error)

            return call

        together(*map(caller, range(THREADS)))
    assert not wrong


def test_the_collector_runs_while_clients_come_and_go(exchange: Exchange) -> None:
    """Clients in cycles, with a callback that refers to them, used until the end."""
    ended = threading.Event()

    def use() -> None:
        try:
            for _ in range(25 if FREE else 5):
                heard: list[object] = []
                client = make(espresso.Client, exchange, on_event=heard.append)
                heard.append(client)
                client.cancel_all(SYMBOL, missing_ok=True)
                assert len(heard) == 2
        finally:
            ended.set()

    def collect() -> None:
        while not ended.wait(0.01):  # it stops the exchange's thread, too
            gc.collect()

    together(*[use] * THREADS, collect)


def test_the_environment_changes_under_the_button(
    exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One look at the environment a call: the key of one account, or of the other."""
    keys = [exchange.key, exchange.new_key()]
    monkeypatch.setenv("DELTADEFI_API_KEY", keys[0])
    monkeypatch.setenv("DELTADEFI_BASE_URL", exchange.url)
    monkeypatch.setenv("SSL_CERT_FILE", exchange.ca_file)
    ended = threading.Event()

    def press() -> None:
        try:
            for _ in range(PRESSES):
                espresso.cancel_all(SYMBOL, missing_ok=True)
        finally:
            ended.set()

    def change() -> None:
        # Another host is another client: the process-wide one is replaced, in use.
        urls = [exchange.url, exchange.url.replace("127.0.0.1", "localhost")]
        turn = 0
        while not ended.wait(0.002):
            turn += 1
            os.environ["DELTADEFI_API_KEY"] = keys[turn % 2]
            os.environ["DELTADEFI_BASE_URL"] = urls[turn // 2 % 2]

    together(*[press] * THREADS, change)
    assert {call.key for call in exchange.calls} <= set(keys)
    assert len(exchange.calls) == THREADS * PRESSES
