"""Faults that take more than a row of the matrix (tests/test_matrix.py) to tell.

Time-outs of an attempt, connections that were idle, the sandbox's own faults and how
often a call tries, and what the caller does.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import espresso
from espresso.sandbox import Exchange
from tests import children
from tests.obstacles import Gate
from tests.rawserver import (
    DONE,
    IDS,
    KEY,
    SYMBOL,
    RawServer,
    Wire,
    answering,
    http,
    old_tls_context,
)

pytestmark = pytest.mark.alone

RESULT = {"symbol": SYMBOL, "order_ids": IDS}
LOST_REPLY = {**RESULT, "lost_reply": True}
ANSWER = http(DONE)
SHORT = 0.3  # seconds, where the deadline is what ends the call
SLACK = 1.0  # seconds over the deadline, on a machine that is busy

# --- before a connection stands --------------------------------------------------


def raising(client: espresso.Client, **options: Any) -> espresso.EspressoError:
    with client, pytest.raises(espresso.EspressoError) as caught:
        client.cancel_all(SYMBOL, **options)
    return caught.value


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
    context = old_tls_context()
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
