"""The sandbox exchange, asked by a plain standard-library client."""

from __future__ import annotations

import gc
import http.client
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from espresso.sandbox import FAULTS, Exchange, replies
from espresso.sandbox.book import Book
from espresso.sandbox.connection_faults import ConnectionFault

PATH = "/order/cancel-all"
NOTHING_OPEN = b'{"error":"Order not found","code":4200}'
CONTRACT_FAULTS = [
    "4200_as_400",
    "5000_as_400",
    "403_empty",
    "404_text",
    "envoy_503",
    "locked_5002",
    "html_200",
    "unknown_symbol_4200",
    "hang",
    "reset",
    "reset_after_read",
    "truncate",
    "drip",
    "slow",
    "late_order",
]


@pytest.fixture
def ex() -> Iterator[Exchange]:
    """An exchange without a rate limit and with three orders on ADAUSDM."""
    with Exchange(orders={"ADAUSDM": 3}, rate=None) as exchange:
        yield exchange


# ------------------------------------------------------------------- the clients


def connect(ex: Exchange, timeout: float = 10.0) -> http.client.HTTPSConnection:
    context = ssl.create_default_context(cafile=ex.ca_file)
    address = urlsplit(ex.url)
    assert address.hostname is not None
    return http.client.HTTPSConnection(
        address.hostname, address.port, timeout=timeout, context=context
    )


def ask(
    connection: http.client.HTTPSConnection,
    key: str | None,
    body: bytes,
    method: str = "POST",
    path: str = PATH,
) -> tuple[http.client.HTTPResponse, bytes]:
    headers = {"Content-Type": "application/json"}
    if key is not None:
        headers["X-API-KEY"] = key
    connection.request(method, path, body, headers)
    response = connection.getresponse()
    return response, response.read()


def cancel(
    ex: Exchange, symbol: str = "ADAUSDM", *, key: str | None = None
) -> tuple[int, bytes]:
    """One call on a connection of its own."""
    connection = connect(ex)
    try:
        body = json.dumps({"symbol": symbol}).encode()
        response, text = ask(connection, key or ex.key, body)
        return response.status, text
    finally:
        connection.close()


class RawClient:
    """TLS over memory: shows each byte, and how the connection really ends."""

    def __init__(self, ex: Exchange, timeout: float = 10.0) -> None:
        address = urlsplit(ex.url)
        assert address.port is not None
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = ssl.create_default_context(cafile=ex.ca_file)
        # Some builds of Python take a FIN for a close_notify unless told not to.
        context.options &= ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
        self._tls = context.wrap_bio(self._in, self._out, server_hostname="127.0.0.1")
        self.socket = socket.create_connection(("127.0.0.1", address.port), timeout)
        self._step(self._tls.do_handshake)

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def _step(self, call: Any, *args: Any) -> Any:
        while True:
            try:
                result = call(*args)
            except ssl.SSLWantReadError:
                self._flush()
                data = self.socket.recv(65536)
                if data:
                    self._in.write(data)
                else:
                    self._in.write_eof()
                continue
            self._flush()
            return result

    def _flush(self) -> None:
        if self._out.pending:
            self.socket.sendall(self._out.read())

    def send(self, data: bytes) -> None:
        self._step(self._tls.write, data)

    def post(self, ex: Exchange, *headers: str, symbol: str = "ADAUSDM") -> None:
        body = json.dumps({"symbol": symbol})
        lines = [
            f"POST {PATH} HTTP/1.1",
            "Host: sandbox",
            f"X-API-KEY: {ex.key}",
            f"Content-Length: {len(body)}",
            *headers,
        ]
        self.send("\r\n".join([*lines, "", body]).encode())

    def read(self) -> bytes:
        data: bytes = self._step(self._tls.read, 65536)
        return data

    def read_to_end(self) -> tuple[bytes, str]:
        """All bytes, and the end: close_notify, fin or reset."""
        got = b""
        try:
            while data := self.read():
                got += data
        except ssl.SSLZeroReturnError:
            return got, "close_notify"
        except ssl.SSLError as error:
            # Python 3.11.2 has no SSLEOFError for it yet.
            if error.reason != "UNEXPECTED_EOF_WHILE_READING" and not isinstance(
                error, ssl.SSLEOFError
            ):
                raise
            return got, "fin"
        except ConnectionResetError:
            return got, "reset"
        return got, "close_notify"


# --------------------------------------------------------------------- the replies


