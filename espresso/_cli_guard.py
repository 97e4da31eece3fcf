"""``espresso guard``: a guard for any program, whatever it is written in.

It starts the program as its child, or watches a process that runs already, and
cancels when that has ended. It is under a guard itself: when it is killed, its
watchdog cancels.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time

from . import _cli, _client
from ._core import cancel_all
from ._guard import Guard
from ._watchdog_process import descriptor_of
from .errors import ConfigError, EspressoError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Iterator

BEAT_VARIABLE = "ESPRESSO_BEAT_FD"

_OK = 0
_USAGE = 2
_FAILED = 125  # as `env` has it: the guard itself has failed
_CANNOT_RUN = 126
_NOT_FOUND = 127

# What is passed on to the program. SIGCHLD is our own, and says that it has ended.
_PASSED_ON = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGWINCH,
)
_BY_KERNEL = 128  # SI_KERNEL: a terminal has sent it, to the program as well
_LOOK = 0.1  # seconds between two looks at a watchdog that goes on

EPILOG = """\
exit status:
  that of CMD (128 + N if signal N ended it), or 0 for --pid, if it is proven
  that nothing is open
  125  not armed, or not proven: orders may be open
  126  CMD cannot be run     127  CMD was not found
  2    bad arguments or configuration: nothing was started or sent

