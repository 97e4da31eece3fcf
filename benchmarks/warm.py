"""A warm call: the connection stands, one POST, one answer, two ids.

Each client is a process of its own. The rounds are interleaved, one client at a time,
and each round is compared with the C loop's of the same round.
"""

import contextlib
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.cores import apart
from benchmarks.figures import Bar, Figure, Report, ratio
from benchmarks.server import ANEW
from benchmarks.setting import Setting

FLOOR = "OpenSSL loop in C"
YARDSTICK = "libcurl loop in C"
WHEEL_YARDSTICK = "libcurl loop in C, wheel"
ESPRESSO = "espresso"
CORE = f"{ESPRESSO}:core in C"
CORE_PARTS = sorted(Path(__file__).parent.parent.glob("src/core/*.c"))
WORKER = Path(__file__).with_name("worker.py")
PATH = "/order/cancel-all"
LOOPS = ["asyncio", "uvloop"]
CALLS = 250  # in a round
PEERS = {  # calls in a round, fewer of what is slow
    "pycurl": CALLS,
    "http.client": 100,
    "urllib3": 100,
    "requests": 100,
    "niquests": 100,
    "httpx": 100,
    "curl_cffi": 100,
    "deltadefi": 100,
}
ASYNC_PEERS = {"aiohttp": 100, "httpx": 100}
NEW_CALLS = 50  # in a round, each on a connection of its own
SYMBOLS = [1, 3, 10]  # of the lists

CPU_LIMIT = 1.1  # times the C loop
P50_LIMIT = 1.05
CORE_LIMIT = 1.2  # times the CPU of the C loop, without Python
ANEW_LIMIT = 1.3  # times the CPU of the C loop, which keeps TLS sessions, too
PEER_LIMITS = {"pycurl": 0.8, "http.client": 0.6, "requests": 0.2}  # CPU
ASYNC_LIMIT = 2.5  # times the CPU of the C loop, on an event loop
AIOHTTP_LIMIT = 0.6  # times the CPU of aiohttp on the same loop


@dataclass
class Client:
    """A child process and what it has measured, in seconds, a sample a round."""

    name: str
    command: list[str]
    calls: int
    cpu: list[float] = field(default_factory=list)
    p50: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)


def worker(setting: Setting, python: str, words: str) -> list[str]:
    """The command of a client that worker.py is."""
    server = setting.server
    return [python, str(WORKER), words, server.base_url, str(server.ca_file)]


def in_c(setting: Setting) -> list[Client]:
    server = setting.server
    where = urlsplit(server.base_url)
    ca_file = str(server.ca_file)
    floor = [setting.compiled("floor"), str(where.hostname), str(where.port)]
    call = [f"{server.base_url}{PATH}", ca_file]
    found = [
        Client(FLOOR, [*floor, PATH, ca_file], CALLS),
        Client(YARDSTICK, [setting.compiled("cloop"), *call], CALLS),
    ]
    if setting.static:
        program = setting.compiled("cloop", setting.static)
        found.append(Client(WHEEL_YARDSTICK, [program, *call], CALLS))
    return found


def core_in_c(setting: Setting) -> list[Client]:
    """espresso without Python."""
    server = setting.server
    where = [server.base_url, str(server.ca_file)]
    programs = {"": setting.compiled("core", parts=CORE_PARTS)}
    if setting.static:
        programs[", wheel"] = setting.compiled("core", setting.static, CORE_PARTS)
    return [
        Client(f"{CORE}{said}", [program, *where], CALLS)
        for said, program in programs.items()
    ]


def anew(found: Sequence[Client], base_url: str) -> list[Client]:
    """The same clients, where the server ends the connection after each answer."""
    return [
        Client(
            f"{client.name}:anew",
            [it.replace(base_url, base_url + ANEW) for it in client.command],
            NEW_CALLS,
        )
        for client in found
    ]


