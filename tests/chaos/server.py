"""The hostile exchange: TLS on loopback, by hand, one asyncio loop.

TLS runs over memory buffers and the bytes go to the socket as the fault wants
them: half a handshake, two answers in one segment, an end of file without
close_notify. Every POST is written to the log, also one that is never answered
or arrives after the server has said its last word.

``python -m tests.chaos.server`` prints "PORT CONTROL_PORT" and serves until its
standard input ends. The control port speaks lines: ``idle NAME`` says that the
client of worker NAME stands still; the answer ``ok`` comes when everything that
was to happen to its idle connections has reached the client's kernel.
"""

from __future__ import annotations

import argparse
import array
import asyncio
import contextlib
import fcntl
import random
import re
import socket
import ssl
import struct
import sys
import termios
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from . import faults
from .faults import End, Idle, Plan, Raw, Scene, Step
from .records import Flag, Note, Post, dump

TARGET = b"POST /order/cancel-all HTTP/1.1"
NEEDED_HEADERS = (b"x-api-key", b"host", b"content-length")
LINGER = 20.0
"""Seconds after which a connection that the client has left open is dropped."""
SYMBOL = re.compile(rb'"symbol"\s*:\s*"([A-Za-z0-9._-]{1,64})"')
LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class Request:
    method: bytes
    symbol: str
    malformed: bool


def worker_of(symbol: str) -> str:
    """The worker who alone owns the client of a call, or "": ``C3.W07-001234``."""
    name = symbol.partition("-")[0]
    return name if ".W" in name else ""


def take_request(buffer: bytearray) -> Request | None:
    """Cut one complete request from the buffer's front, or leave it alone."""
    top, found, rest = bytes(buffer).partition(b"\r\n\r\n")
    if not found:
        return None
    length = LENGTH.search(top)
    size = int(length[1]) if length else 0
    if len(rest) < size:
        return None
    del buffer[: len(top) + 4 + size]
    return _read_request(top, rest[:size])


def _read_request(top: bytes, body: bytes) -> Request:
    line, *lines = top.split(b"\r\n")
    headers = Counter(header.partition(b":")[0].lower() for header in lines)
    method = line.partition(b" ")[0]
    symbol = SYMBOL.search(body)
    sound = (
        line == TARGET
        and all(headers[name] == 1 for name in NEEDED_HEADERS)
        and b"content-type: application/json" in top.lower()
        and symbol is not None
    )
    name = symbol[1].decode() if symbol else ""
    return Request(method, name, malformed=method == b"POST" and not sound)


