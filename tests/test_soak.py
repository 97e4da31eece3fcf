"""The short form of the soak: nothing grows, and every fault is met.

`make soak` makes a million calls and asserts their times, too.
"""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest

from tests.soak.client import Times, shares
from tests.soak.run import FLAT, FLAT_LONG, LONG, SLOWDOWN, Run, report, run
from tests.soak.server import BY_NAME

CALLS = 100_000
LAST_SAMPLES = 10  # of a run of CALLS

needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@needs_proc
@pytest.mark.memory
def test_nothing_grows() -> None:
    """100,000 calls through one client of each face, 1 in 100 with a fault."""
    finished = run(CALLS)
    print(report(finished))
    assert [line for line in finished.resources() if not line.is_held] == []
    assert finished.faults > CALLS / 200
    assert len(finished.said["samples"]) == LAST_SAMPLES
    outcomes = finished.said["outcomes"]
    assert outcomes["done"] > CALLS
    # One for each kind of fault, at least: the errors of each are no surprise.
    assert set(outcomes) <= {
        "done",
        "lost reply",
        "ConnectionLostError",
        "OrderNotFoundError",
        "RateLimitError",
        "RequestTimeoutError",
        "ResponseError",
        "ServerError",
        "UnavailableError",
    }
    assert set(finished.served["faults"]) <= set(BY_NAME)


def made(**changes: object) -> Run:
    """A run of which all is well."""
    sample = {"resident": 30_000, "descriptors": 26, "threads": 1}
    said = {
        "calls": 100_000,
        "seconds": 10.0,
        "outcomes": {"done": 125_000},
        "samples": [sample, sample],
        "before": {**sample, "descriptors": 4},
        "after": {**sample, "descriptors": 4},
        "p99": {"Client": [1e-4, 1.5e-4]},
    }
    served = {"requests": 125_000, "faults": {"reset": 1000}}
    return Run({**said, **changes}, served)


def not_held(run: Run) -> list[str]:
    return [line.name for line in run.lines() if not line.is_held]


def test_what_is_held_is_held() -> None:
    assert not_held(made()) == []
    assert "NOT HELD" not in report(made())


@pytest.mark.parametrize(
    ("what", "more", "name"),
    [
        ("resident", FLAT + 1, "memory (KiB)"),
        ("descriptors", 1, "descriptors"),
        ("threads", 1, "threads"),
    ],
)
def test_what_grows_is_seen(what: str, more: int, name: str) -> None:
    first = made().said["samples"][0]
    grown = made(samples=[first, {**first, what: first[what] + more}])
    assert not_held(grown) == [name]
    assert "NOT HELD" in report(grown)


def test_a_long_run_may_grow_more() -> None:
    first = made().said["samples"][0]
    for grown, names in ((FLAT_LONG, []), (FLAT_LONG + 1, ["memory (KiB)"])):
        samples = [first, {**first, "resident": first["resident"] + grown}]
        assert not_held(made(calls=LONG, samples=samples)) == names


def test_what_is_left_open_is_seen() -> None:
    after = {**made().said["after"], "descriptors": 6}
    assert not_held(made(after=after)) == ["descriptors kept"]


def test_what_gets_slow_is_seen() -> None:
    slow = made(p99={"Client": [1e-4, 2.1e-4], "AsyncClient": [1e-4, 2.1e-4]})
    assert not_held(slow) == ["p99 of Client"]
    line = next(slow.times())
    assert line.value == pytest.approx(2.1) and line.most == SLOWDOWN["Client"]
    assert replace(line, value=SLOWDOWN["Client"]).is_held


def test_a_quantile_is_within_two_per_cent() -> None:
    times = Times()
    for number in range(1, 1001):
        times.add(number * 1e-5)
    assert times.count == 1000
    for share, wanted in ((0.5, 5e-3), (0.99, 9.9e-3), (1.0, 1e-2)):
        assert wanted <= times.quantile(share) <= wanted * 1.03
    times.add(0.0)
    times.add(1e9)  # the last bucket takes it
    assert times.count == 1002


def test_a_tenth_of_a_long_run_warms_it_up() -> None:
    assert shares(1_000_000)[:3] == [0.1, 0.2, 0.3]
    assert shares(20_000) == [0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