@pytest.mark.parametrize("name", replies.names())
def test_reply_file_is_one_whole_answer(name: str) -> None:
    reply = replies.load(name)
    lines = reply.head.decode("ascii").removesuffix("\r\n\r\n").split("\r\n")
    assert not any("\n" in line or "\r" in line for line in lines)
    assert lines[0].startswith(f"HTTP/1.1 {name[:3]} ")
    assert reply.status == int(name[:3])
    headers = dict(line.lower().split(": ", 1) for line in lines[1:])
    assert len(headers) == len(lines) - 1
    assert int(headers["content-length"]) == len(reply.body)
    assert reply.head + reply.body == reply.raw
    code = re.search(r"code_(\d+)", name)
    if code:
        assert json.loads(reply.body)["code"] == int(code[1])


def test_replies_have_each_case_seen_on_the_live_server() -> None:
    assert replies.load("400_code_4200").body == NOTHING_OPEN
    assert replies.load("400_code_5000.http").body == (
        b'{"error":"Internal Server Error","code":5000}'
    )
    assert replies.load("403_empty").body == b""
    assert replies.load("404_text").body == b"404 page not found"
    for name, reason in (
        ("503_envoy_timeout", b"connection timeout"),
        ("503_envoy_refused", b"delayed connect error: Connection refused"),
    ):
        assert replies.load(name).body.startswith(b"upstream connect error or ")
        assert replies.load(name).body.endswith(reason)
    assert json.loads(replies.load("200_null_ids").body)["order_ids"] is None


def test_unknown_reply_lists_the_names() -> None:
    with pytest.raises(ValueError, match="200_two_orders"):
        replies.load("200_two")


def test_reply_with_another_part() -> None:
    reply = replies.load("503_envoy_timeout")
    dated = reply.with_header("Date", "now")
    assert dated.raw == re.sub(rb"date: [^\r]*", b"date: now", reply.raw)
    assert b"\r\nRetry-After: 3\r\n\r\n" in reply.with_header("Retry-After", "3").raw
    other = reply.with_json({"a": 1})
    assert other.body == b'{"a":1}'
    assert b"content-length: 7\r\n" in other.head


# -------------------------------------------------------------- ordinary answers


def test_cancels_the_open_orders_of_the_symbol(ex: Exchange) -> None:
    others = ex.place("NIGHTUSDM", 2)
    ids = ex.open_orders("ADAUSDM")
    assert [str(uuid.UUID(order)) for order in ids] == ids
    status, body = cancel(ex)
    assert (status, json.loads(body)) == (200, {"symbol": "ADAUSDM", "order_ids": ids})
    assert b" " not in body
    assert ex.open_orders("ADAUSDM") == []
    assert ex.open_orders() == others
    assert cancel(ex) == (400, NOTHING_OPEN)
    first, second = ex.calls
    assert (first.status, first.cancelled, first.carried_out) == (200, tuple(ids), True)
    assert (second.status, second.cancelled, second.carried_out) == (400, (), False)
    assert first.body == b'{"symbol": "ADAUSDM"}'
    assert (first.method, first.path, first.symbol) == ("POST", PATH, "ADAUSDM")
    assert first.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b'{"symbol":"NIGHTUSDM"}', 400, 4200),
        (b'{"symbol":"IAGUSDM"}', 400, 4200),
        (b'{"symbol":"adausdm"}', 400, 4106),
        (b'{"symbol":"XXXYYY"}', 400, 4106),
        (b'{"symbol":""}', 400, 4106),
        (b'{"symbol":1}', 422, 4000),
        (b"{}", 422, 4000),
        (b'["ADAUSDM"]', 422, 4000),
        (b"", 422, 4000),
        (b'{"symbol":"ADAUSDM"', 422, 4000),
        (b"\xff", 422, 4000),
        (b"[" * 60000, 422, 4000),
    ],
)
def test_refuses_by_code(ex: Exchange, body: bytes, status: int, code: int) -> None:
    connection = connect(ex)
    response, text = ask(connection, ex.key, body)
    connection.close()
    assert (response.status, json.loads(text)["code"]) == (status, code)
    assert response.headers["Content-Type"] == "application/json"
    assert len(ex.open_orders()) == 3


def test_a_symbol_becomes_known_by_placing(ex: Exchange) -> None:
    ex.place("XXXYYY", 0)
    assert cancel(ex, "XXXYYY") == (400, NOTHING_OPEN)
    ex.place("XXXYYY")
    assert cancel(ex, "XXXYYY")[0] == 200


