"""fork: the child starts anew, and the parent's connections never notice.

Every program prints what its processes saw, a line a process; what the exchange saw
decides. ``connection`` of its records shows whether a connection was used again.
"""

from __future__ import annotations

import sys
import sysconfig
import textwrap
from pathlib import Path

import pytest

from espresso.sandbox import Exchange
from tests.children import (
    PATIENCE,
    PRELUDE,
    ROOT,
    Child,
    default_environment,
    environment,
    run,
)

pytestmark = pytest.mark.alone

SYMBOL = "ADAUSDM"

FORK = (
    PRELUDE
    + """
import gc, threading, warnings

warnings.simplefilter("ignore", DeprecationWarning)  # of fork with threads, 3.12

def fork(child):
    '''Run `child` in a forked process; its exit status.'''
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            child()
            status = 0
        except espresso.EspressoError as error:
            say(type(error).__name__, error.outcome)
            status = 3
        except BaseException:
            import traceback
            traceback.print_exc()
        finally:
            os._exit(status)
    return reap(pid)

def reap(pid):
    '''The exit status of a child; one that hangs is killed.'''
    until = time.monotonic() + 25  # more than a call may take
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > until:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
            return "hung"
        time.sleep(0.002)

def ids(client, symbol):
    return len(client.cancel_all(symbol)["order_ids"])
"""
)

# `connect` in the words of a blocking client: the face that a test is run for.
FACES = {
    "blocking": "",
    # A loop for each call, and none while it forks.
    "asyncio.run": """
import asyncio
class Face:
    def __init__(self, **options):
        self.client = connect_async(**options)
    def run(self, coroutine):
        return asyncio.run(coroutine)
    def cancel_all(self, symbol, **options):
        return self.run(self.client.cancel_all(symbol, **options))
    def close(self):
        self.run(self.client.aclose())
connect = Face
""",
}
# One loop as long as the process lives: a child inherits it, with its selector.
FACES["a loop that stays"] = (
    FACES["asyncio.run"]
    + """
runners = {}
def run_in_runner(self, coroutine):
    runner = runners.get(os.getpid())
    if runner is None:
        runner = runners[os.getpid()] = asyncio.Runner()
    return runner.run(coroutine)
Face.run = run_in_runner
"""
)


@pytest.fixture(params=FACES)
def fork(request: pytest.FixtureRequest) -> str:
    """The prelude of a program that forks, for one of the faces."""
    return FORK + FACES[request.param]


def symbols(exchange: Exchange) -> list[str | None]:
    return [call.symbol for call in exchange.calls]


def connections(exchange: Exchange) -> list[int]:
    return [call.connection for call in exchange.calls]


# --- after use -------------------------------------------------------------------

CHILDREN = {
    "calls": "assert ids(client, 'CHILD') == 2",
    "calls on a client of its own": "assert ids(connect(), 'CHILD') == 2",
    "drops the client": "global client; del client; gc.collect()",
    "closes the client": "client.close(); client.close()",
    "exits by sys.exit": "sys.exit(0)",
    "exits at once": "os._exit(0)",
    "runs another program": "os.execv(sys.executable, [sys.executable, '-c', ''])",
    "does nothing for a while": "time.sleep(0.3)",
}


@pytest.mark.parametrize("body", CHILDREN.values(), ids=CHILDREN)
def test_the_parents_connection_survives(
    body: str, fork: str, exchange: Exchange, clean_env: dict[str, str]
) -> None:
    program = f"""{fork}
client = connect()
client.cancel_all("BEFORE")
pid = os.fork()
if pid == 0:
    def child():
        {body}
    child()
    sys.exit(0)  # the long way: exit handlers, collection of everything
assert reap(pid) == 0
assert ids(client, "AFTER") == 2
"""
    for symbol in ("BEFORE", "CHILD", "AFTER"):
        exchange.place(symbol, 2)
    run(program, environment(clean_env, exchange)).check()
    seen = dict(zip(symbols(exchange), connections(exchange), strict=True))
    assert len(seen) == len(exchange.calls) == 2 + ("CHILD" in body)
    assert seen["AFTER"] == seen["BEFORE"]
    assert seen.get("CHILD") != seen["BEFORE"]


