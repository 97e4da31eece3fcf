"""One watchdog process, as the bot holds it: started, greeted, written to, ended."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import subprocess
import sys

from ._client import LOG_FILE_VARIABLE, LOOPBACK_VARIABLE
from ._guard_sweep import watchdog_options
from ._guard_wire import HELLO, Inbox, clock, pack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ._client import Origin

PASSED_ON = ("PATH", "LANG", "LD_LIBRARY_PATH", LOOPBACK_VARIABLE, LOG_FILE_VARIABLE)
"""All of our environment that a watchdog gets."""

_SEND_TIME = 2  # seconds, whole: a watchdog that does not read is a dead one
_NO_SIGPIPE: int = getattr(socket, "MSG_NOSIGNAL", 0)
_AT_ONCE = _NO_SIGPIPE | socket.MSG_DONTWAIT


class WatchdogGone(Exception):
    """The watchdog ended, or never came up; the message says what was seen."""


def built_environment() -> dict[str, str]:
    """What a watchdog's environment is; nothing of ours is inherited."""
    chosen = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    if chosen.get(LOG_FILE_VARIABLE):
        chosen[LOG_FILE_VARIABLE] = os.path.abspath(chosen[LOG_FILE_VARIABLE])
    return chosen


class Process:
    """One watchdog process, and the socket to it."""

    def __init__(self) -> None:
        """Start it. Raises WatchdogGone if that cannot be done."""
        self.inbox = Inbox()
        try:
            ours, theirs = socket.socketpair()
        except OSError as error:
            raise WatchdogGone(f"no socket: {error}") from error
        try:
            self._popen = self._spawn(theirs)
        except BaseException as error:
            ours.close()
            if not isinstance(error, OSError | ValueError):
                raise
            raise WatchdogGone(f"{sys.executable!r} cannot be run: {error}") from error
        finally:
            theirs.close()
        self.pid = self._popen.pid
        self.socket = ours
        limit = struct.pack("ll", _SEND_TIME, 0)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        if hasattr(socket, "SO_NOSIGPIPE"):
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_NOSIGPIPE, 1)

    @staticmethod
    def _spawn(theirs: socket.socket) -> subprocess.Popen[bytes]:
        if not sys.executable:
            raise ValueError("sys.executable is empty: an embedded interpreter")
        pipe = theirs.fileno()
        program = os.path.join(os.path.dirname(__file__), "_watchdog.py")
        return subprocess.Popen(
            [sys.executable, "-I", "-S", os.path.abspath(program), str(pipe)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=None if _has_stderr() else subprocess.DEVNULL,
            env=built_environment(),
            cwd="/",
            pass_fds=[pipe],
            start_new_session=True,
        )

    def greet(self, origin: Origin, locks: str, until: float) -> None:
        """Wait for its HELLO; only then tell it the secrets.

        Raises WatchdogGone if it is something else, or says nothing in time.
        """
        said = b""
        while len(said) < len(HELLO):
            data = self._read(until, len(HELLO) - len(said))
            said += data
            if not data or not HELLO.startswith(said):
                raise WatchdogGone(
                    f"{sys.executable} did not become a watchdog; "
                    "is it the Python that runs this?"
                )
        settings = {
            "bot": os.getpid(),
            "locks": locks,
            "client": watchdog_options(origin),
        }
        try:
            assert origin.sealed is not None
            self.socket.sendall(origin.sealed.message(), _NO_SIGPIPE)
            self.socket.sendall(pack(settings), _NO_SIGPIPE)
        except OSError as error:
            raise WatchdogGone(f"it ended while it started: {error}") from error

    def _read(self, until: float, size: int) -> bytes:
        """Raises WatchdogGone when the time is over."""
        self.socket.settimeout(max(0.001, until - clock()))
        try:
            return self.socket.recv(size)
        except TimeoutError:
            raise WatchdogGone("it did not start in time") from None
        except OSError:
            return b""
        finally:
            self.socket.settimeout(None)

    def send(self, data: bytes, *, at_once: bool = False) -> None:
        """Raises OSError if it does not read, or has ended."""
        if at_once:
            self.socket.send(data, _AT_ONCE)
        else:
            self.socket.sendall(data, _NO_SIGPIPE)

    def receive(self) -> list[tuple[Any, ...]] | None:
        """Wait for messages; None: it has ended."""
        try:
            data = self.socket.recv(1 << 16)
            return self.inbox.feed(data) if data else None
        except (OSError, ValueError, EOFError):
            return None

    def wait(self, timeout: float | None) -> int | None:
        """Its exit status, once it has ended."""
        try:
            return self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            return None

    def kill(self) -> None:
        self._popen.kill()

    def end_unused(self) -> None:
        """End it, which has no duty yet."""
        self.kill()
        self.close()
        self.wait(None)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)  # wakes whoever waits in recv
        self.socket.close()


def _has_stderr() -> bool:
    try:
        os.fstat(2)
    except OSError:
        return False
    return True
