"""The life of one guard: armed, watched over, left.

Here is what it does; `_guard` has the ways in which a program uses it.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import os
import sys
import threading

from . import _client, _core
from ._guard_checks import checked_heartbeat, checked_timeout
from ._guard_link import Link, forget_all, link_for, withdraw
from ._guard_signals import signals
from ._guard_sweep import sweep
from ._guard_way_out import WayOut
from ._guard_wire import BEAT_SLACK, clock
from .errors import GuardError, GuardTrippedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ._guard_loop import Beater

IDLE, ARMING, ARMED = "idle", "arming", "armed"
LEAVING, LEFT, HANDED_OVER = "leaving", "left", "handed over"

_numbers = itertools.count(1)
started: list[Life] = []
# One start() at a time: of two on the same symbols, one hands over to the other.
_start_lock = threading.RLock()
_state_lock = threading.Lock()


class Life:
    """What a guard knows and does."""

    def __init__(
        self,
        symbol: str | Iterable[str],
        *,
        heartbeat: float | None = None,
        auto_beat: bool = False,
        at_start: bool = False,
        when: str = "always",
        watchdog: bool = True,
        timeout: float | None = None,
        origin: _client.Origin | None = None,
    ) -> None:
        self._all_symbols = _core.check_symbols(symbol)
        self.heartbeat: float | None = checked_heartbeat(heartbeat, auto_beat, watchdog)
        """Seconds without a beat after which it trips; None: it has no heart."""
        if when not in ("always", "error"):
            raise ValueError(f"when must be 'always' or 'error', not {when!r}")
        self._timeout = checked_timeout(timeout, len(self._all_symbols))
        self._auto_beat = auto_beat
        self._at_start = at_start
        self._when = when
        self._has_watchdog = watchdog
        self._origin = origin
        self._state = IDLE
        self._forget()

    def _forget(self) -> None:
        """As before the first arming."""
        self.symbols: list[str] = list(self._all_symbols)
        """What it guards now (list of str); a later start() may take some over."""
        self.number: int = next(_numbers)
        self.last_beat: float | None = None
        self._pid = os.getpid()
        self._sent_beat = 0.0
        self._tripped = False
        self._left_tripped = False
        self._link: Link | None = None
        self._client: _core.Client | None = None
        self._own_origin: _client.Origin | None = None
        self._has_signals = False
        self._beater: Beater | None = None
        self._given_up = threading.Event()
        self.account: str = ""

    def __repr__(self) -> str:
        if not hasattr(self, "symbols"):  # a traceback that prints locals may ask
            return "<espresso.Guard that was never made>"
        names = ",".join(self.symbols)
        heart = "" if self.heartbeat is None else f" heartbeat={self.heartbeat}"
        pid = self._watchdog_pid()
        watchdog = "" if pid is None else f" watchdog={pid}"
        state = "tripped" if self._tripped else self._state
        return f"<espresso.Guard {names} {state}{heart}{watchdog}>"

    @property
    def tripped(self) -> bool:
        """Whether a beat was missed: the orders are cancelled, and go on being."""
        return self._tripped

    def _check(self) -> None:
        if self._is_foreign():
            raise GuardError(
                f"this guard is process {self._pid}'s, from which this one was "
                "forked; it does not watch over a child"
            )
        if self._tripped:
            raise GuardTrippedError(
                f"no beat for more than {self.heartbeat} s: {', '.join(self.symbols)} "
                "are being cancelled; stop quoting and leave the guard"
            )
        if self._state == HANDED_OVER:
            raise GuardError("this guard was handed over to a later start()")
        if self._state not in (ARMED, LEAVING):
            raise GuardError("this guard is not armed")
        if self._link is not None and self._link.lost:
            raise GuardError(f"the watchdog is lost: {self._link.lost}")

    def _is_late(self, now: float) -> bool:
        """Whether no beat came in time, by our own clock."""
        if self.heartbeat is None or self.last_beat is None:
            return False
        return now - self.last_beat > self.heartbeat + BEAT_SLACK

    def has_tripped(self) -> None:
        """Called when the watchdog says so, or this process sees it first."""
        if not self._tripped:
            self._tripped = True
            log("critical", "no beat within %s s: cancelling %s", self.heartbeat, self)

    def _is_foreign(self) -> bool:
        return self._pid != os.getpid()

    def _watchdog_pid(self) -> int | None:
        link = self._link
        return None if link is None or link.lost else link.pid

    # ---- arming ----------------------------------------------------------------------

    def _enter(self, stays: bool = False) -> None:
        """Arm. Raises, and leaves nothing behind, if anything is missing."""
        until = clock() + self._timeout
        with _state_lock:
            if self._state in (ARMING, ARMED, LEAVING) and not self._is_foreign():
                raise RuntimeError("this guard is armed already")
            self._forget()
            self._state = ARMING
        try:
            origin = (self._origin or _client.origin_of_environment()).for_guard()
            self._client = origin.client(self._timeout)
            self._own_origin = origin
            with _start_lock if stays else contextlib.nullcontext(), signals.waiting():
                replaced = self._replaced(origin) if stays else []
                self._arm(origin, replaced, until)
                if stays:
                    self._take_over(replaced)
                    started.append(self)
        except BaseException:
            withdraw(self.number)
            self._clean_up(IDLE)
            raise
        log("info", "armed: %s; key and spelling are not proven yet", self)

    def _arm(
        self,
        origin: _client.Origin,
        replaced: list[tuple[Life, list[str]]],
        until: float,
    ) -> None:
        self.account = origin.account()
        left: list[str] = []
        if self._has_watchdog:
            self._link = link_for(self, origin, until)
            left = self._link.arm(self, until)
        try:
            self._sweep_first(left, replaced)
        except BaseException:
            # What an orphan has left to us is still to be proven.
            if left:
                self._link_go_on(clock())
            raise
        self._state = ARMED
        if self.heartbeat is not None:
            self.last_beat = self._sent_beat = clock()
            if self._link is not None:
                self._link.beat(self.number, self.last_beat)

    def _sweep_first(
        self, left: Sequence[str], replaced: Sequence[tuple[Life, list[str]]]
    ) -> None:
        """What must be proven empty before the body runs.

        Not what is handed over, since those orders are the running bot's own; but
        what its tripped guard was still cancelling.
        """
        names = set(left)
        if self._at_start:
            names |= set(self.symbols)
            names -= {name for other, given in replaced for name in given}
        names |= {n for other, given in replaced if other.tripped for n in given}
        if names and self._client is not None:
            wanted = [name for name in self.symbols if name in names]
            swept = sweep(self._client, wanted, confirm=True, timeout=self._timeout)
            if swept.failure is not None:
                raise swept.failure

    def _replaced(self, origin: _client.Origin) -> list[tuple[Life, list[str]]]:
        """Earlier start()s of this process and account, and what they give away."""
        account = origin.account()
        found = []
        for other in started:
            names = [name for name in other.symbols if name in self.symbols]
            if names and other.account == account:
                found.append((other, names))
        return found

    def _take_over(self, replaced: Sequence[tuple[Life, list[str]]]) -> None:
        """From now on these symbols are ours alone."""
        if self._link is not None and replaced:
            numbers = [(other.number, names) for other, names in replaced]
            self._link.replace(self.number, numbers)
        for other, names in replaced:
            other._hand_over(names)

    def _hand_over(self, names: Sequence[str]) -> None:
        self.symbols = [name for name in self.symbols if name not in names]
        if not self.symbols:
            if self._link is not None:
                self._link.guards.pop(self.number, None)
            self._clean_up(HANDED_OVER)
            self._drop_signals()

    # ---- leaving ---------------------------------------------------------------------

    def _leave(self, clean: bool, *, cancel: bool = True) -> Exception | None:
        """Cancel unless it need not, and end the watch; what went wrong, if it did."""
        if not self._begins_to_leave():
            return None
        began = clock()
        spared = clean and self._when == "error" and not self._left_tripped
        try:
            failure: Exception | None = None
            if cancel and not spared:
                failure = self._way_out(began).prove(clean)
            if failure is None:
                self._link_goodbye()
            else:
                self._link_go_on(began)
                log("critical", "%s", self._told(failure))
                failure.add_note(self._who_goes_on())
        except BaseException:  # a callback of the program has ended the cancel
            self._link_go_on(began)
            raise
        finally:
            self._clean_up(LEFT)
        return failure

    def _begins_to_leave(self) -> bool:
        """Whether it is ours to leave, and nobody leaves it already."""
        if self._is_foreign():
            return False
        with _state_lock:
            if self._state != ARMED:
                return False
            self._state = LEAVING
            # The watchdog's word may still be under way.
            self._left_tripped = self._tripped or self._is_late(clock())
            return True

    def _way_out(self, began: float) -> WayOut:
        assert self._client is not None
        return WayOut(self._client, self.symbols, began, self._timeout, self._given_up)

    def _link_go_on(self, began: float) -> None:
        if self._link is not None:
            self._link.go_on(self.number, self.symbols, began)

    def _link_goodbye(self) -> None:
        if self._link is not None:
            self._link.goodbye(self.number)

    def _clean_up(self, state: str) -> None:
        self._state = state
        with contextlib.suppress(ValueError):
            started.remove(self)
        if self._beater is not None:
            self._beater.stop()
        if self._client is not None:
            self._client.close()
        if self._own_origin is not None:
            self._own_origin.wipe()

    def _drop_signals(self, error: BaseException | None = None) -> None:
        has_signals, self._has_signals = self._has_signals, False
        end_signals(has_signals, error)

    def _told(self, failure: Exception) -> str:
        return (
            f"espresso.guard: the cancel of {', '.join(self.symbols)} failed: "
            f"{type(failure).__name__}: {failure}; {self._who_goes_on()}"
        )

    def _who_goes_on(self) -> str:
        pid = self._watchdog_pid()
        if pid is None:
            return "there is no watchdog: orders may be open"
        return f"the watchdog, process {pid}, goes on"


def end_signals(has_signals: bool, error: BaseException | None = None) -> None:
    """Deliver what came meanwhile, and put the handlers back."""
    try:
        if threading.current_thread() is threading.main_thread():
            signals.deliver(error)
    finally:
        if has_signals:
            signals.uninstall()


def log(level: str, text: str, *values: object) -> None:
    """Below WARNING only where the program itself uses logging."""
    if level != "info" or "logging" in sys.modules:
        from . import _watch

        getattr(_watch.log, level)(text, *values)


# ---- the life of the process ---------------------------------------------------------


def _at_exit() -> None:
    """What was started and not stopped: the program ends, and not by stop()."""
    for one in list(started):
        with signals.held(interrupts=int(signals.interrupted)):
            one._leave(False)


def _after_fork() -> None:
    """A child has no guard: it neither cancels nor holds the pipe open."""
    global _start_lock, _state_lock
    _start_lock = threading.RLock()
    _state_lock = threading.Lock()
    started.clear()
    forget_all()
    signals.after_fork()


atexit.register(_at_exit)
os.register_at_fork(after_in_child=_after_fork)
