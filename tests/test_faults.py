"""The fault matrix: what can go wrong, and in which phase, and what a call says then.

Each row names the exception, the outcome, the attempts, and how many POSTs the
server saw. Rows that a deadline ends take a third of a second; none takes more.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

import espresso
from espresso.sandbox import Exchange
from tests import children
from tests.names import KnownNames
from tests.obstacles import HUNG_NAME, Gate, HungNames
from tests.rawserver import DONE, IDS, KEY, SYMBOL, RawServer, Wire, answering, http

RESULT = {"symbol": SYMBOL, "order_ids": IDS}
LOST_REPLY = {**RESULT, "lost_reply": True}
ANSWER = http(DONE)
HEAD, BODY = ANSWER.split(b"\r\n\r\n")
HEAD += b"\r\n\r\n"
SHORT = 0.3  # seconds, where the deadline is what ends the call
SLACK = 1.0  # seconds over the deadline, on a machine that is busy

needs_preload = pytest.mark.skipif(
    not KnownNames.supported, reason="needs LD_PRELOAD to answer name look-ups"
)


@dataclass(frozen=True)
class Row:
    """One fault that strikes every connection or request.

    With `retried`, the same fault is met again with one retry allowed.
    """

    script: Callable[[Wire], object]
    kind: type[espresso.EspressoError]
    outcome: str
    posts: int = 1
    retried: bool = True
    tls: bool = True
    options: dict[str, Any] = field(default_factory=dict)


def lost(script: Callable[[Wire], object]) -> Row:
    return Row(script, espresso.ConnectionLostError, "unknown")


def odd(script: Callable[[Wire], object]) -> Row:
    return Row(script, espresso.ResponseError, "unknown")


def late(script: Callable[[Wire], object]) -> Row:
    # No second attempt fits into what is left.
    return Row(
        script,
        espresso.RequestTimeoutError,
        "unknown",
        retried=False,
        options={"timeout": SHORT},
    )


def unreached(script: Callable[[Wire], object]) -> Row:
    """Before TLS stands, hence in the clear."""
    return Row(script, espresso.ConnectError, "not_sent", posts=0, tls=False)


def after(data: bytes, end: str) -> Callable[[Wire], None]:
    """Read the request, send these bytes, then end the connection so."""

    def script(wire: Wire) -> None:
        wire.read_request()
        if data:
            wire.send(data)
        getattr(wire, end)()
        if end == "close_notify":
            wire.hold()

    return script


def ended(end: str) -> Callable[[Wire], None]:
    """End the connection before a request is read."""
    return lambda wire: getattr(wire, end)()


def cut_short(wire: Wire) -> None:
    """Read a part of the request, then reset."""
    wire.sock.recv(20)
    wire.reset()


def drip(start: bytes, rest: bytes) -> Callable[[Wire], None]:
    def script(wire: Wire) -> None:
        wire.answer(start)
        for byte in rest:
            wire.send(bytes([byte]))
            time.sleep(0.05)
        wire.hold()

    return script


def for_ever(start: bytes, more: bytes) -> Callable[[Wire], None]:
    def script(wire: Wire) -> None:
        wire.answer(start)
        while True:
            wire.send(more)
            time.sleep(0.01)

    return script


CHUNKED = HEAD.replace(b"Content-Length: 46", b"Transfer-Encoding: chunked")
UNSIZED = HEAD.replace(b"Content-Length: 46\r\n", b"")
assert CHUNKED != HEAD != UNSIZED

MATRIX = {
    "connect: accepted, then RST": unreached(ended("reset")),
    "connect: accepted, then FIN": unreached(ended("fin")),
    "TLS: plain text": unreached(lambda wire: wire.send(ANSWER)),
    "TLS: garbage": unreached(lambda wire: wire.send(b"\x16\x03\x01\xff" * 9)),
    "TLS: hang": replace(late(Wire.hold), outcome="not_sent", posts=0, tls=False),
    "send: RST before a byte is read": replace(lost(ended("reset")), posts=0),
    "send: RST in the middle": replace(lost(cut_short), posts=0),
    "wait: FIN": lost(after(b"", "fin")),
    "wait: close_notify": lost(after(b"", "close_notify")),
    "wait: RST": lost(after(b"", "reset")),
    "wait: silence": late(after(b"", "hold")),
    "headers: partial status line, FIN": lost(after(HEAD[:9], "fin")),
    "headers: partial status line, RST": lost(after(HEAD[:9], "reset")),
    "headers: partial status line, silence": late(after(HEAD[:9], "hold")),
    "headers: partial block, FIN": odd(after(HEAD[:40], "fin")),
    "headers: partial block, close_notify": odd(after(HEAD[:40], "close_notify")),
    "headers: all but the empty line, FIN": lost(after(HEAD[:-2], "fin")),
    "headers: partial block, RST": lost(after(HEAD[:40], "reset")),
    "headers: partial block, silence": late(after(HEAD[:40], "hold")),
    "headers: drip": late(drip(b"", HEAD)),
    "headers: endless": odd(for_ever(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 2000)),
    "headers: endless 1xx": late(for_ever(b"", b"HTTP/1.1 100 Continue\r\n\r\n")),
    "headers: garbage": odd(after(b"\x00\x01garbage\r\n\r\n", "fin")),
    "headers: HTTP/0.9": odd(after(DONE, "fin")),
    "body: none, FIN": lost(after(HEAD, "fin")),
    "body: none, RST": lost(after(HEAD, "reset")),
    "body: cut, FIN": lost(after(ANSWER[:-1], "fin")),
    "body: cut, close_notify": lost(after(ANSWER[:-1], "close_notify")),
    "body: cut, RST": lost(after(ANSWER[:-1], "reset")),
    "body: none, silence": late(after(HEAD, "hold")),
    "body: cut, silence": late(after(ANSWER[:-1], "hold")),
    "body: drip": late(drip(HEAD, BODY)),
    "body: chunk cut": lost(after(CHUNKED + b"2e\r\n" + DONE[:9], "fin")),
    "body: last chunk missing, FIN": lost(
        after(CHUNKED + b"2e\r\n" + DONE + b"\r\n", "fin")
    ),
    "body: last chunk missing, close_notify": lost(
        after(CHUNKED + b"2e\r\n" + DONE + b"\r\n", "close_notify")
    ),
    "body: last chunk missing, silence": late(
        after(CHUNKED + b"2e\r\n" + DONE + b"\r\n", "hold")
    ),
    "body: bad chunk": lost(after(CHUNKED + b"zz\r\n" + DONE, "hold")),
    "body: endless chunks": Row(
        for_ever(CHUNKED, b"10000\r\n" + b" " * 65536 + b"\r\n"),
        espresso.ResponseError,
        "unknown",
        retried=False,
    ),
    "body: close-delimited, FIN": odd(after(UNSIZED + DONE, "fin")),
    "body: close-delimited, close_notify": odd(after(UNSIZED + DONE, "close_notify")),
    "body: close-delimited and cut": odd(after(UNSIZED + DONE[:20], "close_notify")),
}


@pytest.mark.parametrize("row", MATRIX.values(), ids=MATRIX)
def test_one_attempt(row: Row) -> None:
    with RawServer(row.script, tls=row.tls) as server:
        error = failing(server, row, 0)
        assert error.attempts == 1
        assert len(server.posts) == row.posts


RETRIED = {name: row for name, row in MATRIX.items() if row.retried}


@pytest.mark.parametrize("row", RETRIED.values(), ids=RETRIED)
def test_two_attempts(row: Row) -> None:
    with RawServer(row.script, tls=row.tls) as server:
        error = failing(server, row, 1)
        assert error.attempts == 2
        assert len(server.posts) == 2 * row.posts
        assert server.connections == 2, "each on a fresh connection"


NOT_RETRIED = {name: row for name, row in MATRIX.items() if not row.retried}


@pytest.mark.parametrize("row", NOT_RETRIED.values(), ids=NOT_RETRIED)
def test_not_tried_again(row: Row) -> None:
    options = {"attempt_timeout": SHORT - 0.05}  # so that 0.1 s are not left
    with RawServer(row.script, tls=row.tls) as server:
        error = failing(server, row, 5, **options)
        assert error.attempts == 1


# One server speaks TLS on all its connections or on none.
OVER_TLS = {name: row for name, row in RETRIED.items() if row.tls}


@pytest.mark.parametrize("row", OVER_TLS.values(), ids=OVER_TLS)
def test_the_next_attempt_finds_the_answer(row: Row) -> None:
    """And the result says that a reply was lost, if one may have been."""
    expected = LOST_REPLY if row.outcome == "unknown" else RESULT
    with RawServer(row.script, answering(ANSWER)) as server:
        with server.client(max_retries=1) as client:
            assert client.cancel_all(SYMBOL) == expected
            # The connection that stands is the second one.
            assert client.cancel_all(SYMBOL) == RESULT
        assert server.connections == 2


def failing(
    server: RawServer, row: Row, retries: int, **options: Any
) -> espresso.EspressoError:
    url = f"https://127.0.0.1:{server.port}"
    options = {"base_url": url, "max_retries": retries} | row.options | options
    with server.client(**options) as client:
        begun = time.monotonic()
        with pytest.raises(espresso.EspressoError) as caught:
            client.cancel_all(SYMBOL)
        took = time.monotonic() - begun
        limit = client.timeout
    error = caught.value
    assert type(error) is row.kind, repr(error)
    assert error.outcome == row.outcome
    assert error.symbol == SYMBOL
    assert error.order_ids == []
    assert error.code is None
    assert took < limit + SLACK
    assert abs(error.elapsed - took) < SLACK
    assert KEY not in repr(vars(error))
    return error


# --- before a connection stands --------------------------------------------------


def refused_port() -> int:
    """A port that nobody listens on: bound, so that nobody else can."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    _held.append(sock)
    port: int = sock.getsockname()[1]
    return port


