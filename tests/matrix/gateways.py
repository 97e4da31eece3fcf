"""Calls through real servers that close a connection when it was idle for a while.

Their time-out and the pauses between the calls are about the same, so that some
connections are closed before a call, some after it, and some while it goes out. Each
row is a function of a face that gives back what was not as promised.
"""

from __future__ import annotations

import asyncio
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any

import espresso
from espresso.sandbox import Exchange
from tests.matrix import servers
from tests.matrix.network import count, differ
from tests.matrix.places import Place
from tests.matrix.press import COMMAND_LINE, press
from tests.matrix.runner import Row
from tests.matrix.servers import ENVOY_TEXT, IDLE_MS, KINDS
from tests.matrix.told import IN_PYTHON

FACES = ("sync", "async", COMMAND_LINE)
CALLS, AT_ONCE = 200, 20
JITTER = 0.03  # seconds around the time-out, in which half of the calls fall
TIMEOUT = 25.0  # seconds
# A machine so busy that a request comes in later than the time-out is told 408.
RETRIES = {"max_retries": 8}


@contextmanager
def before(kind: str, port: int) -> Iterator[Callable[..., Place]]:
    """A gateway before a port; a function that makes a place of it for a client."""
    with servers.running(kind, port) as gateway:
        yield partial(Place, gateway.url, gateway.ca_file)


def _port_of(exchange: Exchange) -> int:
    return int(exchange.url.rpartition(":")[2])


# ---- idle connections ----------------------------------------------------------------


@dataclass
class Count:
    """What the calls of a row came to."""

    exchange: Exchange
    found: list[str] = field(default_factory=list)
    attempts: Counter[str] = field(default_factory=Counter)
    """By symbol: each call has one of its own."""
    used: Counter[bool] = field(default_factory=Counter)
    """Requests on a connection that had carried one before, and on a new one."""

    def on_event(self, event: espresso.Event) -> None:
        self.attempts[event.symbol] += 1
        self.used[event.reused] += 1

    def judge(self, symbol: str, ids: list[str], answer: Any) -> None:
        if isinstance(answer, Exception):
            self.found.append(f"{symbol}: lost: {answer!r}")
        elif "lost_reply" in answer:
            if self.attempts[symbol] < 2:
                self.found.append(f"{symbol}: lost_reply of one attempt")
        elif answer != {"symbol": symbol, "order_ids": ids}:
            self.found.append(f"{symbol}: {answer}, not {ids}")

    def judge_all(self) -> list[str]:
        posts = Counter(call.symbol for call in self.exchange.calls)
        for symbol, attempts in self.attempts.items():
            if not 1 <= posts[symbol] <= attempts:
                text = f"{symbol}: {posts[symbol]} POSTs, {attempts} attempts"
                self.found.append(text)
        if self.exchange.open_orders():
            self.found.append(f"still open: {self.exchange.open_orders()}")
        if len(self.attempts) != CALLS:
            self.found.append(f"{len(self.attempts)} calls, not {CALLS}")
        if not (self.used[True] and self.used[False]):
            self.found.append(f"nothing was tried: {self.used}")
        return self.found


