"""Break one guard at a time on purpose, and see which test notices.

``python -m scripts.mutants [--only WORD ...]`` from the root of the repository, in its
environment. The table of mutants is ``scripts/mutants.toml``: what each breaks, and the
tests that should notice, the fastest first. They run on a copy of the tree in
``build/mutants``: C tests without valgrind, then pytest. Exit status 0 only if every
mutant compiles and is killed.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "scripts" / "mutants.toml"
TREE = ROOT / "build" / "mutants"
LEFT_OUT = shutil.ignore_patterns(
    ".git", "build", "dist", "licenses", ".venv*", "*.egg-info", "*.so", "__pycache__",
    ".*_cache", ".hypothesis",
)  # fmt: skip

PATIENCE = 20.0  # seconds that a test may take beyond SLOWER times its usual ones
SLOWER = 4.0
BUILD_PATIENCE = 600.0  # seconds

FAILED = re.compile(r"^\[  FAILED  \] (?P<name>[a-z]\w*)", re.MULTILINE)
BEGUN = re.compile(r"^\[ RUN      \] (?P<name>\w+)", re.MULTILINE)
FAILED_PYTEST = re.compile(r"^(?:FAILED|ERROR) (?P<name>\S+)", re.MULTILINE)


class TableError(Exception):
    """The table of mutants does not fit the source; the message says where."""


class BuildError(Exception):
    """What was built does not compile; the message is the compiler's."""


@dataclass(frozen=True)
class Edit:
    """A passage of a file, which must stand there exactly once, and its successor."""

    file: str
    old: str
    new: str

    def apply(self, text: str) -> str:
        """The changed text. Raises TableError if it does not apply."""
        found = text.count(self.old)
        if found != 1 or self.old == self.new:
            raise TableError(f"{self.file}: {found} times, not once:\n{self.old}")
        return text.replace(self.old, self.new)


@dataclass(frozen=True)
class Mutant:
    """One guard that is broken by its edits, and the tests that should notice."""

    name: str
    edits: tuple[Edit, ...]
    tests: tuple[str, ...]
    """``c/test_x``: a program of tests/c; else what pytest takes."""

    @property
    def is_c(self) -> bool:
        return any(edit.file.startswith("src/") for edit in self.edits)

    def apply(self, root: Path) -> dict[str, str]:
        """File to its changed text. Raises TableError if an edit does not apply."""
        changed: dict[str, str] = {}
        for edit in self.edits:
            path = root / edit.file
            before = path.read_text("utf-8") if path.exists() else ""
            changed[edit.file] = edit.apply(changed.get(edit.file, before))
        return changed


def load(path: Path = TABLE) -> list[Mutant]:
    """Read the table."""
    rows = tomllib.loads(path.read_text("utf-8"))["mutant"]
    return [
        Mutant(
            row["name"],
            tuple(Edit(**edit) for edit in row["edits"]),
            tuple(row["tests"]),
        )
        for row in rows
    ]


def is_c_program(test: str) -> bool:
    return test.startswith("c/")


def run(
    command: list[str], folder: Path, limit: float, env: dict[str, str] | None = None
) -> tuple[int | None, str]:
    """Run a command; its exit status (None: it took too long) and its output."""
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # so that its children can be ended with it
    )
    try:
        output, _ = process.communicate(timeout=limit)
        status: int | None = process.returncode
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        status = None
    return status, output.decode(errors="replace")


