"""The exceptions: which class a failure becomes, what each one says and carries.

Most tests run over all classes, all codes of the table and all statuses: a class that
is added later is tested without a word here.
"""

from __future__ import annotations

import copy
import itertools
import multiprocessing
import pickle
import re
import subprocess
import sys
import traceback
import unicodedata
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import espresso
from espresso import _core, errors

ROOT = Path(__file__).resolve().parent.parent
PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)

# contract.md, "Exceptions": class -> its parent there, and the built-in beside it.
TREE: dict[str, tuple[str, type[Exception]]] = {
    "ConfigError": ("EspressoError", ValueError),
    "TransportError": ("EspressoError", Exception),
    "ConnectError": ("TransportError", ConnectionError),
    "CertificateError": ("ConnectError", ConnectionError),
    "ConnectionLostError": ("TransportError", ConnectionError),
    "RequestTimeoutError": ("TransportError", TimeoutError),
    "ResponseError": ("EspressoError", Exception),
    "APIError": ("EspressoError", Exception),
    "BadRequestError": ("APIError", Exception),
    "InvalidSymbolError": ("BadRequestError", Exception),
    "AuthenticationError": ("APIError", Exception),
    "PermissionDeniedError": ("APIError", Exception),
    "OrderNotFoundError": ("APIError", Exception),
    "RateLimitError": ("APIError", Exception),
    "ServerError": ("APIError", Exception),
    "UnavailableError": ("ServerError", Exception),
    "TradingLockedError": ("ServerError", Exception),
    "PartialCancelError": ("EspressoError", ExceptionGroup),
    "StillOpenError": ("EspressoError", Exception),
    "GuardError": ("EspressoError", Exception),
    "GuardTrippedError": ("GuardError", Exception),
}
PARTIAL = "PartialCancelError"
BUILT_IN: tuple[type[BaseException], ...] = (
    ValueError,
    OSError,
    ConnectionError,
    TimeoutError,
    BaseExceptionGroup,
)

# What every exception carries, with the value of one that nobody filled in.
DEFAULTS: dict[str, object] = {
    "code": None,
    "status_code": None,
    "symbol": None,
    "attempts": 0,
    "attempts_max": 0,
    "elapsed": 0.0,
    "order_ids": [],
    "body": "",
    "peer": "",
}
# ... and one that everything was filled in of.
FILLED: dict[str, Any] = {
    "code": 4290,
    "status_code": 429,
    "symbol": "ADAUSDM",
    "outcome": "rejected",
    "retryable": True,
    "attempts": 3,
    "attempts_max": 4,
    "elapsed": 1.94,
    "order_ids": ["a-1", "a-2"],
    "body": '{"code": 4290, "error": "\ud800 rate limit"}\0',
    "peer": "127.0.0.1:8443",
}


def all_classes() -> list[type[errors.EspressoError]]:
    return [getattr(errors, name) for name in errors.__all__]


def make(cls: type[errors.EspressoError], **attrs: Any) -> errors.EspressoError:
    """One exception of any class; a group gets two members."""
    if issubclass(cls, errors.PartialCancelError):
        failed: dict[str, Exception] = {
            "ADAUSDM": errors.RequestTimeoutError("no answer", outcome="unknown"),
            "IAGUSDM": errors.RateLimitError("slow down", retry_after=1.5),
        }
        done = {"NIGHTUSDM": {"symbol": "NIGHTUSDM", "order_ids": ["n-1"]}}
        return cls.from_results(done, failed, **attrs)
    return cls("it failed", **attrs)


def filled(cls: type[errors.EspressoError]) -> errors.EspressoError:
    """One with every attribute, notes, and one that the user has added."""
    error = make(cls, **FILLED)
    if isinstance(error, errors.RateLimitError):
        error.retry_after = 1.5
    error.add_note("the request had gone out")
    vars(error)["strategy"] = "quotes"
    return error


