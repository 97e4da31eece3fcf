"""A market maker in plain Python, whose quotes do not outlive it.

    python examples/bot.py ADAUSDM

What it would quote is printed, since placing orders is not espresso's business: put
your exchange client in `quote`. However the program ends, its orders are cancelled.
"""

from __future__ import annotations

import sys
import time

import espresso

HEARTBEAT = 30.0
"""Seconds. A loop that hangs so long is a dead bot: its orders are cancelled."""
PAUSE = 1.0
"""Seconds between two quotes."""


def quote(symbol: str, turn: int) -> None:
    """Here your bot places its orders."""
    print(f"{symbol}: quote {turn}", flush=True)


def trade(guard: espresso.Guard, turns: int | None = None) -> None:
    """Quote until somebody says stop, or `turns` times."""
    turn = 0
    while turns is None or turn < turns:
        for symbol in guard.symbols:
            quote(symbol, turn)
        guard.beat()  # raises once the guard has fired: then do not quote on
        time.sleep(PAUSE)
        turn += 1


def main(symbols: list[str]) -> int:
    if not symbols:
        print("usage: bot.py SYMBOL...", file=sys.stderr)
        return 2
    # at_start: what an earlier life of the bot has left is gone before the first
    # quote, or the program does not start.
    with espresso.guard(symbols, at_start=True, heartbeat=HEARTBEAT) as guard:
        trade(guard)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
