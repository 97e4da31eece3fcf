"""A call in a process of its own; the job is in the variable MATRIX_JOB.

Prints what the call has told, a line of JSON for each. With an `act` in the job, the
process says "calling", and does that when it is given a line on stdin (see caller.py).
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import threading
import time
from types import SimpleNamespace
from typing import Any

import espresso
from tests.faces import press
from tests.matrix.told import (
    IN_PYTHON,
    SYMBOL,
    Told,
    as_line,
    in_python,
    told_by,
    told_of,
)

Job = dict[str, Any]


def _say(line: str) -> None:
    os.write(1, f"{line}\n".encode())


def _client(job: Job) -> Any:
    place = SimpleNamespace(**job["place"])
    face = IN_PYTHON[job["face"]]
    return face.client(place, **{**place.options, **job["options"]})


# ---- no descriptor -------------------------------------------------------------------


def _take_descriptors() -> None:
    """Allow none beyond those that are open."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, most))


async def _in_a_loop(client: Any, symbols: Any) -> Any:
    """The loop has its own descriptors before the limit comes."""
    _take_descriptors()
    return await client.cancel_all(symbols)


def _without_descriptors(job: Job) -> None:
    client = _client(job)
    symbols = [SYMBOL] if "list" in job["face"] else SYMBOL
    begun = time.monotonic()
    try:
        if isinstance(client, espresso.AsyncClient):
            result = asyncio.run(_in_a_loop(client, symbols))
        else:
            _take_descriptors()
            result = client.cancel_all(symbols)
        told = told_of(result, 0.0, 0)
    except espresso.PartialCancelError as error:
        told = told_by(error.failed[SYMBOL], time.monotonic() - begun)
    except espresso.EspressoError as error:
        told = told_by(error, time.monotonic() - begun)
    _say(as_line(told))


# ---- acts of the caller --------------------------------------------------------------


def _wait_for_the_word() -> None:
    os.read(0, 1)


def _call(job: Job, client: Any) -> Told:
    symbols = [SYMBOL] if "list" in job["face"] else SYMBOL
    begun = time.monotonic()
    try:
        result = press(client, symbols)
    except espresso.PartialCancelError as error:
        return told_by(error.failed[SYMBOL], time.monotonic() - begun)
    except BaseException as error:
        return told_by(error, time.monotonic() - begun)
    return told_of(result, time.monotonic() - begun, 1)


def _interrupted(job: Job) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    client = _client(job)
    _say("calling")
    _say(as_line(_call(job, client)))


def _closed(job: Job) -> None:
    client = _client(job)

    def act() -> None:
        _wait_for_the_word()
        if isinstance(client, espresso.AsyncClient):
            asyncio.run(client.aclose())
        else:
            client.close()

    threading.Thread(target=act).start()
    _say("calling")
    _say(as_line(_call(job, client)))


def _cancelled(job: Job) -> None:
    client = _client(job)
    symbols = [SYMBOL] if "list" in job["face"] else SYMBOL

    async def main() -> None:
        begun = time.monotonic()
        task = asyncio.create_task(client.cancel_all(symbols))
        _say("calling")
        await asyncio.to_thread(_wait_for_the_word)
        task.cancel()
        try:
            await task
        except BaseException as error:
            _say(as_line(told_by(error, time.monotonic() - begun)))

    asyncio.run(main())


def _left(job: Job) -> None:
    """The interpreter ends while a daemon thread is in a call."""
    client = _client(job)
    threading.Thread(target=_call, args=(job, client), daemon=True).start()
    _say("calling")
    _wait_for_the_word()
    _say(as_line(Told("exit", "unknown", 0.0)))


ACTS = {
    "interrupt": _interrupted,
    "close": _closed,
    "cancel": _cancelled,
    "exit": _left,
}


def _main(job: Job) -> None:
    if job["act"]:
        ACTS[job["act"]](job)
    elif not job["place"]["descriptors"]:
        _without_descriptors(job)
    else:
        place = SimpleNamespace(**job["place"])
        for told in in_python(IN_PYTHON[job["face"]], place, job["options"]):
            _say(as_line(told))


if __name__ == "__main__":
    _main(json.loads(os.environ["MATRIX_JOB"]))
