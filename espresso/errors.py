"""Every exception that espresso raises, and the function that chooses among them.

The core knows kinds of failure, this module knows classes; between them stands
`from_outcome`. It looks a code of the exchange up in ``_core.CODES``; a code that is
not there falls back to its family, an answer without a code to its HTTP status.

No class adds to the memory layout of Exception, or it could not also be an
``OSError`` or an ``ExceptionGroup``. Attributes live in ``__dict__``, and positional
arguments alone make the object anew: it survives pickle, copy and process pools.
"""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing typing would cost more than all the rest
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import Any, Literal, Self

    Outcome = Literal["not_sent", "rejected", "unknown"]

_MESSAGE_LENGTH = 512  # characters of server text
_REASON_LENGTH = 80  # characters of one symbol's reason in a PartialCancelError
_REASONS = 8  # symbols that a PartialCancelError spells out


class EspressoError(Exception):
    """Anything that kept a call from doing its work; the root of all the others.

    After outcome ``"unknown"`` orders may be gone or still open: call again with
    ``confirm=True``. After the other two, nothing was cancelled.

    Made from a message and, by keyword, any other attribute; `outcome` and
    `retryable` default to what is usual for the class.

    Attributes:
        message: what went wrong; one printable line of at most 512 characters where
            a server worded it.
        code: the exchange's number for the error [field]; None: it gave none.
        status_code: HTTP status of the last answer; None: there was none.
        symbol: the pair that was to be cancelled; None: not about a single one.
        outcome: what all attempts of the call together did: ``"not_sent"`` (nothing
            reached the exchange), ``"rejected"`` (it refused) or ``"unknown"``.
        retryable: whether the same call may succeed when made again.
        attempts: attempts started; each sent one request at most.
        attempts_max: attempts allowed; 0: no fixed number.
        elapsed: seconds from the start of the call to its end.
        order_ids: orders that earlier rounds of the same call cancelled.
        body: start of the server's answer as it came, at most 4 KiB; ``""``: none.
        peer: host of the exchange, with a port that is not the usual; ``""``: none.
    """

    code: int | None = None
    status_code: int | None = None
    symbol: str | None = None
    outcome: "Outcome" = "not_sent"
    retryable: bool = False
    attempts: int = 0
    attempts_max: int = 0
    elapsed: float = 0.0
    order_ids: list[str]
    body: str = ""
    peer: str = ""

    def __init_subclass__(
        cls, *, outcome: "Outcome | None" = None, retryable: bool | None = None
    ) -> None:
        """Set what a call of one attempt that ends in this class usually says."""
        super().__init_subclass__()
        cls.outcome = cls.outcome if outcome is None else outcome
        cls.retryable = cls.retryable if retryable is None else retryable

    def __init__(
        self, *args: object, order_ids: "Iterable[str]" = (), **attrs: "Any"
    ) -> None:
        super().__init__(*args)
        self.args = args  # of three, OSError keeps two; pickles are made of them
        self.order_ids = list(order_ids)
        for name in attrs:
            if not hasattr(type(self), name):
                raise TypeError(f"{type(self).__name__} has no attribute {name!r}")
            setattr(self, name, attrs[name])

    @property
    def message(self) -> str:
        """What went wrong, without code, status and attempts."""
        return str(self.args[0]) if self.args else ""

    def __str__(self) -> str:
        """``[code] message (HTTP status, symbol at host, attempt n of m, seconds)``.

        What is not known is left out. A call that ended before its first attempt
        says ``no attempt``; an error that no call led to says nothing of attempts.
        """
        details = ", ".join(self._details())
        return f"{self._headline()} ({details})" if details else self._headline()

    def _headline(self) -> str:
        return self.message if self.code is None else f"[{self.code}] {self.message}"

    def _details(self) -> "Iterator[str]":
        if self.status_code is not None:
            yield f"HTTP {self.status_code}"
        if self.symbol or self.peer:
            yield " at ".join(filter(None, (self.symbol, self.peer)))
        if self.attempts:
            of_all = f" of {self.attempts_max}" if self.attempts_max else ""
            yield f"attempt {self.attempts}{of_all}"
        elif self.peer:
            yield "no attempt"
        if self.attempts or self.peer:
            yield f"{self.elapsed:.1f} s"


class ConfigError(EspressoError, ValueError):
    """A key, host, proxy or option cannot be used, and nothing was sent: correct the
    argument or environment variable that the message names."""


class TransportError(EspressoError, outcome="unknown", retryable=True):
    """No complete answer came from the exchange; the subclasses say why."""


class ConnectError(TransportError, ConnectionError, outcome="not_sent"):
    """No connection: name look-up, TCP, proxy or TLS failed. Nothing was sent, orders
    are open as before: check network and proxy, then call again."""


class CertificateError(ConnectError, retryable=False):
    """The server's certificate, or the trust store to verify it by, is not good.
    Nothing was sent, and calling again does not help: name the right roots in
    ``ca_file``. If they are right, somebody may stand in between."""


