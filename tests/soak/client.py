"""The calls of a soak, in a process of their own, and what they cost.

``python -m tests.soak.client CALLS`` reads where to call from SOAK_URL and SOAK_CA and
prints its `Report` as one line of JSON. A lap is 500 calls of one face. One lap in
five has no faults: the others are compared with it, in the same process and minute.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import logging
import os
import resource
import sys
import time
from abc import ABC, abstractmethod
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import espresso

from .server import BY_NAME, LATE, POISON, WANTED

KEY = "sandbox-0f1e2d3c4b5a69788796a5b4c3d2e1f0"
LAP = 500
TASKS = 4
"""Who call at once on the loop."""
RETRY_EVERY = 16
"""One call in so many may try again."""
WARM_UP, WARM_UP_CALLS = 0.1, 10_000
"""After this share of a run, and so many calls, nothing may grow any more."""

TIMEOUT = 20.0  # seconds: nothing runs into it
SHORT_TIMEOUT = 0.5  # seconds: 0.2 for a first attempt, so that a hang costs little


class Times:
    """Durations in buckets 2 % apart, made beforehand: measuring must not grow."""

    _STEP = 1.02
    _LEAST = 1e-6  # seconds

    def __init__(self) -> None:
        import math

        self._log = math.log
        self._scale = 1 / math.log(self._STEP)
        self._counts = array("Q", bytes(8 * 1024))

    def add(self, seconds: float) -> None:
        bucket = int(self._log(max(seconds, self._LEAST) / self._LEAST) * self._scale)
        self._counts[min(bucket, len(self._counts) - 1)] += 1

    @property
    def count(self) -> int:
        return sum(self._counts)

    def quantile(self, share: float) -> float:
        """Seconds that so large a share stays below."""
        wanted, seen, bucket = share * self.count, 0, 0
        while seen < wanted:
            seen += self._counts[bucket]
            bucket += 1
        return float(self._LEAST * self._STEP**bucket)


@dataclass
class Sample:
    """What the process holds, when no call is under way."""

    resident: int
    """KiB."""
    descriptors: int
    threads: int

    @classmethod
    def take(cls) -> Sample:
        gc.collect()
        with open("/proc/self/statm") as file:
            pages = int(file.read().split()[1])
        return cls(
            resident=pages * resource.getpagesize() // 1024,
            descriptors=len(os.listdir("/proc/self/fd")),
            threads=len(os.listdir("/proc/self/task")),
        )


@dataclass
class Report:
    """What came of a run."""

    calls: int
    seconds: float
    outcomes: dict[str, int]
    samples: list[Sample] = field(default_factory=list)
    """The first one after the warm-up, then one every tenth of the run."""
    before: Sample | None = None
    """Before there was a client."""
    after: Sample | None = None
    """After all clients were closed."""
    p99: dict[str, list[float]] = field(default_factory=dict)
    """Face to seconds without and with faults around."""


class Face(ABC):
    """One of the two clients: how it calls, and what its calls took."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.clean, self.faulty = Times(), Times()
        self.outcomes: Counter[str] = Counter()
        self.reused: dict[str, bool] = {}
        """Symbol under way to whether its only attempt went over a used connection."""
        self._options: dict[str, Any] = {
            "base_url": os.environ["SOAK_URL"],
            "ca_file": os.environ["SOAK_CA"],
            "timeout": TIMEOUT,
            "max_retries": 0,
            "on_event": self._hear,
        }

    def _hear(self, event: espresso.Event) -> None:
        self.reused[event.symbol] = event.reused and event.attempt == 1

    @abstractmethod
    def lap(self, clean: bool) -> None:
        """Make LAP calls."""

    @abstractmethod
    def meet(self, fault: str) -> None:
        """Make a call that meets this fault."""

    @abstractmethod
    def settle(self) -> None:
        """Have as many connections as there can be."""

    @abstractmethod
    def close(self) -> None:
        """Close the client."""

    def note(self, symbol: str, seconds: float, outcome: str, clean: bool) -> None:
        """Note a call. One that had to connect, or to try again, met a fault."""
        self.outcomes[outcome] += 1
        if self.reused.pop(symbol, False) and outcome == "done":
            (self.clean if clean else self.faulty).add(seconds)
        if clean and outcome != "done":
            raise AssertionError(f"{outcome} where no fault was drawn")

    @staticmethod
    def options(number: int, clean: bool) -> dict[str, Any]:
        """Those of one call."""
        if clean:
            return {}
        if number % RETRY_EVERY == 0:
            return {"max_retries": 2}
        return {"timeout": SHORT_TIMEOUT}


