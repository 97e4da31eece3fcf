"""A warm call: the connection stands, one POST, one answer, two ids.

Each client is a process of its own. The rounds are interleaved, one client at a time,
and each round is compared with the C loop's of the same round.
"""

import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.figures import Bar, Figure, ratio
from benchmarks.server import Server

YARDSTICK = "cloop"
LIMIT = 1.25  # times the CPU of the C loop
WORKER = Path(__file__).with_name("worker.py")
CLOOP = Path(__file__).with_name("cloop.c")
ASYNC_LIMIT = 2.5  # the same, on an event loop
AIOHTTP_LIMIT = 0.6  # times the CPU of aiohttp on the same loop
LOOPS = ["asyncio", "uvloop"]
PEERS = [("pycurl", 250), ("requests", 25), ("httpx", 25)]  # calls in a round
ASYNC_PEERS = [("aiohttp", 100), ("httpx", 25)]
CALLS = 250  # in a round, of the C loop and of espresso
SYMBOLS = [1, 3, 10]  # of the lists


@dataclass
class Client:
    """A child process and what it has measured, in seconds, a sample a round."""

    name: str
    command: list[str]
    calls: int
    cpu: list[float] = field(default_factory=list)
    latency: list[float] = field(default_factory=list)


def compile_cloop(folder: Path) -> str:
    """Compile the C loop against the libraries that espresso itself uses."""
    query = ["pkg-config", "--cflags", "--libs", "libcurl", "libcjson"]
    flags = subprocess.run(query, check=True, text=True, capture_output=True).stdout
    program = str(folder / "cloop")
    warnings = ["-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror"]
    command = ["cc", "-std=c11", "-D_GNU_SOURCE", "-O2", *warnings, "-o", program]
    subprocess.run([*command, str(CLOOP), *flags.split()], check=True)
    return program


def clients(server: Server, folder: Path, ours: str, theirs: str) -> list[Client]:
    """List the clients; ``ours`` and ``theirs`` are the interpreters of the venvs."""
    url, ca_file = server.base_url, str(server.ca_file)
    cloop = [compile_cloop(folder), f"{url}/order/cancel-all", ca_file]
    worker = [str(WORKER)]
    found = [
        Client(YARDSTICK, cloop, CALLS),
    ]

    def add(python: str, name: str, calls: int) -> None:
        found.append(Client(name, [python, *worker, name, url, ca_file], calls))

    add(ours, "espresso", CALLS)
    for name, calls in PEERS:
        add(theirs, name, calls)
    for loop in LOOPS:
        add(ours, f"espresso/{loop}", CALLS)
        for name, calls in ASYNC_PEERS:
            add(theirs, f"{name}/{loop}", calls)
    for face in ("espresso", "espresso/asyncio"):
        for symbols in SYMBOLS:
            add(ours, f"{face}:{symbols}", CALLS // symbols)
    return found


@contextlib.contextmanager
def started(
    client: Client, environment: dict[str, str]
) -> Iterator[subprocess.Popen[str]]:
    """Run the client's process for the block; it ends when its stdin does."""
    process = subprocess.Popen(
        client.command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        yield process
    finally:
        process.stdin.close()  # type: ignore[union-attr]  # a pipe was asked for
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def command(process: subprocess.Popen[str], calls: int) -> tuple[float, float]:
    """Have the child make the calls; return its CPU seconds per call and its median."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{calls}\n")
    process.stdin.flush()
    answer = process.stdout.readline().split()
    if len(answer) != 2:
        raise SystemExit(f"a client gave up: {process.args!r}; its message is above")
    return float(answer[0]), float(answer[1])


def measure(found: list[Client], rounds: int, environment: dict[str, str]) -> None:
    """Fill the clients' samples; a first round of each only warms up."""
    with contextlib.ExitStack() as stack:
        running = [
            (client, stack.enter_context(started(client, environment)))
            for client in found
        ]
        for client, process in running:
            command(process, client.calls)
        for number in range(rounds):
            # Back and forth, so that no client always follows the same one.
            for client, process in running[:: 1 if number % 2 else -1]:
                cpu, latency = command(process, client.calls)
                client.cpu.append(cpu)
                client.latency.append(latency)


def report(found: list[Client]) -> tuple[list[str], dict[str, object], list[Bar]]:
    """Return the lines of the table, the figures, and the bar."""
    base = next(client for client in found if client.name == YARDSTICK)
    lines = [
        "warm call: median [quartiles] over interleaved rounds",
        "  (NAME/LOOP: on that event loop; NAME:N: a list of N symbols, CPU of each)",
        f"  {'client':20}{'CPU, µs a call':>24}{'x C loop':>20}"
        f"{'p50, µs':>24}{'x C loop':>20}",
    ]
    figures: dict[str, object] = {}
    bars = []
    for client in found:
        cpu, latency = Figure.of(client.cpu), Figure.of(client.latency)
        cpu_ratio = ratio(client.cpu, base.cpu)
        latency_ratio = ratio(client.latency, base.latency)
        lines.append(
            f"  {client.name:20}{cpu.text(1e6, 1):>24}{cpu_ratio.text(1, 2):>20}"
            f"{latency.text(1e6, 1):>24}{latency_ratio.text(1, 2):>20}"
        )
        figures[client.name] = {
            "cpu_seconds": cpu,
            "cpu_ratio": cpu_ratio,
            "p50_seconds": latency,
            "p50_ratio": latency_ratio,
        }
        if client.name == "espresso":
            name = "CPU of a warm call / the C loop's"
            bars.append(Bar(name, cpu_ratio.median, LIMIT, "x"))
    return lines, figures, [*bars, *async_bars(found)]


def async_bars(found: list[Client]) -> list[Bar]:
    cpu = {client.name: client.cpu for client in found}
    bars = []
    for loop in LOOPS:
        ours = cpu[f"espresso/{loop}"]
        for name, base, limit in (
            ("the C loop's", cpu[YARDSTICK], ASYNC_LIMIT),
            ("aiohttp's", cpu[f"aiohttp/{loop}"], AIOHTTP_LIMIT),
        ):
            title = f"CPU of a warm call on {loop} / {name}"
            bars.append(Bar(title, ratio(ours, base).median, limit, "x"))
    return bars
