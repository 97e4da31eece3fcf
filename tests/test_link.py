"""Round trips counted on a link that has a delay, and calls over one that loses.

The client's own process takes the times. A bound is in round trips of the link, and
holds for the best of some repetitions: what is slower was held up by the machine.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from tests import link as links
from tests.children import PRELUDE, Child, environment
from tests.conftest import cleaned
from tests.link import BLACK_HOLE, NAMESPACES, PREFIX, Link, url_of

LACKING = links.why_not()
pytestmark = [
    pytest.mark.alone,
    pytest.mark.skipif(bool(LACKING), reason=f"no link: {LACKING}"),
]

DELAY = 0.04  # seconds one way: a round trip as from Europe to America

# --- round trips -----------------------------------------------------------------

TIMES = (
    PRELUDE
    + """
import asyncio, json, socket
address = os.environ["TEST_URL"].partition("//")[2].split(":")
one, three = "S0", ["S0", "S1", "S2"]

bounds, round_trip = json.loads(sys.argv[1]), float(sys.argv[2])

def best(name, once):
    '''The best of 2, or of up to 20 if it need be, in round trips.'''
    least = once() / round_trip
    for tries in range(2, 21):
        least = min(least, once() / round_trip)
        if least <= bounds[name]:
            break
    return least

def tcp():
    started = time.perf_counter()
    socket.create_connection(address, 10).close()
    return time.perf_counter() - started

def blocking(symbols, warm):
    def once():
        with connect() as client:
            if warm:
                client.cancel_all(symbols, missing_ok=True)
            started = time.perf_counter()
            client.cancel_all(symbols, missing_ok=True)
            return time.perf_counter() - started
    return once

def in_a_loop(symbols, warm):
    async def once():
        where = {"base_url": os.environ["TEST_URL"], "ca_file": os.environ["TEST_CA"]}
        async with espresso.AsyncClient(os.environ["TEST_KEY"], **where) as client:
            if warm:
                await client.cancel_all(symbols, missing_ok=True)
            started = time.perf_counter()
            await client.cancel_all(symbols, missing_ok=True)
            return time.perf_counter() - started
    return lambda: asyncio.run(once())

def warmed_up():
    with connect() as client:
        client.warm_up()
        started = time.perf_counter()
        client.cancel_all(one, missing_ok=True)
        return time.perf_counter() - started

ways = {
    "TCP": tcp,
    "one, cold": blocking(one, False),
    "one, warm": blocking(one, True),
    "one, after warm_up": warmed_up,
    "three, cold": blocking(three, False),
    "three, warm": blocking(three, True),
    "asyncio: one, cold": in_a_loop(one, False),
    "asyncio: one, warm": in_a_loop(one, True),
    "asyncio: three, cold": in_a_loop(three, False),
    "asyncio: three, warm": in_a_loop(three, True),
}
say(json.dumps({name: best(name, once) for name, once in ways.items()}))
"""
)

# A cold call is three round trips: TCP, TLS 1.3, the request itself.
BOUNDS = {
    "TCP": 1.2,
    "one, cold": 3.2,
    "one, warm": 1.2,
    "one, after warm_up": 1.2,
    "three, cold": 3.3,
    "three, warm": 1.3,
    "asyncio: one, cold": 3.2,
    "asyncio: one, warm": 1.2,
    "asyncio: three, cold": 3.3,
    "asyncio: three, warm": 1.3,
}


@pytest.fixture(scope="module")
def round_trips() -> dict[str, float]:
    with Link(DELAY) as link, link.exchange() as exchange:
        for n in range(3):
            exchange.place(f"S{n}", 0)
        env = {**environment(cleaned(), exchange), "TEST_URL": url_of(exchange)}
        given = json.dumps(BOUNDS), str(link.round_trip)
        told: dict[str, float] = json.loads(link.run(TIMES, env, *given).check().out)
    return told


def test_every_time_has_its_bound(round_trips: dict[str, float]) -> None:
    assert list(round_trips) == list(BOUNDS)


@pytest.mark.clock
@pytest.mark.parametrize("name", BOUNDS)
def test_round_trips(name: str, round_trips: dict[str, float]) -> None:
    print(f"{name}: {round_trips[name]:.3f} round trips")
    least = int(BOUNDS[name])  # or the link has not delayed
    assert least <= round_trips[name] <= BOUNDS[name]


# --- loss ------------------------------------------------------------------------

LOSSY = (
    PRELUDE
    + """
