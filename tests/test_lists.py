"""Several symbols in one call: at once, in order, once each, at the exchange's pace."""

from __future__ import annotations

import asyncio
import itertools
import pickle
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import espresso
from espresso.sandbox import Exchange
from tests.children import PRELUDE, Child, environment
from tests.faces import press
from tests.rawserver import RawServer, Wire, http

pytestmark = pytest.mark.alone

KINDS = [espresso.Client, espresso.AsyncClient]
NAMES = [f"S{n}" for n in range(40)]
WINDOW = 2.0  # seconds in which 10 requests may start
CALLS = 10


@pytest.fixture(params=KINDS, ids=["sync", "async"])
def make(request: pytest.FixtureRequest) -> Callable[..., Any]:
    def client(exchange: Any, **options: Any) -> Any:
        defaults = {"base_url": exchange.url, "ca_file": exchange.ca_file}
        key = getattr(exchange, "key", "sandbox-0")
        return request.param(key, **{**defaults, "timeout": 10.0, **options})

    return client


@pytest.fixture
def ex() -> Iterator[Exchange]:
    with Exchange(rate=None) as running:
        yield running


def failed(error: espresso.PartialCancelError, name: str) -> espresso.EspressoError:
    member = error.failed[name]
    assert isinstance(member, espresso.EspressoError)
    return member


# --- results ----------------------------------------------------------------------


def test_the_order_is_kept(make: Callable[..., Any], ex: Exchange) -> None:
    names = ["NIGHTUSDM", "ADAUSDM", "IAGUSDM"]
    ids = {name: ex.place(name, n) for n, name in enumerate(names, 1)}
    # The first answer comes last.
    ex.fault("slow", seconds=0.2)
    results = press(make(ex), names)
    assert type(results) is list
    assert [type(result) for result in results] == [dict] * 3
    assert [result["symbol"] for result in results] == names
    assert [set(result["order_ids"]) for result in results] == [
        set(ids[name]) for name in names
    ]


@pytest.mark.parametrize(
    "form",
    [list, tuple, iter, dict.fromkeys, lambda names: (name for name in names)],
    ids=["list", "tuple", "iterator", "dict", "generator"],
)
def test_any_iterable(
    form: Callable[[list[str]], Any], make: Callable[..., Any], ex: Exchange
) -> None:
    ex.place("ADAUSDM", 1)
    ex.place("NIGHTUSDM", 1)
    results = press(make(ex), form(["ADAUSDM", "NIGHTUSDM"]))
    assert [len(result["order_ids"]) for result in results] == [1, 1]


def test_a_str_is_one_symbol(make: Callable[..., Any], ex: Exchange) -> None:
    class Name(str):
        pass

    ex.place("ADAUSDM", 1)
    result = press(make(ex), Name("ADAUSDM"))
    assert type(result) is dict
    assert type(result["symbol"]) is str
    (again,) = press(make(ex), [Name("ADAUSDM")], missing_ok=True)
    assert type(again["symbol"]) is str


def test_duplicates_are_sent_once_and_answered_twice(
    make: Callable[..., Any], ex: Exchange
) -> None:
    ex.place("ADAUSDM", 2)
    names = ["ADAUSDM", "NIGHTUSDM", "ADAUSDM", "ADAUSDM"]
    first, _, second, third = press(make(ex), names, missing_ok=True)
    assert first == second == third
    assert first is not second is not third
    assert first["order_ids"] is not second["order_ids"]
    assert Counter(call.symbol for call in ex.calls) == {"ADAUSDM": 1, "NIGHTUSDM": 1}


def test_spellings_are_different_symbols(
    make: Callable[..., Any], ex: Exchange
) -> None:
    ex.place("adausdm", 1)
    ex.place("ADAUSDM", 2)
    small, large = press(make(ex), ["adausdm", "ADAUSDM"])
    assert [len(small["order_ids"]), len(large["order_ids"])] == [1, 2]


def test_a_lane_each_and_all_at_once(make: Callable[..., Any], ex: Exchange) -> None:
    """Nobody is answered before all have come."""
    arrived = threading.Barrier(CALLS + 1)

    def script(wire: Wire) -> None:
        request = wire.read_request()
        arrived.wait(10)
        symbol = request.split(b'"symbol":"')[1].split(b'"')[0]
        wire.send(http(b'{"symbol":"%s","order_ids":[]}' % symbol))
        wire.hold()

    with RawServer(script) as server:
        thread = threading.Thread(target=arrived.wait, args=(10,))
        thread.start()
        results = press(make(server), NAMES[:CALLS])
        thread.join()
        assert sorted(server.post_connections) == list(range(CALLS))
    assert [result["symbol"] for result in results] == NAMES[:CALLS]


