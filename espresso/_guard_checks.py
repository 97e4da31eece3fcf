"""What a guard is given, checked before anything is done."""

from __future__ import annotations

import math

from ._guard_proof import default_timeout

LEAST_HEARTBEAT = 2.0
"""Seconds."""
_LONGEST = 86400.0  # seconds; the longest time the core knows


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