import json
for n in range(15):
    try:
        with connect() as client:
            say(json.dumps(client.cancel_all(f"L{n}")))
    except espresso.EspressoError as error:
        say(json.dumps([type(error).__name__, error.outcome]))
"""
)


def test_calls_through_loss_end_rightly() -> None:
    """TCP repeats what was lost; what a call says is what the exchange has done."""
    with Link(0.005, loss=0.05) as link, link.exchange() as exchange:
        ids = {f"L{n}": exchange.place(f"L{n}", 2) for n in range(15)}
        env = {**environment(cleaned(), exchange), "TEST_URL": url_of(exchange)}
        ended = link.run(LOSSY, env).check()
        lost = link.lost
    print(f"{lost} packets lost")
    assert lost > 0
    results = [json.loads(line) for line in ended.out.splitlines()]
    assert len(results) == len(ids)
    posts = [call.symbol for call in exchange.calls]
    for (symbol, expected), result in zip(ids.items(), results, strict=True):
        assert isinstance(result, dict), f"{symbol}: {result}"
        if "lost_reply" in result:
            assert posts.count(symbol) > 1
        else:
            assert result == {"symbol": symbol, "order_ids": expected}
    assert not exchange.open_orders()


def test_everything_lost() -> None:
    """Not even a connection: nothing was sent, in the time that was given."""
    program = f"""{PRELUDE}
client = connect(timeout=0.5, max_retries=0)
started = time.monotonic()
try:
    client.cancel_all("ADAUSDM")
except espresso.RequestTimeoutError as error:
    say(error.outcome, error.attempts, time.monotonic() - started < 2)
"""
    with Link(loss=1.0) as link, link.exchange() as exchange:
        env = {**environment(cleaned(), exchange), "TEST_URL": url_of(exchange)}
        assert link.run(program, env).check().out == "not_sent 1 True\n"


def test_black_hole() -> None:
    """An address that swallows every packet: ended by connect_timeout."""
    program = f"""{PRELUDE}
client = connect(connect_timeout=0.3, max_retries=1)
started = time.monotonic()
try:
    client.cancel_all("ADAUSDM")
except espresso.RequestTimeoutError as error:
    say(error.outcome, error.attempts, time.monotonic() - started < 5)
"""
    with Link() as link, link.exchange() as exchange:
        env = environment(cleaned(), exchange)
        env["TEST_URL"] = f"https://{BLACK_HOLE}"
        assert link.run(program, env).check().out == "not_sent 2 True\n"


# --- the link itself -------------------------------------------------------------


def namespaces(pid: int) -> list[Path]:
    return list(NAMESPACES.glob(f"{PREFIX}-{pid}-*"))


def test_nothing_is_left(clean_env: dict[str, str]) -> None:
    with Link() as link:
        assert link.run("print(1)", clean_env).check().out == "1\n"
        assert len(namespaces(os.getpid())) == 2
    with pytest.raises(KeyError), Link():
        raise KeyError
    assert namespaces(os.getpid()) == []


KILLED = """
import os, sys
from tests.link import Link
with Link() as link:
    print(os.getpid(), flush=True)
    sys.stdin.readline()
"""


def test_what_a_killed_run_left_is_removed(clean_env: dict[str, str]) -> None:
    with Child(KILLED, clean_env) as child:
        pid = int(child.line())
        assert len(namespaces(pid)) == 2
        child.signal(signal.SIGKILL)
        child.end()
    assert len(namespaces(pid)) == 2
    with Link():
        assert namespaces(pid) == []
