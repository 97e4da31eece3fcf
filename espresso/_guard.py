"""`guard`: ties the cancel to the life of a program.

The guard itself cancels on every way out that Python still runs; its watchdog, a
process of its own (`_watchdog.py`), on all others. Both need a proof before they
rest: `_guard_proof` says which.
"""

from __future__ import annotations

from ._guard_life import ARMED, Life, end_signals
from ._guard_signals import GivenUp, signals
from ._guard_way_out import came_by_interrupt, is_clean
from ._guard_wire import BEAT_SLACK, clock
from .errors import GuardTrippedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType
    from typing import Literal, Self


class Guard(Life):
    """Cancels the open orders of its symbols when the program ends, however it does.

    ``espresso.guard`` and ``Client.guard`` make it; ``guard`` says what the options
    are. Three ways to use it::

        with espresso.guard("ADAUSDM") as g: ...
        async with espresso.guard("ADAUSDM") as g: ...
        g = espresso.guard("ADAUSDM").start(); ...; g.stop()

    Armed once at a time; after it was left it can be armed again.
    """

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
        with signals.held(interrupts=came_by_interrupt(error)):
            failure = self._leave(is_clean(error))
        self._finish(error, failure)

    async def __aenter__(self) -> Self:
        """Arm it, while the event loop goes on."""
        from ._guard_loop import beside_the_loop

        cancelled = await beside_the_loop(self._enter)
        if cancelled is not None:
            await beside_the_loop(self._leave_unused)
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
        from ._guard_loop import beside_the_loop

        failures: list[Exception | None] = []
        with signals.held(came_by_interrupt(error), on_give_up=self._give_up_soon()):
            cancelled = await beside_the_loop(
                lambda: failures.append(self._leave(is_clean(error)))
            )
        failure = failures[0] if failures else None
        if cancelled is not None and is_clean(error):
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
        if self._state != ARMED or self._is_foreign():
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
        if self._is_late(now):
            # The watchdog's word may be under way; or this process slept with it.
            self.has_tripped()
            if self._link is not None:
                self._link.trip(self.number)
            self._check()
        self.last_beat: float | None = now
        if now - self._sent_beat >= BEAT_SLACK:
            self._sent_beat = now
            if self._link is not None:
                self._link.beat(self.number, now)

    def _leave_quietly(self, *, clean: bool) -> Exception | None:
        """For the command line, which raises nothing: what went wrong, if it did."""
        with signals.held():
            failure = self._leave(clean)
        self._drop_signals()
        return failure

    @property
    def _goes_on(self) -> bool:
        """Whether the watchdog is at work on what could not be proven here."""
        link = self._link
        return link is not None and link.goes_on_with(self.number)

    # ---- in this thread, or in another -----------------------------------------------

    def _enter_here(self, *, stays: bool) -> None:
        """Arm; a Ctrl-C meanwhile breaks it off, other signals come after."""
        if self._auto_beat:
            from ._guard_loop import require_loop

            require_loop()
        has_signals = signals.install()
        try:
            with signals.held(limit=1):
                self._enter(stays=stays)
        except BaseException as error:
            end_signals(has_signals)
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
        if self._auto_beat and self.heartbeat is not None:
            from ._guard_loop import Beater

            self._beater = Beater(self.beat, self.heartbeat)

    # ---- the end of the way out ------------------------------------------------------

    def _finish(self, error: BaseException | None, failure: Exception | None) -> None:
        """Let the program's own exception through, or raise what must be known."""
        if self._is_foreign():
            return
        try:
            if error is not None and not is_clean(error):
                if failure is not None:
                    error.add_note(self._told(failure))
            elif failure is not None:
                raise failure
            elif self._left_tripped:
                raise GuardTrippedError(
                    f"no beat came for more than {self.heartbeat} s: "
                    f"{', '.join(self.symbols)} were cancelled"
                )
        finally:
            self._drop_signals(error)


signals.protect(Guard.__enter__, Guard.__exit__, Guard.start, Guard.stop)


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
