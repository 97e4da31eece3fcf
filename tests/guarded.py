"""Bots under a guard, as programs of their own, and what becomes of them."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import psutil

from espresso.sandbox import Exchange
from tests.children import PRELUDE

SYMBOL = "ADAUSDM"
PATIENCE = 20.0  # seconds; whoever waits so long waits for ever

# A program that arms a guard, says "armed" and its watchdog's pid, and waits to be
# told. `body` may use `g`.
ARMED = PRELUDE + (
    "import ctypes, logging, resource, threading\n"
    "def armed(g):\n"
    "    pid = g._watchdog_pid()\n"
    "    say('armed', pid)\n"
    "    return g\n"
)


def bot(body: str, options: str = "", symbol: str = repr(SYMBOL)) -> str:
    """A bot that waits to be told, then runs `body`, inside the guard's block."""
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    return (
        f"{ARMED}\n"
        f"with espresso.guard({symbol}, {options}) as g:\n"
        "    armed(g)\n"
        "    sys.stdin.readline()\n"
        f"{lines}\n"
        "say('left')\n"
    )


def watchdog_pid(line: str) -> int:
    word, pid = line.split()
    assert word == "armed", line
    return int(pid)


def has_ended(pid: int) -> bool:
    """Whether the process is gone; a zombie that nobody reaps counts as gone."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_until(
    true: Callable[[], object], what: str, timeout: float = PATIENCE
) -> float:
    """Wait until it is true; the seconds that took. AssertionError if it never is."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < timeout, f"not in {timeout} s: {what}"
        time.sleep(0.005)
    return time.monotonic() - began


def nothing_open(exchange: Exchange, timeout: float = PATIENCE) -> None:
    wait_until(lambda: not exchange.open_orders(), "no open order", timeout)


def place_later(
    exchange: Exchange, seconds: float = 0.5, symbol: str = SYMBOL
) -> threading.Timer:
    """An order that was on its way when the bot died."""
    timer = threading.Timer(seconds, exchange.place, [symbol])
    timer.start()
    return timer


class Relay:
    """A TCP relay to an exchange, which can go down, come back and hang up."""

    def __init__(self, url: str) -> None:
        there = urlsplit(url)
        self._target = (there.hostname or "", there.port or 0)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"https://127.0.0.1:{self._listener.getsockname()[1]}"
        self.accepted = 0
        self.is_down = False
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.hang_up()

    def hang_up(self) -> None:
        """Close every connection, as a server does with idle ones."""
        with self._lock:
            for one in self._open:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
                one.close()
            self._open.clear()

    def go_down(self) -> None:
        """From now on a connection is closed as soon as it is accepted."""
        self.is_down = True
        self.hang_up()

    def come_back(self) -> None:
        self.is_down = False

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            if self.is_down:
                client.close()
                continue
            server = socket.create_connection(self._target)
            with self._lock:
                self._open += [client, server]
            for source, sink in ((client, server), (server, client)):
                threading.Thread(
                    target=self._pump, args=[source, sink], daemon=True
                ).start()

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass


def lock_folder(env: dict[str, str], folder: Path) -> dict[str, str]:
    """An environment whose guards lock in this folder, and meet nobody else's."""
    folder.chmod(0o700)
    return {**env, "XDG_RUNTIME_DIR": os.fspath(folder)}
