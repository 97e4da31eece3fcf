"""What the server may answer, and what the call makes of it.

Each row is one answer to one call that makes a single attempt. The one thing that
must never happen: a dict, where the exchange did not say "cancelled".
"""

from __future__ import annotations

import gzip
import json
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import espresso
from espresso.sandbox import Exchange, replies
from tests.rawserver import (
    DONE,
    IDS,
    KEY,
    SYMBOL,
    RawServer,
    Script,
    Wire,
    answering,
    http,
)

RESULT = {"symbol": SYMBOL, "order_ids": IDS}
MIB = 1024 * 1024


@dataclass(frozen=True)
class Error:
    """What a call must raise."""

    kind: type[espresso.EspressoError]
    outcome: str
    code: int | None = None
    retryable: bool = False
    status: int | None = None
    says: str = ""


def odd(says: str = "", *, status: int | None = 200, retryable: bool = False) -> Error:
    """An answer that is not the promised one."""
    return Error(espresso.ResponseError, "unknown", None, retryable, status, says)


LOST = Error(espresso.ConnectionLostError, "unknown", retryable=True)


def check(error: espresso.EspressoError, expected: Error) -> None:
    assert type(error) is expected.kind, repr(error)
    assert error.outcome == expected.outcome
    assert error.code == expected.code
    assert error.retryable is expected.retryable
    if expected.status is not None:
        assert error.status_code == expected.status
    assert expected.says in str(error)
    assert error.attempts == 1
    assert error.symbol == SYMBOL
    assert error.order_ids == []
    assert len(error.message) <= 512
    assert len(error.body.encode()) <= 4096
    assert KEY not in repr(vars(error))


def ask(*scripts: Script, missing_ok: bool = False, **options: Any) -> dict[str, Any]:
    """One call to a server in the clear: what is tested here lies above TLS."""
    with RawServer(*scripts, tls=False) as server, server.client(**options) as client:
        try:
            return dict(client.cancel_all(SYMBOL, missing_ok=missing_ok))
        finally:
            assert len(server.posts) == 1, "one attempt is one POST"


def refused(*scripts: Script, **options: Any) -> espresso.EspressoError:
    with pytest.raises(espresso.EspressoError) as caught:
        ask(*scripts, **options)
    return caught.value


def ending(data: bytes, end: str) -> Script:
    """Answer with these bytes, then end the connection in that way."""

    def script(wire: Wire) -> None:
        wire.answer(data)
        getattr(wire, end)()

    return script


# --- the files: what was really seen ---------------------------------------------

UUIDS = [
    "550e8400-e29b-41d4-a716-446655440000",
    "6ba7b810-9dad-41d1-80b4-00c04fd430c8",
]


def refusal(kind: type[espresso.EspressoError], code: int | None, status: int) -> Error:
    return Error(kind, "rejected", code, status=status)


FILES: dict[str, Error | list[str]] = {
    "200_empty_ids": [],
    "200_html": odd(),
    "200_no_ids": [],
    "200_no_symbol": UUIDS,
    "200_null_ids": [],
    "200_one_order": UUIDS[:1],
    "200_two_orders": UUIDS,
    "400_bad_request": Error(espresso.BadRequestError, "unknown", status=400),
    "400_code_4000": refusal(espresso.BadRequestError, 4000, 400),
    "400_code_4106": refusal(espresso.InvalidSymbolError, 4106, 400),
    "400_code_4200": refusal(espresso.OrderNotFoundError, 4200, 400),
    "400_code_4290": Error(espresso.RateLimitError, "rejected", 4290, True, 400),
    "400_code_4406": refusal(espresso.BadRequestError, 4406, 400),
    "400_code_5000": Error(espresso.ServerError, "unknown", 5000, True, 400),
    "400_code_5002": Error(espresso.TradingLockedError, "rejected", 5002, True, 400),
    "401_code_4010": refusal(espresso.AuthenticationError, 4010, 401),
    "403_empty": refusal(espresso.PermissionDeniedError, None, 403),
    "404_code_4200": refusal(espresso.OrderNotFoundError, 4200, 404),
    "404_text": refusal(espresso.APIError, None, 404),
    "422_code_4000": refusal(espresso.BadRequestError, 4000, 422),
    "429_code_4290": Error(espresso.RateLimitError, "rejected", 4290, True, 429),
    "500_code_5000": Error(espresso.ServerError, "unknown", 5000, True, 500),
    "503_code_5001": Error(espresso.UnavailableError, "unknown", 5001, True, 503),
    "503_code_5002": Error(espresso.TradingLockedError, "rejected", 5002, True, 503),
    "503_envoy_refused": Error(
        espresso.UnavailableError, "unknown", None, True, 503, "Connection refused"
    ),
    "503_envoy_timeout": Error(
        espresso.UnavailableError, "unknown", None, True, 503, "connection timeout"
    ),
}


def test_every_reply_file_has_its_row() -> None:
    assert set(FILES) == set(replies.names())


@pytest.fixture(scope="module")
def shared() -> Iterator[Exchange]:
    with Exchange(rate=None) as running:
        yield running


@pytest.mark.parametrize("name", FILES)
def test_reply_file(shared: Exchange, name: str) -> None:
    expected = FILES[name]
    shared.reset()
    shared.reply(name)
    with espresso.Client(
        shared.key, base_url=shared.url, ca_file=shared.ca_file, max_retries=0
    ) as client:
        if isinstance(expected, list):
            result = client.cancel_all(SYMBOL)
            assert result == {"symbol": SYMBOL, "order_ids": expected}
        else:
            with pytest.raises(espresso.EspressoError) as caught:
                client.cancel_all(SYMBOL)
            check(caught.value, expected)
    assert len(shared.calls) == 1