@pytest.mark.parametrize("key", [None, "", "sandbox-", "0123456789abcdef" * 2])
def test_a_wrong_key_is_refused_and_not_kept(ex: Exchange, key: str | None) -> None:
    connection = connect(ex)
    response, text = ask(connection, key, b'{"symbol":"ADAUSDM"}')
    connection.close()
    assert (response.status, json.loads(text)["code"]) == (401, 4010)
    (call,) = ex.calls
    assert call.key is None
    assert "x-api-key" not in call.headers
    assert len(ex.open_orders()) == 3


def test_accounts_are_apart(ex: Exchange) -> None:
    other = ex.new_key()
    assert other.startswith("sandbox-")
    assert other != ex.key
    theirs = ex.place("ADAUSDM", 2, key=other)
    mine = ex.open_orders()
    assert json.loads(cancel(ex, key=other)[1])["order_ids"] == theirs
    assert ex.open_orders(key=other) == []
    assert ex.open_orders() == mine
    assert ex.calls[0].key == other


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/"), ("POST", PATH + "/"), ("GET", PATH), ("DELETE", "/x")],
)
def test_another_route_is_the_routers_404(ex: Exchange, method: str, path: str) -> None:
    connection = connect(ex)
    body = b'{"symbol":"ADAUSDM"}'
    response, text = ask(connection, ex.key, body, method, path)
    connection.close()
    assert (response.status, text) == (404, b"404 page not found")
    assert response.headers["Content-Type"] == "text/plain"
    assert [(call.method, call.path) for call in ex.calls] == [(method, path)]


def test_a_head_warms_the_connection_and_is_no_call(ex: Exchange) -> None:
    ex.fault("envoy_503")
    connection = connect(ex)
    response, _ = ask(connection, None, b"", "HEAD", "/")
    assert response.status == 404
    response, _ = ask(connection, ex.key, b'{"symbol":"ADAUSDM"}')
    connection.close()
    assert response.status == 503
    assert [call.status for call in ex.calls] == [503]
    head, post = ex.requests
    assert (head.method, head.status, head.fault) == ("HEAD", 404, None)
    assert head.connection == post.connection


# -------------------------------------------------------------------------- HTTP


def test_keeps_the_connection_alive(ex: Exchange) -> None:
    connection = connect(ex)
    for _ in range(3):
        response, _ = ask(connection, ex.key, b'{"symbol":"ADAUSDM"}')
        assert response.headers["Connection"] is None
        assert time.mktime(time.strptime(response.headers["Date"], _HTTP_DATE)) > 0
    connection.close()
    assert [call.connection for call in ex.calls] == [1, 1, 1]
    cancel(ex)
    assert ex.calls[-1].connection == 2


_HTTP_DATE = "%a, %d %b %Y %H:%M:%S GMT"


def test_closes_when_asked_to(ex: Exchange) -> None:
    with RawClient(ex) as client:
        client.post(ex, "Connection: close")
        data, end = client.read_to_end()
    assert data.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\nConnection: close\r\n" in data
    assert end == "close_notify"


def test_answers_pipelined_requests_in_order(ex: Exchange) -> None:
    ex.fault("slow", seconds=0.05)
    ex.fault("slow", seconds=0)
    with RawClient(ex) as client:
        client.post(ex)
        client.post(ex, "Connection: close")
        data, _ = client.read_to_end()
    assert re.findall(rb"HTTP/1.1 (\d+)", data) == [b"200", b"400"]


def test_sends_100_continue(ex: Exchange) -> None:
    with RawClient(ex) as client:
        client.send(
            f"POST {PATH} HTTP/1.1\r\nHost: x\r\nX-API-KEY: {ex.key}\r\n"
            "Expect: 100-continue\r\nContent-Length: 20\r\n\r\n".encode()
        )
        assert client.read() == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(b'{"symbol":"ADAUSDM"}')
        assert client.read().startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 70000\r\n\r\n" + b"x" * 70000,
    ],
)
def test_refuses_what_is_not_http(ex: Exchange, garbage: bytes) -> None:
    with RawClient(ex) as client:
        client.send(garbage)
        data, end = client.read_to_end()
    assert data == replies.load("400_bad_request").raw
    assert end == "close_notify"
    assert ex.requests == []


def test_an_unfinished_request_is_no_call(ex: Exchange) -> None:
    with RawClient(ex) as client:
        client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Le")
    assert cancel(ex)[0] == 200
    assert len(ex.requests) == 1


def test_certificate_holds_for_localhost_too(ex: Exchange) -> None:
    connection = connect(ex)
    connection.host = "localhost"
    response, _ = ask(connection, ex.key, b'{"symbol":"ADAUSDM"}')
    connection.close()
    assert response.status == 200


# ------------------------------------------------------------------- the rate limit


