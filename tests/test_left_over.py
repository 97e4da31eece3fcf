"""The end of the interpreter with an AsyncClient or a guard left somewhere.

What test_exit.py is for the blocking client. Status 0, nothing fatal, soon; and of a
guard, wherever it was: no order stays open.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from espresso.sandbox import Exchange
from tests.children import (
    PATIENCE,
    PRELUDE,
    Child,
    Ended,
    default_environment,
    environment,
)
from tests.guarded import ARMED, SYMBOL, has_ended, wait_until, watchdog_pid
from tests.obstacles import Gate
from tests.test_exit import PHASES, THREADS, faults

pytestmark = pytest.mark.alone

AT_ONCE = 4
BOUND = 10.0
"""Seconds to the end of the process; 1 is promised, who hangs takes 20 and more."""

LOOPED = PRELUDE + (
    "import asyncio\n"
    "def looped(**options):\n"
    "    return espresso.AsyncClient(\n"
    "        os.environ['TEST_KEY'], base_url=os.environ['TEST_URL'],\n"
    "        ca_file=os.environ['TEST_CA'], timeout=20, **options)\n"
)


def leave(
    program: str, env: dict[str, str], arrived: Callable[[Child], object]
) -> Ended:
    """Run a program that waits to be told to leave; AssertionError if it is late."""
    with Child(program, env) as child:
        arrived(child)
        child.tell()
        at = time.monotonic()
        ended = child.end().check()
    assert ended.at - at < BOUND
    assert "Fatal" not in ended.err
    return ended


# --- daemon threads with a loop each ---------------------------------------------

RUNS = 2 * len(PHASES)

# No log: a daemon thread that is stopped while it writes to stderr ends CPython itself
# ("could not acquire lock for <stderr> at interpreter shutdown").
DAEMONS = f"""{LOOPED}
import logging, threading
logging.disable()
async def main():
    client = looped(
        attempt_timeout=20, connect_timeout=20, max_retries=1000,
        on_event=lambda event: say("attempt"),
    )
    await client.cancel_all("ADAUSDM")
for _ in range({THREADS}):
    threading.Thread(target=lambda: asyncio.run(main()), daemon=True).start()
sys.stdin.readline()
say("leaving", time.monotonic())
"""


def one_run(number: int, env: dict[str, str]) -> str:
    """One end in the middle of calls; "" if all is well."""
    phase = PHASES[number % len(PHASES)]
    with Exchange(rate=None) as exchange, phase(exchange) as (extra, arrived):
        env = {**environment(env, exchange), **extra}
        with Child(DAEMONS, env) as child:
            arrived(child)
            child.tell()
            ended = child.end()
    label = f"run {number}, {phase.__name__}"
    return "; ".join(f"{label}: {fault}" for fault in faults(ended, BOUND))


def test_loops_of_daemon_threads_in_every_phase(clean_env: dict[str, str]) -> None:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        said = list(pool.map(one_run, range(RUNS), itertools.repeat(clean_env)))
    assert not list(filter(None, said))


# --- an AsyncClient left over ----------------------------------------------------

IDLE = {
    "in a cycle": """
class Bot:
    pass
bot = Bot()
bot.bot = bot
bot.client = looped(on_event=lambda event: bot)
asyncio.run(bot.client.cancel_all("ADAUSDM"))
""",
    "with a loop that is never closed": """
loop = asyncio.new_event_loop()
client = looped()
loop.run_until_complete(client.cancel_all("ADAUSDM"))
""",
    "in __del__": """
class Bot:
    def __init__(self):
        self.client = looped()
    def __del__(self):  # too late for asyncio itself, not for the client
        assert not self.client.closed and "espresso" in repr(self.client)
bot = Bot()
asyncio.run(bot.client.cancel_all("ADAUSDM"))
""",
    "in an async generator": """
async def bot():
    client = looped()
    await client.cancel_all("ADAUSDM")
    yield
running = bot()
loop = asyncio.new_event_loop()
loop.run_until_complete(anext(running))
""",
    "closed by an exit handler": """
import atexit
client = looped()
asyncio.run(client.cancel_all("ADAUSDM"))
atexit.register(lambda: asyncio.run(client.aclose()))
""",
}


@pytest.mark.parametrize("body", IDLE.values(), ids=IDLE)
def test_a_client_that_is_left_over(
    body: str, exchange: Exchange, clean_env: dict[str, str]
) -> None:
    exchange.place(SYMBOL, 2)
    env = environment(clean_env, exchange)
    program = f"{LOOPED}{body}say('ready')\nsys.stdin.readline()\n"
    ended = leave(program, env, lambda child: child.expect("ready"))
    assert (ended.out, ended.err) == ("", "")
    assert [call.status for call in exchange.calls] == [200]


TOLD = """
async def told():
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
"""
UNFINISHED = {
    "in a coroutine": """
async def main():
    global coroutine
    coroutine = client.cancel_all("ADAUSDM")
    coroutine.send(None)
    await told()
