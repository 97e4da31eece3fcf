"""Many trials side by side: they mostly wait."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from tests.conftest import asked, clean
from tests.matrix.faults import FAULTS
from tests.matrix.trial import Trial, faults_of

AT_ONCE = 6
WAITING_AT_ONCE = 24  # of those that do nothing for a second and longer

Verdicts = dict[Trial, Future[list[str]]]


@contextmanager
def running(trials: Iterable[Trial]) -> Iterator[Verdicts]:
    """What becomes of each trial; at the end of the block the rest is given up."""
    prompt = ThreadPoolExecutor(AT_ONCE)
    waiting = ThreadPoolExecutor(WAITING_AT_ONCE)
    try:
        yield {
            trial: (waiting if FAULTS[trial.name].waits else prompt).submit(_try, trial)
            for trial in trials
        }
    finally:
        for pool in (prompt, waiting):
            pool.shutdown(cancel_futures=True)


Row = Callable[[str], list[str]]
"""What was not as promised, of the face that is named."""
Found = dict[tuple[str, str], Future[list[str]]]


@contextmanager
def many_running(
    rows: Mapping[str, Row], chosen: Iterable[tuple[str, str]], at_once: int
) -> Iterator[list[Future[list[str]]]]:
    """What becomes of each row and face; at the end the rest is given up."""
    pool = ThreadPoolExecutor(at_once)
    try:
        yield [pool.submit(_try_row, rows[row], face) for row, face in chosen]
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def rows_running(
    rows: Mapping[str, Row], chosen: Sequence[tuple[str, str]], at_once: int
) -> Iterator[Found]:
    """The same, by row and face, each of which is chosen once."""
    with many_running(rows, chosen, at_once) as begun:
        yield dict(zip(chosen, begun, strict=True))


def rows_of_tests(
    request: pytest.FixtureRequest, rows: Mapping[str, Row], at_once: int
) -> Iterator[Found]:
    """The body of a module's fixture `found`: what the chosen tests of it ask for."""
    chosen = [(str(one["row"]), str(one["face"])) for one in asked(request, "found")]
    with pytest.MonkeyPatch.context() as patch:
        clean(patch)  # for between the tests, too: rows go on there
        with rows_running(rows, chosen, at_once) as begun:
            yield begun


def _try(trial: Trial) -> list[str]:
    return _try_row(lambda _: faults_of(trial), "")


def _try_row(row: Row, face: str) -> list[str]:
    try:
        return row(face)
    except Exception:
        return [traceback.format_exc()]
