"""Nothing grows: references, memory and file descriptors over thousands of calls."""

from __future__ import annotations

import asyncio
import gc
import sys
import sysconfig
import weakref
from collections.abc import Callable
from typing import Any

import pytest

import espresso
from espresso import _core
from espresso.sandbox import Exchange
from tests.children import PRELUDE, environment, run

pytestmark = pytest.mark.alone

SYMBOL = "ADAUSDM"

# Without a GIL, 3.13 makes every class immortal once a second thread has run.
FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
KEEPS_CLASSES = FREE_THREADED and sys.version_info < (3, 14)


def make(exchange: Exchange, **options: Any) -> espresso.Client:
    options = {"base_url": exchange.url, "timeout": 5, **options}
    return espresso.Client(exchange.key, ca_file=exchange.ca_file, **options)


# --- the whole process, from outside ---------------------------------------------

CALLS = 3000
BATCHES = 3

# Each function is called again and again; after some rounds memory must be flat.
# One leaked outcome, exception or connection a call would be megabytes.
MIX = f"""{PRELUDE}
import gc, itertools, logging, resource
logging.disable()
events = []
client = connect(max_retries=0, on_event=lambda event: events.append(event))

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() // 1024

def fails(kind, *args, **options):
    try:
        client.cancel_all(*args, **options)
    except kind:
        return
    raise AssertionError(kind)

def missing_ok():
    client.cancel_all("ADAUSDM", missing_ok=True)
def not_found():
    fails(espresso.OrderNotFoundError, "ADAUSDM")
def invalid_symbol():
    fails(espresso.InvalidSymbolError, "NOPE")
def bad_argument():
    fails(ValueError, "ADA/USDM")
    fails(TypeError, None)
    fails(TypeError, "ADAUSDM", verify=False)
    fails(ValueError, "ADAUSDM", timeout=-1)
def unreachable():
    other = connect(base_url="https://127.0.0.1:1", max_retries=0)
    try:
        other.cancel_all("ADAUSDM")
    except espresso.ConnectError as error:
        str(error)
def fresh():
    with connect() as other:
        other.warm_up()
def dropped():
    connect().warm_up()
def wrong_options():
    for options in ({{"timeout": None}}, {{"base_url": "ftp://x"}}, {{"nonsense": 1}}):
        try:
            connect(**options)
        except (TypeError, ValueError):
            pass

work = [missing_ok, not_found, invalid_symbol, bad_argument, unreachable,
        wrong_options] * 5 + [fresh, dropped]
def rounds(n):
    for function in itertools.islice(itertools.cycle(work), n):
        function()
        del events[:]
    gc.collect()
def figures():
    return (
        resident(),
        sys.getallocatedblocks(),
        sys.getrefcount(None),
        len(os.listdir("/dev/fd")),
    )
rounds({CALLS // 5})
for _ in range({BATCHES}):
    before = figures()
    rounds({CALLS // BATCHES})
    say(*(now - then for now, then in zip(figures(), before)))
"""


@pytest.mark.memory
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_long_run_is_flat(exchange: Exchange, clean_env: dict[str, str]) -> None:
    ended = run(MIX, environment(clean_env, exchange), timeout=60).check()
    batches = [[int(word) for word in line.split()] for line in ended.out.splitlines()]
    # What leaks does so in every batch; what was only set aside does not.
    kilobytes, blocks, nones, fds = map(min, zip(*batches, strict=True))
    print(f"{kilobytes} KiB, {blocks} blocks, {nones} Nones, {fds} descriptors")
    assert kilobytes < 128
    # A batch calls each of the first functions of the mix 150 times.
    assert blocks < 120
    assert nones < 120
    assert fds == 0


# --- references ------------------------------------------------------------------


def references_kept(objects: list[object], work: Callable[[], object]) -> list[int]:
    """How many references to each of `objects` stay behind after 100 times `work`."""
    work()  # what is made once is made now
    gc.collect()
    before = [sys.getrefcount(thing) for thing in objects]
    for _ in range(100):
        work()
    gc.collect()
    after = [sys.getrefcount(thing) for thing in objects]
    return [now - then for now, then in zip(after, before, strict=True)]


