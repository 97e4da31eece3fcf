"""Ctrl-C and other signals: in every phase of a call, and with every handler.

The times are bounds on correctness, far above what is promised (0.1 s): a call that
did not look for signals would end seconds later. ``python -m tests.measure`` prints
the real figures.
"""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import espresso
from espresso.sandbox import Exchange
from tests.children import PRELUDE, Child, environment, run
from tests.obstacles import HUNG_NAME, Gate, HungNames

pytestmark = pytest.mark.alone

BOUND = 1.0  # seconds from the signal to KeyboardInterrupt
SYMBOL = "ADAUSDM"

NOT_OUT = "had not gone out"
OUT = "had gone out"

# --- where a signal can strike ---------------------------------------------------


@dataclass(frozen=True)
class Scene:
    """A call that is held in one phase."""

    arrived: Callable[[Child], object]
    """Waits until the child's call is in that phase."""
    options: Mapping[str, Any] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    clear: Callable[[], object] = lambda: None
    """Lets the next call through."""
    afterwards: str = SYMBOL
    """What the next call ends with."""


@contextmanager
def name_lookup(exchange: Exchange, folder: Path) -> Iterator[Scene]:
    if not HungNames.supported:
        pytest.skip("no LD_PRELOAD here")
    names = HungNames(folder)
    port = exchange.url.rpartition(":")[2]
    yield Scene(
        arrived=lambda child: names.wait_for(1),
        options={"base_url": f"https://{HUNG_NAME}:{port}"},
        env=names.env,
        clear=names.open,
        afterwards="CertificateError",  # the certificate is for another name
    )


@contextmanager
def connecting(exchange: Exchange, folder: Path) -> Iterator[Scene]:
    with Gate(exchange.url, full=True) as gate:
        # Nobody sees a SYN that gets no answer: some time must do.
        yield Scene(
            arrived=lambda child: time.sleep(0.3),
            options={"base_url": gate.url},
            clear=gate.open,
        )


@contextmanager
def handshake(exchange: Exchange, folder: Path) -> Iterator[Scene]:
    with Gate(exchange.url) as gate:
        yield Scene(
            arrived=lambda child: gate.wait_for(1),
            options={"base_url": gate.url},
            clear=gate.open,
        )


@contextmanager
def waiting(exchange: Exchange, folder: Path) -> Iterator[Scene]:
    exchange.fault("hang")
    yield Scene(arrived=lambda child: exchange.wait_for_calls(1))


@contextmanager
def dripping_body(exchange: Exchange, folder: Path) -> Iterator[Scene]:
    exchange.place(SYMBOL, 50)
    exchange.fault("drip", sent=200, interval=0.02)
    yield Scene(arrived=lambda child: exchange.wait_for_calls(1))


def expect_attempts(n: int) -> Callable[[Child], None]:
    def arrived(child: Child) -> None:
        for number in range(1, n + 1):
            child.expect(f"attempt {number}")

    return arrived


@contextmanager
def backoff_after_refusal(exchange: Exchange, folder: Path) -> Iterator[Scene]:
    exchange.reply("429_code_4290")  # Retry-After: 2
    yield Scene(arrived=expect_attempts(1))


@contextmanager
def backoff_after_unknown(exchange: Exchange, folder: Path) -> Iterator[Scene]:
    exchange.fault("5000_as_400", times=None)
    # The fourth pause lasts at least 0.4 s.
    yield Scene(
        arrived=expect_attempts(4),
        options={"max_retries": 10},
        clear=exchange.clear_faults,
    )


@contextmanager
def backoff_after_no_connection(exchange: Exchange, folder: Path) -> Iterator[Scene]:
    exchange.fault("connect_reset", times=None)
    yield Scene(
        arrived=expect_attempts(5),
        options={"max_retries": 10},
        clear=exchange.clear_faults,
    )


Phase = Callable[[Exchange, Path], AbstractContextManager[Scene]]
# The phase, and whether a request had gone out.
PHASES: dict[str, tuple[Phase, bool]] = {
    "name look-up": (name_lookup, False),
    "connect": (connecting, False),
    "TLS handshake": (handshake, False),
    "waiting": (waiting, True),
    "dripping body": (dripping_body, True),
    "back-off after unknown": (backoff_after_unknown, True),
    "back-off after a refusal": (backoff_after_refusal, True),
    "back-off after no connection": (backoff_after_no_connection, False),
}
phases = pytest.mark.parametrize(("phase", "gone_out"), PHASES.values(), ids=PHASES)

