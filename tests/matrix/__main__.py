"""The fault matrix, row by row: ``python -m tests.matrix --repeats N``.

Exits with 1 if a promise was not held. What a row met that it should not is printed
below it.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Iterator

from tests.conftest import cleaned
from tests.matrix.promises import PROMISES, Promise
from tests.matrix.runner import running
from tests.matrix.trial import Trial, trials_of

HEAD = f"{'fault':39} {'exception':21} {'outcome':8} {'again':5} held"


def _matrix(names: list[str], repeats: int) -> Iterator[tuple[str, list[str]]]:
    """A line for each row, and what was not held."""
    trials = {name: trials_of(name, every=True) for name in names}
    rounds = [trial for _ in range(repeats) for name in names for trial in trials[name]]
    print(f"{len(names)} rows, {len(rounds)} calls\n\n{HEAD}", flush=True)
    seen: dict[str, list[tuple[Trial, list[str]]]] = {name: [] for name in names}
    for number in range(repeats):
        with running(trial for name in names for trial in trials[name]) as verdicts:
            for trial, verdict in verdicts.items():
                seen[trial.name].append((trial, verdict.result()))
                if number == repeats - 1 and trial == trials[trial.name][-1]:
                    yield _row(PROMISES[trial.name], seen[trial.name])


def _row(
    promise: Promise, seen: list[tuple[Trial, list[str]]]
) -> tuple[str, list[str]]:
    found = [f"{trial}: {fault}" for trial, faults in seen for fault in faults]
    held = sum(not faults for _, faults in seen)
    again = "yes" if promise.again else "no"
    line = f"{promise.name:39} {promise.kind:21} {promise.outcome:8} {again:5} "
    return f"{line}{held} of {len(seen)}{'  NOT HELD' * bool(found)}", found


def _main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.matrix")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--only", default="", help="rows whose name has this in it")
    arguments = parser.parse_args()
    logging.getLogger("espresso").addHandler(logging.NullHandler())
    for variable in set(os.environ) - set(cleaned()):
        del os.environ[variable]
    begun = time.monotonic()
    failed = 0
    names = [name for name in PROMISES if arguments.only in name]
    for line, found in _matrix(names, arguments.repeats):
        print(line, *found, sep="\n    ", flush=True)
        failed += bool(found)
    print(f"\n{failed} rows not held, {time.monotonic() - begun:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(_main())