class ConnectionLostError(TransportError, ConnectionError):
    """The connection ended after the request went out; the outcome is unknown: call
    again with ``confirm=True``."""


class RequestTimeoutError(TransportError, TimeoutError):
    """The time was over before the answer was complete. ``outcome`` says how far it
    came: after ``"not_sent"`` orders are open as before, after ``"unknown"`` call
    again with ``confirm=True``."""


class ResponseError(EspressoError, outcome="unknown"):
    """An answer, but not one that was promised: HTML, broken JSON, a redirect; unknown
    (a redirect: rejected). ``body`` may show who answered instead: check ``base_url``,
    then call with ``confirm=True``. Not a ValueError: no argument was wrong."""


class APIError(EspressoError, outcome="unknown"):
    """The exchange, or the gateway before it, said no. This very class: a code or
    status that has none of its own. What it means for a cancel of many is mostly not
    documented: see ``outcome``; after ``"unknown"`` call with ``confirm=True``."""


class BadRequestError(APIError):
    """The request was not accepted (4000, 41xx, 44xx; 400, 422 without a code);
    rejected where the code is known to come before any order is touched, else
    unknown. The same call would fail again: read the message."""


class InvalidSymbolError(BadRequestError, outcome="rejected"):
    """The exchange has no such pair (4106); rejected. Check the spelling."""


class AuthenticationError(APIError, outcome="rejected"):
    """The key is not known (4010; 401 without a code); rejected. Check the key, and
    that it belongs to this host."""


class PermissionDeniedError(APIError, outcome="rejected"):
    """The gateway refused (403 without a code); rejected. Check the key's rights, and
    where the call comes from."""


class OrderNotFoundError(APIError, outcome="rejected"):
    """Nothing is open under this symbol (4200); rejected. Fine if the spelling is:
    ``missing_ok=True`` makes it a result. A 404 with a code that is not in the table
    is one too [spec], with outcome unknown: call again with ``confirm=True``."""


class RateLimitError(APIError, outcome="rejected", retryable=True):
    """Too many calls (4290; 429 without a code); rejected. Call again after
    ``retry_after`` seconds, or after 2 if that is None."""

    retry_after: float | None = None
    """Seconds the server asked to wait; None: it named none."""


class ServerError(APIError, retryable=True):
    """The exchange failed (5000, 5xxx; 5xx without a code); unknown, since a cancel of
    many may be half done: call again with ``confirm=True``."""


class UnavailableError(ServerError):
    """The exchange is out of reach or overloaded (5001; 502, 503, 504); unknown. Call
    again with ``confirm=True``."""


class TradingLockedError(ServerError, outcome="rejected"):
    """Trading is locked at the moment (5002); rejected. Call again later."""


class PartialCancelError(EspressoError, ExceptionGroup[Exception]):
    """Symbols of a list failed, one to all; the others were completed.

    Treat each of ``failed`` by its class, with ``except*`` if you like, or call for
    them again with ``confirm=True``. ``outcome`` is the worst of theirs,
    ``retryable`` whether one of them is, ``attempts`` their sum; ``code`` and the like
    are None.
    """

    results: "dict[str, dict[str, Any]]"
    """Symbol to what its cancel returned."""
    failed: dict[str, Exception]
    """Symbol to what its cancel raised; in a split, of this part."""

    def __init__(
        self,
        message: str,
        exceptions: "Sequence[Exception]",
        /,
        *,
        results: "Mapping[str, dict[str, Any]] | None" = None,
        failed: "Mapping[str, Exception] | None" = None,
        **attrs: "Any",
    ) -> None:
        # The group's own tuple: a list could change between now and the pickling.
        members: tuple[Exception, ...] = self.exceptions
        super().__init__(message, members, **(_combined(members) | attrs))
        self.results = dict(results or {})
        self.failed = dict(failed or {})

    @classmethod
    def from_results(
        cls,
        results: "Mapping[str, dict[str, Any]]",
        failed: "Mapping[str, Exception]",
        **attrs: "Any",
    ) -> "Self":
        """Make the exception of a list call, of which at least one symbol failed."""
        text = f"{len(failed)} of {len(results) + len(failed)} symbols failed"
        return cls(text, list(failed.values()), results=results, failed=failed, **attrs)

    def derive(self, excs: "Sequence[Any]", /) -> "Any":
        """Make the part of a split that holds `excs`: every result, its failures."""
        part = {id(error) for error in excs}
        failed = self.failed
        kept = {name: failed[name] for name in failed if id(failed[name]) in part}
        return type(self)(
            self.message, excs, results=self.results, failed=kept, elapsed=self.elapsed
        )

    def __str__(self) -> str:
        """``2 of 3 symbols failed: symbol: class: reason; symbol: …``."""
        names = list(self.failed)
        reasons = [f"{name}: {_reason(self.failed[name])}" for name in names[:_REASONS]]
        if len(names) > _REASONS:
            reasons.append(f"and {len(names) - _REASONS} more")
        return ": ".join(filter(None, (self.message, "; ".join(reasons))))


