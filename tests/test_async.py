"""What is true of the asyncio face alone: loops, tasks, cancelling, and the end.

Each test that needs nothing special of the loop runs on asyncio's own and on uvloop.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
import pickle
import random
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
import uvloop

import espresso
from espresso.sandbox import Exchange
from tests.children import PATIENCE, PRELUDE, Child, environment, run
from tests.obstacles import HUNG_NAME, HungNames
from tests.rawserver import RawServer, Wire, http

pytestmark = pytest.mark.alone

SYMBOL = "ADAUSDM"
T = TypeVar("T")
Loop = Callable[[], asyncio.AbstractEventLoop]

LOOPS: dict[str, Loop] = {
    "asyncio": asyncio.SelectorEventLoop,
    "uvloop": uvloop.new_event_loop,
}


@pytest.fixture(params=LOOPS.values(), ids=LOOPS)
def go(request: pytest.FixtureRequest) -> Callable[[Awaitable[T]], T]:
    """``asyncio.run`` on this kind of loop."""

    def run_it(main: Any) -> Any:
        with asyncio.Runner(loop_factory=request.param) as runner:
            return runner.run(main)

    return run_it


@pytest.fixture
def ex() -> Iterator[Exchange]:
    with Exchange(rate=None) as running_exchange:
        yield running_exchange


def make(ex: Any, **options: Any) -> espresso.AsyncClient:
    key = getattr(ex, "key", "sandbox-0")
    defaults = {"base_url": ex.url, "ca_file": ex.ca_file, "timeout": 5.0}
    return espresso.AsyncClient(key, **{**defaults, **options})


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


# --- the words --------------------------------------------------------------------


def test_the_same_words() -> None:
    for name in ("cancel_all", "warm_up"):
        ours = inspect.signature(getattr(espresso.AsyncClient, name))
        theirs = inspect.signature(getattr(espresso.Client, name))
        assert list(ours.parameters) == list(theirs.parameters)
        assert inspect.iscoroutinefunction(getattr(espresso.AsyncClient, name))
    assert str(inspect.signature(espresso.AsyncClient)) == str(
        inspect.signature(espresso.Client)
    )


def test_the_object(ex: Exchange) -> None:
    client = make(ex)
    assert repr(client) == f"<espresso.AsyncClient {ex.url} key=set timeout=5.0>"
    assert (client.base_url, client.timeout, client.closed) == (ex.url, 5.0, False)
    assert not isinstance(client, espresso.Client)
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(client)
    with pytest.raises(TypeError, match="ca_file"):
        espresso.AsyncClient(verify=False)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="on_event"):
        espresso.AsyncClient(on_event=1)  # type: ignore[arg-type]


def test_no_loop_no_call(ex: Exchange) -> None:
    coroutine = make(ex).cancel_all(SYMBOL)
    with pytest.raises(RuntimeError, match="no running event loop"):
        coroutine.send(None)


def test_warm_up(go: Any, ex: Exchange) -> None:
    events: list[espresso.Event] = []
    client = make(ex, on_event=events.append)

    async def main() -> float:
        seconds = await client.warm_up()
        await client.cancel_all(SYMBOL, missing_ok=True)
        return seconds

    assert 0 < go(main()) < 5
    assert [event.reused for event in events] == [True]
    assert [call.method for call in ex.requests] == ["HEAD", "POST"]


def test_a_warm_up_that_fails(go: Any, ex: Exchange) -> None:
    ex.fault("unknown_ca_certificate")
    with pytest.raises(espresso.CertificateError):
        go(make(ex).warm_up())


def test_async_with(go: Any, ex: Exchange) -> None:
    async def main() -> espresso.AsyncClient:
        async with make(ex) as client:
            await client.cancel_all(SYMBOL, missing_ok=True)
        with pytest.raises(RuntimeError, match="closed"):
            await client.cancel_all(SYMBOL)
        with pytest.raises(RuntimeError, match="closed"):
            await client.warm_up()
        with pytest.raises(RuntimeError, match="closed"):
            async with client:
                pass
        return client

    assert go(main()).closed


# --- loops ------------------------------------------------------------------------


def test_nothing_is_bound_to_a_loop(go: Any, ex: Exchange) -> None:
    """One object, five loops; the connection outlives each of them."""
    events: list[espresso.Event] = []
    client = make(ex, on_event=events.append)
    for _ in range(5):
        go(client.cancel_all(SYMBOL, missing_ok=True))
    assert [event.reused for event in events] == [False, True, True, True, True]
    assert {call.connection for call in ex.calls} == {1}


def test_another_kind_of_loop_each_time(ex: Exchange) -> None:
    client = make(ex)
    for factory in [*LOOPS.values(), *LOOPS.values()]:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(client.cancel_all(SYMBOL, missing_ok=True))
    assert len(ex.calls) == 4


def test_two_loops_in_two_threads(go: Any, ex: Exchange) -> None:
    client = make(ex)
    together = threading.Barrier(2)
    failures: list[BaseException] = []

    async def main() -> None:
        for _ in range(100):
            await asyncio.gather(
                *(client.cancel_all(SYMBOL, missing_ok=True) for _ in range(3))
            )

    def work() -> None:
        together.wait(10)
        try:
            go(main())
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failures == []
    assert len(ex.calls) == 600


def test_a_loop_that_was_never_closed(ex: Exchange) -> None:
    """Its connections are its own; the next loop makes others."""
    client = make(ex)
    loops = [asyncio.new_event_loop() for _ in range(2)]
    for _ in range(3):
        for loop in loops:
            loop.run_until_complete(client.cancel_all(SYMBOL, missing_ok=True))
    assert len({call.connection for call in ex.calls}) == 2
    for loop in loops:
        loop.close()


def left_in_flight(
    client: espresso.AsyncClient, arrived: Callable[[], object]
) -> asyncio.Task[Any]:
    """A call that is under way, on a loop that is closed."""
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)  # of a task that is pending
    task = loop.create_task(client.cancel_all(SYMBOL))
    while not arrived():
        loop.run_until_complete(asyncio.sleep(0.01))
    loop.close()
    return task


never_awaited = pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")


@never_awaited
def test_a_loop_closed_in_flight(ex: Exchange) -> None:
    client = make(ex)
    ex.fault("hang")
    left_in_flight(client, lambda: ex.calls)
    gc.collect()
    asyncio.run(client.cancel_all(SYMBOL, missing_ok=True))
    asyncio.run(client.aclose())


@never_awaited
def test_a_client_dropped_in_flight(ex: Exchange) -> None:
    """With its loop: the call is garbage, and so are its connection and its key."""
    client = make(ex)
    ex.fault("hang")
    left_in_flight(client, lambda: ex.calls)
    last = weakref.ref(client)
    del client
    gc.collect()
    assert last() is None


@never_awaited
def test_what_a_closed_loop_left_under_way_is_closed() -> None:
    """When its client is used again, or closed, on another loop."""
    closed = threading.Event()

    def silent(wire: Wire) -> None:
        wire.read_request()
        wire.hold()
        closed.set()

    with RawServer(silent) as server:
        client = make(server)
        task = left_in_flight(client, lambda: server.requests)
        assert not closed.wait(0.05)
        asyncio.run(client.aclose())
        assert closed.wait(PATIENCE)
        assert not task.done()


class NoReaders(asyncio.SelectorEventLoop):
    """What Windows' proactor loop says."""

    def add_reader(self, *args: Any) -> Any:
        raise NotImplementedError


