"""What the watchdog decides, without a clock, a network or a process.

A machine draws what bot, exchange and time do, in any order; after each step the
rules hold that money hangs on.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    precondition,
    rule,
)

import espresso
from espresso._guard_proof import (
    GIVE_UP,
    HOPELESS_PAUSE,
    SETTLE,
    TRIP_PAUSE,
    Duty,
    default_timeout,
    is_hopeless,
)
from espresso._guard_wire import BEAT_SLACK
from espresso._watchdog_state import Call, State

SYMBOLS = ("A", "B", "C")
STEP = 0.25  # seconds
DOWN = espresso.ConnectError("down")


class Watch(RuleBasedStateMachine):
    """One watchdog; `now` goes on only by the rules."""

    guards = Bundle("guards")

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.numbers = 0
        self.said: list[str] = []
        self.sent: list[tuple[object, ...]] = []
        self.released: set[str] = set()
        self.state = State(
            lambda level, text: self.said.append(f"{level} {text}"),
            lambda *message: self.sent.append(message),
            self._release,
        )
        # What really is: the exchange, and the bot.
        self.open: set[str] = set()
        self.is_up = True
        self.bot_lives = True
        self.live: dict[int, set[str]] = {}
        self.hearts: dict[int, tuple[float, float]] = {}
        self.flying: list[tuple[float, Call]] = []
        self.coming: list[tuple[float, str]] = []
        self.going_on: set[int] = set()
        self.duty_of_the_dead: set[str] = set()
        self.died_at = 0.0

    def _release(self, symbols: Sequence[str]) -> None:
        self.released |= set(symbols)

    # ---- the bot ---------------------------------------------------------------------

    @precondition(lambda self: self.bot_lives)
    @rule(
        target=guards,
        symbols=st.sets(st.sampled_from(SYMBOLS), min_size=1),
        heartbeat=st.sampled_from([None, 2.0, 5.0]),
    )
    def arm(self, symbols: set[str], heartbeat: float | None) -> int:
        return self._arm(symbols, heartbeat)

    def _arm(self, symbols: set[str], heartbeat: float | None) -> int:
        self.numbers += 1
        left = self.state.arm(self.numbers, sorted(symbols), heartbeat)
        self._drop_stale()
        self.released -= symbols
        self.open -= set(left)  # the guard sweeps them before its body runs
        self.live[self.numbers] = set(symbols)
        if heartbeat is not None:
            self.hearts[self.numbers] = (self.now, heartbeat)
            self.state.beat(self.numbers, self.now)
        return self.numbers

    @precondition(lambda self: self.bot_lives)
    @rule(number=guards)
    def beat(self, number: int) -> None:
        if number in self.hearts and not self._tripped(number):
            last, heartbeat = self.hearts[number]
            if self.now <= last + heartbeat:
                self.hearts[number] = (self.now, heartbeat)
                self.state.beat(number, self.now)

    @precondition(lambda self: self.bot_lives)
    @rule(number=consumes(guards))
    def leave_proven(self, number: int) -> None:
        """The guard has swept its symbols and says goodbye."""
        self.open -= self.live.pop(number, set())
        self.hearts.pop(number, None)
        self.state.goodbye(number)
        self._drop_stale()

    @precondition(lambda self: self.bot_lives)
    @rule(number=consumes(guards))
    def leave_unproven(self, number: int) -> None:
        """The guard's own cancel has failed."""
        if self.live.pop(number, None):
            self.going_on.add(number)
        self.hearts.pop(number, None)
        self.state.go_on(number, self.now)

    @precondition(lambda self: self.bot_lives)
    @rule(target=guards, number=consumes(guards))
    def hand_over(self, number: int) -> object:
        """A later start() on the same symbols."""
        symbols = self.live.pop(number, None)
        if not symbols:
            return multiple()
        self.hearts.pop(number, None)
        if self._tripped(number):
            self.open -= symbols
        later = self._arm(symbols, None)
        self.state.hand_over(number, sorted(symbols))
        self._drop_stale()
        return later

    @precondition(lambda self: self.bot_lives)
    @rule(number=guards)
    def quote(self, number: int) -> None:
        self.open |= self.live.get(number, set())

    @precondition(lambda self: self.bot_lives)
    @rule(late=st.floats(0, SETTLE - 0.01))
    def die(self, late: float) -> None:
        """Its last orders are still on their way."""
        self.bot_lives = False
        self.died_at = self.now
        guarded = {name for names in self.live.values() for name in names}
        self.duty_of_the_dead = set(guarded)
        self.coming += [(self.now + late, name) for name in sorted(guarded)]
        self.live.clear()
        self.hearts.clear()
        self.state.bot_has_ended(self.now)

    # ---- the world -------------------------------------------------------------------

    @rule(up=st.booleans())
    def exchange(self, up: bool) -> None:
        self.is_up = up

    @rule(steps=st.integers(1, 12), latency=st.sampled_from([0.0, 0.1, 0.7]))
    def time_passes(self, steps: int, latency: float) -> None:
        for _ in range(steps):
            self._step(latency)

    def _step(self, latency: float) -> None:
        self.now += STEP
        for at, name in [one for one in self.coming if one[0] <= self.now]:
            self.coming.remove((at, name))
            self.open.add(name)
        self.state.check_hearts(self.now)
        for at, call in [one for one in self.flying if one[0] <= self.now]:
            self.flying.remove((at, call))
            self._end(call)
        for call in self.state.calls(self.now):
            self._check_may_cancel(call)
            self.flying.append((self.now + latency, call))

    def _check_may_cancel(self, call: Call) -> None:
        """No live bot's orders go, but a tripped one's, or those of a guard whose
        own cancel has failed."""
        for name in call.duties:
            holders = [n for n, names in self.live.items() if name in names]
            wanted = any(self._tripped(number) for number in holders)
            ours = not self.state.duties[name].endless
            assert ours or wanted, name
            assert not call.duties[name].due > self.now

    def _end(self, call: Call) -> None:
        for name in call.duties:
            if not self.is_up:
                self.state.call_failed(call, name, DOWN, self.now)
                continue
            orders = int(name in self.open)
            self.open.discard(name)
            self.state.succeeded(call, name, orders, self.now)

    def _drop_stale(self) -> None:
        """What the loop does: it waits for, or ends, calls that nobody wants."""
        duties = self.state.duties
        self.flying = [
            (at, call)
            for at, call in self.flying
            if all(duties.get(name) is duty for name, duty in call.duties.items())
        ]
        busy = {id(d) for _, call in self.flying for d in call.duties.values()}
        for duty in duties.values():
            if duty.busy and id(duty) not in busy:
                duty.failed(DOWN, self.now)

    def _tripped(self, number: int) -> bool:
        return ("tripped", number) in self.sent

    # ---- what always holds -----------------------------------------------------------

    @invariant()
    def a_released_symbol_is_nobodys(self) -> None:
        held = self.state.guarded() | self.state.duties.keys()
        assert not self.released & self.state.guarded()
        assert set().union(*self.live.values(), set()) <= held
        self.released -= held  # locked anew

    @invariant()
    def a_heart_trips_in_its_time_and_not_before(self) -> None:
        for number, (last, heartbeat) in self.hearts.items():
            age = self.now - last
            if self._tripped(number):
                assert age >= heartbeat
            else:
                assert age <= heartbeat + BEAT_SLACK + STEP

    @invariant()
    def nothing_is_endless_without_a_tripped_guard(self) -> None:
        for name, duty in self.state.duties.items():
            if duty.endless:
                tripped = [w for w in self.state.wards.values() if w.tripped]
                assert any(name in ward.symbols for ward in tripped)

    @invariant()
    def what_goes_on_is_settled_only_by_proof_or_a_new_guard(self) -> None:
        for number in set(self.going_on):
            if ("settled", number) in self.sent:
                assert self.sent.count(("settled", number)) == 1
                self.going_on.discard(number)

    def teardown(self) -> None:
        """The bot dies if it has not yet, the exchange comes back: all is proven."""
        if self.bot_lives:
            self.die(0.5)
        self.is_up = True
        for _ in range(int(10 / STEP)):
            self._step(0.1)
            if not self.state.duties:
                assert self.now >= self.died_at + SETTLE or not self.duty_of_the_dead
        assert self.state.duties == {}
        assert not self.open & self.duty_of_the_dead
        assert not self.state.failed
        self.what_goes_on_is_settled_only_by_proof_or_a_new_guard()
        assert self.going_on == set()


