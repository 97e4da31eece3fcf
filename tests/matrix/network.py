"""Faults inside the network stack, in network namespaces of our own.

The client is a process in one namespace, the sandbox is in another, and what lies
between them loses packets, holds them back, or is gone. Each row is a function of a
face that gives back what was not as promised.
"""

from __future__ import annotations

import json
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from espresso.sandbox import Exchange
from tests.children import Child
from tests.connectproxy import PASSWORD
from tests.link import BLACK_HOLE, Link, url_of
from tests.matrix.places import NAME, Place
from tests.matrix.press import (
    COMMAND_LINE,
    child_environment,
    command,
    command_environment,
    told_by_command,
)
from tests.matrix.runner import Row
from tests.matrix.told import Told
from tests.rawserver import http

SYMBOL = "ADAUSDM"
FACES = ("sync", "async", COMMAND_LINE)
SLACK = 3.0  # seconds over a deadline, on a machine that is busy
LATE = 3.0  # seconds: what ends a call that finds nobody
PATIENT = 25.0
IDLE = 8.0
LIMITED = http(b'{"error":"too many","code":4290}', 429, "Retry-After: 4")
MODULE = 'import runpy; runpy.run_module("tests.matrix.child", run_name="__main__")'
LOST = ("RequestTimeoutError", "unknown")
DONE = ("done", "done")
TWIN = ("OrderNotFoundError", "rejected")
UNSENT = ("RequestTimeoutError", "not_sent")

# An exchange finds its namespace by patches of the sandbox, one at a time.
_starting = threading.Lock()


@dataclass
class Net:
    """A link, the exchange at its other end, and a client of it."""

    link: Link
    exchange: Exchange

    @property
    def place(self) -> Place:
        return Place(
            url_of(self.exchange), self.exchange.ca_file, key=self.exchange.key
        )

    @contextmanager
    def calling(
        self,
        face: str,
        timeout: float,
        *,
        act: str = "",
        place: Place | None = None,
        prefix: tuple[str, ...] = (),
        **options: Any,
    ) -> Iterator[Child]:
        """A process of this face; its call has `timeout` seconds."""
        place = place or self.place
        if face == COMMAND_LINE:
            program, *words = command(place, {"timeout": timeout})
            env = command_environment(place)
            child = self.link.child(Path(program), env, *words, prefix=prefix)
        else:
            options = {"timeout": timeout, **options}
            env = child_environment(face, place, options, act)
            child = self.link.child(MODULE, env, prefix=prefix)
        with child:
            yield child

    @property
    def posts(self) -> int:
        return len(self.exchange.calls)


@contextmanager
def net(**options: Any) -> Iterator[Net]:
    with Link(**options) as link, ExitStack() as stack:
        with _starting:
            exchange = stack.enter_context(link.exchange())
        yield Net(link, exchange)


def told_by_child(child: Child, face: str, begun: float) -> Told:
    """What the process has told, at its end."""
    ended = child.end()
    if face == COMMAND_LINE:
        return told_by_command(ended.out, ended.err, ended.status, ended.at - begun)
    first, *_ = ended.check().out.splitlines()
    return Told(**json.loads(first))


def differ(told: Told, expected: tuple[str, str], timeout: float) -> list[str]:
    """What was not as it must be of a call that has ended."""
    found = []
    if (told.kind, told.outcome) != expected:
        found.append(f"{told.kind}, {told.outcome}, not {expected}: {told.said}")
    if told.elapsed > timeout + SLACK:
        found.append(f"elapsed {told.elapsed:.2f} s of {timeout}")
    if PASSWORD in told.said:
        found.append("the password was said")
    return found


def count(what: str, found: int, expected: int) -> list[str]:
    return [] if found == expected else [f"{found} {what}, not {expected}"]


# ---- nobody is there -----------------------------------------------------------------


def black_hole(face: str) -> list[str]:
    """An address whose every packet is swallowed: the SYN is never answered."""
    with net() as it:
        place = Place(f"https://{BLACK_HOLE}", it.place.ca_file)
        return _unsent(it, face, place)


def black_hole_proxy(face: str) -> list[str]:
    """The proxy is there no more."""
    with net() as it:
        proxy = f"http://trader:{PASSWORD}@{BLACK_HOLE}:3128"
        options = {"proxy": proxy}
        place = Place(f"https://{NAME}", it.place.ca_file, options=options)
        return _unsent(it, face, place)


def everything_lost(face: str) -> list[str]:
    with net(loss=1.0) as it:
        return _unsent(it, face, it.place)


def silent_resolver(face: str) -> list[str]:
    """The system's own look-up asks a name server that never answers; and then
    nothing waits for it, not even the end of the process."""
    with net() as it, tempfile.TemporaryDirectory() as folder:
        settings = Path(folder, "resolv.conf")
        settings.write_text(f"nameserver {BLACK_HOLE}\n")
        mount = 'mount --bind "$0" /etc/resolv.conf && exec "$@"'
        prefix = ("sh", "-c", mount, str(settings))
        place = Place(f"https://{NAME}", it.place.ca_file)
        return _unsent(it, face, place, prefix)