CALL = (
    PRELUDE
    + """
import json, signal

client = connect(
    on_event=lambda event: say("attempt", event.attempt),
    **{"connect_timeout": 19, **json.loads(sys.argv[1])},
)
say("calling")
try:
    client.cancel_all("ADAUSDM")
except KeyboardInterrupt as stop:
    say(json.dumps([time.monotonic(), getattr(stop, "__notes__", [])]))
sys.stdin.readline()  # the test has cleared the way
try:
    say(client.cancel_all("ADAUSDM", missing_ok=True)["symbol"])
except espresso.EspressoError as error:
    say(type(error).__name__)
"""
)


@phases
def test_ctrl_c_ends_the_call(
    phase: Phase,
    gone_out: bool,
    exchange: Exchange,
    clean_env: dict[str, str],
    tmp_path: Path,
) -> None:
    with ExitStack() as stack:
        scene = stack.enter_context(phase(exchange, tmp_path))
        env = {**environment(clean_env, exchange), **scene.env}
        child = stack.enter_context(Child(CALL, env, json.dumps(dict(scene.options))))
        child.expect("calling")
        scene.arrived(child)
        time.sleep(0.05)  # into the middle of the phase, not to its first moment
        posts = len(exchange.calls)
        sent_at = child.signal(signal.SIGINT)
        caught_at, notes = json.loads(child.line())
        scene.clear()
        child.tell()
        last = child.end().check().out.splitlines()[-1]
    print(f"{caught_at - sent_at:.4f} s")
    assert caught_at - sent_at < BOUND
    assert len(notes) == 1
    assert (NOT_OUT in notes[0]) != gone_out, notes
    assert last == scene.afterwards
    went_through = scene.afterwards == SYMBOL
    assert len(exchange.calls) == posts + went_through  # nothing was sent again


def test_ctrl_c_while_other_threads_are_busy(
    exchange: Exchange, clean_env: dict[str, str]
) -> None:
    busy = """
import threading
def count():
    while True:
        pass
for _ in range(4):
    threading.Thread(target=count, daemon=True).start()
"""
    exchange.fault("hang")
    with Child(busy + CALL, environment(clean_env, exchange), "{}") as child:
        child.expect("calling")
        exchange.wait_for_calls(1)
        sent_at = child.signal(signal.SIGINT)
        caught_at, notes = json.loads(child.line())
        child.tell()
        assert child.end().check().out.split()[-1] == SYMBOL
    print(f"{caught_at - sent_at:.4f} s")
    assert caught_at - sent_at < BOUND
    assert OUT in notes[0]


# --- an exception out of on_event: the same road, without a signal ---------------


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("reply", ["200_two_orders", "400_code_4200", "503_code_5001"])
def test_an_interrupt_after_the_answer_does_not_deny_the_request(
    kind: type[BaseException], reply: str, exchange: Exchange
) -> None:
    def stop(event: object) -> None:
        raise kind

    client = espresso.Client(
        exchange.key, base_url=exchange.url, ca_file=exchange.ca_file, on_event=stop
    )
    exchange.reply(reply)
    with client, pytest.raises(kind) as caught:
        client.cancel_all(SYMBOL)
    assert len(exchange.calls) == 1
    (note,) = caught.value.__notes__
    assert NOT_OUT not in note
    assert "nothing was cancelled" not in note or not reply.startswith("200")


# --- what handlers do ------------------------------------------------------------


def handled(handler: str, after: str = "") -> str:
    """A program that calls with `handler` as the body of its SIGUSR1 handler."""
    return f"""{PRELUDE}
import signal
log = []
def handle(number, frame):
    {handler}
signal.signal(signal.SIGUSR1, handle)
client = connect()
try:
    result = client.cancel_all("ADAUSDM")
    log.append(sorted(result))
except espresso.EspressoError as error:
    log += [type(error).__name__, error.outcome]
{after}
print(log)
"""


def signalled(program: str, exchange: Exchange, env: dict[str, str]) -> Any:
    """How the program ends that gets SIGUSR1 in its first call."""
    with Child(program, environment(env, exchange)) as child:
        exchange.wait_for_calls(1)
        child.signal(signal.SIGUSR1)
        return child.end()


