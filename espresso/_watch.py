"""What a call tells while it runs: warnings, and events for on_event.

Imported only when there is something to tell.
"""

from __future__ import annotations

import logging

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ._types import Event

log = logging.getLogger("espresso")


def attempt(
    on_event: Callable[[Event], object] | None,
    fields: dict[str, Any],
    message: str,
    next_in: float | None,
) -> None:
    """Log a retry or a lost reply, and hand the event on.

    An exception of on_event is logged and goes no further; KeyboardInterrupt
    and SystemExit end the call.
    """
    symbol = fields["symbol"]
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