def watched(exchange: Exchange) -> tuple[list[object], espresso.Client]:
    """A client and everything a call with it touches."""

    def on_event(event: object) -> None:
        pass

    client = make(exchange, on_event=on_event, max_retries=0)
    shared: list[object] = [
        client,
        on_event,
        espresso.Client,
        _core.Client,
        _core.Key,
        _core,
        espresso.errors,
        espresso.OrderNotFoundError,
        SYMBOL,
        ...,
    ]
    return shared, client


def test_calls_keep_no_references(exchange: Exchange) -> None:
    shared, client = watched(exchange)
    symbol = "".join(["ADA", "USDM"])  # a string that nobody else holds
    shared.append(symbol)

    def work() -> None:
        client.cancel_all(symbol, missing_ok=True, timeout=..., max_retries=...)
        with pytest.raises(espresso.OrderNotFoundError):
            client.cancel_all(symbol)
        exchange.reply("200_html")
        with pytest.raises(espresso.ResponseError):
            client.cancel_all(symbol)
        exchange.reply("200_two_orders")
        client.cancel_all(symbol)

    assert max(references_kept(shared, work)) < 20
    assert sys.getrefcount(symbol) < 10


def test_refused_arguments_keep_no_references(exchange: Exchange) -> None:
    shared, client = watched(exchange)
    odd = object()
    shared.append(odd)
    wrong: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
        ((odd,), {}),
        ((SYMBOL, odd), {}),
        ((), {}),
        (("",), {}),
        (("x" * 65,), {}),
        (("\ud800",), {}),
        ((SYMBOL,), {"timeout": odd}),
        ((SYMBOL,), {"timeout": (odd, odd)}),
        ((SYMBOL,), {"max_retries": odd}),
        ((SYMBOL,), {"max_retries": -1}),
        ((SYMBOL,), {"symbol": odd}),
        ((SYMBOL,), {"nonsense": odd}),
        ((SYMBOL,), {"verify": odd}),
    ]

    def work() -> None:
        for arguments, options in wrong:
            with pytest.raises((TypeError, ValueError)):
                client.cancel_all(*arguments, **options)
        with pytest.raises(TypeError):
            client.warm_up(odd)  # type: ignore[call-arg]  # that is the test

    assert max(references_kept(shared, work)) < 20
    assert not exchange.calls


def test_clients_keep_no_references(exchange: Exchange) -> None:
    shared, _ = watched(exchange)

    class Own(espresso.Client):
        pass

    shared.append(Own)

    def work() -> None:
        make(exchange)
        Own(exchange.key, base_url=exchange.url)
        with Own(exchange.key, base_url=exchange.url):
            pass
        for options in ({"api_key": "\n"}, {"timeout": 0}, {"base_url": "x"}):
            with pytest.raises(ValueError, match=r"."):
                Own(**options)
        with pytest.raises(TypeError):
            Own(verify=False)  # type: ignore[call-arg]  # that is the test
        Own.__new__(Own)

    assert max(references_kept(shared, work)) < 20


def test_an_exception_of_on_event_is_not_kept(
    exchange: Exchange, clean_env: dict[str, str]
) -> None:
    """In a process of its own: pytest keeps whatever is logged."""
    program = f"""{PRELUDE}
import gc, weakref
class Mine(Exception):
    pass
made = []
def fail(event):
    error = Mine()
    made.append(weakref.ref(error))
    raise error
with connect(on_event=fail) as client:
    client.cancel_all("ADAUSDM", missing_ok=True)
gc.collect()
assert [ref() for ref in made] == [None]
"""
    ended = run(program, environment(clean_env, exchange)).check()
    assert "Mine" in ended.err


# --- cycles ----------------------------------------------------------------------