def test_limits_the_rate_of_each_account() -> None:
    with Exchange(rate=(2, 60.0)) as ex:
        other = ex.new_key()
        assert [cancel(ex)[0] for _ in range(3)] == [400, 400, 429]
        connection = connect(ex)
        response, text = ask(connection, ex.key, b'{"symbol":"ADAUSDM"}')
        connection.close()
        assert (response.status, json.loads(text)["code"]) == (429, 4290)
        assert 1 <= int(response.headers["Retry-After"]) <= 60
        assert cancel(ex, key=other)[0] == 400
        ex.reset()
        assert cancel(ex)[0] == 400


def test_rate_is_a_sliding_window(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    book = Book((10, 2.0))
    for _ in range(10):
        assert book.admit("key") is None
        now += 0.125
    assert book.admit("key") == 0.75  # the first call was 1.25 s ago
    assert book.admit("other") is None
    now += 0.75
    assert book.admit("key") is None
    assert book.admit("key") == 0.125


def test_no_rate_limit(ex: Exchange) -> None:
    connection = connect(ex)
    for _ in range(25):
        response, _ = ask(connection, ex.key, b'{"symbol":"IAGUSDM"}')
        assert response.status == 400
    connection.close()


def test_a_gateways_fault_does_not_count() -> None:
    with Exchange(rate=(1, 60.0)) as ex:
        ex.fault("envoy_503", times=2)
        assert [cancel(ex)[0] for _ in range(4)] == [503, 503, 400, 429]


# -------------------------------------------------------------------------- faults


def test_has_the_contracts_faults() -> None:
    of_calls = [n for n, f in FAULTS.items() if not issubclass(f, ConnectionFault)]
    assert of_calls == CONTRACT_FAULTS


@pytest.mark.parametrize(
    ("name", "params", "reply", "cancelled"),
    [
        ("4200_as_400", {}, "400_code_4200", 0),
        ("5000_as_400", {}, "400_code_5000", 0),
        ("5000_as_400", {"cancel": 2}, "400_code_5000", 2),
        ("403_empty", {}, "403_empty", 0),
        ("404_text", {}, "404_text", 0),
        ("envoy_503", {}, "503_envoy_timeout", 0),
        ("envoy_503", {"reason": "refused"}, "503_envoy_refused", 0),
        ("envoy_503", {"carry_out": True}, "503_envoy_timeout", 3),
        ("locked_5002", {}, "400_code_5002", 0),
        ("html_200", {}, "200_html", 0),
    ],
)
def test_fault_answers_instead(
    ex: Exchange, name: str, params: dict[str, Any], reply: str, cancelled: int
) -> None:
    ex.fault(name, **params)
    expected = replies.load(reply)
    assert cancel(ex) == (expected.status, expected.body)
    (call,) = ex.calls
    assert (call.fault, call.status) == (name, expected.status)
    assert len(call.cancelled) == cancelled
    assert len(ex.open_orders()) == 3 - cancelled
    assert cancel(ex)[0] == (200 if cancelled < 3 else 400)
    assert ex.calls[1].fault is None


def test_fault_unknown_symbol_4200(ex: Exchange) -> None:
    ex.fault("unknown_symbol_4200", times=2)
    assert cancel(ex, "XXXYYY") == (400, NOTHING_OPEN)
    assert cancel(ex)[0] == 200
    assert b"4106" in cancel(ex, "XXXYYY")[1]


@pytest.mark.parametrize(
    ("name", "params", "cancelled", "end"),
    [
        ("reset", {}, 0, "reset"),
        ("reset_after_read", {}, 3, "reset"),
        ("truncate", {"sent": 0}, 3, "close_notify"),
        ("truncate", {"sent": 0, "end": "fin"}, 3, "fin"),
        ("truncate", {"sent": 0, "end": "reset"}, 3, "reset"),
    ],
)
def test_fault_gives_no_answer(
    ex: Exchange, name: str, params: dict[str, Any], cancelled: int, end: str
) -> None:
    ex.fault(name, **params)
    with RawClient(ex) as client:
        client.post(ex)
        assert client.read_to_end() == (b"", end)
    (call,) = ex.calls
    assert (call.status, call.fault, len(call.cancelled)) == (None, name, cancelled)
    assert len(ex.open_orders()) == 3 - cancelled


@pytest.mark.parametrize("end", ["close_notify", "fin"])
def test_fault_truncate_cuts_the_body(ex: Exchange, end: str) -> None:
    ex.fault("truncate", end=end)
    with RawClient(ex) as client:
        client.post(ex)
        data, seen = client.read_to_end()
    assert seen == end
    head, _, body = data.partition(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    assert len(body) == length // 2
    assert ex.calls[0].status is None
    assert ex.calls[0].carried_out


def test_fault_truncate_never_sends_the_last_byte(ex: Exchange) -> None:
    ex.fault("truncate", sent=10**6)
    with RawClient(ex) as client:
        client.post(ex)
        data, _ = client.read_to_end()
    assert data.endswith(b"]")
    assert ex.calls[0].status is None


@pytest.mark.parametrize(("carry_out", "sent"), [(False, 0), (True, 0), (False, 20)])
def test_fault_hang(ex: Exchange, carry_out: bool, sent: int) -> None:
    ex.fault("hang", carry_out=carry_out, sent=sent)
    with RawClient(ex) as client:
        client.post(ex)
        (call,) = ex.wait_for_calls(1)
        assert (call.status, call.carried_out) == (None, carry_out)
        got = client.read() if sent else b""
        assert got == b"HTTP/1.1 200 OK\r\nContent-Type"[:sent]
        client.socket.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.read()
    assert ex.calls == [call]
    assert len(ex.open_orders()) == (0 if carry_out else 3)


def test_fault_drip(ex: Exchange) -> None:
    ex.fault("drip", interval=0.002, size=50, sent=17)
    pieces: list[bytes] = []
    with RawClient(ex) as client:
        client.post(ex)
        while not b"".join(pieces).endswith(b"}"):
            pieces.append(client.read())
    assert pieces[0] == b"HTTP/1.1 200 OK\r\n"
    assert [len(piece) for piece in pieces[1:-1]] == [50] * (len(pieces) - 2)
    assert len(pieces) > 3
    assert ex.calls[0].status == 200


def test_a_client_that_leaves_a_drip_was_not_answered(ex: Exchange) -> None:
    ex.fault("drip", interval=0.02)
    with RawClient(ex) as client:
        client.post(ex)
        assert client.read() == b"H"
    assert cancel(ex) == (400, NOTHING_OPEN)
    assert [call.status for call in ex.calls] == [None, 400]


def test_fault_slow(ex: Exchange) -> None:
    ex.fault("slow", seconds=0.2)
    connection = connect(ex)
    connection.request("POST", PATH, '{"symbol":"ADAUSDM"}', {"X-API-KEY": ex.key})
    (call,) = ex.wait_for_calls(1)
    assert (call.status, len(call.cancelled)) == (None, 3)
    assert ex.open_orders() == []
    response = connection.getresponse()
    connection.close()
    assert response.status == 200
    assert ex.calls[0].status == 200


def test_fault_late_order(ex: Exchange) -> None:
    ex.fault("late_order", after=0, n=2)
    assert len(json.loads(cancel(ex)[1])["order_ids"]) == 3
    assert len(ex.open_orders("ADAUSDM")) == 2
    ex.fault("late_order", after=0.05)
    assert len(json.loads(cancel(ex)[1])["order_ids"]) == 2
    wait_until(lambda: len(ex.open_orders("ADAUSDM")) == 1)
    ex.fault("late_order", after=0)
    assert cancel(ex, key="no key of ours")[0] == 401
    assert len(ex.open_orders()) == 1


def wait_until(true: Any, timeout: float = 5.0) -> None:
    deadline = time.monotonic() + timeout
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("connect_reset", ConnectionResetError),
        ("expired_certificate", ssl.SSLCertVerificationError),
        ("wrong_host_certificate", ssl.SSLCertVerificationError),
        ("unknown_ca_certificate", ssl.SSLCertVerificationError),
    ],
)
def test_fault_of_a_connection(ex: Exchange, name: str, error: type[Exception]) -> None:
    warm = connect(ex)
    ask(warm, None, b"", "HEAD", "/")
    ex.fault(name)
    response, _ = ask(warm, ex.key, b'{"symbol":"NIGHTUSDM"}')
    warm.close()
    assert response.status == 400
    with pytest.raises(error):
        cancel(ex)
    assert len(ex.calls) == 1
    assert cancel(ex)[0] == 200


