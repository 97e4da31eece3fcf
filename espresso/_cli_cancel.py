"""``espresso cancel-all``: the panic button of a terminal, a runbook, a cron job.

What it imports is what the way to the exchange needs; whatever else, from argparse to
json, comes when it is asked for, or after the call.
"""

from __future__ import annotations

# `signal` brings `enum`, which takes a third of the interpreter's own start.
import _signal
import sys

from . import _cli
from ._client import TIMEOUT, URL_VARIABLE, Client, Environment, base_url_from
from ._core import MAINNET
from .errors import PartialCancelError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Iterable
    from typing import Any, NoReturn, TextIO

    from ._cli_report import Answer
    from ._types import CancelAllResult

# Two requests a symbol, at the ten in two seconds that the exchange grants [field].
SYMBOLS_IN_TIME = 20
SECONDS_MORE = 0.5

EXIT_STATUS = """\
exit status:
  0    proven: nothing is open under these names
       (with --no-confirm: the exchange has said "cancelled")
  any other: orders may be open
  1    a request may have been carried out, or not: run it again
  4    not carried out, and worth another try: run it again
  3    refused (key, permission, symbol): the same command would fail again
  2    bad arguments or configuration: nothing was sent
  130  Ctrl-C (143: SIGTERM): run it again

All open orders of the account on these symbols go, also those that were
placed by hand or by another program. Stop your bot first: an order that is
still on its way stays open.
"""


class Arguments:
    """What the command was told; here are the defaults, for argparse as well."""

    symbols: list[str]
    confirm = True
    timeout: float | None = None
    base_url: str | None = None
    api_key_file: str | None = None
    json = False
    quiet = False
    verbose = False


def plain(words: list[str]) -> Arguments | None:
    """The arguments of a command that names symbols and nothing else."""
    if not words or any(word.startswith("-") for word in words):
        return None
    arguments = Arguments()
    arguments.symbols = words
    return arguments


def add_arguments(parser: ArgumentParser) -> None:
    parser.epilog = EXIT_STATUS
    add = parser.add_argument
    add("symbols", nargs="+", metavar="SYMBOL", help="such as ADAUSDM; sent as typed")
    add(
        "--no-confirm",
        dest="confirm",
        action="store_false",
        default=Arguments.confirm,
        help="cancel once, and take the exchange's word for it",
    )
    add(
        "--timeout",
        type=float,
        default=Arguments.timeout,
        metavar="S",
        help=f"seconds for all symbols together (default: {TIMEOUT:g}; "
        f"{SECONDS_MORE:g} more for each over {SYMBOLS_IN_TIME})",
    )
    add(
        "--base-url",
        metavar="URL",
        help="the exchange (default: DELTADEFI_BASE_URL, else the mainnet)",
    )
    add_key_argument(parser)
    add(
        "--json",
        action="store_true",
        default=Arguments.json,
        help="print one JSON object a symbol, also for what failed",
    )
    loudness = parser.add_mutually_exclusive_group()
    loudness.add_argument(
        "-q",
        "--quiet",
        action="store_true",
        default=Arguments.quiet,
        help="nothing on stderr but what went wrong in the end",
    )
    loudness.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        default=Arguments.verbose,
        help="tell each attempt on stderr",
    )


def add_key_argument(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--api-key-file",
        metavar="F",
        help="file that holds the key, '-' for stdin (default: DELTADEFI_API_KEY)",
    )


def run(arguments: Arguments) -> int:
    """Cancel, say what became of it, and return the exit status of EXIT_STATUS."""
    symbols = arguments.symbols = list(dict.fromkeys(arguments.symbols))
    try:
        outcome = _press(arguments)
    except ValueError as error:  # a ConfigError, too: nothing was sent
        answers: dict[str, Answer] = dict.fromkeys(symbols, error)
        status = _cli.USAGE
    except (KeyboardInterrupt, Terminated) as error:
        answers = dict.fromkeys(symbols, error)
        status = getattr(error, "status", _cli.INTERRUPTED)
        _leave_line_of_echo()
    else:
        answers = _by_symbol(symbols, outcome)
        status = status_of(answers.values())
    from ._cli_report import report

    report(answers, status, arguments)
    return status


def _leave_line_of_echo() -> None:
    """A terminal has shown ^C at the start of a line."""
    if sys.stderr is not None and sys.stderr.isatty():
        _cli.write(sys.stderr, "\n")


def _by_symbol(
    symbols: list[str], outcome: list[CancelAllResult] | PartialCancelError
) -> dict[str, Answer]:
    if isinstance(outcome, PartialCancelError):
        answers: dict[str, Any] = outcome.results | outcome.failed
        return {symbol: answers[symbol] for symbol in symbols}
    return dict(zip(symbols, outcome, strict=True))


