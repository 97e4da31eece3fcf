"""A rehearsal, as ``make demo`` shows it: one cancel that works, four that fail.

Everything happens on this machine, against ``espresso.sandbox``. The first call is
the example of the README, taken out of README.md. Whatever is printed as code is
what runs.
"""

from __future__ import annotations

import logging
import os
import re
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import espresso
from espresso.sandbox import Exchange

README = Path(__file__).resolve().parent.parent / "README.md"
SYMBOLS = ("ADAUSDM", "NIGHTUSDM")
WIDTH = 79
PATIENCE = 0.5
"""Seconds that a call may end late on a busy machine."""


class Failure(NamedTuple):
    """One way to fail: what is done to the exchange, and the call that meets it."""

    title: str
    prepare: Callable[[Exchange], None]
    code: str
    advice: str
    timeout: float = 10.0
    """Seconds that `code` allows; the demo fails if the call takes longer."""
    remedy: str = ""
    """What the advice leads to, run after the exchange has recovered."""


FAILURES = (
    Failure(
        "Nothing is open",
        lambda exchange: None,
        'espresso.cancel_all("ADAUSDM")',
        "Good news, if the spelling is right. As a result instead of an error:",
        remedy='espresso.cancel_all("ADAUSDM", missing_ok=True)',
    ),
    Failure(
        "The wrong key",
        lambda exchange: None,
        'espresso.cancel_all("NIGHTUSDM", api_key="sandbox-wrong")',
        "The order is still open. Check the key, and that it belongs to this host.",
    ),
    Failure(
        "Trading is locked",
        lambda exchange: exchange.fault("locked_5002", times=None),
        'espresso.cancel_all("NIGHTUSDM")',
        "The order is still open. Press again until it goes through.",
    ),
    Failure(
        "A server that never answers",
        lambda exchange: exchange.fault("hang", times=None),
        'espresso.cancel_all("NIGHTUSDM", timeout=2.0)',
        "The order may be open or gone. Press again:",
        timeout=2.0,
        remedy='espresso.cancel_all("NIGHTUSDM", missing_ok=True)',
    ),
)


# ---- what is printed -----------------------------------------------------------------


def say(value: object, indent: int = 0) -> None:
    """Print one paragraph, folded to the width of a terminal."""
    margin = " " * indent
    text = textwrap.fill(
        str(value),
        WIDTH,
        initial_indent=margin,
        subsequent_indent=margin,
        break_on_hyphens=False,
    )
    print(text, flush=True)


def say_more(value: object) -> None:
    say(value, indent=4)


def say_code(code: str) -> None:
    for line in filter(None, code.splitlines()):
        print(f"    >>> {line}")


def say_orders(exchange: Exchange) -> None:
    counts = (f"{name} {len(exchange.open_orders(name))}" for name in SYMBOLS)
    say("Open orders now: " + ", ".join(counts))


class Warnings(logging.Handler):
    """Prints what espresso logs: retries, and hosts other than MAINNET."""

    def emit(self, record: logging.LogRecord) -> None:
        say_more(f"{record.levelname}: {record.getMessage()}")


# ---- what is done --------------------------------------------------------------------


def readme_example() -> str:
    """The first Python block of the README."""
    text = README.read_text(encoding="utf-8")
    block = re.search(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    if block is None:
        raise SystemExit("README.md has no Python example")
    return block[1]


def run_example() -> None:
    code = readme_example()
    say("1. The example of the README")
    say_code(code)
    exec(compile(code, "README.md", "exec"), {"print": say_more})


def run_failure(failure: Failure, exchange: Exchange) -> None:
    say_code(failure.code)
    failure.prepare(exchange)
    started = time.monotonic()
    try:
        eval(failure.code, {"espresso": espresso})
    except espresso.EspressoError as error:
        elapsed = time.monotonic() - started
        say_more(f"{type(error).__name__}: {error}")
        say_more(f"outcome: {error.outcome}    retryable: {error.retryable}")
    else:
        raise SystemExit(f"{failure.code} was to fail, and did not")
    finally:
        exchange.clear_faults()
    say_more(f"It took {elapsed:.2f} s of at most {failure.timeout:.2f} s.")
    if elapsed > failure.timeout + PATIENCE:
        raise SystemExit("the call has missed its deadline")


def run_remedy(failure: Failure) -> None:
    say(failure.advice)
    if failure.remedy:
        say_code(failure.remedy)
        say_more(eval(failure.remedy, {"espresso": espresso}))


def use(exchange: Exchange) -> None:
    """Point espresso, in this process, at the sandbox and nowhere else."""
    os.environ["ESPRESSO_LOOPBACK_ONLY"] = "1"
    os.environ["DELTADEFI_API_KEY"] = exchange.key
    os.environ["DELTADEFI_BASE_URL"] = exchange.url
    os.environ["SSL_CERT_FILE"] = exchange.ca_file


def rehearse(exchange: Exchange) -> None:
    say(f"A practice exchange listens at {exchange.url}, on this machine only.")
    exchange.place("ADAUSDM", 2)
    exchange.place("NIGHTUSDM", 1)
    say_orders(exchange)
    print()
    run_example()
    say_orders(exchange)
    for number, failure in enumerate(FAILURES, 2):
        print()
        say(f"{number}. {failure.title}")
        run_failure(failure, exchange)
        run_remedy(failure)
    say_orders(exchange)
    if exchange.open_orders():
        raise SystemExit(f"left open: {exchange.open_orders()}")


def main() -> None:
    versions = espresso.__versions__
    libraries = f"libcurl {versions['libcurl']}, {versions['tls']}"
    say(f"espresso {espresso.__version__} ({libraries}, cJSON {versions['cjson']})")
    log = logging.getLogger("espresso")
    log.addHandler(Warnings())
    log.propagate = False
    with Exchange() as exchange:
        use(exchange)
        rehearse(exchange)
    threads = threading.enumerate()
    if threads != [threading.main_thread()]:
        raise SystemExit(f"left running: {threads}")
    print()
    say("The exchange is closed and nothing is left running.")


if __name__ == "__main__":
    main()