def clients(setting: Setting) -> list[Client]:
    """List the clients, those in C first."""
    found = in_c(setting)

    def add(python: str, words: str, calls: int, said: str = "") -> None:
        command = worker(setting, python, words)
        found.append(Client(words + said, command, calls))

    for said, python in setting.builds.items():
        add(python, ESPRESSO, CALLS, said)
    # All but the floor, whose command has no URL.
    found += anew(found[1:], setting.server.base_url) + core_in_c(setting)
    for name, calls in PEERS.items():
        add(setting.sdk if name == "deltadefi" else setting.peers, name, calls)
    for loop in LOOPS:
        add(setting.ours, f"{ESPRESSO}/{loop}", CALLS)
        for name, calls in ASYNC_PEERS.items():
            add(setting.peers, f"{name}/{loop}", calls)
    for face in (ESPRESSO, f"{ESPRESSO}/asyncio"):
        for symbols in SYMBOLS:
            add(setting.ours, f"{face}:{symbols}", CALLS // symbols)
    return found


@contextlib.contextmanager
def started(
    command: Sequence[str], environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[str]]:
    """Run a client's process for the block; it ends when its stdin does."""
    process = subprocess.Popen(
        command,
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


def tell(process: subprocess.Popen[str], calls: int) -> None:
    """Have the child begin the calls."""
    assert process.stdin is not None
    process.stdin.write(f"{calls}\n")
    process.stdin.flush()


def answer(process: subprocess.Popen[str]) -> tuple[float, float, float]:
    """Return its CPU seconds per call, and the seconds of a call, p50 and p99."""
    assert process.stdout is not None
    numbers = process.stdout.readline().split()
    if len(numbers) != 3:
        raise SystemExit(f"a client gave up: {process.args!r}; its message is above")
    return float(numbers[0]), float(numbers[1]), float(numbers[2])


def sample(process: subprocess.Popen[str], client: Client) -> None:
    tell(process, client.calls)
    cpu, p50, p99 = answer(process)
    client.cpu.append(cpu)
    client.p50.append(p50)
    client.p99.append(p99)


def measure(found: list[Client], rounds: int, environment: dict[str, str]) -> None:
    """Fill the clients' samples; a first round of each only warms up."""
    with contextlib.ExitStack() as stack:
        running = [
            (client, stack.enter_context(started(client.command, environment)))
            for client in found
        ]
        for client, process in running:
            tell(process, client.calls)
            answer(process)
        for number in range(rounds):
            # Back and forth, so that no client always follows the same one.
            for client, process in running[:: 1 if number % 2 else -1]:
                sample(process, client)


class Warm:
    """The clients of this benchmark, and what their samples mean."""

    title = "warm"

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._clients = clients(setting)

    def measure(self) -> None:
        with apart(self._setting.server.pid):
            measure(self._clients, self._setting.rounds, self._setting.environment)

    def report(self) -> Report:
        return report(self._clients)


def report(found: list[Client]) -> Report:
    """Return the lines of the table, the figures, and the bars."""
    base = next(client for client in found if client.name == YARDSTICK)
    lines = [
        "warm call: median [quartiles] over interleaved rounds",
        "  (NAME/LOOP: on that event loop; NAME:N: a list of N symbols, CPU of each;",
        "  NAME:anew: a new connection for each call)",
        f"  {'client':36}{'CPU, µs a call':>25}{'x C loop':>22}"
        f"{'p50, µs':>25}{'x C loop':>22}{'p99, µs':>24}",
    ]
    figures: dict[str, object] = {}
    for client in found:
        cpu, p50, p99 = map(Figure.of, (client.cpu, client.p50, client.p99))
        cpu_ratio = ratio(client.cpu, base.cpu)
        p50_ratio = ratio(client.p50, base.p50)
        lines.append(
            f"  {client.name:36}{cpu.text(1e6, 1):>25}{cpu_ratio.text(1, 2):>22}"
            f"{p50.text(1e6, 1):>25}{p50_ratio.text(1, 2):>22}{p99.text(1e6):>24}"
        )
        figures[client.name] = {
            "cpu_seconds": cpu,
            "cpu_ratio": cpu_ratio,
            "p50_seconds": p50,
            "p50_ratio": p50_ratio,
            "p99_seconds": p99,
        }
    named = {client.name: client for client in found}
    blocking = [*blocking_bars(named), *core_bars(named), *anew_bars(named)]
    return lines, figures, [*blocking, *async_bars(named)]


def blocking_bars(named: Mapping[str, Client]) -> list[Bar]:
    """Of espresso, and of the wheel if there is one, on its own libcurl if known."""
    bars = []
    for said, base in (("", YARDSTICK), (", wheel", WHEEL_YARDSTICK)):
        ours = named.get(ESPRESSO + said)
        if ours is None:
            continue
        yardstick = named.get(base, named[YARDSTICK])
        cpu, p50 = ratio(ours.cpu, yardstick.cpu), ratio(ours.p50, yardstick.p50)
        title = f"warm call{said}"
        bars.append(Bar(f"{title}, CPU / C loop's", cpu.median, CPU_LIMIT, "x"))
        bars.append(Bar(f"{title}, p50 / C loop's", p50.median, P50_LIMIT, "x"))
        for peer, limit in PEER_LIMITS.items():
            share = ratio(ours.cpu, named[peer].cpu).median
            bars.append(Bar(f"{title}, CPU / {peer}'s", share, limit, "x"))
    return bars


def core_bars(named: Mapping[str, Client]) -> list[Bar]:
    """Of the core without Python: what a warm call costs more is Python's share."""
    bars = []
    for said, base in (("", YARDSTICK), (", wheel", WHEEL_YARDSTICK)):
        ours = named.get(f"{CORE}{said}")
        if ours is not None:
            share = ratio(ours.cpu, named[base].cpu).median
            title = f"warm call from C{said}, CPU / C loop's"
            bars.append(Bar(title, share, CORE_LIMIT, "x"))
    return bars


def anew_bars(named: Mapping[str, Client]) -> list[Bar]:
    """Of the wheel alone: older libcurls are given no TLS sessions to keep."""
    ours, base = f"{ESPRESSO}, wheel:anew", f"{WHEEL_YARDSTICK}:anew"
    if ours not in named or base not in named:
        return []
    share = ratio(named[ours].cpu, named[base].cpu).median
    title = "call on a new connection, wheel, CPU / C loop's"
    return [Bar(title, share, ANEW_LIMIT, "x")]


def async_bars(named: Mapping[str, Client]) -> list[Bar]:
    bars = []
    for loop in LOOPS:
        ours = named[f"{ESPRESSO}/{loop}"].cpu
        for name, base, limit in (
            ("C loop's", named[YARDSTICK].cpu, ASYNC_LIMIT),
            ("aiohttp's", named[f"aiohttp/{loop}"].cpu, AIOHTTP_LIMIT),
        ):
            title = f"warm call on {loop}, CPU / {name}"
            bars.append(Bar(title, ratio(ours, base).median, limit, "x"))
    return bars