# --- arguments --------------------------------------------------------------------

WRONG: dict[str, tuple[Any, type[Exception], str]] = {
    "an empty list": ([], ValueError, "empty list"),
    "an empty generator": ((name for name in ()), ValueError, "empty list"),
    "one that is none": (["ADAUSDM", "ADA/USDM"], ValueError, "ADAUSDM"),
    "one that is no str": (["ADAUSDM", None], TypeError, "symbol"),
    "a list of lists": ([["ADAUSDM"]], TypeError, "symbol"),
    "bytes": (b"ADAUSDM", TypeError, "symbol"),
    "a bytearray": (bytearray(b"ADAUSDM"), TypeError, "symbol"),
    "a number": (7, TypeError, "one str or an iterable of str"),
    "nothing": (None, TypeError, "one str or an iterable of str"),
    "no end": (itertools.repeat("ADAUSDM"), ValueError, "100000"),
}


@pytest.mark.parametrize(("symbols", "kind", "word"), WRONG.values(), ids=WRONG)
def test_every_member_is_checked_before_anything_is_sent(
    symbols: Any,
    kind: type[Exception],
    word: str,
    make: Callable[..., Any],
    ex: Exchange,
) -> None:
    with pytest.raises(kind, match=word):
        press(make(ex), symbols)
    assert ex.requests == []


def test_what_the_iterable_raises_comes_out(
    make: Callable[..., Any], ex: Exchange
) -> None:
    def names() -> Iterator[str]:
        yield "ADAUSDM"
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        press(make(ex), names())
    assert ex.requests == []


# --- failures ---------------------------------------------------------------------


def test_both_halves(make: Callable[..., Any], ex: Exchange) -> None:
    """All others are completed; the exception carries both halves."""
    ids = ex.place("ADAUSDM", 2)
    with pytest.raises(espresso.PartialCancelError) as caught:
        press(make(ex), ["NIGHTUSDM", "ADAUSDM", "XXXYYY", "ADAUSDM"])
    error = caught.value
    assert list(error.results) == ["ADAUSDM"]
    assert set(error.results["ADAUSDM"]["order_ids"]) == set(ids)
    assert list(error.failed) == ["NIGHTUSDM", "XXXYYY"]
    assert type(failed(error, "NIGHTUSDM")) is espresso.OrderNotFoundError
    assert type(failed(error, "XXXYYY")) is espresso.InvalidSymbolError
    assert failed(error, "XXXYYY").symbol == "XXXYYY"
    assert error.exceptions == tuple(error.failed.values())
    assert (error.code, error.status_code, error.symbol) == (None, None, None)
    assert (error.outcome, error.retryable, error.attempts) == ("rejected", False, 2)
    assert not ex.open_orders()


def test_all_fail(make: Callable[..., Any], ex: Exchange) -> None:
    ex.fault("403_empty", None)
    with pytest.raises(espresso.PartialCancelError, match="2 of 2") as caught:
        press(make(ex), ["ADAUSDM", "NIGHTUSDM"])
    assert caught.value.results == {}
    assert set(caught.value.failed) == {"ADAUSDM", "NIGHTUSDM"}


def test_the_outcome_is_the_worst(make: Callable[..., Any], ex: Exchange) -> None:
    ex.fault("403_empty")
    ex.fault("html_200")
    with pytest.raises(espresso.PartialCancelError) as caught:
        press(make(ex), ["ADAUSDM", "NIGHTUSDM"])
    outcomes = {failed(caught.value, name).outcome for name in caught.value.failed}
    assert outcomes == {"rejected", "unknown"}
    assert caught.value.outcome == "unknown"


def test_except_star_and_pickle(make: Callable[..., Any], ex: Exchange) -> None:
    ex.place("ADAUSDM", 1)
    seen: list[BaseExceptionGroup[Any]] = []
    try:
        press(make(ex), ["ADAUSDM", "NIGHTUSDM", "XXXYYY"])
    except* espresso.InvalidSymbolError as part:
        seen.append(part)
    except* espresso.OrderNotFoundError as part:
        seen.append(part)
    for part in seen:
        assert isinstance(part, espresso.PartialCancelError)
        assert list(part.results) == ["ADAUSDM"]
        assert len(part.failed) == 1
        again = pickle.loads(pickle.dumps(part))
        assert again.results == part.results
        assert list(again.failed) == list(part.failed)
    assert len(seen) == 2


