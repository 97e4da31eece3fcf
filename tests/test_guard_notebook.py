"""The guard in a notebook's kernel: a cell run twice, and restarts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from espresso.sandbox import Exchange
from tests.children import default_environment
from tests.guarded import (
    SYMBOL,
    has_ended,
    lock_folder,
    nothing_open,
    place_later,
    wait_until,
)
from tests.kernels import Kernel, notebook_environment

# What jupyter_client and ipykernel themselves warn of is not ours to mend.
pytestmark = pytest.mark.filterwarnings("default")

CELL = """
import espresso
g = espresso.guard("ADAUSDM", at_start=True).start()
print(g._watchdog_pid())
"""


@pytest.fixture
def kernel(
    exchange: Exchange, clean_env: dict[str, str], tmp_path: Path
) -> Iterator[Kernel]:
    env = lock_folder(default_environment(clean_env, exchange), tmp_path)
    running = Kernel(notebook_environment(env, tmp_path))
    try:
        yield running
    finally:
        running.end()
    for pid in running.watchdogs:
        wait_until(lambda pid=pid: has_ended(pid), "the watchdog ends")


def armed(kernel: Kernel, cell: str = CELL) -> int:
    pid = int(kernel.run(cell).split()[-1])
    kernel.watchdogs.append(pid)
    return pid


def test_a_cell_that_is_run_twice_cancels_nothing(
    kernel: Kernel, exchange: Exchange
) -> None:
    first = armed(kernel)
    ids = exchange.place(SYMBOL)
    calls = len(exchange.calls)
    assert armed(kernel) == first
    kernel.run("import gc; gc.collect(); g.beat()")
    assert exchange.open_orders() == ids
    assert len(exchange.calls) == calls
    # And a new variable for the same guard, the old one forgotten.
    kernel.run("g = None; gc.collect()")
    time.sleep(0.3)
    assert exchange.open_orders() == ids
    kernel.run("g = espresso.guard('ADAUSDM').start(); g.stop()")
    assert exchange.open_orders() == []
    wait_until(lambda: has_ended(first), "the watchdog ends")


BUSY = {
    "idle": "",
    "busy": "import time\nwhile True: time.sleep(0.01)",
    "in a call": "espresso.cancel_all('NIGHTUSDM', timeout=60)",
    "awaiting": "await espresso.AsyncClient().cancel_all('NIGHTUSDM', timeout=60)",
}


@pytest.mark.parametrize("state", BUSY)
def test_a_restart(state: str, kernel: Kernel, exchange: Exchange) -> None:
    watchdog = armed(kernel)
    exchange.place(SYMBOL, 2)
    seen = len(exchange.calls)
    if "cancel_all" in BUSY[state]:
        exchange.fault("hang")
        kernel.begin(BUSY[state])
        exchange.wait_for_calls(seen + 1, timeout=30)
    elif BUSY[state]:
        kernel.begin(BUSY[state])
        time.sleep(0.5)
    late = place_later(exchange, 0.5)
    kernel.restart()
    late.join()
    nothing_open(exchange)
    wait_until(lambda: has_ended(watchdog), "the watchdog ends")
    fresh = exchange.place(SYMBOL)
    armed(kernel, CELL.replace(", at_start=True", ""))
    time.sleep(1.5)
    assert exchange.open_orders() == fresh


def test_an_interrupted_cell_keeps_its_guard(
    kernel: Kernel, exchange: Exchange
) -> None:
    """The stop button ends a cell, not the guard that another one has started."""
    armed(kernel)
    ids = exchange.place(SYMBOL)
    kernel.begin("import time; time.sleep(60)")
    time.sleep(0.5)
    kernel.interrupt()
    kernel.run("g.beat()")
    assert exchange.open_orders() == ids
    kernel.run("g.stop()")
    assert exchange.open_orders() == []