def test_fault_tls_hang(ex: Exchange) -> None:
    ex.fault("tls_hang")
    connection = connect(ex, timeout=0.2)
    with pytest.raises(TimeoutError):
        connection.connect()
    connection.close()
    assert cancel(ex)[0] == 200


def test_a_client_that_does_not_trust_the_ca(ex: Exchange) -> None:
    address = urlsplit(ex.url)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    connection = http.client.HTTPSConnection(
        "127.0.0.1", address.port, timeout=10, context=context
    )
    with pytest.raises(ssl.SSLCertVerificationError):
        connection.connect()
    connection.close()
    assert cancel(ex)[0] == 200


def test_replies_verbatim(ex: Exchange) -> None:
    ex.reply("200_null_ids")
    ex.reply(b"HTTP/1.1 200 OK\r\n\r\nto the end", close=True)
    ex.reply(b"garbage", close=True)
    with RawClient(ex) as client:
        client.post(ex)
        assert client.read() == replies.load("200_null_ids").raw
        client.post(ex)
        assert client.read_to_end() == (
            b"HTTP/1.1 200 OK\r\n\r\nto the end",
            "close_notify",
        )
    with RawClient(ex) as client:
        client.post(ex)
        assert client.read_to_end() == (b"garbage", "close_notify")
    assert [call.status for call in ex.calls] == [200, 200, None]
    assert {call.fault for call in ex.calls} == {"reply"}
    assert len(ex.open_orders()) == 3


