"""The faults: what the server does to a connection or with a request.

A fault of a connection is a name that server.py acts out at the accept or in the
handshake. A fault of a request is a function from a `Scene` to a `Plan`: the
bytes, the pauses between them and the end of the connection. The plan also says
what the client may believe once the last byte has been sent.
"""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from .records import Reading, reading_of

End = Literal["keep", "fin", "notify", "rst", "hold"]
"""keep it alive; FIN; close_notify and FIN; RST; say nothing until they leave."""


class Raw(bytes):
    """Bytes that go to the socket as they are, outside TLS."""


Step = bytes | float
"""Bytes to send (one TLS record, or `Raw`), or a pause in seconds."""


@dataclass(frozen=True)
class Idle:
    """What happens to the connection after a good answer, while it idles.

    ``when`` is "flight" (in the same segment as the answer), "soon" (some
    milliseconds later, whether a request is under way or not) or "quiet" (when
    the client is known to stand still).
    """

    when: Literal["flight", "soon", "quiet"]
    end: End = "keep"
    extra: bytes = b""


@dataclass(frozen=True)
class Reply:
    """One complete answer, and what it is worth by the contract."""

    status: int
    body: bytes
    reading: Reading
    code: int | None = None
    ids: tuple[str, ...] = ()
    content_type: str = "application/json"
    headers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """``reply`` is None where no byte sequence of the plan is a valid answer."""

    steps: Iterable[Step]
    reply: Reply | None = None
    end: End = "keep"
    idle: Idle | None = None
    statuses: tuple[int, ...] = ()


@dataclass
class Scene:
    """One request, the dice for it, and the open orders of its symbol."""

    symbol: str
    rng: random.Random
    orders: dict[str, tuple[str, ...]]
    owned: bool  # the client of this call belongs to one worker alone
    quoting: float = 0.0  # how likely new orders appear after each cancel
    carried: bool = field(default=False, init=False)

    def cancel(self) -> tuple[str, ...]:
        """Carry the request out; only a bot that still quotes opens new orders."""
        ids = self.orders.get(self.symbol, ())
        self.orders[self.symbol] = ()
        self.carried = True
        if self.quoting and self.rng.random() < self.quoting:
            self.orders[self.symbol] = _new_orders(self.rng, self.rng.choice((1, 2)))
        return ids

    def cancel_perhaps(self) -> None:
        if self.rng.random() < 0.5:
            self.cancel()


def place_orders(seed: int, symbol: str) -> tuple[str, ...]:
    """The orders that are open on a symbol before its call; one in ten has none."""
    rng = random.Random(f"{seed}/orders/{symbol}")
    return _new_orders(rng, rng.choice((0, 1, 1, 2, 2, 2, 3, 3, 5, 8)))


def _new_orders(rng: random.Random, count: int) -> tuple[str, ...]:
    return tuple(str(uuid.UUID(int=rng.getrandbits(128))) for _ in range(count))


def draw_quoting(seed: int, symbol: str) -> float:
    """How likely new orders of a symbol appear after each cancel: mostly never."""
    rng = random.Random(f"{seed}/quoting/{symbol}")
    return rng.choices((0.0, 0.5, 1.0), (16, 3, 1))[0]


# --- answers -----------------------------------------------------------------

REASONS = {
    200: "OK",
    202: "Accepted",
    302: "Found",
    307: "Temporary Redirect",
    308: "Permanent Redirect",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    408: "Request Timeout",
    409: "Conflict",
    429: "Too Many Requests",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}
ENVOY = (
    b"upstream connect error or disconnect/reset before headers. "
    b"reset reason: connection timeout"
)
HUGE = 1_200_000
"""Bytes of an over-long body; the client's ceiling is 1 MiB."""


def error_reply(status: int, code: int, message: str = "no") -> Reply:
    body = json.dumps({"error": message, "code": code}).encode()
    return Reply(status, body, reading_of(status, code), code)


def text_reply(status: int, text: bytes, *headers: str) -> Reply:
    reading = reading_of(status, None)
    return Reply(status, text, reading, None, (), "text/plain", headers)


