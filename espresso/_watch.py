"""What a call tells while it runs: log records, and events for on_event.

Imported only when there is something to tell, or somebody listens: it loads
``logging``. ``ESPRESSO_LOG`` and ``ESPRESSO_LOG_FILE`` are read when that happens;
where one of them is set, it happens when espresso is imported.
"""

from __future__ import annotations

import logging
import os
import sys
import time

from ._client import LOG_VARIABLES
from ._log_file import open_log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from io import TextIOWrapper
    from typing import Any

    from ._types import CancelAllResult, Event

LEVEL_VARIABLE, FILE_VARIABLE = LOG_VARIABLES
LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}
# The pid, because a program and its watchdog may share a file.
FORMAT = "%(asctime)s espresso[%(process)d] %(levelname)s %(message)s"

log = logging.getLogger("espresso")


# ---- What is told --------------------------------------------------------------------


def level() -> int:
    """The least level of logging that somebody listens to now.

    At DEBUG, `attempt` is worth calling for each attempt; at INFO, `result` for each
    call. Warnings are told without asking.
    """
    if log.isEnabledFor(logging.DEBUG):
        return logging.DEBUG
    return logging.INFO if log.isEnabledFor(logging.INFO) else logging.WARNING


def attempt(
    on_event: Callable[[Event], object] | None,
    fields: dict[str, Any],
    message: str,
    next_in: float | None,
) -> None:
    """Log an attempt, a retry and a lost reply, and hand the event on.

    An exception of on_event is logged and goes no further; KeyboardInterrupt
    and SystemExit end the call.

    fields: those of an Event
    message: what was wrong with the answer; "": nothing
    next_in: seconds until the next attempt of the call; None: this was the last
    """
    symbol = fields["symbol"]
    if log.isEnabledFor(logging.DEBUG):
        log.debug("%s: %s", symbol, _described(fields, message))
    if fields["lost_reply"]:
        log.warning(
            "%s: cancelled, but the reply to an earlier attempt was lost: "
            "order_ids may lack some",
            symbol,
        )
    if next_in is not None:
        log.warning(
            "%s: attempt %d failed (%s; outcome %s), next in %.1f s",
            symbol,
            fields["attempt"],
            _printable(message),
            fields["outcome"],
            next_in,
        )
    if on_event is not None:
        _hand_on(on_event, fields)


def result(
    symbol: str, value: CancelAllResult | BaseException, elapsed: float | None = None
) -> None:
    """Log what a call came to for one symbol.

    value: what it returned or raised
    elapsed: seconds that a success took; an error knows its own
    """
    if not log.isEnabledFor(logging.INFO):
        return
    if isinstance(value, BaseException):
        text = _printable(str(value)) or "no message"
        log.info("%s: %s: %s", symbol, type(value).__name__, text)
    else:
        took = "" if elapsed is None else f" in {elapsed:.3f} s"
        log.info("%s: cancelled %d orders%s", symbol, len(value["order_ids"]), took)


def _described(fields: dict[str, Any], message: str) -> str:
    """``attempt 1: unknown, HTTP 503, code 5001 (no message); tls 3.1 ms, …``"""
    parts = [f"attempt {fields['attempt']}: {fields['outcome']}"]
    if fields["status_code"] is not None:
        parts.append(f"HTTP {fields['status_code']}")
    if fields["code"] is not None:
        parts.append(f"code {fields['code']}")
    verdict = ", ".join(parts)
    if message:
        verdict += f" ({_printable(message)})"
    return "; ".join(filter(None, (verdict, ", ".join(_timings(fields)))))


def _timings(fields: dict[str, Any]) -> list[str]:
    names = ("dns", "connect", "tls", "first_byte", "total")
    texts = [
        f"{name.replace('_', ' ')} {fields[name] * 1000:.1f} ms"
        for name in names
        if fields[name] is not None
    ]
    if fields["reused"]:
        texts.append("reused")
    if fields["remote"]:
        texts.append(fields["remote"])
    return texts


