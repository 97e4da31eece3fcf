"""Two hundred calls at once on one client and one loop, none of which waits in line.

The server is the sandbox in a process of its own; it answers each call after a tenth of
a second. The first round of a client is cold: it opens two hundred connections. The
next ones are warm, as far as connections are kept.
"""

import asyncio
import contextlib
import importlib
import json
import logging
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

from benchmarks.figures import Bar, Figure, Report
from benchmarks.setting import Setting

CALLS = 200
ANSWER_AFTER = 0.1  # seconds
COLD_LIMIT = 1.0  # seconds for all of them
WARM_LIMIT = 0.5
PROCESSES = 5  # clients, each with one cold round
WARM_ROUNDS = 4  # of each
LOOPS = ("asyncio", "uvloop")


def serve() -> None:
    """Print how to reach the sandbox; serve until the standard input ends."""
    sandbox: Any = importlib.import_module("espresso.sandbox")
    with sandbox.Exchange(rate=None) as exchange:
        exchange.fault("slow", times=None, seconds=ANSWER_AFTER)
        print(json.dumps([exchange.key, exchange.url, exchange.ca_file]), flush=True)
        sys.stdin.read()


async def call_all(key: str, url: str, ca_file: str) -> None:
    """Print the seconds of each round."""
    espresso: Any = importlib.import_module("espresso")
    logging.getLogger("espresso").setLevel(logging.ERROR)  # retries: a busy machine
    async with espresso.AsyncClient(key, base_url=url, ca_file=ca_file) as client:
        for _ in range(1 + WARM_ROUNDS):
            start = time.perf_counter()
            call = partial(client.cancel_all, "ADAUSDM", missing_ok=True)
            await asyncio.gather(*(call() for _ in range(CALLS)))
            print(time.perf_counter() - start)


def play(loop_name: str, key: str, url: str, ca_file: str) -> None:
    """Be the client."""
    module: Any = importlib.import_module(loop_name)
    with asyncio.Runner(loop_factory=module.new_event_loop) as runner:
        runner.run(call_all(key, url, ca_file))


class Together:
    """The samples of both loops, in seconds."""

    title = "together"

    def __init__(self, setting: Setting) -> None:
        self._command = [setting.ours, "-m", "benchmarks.together"]
        self._environment = setting.environment
        self._cold: dict[str, list[float]] = {loop: [] for loop in LOOPS}
        self._warm: dict[str, list[float]] = {loop: [] for loop in LOOPS}

    @contextlib.contextmanager
    def _server(self) -> Iterator[list[str]]:
        process = subprocess.Popen(
            [*self._command, "serve"],
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            where: list[str] = json.loads(process.stdout.readline())
            yield where
        finally:
            process.communicate(timeout=10)

    def measure(self) -> None:
        with self._server() as where:
            for _ in range(PROCESSES):
                for loop in LOOPS:
                    self._run(loop, where)

    def _run(self, loop: str, where: list[str]) -> None:
        done = subprocess.run(
            [*self._command, loop, *where],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        cold, *warm = map(float, done.stdout.split())
        self._cold[loop].append(cold)
        self._warm[loop] += warm

    def report(self) -> Report:
        """Return the lines of the table, the figures, and the bars."""
        lines = [f"{CALLS} calls at once, answered after {ANSWER_AFTER * 1e3:.0f} ms"]
        figures: dict[str, object] = {}
        bars = []
        for loop in LOOPS:
            for name, samples, limit in (
                ("cold", self._cold[loop], COLD_LIMIT),
                ("warm", self._warm[loop], WARM_LIMIT),
            ):
                figure = Figure.of(samples)
                figures[f"{loop}_{name}_seconds"] = figure
                lines.append(f"  {f'{loop}, {name}, ms':32}{figure.text(1e3):>24}")
                title = f"{CALLS} calls at once on {loop}, {name}"
                bars.append(Bar(title, figure.median, limit, "s"))
        return lines, figures, bars


def main() -> None:
    match sys.argv[1:]:
        case ["serve"]:
            serve()
        case [loop, key, url, ca_file]:
            play(loop, key, url, ca_file)


if __name__ == "__main__":
    main()
