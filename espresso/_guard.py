"""`guard`: ties the cancel to the life of a program.

The guard itself cancels on every way out that Python still runs; its watchdog, a
process of its own (`_watchdog.py`), on all others. Both need a proof before they
rest: `_guard_proof` says which.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import math
import os
import sys
import threading

from . import _client, _core
from ._guard_link import Link, forget_all, link_for
from ._guard_proof import SETTLE, default_timeout, is_hopeless
from ._guard_signals import GivenUp, signals
from ._guard_sweep import sweep
from ._guard_wire import BEAT_SLACK, clock
from .errors import (
    GuardError,
    GuardTrippedError,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable, Sequence
    from types import TracebackType
    from typing import Literal, Self

    from ._sealed import Sealed

LEAST_HEARTBEAT = 2.0
"""Seconds."""
_LONGEST = 86400.0  # seconds; the longest time the core knows
_LEAST_UNCLEAN = SETTLE + 1.0  # seconds: less could not prove anything
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 1.0  # seconds between two tries on the way out
_BEATS = 4  # auto_beat: so many a heartbeat

_IDLE, _ARMING, _ARMED = "idle", "arming", "armed"
_LEFT, _HANDED_OVER = "left", "handed over"

_numbers = itertools.count(1)
_started: list[Guard] = []
# One start() at a time: of two on the same symbols, one hands over to the other.
_start_lock = threading.RLock()
_state_lock = threading.Lock()


class Guard:
    """Cancels the open orders of its symbols when the program ends, however it does.

    ``espresso.guard`` and ``Client.guard`` make it; ``guard`` says what the options
    are. Three ways to use it::

        with espresso.guard("ADAUSDM") as g: ...
        async with espresso.guard("ADAUSDM") as g: ...
        g = espresso.guard("ADAUSDM").start(); ...; g.stop()

    Armed once at a time; after it was left it can be armed again.
    """

    def __init__(
        self,
        symbol: str | Iterable[str],
        *,
        heartbeat: float | None = None,
        auto_beat: bool = False,
        at_start: bool = False,
        when: Literal["always", "error"] = "always",
        watchdog: bool = True,
        timeout: float | None = None,
        origin: _client.Origin | None = None,
    ) -> None:
        self.symbols = checked_symbols(symbol)
        """What it guards (list of str)."""
        self.heartbeat = _checked_heartbeat(heartbeat, auto_beat, watchdog)
        """Seconds without a beat after which it trips; None: it has no heart."""
        if when not in ("always", "error"):
            raise ValueError(f"when must be 'always' or 'error', not {when!r}")
        self._timeout = _checked_timeout(timeout, len(self.symbols))
        self._auto_beat = auto_beat
        self._at_start = at_start
        self._when = when
        self._has_watchdog = watchdog
        self._origin = origin
        self._state = _IDLE
        self._forget()

    def _forget(self) -> None:
        """As before the first arming."""
        self.number = next(_numbers)
        self.last_beat: float | None = None
        self._pid = os.getpid()
        self._sent_beat = 0.0
        self._tripped = False
        self._link: Link | None = None
        self._client: _core.Client | None = None
        self._sealed: Sealed | None = None
        self._has_signals = False
        self._beater: asyncio.TimerHandle | None = None
        self._given_up = threading.Event()
        self.account = ""

    def __repr__(self) -> str:
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

    # ---- the ways to use it ----------------------------------------------------------

    def __enter__(self) -> Self:
        """Arm it; see `guard` for what is raised, the body then does not run."""
        self._enter_here(stays=False)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Cancel, prove it, and send the watchdog home."""
        with signals.held(interrupts=_came_by_interrupt(error)):
            failure = self._leave(_is_clean(error))
        self._finish(error, failure)

    async def __aenter__(self) -> Self:
        """Arm it, while the event loop goes on."""
        cancelled = await self._in_thread(self._enter)
        if cancelled is not None:
            await self._in_thread(self._leave_unused)
            raise cancelled
        self._has_signals = signals.install()
        self._start_beating()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Cancel and prove it; a ``task.cancel()`` meanwhile is delivered after."""
        failures: list[Exception | None] = []
        with signals.held(_came_by_interrupt(error), on_give_up=self._give_up_soon()):
            cancelled = await self._in_thread(
                lambda: failures.append(self._leave(_is_clean(error)))
            )
        failure = failures[0] if failures else None
        if cancelled is not None and _is_clean(error):
            error = cancelled
        self._finish(error, failure)
        if cancelled is not None and error is cancelled:
            raise cancelled

    def start(self) -> Self:
        """Arm it until `stop`, or the end of the program; for notebook cells.

        It is held by espresso: that the variable goes, or names another guard, ends
        nothing. Symbols that an earlier start() guards are handed over from it,
        without a cancel. Raises what entering does.
        """
        self._enter_here(stays=True)
        return self

    def stop(self, cancel: bool = True) -> None:
        """Leave it, as the end of a ``with`` block would.

        cancel: False leaves the orders where they are

        Raises the cancel's own error if it failed, and GuardTrippedError if the
        guard had tripped. After it was left or handed over it does nothing.
        """
        if self._state != _ARMED or self._is_foreign():
            return
        with signals.held():
            failure = self._leave(True, cancel=cancel)
        self._finish(None, failure)

    def beat(self) -> None:
        """Say that the bot is alive; from any thread, as often as it likes.

        Raises GuardTrippedError after a beat was missed, and GuardError if the
        guard is not armed, has lost its watchdog, was handed over to a later
        start(), or belongs to the process that this one was forked from.
        """
        self._check()
        if self.heartbeat is None or self.last_beat is None:
            return
        now = clock()
        if now - self.last_beat > self.heartbeat + BEAT_SLACK:
            # The watchdog's word may be under way; or this process slept with it.
            self.has_tripped()
            if self._link is not None:
                self._link.trip(self.number)
            self._check()
        self.last_beat = now
        if now - self._sent_beat >= BEAT_SLACK:
            self._sent_beat = now
            if self._link is not None:
                self._link.beat(self.number, now)

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
        if self._state == _HANDED_OVER:
            raise GuardError("this guard was handed over to a later start()")
        if self._state != _ARMED:
            raise GuardError("this guard is not armed")
        if self._link is not None and self._link.lost:
            raise GuardError(f"the watchdog is lost: {self._link.lost}")

    def has_tripped(self) -> None:
        """Called when the watchdog says so, or this process sees it first."""
        if not self._tripped:
            self._tripped = True
            _log("critical", "no beat within %s s: cancelling %s", self.heartbeat, self)

    def _is_foreign(self) -> bool:
        return self._pid != os.getpid()

    def _watchdog_pid(self) -> int | None:
        link = self._link
        return None if link is None or link.lost else link.pid

    # ---- in this thread, or in another -----------------------------------------------

    def _enter_here(self, *, stays: bool) -> None:
        """Arm; a Ctrl-C meanwhile breaks it off, other signals come after."""
        if self._auto_beat:
            _require_loop()
        has_signals = signals.install()
        try:
            with signals.held(limit=1):
                self._enter(stays=stays)
        except BaseException as error:
            _end_signals(has_signals)
            if isinstance(error, GivenUp):
                raise KeyboardInterrupt from None
            raise
        self._has_signals = has_signals
        try:
            signals.deliver()
        except BaseException:
            with signals.held():
                self._leave_unused()
            self._drop_signals()
            raise
        if self._auto_beat:
            self._start_beating()

    def _leave_unused(self) -> None:
        """The body will not run: there is nothing to cancel."""
        self._leave(True, cancel=False)

    async def _in_thread(self, work: Callable[[], object]) -> BaseException | None:
        """Run it beside the loop and wait for its end, whatever comes.

        The last cancellation that came meanwhile, for the caller to deliver.
        """
        import asyncio

        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        errors: list[BaseException] = []

        def run() -> None:
            try:
                work()
            except BaseException as error:
                errors.append(error)
            loop.call_soon_threadsafe(done.set_result, None)

        threading.Thread(target=run, name="espresso-guard-work", daemon=True).start()
        cancelled: BaseException | None = None
        while not done.done():
            try:
                await asyncio.shield(done)
            except asyncio.CancelledError as error:
                cancelled = error
        if errors:
            raise errors[0]
        return cancelled

    def _give_up_soon(self) -> Callable[[], None]:
        """What the second Ctrl-C calls while a thread waits for the proof."""
        import asyncio

        loop = asyncio.get_running_loop()

        def give_up() -> None:
            self._given_up.set()
            if self._client is not None:
                loop.call_soon_threadsafe(self._client.close)

        return give_up

    def _start_beating(self) -> None:
        """Beat from the running loop, as long as it turns and the guard is armed."""
        if not self._auto_beat or self.heartbeat is None:
            return
        import asyncio

        loop = asyncio.get_running_loop()
        pause = self.heartbeat / _BEATS

        def beat() -> None:
            try:
                self.beat()
            except GuardError:
                return
            self._beater = loop.call_later(pause, beat)

        beat()

    # ---- arming ----------------------------------------------------------------------

    def _enter(self, stays: bool = False) -> None:
        """Arm. Raises, and leaves nothing behind, if anything is missing."""
        until = clock() + self._timeout
        with _state_lock:
            if self._state in (_ARMING, _ARMED) and not self._is_foreign():
                raise RuntimeError("this guard is armed already")
            self._forget()
            self._state = _ARMING
        try:
            origin = (self._origin or _client.origin_of_environment()).for_guard()
            self._client = origin.client(self._timeout)
            self._sealed = origin.sealed
            with _start_lock if stays else contextlib.nullcontext(), signals.waiting():
                replaced = self._replaced(origin) if stays else []
                self._arm(origin, replaced, until)
                for other, names in replaced:
                    other._hand_over(names)
                if stays:
                    _started.append(self)
        except BaseException:
            self._clean_up(_IDLE)
            raise
        _log("info", "armed: %s; key and spelling are not proven yet", self)

    def _arm(
        self,
        origin: _client.Origin,
        replaced: list[tuple[Guard, list[str]]],
        until: float,
    ) -> None:
        self.account = origin.account()
        left: list[str] = []
        if self._has_watchdog:
            self._link = link_for(origin, until)
            numbers = [(other.number, names) for other, names in replaced]
            left = self._link.arm(self, numbers, until)
        self._state = _ARMED
        try:
            self._sweep_first(left, replaced)
        except BaseException:
            # What an orphan has left to us is still to be proven.
            if left and self._link is not None:
                self._link.go_on(self.number, self.symbols, clock())
            else:
                self._link_goodbye()
            raise
        if self.heartbeat is not None:
            self.last_beat = self._sent_beat = clock()
            if self._link is not None:
                self._link.beat(self.number, self.last_beat)

    def _sweep_first(
        self, left: Sequence[str], replaced: Sequence[tuple[Guard, list[str]]]
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

    def _replaced(self, origin: _client.Origin) -> list[tuple[Guard, list[str]]]:
        """Earlier start()s of this process and account, and what they give away."""
        account = origin.account()
        found = []
        for other in _started:
            names = [name for name in other.symbols if name in self.symbols]
            if names and other.account == account:
                found.append((other, names))
        return found

    def _hand_over(self, names: Sequence[str]) -> None:
        self.symbols = [name for name in self.symbols if name not in names]
        if not self.symbols:
            if self._link is not None:
                self._link.guards.pop(self.number, None)
            self._clean_up(_HANDED_OVER)
            self._drop_signals()

    # ---- leaving ---------------------------------------------------------------------

    def _leave(self, clean: bool, *, cancel: bool = True) -> Exception | None:
        """Cancel unless it need not, and end the watch; what went wrong, if it did."""
        if self._is_foreign() or self._state != _ARMED:
            return None
        began = clock()
        failure: Exception | None = None
        spared = clean and self._when == "error" and not self._tripped
        if cancel and not spared:
            failure = self._prove(began, clean)
        if failure is None:
            self._link_goodbye()
        elif self._link is not None:
            self._link.go_on(self.number, self.symbols, began)
        if failure is not None:
            _log("critical", "%s", self._told(failure))
            failure.add_note(self._who_goes_on())
        self._clean_up(_LEFT)
        return failure

    def _prove(self, began: float, clean: bool) -> Exception | None:
        """Until the exchange says that nothing is open; None: it did."""
        assert self._client is not None
        try:
            with signals.waiting():
                if clean:
                    swept = sweep(
                        self._client,
                        self.symbols,
                        confirm=True,
                        timeout=self._timeout,
                    )
                    return swept.failure
                return self._prove_after_death(began)
        except GivenUp:
            return GuardError("Ctrl-C for the second time: the proof was not awaited")
        except Exception as error:
            return error

    def _prove_after_death(self, began: float) -> Exception | None:
        """The bot did not end well: its last order may still be on its way."""
        assert self._client is not None
        until = began + max(self._timeout, _LEAST_UNCLEAN)
        settled = began + SETTLE
        swept = sweep(
            self._client, self.symbols, confirm=False, timeout=until - clock()
        )
        names = list(self.symbols)
        pause = 0.0
        while True:
            if self._given_up.wait(max(0.0, settled - clock(), pause)):
                raise GivenUp
            swept = sweep(
                self._client, names, confirm=True, timeout=max(0.1, until - clock())
            )
            names = [name for name in names if name in swept.failed]
            pause = min(max(_FIRST_PAUSE, 2 * pause), _LONGEST_PAUSE)
            hopeless = any(is_hopeless(error) for error in swept.failed.values())
            if not names or hopeless or clock() + pause >= until:
                return swept.failure

    def _link_goodbye(self) -> None:
        if self._link is not None:
            self._link.goodbye(self.number)

    def _clean_up(self, state: str) -> None:
        self._state = state
        with contextlib.suppress(ValueError):
            _started.remove(self)
        if self._beater is not None:
            self._beater.cancel()
        if self._client is not None:
            self._client.close()
        if self._sealed is not None:
            self._sealed.forget()

    def _finish(self, error: BaseException | None, failure: Exception | None) -> None:
        """Let the program's own exception through, or raise what must be known."""
        if self._is_foreign():
            return
        try:
            if error is not None and not _is_clean(error):
                if failure is not None:
                    error.add_note(self._told(failure))
            elif failure is not None:
                raise failure
            elif self._tripped and self._state == _LEFT:
                raise GuardTrippedError(
                    f"no beat came for more than {self.heartbeat} s: "
                    f"{', '.join(self.symbols)} were cancelled"
                )
        finally:
            self._drop_signals(error)

    def _drop_signals(self, error: BaseException | None = None) -> None:
        has_signals, self._has_signals = self._has_signals, False
        _end_signals(has_signals, error)

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


