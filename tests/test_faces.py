"""One table, every face: lists, confirm, the lost reply, deadlines, and arguments.

A case names what happens to the first requests, what the call is asked for, and what
must come of it. The contract's sentences stand beside the cases.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

import espresso
from espresso.sandbox import Exchange
from tests.faces import FACES, Face
from tests.rawserver import DONE, RawServer, Wire, http

pytestmark = pytest.mark.alone

SYMBOL = "ADAUSDM"
OVERRUN = 0.5  # seconds, on a busy machine; promised are 0.05


@pytest.fixture(params=FACES, ids=lambda face: face.name)
def face(request: pytest.FixtureRequest) -> Face:
    chosen: Face = request.param
    return chosen


@pytest.fixture(scope="module")
def shared() -> Iterator[Exchange]:
    with Exchange(rate=None) as running:
        yield running


@pytest.fixture
def ex(shared: Exchange) -> Exchange:
    shared.reset()
    return shared


Setup = Callable[[Exchange], object]


@dataclass(frozen=True)
class Case:
    """`orders` are open, `faults` strike the requests in turn."""

    orders: int = 0
    faults: tuple[str | Setup, ...] = ()
    call: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    posts: int = 1
    # What is expected: an exception with these attributes, or a result.
    kind: type[Exception] | None = None
    says: dict[str, Any] = field(default_factory=dict)
    ids: int = 0
    lost: bool = False


def run(case: Case, face: Face, ex: Exchange) -> tuple[Any, Exception | None]:
    ex.place(SYMBOL, case.orders)
    for fault in case.faults:
        if callable(fault):
            fault(ex)
        else:
            ex.fault(fault)
    client = face.client(ex, **case.options)
    try:
        return face.press(client, SYMBOL, **case.call), None
    except Exception as error:
        return None, error


def check(case: Case, face: Face, ex: Exchange) -> None:
    placed = set(ex.open_orders(SYMBOL))
    result, error = run(case, face, ex)
    assert len(ex.calls) == case.posts
    cancelled = {name for call in ex.calls for name in call.cancelled} - placed
    if case.kind is None:
        assert error is None, repr(error)
        assert set(result) == {"symbol", "order_ids"} | (
            {"lost_reply"} if case.lost else set()
        )
        assert result["symbol"] == SYMBOL
        assert len(result["order_ids"]) == case.ids
        assert set(result["order_ids"]) <= cancelled
        if not case.lost:
            assert set(result["order_ids"]) == cancelled
        assert result.get("lost_reply", True) is True
        return
    assert type(error) is case.kind, repr(error)
    says = {"attempts": case.posts, "symbol": SYMBOL, "order_ids": [], **case.says}
    if isinstance(says["order_ids"], int):
        count = says.pop("order_ids")
        assert len(error.order_ids) == len(set(error.order_ids)) == count  # type: ignore[attr-defined]
        assert set(error.order_ids) <= cancelled  # type: ignore[attr-defined]
    assert {name: getattr(error, name) for name in says} == says


def reply(name: str) -> Setup:
    return lambda ex: ex.reply(name)


def late(after: float = 0.0, times: int | None = 1) -> Setup:
    return lambda ex: ex.fault("late_order", times, after=after)


def fine(ex: Exchange) -> None:
    """No fault: this request is answered as usual."""
    ex.fault("slow", seconds=0)


EMPTY_200 = reply("200_null_ids")
ONCE = {"max_retries": 0}
CONFIRM = {"confirm": True}

LOST_REPLY = {
    # "if any earlier attempt of the call ended unknown and the call then succeeds, by
    # a 200 or a 4200, the result carries one more member"
    "lost, then 4200": Case(3, ("reset_after_read",), posts=2, lost=True),
    "lost, then 200": Case(3, ("envoy_503",), posts=2, ids=3, lost=True),
    "half done, then 200": Case(
        3, (lambda ex: ex.fault("5000_as_400", cancel=1),), posts=2, ids=2, lost=True
    ),
    "truncated, then 4200": Case(3, ("truncate",), posts=2, lost=True),
    "twice lost": Case(2, ("reset_after_read", "reset"), posts=3, lost=True),
    # "The member is there only when true": a refusal loses nothing.
    "locked, then 200": Case(2, ("locked_5002",), posts=2, ids=2),
    "nothing of it": Case(2, ids=2),
    # "a plain first 4200 raises, unless missing_ok"
    "nothing open": Case(
        kind=espresso.OrderNotFoundError,
        says={"outcome": "rejected", "code": 4200, "retryable": False},
    ),
    "nothing open, and fine": Case(call={"missing_ok": True}),
    "locked, then nothing open": Case(
        faults=("locked_5002",),
        posts=2,
        kind=espresso.OrderNotFoundError,
        says={"outcome": "rejected"},
    ),
    # "The outcome of a call speaks of all its attempts"
    "lost, then refused": Case(
        2,
        ("reset_after_read", reply("401_code_4010")),
        posts=2,
        kind=espresso.AuthenticationError,
        says={"outcome": "unknown", "code": 4010, "retryable": False},
    ),
    "lost, and no more tries": Case(
        2,
        ("reset_after_read",),
        ONCE,
        kind=espresso.ConnectionLostError,
        says={"outcome": "unknown", "code": None, "retryable": True},
    ),
}

CONFIRMED = {
    # "cancel, then again until a 4200"; "implies missing_ok"
    "some open": Case(3, call=CONFIRM, posts=2, ids=3),
    "none open": Case(call=CONFIRM, posts=1),
    "an order that comes late": Case(3, (late(),), CONFIRM, posts=3, ids=4),
    "two that come late": Case(1, (late(), late()), CONFIRM, posts=4, ids=3),
    "a 200 without ids is no proof": Case(
        2, (fine, EMPTY_200), CONFIRM, posts=3, ids=2
    ),
    "missing_ok beside it": Case(
        1, call={"confirm": True, "missing_ok": False}, posts=2, ids=1
    ),
    # "if any earlier attempt or round of the call ended unknown"
    "lost in the first round": Case(
        3, ("reset_after_read",), CONFIRM, posts=2, lost=True
    ),
    "lost in the second": Case(
        3, (fine, "envoy_503"), CONFIRM, posts=3, ids=3, lost=True
    ),
    # "Each round has its own max_retries"
    "a retry in each round": Case(
        3,
        ("envoy_503", fine, "envoy_503"),
        {"confirm": True, "max_retries": 1},
        posts=4,
        ids=3,
        lost=True,
    ),
    # "Every error of a confirm call carries .order_ids"
    "refused in the second round": Case(
        3,
        (fine, "403_empty"),
        CONFIRM,
        posts=2,
        kind=espresso.PermissionDeniedError,
        says={"order_ids": 3, "outcome": "rejected", "retryable": False},
    ),
    "refused in the first": Case(
        3,
        ("403_empty",),
        CONFIRM,
        kind=espresso.PermissionDeniedError,
        says={"outcome": "rejected"},
    ),
    "silence in the second round": Case(
        3,
        (fine, "hang"),
        {"confirm": True, "timeout": 0.5, "max_retries": 0},
        posts=2,
        kind=espresso.RequestTimeoutError,
        says={"order_ids": 3, "outcome": "unknown", "retryable": True},
    ),
    # "StillOpenError only if the last answer was still a 200 with ids when the time
    # was over"
    "never at an end": Case(
        1,
        (late(times=None),),
        {"confirm": True, "timeout": 1.0},
        posts=10,
        kind=espresso.StillOpenError,
        says={"order_ids": 10, "outcome": "unknown", "retryable": True},
    ),
    # "else the last attempt's own error"
    "an error at the end": Case(
        1,
        (late(), late(), "html_200"),
        CONFIRM,
        posts=3,
        kind=espresso.ResponseError,
        says={"order_ids": 2, "outcome": "unknown"},
    ),
}


@pytest.mark.parametrize("case", LOST_REPLY.values(), ids=LOST_REPLY)
def test_lost_reply(case: Case, face: Face, ex: Exchange) -> None:
    check(case, face, ex)


@pytest.mark.parametrize("case", CONFIRMED.values(), ids=CONFIRMED)
def test_confirm(case: Case, face: Face, ex: Exchange) -> None:
    check(case, face, ex)


def test_a_lost_reply_is_logged_and_shown(
    face: Face, ex: Exchange, caplog: pytest.LogCaptureFixture
) -> None:
    events: list[espresso.Event] = []
    client = face.client(ex, on_event=events.append)
    ex.fault("reset_after_read")
    with caplog.at_level(logging.WARNING, "espresso"):
        face.press(client, SYMBOL)
    assert [(event.attempt, event.lost_reply) for event in events] == [
        (1, False),
        (2, True),
    ]
    assert [event.outcome for event in events] == ["unknown", "done"]
    assert "lost" in caplog.text


def test_rounds_are_attempts_to_those_who_watch(
    face: Face, ex: Exchange, caplog: pytest.LogCaptureFixture
) -> None:
    """A round that follows is no retry: nothing is logged of it."""
    events: list[espresso.Event] = []
    ex.place(SYMBOL, 2)
    with caplog.at_level(logging.WARNING, "espresso"):
        face.press(face.client(ex, on_event=events.append), SYMBOL, confirm=True)
    assert [(e.attempt, e.status_code, e.code) for e in events] == [
        (1, 200, None),
        (2, 400, 4200),
    ]
    assert caplog.text == ""


def test_nothing_sent_is_not_said_after_a_round(face: Face, ex: Exchange) -> None:
    """The first round was carried out, the second found no connection: whatever else
    the outcome is, it is not "not_sent"."""
    client = face.client(ex, max_retries=0)
    face.warm_up(client)
    ex.reply(http(DONE, 200, "Connection: close"), close=True)
    ex.fault("connect_reset")
    with pytest.raises(espresso.ConnectError) as caught:
        face.press(client, SYMBOL, confirm=True)
    assert caught.value.outcome == "unknown"
    assert len(caught.value.order_ids) == 2
    assert caught.value.attempts == 2


def test_the_text_counts_rounds_without_an_end(face: Face, ex: Exchange) -> None:
    """ "of M" only without confirm."""
    ex.place(SYMBOL, 1)
    ex.fault("late_order", after=0)
    ex.fault("403_empty")
    client = face.client(ex)
    with pytest.raises(espresso.PermissionDeniedError) as caught:
        face.press(client, SYMBOL, confirm=True)
    assert "attempt 2," in str(caught.value)
    ex.fault("403_empty")
    with pytest.raises(espresso.PermissionDeniedError, match="attempt 1 of 3,"):
        face.press(client, SYMBOL)


# --- deadlines --------------------------------------------------------------------


@dataclass(frozen=True)
class Late:
    """A call that its time-out ends."""

    fault: str
    call: dict[str, Any]
    outcome: str
    lasts: float
    options: dict[str, Any] = field(default_factory=dict)
    posts: int = 1
    attempts: int = 1


DEADLINES = {
    "the call's own": Late("hang", {"timeout": 0.3, **ONCE}, "unknown", 0.12),
    "the client's": Late("hang", ONCE, "unknown", 0.12, {"timeout": 0.3}),
    # "0.4 × timeout for the first attempt; a later one may run to the deadline"
    "two attempts": Late(
        "hang", {"timeout": 0.6, "max_retries": 1}, "unknown", 0.6, {}, 2, 2
    ),
    "a number bounds each": Late(
        "hang",
        {"timeout": 2, "max_retries": 1},
        "unknown",
        0.45,  # and up to 0.05 of jitter
        {"attempt_timeout": 0.2},
        2,
        2,
    ),
    "in a body": Late("drip", {"timeout": 0.4, **ONCE}, "unknown", 0.16),
    "before TLS stood": Late("tls_hang", {"timeout": 0.4, **ONCE}, "not_sent", 0.16),
    "connect_timeout": Late(
        "tls_hang",
        {"timeout": 5, "max_retries": 0},
        "not_sent",
        0.2,
        {"connect_timeout": 0.2},
    ),
    "confirm": Late("hang", {"timeout": 0.4, **ONCE, **CONFIRM}, "unknown", 0.16),
}


@pytest.mark.parametrize("row", DEADLINES.values(), ids=DEADLINES)
def test_deadline(row: Late, face: Face, ex: Exchange) -> None:
    ex.place(SYMBOL)
    ex.fault(row.fault, None)
    client = face.client(ex, **row.options)
    started = time.monotonic()
    with pytest.raises(espresso.RequestTimeoutError) as caught:
        face.press(client, SYMBOL, **row.call)
    elapsed = time.monotonic() - started
    error = caught.value
    assert row.lasts - 0.02 <= error.elapsed <= elapsed + 0.001
    assert elapsed <= row.lasts + OVERRUN
    assert (error.outcome, error.attempts) == (row.outcome, row.attempts)
    assert error.retryable
    assert len(ex.calls) == (row.posts if row.outcome == "unknown" else 0)
    assert isinstance(error, TimeoutError)


def test_an_interim_answer_is_no_answer(face: Face) -> None:
    def interim(wire: Wire) -> None:
        wire.answer(b"HTTP/1.1 100 Continue\r\n\r\n")
        wire.hold()

    with RawServer(interim) as server:
        client = face.client(server, timeout=0.4, max_retries=0)
        with pytest.raises(espresso.RequestTimeoutError) as caught:
            face.press(client, SYMBOL)
    assert caught.value.status_code is None
    assert "HTTP" not in str(caught.value)
    assert caught.value.outcome == "unknown"


# --- arguments --------------------------------------------------------------------

WRONG = {
    "no symbol": ("", {}, ValueError, "symbol"),
    "a pair with a slash": ("ADA/USDM", {}, ValueError, "ADAUSDM"),
    "too long": ("A" * 65, {}, ValueError, "64"),
    "no str": (4200, {}, TypeError, "symbol"),
    "bytes": (b"ADAUSDM", {}, TypeError, "symbol"),
    "a pair of time-outs": (
        SYMBOL,
        {"timeout": (3, 10)},
        TypeError,
        "connect_timeout",
    ),
    "no time-out": (SYMBOL, {"timeout": None}, TypeError, "timeout"),
    "a time-out of nothing": (SYMBOL, {"timeout": 0}, ValueError, "timeout"),
    "verify": (SYMBOL, {"verify": False}, TypeError, "ca_file"),
    "an unknown word": (SYMBOL, {"retry": 1}, TypeError, "unexpected keyword"),
    "retries": (SYMBOL, {"max_retries": -1}, ValueError, "max_retries"),
}


@pytest.mark.parametrize(
    ("symbol", "options", "kind", "word"), WRONG.values(), ids=WRONG
)
def test_wrong_arguments(
    symbol: Any,
    options: dict[str, Any],
    kind: type[Exception],
    word: str,
    face: Face,
    ex: Exchange,
) -> None:
    with pytest.raises(kind, match=word):
        face.press(face.client(ex), symbol, **options)
    assert ex.requests == []


def test_a_missing_key(face: Face, ex: Exchange) -> None:
    client = face.client_type(base_url=ex.url, ca_file=ex.ca_file)
    with pytest.raises(espresso.ConfigError, match="DELTADEFI_API_KEY"):
        face.press(client, SYMBOL)
    assert ex.requests == []


def test_small_letters_are_mentioned_once(
    face: Face, ex: Exchange, caplog: pytest.LogCaptureFixture
) -> None:
    ex.place("adausdm", 1)
    client = face.client(ex)
    with caplog.at_level(logging.WARNING, "espresso"):
        face.press(client, "adausdm")
        face.press(client, "adausdm", missing_ok=True)
    assert caplog.text.count("small letters") == 1
    assert {call.symbol for call in ex.calls} == {"adausdm"}


def test_a_closed_client(face: Face, ex: Exchange) -> None:
    import asyncio

    client = face.client(ex)
    if isinstance(client, espresso.AsyncClient):
        asyncio.run(client.aclose())
        asyncio.run(client.aclose())
    else:
        client.close()
    with pytest.raises(RuntimeError, match="closed"):
        face.press(client, SYMBOL)
    assert ex.requests == []


def test_unknown_members_are_kept(face: Face) -> None:
    answers = [
        b'{"symbol":"ADAUSDM","order_ids":["a"],"note":1,"first":true}',
        b'{"symbol":"ADAUSDM","order_ids":["b","a"],"note":2}',
        b'{"error":"Order not found","code":4200}',
    ]

    def script(wire: Wire) -> None:
        for body, status in zip(answers, (200, 200, 400), strict=True):
            wire.answer(http(body, status))
        wire.hold()

    with RawServer(script) as server:
        result = face.press(face.client(server), SYMBOL, confirm=True)
    assert result == {
        "symbol": SYMBOL,
        "order_ids": ["a", "b"],
        "note": 2,
        "first": True,
    }
