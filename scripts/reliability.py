"""Measure what espresso promises, and print it as one table: held, or not held.

``python -m scripts.reliability [NAME...]`` from the root of the repository; ``make
reliability`` sets up what it needs. Each figure is the work of a command that fails
when its bar is not held; its output is kept in ``build/reliability/NAME.log``, and
the end of it is printed where the bar was missed. ``--release`` takes the long runs,
which a release is given: up to an hour and a half for each. With ``--write`` the rows
in ``docs/reliability.md`` are made anew, with date and versions. Exit status 1 if a
figure is not held.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOGS = ROOT / "build" / "reliability"
DOCUMENT = ROOT / "docs" / "reliability.md"
SAID_LAST = 60  # lines of a command that failed
CHAOS_SEEDS = (1, 2, 3)
CHAOS_FACES = ("espresso", "espresso-list", "espresso-async", "espresso-async-list")
CHAOS_CALLS = 1700  # a run: over 20,000 in all
CHAOS_CALLS_LONG = 16_700  # over 200,000
TORTURE_TESTS = ("-m", "pytest", "-q", "-n", "2", "tests/test_torture.py")
THREAD_TESTS = ("-m", "pytest", "-q", "tests/test_threads.py")
CALLS_OF_ALL_FACES = " ".join(
    f"tests/test_{name}.py" for name in ("cancel_all", "lists", "async", "replies")
)


@dataclass(frozen=True)
class Figure:
    """One figure, and the commands that measure it.

    reached: what their output says, in some words; "": it says nothing of the kind
    """

    name: str
    what: str
    bar: str
    commands: tuple[tuple[str, ...], ...]
    reached: Callable[[str], str]


@dataclass(frozen=True)
class Column:
    """The figures of one kind of run.

    limit: seconds for one command
    """

    begin: str
    end: str
    limit: float
    figures: tuple[Figure, ...]


@dataclass(frozen=True)
class Reading:
    figure: Figure
    reached: str
    is_held: bool
    seconds: float

    @property
    def verdict(self) -> str:
        return "held" if self.is_held else "NOT HELD"


def python(*words: str) -> tuple[str, ...]:
    return (sys.executable, *words)


def make(*words: str) -> tuple[str, ...]:
    return ("make", "--no-print-directory", *words)


def said(pattern: str) -> Callable[[str], str]:
    """What the pattern finds, each finding told once."""

    def reached(text: str) -> str:
        found = re.findall(pattern, text, re.MULTILINE)
        parts = (" ".join(one) if isinstance(one, tuple) else one for one in found)
        return "; ".join(dict.fromkeys(parts))

    return reached


def total(pattern: str, words: str) -> Callable[[str], str]:
    """The sum of the numbers that the pattern finds, with words for it."""

    def reached(text: str) -> str:
        found = re.findall(pattern, text, re.MULTILINE)
        numbers = [int(number.replace(",", "")) for number in found]
        return f"{sum(numbers):,} {words}" if numbers else ""

    return reached


def both(*parts: Callable[[str], str]) -> Callable[[str], str]:
    """What each of them finds."""
    return lambda text: "; ".join(filter(None, (part(text) for part in parts)))


def chaos(calls: int) -> tuple[tuple[str, ...], ...]:
    judge = ("-m", "tests.chaos", "--calls", str(calls))
    return tuple(
        python(*judge, "--seed", str(seed), "--client", face)
        for seed in CHAOS_SEEDS
        for face in CHAOS_FACES
    )


PASSED = total(r"^\[  PASSED  \] (\d+) test", "tests in C")
JUDGED = total(r"^  calls +(\d+) in", "calls judged")
ROWS = said(r"^(\d+ rows, \d+ calls|\d+ rows not held)")
RUNS = total(r"^all +([\d,]+)", "runs")
ALLOCATIONS = total(r"held without any one of (\d+) allocations", "allocations")
GROWTH = said(r"^(memory \(KiB\)|descriptors|threads) .* at the end +(-?\d+), at most")
PYTEST = said(r"^=* ?(\d+ passed.*?) in ")

FIGURES = (
    Figure(
        "chaos",
        "chaos judge: calls of four faces, three seeds",
        "20,000 calls, 0 violations",
        chaos(CHAOS_CALLS),
        JUDGED,
    ),
    Figure(
        "matrix",
        "fault matrix: every row, in every face",
        "all rows",
        (make("matrix", "REPEATS=1"),),
        ROWS,
    ),
    Figure(
        "fuzz",
        "fuzzing under ASan and UBSan",
        "5,000,000 runs, 0 findings",
        (make("fuzz", "RUNS=5000000"),),
        RUNS,
    ),
    Figure(
        "torture",
        "torture: allocations of a call that fail, one at a time",
        "no crash, no leak, no claim that is not true",
        (make("torture"),),
        ALLOCATIONS,
    ),
    Figure(
        "soak",
        "soak: one client, a fault in 1 % of the calls",
        "100,000 calls: memory +256 KiB, descriptors and threads +0",
        (make("soak", "CALLS=100000"),),
        GROWTH,
    ),
    Figure(
        "valgrind",
        "C tests under valgrind, and what they reach of the core",
        "0 errors, 0 leaks; lines 95 %, branches 90 %, classifier 100 %",
        (make("test-c"),),
        said(r"^src/core, (\w+) .*? ([\d.]+ %)   floor"),
    ),
    Figure(
        "asan",
        "C tests, and calls from Python, under ASan, UBSan and LSan",
        "0 reports",
        (make("test-asan", f"TESTS={CALLS_OF_ALL_FACES}"),),
        both(PASSED, PYTEST),
    ),
    Figure(
        "tsan",
        "C tests, and threads from Python, under TSan",
        "0 reports",
        (make("test-tsan"),),
        both(PASSED, PYTEST),
    ),
    Figure(
        "analyze",
        "gcc's analyzer, clang-tidy and cppcheck over src/",
        "nothing found",
        (make("analyze"),),
        said(r"^(.*? files) .*(clean|NOT CLEAN)$"),
    ),
    Figure(
        "threads",
        "threads on one client, and on one each",
        "64",
        (python(*THREAD_TESTS),),
        PYTEST,
    ),
    Figure(
        "ends",
        "how late a deadline, Ctrl-C, close() and an exit are, at worst, in ms",
        "50 (64 threads 200); 50 (4 busy threads 200); 100; 1000",
        (python("-m", "tests.measure"),),
        said(r"^(.*?)  +[\d.]+ +([\d.]+)   \(promised"),
    ),
    Figure(
        "secrets",
        "the key, in anything that can be seen and in memory after close()",
        "nowhere",
        (python("-m", "pytest", "-q", "tests/test_secrets.py"),),
        PYTEST,
    ),
    Figure(
        "guard",
        "from a bot's SIGKILL to the watchdog's POST",
        "30 ms in the median",
        (make("guard-latency", "RUNS=30"),),
        said(r"runs: (median .*?) \(bar"),
    ),
    Figure(
        "mutants",
        "guards of the code that are broken on purpose",
        "15, each noticed by a test",
        (make("mutants"),),
        said(r"^(\d+ of \d+ mutants killed)"),
    ),
)


LANDING = Column(
    "<!-- figures: made by `make reliability WRITE=1` -->",
    "<!-- figures end -->",
    1500.0,
    FIGURES,
)

RELEASE = Column(
    "<!-- long figures: made by `make reliability RELEASE=1 WRITE=1` -->",
    "<!-- long figures end -->",
    5400.0,
    (
        Figure(
            "torture",
            "torture: every allocation of the core, libcurl, cJSON and OpenSSL",
            "no crash, no leak, no claim that is not true",
            (make("torture", "STRIDE=1"),),
            ALLOCATIONS,
        ),
        Figure(
            "torture-python",
            "torture: every allocation of a Python-level call",
            "no crash, no hang, no claim that is not true",
            (("env", "TORTURE_STRIDE=1", *python(*TORTURE_TESTS)),),
            PYTEST,
        ),
        Figure(
            "soak",
            "soak: one client, a fault in 1 % of the calls",
            "10,000,000 calls: memory +1 MiB, descriptors and threads +0",
            (make("soak", "CALLS=10000000"),),
            GROWTH,
        ),
        Figure(
            "chaos",
            "chaos judge: calls of four faces, three seeds",
            "200,000 calls, 0 violations",
            chaos(CHAOS_CALLS_LONG),
            JUDGED,
        ),
        Figure(
            "matrix",
            "fault matrix: every row, in every face, ten times",
            "all rows",
            (make("matrix", "REPEATS=10"),),
            ROWS,
        ),
        Figure(
            "fuzz",
            "fuzzing under ASan and UBSan, an hour of one processor",
            "0 findings",
            (make("fuzz", "SECONDS=3300", "JOBS=1"),),
            RUNS,
        ),
        Figure(
            "asan",
            "all tests under ASan and UBSan, the C tests under LSan",
            "0 reports",
            (make("test-asan"),),
            both(PASSED, PYTEST),
        ),
        Figure(
            "threads",
            "threads on one client, and on one each",
            "256",
            (("env", "TEST_THREADS=256", *python(*THREAD_TESTS)),),
            PYTEST,
        ),
        Figure(
            "leaks",
            "each test of a call, repeated until memory is flat",
            "flat",
            (make("test-leaks"),),
            PYTEST,
        ),
        Figure(
            "interpreters",
            "subinterpreters made and destroyed",
            "1,000",
            (make("test-interpreters-long"),),
            PYTEST,
        ),
        Figure(
            "guard",
            "each kind of death of a guarded program, an exchange that is down",
            "100 times each, its orders cancelled",
            (make("test-guard-long"),),
            PYTEST,
        ),
    ),
)


def measure(figure: Figure, limit: float) -> Reading:
    """Run its commands, all of them; keep what they say."""
    began = time.monotonic()
    texts, is_held = [], True
    for command in figure.commands:
        status, text = run(command, limit)
        if status != 0:
            print("\n".join(text.splitlines()[-SAID_LAST:]))
        texts.append(text)
        is_held = is_held and status == 0
    text = "".join(texts)
    (LOGS / f"{figure.name}.log").write_text(text)
    reached = figure.reached(text)
    return Reading(figure, reached, is_held and bool(reached), time.monotonic() - began)


def run(command: tuple[str, ...], limit: float) -> tuple[int, str]:
    """Exit status and output; what lasts too long is ended, with all it started."""
    with subprocess.Popen(
        command,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            text, _ = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            text, _ = process.communicate()
        return process.returncode, text


def environment() -> str:
    """Where it was measured."""
    from espresso import __versions__

    libraries = ", ".join(f"{name} {one}" for name, one in __versions__.items())
    return (
        f"{libraries}; CPython {platform.python_version()}, "
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors; "
        f"{datetime.date.today().isoformat()}"
    )


def row(reading: Reading) -> str:
    figure = reading.figure
    cells = (figure.what, figure.bar, reading.reached or "-", reading.verdict)
    return f"| {' | '.join(cells)} |"


def not_run(figure: Figure) -> str:
    return f"| {figure.what} | {figure.bar} | - | not run yet |"


def show(reading: Reading) -> None:
    """A figure for a person to read: on a terminal it is no table."""
    figure = reading.figure
    print(f"{reading.verdict:9} {figure.name:9} {figure.what} ({figure.bar})")
    print(f"{'':19} {reading.reached or 'see its log'}; {reading.seconds:.0f} s")
    sys.stdout.flush()


def document(readings: list[Reading], column: Column) -> None:
    """Put the rows into the table of the document; those of others stay.

    What has no row yet gets one that says so.
    """
    before, _, rest = DOCUMENT.read_text().partition(column.begin)
    table, _, after = rest.partition(column.end)
    rows = {line.split(" | ")[0]: line for line in table.splitlines()}
    rows |= {f"| {one.figure.what}": row(one) for one in readings}
    kept = [rows.get(f"| {one.what}", not_run(one)) for one in column.figures]
    head = ["| figure | bar | reached | |", "| --- | --- | --- | --- |"]
    text = "\n".join([environment(), "", *head, *kept])
    DOCUMENT.write_text(f"{before}{column.begin}\n\n{text}\n\n{column.end}{after}")


def chosen(names: list[str], column: Column) -> Iterator[Figure]:
    return (one for one in column.figures if not names or one.name in names)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m scripts.reliability")
    parser.add_argument("names", nargs="*", metavar="NAME", help="of figures; all")
    parser.add_argument("--release", action="store_true", help="the long runs")
    parser.add_argument("--write", action="store_true", help="into the page, too")
    args = parser.parse_args()
    column = RELEASE if args.release else LANDING
    known = {one.name for one in column.figures}
    if unknown := set(args.names) - known:
        parser.error(f"no figure {', '.join(unknown)}; there are {', '.join(known)}")
    LOGS.mkdir(parents=True, exist_ok=True)
    readings = []
    for figure in chosen(args.names, column):
        readings.append(measure(figure, column.limit))
        show(readings[-1])
        if args.write:
            document(readings[-1:], column)
    held = sum(one.is_held for one in readings)
    print(f"{held} of {len(readings)} figures held; {environment()}")
    return 0 if held == len(readings) else 1


if __name__ == "__main__":
    sys.exit(main())
