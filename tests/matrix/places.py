"""Where a call goes, and what is wrong there: each way to make a place of a fault."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trustme

from espresso.sandbox import Exchange
from tests.connectproxy import ConnectProxy
from tests.matrix import stubs, wires
from tests.matrix.wires import ANSWER
from tests.obstacles import Gate
from tests.rawserver import KEY, RawServer, Script, answering, old_tls_context

NAME = "exchange.test"  # of nobody: only a stub or a proxy leads there
ALL = 1 << 30


@dataclass(frozen=True)
class Place:
    """What a call is told, and what can be counted afterwards."""

    url: str
    ca_file: str
    posts: Callable[[], int] = lambda: 0
    """POSTs that have arrived in full."""
    connections: Callable[[], int] | None = None
    drain: Callable[[], object] = lambda: None
    """Waits until the server has read all that has come."""
    options: dict[str, Any] = field(default_factory=dict)
    """Of the client."""
    env: dict[str, str] = field(default_factory=dict)
    """For a process of its own; not empty: the call is made in one."""
    descriptors: bool = True
    """False: the call has none left."""
    key: str = KEY


Make = Callable[[ExitStack, bool], Place]
"""Makes a place; True: that recovers after the first fault."""


def _of(server: RawServer, **more: Any) -> Place:
    url = f"https://127.0.0.1:{server.port}"
    given = {"url": url, "ca_file": server.ca_file} | more
    return Place(
        posts=lambda: len(server.posts),
        connections=lambda: server.connections,
        drain=server.drain,
        **given,
    )


def server(*scripts: Script, clear: bool = False, **options: Any) -> Make:
    """The scripts on one connection after another, the last again and again.

    If it recovers, only the first script is met.

    `clear`: the fault comes before TLS stands.
    """

    def make(stack: ExitStack, recovers: bool) -> Place:
        chosen = [scripts[0], answering(ANSWER)] if recovers else scripts
        first = (1 if recovers else ALL) if clear else 0
        running = RawServer(*chosen, clear=range(first), **options)
        return _of(stack.enter_context(running))

    return make


def answer(data: bytes) -> Make:
    """A server that answers with these bytes, and goes on."""

    def make(stack: ExitStack, recovers: bool) -> Place:
        chosen = [answering(data, *[ANSWER] * recovers), answering(ANSWER)]
        return _of(stack.enter_context(RawServer(*chosen[: 1 + recovers])))

    return make


def late_answer(stack: ExitStack, recovers: bool) -> Place:
    """The answer to the first request comes while the second is asked, if at all."""
    late = wires.Late()
    scripts = [late.first, late.second] if recovers else [late.too_late]
    return server(*scripts)(stack, False)


def certificate(fault: str) -> Make:
    """The sandbox with one that is not good."""

    def make(stack: ExitStack, recovers: bool) -> Place:
        exchange = stack.enter_context(Exchange(rate=None))
        exchange.fault(fault, times=1 if recovers else None)
        return Place(
            exchange.url,
            exchange.ca_file,
            posts=lambda: len(exchange.calls),
            key=exchange.key,
        )

    return make


def old_tls(stack: ExitStack, recovers: bool) -> Place:
    """A server that can do nothing newer than TLS 1.1."""
    context = old_tls_context()
    running = stack.enter_context(RawServer(answering(ANSWER), context=context))
    running.authority.issue_cert("127.0.0.1").configure_cert(context)
    return _of(running)


# ---- nobody answers ------------------------------------------------------------------


def _stranger(stack: ExitStack) -> str:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    (folder / "ca.pem").write_bytes(trustme.CA().cert_pem.bytes())
    return str(folder / "ca.pem")


def refused(stack: ExitStack, recovers: bool) -> Place:
    """A port that nobody listens on: bound, so that nobody else can."""
    sock = stack.enter_context(socket.socket())
    sock.bind(("127.0.0.1", 0))
    url = f"https://127.0.0.1:{sock.getsockname()[1]}"
    return Place(url, _stranger(stack))


def unreachable(stack: ExitStack, recovers: bool) -> Place:
    """The kernel itself knows of no way to this address: nothing leaves."""
    return Place("https://255.255.255.255", _stranger(stack))


def black_hole(stack: ExitStack, recovers: bool) -> Place:
    """A full queue: the SYN is never answered."""
    behind = stack.enter_context(Exchange(rate=None))
    gate = stack.enter_context(Gate(behind.url, full=True))
    return Place(gate.url, behind.ca_file, posts=lambda: len(behind.requests))


# ---- what the machine lacks ----------------------------------------------------------


def trust_store(stack: ExitStack, recovers: bool) -> Place:
    """A good server, and a `ca_file` that is none."""
    running = stack.enter_context(RawServer(answering(ANSWER)))
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    return _of(running, ca_file=str(Path(folder, "missing.pem")))


def no_descriptor(stack: ExitStack, recovers: bool) -> Place:
    running = stack.enter_context(RawServer(answering(ANSWER)))
    return _of(running, descriptors=False, env={"PYTHONDONTWRITEBYTECODE": "1"})


def stubbed(name: str = NAME, *scripts: Script, **variables: str) -> Make:
    """A server for a process in which functions of the C library are stubs."""

    def make(stack: ExitStack, recovers: bool) -> Place:
        running = RawServer(*scripts, answering(ANSWER))
        stack.enter_context(running)
        env = stubs.environment(**variables)
        return _of(running, url=f"https://{name}:{running.port}", env=env)

    return make


def clock(which: str, script: Callable[[Path], Script]) -> Make:
    """A clock of the child's that jumps when the script makes the file."""

    def make(stack: ExitStack, recovers: bool) -> Place:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        jumped = folder / "jumped"
        variables = {"STUB_CLOCK": which, "STUB_CLOCK_JUMPED": str(jumped)}
        return stubbed("127.0.0.1", script(jumped), **variables)(stack, recovers)

    return make


