"""A link with a delay: two network namespaces, a client in one, a server in the other.

    with Link(delay=0.04) as link, link.exchange() as exchange:
        link.run(program, env)        # in the client's namespace

What delays is netem on a veth pair where the kernel has it. Else it is a TUN device
in each namespace, and between them a process of our own that holds every packet
back. Both lose packets at random where a test asks for it. Nothing leaves the two
namespaces, and loopback is another one in each of them.

It takes root. `why_not` says what is missing.
"""

from __future__ import annotations

import ctypes
import fcntl
import itertools
import os
import random
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from espresso.sandbox import Exchange, server, tls
from tests.children import PATIENCE, Child, Ended

CLIENT, SERVER = "192.0.2.1", "192.0.2.2"  # RFC 5737: of nobody's network
BLACK_HOLE = "192.0.2.66"  # routed into the link, and nobody is there
NAMESPACES = Path("/run/netns")
PREFIX = "espresso"
DEVICE = "delayed0"  # in each of the two
TUN = Path("/dev/net/tun")
CLONE_NEWNET = 0x40000000  # linux/sched.h
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000  # linux/if_tun.h
PACKET_MAX = 65536
TCP = socket.IPPROTO_TCP

_numbers = itertools.count()


# ---- what is there -------------------------------------------------------------------


def why_not() -> str:
    """What this machine lacks for a `Link`; "": nothing."""
    if sys.platform != "linux":
        return "network namespaces are Linux's"
    if os.geteuid() != 0:
        return "network namespaces take root"
    name = f"{PREFIX}-{os.getpid()}-probe"
    with suppress(FileNotFoundError, subprocess.CalledProcessError):
        try:
            _ip("netns", "add", name)
            _ip("netns", "exec", name, "true")
        finally:
            _ip("netns", "del", name)
        return "" if TUN.exists() else f"{TUN} is missing"
    return "`ip netns` does not work here"


def _run(*command: str) -> str:
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=PATIENCE
    )
    return done.stdout


def _ip(*arguments: str) -> str:
    return _run("ip", *arguments)


def _sweep() -> None:
    """Remove the namespaces of a run that was killed; its devices go with them."""
    for path in NAMESPACES.glob(f"{PREFIX}-*"):
        owner = re.match(rf"{PREFIX}-(\d+)-", path.name)
        if owner and not Path("/proc", owner[1]).exists():
            with suppress(subprocess.CalledProcessError):  # another run was first
                _ip("netns", "del", path.name)