def read(symbol: str, result: Any) -> str:
    """What the result of a call is; AssertionError if it is not its own.

    Nothing may have been left to cancel only where an earlier reply was lost.
    """
    ids = result["order_ids"]
    is_lost = "lost_reply" in result
    is_own = ids[:1] == [f"{symbol}-1"] or (is_lost and not ids)
    if result["symbol"] != symbol or POISON in ids or not is_own:
        raise AssertionError(f"{symbol} got {result}")
    return "lost reply" if is_lost else "done"


class Blocking(Face):
    def __init__(self) -> None:
        super().__init__("Client")
        self.client = espresso.Client(KEY, **self._options)

    def lap(self, clean: bool) -> None:
        for number in range(LAP):
            self._call(f"{'C' if clean else 'F'}{number}", number, clean)

    def _call(self, symbol: str, number: int, clean: bool) -> None:
        options = self.options(number, clean)
        started = time.perf_counter()
        try:
            outcome = read(symbol, self.client.cancel_all(symbol, **options))
        except espresso.EspressoError as error:
            outcome = type(error).__name__
        self.note(symbol, time.perf_counter() - started, outcome, clean)

    def meet(self, fault: str) -> None:
        self._call(f"{WANTED.decode()}{fault}", 1, False)

    def settle(self) -> None:
        self.client.cancel_all(LATE.decode())

    def close(self) -> None:
        self.client.close()


class Looped(Face):
    def __init__(self) -> None:
        super().__init__("AsyncClient")
        self.client = espresso.AsyncClient(KEY, **self._options)
        self._runner = asyncio.Runner()

    def lap(self, clean: bool) -> None:
        self._runner.run(self._lap(clean))

    async def _lap(self, clean: bool) -> None:
        letter = "C" if clean else "F"
        numbers = iter(range(LAP))

        async def work() -> None:
            for number in numbers:
                await self._call(f"{letter}{number}", number, clean)

        await asyncio.gather(*(work() for _ in range(TASKS)))

    async def _call(self, symbol: str, number: int, clean: bool) -> None:
        options = self.options(number, clean)
        started = time.perf_counter()
        try:
            outcome = read(symbol, await self.client.cancel_all(symbol, **options))
        except espresso.EspressoError as error:
            outcome = type(error).__name__
        self.note(symbol, time.perf_counter() - started, outcome, clean)

    def meet(self, fault: str) -> None:
        self._runner.run(self._call(f"{WANTED.decode()}{fault}", 1, False))

    def settle(self) -> None:
        self._runner.run(self._settle())

    async def _settle(self) -> None:
        symbols = (f"{LATE.decode()}{number}" for number in range(TASKS))
        await asyncio.gather(*map(self.client.cancel_all, symbols))

    def close(self) -> None:
        self._runner.run(self.client.aclose())
        self._runner.close()


def laps(calls: int, blocking: Face, looped: Face) -> Iterator[tuple[Face, bool]]:
    """The face of each lap, and whether it has no faults: so that one in five has
    none, and one in four of each kind is asyncio's."""
    number = 0
    while calls > 0:
        clean = number % 5 == 0
        yield (looped if number // 5 % 4 == 3 else blocking), clean
        calls -= 0 if clean else LAP
        number += 1


def shares(calls: int) -> list[float]:
    """When to look at what the process holds, as shares of the run."""
    first = max(WARM_UP, WARM_UP_CALLS / calls)
    return [first, *(n / 10 for n in range(1, 11) if n / 10 > first)]


def soak(calls: int) -> Report:
    """Make so many calls that may meet a fault, and a quarter more that cannot."""
    logging.disable()  # of errors that are wanted
    before = Sample.take()
    faces = (blocking, looped) = Blocking(), Looped()
    # What a fault makes that is made but once is made now.
    for face, fault, _ in itertools.product(faces, BY_NAME, range(4)):
        face.meet(fault)
    for face, clean in itertools.product(faces, (True, False)):
        face.lap(clean)
    report = Report(calls, 0.0, {}, before=before)
    plan = list(laps(calls, blocking, looped))
    tenths = {round(len(plan) * share) for share in shares(calls)}
    started = time.monotonic()
    for number, (face, clean) in enumerate(plan, 1):
        face.lap(clean)
        if number in tenths:
            for one in faces:
                one.settle()
            report.samples.append(Sample.take())
    report.seconds = time.monotonic() - started
    for face in faces:
        face.close()
        report.p99[face.name] = [face.clean.quantile(0.99), face.faulty.quantile(0.99)]
    report.outcomes = dict(blocking.outcomes + looped.outcomes)
    del blocking, looped, face, one, faces, plan  # each client holds a pipe
    report.after = Sample.take()
    return report


if __name__ == "__main__":
    print(json.dumps(asdict(soak(int(sys.argv[1])))))
