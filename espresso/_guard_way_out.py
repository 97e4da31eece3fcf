"""The way out of a guard: how clean it is, and the proof that ends it."""

from __future__ import annotations

from ._guard_proof import SETTLE, is_hopeless
from ._guard_signals import GivenUp, signals
from ._guard_sweep import sweep
from ._guard_wire import clock
from .errors import GuardError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import threading
    from collections.abc import Sequence

    from . import _core

_LEAST_TIME = SETTLE + 1.0  # seconds: less could prove nothing after a death
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 1.0  # seconds between two tries


def is_clean(error: BaseException | None) -> bool:
    """Whether a program that ends with this ends well."""
    if isinstance(error, SystemExit):
        return error.code is None or error.code == 0
    return error is None


def came_by_interrupt(error: BaseException | None) -> int:
    """How many Ctrl-Cs have led out of the block: asyncio makes one a
    cancellation."""
    if isinstance(error, KeyboardInterrupt):
        return 1
    kind = type(error).__name__ if error is not None else ""
    return 1 if kind == "CancelledError" and signals.interrupted else 0


class WayOut:
    """One leaving of a guard.

    began: when it began (`clock`)
    timeout: seconds it may take
    given_up: set from elsewhere when nobody waits for it any longer
    """

    def __init__(
        self,
        client: _core.Client,
        symbols: Sequence[str],
        began: float,
        timeout: float,
        given_up: threading.Event,
    ) -> None:
        self._client = client
        self._symbols = list(symbols)
        self._began = began
        self._timeout = timeout
        self._given_up = given_up

    def prove(self, clean: bool) -> Exception | None:
        """Cancel until the exchange says that nothing is open; None: it did.

        clean: no order can be on its way any more
        """
        try:
            with signals.waiting():
                return self._cancel() if clean else self._cancel_after_death()
        except GivenUp:
            return GuardError("Ctrl-C for the second time: the proof was not awaited")
        except Exception as error:
            return error

    def _cancel(self) -> Exception | None:
        swept = sweep(self._client, self._symbols, confirm=True, timeout=self._timeout)
        return swept.failure

    def _cancel_after_death(self) -> Exception | None:
        """At once, and once more when the last order must have arrived."""
        until = self._began + max(self._timeout, _LEAST_TIME)
        settled = self._began + SETTLE
        names, pause = self._symbols, 0.0
        sweep(self._client, names, confirm=False, timeout=until - clock())
        while True:
            if self._given_up.wait(max(0.0, settled - clock(), pause)):
                raise GivenUp
            left = max(0.1, until - clock())
            swept = sweep(self._client, names, confirm=True, timeout=left)
            names = [name for name in names if name in swept.failed]
            pause = min(max(_FIRST_PAUSE, 2 * pause), _LONGEST_PAUSE)
            hopeless = any(is_hopeless(error) for error in swept.failed.values())
            if not names or hopeless or clock() + pause >= until:
                return swept.failure
