"""The command line: ``espresso`` and ``python -m espresso``.

Each verb is one entry of `_VERBS`: a function that adds its arguments, and one that
runs it and returns the exit status.  What only one verb needs is imported when that
verb runs, so that none waits for the others.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

__all__ = ["main"]

_OK = 0
_USAGE = 2  # also: a missing extra, a port that is taken


class _Verb(NamedTuple):
    name: str
    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit status.

    Args:
        argv: the arguments after the program's name; None for the process's own.

    Raises:
        SystemExit: 2 for bad arguments, 0 for ``--help``; the text is on stderr,
            or stdout.
    """
    arguments = _parser().parse_args(argv)
    run: Callable[[argparse.Namespace], int] = arguments.run
    return run(arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="espresso", description="DeltaDeFi: one call that cancels all."
    )
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    for verb in _VERBS:
        sub = verbs.add_parser(verb.name, help=verb.help, description=verb.help)
        verb.add_arguments(sub)
        sub.set_defaults(run=verb.run)
    return parser


def _complain(verb: str, error: object) -> int:
    print(f"espresso {verb}: error: {error}", file=sys.stderr)
    return _USAGE


# -------------------------------------------------------------------- sandbox


def _sandbox_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--port",
        type=_port,
        default=0,
        metavar="N",
        help="TCP port on loopback (default: any free one)",
    )
    parser.add_argument(
        "--orders",
        type=_orders,
        nargs="+",
        action="extend",
        default=[],
        metavar="SYMBOL=N",
        help="open orders at the start",
    )
    parser.add_argument(
        "--fault",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME",
        help="faults for the first calls, one a call, in this order; "
        "a wrong name lists them all",
    )


def _run_sandbox(arguments: argparse.Namespace) -> int:
    with _signals_held(signal.SIGINT, signal.SIGTERM) as held:
        try:
            from espresso.sandbox import Exchange
        except ImportError as error:
            return _complain("sandbox", error)
        try:
            exchange = Exchange(port=arguments.port)
            for symbol, n in arguments.orders:
                exchange.place(symbol, n)
            for name in arguments.fault:
                exchange.fault(name)
            exchange.start()
        except (OSError, ValueError) as error:
            return _complain("sandbox", error)
        with exchange:
            _print_exports(exchange.key, exchange.url, exchange.ca_file)
            signal.sigwait(held)
    return _OK


def _print_exports(key: str, url: str, ca_file: str) -> None:
    """The lines for a shell on stdout, the words for a human on stderr."""
    import shlex

    print(f"export DELTADEFI_API_KEY={shlex.quote(key)}")
    print(f"export DELTADEFI_BASE_URL={shlex.quote(url)}")
    print(f"export SSL_CERT_FILE={shlex.quote(ca_file)}", flush=True)
    print(
        "The sandbox exchange is running: enter these lines in the shell of your "
        "bot. Ctrl-C ends it.",
        file=sys.stderr,
        flush=True,
    )


@contextmanager
def _signals_held(*signals: signal.Signals) -> Iterator[set[signal.Signals]]:
    """Keep the signals for `sigwait`, so that none is lost or strikes half-way.

    Threads inherit the mask: it stands before any is started.
    """
    held = set(signals)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, held)
    try:
        yield held
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port (0 to 65535)")
    return int(text)


def _orders(text: str) -> tuple[str, int]:
    symbol, equals, n = text.partition("=")
    if not (symbol and equals and n.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is not SYMBOL=N, such as ADAUSDM=3")
    return symbol, int(n)


_VERBS = (
    _Verb(
        "sandbox",
        "Run a practice exchange on loopback until Ctrl-C.",
        _sandbox_arguments,
        _run_sandbox,
    ),
)