_held: list[socket.socket] = []


@pytest.fixture(autouse=True)
def ports() -> Iterator[None]:
    yield
    while _held:
        _held.pop().close()


def raising(client: espresso.Client, **options: Any) -> espresso.EspressoError:
    with client, pytest.raises(espresso.EspressoError) as caught:
        client.cancel_all(SYMBOL, **options)
    return caught.value


@pytest.mark.parametrize("retries", [0, 2])
def test_refused(exchange: Exchange, retries: int) -> None:
    url = f"https://127.0.0.1:{refused_port()}"
    client = espresso.Client(KEY, base_url=url, ca_file=exchange.ca_file)
    error = raising(client, max_retries=retries)
    assert type(error) is espresso.ConnectError
    assert (error.outcome, error.attempts) == ("not_sent", retries + 1)
    assert error.retryable


def test_blackhole(exchange: Exchange) -> None:
    """A full queue: the SYN is never answered."""
    with Gate(exchange.url, full=True) as gate:
        client = espresso.Client(
            KEY,
            base_url=gate.url,
            ca_file=exchange.ca_file,
            connect_timeout=0.2,
            max_retries=1,
            timeout=5,
        )
        error = raising(client)
    assert type(error) is espresso.RequestTimeoutError
    assert (error.outcome, error.attempts) == ("not_sent", 2)
    assert error.elapsed < 2
    assert exchange.requests == []


