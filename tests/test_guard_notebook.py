"""The guard in a notebook's kernel: a cell run twice, and restarts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

from espresso.sandbox import Exchange
from tests.children import ROOT, default_environment
from tests.guarded import (
    SYMBOL,
    has_ended,
    lock_folder,
    nothing_open,
    place_later,
    wait_until,
)

# What jupyter_client and ipykernel themselves warn of is not ours to mend.
pytestmark = pytest.mark.filterwarnings("default")

CELL = """
import espresso
g = espresso.guard("ADAUSDM", at_start=True).start()
print(g._watchdog_pid())
"""


class Kernel:
    """A kernel as a notebook server runs it."""

    def __init__(self, env: dict[str, str]) -> None:
        self._env = env
        self.watchdogs: list[int] = []
        self.manager = KernelManager()
        self.manager.start_kernel(env=env, cwd=str(ROOT))
        self.client = self._connect()

    def _connect(self) -> BlockingKernelClient:
        client: BlockingKernelClient = self.manager.blocking_client()
        client.start_channels()
        client.wait_for_ready(timeout=60)
        return client

    def run(self, cell: str) -> str:
        """What the cell prints; AssertionError if it fails."""
        printed: list[str] = []

        def output(message: dict[str, dict[str, object]]) -> None:
            printed.append(str(message["content"].get("text", "")))

        reply = self.client.execute_interactive(cell, timeout=60, output_hook=output)
        assert reply["content"]["status"] == "ok", reply["content"]
        return "".join(printed)

    def begin(self, cell: str) -> None:
        """Run a cell and do not wait for it."""
        self.client.execute(cell)

    def interrupt(self) -> None:
        """What the stop button does; returns when the cell has ended."""
        self.manager.interrupt_kernel()
        self.client.get_shell_msg(timeout=60)
        time.sleep(0.5)  # cells that queue up behind it are aborted

    def restart(self) -> None:
        self.client.stop_channels()
        self.manager.restart_kernel(env=self._env)
        self.client = self._connect()

    def end(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)
        self.manager.cleanup_resources()


@pytest.fixture
def kernel(
    exchange: Exchange, clean_env: dict[str, str], tmp_path: Path
) -> Iterator[Kernel]:
    env = lock_folder(default_environment(clean_env, exchange), tmp_path)
    for name in ("JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "JUPYTER_CONFIG_DIR"):
        env[name] = str(tmp_path / name)
    env["PYTHONPATH"] = str(ROOT)
    running = Kernel(env)
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


@pytest.mark.parametrize("state", ["idle", "busy"])
def test_a_restart(state: str, kernel: Kernel, exchange: Exchange) -> None:
    watchdog = armed(kernel)
    exchange.place(SYMBOL, 2)
    if state == "busy":
        kernel.begin("import time\nwhile True: time.sleep(0.01)")
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