def _enter(namespace: str) -> None:
    """Take this thread into the namespace, for good."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open(NAMESPACES / namespace) as file:
        if libc.setns(file.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"setns {namespace}")


@contextmanager
def _first_in_line() -> Iterator[None]:
    """What is started in here gets a processor before all else: time is taken of it.

    On Linux the priority is the thread's own, and what it starts inherits it.
    """
    before = os.getpriority(os.PRIO_PROCESS, 0)
    with suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, -20)
    try:
        yield
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, before)


# ---- the link ------------------------------------------------------------------------


class Link:
    """Two namespaces and what joins them, until the end of the ``with`` block.

    Args:
        delay: seconds that each packet takes, one way.
        loss: share of the packets that are lost, in each direction, 0 to 1.
        seed: of the dice that lose them (netem has dice of its own).
    """

    def __init__(self, delay: float = 0.0, *, loss: float = 0.0, seed: int = 1) -> None:
        self.delay, self.loss, self.seed = delay, loss, seed
        name = f"{PREFIX}-{os.getpid()}-{next(_numbers)}"
        self._client, self._server = f"{name}-client", f"{name}-server"
        self._relay: Child | None = None
        self._stack = ExitStack()

    @property
    def round_trip(self) -> float:
        """Seconds."""
        return 2 * self.delay

    def __enter__(self) -> Self:
        _sweep()
        try:
            for name in (self._client, self._server):
                _ip("netns", "add", name)
                self._stack.callback(_ip, "netns", "del", name)
                _ip("-n", name, "link", "set", "lo", "up")
            try:
                self._join_by_netem()
            except subprocess.CalledProcessError:
                self._join_by_relay()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def _join_by_netem(self) -> None:
        """Raises CalledProcessError on a kernel without it; nothing is left then."""
        peer = ("peer", "name", DEVICE, "netns", self._server)
        _ip("-n", self._client, "link", "add", DEVICE, "type", "veth", *peer)
        try:
            for name in (self._client, self._server):
                netem = ["root", "netem", "limit", "100000"]
                netem += ["delay", f"{self.delay * 1e6:.0f}us"]
                netem += ["loss", f"{self.loss:%}"] if self.loss else []
                _run("tc", "-n", name, "qdisc", "add", "dev", DEVICE, *netem)
        except subprocess.CalledProcessError:
            _ip("-n", self._client, "link", "del", DEVICE)
            raise
        self._set_up()
        # There is an address, or its owner would be asked for in vain.
        nowhere = ["lladdr", "02:00:00:00:00:01", "dev", DEVICE]
        _ip("-n", self._client, "neigh", "add", BLACK_HOLE, *nowhere)

    def _join_by_relay(self) -> None:
        arguments = [self._client, self._server, self.delay, self.loss, self.seed]
        relay = Child(
            Path("tests.link"), os.environ, *map(str, arguments), flags=["-m"]
        )
        self._relay = self._stack.enter_context(relay)
        relay.expect("ready")
        self._set_up()

    def _set_up(self) -> None:
        for name, address in ((self._client, CLIENT), (self._server, SERVER)):
            _ip("-n", name, "addr", "add", f"{address}/24", "dev", DEVICE)
            _ip("-n", name, "link", "set", DEVICE, "up")

    @property
    def lost(self) -> int:
        """Packets lost so far, in both directions."""
        if self._relay is not None:
            self._relay.tell()
            return int(self._relay.line())
        shown = [
            _run("tc", "-n", name, "-s", "qdisc", "show", "dev", DEVICE)
            for name in (self._client, self._server)
        ]
        return sum(int(n) for text in shown for n in re.findall(r"dropped (\d+)", text))

    def vanish(self) -> None:
        """From now on every packet is lost, in both directions."""
        self._lose(signal.SIGUSR1, 1.0)

    def come_back(self) -> None:
        """Hand packets on again."""
        self._lose(signal.SIGUSR2, self.loss)

    def _lose(self, number: int, share: float) -> None:
        if self._relay is not None:
            self._relay.signal(number)
            self._relay.expect("heard")
            return
        for name in (self._client, self._server):
            netem = ["netem", "limit", "100000", "delay", f"{self.delay * 1e6:.0f}us"]
            netem += ["loss", f"{share:%}"]
            _run("tc", "-n", name, "qdisc", "change", "dev", DEVICE, "root", *netem)

    def plug(self, state: str) -> None:
        """Put the client's device "up" or "down"."""
        _ip("-n", self._client, "link", "set", DEVICE, state)

    @property
    def prefix(self) -> list[str]:
        """What runs a command in the client's namespace."""
        return ["ip", "netns", "exec", self._client]

    @property
    def server_prefix(self) -> list[str]:
        """What runs a command in the server's namespace, where it is `SERVER`."""
        return ["ip", "netns", "exec", self._server]

    def child(
        self,
        program: str | Path,
        env: Mapping[str, str],
        *arguments: str,
        prefix: Sequence[str] = (),
    ) -> Child:
        """A Python program in the client's namespace; `prefix` runs it there."""
        with _first_in_line():
            return Child(program, env, *arguments, prefix=[*self.prefix, *prefix])

    def run(self, program: str, env: Mapping[str, str], *arguments: str) -> Ended:
        with self.child(program, env, *arguments) as child:
            return child.end(2 * PATIENCE)

    @contextmanager
    def exchange(self) -> Iterator[Exchange]:
        """An exchange in the server's namespace, at `url_of`.

        It runs in this process: a socket stays in the namespace it was made in.
        """
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tls, "_HOSTS", (SERVER,))
            patch.setattr(server, "_listen", self._listen)
            exchange = Exchange(rate=None)
            with _first_in_line():
                exchange.start()
        with exchange:
            yield exchange

    def _listen(self, port: int) -> socket.socket:
        made: list[socket.socket] = []

        def listen() -> None:
            _enter(self._server)
            # With the protocol named, or asyncio would leave Nagle's algorithm on.
            made.append(socket.socket(socket.AF_INET, socket.SOCK_STREAM, TCP))
            made[0].bind((SERVER, port))
            made[0].listen(128)
            made[0].setblocking(False)

        thread = threading.Thread(target=listen)
        thread.start()
        thread.join(PATIENCE)
        return made[0]