asyncio.run(main())
""",
    "in a coroutine, its loop open": """
async def main():
    global coroutine
    coroutine = client.cancel_all("ADAUSDM")
    coroutine.send(None)
    await told()
loop = asyncio.new_event_loop()
loop.run_until_complete(main())
""",
    "in a task of a loop that stands still": """
async def main():
    global task
    task = asyncio.create_task(client.cancel_all("ADAUSDM"))
    task._log_destroy_pending = False
    await told()
loop = asyncio.new_event_loop()
loop.run_until_complete(main())
""",
    "in a task that holds its loop in a cycle": """
class Bot:
    async def main(self):
        self.task = asyncio.create_task(client.cancel_all("ADAUSDM"))
        self.task._log_destroy_pending = False
        await told()
bot = Bot()
bot.loop = asyncio.new_event_loop()
bot.loop.run_until_complete(bot.main())
bot.me = bot
del bot
""",
}


@pytest.mark.parametrize("body", UNFINISHED.values(), ids=UNFINISHED)
def test_a_call_that_is_left_unfinished(
    body: str, exchange: Exchange, clean_env: dict[str, str]
) -> None:
    exchange.fault("hang", times=None)
    env = environment(clean_env, exchange)
    program = f"{LOOPED}client = looped()\n{TOLD}{body}"
    ended = leave(program, env, lambda child: exchange.wait_for_calls(1, PATIENCE))
    assert (ended.out, ended.err) == ("", "")
    assert len(exchange.calls) == 1


# --- a guard left over -----------------------------------------------------------

GUARDS = {
    "in a cycle": """
class Bot:
    pass
bot = Bot()
bot.me = bot
bot.guard = armed(espresso.guard("ADAUSDM").start())
del bot
""",
    "in __del__": """
class Bot:
    def __init__(self):
        self.guard = armed(espresso.guard("ADAUSDM").start())
    def __del__(self):
        self.guard.stop()
bot = Bot()
""",
    "in a generator": """
def bot():
    with espresso.guard("ADAUSDM") as g:
        armed(g)
        yield
running = bot()
next(running)
""",
    "in a coroutine that is never finished": """
import asyncio
async def bot():
    async with espresso.guard("ADAUSDM") as g:
        armed(g)
        inside.set()
        await asyncio.Event().wait()
async def main():
    global task, inside
    inside = asyncio.Event()
    task = asyncio.create_task(bot())
    task._log_destroy_pending = False
    await inside.wait()
loop = asyncio.new_event_loop()
loop.run_until_complete(main())
""",
    "in a daemon thread": """
def bot():
    with espresso.guard("ADAUSDM") as g:
        armed(g)
        threading.Event().wait()
threading.Thread(target=bot, daemon=True).start()
""",
    "of a client in a cycle through on_event": """
class Bot:
    def __init__(self):
        self.client = connect(on_event=self.hear)
        self.guard = armed(self.client.guard("ADAUSDM").start())
    def hear(self, event):
        pass
Bot()
""",
}


@pytest.mark.parametrize("body", GUARDS.values(), ids=GUARDS)
def test_a_guard_that_is_left_over(
    body: str, exchange: Exchange, clean_env: dict[str, str]
) -> None:
    env = default_environment(clean_env, exchange)
    program = f"{ARMED}{body}sys.stdin.readline()\n"
    with Child(program, env) as child:
        watchdog = watchdog_pid(child.line())
        exchange.place(SYMBOL, 2)
        child.tell()
        ended = child.end()
    assert ended.status == 0, ended.err
    assert "Fatal" not in ended.err
    wait_until(lambda: has_ended(watchdog), "the watchdog ends")
    assert not exchange.open_orders()


@pytest.mark.parametrize("phase", ["arming", "leaving"])
def test_a_daemon_thread_in_the_middle_of_a_guards_work(
    phase: str, exchange: Exchange, clean_env: dict[str, str]
) -> None:
    """Arming, nothing was promised yet; leaving, the watchdog brings it to its end."""
    program = f"""{ARMED}
def bot():
    with espresso.guard("ADAUSDM", timeout=15) as g:
        armed(g)
threading.Thread(target=bot, daemon=True).start()
sys.stdin.readline()
"""
    env = default_environment(clean_env, exchange)
    with ExitStack() as stack:
        if phase == "arming":
            gate = stack.enter_context(Gate(exchange.url))
            env["DELTADEFI_BASE_URL"] = gate.url
            leave(program, env, lambda child: gate.wait_for(1))
            assert not exchange.calls
        else:
            exchange.place(SYMBOL, 2)
            exchange.fault("hang", times=None)
            watchdogs = []

            def arrived(child: Child) -> None:
                watchdogs.append(watchdog_pid(child.line()))
                exchange.wait_for_calls(1, PATIENCE)

            leave(program, env, arrived)
            exchange.clear_faults()
            wait_until(lambda: has_ended(watchdogs[0]), "the watchdog ends")
            assert not exchange.open_orders()
