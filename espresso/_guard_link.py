"""The bot's side of a watchdog: starting it, talking to it, seeing it die.

There is one watchdog for each account and host, however many guards the process
has. A thread reads what it says; it blocks in `recv`, so it costs nothing.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque

from ._guard_process import Process, WatchdogGone
from ._guard_wire import clock, pack
from ._watchdog_lock import directory
from .errors import GuardError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from ._client import Origin
    from ._guard_life import Life

MOST_DEATHS = 3
DEATHS_WINDOW = 60.0
"""Seconds: a watchdog that dies more often than MOST_DEATHS in these is not started
again."""

_END_TIME = 2.0  # seconds for a watchdog to say farewell, and to end
_RESTART_TIME = 10.0  # seconds for a replacement to be ready


class Reply:
    """What a thread waits for."""

    def __init__(self) -> None:
        self._came = threading.Event()
        self._message: tuple[Any, ...] = ("gone",)

    def put(self, *message: Any) -> None:
        self._message = message
        self._came.set()

    def get(self, until: float) -> tuple[Any, ...] | None:
        """None: nothing came in time (`until` is a time of `clock`)."""
        return self._message if self._came.wait(max(0.0, until - clock())) else None


class Link:
    """The watchdog of one account and host, whichever process that is at the time."""

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        self.lock = threading.RLock()
        self.process: Process | None = None
        self.guards: dict[int, Life] = {}
        self.lost: str = ""
        """Why there is no watchdog any more, and will be none; "": there is."""
        self._locks = ""
        self._going_on: dict[int, tuple[Sequence[str], float]] = {}
        self._replies: dict[int, Reply] = {}
        self._deaths: deque[float] = deque()
        self._is_over = False

    @property
    def pid(self) -> int | None:
        return None if self.process is None else self.process.pid

    # ---- arming and leaving ----------------------------------------------------------

    def start(self, until: float) -> None:
        """Raises GuardError if no watchdog comes up by then."""
        try:
            self._locks = directory()
        except OSError as error:
            raise GuardError(f"no directory for the guard's locks: {error}") from error
        try:
            self._begin(until)
        except WatchdogGone as error:
            raise GuardError(f"the watchdog could not be started: {error}") from error

    def _begin(self, until: float) -> None:
        process = Process()
        try:
            process.greet(self.origin, self._locks, until)
            self.process = process
            threading.Thread(
                target=self._listen, args=[process], name="espresso-guard", daemon=True
            ).start()
        except BaseException:
            self.process = None
            process.end_unused()
            raise

    def abandon(self) -> None:
        """No guard was armed with it: nothing is left of it."""
        with self.lock:
            self._is_over = True
            self.guards.clear()
            process, self.process = self.process, None
        if process is not None:
            process.end_unused()
        self.origin.wipe()

    def enter(self, guard: Life) -> bool:
        """Keep the watchdog for this guard; False: it is on its way home."""
        with self.lock:
            if not self._is_over:
                self.guards[guard.number] = guard
            return not self._is_over

    def arm(self, guard: Life, until: float) -> list[str]:
        """Let the watchdog take the guard on; the symbols to sweep before quoting,
        since an orphan left them.

        Raises GuardError if it refuses, or does not answer by `until`.
        """
        number = guard.number
        reply = self._replies[number] = Reply()
        try:
            with self.lock:
                self._send(
                    "arm",
                    number,
                    guard.symbols,
                    guard.heartbeat,
                    max(0.1, until - clock()),
                )
            # It refuses by itself when the time is over, and says why.
            answer = reply.get(until + 1.0) or ("silent",)
        except BaseException:
            self._withdraw(number)
            raise
        finally:
            del self._replies[number]
        if answer[0] == "armed":
            left: list[str] = answer[1]
            return left
        self._withdraw(number)
        reasons = {"gone": "the watchdog has ended", "silent": "it does not answer"}
        raise GuardError(answer[1] if answer[0] == "refused" else reasons[answer[0]])

    def _withdraw(self, number: int) -> None:
        """The guard will not be armed, whatever has come of it so far."""
        with self.lock:
            self.guards.pop(number, None)
            self._send("goodbye", number)
        self._end_if_over()

    def goodbye(self, number: int) -> None:
        """The last message of a guard: it needs nobody any more.

        Returns when nothing that was sent for it is under way; at the last guard's,
        when the process has ended.
        """
        with self.lock:
            self.guards.pop(number, None)
        self._ask("goodbye", number)
        self._end_if_over()

    def replace(self, number: int, replaced: list[tuple[int, list[str]]]) -> None:
        """Take symbols from other guards; this one is armed for them already.

        Returns when nothing that was sent for those is under way.
        """
        self._ask("replace", number, replaced)

    def _ask(self, what: str, number: int, *rest: Any) -> None:
        """Send, and wait for the watchdog's word that it is done."""
        reply = self._replies[number] = Reply()
        with self.lock:
            self._send(what, number, *rest)
            waits = self.process is not None
        if waits:
            reply.get(clock() + _END_TIME)
        self._replies.pop(number, None)

    def go_on(self, number: int, symbols: Sequence[str], began: float) -> None:
        """The guard is left without proof: that is the watchdog's now."""
        with self.lock:
            self.guards.pop(number, None)
            self._going_on[number] = symbols, began
            self._send("go on", number, began)

    def goes_on_with(self, number: int) -> bool:
        return number in self._going_on and not self.lost

    def beat(self, number: int, at: float) -> None:
        """Never blocks; a beat that finds no room is not needed: others wait."""
        process = self.process
        if process is not None:
            with contextlib.suppress(OSError):
                process.send(pack("beat", number, at), at_once=True)

    def trip(self, number: int) -> None:
        with self.lock:
            self._send("trip", number)

    def _send(self, *message: Any) -> None:
        """To a watchdog that has died nothing is sent: its successor is told all."""
        if self.process is not None:
            with contextlib.suppress(OSError):
                self.process.send(pack(*message))

    def _end_if_over(self) -> None:
        with self.lock:
            if self.guards or self._going_on or self._is_over:
                return
            self._is_over = True
            if _links.get(self.origin.account()) is self:
                del _links[self.origin.account()]
            process = self.process
            self._send("end", 0)
        if process is not None and process.wait(_END_TIME) is not None:
            process.close()
        self.origin.wipe()

    # ---- listening -------------------------------------------------------------------

    def _listen(self, process: Process) -> None:
        """Runs in a thread, as long as this process is."""
        while (messages := process.receive()) is not None:
            for message in messages:
                self._handle(*message)
        status = process.wait(None)
        process.close()
        if self.process is process and not self._is_over:
            self._has_died(process, status)

    def _handle(self, what: str, number: int, *rest: Any) -> None:
        if what == "tripped":
            guard = self.guards.get(number)
            if guard is not None:
                guard.has_tripped()
        elif what == "settled":
            with self.lock:
                self._going_on.pop(number, None)
            self._end_if_over()
        else:
            reply = self._replies.get(number)
            if reply is not None:
                reply.put(what, *rest)

    def _has_died(self, process: Process, status: int | None) -> None:
        from . import _watch

        now = time.monotonic()
        self._deaths.append(now)
        while now - self._deaths[0] > DEATHS_WINDOW:
            self._deaths.popleft()
        _watch.log.critical(
            "the watchdog, process %d, has ended (status %s)", process.pid, status
        )
        for reply in list(self._replies.values()):
            reply.put("gone")
        if len(self._deaths) > MOST_DEATHS:
            self._lose(f"it has ended {len(self._deaths)} times within a minute")
            return
        try:
            self._replace()
        except (WatchdogGone, OSError, RuntimeError) as error:
            self._lose(str(error))
        else:
            _watch.log.warning("the watchdog is process %s now", self.pid)

    def _replace(self) -> None:
        """Start another one, and tell it all that the old one knew."""
        with self.lock:
            if self._is_over:
                return
            self._begin(clock() + _RESTART_TIME)
            for guard in list(self.guards.values()):
                self._send("arm", guard.number, guard.symbols, guard.heartbeat, None)
                if guard.last_beat is not None:
                    self._send("beat", guard.number, guard.last_beat)
                if guard.tripped:
                    self._send("trip", guard.number)
            for number in self._going_on:
                symbols, began = self._going_on[number]
                self._send("arm", number, symbols, None, None)
                self._send("go on", number, began)

    def _lose(self, reason: str) -> None:
        from . import _watch

        self.process = None
        self.lost = reason
        names = sorted({name for g in self.guards.values() for name in g.symbols})
        _watch.log.critical(
            "no watchdog any more (%s): %s are not guarded against the death of "
            "this process",
            reason,
            ", ".join(names) or "orders",
        )


# ---- all links of this process -------------------------------------------------------

_links: dict[str, Link] = {}
_links_lock = threading.Lock()


def withdraw(number: int) -> None:
    """No watchdog is to keep anything of this guard, however far it has come."""
    for link in list(_links.values()):
        if number in link.guards:
            link.goodbye(number)


def link_for(guard: Life, origin: Origin, until: float) -> Link:
    """The watchdog of this account and host; started if there is none.

    The guard is entered at once, so that nobody ends the watchdog meanwhile.

    Raises GuardError if it cannot be.
    """
    with _links_lock:
        account = origin.account()
        link = _links.get(account)
        if link is None or link.lost or not link.enter(guard):
            link = Link(origin.for_guard())
            try:
                link.start(until)
                link.enter(guard)
                _links[account] = link
            except BaseException:  # a Ctrl-C, at whatever line
                if _links.get(account) is link:
                    del _links[account]
                link.abandon()
                raise
        return link


def forget_all() -> None:
    """In a forked child: these are the parent's, and so is the end of its pipe."""
    global _links_lock
    for link in _links.values():
        if link.process is not None:
            link.process.socket.close()
    _links.clear()
    _links_lock = threading.Lock()