def test_a_handler_that_returns_lets_the_call_go_on(
    exchange: Exchange, clean_env: dict[str, str]
) -> None:
    exchange.place(SYMBOL, 2)
    exchange.fault("slow", seconds=0.5)
    program = handled("log.append('handled')")
    ended = signalled(program, exchange, clean_env).check()
    # In this order: the handler ran while the call waited, not after it.
    assert ended.out.strip() == "['handled', ['order_ids', 'symbol']]"
    assert len(exchange.calls) == 1


def test_a_handler_that_exits_ends_the_call(
    exchange: Exchange, clean_env: dict[str, str]
) -> None:
    exchange.fault("hang")
    ended = signalled(handled("sys.exit(7)"), exchange, clean_env)
    assert ended.status == 7, ended.err
    assert len(exchange.calls) == 1


def test_a_handler_may_press_the_button(
    exchange: Exchange, clean_env: dict[str, str]
) -> None:
    exchange.place(SYMBOL, 2)
    exchange.place("NIGHTUSDM", 3)
    exchange.fault("slow", seconds=0.5)
    program = handled("log.append(len(client.cancel_all('NIGHTUSDM')['order_ids']))")
    ended = signalled(program, exchange, clean_env).check()
    assert ended.out.strip() == "[3, ['order_ids', 'symbol']]"
    assert [call.symbol for call in exchange.calls] == [SYMBOL, "NIGHTUSDM"]
    assert not exchange.open_orders()


def test_a_handler_may_close_the_client(
    exchange: Exchange, clean_env: dict[str, str]
) -> None:
    exchange.fault("hang")
    after = """
try:
    client.cancel_all("ADAUSDM")
except RuntimeError:
    log.append("closed")
"""
    started = time.monotonic()
    program = handled("client.close()", after)
    ended = signalled(program, exchange, clean_env).check()
    assert ended.out.strip() == "['ConnectionLostError', 'unknown', 'closed']"
    assert ended.at - started < 10  # the call's own time-out is 20 s


def test_a_handler_that_raises_its_own_exception(
    exchange: Exchange, clean_env: dict[str, str]
) -> None:
    exchange.fault("hang")
    program = handled("raise LookupError('mine')").replace(
        "except espresso.EspressoError as error:\n    log += ["
        "type(error).__name__, error.outcome]",
        "except LookupError as error:\n    log += [str(error), *error.__notes__]",
    )
    ended = signalled(program, exchange, clean_env).check()
    assert "'mine'" in ended.out
    assert OUT in ended.out


# --- storms ----------------------------------------------------------------------

ITIMER_STORM = """
signal.signal(signal.SIGALRM, handle)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
"""
CHILD_STORM = """
import threading
signal.signal(signal.SIGCHLD, handle)
def send():
    while True:
        os.kill(os.getpid(), signal.SIGCHLD)
        time.sleep(0.001)
threading.Thread(target=send, daemon=True).start()
"""
STORM_CALLS = 60


@pytest.mark.parametrize("storm", [ITIMER_STORM, CHILD_STORM], ids=["ALRM", "CHLD"])
def test_a_storm_of_signals_changes_nothing(
    storm: str, exchange: Exchange, clean_env: dict[str, str]
) -> None:
    program = f"""{PRELUDE}
import signal
count = 0
def handle(number, frame):
    global count
    count += 1
{storm}
for n in range({STORM_CALLS}):
    with connect() as client:  # with a handshake each
        assert len(client.cancel_all(f"S{{n}}")["order_ids"]) == 2
signal.setitimer(signal.ITIMER_REAL, 0)
print(count)
"""
    for n in range(STORM_CALLS):
        exchange.place(f"S{n}", 2)
    exchange.fault("drip", size=4, interval=0.001, times=5)
    ended = run(program, environment(clean_env, exchange)).check()
    assert int(ended.out) > 50
    assert [call.symbol for call in exchange.calls] == [
        f"S{n}" for n in range(STORM_CALLS)
    ]


FACES = {
    "Client": """
def call(client, symbol):
    return client.cancel_all(symbol)["order_ids"]
""",
    "AsyncClient": """
import asyncio
def connect():
    return espresso.AsyncClient(
        os.environ["TEST_KEY"], base_url=os.environ["TEST_URL"],
        ca_file=os.environ["TEST_CA"], timeout=20,
    )
def call(client, symbol):
    return asyncio.run(client.cancel_all(symbol))["order_ids"]
""",
}