def live_reply(scene: Scene) -> Reply:
    """Carry the request out and answer as the live server does."""
    ids = scene.cancel()
    if ids:
        return Reply(200, _promised(scene, ids), "done", ids=ids)
    if scene.rng.random() < 0.15:
        body = scene.rng.choice(('{"symbol":"%s","order_ids":null}', '{"symbol":"%s"}'))
        return Reply(200, (body % scene.symbol).encode(), "done")
    return error_reply(scene.rng.choice((400, 400, 404)), 4200, "Order not found")


def _promised(scene: Scene, ids: tuple[str, ...]) -> bytes:
    """A body of the promised shape; the contract allows for each of these."""
    body: dict[str, object] = {"symbol": scene.symbol, "order_ids": list(ids)}
    form = scene.rng.random()
    if form < 0.1:
        del body["symbol"]
    elif form < 0.2:
        body["symbol"] = scene.symbol.lower()
    elif form < 0.3:
        body["took"] = {"ms": 7.5}
    return json.dumps(body).encode()


def head(status: int, *headers: str) -> bytes:
    reason = REASONS.get(status, "Unknown")
    lines = (f"HTTP/1.1 {status} {reason}", "Server: chaos", *headers, "", "")
    return "\r\n".join(lines).encode()


def by_length(reply: Reply, *, lie: int = 0) -> list[bytes]:
    length = f"Content-Length: {len(reply.body) + lie}"
    kind = f"Content-Type: {reply.content_type}"
    return [head(reply.status, kind, length, *reply.headers), reply.body]


def by_chunks(rng: random.Random, reply: Reply) -> list[bytes]:
    cut = rng.randint(0, len(reply.body))
    pieces = [piece for piece in (reply.body[:cut], reply.body[cut:]) if piece]
    kind = f"Content-Type: {reply.content_type}"
    top = head(reply.status, kind, "Transfer-Encoding: chunked", *reply.headers)
    chunks = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces]
    return [top, *chunks, b"0\r\n\r\n"]


def in_parts(rng: random.Random, reply: Reply) -> list[bytes]:
    """The answer whole, by length or chunked."""
    return by_length(reply) if rng.random() < 0.7 else by_chunks(rng, reply)


def framed(rng: random.Random, reply: Reply) -> list[Step]:
    """The answer whole, in one TLS record, in several, or in several segments."""
    # Without an empty body: the answer is whole when its last bytes have left.
    parts = [part for part in in_parts(rng, reply) if part]
    form = rng.random()
    if form < 0.6:
        return [b"".join(parts)]
    if form < 0.9:
        return [*parts]
    return [step for part in parts for step in (0.002, part)]


def say(scene: Scene, reply: Reply, idle: Idle | None = None) -> Plan:
    """Send the answer whole and keep the connection."""
    steps = framed(scene.rng, reply)
    return Plan(steps, reply, idle=idle, statuses=(reply.status,))


def die(scene: Scene, end: End) -> Plan:
    """Read the request, perhaps carry it out, and answer nothing."""
    scene.cancel_perhaps()
    return Plan((), end=end)


def cut_off(scene: Scene, steps: Iterable[Step], *statuses: int) -> Plan:
    """Send what is no complete answer and end the connection in some way."""
    ends: tuple[End, ...] = ("fin", "notify", "rst")
    return Plan(steps, end=scene.rng.choice(ends), statuses=statuses)


# --- the table ---------------------------------------------------------------

Maker = Callable[[Scene], Plan]


@dataclass(frozen=True)
class Fault:
    name: str
    weight: float
    make: Maker


CONNECTION_FAULTS: dict[str, float] = {
    "accept_rst": 2,  # RST at once
    "accept_fin": 2,  # FIN at once
    "plain_text": 2,  # an HTTP answer where TLS was expected
    "tls_cut": 2,  # half of the handshake, then FIN
    "tls_hang": 0.6,  # silence after the ClientHello
    "tls_then_rst": 2,  # RST right after the handshake, requests unread
    "swallow_second": 8,  # answers the first request, dies on the second
}
NO_CONNECTION_FAULT = 100.0
NO_REQUEST_FAULT = 120.0

REQUEST_FAULTS: dict[str, Fault] = {}


def fault(weight: float) -> Callable[[Maker], Maker]:
    """Enter a function into the table of faults under its own name."""

    def enter(make: Maker) -> Maker:
        REQUEST_FAULTS[make.__name__] = Fault(make.__name__, weight, make)
        return make

    return enter


def all_names() -> list[str]:
    return [*CONNECTION_FAULTS, *REQUEST_FAULTS]


