"""The plugin of `make test-leaks` names what leaks, and nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.leaks import CHANCES, MEASURED, WARM_UPS, grown

ROOT = Path(__file__).resolve().parent.parent

TOY = """
import ctypes, os
import pytest

kept, cache, runs = [], {}, []
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p

@pytest.fixture
def number():
    runs.append(1)
    return len(runs)

def test_that_is_flat(number):
    assert len(str(number)) * [object()]

def test_that_fills_a_cache():
    if len(cache) < 7:
        cache[len(cache)] = [object() for _ in range(100)]

@pytest.fixture(scope="module")
def shared():
    yield

@pytest.fixture
def sharing(shared):
    yield

def test_that_sets_another_text_each_time(sharing, monkeypatch):
    monkeypatch.setenv("ADDRESS", "x" * 300 + str(len(runs)))
    runs.append(2)

def test_that_keeps_objects():
    kept.append([object() for _ in range(10)])

def test_that_keeps_bytes_of_malloc():
    libc.malloc(ctypes.c_size_t(1000))

def test_that_keeps_descriptors():
    os.dup(0)

def test_that_fails():
    assert kept is None

def test_that_is_skipped():
    pytest.skip("not here")

def test_how_often_the_fixture_was_made():
    print("made", len(runs))
"""


@pytest.mark.memory
@pytest.mark.skipif(sys.platform != "linux", reason="asks glibc")
def test_what_leaks_is_named(tmp_path: Path, clean_env: dict[str, str]) -> None:
    toy = tmp_path / "test_toy.py"
    toy.write_text(TOY)
    command = [sys.executable, "-m", "pytest", "-p", "tests.leaks", "-rfP"]
    env = {**clean_env, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "MALLOC_ARENA_MAX": "1"}
    env["GLIBC_TUNABLES"] = "glibc.malloc.tcache_count=0"
    done = subprocess.run(
        [*command, "-c", str(ROOT / "pyproject.toml"), str(toy)],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=100,
    )
    said = done.stdout.splitlines()
    print(done.stdout)
    assert done.returncode == 1
    leaks = [line for line in said if line.startswith("LEAKS ")]
    for line, name, what in zip(
        leaks,
        ("keeps_objects", "keeps_bytes_of_malloc", "keeps_descriptors"),
        ("blocks", "bytes of malloc", "descriptors"),
        strict=True,
    ):
        assert f"test_that_{name}:" in line and what in line
    assert "4 tests are flat, 3 leak: NOT HELD" in said
    assert any("FAILED" in line and "test_that_fails" in line for line in said)
    assert "4 failed, 4 passed, 1 skipped" in said[-1]
    # The last run alone is told.
    (made,) = [line for line in said if line.startswith("made ")]
    assert int(made.split()[1]) >= WARM_UPS + MEASURED + 1


def test_only_what_grows_each_time_is_suspected() -> None:
    def looks(*values: int) -> list[dict[str, int]]:
        return [{"blocks": value, "descriptors": 3} for value in values]

    assert CHANCES > 1
    assert grown(looks(5, 7, 8, 20)) == {"blocks": [2, 1, 12]}
    for flat in ((5, 5, 5, 5), (5, 9, 9, 9), (5, 6, 7, 7), (5, 8, 6, 9)):
        assert grown(looks(*flat)) == {}
