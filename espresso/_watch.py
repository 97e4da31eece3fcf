"""What a call tells while it runs: events and warnings.

Imported only when there is something to tell: ``dataclasses``, ``typing`` and
``logging`` cost more than the call itself.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NotRequired, TypedDict

log = logging.getLogger("espresso")


class CancelAllResult(TypedDict):
    """What ``cancel_all`` returns; an exact ``dict`` at run time.

    Members that the exchange adds [spec allows them] are kept.
    """

    symbol: str
    order_ids: list[str]
    lost_reply: NotRequired[Literal[True]]


@dataclass(frozen=True, slots=True)
class Event:
    """One attempt that has ended, as ``on_event`` gets it.

    Phases count in seconds from the attempt's start to the end of the phase;
    None where it was not reached or, on a reused connection, not needed.
    """

    symbol: str
    attempt: int
    """From 1; the attempts of one call."""
    status_code: int | None
    code: int | None
    """The API's code [field]."""
    outcome: str
    """Of this attempt: "done", "not_sent", "rejected" or "unknown"."""
    lost_reply: bool
    """The call succeeded after an attempt whose reply was lost."""
    dns: float | None
    connect: float | None
    tls: float | None
    first_byte: float | None
    total: float | None
    reused: bool
    """On a connection that an earlier call or warm_up() had opened."""
    remote: str
    """Numeric address of the peer, or ""."""


def attempt(
    on_event: Callable[[Event], object] | None,
    fields: dict[str, object],
    message: str,
    next_in: float | None,
) -> None:
    """Log a retry or a lost reply, and hand the event on.

    An exception of on_event is logged and goes no further; KeyboardInterrupt
    and SystemExit end the call.
    """
    event = Event(**fields)  # type: ignore[arg-type]  # built by the binding
    if event.lost_reply:
        log.warning(
            "%s: cancelled, but the reply to an earlier attempt was lost: "
            "order_ids may lack some",
            event.symbol,
        )
    if next_in is not None:
        log.warning(
            "%s: attempt %d failed (%s; outcome %s), next in %.1f s",
            event.symbol,
            event.attempt,
            _printable(message),
            event.outcome,
            next_in,
        )
    if on_event is None:
        return
    try:
        on_event(event)
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