def _unsent(
    it: Net, face: str, place: Place, prefix: tuple[str, ...] = ()
) -> list[str]:
    begun = time.monotonic()
    with it.calling(face, LATE, place=place, prefix=prefix) as child:
        told = told_by_child(child, face, begun)
    found = differ(told, UNSENT, LATE)
    if time.monotonic() - begun > LATE + 10:
        found.append("the process did not end")
    return found + count("POSTs", it.posts, 0)


# ---- the host vanishes ---------------------------------------------------------------


def half_open(face: str) -> list[str]:
    """The host vanishes while the connection is idle: no FIN, no RST, nothing."""
    return _while_idle(face, Link.vanish, Link.come_back)


def unplugged(face: str) -> list[str]:
    """The client's own network goes while the connection is idle, and comes back."""
    return _while_idle(
        face, lambda link: link.plug("down"), lambda link: link.plug("up")
    )


def _while_idle(
    face: str, go: Callable[[Link], None], back: Callable[[Link], None]
) -> list[str]:
    """A first request is refused for four seconds. Then the call finds out, by its
    deadline, and says that it knows nothing of its second request."""
    with net() as it:
        it.exchange.reply(LIMITED)
        begun = time.monotonic()
        with it.calling(face, IDLE, max_retries=1) as child:
            it.exchange.wait_for_calls(1, PATIENT)
            time.sleep(0.5)  # the answer is there
            go(it.link)
            told = told_by_child(child, face, begun)
        found = differ(told, LOST, IDLE) + count("POSTs", it.posts, 1)
        back(it.link)
        begun = time.monotonic()
        it.exchange.place(SYMBOL, 2)
        with it.calling(face, PATIENT) as child:
            told = told_by_child(child, face, begun)
        # The kernel may have brought the lost request after all: so it is with
        # "unknown", and the new call is told that nothing is open.
        found += differ(told, TWIN if told.kind == TWIN[0] else DONE, PATIENT)
        return found + count("open orders", len(it.exchange.open_orders()), 0)


def outage(face: str) -> list[str]:
    """The host is away for a second while its answer is due: TCP repeats what was
    lost, and one request is enough."""
    with net() as it:
        it.exchange.place(SYMBOL, 2)
        it.exchange.fault("slow", seconds=0.5)
        begun = time.monotonic()
        with it.calling(face, PATIENT) as child:
            it.exchange.wait_for_calls(1, PATIENT)
            it.link.vanish()
            time.sleep(1.0)
            it.link.come_back()
            told = told_by_child(child, face, begun)
        # In a process of its own a call that is done is followed by a second one.
        posts = it.posts - (face != COMMAND_LINE)
        found = differ(told, DONE, PATIENT) + count("POSTs", posts, 1)
        return found + count("ids", len(told.order_ids), 2)


def gone_with_the_request(face: str) -> list[str]:
    """The host vanishes for good with the request in its hands."""
    with net() as it:
        it.exchange.fault("hang", times=None)
        begun = time.monotonic()
        with it.calling(face, LATE) as child:
            it.exchange.wait_for_calls(1, PATIENT)
            it.link.vanish()
            told = told_by_child(child, face, begun)
        return differ(told, LOST, LATE) + count("POSTs", it.posts, 1)


# ---- packets are lost ----------------------------------------------------------------


def loss_and_delay(face: str) -> list[str]:
    """A far and bad link: what a call says is what the exchange has done."""
    with net(delay=0.03, loss=0.05) as it:
        found: list[str] = []
        for number in range(3):
            ids = it.exchange.place(SYMBOL, 2)
            before = it.posts
            begun = time.monotonic()
            with it.calling(face, PATIENT) as child:
                told = told_by_child(child, face, begun)
            found += differ(told, DONE, PATIENT)
            found += _judge_lossy(told, ids, it.posts - before)
            if it.exchange.open_orders():
                found.append(f"call {number}: said to be done, and orders are open")
        return found


def _judge_lossy(told: Told, ids: list[str], posts: int) -> Iterator[str]:
    if posts < told.attempts and told.attempts == 1:
        yield f"{posts} POSTs of one attempt"
    if told.lost_reply:
        if told.attempts < 2:
            yield "lost_reply, and one attempt"
    elif told.order_ids != ids:
        yield f"order_ids {told.order_ids}, not {ids}"


ROWS: Mapping[str, Row] = MappingProxyType(
    {
        "network: black hole": black_hole,
        "network: proxy in a black hole": black_hole_proxy,
        "network: everything lost": everything_lost,
        "network: name server is silent": silent_resolver,
        "network: half-open, host gone while idle": half_open,
        "network: unplugged while idle": unplugged,
        "network: outage of a second": outage,
        "network: host gone with the request": gone_with_the_request,
        "network: 5 % loss, 60 ms round trip": loss_and_delay,
    }
)