# --- bodies of a 200 -------------------------------------------------------------


def nested(depth: int) -> bytes:
    return b'{"symbol":"ADAUSDM","x":' + b"[" * depth + b"]" * depth + b"}"


def padded(total: int) -> bytes:
    """A success of that many bytes."""
    start, end = b'{"symbol":"ADAUSDM","order_ids":[],"x":"', b'"}'
    return start + b"x" * (total - len(start) - len(end)) + end


ODD_BODIES = {
    "HTML": b"<!DOCTYPE html><html><body>soon</body></html>",
    "empty": b"",
    "white space": b" \r\n\t ",
    "array": b"[]",
    "array of a success": b"[" + DONE + b"]",
    "object": b"{}",
    "null": b"null",
    "true": b"true",
    "number": b"200",
    "string": b'"ADAUSDM"',
    "only null ids": b'{"order_ids":null}',
    "null ids and null symbol": b'{"symbol":null,"order_ids":null}',
    "stranger": b'{"status":"ok"}',
    "truncated": DONE[:-1],
    "truncated in a string": DONE[:-5],
    "cut at one half": DONE[: len(DONE) // 2],
    "100,000 deep": nested(100_000),
    "100,000 open": b"[" * 100_000,
    "1 MiB of [": b"[" * MIB,
    "1 MiB of {": b'{"a":' * (MIB // 5),
    "other symbol": b'{"symbol":"NIGHTUSDM","order_ids":["a"]}',
    "other symbol, longer": b'{"symbol":"ADAUSDM2","order_ids":["a"]}',
    "other symbol, shorter": b'{"symbol":"ADAUSD","order_ids":["a"]}',
    "empty symbol": b'{"symbol":"","order_ids":["a"]}',
    "Turkish i": '{"symbol":"ADAUSDM\u0131","order_ids":["a"]}'.encode(),
    "symbol a number": b'{"symbol":1,"order_ids":["a"]}',
    "symbol a list": b'{"symbol":["ADAUSDM"],"order_ids":["a"]}',
    "symbol true": b'{"symbol":true,"order_ids":["a"]}',
    "second document": DONE + DONE,
    "second document on a line": DONE + b"\n" + DONE,
    "comma after": DONE + b",",
    "brace after": DONE + b"}",
    "word after": DONE + b" ok",
    "NUL after": DONE + b"\0",
    "NUL before": b"\0" + DONE,
    "ids a string": b'{"symbol":"ADAUSDM","order_ids":"a"}',
    "ids a number": b'{"symbol":"ADAUSDM","order_ids":2}',
    "ids true": b'{"symbol":"ADAUSDM","order_ids":true}',
    "ids false": b'{"symbol":"ADAUSDM","order_ids":false}',
    "ids an object": b'{"symbol":"ADAUSDM","order_ids":{}}',
    "id a number": b'{"symbol":"ADAUSDM","order_ids":["a",2]}',
    "id null": b'{"symbol":"ADAUSDM","order_ids":[null]}',
    "id an object": b'{"symbol":"ADAUSDM","order_ids":[{"id":"a"}]}',
    "id a list": b'{"symbol":"ADAUSDM","order_ids":[["a"]]}',
    "byte-order mark": b"\xef\xbb\xbf" + DONE,
    "UTF-16": DONE.decode().encode("utf-16"),
    "invalid UTF-8 in an id": b'{"symbol":"ADAUSDM","order_ids":["\xff"]}',
    "overlong UTF-8": b'{"symbol":"ADAUSDM","order_ids":["\xc0\xaf"]}',
    "surrogate in UTF-8": b'{"symbol":"ADAUSDM","order_ids":["\xed\xa0\x80"]}',
    "cut UTF-8": b'{"symbol":"ADAUSDM","order_ids":["\xe2\x82"]}',
    "beyond Unicode": b'{"symbol":"ADAUSDM","order_ids":["\xf4\x90\x80\x80"]}',
    "invalid UTF-8 elsewhere": b'{"symbol":"ADAUSDM","order_ids":[],"x":"\x80"}',
    "\\u0000 in an id": rb'{"symbol":"ADAUSDM","order_ids":["a\u0000b"]}',
    "\\u0000 in the symbol": rb'{"symbol":"ADAUSDM\u0000X","order_ids":["a"]}',
    "\\u0000 in a name": rb'{"symbol":"ADAUSDM","order_ids\u0000x":["a"],"x":1}',
    "raw NUL in an id": b'{"symbol":"ADAUSDM","order_ids":["a\0b"]}',
    "raw line end in an id": b'{"symbol":"ADAUSDM","order_ids":["a\nb"]}',
    "raw tab in an id": b'{"symbol":"ADAUSDM","order_ids":["a\tb"]}',
    "lone surrogate": rb'{"symbol":"ADAUSDM","order_ids":["\ud800"]}',
    "low surrogate first": rb'{"symbol":"ADAUSDM","order_ids":["\udc00\ud800"]}',
    "bad escape": rb'{"symbol":"ADAUSDM","order_ids":["\x41"]}',
    "short escape": rb'{"symbol":"ADAUSDM","order_ids":["\u12"]}',
    "single quotes": b"{'symbol':'ADAUSDM','order_ids':[]}",
    "comma at the end": b'{"symbol":"ADAUSDM","order_ids":["a",]}',
    "comma at the end of all": b'{"symbol":"ADAUSDM","order_ids":["a"],}',
    "comment": b'{"symbol":"ADAUSDM","order_ids":[]/* none */}',
    "NaN": b'{"symbol":"ADAUSDM","order_ids":[],"x":NaN}',
    "Infinity": b'{"symbol":"ADAUSDM","order_ids":[],"x":-Infinity}',
    "leading zero": b'{"symbol":"ADAUSDM","order_ids":[],"x":007}',
    "bare point": b'{"symbol":"ADAUSDM","order_ids":[],"x":1.}',
    "plus sign": b'{"symbol":"ADAUSDM","order_ids":[],"x":+1}',
    "form feed": b'{"symbol":"ADAUSDM",\x0c"order_ids":[]}',
    "no-break space": b'{"symbol":"ADAUSDM",\xc2\xa0"order_ids":[]}',
    "capital True": b'{"symbol":"ADAUSDM","order_ids":[],"x":True}',
    "name in capitals": b'{"SYMBOL":"ADAUSDM","ORDER_IDS":["a"]}',
    "error": b'{"symbol":"ADAUSDM","order_ids":["a"],"error":"half done"}',
    "error alone": b'{"error":"Order not found"}',
    "error and symbol": b'{"symbol":"ADAUSDM","error":"Order not found"}',
    "error false": b'{"symbol":"ADAUSDM","order_ids":["a"],"error":false}',
    "error empty": b'{"symbol":"ADAUSDM","order_ids":["a"],"error":""}',
    "code and ids": b'{"symbol":"ADAUSDM","order_ids":["a"],"code":4200}',
    "code and no ids": b'{"code":4200,"order_ids":[]}',
    "code 0 and ids": b'{"symbol":"ADAUSDM","order_ids":["a"],"code":0}',
    "code a string": b'{"symbol":"ADAUSDM","order_ids":["a"],"code":"4200"}',
    "code true": b'{"symbol":"ADAUSDM","code":true}',
    "code a float": b'{"symbol":"ADAUSDM","code":4200.9}',
    "symbol twice": b'{"symbol":"ADAUSDM","order_ids":["a"],"symbol":"ADAUSDM"}',
    "ids twice": b'{"symbol":"ADAUSDM","order_ids":["a"],"order_ids":["b"]}',
    "ids, then null ids": b'{"symbol":"ADAUSDM","order_ids":["a"],"order_ids":null}',
    "1 MiB and a byte": padded(MIB + 1),
}


@pytest.mark.parametrize("body", ODD_BODIES.values(), ids=ODD_BODIES.keys())
def test_odd_body_of_a_200(body: bytes) -> None:
    check(refused(answering(http(body))), odd())


GOOD_BODIES: dict[str, tuple[bytes, dict[str, Any]]] = {
    "plain": (DONE, RESULT),
    "spaced": (b" \r\n\t" + DONE.replace(b",", b" ,\n") + b"\r\n ", RESULT),
    "other order": (b'{"order_ids":["a-1","b-2"],"symbol":"ADAUSDM"}', RESULT),
    "no symbol": (b'{"order_ids":["a-1","b-2"]}', RESULT),
    "null symbol": (b'{"symbol":null,"order_ids":["a-1","b-2"]}', RESULT),
    "no symbol, no ids": (b'{"order_ids":[]}', {**RESULT, "order_ids": []}),
    "no ids": (b'{"symbol":"ADAUSDM"}', {**RESULT, "order_ids": []}),
    "null ids": (b'{"symbol":"ADAUSDM","order_ids":null}', {**RESULT, "order_ids": []}),
    "small letters": (
        b'{"symbol":"adausdm","order_ids":["a-1"]}',
        {"symbol": "adausdm", "order_ids": ["a-1"]},
    ),
    "null error and code": (
        b'{"symbol":"ADAUSDM","order_ids":["a-1","b-2"],"error":null,"code":null}',
        {**RESULT, "error": None, "code": None},
    ),
    "a name that is ours": (
        b'{"symbol":"ADAUSDM","order_ids":["a-1","b-2"],"lost_reply":true}',
        RESULT,
    ),
    "escapes": (
        rb'{"symbol":"\u0041DAUSDM","order_ids":["\u20ac\/\n\ud83d\ude00"]}',
        {"symbol": SYMBOL, "order_ids": ["€/\n😀"]},
    ),
    "UTF-8": (
        '{"symbol":"ADAUSDM","order_ids":["€😀"]}'.encode(),
        {"symbol": SYMBOL, "order_ids": ["€😀"]},
    ),
    "20 deep": (nested(20), json.loads(nested(20)) | {"order_ids": []}),
    "1 MiB": (padded(MIB), json.loads(padded(MIB))),
    "10,000 ids": (
        json.dumps({"order_ids": [str(n) for n in range(10_000)]}).encode(),
        {"symbol": SYMBOL, "order_ids": [str(n) for n in range(10_000)]},
    ),
}


@pytest.mark.parametrize(("body", "expected"), GOOD_BODIES.values(), ids=GOOD_BODIES)
def test_good_body_of_a_200(body: bytes, expected: dict[str, Any]) -> None:
    assert ask(answering(http(body))) == expected


@pytest.mark.parametrize("chunked", [False, True], ids=["sized", "chunked"])
def test_200_mb_are_not_read(chunked: bool) -> None:
    """The call ends at its ceiling, long before the server has sent it all."""
    total, step, sent = 200_000_000, 100_000, 0

    def script(wire: Wire) -> None:
        nonlocal sent
        wire.read_request()
        length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {total}"
        wire.send(http(b"", 200, length, sized=False))
        piece = b'{"symbol":"ADAUSDM","x":"' + b"x" * (step - 25)
        while sent < total:
            wire.send(b"%x\r\n%b\r\n" % (step, piece) if chunked else piece)
            sent += step
            piece = b"x" * step

    check(refused(script), odd())
    assert MIB <= sent < total / 5


# --- whatever Python's json refuses is refused -----------------------------------


class Echo:
    """A server that answers the next call with whatever lies in `body`."""

    def __init__(self) -> None:
        self.body = b""
        self._server = RawServer(self._serve, tls=False)
        self._client = self._server.client()

    def _serve(self, wire: Wire) -> None:
        while True:
            wire.read_request()
            wire.send(http(self.body))

    def ask(self, body: bytes) -> dict[str, Any] | espresso.EspressoError:
        self.body = body
        try:
            return dict(self._client.cancel_all(SYMBOL))
        except espresso.EspressoError as error:
            return error

    def close(self) -> None:
        self._client.close()
        self._server.close()


@pytest.fixture(scope="module")
def echo() -> Iterator[Echo]:
    running = Echo()
    yield running
    running.close()


def refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def strict(body: bytes) -> Any:
    """What Python's json reads in the UTF-8 that JSON is made of (RFC 8259)."""
    return json.loads(body.decode("utf-8"), parse_constant=refuse_constant)


def check_against_json(
    said: dict[str, Any] | espresso.EspressoError, body: bytes
) -> None:
    try:
        document = strict(body)
    except (ValueError, RecursionError):
        document = None
    if isinstance(said, dict):
        assert isinstance(document, dict), f"{body!r} was read as {said}"
        assert said == filled_in(document)
    elif isinstance(said, espresso.APIError):
        assert isinstance(document, dict), f"{body!r} was read as {said!r}"
        assert document["code"] == said.code
    else:
        assert type(said) is espresso.ResponseError
        assert said.outcome == "unknown"


def filled_in(document: dict[str, Any]) -> dict[str, Any]:
    """The document as a result: a symbol and a list of ids in any case."""
    result = dict(document)
    if result.get("symbol") is None:
        result["symbol"] = SYMBOL
    if result.get("order_ids") is None:
        result["order_ids"] = []
    return result


SEEDS = [DONE, *(body for body, _ in GOOD_BODIES.values() if len(body) < 200)]
SEEDS += [body for body in ODD_BODIES.values() if len(body) < 200]
SCRAPS = [bytes([n]) for n in range(256)]
SCRAPS += [b'"code":4200', b'"order_ids":[]', b"null", b"\\u0000", b"\\ud83d", b"1e5"]
SCRAPS += [b"\xef\xbb\xbf", b"\xe2\x82\xac", b"-", b"0", b"[[", b"]]", b"{}", DONE]


def mutilate(body: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    """Cut `length` bytes out at a place, and put a scrap there."""
    for place, length, scrap in edits:
        at = place % (len(body) + 1)
        body = body[:at] + scrap + body[at + length :]
    return body


EDIT = st.tuples(
    st.integers(0, 200), st.sampled_from([0, 0, 1, 2, 7]), st.sampled_from(SCRAPS)
)
# The fixtures of conftest clean an environment that these examples do not touch.
SEARCH = settings(
    max_examples=400,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@SEARCH
@given(st.sampled_from(SEEDS), st.lists(EDIT, min_size=1, max_size=3))
@example(DONE, [(len(DONE), 0, b" \n")])
@example(b"", [(0, 0, DONE)])
def test_mutilated_bodies(
    echo: Echo, seed: bytes, edits: list[tuple[int, int, bytes]]
) -> None:
    body = mutilate(seed, edits)
    check_against_json(echo.ask(body), body)


# What both sides hold exactly: no NUL, no lone surrogate, no integer above 2^53.
TEXT = st.text(st.characters(min_codepoint=1, exclude_categories=["Cs"]), max_size=12)
SCALAR = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False, width=32)
    | TEXT
)
VALUE = st.recursive(
    SCALAR, lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner), max_leaves=8
)
RESERVED = {"symbol", "order_ids", "code", "error"}
EXTRAS = st.dictionaries(TEXT.filter(lambda name: name not in RESERVED), VALUE)


@settings(SEARCH, max_examples=150)
@given(st.lists(TEXT, max_size=4), EXTRAS, st.booleans())
def test_every_promised_body_is_believed(
    echo: Echo, ids: list[str], extras: dict[str, Any], ascii_only: bool
) -> None:
    document = {"order_ids": ids, **extras}
    body = json.dumps(document, ensure_ascii=ascii_only).encode()
    assert echo.ask(body) == filled_in(document)


def test_bodies_of_nothing_but_noise(echo: Echo) -> None:
    dice = random.Random(1)
    alphabet = b'{}[]",:\\u0tfn1-e. \n' + bytes(range(0x80, 0x88))
    for _ in range(200):
        body = bytes(dice.choice(alphabet) for _ in range(dice.randrange(40)))
        check_against_json(echo.ask(body), body)


# --- error bodies ----------------------------------------------------------------


def bad_request(outcome: str = "unknown", code: int | None = None) -> Error:
    return Error(espresso.BadRequestError, outcome, code, status=400)


NO_CODE = bad_request()
ERROR_BODIES = {
    "string": (b'{"code":"4200","error":"no"}', NO_CODE),
    "float": (b'{"code":4200.5,"error":"no"}', NO_CODE),
    "huge": (b'{"code":123456789012345678901234567890,"error":"no"}', NO_CODE),
    "huge exponent": (b'{"code":1e999,"error":"no"}', NO_CODE),
    "above 16 bits": (b'{"code":65536,"error":"no"}', NO_CODE),
    "wraps to 4200 in 16 bits": (b'{"code":69736,"error":"no"}', NO_CODE),
    "wraps to 4200 in 32 bits": (b'{"code":4294971496,"error":"no"}', NO_CODE),
    "below 16 bits": (b'{"code":-32769,"error":"no"}', NO_CODE),
    "negative": (
        b'{"code":-4200,"error":"no"}',
        Error(espresso.APIError, "unknown", -4200),
    ),
    "zero": (b'{"code":0,"error":"no"}', Error(espresso.APIError, "unknown", 0)),
    "true": (b'{"code":true,"error":"no"}', NO_CODE),
    "null": (b'{"code":null,"error":"no"}', NO_CODE),
    "list": (b'{"code":[4200],"error":"no"}', NO_CODE),
    "object": (b'{"code":{"code":4200},"error":"no"}', NO_CODE),
    "twice": (b'{"code":4200,"code":0}', NO_CODE),
    "twice the same": (b'{"code":4200,"code":4200}', NO_CODE),
    "in capitals": (b'{"CODE":4200,"error":"no"}', NO_CODE),
    "cut at a NUL": (rb'{"code\u0000":4200,"error":"no"}', NO_CODE),
    "within": (b'{"error":{"code":4200}}', NO_CODE),
    "leading zero": (b'{"code":04200,"error":"no"}', NO_CODE),
    "second document": (b'{"code":4200}{"code":4200}', NO_CODE),
    "text after": (b'{"code":4200} ok', NO_CODE),
    "truncated": (b'{"code":4200,"error":"Order not fo', NO_CODE),
    "byte-order mark": (b'\xef\xbb\xbf{"code":4200}', NO_CODE),
    "invalid UTF-8": (b'{"code":4200,"error":"\xff"}', NO_CODE),
    "array": (b'[{"code":4200}]', NO_CODE),
    "body null": (b"null", NO_CODE),
    "body empty": (b"", NO_CODE),
    "body a string": (b'"code"', NO_CODE),
    "body a page": (b"<html>no</html>", NO_CODE),
    "with ids": (
        b'{"code":4200,"order_ids":["a"]}',
        odd(status=400),
    ),
    "of another symbol": (
        b'{"code":4200,"symbol":"NIGHTUSDM"}',
        odd(status=400),
    ),
    "of this symbol": (
        b'{"code":4200,"symbol":"adausdm"}',
        Error(espresso.OrderNotFoundError, "rejected", 4200),
    ),
    "with null ids": (
        b'{"code":4200,"order_ids":null}',
        Error(espresso.OrderNotFoundError, "rejected", 4200),
    ),
    "without words": (
        b'{"code":4200}',
        Error(espresso.OrderNotFoundError, "rejected", 4200, says="nothing was open"),
    ),
    "words null": (
        b'{"code":4106,"error":null}',
        Error(espresso.InvalidSymbolError, "rejected", 4106),
    ),
    "words a number": (
        b'{"code":4106,"error":7}',
        Error(espresso.InvalidSymbolError, "rejected", 4106),
    ),
    "words empty": (
        b'{"code":4106,"error":""}',
        Error(espresso.InvalidSymbolError, "rejected", 4106),
    ),
    "words of 100 kB": (
        b'{"code":4106,"error":"%b"}' % (b"w" * 100_000),
        Error(espresso.InvalidSymbolError, "rejected", 4106, says="wwww"),
    ),
    "text of 100 kB": (b"t" * 100_000, bad_request()),
    "100,000 deep": (b'{"code":4200,"x":' + b"[" * 100_000, NO_CODE),
    "2 MiB": (b"t" * (2 * MIB), odd(status=400)),
}


@pytest.mark.parametrize(("body", "expected"), ERROR_BODIES.values(), ids=ERROR_BODIES)
def test_error_body(body: bytes, expected: Error) -> None:
    check(refused(answering(http(body, 400))), expected)


@pytest.mark.parametrize(
    "body",
    [body for body, expected in ERROR_BODIES.values() if expected.code != 4200],
    ids=[name for name, row in ERROR_BODIES.items() if row[1].code != 4200],
)
def test_only_a_clean_4200_counts_as_nothing_open(body: bytes) -> None:
    refused(answering(http(body, 400)), missing_ok=True)


HOSTILE = "a\x1b[31mb\x07\r\nc\x00d\u202ee\u2066f\x9bg\u200bh\x7f"


@pytest.mark.parametrize("as_json", [True, False], ids=["JSON", "text"])
def test_words_of_the_server_cannot_play_tricks(as_json: bool) -> None:
    words = HOSTILE if not as_json else HOSTILE.replace("\x00", "")
    body = json.dumps({"error": words, "code": 4106}) if as_json else words
    error = refused(answering(http(body.encode(), 400)))
    assert str(error).isprintable()
    assert error.message.isprintable()
    for letter in "abcdefgh":
        assert letter in error.message


def test_words_in_another_encoding() -> None:
    error = refused(answering(http("ungültig".encode("latin-1"), 400)))
    assert error.message == error.body == "ung\ufffdltig"


def test_the_body_is_kept_as_it_came() -> None:
    body = "upstream\n\tconnect error € 😀"
    error = refused(answering(http(body.encode(), 503)))
    assert error.body == body


def test_a_long_body_is_cut_between_characters() -> None:
    error = refused(answering(http(b"x" + "€".encode() * 3000, 503)))
    assert 4000 <= len(error.body.encode()) <= 4096
    assert set(error.body) == {"x", "€"}


# --- statuses without a code -----------------------------------------------------


def by_status(
    kind: type[espresso.EspressoError], outcome: str, retryable: bool = False
) -> Error:
    return Error(kind, outcome, retryable=retryable)


STATUSES = {
    **dict.fromkeys((201, 202, 203, 206, 207, 226, 299), odd(status=None)),
    **dict.fromkeys(
        (300, 301, 302, 303, 305, 307, 308),
        by_status(espresso.ResponseError, "rejected"),
    ),
    400: by_status(espresso.BadRequestError, "unknown"),
    401: by_status(espresso.AuthenticationError, "rejected"),
    402: by_status(espresso.APIError, "unknown"),
    403: by_status(espresso.PermissionDeniedError, "rejected"),
    404: by_status(espresso.APIError, "rejected"),
    405: by_status(espresso.APIError, "rejected"),
    406: by_status(espresso.APIError, "unknown"),
    408: by_status(espresso.APIError, "unknown", True),
    409: by_status(espresso.APIError, "unknown"),
    410: by_status(espresso.APIError, "unknown"),
    413: by_status(espresso.APIError, "rejected"),
    415: by_status(espresso.APIError, "rejected"),
    418: by_status(espresso.APIError, "unknown"),
    422: by_status(espresso.BadRequestError, "unknown"),
    425: by_status(espresso.APIError, "unknown", True),
    429: by_status(espresso.RateLimitError, "rejected", True),
    431: by_status(espresso.APIError, "rejected"),
    451: by_status(espresso.APIError, "unknown"),
    499: by_status(espresso.APIError, "unknown"),
    500: by_status(espresso.ServerError, "unknown", True),
    501: by_status(espresso.ServerError, "unknown", True),
    502: by_status(espresso.UnavailableError, "unknown", True),
    503: by_status(espresso.UnavailableError, "unknown", True),
    504: by_status(espresso.UnavailableError, "unknown", True),
    505: by_status(espresso.ServerError, "unknown", True),
    520: by_status(espresso.ServerError, "unknown", True),
    599: by_status(espresso.ServerError, "unknown", True),
    600: odd(status=None),
    999: odd(status=None),
}


# A success in the body changes nothing, nor does a page.
@pytest.mark.parametrize("body", [DONE, b"<html>", b""], ids=["done", "page", "empty"])
@pytest.mark.parametrize("status", STATUSES)
def test_status_without_a_code(status: int, body: bytes) -> None:
    error = refused(answering(http(body, status)))
    check(error, STATUSES[status])
    assert error.status_code == status


@pytest.mark.parametrize("status", [204, 304])
def test_status_that_has_no_body(status: int) -> None:
    error = refused(answering(http(b"", status, sized=False)))
    outcome = "unknown" if status == 204 else "rejected"
    check(error, Error(espresso.ResponseError, outcome, status=status))


# --- codes: they decide before the status ----------------------------------------

CODES = {
    4000: (espresso.BadRequestError, "rejected", False),
    4010: (espresso.AuthenticationError, "rejected", False),
    4050: (espresso.APIError, "unknown", False),
    4100: (espresso.BadRequestError, "unknown", False),
    4106: (espresso.InvalidSymbolError, "rejected", False),
    4112: (espresso.BadRequestError, "unknown", False),
    4200: (espresso.OrderNotFoundError, "rejected", False),
    4201: (espresso.APIError, "unknown", False),
    4202: (espresso.APIError, "unknown", False),
    4290: (espresso.RateLimitError, "rejected", True),
    4300: (espresso.APIError, "unknown", False),
    4302: (espresso.APIError, "unknown", False),
    4400: (espresso.BadRequestError, "rejected", False),
    4402: (espresso.BadRequestError, "unknown", False),
    4404: (espresso.BadRequestError, "rejected", False),
    4405: (espresso.BadRequestError, "rejected", False),
    4406: (espresso.BadRequestError, "rejected", False),
    4407: (espresso.BadRequestError, "unknown", False),
    5000: (espresso.ServerError, "unknown", True),
    5001: (espresso.UnavailableError, "unknown", True),
    5002: (espresso.TradingLockedError, "rejected", True),
    # not in the table: their family, or none
    4113: (espresso.BadRequestError, "unknown", False),
    4199: (espresso.BadRequestError, "unknown", False),
    4203: (espresso.APIError, "unknown", False),
    4303: (espresso.APIError, "unknown", False),
    4499: (espresso.BadRequestError, "unknown", False),
    4500: (espresso.APIError, "unknown", False),
    5003: (espresso.ServerError, "unknown", False),
    5999: (espresso.ServerError, "unknown", False),
    6000: (espresso.APIError, "unknown", False),
    1: (espresso.APIError, "unknown", False),
    65535: (espresso.APIError, "unknown", False),
    -32768: (espresso.APIError, "unknown", False),
}


@pytest.mark.parametrize("status", [200, 302, 400, 401, 403, 429, 500, 503])
@pytest.mark.parametrize("code", CODES)
def test_code_decides_before_the_status(
    echo_status: Any, code: int, status: int
) -> None:
    kind, outcome, retryable = CODES[code]
    error = echo_status(status, json.dumps({"error": "words", "code": code}).encode())
    check(error, Error(kind, outcome, code, retryable, status, f"[{code}] words"))


@pytest.fixture(scope="module")
def echo_status() -> Iterator[Any]:
    answer = b""

    def script(wire: Wire) -> None:
        while True:
            wire.read_request()
            wire.send(answer)

    with RawServer(script, tls=False) as server, server.client() as client:

        def ask_it(status: int, body: bytes) -> espresso.EspressoError:
            nonlocal answer
            answer = http(body, status)
            with pytest.raises(espresso.EspressoError) as caught:
                client.cancel_all(SYMBOL)
            return caught.value

        yield ask_it


@pytest.mark.parametrize("code", [1, 4203, 4299, 9999, -1])
def test_404_with_an_unlisted_code_is_order_not_found(code: int) -> None:
    body = json.dumps({"error": "Order Not Found", "code": code}).encode()
    expected = Error(espresso.OrderNotFoundError, "unknown", code, status=404)
    check(refused(answering(http(body, 404))), expected)
    # 4200 alone is "nothing open".
    check(refused(answering(http(body, 404)), missing_ok=True), expected)


# --- framing ---------------------------------------------------------------------

SIZE = f"Content-Length: {len(DONE)}"
CHUNKED = "Transfer-Encoding: chunked"


def chunks(*pieces: bytes, trailer: bytes = b"") -> bytes:
    data = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return data + b"0\r\n" + trailer + b"\r\n"


def framed(body: bytes, *headers: str) -> bytes:
    return http(body, 200, *headers, sized=False)


GOOD_FRAMES = {
    "one Content-Length": framed(DONE, SIZE),
    "small letters": framed(DONE, SIZE.lower()),
    "capitals": framed(DONE, SIZE.upper()),
    "white space": framed(DONE, SIZE.replace(": ", ": \t ") + "  "),
    "chunked": framed(chunks(DONE[:7], DONE[7:]), CHUNKED),
    "chunked byte by byte": framed(
        chunks(*(DONE[i : i + 1] for i in range(len(DONE)))), CHUNKED
    ),
    "chunk extension": framed(
        b"%x;a=b\r\n%b\r\n0\r\n\r\n" % (len(DONE), DONE), CHUNKED
    ),
    "trailer": framed(chunks(DONE, trailer=b"X-Sum: 1\r\n"), CHUNKED),
    "no reason": http(DONE).replace(b" Some Reason", b""),
    "empty reason": http(DONE).replace(b"Some Reason", b""),
    "HTTP/1.0": http(DONE).replace(b"HTTP/1.1", b"HTTP/1.0"),
    "Connection: close": http(DONE, 200, "Connection: close"),
    "100 first": b"HTTP/1.1 100 Continue\r\n\r\n" + http(DONE),
    "103 first": b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + http(DONE),
    "100 and 103 first": b"HTTP/1.1 100 Continue\r\n\r\n"
    b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + http(DONE),
    "102 with a length first": b"HTTP/1.1 102 Processing\r\nContent-Length: 0\r\n\r\n"
    + http(DONE),
    "a head of 50 kB": http(DONE, 200, *(f"X-{n}: {'x' * 1000}" for n in range(50))),
}


@pytest.mark.parametrize("data", GOOD_FRAMES.values(), ids=GOOD_FRAMES)
def test_good_framing(data: bytes) -> None:
    assert ask(answering(data)) == RESULT


BROKEN_FRAMES = {
    "two lengths": framed(DONE, SIZE, "Content-Length: 5"),
    "two lengths, the right one last": framed(DONE, "Content-Length: 5", SIZE),
    "the same length twice": framed(DONE, SIZE, SIZE),
    "two lengths in a line": framed(DONE, f"{SIZE}, 5"),
    "length, then chunked": framed(chunks(DONE), SIZE, CHUNKED),
    "chunked, then length": framed(chunks(DONE), CHUNKED, SIZE),
    "chunked twice": framed(chunks(DONE), CHUNKED, CHUNKED),
    "length and identity": framed(DONE, SIZE, "Transfer-Encoding: identity"),
    "chunked in a list": framed(chunks(DONE), "Transfer-Encoding: chunked, chunked"),
    "packed chunks": framed(
        chunks(gzip.compress(DONE)), "Transfer-Encoding: gzip, chunked"
    ),
}


@pytest.mark.parametrize("end", ["hold", "fin"])
@pytest.mark.parametrize("data", BROKEN_FRAMES.values(), ids=BROKEN_FRAMES)
def test_broken_framing(data: bytes, end: str) -> None:
    error = refused(ending(data, end), timeout=1)
    # Which of these it is may hang on the moment of the end.
    assert isinstance(error, (espresso.ResponseError, espresso.TransportError))
    assert (error.outcome, error.retryable) == ("unknown", True)


NO_LENGTHS = {
    "no length": framed(DONE),
    "no length, said to close": framed(DONE, "Connection: close"),
    "blank before the colon": framed(DONE, SIZE.replace(":", " :")),
    "identity": framed(DONE, "Transfer-Encoding: identity"),
    "HTTP/1.0 without a length": framed(DONE).replace(b"HTTP/1.1", b"HTTP/1.0"),
}


@pytest.mark.parametrize("data", NO_LENGTHS.values(), ids=NO_LENGTHS)
def test_an_answer_that_only_the_end_delimits(data: bytes) -> None:
    """Who cuts the connection would decide what the exchange said."""
    error = refused(ending(data, "fin"))
    assert type(error) in (espresso.ResponseError, espresso.ConnectionLostError)
    assert (error.outcome, error.retryable) == ("unknown", True)


BAD_LENGTHS = ["-1", "-46", "abc", "", "0x2e", "46abc", "4 6", "9" * 40, "+46"]


@pytest.mark.parametrize("length", BAD_LENGTHS)
def test_a_length_that_is_no_number(length: str) -> None:
    """Whatever it is read as: never a success."""
    error = refused(ending(framed(DONE, f"Content-Length: {length}"), "fin"))
    assert type(error) in (espresso.ResponseError, espresso.ConnectionLostError)
    assert error.outcome == "unknown"


NOT_HTTP = {
    "garbage": b"\x00\x01\x02garbage\r\n\r\n" * 10,
    "HTTP/0.9": b"<html>" + DONE + b"</html>",
    "naked JSON": DONE,
    "SSH": b"SSH-2.0-OpenSSH_9.2\r\n",
    "ICY": http(DONE).replace(b"HTTP/1.1", b"ICY"),
    "HTTP/3": http(DONE).replace(b"HTTP/1.1", b"HTTP/3.0"),
    "status of two digits": http(DONE).replace(b" 200 ", b" 20 "),
    "status of four digits": http(DONE).replace(b" 200 ", b" 2000 "),
    "status of letters": http(DONE).replace(b" 200 ", b" OK "),
}


@pytest.mark.parametrize("data", NOT_HTTP.values(), ids=NOT_HTTP)
def test_what_is_not_http(data: bytes) -> None:
    check(refused(ending(data, "fin")), odd(status=None, retryable=True))


LARGE_HEADS = {
    "many headers": http(DONE, 200, *(f"X-{n}: {'x' * 900}" for n in range(400))),
    "one header": http(DONE, 200, f"X: {'x' * 400_000}"),
    "many interim heads": b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 9000
    + http(DONE),
}


@pytest.mark.parametrize("data", LARGE_HEADS.values(), ids=LARGE_HEADS)
def test_a_head_that_is_too_large(data: bytes) -> None:
    assert len(data) > 300 * 1024
    check(refused(answering(data)), odd(status=None, retryable=True))


def test_endless_interim_heads_end_with_the_deadline() -> None:
    def script(wire: Wire) -> None:
        wire.read_request()
        while True:
            wire.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            time.sleep(0.02)

    error = refused(script, timeout=0.3)
    assert type(error) is espresso.RequestTimeoutError
    assert error.outcome == "unknown"


def test_an_upgrade_nobody_asked_for() -> None:
    data = (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"
    )
    error = refused(ending(data + DONE, "fin"))
    assert type(error) in (espresso.ResponseError, espresso.ConnectionLostError)
    assert error.outcome == "unknown"


def test_bytes_that_are_packed_are_not_unpacked() -> None:
    data = http(gzip.compress(DONE), 200, "Content-Encoding: gzip")
    check(refused(answering(data)), odd())


@pytest.mark.parametrize("more", [b"x", http(b'{"order_ids":["poison"]}')])
def test_bytes_after_the_answer_cost_the_connection(more: bytes) -> None:
    scripts = (answering(http(DONE) + more), answering(http(DONE)))
    with RawServer(*scripts, tls=False) as server, server.client() as client:
        assert client.cancel_all(SYMBOL) == RESULT
        assert client.cancel_all(SYMBOL) == RESULT
        assert server.post_connections == [0, 1]


# --- Retry-After -----------------------------------------------------------------


def limited(*headers: str, status: int = 429) -> bytes:
    return http(b'{"error":"slow down","code":4290}', status, *headers)


def in_seconds(seconds: float) -> str:
    return formatdate(time.time() + seconds, usegmt=True)


@pytest.mark.parametrize("status", [400, 429])
def test_retry_after_that_does_not_fit_is_raised_at_once(status: int) -> None:
    script = answering(limited("Retry-After: 30", status=status))
    error = refused(script, max_retries=2)
    assert isinstance(error, espresso.RateLimitError)
    assert error.retry_after == 30
    assert (error.attempts, error.outcome, error.retryable) == (1, "rejected", True)
    assert error.elapsed < 5


def test_retry_after_as_a_date() -> None:
    error = refused(answering(limited(f"Retry-After: {in_seconds(30)}")), max_retries=2)
    assert isinstance(error, espresso.RateLimitError)
    assert error.retry_after is not None
    assert 25 <= error.retry_after <= 30
    assert error.attempts == 1


NO_WAITS = ["", "soon", "1.5", "-1", "1e3", "0x10", "Thu, 99 Foo 2026 00:00:00 GMT"]


@pytest.mark.parametrize("value", NO_WAITS)
def test_retry_after_that_says_nothing(value: str) -> None:
    """Then the window of the limit counts: 2 s, which do not fit here."""
    script = answering(limited(f"Retry-After: {value}"))
    error = refused(script, max_retries=2, timeout=1.5)
    assert isinstance(error, espresso.RateLimitError)
    assert error.retry_after is None
    assert error.attempts == 1


def test_no_retry_after_on_a_plain_429() -> None:
    error = refused(
        answering(http(b"Too Many Requests", 429)), max_retries=2, timeout=1
    )
    assert isinstance(error, espresso.RateLimitError)
    assert error.retry_after is None
    assert error.code is None


@pytest.mark.parametrize(
    "value", ["9" * 20, "9" * 400, in_seconds(10**9)], ids=["20", "400", "a date"]
)
def test_retry_after_beyond_all_measure(value: str) -> None:
    error = refused(answering(limited(f"Retry-After: {value}")), max_retries=2)
    assert isinstance(error, espresso.RateLimitError)
    assert error.retry_after is None or error.retry_after > 10**6
    assert error.attempts == 1


@pytest.mark.parametrize("value", ["0", in_seconds(-100)], ids=["0", "a date"])
def test_retry_after_that_is_over(value: str) -> None:
    scripts = answering(limited(f"Retry-After: {value}"), http(DONE))
    with RawServer(scripts, tls=False) as server:
        with server.client(max_retries=1, timeout=1.5) as client:
            assert client.cancel_all(SYMBOL) == RESULT
        assert len(server.posts) == 2


@pytest.mark.parametrize(
    ("header", "least"), [("Retry-After: 1", 0.99), ("X-Nothing: 1", 1.99)]
)
def test_the_wait_is_waited(header: str, least: float) -> None:
    times = []

    def script(wire: Wire) -> None:
        for answer in (limited(header), http(DONE)):
            wire.read_request()
            times.append(time.monotonic())
            wire.send(answer)
        wire.hold()

    with (
        RawServer(script, tls=False) as server,
        server.client(max_retries=1) as client,
    ):
        assert client.cancel_all(SYMBOL) == RESULT
    assert times[1] - times[0] >= least
