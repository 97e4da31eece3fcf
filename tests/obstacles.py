"""What can stand between a client and the exchange before a request goes out.

Each holds a call in one phase until it is opened: `HungNames` in the name look-up,
`Gate` in the TCP connection or in the TLS handshake.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from tests.children import preloaded

HUNG_NAME = "hung.invalid"
HOST = "127.0.0.1"

_PATIENCE = 10.0  # seconds
_QUEUE_FULL = 0.2  # seconds after which a connection counts as stuck

# A look-up of HUNG_NAME is noted with one byte, then lasts as long as the file
# HANG_WHILE is there; after that the name is 127.0.0.1.
_STUB = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef int lookup(const char *, const char *, const struct addrinfo *,
                   struct addrinfo **);

int
getaddrinfo(const char *node, const char *service,
            const struct addrinfo *hints, struct addrinfo **result)
{
    lookup *real = (lookup *)dlsym(RTLD_NEXT, "getaddrinfo");

    if (node != NULL && strcmp(node, "HUNG_NAME") == 0) {
        int fd = open(getenv("HANG_NOTES"), O_WRONLY | O_APPEND | O_CREAT, 0600);

        if (fd < 0 || write(fd, "x", 1) != 1 || close(fd) != 0)
            abort();
        while (access(getenv("HANG_WHILE"), F_OK) == 0)
            usleep(10000);
        node = "127.0.0.1";
    }
    return real(node, service, hints, result);
}
"""


class HungNames:
    """A resolver that does not answer, for the child processes it is given to.

    Args:
        folder: an empty one, for the library that is preloaded into the child.
    """

    supported = sys.platform == "linux"  # elsewhere LD_PRELOAD is no such thing

    def __init__(self, folder: Path) -> None:
        source = folder / "names.c"
        source.write_text(_STUB.replace("HUNG_NAME", HUNG_NAME))
        self._library = folder / "names.so"
        self._while = folder / "hang"
        self._notes = folder / "notes"
        command = ["cc", "-shared", "-fPIC", "-o", str(self._library), str(source)]
        subprocess.run([*command, "-ldl"], check=True, timeout=_PATIENCE)
        self._while.touch()

    @property
    def env(self) -> dict[str, str]:
        return {
            "LD_PRELOAD": preloaded(self._library),
            "HANG_WHILE": str(self._while),
            "HANG_NOTES": str(self._notes),
        }

    @property
    def count(self) -> int:
        """Look-ups so far."""
        return self._notes.stat().st_size if self._notes.exists() else 0

    def wait_for(self, n: int) -> None:
        """Wait until so many look-ups have begun."""
        wait_until(lambda: self.count >= n, f"{n} look-ups")

    def open(self) -> None:
        """Let the name be found from now on."""
        self._while.unlink(missing_ok=True)


class Gate:
    """A TCP address in front of the exchange: closed until `open`, then a relay.

    Args:
        behind: the exchange's URL.
        full: closed means a full queue, so that no connection is made at all;
            else it is accepted, and the TLS handshake never answered.
    """

    def __init__(self, behind: str, *, full: bool = False) -> None:
        self._behind = urlsplit(behind).port
        self._opened = threading.Event()
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server((HOST, 0), backlog=0 if full else 128)
        self.port: int = self._listener.getsockname()[1]
        self.accepted = 0
        if full:
            self._fill()
        else:
            self._start(self._accept)

    @property
    def url(self) -> str:
        return f"https://{HOST}:{self.port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._opened.set()
        for sock in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        for thread in self._threads:
            thread.join(_PATIENCE)

    def wait_for(self, n: int) -> None:
        """Wait until so many connections were accepted."""
        wait_until(lambda: self.accepted >= n, f"{n} connections")

    def open(self) -> None:
        """Relay every new connection to the exchange."""
        self._opened.set()
        if not self._threads:
            for filler in self._sockets:
                filler.close()
            self._start(self._accept)

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _fill(self) -> None:
        """Connect until a connection gets stuck: then the queue is full."""
        while True:
            filler = socket.socket()
            self._sockets.append(filler)
            filler.settimeout(_QUEUE_FULL)
            try:
                filler.connect((HOST, self.port))
            except TimeoutError:
                return

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # the listener was closed
            while True:
                sock, _ = self._listener.accept()
                self._sockets.append(sock)
                if self._opened.is_set():
                    there = socket.create_connection((HOST, self._behind))
                    self._sockets.append(there)
                    self._start(_relay, sock, there)
                    self._start(_relay, there, sock)
                self.accepted += 1


def _relay(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@contextmanager
def running(*targets: Callable[[], object]) -> Iterator[list[threading.Thread]]:
    """Threads that run `targets`; at the end of the block all must have ended."""
    threads = [threading.Thread(target=target, daemon=True) for target in targets]
    for thread in threads:
        thread.start()
    yield threads
    until = time.monotonic() + 3 * _PATIENCE
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    assert not any(thread.is_alive() for thread in threads), "a thread hangs"


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Look until it is so; AssertionError if that takes too long."""
    until = time.monotonic() + _PATIENCE
    while not condition():
        assert time.monotonic() < until, f"never came: {what}"
        time.sleep(0.005)