def test_a_loop_without_add_reader_is_refused(ex: Exchange) -> None:
    client = make(ex)
    with asyncio.Runner(loop_factory=NoReaders) as runner:
        for _ in range(2):
            with pytest.raises(RuntimeError, match=r"add_reader.*asyncio\.to_thread"):
                runner.run(client.cancel_all(SYMBOL))
    assert ex.requests == []
    asyncio.run(client.cancel_all(SYMBOL, missing_ok=True))


class FullReaders(asyncio.SelectorEventLoop):
    """The selector takes no socket but the first two: its own, and our wake-up."""

    taken = 0

    def add_reader(self, *args: Any) -> Any:
        self.taken += 1
        if self.taken > 2:
            raise ValueError("filedescriptor out of range in select()")
        return super().add_reader(*args)

    def add_writer(self, *args: Any) -> Any:
        raise ValueError("filedescriptor out of range in select()")


def test_a_loop_that_takes_no_more(ex: Exchange) -> None:
    """The call ends at once, with the loop's own words."""
    client = make(ex)

    async def main() -> None:
        with pytest.raises(ValueError, match="out of range") as caught:
            await client.cancel_all(SYMBOL)
        assert "had not gone out" in caught.value.__notes__[0]

    started = time.monotonic()
    with asyncio.Runner(loop_factory=FullReaders) as runner:
        runner.run(main())
    assert time.monotonic() - started < 2.0
    asyncio.run(client.cancel_all(SYMBOL, missing_ok=True))