def url_of(exchange: Exchange) -> str:
    """Where a client at the other end of the link finds it."""
    return exchange.url.replace("127.0.0.1", SERVER)


# ---- the process in between ----------------------------------------------------------


def _open_tun(namespace: str) -> int:
    """A TUN device in the namespace; its descriptor."""
    _enter(namespace)
    tun = os.open(TUN, os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(
        tun, TUNSETIFF, struct.pack("16sH", DEVICE.encode(), IFF_TUN | IFF_NO_PI)
    )
    return tun


class _Relay:
    """Hands packets on between two devices, each after the delay, in their order."""

    def __init__(self, tuns: tuple[int, int], delay: float, loss: float, seed: int):
        self._other = dict(zip(tuns, reversed(tuns), strict=True))
        self._delay = delay
        self._loss = loss
        self._dice = random.Random(seed)
        self._waiting: deque[tuple[float, int, bytes]] = deque()
        self.lost = 0

    def lose(self, share: float) -> None:
        """Lose this share of the packets from now on."""
        self._loss = share
        print("heard", flush=True)

    def serve(self, asked: Callable[[], bool]) -> None:
        """Until `asked`, which is called when stdin is readable, says no."""
        going = True
        while going:
            ready, _, _ = select.select([0, *self._other], [], [], self._until_next())
            for tun in self._other:
                if tun in ready:
                    self._take_in(tun)
            self._hand_on()
            going = 0 not in ready or asked()

    def _until_next(self) -> float | None:
        if not self._waiting:
            return None
        return max(0.0, self._waiting[0][0] - time.monotonic())

    def _take_in(self, tun: int) -> None:
        with suppress(BlockingIOError):
            while packet := os.read(tun, PACKET_MAX):
                if self._dice.random() < self._loss:
                    self.lost += 1
                else:
                    due = time.monotonic() + self._delay
                    self._waiting.append((due, self._other[tun], packet))

    def _hand_on(self) -> None:
        while self._waiting and self._waiting[0][0] <= time.monotonic():
            _, tun, packet = self._waiting.popleft()
            with suppress(OSError):  # the device is not up yet, or its queue is full
                os.write(tun, packet)


def _main(client: str, server: str, delay: str, loss: str, seed: str) -> None:
    tuns = _open_tun(client), _open_tun(server)
    relay = _Relay(tuns, float(delay), float(loss), int(seed))
    signal.signal(signal.SIGUSR1, lambda *_: relay.lose(1.0))
    signal.signal(signal.SIGUSR2, lambda *_: relay.lose(float(loss)))
    print("ready", flush=True)

    def asked() -> bool:
        """A line asks how many were lost; the end of the test ends this."""
        going = bool(os.read(0, 1))
        if going:
            print(relay.lost, flush=True)
        return going

    relay.serve(asked)


if __name__ == "__main__":
    _main(*sys.argv[1:])
