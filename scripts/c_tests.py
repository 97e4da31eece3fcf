"""Run the C tests under valgrind and print how much of src/core they reach.

``python scripts/c_tests.py PROGRAM...`` from the root of the repository. The
programs and the core are compiled with ``--coverage`` (see the Makefile).
Exit status 0 only if every program passes with no error and no leak, and
at least ``FLOOR`` per cent of the lines of src/core were executed.
"""

import re
import subprocess
import sys
from pathlib import Path

FLOOR = 90.0  # per cent of lines
TIMEOUT = 600.0  # seconds for one program
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
    r"(?:Lines executed:(?P<share>[0-9.]+)% of (?P<lines>[0-9]+)|No executable lines)",
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
    for line in closing:
        print(f"{program}: {line}", flush=True)
    return True


def lines_executed(report: str) -> dict[str, tuple[int, int]]:
    """Read gcov's summary: file name to (lines executed, lines)."""
    found = {}
    for entry in GCOV_ENTRY.finditer(report):
        lines = int(entry["lines"] or 0)
        executed = round(float(entry["share"] or 0) * lines / 100)
        found[entry["name"]] = (executed, lines)
    return found


def gcov_report(objects: Path) -> str:
    """Ask gcov about every object of the core, also one that never ran."""
    notes = sorted(str(path) for path in objects.glob("*.gcno"))
    done = subprocess.run(
        ["gcov", "--no-output", *notes], check=True, text=True, capture_output=True
    )
    return done.stdout


def print_coverage(executed: dict[str, tuple[int, int]]) -> bool:
    """Print one line a file and the total; tell whether the floor is held."""
    for name, (done, lines) in sorted(executed.items()):
        if lines:
            print(f"{name:32}{done:5} of {lines:5} lines {100 * done / lines:6.1f} %")
    total = sum(lines for _, lines in executed.values())
    reached = sum(done for done, _ in executed.values())
    share = 100 * reached / total if total else 0.0
    verdict = "held" if share >= FLOOR else "NOT HELD"
    print(
        f"{'coverage of src/core (gcov)':32}{reached:5} of {total:5} lines"
        f" {share:6.1f} %   floor {FLOOR:.0f} %: {verdict}",
        flush=True,
    )
    return share >= FLOOR


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
    passed = [run([*checker, program]) for program in programs]
    covered = print_coverage(lines_executed(gcov_report(objects)))
    return 0 if all(passed) and covered else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