def test_the_child_keeps_no_socket_of_the_parent(
    exchange: Exchange, clean_env: dict[str, str]
) -> None:
    program = f"""{FORK}
import psutil
port = int(os.environ["TEST_URL"].rpartition(":")[2])
def sockets():
    found = psutil.Process().net_connections("tcp")
    return sum(1 for one in found if one.raddr and one.raddr.port == port)
clients = [connect() for _ in range(3)]
for client in clients:
    client.warm_up()
assert sockets() == 3
def child():
    assert sockets() == 0
    clients[0].warm_up()
    assert sockets() == 1
assert fork(child) == 0
assert sockets() == 3
"""
    run(program, environment(clean_env, exchange)).check()


def test_a_closed_client_is_closed_in_the_child(
    exchange: Exchange, clean_env: dict[str, str]
) -> None:
    program = f"""{FORK}
client = connect()
client.warm_up()
client.close()
def child():
    try:
        client.cancel_all("CHILD")
    except RuntimeError as error:
        assert "closed" in str(error)
    else:
        raise AssertionError("it went through")
assert fork(child) == 0
"""
    run(program, environment(clean_env, exchange)).check()
    assert not exchange.calls


def test_a_child_of_a_child(
    fork: str, exchange: Exchange, clean_env: dict[str, str]
) -> None:
    """Each generation calls, before and after its child does."""
    program = f"""{fork}
client = connect()
def live(generation):
    assert ids(client, f"G{{generation}}a") == 2
    if generation < 3:
        assert fork(lambda: live(generation + 1)) == 0
    assert ids(client, f"G{{generation}}b") == 2
live(0)
"""
    for generation in range(4):
        for suffix in "ab":
            exchange.place(f"G{generation}{suffix}", 2)
    run(program, environment(clean_env, exchange)).check()
    assert symbols(exchange) == [f"G{n}a" for n in range(4)] + [
        f"G{n}b" for n in range(3, -1, -1)
    ]
    seen = connections(exchange)
    assert seen == seen[::-1]  # each generation's second call on its own connection
    assert len(set(seen)) == 4


def test_many_children_one_after_the_other(
    fork: str, exchange: Exchange, clean_env: dict[str, str]
) -> None:
    program = f"""{fork}
client = connect()
assert ids(client, "PARENT") == 1
for n in range(20):
    assert fork(lambda: ids(client, f"C{{n}}")) == 0
before = len(os.listdir("/dev/fd"))
for n in range(20):
    assert fork(client.close) == 0
assert len(os.listdir("/dev/fd")) == before
assert ids(client, "PARENT2") == 1
"""
    for n in range(20):
        exchange.place(f"C{n}")
    exchange.place("PARENT")
    exchange.place("PARENT2")
    run(program, environment(clean_env, exchange)).check()
    assert connections(exchange)[0] == connections(exchange)[-1]
    assert len(set(connections(exchange))) == 21
    assert len(exchange.calls) == 22


# --- while calls are under way ---------------------------------------------------


def test_fork_while_another_thread_calls(
    exchange: Exchange, clean_env: dict[str, str]
) -> None:
    """The child calls at once; the thread's call ends in the parent, once."""
    program = f"""{FORK}
client, results = connect(), []
thread = threading.Thread(target=lambda: results.append(ids(client, "THREAD")))
thread.start()
say("calling")
sys.stdin.readline()  # the exchange has the thread's request
def child():
    assert ids(client, "CHILD") == 2
    client.close()
assert fork(child) == 0
thread.join()
assert results == [2]
assert ids(client, "AFTER") == 2
"""
    for symbol in ("THREAD", "CHILD", "AFTER"):
        exchange.place(symbol, 2)
    exchange.fault("slow", seconds=0.5)
    with Child(program, environment(clean_env, exchange)) as child:
        child.expect("calling")
        exchange.wait_for_calls(1)
        child.tell()
        child.end().check()
    assert symbols(exchange) == ["THREAD", "CHILD", "AFTER"]
    first, second, third = connections(exchange)
    assert first == third != second


@pytest.mark.forked
def test_fork_while_many_threads_connect(
    exchange: Exchange, clean_env: dict[str, str]
) -> None:
    """Locks of libcurl, OpenSSL and ours may be held by threads that are not there."""
    program = f"""{FORK}
stop = threading.Event()
def hammer():
    while not stop.is_set():
        with connect() as fresh:
            fresh.cancel_all("ADAUSDM", missing_ok=True)
shared = connect()
threads = [threading.Thread(target=hammer) for _ in range(3)]
for thread in threads: thread.start()
def child():
    shared.cancel_all("ADAUSDM", missing_ok=True)
    with connect() as own:
        own.cancel_all("ADAUSDM", missing_ok=True)
for _ in range(60):
    status = fork(child)
    if status != 0:
        break
stop.set()
for thread in threads: thread.join()
assert status == 0, status
"""
    run(program, environment(clean_env, exchange)).check()


