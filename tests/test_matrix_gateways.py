"""Calls through nginx and HAProxy: see tests/matrix/gateways.py and servers.py."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator

import pytest

from espresso.sandbox import Exchange
from tests.matrix import servers
from tests.matrix.gateways import FACES_OF, ROWS
from tests.matrix.runner import Found, rows_of_tests

LACKING = servers.why_not()
pytestmark = pytest.mark.slow
needs_servers = pytest.mark.skipif(bool(LACKING), reason=LACKING)
PAIRS = [(row, face) for row in ROWS for face in FACES_OF[row]]
AT_ONCE = 10


@pytest.fixture(scope="module")
def found(request: pytest.FixtureRequest) -> Iterator[Found]:
    yield from rows_of_tests(request, ROWS, AT_ONCE)


@needs_servers
@pytest.mark.parametrize(("row", "face"), PAIRS)
def test_row(row: str, face: str, found: Found) -> None:
    assert found[row, face].result() == []


def test_each_row_is_there() -> None:
    kinds = ["nginx", "haproxy", "haproxy with 408", "like envoy"]
    ways = [
        "200 calls around its idle time-out",
        "closes while a call waits",
        "the exchange is down",
        "the exchange comes back",
    ]
    assert list(ROWS) == [f"{kind}: {way}" for kind in kinds for way in ways]


def answer_to(gateway: servers.Gateway, *requests: bytes) -> list[bytes]:
    """The status line of what comes after each request; b"": the end."""
    host, _, port = gateway.url.removeprefix("https://").partition(":")
    context = ssl.create_default_context(cafile=gateway.ca_file)
    with (
        socket.create_connection((host, int(port)), 10) as plain,
        context.wrap_socket(plain, server_hostname=host) as sock,
    ):
        answers = []
        for request in requests:
            sock.sendall(request)
            answers.append(sock.recv(65536).partition(b"\r\n")[0])
        return answers


ASKED = b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n"
FOUND, LATE = b"HTTP/1.1 404 Not Found", b"HTTP/1.1 408 Request Time-out"


@needs_servers
@pytest.mark.parametrize("kind", ["nginx", "haproxy", "haproxy with 408", "like envoy"])
def test_what_it_does_to_an_idle_connection(kind: str, exchange: Exchange) -> None:
    """Closes it without a word; 408 is for those who never asked."""
    port = int(exchange.url.rpartition(":")[2])
    with servers.running(kind, port) as gateway:
        assert answer_to(gateway, ASKED, b"") == [FOUND, b""]
        if kind == "haproxy with 408":
            assert answer_to(gateway, b"") == [LATE]
            assert answer_to(gateway, ASKED, b"HEA") == [FOUND, LATE]