@pytest.mark.parametrize("phase", ["connect", "TLS"])
def test_connect_timeout_bounds_an_attempt(exchange: Exchange, phase: str) -> None:
    with Gate(exchange.url, full=phase == "connect") as gate:
        client = espresso.Client(
            KEY,
            base_url=gate.url,
            ca_file=exchange.ca_file,
            connect_timeout=0.15,
            max_retries=0,
        )
        error = raising(client)
    assert type(error) is espresso.RequestTimeoutError
    assert error.outcome == "not_sent"
    assert 0.1 < error.elapsed < 0.15 + SLACK


def test_the_first_attempt_gets_two_fifths(exchange: Exchange) -> None:
    exchange.fault("hang", times=None)
    client = espresso.Client(
        exchange.key, base_url=exchange.url, ca_file=exchange.ca_file, timeout=0.7
    )
    error = raising(client, max_retries=1)
    first, second = exchange.calls
    assert (error.outcome, error.attempts) == ("unknown", 2)
    # 0.28 s, a back-off of at most 0.1 s, then the rest.
    assert 0.25 < second.time - first.time < 0.7
    assert 0.6 < error.elapsed < 0.7 + SLACK


def test_attempt_timeout_bounds_each_attempt(exchange: Exchange) -> None:
    exchange.fault("hang", times=None)
    client = espresso.Client(
        exchange.key,
        base_url=exchange.url,
        ca_file=exchange.ca_file,
        attempt_timeout=0.15,
    )
    error = raising(client, max_retries=1)
    assert (error.outcome, error.attempts, len(exchange.calls)) == ("unknown", 2, 2)
    assert error.elapsed < 0.15 + 0.1 + 0.15 + SLACK


