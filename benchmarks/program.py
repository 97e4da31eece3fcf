"""A program of Python in a fresh process, again and again."""

import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

BARE = "pass"
IMPORT = "import espresso"
MODULES = (
    "{before}import sys; before = set(sys.modules); import {module};"
    " print(*sorted(set(sys.modules) - before))"
)


@dataclass
class Program:
    """Python code for a fresh interpreter, and its samples in seconds.

    Where it names no interpreter of its own, whoever runs it does.
    """

    code: str
    environment: dict[str, str]
    prints_seconds: bool = False
    samples: list[float] = field(default_factory=list)
    python: str = ""

    def command(self, python: str) -> list[str]:
        return [python, "-I", "-c", self.code]

    def run(self, python: str) -> str:
        """Run it once and take a sample: what it prints, else the process's life."""
        start = time.perf_counter()
        done = subprocess.run(
            self.command(self.python or python),
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        lived = time.perf_counter() - start
        if done.returncode:
            raise SystemExit(f"{self.code}: {done.returncode}: {done.stderr}")
        self.samples.append(float(done.stdout) if self.prints_seconds else lived)
        return done.stdout


def measure(programs: Sequence[Program], rounds: int, python: str) -> None:
    """Take a sample of each program a round; the first round only warms up."""
    for number in range(rounds + 1):
        for program in programs[:: 1 if number % 2 else -1]:
            program.run(python)
    for program in programs:
        del program.samples[0]


def modules(
    module: str, python: str, environment: dict[str, str], before: str = ""
) -> list[str]:
    """Return the names of the modules that an import adds."""
    code = MODULES.format(module=module, before=before)
    return Program(code, environment).run(python).split()
