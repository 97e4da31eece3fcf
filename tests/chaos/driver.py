"""The process of the client under test: many threads, one claim a call.

``python -m tests.chaos.driver`` is started by run.py and ends by itself, or at
once when its standard input ends. A claim is written as soon as the call is over,
so that a crash costs the claims of the calls in flight and no others.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import itertools
import os
import random
import threading
import time
from pathlib import Path

from .clients import FACES, Control, Face, Target
from .records import Claim, Options, Said, dump

OWN_SHARE = 4
"""Every fourth worker has a client of its own; all others share one."""


def options_of(seed: int, number: int) -> Options:
    """The options of a call; they depend on its number alone."""
    rng = random.Random(f"{seed}/options/{number}")
    long = rng.random() < 0.1
    return Options(
        timeout=round(rng.uniform(1.0, 2.0) if long else rng.uniform(0.3, 1.0), 4),
        max_retries=rng.choice((0, 1, 2, 2, 3)),
        missing_ok=rng.random() < 0.5,
    )


def symbol_of(seed: int, number: int, owner: int | None) -> str:
    """The symbol that names this call, and the worker if it owns its client."""
    return f"C{seed}{'' if owner is None else f'.W{owner:02d}'}-{number:06d}"


class Driver:
    """Hands out call numbers and collects claims."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.seed: int = args.seed
        self.control_port: int = args.control
        self._numbers = itertools.count()
        self._calls: int = args.calls
        self._lock = threading.Lock()
        self._claims = os.open(args.claims, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def next_number(self) -> int | None:
        with self._lock:
            number = next(self._numbers)
        return number if number < self._calls else None

    def write(self, claim: Claim) -> None:
        os.write(self._claims, dump(claim).encode())

    def work(self, worker: int, face: Face, owns: bool) -> None:
        """Call until the numbers run out; an owner pauses between its calls."""
        control = Control(self.control_port)
        with contextlib.closing(control):
            while (number := self.next_number()) is not None:
                symbol = symbol_of(self.seed, number, worker if owns else None)
                self.write(self._call(face, symbol, number, worker))
                if owns:
                    control.stand_still(symbol.partition("-")[0])

    def _call(self, face: Face, symbol: str, number: int, worker: int) -> Claim:
        options = options_of(self.seed, number)
        started = time.monotonic()
        try:
            said = face.cancel(symbol, options)
        except Exception as error:  # whatever it is, it is not in the contract
            said = Said(error=type(error).__name__, message=repr(error))
        elapsed = time.monotonic() - started
        return Claim(symbol, options, started, elapsed, said, worker)


def _end_with_parent() -> None:
    """Wait on the bare descriptor: a buffered read would hold a lock at exit."""
    while os.read(0, 1):
        pass
    os._exit(3)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--client", choices=FACES, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--control", type=int, required=True)
    parser.add_argument("--ca", required=True)
    parser.add_argument("--claims", type=Path, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--calls", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    args = parser.parse_args()
    faulthandler.enable()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    run(args)


def run(args: argparse.Namespace) -> None:
    """Start the workers, wait for them, close the clients."""
    driver = Driver(args)
    make = FACES[args.client]
    target = Target(args.port, args.ca)
    shared = make(target)
    faces = [shared]
    threads = []
    for worker in range(args.threads):
        owns = worker % OWN_SHARE == OWN_SHARE - 1
        if owns:
            faces.append(make(target))
        job = (worker, faces[-1] if owns else shared, owns)
        threads.append(threading.Thread(target=driver.work, args=job))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for face in faces:
        face.close()


if __name__ == "__main__":
    main()
