"""A market maker on asyncio, whose quotes do not outlive it.

    python examples/bot_asyncio.py ADAUSDM

Each symbol has a task. `auto_beat` beats from the loop: one blocking call that keeps
it from turning, and the orders are cancelled from outside. It proves no more than
that; beat yourself where your quotes are made if the loop may turn while they are not.
"""

from __future__ import annotations

import asyncio
import sys

import espresso

HEARTBEAT = 5.0  # seconds
PAUSE = 1.0  # seconds between two quotes


async def quote(symbol: str) -> None:
    """Here your bot places its orders, again and again."""
    turn = 0
    while True:
        print(f"{symbol}: quote {turn}", flush=True)
        await asyncio.sleep(PAUSE)
        turn += 1


async def main(symbols: list[str]) -> None:
    guard = espresso.guard(symbols, at_start=True, heartbeat=HEARTBEAT, auto_beat=True)
    # The tasks inside the guard: they have ended before it cancels, so that none
    # places an order after it.
    async with guard, asyncio.TaskGroup() as tasks:
        for symbol in symbols:
            tasks.create_task(quote(symbol))


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: bot_asyncio.py SYMBOL...")
    asyncio.run(main(sys.argv[1:]))
