"""The end of the interpreter, with calls still under way.

An extension on libcurl that does nothing about it dies in most runs: the exit hooks
of OpenSSL free what threads inside a call still use.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from espresso.sandbox import Exchange
from tests.children import PATIENCE, PRELUDE, Child, Ended, environment, run
from tests.obstacles import Gate

pytestmark = pytest.mark.alone

SYMBOL = "ADAUSDM"
BOUND = 1.0  # seconds from the end of the main thread to the end of the process

# --- daemon threads in a call ----------------------------------------------------

THREADS = 4
RUNS = 60
AT_ONCE = 4

# Four daemon threads call; main leaves when the test says that they are where they
# should be. "ssl" first: then its exit hook is registered before anything of ours.
DAEMONS = """
import sys
if sys.argv[1] == "ssl":
    import ssl
""" + (
    PRELUDE
    + f"""
import threading
def call():
    client = connect(
        attempt_timeout=20, connect_timeout=20, max_retries=1000,
        on_event=lambda event: say("attempt"),
    )
    client.cancel_all("ADAUSDM")
for _ in range({THREADS}):
    threading.Thread(target=call, daemon=True).start()
sys.stdin.readline()
say("leaving", time.monotonic())
"""
)

Arrived = Callable[[Child], object]


@contextmanager
def handshake(exchange: Exchange) -> Iterator[tuple[dict[str, str], Arrived]]:
    with Gate(exchange.url) as gate:
        yield {"TEST_URL": gate.url}, lambda child: gate.wait_for(THREADS)


@contextmanager
def waiting(exchange: Exchange) -> Iterator[tuple[dict[str, str], Arrived]]:
    exchange.fault("hang", times=None)
    yield {}, lambda child: exchange.wait_for_calls(THREADS, PATIENCE)


@contextmanager
def drip(exchange: Exchange) -> Iterator[tuple[dict[str, str], Arrived]]:
    exchange.fault("drip", interval=0.005, times=None)
    yield {}, lambda child: exchange.wait_for_calls(THREADS, PATIENCE)


@contextmanager
def pause(exchange: Exchange) -> Iterator[tuple[dict[str, str], Arrived]]:
    def arrived(child: Child) -> None:
        for _ in range(THREADS):
            child.expect("attempt")

    exchange.reply("429_code_4290", times=None)  # Retry-After: 2
    yield {}, arrived


@contextmanager
def anywhere(exchange: Exchange) -> Iterator[tuple[dict[str, str], Arrived]]:
    """Calls that fail and go on at once, so that the end can strike anything."""

    def arrived(child: Child) -> None:
        child.expect("attempt")

    exchange.fault("connect_reset", times=None)
    yield {}, arrived


PHASES = (handshake, waiting, drip, pause, anywhere)


def leave(number: int, env: dict[str, str]) -> str:
    """One run; "" if all is well."""
    phase = PHASES[number % len(PHASES)]
    first = ("ssl", "espresso")[number // len(PHASES) % 2]
    with Exchange(rate=None) as exchange, phase(exchange) as (extra, arrived):
        env = {**environment(env, exchange), **extra}
        with Child(DAEMONS, env, first) as child:
            arrived(child)
            child.tell()
            ended = child.end()
    label = f"run {number}, {phase.__name__}, {first} first"
    return "; ".join(f"{label}: {fault}" for fault in faults(ended))


def faults(ended: Ended, bound: float = BOUND) -> Iterator[str]:
    if ended.status != 0:
        yield f"status {ended.status}: {ended.err}"
    left = [line for line in ended.out.splitlines() if line.startswith("leaving")]
    took = ended.at - float(left[0].split()[1]) if left else bound
    if took >= bound:
        yield f"took {took:.2f} s"


@pytest.mark.clock
def test_daemon_threads_in_a_call_do_not_hurt(clean_env: dict[str, str]) -> None:
    """60 of 60."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        said = list(pool.map(leave, range(RUNS), itertools.repeat(clean_env)))
    assert not list(filter(None, said))