def test_debug_mode(go: Any, ex: Exchange) -> None:
    async def main() -> None:
        asyncio.get_running_loop().set_debug(True)
        async with make(ex) as client:
            await client.cancel_all([SYMBOL, "NIGHTUSDM"], missing_ok=True)

    go(main())


# --- cancelling -------------------------------------------------------------------


def test_cancelling_ends_the_transfer_at_once(go: Any) -> None:
    gone = threading.Event()

    def script(wire: Wire) -> None:
        wire.read_request()
        wire.hold()  # until the client goes
        gone.set()

    async def main(server: RawServer) -> None:
        task = asyncio.create_task(make(server, timeout=30).cancel_all(SYMBOL))
        while not server.posts:
            await asyncio.sleep(0.01)
        started = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        assert time.monotonic() - started < 0.5
        (note,) = caught.value.__notes__
        assert f"the request for {SYMBOL} had gone out" in note
        assert "unknown" in note
        assert await asyncio.to_thread(gone.wait, 5)

    with RawServer(script) as server:
        go(main(server))


def test_cancelled_before_it_left(go: Any) -> None:
    async def main(server: Any) -> None:
        task = asyncio.create_task(make(server).cancel_all(SYMBOL))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        assert "had not gone out" in caught.value.__notes__[0]

    with RawServer(Wire.hold, tls=False) as plain:  # where TLS is expected

        class AsTls:
            url = plain.url.replace("http:", "https:")
            ca_file = plain.ca_file

        go(main(AsTls()))
        assert plain.posts == []


def test_a_cancelled_list_says_it_of_each(go: Any, ex: Exchange) -> None:
    async def main() -> None:
        ex.fault("slow", seconds=0)
        ex.fault("hang", None)
        client = make(ex)
        task = asyncio.create_task(client.cancel_all([SYMBOL, "NIGHTUSDM"]))
        await asyncio.to_thread(ex.wait_for_calls, 2)
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        notes = "".join(caught.value.__notes__)
        assert SYMBOL in notes
        assert "NIGHTUSDM" in notes
        assert "had gone out" in notes

    go(main())


def test_the_note_knows_of_earlier_rounds(ex: Exchange, go: Any) -> None:
    """One round has cancelled, the next was refused: "nothing" would be a lie."""
    ex.place(SYMBOL, 2)
    seen: list[str] = []

    async def main() -> None:
        def on_event(event: espresso.Event) -> None:
            seen.append(event.outcome)
            if event.outcome == "done":
                ex.fault("locked_5002", times=None)
            else:
                task.cancel()

        async with make(ex, on_event=on_event) as client:
            call = client.cancel_all(SYMBOL, confirm=True, max_retries=5)
            task = asyncio.ensure_future(call)
            with pytest.raises(asyncio.CancelledError) as caught:
                await task
        assert seen == ["done", "rejected"]
        (note,) = caught.value.__notes__
        assert "was carried out" in note

    go(main())