IMPORTED = ["espresso._watch", "espresso._types", "espresso._aio"]
IMPORTED += ["espresso._log_file", "logging", "dataclasses"]  # by ours


@pytest.mark.parametrize("module", IMPORTED)
def test_fork_while_another_thread_imports(
    module: str, exchange: Exchange, clean_env: dict[str, str]
) -> None:
    """A lock of Python guards the import; its holder is not in the child."""
    face = FACES["asyncio.run"] if "_aio" in module else ""
    program = f"""{FORK}{face}
from importlib.machinery import PathFinder
reached = threading.Event()
class Slow:
    def find_spec(self, name, path, target=None):
        spec = PathFinder.find_spec(name, path) if name == "{module}" else None
        if spec is not None:
            self.load = spec.loader.exec_module
            spec.loader.exec_module = self.exec_module
        return spec
    def exec_module(self, module):
        reached.set()
        time.sleep(0.5)
        self.load(module)
sys.meta_path.insert(0, Slow())
def call(symbol):
    events = []
    patience = dict.fromkeys(("connect_timeout", "attempt_timeout"), 20)
    client = connect(on_event=events.append, **patience)
    assert ids(client, symbol) == 1
    assert [event.symbol for event in events] == [symbol]
thread = threading.Thread(target=call, args=["THREAD"])
thread.start()
assert reached.wait(10)
assert fork(lambda: call("CHILD")) == 0
thread.join()
"""
    for symbol in ("THREAD", "CHILD"):
        exchange.place(symbol)
    run(program, environment(clean_env, exchange)).check()
    assert sorted(filter(None, symbols(exchange))) == ["CHILD", "THREAD"]


def test_fork_in_a_thread(exchange: Exchange, clean_env: dict[str, str]) -> None:
    """The forking thread is the child's main one: its calls can be interrupted."""
    program = f"""{FORK}
import signal
class Stop(Exception):
    pass
def stop(number, frame):
    raise Stop
signal.signal(signal.SIGALRM, stop)
client = connect()
client.warm_up()
def child():
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        client.cancel_all("ADAUSDM")
    except Stop as error:
        assert "had gone out" in error.__notes__[0]
    else:
        raise AssertionError("not interrupted")
statuses = []
thread = threading.Thread(target=lambda: statuses.append(fork(child)))
thread.start()
thread.join()
assert statuses == [0], statuses
"""
    exchange.fault("hang")
    ended = run(program, environment(clean_env, exchange)).check()
    assert not ended.err


# --- in the middle of one's own call ---------------------------------------------

# What the child may say of a call that it was born in: the exchange has an answer for
# the parent, so "not_sent" would be a lie, and so would a second request.
IN_EVENT = f"""{FORK}
pids = []
def on_event(event):
    if not pids:
        pids.append(os.fork())
client = connect(on_event=on_event)
try:
    result = client.cancel_all("ADAUSDM")
    said = ["done", len(result["order_ids"]), result.get("lost_reply", False)]
except espresso.EspressoError as error:
    said = ["failed", error.outcome]
if pids[0] == 0:
    said += [len(client.cancel_all("CHILD")["order_ids"])]
    say("child", *said)
    os._exit(0)
assert reap(pids[0]) == 0
said += [len(client.cancel_all("AFTER")["order_ids"])]
say("parent", *said)
"""


def test_fork_in_on_event_of_a_success(
    exchange: Exchange, clean_env: dict[str, str]
) -> None:
    for symbol in (SYMBOL, "CHILD", "AFTER"):
        exchange.place(symbol, 2)
    ended = run(IN_EVENT, environment(clean_env, exchange)).check()
    child, parent = ended.out.splitlines()
    assert parent == "parent done 2 False 2"
    assert child in ("child done 2 False 2", "child failed unknown 2")
    assert symbols(exchange) == [SYMBOL, "CHILD", "AFTER"]
    first, second, third = connections(exchange)
    assert first == third != second