def test_lost_replies_are_each_their_own(
    make: Callable[..., Any], ex: Exchange
) -> None:
    ex.place("ADAUSDM", 1)
    ex.place("NIGHTUSDM", 1)
    ex.fault("reset_after_read")
    results = press(make(ex), ["ADAUSDM", "NIGHTUSDM"])
    assert sorted(result.get("lost_reply", False) for result in results) == [
        False,
        True,
    ]


def test_confirm_holds_for_each(make: Callable[..., Any], ex: Exchange) -> None:
    ex.place("ADAUSDM", 2)
    ex.place("NIGHTUSDM", 1)
    ex.fault("late_order", after=0)
    night, ada = press(make(ex), ["NIGHTUSDM", "ADAUSDM"], confirm=True)
    assert not ex.open_orders()
    assert len(ada["order_ids"]) + len(night["order_ids"]) == 4
    last = {call.symbol: call.status for call in ex.calls}
    assert last == {"NIGHTUSDM": 400, "ADAUSDM": 400}


# --- the pace ---------------------------------------------------------------------


def check_pace(ex: Exchange) -> None:
    times = sorted(call.time for call in ex.calls)
    for early, late in zip(times, times[CALLS:], strict=False):
        assert late - early >= WINDOW


def test_the_rest_is_paced(make: Callable[..., Any], ex: Exchange) -> None:
    count = CALLS + 3
    for name in NAMES[:count]:
        ex.place(name, 1)
    started = time.monotonic()
    results = press(make(ex), NAMES[:count])
    elapsed = time.monotonic() - started
    assert [len(result["order_ids"]) for result in results] == [1] * count
    assert len(ex.calls) == count
    check_pace(ex)
    assert WINDOW <= elapsed < WINDOW + 2.0
    # In the order given.
    order = [call.symbol for call in sorted(ex.calls, key=lambda call: call.time)]
    assert set(order[:CALLS]) == set(NAMES[:CALLS])


def test_rounds_and_retries_count(make: Callable[..., Any], ex: Exchange) -> None:
    """Nine symbols confirmed, one of them tried twice: 19 requests."""
    for name in NAMES[:9]:
        ex.place(name, 1)
    ex.fault("locked_5002")
    results = press(make(ex), NAMES[:9], confirm=True)
    assert [len(result["order_ids"]) for result in results] == [1] * 9
    assert len(ex.calls) == 19
    check_pace(ex)


def test_the_exchange_agrees(make: Callable[..., Any]) -> None:
    """Its own limit, in its own time, refuses none."""
    with Exchange(rate=(CALLS, WINDOW)) as ex:
        for name in NAMES[: CALLS + 5]:
            ex.place(name, 1)
        press(make(ex), NAMES[: CALLS + 5])
        assert [call.status for call in ex.calls] == [200] * (CALLS + 5)


def test_separate_calls_are_never_delayed(
    make: Callable[..., Any], ex: Exchange
) -> None:
    client = make(ex)
    started = time.monotonic()
    for _ in range(3):
        press(client, ["ADAUSDM", "NIGHTUSDM"], missing_ok=True)
    for _ in range(8):
        press(client, "ADAUSDM", missing_ok=True)
    assert time.monotonic() - started < WINDOW


@pytest.mark.clock
def test_no_turn_in_time(make: Callable[..., Any], ex: Exchange) -> None:
    for name in NAMES[:25]:
        ex.place(name, 1)
    started = time.monotonic()
    with pytest.raises(espresso.PartialCancelError) as caught:
        press(make(ex), NAMES[:25], timeout=3.0)
    elapsed = time.monotonic() - started
    error = caught.value
    assert list(error.results) == NAMES[:20]
    assert list(error.failed) == NAMES[20:25]
    for name in NAMES[20:25]:
        member = failed(error, name)
        assert type(member) is espresso.RequestTimeoutError
        assert (member.outcome, member.attempts) == ("not_sent", 0)
        assert member.retryable
        assert member.symbol == name
        assert "10 calls in 2 s" in str(member)
    assert error.outcome == "not_sent"
    assert len(ex.open_orders()) == 5
    assert elapsed < 3.0 + 0.5


@pytest.mark.clock
def test_ten_thousand(make: Callable[..., Any], ex: Exchange) -> None:
    """Bounded in connections and in time."""
    many = [f"SYMBOL{n}" for n in range(10_000)]
    started = time.monotonic()
    with pytest.raises(espresso.PartialCancelError) as caught:
        press(make(ex), many, timeout=0.5)
    assert time.monotonic() - started < 5.0
    assert len(caught.value.failed) == 10_000
    assert len(ex.calls) <= CALLS


