"""What a server does to a connection: scripts of `RawServer`, byte by byte."""

from __future__ import annotations

import contextlib
import select
import threading
import time

from tests.rawserver import DONE, PATIENCE, Script, Wire, http

ANSWER = http(DONE)
HEAD, BODY = (part for part in ANSWER.split(b"\r\n\r\n"))
HEAD += b"\r\n\r\n"
CHUNKED = HEAD.replace(b"Content-Length: 46", b"Transfer-Encoding: chunked")
UNSIZED = HEAD.replace(b"Content-Length: 46\r\n", b"")
assert CHUNKED != HEAD != UNSIZED
CHUNK = b"2e\r\n" + DONE + b"\r\n"
assert int(CHUNK[:2], 16) == len(DONE)
POISON = http(b'{"symbol":"ADAUSDM","order_ids":["poison"]}')
TIMEOUT_408 = http(b"", 408, "Connection: close")
# Retry-After is the pause in which an idle connection meets its fault.
LIMITED = http(b'{"error":"too many","code":4290}', 429, "Retry-After: 2")


def after(data: bytes, end: str) -> Script:
    """Read the request, send these bytes, then end the connection so."""

    def script(wire: Wire) -> None:
        wire.read_request()
        if data:
            wire.send(data)
        getattr(wire, end)()
        if end == "close_notify":
            wire.hold()

    return script


def ended(end: str) -> Script:
    """End the connection before a request is read."""
    return lambda wire: getattr(wire, end)()


def saying(data: bytes) -> Script:
    """Send these bytes to a client that has not said a word, then end."""
    return lambda wire: wire.send(data)


def cut_short(wire: Wire) -> None:
    """Read a part of the request, then reset."""
    wire.sock.recv(20)
    wire.reset()


def drip(start: bytes, rest: bytes) -> Script:
    """So slowly that no attempt of a call lives to see the end."""

    def script(wire: Wire) -> None:
        wire.answer(start)
        for byte in rest:
            wire.send(bytes([byte]))
            time.sleep(0.25)
        wire.hold()

    return script


def for_ever(start: bytes, more: bytes, pause: float = 0.01) -> Script:
    def script(wire: Wire) -> None:
        wire.answer(start)
        while True:
            wire.send(more)
            time.sleep(pause)

    return script


def while_idle(data: bytes, end: str = "hold") -> Script:
    """Refuse a first request for a while, and meanwhile do that."""

    def script(wire: Wire) -> None:
        wire.answer(LIMITED)
        if data:
            wire.send(data)
        getattr(wire, end)()
        if end == "close_notify":
            with contextlib.suppress(OSError, ValueError):
                wire.hold()

    return script


def on_the_second(end: str) -> Script:
    """Refuse a first request for a while; the next one on this connection is lost."""

    def script(wire: Wire) -> None:
        wire.answer(LIMITED)
        wire.read_request()
        getattr(wire, end)()
        if end == "close_notify":
            wire.hold()

    return script


def stall(wire: Wire) -> None:
    """Read nothing, until the client goes."""
    until_gone = select.poll()
    until_gone.register(wire.sock, select.POLLRDHUP)
    until_gone.poll(PATIENCE * 1000)


class Late:
    """An answer that comes when another connection asks again already."""

    def __init__(self) -> None:
        self._given_up = threading.Event()
        self._sent = threading.Event()

    def first(self, wire: Wire) -> None:
        wire.read_request()
        wire.wait_for(self._given_up)
        with contextlib.suppress(OSError):  # nobody is there any more: all the better
            wire.send(POISON)
        self._sent.set()
        wire.hold()

    def too_late(self, wire: Wire) -> None:
        """Nobody asks again: it comes when the client is gone."""
        wire.read_request()
        with contextlib.suppress(OSError):
            wire.hold()
        with contextlib.suppress(OSError):
            wire.send(POISON)

    def second(self, wire: Wire) -> None:
        wire.read_request()
        self._given_up.set()
        wire.wait_for(self._sent)
        wire.send(ANSWER)
        while True:
            wire.answer(ANSWER)
