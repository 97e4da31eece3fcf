"""Many trials side by side: they mostly wait."""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

from tests.matrix.faults import FAULTS
from tests.matrix.trial import Trial, faults_of

AT_ONCE = 6
LATE_AT_ONCE = 16  # of those that a time-out ends, and that do nothing until then

Verdicts = dict[Trial, Future[list[str]]]


@contextmanager
def running(trials: Iterable[Trial]) -> Iterator[Verdicts]:
    """What becomes of each trial; at the end of the block the rest is given up."""
    prompt, late = ThreadPoolExecutor(AT_ONCE), ThreadPoolExecutor(LATE_AT_ONCE)
    try:
        yield {
            trial: (late if FAULTS[trial.name].late else prompt).submit(_try, trial)
            for trial in trials
        }
    finally:
        for pool in (prompt, late):
            pool.shutdown(cancel_futures=True)


def _try(trial: Trial) -> list[str]:
    try:
        return faults_of(trial)
    except Exception:
        return [traceback.format_exc()]