class Bot:
    """It holds its client, whose on_event holds it."""

    def __init__(self, exchange: Exchange, kind: type[Any] = espresso.Client) -> None:
        where = {"base_url": exchange.url, "ca_file": exchange.ca_file}
        self.client = kind(exchange.key, on_event=self.hear, **where)
        self.heard = 0

    def hear(self, event: object) -> None:
        self.heard += 1


def watched_cycle(bot: Bot) -> list[weakref.ref[Any]]:
    return [weakref.ref(bot), weakref.ref(bot.client)]


def test_a_cycle_through_on_event_is_collected(exchange: Exchange) -> None:
    bot = Bot(exchange)
    bot.client.cancel_all(SYMBOL, missing_ok=True)
    assert bot.heard == 1
    gone = watched_cycle(bot)
    del bot
    gc.collect()
    assert [ref() for ref in gone] == [None, None]


def test_a_cycle_through_on_event_of_a_loop_is_collected(exchange: Exchange) -> None:
    """Its driver was held by the loop; calls of one symbol and of a list."""

    async def press(client: espresso.AsyncClient) -> None:
        await client.cancel_all(SYMBOL, missing_ok=True)
        await client.cancel_all([SYMBOL, "NIGHTUSDM"], missing_ok=True)

    bot = Bot(exchange, espresso.AsyncClient)
    asyncio.run(press(bot.client))
    assert bot.heard == 3
    gone = watched_cycle(bot)
    del bot
    gc.collect()
    assert [ref() for ref in gone] == [None, None]


def test_a_cycle_through_on_event_in_a_loop_that_runs(exchange: Exchange) -> None:
    """The client is dropped while the loop goes on, its connection still watched."""

    async def main() -> list[object]:
        bot = Bot(exchange, espresso.AsyncClient)
        await bot.client.cancel_all(SYMBOL, missing_ok=True)
        gone = watched_cycle(bot)
        del bot
        for _ in range(100):
            await asyncio.sleep(0.02)
            gc.collect()
            if not any(ref() for ref in gone):
                break
        return [ref() for ref in gone]

    assert asyncio.run(main()) == [None, None]


def test_a_cycle_through_the_on_event_of_a_guards_client(exchange: Exchange) -> None:
    """One that was left, and one that was never entered."""

    class Guarded(Bot):
        def __init__(self) -> None:
            super().__init__(exchange)
            self.guard = self.client.guard(SYMBOL, watchdog=False)

    left, never = Guarded(), Guarded()
    with left.guard:
        pass
    assert left.heard
    gone: list[weakref.ref[Any]] = []
    for bot in (left, never):
        gone += [*watched_cycle(bot), weakref.ref(bot.guard)]
    del left, never, bot
    gc.collect()
    assert [ref() for ref in gone] == [None] * 6


def test_a_cycle_through_a_subclass_is_collected(exchange: Exchange) -> None:
    class Own(espresso.Client):
        pass

    client = Own(exchange.key, base_url=exchange.url)
    client.me = client  # type: ignore[attr-defined]  # an instance has a __dict__
    gone: list[weakref.ref[Any]] = [weakref.ref(client), weakref.ref(Own)]
    del client, Own
    gc.collect()
    if KEEPS_CLASSES:
        gone.pop()
    assert [ref() for ref in gone] == [None] * len(gone)


def test_the_collector_sees_what_a_client_holds(exchange: Exchange) -> None:
    def on_event(event: object) -> None:
        pass

    client = make(exchange, on_event=on_event)
    assert gc.is_tracked(client)
    assert on_event in gc.get_referents(client)


# --- results ---------------------------------------------------------------------


def test_results_are_the_callers_own(exchange: Exchange) -> None:
    """Two equal answers are two dicts, which the caller may change."""
    with make(exchange) as client:
        exchange.reply("200_two_orders", times=2)
        first, second = client.cancel_all(SYMBOL), client.cancel_all(SYMBOL)
    assert first == second
    first["order_ids"].clear()
    assert second["order_ids"]
    assert type(first) is dict
    assert type(second["order_ids"]) is list