class Tree:
    """The copy of the repository that is broken and tested."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.usual: dict[str, float] = {}
        """Seconds that each test takes where nothing is broken."""
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(ROOT, folder, ignore=LEFT_OUT, symlinks=True)
        self._env = {
            **os.environ,
            # Else its children would find the package that this environment has.
            "PYTHONPATH": str(folder),
            # Kept bytecode is told by second and size: it would be that of a mutant
            # of the same second.
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    # ---- building ----------------------------------------------------------------

    def _build(self, command: list[str]) -> None:
        status, output = run(command, self.folder, BUILD_PATIENCE, self._env)
        if status != 0:
            raise BuildError(output)

    def build_c(self, *programs: str) -> None:
        """Build programs of tests/c. Raises BuildError."""
        targets = [f"build/{program}" for program in programs]
        jobs = f"-j{os.cpu_count() or 1}"
        self._build(["make", "--no-print-directory", jobs, *targets])

    def build_extension(self) -> None:
        """Build the extension in place. Raises BuildError."""
        build = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
        self._build([*build, "--force"])

    def build_all(self, tests: list[str]) -> None:
        """Build what these tests need where nothing is broken yet."""
        programs = [test for test in tests if is_c_program(test)]
        if programs:
            self.build_c(*programs)
        if len(programs) < len(tests):
            self.build_extension()
            (built,) = self.folder.glob("espresso/_core*.so")
            shutil.copy2(built, self.folder / "build")

    def restore_extension(self) -> None:
        """Put the extension back that nothing is broken in."""
        for built in self.folder.glob("build/_core*.so"):
            # A new file, not new bytes in one that a process may still have mapped.
            (self.folder / "espresso" / built.name).unlink()
            shutil.copy2(built, self.folder / "espresso")

    # ---- testing -----------------------------------------------------------------

    def verdict(self, test: str) -> str:
        """Run one test; "" if it passes, else what failed."""
        limit = self.usual.get(test, BUILD_PATIENCE) * SLOWER + PATIENCE
        run_it = self._run_c if is_c_program(test) else self._run_pytest
        return run_it(test, limit)

    def _run_c(self, test: str, limit: float) -> str:
        status, output = run([f"build/{test}"], self.folder, limit)
        failed = FAILED.search(output)
        begun = BEGUN.findall(output)
        if status == 0:
            said = ""
        elif failed:
            said = f"{test}: {failed['name']}"
        else:
            how = "time-out" if status is None else f"status {status}"
            said = f"{test}: {begun[-1] if begun else 'its start'} ({how})"
        return said

    def _run_pytest(self, test: str, limit: float) -> str:
        command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header"]
        command += ["-p", "no:cacheprovider", *test.split()]
        status, output = run(command, self.folder, limit, self._env)
        failed = FAILED_PYTEST.search(output)
        if status == 0:
            said = ""
        elif failed:
            said = failed["name"]
        else:
            how = "time-out" if status is None else f"status {status}"
            said = f"{test} ({how})"
        return said

    def check(self, tests: list[str]) -> list[str]:
        """Build all, run these tests where nothing is broken; what failed."""
        self.build_all(tests)
        failed = []
        for test in tests:
            started = time.monotonic()
            failed.append(self.verdict(test))
            self.usual[test] = time.monotonic() - started
            print(
                f"{'nothing is broken':<44} {self.usual[test]:6.1f} s  {test}",
                flush=True,
            )
        return list(filter(None, failed))

    def try_mutant(self, mutant: Mutant) -> str:
        """What noticed the mutant; "" if nothing did. Raises BuildError."""
        changed = mutant.apply(self.folder)
        kept = {name: (self.folder / name).read_text("utf-8") for name in changed}
        try:
            for name, text in changed.items():
                (self.folder / name).write_text(text, "utf-8")
            return self._killer(mutant)
        finally:
            for name, text in kept.items():
                (self.folder / name).write_text(text, "utf-8")
            if mutant.is_c:
                self.restore_extension()

    def _killer(self, mutant: Mutant) -> str:
        is_built = not mutant.is_c
        said = ""
        for test in mutant.tests:
            if is_c_program(test):
                self.build_c(test)
            elif not is_built:
                self.build_extension()
                is_built = True
            said = self.verdict(test)
            if said:
                break
        return said


def judge(tree: Tree, mutant: Mutant) -> tuple[bool, str]:
    """Whether the mutant is killed, and the line that says by what."""
    started = time.monotonic()
    try:
        killer = tree.try_mutant(mutant)
        is_killed, said = bool(killer), killer or "SURVIVED"
    except BuildError as error:
        is_killed, said = False, f"DOES NOT COMPILE\n{error}"
    took = time.monotonic() - started
    return is_killed, f"{mutant.name:<44} {took:6.1f} s  {said}"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m scripts.mutants")
    parser.add_argument(
        "--only",
        nargs="+",
        default=[""],
        metavar="WORD",
        help="names with one of these",
    )
    options = parser.parse_args(arguments)
    mutants = [
        mutant for mutant in load() if any(word in mutant.name for word in options.only)
    ]
    if not mutants:
        parser.error(f"no mutant is named like {', '.join(options.only)}")
    for number in (signal.SIGINT, signal.SIGQUIT):
        # In the background of a shell they are ignored, and the tests send them.
        signal.signal(number, signal.SIG_DFL)
    tree = Tree(TREE)
    tests = list(dict.fromkeys(test for mutant in mutants for test in mutant.tests))
    failed = tree.check(tests)
    if failed:
        print("fails with nothing broken:", *failed, sep="\n  ")
        return 1
    killed = 0
    for mutant in mutants:
        is_killed, line = judge(tree, mutant)
        killed += is_killed
        print(line, flush=True)
    word = "held" if killed == len(mutants) else "NOT HELD"
    print(f"{killed} of {len(mutants)} mutants killed: {word}")
    return 0 if killed == len(mutants) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