@pytest.mark.parametrize("face", FACES.values(), ids=FACES)
def test_signals_at_every_thread_change_nothing(
    face: str, exchange: Exchange, clean_env: dict[str, str]
) -> None:
    """pthread_kill from one thread at those that call, and at the main one."""
    program = f"""{PRELUDE}{face}
import signal, threading
count = 0
def handle(number, frame):
    global count
    count += 1
signal.signal(signal.SIGUSR1, handle)
enough = threading.Event()
def send(threads):
    while not enough.is_set():
        for thread in threads:
            if thread.is_alive():
                signal.pthread_kill(thread.ident, signal.SIGUSR1)
        time.sleep(0.001)
wrong = []
def work(worker):
    client = connect()
    for n in range({STORM_CALLS // 4}):
        found = call(client, f"S{{4 * n + worker}}")
        if len(found) != 2:
            wrong.append(found)
workers = [threading.Thread(target=work, args=[n]) for n in range(3)]
for worker in workers: worker.start()
sender = threading.Thread(target=send, args=[[*workers, threading.main_thread()]])
sender.start()
work(3)
for worker in workers: worker.join()
enough.set()
sender.join()
assert not wrong, wrong
print(count)
"""
    for n in range(STORM_CALLS):
        exchange.place(f"S{n}", 2)
    exchange.fault("drip", size=4, interval=0.001, times=8)
    ended = run(program, environment(clean_env, exchange)).check()
    assert int(ended.out) > 10
    posts = sorted(call.symbol or "" for call in exchange.calls)
    assert posts == sorted(f"S{n}" for n in range(STORM_CALLS))


@pytest.mark.parametrize("storm", [ITIMER_STORM, CHILD_STORM], ids=["ALRM", "CHLD"])
def test_a_storm_whose_handler_presses_the_button(
    storm: str, exchange: Exchange, clean_env: dict[str, str]
) -> None:
    """On the client whose call was interrupted: each press gets its own answer."""
    program = f"""{PRELUDE}
import signal
pressed = inside = 0
client = connect()
def handle(number, frame):
    global pressed, inside
    if inside or pressed == {STORM_CALLS}:
        return
    inside = 1
    assert len(client.cancel_all(f"H{{pressed}}")["order_ids"]) == 1
    pressed += 1
    inside = 0
{storm}
for n in range({STORM_CALLS}):
    assert len(client.cancel_all(f"S{{n}}")["order_ids"]) == 2
while pressed < {STORM_CALLS}:
    time.sleep(0.001)
signal.setitimer(signal.ITIMER_REAL, 0)
"""
    for n in range(STORM_CALLS):
        exchange.place(f"S{n}", 2)
        exchange.place(f"H{n}", 1)
    exchange.fault("drip", size=4, interval=0.001, times=5)
    run(program, environment(clean_env, exchange)).check()
    assert len({call.symbol for call in exchange.calls}) == 2 * STORM_CALLS
    assert len(exchange.calls) == 2 * STORM_CALLS


@pytest.mark.parametrize("way", ["add_signal_handler", "signal.signal"])
def test_a_handler_of_a_loop_may_press_the_button(
    way: str, exchange: Exchange, clean_env: dict[str, str]
) -> None:
    """As a task; or at once, by the blocking client, in the midst of the loop."""
    program = f"""{PRELUDE}{FACES["AsyncClient"]}
import signal
async def main():
    client, loop, tasks = connect(), asyncio.get_running_loop(), []
    blocking = espresso.Client(
        os.environ["TEST_KEY"], base_url=os.environ["TEST_URL"],
        ca_file=os.environ["TEST_CA"],
    )
    press = lambda: tasks.append(loop.create_task(client.cancel_all("NIGHTUSDM")))
    if {way!r} == "add_signal_handler":
        loop.add_signal_handler(signal.SIGUSR1, press)
    else:
        handle = lambda number, frame: say(blocking.cancel_all("NIGHTUSDM")["symbol"])
        signal.signal(signal.SIGUSR1, handle)
    first = await client.cancel_all("ADAUSDM")
    for task in tasks:
        say((await task)["symbol"])
    say(first["symbol"])
asyncio.run(main())
"""
    exchange.place(SYMBOL, 2)
    exchange.place("NIGHTUSDM", 3)
    exchange.fault("slow", seconds=0.5)
    ended = signalled(program, exchange, clean_env).check()
    assert ended.out.split() == ["NIGHTUSDM", SYMBOL]
    assert not exchange.open_orders()