class Server:
    """What all connections share: dice, open orders, certificate and log."""

    def __init__(self, seed: int, only: frozenset[str], cert: str, log: Path) -> None:
        self.seed = seed
        self.only = only
        self.contexts = (_tls(cert, "1.2"), _tls(cert, "1.3"))
        self.orders: dict[str, tuple[str, ...]] = {}
        self.deliveries: Counter[str] = Counter()
        self.connections: set[Connection] = set()
        self.accepted = 0
        self._log = log.open("w", buffering=1 << 16)

    def write(self, record: Post | Note) -> None:
        # Connections that end after close() have nothing left to tell.
        if not self._log.closed:
            self._log.write(dump(record))

    def close(self) -> None:
        for connection in list(self.connections):
            connection.write_down_unfinished()
        self._log.close()

    def scene(self, symbol: str) -> Scene:
        """The dice of a delivery: they depend on seed, symbol and count alone."""
        if symbol not in self.deliveries:
            self.orders[symbol] = faults.place_orders(self.seed, symbol)
        self.deliveries[symbol] += 1
        rng = random.Random(f"{self.seed}/{symbol}/{self.deliveries[symbol]}")
        return Scene(
            symbol,
            rng,
            self.orders,
            owned=bool(worker_of(symbol)),
            quoting=faults.draw_quoting(self.seed, symbol),
        )

    async def control(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Serve one worker's control connection."""
        with contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                await self._quiet_moment(line.split()[1].decode())
                writer.write(b"ok\n")
        writer.close()

    async def _quiet_moment(self, worker: str) -> None:
        for connection in list(self.connections):
            if connection.worker == worker:
                await connection.quiet_moment()


class Connection(asyncio.Protocol):
    """One TCP connection and everything that goes wrong on it."""

    def __init__(self, server: Server) -> None:
        self.server = server
        server.accepted += 1
        self.number = server.accepted
        self.rng = random.Random(f"{server.seed}/connection/{self.number}")
        self.fault = faults.draw_connection_fault(self.rng, server.only)
        self.worker = ""
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = self.rng.choices(server.contexts, (1, 3))[0]
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._established = False
        self._buffer = bytearray()
        self._first_byte = 0.0
        self._requests = 0
        self._post: Post | None = None  # being answered
        self._plan = Plan(())
        self._steps: Iterator[Step] = iter(())
        self._timer: asyncio.TimerHandle | None = None
        self._linger: asyncio.TimerHandle | None = None
        self._idle: Idle | None = None  # waits for the quiet moment
        self._over: End = "keep"  # how the server ended it
        self._flag: Flag = ""  # for the note that it is gone
        self._gone = False

    # --- transport -------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._loop = asyncio.get_running_loop()
        self.server.connections.add(self)
        port = transport.get_extra_info("peername")[1]
        self.note(f"accepted from port {port}", fault=self.fault)
        if self.fault == "accept_rst":
            self._end("rst")
        elif self.fault == "accept_fin":
            self._end("fin")
        elif self.fault == "plain_text":
            reply = faults.text_reply(400, b"plain HTTP was sent to the TLS port")
            self._transport.write(b"".join(faults.by_length(reply)))
            self._end("fin")

    def data_received(self, data: bytes) -> None:
        self._incoming.write(data)
        try:
            if not self._established:
                self._shake_hands()
            if self._established:
                self._read()
        except ssl.SSLError as error:
            self.note(f"TLS failed: {error.reason}")
            self._flush()
            self._transport.close()

    def eof_received(self) -> bool:
        self.note("the client sent FIN")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        if self._linger is not None:
            self._linger.cancel()
        self.server.connections.discard(self)
        self.write_down_unfinished()
        self._gone = True
        self.note(f"gone: {exc or 'closed'}", flag=self._flag)

    def _shake_hands(self) -> None:
        if self._over != "keep" or self.fault == "tls_hang":
            return
        with contextlib.suppress(ssl.SSLWantReadError):
            self._tls.do_handshake()
            self._established = True
        if self.fault == "tls_cut":
            flight = self._outgoing.read()
            self._transport.write(flight[: self.rng.randint(0, len(flight) - 1)])
            self._end("fin")
            return
        self._flush()
        if self._established:
            self.note(f"{self._tls.version()} stands")
            if self.fault == "tls_then_rst":
                self._end("rst", flag="blind")

    def _read(self) -> None:
        try:
            while True:
                if plain := self._tls.read(1 << 16):
                    self._first_byte = self._first_byte or time.monotonic()
                    self._buffer += plain
                    continue
                self.note("the client sent close_notify")
                return
        except ssl.SSLWantReadError:
            pass
        finally:
            self._serve()

    def _send(self, flight: list[bytes]) -> None:
        """Write the records of a flight with one send(2)."""
        data = b""
        for part in flight:
            if isinstance(part, Raw):
                data += part
            elif part:
                self._tls.write(part)
                data += self._outgoing.read()
        self._transport.write(data)

    def _flush(self) -> None:
        if data := self._outgoing.read():
            self._transport.write(data)

    # --- requests --------------------------------------------------------------

    def _serve(self) -> None:
        """Take the next request, unless the last one is still being answered."""
        while self._post is None and (request := take_request(self._buffer)):
            started = self._first_byte
            self._first_byte = time.monotonic() if self._buffer else 0.0
            self._requests += 1
            if request.malformed:
                self.note("malformed request", flag="malformed")
            if self._over != "keep":
                self._write_down(self._new_post(request.symbol, started, "after end"))
            elif request.method != b"POST":
                self._send([faults.head(200, "Content-Length: 0")])
            elif not request.malformed:
                self._answer(request.symbol, started)

    def _new_post(self, symbol: str, started: float, fault: str) -> Post:
        return Post(symbol, self.number, self._requests, started, fault, complete=True)

    def _answer(self, symbol: str, started: float) -> None:
        self._stop_timer()
        self._idle = None
        self.worker = worker_of(symbol)
        scene = self.server.scene(symbol)
        name, plan = self._draw_plan(scene)
        self._post = replace(
            self._new_post(symbol, started, name),
            carried=scene.carried,
            statuses=plan.statuses,
        )
        self._plan = plan
        self._steps = iter(plan.steps)
        self._advance()

    def _draw_plan(self, scene: Scene) -> tuple[str, Plan]:
        """The name of the fault, "" for none, and what it does to this request."""
        if self.fault != "swallow_second":
            fault = faults.draw_request_fault(scene.rng, self.server.only)
            return fault.name, fault.make(scene)
        if self._requests == 1:
            return "", faults.no_fault(scene)
        ends: tuple[End, ...] = ("fin", "notify", "rst")
        return self.fault, faults.die(scene, self.rng.choice(ends))

    def _advance(self) -> None:
        """Go on with the plan; a client that has left ends it unfinished."""
        try:
            self._send_steps()
        except ssl.SSLError as error:
            self.note(f"TLS failed: {error.reason}")
            self._transport.close()

    def _send_steps(self) -> None:
        """Send until the plan pauses or ends."""
        flight: list[bytes] = []
        for step in self._steps:
            if isinstance(step, float):
                self._send(flight)
                self._timer = self._loop.call_later(step, self._advance)
                return
            flight.append(step)
        self._conclude(flight)

    def _conclude(self, flight: list[bytes]) -> None:
        """Send the last bytes of the plan, write the POST down, end or go on."""
        plan, post = self._plan, self._post
        assert post is not None
        idle = plan.idle
        extra = idle.extra if idle and idle.when == "flight" else b""
        self._send([*flight, extra])
        if plan.reply is not None:
            post = replace(
                post,
                whole=True,
                reading=plan.reply.reading,
                code=plan.reply.code,
                ids=plan.reply.ids,
                t_whole=time.monotonic(),
            )
        end = idle.end if idle and idle.when == "flight" else plan.end
        self._post = None
        self._write_down(replace(post, end=end))
        # Having read its answer the client may already send the next request.
        self._end(end, flag="blind" if idle else "")
        if idle and idle.when != "flight":
            self._wait_for_moment(idle)
        self._serve()

    def _write_down(self, post: Post) -> None:
        self.server.write(post)

    def write_down_unfinished(self) -> None:
        """Log the POST that is being answered and whatever came after it."""
        if self._post is not None:
            self._write_down(replace(self._post, end="gone"))
            self._post = None
        while request := take_request(self._buffer):
            self._requests += 1
            if request.method == b"POST":
                self._write_down(
                    self._new_post(request.symbol, self._first_byte, "unread")
                )
        if self._buffer:
            self._write_down_partial()

    def _write_down_partial(self) -> None:
        if symbol := SYMBOL.search(self._buffer):
            post = self._new_post(symbol[1].decode(), self._first_byte, "partial")
            self._write_down(replace(post, complete=False))
        elif not self._buffer.startswith(b"HEAD"):
            self.note("part of a request", flag="orphan", t=self._first_byte)
        self._buffer.clear()

    # --- endings and idle moments ------------------------------------------------

    def _end(self, end: End, flag: Flag = "") -> None:
        """End the connection; after FIN the server still reads, for the log.

        ``flag`` is "blind" where an RST may meet a request on its way.
        """
        if end == "keep" or self._over != "keep":
            return
        self._over = end
        if end == "rst":
            self._flag = flag
            self._reset()
            return
        if end == "notify":
            with contextlib.suppress(ssl.SSLError):
                self._tls.unwrap()
            self._flush()
        if end != "hold" and not self._transport.is_closing():
            with contextlib.suppress(OSError):  # the client was faster
                self._transport.write_eof()
        self._linger = self._loop.call_later(LINGER, self._transport.abort)

    def _reset(self) -> None:
        """RST instead of FIN: what is on its way is thrown away unread."""
        if self._transport.is_closing():
            return
        self.note("RST")
        sock = self._transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    def _wait_for_moment(self, idle: Idle) -> None:
        if idle.when == "quiet":
            self._idle = idle
        else:
            pause = self.rng.uniform(0.0, 0.03)
            self._timer = self._loop.call_later(pause, self._act_idle, idle)

    def _act_idle(self, idle: Idle) -> None:
        self.note(f"idle: {len(idle.extra)} unasked bytes, then {idle.end}")
        with contextlib.suppress(ssl.SSLError):  # the client has just left
            self._send([idle.extra])
        self._end(idle.end, flag="blind" if idle.when == "soon" else "")

    async def quiet_moment(self) -> None:
        """The client stands still: act, and wait for its kernel's ACK."""
        idle, self._idle = self._idle, None
        if idle is None or self._post or self._buffer or self._over != "keep":
            return
        self._act_idle(idle)
        while self._transport.is_closing() or self._unacknowledged():
            # The RST itself leaves one turn of the loop after connection_lost.
            await asyncio.sleep(0.001)
            if self._gone:
                return

    def _unacknowledged(self) -> int:
        """Bytes that the peer's kernel has not acknowledged (SIOCOUTQ)."""
        count = array.array("i", [0])
        sock = self._transport.get_extra_info("socket")
        with contextlib.suppress(OSError):
            fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, count)
        return count[0]

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def note(
        self, what: str, *, fault: str = "", flag: Flag = "", t: float = 0.0
    ) -> None:
        self.server.write(Note(self.number, t or time.monotonic(), what, fault, flag))


def _tls(cert: str, version: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert)
    if version == "1.2":
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context


async def _until_stdin_ends() -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    await reader.read()


async def serve(server: Server) -> None:
    """Print the two ports, then serve until the standard input ends."""
    loop = asyncio.get_running_loop()
    tls = await loop.create_server(
        lambda: Connection(server), "127.0.0.1", 0, backlog=512
    )
    control = await asyncio.start_server(server.control, "127.0.0.1", 0)
    ports = (listener.sockets[0].getsockname()[1] for listener in (tls, control))
    print(*ports, flush=True)
    await _until_stdin_ends()
    tls.close()
    server.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--only", default="")
    parser.add_argument("--cert", required=True)
    parser.add_argument("--log", type=Path, required=True)
    options = parser.parse_args()
    only = frozenset(filter(None, options.only.split(",")))
    asyncio.run(serve(Server(options.seed, only, options.cert, options.log)))


if __name__ == "__main__":
    main()
