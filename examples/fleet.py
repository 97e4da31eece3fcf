"""Cancel the orders of a fleet of bots that has outgrown one machine, over Dask.

    python examples/fleet.py ADAUSDM NIGHTUSDM

``DASK_SCHEDULER_ADDRESS`` names the fleet's scheduler (``tcp://10.0.0.5:8786``);
without it, two worker processes are started on this machine. It needs ``pip install
distributed``. To practise, start ``python -m espresso sandbox`` and enter its three
lines in the shell of each worker. Exit status 0 only if the exchange has answered
for every symbol that nothing is open any more under that spelling.

What a trader must know:

- The key is in the environment of each worker, put there by what starts the worker.
  It is never an argument: those go through the scheduler, which keeps and shows them.
- The rate limit is the account's: 10 calls in 2 seconds, from all machines together.
  Calls of different processes do not know of each other, so they are paced here.
- ``pure=False``. Without it Dask takes a second press for the first one, hands out
  the answer that it remembers, and sends nothing.
- ``priority``: before the tasks that wait. A bot that never returns keeps its thread,
  so a worker needs more threads than bots.
- Dask repeats the task of a worker that died; with ``confirm=True`` that does no
  harm. An error of Dask itself says nothing about orders: take it for unknown.
- Stop the bots first: an order that is still on its way arrives after the cancel.
- When the fleet is silent, any shell that has the key will do: ``examples/panic.py``.
"""

from __future__ import annotations

import os
import sys
import time

from distributed import Client, Future

import espresso

BATCH = 5
"""Symbols at once: with its proof, each takes two of the ten calls."""

PAUSE = 2.5
"""Seconds between batches: 2 of the rate limit, and the way to a worker. A call that
comes too early all the same is refused by 4290; it waits and repeats itself."""

PATIENCE = 15.0
"""Seconds to wait for the last answers: the 10 of a call, and the way to a worker."""


def connect() -> Client:
    """The fleet that the environment names, else one of two processes here."""
    if os.environ.get("DASK_SCHEDULER_ADDRESS"):
        return Client()
    return Client(n_workers=2, host="127.0.0.1", dashboard_address=None)


def key_is_set() -> bool:
    return bool(os.environ.get("DELTADEFI_API_KEY"))


def workers_without_key(fleet: Client) -> list[str]:
    """The addresses of the workers that cannot cancel anything."""
    found: dict[str, bool] = fleet.run(key_is_set)
    return sorted(worker for worker, is_set in found.items() if not is_set)


def press(fleet: Client, symbols: list[str]) -> list[Future[espresso.CancelAllResult]]:
    """Let the fleet cancel each symbol, as fast as the rate limit allows."""
    futures: list[Future[espresso.CancelAllResult]] = []
    for start in range(0, len(symbols), BATCH):
        if start:
            time.sleep(PAUSE)
        batch = symbols[start : start + BATCH]
        futures += fleet.map(
            espresso.cancel_all, batch, confirm=True, pure=False, priority=1000
        )
    return futures


def told(
    symbol: str, future: Future[espresso.CancelAllResult], patience: float
) -> tuple[bool, str]:
    """Whether nothing is open under this symbol, and a line that says so."""
    try:
        result = future.result(timeout=patience)
    except espresso.EspressoError as error:  # whole, as the worker raised it
        return False, f"{symbol}: {error.outcome.upper()}: {error}"
    except ValueError as error:  # not a symbol: nothing was sent
        return False, str(error)
    except Exception as error:  # no worker, a lost worker, a silent one
        return False, f"{symbol}: UNKNOWN: {type(error).__name__}: {error}"
    return True, f"{symbol}: nothing open; {len(result['order_ids'])} cancelled"


def main(symbols: list[str]) -> int:
    if not symbols:
        print("usage: fleet.py SYMBOL...", file=sys.stderr)
        return 2
    certain = True
    with connect() as fleet:
        for worker in workers_without_key(fleet):
            print(f"{worker} has no DELTADEFI_API_KEY", file=sys.stderr)
        symbols = list(dict.fromkeys(symbols))
        futures = press(fleet, symbols)
        until = time.monotonic() + PATIENCE
        for symbol, future in zip(symbols, futures, strict=True):
            sure, line = told(symbol, future, max(1.0, until - time.monotonic()))
            print(line, flush=True)
            certain = certain and sure
    return 0 if certain else 1


if __name__ == "__main__":  # each worker process imports this file
    sys.exit(main(sys.argv[1:]))
