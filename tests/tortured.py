"""A program whose allocations fail, one at a time; tests/test_torture.py reads it.

``python -m tests.tortured STORY STRIDE`` with tests/torture/preload.c preloaded: the
story is told with allocation 1 failing, then with 1 + STRIDE, until it ends without.
Each time it says in one line what it was told of the symbol, which is new each time.
"""

from __future__ import annotations

import asyncio
import ctypes
import faulthandler
import gc
import json
import logging
import os
import sys
import traceback
from collections.abc import Callable, Coroutine
from typing import Any, ClassVar

import espresso

PATIENCE = 20.0  # seconds for one time; a call has three
LOOP_PATIENCE = 4.0  # seconds, more than the call has

_shim = ctypes.CDLL(None)
_shim.torture_begin.argtypes = [ctypes.c_long]
_shim.torture_begin.restype = None
_shim.torture_end.restype = ctypes.c_long


def options() -> dict[str, Any]:
    return {
        "base_url": os.environ["TEST_URL"],
        "ca_file": os.environ["TEST_CA"],
        "timeout": 3,
        "max_retries": 1,
    }


KEY = os.environ["TEST_KEY"]
warm = espresso.Client(KEY, on_event=lambda event: None, **options())
warm_async = espresso.AsyncClient(KEY, **options())
nobody = espresso.Client(KEY, **options() | {"base_url": "https://127.0.0.1:1"})
refused = espresso.Client("sandbox-a-stranger", **options())
refused_async = espresso.AsyncClient("sandbox-a-stranger", **options())


Begin = Callable[[], object]
Story = Callable[[str, Begin], object]


def plain(work: Callable[[str], object]) -> Story:
    def story(symbol: str, begin: Begin) -> object:
        begin()
        return work(symbol)

    return story


def not_woken(task: Any) -> str:
    """Whether its future is done, but asyncio had no memory to take the next step."""
    waits_for = task._fut_waiter
    lost = waits_for is not None and waits_for.done()
    return "the Task was not woken" if lost else "the Task waits"


def in_a_loop(work: Callable[[str], Coroutine[Any, Any, object]]) -> Story:
    """From the task's first step to its last: the rest is asyncio's own."""

    async def step(symbol: str, begin: Begin) -> object:
        try:
            begin()
            return await work(symbol)
        finally:
            end()

    def story(symbol: str, begin: Begin) -> object:
        loop = asyncio.new_event_loop()
        try:
            loop.call_later(LOOP_PATIENCE, loop.stop)
            return loop.run_until_complete(step(symbol, begin))
        except RuntimeError:
            Log.said += map(not_woken, asyncio.all_tasks(loop))
            raise
        finally:
            loop.close()

    return story


def fresh(symbol: str) -> object:
    with espresso.Client(KEY, **options()) as client:
        return client.cancel_all(symbol)


STORIES: dict[str, Story] = {
    # What the interpreter makes of it by itself, where nothing is ours.
    "control": plain(int),
    "control-deep": plain(lambda symbol: os.environ[symbol]),
    "control-log": plain(
        lambda symbol: logging.getLogger("mine").warning("%s, %d", symbol, 1)
    ),
    "client": plain(lambda symbol: espresso.Client(KEY, **options()).close()),
    "cold": plain(fresh),
    "warm": plain(lambda symbol: warm.cancel_all(symbol)),
    "list": plain(lambda symbol: warm.cancel_all([symbol, f"{symbol}-B"])),
    "confirm": plain(lambda symbol: warm.cancel_all(symbol, confirm=True)),
    "module": plain(lambda symbol: espresso.cancel_all(symbol)),
    "refused": plain(lambda symbol: refused.cancel_all(symbol)),
    "unreachable": plain(lambda symbol: nobody.cancel_all(symbol)),
    "argument": plain(lambda symbol: warm.cancel_all(symbol + "/")),
    "loop": in_a_loop(lambda symbol: warm_async.cancel_all(symbol)),
    "loop-list": in_a_loop(
        lambda symbol: warm_async.cancel_all([symbol, symbol + "-B"])
    ),
    "loop-refused": in_a_loop(lambda symbol: refused_async.cancel_all(symbol)),
}


def end() -> int:
    """No more failures; how many there were.  What is missing may be the memory for
    this very call."""
    while True:
        try:
            return int(_shim.torture_end())
        except MemoryError:
            pass


class Log(logging.Handler):
    """What asyncio says of callbacks that failed."""

    said: ClassVar[list[str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


def told_of(error: BaseException) -> dict[str, Any]:
    return {
        "error": type(error).__name__,
        "family": [kind.__name__ for kind in type(error).__mro__],
        "text": str(error),
        "where": "".join(traceback.format_exception(error)),
        "outcome": getattr(error, "outcome", None),
        "notes": getattr(error, "__notes__", []),
        "results": getattr(error, "results", {}),
        "members": {
            symbol: told_of(one) for symbol, one in getattr(error, "failed", {}).items()
        },
    }


def tell(story: Story, symbol: str, number: int) -> dict[str, Any]:
    """What one time came to."""
    result: object = None
    error: BaseException | None = None
    try:
        result = story(symbol, lambda: _shim.torture_begin(number))
    except BaseException as raised:
        error = raised
    told = {"symbol": symbol, "failed": end(), "result": result, "log": Log.said[:]}
    Log.said.clear()
    return told if error is None else told | told_of(error)


def main(name: str, stride: int) -> None:
    for logger in ("espresso", "asyncio", "mine"):
        logging.getLogger(logger).propagate = False
    logging.getLogger("asyncio").addHandler(Log())
    faulthandler.enable()
    story = STORIES[name]
    for number in range(3):  # what is imported and kept once is there by then
        tell(story, f"{name}-{number}".upper(), 0)
    gc.disable()
    number = 1
    failed = 1
    while failed:
        faulthandler.dump_traceback_later(PATIENCE, exit=True)
        told = tell(story, f"{name}-N{number}".upper(), number)
        faulthandler.cancel_dump_traceback_later()
        print(json.dumps(told), flush=True)
        failed = told["failed"]
        if number % 10 < stride:
            gc.collect()
        number += stride


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