def from_outcome(**changes: Any) -> errors.EspressoError:
    """What the binding calls, with all that it always passes."""
    fields: dict[str, Any] = {
        "kind": "api",
        "sent": "rejected",
        "call_sent": "rejected",
        "retryable": False,
        "certificate": False,
        "code": None,
        "status_code": None,
        "message": "it failed",
        "body": "",
        "symbol": "ADAUSDM",
        "peer": "api.deltadefi.io",
        "attempts": 1,
        "attempts_max": 3,
        "elapsed": 0.05,
        "retry_after": None,
    }
    return errors.from_outcome(**(fields | changes))


classes = pytest.mark.parametrize(
    "cls", all_classes(), ids=lambda cls: str(cls.__name__)
)


# ---- the tree ------------------------------------------------------------------------


def test_no_class_is_missing_and_none_is_too_many() -> None:
    assert set(errors.__all__) == {"EspressoError", *TREE}


@pytest.mark.parametrize("name", TREE)
def test_place_in_the_tree(name: str) -> None:
    cls = getattr(errors, name)
    parent, built_in = TREE[name]
    assert cls.__bases__[0] is getattr(errors, parent)
    assert {base for base in BUILT_IN if issubclass(cls, base)} == {
        base for base in BUILT_IN if issubclass(built_in, base)
    }


@classes
def test_stands_in_the_top_namespace(cls: type[errors.EspressoError]) -> None:
    assert getattr(espresso, cls.__name__) is cls
    assert cls.__name__ in espresso.__all__
    assert f"{cls.__module__}.{cls.__qualname__}" == f"espresso.{cls.__name__}"


@classes
def test_explains_itself(cls: type[errors.EspressoError]) -> None:
    """Its own docstring, not its parent's, and more than a few words."""
    text = cls.__dict__["__doc__"]
    assert text and len(text.split()) >= 10


def test_every_attribute_is_documented() -> None:
    listed = re.findall(r"^ {4,8}(\w+): ", errors.EspressoError.__doc__ or "", re.M)
    carried = set(vars(make(errors.EspressoError, **FILLED)))
    assert set(listed) == carried | {"message"}


def test_import_is_light() -> None:
    """None of these may be paid for by a program that never needs them."""
    heavy = "asyncio logging ssl json urllib http socket typing dataclasses"
    program = (
        f"import sys, espresso.errors; print(*set({heavy.split()}) & set(sys.modules))"
    )
    command = [sys.executable, "-S", "-c", program]
    done = subprocess.run(
        command, cwd=ROOT, text=True, capture_output=True, check=True, timeout=60
    )
    assert done.stdout.split() == []


# ---- from_outcome: which class -------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"kind": "transport", "sent": "not_sent"}, errors.ConnectError),
        (
            {"kind": "transport", "sent": "not_sent", "certificate": True},
            errors.CertificateError,
        ),
        ({"kind": "transport", "sent": "unknown"}, errors.ConnectionLostError),
        ({"kind": "timeout", "sent": "not_sent"}, errors.RequestTimeoutError),
        ({"kind": "timeout", "sent": "unknown"}, errors.RequestTimeoutError),
        ({"kind": "bad_reply", "sent": "unknown"}, errors.ResponseError),
        ({"kind": "bad_reply", "sent": "rejected"}, errors.ResponseError),
        ({"kind": "bad_reply", "status_code": 503}, errors.ResponseError),
    ],
)
def test_class_without_an_error_of_the_exchange(
    fields: dict[str, Any], expected: type[errors.EspressoError]
) -> None:
    assert type(from_outcome(**fields)) is expected


@pytest.mark.parametrize("kind", ["ok", "closed", "no_memory", ""])
def test_other_kinds_are_a_mistake_of_the_caller(kind: str) -> None:
    with pytest.raises(ValueError, match=f"kind '{kind}'"):
        from_outcome(kind=kind)


def codes_of_the_table() -> Iterator[tuple[int, str, str, bool]]:
    """Code, class, outcome and retryable, read from the file itself."""
    text = (ROOT / "src/core/codes.def").read_text()
    row = re.compile(r'^ESP_CODE\((\d+), (\w+), (\w+), "(\w+)"', re.M)
    for code, outcome, retry, name in row.findall(text):
        yield int(code), name, outcome.lower(), retry != "NEVER"


TABLE = list(codes_of_the_table())


