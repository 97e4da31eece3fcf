"""What a process does to itself before it holds a key and watches another one."""

from __future__ import annotations

import _socket
import contextlib
import os
import resource
import signal
import stat
import sys
import time

from ._client import LOG_FILE_VARIABLE
from ._log_file import open_log
from ._watchdog_lock import STAND_DOWN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_PR_SET_DUMPABLE = 4  # <sys/prctl.h>
_IGNORED = (
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGPIPE,
    signal.SIGTSTP,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGUSR2,
)


def harden(pipe: int) -> None:
    """Keep nothing of the parent but the pipe and stderr, and let nobody look in.

    0 and 1 are the null device rather than closed: else a socket would get their
    number, and what a library prints would go to the exchange.
    """
    with contextlib.suppress(OSError):
        os.setsid()
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1):
        os.dup2(null, number)
    os.closerange(3, pipe)
    os.closerange(pipe + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _be_undumpable()


def _be_undumpable() -> None:
    """No core, no ptrace, no reading of our memory but by root (Linux)."""
    if sys.platform == "linux":
        import ctypes

        if ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
            raise OSError("prctl(PR_SET_DUMPABLE) failed")


def take_signals() -> tuple[int, int]:
    """Turn SIGTERM and STAND_DOWN into bytes of a pipe; its two ends.

    A write to it is a way to wake the reader, too.
    """
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    for number in (signal.SIGTERM, STAND_DOWN):
        signal.signal(number, lambda number, frame: None)
    # Whoever armed the guard may have blocked some: threads and programs do.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    return reader, writer


def descriptor_of(pid: int) -> int | None:
    """A descriptor that becomes readable when the process has ended.

    None where there is no such thing. Raises ProcessLookupError if it has ended
    already.
    """
    if sys.platform == "darwin":
        import select

        queue = select.kqueue()
        end = select.kevent(
            pid, select.KQ_FILTER_PROC, select.KQ_EV_ADD, select.KQ_NOTE_EXIT
        )
        queue.control([end], 0)
        # A duplicate, since the object closes its own when it is forgotten.
        descriptor = os.dup(queue.fileno())
        queue.close()
        return descriptor
    if sys.platform == "linux" and hasattr(os, "pidfd_open"):
        with contextlib.suppress(PermissionError, NotImplementedError):
            return os.pidfd_open(pid)
    return None


def open_parent(pid: int) -> int | None:
    """`descriptor_of` our parent; raises ProcessLookupError if that is another."""
    descriptor = descriptor_of(pid)
    # After the opening: so it is not another process that got the number since.
    if os.getppid() != pid:
        raise ProcessLookupError(f"process {pid} has ended")
    return descriptor


def connections() -> list[int]:
    """The descriptors of our TCP connections.

    libcurl does not tell them, and wakes itself by sockets of another kind.
    """
    found = []
    for name in os.listdir("/dev/fd"):
        with contextlib.suppress(OSError):
            number = int(name)
            if number > 2 and stat.S_ISSOCK(os.fstat(number).st_mode):
                one = _socket.socket(fileno=number)
                if one.family in (_socket.AF_INET, _socket.AF_INET6):
                    found.append(number)
                one.detach()
    return found


def logger(bot: int) -> Callable[[str, str], None]:
    """A function that logs a line to stderr and to ESPRESSO_LOG_FILE.

    It never waits: a terminal that was stopped, or a pipe that nobody reads, must
    not keep a cancel from being made.
    """
    path = os.environ.get(LOG_FILE_VARIABLE)

    def say(level: str, text: str) -> None:
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        printable = "".join(c if c.isprintable() else " " for c in text)
        line = f"{now} espresso watchdog[{os.getpid()}] of {bot} {level} {printable}\n"
        data = line.encode("utf-8", "replace")
        with contextlib.suppress(OSError):
            if _is_writable(2):
                os.write(2, data)
        if path:
            with contextlib.suppress(OSError):
                _append(path, data)

    return say


def _is_writable(number: int) -> bool:
    import select

    poll = select.poll()
    poll.register(number, select.POLLOUT)
    return any(event & select.POLLOUT for _, event in poll.poll(0))


def _append(path: str, data: bytes) -> None:
    file = open_log(path)
    try:
        os.write(file, data)
    finally:
        os.close(file)