@pytest.mark.parametrize(
    ("fault", "outcome", "lost"),
    [
        ("envoy_503", "unknown", True),
        ("locked_5002", "rejected", False),
        ("connect_reset", "not_sent", False),
    ],
)
def test_fork_in_on_event_between_attempts(
    fault: str, outcome: str, lost: bool, exchange: Exchange, clean_env: dict[str, str]
) -> None:
    """The next attempt is the parent's alone."""
    exchange.fault(fault)
    for symbol in (SYMBOL, "CHILD", "AFTER"):
        exchange.place(symbol, 2)
    ended = run(IN_EVENT, environment(clean_env, exchange)).check()
    child, parent = ended.out.splitlines()
    assert parent == f"parent done 2 {lost} 2"
    assert child == f"child failed {outcome} 2"
    carried_out = [call.symbol for call in exchange.calls if call.carried_out]
    assert sorted(filter(None, carried_out)) == sorted([SYMBOL, "CHILD", "AFTER"])
    assert symbols(exchange).count(SYMBOL) == 1 + (fault != "connect_reset")


def test_fork_in_a_signal_handler_during_a_call(
    exchange: Exchange, clean_env: dict[str, str]
) -> None:
    program = f"""{FORK}
import signal
pids = []
def handle(number, frame):
    pids.append(os.fork())
signal.signal(signal.SIGALRM, handle)
client = connect()
signal.setitimer(signal.ITIMER_REAL, 0.3)
try:
    said = ["done", len(client.cancel_all("ADAUSDM")["order_ids"])]
except espresso.EspressoError as error:
    said = ["failed", error.outcome]
if pids[0] == 0:
    said += [len(client.cancel_all("CHILD")["order_ids"])]
    say("child", *said)
    os._exit(0)
assert reap(pids[0]) == 0
say("parent", *said)
"""
    for symbol in (SYMBOL, "CHILD"):
        exchange.place(symbol, 2)
    exchange.fault("slow", seconds=1.0)
    ended = run(program, environment(clean_env, exchange)).check()
    assert sorted(ended.out.splitlines()) == ["child failed unknown 2", "parent done 2"]
    assert symbols(exchange) == [SYMBOL, "CHILD"]


# --- workers of a master ---------------------------------------------------------

# What a prefork server such as gunicorn does: the master has used the client before
# it forks its workers; told to, it starts new ones, ends the old ones, and goes on.
PREFORK = """
WORKERS, GENERATIONS = 3, 3
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
client = connect()

def work(name):
    for n in range(3):
        assert ids(client, f"{name}N{n}") == 2
    say(name)
    signal.sigwait({signal.SIGTERM})
    assert ids(client, f"{name}N3") == 2  # to leave nothing open
    if name.endswith("W0"):
        client.close()

def start(name):
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work(name)
            status = 0
        except BaseException:
            import traceback
            traceback.print_exc()
        finally:
            os._exit(status)
    return pid

def end(workers):
    for pid in workers:
        os.kill(pid, signal.SIGTERM)
    assert [reap(pid) for pid in workers] == [0] * len(workers)

old = []
for generation in range(GENERATIONS):
    assert ids(client, f"MASTER{generation}") == 2
    new = [start(f"G{generation}W{number}") for number in range(WORKERS)]
    sys.stdin.readline()  # all of them work
    end(old)
    old = new
end(old)
assert ids(client, f"MASTER{GENERATIONS}") == 2
"""


def test_prefork(fork: str, exchange: Exchange, clean_env: dict[str, str]) -> None:
    """Workers are recycled; each has a connection of its own, the master keeps its."""
    workers = [[f"G{generation}W{n}" for n in range(3)] for generation in range(3)]
    masters = [f"MASTER{n}" for n in range(4)]
    of_workers = [f"{name}N{n}" for some in workers for name in some for n in range(4)]
    for symbol in masters + of_workers:
        exchange.place(symbol, 2)
    with Child(fork + PREFORK, environment(clean_env, exchange)) as child:
        for generation in workers:
            assert sorted(child.line() for _ in generation) == generation
            child.tell()
        child.end().check()
    assert sorted(filter(None, symbols(exchange))) == sorted(masters + of_workers)
    connection = dict(zip(symbols(exchange), connections(exchange), strict=True))
    assert len({connection[symbol] for symbol in masters}) == 1
    for some in workers:
        for name in some:
            assert len({connection[f"{name}N{n}"] for n in range(4)}) == 1
    assert len(set(connections(exchange))) == 1 + 9


# --- asyncio ---------------------------------------------------------------------