def test_the_extension_carries_the_table() -> None:
    assert [tuple(row[:4]) for row in _core.CODES] == TABLE


@pytest.mark.parametrize(
    ("code", "name", "outcome", "retryable"), TABLE, ids=[row[0] for row in TABLE]
)
def test_code_of_the_table(code: int, name: str, outcome: str, retryable: bool) -> None:
    """The code decides, whatever the status is: 404 is not special here."""
    for status in (200, 400, 404, 429, 500, 503):
        error = from_outcome(code=code, status_code=status)
        assert type(error).__name__ == name
        assert (error.code, error.status_code) == (code, status)
        assert isinstance(error, errors.APIError)


@pytest.mark.parametrize(
    ("code", "name", "outcome", "retryable"), TABLE, ids=[row[0] for row in TABLE]
)
def test_defaults_of_a_class_agree_with_the_table(
    code: int, name: str, outcome: str, retryable: bool
) -> None:
    """A class made by hand, as in a user's test, says what the call would have."""
    cls = getattr(errors, name)
    rows = [row for row in TABLE if row[1] == name]
    if len({row[2] for row in rows}) == 1:
        assert cls("x").outcome == outcome
    assert cls("x").retryable is retryable


def expected_of_unknown_code(code: int) -> str:
    text = str(code)
    if re.fullmatch(r"4[14]\d\d", text):
        return "BadRequestError"
    return "ServerError" if re.fullmatch(r"5\d\d\d", text) else "APIError"


def test_unknown_codes_fall_back_to_their_family() -> None:
    known = {row[0] for row in TABLE}
    for code in set(range(-32768, 65536)) - known:
        assert type(from_outcome(code=code, status_code=400)).__name__ == (
            expected_of_unknown_code(code)
        )


@pytest.mark.parametrize("code", [-5000, -1, 0, 1, 4103, 4199, 4203, 4499, 5999, 65535])
def test_a_404_in_the_shape_of_the_api(code: int) -> None:
    """[spec]: 404 is "Order Not Found"; what it means under another code is open."""
    known = {row[0]: row[1] for row in TABLE}
    error = from_outcome(code=code, status_code=404, call_sent="unknown")
    assert type(error).__name__ == known.get(code, "OrderNotFoundError")
    assert error.outcome == "unknown"


STATUS_CLASSES = {
    400: "BadRequestError",
    401: "AuthenticationError",
    403: "PermissionDeniedError",
    422: "BadRequestError",
    429: "RateLimitError",
    502: "UnavailableError",
    503: "UnavailableError",
    504: "UnavailableError",
}


@pytest.mark.parametrize("status", range(400, 600))
def test_status_without_a_code(status: int) -> None:
    fallback = "ServerError" if status >= 500 else "APIError"
    error = from_outcome(kind="http", status_code=status)
    assert type(error).__name__ == STATUS_CLASSES.get(status, fallback)
    assert (error.code, error.status_code) == (None, status)


# ---- from_outcome: what it carries ---------------------------------------------------


@pytest.mark.parametrize(
    ("said", "outcome"),
    [
        ("not_sent", "not_sent"),
        ("rejected", "rejected"),
        ("unknown", "unknown"),
        ("done", "unknown"),
        ("?", "unknown"),
    ],
)
def test_outcome_is_of_the_whole_call(said: str, outcome: str) -> None:
    """The last attempt picks the class, all of them the outcome."""
    error = from_outcome(kind="transport", sent="not_sent", call_sent=said)
    assert type(error) is errors.ConnectError
    assert error.outcome == outcome


def test_all_fields_arrive() -> None:
    error = from_outcome(
        code=4290,
        status_code=400,
        retryable=True,
        message="rate limit exceeded",
        body='{"code":4290}',
        attempts=2,
        attempts_max=5,
        elapsed=1.25,
        retry_after=0.0,
    )
    assert isinstance(error, errors.RateLimitError)
    assert error.message == "rate limit exceeded"
    assert error.retryable is True
    assert error.retry_after == 0.0
    assert (error.attempts, error.attempts_max, error.elapsed) == (2, 5, 1.25)
    assert (error.symbol, error.peer) == ("ADAUSDM", "api.deltadefi.io")
    assert (error.body, error.order_ids) == ('{"code":4290}', [])