def _hand_on(on_event: Callable[[Event], object], fields: dict[str, Any]) -> None:
    from ._types import Event

    try:
        on_event(Event(**fields))
    except Exception:
        log.exception("on_event raised; the call goes on")


def _printable(text: str, limit: int = 200) -> str:
    """Server text for a log line: no line ends, no terminal escapes."""
    return "".join(c if c.isprintable() else " " for c in text[:limit])


_said: set[str] = set()


def _once(key: str) -> bool:
    """Whether this is said for the first time in this process."""
    first = key not in _said
    _said.add(key)
    return first


def lower_case(symbol: str) -> None:
    """Say once that a symbol is sent as typed, small letters and all."""
    if _once(f"symbol {symbol}"):
        log.warning(
            "%s holds small letters and is sent as typed; pairs seen so far are "
            "all capitals, and 'nothing open' holds only for the spelling asked for",
            symbol,
        )


def other_host(variable: str, url: str) -> None:
    """Say once that the environment sends calls elsewhere than to MAINNET."""
    if _once(f"host {url}"):
        log.warning("%s sends calls to %s, not to espresso.MAINNET", variable, url)


# ---- Where it is told ----------------------------------------------------------------


class _Stderr(logging.Handler):
    """Writes to whatever sys.stderr is when there is something to write."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if sys.stderr is not None:
                sys.stderr.write(self.format(record) + "\n")
                sys.stderr.flush()
        except Exception:
            self.handleError(record)


class _Unheard(_Stderr):
    """What logging does with a warning that no handler is there for.

    A handler of ours for the file would hide such warnings: only this one, beside it,
    keeps them on stderr until the program says where its records go.
    """

    def emit(self, record: logging.LogRecord) -> None:
        handlers = (*log.handlers, *logging.root.handlers)
        if all(isinstance(handler, _Stderr | _File) for handler in handlers):
            super().emit(record)


class _File(logging.FileHandler):
    """Appends each record in one write, so that processes can share the file."""

    def _open(self) -> TextIOWrapper:
        return open(
            self.baseFilename,
            "a",
            encoding="utf-8",
            errors="backslashreplace",
            opener=open_log,
        )

    def handleError(self, record: logging.LogRecord) -> None:
        """A full disk must not fill stderr while orders are being cancelled."""


def to_stderr(least: int, form: str = FORMAT) -> None:
    """Write records of this level and above to stderr, and nothing twice."""
    for handler in list(log.handlers):
        if isinstance(handler, _Stderr):
            log.removeHandler(handler)
    _add(_Stderr(least), least, form)


def _add(handler: logging.Handler, least: int, form: str = FORMAT) -> None:
    formatter = logging.Formatter(form)
    formatter.converter = time.gmtime
    formatter.default_time_format = "%Y-%m-%dT%H:%M:%S"
    formatter.default_msec_format = "%s.%03dZ"
    handler.setFormatter(formatter)
    log.addHandler(handler)
    if log.level == logging.NOTSET or log.level > least:
        log.setLevel(least)


def _to_file(path: str, least: int) -> None:
    try:
        handler = _File(path)
    except OSError as error:
        log.warning("%s: nothing is written there: %s", FILE_VARIABLE, error)
    else:
        _add(handler, least)


def _level_from(name: str) -> int | None:
    found = LEVELS.get(name.strip().lower())
    if name and found is None:
        log.warning(
            "%s=%s is no level: it is info or debug", LEVEL_VARIABLE, _printable(name)
        )
    return found


def _listen() -> None:
    """Do what the two variables say; never fail for what they say."""
    least = _level_from(os.environ.get(LEVEL_VARIABLE, ""))
    path = os.environ.get(FILE_VARIABLE)
    if least is not None:
        to_stderr(least)
    if path:
        if least is None:
            _add(_Unheard(logging.WARNING), logging.WARNING, "%(message)s")
        _to_file(path, logging.INFO if least is None else least)


_listen()
