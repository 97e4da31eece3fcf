"""How each fault of the matrix is made, and what the server must have seen of it.

A row of promises.py without its fault here, or the other way round, is an error.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from tests.connectproxy import reply
from tests.matrix import places, wires
from tests.matrix.places import Make, answer, certificate, proxy, server, stubbed
from tests.matrix.press import ALL_FACES, COMMAND_LINE
from tests.matrix.wires import (
    ANSWER,
    CHUNK,
    CHUNKED,
    HEAD,
    LIMITED,
    POISON,
    UNSIZED,
    after,
    drip,
    ended,
    for_ever,
    while_idle,
)
from tests.rawserver import DONE, Script, Wire, answering, http


@dataclass(frozen=True)
class Fault:
    """A fault that strikes each attempt of a call."""

    make: Make
    posts: int = 1
    """That arrive in full, of each attempt."""
    late: bool = False
    """A time-out is what ends it."""
    fresh: bool = True
    """Each attempt has a connection of its own."""
    dropped: bool = False
    """It costs the connection, and the next call needs a new one."""
    recovers: bool = True
    """A place can be made where only the first attempt meets the fault."""
    first_limited: bool = False
    """The first attempt is refused with 4290, and the fault strikes the connection
    while that waits, or the next request on it."""
    code: int | None = None
    """Of the exchange, that the error must have."""
    child: bool = False
    """It takes a process of its own."""
    kept_off: bool = False
    """The server says when to try again."""
    act: str = ""
    """What the caller does itself: see caller.py."""
    faces: tuple[str, ...] = ALL_FACES
    """A command has no second thread and no task; all others have every row."""

    @property
    def waits(self) -> bool:
        """A call spends its time in waiting."""
        return self.late or self.first_limited or self.kept_off


def at(script: Script) -> Fault:
    """The server does it when a request has come."""
    return Fault(server(script))


def late(script: Script) -> Fault:
    return Fault(server(script), late=True)


def unread(script: Script) -> Fault:
    """No request is read in full."""
    return Fault(server(script), posts=0)


def before_tls(script: Script, *, late: bool = False) -> Fault:
    return Fault(server(script, clear=True), posts=0, late=late)


def status(body: bytes, status: int = 200, *headers: str) -> Fault:
    return Fault(answer(http(body, status, *headers)), fresh=False)


def error(code: int, status: int) -> bytes:
    return http(b'{"error":"says the exchange","code":%d}' % code, status)


def coded(code: int, status: int) -> Fault:
    return Fault(answer(error(code, status)), fresh=False, code=code)


def raw(data: bytes) -> Fault:
    """These bytes are the whole answer."""
    return Fault(answer(data), fresh=False)


def machine(make: Make, *, late: bool = False, child: bool = False) -> Fault:
    """Found in a process of its own, before anything is sent."""
    return Fault(make, posts=0, late=late, fresh=False, recovers=False, child=child)


def through(**how: object) -> Fault:
    return Fault(proxy(**how), posts=0, recovers=False)


def idle(data: bytes, end: str = "hold") -> Fault:
    return Fault(
        server(while_idle(data, end), answering(ANSWER)),
        first_limited=True,
        recovers=False,
    )


def kept(end: str) -> Fault:
    return Fault(server(wires.on_the_second(end), after(b"", end)), first_limited=True)


def lengths(*headers: str) -> Fault:
    """Framing headers in place of the right one."""
    return Fault(answer(http(DONE, 200, *headers, sized=False)), fresh=True)


def jumping(jumped: Path) -> Script:
    """Refuse a first request for a while, and meanwhile let the clock jump."""

    def script(wire: Wire) -> None:
        wire.answer(LIMITED)
        time.sleep(0.3)  # the client has the answer, and has noted when
        jumped.touch()
        while True:
            wire.answer(ANSWER)

    return script


def acted(act: str, sent: bool, faces: tuple[str, ...] = ALL_FACES) -> Fault:
    """The caller does it while the server is silent, before or after the request."""
    make = server(after(b"", "hold")) if sent else server(Wire.hold, clear=True)
    return Fault(make, posts=int(sent), recovers=False, act=act, faces=faces)


HUNG = {"refusal": b"HTTP/1.1 200 OK\r\n", "then": "hold"}
BASIC = 'Proxy-Authenticate: Basic realm="x"'
IN_PYTHON = tuple(face for face in ALL_FACES if face != COMMAND_LINE)
IN_ASYNCIO = tuple(face for face in IN_PYTHON if "async" in face)

_FAULTS: dict[str, Fault] = {
    "local: no descriptor": machine(places.no_descriptor, child=True),
    "local: no thread for the look-up": machine(
        stubbed(STUB_NO_THREAD="1"), child=True
    ),
    "local: no memory for TLS": machine(
        stubbed("127.0.0.1", STUB_NO_MEMORY="1"), child=True
    ),
    "local: trust store unreadable": machine(places.trust_store),
    "DNS: NXDOMAIN": machine(stubbed(STUB_DNS="NXDOMAIN"), child=True),
    "DNS: SERVFAIL": machine(stubbed(STUB_DNS="SERVFAIL"), child=True),
    "DNS: no answer": machine(stubbed(STUB_DNS="hang"), late=True, child=True),
    "DNS: wrong address": machine(
        places.names("127.0.0.1", ("other.test",)), child=True
    ),
    "connect: refused": machine(places.refused),
    "connect: unreachable": machine(places.unreachable),
    "connect: black hole": machine(places.black_hole, late=True),
    # 127.0.0.9 is loopback, too, and nobody listens there.
    "connect: first of two addresses dead": Fault(
        places.names("127.0.0.9+127.0.0.1", (places.NAME,)), recovers=False, child=True
    ),
    "connect: accepted, then RST": before_tls(ended("reset")),
    "connect: accepted, then FIN": before_tls(ended("fin")),
    "TLS: hang": before_tls(Wire.hold, late=True),
    "TLS: plain text": before_tls(wires.saying(ANSWER)),
    "TLS: garbage": before_tls(wires.saying(b"\x16\x03\x01\xff" * 9)),
    "TLS: old version": Fault(places.old_tls, posts=0, recovers=False),
    "TLS: wrong name": Fault(certificate("wrong_host_certificate"), posts=0),
    "TLS: expired": Fault(certificate("expired_certificate"), posts=0),
    "TLS: unknown CA": Fault(certificate("unknown_ca_certificate"), posts=0),
    "proxy: nobody there": machine(places.no_proxy),
    "proxy: CONNECT refused": through(
        refusal=reply(403, "Forbidden", body="no"), then="close"
    ),
    "proxy: 407": through(refusal=reply(407, "Who are you", BASIC), then="close"),
    "proxy: dies before it answers": through(then="reset"),
    "proxy: dies in its answer": through(
        refusal=b"HTTP/1.1 200 OK\r\nX: ", then="close"
    ),
    "proxy: dies after its answer": through(refusal=reply(200, "OK"), then="close"),
    "proxy: hangs": Fault(proxy(**HUNG), posts=0, late=True, recovers=False),
    "proxy: tunnel dies after the request": Fault(places.dying_tunnel),
    "reuse: FIN while idle": idle(b"", "fin"),
    "reuse: RST while idle": idle(b"", "reset"),
    "reuse: close_notify while idle": idle(b"", "close_notify"),
    "reuse: 408 while idle": idle(wires.TIMEOUT_408),
    "reuse: 408 and FIN while idle": idle(wires.TIMEOUT_408, "fin"),
    "reuse: extra answer while idle": idle(POISON),
    "reuse: half an answer while idle": idle(POISON[:30]),
    "reuse: FIN after our bytes left": kept("fin"),
    "reuse: RST after our bytes left": kept("reset"),
    "reuse: close_notify after our bytes": kept("close_notify"),
    "send: RST before a byte is read": unread(ended("reset")),
    "send: RST in the middle": unread(wires.cut_short),
    "send: stall": Fault(server(wires.stall), posts=0, late=True),
    "wait: FIN": at(after(b"", "fin")),
    "wait: close_notify": at(after(b"", "close_notify")),
    "wait: RST": at(after(b"", "reset")),
    "wait: silence": late(after(b"", "hold")),
    "wait: late answer": Fault(places.late_answer, late=True),
    "headers: partial status line, FIN": at(after(HEAD[:9], "fin")),
    "headers: partial status line, RST": at(after(HEAD[:9], "reset")),
    "headers: partial status line, silence": late(after(HEAD[:9], "hold")),
    "headers: partial block, FIN": at(after(HEAD[:40], "fin")),
    "headers: partial block, close_notify": at(after(HEAD[:40], "close_notify")),
    "headers: all but the empty line, FIN": at(after(HEAD[:-2], "fin")),
    "headers: partial block, RST": at(after(HEAD[:40], "reset")),
    "headers: partial block, silence": late(after(HEAD[:40], "hold")),
    "headers: drip": late(drip(b"", HEAD)),
    "headers: endless 1xx": late(for_ever(b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.05)),
    "headers: more than 300 KiB": at(
        for_ever(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 2000)
    ),
    "headers: HTTP/0.9": at(after(DONE, "fin")),
    "headers: garbage": at(after(b"\x00\x01garbage\r\n\r\n", "fin")),
    "headers: two lengths": lengths("Content-Length: 47", "Content-Length: 46"),
    "headers: negative length": lengths("Content-Length: -46"),
    "headers: length with chunked": Fault(
        answer(CHUNKED[:-2] + b"Content-Length: 46\r\n\r\n" + CHUNK + b"0\r\n\r\n")
    ),
    "headers: 100 and 103, then 200": raw(
        b"HTTP/1.1 100 Continue\r\n\r\n"
        b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + ANSWER
    ),
    "status: 301": status(b"", 301, "Location: https://127.0.0.1:1/"),
    "status: 307": status(b"", 307, "Location: https://127.0.0.1:1/"),
    "status: 429": replace(status(b"slow down", 429, "Retry-After: 1"), kept_off=True),
    "status: 4290": Fault(answer(LIMITED), fresh=False, code=4290, kept_off=True),
    "status: 4000": coded(4000, 422),
    "status: 4010": coded(4010, 401),
    "status: 4106": coded(4106, 400),
    # The command takes it for what it is: nothing is open.
    "status: 4200": replace(coded(4200, 400), faces=IN_PYTHON),
    "status: 403 without a body": status(b"", 403),
    "status: 5002": coded(5002, 400),
    "status: 500": status(b"oops", 500),
    "status: 5000 under 400": coded(5000, 400),
    "status: 5001 under 503": coded(5001, 503),
    "status: 503 of Envoy": status(
        b"upstream connect error or disconnect/reset before headers", 503
    ),
    "status: 408": status(b"", 408),
    "status: 200 with a code": coded(4010, 200),
    "status: 200 with an error, no code": status(b'{"error":"no"}'),
    "status: 201": status(DONE, 201),
    "status: 202": status(DONE, 202),
    "status: 204": raw(b"HTTP/1.1 204 No Content\r\n\r\n"),
    "status: 206": status(DONE, 206),
    "status: 200, empty": status(b""),
    "body: none, FIN": at(after(HEAD, "fin")),
    "body: none, RST": at(after(HEAD, "reset")),
    "body: cut, FIN": at(after(ANSWER[:-1], "fin")),
    "body: cut, close_notify": at(after(ANSWER[:-1], "close_notify")),
    "body: cut, RST": at(after(ANSWER[:-1], "reset")),
    "body: chunk cut": at(after(CHUNKED + CHUNK[:13], "fin")),
    "body: last chunk missing, FIN": at(after(CHUNKED + CHUNK, "fin")),
    "body: last chunk missing, close_notify": at(
        after(CHUNKED + CHUNK, "close_notify")
    ),
    "body: last chunk missing, silence": late(after(CHUNKED + CHUNK, "hold")),
    "body: bad chunk": at(after(CHUNKED + b"zz\r\n" + DONE, "hold")),
    "body: close-delimited, FIN": at(after(UNSIZED + DONE, "fin")),
    "body: close-delimited, close_notify": at(after(UNSIZED + DONE, "close_notify")),
    "body: close-delimited and cut": at(after(UNSIZED + DONE[:20], "close_notify")),
    "body: none, silence": late(after(HEAD, "hold")),
    "body: cut, silence": late(after(ANSWER[:-1], "hold")),
    "body: drip": late(drip(HEAD, DONE)),
    "body: more than 1 MiB": at(after(http(b" " * (1 << 20) + DONE), "hold")),
    "body: endless chunks": at(
        for_ever(CHUNKED, b"10000\r\n" + b" " * 65536 + b"\r\n")
    ),
    "body: not JSON": status(b"cancelled"),
    "body: not strict JSON": status(DONE + b","),
    "body: wrong shape": status(b'["a-1","b-2"]'),
    "body: wrong type": status(b'{"symbol":"ADAUSDM","order_ids":[1,2]}'),
    "body: HTML": status(b"<html><body>Maintenance</body></html>"),
    "after: extra bytes after the answer": Fault(
        server(answering(ANSWER + POISON)), dropped=True, recovers=False
    ),
    "caller: Ctrl-C before the request": acted("interrupt", False),
    "caller: Ctrl-C after the request": acted("interrupt", True),
    "caller: task.cancel before the request": acted("cancel", False, IN_ASYNCIO),
    "caller: task.cancel after the request": acted("cancel", True, IN_ASYNCIO),
    "caller: close before the request": acted("close", False, IN_PYTHON),
    "caller: close after the request": acted("close", True, IN_PYTHON),
    "shutdown: exit with a thread in a call": acted("exit", True, IN_PYTHON),
    "machine: the wall clock jumps": Fault(
        places.clock("wall", jumping),
        first_limited=True,
        fresh=False,
        recovers=False,
        child=True,
    ),
    "machine: suspended while idle": Fault(
        places.clock("boot", jumping),
        first_limited=True,
        recovers=False,
        child=True,
    ),
}

FAULTS = MappingProxyType(_FAULTS)
