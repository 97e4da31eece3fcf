"""The exchange of the soak: as fast as Python can, with a fault now and then.

A thread a connection, blocking: there are few connections, and a loop would cost more
than all the rest. ``python -m tests.soak.server CERT SEED`` prints its port, serves
until its standard input ends, then prints how often each fault was drawn, as JSON.
"""

from __future__ import annotations

import contextlib
import json
import random
import socket
import ssl
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable

FAULTY, WANTED, LATE = b"F", b"W-", b"L"
"""How the name of a symbol begins that may meet a fault; that meets the one named;
that is answered late, so that calls are under way together."""
SHARE = 0.01
"""Of those requests, how many meet one."""
POISON = "POISON"
"""An order id that no answer to a request has."""

LATENESS = 0.2  # seconds
HANG = 0.4  # seconds: longer than a first attempt lasts
PIECES = 3
LARGE = 1_200_000  # bytes: more than a client takes

Wire = ssl.SSLSocket
Fault = Callable[[Wire, bytes], bool]
"""Answers the request, or not; whether the connection goes on."""


def reply(body: bytes, status: str = "200 OK", more: str = "") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{more}\r\n"
    return head.encode() + body


def done(symbol: bytes) -> bytes:
    """A success that names the symbol in its order ids, too."""
    return reply(b'{"symbol":"%s","order_ids":["%s-1","%s-2"]}' % ((symbol,) * 3))


# ---- faults --------------------------------------------------------------------------


def reset(wire: Wire, symbol: bytes) -> bool:
    linger = struct.pack("ii", 1, 0)
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    return False


def end_unanswered(wire: Wire, symbol: bytes) -> bool:
    return False


def end_in_the_head(wire: Wire, symbol: bytes) -> bool:
    wire.sendall(done(symbol)[:30])
    return False


def end_in_the_body(wire: Wire, symbol: bytes) -> bool:
    wire.sendall(done(symbol)[:-7])
    return False


def end_after_the_answer(wire: Wire, symbol: bytes) -> bool:
    wire.sendall(done(symbol))
    return False


def say_goodbye(wire: Wire, symbol: bytes) -> bool:
    """The answer, and TLS's farewell."""
    wire.sendall(done(symbol))
    wire.settimeout(0.01)
    with contextlib.suppress(OSError):
        wire.unwrap()
    return False


def poison(wire: Wire, symbol: bytes) -> bool:
    """What nobody asked for, behind the answer and in the same TLS record.

    Sent later it could meet the next request on its way: then no client can tell.
    """
    wire.sendall(done(symbol) + reply(b'{"order_ids":["%s"]}' % POISON.encode()))
    return True


def no_length(wire: Wire, symbol: bytes) -> bool:
    wire.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + done(symbol))
    return False


def two_lengths(wire: Wire, symbol: bytes) -> bool:
    wire.sendall(reply(b"{}", more="Content-Length: 2\r\n"))
    return True


def not_http(wire: Wire, symbol: bytes) -> bool:
    wire.sendall(b"\0" * 64)
    return False


def not_json(wire: Wire, symbol: bytes) -> bool:
    wire.sendall(reply(b"<html>"))
    return True


def another_symbol(wire: Wire, symbol: bytes) -> bool:
    wire.sendall(done(b"OTHER"))
    return True


def gateway(wire: Wire, symbol: bytes) -> bool:
    wire.sendall(reply(b"no healthy upstream", "503 Service Unavailable"))
    return True


def server_error(wire: Wire, symbol: bytes) -> bool:
    wire.sendall(reply(b'{"error":"internal","code":5000}', "400 Bad Request"))
    return True


def rate_limit(wire: Wire, symbol: bytes) -> bool:
    body, more = b'{"error":"too many","code":4290}', "Retry-After: 0\r\n"
    wire.sendall(reply(body, "429 Too Many Requests", more))
    return True


def refusal(wire: Wire, symbol: bytes) -> bool:
    wire.sendall(reply(b'{"error":"nothing","code":4200}', "400 Bad Request"))
    return True


def drip(wire: Wire, symbol: bytes) -> bool:
    data = done(symbol)
    size = len(data) // PIECES + 1
    for start in range(0, len(data), size):
        wire.sendall(data[start : start + size])
        time.sleep(0.001)
    return True


def large(wire: Wire, symbol: bytes) -> bool:
    with contextlib.suppress(OSError):  # the client does not read it all
        wire.sendall(reply(b'"' + b"x" * LARGE + b'"'))
    return False


def hang(wire: Wire, symbol: bytes) -> bool:
    time.sleep(HANG)
    return False


def late(wire: Wire, symbol: bytes) -> bool:
    time.sleep(LATENESS)
    wire.sendall(done(symbol))
    return True


RARE: tuple[Fault, ...] = (hang, large)
"""These take long: drawn once where each other is drawn four times."""
FAULTS: tuple[Fault, ...] = (
    reset,
    end_unanswered,
    end_in_the_head,
    end_in_the_body,
    end_after_the_answer,
    say_goodbye,
    poison,
    no_length,
    two_lengths,
    not_http,
    not_json,
    another_symbol,
    gateway,
    server_error,
    rate_limit,
    refusal,
    drip,
) * 4 + RARE
BY_NAME = {fault.__name__: fault for fault in FAULTS}


# ---- serving -------------------------------------------------------------------------


class Server:
    """Dice and counts that all connections share."""

    def __init__(self, cert: str, seed: int) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(cert)
        self._dice = random.Random(seed)
        self._lock = threading.Lock()
        self.counts: Counter[str] = Counter()
        self.requests = 0

    def accept(self, listener: socket.socket) -> None:
        while True:
            sock, _ = listener.accept()
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError), sock:
            wire = self._context.wrap_socket(
                sock, server_side=True, suppress_ragged_eofs=True
            )
            with wire:
                while (symbol := read_symbol(wire)) and self._answer(wire, symbol):
                    pass

    def _answer(self, wire: Wire, symbol: bytes) -> bool:
        fault = self._draw(symbol)
        if fault is None:
            wire.sendall(done(symbol))
            return True
        return fault(wire, symbol)

    def _draw(self, symbol: bytes) -> Fault | None:
        if symbol.startswith(WANTED):
            return BY_NAME[symbol.removeprefix(WANTED).decode()]
        if symbol.startswith(LATE):
            return late
        with self._lock:
            self.requests += 1
            if not symbol.startswith(FAULTY) or self._dice.random() >= SHARE:
                return None
            fault = self._dice.choice(FAULTS)
            self.counts[fault.__name__] += 1
            return fault


def read_symbol(wire: Wire) -> bytes:
    """The symbol of the next request; empty at the end of the connection."""
    data = b""
    while b"}" not in data:  # the end of its body
        received = wire.recv(1 << 14)
        if not received:
            return b""
        data += received
    return data.rpartition(b'{"symbol":"')[2].partition(b'"')[0]


def main(cert: str, seed: str) -> None:
    server = Server(cert, int(seed))
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    threading.Thread(target=server.accept, args=(listener,), daemon=True).start()
    print(listener.getsockname()[1], flush=True)
    sys.stdin.read()
    print(json.dumps({"requests": server.requests, "faults": server.counts}))


if __name__ == "__main__":
    main(*sys.argv[1:])
