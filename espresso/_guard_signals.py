"""Signals while a guard is armed: none may end a cancel half-way, or be lost.

While a guard is armed, SIGTERM and SIGHUP that nobody handles raise SystemExit, so
that the ``with`` block is left like any other way. While the guard itself works, on
the way in or out, every signal is noted and delivered when it is done. A second
Ctrl-C on the way out ends the waiting, no more.

All of it happens in the main thread, where Python runs its handlers.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import CodeType, FrameType
    from typing import Any

_ENDING = (signal.SIGTERM, signal.SIGHUP)
_GIVE_UP_AT = 2  # on the way out the first Ctrl-C cancels; the second ends the wait


class GivenUp(BaseException):
    """Ctrl-C for the second time: do not wait for the proof any longer."""


class Signals:
    """The handlers of this process, shared by all its guards."""

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}
        self._users = 0
        self._depth = 0
        self._noted: list[int] = []
        self._entrances: set[CodeType] = set()
        self._may_raise = False
        self._interrupts = 0
        self._limit = _GIVE_UP_AT
        self._on_give_up: Callable[[], None] | None = None
        self.interrupted = False
        """A Ctrl-C has struck the guarded program."""

    # ---- handlers --------------------------------------------------------------------

    def protect(self, *entrances: Callable[..., Any]) -> None:
        """Count these functions as the guard's work from their very first step."""
        self._entrances.update(function.__code__ for function in entrances)

    def install(self) -> bool:
        """Begin to handle signals for one more guard; False where Python does not
        allow it: outside the main thread, and in a subinterpreter."""
        if threading.current_thread() is not threading.main_thread():
            return False
        if self._users == 0:
            self.interrupted = False
            try:
                for number in (*_ENDING, signal.SIGINT):
                    self._take(number)
            except ValueError:
                return False
        self._users += 1
        return True

    def _take(self, number: signal.Signals) -> None:
        """Not what is ignored, nor what a C program around us handles; and where
        SIGINT just kills, it was meant to."""
        before = signal.getsignal(number)
        if before == self._handle:
            return  # left behind by a guard that another thread has stopped
        kills = before is signal.SIG_DFL
        if callable(before) or (kills and number in _ENDING):
            signal.signal(number, self._handle)
            self._before[number] = before

    def uninstall(self) -> None:
        """End that for one guard; with the last one, put the handlers back."""
        self._users -= 1
        if self._users == 0:
            self._restore()

    def _restore(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return  # stopped by another thread: the handlers then do what was before
        for number in self._before:
            # Whoever has put in another one meanwhile keeps it.
            if signal.getsignal(number) == self._handle:
                signal.signal(number, self._before[number])
        self._before.clear()

    def after_fork(self) -> None:
        """In a child: its signals are not the guard's."""
        self._restore()
        entrances = self._entrances
        self.__init__()  # type: ignore[misc]
        self._entrances = entrances

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self._depth and not self._is_entrance(frame):
            self.interrupted |= number == signal.SIGINT
            self._deliver(number, frame)
            return
        self._noted.append(number)
        if number != signal.SIGINT:
            return
        self._interrupts += 1
        if self._interrupts >= self._limit:
            if self._on_give_up is not None:
                self._on_give_up()
            if self._may_raise:
                self._may_raise = False
                raise GivenUp

    def _is_entrance(self, frame: FrameType | None) -> bool:
        return frame is not None and frame.f_code in self._entrances

    def _deliver(self, number: int, frame: FrameType | None) -> None:
        before = self._before_ours(number)
        if callable(before):
            before(number, frame)
        else:
            raise SystemExit(128 + number)

    def _before_ours(self, number: int) -> Any:
        before = self._before.get(number) or signal.getsignal(number)
        return None if before == self._handle else before

    # ---- the guard's own work --------------------------------------------------------

    @contextlib.contextmanager
    def held(
        self,
        interrupts: int = 0,
        limit: int = _GIVE_UP_AT,
        on_give_up: Callable[[], None] | None = None,
    ) -> Iterator[None]:
        """Note signals instead of delivering them.

        interrupts: Ctrl-Cs that have led here
        limit: how many end the waiting
        on_give_up: called then, from the handler
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self._depth += 1
        self._interrupts = interrupts
        self._limit = limit
        self._on_give_up = on_give_up
        try:
            yield
        finally:
            self._depth -= 1
            self._on_give_up = None

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Where the work may be broken off: raises GivenUp at the last Ctrl-C that is
        borne, also if it has come already."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self._may_raise = True
        try:
            if self._interrupts >= self._limit:
                raise GivenUp
            yield
        finally:
            self._may_raise = False

    def deliver(self, error: BaseException | None = None) -> None:
        """Now deliver what was noted; each signal once.

        error: what the program is leaving with already. One that ends it needs no
            signal that would do the same.
        """
        if self._depth:
            return
        noted, self._noted = list(dict.fromkeys(self._noted)), []
        is_ending = isinstance(error, SystemExit | KeyboardInterrupt)
        for number in noted:
            before = self._before_ours(number)
            ends = not callable(before) or before is signal.default_int_handler
            if not (is_ending and ends):
                self._deliver(number, sys._getframe())


signals = Signals()
