"""What a watchdog knows: the guards of its bot, and what it must prove itself.

No clock, no network, no process here: each method is told the time, what is to be
said or sent goes out by two functions, and `calls` says what to cancel now.
"""

from __future__ import annotations

from ._guard_proof import Duty, is_hopeless, next_due
from ._guard_wire import BEAT_SLACK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence


class Ward:
    """One guard of the bot."""

    __slots__ = ("heartbeat", "last_beat", "symbols", "tripped")

    def __init__(self, symbols: Iterable[str], heartbeat: float | None) -> None:
        self.symbols = set(symbols)
        self.heartbeat = heartbeat
        self.last_beat: float | None = None  # the heart has not started yet
        self.tripped = False

    def trips_at(self) -> float | None:
        if self.heartbeat is None or self.last_beat is None or self.tripped:
            return None
        return self.last_beat + self.heartbeat + BEAT_SLACK


class Call:
    """One cancel that is to be made, or is under way."""

    __slots__ = ("confirm", "duties")

    def __init__(self, *, confirm: bool) -> None:
        self.confirm = confirm
        self.duties: dict[str, Duty] = {}


class State:
    """All guards of one bot with one account.

    say: called with a level and a line for the log
    send: called with a message for the bot
    release: called with symbols that need no lock any more
    """

    def __init__(
        self,
        say: Callable[[str, str], None],
        send: Callable[..., None],
        release: Callable[[Sequence[str]], None],
    ) -> None:
        self._say = say
        self._send = send
        self._release = release
        self.wards: dict[int, Ward] = {}
        self.duties: dict[str, Duty] = {}
        self.failed = False
        """A duty was given up: nobody knows what is open."""
        self._going_on: dict[int, set[str]] = {}

    # ---- what the bot says -----------------------------------------------------------

    def arm(
        self, number: int, symbols: Sequence[str], heartbeat: float | None
    ) -> list[str]:
        """Take a guard on; the symbols whose unproven cancel it takes over."""
        self.wards[number] = Ward(symbols, heartbeat)
        left = [name for name in symbols if self._is_ours_to_prove(name)]
        for name in left:
            self._settle(name)
        return left

    def hand_over(self, number: int, symbols: Sequence[str]) -> None:
        """The guard loses these symbols: another one is armed for them."""
        ward = self.wards.get(number)
        if ward is not None:
            ward.symbols -= set(symbols)
            if not ward.symbols:
                del self.wards[number]
            self._let_go(symbols)

    def beat(self, number: int, at: float) -> None:
        """A beat; the first one starts the heart."""
        ward = self.wards.get(number)
        if ward is not None:
            ward.last_beat = max(at, ward.last_beat or at)

    def trip(self, number: int, now: float) -> None:
        """The guard's heart has stopped: sweep until the guard is left."""
        ward = self.wards.get(number)
        if ward is None or ward.tripped:
            return
        ward.tripped = True
        names = sorted(ward.symbols)
        for name in names:
            self.duties.setdefault(name, Duty(now, endless=True))
        self._send("tripped", number)
        self._say("CRITICAL", f"no beat in time: cancelling {', '.join(names)}")

    def goodbye(self, number: int) -> None:
        """The guard is left and needs nobody any more."""
        ward = self.wards.pop(number, None)
        if ward is not None:
            self._let_go(ward.symbols)

    def go_on(self, number: int, began: float) -> None:
        """The guard is left without proof: that is ours now."""
        ward = self.wards.pop(number, None)
        if ward is None:
            return
        self._going_on[number] = set(ward.symbols)
        self._take_on(ward.symbols, began)
        self._say("WARNING", f"going on with {', '.join(sorted(ward.symbols))}")

    def inherit(self, symbols: Iterable[str], now: float) -> None:
        """Prove what an orphan that stood down has left."""
        self._take_on(symbols, now)

    def bot_has_ended(self, now: float) -> None:
        """All that was guarded must be proven by us."""
        names = {name for ward in self.wards.values() for name in ward.symbols}
        self.wards.clear()
        self._take_on(names, now)

    def hurry(self, now: float) -> None:
        """Try all at once that waits for its next try."""
        for duty in self.duties.values():
            duty.due = min(duty.due, max(now, duty.began))

    # ---- what is to be done ----------------------------------------------------------

    def check_hearts(self, now: float) -> None:
        for number in list(self.wards):
            at = self.wards[number].trips_at()
            if at is not None and now >= at:
                self.trip(number, now)

    def next_time(self) -> float | None:
        """When there will be something to do, if nothing happens before."""
        hearts = (ward.trips_at() for ward in self.wards.values())
        times = [at for at in hearts if at is not None]
        due = next_due(self.duties.values())
        return min([*times, due] if due is not None else times, default=None)

    def calls(self, now: float) -> list[Call]:
        """The calls to start now."""
        calls = [Call(confirm=False), Call(confirm=True)]
        for name in self.duties:
            duty = self.duties[name]
            if not duty.busy and duty.due <= now:
                duty.busy = True
                calls[duty.confirms(now)].duties[name] = duty
        return [call for call in calls if call.duties]

    def succeeded(self, call: Call, name: str, orders: int, now: float) -> None:
        """The call has cancelled so many orders of the symbol."""
        if orders:
            self._say("WARNING", f"{name}: cancelled {orders} orders")
        duty = call.duties[name]
        # Only if it is still the same: a call that began before the bot's end is no
        # proof of what came after.
        if duty.succeeded(call.confirm, now) and self.duties.get(name) is duty:
            self._say("INFO", f"{name}: proven, nothing is open")
            self._settle(name)

    def call_failed(
        self, call: Call, name: str, error: BaseException, now: float
    ) -> None:
        duty = call.duties[name]
        duty.failed(error, now)
        if self.duties.get(name) is not duty:
            return
        told = f"{name}: {type(error).__name__}: {error}"
        if type(error).__name__ != duty.said:
            level = "CRITICAL" if is_hopeless(error) else "WARNING"
            self._say(level, f"{told}; again in {duty.due - now:.1f} s")
            duty.said = type(error).__name__
        if duty.has_expired(now):
            self.failed = True
            self._say("CRITICAL", f"{told}; given up: orders may be open")
            self._settle(name)

    # ---- who holds which symbol ------------------------------------------------------

    def guarded(self) -> set[str]:
        return {name for ward in self.wards.values() for name in ward.symbols}

    def _is_ours_to_prove(self, name: str) -> bool:
        duty = self.duties.get(name)
        return duty is not None and not duty.endless

    def _take_on(self, symbols: Iterable[str], began: float) -> None:
        """Prove these, as of then; what is under way already can prove nothing."""
        for name in sorted(symbols):
            before = self.duties.get(name)
            is_newer = before is None or before.endless or before.began < began
            if is_newer:
                self.duties[name] = Duty(began)

    def _settle(self, name: str) -> None:
        """The symbol is proven, given up, or taken over by a guard."""
        del self.duties[name]
        for number in list(self._going_on):
            names = self._going_on[number]
            names.discard(name)
            if not names:
                del self._going_on[number]
                self._send("settled", number)
        self._let_go([name])

    def _let_go(self, symbols: Iterable[str]) -> None:
        """A guard or a duty does not hold these any more; perhaps nothing does."""
        tripped = self._tripped()
        for name in symbols:
            if name in tripped:
                self.duties.setdefault(name, Duty(0.0, endless=True))
            elif name in self.duties and self.duties[name].endless:
                del self.duties[name]
        held = self.guarded() | self.duties.keys()
        self._release([name for name in symbols if name not in held])

    def _tripped(self) -> set[str]:
        wards = (ward for ward in self.wards.values() if ward.tripped)
        return {name for ward in wards for name in ward.symbols}