def draw_connection_fault(rng: random.Random, only: frozenset[str]) -> str:
    """The fault of a new connection, or "" for none."""
    weights = {n: w for n, w in CONNECTION_FAULTS.items() if not only or n in only}
    return rng.choices(["", *weights], [NO_CONNECTION_FAULT, *weights.values()])[0]


def draw_request_fault(rng: random.Random, only: frozenset[str]) -> Fault:
    """What happens to a request; mostly it is answered as it should be."""
    entries = [f for f in REQUEST_FAULTS.values() if not only or f.name in only]
    weights = [NO_REQUEST_FAULT, *(entry.weight for entry in entries)]
    return rng.choices([NO_FAULT, *entries], weights)[0]


def no_fault(scene: Scene) -> Plan:
    return say(scene, live_reply(scene))


NO_FAULT = Fault("", NO_REQUEST_FAULT, no_fault)


# --- while the connection idles ------------------------------------------------
#
# An unasked, well-formed answer that arrives while a request is in flight cannot
# be told from the real one: the one known hole of any client that keeps
# connections. So unasked *bytes* leave at two moments only. "flight": in the same
# send(2) as the end of the answer, so that they lie in the client's socket buffer
# before it can have read that answer, let alone sent the next request. "quiet":
# when the worker that alone owns the client stands between two calls and waits
# for the server's word that the bytes have been acknowledged by its kernel.
# Closing a connection is no answer and may therefore cross a request.


def _unasked_moment(scene: Scene) -> Literal["flight", "quiet"]:
    return "quiet" if scene.owned and scene.rng.random() < 0.6 else "flight"


def _close_idle(scene: Scene, end: End) -> Plan:
    when: Literal["flight", "soon", "quiet"] = scene.rng.choice(
        ("flight", "soon", _unasked_moment(scene))
    )
    return say(scene, live_reply(scene), Idle(when, end))


def poison(rng: random.Random) -> bytes:
    """A well-formed answer nobody asked for; it names no symbol."""
    stray = uuid.UUID(int=rng.getrandbits(128))
    body = b'{"order_ids":["%b"]}' % str(stray).encode()
    reply = Reply(200, body, "done")
    if rng.random() < 0.3:
        reply = error_reply(400, 4200, "Order not found")
    return b"".join(by_length(reply))


@fault(4)
def idle_fin(scene: Scene) -> Plan:
    return _close_idle(scene, "fin")


@fault(4)
def idle_rst(scene: Scene) -> Plan:
    return _close_idle(scene, "rst")


@fault(4)
def idle_notify(scene: Scene) -> Plan:
    return _close_idle(scene, "notify")


@fault(6)
def idle_poison(scene: Scene) -> Plan:
    idle = Idle(_unasked_moment(scene), extra=poison(scene.rng))
    return say(scene, live_reply(scene), idle)


@fault(4)
def idle_408(scene: Scene) -> Plan:
    extra = b"".join(by_length(text_reply(408, b"", "Connection: close")))
    return say(scene, live_reply(scene), Idle(_unasked_moment(scene), "fin", extra))


@fault(3)
def idle_byte(scene: Scene) -> Plan:
    """One byte too many, inside TLS or outside it."""
    extra = scene.rng.choice((b"H", b"\n", Raw(b"\x00"), Raw(b"\x17")))
    return say(scene, live_reply(scene), Idle(_unasked_moment(scene), extra=extra))


@fault(4)
def same_record(scene: Scene) -> Plan:
    """An unasked answer in the TLS record of the real one."""
    reply = live_reply(scene)
    parts = [*in_parts(scene.rng, reply), poison(scene.rng)]
    return Plan([b"".join(parts)], reply, statuses=(reply.status,))


@fault(3)
def split_record(scene: Scene) -> Plan:
    """The head alone, then an unasked answer in the TLS record of the body's end:
    what the client does not read stays decrypted, where no poll sees it."""
    reply = live_reply(scene)
    head, *rest = by_length(reply)
    pause: list[Step] = [scene.rng.choice((0.0, 0.002))]
    last = b"".join([*rest, poison(scene.rng)])
    return Plan([head, *pause, last], reply, statuses=(reply.status,))


# --- while the client waits ----------------------------------------------------


@fault(5)
def wait_rst(scene: Scene) -> Plan:
    return die(scene, "rst")