With --heartbeat, CMD has to write a byte, at least every S seconds, to the
descriptor whose number is in ESPRESSO_BEAT_FD.
"""


class Arguments:
    """What the command was told."""

    symbols: list[str]
    heartbeat: float | None = None
    at_start = False
    pid: int | None = None
    command: tuple[str, ...] = ()


def add_arguments(parser: ArgumentParser) -> None:
    parser.usage = (
        "espresso guard SYMBOL... [--heartbeat S] [--at-start] "
        "(-- CMD ARGS... | --pid PID)"
    )
    parser.epilog = EPILOG
    add = parser.add_argument
    add("symbols", nargs="+", metavar="SYMBOL", help="such as ADAUSDM; sent as typed")
    add(
        "--heartbeat",
        type=float,
        default=Arguments.heartbeat,
        metavar="S",
        help="cancel after so many seconds without a beat of CMD",
    )
    add(
        "--at-start",
        action="store_true",
        default=Arguments.at_start,
        help="cancel first, and start nothing if that fails",
    )
    add(
        "--pid",
        type=int,
        default=Arguments.pid,
        metavar="PID",
        help="guard a process that runs already, instead of CMD",
    )


def plain(words: list[str]) -> Arguments | None:
    """What follows the first ``--`` is the program's, whatever it looks like; only
    what stands before it is parsed."""
    if "--" not in words:
        return None
    end = words.index("--")
    arguments = _cli._parse("guard", sys.modules[__name__], words[:end])
    assert isinstance(arguments, Arguments)
    arguments.command = tuple(words[end + 1 :])
    return arguments


def _misfit(arguments: Arguments) -> str:
    """What does not go together in the arguments; "": all does."""
    if bool(arguments.command) == (arguments.pid is not None):
        return "name either a program, after --, or a --pid"
    if arguments.pid is not None and arguments.heartbeat is not None:
        return "--heartbeat needs a program that is started here, after --"
    return ""


def run(arguments: Arguments) -> int:
    """Guard until the program has ended; the exit status of EPILOG."""
    misfit = _misfit(arguments)
    if misfit:
        return _complain(misfit, _USAGE)
    with _held():
        try:
            guard = Guard(
                arguments.symbols,
                heartbeat=arguments.heartbeat,
                at_start=arguments.at_start,
            )
            program = _program(arguments)
        except (ValueError, OSError) as error:
            return _complain(error, _USAGE)
        _say(f"guarding {', '.join(guard.symbols)} at {_host()}")
        try:
            guard.start()
        except ConfigError as error:
            return _complain(error, _USAGE)
        except EspressoError as error:
            return _complain(error, _FAILED)
        return _watch(guard, program)


def _host() -> str:
    from urllib.parse import urlsplit

    base_url: str = _client.origin_of_environment().options["base_url"]
    return urlsplit(base_url).netloc


def _program(arguments: Arguments) -> Program | Stranger:
    if arguments.pid is not None:
        return Stranger(arguments.pid)
    return Program(arguments.command, beats=arguments.heartbeat is not None)


def _watch(guard: Guard, program: Program | Stranger) -> int:
    """Start it, wait for its end, prove that nothing is open."""
    try:
        program.start(guard)
        status = program.wait()
    except OSError as error:
        guard.stop(cancel=False)
        found = not isinstance(error, FileNotFoundError)
        return _complain(error, _CANNOT_RUN if found else _NOT_FOUND)
    # A program that did not end well may have an order on its way; of a stranger
    # nobody knows how it has ended.
    failure = guard._leave_quietly(clean=status == _OK and isinstance(program, Program))
    if failure is None:
        return status
    _complain(failure, _FAILED)
    _say(" ".join(failure.__notes__))
    return status if os.getpid() == 1 and _outlive(guard) else _FAILED


def _outlive(guard: Guard) -> bool:
    """As process 1 of a container, wait for the watchdog: nothing survives us.

    Whether nothing is open then.
    """
    _say("process 1 waits for its watchdog, which would end with it")
    while guard._goes_on:
        time.sleep(_LOOK)
    with contextlib.suppress(EspressoError):
        cancel_all(guard.symbols, confirm=True)
        return True
    return False


# ---- what is guarded -----------------------------------------------------------------


class Program:
    """A program that is started as our child."""

    def __init__(self, command: tuple[str, ...], *, beats: bool) -> None:
        self._command = command
        self._beats = beats
        self._pid = 0

    def start(self, guard: Guard) -> None:
        """Raises OSError if it cannot be run."""
        env = dict(os.environ)
        ends: tuple[int, ...] = ()
        try:
            if self._beats:
                reader, writer = ends = os.pipe()
                os.set_inheritable(writer, True)
                env[BEAT_VARIABLE] = str(writer)
            self._pid = os.posix_spawnp(
                self._command[0],
                self._command,
                env,
                setsigmask=(),
                # Python itself ignores these; no other program expects that.
                setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),
            )
        except OSError:
            for end in ends:
                os.close(end)
            raise
        if ends:
            os.close(writer)
            _in_thread(lambda: _pass_beats(reader, guard))

    def wait(self) -> int:
        """Its exit status, as a shell has it; signals are passed on meanwhile."""
        while True:
            info = signal.sigwaitinfo({signal.SIGCHLD, *_PASSED_ON})
            if info.si_signo != signal.SIGCHLD:
                self._pass_on(info)
            status = self._reap()
            if status is not None:
                return status if status >= 0 else 128 - status

    def _pass_on(self, info: signal.struct_siginfo) -> None:
        """Not what a terminal has sent: that has reached the program already."""
        if info.si_code != _BY_KERNEL:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, info.si_signo)

    def _reap(self) -> int | None:
        """Its status, if it has ended; as process 1, bury every orphan."""
        which = -1 if os.getpid() == 1 else self._pid
        found = None
        with contextlib.suppress(ChildProcessError):
            while (reaped := os.waitpid(which, os.WNOHANG))[0] != 0:
                if reaped[0] == self._pid:
                    found = os.waitstatus_to_exitcode(reaped[1])
        return found


class Stranger:
    """A process that runs already, and is nobody of ours."""

    def __init__(self, pid: int) -> None:
        """Raises ProcessLookupError if there is no such process."""
        if pid <= 0:
            raise ProcessLookupError(f"--pid {pid}: no process has that number")
        try:
            self._process = descriptor_of(pid)
        except ProcessLookupError:
            raise ProcessLookupError(f"--pid {pid}: there is no such process") from None
        if self._process is None:
            raise OSError("--pid: this system cannot watch a process")

    def start(self, guard: Guard) -> None:
        _in_thread(self._wait_for_end)

    def _wait_for_end(self) -> None:
        import select

        poll = select.poll()
        assert self._process is not None
        poll.register(self._process, select.POLLIN)
        poll.poll()
        os.kill(os.getpid(), signal.SIGCHLD)

    def wait(self) -> int:
        """0 when it has ended; 128 + N if signal N told us to leave it."""
        while True:
            number = signal.sigwait({signal.SIGCHLD, *_PASSED_ON})
            if number == signal.SIGCHLD:
                return _OK
            if number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                return 128 + number


def _pass_beats(reader: int, guard: Guard) -> None:
    """Each byte, or many at once, is a beat."""
    while os.read(reader, 4096):
        try:
            guard.beat()
        except EspressoError as error:
            _say(str(error))
            return


def _in_thread(work: object) -> None:
    assert callable(work)
    threading.Thread(target=work, name="espresso-cli", daemon=True).start()


# ---- signals, words ------------------------------------------------------------------


@contextlib.contextmanager
def _held() -> Iterator[None]:
    """Keep the signals for `sigwait`; threads inherit that, the program does not."""
    wanted = {signal.SIGCHLD, *_PASSED_ON}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, wanted)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _say(text: object) -> None:
    with contextlib.suppress(OSError):
        print(f"espresso guard: {text}", file=sys.stderr, flush=True)


def _complain(error: object, status: int) -> int:
    _say(f"error: {error}")
    return status
