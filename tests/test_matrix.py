"""The fault matrix: each row through each face, over real sockets and real TLS.

What is promised stands in tests/matrix/promises.py, how each fault is made in
tests/matrix/faults.py. ``make matrix`` prints it row by row, with every way to meet a
fault through every face, as often as it is asked for.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

import espresso
from tests.conftest import asked, clean
from tests.matrix import trial as trials
from tests.matrix.faults import FAULTS
from tests.matrix.press import ALL_FACES, COMMAND_LINE
from tests.matrix.promises import PROMISES
from tests.matrix.runner import Verdicts, running
from tests.matrix.trial import Trial, faults_of, trials_of

needs_linux = pytest.mark.skipif(
    sys.platform != "linux" or not Path("/proc/self/fd").exists(),
    reason="stubs are preloaded by LD_PRELOAD, and descriptors counted in /proc",
)


@pytest.fixture(scope="module")
def verdicts(request: pytest.FixtureRequest) -> Iterator[Verdicts]:
    """All trials of the rows that are asked for, side by side."""
    chosen = [str(one["row"]) for one in asked(request, "verdicts")]
    with pytest.MonkeyPatch.context() as patch:
        clean(patch)  # for between the tests, too: trials go on there
        with running(trial for row in chosen for trial in trials_of(row)) as begun:
            yield begun


def marks_of(row: str) -> list[pytest.MarkDecorator]:
    """What runs in a process of its own has stubs before the C library's functions."""
    return [pytest.mark.preload] if FAULTS[row].child else []


@needs_linux
@pytest.mark.slow
@pytest.mark.parametrize(
    "row", [pytest.param(row, marks=marks_of(row)) for row in PROMISES]
)
def test_row(row: str, verdicts: Verdicts) -> None:
    found = {trial: verdicts[trial].result() for trial in trials_of(row)}
    told = [f"{trial}: {fault}" for trial in found for fault in found[trial]]
    assert not told, "\n".join(told)


# --- the table itself -------------------------------------------------------------


def test_each_row_has_its_fault() -> None:
    assert list(FAULTS) == list(PROMISES)


def test_each_phase_is_there() -> None:
    """The phases of a call, and how many faults are met in each, at the least."""
    count: dict[str, int] = {}
    for promise in PROMISES.values():
        count[promise.phase] = count.get(promise.phase, 0) + 1
    assert count == {
        "local": 4,
        "DNS": 4,
        "connect": 6,
        "TLS": 7,
        "proxy": 8,
        "reuse": 10,
        "send": 3,
        "wait": 5,
        "headers": 17,
        "status": 22,
        "body": 23,
        "after": 1,
        "caller": 6,
        "shutdown": 1,
        "machine": 2,
    }


def test_words_of_the_table() -> None:
    """Classes that are there, outcomes that there are."""
    others = {"done", "exit", "KeyboardInterrupt", "CancelledError"}
    for promise in PROMISES.values():
        if promise.kind not in others:
            assert issubclass(getattr(espresso, promise.kind), espresso.EspressoError)
        assert promise.outcome in {"not_sent", "rejected", "unknown", "done"}


def test_each_row_goes_through_each_face() -> None:
    """But for what a face does not have: a command has no task and no thread."""
    missing = {
        name: sorted(set(ALL_FACES) - {trial.face for trial in trials_of(name, True)})
        for name in PROMISES
    }
    assert {name: faces for name, faces in missing.items() if faces} == {
        "status: 4200": [COMMAND_LINE],  # to it, that is success
        "caller: task.cancel before the request": [COMMAND_LINE, "list", "sync"],
        "caller: task.cancel after the request": [COMMAND_LINE, "list", "sync"],
        "caller: close before the request": [COMMAND_LINE],
        "caller: close after the request": [COMMAND_LINE],
        "shutdown: exit with a thread in a call": [COMMAND_LINE],
    }


def test_each_row_is_in_the_short_form_too() -> None:
    """One call, asyncio, the command line; lists unless it takes a process."""
    for name in PROMISES:
        faces = {trial.face for trial in trials_of(name)}
        left_out = {trial.face for trial in trials_of(name, True)} - faces
        assert left_out <= {"list", "async list"}
        assert not left_out or FAULTS[name].child or FAULTS[name].act


def test_a_fault_that_takes_a_process_says_so() -> None:
    for fault in FAULTS.values():
        if not fault.act:
            with ExitStack() as stack:
                assert bool(fault.make(stack, False).env) is fault.child


def test_the_outcome_decides_whether_a_row_is_tried_again() -> None:
    """What has not gone out is tried again, but for a certificate."""
    for promise in PROMISES.values():
        if promise.outcome == "not_sent" and promise.phase != "caller":
            assert promise.again is (promise.kind != "CertificateError")


# --- the judge bites --------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "ResponseError"},
        {"outcome": "not_sent"},
        {"again": False},
    ],
)
def test_a_promise_that_is_not_held_is_seen(
    wrong: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    row = "wait: RST"
    changed = {**PROMISES, row: replace(PROMISES[row], **wrong)}  # type: ignore[arg-type]
    monkeypatch.setattr(trials, "PROMISES", changed)
    assert faults_of(Trial(row, "sync", "again")) != []


@pytest.mark.parametrize("row", ["TLS: hang", "wait: silence", "body: drip"])
def test_no_time_is_left_for_a_second_attempt(row: str) -> None:
    assert faults_of(Trial(row, "sync", "no time")) == []


def test_a_post_too_many_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    row = "wait: RST"
    changed = {**FAULTS, row: replace(FAULTS[row], posts=2)}
    monkeypatch.setattr(trials, "FAULTS", changed)
    assert faults_of(Trial(row, "sync", "once")) == ["POSTs 1, not 2"]
