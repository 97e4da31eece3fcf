"""How the cost of calls grows: symbols, threads, clients, processes.

Measured to where the machine ends; `page` says what follows from that for more. The
server is one process on the same machine, so it takes a core of it, too.
"""

import contextlib
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.cores import apart
from benchmarks.figures import Bar, Figure, Report, ratio
from benchmarks.setting import Setting
from benchmarks.warm import ESPRESSO, answer, started, tell, worker

THREADS = (1, 2, 4, 8, 16)  # on one client
CLIENTS = (1, 4, 16, 64)  # in one process
PROCESSES = (1, 2, 4, 8)
SYMBOLS = (1, 3, 10, 20)  # of a list; above 10 the rate limit holds the call back
CALLS = 800  # in a round of threads, clients, and of each process
ROUNDS = 15
THREADS_LIMIT = 0.9  # of the calls per CPU second of one thread


@dataclass
class Row:
    """So many of a kind, and what they took, a sample a round.

    Attributes:
        cpu: seconds of a call (of a symbol, in a list), in all processes together.
        wall: seconds of all calls of a round, from the first to the last.
        calls: of a round.
    """

    kind: str
    count: int
    commands: list[list[str]]
    calls: int
    memory: float = 0.0  # MB of each process, after its last call
    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)

    def round(self, processes: Sequence[subprocess.Popen[str]]) -> None:
        start = time.perf_counter()
        for process in processes:
            tell(process, self.calls)
        answers = [answer(process) for process in processes]
        self.wall.append(time.perf_counter() - start)
        self.cpu.append(sum(cpu for cpu, _, _ in answers) / len(answers))
        self.memory = max(resident(process.pid) for process in processes)

    def rate(self) -> Figure:
        """Calls a second, of all processes together."""
        made = self.calls * len(self.commands)
        return Figure.of([made / wall for wall in self.wall])

    def figures(self) -> dict[str, object]:
        return {
            "cpu_seconds": Figure.of(self.cpu),
            "calls_per_second": self.rate(),
            "seconds_of_a_call": Figure.of([wall / self.calls for wall in self.wall]),
            "megabytes": self.memory,
        }


def resident(pid: int) -> float:
    """Return the memory of a process in MB of 10^6 bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise SystemExit(f"process {pid} tells no memory")


def rows(setting: Setting) -> dict[str, list[Row]]:
    def one(words: str) -> list[str]:
        return worker(setting, setting.ours, words)

    return {
        "threads": [
            Row("threads", n, [one(f"{ESPRESSO}@{n}")], CALLS) for n in THREADS
        ],
        "clients": [
            Row("clients", n, [one(f"{ESPRESSO}*{n}")], CALLS) for n in CLIENTS
        ],
        "processes": [
            Row("processes", n, [one(ESPRESSO)] * n, CALLS) for n in PROCESSES
        ],
        "symbols": [Row("symbols", n, [one(f"{ESPRESSO}:{n}")], 1) for n in SYMBOLS],
    }


def counted(count: int, kind: str) -> str:
    """``1 thread``, ``2 threads``; for the others likewise."""
    ending = "es" if kind == "processes" else "s"
    return f"{count} {kind if count > 1 else kind.removesuffix(ending)}"


class Scale:
    """The rows of each kind, and what they mean."""

    title = "scale"

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._rows = rows(setting)

    def measure(self) -> None:
        with apart(self._setting.server.pid):
            for kind, found in self._rows.items():
                rounds = 3 if kind == "symbols" else ROUNDS
                self._measure(found, min(rounds, self._setting.rounds))

    def _measure(self, found: list[Row], rounds: int) -> None:
        with contextlib.ExitStack() as stack:
            running = [
                [
                    stack.enter_context(started(command, self._setting.environment))
                    for command in row.commands
                ]
                for row in found
            ]
            for number in range(rounds + 1):
                order = list(zip(found, running, strict=True))
                for row, processes in order[:: 1 if number % 2 else -1]:
                    row.round(processes)
        for row in found:
            del row.cpu[0], row.wall[0]  # the first only warms up

    def report(self) -> Report:
        lines = [
            "how the cost grows: median [quartiles]",
            f"  {'':20}{'CPU, µs a call':>24}{'calls a second':>24}"
            f"{'MB a process':>14}",
        ]
        figures: dict[str, object] = {}
        for kind, found in self._rows.items():
            figures[kind] = {str(row.count): row.figures() for row in found}
            for row in found:
                lines.append(
                    f"  {counted(row.count, kind):20}"
                    f"{Figure.of(row.cpu).text(1e6, 1):>24}{row.rate().text():>24}"
                    f"{row.memory:>14.1f}"
                )
        threads = self._rows["threads"]
        share = ratio(threads[0].cpu, threads[-1].cpu).median
        title = f"calls per CPU second, {THREADS[-1]} threads / 1"
        bar = Bar(title, share, THREADS_LIMIT, "x", at_least=True)
        return lines, figures, [bar]