def test_asyncio_timeout(go: Any, ex: Exchange) -> None:
    ex.fault("hang", None)

    async def main() -> None:
        started = time.monotonic()
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(0.2):
                await make(ex).cancel_all(SYMBOL)
        assert 0.19 <= time.monotonic() - started < 0.7
        assert type(caught.value) is TimeoutError  # not ours
        # Only the context, before asyncio began to name the cause [CPython 3.11.2].
        cancelled = caught.value.__cause__ or caught.value.__context__
        assert isinstance(cancelled, asyncio.CancelledError)
        assert "had gone out" in cancelled.__notes__[0]
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(make(ex).cancel_all(SYMBOL), 0.1)

    go(main())


def test_a_task_group_cancels_the_others(go: Any, ex: Exchange) -> None:
    ex.fault("hang", 2)

    async def main() -> None:
        client = make(ex)

        async def fail() -> None:
            await asyncio.to_thread(ex.wait_for_calls, 2)
            raise LookupError

        started = time.monotonic()
        with pytest.raises(ExceptionGroup) as caught:
            async with asyncio.TaskGroup() as group:
                group.create_task(client.cancel_all(SYMBOL))
                group.create_task(client.cancel_all("NIGHTUSDM"))
                group.create_task(fail())
        assert time.monotonic() - started < 2
        assert [type(error) for error in caught.value.exceptions] == [LookupError]

    go(main())


@pytest.mark.parametrize(
    ("factory", "count"),
    [(LOOPS["asyncio"], 1000), (LOOPS["uvloop"], 250)],
    ids=LOOPS,
)
def test_a_thousand_cancellations(factory: Loop, count: int, ex: Exchange) -> None:
    """At random moments; every answer belongs to its own call."""
    dice = random.Random(20261124)
    names = [f"PAIR{n}" for n in range(7)]
    for name in names:
        ex.place(name, 1)
    before = descriptors()

    async def one(client: espresso.AsyncClient, name: str, pause: float) -> int:
        task = asyncio.create_task(client.cancel_all(name, missing_ok=True))
        await asyncio.sleep(pause)
        task.cancel()
        try:
            result = await task
        except asyncio.CancelledError:
            result = await client.cancel_all(name, missing_ok=True)
            cancelled = 1
        else:
            cancelled = 0
        assert result["symbol"] == name
        return cancelled

    async def main() -> int:
        cancelled = 0
        async with make(ex, timeout=20) as client:
            await client.warm_up()
            while cancelled < count:
                # Most moments lie within a call, which takes a millisecond or two.
                pauses = [dice.choice([0, 0, dice.random() / 300]) for _ in names]
                cancelled += sum(
                    await asyncio.gather(
                        *(
                            one(client, name, pause)
                            for name, pause in zip(names, pauses, strict=True)
                        )
                    )
                )
        return cancelled

    with asyncio.Runner(loop_factory=factory) as runner:
        assert runner.run(main()) >= count
    assert not ex.open_orders()
    wait_until(lambda: descriptors() <= before + 2)


def wait_until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_coroutine_that_is_closed(ex: Exchange) -> None:
    """Not by a task: by whoever drives it by hand."""
    ex.fault("hang")
    client = make(ex)

    async def main() -> None:
        coroutine = client.cancel_all(SYMBOL)
        coroutine.send(None)
        while not ex.calls:
            await asyncio.sleep(0.01)
        coroutine.close()
        await client.cancel_all(SYMBOL, missing_ok=True)

    asyncio.run(main())