def _pauses(lane: int) -> Iterator[float]:
    """Well below the time-out, well above it, and around it."""
    dice = random.Random(lane)
    idle = IDLE_MS / 1000
    for _ in range(CALLS // AT_ONCE):
        around = idle + dice.uniform(-JITTER, JITTER)
        yield dice.choice([idle / 5, 2 * idle, around, around])


def idle(kind: str, face: str) -> list[str]:
    """200 calls, twenty lanes side by side."""
    with ExitStack() as stack:
        exchange = stack.enter_context(Exchange(rate=None))
        place = stack.enter_context(before(kind, _port_of(exchange)))(key=exchange.key)
        count_of = Count(exchange)
        options = {"timeout": TIMEOUT, "on_event": count_of.on_event, **RETRIES}
        client = IN_PYTHON[face].client(place, **options)
        if isinstance(client, espresso.AsyncClient):
            asyncio.run(_async_lanes(client, count_of))
        else:
            with client, ThreadPoolExecutor(AT_ONCE) as pool:
                list(pool.map(partial(_lane, client, count_of), range(AT_ONCE)))
        return count_of.judge_all()


def _lane(client: espresso.Client, count_of: Count, lane: int) -> None:
    for number, pause in enumerate(_pauses(lane)):
        symbol = f"L{lane}-{number}"
        ids = count_of.exchange.place(symbol, 2)
        try:
            answer: Any = client.cancel_all(symbol)
        except espresso.EspressoError as error:
            answer = error
        count_of.judge(symbol, ids, answer)
        time.sleep(pause)


async def _async_lanes(client: espresso.AsyncClient, count_of: Count) -> None:
    async with client:
        lanes = (_async_lane(client, count_of, lane) for lane in range(AT_ONCE))
        await asyncio.gather(*lanes)


async def _async_lane(client: espresso.AsyncClient, count_of: Count, lane: int) -> None:
    for number, pause in enumerate(_pauses(lane)):
        symbol = f"L{lane}-{number}"
        ids = count_of.exchange.place(symbol, 2)
        try:
            answer: Any = await client.cancel_all(symbol)
        except espresso.EspressoError as error:
            answer = error
        count_of.judge(symbol, ids, answer)
        await asyncio.sleep(pause)


def idle_in_a_call(kind: str, face: str) -> list[str]:
    """A call that waits for longer than the time-out between two attempts."""
    with ExitStack() as stack:
        exchange = stack.enter_context(Exchange(rate=None))
        place = stack.enter_context(before(kind, _port_of(exchange)))(key=exchange.key)
        ids = exchange.place("ADAUSDM", 2)
        exchange.reply("429_code_4290")  # Retry-After: 2
        told = press(face, place, {"timeout": TIMEOUT, **RETRIES})[0]
        found = differ(told, ("done", "done"), TIMEOUT)
        posts = [call.cancelled for call in exchange.calls][: told.attempts]
        if posts != [(), tuple(ids)] or told.order_ids != ids:
            found.append(f"{posts}, {told.order_ids}")
        if told.lost_reply is not (told.attempts > 2):
            found.append(f"lost_reply {told.lost_reply}, {told.attempts} attempts")
        return found


# ---- the exchange behind it is down --------------------------------------------------


@contextmanager
def nobody() -> Iterator[socket.socket]:
    """A port of nobody, which an exchange can take over at any time."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", 0))
        yield sock


def down(kind: str, face: str) -> list[str]:
    """The gateway says 502 or 503: it may have been carried out, for all we know."""
    with nobody() as sock, before(kind, sock.getsockname()[1]) as place_of:
        (told,) = press(face, place_of(), {"timeout": TIMEOUT})
    found = differ(told, ("UnavailableError", "unknown"), TIMEOUT)
    found += count("attempts", told.attempts, 3)
    if not told.retryable:
        found.append("not retryable")
    if kind == "like envoy" and ENVOY_TEXT[:40] not in told.said:
        found.append(f"the gateway's words are lost: {told.said}")
    return found


def down_for_a_while(kind: str, face: str) -> list[str]:
    """The exchange starts while a call tries: that is found, and told as it is."""
    with ExitStack() as stack:
        port = stack.enter_context(nobody()).getsockname()[1]
        place_of = stack.enter_context(before(kind, port))
        exchange = Exchange(rate=None, port=port)
        starter = threading.Timer(0.5, exchange.start)
        starter.start()
        stack.callback(exchange.close)
        stack.callback(starter.join)
        place = place_of(key=exchange.key)
        exchange.place("ADAUSDM", 2)
        told = press(face, place, {"timeout": TIMEOUT, "max_retries": 50})[0]
        found = differ(told, ("done", "done"), TIMEOUT)
        if not told.lost_reply:
            found.append("no lost_reply")
        found += count("ids", len(told.order_ids), 2)
        return found + count("open orders", len(exchange.open_orders()), 0)


_WAYS: dict[str, tuple[Callable[[str, str], list[str]], tuple[str, ...]]] = {
    "200 calls around its idle time-out": (idle, ("sync", "async")),
    "closes while a call waits": (idle_in_a_call, FACES),
    "the exchange is down": (down, FACES),
    "the exchange comes back": (down_for_a_while, ("sync", "async")),
}
ROWS: Mapping[str, Row] = MappingProxyType(
    {
        f"{kind}: {what}": partial(row, kind)
        for kind in KINDS
        for what, (row, _) in _WAYS.items()
    }
)
FACES_OF: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {f"{kind}: {what}": faces for kind in KINDS for what, (_, faces) in _WAYS.items()}
)
