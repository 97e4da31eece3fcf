"""The watchdog's loop: it waits for the bot's death, and for all that comes before.

The loop itself never blocks on the network. Calls are made by threads, which report
through a pipe; so a hung exchange delays neither a heartbeat nor a farewell.
"""

from __future__ import annotations

import _thread
import contextlib
import os
import select
import signal
from collections import deque

from . import _client, _core
from ._guard_proof import default_timeout
from ._guard_sweep import Swept, sweep
from ._guard_wire import HELLO, Inbox, clock, pack
from ._sealed import Sealed
from ._watchdog_lock import STAND_DOWN, Claim, Held, Locks
from ._watchdog_process import (
    connections,
    harden,
    logger,
    open_parent,
    take_signals,
)
from ._watchdog_state import Call, State
from .errors import CertificateError, ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, NoReturn

REOPEN_PAUSE = 15.0
"""Seconds between two openings of the connection that is kept warm."""
_LOCK_PAUSE = 0.02  # seconds between two looks at a lock
_WARM_PAUSE = 0.25  # seconds between two handshakes while a guard waits for one
_YIELD_TIME = 2.0  # seconds that an orphan gets to go
_QUIET_TIME = 1.0  # seconds that a call nobody wants any more gets to end
_HEART_SLICE = 0.5  # seconds: poll's clock stops while the machine sleeps, ours not


class Arming:
    """A guard that waits for the connection and for its locks.

    patience: seconds it may wait for both; None: for the locks alone, and only as
        long as it takes an orphan to go
    """

    def __init__(
        self,
        number: int,
        symbols: Sequence[str],
        heartbeat: float | None,
        patience: float | None,
        claim: Claim,
    ) -> None:
        self.number = number
        self.symbols = list(symbols)
        self.heartbeat = heartbeat
        self.claim = claim
        self.needs_connection = patience is not None
        self.until = clock() + (_YIELD_TIME if patience is None else patience)