def test_ctrl_c(ex: Exchange, clean_env: dict[str, str]) -> None:
    program = (
        PRELUDE
        + """
import asyncio, signal, traceback
client = connect_async()
try:
    asyncio.run(client.cancel_all("ADAUSDM"))
except KeyboardInterrupt as error:
    say("".join(error.__context__.__notes__))
print(asyncio.run(client.cancel_all("ADAUSDM", missing_ok=True)))
"""
    )
    ex.fault("hang")
    with Child(program, environment(clean_env, ex), flags=["-X", "dev"]) as child:
        ex.wait_for_calls(1)
        time.sleep(0.1)
        at = child.signal(2)
        assert "had gone out" in child.line()
        assert time.monotonic() - at < 1.0
        ended = child.end().check()
    assert "'order_ids': []" in ended.out
    assert ended.err == ""


# --- many at once -----------------------------------------------------------------


@pytest.mark.parametrize("count", [300])
@pytest.mark.clock
def test_hundreds_at_once(count: int, go: Any, ex: Exchange) -> None:
    names = [f"PAIR{n}" for n in range(count)]
    for name in names:
        ex.place(name, 1)

    async def main() -> list[Any]:
        async with make(ex, timeout=30, connect_timeout=30) as client:
            return await asyncio.gather(*(client.cancel_all(name) for name in names))

    results = go(main())
    assert [result["symbol"] for result in results] == names
    assert all(len(result["order_ids"]) == 1 for result in results)


@pytest.mark.clock
def test_no_descriptor_left(ex: Exchange, clean_env: dict[str, str]) -> None:
    """Running out of descriptors ends as ConnectError, not_sent; and then it goes
    on."""
    program = (
        PRELUDE
        + """
import asyncio, resource
client = connect_async(timeout=10, max_retries=0)
async def main():
    await client.cancel_all("ADAUSDM", missing_ok=True)
    resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
    answers = await asyncio.gather(
        *(client.cancel_all("ADAUSDM", missing_ok=True) for _ in range(100)),
        return_exceptions=True,
    )
    for answer in answers:
        if isinstance(answer, Exception):
            say(type(answer).__name__, answer.outcome, answer.attempts)
        else:
            say("done")
    say(await client.cancel_all("ADAUSDM", missing_ok=True))
    await client.aclose()
asyncio.run(main())
"""
    )
    ended = run(program, environment(clean_env, ex), flags=["-X", "dev"]).check()
    *answers, last = ended.out.splitlines()
    assert len(answers) == 100
    assert set(answers) == {"done", "ConnectError not_sent 1"}
    assert "order_ids" in last
    assert ended.err == ""


# --- watching from inside the loop ------------------------------------------------


def test_events_come_on_the_loop(go: Any, ex: Exchange) -> None:
    seen: list[tuple[int, bool]] = []

    def on_event(event: espresso.Event) -> None:
        seen.append((threading.get_ident(), asyncio.get_running_loop().is_running()))

    async def main() -> None:
        ex.fault("locked_5002")
        await make(ex, on_event=on_event).cancel_all(SYMBOL, missing_ok=True)

    go(main())
    assert seen == [(threading.get_ident(), True)] * 2


def test_an_event_may_call_espresso_and_start_tasks(go: Any, ex: Exchange) -> None:
    tasks: list[asyncio.Task[Any]] = []
    inner: list[Any] = []
    blocking = espresso.Client(ex.key, base_url=ex.url, ca_file=ex.ca_file)

    def on_event(event: espresso.Event) -> None:
        if event.symbol == SYMBOL:
            inner.append(blocking.cancel_all("IAGUSDM", missing_ok=True))
            # Begun within the turn of another call on the same loop.
            coroutine = client.cancel_all("NIGHTUSDM", missing_ok=True)
            tasks.append(asyncio.get_running_loop().create_task(coroutine))

    client = make(ex, on_event=on_event)

    async def main() -> None:
        await client.cancel_all(SYMBOL, missing_ok=True)
        assert (await tasks[0])["symbol"] == "NIGHTUSDM"

    go(main())
    assert len(inner) == len(tasks) == 1


