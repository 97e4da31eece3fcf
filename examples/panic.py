"""Cancel all open orders of several symbols at once, and say what became of each.

    python examples/panic.py ADAUSDM NIGHTUSDM

The key is read from ``DELTADEFI_API_KEY``. Exit status 0 only if the exchange has
answered for every symbol that nothing is open any more under that spelling.
"""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor

import espresso

TRIES = 5
PAUSE = 2.0
"""Seconds between two tries; also the window of the exchange's rate limit."""


def cancel(client: espresso.Client, symbol: str) -> tuple[bool, str]:
    """Press until it is certain, or as often as TRIES; whether it is, and a line."""
    for left in reversed(range(TRIES)):
        try:
            result = client.cancel_all(symbol, missing_ok=True)
        except espresso.EspressoError as error:
            again = error.retryable or error.outcome == "unknown"
            if not again or not left:
                return False, f"{symbol}: {error.outcome.upper()}: {error}"
            time.sleep(PAUSE)
        except ValueError as error:  # not a symbol: nothing was sent
            return False, str(error)
        else:
            return True, f"{symbol}: {_told(result)}"
    raise AssertionError("the last try returns")


def _told(result: espresso.CancelAllResult) -> str:
    count = len(result["order_ids"])
    if "lost_reply" in result:
        return f"nothing open; at least {count} cancelled, a reply was lost"
    return f"nothing open; {count} cancelled"


def main(symbols: list[str]) -> int:
    if not symbols:
        print("usage: panic.py SYMBOL...", file=sys.stderr)
        return 2
    certain = True
    with espresso.Client() as client, ThreadPoolExecutor(len(symbols)) as threads:
        for sure, line in threads.map(lambda name: cancel(client, name), symbols):
            print(line, flush=True)
            certain = certain and sure
    return 0 if certain else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
