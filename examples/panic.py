"""Cancel all that is open on your symbols, until the exchange says that nothing is.

The exchange has no call for all symbols: list yours. The key is read from
``DELTADEFI_API_KEY``. From a terminal, ``espresso cancel-all ADAUSDM NIGHTUSDM`` does
the same, and says more.
"""

from __future__ import annotations

import sys

import espresso

SYMBOLS = ("ADAUSDM", "NIGHTUSDM", "IAGUSDM")


def main() -> int:
    """Exit status 0 only with a proof for every symbol."""
    try:
        results = espresso.cancel_all(SYMBOLS, confirm=True)
    except espresso.PartialCancelError as error:
        for symbol, reason in error.failed.items():
            print(f"{symbol}: MAY BE OPEN: {reason}")
        return 1
    for result in results:
        print(f"{result['symbol']}: nothing open; {len(result['order_ids'])} cancelled")
    return 0


if __name__ == "__main__":
    sys.exit(main())