def test_an_event_that_ends_its_own_call(ex: Exchange) -> None:
    """Driven by hand, so that the hook can close the coroutine that waits."""
    held: list[Any] = []

    def on_event(event: espresso.Event) -> None:
        if held:
            held.pop().close()

    client = make(ex, on_event=on_event)

    async def main() -> None:
        ex.fault("locked_5002", None)
        coroutine = client.cancel_all(SYMBOL)
        coroutine.send(None)
        held.append(coroutine)
        while held:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        count = len(ex.calls)
        await asyncio.sleep(0.5)
        assert len(ex.calls) == count  # no retry goes on behind our back
        ex.clear_faults()
        await client.cancel_all(SYMBOL, missing_ok=True)

    asyncio.run(main())


def test_an_event_that_raises(
    go: Any, ex: Exchange, caplog: pytest.LogCaptureFixture
) -> None:
    def on_event(event: espresso.Event) -> None:
        raise LookupError("mine")

    go(make(ex, on_event=on_event).cancel_all(SYMBOL, missing_ok=True))
    assert "LookupError: mine" in caplog.text


# --- closing ----------------------------------------------------------------------


def test_aclose_ends_calls_in_flight(go: Any, ex: Exchange) -> None:
    ex.fault("hang", None)

    async def main() -> None:
        client = make(ex)
        tasks = [asyncio.create_task(client.cancel_all(SYMBOL)) for _ in range(3)]
        await asyncio.to_thread(ex.wait_for_calls, 3)
        started = time.monotonic()
        await client.aclose()
        await client.aclose()
        for error in await asyncio.gather(*tasks, return_exceptions=True):
            assert type(error) is espresso.ConnectionLostError
            assert error.outcome == "unknown"
        assert time.monotonic() - started < 0.5

    go(main())


def test_closed_from_another_loop(go: Any, ex: Exchange) -> None:
    """The other loop hears of it by itself."""
    ex.fault("hang")
    client = make(ex, timeout=30)
    caught: list[BaseException] = []

    def work() -> None:
        try:
            go(client.cancel_all(SYMBOL))
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    ex.wait_for_calls(1)
    started = time.monotonic()
    go(client.aclose())
    thread.join(5)
    assert time.monotonic() - started < 1.0
    assert [type(error) for error in caught] == [espresso.ConnectionLostError]


def test_a_client_that_is_forgotten_leaves_nothing(go: Any, ex: Exchange) -> None:
    """Without aclose, while its loop goes on."""

    async def main() -> None:
        await asyncio.sleep(0)
        before = descriptors()
        client = make(ex)
        await client.cancel_all([SYMBOL, "NIGHTUSDM", "IAGUSDM"], missing_ok=True)
        assert descriptors() > before
        del client
        gc.collect()
        for _ in range(100):
            await asyncio.sleep(0.02)
            if descriptors() <= before:  # the sandbox is in this process, too
                return
        raise AssertionError(f"{descriptors()} descriptors, {before} before")

    go(main())


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("end", ["", "await client.aclose()"], ids=["open", "closed"])
@pytest.mark.clock
def test_no_warning_at_exit(
    end: str, loop: str, ex: Exchange, clean_env: dict[str, str]
) -> None:
    program = (
        PRELUDE
        + f"""
import asyncio, uvloop
client = connect_async()
async def main():
    await client.warm_up()
    for _ in range(3):
        await client.cancel_all(["ADAUSDM", "NIGHTUSDM"], missing_ok=True)
    {end}
factory = {{"asyncio": None, "uvloop": uvloop.new_event_loop}}[{loop!r}]
for _ in range(1 if {bool(end)} else 2):
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())
"""
    )
    env = {**environment(clean_env, ex), "PYTHONWARNINGS": "error"}
    ended = run(program, env, flags=["-X", "dev"]).check()
    assert (ended.out, ended.err) == ("", "")


