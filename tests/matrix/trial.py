"""One row of the matrix through one face, and whether the promise is held."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from tests.connectproxy import PASSWORD
from tests.matrix import caller
from tests.matrix.faults import FAULTS, Fault
from tests.matrix.places import Place
from tests.matrix.press import COMMAND_LINE, press
from tests.matrix.promises import PROMISES, Promise
from tests.matrix.told import Told
from tests.rawserver import IDS, KEY, SYMBOL

SLACK = 2.0  # seconds over a deadline; promised are 0.05, on a machine at rest
ACT_SLACK = 5.0  # seconds from an act to its end, that of the process included
PROCESS = 10.0  # seconds for its start and end, on such a machine
RETRIES = 2  # the default, and the command's
TIMEOUT = 20.0  # seconds, where a fault ends the call long before
LATE = 5.0  # seconds, where the deadline is what ends the call
COMMAND_LATE = 8.0  # the same for a process, which takes its time to start
LATE_ATTEMPT = 2.0  # 0.4 of it, as the first attempt gets
EXITS = {"unknown": 1, "rejected": 3, "not_sent": 3, "done": 0}


@dataclass(frozen=True)
class Trial:
    """One call.

    `way`: "once" (no retry is allowed), "again" (each attempt meets the fault),
    "recovers" (only the first one does), "no time" (none is left for a second one),
    or "act" (the caller makes the fault).
    """

    name: str
    face: str
    way: str

    def __str__(self) -> str:
        return f"{self.name} [{self.face}, {self.way}]"


def trials_of(name: str, every: bool = False) -> list[Trial]:
    """Those of a row: each face, and each way.

    Args:
        name: of the row.
        every: each way through each face; else the first face alone tries more
            than "again", and a fault that takes a process of its own is not met by
            the list forms.
    """
    fault = FAULTS[name]
    return [
        Trial(name, face, way)
        for face in fault.faces
        for way in _ways(PROMISES[name], fault, face)
        if every or _is_chosen(face, way, fault)
    ]


def _is_chosen(face: str, way: str, fault: Fault) -> bool:
    if face in ("list", "async list") and (fault.act or fault.child):
        return False
    if face == "sync":
        return way != "no time" and not (way == "once" and fault.late)
    if face == "async" and not fault.late:
        return way != "once"
    return way in ("again", "act")


def _ways(promise: Promise, fault: Fault, face: str) -> Iterator[str]:
    if fault.act:
        yield "act"
        return
    yield "again"
    in_python = face != COMMAND_LINE
    if in_python and not fault.first_limited:
        yield "once"
    if promise.again and fault.recovers:
        yield "recovers"
    if fault.late and in_python:
        yield "no time"


# ---- what is given, what must come ---------------------------------------------------


def _options(trial: Trial, fault: Fault) -> dict[str, Any]:
    if trial.face == COMMAND_LINE:
        return {"timeout": COMMAND_LATE if fault.late else TIMEOUT}
    if trial.way == "no time":  # 0.1 s would be needed
        return {
            "timeout": LATE_ATTEMPT,
            "attempt_timeout": LATE_ATTEMPT - 0.05,
            "max_retries": 5,
        }
    if not fault.late:
        retries = 0 if trial.way == "once" else RETRIES
        patience = {"timeout": TIMEOUT, "connect_timeout": TIMEOUT}
        return {**patience, "max_retries": retries}
    return {
        "timeout": LATE if trial.way == "once" else TIMEOUT,
        "attempt_timeout": None if trial.way == "once" else LATE_ATTEMPT,
        "max_retries": 0 if trial.way == "once" else 1,
    }


@dataclass
class Expected:
    kind: str
    outcome: str
    attempts: int
    posts: int
    connections: int
    lost_reply: bool = False
    code: int | None = None


def _expected(trial: Trial, told: Told) -> Expected:
    promise, fault = PROMISES[trial.name], FAULTS[trial.name]
    kind, outcome = promise.kind, promise.outcome
    if kind == "done":
        attempts = 2 if fault.first_limited else 1
        return Expected(kind, outcome, attempts, fault.posts * attempts, attempts)
    if trial.way == "recovers":
        # The one in front of the fault is not lost.
        attempts = 3 if fault.first_limited else 2
        connections = attempts - fault.first_limited
        posts = fault.posts * (attempts - 1) + 1
        lost = outcome == "unknown"
        return Expected("done", "done", attempts, posts, connections, lost)
    retries = 1 if fault.late else RETRIES
    if fault.late and trial.face == COMMAND_LINE:
        # Its connect_timeout, 2 s, may leave time for a third attempt.
        retries = min(max(told.attempts - 1, 1), RETRIES)
    again = promise.again and trial.way == "again"
    attempts = 1 + (retries if again else 0)
    connections = attempts - fault.first_limited
    posts = fault.posts * attempts
    return Expected(kind, outcome, attempts, posts, connections, code=fault.code)


# ---- the trial -----------------------------------------------------------------------


def faults_of(trial: Trial) -> list[str]:
    """What was not as promised; empty: held."""
    promise, fault = PROMISES[trial.name], FAULTS[trial.name]
    options = _options(trial, fault)
    with ExitStack() as stack:
        place = fault.make(stack, trial.way == "recovers")
        if fault.act:
            told = caller.act(fault.act, trial.face, place, bool(fault.posts))
            place.drain()
            return list(_judge_act(told, promise, place, fault))
        first, *more = press(trial.face, place, options)
        place.drain()
        seen = place.posts() - len(more), place.connections and place.connections()
        expected = _expected(trial, first)
        found = list(_judge(first, expected, promise.again))
        found += _judge_time(first, trial.face, place, options)
        found += _judge_status(first, trial.face)
        expected.connections += fault.dropped * len(more)
        found += _judge_server(seen, expected, fault)
        for told in more:
            found += _judge_next(told)
    return found


def _differ(what: str, found: object, expected: object) -> Iterator[str]:
    if found != expected:
        yield f"{what} {found!r}, not {expected!r}"


def _judge(told: Told, expected: Expected, again: bool) -> Iterator[str]:
    yield from _differ("kind", told.kind, expected.kind)
    yield from _differ("outcome", told.outcome, expected.outcome)
    yield from _differ("attempts", told.attempts, expected.attempts)
    yield from _differ("symbol", told.symbol, SYMBOL)
    yield from _differ("lost_reply", told.lost_reply, expected.lost_reply)
    done = expected.kind == "done"
    if done and told.order_ids not in ([], IDS):
        yield f"order_ids {told.order_ids}"
    if not done:
        yield from _differ("retryable", told.retryable, again)
        yield from _differ("code", told.code, expected.code)
        yield from _differ("order_ids", told.order_ids, [])
    for secret in (KEY, PASSWORD):
        if secret in told.said:
            yield "a secret was said"
    if not told.said:
        yield "nothing was said"


def _judge_time(
    told: Told, face: str, place: Place, options: dict[str, Any]
) -> Iterator[str]:
    # What a command took, its start and its end have a share in.
    slack = SLACK + (PROCESS if face == COMMAND_LINE else 0.0)
    limit = {**options, **place.options}["timeout"]
    if told.took > limit + slack or told.elapsed > limit + SLACK:
        yield f"took {told.took:.2f} s, elapsed {told.elapsed:.2f} s of {limit}"
    if told.kind != "done" and abs(told.elapsed - told.took) > slack:
        yield f"took {told.took:.2f} s, and says {told.elapsed:.2f} s"


def _judge_status(told: Told, face: str) -> Iterator[str]:
    """The exit status of the command."""
    if face == COMMAND_LINE:
        again = told.retryable and told.outcome != "unknown"
        yield from _differ("exit", told.status, 4 if again else EXITS[told.outcome])


def _judge_server(
    seen: tuple[int, int | None], expected: Expected, fault: Fault
) -> Iterator[str]:
    posts, connections = seen
    yield from _differ("POSTs", posts, expected.posts)
    if fault.fresh and connections is not None:
        yield from _differ("connections", connections, expected.connections)


def _judge_next(told: Told) -> Iterator[str]:
    """After a result: the next call meets no fault, and hears of none."""
    yield from _differ("the next call: kind", told.kind, "done")
    yield from _differ("the next call: attempts", told.attempts, 1)
    yield from _differ("the next call: lost_reply", told.lost_reply, False)
    if told.order_ids not in ([], IDS):
        yield f"the next call: order_ids {told.order_ids}"


def _judge_act(
    told: Told, promise: Promise, place: Place, fault: Fault
) -> Iterator[str]:
    yield from _differ("kind", told.kind, promise.kind)
    yield from _differ("outcome", told.outcome, promise.outcome)
    yield from _differ("POSTs", place.posts(), fault.posts)
    if told.took > ACT_SLACK:
        yield f"took {told.took:.2f} s"
    if KEY in told.said:
        yield "a secret was said"
