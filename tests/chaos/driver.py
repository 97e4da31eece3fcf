"""The process of the client under test: many workers, one claim a symbol.

``python -m tests.chaos.driver`` is started by run.py and ends by itself, or at
once when its standard input ends. A claim is written as soon as the call is over,
so that a crash costs the claims of the calls in flight and no others.

Workers are threads for the blocking faces, and tasks of one event loop for the
others, where some of the calls are cancelled on their way.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import faulthandler
import os
import random
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from .async_clients import ASYNC_FACES, AsyncControl, AsyncFace
from .clients import FACES, Control, Face, Target
from .records import CANCELLED, RATE_CALLS, Claim, Options, Said, dump

OWN_SHARE = 4
"""Every fourth worker has a client of its own; all others share one."""
RAMP = 0.003
"""Seconds between the starts of workers: not every handshake comes first."""
CONFIRM_SHARE = 0.25
CANCEL_SHARE = 0.05
"""Of the calls that are tasks."""


def options_of(
    seed: int,
    number: int,
    symbols: int = 1,
    *,
    patience: float = 1.0,
    is_task: bool = False,
) -> Options:
    """The options of a call; they depend on its first number and its kind alone."""
    rng = random.Random(f"{seed}/options/{number}")
    long = rng.random() < 0.1
    timeout = rng.uniform(1.0, 2.0) if long else rng.uniform(0.3, 1.0)
    timeout *= patience
    if symbols > RATE_CALLS and rng.random() < 0.7:
        timeout += 2.0  # time for a second load
    return Options(
        timeout=round(timeout, 4),
        max_retries=rng.choice((0, 1, 2, 2, 3)),
        missing_ok=rng.random() < 0.5,
        confirm=rng.random() < CONFIRM_SHARE,
        cancel_after=_cancel_after(rng, timeout) if is_task else None,
        patience=patience,
    )


def _cancel_after(rng: random.Random, timeout: float) -> float | None:
    """Before the call has begun, early in it, or anywhere."""
    if rng.random() >= CANCEL_SHARE:
        return None
    return rng.choice((0.0, rng.uniform(0, 0.02), rng.uniform(0, timeout)))


def symbols_of(seed: int, number: int, most: int) -> int:
    """How many symbols the call takes whose first number this is."""
    rng = random.Random(f"{seed}/symbols/{number}")
    few = rng.randint(1, RATE_CALLS - 2)
    many = rng.randint(RATE_CALLS - 1, 14)
    return min(most, many if rng.random() < 0.1 else few)


def symbol_of(seed: int, number: int, owner: int | None) -> str:
    """The symbol that names this call, and the worker if it owns its client."""
    return f"C{seed}{'' if owner is None else f'.W{owner:02d}'}-{number:06d}"


class Driver:
    """Hands out symbols and collects claims."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.seed: int = args.seed
        self.control_port: int = args.control
        self.target = Target(args.port, args.ca)
        self._next = 0
        self._calls: int = args.calls
        self._lock = threading.Lock()
        self._claims = os.open(args.claims, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def next_numbers(self, most: int) -> range:
        """The numbers of the next call's symbols; none are left if it is empty."""
        with self._lock:
            first = self._next
            left = self._calls - first
            self._next += min(left, symbols_of(self.seed, first, most))
            return range(first, self._next)

    def symbols(self, numbers: range, worker: int, owns: bool) -> list[str]:
        owner = worker if owns else None
        return [symbol_of(self.seed, number, owner) for number in numbers]

    def write(
        self,
        symbols: Sequence[str],
        options: Options,
        started: float,
        said: Sequence[Said],
        worker: int,
    ) -> None:
        elapsed = time.monotonic() - started
        press = symbols[0] if len(symbols) > 1 else ""
        for symbol, one in zip(symbols, said, strict=True):
            claim = Claim(symbol, options, started, elapsed, one, worker, press)
            os.write(self._claims, dump(claim).encode())


def foreign(symbols: Sequence[str], error: BaseException) -> list[Said]:
    """Of an exception that is not in the contract, whatever it is."""
    said = Said(error=type(error).__name__, message=repr(error))
    return [said for _ in symbols]


# --- workers that are threads ----------------------------------------------------


def work(driver: Driver, worker: int, face: Face, owns: bool) -> None:
    """Call until the numbers run out; an owner pauses between its calls."""
    control = Control(driver.control_port)
    with contextlib.closing(control):
        while numbers := driver.next_numbers(face.most_symbols):
            symbols = driver.symbols(numbers, worker, owns)
            options = options_of(
                driver.seed, numbers[0], len(symbols), patience=face.patience
            )
            started = time.monotonic()
            try:
                said = face.cancel(symbols, options)
            except Exception as error:
                said = foreign(symbols, error)
            driver.write(symbols, options, started, said, worker)
            if owns:
                control.stand_still(symbols[0].partition("-")[0])


def run_threads(driver: Driver, client: str, count: int) -> None:
    """Start the workers, wait for them, close the clients."""
    make = FACES[client]
    shared = make(driver.target)
    faces = [shared]
    threads = []
    for worker in range(count):
        owns = worker % OWN_SHARE == OWN_SHARE - 1
        if owns:
            faces.append(make(driver.target))
        job = (driver, worker, faces[-1] if owns else shared, owns)
        threads.append(threading.Thread(target=work, args=job))
    for thread in threads:
        thread.start()
        time.sleep(RAMP)
    for thread in threads:
        thread.join()
    for face in faces:
        face.close()


# --- workers that are tasks ------------------------------------------------------


async def call(
    face: AsyncFace, symbols: Sequence[str], options: Options
) -> Sequence[Said]:
    """One call in a task of its own, so that it can be cancelled."""
    task = asyncio.ensure_future(face.cancel(symbols, options))
    if options.cancel_after is not None:
        asyncio.get_running_loop().call_later(options.cancel_after, task.cancel)
    await asyncio.wait([task])
    if task.cancelled():  # before its first step: nobody could say a word
        return [Said(error=CANCELLED, outcome="not_sent", attempts=0) for _ in symbols]
    error = task.exception()
    return task.result() if error is None else foreign(symbols, error)


async def work_as_task(
    driver: Driver, worker: int, face: AsyncFace, owns: bool
) -> None:
    control = await AsyncControl.open(driver.control_port)
    with contextlib.closing(control):
        while numbers := driver.next_numbers(face.most_symbols):
            symbols = driver.symbols(numbers, worker, owns)
            options = options_of(
                driver.seed,
                numbers[0],
                len(symbols),
                patience=face.patience,
                is_task=True,
            )
            started = time.monotonic()
            said = await call(face, symbols, options)
            driver.write(symbols, options, started, said, worker)
            if owns:
                await control.stand_still(symbols[0].partition("-")[0])


async def run_tasks(driver: Driver, client: str, count: int) -> None:
    make = ASYNC_FACES[client]
    shared = make(driver.target)
    faces = [shared]
    tasks = []
    for worker in range(count):
        owns = worker % OWN_SHARE == OWN_SHARE - 1
        if owns:
            faces.append(make(driver.target))
        job = work_as_task(driver, worker, faces[-1] if owns else shared, owns)
        tasks.append(asyncio.ensure_future(job))
        await asyncio.sleep(RAMP)
    await asyncio.gather(*tasks)
    for face in faces:
        await face.close()


# --- the process -----------------------------------------------------------------


def _end_with_parent() -> None:
    """Wait on the bare descriptor: a buffered read would hold a lock at exit."""
    while os.read(0, 1):
        pass
    os._exit(3)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--client", choices=[*FACES, *ASYNC_FACES], required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--control", type=int, required=True)
    parser.add_argument("--ca", required=True)
    parser.add_argument("--claims", type=Path, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--calls", type=int, required=True)
    parser.add_argument("--workers", type=int, required=True)
    args = parser.parse_args()
    faulthandler.enable()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    driver = Driver(args)
    if args.client in FACES:
        run_threads(driver, args.client, args.workers)
    else:
        asyncio.run(run_tasks(driver, args.client, args.workers))


if __name__ == "__main__":
    main()
