"""Run the C tests under valgrind and print how much of src/core they reach.

``python scripts/c_tests.py PROGRAM...`` from the root of the repository. The
programs and the core are compiled with ``--coverage`` (see the Makefile).
Exit status 0 only if every program passes with no error and no leak, and as
much of src/core was executed as ``FLOORS`` asks for.
"""

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

# Per cent of what was executed: of all lines, of the ways that branches can take, and
# of the lines that decide what an answer means.
FLOORS = {"lines": 95.0, "branches": 90.0, "classifier": 100.0}
CLASSIFIER = ("response.c", "reply.c", "json.c", "policy.c")
TIMEOUT = 600.0  # seconds for one program
AT_ONCE = 2  # they wait a good deal, and under valgrind use one processor
MEMORY_MAP = Path("/proc/self/maps")  # valgrind cannot start without it
VALGRIND = [
    "valgrind",
    "--quiet",
    "--leak-check=full",
    "--track-fds=no",
    "--num-callers=30",
    "--error-exitcode=99",
]
# The private OpenSSL frees nothing at the exit, when a thread may be using it, and a
# look-up that was left hanging keeps its thread.
LEAKS = {"build/c": "all", "build/c-static": "definite,indirect"}
CLOSING_LINE = re.compile(r"^\[  (?:PASSED|FAILED|SKIPPED) +\].*", re.MULTILINE)
GCOV_ENTRY = re.compile(
    r"^File '(?P<name>src/core/[^']+)'\n"
    r"Lines executed:(?P<lines>[0-9.]+)% of (?P<all_lines>[0-9]+)\n"
    r"(?:Branches executed:.*\n"
    r"Taken at least once:(?P<taken>[0-9.]+)% of (?P<branches>[0-9]+)\n)?",
    re.MULTILINE,
)


def run(command: list[str]) -> bool:
    """Run one program; print cmocka's closing lines, and all of it on failure."""
    program = Path(command[-1]).name
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=TIMEOUT,
        )
        status, output = done.returncode, done.stdout
    except subprocess.TimeoutExpired as late:
        status, output = -1, (late.stdout or b"") + b"\nno end within the time limit\n"
    text = output.decode(errors="replace")
    closing = CLOSING_LINE.findall(text)
    if status != 0 or not closing:
        print(f"{text}\n{program}: FAILED (status {status})", flush=True)
        return False
    print("\n".join(f"{program}: {line}" for line in closing), flush=True)
    return True


class Count(NamedTuple):
    """How many there are, and how many of them a test has reached."""

    reached: int = 0
    total: int = 0

    def __add__(self, other: Any) -> "Count":
        return Count(self.reached + other.reached, self.total + other.total)

    @property
    def share(self) -> float:
        return 100 * self.reached / self.total if self.total else 0.0


def share_of(total: str | None, per_cent: str | None) -> Count:
    number = int(total or 0)
    return Count(round(float(per_cent or 0) * number / 100), number)


def executed(report: str) -> dict[str, tuple[Count, Count]]:
    """Read gcov's summary: file name to lines and branches."""
    return {
        entry["name"]: (
            share_of(entry["all_lines"], entry["lines"]),
            share_of(entry["branches"], entry["taken"]),
        )
        for entry in GCOV_ENTRY.finditer(report)
    }


def gcov_report(objects: Path) -> str:
    """Ask gcov about every object of the core, also one that never ran."""
    notes = sorted(str(path) for path in objects.glob("*.gcno"))
    done = subprocess.run(
        ["gcov", "--no-output", "--branch-probabilities", *notes],
        check=True,
        text=True,
        capture_output=True,
    )
    return done.stdout


def print_coverage(files: dict[str, tuple[Count, Count]]) -> bool:
    """Print one line a file, and the totals; tell whether the floors are held."""
    for name, (lines, branches) in sorted(files.items()):
        print(
            f"{name:24}{lines.reached:5} of {lines.total:5} lines {lines.share:6.1f} %"
            f"{branches.reached:5} of {branches.total:4} branches"
            f" {branches.share:6.1f} %"
        )
    judges = [counts[0] for name, counts in files.items() if name.endswith(CLASSIFIER)]
    totals = {
        "lines": sum((lines for lines, _ in files.values()), Count()),
        "branches": sum((branches for _, branches in files.values()), Count()),
        "classifier": sum(judges, Count()),
    }
    for what, floor in FLOORS.items():
        count = totals[what]
        verdict = "held" if count.share >= floor else "NOT HELD"
        print(
            f"{'src/core, ' + what:24}{count.reached:5} of {count.total:5}"
            f" {count.share:6.1f} %   floor {floor:.0f} %: {verdict}",
            flush=True,
        )
    return all(totals[what].share >= floor for what, floor in FLOORS.items())


def main(programs: list[str]) -> int:
    """Run all programs, then the coverage; a failed program is not the last word."""
    if not programs:
        print("c_tests: no tests/c/test_*.c was built", file=sys.stderr)
        return 1
    objects = Path(programs[0]).parent / "core"
    for counts in objects.glob("*.gcda"):
        counts.unlink()  # gcov adds up over runs
    leaks = LEAKS[objects.parent.as_posix()]
    kinds = [f"--show-leak-kinds={leaks}", f"--errors-for-leak-kinds={leaks}"]
    checker = [*VALGRIND, *kinds] if MEMORY_MAP.exists() else []
    if not checker:
        print("/proc is not mounted: no valgrind, leaks are NOT checked", flush=True)
    with ThreadPoolExecutor(AT_ONCE) as side_by_side:
        commands = [[*checker, program] for program in programs]
        passed = list(side_by_side.map(run, commands))
    covered = print_coverage(executed(gcov_report(objects)))
    return 0 if all(passed) and covered else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
