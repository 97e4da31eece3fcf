"""Several interpreters in one process, and the module imported more than once.

The extension is built for the stable ABI of 3.11, so the same file is loaded by the
later interpreters that are at hand; from 3.12 on each subinterpreter has its own GIL.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys

import pytest

from espresso.sandbox import Exchange
from tests.children import PATIENCE, PRELUDE, ROOT, Child, environment, run

pytestmark = pytest.mark.alone

ROUNDS = int(os.environ.get("INTERPRETER_ROUNDS", "50"))
ALLOWED_GROWTH = 1024  # KiB: what 40 leaked module states and clients would exceed
SLOWEST = 1.0  # seconds a round


@functools.cache
def interpreter(version: str) -> str:
    """The python of that version; "" if there is none that runs."""
    if version == "{}.{}".format(*sys.version_info):
        return sys.executable
    found = shutil.which(f"python{version}")
    if found is None:
        return ""
    show = [found, "-I", "-c", "import sys; print(sys.executable)"]
    ended = subprocess.run(show, capture_output=True, text=True, timeout=PATIENCE)
    return ended.stdout.strip() if ended.returncode == 0 else ""


@pytest.fixture(params=["3.11", "3.12", "3.13", "3.14"])
def python(request: pytest.FixtureRequest) -> str:
    found = interpreter(request.param)
    if not found:
        pytest.skip(f"no python{request.param} here")
    return found


# -I: neither the folder nor the environment's paths, so the package is named.
PACKAGE = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
sys.dont_write_bytecode = True
"""

SUBINTERPRETERS = (
    PACKAGE
    + """
import os, threading
try:
    import _interpreters as subinterpreters
except ImportError:
    import _xxsubinterpreters as subinterpreters

def create():
    '''One as isolated as this Python can make it: from 3.12 with its own GIL.'''
    return subinterpreters.create()

def run(which, source):
    failure = subinterpreters.run_string(which, source)
    if failure is not None:  # 3.13 returns it, before it was raised
        raise AssertionError(failure.formatted)

def resident():
    '''KiB of memory in use.'''
    import resource
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() // 1024
"""
)

USE = (
    PACKAGE
    + PRELUDE
    + """
with connect() as client:
    client.warm_up()
    assert client.cancel_all("ADAUSDM", missing_ok=True)["order_ids"] == []
    try:
        client.cancel_all("ADAUSDM")
    except espresso.OrderNotFoundError as error:
        assert error.code == 4200
    else:
        raise AssertionError("no error")
left_open = connect()
left_open.cancel_all("ADAUSDM", missing_ok=True)
"""
)


def test_this_python_loads_it(
    python: str, exchange: Exchange, clean_env: dict[str, str]
) -> None:
    exchange.place("ADAUSDM", 2)
    program = f"""{PACKAGE}{PRELUDE}
assert espresso.__file__ == {str(ROOT / "espresso" / "__init__.py")!r}
say(len(connect().cancel_all("ADAUSDM")["order_ids"]))
"""
    env = environment(clean_env, exchange)
    ended = run(program, env, flags=["-I"], python=python).check()
    assert ended.out.split() == ["2"]


@pytest.mark.memory
def test_import_call_and_drop_many_times(
    python: str, exchange: Exchange, clean_env: dict[str, str]
) -> None:
    program = f"""{SUBINTERPRETERS}
import espresso  # what the process keeps for ever, it keeps from now on
use = {USE!r}
def once():
    which = create()
    run(which, use)
    subinterpreters.destroy(which)
for _ in range(10):
    once()
before, fds = resident(), len(os.listdir("/dev/fd"))
for _ in range({ROUNDS - 10}):
    once()
print(*sys.version_info[:2], resident() - before, len(os.listdir("/dev/fd")) - fds)
"""
    env = environment(clean_env, exchange)
    timeout = PATIENCE + ROUNDS * SLOWEST
    ended = run(program, env, flags=["-I"], python=python, timeout=timeout).check()
    major, minor, growth, fds = map(int, ended.out.split())
    print(f"{growth} KiB")
    # From 3.12 on CPython itself loses megabytes with each interpreter that ends.
    if (major, minor) < (3, 12):
        assert growth < ALLOWED_GROWTH
    assert fds == 0
    assert len(exchange.calls) == 3 * ROUNDS


def test_many_interpreters_at_once(
    python: str, exchange: Exchange, clean_env: dict[str, str]
) -> None:
    """A thread each: they call in parallel, while the main one calls, too."""
    program = f"""{SUBINTERPRETERS}{PRELUDE}
use = {USE!r}
failures = []
def work():
    try:
        for _ in range(3):
            which = create()
            run(which, use)
            subinterpreters.destroy(which)
    except BaseException as error:
        failures.append(repr(error))
threads = [threading.Thread(target=work) for _ in range(4)]
client = connect()
for thread in threads: thread.start()
while any(thread.is_alive() for thread in threads):
    client.cancel_all("ADAUSDM", missing_ok=True)
assert not failures, failures
"""
    env = environment(clean_env, exchange)
    run(program, env, flags=["-I"], python=python).check()
    assert len(exchange.calls) > 36


