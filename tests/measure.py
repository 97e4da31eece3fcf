"""How soon a call ends that must: ``python -m tests.measure``, on an idle machine.

The tests only assert bounds far above what is promised; here are the figures. Each
line shows median and worst of some repetitions, in milliseconds. Exit status 1 if a
worst one is not what is promised. With names of measures: these alone.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import espresso
from espresso.sandbox import Exchange
from tests.children import PRELUDE, Child, environment
from tests.obstacles import HUNG_NAME, Gate, HungNames, running

SYMBOL = "ADAUSDM"
REPEATS = 20
TIMEOUT = 0.3  # seconds, of calls that are to run out of time

# One call that hangs, again and again; says when each KeyboardInterrupt was caught.
INTERRUPTED = (
    PRELUDE
    + """
import threading
def count():
    while True:
        pass
for _ in range(int(sys.argv[1])):
    threading.Thread(target=count, daemon=True).start()
client = connect(connect_timeout=19, attempt_timeout=19)
while True:
    try:
        say("calling")
        client.cancel_all("ADAUSDM")
    except KeyboardInterrupt:
        say(time.monotonic())
"""
)

LEAVING = (
    PRELUDE
    + """
import threading
client = connect(connect_timeout=19, attempt_timeout=19)
for _ in range(4):
    threading.Thread(target=client.cancel_all, args=["ADAUSDM"], daemon=True).start()
sys.stdin.readline()
say(time.monotonic())
"""
)


# A name that nobody looks up in time: each thread says how late its call was.
UNNAMED = (
    PRELUDE
    + """
import logging, threading
logging.disable()
timeout = float(sys.argv[1])
client = connect(timeout=timeout, attempt_timeout=timeout, max_retries=0)
def call():
    started = time.monotonic()
    try:
        client.cancel_all("ADAUSDM")
    except espresso.TransportError:  # late, or too many look-ups are left hanging
        say(time.monotonic() - started - timeout)
threads = [threading.Thread(target=call) for _ in range(int(sys.argv[2]))]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""
)

missed: list[str] = []


def show(what: str, seconds: list[float], promised: float) -> None:
    middle, worst = statistics.median(seconds) * 1000, max(seconds) * 1000
    verdict = "held" if worst <= promised * 1000 else "NOT HELD"
    if worst > promised * 1000:
        missed.append(what)
    print(
        f"{what:44} {middle:8.1f} {worst:8.1f}   (promised: {promised * 1000:.0f})"
        f" {verdict}",
        flush=True,
    )


def make(exchange: Exchange, url: str, **options: Any) -> espresso.Client:
    return espresso.Client(
        exchange.key, base_url=url, ca_file=exchange.ca_file, **options
    )


def hanging() -> Iterator[tuple[str, Exchange, str, Callable[[int], object]]]:
    """Phase, exchange, URL, and how to wait until n calls have come so far."""
    with Exchange(rate=None) as exchange:
        exchange.fault("hang", times=None)
        yield "waiting", exchange, exchange.url, exchange.wait_for_calls
        with Gate(exchange.url) as gate:
            yield "TLS handshake", exchange, gate.url, gate.wait_for


def interrupts() -> None:
    for phase, exchange, url, wait_for in hanging():
        env = {**environment(os.environ, exchange), "TEST_URL": url}
        calls = 0
        for busy in (0, 4):
            seconds = []
            with Child(INTERRUPTED, env, str(busy)) as child:
                for _ in range(REPEATS):
                    calls += 1
                    child.expect("calling")
                    wait_for(calls)
                    time.sleep(0.02)
                    sent_at = child.signal(signal.SIGINT)
                    seconds.append(float(child.line()) - sent_at)
                # One more has begun: the count must hold for the next child.
                calls += 1
                child.expect("calling")
                wait_for(calls)
            show(
                f"Ctrl-C, {phase}, {busy} busy threads", seconds, 0.2 if busy else 0.05
            )


def overruns() -> None:
    for phase, exchange, url, _ in hanging():
        for threads in (1, 64):
            client = make(exchange, url, timeout=TIMEOUT, attempt_timeout=TIMEOUT)
            seconds: list[float] = []

            def call(
                client: espresso.Client = client, seconds: list[float] = seconds
            ) -> None:
                for _ in range(REPEATS // 4):
                    started = time.monotonic()
                    try:
                        client.cancel_all(SYMBOL)
                    except espresso.RequestTimeoutError:
                        seconds.append(time.monotonic() - started - TIMEOUT)

            with running(*[call] * threads):
                pass
            what = f"deadline overrun, {phase}, {threads} threads"
            show(what, seconds, 0.2 if threads > 1 else 0.05)


def hung_names() -> None:
    with tempfile.TemporaryDirectory() as folder, Exchange(rate=None) as exchange:
        names = HungNames(Path(folder))
        port = exchange.url.rpartition(":")[2]
        url = {"TEST_URL": f"https://{HUNG_NAME}:{port}"}
        env = {**environment(os.environ, exchange), **names.env, **url}
        for threads in (1, 64):
            seconds: list[float] = []
            for _ in range(REPEATS // 4):
                with Child(UNNAMED, env, str(TIMEOUT), str(threads)) as child:
                    seconds += [float(line) for line in child.end().check().out.split()]
            what = f"deadline overrun, name look-up, {threads} threads"
            show(what, seconds, 0.2 if threads > 1 else 0.05)


def closes() -> None:
    for phase, exchange, url, wait_for in hanging():
        seconds = []
        for n in range(REPEATS):
            client = make(exchange, url, timeout=20, attempt_timeout=20)

            def call(client: espresso.Client = client) -> None:
                with contextlib.suppress(espresso.TransportError):
                    client.cancel_all(SYMBOL)

            with running(*[call] * 4):
                wait_for(4 * (n + 1))
                started = time.monotonic()
                client.close()
                seconds.append(time.monotonic() - started)
        show(f"close(), 4 threads, {phase}", seconds, 0.1)


def exits() -> None:
    for phase, exchange, url, wait_for in hanging():
        env = {**environment(os.environ, exchange), "TEST_URL": url}
        seconds = []
        for n in range(REPEATS):
            with Child(LEAVING, env) as child:
                wait_for(4 * (n + 1))
                child.tell()
                ended = child.end().check()
                seconds.append(ended.at - float(ended.out))
        show(f"exit, 4 daemon threads, {phase}", seconds, 1.0)


MEASURES = (interrupts, overruns, hung_names, closes, exits)


def main() -> int:
    logging.disable()  # of time-outs that are wanted
    print(f"{'':44} {'median':>8} {'worst':>8}   ms")
    for measure in MEASURES:
        if len(sys.argv) == 1 or measure.__name__ in sys.argv[1:]:
            measure()
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