def test_faults_strike_in_order(ex: Exchange) -> None:
    ex.fault("envoy_503", times=2)
    ex.fault("403_empty")
    assert [cancel(ex)[0] for _ in range(5)] == [503, 503, 403, 200, 400]
    ex.fault("locked_5002", times=None)
    assert {cancel(ex)[1] for _ in range(4)} == {replies.load("400_code_5002").body}
    ex.clear_faults()
    assert cancel(ex) == (400, NOTHING_OPEN)


def test_unknown_fault_lists_the_names(ex: Exchange) -> None:
    with pytest.raises(ValueError, match="no fault 'explode'") as caught:
        ex.fault("explode")
    for name in CONTRACT_FAULTS:
        assert name in str(caught.value)


@pytest.mark.parametrize(
    ("name", "params", "error"),
    [
        ("slow", {"secs": 1}, TypeError),
        ("403_empty", {"seconds": 1}, TypeError),
        ("slow", {"seconds": "1"}, TypeError),
        ("slow", {"seconds": True}, TypeError),
        ("slow", {"seconds": -1}, ValueError),
        ("slow", {"seconds": float("nan")}, ValueError),
        ("drip", {"size": 0}, ValueError),
        ("drip", {"interval": None}, TypeError),
        ("truncate", {"sent": 1.5}, TypeError),
        ("truncate", {"end": "bang"}, ValueError),
        ("hang", {"carry_out": 1}, TypeError),
        ("late_order", {"n": 0}, ValueError),
        ("envoy_503", {"reason": "rain"}, ValueError),
        ("reset", {"times": 0}, ValueError),
        ("reset", {"times": "2"}, TypeError),
    ],
)
def test_bad_fault_parameters(
    ex: Exchange, name: str, params: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        ex.fault(name, **params)
    assert cancel(ex)[0] == 200


# ------------------------------------------------------------ the object itself


@pytest.mark.parametrize(
    ("kwargs", "error"),
    [
        ({"port": -1}, ValueError),
        ({"port": 65536}, ValueError),
        ({"port": "80"}, TypeError),
        ({"rate": (0, 2.0)}, ValueError),
        ({"rate": (10, 0)}, ValueError),
        ({"rate": (10, float("inf"))}, ValueError),
        ({"rate": ("10", 2)}, TypeError),
        ({"orders": {"ADAUSDM": -1}}, ValueError),
        ({"orders": {"": 1}}, ValueError),
        ({"orders": {"ADAUSDM": "3"}}, TypeError),
        ({"orders": {1: 1}}, TypeError),
    ],
)
def test_bad_arguments(kwargs: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        Exchange(**kwargs)


def test_a_strangers_key_is_a_value_error(ex: Exchange) -> None:
    with pytest.raises(ValueError, match="new_key") as caught:
        ex.place("ADAUSDM", key="perhaps-a-real-one")
    assert "perhaps" not in str(caught.value)
    with pytest.raises(ValueError, match="new_key"):
        ex.open_orders(key="perhaps-a-real-one")


def test_life_cycle() -> None:
    ex = Exchange()
    ex.place("ADAUSDM")
    assert "not started" in repr(ex)
    for name in ("url", "ca_file"):
        with pytest.raises(RuntimeError, match="not started"):
            getattr(ex, name)
    ex.close()  # nothing to close yet
    assert ex.start() is ex.start() is ex
    assert re.fullmatch(r"https://127\.0\.0\.1:\d+", ex.url)
    assert re.fullmatch(
        rf"<espresso\.sandbox\.Exchange {ex.url} open=1 calls=0>", repr(ex)
    )
    cancel(ex)
    ex.close()
    ex.close()
    assert "closed" in repr(ex)
    assert ex.calls[0].status == 200
    with pytest.raises(RuntimeError, match="closed"):
        ex.start()


def test_a_taken_port_is_an_os_error(ex: Exchange) -> None:
    before = open_files()
    port = urlsplit(ex.url).port
    assert port is not None
    with pytest.raises(OSError, match="in use"):
        Exchange(port=port).start()
    assert open_files() == before
    ex.close()
    with Exchange(port=port) as again:
        assert urlsplit(again.url).port == port
        assert cancel(again) == (400, NOTHING_OPEN)


def open_files() -> int:
    return len(os.listdir("/proc/self/fd" if sys.platform == "linux" else "/dev/fd"))


def test_close_ends_whatever_hangs_and_leaves_nothing() -> None:
    gc.collect()
    files, threads = open_files(), threading.active_count()
    ex = Exchange(orders={"ADAUSDM": 1}, rate=None).start()
    address = ("127.0.0.1", urlsplit(ex.url).port)
    silent = socket.create_connection(address)  # never begins its handshake
    clients = [RawClient(ex) for _ in range(4)]
    ex.fault("hang")
    ex.fault("slow", seconds=60)
    ex.fault("drip", interval=60)
    for n, client in enumerate(clients[:3], start=1):
        client.post(ex)
        ex.wait_for_calls(n)
    ex.fault("tls_hang")
    hung = socket.create_connection(address)
    ex.close()
    assert not Path(ex.ca_file).exists()
    assert threading.active_count() == threads
    for client in clients:
        assert client.read_to_end()[1] in ("fin", "reset")
        client.socket.close()
    for sock in (silent, hung):
        sock.settimeout(10)
        assert sock.recv(1) == b""
        sock.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)
    assert open_files() == files
    assert [call.status for call in ex.calls] == [None, None, None]


def test_a_forgotten_exchange_is_stopped() -> None:
    gc.collect()
    files, threads = open_files(), threading.active_count()
    ex = Exchange().start()
    ca_file = ex.ca_file
    cancel(ex)
    del ex
    gc.collect()
    assert threading.active_count() == threads
    assert not Path(ca_file).exists()
    assert open_files() == files


def test_wait_for_calls_times_out(ex: Exchange) -> None:
    with pytest.raises(TimeoutError, match="0 of 1 calls"):
        ex.wait_for_calls(1, timeout=0.01)


def test_reset_forgets_all_but_the_accounts(ex: Exchange) -> None:
    cancel(ex)
    ex.fault("reset")
    ex.place("ADAUSDM")
    ex.reset()
    assert (ex.calls, ex.requests, ex.open_orders()) == ([], [], [])
    assert cancel(ex) == (400, NOTHING_OPEN)


def test_many_threads_lose_no_order() -> None:
    """Each order is cancelled by exactly one call, and each call is told of."""
    placed: list[str] = []
    answered: list[str] = []
    errors: list[BaseException] = []

    def trade(ex: Exchange) -> None:
        try:
            connection = connect(ex)
            for _ in range(20):
                placed.extend(ex.place("ADAUSDM", 2))
                response, text = ask(connection, ex.key, b'{"symbol":"ADAUSDM"}')
                answered.extend(json.loads(text).get("order_ids", []))
                assert response.status in (200, 400)
                assert ex.calls
            connection.close()
        except BaseException as error:
            errors.append(error)

    with Exchange(rate=None) as ex:
        threads = [threading.Thread(target=trade, args=(ex,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        left = ex.open_orders()
        told = [order for call in ex.calls for order in call.cancelled]
        assert len(ex.calls) == 160
        assert all(call.status in (200, 400) for call in ex.calls)
    assert sorted(answered + left) == sorted(placed)
    assert sorted(told) == sorted(answered)


# ------------------------------------------------------------- in other processes


def run(
    *arguments: str, timeout: float = 60, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=Path(__file__).parents[1],
        env={**os.environ, **environment},
        check=False,
    )


@pytest.mark.parametrize("end", ["ex.close()", "pass", "del ex"])
def test_leaves_nothing_under_dev_mode(end: str, tmp_path: Path) -> None:
    """Open connections of every kind, and an exchange closed, forgotten or kept."""
    script = f"""
import socket, ssl, urllib.parse
from espresso.sandbox import Exchange
ex = Exchange().start()
ex.fault("hang")
address = ("127.0.0.1", urllib.parse.urlsplit(ex.url).port)
silent = socket.create_connection(address)
context = ssl.create_default_context(cafile=ex.ca_file)
tls = context.wrap_socket(
    socket.create_connection(address), server_hostname="localhost"
)
tls.sendall(b"POST {PATH} HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: 0\\r\\n\\r\\n")
ex.wait_for_calls(1)
{end}
silent.close()
tls.close()
"""
    done = run("-X", "dev", "-W", "error", "-c", script, TMPDIR=str(tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


def test_a_forked_child_leaves_its_parents_exchange_alone() -> None:
    script = """
import os, pathlib, socket, sys, urllib.parse
from espresso.sandbox import Exchange
ex = Exchange().start()
child = os.fork()
if child == 0:
    ex.close()
    sys.exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
assert pathlib.Path(ex.ca_file).exists()
socket.create_connection(("127.0.0.1", urllib.parse.urlsplit(ex.url).port)).close()
ex.close()
assert not pathlib.Path(ex.ca_file).exists()
"""
    # CPython 3.12 warns of any fork of a process with threads.
    done = run("-W", "ignore::DeprecationWarning", "-c", script)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("missing", ["h11", "trustme"])
def test_a_missing_extra_is_named(missing: str) -> None:
    script = f"import sys; sys.modules['{missing}'] = None; import espresso.sandbox"
    done = run("-c", script)
    last = done.stderr.splitlines()[-1]
    assert last == (
        f"ImportError: espresso.sandbox needs {missing}, which is not installed: "
        'pip install "espresso-deltadefi[sandbox]"'
    )
    script = (
        f"import sys; sys.modules['{missing}'] = None\n"
        "from espresso._cli import main; sys.exit(main(['sandbox']))"
    )
    done = run("-c", script)
    assert done.returncode == 2
    assert done.stderr.startswith("espresso sandbox: error: espresso.sandbox needs")


def test_the_command_line_imports_little() -> None:
    heavy = ("asyncio", "ssl", "socket", "json", "h11", "espresso.sandbox")
    script = (
        f"import sys, espresso._cli; print([m for m in {heavy} if m in sys.modules])"
    )
    done = run("-c", script)
    assert (done.stdout, done.stderr) == ("[]\n", "")


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_until_a_signal(
    ending: signal.Signals, tmp_path: Path
) -> None:
    command = "-X dev -m espresso sandbox --orders ADAUSDM=3 IAGUSDM=1 --orders NEW=2"
    process = subprocess.Popen(
        [sys.executable, *command.split(), "--fault", "envoy_503"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3)]
        exported = dict(
            line.removeprefix("export ").rstrip().split("=", 1) for line in lines
        )
        assert list(exported) == [
            "DELTADEFI_API_KEY",
            "DELTADEFI_BASE_URL",
            "SSL_CERT_FILE",
        ]
        assert [
            talk(exported, s) for s in ("ADAUSDM", "ADAUSDM", "NEW", "IAGUSDM")
        ] == [
            None,
            3,
            2,
            1,
        ]
        process.send_signal(ending)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0
    assert out == ""
    assert err.endswith("Ctrl-C ends it.\n")
    assert len(err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def talk(exported: dict[str, str], symbol: str) -> int | None:
    """Cancel by what the command printed; how many orders, None if refused."""
    context = ssl.create_default_context(cafile=exported["SSL_CERT_FILE"])
    connection = http.client.HTTPSConnection(
        urlsplit(exported["DELTADEFI_BASE_URL"]).netloc, timeout=10, context=context
    )
    body = json.dumps({"symbol": symbol}).encode()
    response, text = ask(connection, exported["DELTADEFI_API_KEY"], body)
    connection.close()
    return len(json.loads(text)["order_ids"]) if response.status == 200 else None


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "the following arguments are required: VERB"),
        (["dance"], "invalid choice: 'dance'"),
        (["sandbox", "--orders", "ADAUSDM"], "is not SYMBOL=N, such as ADAUSDM=3"),
        (["sandbox", "--orders", "ADAUSDM=-1"], "is not SYMBOL=N"),
        (["sandbox", "--port", "65536"], "is not a port (0 to 65535)"),
        (["sandbox", "--port", "x"], "is not a port"),
        (["sandbox", "--fault", "explode"], "no fault 'explode'; there are: 4200_as"),
    ],
)
def test_bad_command_lines_exit_2(arguments: list[str], sentence: str) -> None:
    done = run("-m", "espresso", *arguments)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_taken_port_exits_2(ex: Exchange) -> None:
    port = str(urlsplit(ex.url).port)
    done = run("-m", "espresso", "sandbox", "--port", port)
    assert done.returncode == 2
    assert "Address already in use" in done.stderr
    assert "Traceback" not in done.stderr