def test_threads_that_are_no_daemons_are_waited_for(
    exchange: Exchange, clean_env: dict[str, str]
) -> None:
    """The interpreter joins them: their calls end as they would have."""
    program = f"""{PRELUDE}
import threading
client = connect()
def call(symbol):
    say(symbol, len(client.cancel_all(symbol)["order_ids"]))
for n in range(3):
    threading.Thread(target=call, args=[f"N{{n}}"]).start()
"""
    for n in range(3):
        exchange.place(f"N{n}", 2)
    exchange.fault("slow", seconds=0.3, times=3)
    ended = run(program, environment(clean_env, exchange)).check()
    assert sorted(ended.out.splitlines()) == ["N0 2", "N1 2", "N2 2"]


# --- the home-made guard ---------------------------------------------------------


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_an_exit_handler_can_press_the_button(
    when: str, busy: bool, exchange: Exchange, clean_env: dict[str, str]
) -> None:
    """Registered before or after our import, alone or with daemon threads calling."""
    register = "atexit.register(lambda: panic())"
    program = f"""
import atexit
{register if when == "before" else ""}
{PRELUDE}
{register if when == "after" else ""}
import threading
client = connect()
def panic():
    say(len(client.cancel_all("ADAUSDM")["order_ids"]))
    with connect() as fresh:
        say(len(fresh.cancel_all("NIGHTUSDM")["order_ids"]))
def call():
    client.cancel_all("IAGUSDM")
if {busy}:
    for _ in range(2):
        threading.Thread(target=call, daemon=True).start()
say("ready")
sys.stdin.readline()
"""
    exchange.place(SYMBOL, 2)
    exchange.place("NIGHTUSDM", 3)
    if busy:
        exchange.fault("hang", times=2)
    with Child(program, environment(clean_env, exchange)) as child:
        child.expect("ready")
        exchange.wait_for_calls(2 * busy)
        child.tell()
        ended = child.end().check()
    assert ended.out.split() == ["2", "3"]
    assert not exchange.open_orders()
    assert [call.symbol for call in exchange.calls[2 * busy :]] == [SYMBOL, "NIGHTUSDM"]


@pytest.mark.parametrize("caught", ["Exception", "BaseException"])
def test_other_threads_are_refused_once_the_exit_has_begun(
    caught: str, exchange: Exchange, clean_env: dict[str, str]
) -> None:
    """A daemon thread that calls again and again ends as by sys.exit, in silence;
    one that catches even that goes on, and sends nothing."""
    program = f"""
import atexit
def last():  # registered first: it runs after our drain
    time.sleep(0.1)
    said.clear()
    time.sleep(0.1)
    say("then", *set(said))
atexit.register(last)
{PRELUDE}
import threading
said = []
client = connect()
def call():
    while True:
        try:
            client.cancel_all("ADAUSDM", missing_ok=True)
            said.append("done")
        except {caught} as error:
            said.append(type(error).__name__)
for _ in range(2):
    threading.Thread(target=call, daemon=True).start()
time.sleep(0.2)
"""
    ended = run(program, environment(clean_env, exchange)).check()
    goes_on = caught == "BaseException"
    assert ended.out.split() == ["then"] + ["SystemExit"] * goes_on
    assert ended.err == ""
    assert {call.status for call in exchange.calls[:-2]} == {400}


def test_an_exit_handler_after_an_unhandled_exception(
    exchange: Exchange, clean_env: dict[str, str]
) -> None:
    program = f"""{PRELUDE}
import atexit
client = connect()
atexit.register(lambda: say(len(client.cancel_all("ADAUSDM")["order_ids"])))
raise ValueError("the bot died")
"""
    exchange.place(SYMBOL, 2)
    ended = run(program, environment(clean_env, exchange))
    assert ended.status == 1
    assert ended.out.split() == ["2"]
    assert "the bot died" in ended.err


# --- where a client can still be -------------------------------------------------

