"""``espresso sandbox``: a practice exchange in the foreground."""

from __future__ import annotations

import argparse
import shlex
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from . import _cli


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "It prints three lines for the shell that your bot runs in; whatever is\n"
        "started there talks to the sandbox and to nothing else."
    )
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
        help="open orders at the start, such as ADAUSDM=3",
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


def run(arguments: argparse.Namespace) -> int:
    """Serve until SIGINT, SIGTERM or SIGHUP; the exit status."""
    with _signals_held(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as held:
        try:
            from espresso.sandbox import Exchange
        except ImportError as error:
            return _cli.complain("sandbox", error)
        try:
            exchange = Exchange(port=arguments.port)
            for symbol, n in arguments.orders:
                exchange.place(symbol, n)
            for name in arguments.fault:
                exchange.fault(name)
            exchange.start()
        except (OSError, ValueError) as error:
            return _cli.complain("sandbox", error)
        with exchange:
            _say_exports(exchange.environment)
            signal.sigwait(held)
    return _cli.OK


def _say_exports(environment: dict[str, str]) -> None:
    """The lines for a shell on stdout, the words for a human on stderr."""
    names = ("DELTADEFI_API_KEY", "DELTADEFI_BASE_URL", "SSL_CERT_FILE")
    lines = [f"export {name}={shlex.quote(environment[name])}" for name in names]
    _cli.say("\n".join(lines))
    _cli.tell(
        "The sandbox exchange is running: enter these lines in the shell of your "
        "bot. Ctrl-C ends it."
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