def names(addresses: str, hosts: tuple[str, ...]) -> Make:
    """A name with these addresses; the server's certificate is for `hosts`."""

    def make(stack: ExitStack, recovers: bool) -> Place:
        running = stack.enter_context(RawServer(answering(ANSWER), hosts=hosts))
        env = stubs.environment(STUB_NAME=NAME, STUB_ADDRESSES=addresses)
        return _of(running, url=f"https://{NAME}:{running.port}", env=env)

    return make


# ---- proxies -------------------------------------------------------------------------


def proxy(**how: Any) -> Make:
    """A proxy with credentials in front of a good server."""

    def make(stack: ExitStack, recovers: bool) -> Place:
        running = RawServer(answering(ANSWER), hosts=(NAME,))
        stack.enter_context(running)
        between = stack.enter_context(ConnectProxy(running.port, **how))
        options = {"proxy": between.with_credentials()}
        place = _of(running, url=f"https://{NAME}", options=options)
        # What is counted here is how often the proxy was tried.
        return Place(**{**vars(place), "connections": lambda: between.accepted})

    return make


def no_proxy(stack: ExitStack, recovers: bool) -> Place:
    place = refused(stack, recovers)
    proxy_url = place.url.replace("https://", "http://trader:hunter2-9f8e7d@")
    return Place(f"https://{NAME}", place.ca_file, options={"proxy": proxy_url})


def dying_tunnel(stack: ExitStack, recovers: bool) -> Place:
    """A proxy that goes down when the request has gone through its tunnel."""
    between: list[ConnectProxy] = []

    def script(wire: Any) -> None:
        wire.read_request()
        between[0].drop_tunnels()

    scripts = [script, answering(ANSWER)][: 1 + recovers]
    running = stack.enter_context(RawServer(*scripts, hosts=(NAME,)))
    between.append(stack.enter_context(ConnectProxy(running.port)))
    options = {"proxy": between[0].with_credentials()}
    return _of(running, url=f"https://{NAME}", options=options)