LEFT_OVER = {
    "in a global": "client = connect(); client.cancel_all('ADAUSDM')",
    "in a cycle": """
class Bot:
    pass
bot = Bot()
bot.bot = bot
bot.client = connect(on_event=lambda event: bot)
bot.client.cancel_all('ADAUSDM')
""",
    "in __del__": """
class Bot:
    def __init__(self):
        self.client = connect()
    def __del__(self):
        say(self.client.cancel_all('ADAUSDM')["symbol"])
bot = Bot()
""",
    "in the __del__ of a cycle": """
class Bot:
    def __init__(self):
        self.me = self
        self.client = connect()
    def __del__(self):
        say(self.client.cancel_all('ADAUSDM')["symbol"])
Bot()
""",
    "in a module that goes": """
import types
module = types.ModuleType("strategy")
sys.modules["strategy"] = module
module.client = connect()
module.client.warm_up()
""",
    "in a generator": """
def bot():
    with connect() as client:
        client.cancel_all('ADAUSDM')
        yield
running = bot()
next(running)
""",
    "in a thread's locals": """
import threading
def bot():
    client = connect()
    client.cancel_all('ADAUSDM')
    say("called")
    threading.Event().wait()
threading.Thread(target=bot, daemon=True).start()
sys.stdin.readline()
""",
}


@pytest.mark.parametrize("body", LEFT_OVER.values(), ids=LEFT_OVER)
def test_a_client_that_is_left_over(
    body: str, exchange: Exchange, clean_env: dict[str, str]
) -> None:
    """Nothing is said on stderr, not even under -X dev, and the status is 0."""
    exchange.place(SYMBOL, 2)
    env = environment(clean_env, exchange)
    flags = ["-X", "dev", "-W", "error"]
    with Child(PRELUDE + body, env, flags=flags) as child:
        if "say(" in body and "thread" in body:
            child.expect("called")
            child.tell()
        ended = child.end().check()
    assert ended.err == ""
    if "__del__" in body:
        assert ended.out.split() == [SYMBOL]
    if "warm_up" not in body:
        assert [call.status for call in exchange.calls] == [200]


def test_exit_by_other_ways(exchange: Exchange, clean_env: dict[str, str]) -> None:
    """os._exit and a signal end it at once, threads in calls or not."""
    program = f"""{PRELUDE}
import signal, threading
client = connect()
threading.Thread(target=client.cancel_all, args=["ADAUSDM"], daemon=True).start()
sys.stdin.readline()
{{}}
"""
    exchange.fault("hang", times=None)
    for n, (way, status) in enumerate(
        (("os._exit(5)", 5), ("os.kill(os.getpid(), signal.SIGTERM)", -15))
    ):
        with Child(program.format(way), environment(clean_env, exchange)) as child:
            exchange.wait_for_calls(n + 1)
            child.tell()
            assert child.end().status == status


def test_without_standard_streams(
    exchange: Exchange, clean_env: dict[str, str]
) -> None:
    """A daemon has closed 0, 1 and 2: sockets get these numbers, and all is well."""
    program = f"""{PRELUDE}
os.closerange(0, 3)
client = connect()
for _ in range(3):
    client.cancel_all("ADAUSDM", missing_ok=True)
client.close()
sys.stdin = sys.stdout = sys.stderr = None
"""
    run(program, environment(clean_env, exchange)).check()
    assert len(exchange.calls) == 3


def test_without_file_descriptors(
    exchange: Exchange, clean_env: dict[str, str]
) -> None:
    """None left: an error that says not_sent; some again: the client works."""
    program = f"""{PRELUDE}
import resource
client = connect(max_retries=0)
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
held = []
resource.setrlimit(resource.RLIMIT_NOFILE, (32, hard))
try:
    while True:
        held.append(os.dup(0))
except OSError:
    pass
for free in range(9):
    try:
        client.cancel_all("ADAUSDM", missing_ok=True)
        say("done", free)
        break
    except espresso.EspressoError as error:
        assert error.outcome == "not_sent", error
        assert not isinstance(error, espresso.CertificateError), error
    except MemoryError:
        pass
    os.close(held.pop())
else:
    raise AssertionError("never worked again")
"""
    ended = run(program, environment(clean_env, exchange)).check()
    assert ended.out.startswith("done")
    assert len(exchange.calls) == 1


def test_python_without_docstrings_and_asserts(
    exchange: Exchange, clean_env: dict[str, str]
) -> None:
    exchange.place(SYMBOL, 2)
    program = PRELUDE + 'say(len(connect().cancel_all("ADAUSDM")["order_ids"]))'
    ended = run(program, environment(clean_env, exchange), flags=["-OO"]).check()
    assert ended.out.split() == ["2"]
