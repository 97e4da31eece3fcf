"""Allocations of a whole Python-level call fail, one at a time.

The program is tests/tortured.py, in a process of its own with a library in front of
the C library's malloc: whatever Python, libcurl or OpenSSL asks for may be refused.
It must say MemoryError or what is true: never crash, never hang, never claim of an
order what the exchange does not confirm. What the interpreter does wrong by itself
is learned from stories in which nothing is ours.

``TORTURE_STRIDE=1`` lets every allocation fail (``make test-torture``).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from espresso.sandbox import Exchange
from tests.children import ROOT, default_environment, run

STRIDE = int(os.environ.get("TORTURE_STRIDE", "7"))
COLD_STRIDE = STRIDE if STRIDE == 1 else 211  # of thousands, most of them OpenSSL's
TIMES = 9000  # more than a story has allocations
TIMEOUT = 60.0 if STRIDE > 1 else 1800.0

pytestmark = [
    pytest.mark.preload,
    pytest.mark.skipif(sys.platform != "linux", reason="LD_PRELOAD is Linux's"),
    pytest.mark.skipif(
        bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
        reason="without a GIL Python has no PYTHONMALLOC=malloc",
    ),
]

STDLIB = str(Path(os.__file__).parent)

Told = dict[str, Any]


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The library that is preloaded."""
    library = str(tmp_path_factory.mktemp("torture") / "preload.so")
    source = ROOT / "tests/torture/preload.c"
    command = ["cc", "-shared", "-fPIC", "-O1", "-o", library, str(source)]
    subprocess.run(command, check=True, timeout=60)
    return library


@pytest.fixture(scope="module")
def exchange() -> Iterator[Exchange]:
    """One for all stories: each has symbols of its own."""
    with Exchange(rate=None) as running:
        yield running


def symbols_of(story: str, stride: int) -> Iterator[str]:
    for number in [0, 1, 2, *(f"N{n}" for n in range(1, TIMES, stride))]:
        yield f"{story}-{number}".upper()
        yield f"{story}-{number}-B".upper()


def tortured(
    story: str, stride: int, shim: str, exchange: Exchange, env: dict[str, str]
) -> tuple[list[Told], str]:
    """What the program told, and its stderr."""
    for symbol in symbols_of(story, stride):
        exchange.place(symbol, 2)
    env = default_environment(env, exchange)
    env |= {"LD_PRELOAD": shim, "PYTHONMALLOC": "malloc"}
    program = Path(ROOT / "tests/tortured.py")
    ended = run(program, env, story, str(stride), timeout=TIMEOUT).check()
    told = [json.loads(line) for line in ended.out.splitlines()]
    assert len(told) > 2
    assert all(one["failed"] == 1 for one in told[:-1]), "each time one failed"
    assert told[-1]["failed"] == 0
    return told, ended.err


@pytest.fixture(scope="module")
def of_the_interpreter(shim: str, exchange: Exchange) -> set[tuple[str, str]]:
    """Errors, beside MemoryError, that it makes of a failure by itself."""
    from tests.conftest import cleaned

    seen: set[tuple[str, str]] = set()
    for story in ("control", "control-deep", "control-log"):
        told, _ = tortured(story, 1, shim, exchange, cleaned())
        seen |= {(one["error"], one["text"]) for one in told if "error" in one}
    return {(kind, text) for kind, text in seen if kind == "SystemError"}


class Judge:
    """Compares what was told with what the exchange saw."""

    def __init__(self, exchange: Exchange) -> None:
        self.called: dict[str | None, int] = {}
        self.cancelled: dict[str | None, set[str]] = {}
        for call in exchange.calls:
            self.called[call.symbol] = self.called.get(call.symbol, 0) + 1
            self.cancelled.setdefault(call.symbol, set()).update(call.cancelled)

    def success(self, symbol: str, result: Told) -> None:
        assert result["symbol"] == symbol
        ids = set(result["order_ids"])
        assert len(self.cancelled[symbol]) == 2
        assert ids == self.cancelled[symbol] or (
            result.get("lost_reply") is True and ids < self.cancelled[symbol]
        )

    def error(self, symbol: str, error: Told) -> None:
        outcome = error["outcome"]
        lines = "\n".join(error["notes"]).splitlines()
        notes = [line for line in lines if f"request for {symbol} " in line]
        if outcome == "not_sent" or any("had not gone out" in n for n in notes):
            assert symbol not in self.called
        if outcome == "rejected" or any("had refused" in n for n in notes):
            assert not self.cancelled.get(symbol)
        if any("was carried out" in note for note in notes):
            assert self.cancelled[symbol]


def is_right(error: Told, expected: str) -> bool:
    """What the story ends with anyway, or an attempt that libcurl had no memory for."""
    return (
        error["error"] in (expected, "MemoryError")
        or "TransportError" in error["family"]
    )


def is_lost_by_asyncio(error: Told) -> bool:
    """It had no memory for the next step of a task, and nobody else will take it."""
    stopped = error["text"] == "Event loop stopped before Future completed."
    return stopped and any(
        "Exception in callback <Task" in said or said == "the Task was not woken"
        for said in error["log"]
    )


STORIES = {
    "client": "ok",
    "warm": "ok",
    "list": "ok",
    "confirm": "ok",
    "module": "ok",
    "refused": "AuthenticationError",
    "unreachable": "ConnectError",
    "argument": "ValueError",
    "loop": "ok",
    "loop-list": "ok",
    "loop-refused": "AuthenticationError",
    "cold": "ok",
}


@pytest.mark.parametrize("story", STORIES)
def test_a_failed_allocation(
    shim: str,
    exchange: Exchange,
    of_the_interpreter: set[tuple[str, str]],
    clean_env: dict[str, str],
    story: str,
) -> None:
    stride = COLD_STRIDE if story == "cold" else STRIDE
    told, stderr = tortured(story, stride, shim, exchange, clean_env)
    judge = Judge(exchange)
    expected = STORIES[story]
    for one in told:
        symbol = one["symbol"]
        if "error" not in one:
            assert expected == "ok"
            for result in results_of(one["result"]):
                judge.success(result["symbol"], result)
            continue
        assert (
            is_right(one, expected)
            or one["error"] == "PartialCancelError"
            or (one["error"], one["text"]) in of_the_interpreter
            or is_lost_by_asyncio(one)
        ), one["where"]
        if not one["members"]:
            judge.error(symbol, one)
        for name, result in one["results"].items():
            judge.success(name, result)
        for name, member in one["members"].items():
            assert is_right(member, expected), member["where"]
            judge.error(name, member)
    assert told[-1].get("error", "ok") == expected
    for text, file in system_errors(stderr):
        assert ("SystemError", text) in of_the_interpreter or file.startswith(STDLIB)


def system_errors(stderr: str) -> Iterator[tuple[str, str]]:
    """The text of each that was printed, and the file that it was raised in."""
    file = ""
    for line in stderr.splitlines():
        if line.startswith('  File "'):
            file = line.split('"')[1]
        elif line.startswith("SystemError"):
            yield line.partition(": ")[2], file


def results_of(result: Any) -> list[Told]:
    if result is None:  # of a client that was only made and closed
        return []
    return result if isinstance(result, list) else [result]
