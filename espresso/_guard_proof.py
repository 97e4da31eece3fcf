"""When a symbol is tried again, and when it is proven that nothing is open.

No clock and no network here: times come in, decisions go out. The guard and its
watchdog keep the same rule.

An order that the dying bot had sent may still be on its way. Hence the proof is an
answer "nothing is open" (4200) at least SETTLE seconds after the way out began; the
cancel that is sent at once only gets the orders out of the market sooner.
"""

from __future__ import annotations

from .errors import EspressoError, RateLimitError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

SETTLE = 1.0
"""Seconds that an order may be on its way."""
GIVE_UP = 15 * 60.0
"""Seconds after which a watchdog ends without proof."""
HOPELESS_PAUSE = 30.0
"""Seconds between two tries of what repeating cannot mend."""
TRIP_PAUSE = 5.0
"""Seconds between two sweeps of a guard that has tripped."""
RATE_PAUSE = 2.0
"""Seconds: the exchange's window [field], where it names no other."""

_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 2.0

_BASE_TIME = 4.0
_BASE_SYMBOLS = 6
_SYMBOL_TIME = 0.7


def default_timeout(symbols: int) -> float:
    """Seconds for the cancel of so many symbols.

    4, since a notebook server gives a kernel 5 to end; more than six symbols need
    more for the exchange's rate limit, 10 calls in 2 seconds [field].
    """
    return _BASE_TIME + _SYMBOL_TIME * max(0, symbols - _BASE_SYMBOLS)


def is_hopeless(error: BaseException) -> bool:
    """Whether the same call, made again, would fail the same way."""
    if not isinstance(error, EspressoError):
        return False
    return not error.retryable and error.outcome in ("not_sent", "rejected")


class Duty:
    """One symbol that must be proven empty.

    began: when the way out began
    endless: swept for ever, every TRIP_PAUSE, since its bot may still quote
    """

    __slots__ = ("_pause", "began", "busy", "due", "endless", "said")

    def __init__(self, began: float, *, endless: bool = False) -> None:
        self.began = began
        self.endless = endless
        self.due = began
        self.busy = False
        """A call for it is under way."""
        self.said = ""
        """The failure that was logged last."""
        self._pause = _FIRST_PAUSE

    def confirms(self, at: float) -> bool:
        """Whether a call that starts now can prove anything."""
        return self.endless or at >= self.began + SETTLE

    def succeeded(self, confirmed: bool, now: float) -> bool:
        """Note a call that succeeded; whether that was the proof."""
        self.busy = False
        self._pause = _FIRST_PAUSE
        if self.endless:
            self.due = now + TRIP_PAUSE
        elif not confirmed:
            self.due = max(now, self.began + SETTLE)
        return confirmed and not self.endless

    def failed(self, error: BaseException, now: float) -> None:
        """Note a call that failed, and when to make the next one."""
        self.busy = False
        pause = self._pause
        self._pause = min(2 * pause, _LONGEST_PAUSE)
        if is_hopeless(error):
            pause = HOPELESS_PAUSE
        elif isinstance(error, RateLimitError):
            pause = max(pause, error.retry_after or RATE_PAUSE)
        self.due = now + pause

    def has_expired(self, now: float) -> bool:
        return not self.endless and now >= self.began + GIVE_UP


def next_due(duties: Iterable[Duty]) -> float | None:
    """The earliest time at which one that is not busy is due."""
    return min((duty.due for duty in duties if not duty.busy), default=None)