# ---- checks and small things ---------------------------------------------------------


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


def _checked_heartbeat(
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


def _checked_timeout(timeout: float | None, symbols: int) -> float:
    if timeout is None:
        return default_timeout(symbols)
    if not _is_number(timeout):
        raise TypeError(
            f"timeout must be a number of seconds, not {type(timeout).__name__}"
        )
    if not (math.isfinite(timeout) and 0 < timeout <= _LONGEST):
        raise ValueError(f"timeout must be above 0, at most 86400, not {timeout!r}")
    return float(timeout)


def _require_loop() -> None:
    import asyncio

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        raise RuntimeError(
            "auto_beat beats from a running event loop: use 'async with'"
        ) from None


def _is_clean(error: BaseException | None) -> bool:
    """Whether a program that ends with this ends well."""
    if isinstance(error, SystemExit):
        return error.code is None or error.code == 0
    return error is None


def _came_by_interrupt(error: BaseException | None) -> int:
    """How many Ctrl-Cs have led out of the block: asyncio makes one a
    cancellation."""
    if isinstance(error, KeyboardInterrupt):
        return 1
    kind = type(error).__name__ if error is not None else ""
    return 1 if kind == "CancelledError" and signals.interrupted else 0


def _end_signals(has_signals: bool, error: BaseException | None = None) -> None:
    """Deliver what came meanwhile, and put the handlers back."""
    try:
        if threading.current_thread() is threading.main_thread():
            signals.deliver(error)
    finally:
        if has_signals:
            signals.uninstall()


def _log(level: str, text: str, *values: object) -> None:
    """Below WARNING only where the program itself uses logging."""
    if level != "info" or "logging" in sys.modules:
        from . import _watch

        getattr(_watch.log, level)(text, *values)


# ---- the life of the process ---------------------------------------------------------


def _at_exit() -> None:
    """What was started and not stopped: the program ends, and not by stop()."""
    for one in list(_started):
        with signals.held(interrupts=int(signals.interrupted)):
            one._leave(False)


def _after_fork() -> None:
    """A child has no guard: it neither cancels nor holds the pipe open."""
    global _start_lock, _state_lock
    _start_lock = threading.RLock()
    _state_lock = threading.Lock()
    _started.clear()
    forget_all()
    signals.after_fork()


signals.protect(Guard.__enter__, Guard.__exit__, Guard.start, Guard.stop)
atexit.register(_at_exit)
os.register_at_fork(after_in_child=_after_fork)


def guard(
    symbol: str | Iterable[str],
    *,
    heartbeat: float | None = None,
    auto_beat: bool = False,
    at_start: bool = False,
    when: Literal["always", "error"] = "always",
    watchdog: bool = True,
    timeout: float | None = None,
) -> Guard:
    """Cancel the open orders of these symbols when the program ends, however it does.

        with espresso.guard("ADAUSDM", at_start=True):
            run_bot()

    The end of the block, an exception, Ctrl-C, SIGTERM: the guard itself cancels,
    again and again until the exchange answers that nothing is open. ``kill -9``, a
    crash, ``os._exit``: its watchdog does, a small process that is started on
    entering. All open orders of the account on the symbols go.

    symbol: str such as "ADAUSDM", or an iterable of them
    heartbeat: seconds (2 at least): so long without `beat()`, and the orders are
        cancelled from outside; None: a bot that hangs is not noticed
    auto_beat: beat from the running event loop; proves only that it turns
    at_start: cancel before the body runs, and do not run it if that fails
    when: "always"; or "error": a clean end leaves the orders. Clean are the end of
        the block, `stop()`, and SystemExit with 0 or None
    watchdog: False: no second process, and nobody cancels after ``kill -9``
    timeout: seconds for arming, and for the cancel on the way out; None: 4, and 0.7
        more for each symbol over six. After anything but a clean end it is 2 at
        least, since an order may still be on its way for a second

    Entering raises GuardError if the watchdog cannot be had within `timeout` or
    another live process guards a symbol, ConfigError if there is no key, and what
    ``cancel_all`` raises if the cancel of `at_start` fails. Leaving adds a failed
    cancel to your own exception as a note, or raises it where there is none; the
    watchdog then goes on. TypeError and ValueError for wrong arguments.

    It cannot help when the machine, its network or its power is gone: the exchange
    has no such switch. Stop quoting before you leave.
    """
    return Guard(
        symbol,
        heartbeat=heartbeat,
        auto_beat=auto_beat,
        at_start=at_start,
        when=when,
        watchdog=watchdog,
        timeout=timeout,
    )


Guard.__module__ = guard.__module__ = "espresso"