def test_old_tls() -> None:
    """A server that can do nothing newer than TLS 1.1."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that is the point
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with (
        RawServer(answering(ANSWER)) as trusted,
        RawServer(answering(ANSWER), context=context) as server,
    ):
        trusted.authority.issue_cert("127.0.0.1").configure_cert(context)
        assert speaks_old_tls(server.port), "the server must be able to"
        error = raising(server.client(ca_file=trusted.ca_file))
        assert type(error) is espresso.ConnectError
        assert (error.outcome, error.retryable) == ("not_sent", True)
        assert server.posts == []


def speaks_old_tls(port: int) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with (
        socket.create_connection(("127.0.0.1", port), 5) as plain,
        context.wrap_socket(plain) as sock,
    ):
        return sock.version() == "TLSv1.1"


# --- names -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> KnownNames:
    return KnownNames(tmp_path_factory.mktemp("names"))


BY_NAME = """
import os
from urllib.parse import urlsplit
port = urlsplit(os.environ["TEST_URL"]).port
client = connect(base_url=f"https://{sys.argv[1]}:{port}", timeout=float(sys.argv[2]))
try:
    print("result", client.cancel_all("ADAUSDM", missing_ok=True, max_retries=1))
except espresso.EspressoError as error:
    print(type(error).__name__, error.outcome, error.attempts, error.elapsed < 1.5)