@fault(4)
def wait_fin(scene: Scene) -> Plan:
    return die(scene, "fin")


@fault(4)
def wait_notify(scene: Scene) -> Plan:
    return die(scene, "notify")


@fault(1)
def silence(scene: Scene) -> Plan:
    return die(scene, "hold")


@fault(2)
def late_answer(scene: Scene) -> Plan:
    """In time or too late, for the attempt or for the whole call."""
    reply = live_reply(scene)
    pause = scene.rng.uniform(0.1, 1.2)
    return Plan([pause, *framed(scene.rng, reply)], reply, statuses=(reply.status,))


# --- headers -------------------------------------------------------------------


@fault(4)
def head_cut(scene: Scene) -> Plan:
    """Dies within the status line or within the header block."""
    top = by_length(live_reply(scene))[0]
    return cut_off(scene, [top[: scene.rng.randint(1, len(top) - 3)]], 200, 400, 404)


@fault(1)
def head_drip(scene: Scene) -> Plan:
    reply = live_reply(scene)
    raw = b"".join(by_length(reply))
    return Plan(_drip(raw, 20, 0.05), reply, statuses=(reply.status,))


@fault(1)
def endless_1xx(scene: Scene) -> Plan:
    scene.cancel_perhaps()
    line = scene.rng.choice((head(100), head(102), head(103, "Link: </a>")))
    return Plan(_endless(line), end="rst", statuses=(100, 102, 103))


@fault(3)
def informational(scene: Scene) -> Plan:
    """100 and 103 before the real answer: allowed, and to be skipped."""
    reply = live_reply(scene)
    first = scene.rng.choice(([head(100)], [head(103), head(100)], [head(103)]))
    return Plan([*first, *framed(scene.rng, reply)], reply, statuses=(reply.status,))


@fault(1)
def huge_head(scene: Scene) -> Plan:
    reply = live_reply(scene)
    padding = [f"X-Padding-{n}: {'x' * 1000}" for n in range(400)]
    top = head(reply.status, *padding, f"Content-Length: {len(reply.body)}")
    return Plan([top + reply.body], statuses=(reply.status,), end="fin")


@fault(3)
def garbage(scene: Scene) -> Plan:
    """No HTTP at all, or the body alone as HTTP/0.9 had it."""
    reply = live_reply(scene)
    other = (reply.body, b"220 ready\r\n", b"\x00" * 64, b"HTTP/3.0 200 OK\r\n\r\n")
    return cut_off(scene, [scene.rng.choice(other)], 200)


@fault(6)
def bad_framing(scene: Scene) -> Plan:
    """Not exactly one framing header: where the answer ends is anyone's guess."""
    reply = live_reply(scene)
    length = len(reply.body)
    headers = scene.rng.choice(
        (
            (f"Content-Length: {length}", f"Content-Length: {length - 1}"),
            (f"Content-Length: {length + 9}", f"Content-Length: {length}"),
            (f"Content-Length: {length}", "Transfer-Encoding: chunked"),
            ("Transfer-Encoding: chunked", f"Content-Length: {length}"),
            ("Content-Length: -1",),
            (),
        )
    )
    body = reply.body
    if any("chunked" in header for header in headers):
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (length, body)
    return cut_off(scene, [head(reply.status, *headers), body], reply.status)


# --- status --------------------------------------------------------------------


@fault(8)
def refusal(scene: Scene) -> Plan:
    """A certain no, under a status that may not fit."""
    code = scene.rng.choice((4000, 4010, 4106, 4400, 4404, 4405, 4406, 5002, 5002))
    return say(scene, error_reply(scene.rng.choice((400, 400, 401, 422, 503)), code))


@fault(6)
def stumble(scene: Scene) -> Plan:
    """The server fails half way; some orders may be gone."""
    scene.cancel_perhaps()
    replies = (
        error_reply(400, 5000, "Internal Server Error"),
        error_reply(500, 5000, "Internal Server Error"),
        error_reply(503, 5001),
        text_reply(500, b"oops"),
        text_reply(502, b""),
        text_reply(408, b""),
    )
    return say(scene, scene.rng.choice(replies))


@fault(5)
def rate_limit(scene: Scene) -> Plan:
    """Over the limit; without a date it costs the client's two seconds."""
    at_once = "Retry-After: 0"
    replies = (
        text_reply(429, b"slow down", at_once),
        text_reply(429, b""),
        error_reply(429, 4290),
        Reply(400, b'{"error":"slow","code":4290}', "later", 4290, headers=(at_once,)),
    )
    return say(scene, scene.rng.choice(replies))


