"""An asyncio strategy as Hummingbot has them, and the button in its places.

    python examples/strategy.py ADAUSDM

A clock calls `on_tick`, which must not wait: orders are sent by tasks beside it. Such
a strategy cancels in three places: before it quotes anew, when it is stopped, and when
the program dies in any other way.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Coroutine
from typing import Any

import espresso

TICK = 1.0  # seconds
REFRESH = 10  # ticks between two sets of quotes


class Strategy:
    """Quotes on one market; `on_tick` and `on_stop` are called by the clock."""

    def __init__(self, symbol: str, client: espresso.AsyncClient) -> None:
        self.symbol = symbol
        self.client = client
        self.ticks = 0
        self.is_safe = True
        self._tasks: set[asyncio.Task[None]] = set()

    def on_tick(self) -> None:
        """Called once a tick; what takes time goes on beside the clock."""
        if self.is_safe and not self._tasks and self.ticks % REFRESH == 0:
            self._begin(self.refresh())
        self.ticks += 1

    async def refresh(self) -> None:
        """Take the old quotes back; place new ones only if that is certain."""
        self.is_safe = await self.cancel(missing_ok=True)
        if self.is_safe:
            await self.quote()

    async def quote(self) -> None:
        """Here your bot places its orders."""
        print(f"{self.symbol}: quotes at tick {self.ticks}", flush=True)

    async def cancel(self, **options: Any) -> bool:
        """Cancel; False if orders may be open. An error must not end the clock."""
        try:
            await self.client.cancel_all(self.symbol, **options)
        except espresso.EspressoError as error:
            print(f"{self.symbol}: {error.outcome}: {error}", file=sys.stderr)
            return False
        return True

    async def on_stop(self) -> bool:
        """Stop quoting first, then cancel until it is proven."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        return await self.cancel(confirm=True)

    def _begin(self, step: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(step)
        self._tasks.add(task)  # a task that nobody holds may vanish
        task.add_done_callback(self._tasks.discard)


async def run(strategy: Strategy, stop: asyncio.Event, tick: float = TICK) -> bool:
    """The clock: ticks until somebody says stop. Whether nothing is open after it."""
    # The guard is for the ways to die that leave no time for on_stop.
    async with espresso.guard(strategy.symbol, heartbeat=5, auto_beat=True):
        while not stop.is_set():
            strategy.on_tick()
            try:
                await asyncio.wait_for(stop.wait(), tick)
            except TimeoutError:
                continue
        return await strategy.on_stop()


async def main(symbol: str) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with espresso.AsyncClient() as client:
        is_proven = await run(Strategy(symbol, client), stop)
    print(f"{symbol}: {'nothing open' if is_proven else 'MAY BE OPEN'}")
    return 0 if is_proven else 1


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: strategy.py SYMBOL")
    sys.exit(asyncio.run(main(sys.argv[1])))