def test_retry_after_belongs_to_the_rate_limit() -> None:
    slow = from_outcome(kind="http", status_code=429, retry_after=1.0)
    assert isinstance(slow, errors.RateLimitError) and slow.retry_after == 1.0
    assert not hasattr(from_outcome(code=5002, retry_after=1.0), "retry_after")


@pytest.mark.parametrize("name", ["CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", None])
@pytest.mark.parametrize("certificate", [True, False])
def test_hint_where_other_programs_find_their_roots(
    name: str | None, certificate: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CURL_CA_BUNDLE", "")
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    if name is not None:
        monkeypatch.setenv(name, "/corp/roots.pem")
    error = from_outcome(
        kind="transport",
        sent="not_sent",
        certificate=certificate,
        message="certificate " * 100,
    )
    hint = f'; {name} is not read here: pass ca_file=os.environ["{name}"]'
    assert error.message.endswith(hint) is (name is not None and certificate)
    assert ("ca_file" in str(error)) is (name is not None and certificate)


def test_fields_that_nobody_knows_are_refused() -> None:
    with pytest.raises(TypeError, match="RateLimitError has no attribute 'retry_aftr'"):
        errors.RateLimitError("x", retry_aftr=1.0)
    with pytest.raises(TypeError, match="no attribute 'colour'"):
        from_outcome(colour="red")


# ---- str -----------------------------------------------------------------------------


def test_form_of_the_contract() -> None:
    error = from_outcome(
        code=4290,
        status_code=429,
        message="rate limit exceeded",
        attempts=3,
        elapsed=1.9,
    )
    assert str(error) == (
        "[4290] rate limit exceeded "
        "(HTTP 429, ADAUSDM at api.deltadefi.io, attempt 3 of 3, 1.9 s)"
    )


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        (
            {"kind": "http", "status_code": 503},
            "it failed (HTTP 503, ADAUSDM at api.deltadefi.io, attempt 1 of 3, 0.1 s)",
        ),
        (
            {"kind": "timeout", "elapsed": 10.004},
            "it failed (ADAUSDM at api.deltadefi.io, attempt 1 of 3, 10.0 s)",
        ),
        (
            {"kind": "timeout", "attempts": 0, "elapsed": 0.0},
            "it failed (ADAUSDM at api.deltadefi.io, no attempt, 0.0 s)",
        ),
        (
            {"kind": "timeout", "attempts": 7, "attempts_max": 0},
            "it failed (ADAUSDM at api.deltadefi.io, attempt 7, 0.1 s)",
        ),
        (
            {"kind": "timeout", "symbol": None},
            "it failed (api.deltadefi.io, attempt 1 of 3, 0.1 s)",
        ),
        (
            {"code": 0, "peer": "127.0.0.1:8443"},
            "[0] it failed (ADAUSDM at 127.0.0.1:8443, attempt 1 of 3, 0.1 s)",
        ),
        (
            {"kind": "bad_reply", "message": " \0\n"},
            "no message (ADAUSDM at api.deltadefi.io, attempt 1 of 3, 0.1 s)",
        ),
    ],
)
def test_what_is_not_known_is_left_out(fields: dict[str, Any], text: str) -> None:
    assert str(from_outcome(**({"elapsed": 0.12} | fields))) == text


def test_an_error_that_no_call_led_to_is_its_text() -> None:
    assert str(errors.ConfigError("no API key")) == "no API key"
    assert str(errors.ConfigError()) == ""
    assert str(errors.GuardError("lost", symbol="ADAUSDM")) == "lost (ADAUSDM)"