def test_fork_in_a_loop_while_a_task_calls(
    exchange: Exchange, clean_env: dict[str, str]
) -> None:
    """The task's call ends in the parent, once; the child has a loop of its own."""
    program = f"""{FORK}{FACES["asyncio.run"]}
client = connect()
def child():
    assert ids(client, "CHILD") == 2
    client.close()
async def main():
    task = asyncio.create_task(client.client.cancel_all("TASK"))
    await asyncio.sleep(0)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    assert fork(child) == 0
    assert len((await task)["order_ids"]) == 2
    assert len((await client.client.cancel_all("AFTER"))["order_ids"]) == 2
asyncio.run(main())
"""
    for symbol in ("TASK", "CHILD", "AFTER"):
        exchange.place(symbol, 2)
    exchange.fault("slow", seconds=0.5)
    with Child(program, environment(clean_env, exchange)) as child:
        exchange.wait_for_calls(1, PATIENCE)
        child.tell()
        child.end().check()
    assert symbols(exchange) == ["TASK", "CHILD", "AFTER"]
    first, second, third = connections(exchange)
    assert first == third != second


@pytest.mark.skipif(
    bool(sysconfig.get_config_var("Py_GIL_DISABLED")) and sys.version_info < (3, 14),
    reason="3.13 without a GIL: a child may inherit an object that a thread had locked",
)
def test_fork_while_loops_of_threads_call(
    exchange: Exchange, clean_env: dict[str, str]
) -> None:
    """A loop a thread, all on one client, while the main thread forks."""
    program = f"""{FORK}{FACES["asyncio.run"]}
client, stop, wrong = connect(), threading.Event(), []
def hammer():
    try:
        while not stop.is_set():
            result = client.cancel_all("ADAUSDM", missing_ok=True)
            assert result == {{"symbol": "ADAUSDM", "order_ids": []}}
    except BaseException as error:
        wrong.append(error)
threads = [threading.Thread(target=hammer) for _ in range(3)]
for thread in threads: thread.start()
def child():
    client.cancel_all("ADAUSDM", missing_ok=True)
    client.cancel_all(["ADAUSDM", "NIGHTUSDM"], missing_ok=True)
    client.close()
for _ in range(30):
    status = fork(child)
    if status != 0:
        break
stop.set()
for thread in threads: thread.join()
assert status == 0, status
assert not wrong, wrong
"""
    run(program, environment(clean_env, exchange)).check()


# --- multiprocessing -------------------------------------------------------------


@pytest.mark.parametrize("face", ["module", "Client", "AsyncClient"])
@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_multiprocessing(
    method: str,
    face: str,
    exchange: Exchange,
    clean_env: dict[str, str],
    tmp_path: Path,
) -> None:
    """A pool of workers, and errors that come back whole.

    A client is a global of the program: a forked worker has its parent's, which was
    in use, any other one makes its own.
    """
    program = tmp_path / "pool.py"
    program.write_text(
        textwrap.dedent(
            """
            import asyncio, multiprocessing, os
            import espresso

            METHOD, FACE = os.environ["TEST_METHOD"], os.environ["TEST_FACE"]
            client = espresso if FACE == "module" else getattr(espresso, FACE)()

            def cancel(symbol):
                if FACE == "AsyncClient":
                    return asyncio.run(client.cancel_all(symbol))
                return client.cancel_all(symbol)

            if __name__ == "__main__":
                context = multiprocessing.get_context(METHOD)
                if METHOD == "forkserver":
                    context.set_forkserver_preload(["espresso"])
                cancel("BEFORE")
                with context.Pool(2) as pool:
                    results = pool.map(cancel, [f"P{n}" for n in range(8)])
                    assert [len(r["order_ids"]) for r in results] == [2] * 8
                    try:
                        pool.apply(cancel, ["P0"])
                    except espresso.OrderNotFoundError as error:
                        assert error.code == 4200 and error.symbol == "P0"
                    pool.close()
                    pool.join()
                cancel("AFTER")
            """
        )
    )
    for symbol in ("BEFORE", "AFTER", *(f"P{n}" for n in range(8))):
        exchange.place(symbol, 2)
    env = default_environment(clean_env, exchange)
    env.update(PYTHONPATH=str(ROOT), TEST_METHOD=method, TEST_FACE=face)
    run(program, env).check()
    seen = dict(zip(symbols(exchange), connections(exchange), strict=False))
    assert len(exchange.calls) == 11  # P0 twice
    assert seen["BEFORE"] == seen["AFTER"]
    assert seen["BEFORE"] not in {seen[f"P{n}"] for n in range(8)}
