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
from collections.abc import Iterator, Mapping, Sequence

from tests import link
from tests.conftest import cleaned
from tests.matrix import gateways, network, servers
from tests.matrix.promises import PROMISES, Promise
from tests.matrix.runner import AT_ONCE, Row, many_running, running
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


def _rows(
    rows: Mapping[str, Row],
    faces_of: Mapping[str, Sequence[str]],
    repeats: int,
    at_once: int,
) -> Iterator[tuple[str, list[str]]]:
    """The same for rows that are functions of a face."""
    print(f"\n{'':76} held", flush=True)
    for name in rows:
        pairs = [(name, face) for _ in range(repeats) for face in faces_of[name]]
        found: list[str] = []
        held = 0
        for start in range(0, len(pairs), at_once):
            batch = pairs[start : start + at_once]
            with many_running(rows, batch, at_once) as begun:
                for (_, face), future in zip(batch, begun, strict=True):
                    faults = future.result()
                    held += not faults
                    found += [f"[{face}] {fault}" for fault in faults]
        yield f"{name:76} {held} of {len(pairs)}{'  NOT HELD' * bool(found)}", found


def _all(names: str, repeats: int) -> Iterator[tuple[str, list[str]]]:
    chosen = [name for name in PROMISES if names in name]
    if chosen:
        yield from _matrix(chosen, repeats)
    parts = (
        (link.why_not(), network.ROWS, dict.fromkeys(network.ROWS, network.FACES)),
        (servers.why_not(), gateways.ROWS, gateways.FACES_OF),
    )
    for lacking, rows, faces_of in parts:
        chosen_rows = {name: row for name, row in rows.items() if names in name}
        if lacking:
            print(f"\nNOT RUN: {', '.join(chosen_rows)}: {lacking}")
        elif chosen_rows:
            yield from _rows(chosen_rows, faces_of, repeats, AT_ONCE)


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
    for line, found in _all(arguments.only, arguments.repeats):
        print(line, *found, sep="\n    ", flush=True)
        failed += bool(found)
    print(f"\n{failed} rows not held, {time.monotonic() - begun:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(_main())
