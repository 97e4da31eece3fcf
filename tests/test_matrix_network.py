"""Faults inside the network stack: see tests/matrix/network.py.

In namespaces of the tests' own, so they take root; `make matrix` runs them too.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import link as links
from tests.matrix.network import FACES, ROWS
from tests.matrix.runner import Found, rows_of_tests

LACKING = links.why_not()
pytestmark = pytest.mark.slow
needs_namespaces = pytest.mark.skipif(bool(LACKING), reason=f"no link: {LACKING}")
AT_ONCE = 9


@pytest.fixture(scope="module")
def found(request: pytest.FixtureRequest) -> Iterator[Found]:
    yield from rows_of_tests(request, ROWS, AT_ONCE)


@needs_namespaces
@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("row", ROWS)
def test_row(row: str, face: str, found: Found) -> None:
    assert found[row, face].result() == []


def test_each_row_is_there() -> None:
    assert [name.removeprefix("network: ") for name in ROWS] == [
        "black hole",
        "proxy in a black hole",
        "everything lost",
        "name server is silent",
        "half-open, host gone while idle",
        "unplugged while idle",
        "outage of a second",
        "host gone with the request",
        "5 % loss, 60 ms round trip",
    ]