def status_of(answers: Iterable[Answer]) -> int:
    """The exit status of a call that came to its end; never too hopeful."""
    errors = [it for it in answers if isinstance(it, BaseException)]
    if not errors:
        return _cli.OK
    if any(getattr(error, "outcome", "unknown") == "unknown" for error in errors):
        return _cli.MAY_BE_OPEN
    may_succeed = any(getattr(error, "retryable", True) for error in errors)
    return _cli.AGAIN if may_succeed else _cli.REFUSED


# ---- The call ------------------------------------------------------------------------


def _press(arguments: Arguments) -> list[CancelAllResult] | PartialCancelError:
    """Cancel all symbols at once.

    Raises ConfigError and ValueError if nothing was sent; KeyboardInterrupt,
    Terminated.
    """
    before: Any = sys.stderr
    during: Any = Unwaiting(before, arguments.quiet)
    sys.stderr = during
    try:
        with Signals(), make_client(arguments, **_options(arguments)) as client:
            _announce(client.base_url, arguments)
            return client.cancel_all(
                arguments.symbols, missing_ok=True, confirm=arguments.confirm
            )
    except PartialCancelError as error:
        return error
    finally:
        sys.stderr = before


def _options(arguments: Arguments) -> dict[str, Any]:
    timeout = arguments.timeout
    if timeout is None:
        surplus = max(0, len(arguments.symbols) - SYMBOLS_IN_TIME)
        timeout = TIMEOUT + SECONDS_MORE * surplus
    return {"timeout": timeout}


def make_client(arguments: Any, **options: Any) -> Client:
    """The client of a command, with the key of ``--api-key-file``, if it was given."""
    url = arguments.base_url
    options["base_url"] = base_url_from(Environment()) if url is None else url
    if arguments.api_key_file is None:
        return Client(**options)
    from ._cli_key import read_key

    return Client(read_key(arguments.api_key_file), **options)


def _announce(url: str, arguments: Arguments) -> None:
    """Say where it goes and what it cancels, before anything is sent."""
    where = f"at {url}"
    if arguments.base_url is None and url != MAINNET:
        where += f" (from {URL_VARIABLE}, not the mainnet)"
    what = _cli.folded("cancelling all open orders of", arguments.symbols)
    sys.stderr.write(f"{where}\n")
    sys.stderr.write(f"{what}\n")
    if arguments.api_key_file is not None:
        from ._cli_key import warning_of

        sys.stderr.write(warning_of(arguments.api_key_file))
    if arguments.verbose:
        from . import _watch

        _watch.to_stderr(_watch.LEVELS["debug"], "%(message)s")


class Unwaiting:
    """Stands for stderr while orders are open: it drops what would have to wait.

    A terminal that Ctrl-S holds, or a pipe that nobody reads, must not hold the call.
    """

    def __init__(self, stream: TextIO | None, is_mute: bool) -> None:
        self._stream = stream
        self._is_mute = is_mute

    def write(self, text: str) -> int:
        """Write lines, the first of which gets our name."""
        if text and not self._is_mute and _takes_now(self._stream):
            _cli.write(self._stream, f"espresso: {text}")
        return len(text)

    def flush(self) -> None:
        """Nothing is kept back."""


def _takes_now(stream: TextIO | None) -> bool:
    """Whether a line can be written to the stream without waiting for anybody."""
    import select

    try:
        return stream is not None and bool(select.select([], [stream], [], 0)[1])
    except (OSError, ValueError):  # no descriptor to ask about
        return True


class Terminated(BaseException):
    """SIGTERM has come; `status` is what a shell makes of that."""

    status = 128 + _signal.SIGTERM


class Signals:
    """What SIGTERM and SIGHUP do until the end of the block, unless they do something
    else already.

    SIGTERM ends the call as Ctrl-C does, so that there is a word on what had gone out.
    SIGHUP does nothing: who has pressed the button may close the terminal.
    """

    def __enter__(self) -> None:
        wanted = {_signal.SIGTERM: _terminate, _signal.SIGHUP: _signal.SIG_IGN}
        self._replaced = [
            number for number in wanted if _signal.getsignal(number) == _signal.SIG_DFL
        ]
        for number in self._replaced:
            _signal.signal(number, wanted[number])

    def __exit__(self, *_: object) -> None:
        for number in self._replaced:
            _signal.signal(number, _signal.SIG_DFL)


def _terminate(number: int, frame: object) -> NoReturn:
    raise Terminated(f"ended by signal {number}")