def test_exit_with_a_loop_in_a_daemon_thread(
    ex: Exchange, clean_env: dict[str, str]
) -> None:
    ex.fault("hang", None)
    program = (
        PRELUDE
        + """
import asyncio, threading
client = connect_async()
async def main():
    await asyncio.gather(*(client.cancel_all("ADAUSDM") for _ in range(3)))
threading.Thread(target=asyncio.run, args=(main(),), daemon=True).start()
sys.stdin.readline()
"""
    )
    with Child(program, environment(clean_env, ex)) as child:
        ex.wait_for_calls(3)
        child.tell()
        at = time.monotonic()
        ended = child.end().check()
    assert ended.at - at < 1.5
    assert "Fatal" not in ended.err


@pytest.mark.clock
def test_at_exit(ex: Exchange, clean_env: dict[str, str]) -> None:
    """The commonest home-made guard, in its asyncio form."""
    ex.place(SYMBOL, 2)
    program = (
        PRELUDE
        + """
import asyncio, atexit
client = connect_async()
atexit.register(lambda: say(asyncio.run(client.cancel_all("ADAUSDM"))["symbol"]))
asyncio.run(client.warm_up())
"""
    )
    ended = run(program, environment(clean_env, ex), flags=["-X", "dev"]).check()
    assert (ended.out, ended.err) == ("ADAUSDM\n", "")
    assert not ex.open_orders()


# --- idle connections -------------------------------------------------------------


def test_the_end_of_an_idle_connection_is_seen(go: Any) -> None:
    """The loop watches it: nothing is sent on a dead one, nothing spins."""
    closing = threading.Event()

    def once(wire: Wire) -> None:
        wire.answer(http(b'{"symbol":"ADAUSDM","order_ids":[]}'))
        closing.wait(10)
        wire.fin()

    def again(wire: Wire) -> None:
        wire.answer(http(b'{"symbol":"ADAUSDM","order_ids":["b"]}'))
        wire.hold()

    async def main(server: RawServer) -> None:
        client = make(server, max_retries=0)
        await client.cancel_all(SYMBOL)
        before = descriptors()
        closing.set()
        for _ in range(100):
            await asyncio.sleep(0.02)
            if descriptors() < before:
                break
        assert descriptors() < before
        cpu = time.thread_time()
        await asyncio.sleep(0.3)
        assert time.thread_time() - cpu < 0.05
        assert (await client.cancel_all(SYMBOL))["order_ids"] == ["b"]

    with RawServer(once, again) as server:
        go(main(server))
        assert server.post_connections == [0, 1]


def test_words_nobody_asked_for(go: Any) -> None:
    """A second answer on the idle connection is never taken for the next one's."""
    answer = http(b'{"symbol":"ADAUSDM","order_ids":["right"]}')
    poison = http(b'{"symbol":"ADAUSDM","order_ids":["POISON"]}')

    def script(wire: Wire) -> None:
        wire.answer(answer)
        time.sleep(0.1)
        wire.send(poison)
        wire.hold()

    async def main(server: RawServer) -> None:
        client = make(server, max_retries=0)
        for _ in range(5):
            assert (await client.cancel_all(SYMBOL))["order_ids"] == ["right"]
            await asyncio.sleep(0.2)

    with RawServer(script) as server:
        go(main(server))


@pytest.mark.clock
def test_an_idle_client_costs_nothing(ex: Exchange, clean_env: dict[str, str]) -> None:
    """Measured in a process of its own: less than 5 ms of CPU in an idle second."""
    program = (
        PRELUDE
        + """
import asyncio
client = connect_async(timeout=1.0)
async def main():
    await asyncio.gather(
        *(client.cancel_all("ADAUSDM", missing_ok=True) for _ in range(20))
    )
    await asyncio.sleep(1.2)  # the timers of those calls ring and are not set anew
    used = time.process_time()
    await asyncio.sleep(2)
    say(time.process_time() - used)
asyncio.run(main())
"""
    )
    ended = run(program, environment(clean_env, ex)).check()
    assert float(ended.out) < 0.01


# --- the loop is not blocked ------------------------------------------------------