class StillOpenError(EspressoError, outcome="unknown", retryable=True):
    """When the time of a ``confirm=True`` call was over, orders still appeared: stop
    what places them, then call again. ``order_ids`` were cancelled so far."""


class GuardError(EspressoError):
    """The guard cannot do its work: not armed, or its watchdog is lost. Do not quote
    without it; the message says what is missing."""


class GuardTrippedError(GuardError, outcome="unknown"):
    """The guard has fired, since no beat came in time: stop quoting and leave it,
    which proves that nothing is open."""


__all__ = [name for name in list(globals()) if isinstance(globals()[name], type)]
for _name in __all__:
    globals()[_name].__module__ = "espresso"  # as users write it, also in pickles


_STATUS_CLASSES: dict[int | None, type[APIError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    422: BadRequestError,
    429: RateLimitError,
    **dict.fromkeys((502, 503, 504), UnavailableError),
}


def from_outcome(
    *,
    kind: str,
    sent: str,
    call_sent: str,
    certificate: bool,
    message: str,
    code: int | None,
    status_code: int | None,
    retry_after: float | None,
    **attrs: "Any",
) -> EspressoError:
    """Make the exception of a failed call; the binding calls this for each.

    kind: what ended the last attempt: "api", "http", "transport", "timeout",
        "bad_reply" or "still_open"
    sent: what the last attempt did; with `kind` it decides the class
    call_sent: what all attempts together did; it becomes ``outcome``
    certificate: verification or the trust store failed ("transport" only)
    message: the words of the server or of libcurl, as they came
    retry_after: seconds, for a RateLimitError
    attrs: other attributes of EspressoError, as they are
    """
    cls = _class_of(kind, sent, certificate, code, status_code)
    text = _printable(message, _MESSAGE_LENGTH) or "no message"
    if issubclass(cls, RateLimitError):
        attrs["retry_after"] = retry_after
    if issubclass(cls, CertificateError):
        text += _bundle_hint()
    # Whatever other word it were, orders might be gone.
    outcome = call_sent if call_sent in ("not_sent", "rejected") else "unknown"
    attrs.update(code=code, status_code=status_code, outcome=outcome)
    return cls(text, **attrs)


def _class_of(
    kind: str, sent: str, certificate: bool, code: int | None, status: int | None
) -> type[EspressoError]:
    match kind:
        case "api" | "http" if code is not None:
            return _class_of_code(code, status)
        case "api" | "http":
            fallback = ServerError if (status or 0) >= 500 else APIError
            return _STATUS_CLASSES.get(status, fallback)
        case "transport" if sent != "not_sent":
            return ConnectionLostError
        case "transport":
            return CertificateError if certificate else ConnectError
        case "timeout":
            return RequestTimeoutError
        case "bad_reply":
            return ResponseError
        case "still_open":
            return StillOpenError
    raise ValueError(f"no exception for kind {kind!r}")


def _class_of_code(code: int, status: int | None) -> type[APIError]:
    from espresso import _core  # which imports this module when it is loaded

    for row in _core.CODES:
        if row[0] == code:
            known: type[APIError] = globals()[row[1]]
            return known
    if status == 404:  # [spec]: its 404 is "Order Not Found", whatever the code
        return OrderNotFoundError
    if code // 100 in (41, 44):
        return BadRequestError
    return ServerError if code // 1000 == 5 else APIError


def _bundle_hint() -> str:
    """Other programs find their trust store here; whoever set it may expect it."""
    for name in ("CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE"):
        if os.environ.get(name):
            return f'; {name} is not read here: pass ca_file=os.environ["{name}"]'
    return ""


def _printable(text: str, limit: int) -> str:
    """One line without control, bidi and other characters that draw nothing, made
    of the first 8 × `limit`: a longer run of such characters is no message."""
    shown = "".join(c if c.isprintable() else " " for c in text[: 8 * limit])
    line = " ".join(shown.split())
    return line if len(line) <= limit else line[: limit - 3] + "..."


def _combined(members: "Sequence[Exception]") -> "dict[str, Any]":
    """What the members have in common; of a stranger nothing is known."""
    own = [error for error in members if isinstance(error, EspressoError)]
    worst = ("not_sent", "rejected", "unknown").index
    outcomes = [error.outcome for error in own] if len(own) == len(members) else []
    return {
        "outcome": max(outcomes, key=worst, default="unknown"),
        "retryable": any(error.retryable for error in own),
        "attempts": sum(error.attempts for error in own),
        "elapsed": max((error.elapsed for error in own), default=0.0),
        "order_ids": [name for error in own for name in error.order_ids],
    }


def _reason(error: Exception) -> str:
    text = error._headline() if isinstance(error, EspressoError) else str(error)
    shown = _printable(text, _REASON_LENGTH)
    return f"{type(error).__name__}: {shown}" if shown else type(error).__name__
