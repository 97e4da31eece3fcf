"""An exchange whose host does not answer a connect, and then does.

libcurl closes a socket that never got its connection without telling: the core must
neither go on watching its number nor count it as open.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

import espresso
from espresso.sandbox import Exchange

pytestmark = pytest.mark.alone

KEY = "sandbox-unreachable"
PRESSES = 40


class Unanswering:
    """A port where connects hang: the queue of its listener is full."""

    def __init__(self) -> None:
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(0)
        self.port: int = self._listener.getsockname()[1]
        self._queue = [socket.socket() for _ in range(4)]
        for waiting in self._queue:
            waiting.setblocking(False)
            waiting.connect_ex(("127.0.0.1", self.port))

    def close(self) -> None:
        for open_socket in (self._listener, *self._queue):
            open_socket.close()


@pytest.fixture
def unanswering() -> Iterator[Unanswering]:
    with contextlib.closing(Unanswering()) as port:
        yield port


def test_the_loop_outlives_connects_that_hang(
    unanswering: Unanswering, exchange: Exchange
) -> None:
    """Each press ends with its own error, and the next one goes through."""

    async def press_all() -> None:
        client = espresso.AsyncClient(
            KEY,
            base_url=f"https://127.0.0.1:{unanswering.port}",
            ca_file=exchange.ca_file,
            connect_timeout=0.05,
            max_retries=1,
        )
        calls = (client.cancel_all("ADAUSDM", timeout=0.5) for _ in range(PRESSES))
        errors = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(error) for error in errors} <= {
            espresso.ConnectError,
            espresso.RequestTimeoutError,
        }
        await client.aclose()

    asyncio.run(press_all())


def test_a_call_connects_when_the_host_is_back(
    unanswering: Unanswering, exchange: Exchange
) -> None:
    """However many connects have hung before: the ninth failed at once, once."""
    hung = []

    def on_event(event: espresso.Event) -> None:
        hung.append(event.outcome)
        if len(hung) == 9:
            unanswering.close()
            _forward(unanswering.port, urlsplit(exchange.url).port or 0)

    with espresso.Client(
        exchange.key,
        base_url=f"https://127.0.0.1:{unanswering.port}",
        ca_file=exchange.ca_file,
        connect_timeout=0.05,
        max_retries=12,
        on_event=on_event,
    ) as client:
        result = client.cancel_all("ADAUSDM", missing_ok=True, timeout=30)
    assert result == {"symbol": "ADAUSDM", "order_ids": []}
    assert hung == ["not_sent"] * 9 + ["done"]


def _forward(port: int, to: int) -> None:
    """Serve one connection of `port` by what listens on `to`."""
    listener = socket.create_server(("127.0.0.1", port))

    def serve() -> None:
        with (
            listener,
            listener.accept()[0] as near,
            socket.create_connection(("127.0.0.1", to)) as far,
        ):
            back = threading.Thread(target=_pump, args=(far, near))
            back.start()
            _pump(near, far)
            back.join()

    threading.Thread(target=serve, daemon=True).start()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