STALL_PROGRAM = (
    PRELUDE
    + """
import asyncio
client = connect_async()
class Watched(asyncio.SelectorEventLoop):
    longest = 0.0

async def main():
    loop = asyncio.get_running_loop()
    run = asyncio.events.Handle._run
    def timed(handle):
        started = time.thread_time()
        run(handle)
        loop.longest = max(loop.longest, time.thread_time() - started)
    asyncio.events.Handle._run = timed
    for _ in range(3):
        await asyncio.gather(
            *(client.cancel_all(f"P{n}", missing_ok=True) for n in range(50))
        )
        await client.cancel_all([f"P{n}" for n in range(10)], missing_ok=True)
        await client.aclose() if _ == 2 else None
    say(loop.longest)
with asyncio.Runner(loop_factory=Watched) as runner:
    runner.run(main())
"""
)


@pytest.mark.clock
def test_the_loop_is_not_blocked(ex: Exchange, clean_env: dict[str, str]) -> None:
    """No callback works for more than 5 ms: neither the first call nor a crowd.

    CPU time of the callback, in a process of its own: what else the machine does is
    not the client's fault, and the test below sees to it that it does not sleep.
    """
    for n in range(50):
        ex.place(f"P{n}", 1)
    longest = []
    for _ in range(3):  # the best of three: a page fault is nobody's fault either
        ended = run(STALL_PROGRAM, environment(clean_env, ex)).check()
        longest.append(float(ended.out))
        if longest[-1] <= 0.005:
            return
    raise AssertionError(f"blocked for {longest} s")


@pytest.mark.skipif(not HungNames.supported, reason="needs LD_PRELOAD")
def test_nothing_sleeps_in_the_loop(
    ex: Exchange, clean_env: dict[str, str], tmp_path: Path
) -> None:
    """A name that never resolves blocks nobody, nor does cancelling the look-up."""
    program = (
        PRELUDE
        + f"""
import asyncio
client = connect_async(
    "sandbox-0", base_url="https://{HUNG_NAME}", timeout=1.0, max_retries=0
)
worst = 0.0
async def watch():
    global worst
    while True:
        at = time.monotonic()
        await asyncio.sleep(0.01)
        worst = max(worst, time.monotonic() - at - 0.01)
async def main():
    watcher = asyncio.create_task(watch())
    task = asyncio.create_task(client.cancel_all("ADAUSDM"))
    await asyncio.sleep(0.2)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError as error:
        say(*error.__notes__)
    try:
        await client.cancel_all("ADAUSDM")
    except espresso.RequestTimeoutError as error:
        say(error.outcome, error.elapsed < 1.3)
    await client.aclose()
    say(worst < 0.2)
asyncio.run(main())
say("end")
os._exit(0)
"""
    )
    env = {**environment(clean_env, ex), **HungNames(tmp_path).env}
    ended = run(program, env).check()
    lines = ended.out.splitlines()
    assert "had not gone out" in lines[0]
    assert lines[1:] == ["not_sent True", "True", "end"]


# --- notebooks --------------------------------------------------------------------


def test_top_level_await(ex: Exchange, clean_env: dict[str, str]) -> None:
    """As in a notebook's cell: code compiled with top-level await, cell after cell,
    on a loop that runs all the time."""
    ex.place(SYMBOL, 2)
    program = (
        PRELUDE
        + """
import ast, asyncio, inspect
cells = [
    "client = espresso.AsyncClient(os.environ['TEST_KEY'],"
    " base_url=os.environ['TEST_URL'], ca_file=os.environ['TEST_CA'])",
    "result = await client.cancel_all('ADAUSDM')",
    "say(len(result['order_ids']))",
    "await client.cancel_all(['ADAUSDM', 'NIGHTUSDM'], missing_ok=True)",
    "await client.aclose()",
]
async def kernel():
    names = dict(globals())
    for cell in cells:
        code = compile(cell, "<cell>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        value = eval(code, names)
        if inspect.iscoroutine(value):
            await value
asyncio.run(kernel())
"""
    )
    ended = run(program, environment(clean_env, ex), flags=["-X", "dev"]).check()
    assert (ended.out, ended.err) == ("2\n", "")