TestWatch = Watch.TestCase
TestWatch.settings = settings(
    max_examples=int(os.environ.get("GUARD_EXAMPLES", "40")),
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


# ---- one by one ----------------------------------------------------------------------


def test_the_first_call_is_at_once_and_the_proof_a_second_later() -> None:
    duty = Duty(100.0)
    assert duty.due == 100.0
    assert not duty.confirms(100.0)
    assert duty.succeeded(False, 100.2) is False
    assert duty.due == 101.0
    assert duty.confirms(101.0)
    assert duty.succeeded(True, 101.1) is True


def test_back_off_grows_to_two_seconds() -> None:
    duty, now, pauses = Duty(0.0), 10.0, []
    for _ in range(7):
        duty.failed(DOWN, now)
        pauses.append(round(duty.due - now, 2))
        now = duty.due
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]
    duty.succeeded(True, now)
    duty.failed(DOWN, now)
    assert duty.due == pytest.approx(now + 0.1)


@pytest.mark.parametrize(
    ("error", "pause"),
    [
        (espresso.PermissionDeniedError("no"), HOPELESS_PAUSE),
        (espresso.AuthenticationError("no"), HOPELESS_PAUSE),
        (espresso.InvalidSymbolError("no"), HOPELESS_PAUSE),
        (espresso.CertificateError("no"), HOPELESS_PAUSE),
        (espresso.ConfigError("no"), HOPELESS_PAUSE),
        (espresso.RateLimitError("slow down"), 2.0),
        (espresso.RateLimitError("slow down", retry_after=7.5), 7.5),
        (espresso.TradingLockedError("locked"), 0.1),
        (espresso.UnavailableError("down"), 0.1),
        (espresso.ResponseError("html"), 0.1),
        (MemoryError(), 0.1),
    ],
)
def test_how_long_to_wait_after_a_failure(error: Exception, pause: float) -> None:
    duty = Duty(0.0)
    duty.failed(error, 5.0)
    assert duty.due == pytest.approx(5.0 + pause)
    assert is_hopeless(error) == (pause == HOPELESS_PAUSE)