"""


def by_name(env: dict[str, str], exchange: Exchange, name: str, timeout: float) -> str:
    program = children.PRELUDE + BY_NAME
    env = children.environment(env, exchange)
    return children.run(program, env, name, str(timeout)).check().out.strip()


@needs_preload
def test_a_name_that_is_not_found(
    exchange: Exchange, names: KnownNames, clean_env: dict[str, str]
) -> None:
    said = by_name(clean_env | names.env({}), exchange, "exchange.test", 5)
    assert said == "ConnectError not_sent 2 True"


@needs_preload
def test_a_name_that_leads_to_another_host(
    exchange: Exchange, names: KnownNames, clean_env: dict[str, str]
) -> None:
    env = clean_env | names.env({"exchange.test": ["127.0.0.1"]})
    said = by_name(env, exchange, "exchange.test", 5)
    assert said == "CertificateError not_sent 1 True"
    assert exchange.requests == []


@needs_preload
def test_the_first_of_two_addresses_is_dead(
    exchange: Exchange, names: KnownNames, clean_env: dict[str, str]
) -> None:
    """127.0.0.9 is loopback, too, and nobody listens there."""
    with RawServer(answering(ANSWER), hosts=("exchange.test",)) as server:
        env = clean_env | names.env({"exchange.test": ["127.0.0.9", "127.0.0.1"]})
        env = children.environment(env, exchange)
        env |= {"TEST_URL": server.url, "TEST_CA": server.ca_file}
        program = children.PRELUDE + BY_NAME
        said = children.run(program, env, "exchange.test", "5").check().out.strip()
        assert said == f"result {RESULT}"
        assert len(server.posts) == 1


@needs_preload
def test_a_look_up_that_hangs(
    exchange: Exchange, clean_env: dict[str, str], tmp_path: Path
) -> None:
    hung = HungNames(tmp_path)
    try:
        said = by_name(clean_env | hung.env, exchange, HUNG_NAME, 0.4)
    finally:
        hung.open()
    kind, outcome, _, in_time = said.split()
    assert (kind, outcome, in_time) == ("RequestTimeoutError", "not_sent", "True")
    assert exchange.requests == []


# --- an idle connection ----------------------------------------------------------


def idle(
    act: Callable[[Wire], object],
) -> tuple[Callable[[Wire], None], threading.Event]:
    """Answer one call, then do that; the event says that it is done."""
    done = threading.Event()

    def script(wire: Wire) -> None:
        wire.answer(ANSWER)
        act(wire)
        # What went out last is on loopback: it arrives within this time.
        time.sleep(0.02)
        done.set()
        with contextlib.suppress(OSError, ValueError):
            wire.hold()

    return script, done


POISON = http(b'{"symbol":"ADAUSDM","order_ids":["poison"]}')
TIMEOUT_408 = http(b"", 408, "Connection: close")

IDLE = {
    "FIN": lambda wire: wire.fin(),
    "RST": lambda wire: wire.reset(),
    "close_notify": lambda wire: wire.close_notify(),
    "408": lambda wire: wire.send(TIMEOUT_408),
    "408 and FIN": lambda wire: (wire.send(TIMEOUT_408), wire.fin()),
    "an answer nobody asked for": lambda wire: wire.send(POISON),
    "two answers": lambda wire: wire.send(POISON + POISON),
    "one byte": lambda wire: wire.send(b"H"),
    "half of an answer": lambda wire: wire.send(POISON[:30]),
    "100 Continue": lambda wire: wire.send(b"HTTP/1.1 100 Continue\r\n\r\n"),
}


ON_BOTH = [(name, tls) for name in IDLE for tls in (True, False)]
ON_BOTH.remove(("close_notify", False))  # a thing of TLS


@pytest.mark.parametrize(("name", "tls"), ON_BOTH)
def test_what_happened_to_an_idle_connection(name: str, tls: bool) -> None:
    """Nothing was sent: the same attempt goes on, on a fresh connection."""
    act = IDLE[name]
    script, done = idle(act)
    with RawServer(script, answering(ANSWER), tls=tls) as server:
        with server.client(max_retries=0) as client:
            assert client.cancel_all(SYMBOL) == RESULT
            assert done.wait(5)
            assert client.cancel_all(SYMBOL) == RESULT
            assert client.cancel_all(SYMBOL) == RESULT
        assert server.post_connections == [0, 1, 1]


@pytest.mark.parametrize("end", ["fin", "reset", "close_notify"])
def test_a_kept_connection_that_dies_with_the_request(end: str) -> None:
    """libcurl alone would send the POST again, and say nothing."""

    def script(wire: Wire) -> None:
        wire.answer(ANSWER)
        wire.read_request()
        getattr(wire, end)()

    with RawServer(script, answering(ANSWER)) as server:
        with server.client() as client:
            client.cancel_all(SYMBOL)
            error = raising(client)
        assert type(error) is espresso.ConnectionLostError
        assert (error.outcome, error.attempts, error.retryable) == ("unknown", 1, True)
        assert server.post_connections == [0, 0]


@pytest.mark.parametrize("end", ["fin", "reset", "close_notify"])
def test_and_a_second_attempt_is_counted(end: str) -> None:
    def script(wire: Wire) -> None:
        wire.answer(ANSWER)
        wire.read_request()
        getattr(wire, end)()

    with RawServer(script, answering(ANSWER)) as server:
        with server.client(max_retries=1) as client:
            client.cancel_all(SYMBOL)
            assert client.cancel_all(SYMBOL) == LOST_REPLY
        first, second, third = server.post_connections
        assert first == second != third


def test_a_late_answer_is_not_the_next_calls() -> None:
    given_up = threading.Event()

    def script(wire: Wire) -> None:
        wire.read_request()
        wire.wait_for(given_up)
        wire.send(POISON)
        wire.hold()

    with RawServer(script, answering(ANSWER)) as server:
        with server.client() as client:
            with pytest.raises(espresso.RequestTimeoutError) as caught:
                client.cancel_all(SYMBOL, timeout=SHORT)
            assert caught.value.outcome == "unknown"
            given_up.set()
            assert client.cancel_all(SYMBOL) == RESULT
        assert server.post_connections == [0, 1]


def test_bytes_after_the_answer() -> None:
    with RawServer(answering(ANSWER + POISON), answering(ANSWER)) as server:
        with server.client() as client:
            assert client.cancel_all(SYMBOL) == RESULT
            assert client.cancel_all(SYMBOL) == RESULT
        assert server.post_connections == [0, 1]


def test_bytes_in_one_record_with_the_answers_end() -> None:
    """They lie decrypted in the TLS library, while the socket is silent."""

    def script(wire: Wire) -> None:
        wire.read_request()
        wire.send(ANSWER[:-9])
        time.sleep(0.1)  # so that the rest is read by its length, and no further
        wire.send(ANSWER[-9:] + POISON)
        wire.hold()

    with RawServer(script, answering(ANSWER)) as server:
        with server.client() as client:
            assert client.cancel_all(SYMBOL) == RESULT
            assert client.cancel_all(SYMBOL) == RESULT
        assert server.post_connections == [0, 1]


# --- the sandbox's faults, and how often a call tries ----------------------------


@dataclass(frozen=True)
class Policy:
    """A fault of the sandbox that strikes `times` times, on a default policy."""

    fault: str
    times: int
    attempts: int
    posts: int
    kind: type[espresso.EspressoError] | None = None
    outcome: str = ""
    params: dict[str, Any] = field(default_factory=dict)


POLICIES = [
    Policy("connect_reset", 2, 3, 1),
    Policy("connect_reset", 3, 3, 0, espresso.ConnectError, "not_sent"),
    Policy("reset", 2, 3, 3),
    Policy("reset", 3, 3, 3, espresso.ConnectionLostError, "unknown"),
    Policy("reset_after_read", 3, 3, 3, espresso.ConnectionLostError, "unknown"),
    Policy("truncate", 3, 3, 3, espresso.ConnectionLostError, "unknown"),
    Policy("envoy_503", 2, 3, 3),
    Policy("envoy_503", 3, 3, 3, espresso.UnavailableError, "unknown"),
    Policy("5000_as_400", 3, 3, 3, espresso.ServerError, "unknown"),
    Policy("locked_5002", 2, 3, 3),
    Policy("locked_5002", 3, 3, 3, espresso.TradingLockedError, "rejected"),
    Policy("4200_as_400", 1, 1, 1, espresso.OrderNotFoundError, "rejected"),
    Policy("403_empty", 1, 1, 1, espresso.PermissionDeniedError, "rejected"),
    Policy("404_text", 1, 1, 1, espresso.APIError, "rejected"),
    Policy("html_200", 1, 1, 1, espresso.ResponseError, "unknown"),
    Policy("expired_certificate", 1, 1, 0, espresso.CertificateError, "not_sent"),
    Policy("wrong_host_certificate", 1, 1, 0, espresso.CertificateError, "not_sent"),
    Policy("unknown_ca_certificate", 1, 1, 0, espresso.CertificateError, "not_sent"),
]


@pytest.mark.parametrize("row", POLICIES, ids=lambda row: f"{row.times}x{row.fault}")
def test_policy(exchange: Exchange, row: Policy) -> None:
    ids = exchange.place(SYMBOL, 1)
    exchange.fault(row.fault, times=row.times, **row.params)
    events: list[espresso.Event] = []
    with espresso.Client(
        exchange.key,
        base_url=exchange.url,
        ca_file=exchange.ca_file,
        timeout=5,
        on_event=events.append,
    ) as client:
        if row.kind is None:
            assert client.cancel_all(SYMBOL)["order_ids"] == ids
        else:
            with pytest.raises(row.kind) as caught:
                client.cancel_all(SYMBOL)
            error = caught.value
            assert type(error) is row.kind
            assert (error.outcome, error.attempts) == (row.outcome, row.attempts)
            assert error.retryable is (row.attempts > 1)
            assert f"attempt {row.attempts} of 3" in str(error)
    assert [event.attempt for event in events] == list(range(1, row.attempts + 1))
    assert len(exchange.calls) == row.posts


def test_no_attempt_without_time_for_it(exchange: Exchange) -> None:
    """An attempt needs 0.1 s: the last error is raised instead, at once."""
    exchange.fault("envoy_503", times=None)
    with espresso.Client(
        exchange.key, base_url=exchange.url, ca_file=exchange.ca_file, timeout=0.14
    ) as client:
        client.warm_up()
        with pytest.raises(espresso.UnavailableError) as caught:
            client.cancel_all(SYMBOL, max_retries=9)
    assert caught.value.attempts == 1
    assert caught.value.elapsed < 0.14


def test_the_worst_outcome_counts(exchange: Exchange) -> None:
    for name in ("reset", "locked_5002", "connect_reset"):
        exchange.fault(name)
    exchange.fault("locked_5002", times=None)
    error = raising(
        espresso.Client(
            exchange.key, base_url=exchange.url, ca_file=exchange.ca_file, timeout=5
        )
    )
    assert type(error) is espresso.TradingLockedError
    assert error.outcome == "unknown"


# --- what the caller does --------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "kind", "outcome"),
    [
        ("hang", espresso.ConnectionLostError, "unknown"),
        ("tls_hang", espresso.ConnectError, "not_sent"),
    ],
)
def test_close_in_the_middle(
    exchange: Exchange,
    client: espresso.Client,
    fault: str,
    kind: type[espresso.EspressoError],
    outcome: str,
) -> None:
    exchange.fault(fault)

    def close() -> None:
        if fault == "hang":
            exchange.wait_for_calls(1)
        else:
            time.sleep(0.1)
        client.close()

    closer = threading.Thread(target=close)
    closer.start()
    with pytest.raises(kind) as caught:
        client.cancel_all(SYMBOL)
    closer.join()
    error = caught.value
    assert type(error) is kind
    assert (error.outcome, error.attempts) == (outcome, 1)
    assert error.elapsed < 4


# --- the machine -----------------------------------------------------------------

NO_DESCRIPTORS = """
import resource
client = connect(max_retries=0)
top = max(int(name) for name in os.listdir("/proc/self/fd"))
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
seen = set()
for spare in range(12):
    resource.setrlimit(resource.RLIMIT_NOFILE, (top + spare, most))
    try:
        client.cancel_all("ADAUSDM", missing_ok=True)
        seen.add("done")
    except espresso.EspressoError as error:
        seen.add(f"{type(error).__name__} {error.outcome} {error.retryable}")
    except BaseException as error:
        seen.add(repr(error))
    if "done" in seen:
        break
print(*sorted(seen), sep="; ")
"""


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc/self/fd")
def test_no_descriptor_is_no_certificate_trouble(
    exchange: Exchange, clean_env: dict[str, str]
) -> None:
    env = children.environment(clean_env, exchange)
    said = children.run(children.PRELUDE + NO_DESCRIPTORS, env).check().out.strip()
    assert said == "ConnectError not_sent True; done"