def test_a_peer_that_resets_kills_nobody_by_sigpipe(
    exchange: Exchange, clean_env: dict[str, str]
) -> None:
    program = f"""{PRELUDE}
import signal
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
client = connect(max_retries=0)
for n in range(40):
    try:
        client.cancel_all("ADAUSDM", missing_ok=True)
    except espresso.TransportError:
        pass
client.cancel_all("ADAUSDM", missing_ok=True)
say("warm")
sys.stdin.readline()  # the exchange is gone
client.close()
print("alive")
"""
    for fault in ("reset", "reset_after_read", "connect_reset"):
        exchange.fault(fault, times=5)
    exchange.fault("truncate", sent=0, end="reset", times=5)
    exchange.fault("truncate", end="fin", times=5)
    with Child(program, environment(clean_env, exchange)) as child:
        child.expect("warm")
        exchange.close()
        child.tell()
        assert child.end().check().out.split() == ["alive"]


# --- any moment ------------------------------------------------------------------

MOMENTS = 200

RANDOM_MOMENTS = f"""{PRELUDE}
import random, signal

class Stop(Exception):
    pass

def stop(number, frame):
    raise Stop

random.seed(3)
signal.signal(signal.SIGALRM, stop)
clients = [connect(), connect(), connect()]
for n in range({MOMENTS}):
    if n % 4 == 0:
        clients[n % 3] = connect()
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-4, 4e-3))
            clients[n % 3].cancel_all(f"M{{n}}")
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        say("done", f"M{{n}}")
    except Stop as error:
        say("stopped", f"M{{n}}", *getattr(error, "__notes__", ["late"]))
"""


def test_at_any_moment_the_note_is_true(
    exchange: Exchange, clean_env: dict[str, str]
) -> None:
    for n in range(MOMENTS):
        exchange.place(f"M{n}")
    ended = run(RANDOM_MOMENTS, environment(clean_env, exchange)).check()
    posts = [call.symbol for call in exchange.calls]
    said = [line.split(" ", 2) for line in ended.out.splitlines()]
    assert len(said) == MOMENTS
    assert len(set(posts)) == len(posts)  # never twice
    for what, symbol, *rest in said:
        if what == "done":
            assert symbol in posts
        elif NOT_OUT in rest[0]:
            assert symbol not in posts, f"{symbol}: {rest[0]}"
    words = [what for what, *_ in said]
    print({word: words.count(word) for word in set(words)})
    assert {"done", "stopped"} == set(words)


# --- threads ---------------------------------------------------------------------


def test_only_the_main_thread_is_interrupted(
    exchange: Exchange, clean_env: dict[str, str]
) -> None:
    program = f"""{PRELUDE}
import queue, threading
client, results = connect(), queue.Queue()
call = lambda: results.put(client.cancel_all("ADAUSDM"))
threading.Thread(target=call).start()
try:
    results.get()
except KeyboardInterrupt:
    say(time.monotonic())
say(results.get()["order_ids"])
"""
    ids = exchange.place(SYMBOL, 2)
    exchange.fault("slow", seconds=1.0)
    with Child(program, environment(clean_env, exchange)) as child:
        exchange.wait_for_calls(1)
        sent_at = child.signal(signal.SIGINT)
        assert float(child.line()) - sent_at < BOUND
        assert child.end().check().out.strip() == str(ids)
    assert len(exchange.calls) == 1


def test_a_signal_that_another_thread_took_ends_the_call(exchange: Exchange) -> None:
    """It does not end the main thread's poll(2); the look after each slice does."""
    client = espresso.Client(
        exchange.key, base_url=exchange.url, ca_file=exchange.ca_file, timeout=5
    )
    exchange.fault("hang")
    # Whoever runs the tests in the background has SIGINT ignored.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    before = time.monotonic()
    timer = threading.Timer(0.2, signal.raise_signal, [signal.SIGINT])
    timer.start()
    try:
        with client, pytest.raises(KeyboardInterrupt):
            client.cancel_all(SYMBOL)
    finally:
        timer.join()
        signal.signal(signal.SIGINT, handler)
    assert time.monotonic() - before < 0.2 + BOUND
