"""A plugin of pytest that runs each test until memory is flat, or says that it leaks.

``python -m pytest -p tests.leaks tests/test_x.py``, which `make test-leaks` does. As
CPython's own ``-R 3:3``: some runs to warm up, then three that are measured. What grows
in each of the three is suspected, and measured again, a few times: what leaks grows for
ever, what only fills a cache does not. A test fails if it is never flat.

Measured between two runs, after a collection: Python's blocks; references, on a debug
build; bytes that malloc has given out, where the C library tells them, which is what
the core uses; descriptors. Set MALLOC_ARENA_MAX=1, or malloc tells of one arena only,
and GLIBC_TUNABLES=glibc.malloc.tcache_count=0, or what a thread has freed and keeps at
hand counts as given out.

Not counted is what glibc's setenv keeps for ever of each new text that it is given: the
tests set an address with another port each time.
"""

from __future__ import annotations

import ctypes
import gc
import itertools
import os
import sys
from collections.abc import Callable, Iterator

import pytest
from _pytest.reports import TestReport
from _pytest.runner import runtestprotocol

WARM_UPS = 3
MEASURED = 3
CHANCES = 4
"""How often three runs are measured before a test that grows in all of them leaks."""


class _MallInfo2(ctypes.Structure):
    """As <malloc.h> has it."""

    _fields_ = [
        *((name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks")),
        *((name, ctypes.c_size_t) for name in ("hblkhd", "usmblks", "fsmblks")),
        *((name, ctypes.c_size_t) for name in ("uordblks", "fordblks", "keepcost")),
    ]


def _malloc_meter() -> Callable[[], int] | None:
    """Bytes that malloc has given out; None where the C library does not tell."""
    mallinfo2 = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if mallinfo2 is None:
        return None
    mallinfo2.restype = _MallInfo2

    def in_use() -> int:
        info = mallinfo2()
        return int(info.uordblks + info.hblkhd)

    return in_use


def _meters() -> dict[str, Callable[[], int]]:
    meters: dict[str, Callable[[], int]] = {"blocks": sys.getallocatedblocks}
    references = getattr(sys, "gettotalrefcount", None)
    if references is not None:
        meters["references"] = references
    malloc = _malloc_meter()
    if malloc is not None:
        meters["bytes of malloc"] = malloc
    if os.path.isdir("/dev/fd"):
        meters["descriptors"] = lambda: len(os.listdir("/dev/fd"))
    return meters


METERS = _meters()


Text = str | bytes | os.PathLike[str] | os.PathLike[bytes]


class Environment:
    """What setenv keeps: each ``NAME=value`` once, and a node of a tree with it."""

    NODE = 32  # bytes of malloc

    def __init__(self) -> None:
        self.kept = 0
        self._texts: set[bytes] = set()
        self._putenv = os.putenv
        os.putenv = self.putenv

    def putenv(self, name: Text, value: Text) -> None:
        self._putenv(name, value)
        text = os.fsencode(name) + b"=" + os.fsencode(value)
        if text not in self._texts:
            self._texts.add(text)
            self.kept += chunk(len(text) + 1) + self.NODE


def chunk(size: int) -> int:
    """Bytes that malloc takes for so many: a word more, in steps of two words."""
    return max(32, (size + 8 + 15) // 16 * 16)


ENVIRONMENT = Environment()


def look() -> dict[str, int]:
    """What there is now."""
    for _ in range(3):  # what a finalizer made is found by the next one
        gc.collect()
    sys._clear_type_cache()
    found = {name: meter() for name, meter in METERS.items()}
    if "bytes of malloc" in found:
        found["bytes of malloc"] -= ENVIRONMENT.kept
    return found


def grown(looks: list[dict[str, int]]) -> dict[str, list[int]]:
    """What grew from each look to the next, and by how much."""
    found = {}
    for name in looks[0]:
        values = [one[name] for one in looks]
        steps = [after - before for before, after in itertools.pairwise(values)]
        if all(step > 0 for step in steps):
            found[name] = steps
    return found


class Leaks:
    """Runs tests again and again."""

    def __init__(self) -> None:
        self.found: dict[str, dict[str, list[int]]] = {}
        """The tests that leak, and what."""
        self.flat = 0

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> bool:
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        reports = self._repeat(item)
        for report in reports:
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True

    def _repeat(self, item: pytest.Item) -> list[TestReport]:
        """Run it until it is flat, or fails; the reports of its last run."""
        for _ in range(WARM_UPS):
            reports = self._run(item)
            if not all(report.passed for report in reports):
                return self._run(item)  # as it is: to fail, or to skip
        for _ in range(CHANCES):
            looks = [look()]
            for _ in range(MEASURED):
                self._run(item)
                looks.append(look())
            leaks = grown(looks)
            if not leaks:
                break
        reports = self._run(item)
        if leaks:
            self.found[item.nodeid] = leaks
            self._fail(reports, leaks)
        else:
            self.flat += 1
        return reports

    @staticmethod
    def _run(item: pytest.Item) -> list[TestReport]:
        """One run, with fixtures of its own, those of its module, too.

        One that stayed would be given a finalizer more by each run.
        """
        # As pytest-rerunfailures does it: there is no public way.
        if hasattr(item, "_request"):
            item._initrequest()  # type: ignore[attr-defined]
        item._report_sections.clear()  # what earlier runs have printed
        return runtestprotocol(item, log=False, nextitem=None)

    @staticmethod
    def _fail(reports: list[TestReport], leaks: dict[str, list[int]]) -> None:
        for report in reports:
            if report.when == "call":
                report.outcome = "failed"
                report.longrepr = f"leaks: {describe(leaks)}"

    def pytest_terminal_summary(
        self, terminalreporter: pytest.TerminalReporter
    ) -> None:
        terminalreporter.section("leaks")
        for name, leaks in self.found.items():
            terminalreporter.line(f"LEAKS {name}: {describe(leaks)}")
        word = "held" if not self.found else "NOT HELD"
        line = f"{self.flat} tests are flat, {len(self.found)} leak: {word}"
        terminalreporter.line(line)


def describe(leaks: dict[str, list[int]]) -> str:
    return ", ".join(f"{steps} {name}" for name, steps in leaks.items())


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Leaks(), "espresso-leaks")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what measures itself, or only runs other processes for long."""
    items[:] = list(_wanted(items))


def _wanted(items: list[pytest.Item]) -> Iterator[pytest.Item]:
    for item in items:
        if not any(item.get_closest_marker(name) for name in ("slow", "long", "chaos")):
            yield item