def test_the_end_of_one_leaves_the_others_alone(
    python: str, exchange: Exchange, clean_env: dict[str, str]
) -> None:
    """Its exit handlers end its own calls, not those of the main interpreter."""
    program = f"""{SUBINTERPRETERS}{PRELUDE}
import queue
results = queue.Queue()
client = connect()
call = lambda: results.put(client.cancel_all("SLOW")["symbol"])
threading.Thread(target=call, daemon=True).start()
sys.stdin.readline()
which = create()
run(which, {USE!r})
subinterpreters.destroy(which)
assert results.get(timeout=20) == "SLOW"
assert client.cancel_all("ADAUSDM", missing_ok=True)["symbol"] == "ADAUSDM"
"""
    exchange.place("SLOW")
    exchange.fault("slow", seconds=0.5)
    env = environment(clean_env, exchange)
    with Child(program, env, flags=["-I"], python=python) as child:
        exchange.wait_for_calls(1)
        child.tell()
        child.end().check()
    assert exchange.calls[0].status == 200


def test_exit_with_interpreters_that_were_not_destroyed(
    python: str, exchange: Exchange, clean_env: dict[str, str]
) -> None:
    program = f"""{SUBINTERPRETERS}
kept = [create() for _ in range(3)]
for which in kept:
    run(which, {USE!r})
"""
    env = environment(clean_env, exchange)
    run(program, env, flags=["-I"], python=python).check()


# --- one interpreter, several imports --------------------------------------------

USE_LOOPS = (
    PACKAGE
    + PRELUDE
    + """
import asyncio
client = connect_async()
async def main():
    await client.warm_up()
    found = await client.cancel_all(["ADAUSDM", "NIGHTUSDM"], missing_ok=True)
    assert [one["order_ids"] for one in found] == [[], []]
    try:
        await client.cancel_all("ADAUSDM")
    except espresso.OrderNotFoundError as error:
        assert error.code == 4200
    else:
        raise AssertionError("no error")
for _ in range(2):
    asyncio.run(main())
"""
)

FORGET = """
def forget():
    for name in [n for n in sys.modules if n.partition(".")[0] == "espresso"]:
        del sys.modules[name]
"""


@pytest.mark.parametrize("version", ["3.13", "3.14"])
def test_event_loops_in_interpreters_of_their_own(
    version: str, exchange: Exchange, clean_env: dict[str, str]
) -> None:
    """A thread and a loop each, all at once; the clients are left open.

    Before 3.13 asyncio itself cannot do that: 3.11 knows one running loop for all
    interpreters, and 3.12.1 corrupts its memory, without any extension.
    """
    python = interpreter(version)
    if not python:
        pytest.skip(f"no python{version} here")
    program = f"""{SUBINTERPRETERS}
use = {USE_LOOPS!r}
failures = []
def work():
    which = create()
    try:
        run(which, use)
    except BaseException as error:
        failures.append(error)
    subinterpreters.destroy(which)
threads = [threading.Thread(target=work) for _ in range(3)]
for thread in threads: thread.start()
exec(use)
for thread in threads: thread.join()
assert failures == [], failures
"""
    run(program, environment(clean_env, exchange), flags=["-I"], python=python).check()
    assert len(exchange.calls) == 4 * 2 * 3


def test_import_again_after_forgetting(
    python: str, exchange: Exchange, clean_env: dict[str, str]
) -> None:
    """Each import is a module of its own; objects of the ones before still work."""
    program = f"""{PACKAGE}{PRELUDE}{FORGET}
first, first_error = connect(), espresso.OrderNotFoundError
for _ in range(20):
    forget()
    import espresso
    client = connect()
    assert client.cancel_all("ADAUSDM", missing_ok=True)["order_ids"] == []
    try:
        client.cancel_all("ADAUSDM")
    except espresso.OrderNotFoundError as error:
        assert not isinstance(error, first_error)
try:
    first.cancel_all("ADAUSDM")
except first_error as error:
    say(error.code)
"""
    env = environment(clean_env, exchange)
    ended = run(program, env, flags=["-I", "-X", "dev"], python=python).check()
    assert ended.out.split() == ["4200"]
    assert ended.err == ""


def test_the_verb_outlives_its_module(
    exchange: Exchange, clean_env: dict[str, str]
) -> None:
    """``from espresso import cancel_all`` of a strategy that is loaded again."""
    program = f"""{PACKAGE}{FORGET}
import os
os.environ["DELTADEFI_API_KEY"] = os.environ["TEST_KEY"]
os.environ["SSL_CERT_FILE"] = os.environ["TEST_CA"]
from espresso import cancel_all
forget()
import espresso
for press in (cancel_all, espresso.cancel_all, cancel_all):
    print(press("ADAUSDM", missing_ok=True, base_url=os.environ["TEST_URL"])["symbol"])
"""
    ended = run(program, environment(clean_env, exchange), flags=["-I"]).check()
    assert ended.out.split() == ["ADAUSDM"] * 3


def test_reload(exchange: Exchange, clean_env: dict[str, str]) -> None:
    program = f"""{PACKAGE}{PRELUDE}
import importlib
client = connect()
for _ in range(3):
    importlib.reload(espresso)
    assert isinstance(client, espresso.Client)
    assert client.cancel_all("ADAUSDM", missing_ok=True)["order_ids"] == []
"""
    run(program, environment(clean_env, exchange), flags=["-I"]).check()
