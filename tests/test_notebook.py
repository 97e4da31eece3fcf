"""espresso in a notebook: the example, and the stop button.

What a guard does there is in test_guard_notebook.py.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import espresso
from espresso import _aio
from espresso.sandbox import Exchange
from scripts import notebook
from tests.children import default_environment
from tests.conftest import cleaned
from tests.guarded import lock_folder
from tests.kernels import Kernel, notebook_environment

# What nbclient, jupyter_client and ipykernel themselves warn of is not ours to mend.
pytestmark = pytest.mark.filterwarnings("default")

INTERRUPT = 0.3  # seconds from the stop button to the end of the cell
TRIES = 10  # of which one must be in time
SLOW = 3  # times as long as a cell that fails by itself; counts on a busy machine only


# ---- the example ---------------------------------------------------------------------


def words(texts: list[str]) -> list[str]:
    """In any order: symbols of a list race, and so do stdout and stderr."""
    return sorted(re.findall(r"[\w'-]+", " ".join(texts)))


@pytest.mark.preload  # a sanitizer's venv has none of Jupyter's templates
def test_the_example_shows_what_is_stored_in_it(tmp_path: Path) -> None:
    """On a machine with a real key and proxies; nothing but the sandbox is called."""
    env = notebook_environment(lock_folder(cleaned(), tmp_path), tmp_path)
    env |= {"DELTADEFI_API_KEY": "0" * 32, "ESPRESSO_LOOPBACK_ONLY": "1"}
    stored = notebook.read()
    fresh = notebook.run(stored, env)
    shown = [words(notebook.shown(cell)) for cell in fresh.cells]
    assert shown == [words(notebook.shown(cell)) for cell in stored.cells]
    assert [cell.source for cell in fresh.cells] == [it.source for it in stored.cells]
    check_page(notebook.page(fresh))


def check_page(page: str) -> None:
    """What a reader sees of it; a notebook that shows nothing would be equal, too."""
    for wanted in (
        "<b>Sandbox exchange</b>, https://127.0.0.1:",
        "Open orders: 5</caption>",
        "Armed faults: 1</caption>",
        "envoy_503",
        "; the last 10</caption>",
        "'lost_reply': True",
        "[5002] Trading is currently locked",
        "NO-SUCH-PAIR: rejected, Invalid trading pair symbol",
        "espresso: the request for ADAUSDM had gone out; ",
    ):
        assert wanted in page, wanted
    assert "Traceback" not in page
    assert not re.search(r"sandbox-[0-9a-f]{8}", page)


def test_the_example_has_all_that_it_should() -> None:
    """The button, errors, a list, a guard over cells, await, the stop button."""
    cells = notebook.read().cells
    code = [cell.source for cell in cells if cell.cell_type == "code"]
    assert code[1] == 'client.cancel_all("ADAUSDM")'
    for wanted in (
        "except espresso.",
        "error.outcome",
        "except espresso.PartialCancelError",
        ".guard(",
        "guard.beat()",
        "guard.stop()",
        "await async_client.cancel_all(",
        "except KeyboardInterrupt",
    ):
        assert any(wanted in source for source in code), wanted
    guard = [number for number, source in enumerate(code) if "guard" in source]
    assert len(guard) >= 3
    for cell in cells:
        assert set(cell.metadata) == set()


# ---- the stop button -----------------------------------------------------------------


@pytest.fixture(scope="module")
def hanging() -> Iterator[Exchange]:
    """An exchange that never answers."""
    with Exchange(rate=None) as exchange:
        exchange.fault("hang", times=None)
        yield exchange


@pytest.fixture(scope="module")
def kernel(
    hanging: Exchange, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Kernel]:
    folder = tmp_path_factory.mktemp("kernel")
    env = lock_folder(default_environment(cleaned(), hanging), folder)
    running = Kernel(notebook_environment(env, folder))
    try:
        running.run("import asyncio, espresso\nasync_client = espresso.AsyncClient()")
        yield running
    finally:
        running.end()


def stop(kernel: Kernel, hanging: Exchange, cell: str) -> tuple[float, dict[str, Any]]:
    """Run a cell until its call hangs, press stop: the seconds, and how it ended."""
    before = len(hanging.calls)
    kernel.begin(cell)
    hanging.wait_for_calls(before + 1, timeout=30)
    time.sleep(0.2)  # the request has gone out, and the cell waits again
    at = time.monotonic()
    reply = kernel.interrupt()
    return time.monotonic() - at, reply["content"]


# Stops itself, and is shown as one that was stopped: nearly all of it is IPython's.
FAILING = """
asyncio.get_running_loop().call_soon(asyncio.current_task().cancel)
await async_client.cancel_all('ADAUSDM', timeout=60)
"""


def fail(kernel: Kernel) -> float:
    """Seconds for a cell that fails without anybody's doing."""
    at = time.monotonic()
    kernel.begin(FAILING)
    reply = kernel.client.get_shell_msg(timeout=60)
    assert reply["content"]["status"] == "error"
    return time.monotonic() - at


@pytest.mark.alone
@pytest.mark.clock
@pytest.mark.parametrize(
    "cell",
    [
        "espresso.cancel_all('ADAUSDM', timeout=60)",
        "espresso.cancel_all(['ADAUSDM', 'NIGHTUSDM'], timeout=60)",
        "await async_client.cancel_all('ADAUSDM', timeout=60)",
    ],
    ids=["one", "list", "await"],
)
def test_the_stop_button_ends_a_call(
    cell: str, kernel: Kernel, hanging: Exchange
) -> None:
    took = []
    bound = INTERRUPT
    for _ in range(TRIES):
        seconds, content = stop(kernel, hanging, cell)
        assert content["status"] == "error"
        assert content["ename"] in ("KeyboardInterrupt", "CancelledError")
        told = re.sub(r"\x1b\[[\d;]*m", "", "\n".join(content["traceback"]))
        assert "espresso: the request for ADAUSDM had gone out; " in told
        took.append(seconds)
        if seconds <= INTERRUPT:
            break
        bound = max(bound, SLOW * fail(kernel))
    assert min(took) <= bound, (took, bound)
    assert kernel.run("print(6 * 7)") == "42\n"  # and the kernel is as good as new


@pytest.mark.parametrize("in_a_notebook", [True, False])
def test_a_loop_is_woken_in_a_notebook_only(
    in_a_notebook: bool, exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And only as long as a call is under way."""
    turns = []

    class Counted(_aio._Waker):
        SECONDS = 0.01

        def _turn(self) -> None:
            turns.append(self)
            super()._turn()

    async def main() -> None:
        async with espresso.AsyncClient(
            exchange.key, base_url=exchange.url, ca_file=exchange.ca_file
        ) as client:
            await client.cancel_all("ADAUSDM", missing_ok=True)
        before = len(turns)
        await asyncio.sleep(0.1)
        assert len(turns) == before

    monkeypatch.setattr(_aio, "_Waker", Counted)
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    if in_a_notebook:
        monkeypatch.setitem(sys.modules, "ipykernel", ModuleType("ipykernel"))
    exchange.fault("slow", seconds=0.5)
    asyncio.run(main())
    assert len(turns) > 5 if in_a_notebook else not turns