def test_it_ends_after_15_minutes_with_a_critical_word() -> None:
    said: list[str] = []
    state = State(lambda level, text: said.append(f"{level} {text}"), print, print)
    state.arm(1, ["A"], None)
    state.bot_has_ended(0.0)
    now = 0.0
    while state.duties:
        now = max(now, state.next_time() or 0.0)
        for call in state.calls(now):
            state.call_failed(call, "A", DOWN, now)
    assert GIVE_UP <= now <= GIVE_UP + 3
    assert state.failed
    assert said[-1].startswith("CRITICAL A: ConnectError: down")
    assert "given up" in said[-1]
    assert len(said) == 2  # the first failure, and the end


def test_a_call_that_began_before_the_end_is_no_proof_of_what_came_after() -> None:
    state = State(print, print, print)
    state.arm(1, ["A"], None)
    state.arm(2, ["A"], None)
    state.go_on(1, 0.0)  # the bot could not prove it, and lives on
    state.calls(0.0)[0].duties["A"].succeeded(False, 0.1)
    (confirming,) = state.calls(SETTLE)
    assert confirming.confirm
    state.bot_has_ended(SETTLE + 0.5)
    state.succeeded(confirming, "A", 0, SETTLE + 0.6)
    assert state.duties["A"].began == SETTLE + 0.5
    (again,) = state.calls(2 * SETTLE + 0.5)
    state.succeeded(again, "A", 0, 2 * SETTLE + 0.6)
    assert state.duties == {}


def test_a_trip_is_swept_every_5_s_for_ever() -> None:
    duty = Duty(0.0, endless=True)
    assert duty.confirms(0.0)
    assert duty.succeeded(True, 1.0) is False
    assert duty.due == 1.0 + TRIP_PAUSE
    assert not duty.has_expired(10 * GIVE_UP)


def test_default_timeout() -> None:
    assert default_timeout(1) == default_timeout(6) == 4.0
    assert default_timeout(16) == pytest.approx(11.0)