@fault(6)
def gateway(scene: Scene) -> Plan:
    """The gateway answers in the place of the exchange."""
    replies = (
        text_reply(503, ENVOY),
        text_reply(403, b""),
        text_reply(404, b"404 page not found"),
        text_reply(401, b""),
        text_reply(504, b"<html>gateway time-out</html>"),
    )
    return say(scene, scene.rng.choice(replies))


@fault(2)
def redirect(scene: Scene) -> Plan:
    status = scene.rng.choice((302, 307, 308))
    return say(scene, text_reply(status, b"", "Location: /order/cancel-all"))


@fault(3)
def unlisted_code(scene: Scene) -> Plan:
    """A code that says nothing about a cancel of many."""
    scene.cancel_perhaps()
    code = scene.rng.choice((4050, 4201, 4300, 4402, 4999, 7, -1))
    return say(scene, error_reply(scene.rng.choice((400, 409)), code))


# --- body ----------------------------------------------------------------------


@fault(5)
def short_body(scene: Scene) -> Plan:
    """Shorter than announced; sometimes the JSON in it is complete."""
    reply = live_reply(scene)
    steps = by_length(reply, lie=scene.rng.choice((1, 5, 4096)))
    if scene.rng.random() < 0.5:
        steps = by_length(reply)
        steps[1] = steps[1][: scene.rng.randint(0, len(reply.body) - 1)]
    return cut_off(scene, steps, reply.status)


@fault(4)
def bad_chunk(scene: Scene) -> Plan:
    """The chunks end too early, or their sizes are not true."""
    reply = live_reply(scene)
    steps = by_chunks(scene.rng, reply)
    match scene.rng.randrange(4):
        case 0:
            steps.pop()
        case 1:
            steps[-1] = b"ZZ\r\n\r\n"
        case 2:
            steps[-2:] = [b"%x\r\n" % (len(reply.body) + 9), reply.body]
        case _:
            steps[-1] = b"0\r\n"
    return cut_off(scene, steps, reply.status)


@fault(1)
def body_drip(scene: Scene) -> Plan:
    reply = live_reply(scene)
    raw = b"".join(in_parts(scene.rng, reply))
    return Plan(_drip(raw, len(raw) - 12, 0.06), reply, statuses=(reply.status,))


@fault(1)
def huge_body(scene: Scene) -> Plan:
    """Promised JSON, but above the ceiling of 1 MiB: never to be believed."""
    ids = list(scene.cancel())
    body = {"symbol": scene.symbol, "order_ids": ids, "padding": "x" * HUGE}
    reply = Reply(200, json.dumps(body).encode(), "again")
    return Plan(framed(scene.rng, reply), statuses=(200,))


@fault(9)
def not_promised(scene: Scene) -> Plan:
    """A complete 2xx that does not hold the promised JSON."""
    scene.cancel_perhaps()
    status, body = scene.rng.choice(
        (
            (200, '{"symbol":"OTHER","order_ids":[]}'),
            (200, '{"symbol":"%s","order_ids":["a\\u0000b"]}'),
            (200, '{"symbol":"%s","order_ids":["a"]}{"symbol":"%s"}'),
            (200, '{"symbol":"%s","order_ids":["a"'),
            (200, '{"symbol":"%s","order_ids":[1]}'),
            (200, '{"symbol":"%s","order_ids":["a"],"code":4200}'),
            (200, '{"symbol":"%s","order_ids":["a"],"error":"no"}'),
            (200, "<html>welcome to the hotel</html>"),
            (200, '{"order_ids":null}'),
            (200, "{}"),
            (200, "[]"),
            (200, ""),
            (202, '{"symbol":"%s","order_ids":["a"]}'),
        )
    )
    return say(scene, Reply(status, body.replace("%s", scene.symbol).encode(), "odd"))


def _drip(raw: bytes, start: int, pause: float) -> Iterator[Step]:
    """The first bytes at once, then one at a time."""
    yield raw[:start]
    for n in range(start, len(raw)):
        yield pause
        yield raw[n : n + 1]


def _endless(line: bytes) -> Iterator[Step]:
    for _ in range(500):
        yield line
        yield 0.01