# --- deadline and interruption ----------------------------------------------------


@pytest.mark.clock
def test_one_deadline_for_the_list(make: Callable[..., Any], ex: Exchange) -> None:
    ex.fault("hang", None)
    started = time.monotonic()
    with pytest.raises(espresso.PartialCancelError) as caught:
        press(make(ex), NAMES[:5], timeout=0.6)
    assert 0.5 < time.monotonic() - started < 0.6 + 0.5
    for name in NAMES[:5]:
        member = failed(caught.value, name)
        assert type(member) is espresso.RequestTimeoutError
        assert (member.outcome, member.attempts) == ("unknown", 2)


def test_closing_ends_all(make: Callable[..., Any], ex: Exchange) -> None:
    ex.fault("hang", None)
    client = make(ex)
    caught: list[BaseException] = []

    def call() -> None:
        try:
            press(client, NAMES[:3])
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    ex.wait_for_calls(3)
    started = time.monotonic()
    if isinstance(client, espresso.AsyncClient):
        asyncio.run(client.aclose())
    else:
        client.close()
    thread.join(5)
    assert time.monotonic() - started < 1.0
    (error,) = caught
    assert isinstance(error, espresso.PartialCancelError)
    for name in NAMES[:3]:
        assert type(failed(error, name)) is espresso.ConnectionLostError
        assert "closed" in str(failed(error, name))


def test_ctrl_c_says_who_was_answered(ex: Exchange, clean_env: dict[str, str]) -> None:
    ex.place("ADAUSDM", 1)
    program = (
        PRELUDE
        + """
client = connect()
client.warm_up()
try:
    client.cancel_all(["ADAUSDM", "NIGHTUSDM"])
except KeyboardInterrupt as error:
    say(*error.__notes__)
"""
    )
    ex.fault("slow", seconds=0)
    ex.fault("hang")
    with Child(program, environment(clean_env, ex)) as child:
        ex.wait_for_calls(2)
        time.sleep(0.2)
        child.signal(signal.SIGINT)
        ended = child.end().check()
    (hung,) = [call.symbol for call in ex.calls if call.status is None]
    (done,) = [call.symbol for call in ex.calls if call.status is not None]
    assert f"the request for {hung} had gone out" in ended.out
    assert f"the request for {done}" in ended.out
    assert "\n" in ended.out.strip()


def test_an_event_runs_between_the_turns(
    make: Callable[..., Any], ex: Exchange
) -> None:
    """On the thread of the call, and it may call espresso itself."""
    seen: list[tuple[str, int]] = []
    inner: list[Any] = []
    other = espresso.Client(ex.key, base_url=ex.url, ca_file=ex.ca_file)

    def on_event(event: espresso.Event) -> None:
        seen.append((event.symbol, threading.get_ident()))
        if len(seen) == 1:
            inner.append(other.cancel_all("IAGUSDM", missing_ok=True))

    client = make(ex, on_event=on_event)
    press(client, ["ADAUSDM", "NIGHTUSDM"], missing_ok=True)
    assert {name for name, _ in seen} == {"ADAUSDM", "NIGHTUSDM"}
    assert {thread for _, thread in seen} == {threading.get_ident()}
    assert inner == [{"symbol": "IAGUSDM", "order_ids": []}]


def test_an_event_that_stops_the_call_stops_all(
    make: Callable[..., Any], ex: Exchange
) -> None:
    def on_event(event: espresso.Event) -> None:
        raise SystemExit(7)

    ex.fault("slow", seconds=0)
    ex.fault("hang", None)
    client = make(ex, on_event=on_event)
    started = time.monotonic()
    with pytest.raises(SystemExit) as caught:
        press(client, ["ADAUSDM", "NIGHTUSDM", "IAGUSDM"])
    assert time.monotonic() - started < 2.0
    assert caught.value.code == 7
    if isinstance(client, espresso.Client):
        assert "NIGHTUSDM" in "".join(caught.value.__notes__)


def test_at_module_level(ex: Exchange, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DELTADEFI_API_KEY", ex.key)
    monkeypatch.setenv("DELTADEFI_BASE_URL", ex.url)
    monkeypatch.setenv("SSL_CERT_FILE", ex.ca_file)
    ex.place("ADAUSDM", 1)
    results = espresso.cancel_all(["ADAUSDM", "NIGHTUSDM"], confirm=True)
    assert [len(result["order_ids"]) for result in results] == [1, 0]
    with pytest.raises(espresso.PartialCancelError):
        espresso.cancel_all(("ADAUSDM",), api_key=ex.new_key())