HOSTILE = {
    "long": "x" * 100_000,
    "long words": "nothing is open " * 7_000,
    "terminal": "\x1b]0;title\x07\x1b[2J\x1b[31mcancelled\x1b[0m",
    "lines": "a\r\nINFO all cancelled\u2028b\u2029c\x85d\x0be",
    "bidi": "\u202egnihton\u202c \u2066x\u2069\u200f",
    "nul": "a\0b",
    "surrogates": "a\ud800b\udfffc",
    "invisible": "a\u200bb\ufeffc\u00add",
    "private": "\ue000\U000f0000\uffff",
    "all control": "\x01" * 5_000,
    "braces": "%s {0} \\x1b",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_server_text(text: str) -> None:
    error = from_outcome(code=4000, status_code=400, message=text)
    assert 0 < len(error.message) <= 512
    assert str(error).isprintable()
    str(error).encode()
    assert len(str(error).splitlines()) == 1
    # Nothing is made up, and no two words become one.
    plain = "".join(c if c.isprintable() else " " for c in text).split()
    if plain and len(text) <= 512:
        assert error.message.split() == plain


@given(st.text(st.characters(codec=None), max_size=2_000))
def test_any_server_text(text: str) -> None:
    error = from_outcome(message=text)
    assert 0 < len(error.message) <= 512
    drawn = {unicodedata.category(c) for c in str(error)}
    assert not drawn & {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
    again = from_outcome(message=error.message)
    assert again.message == error.message


@pytest.mark.parametrize("length", [0, 1, 511, 512, 513, 5_000])
def test_message_is_cut_at_512(length: int) -> None:
    message = from_outcome(message="y" * length).message
    if length <= 512:
        assert message == ("y" * length or "no message")
    else:
        assert message == "y" * 509 + "..."


def test_body_is_kept_as_it_came() -> None:
    assert from_outcome(body="\x1b[2J\0" * 9).body == "\x1b[2J\0" * 9


# ---- attributes ----------------------------------------------------------------------


@classes
def test_a_message_alone_makes_one(cls: type[errors.EspressoError]) -> None:
    is_group = issubclass(cls, errors.PartialCancelError)
    members = [[errors.APIError("x")]] if is_group else []
    error = cls("it failed", *members)
    assert error.args[0] == "it failed"
    assert error.message == "it failed"
    assert {name: getattr(error, name) for name in DEFAULTS} == DEFAULTS
    assert error.outcome in {"not_sent", "rejected", "unknown"}
    assert isinstance(error.retryable, bool)


@pytest.mark.parametrize(
    ("name", "outcome", "retryable"),
    [
        ("EspressoError", "not_sent", False),
        ("ConfigError", "not_sent", False),
        ("TransportError", "unknown", True),
        ("ConnectError", "not_sent", True),
        ("CertificateError", "not_sent", False),
        ("ConnectionLostError", "unknown", True),
        ("RequestTimeoutError", "unknown", True),
        ("ResponseError", "unknown", False),
        ("APIError", "unknown", False),
        ("PermissionDeniedError", "rejected", False),
        ("StillOpenError", "unknown", True),
        ("GuardError", "not_sent", False),
        ("GuardTrippedError", "unknown", False),
    ],
)
def test_outcome_and_retryable_of_the_contract(
    name: str, outcome: str, retryable: bool
) -> None:
    error = getattr(errors, name)("x")
    assert (error.outcome, error.retryable) == (outcome, retryable)


def test_a_subclass_inherits_what_its_parent_says() -> None:
    class Mine(errors.TradingLockedError):
        pass

    assert (Mine("x").outcome, Mine("x").retryable) == ("rejected", True)
    assert Mine.__module__ == __name__


def test_order_ids_are_not_shared() -> None:
    ids = ["a"]
    one, other = errors.StillOpenError("x", order_ids=ids), errors.StillOpenError("y")
    ids.append("b")
    other.order_ids.append("c")
    assert (one.order_ids, errors.StillOpenError("z").order_ids) == (["a"], [])


@pytest.mark.parametrize("name", sorted({"EspressoError", *TREE} - {PARTIAL}))
def test_positional_arguments_are_kept(name: str) -> None:
    """OSError would read these as errno, strerror and file name, and drop some."""
    cls = getattr(errors, name)
    arguments = (110, "late", "file", 0, "other", 1)
    for count in range(1, len(arguments) + 1):
        error = cls(*arguments[:count])
        assert error.args == arguments[:count]
        assert error.message == str(error) == "110"
        assert pickle.loads(pickle.dumps(error)).args == error.args


# ---- pickle and copy -----------------------------------------------------------------


def snapshot(error: BaseException) -> dict[str, Any]:
    """All that one carries, comparable: exceptions themselves compare by identity."""
    members = getattr(error, "exceptions", ())
    state = {name: value for name, value in vars(error).items() if name != "failed"}
    return {
        "class": type(error),
        "str": str(error),
        "args": None if members else error.args,
        "state": state,
        "message": getattr(error, "message", None),
        "members": [snapshot(member) for member in members],
        "failed": {
            symbol: snapshot(member)
            for symbol, member in getattr(error, "failed", {}).items()
        },
    }


def pickled(error: Any, protocol: int) -> Any:
    return pickle.loads(pickle.dumps(error, protocol))


COPIES: dict[str, Callable[[Any], Any]] = {
    **{f"pickle {number}": partial(pickled, protocol=number) for number in PROTOCOLS},
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}


@pytest.mark.parametrize("way", COPIES)
@classes
def test_copies_without_loss(cls: type[errors.EspressoError], way: str) -> None:
    for error in (make(cls), filled(cls)):
        other = COPIES[way](error)
        assert other is not error
        assert snapshot(other) == snapshot(error)
    assert other.__notes__ == ["the request had gone out"]
    assert other.strategy == "quotes"
    assert other.order_ids == ["a-1", "a-2"]


@pytest.mark.parametrize("way", COPIES)
def test_members_of_a_copied_group_stay_one(way: str) -> None:
    """`failed` names the very members, or a split of the copy would lose them."""
    error = COPIES[way](make(errors.PartialCancelError))
    assert list(map(id, error.failed.values())) == list(map(id, error.exceptions))
    late, rest = error.split(TimeoutError)
    assert (list(late.failed), list(rest.failed)) == (["ADAUSDM"], ["IAGUSDM"])


def test_a_pickled_group_holds_what_it_was_made_of() -> None:
    members: list[Exception] = [errors.ServerError("one")]
    error = errors.PartialCancelError("x", members)
    members.append(errors.ServerError("two"))
    assert len(pickle.loads(pickle.dumps(error)).exceptions) == 1


def raise_one(name: str) -> None:
    raise filled(getattr(errors, name))


def test_process_pool() -> None:
    """Raised in a child that was started afresh: nothing hangs, nothing is lost."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        raised = {
            name: pool.submit(raise_one, name).exception(timeout=60)
            for name in errors.__all__
        }
    for name, error in raised.items():
        assert error is not None
        assert snapshot(error) == snapshot(filled(getattr(errors, name)))


# ---- except --------------------------------------------------------------------------


@classes
def test_except_clauses(cls: type[errors.EspressoError]) -> None:
    """Each clause that names a base of it catches it, and no other does."""
    error = make(cls)
    others: list[type[BaseException]] = [*all_classes(), *BUILT_IN, LookupError]
    for other in others:
        caught = False
        try:
            raise error
        except other:
            caught = True
        except Exception:
            pass
        assert caught is issubclass(cls, other)


@classes
def test_traceback_shows_class_and_text(cls: type[errors.EspressoError]) -> None:
    error = make(cls, symbol="ADAUSDM")
    lines = "".join(traceback.format_exception(error))
    assert f"espresso.{cls.__name__}: {error}" in lines


# ---- PartialCancelError --------------------------------------------------------------


def test_sums_up_its_members() -> None:
    error = errors.PartialCancelError.from_results(
        {"NIGHTUSDM": {"symbol": "NIGHTUSDM", "order_ids": []}},
        {
            "A": from_outcome(code=4106, attempts=1, elapsed=0.5),
            "B": from_outcome(
                kind="transport", sent="not_sent", call_sent="not_sent", attempts=3
            ),
            "C": from_outcome(
                code=4290, retryable=True, attempts=2, elapsed=2.5, order_ids=["c-1"]
            ),
        },
    )
    assert error.outcome == "rejected"
    assert error.retryable is True
    assert (error.attempts, error.elapsed) == (6, 2.5)
    assert error.order_ids == ["c-1"]
    assert (error.code, error.status_code, error.symbol) == (None, None, None)
    assert list(error.results) == ["NIGHTUSDM"]
    assert list(error.failed) == ["A", "B", "C"]


@pytest.mark.parametrize(
    "outcomes", list(itertools.product(["not_sent", "rejected", "unknown"], repeat=2))
)
def test_outcome_is_the_worst_of_the_members(outcomes: tuple[str, str]) -> None:
    members = [errors.APIError("x", outcome=word) for word in outcomes]
    order = ["not_sent", "rejected", "unknown"]
    worst = order[max(map(order.index, outcomes))]
    assert errors.PartialCancelError("x", members).outcome == worst


def test_of_a_stranger_nothing_is_known() -> None:
    error = errors.PartialCancelError.from_results(
        {}, {"A": errors.ConnectError("x"), "B": MemoryError()}
    )
    assert error.outcome == "unknown"
    assert str(error) == "2 of 2 symbols failed: A: ConnectError: x; B: MemoryError"


def test_says_how_many_which_and_why() -> None:
    error = errors.PartialCancelError.from_results(
        {"NIGHTUSDM": {"symbol": "NIGHTUSDM", "order_ids": []}},
        {
            "ADAUSDM": from_outcome(code=4290, message="rate limit exceeded"),
            "IAGUSDM": RuntimeError("closed\x1b[2J " + "z" * 1_000),
        },
    )
    cut = "closed [2J " + "z" * 66 + "..."
    assert str(error) == (
        "2 of 3 symbols failed: ADAUSDM: RateLimitError: [4290] rate limit exceeded; "
        f"IAGUSDM: RuntimeError: {cut}"
    )


def test_many_failures_make_no_endless_text() -> None:
    failed = {f"S{number}": errors.ServerError("x") for number in range(1_000)}
    error = errors.PartialCancelError.from_results({}, failed)
    assert str(error).startswith("1000 of 1000 symbols failed: S0: ServerError: x; ")
    assert str(error).endswith("; S7: ServerError: x; and 992 more")


def test_nothing_failed_is_no_error() -> None:
    with pytest.raises(ValueError, match="non-empty"):
        errors.PartialCancelError.from_results({}, {})


def test_split_keeps_results_and_its_own_failures() -> None:
    whole = make(errors.PartialCancelError, elapsed=3.0)
    assert isinstance(whole, errors.PartialCancelError)
    whole.add_note("in the evening")
    late, rest = whole.split(TimeoutError)
    for part, symbol, outcome in (
        (late, "ADAUSDM", "unknown"),
        (rest, "IAGUSDM", "rejected"),
    ):
        assert type(part) is errors.PartialCancelError
        assert part.outcome == outcome
        assert part.failed == {symbol: whole.failed[symbol]}
        assert part.exceptions == (whole.failed[symbol],)
        assert part.results == whole.results
        assert part.message == whole.message == "2 of 3 symbols failed"
        assert (part.elapsed, part.__notes__) == (3.0, ["in the evening"])
    assert whole.subgroup(LookupError) is None


def test_except_star() -> None:
    seen: list[tuple[str, list[str], list[str]]] = []
    try:
        raise make(errors.PartialCancelError)
    except* TimeoutError as late:
        assert isinstance(late, errors.PartialCancelError)
        seen.append(("late", list(late.failed), list(late.results)))
    except* errors.RateLimitError as slow:
        assert isinstance(slow, errors.PartialCancelError)
        seen.append(("slow", list(slow.failed), list(slow.results)))
    assert seen == [
        ("late", ["ADAUSDM"], ["NIGHTUSDM"]),
        ("slow", ["IAGUSDM"], ["NIGHTUSDM"]),
    ]


def test_what_except_star_leaves_is_raised_again() -> None:
    with pytest.raises(errors.PartialCancelError) as caught:
        try:
            raise make(errors.PartialCancelError)
        except* TimeoutError:
            pass
    assert list(caught.value.failed) == ["IAGUSDM"]
    assert list(caught.value.results) == ["NIGHTUSDM"]
