"""What a guard is given, checked before anything is done."""

from __future__ import annotations

import contextlib
import math

from . import _client, _core
from ._guard_proof import default_timeout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

LEAST_HEARTBEAT = 2.0
"""Seconds."""
_LONGEST = 86400.0  # seconds; the longest time the core knows


def checked_symbols(symbol: str | Iterable[str]) -> list[str]:
    """The symbols, each once; the core itself says whether they are such.

    Raises TypeError and ValueError.
    """
    names = [symbol] if isinstance(symbol, str) else list(symbol)
    probe = _core.Client(
        key=None,
        key_source=_client.key_from_environment,
        base_url="http://127.0.0.1:1",
        timeout=1.0,
        attempt_timeout=None,
        connect_timeout=1.0,
        max_retries=0,
        proxy=None,
        no_proxy=None,
        ca_path=None,
        user_agent=_client.USER_AGENT,
        on_event=None,
    )
    probe.close()
    with contextlib.suppress(RuntimeError):  # they are; but the client is closed
        probe.cancel_all(names)
    return list(dict.fromkeys(str(name) for name in names))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def checked_heartbeat(
    heartbeat: float | None, auto_beat: bool, watchdog: bool
) -> float | None:
    if heartbeat is None:
        if auto_beat:
            raise ValueError("auto_beat needs a heartbeat")
        return None
    if not _is_number(heartbeat):
        raise TypeError(
            f"heartbeat must be a number of seconds, not {type(heartbeat).__name__}"
        )
    if not (math.isfinite(heartbeat) and LEAST_HEARTBEAT <= heartbeat <= _LONGEST):
        raise ValueError(
            f"heartbeat must be {LEAST_HEARTBEAT:.0f} to {_LONGEST:.0f} seconds, "
            f"not {heartbeat!r}"
        )
    if not watchdog:
        raise ValueError("a heartbeat needs the watchdog, which notices its end")
    return float(heartbeat)


def checked_timeout(timeout: float | None, symbols: int) -> float:
    if timeout is None:
        return default_timeout(symbols)
    if not _is_number(timeout):
        raise TypeError(
            f"timeout must be a number of seconds, not {type(timeout).__name__}"
        )
    if not (math.isfinite(timeout) and 0 < timeout <= _LONGEST):
        raise ValueError(f"timeout must be above 0, at most 86400, not {timeout!r}")
    return float(timeout)
