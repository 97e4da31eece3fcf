"""One watchdog for an account, a host and a symbol on a machine.

A lock is a file whose lock (`flock`) the watchdog holds as long as it lives; the
kernel lets go of it, however the watchdog ends. The file says who holds it: the
watchdog, the bot, and whether that bot has ended. A successor makes such an orphan
stand down with SIGUSR1, which a watchdog whose bot lives does not heed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import stat
from hashlib import blake2b

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

STAND_DOWN = signal.SIGUSR1

_LIVE, _ORPHAN = "live", "orphan"


class Held(Exception):
    """Somebody else watches a symbol; the message names who."""


def directory() -> str:
    """Where this user's locks are.

    XDG_RUNTIME_DIR, else a directory of the user's own (0700) in the temporary
    one. Raises OSError if neither can be had, or belongs to somebody else.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and _is_ours(runtime):
        return os.path.abspath(runtime)
    path = os.path.join(
        os.path.abspath(os.environ.get("TMPDIR") or "/tmp"), f"espresso-{os.getuid()}"
    )
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
    if not _is_ours(path):
        raise PermissionError(
            errno.EACCES, "not a directory of this user's alone (mode 0700)", path
        )
    return path


def _is_ours(path: str) -> bool:
    try:
        status = os.lstat(path)
    except OSError:
        return False
    return (
        stat.S_ISDIR(status.st_mode)
        and status.st_uid == os.getuid()
        and not stat.S_IMODE(status.st_mode) & 0o077
    )


class Locks:
    """The locks of one watchdog.

    account: a digest of key and host, in hex
    bot: the pid of the process that is watched
    """

    def __init__(self, folder: str, account: str, bot: int) -> None:
        self._folder = folder
        self._account = account
        self._bot = bot
        self._files: dict[str, int] = {}
        self._state = _LIVE

    def claim(self, symbols: Sequence[str]) -> Claim:
        """Begin to lock these too."""
        return Claim(self, symbols)

    def drop(self, symbols: Sequence[str]) -> None:
        """Unlock these; the file goes with its lock."""
        for symbol in symbols:
            file = self._files.pop(symbol, None)
            if file is not None:
                with contextlib.suppress(OSError):
                    os.unlink(self._path(symbol))
                os.close(file)
        if symbols:
            self._write(*self._files)

    def orphaned(self) -> None:
        """Say in the files that the bot has ended: whoever wants them may ask."""
        self._state = _ORPHAN
        self._write(*self._files)

    def has(self, symbol: str) -> bool:
        return symbol in self._files

    def take(self, symbol: str) -> tuple[str, ...] | None:
        """Lock this one, if nobody has it.

        None: an orphan has, and was asked to go. Else the symbols that somebody
        before us has left unproven: a file goes with its lock, unless whoever held
        it was killed.

        Raises Held if it is a live process's, OSError for the file.
        """
        path = self._path(symbol)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        file = os.open(path, flags, 0o600)
        try:
            if not (self._lock(file, symbol) and _is_at(file, path)):
                return None
            holder = Holder.read(file)
            self._files[symbol], file = file, -1
            return holder.symbols if holder is not None else ()
        finally:
            if file >= 0:
                os.close(file)

    def publish(self) -> None:
        """Write into the files who holds them."""
        self._write(*self._files)

    def _lock(self, file: int, symbol: str) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            holder = Holder.read(file)
        if holder is not None and holder.is_live(self._bot):
            raise Held(
                f"{symbol} is guarded by process {holder.bot} already (its watchdog "
                f"is process {holder.watchdog}): one at a time for each symbol of an "
                "account"
            )
        if holder is not None:
            holder.ask_to_stand_down(file)
        return False

    def _write(self, *symbols: str) -> None:
        text = f"{os.getpid()} {self._bot} {self._state} {' '.join(self._files)}\n"
        for symbol in symbols:
            file = self._files[symbol]
            # One write, and only then the cut: a reader never finds it empty.
            os.pwrite(file, text.encode(), 0)
            os.ftruncate(file, len(text))

    def _path(self, symbol: str) -> str:
        name = blake2b(f"{self._account} {symbol}".encode(), digest_size=16)
        return os.path.join(self._folder, f"espresso-{name.hexdigest()}.lock")


def _is_at(file: int, path: str) -> bool:
    try:
        there = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(file), there)


class Claim:
    """Symbols that are being locked, as far as it has come.

    Always in the same order: of two processes that want the same, one gets all.
    """

    def __init__(self, locks: Locks, symbols: Sequence[str]) -> None:
        self._locks = locks
        self.symbols = list(symbols)
        self._wanted = sorted(
            symbol for symbol in set(symbols) if not locks.has(symbol)
        )
        self._taken: list[str] = []
        self._left: set[str] = set()

    def attempt(self) -> bool:
        """Lock what can be had; whether that is all now.

        Raises Held and OSError as `Locks.take` does.
        """
        for symbol in self._wanted[len(self._taken) :]:
            left = self._locks.take(symbol)
            if left is None:
                return False
            self._taken.append(symbol)
            self._left.update(left)
        self._locks.publish()
        return True

    @property
    def left(self) -> list[str]:
        """Symbols that others have left to whoever comes after them."""
        return sorted(self._left)

    def abandon(self, but: Sequence[str]) -> None:
        """Unlock again what was locked, but for these."""
        self._locks.drop([name for name in self._taken if name not in but])
        self._locks.publish()


class Holder:
    """What a lock file says of whoever holds its lock."""

    def __init__(self, watchdog: int, bot: int, state: str, symbols: list[str]) -> None:
        self.watchdog = watchdog
        self.bot = bot
        self.state = state
        self.symbols = tuple(symbols)

    @classmethod
    def read(cls, file: int) -> Holder | None:
        """None if it has not been written yet."""
        words = os.pread(file, 1 << 16, 0).decode("ascii", "replace").split()
        if len(words) < 4 or not (words[0].isdecimal() and words[1].isdecimal()):
            return None
        return cls(int(words[0]), int(words[1]), words[2], words[3:])

    def is_live(self, bot: int) -> bool:
        """Whether its bot lives.

        Not so if that is our own: a process that replaced itself by `exec` has the
        pid of the bot it was.
        """
        return self.state == _LIVE and self.bot != bot and _exists(self.bot)

    def ask_to_stand_down(self, file: int) -> None:
        """Signal the watchdog, if it is one, and still holds the lock.

        The pid is looked at through a descriptor of the process where there are
        such: then it cannot become another process's meanwhile.
        """
        with contextlib.suppress(OSError), _opened(self.watchdog) as process:
            if _is_watchdog(self.watchdog) and _is_locked(file):
                if process is None:
                    os.kill(self.watchdog, STAND_DOWN)
                else:
                    signal.pidfd_send_signal(process, STAND_DOWN)


def _exists(pid: int) -> bool:
    """Whether it runs; a zombie does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return os.path.exists("/proc/self/stat") is False


def _is_watchdog(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read().split(b"\0")
        return any(word.endswith(b"/espresso/_watchdog.py") for word in words)
    except FileNotFoundError:
        # No such process; or no /proc, as on macOS, where the lock alone must do.
        return not os.path.exists("/proc/self/cmdline")


def _is_locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(file, fcntl.LOCK_UN)
    return False


@contextlib.contextmanager
def _opened(pid: int) -> Iterator[int | None]:
    if not hasattr(os, "pidfd_open"):
        yield None
        return
    process = os.pidfd_open(pid)
    try:
        yield process
    finally:
        os.close(process)