class Loop:
    """One watchdog: a bot, its account, its guards."""

    def __init__(self, pipe: int) -> None:
        self.pipe = pipe
        self.inbox = Inbox()
        self.wake, self.waker = take_signals()
        self.bot_lives = True
        self.process: int | None = None
        self.is_ending = False
        self.armings: list[Arming] = []
        self.inherited: list[tuple[Claim, float]] = []
        self.flying: set[Call] = set()
        self.results: deque[Callable[[], None]] = deque()
        self.farewells: list[tuple[float, tuple[Any, ...]]] = []
        self.connections: list[int] = []
        self.warm_error: Exception | None = None
        self.is_warming = False
        self.warmed_at = -REOPEN_PAUSE

    # ---- the beginning ---------------------------------------------------------------

    def start(self) -> None:
        """Say HELLO; get key, proxy and settings; make the client."""
        try:
            os.write(self.pipe, HELLO)
        except BrokenPipeError:  # who started it has given up meanwhile
            self._leave(0)
        received: list[tuple[Any, ...]] = []
        while len(received) < 2:
            received += self._receive()
            if not self.bot_lives:
                self._leave(0)
        self.secrets = Sealed(*received.pop(0))
        settings = received.pop(0)[0]
        _client.checked_url(_client.Environment(), settings["client"]["base_url"])
        self.settings = settings
        self.bot = settings["bot"]
        self.client = self._connect()
        self.say = logger(self.bot)
        account = self.secrets.account(self.client.base_url)
        self.locks = Locks(settings["locks"], account, self.bot)
        self.state = State(self.say, self._send, self.locks.drop)
        try:
            self.process = open_parent(self.bot)
        except ProcessLookupError:
            self._leave(0)
        for message in received:
            self._handle(*message)

    def _connect(self) -> _core.Client:
        return self.secrets.client(**self.settings["client"])

    # ---- the loop --------------------------------------------------------------------

    def turn(self) -> None:
        """Wait until something happens, and do what is to be done then.

        What the bot has said comes before the clock: a beat that is there already
        must not be missed.
        """
        ready = self._wait()
        if self.wake in ready:
            self._woken()
        if self.pipe in ready:
            for message in self._receive():
                self._handle(*message)
        if self.process in ready:
            self.bot_lives = False
        self.connections = [fd for fd in self.connections if fd not in ready]
        if self.bot_lives:
            self.state.check_hearts(clock())
        elif self.process is not None or self.pipe >= 0:
            self._bot_has_ended()
        self._start_calls()
        self._advance()
        if self._has_nothing_left():
            self._leave(1 if self.state.failed else 0)

    def _wait(self) -> set[int | None]:
        poll = select.poll()
        watched = [self.wake, self.pipe, self.process, *self.connections]
        for number in watched:
            if number is not None and number >= 0:
                poll.register(number, select.POLLIN)
        return {number for number, _ in poll.poll(self._milliseconds())}

    def _milliseconds(self) -> int | None:
        now = clock()
        times = [self.state.next_time(), self._reopens_at()]
        times += [at for at, _ in self.farewells]
        if self.armings or self.inherited:
            times.append(now + _LOCK_PAUSE)
        if any(ward.trips_at() for ward in self.state.wards.values()):
            times.append(now + _HEART_SLICE)
        first = min((at for at in times if at is not None), default=None)
        return None if first is None else max(0, int((first - now) * 1000) + 1)

    def _woken(self) -> None:
        """Signals have come, or calls have ended."""
        for number in os.read(self.wake, 4096):
            if number == signal.SIGTERM and not self.is_ending:
                self.say("WARNING", "SIGTERM: cancelling, then ending")
                self.is_ending = True
                self.state.bot_has_ended(clock())
                self.state.hurry(clock())
            elif number == STAND_DOWN and self._is_orphan():
                # The files stay: they tell the successor what is left to prove.
                self.say("INFO", "standing down for a new guard")
                self._leave(0)
        while self.results:
            self.results.popleft()()

    def _is_orphan(self) -> bool:
        if self.is_ending:
            return True
        if self.bot_lives:
            poll = select.poll()
            poll.register(self.pipe, 0)  # only whether it was hung up
            if self.process is not None:
                poll.register(self.process, select.POLLIN)
            self.bot_lives = not poll.poll(0)
        return not self.bot_lives

    def _has_nothing_left(self) -> bool:
        busy = self.state.duties or self.inherited or self.armings or self.farewells
        return (self.is_ending or not self.bot_lives) and not busy

    def _bot_has_ended(self) -> None:
        names = ", ".join(sorted(self.state.guarded()))
        now = clock()
        self.state.bot_has_ended(now)
        self._start_calls()
        # After the calls: that is what counts.
        for descriptor in (self.pipe, self.process):
            if descriptor is not None and descriptor >= 0:
                os.close(descriptor)
        self.pipe, self.process = -1, None
        self.farewells.clear()
        for arming in list(self.armings):
            self._refuse(arming, "the process has ended")
        self.locks.orphaned()
        if names:
            self.say("WARNING", f"process {self.bot} has ended: cancelling {names}")

    def _leave(self, status: int) -> NoReturn:
        os._exit(status)

    # ---- the bot ---------------------------------------------------------------------

    def _receive(self) -> list[tuple[Any, ...]]:
        try:
            data = os.read(self.pipe, 1 << 16)
        except OSError:
            data = b""
        if not data:
            self.bot_lives = False
        return self.inbox.feed(data)

    def _send(self, *message: Any) -> None:
        if self.pipe >= 0:
            with contextlib.suppress(OSError):
                os.write(self.pipe, pack(*message))

    def _handle(self, what: str, number: int, *rest: Any) -> None:
        match what:
            case "beat":
                self.state.beat(number, *rest)
            case "trip":
                self.state.trip(number, clock())
            case "arm":
                symbols, heartbeat, patience = rest
                claim = self.locks.claim(symbols)
                arming = Arming(number, symbols, heartbeat, patience, claim)
                self.armings.append(arming)
            case "replace":
                for other, symbols in rest[0]:
                    self.state.hand_over(other, symbols)
                self._say_when_quiet("left", number)
            case "goodbye":
                for arming in [one for one in self.armings if one.number == number]:
                    self._refuse(arming, "it was withdrawn")
                self.state.goodbye(number)
                self._say_when_quiet("left", number)
            case "go on":
                self.state.go_on(number, *rest)
            case "end":
                self.is_ending = True

    def _say_when_quiet(self, *message: Any) -> None:
        """Send it once no call is under way that nobody wants any more.

        Such a call could cancel what the bot places next.
        """
        self.farewells.append((clock() + _QUIET_TIME, message))

    def _has_stale_calls(self) -> bool:
        duties = self.state.duties
        return any(
            duties.get(name) is not call.duties[name]
            for call in self.flying
            for name in call.duties
        )

    # ---- arming ----------------------------------------------------------------------

    def _advance(self) -> None:
        """Go on with whatever waits for locks, the connection, or quiet."""
        for arming in list(self.armings):
            self._advance_arming(arming)
        for claim, until in list(self.inherited):
            self._advance_inherited(claim, until)
        if self.farewells and self._has_stale_calls():
            if clock() < self.farewells[0][0]:
                return
            self._abort_calls()
        for _, message in self.farewells:
            self._send(*message)
        self.farewells.clear()
        self._keep_warm()

    def _advance_arming(self, arming: Arming) -> None:
        """The connection first: an orphan is not sent away for a guard that cannot
        be armed."""
        ready = bool(self.connections) or not arming.needs_connection
        try:
            if ready and arming.claim.attempt():
                self._arm(arming)
            elif clock() >= arming.until or self._is_hopeless():
                self._refuse(arming, self._reason(ready))
        except (Held, OSError) as error:
            self._refuse(arming, str(error))

    def _is_hopeless(self) -> bool:
        return isinstance(self.warm_error, CertificateError | ConfigError)

    def _reason(self, has_connection: bool) -> str:
        if has_connection:
            return "the watchdog of an earlier process does not give way"
        error = self.warm_error
        text = f"{type(error).__name__}: {error}" if error else "no answer in time"
        return f"the watchdog has no connection to the exchange: {text}"

    def _arm(self, arming: Arming) -> None:
        self.armings.remove(arming)
        left = set(arming.claim.left)
        now = clock()
        for symbol in left - set(arming.symbols) - self.state.guarded():
            claim = self.locks.claim([symbol])
            self.inherited.append((claim, now + _YIELD_TIME))
        taken = self.state.arm(arming.number, arming.symbols, arming.heartbeat)
        left &= set(arming.symbols)
        self._say_when_quiet("armed", arming.number, sorted(left.union(taken)))

    def _refuse(self, arming: Arming, reason: str) -> None:
        """What an orphan has left to us with its lock stays ours to prove."""
        self.armings.remove(arming)
        left = arming.claim.left
        arming.claim.abandon(but=left)
        self.state.inherit(left, clock())
        self._send("refused", arming.number, reason)

    def _advance_inherited(self, claim: Claim, until: float) -> None:
        done = True
        try:
            if claim.attempt():
                self.state.inherit(claim.symbols, clock())
            else:
                done = clock() >= until
        except (Held, OSError):
            pass  # whoever has it has swept it first
        if done:
            self.inherited.remove((claim, until))

    # ---- calls -----------------------------------------------------------------------

    def _start_calls(self) -> None:
        for call in self.state.calls(clock()):
            self.flying.add(call)
            self._in_thread(self._call, call, self.client)

    def _in_thread(self, work: Callable[..., None], *args: Any) -> None:
        try:
            _thread.start_new_thread(work, args)
        except RuntimeError:  # no thread to be had: then the loop has to wait
            work(*args)

    def _call(self, call: Call, client: _core.Client) -> None:
        """Runs in a thread: it hands its result over, and touches nothing else."""
        names = list(call.duties)
        try:
            swept = sweep(
                client,
                names,
                confirm=call.confirm,
                timeout=default_timeout(len(names)),
                max_retries=0,
            )
        except BaseException as error:
            failed = error if isinstance(error, Exception) else Exception(repr(error))
            swept = Swept({}, dict.fromkeys(names, failed), failed)
        self._report(lambda: self._called(call, swept))

    def _report(self, result: Callable[[], None]) -> None:
        self.results.append(result)
        with contextlib.suppress(BlockingIOError):  # full: it will wake as it is
            os.write(self.waker, b"\0")

    def _called(self, call: Call, swept: Swept) -> None:
        self.flying.discard(call)
        now = clock()
        for name in swept.orders:
            self.state.succeeded(call, name, swept.orders[name], now)
        for name in swept.failed:
            self.state.call_failed(call, name, swept.failed[name], now)
        self._look_at_connections()

    def _abort_calls(self) -> None:
        """End all calls; those that are still wanted are made again."""
        old, self.client = self.client, self._connect()
        old.close()
        self._look_at_connections()

    # ---- the connection --------------------------------------------------------------

    def _keep_warm(self) -> None:
        if self.is_warming or self._reopens_at() is None:
            return
        if clock() >= (self._reopens_at() or 0.0):
            self.is_warming = True
            self.warmed_at = clock()
            self._in_thread(self._warm, self.client)

    def _reopens_at(self) -> float | None:
        """When to open the connection again; None: it stands, or nobody needs it."""
        waits = any(arming.needs_connection for arming in self.armings)
        needed = waits or self.state.wards
        if self.connections or self.is_warming or not needed or not self.bot_lives:
            return None
        return self.warmed_at + (_WARM_PAUSE if waits else REOPEN_PAUSE)

    def _warm(self, client: _core.Client) -> None:
        """Runs in a thread."""
        error: Exception | None = None
        try:
            client.warm_up()
        except Exception as failure:
            error = failure
        self._report(lambda: self._warmed(error))

    def _warmed(self, error: Exception | None) -> None:
        self.is_warming = False
        self.warm_error = error
        self._look_at_connections()

    def _look_at_connections(self) -> None:
        """Watch our connections: one that becomes readable while nobody calls has
        been closed, or says what nobody asked for."""
        self.connections = [] if self.flying else connections()


def run(pipe: int) -> NoReturn:
    """Watch the process at the other end of the pipe until nothing is left to do."""
    harden(pipe)
    loop = Loop(pipe)
    loop.start()
    while True:
        loop.turn()
