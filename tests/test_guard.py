"""The guard in one process: arming, leaving, beating, start and stop."""

from __future__ import annotations

import inspect
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import espresso
from espresso import _guard_life, _guard_link
from espresso.sandbox import Exchange
from tests.guarded import SYMBOL, Relay, has_ended, nothing_open, wait_until

OTHER = "NIGHTUSDM"


@pytest.fixture(autouse=True)
def locks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Locks that no other test can hold."""
    folder = tmp_path / "locks"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    return folder


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """No process, no thread, no handler, no lock file outlives a test."""
    before = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGHUP)]
    yield
    for one in list(_guard_life.started):
        one.stop(cancel=False)
    wait_until(lambda: psutil.Process().children() == [], "no process is left")
    wait_until(
        lambda: not [t for t in threading.enumerate() if "guard" in t.name],
        "no thread is left",
    )
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGHUP)] == before
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert _guard_link._links == {}


@pytest.fixture
def environment(exchange: Exchange, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DELTADEFI_API_KEY", exchange.key)
    monkeypatch.setenv("DELTADEFI_BASE_URL", exchange.url)
    monkeypatch.setenv("SSL_CERT_FILE", exchange.ca_file)


def statuses(exchange: Exchange) -> list[int | None]:
    return [call.status for call in exchange.calls]


def watchdog_of(guard: espresso.Guard) -> int:
    pid = guard._watchdog_pid()
    assert pid is not None
    return pid


# ---- what is given -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"symbol": 5}, TypeError, "int"),
        ({"symbol": ["A", 5]}, TypeError, "int"),
        ({"symbol": []}, ValueError, "empty list"),
        ({"symbol": ""}, ValueError, "empty"),
        ({"symbol": "ADA/USDM"}, ValueError, "ADAUSDM"),
        ({"heartbeat": "5"}, TypeError, "heartbeat .* not str"),
        ({"heartbeat": True}, TypeError, "heartbeat .* not bool"),
        ({"heartbeat": 1.9}, ValueError, "heartbeat must be 2 to 86400"),
        ({"heartbeat": float("nan")}, ValueError, "heartbeat"),
        ({"heartbeat": float("inf")}, ValueError, "heartbeat"),
        ({"heartbeat": 5, "watchdog": False}, ValueError, "needs the watchdog"),
        ({"auto_beat": True}, ValueError, "auto_beat needs a heartbeat"),
        ({"when": "never"}, ValueError, "'always' or 'error', not 'never'"),
        ({"timeout": 0}, ValueError, "timeout"),
        ({"timeout": -1.0}, ValueError, "timeout"),
        ({"timeout": float("nan")}, ValueError, "timeout"),
        ({"timeout": "3"}, TypeError, "timeout .* not str"),
        ({"timeout": (3, 10)}, TypeError, "timeout .* not tuple"),
        ({"no_such": 1}, TypeError, "no_such"),
    ],
)
def test_what_cannot_be_is_refused_at_once(
    given: dict[str, Any], error: type[Exception], words: str, client: espresso.Client
) -> None:
    for make in (espresso.guard, client.guard):
        with pytest.raises(error, match=words):
            make(**{"symbol": SYMBOL, **given})


def test_any_iterable_of_symbols_and_each_once() -> None:
    assert espresso.guard(SYMBOL).symbols == [SYMBOL]
    assert espresso.guard(iter([OTHER, SYMBOL, OTHER])).symbols == [OTHER, SYMBOL]


def test_signatures_and_help() -> None:
    names = ["symbol", "heartbeat", "auto_beat", "at_start", "when", "watchdog"]
    parameters = inspect.signature(espresso.guard).parameters
    assert list(parameters) == [*names, "timeout"]
    assert [p.kind for p in list(parameters.values())[1:]] == [
        inspect.Parameter.KEYWORD_ONLY
    ] * 6
    assert "how long" not in (inspect.getdoc(espresso.Guard) or "how long")
    for name, thing in vars(espresso.Guard).items():
        if callable(thing) and not name.startswith("_"):
            assert inspect.getdoc(thing), name
    assert espresso.guard.__module__ == espresso.Guard.__module__ == "espresso"


def test_the_time_for_many_symbols_grows() -> None:
    times = [espresso.guard([f"S{i}" for i in range(n)])._timeout for n in (1, 6, 10)]
    assert times == pytest.approx([4.0, 4.0, 6.8])
    assert espresso.guard(SYMBOL, timeout=3)._timeout == 3.0


# ---- arming --------------------------------------------------------------------------


@pytest.mark.usefixtures("environment")
def test_with_the_environments_key(exchange: Exchange) -> None:
    ids = exchange.place(SYMBOL, 2)
    with espresso.guard(SYMBOL) as g:
        assert exchange.calls == []
        assert exchange.open_orders() == ids
        assert repr(g) == f"<espresso.Guard {SYMBOL} armed watchdog={watchdog_of(g)}>"
        watchdog = watchdog_of(g)
    assert exchange.open_orders() == []
    assert statuses(exchange) == [200, 400]
    assert has_ended(watchdog)
    assert "left" in repr(g)


def test_with_a_clients_key_and_events(exchange: Exchange) -> None:
    events: list[espresso.Event] = []
    with espresso.Client(
        exchange.key,
        base_url=exchange.url,
        ca_file=exchange.ca_file,
        on_event=events.append,
    ) as client:
        exchange.place(SYMBOL)
        with client.guard([SYMBOL, OTHER]):
            pass
    assert exchange.open_orders() == []
    assert {event.symbol for event in events} == {SYMBOL, OTHER}


def test_a_guard_outlives_its_client(
    client: espresso.Client, exchange: Exchange
) -> None:
    exchange.place(SYMBOL)
    with client.guard(SYMBOL):
        client.close()
    assert exchange.open_orders() == []
    with pytest.raises(RuntimeError, match="closed"):
        client.guard(SYMBOL)


@pytest.mark.usefixtures("environment")
def test_the_key_may_leave_the_environment(
    exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchange.place(SYMBOL)
    with espresso.guard(SYMBOL):
        monkeypatch.delenv("DELTADEFI_API_KEY")
    assert exchange.open_orders() == []


def test_no_key(exchange: Exchange, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DELTADEFI_BASE_URL", exchange.url)
    for watchdog in (True, False):
        with (
            pytest.raises(espresso.ConfigError, match="DELTADEFI_API_KEY"),
            espresso.guard(SYMBOL, watchdog=watchdog),
        ):
            pytest.fail("the body ran")


def test_no_connection(exchange: Exchange) -> None:
    with Relay(exchange.url) as relay:
        relay.go_down()
        client = espresso.Client(
            exchange.key, base_url=relay.url, ca_file=exchange.ca_file
        )
        began = time.monotonic()
        with (
            pytest.raises(espresso.GuardError, match=r"no connection .* ConnectError"),
            client.guard(SYMBOL, timeout=1.0),
        ):
            pytest.fail("the body ran")
        assert 0.9 < time.monotonic() - began < 4.0
        assert relay.accepted > 1  # it does not give up at the first failure
    assert exchange.requests == []


def test_a_certificate_that_does_not_verify(exchange: Exchange, tmp_path: Path) -> None:
    with Exchange() as stranger:
        client = espresso.Client(
            exchange.key, base_url=exchange.url, ca_file=stranger.ca_file
        )
        began = time.monotonic()
        with pytest.raises(espresso.GuardError, match="CertificateError"):
            client.guard(SYMBOL, timeout=20).start()
        assert time.monotonic() - began < 10  # repeating does not help
    assert exchange.requests == []


def test_what_is_no_python(
    client: espresso.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An embedded interpreter: sys.executable is another program, or nothing."""
    for program in ("/bin/true", "/bin/cat", "/nowhere", ""):
        monkeypatch.setattr(sys, "executable", program)
        began = time.monotonic()
        with pytest.raises(espresso.GuardError, match=r"could not be started"):
            client.guard(SYMBOL, timeout=1.0).start()
        assert time.monotonic() - began < 5


def test_at_start_cancels_before_the_body(
    client: espresso.Client, exchange: Exchange
) -> None:
    exchange.place(SYMBOL, 2)
    with client.guard([SYMBOL, OTHER], at_start=True):
        assert exchange.open_orders() == []
        assert exchange.calls


def test_at_start_that_fails(client: espresso.Client, exchange: Exchange) -> None:
    exchange.place(SYMBOL)
    exchange.fault("403_empty", times=None)
    with (
        pytest.raises(espresso.PermissionDeniedError) as caught,
        client.guard(SYMBOL, at_start=True),
    ):
        pytest.fail("the body ran")
    assert caught.value.symbol == SYMBOL
    with (
        pytest.raises(espresso.PartialCancelError),
        client.guard([SYMBOL, OTHER], at_start=True),
    ):
        pytest.fail("the body ran")
    # It was never armed: nobody cancels later.
    exchange.clear_faults()
    calls = len(exchange.calls)
    time.sleep(0.3)
    assert len(exchange.calls) == calls


def test_armed_once_at_a_time(client: espresso.Client, exchange: Exchange) -> None:
    g = client.guard(SYMBOL)
    for _ in range(2):
        exchange.place(SYMBOL)
        with g:
            with pytest.raises(RuntimeError, match="armed already"):
                g.start()
            with pytest.raises(RuntimeError, match="armed already"), g:
                pytest.fail("the body ran")
            assert exchange.open_orders()
        assert exchange.open_orders() == []


def test_arming_is_logged_only_where_logging_is_used(
    client: espresso.Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "espresso")
    with client.guard(SYMBOL):
        pass
    told = [r.getMessage() for r in caplog.records if r.levelno == logging.INFO]
    (said,) = [text for text in told if text.startswith("armed")]
    assert "key and spelling are not proven" in said


def test_a_runtime_directory_of_others_is_not_used(
    client: espresso.Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Then the locks are in a directory of ours in the temporary one."""
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(shared))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    own = tmp_path / f"espresso-{os.getuid()}"
    with client.guard(SYMBOL):
        assert own.stat().st_mode & 0o777 == 0o700
        (lock,) = own.iterdir()
        assert lock.stat().st_mode & 0o777 == 0o600
        assert lock.name.startswith("espresso-")
        assert lock.read_text().split()[1] == str(os.getpid())
    assert list(own.iterdir()) == list(shared.iterdir()) == []
    own.rmdir()
    own.symlink_to(shared)
    with pytest.raises(espresso.GuardError, match="locks"):
        client.guard(SYMBOL).start()


# ---- leaving -------------------------------------------------------------------------


class Mine(Exception):
    pass


def test_when_error(client: espresso.Client, exchange: Exchange) -> None:
    exchange.place(SYMBOL)
    with client.guard(SYMBOL, when="error"):
        pass
    with pytest.raises(SystemExit), client.guard(SYMBOL, when="error"):
        sys.exit(0)
    with pytest.raises(SystemExit), client.guard(SYMBOL, when="error"):
        sys.exit()
    client.guard(SYMBOL, when="error").start().stop()
    assert exchange.calls == []
    for error in (Mine(), SystemExit(1), KeyboardInterrupt(), GeneratorExit()):
        exchange.place(SYMBOL)
        with pytest.raises(type(error)), client.guard(SYMBOL, when="error"):
            raise error
        assert exchange.open_orders() == []


def test_a_clean_end_needs_no_second_look(
    client: espresso.Client, exchange: Exchange
) -> None:
    with client.guard(SYMBOL):
        pass
    assert statuses(exchange) == [400]


def test_after_an_exception_the_proof_comes_a_second_later(
    client: espresso.Client, exchange: Exchange
) -> None:
    exchange.place(SYMBOL)
    began = time.time()
    with pytest.raises(Mine), client.guard(SYMBOL):
        began = time.time()
        raise Mine
    assert statuses(exchange) == [200, 400]
    first, last = exchange.calls[0], exchange.calls[-1]
    assert first.time - began < 0.9
    assert last.time - began >= 1.0


@pytest.mark.parametrize("watchdog", [True, False])
def test_the_programs_own_exception_gets_a_note(
    watchdog: bool,
    client: espresso.Client,
    exchange: Exchange,
    caplog: pytest.LogCaptureFixture,
) -> None:
    exchange.place(SYMBOL)
    mine = Mine("mine")
    with pytest.raises(Mine) as caught, client.guard(SYMBOL, watchdog=watchdog) as g:
        exchange.fault("403_empty", times=None)
        pid = g._watchdog_pid()
        raise mine
    assert caught.value is mine
    assert mine.args == ("mine",)
    assert mine.__context__ is None
    (note,) = mine.__notes__
    assert f"the cancel of {SYMBOL} failed: PermissionDeniedError" in note
    (said,) = [r.getMessage() for r in caplog.records if r.levelname == "CRITICAL"]
    assert said == note
    goes_on = f"the watchdog, process {pid}, goes on"
    assert note.endswith(goes_on if watchdog else "orders may be open")
    if watchdog:
        assert pid is not None
        signal_again(pid, exchange)


def signal_again(watchdog: int, exchange: Exchange) -> None:
    """The exchange is well again: the watchdog is told to try at once, and ends."""
    exchange.clear_faults()
    os.kill(watchdog, signal.SIGTERM)
    nothing_open(exchange, 40)
    wait_until(lambda: has_ended(watchdog), "the watchdog ends")


def test_a_failed_cancel_is_raised_on_a_clean_end(
    client: espresso.Client, exchange: Exchange, caplog: pytest.LogCaptureFixture
) -> None:
    """And the watchdog goes on, without being told twice."""
    exchange.place(SYMBOL)
    with Relay(exchange.url) as relay:
        through = espresso.Client(
            exchange.key, base_url=relay.url, ca_file=exchange.ca_file
        )
        with (
            pytest.raises(espresso.ConnectError) as caught,
            through.guard(SYMBOL, timeout=1.0) as g,
        ):
            watchdog = watchdog_of(g)
            relay.go_down()
        assert str(watchdog) in caught.value.__notes__[-1]
        assert "CRITICAL" in [r.levelname for r in caplog.records]
        assert exchange.open_orders()
        assert not has_ended(watchdog)
        relay.come_back()
        nothing_open(exchange)
        wait_until(lambda: has_ended(watchdog), "the watchdog ends")


def test_several_symbols_of_which_one_fails(exchange: Exchange) -> None:
    client = espresso.Client(
        exchange.key, base_url=exchange.url, ca_file=exchange.ca_file, max_retries=0
    )
    exchange.place(SYMBOL)
    with (
        pytest.raises(espresso.PartialCancelError) as caught,
        client.guard([SYMBOL, "UNKNOWNUSDM"]) as g,
    ):
        watchdog = watchdog_of(g)
    assert list(caught.value.failed) == ["UNKNOWNUSDM"]
    assert list(caught.value.results) == [SYMBOL]
    exchange.place("UNKNOWNUSDM", 0)
    signal_again(watchdog, exchange)


def test_without_a_watchdog(client: espresso.Client, exchange: Exchange) -> None:
    exchange.place(SYMBOL)
    with client.guard(SYMBOL, watchdog=False, at_start=True) as g:
        assert psutil.Process().children() == []
        assert exchange.open_orders() == []
        exchange.place(SYMBOL)
        g.beat()
    assert exchange.open_orders() == []


def test_another_thread_may_be_guarded(
    client: espresso.Client, exchange: Exchange
) -> None:
    def run() -> None:
        with client.guard(SYMBOL) as g:
            g.beat()

    exchange.place(SYMBOL)
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert exchange.open_orders() == []


# ---- start, stop, hand over ----------------------------------------------------------


def test_start_and_stop(client: espresso.Client, exchange: Exchange) -> None:
    ids = exchange.place(SYMBOL, 2)
    g = client.guard(SYMBOL).start()
    watchdog = watchdog_of(g)
    assert exchange.open_orders() == ids
    g.stop()
    assert exchange.open_orders() == []
    assert has_ended(watchdog)
    g.stop()  # a second time is nothing
    assert statuses(exchange) == [200, 400]


def test_stop_can_leave_the_orders(client: espresso.Client, exchange: Exchange) -> None:
    ids = exchange.place(SYMBOL)
    g = client.guard(SYMBOL).start()
    watchdog = watchdog_of(g)
    g.stop(cancel=False)
    assert has_ended(watchdog)
    assert exchange.open_orders() == ids
    assert exchange.calls == []


def test_start_twice_hands_over_without_a_cancel(
    client: espresso.Client, exchange: Exchange
) -> None:
    ids = exchange.place(SYMBOL)
    first = client.guard(SYMBOL, at_start=True).start()
    assert exchange.open_orders() == []
    ids = exchange.place(SYMBOL)
    calls = len(exchange.calls)
    second = client.guard([SYMBOL, OTHER], at_start=True).start()
    assert watchdog_of(second) == watchdog_of(first)
    assert exchange.open_orders() == ids
    assert {call.symbol for call in exchange.calls[calls:]} == {OTHER}
    with pytest.raises(espresso.GuardError, match="handed over"):
        first.beat()
    first.stop()
    assert exchange.open_orders() == ids
    del first
    second.stop()
    assert exchange.open_orders() == []


def test_a_part_is_handed_over(client: espresso.Client, exchange: Exchange) -> None:
    for symbol in (SYMBOL, OTHER):
        exchange.place(symbol)
    first = client.guard([SYMBOL, OTHER]).start()
    second = client.guard(OTHER).start()
    first.beat()
    assert first.symbols == [SYMBOL]
    first.stop()
    assert exchange.open_orders(SYMBOL) == []
    assert exchange.open_orders(OTHER)
    second.stop()
    assert exchange.open_orders(OTHER) == []


def test_an_inner_guard_cancels_and_the_outer_keeps_the_watch(
    client: espresso.Client, exchange: Exchange, locks: Path
) -> None:
    with client.guard([SYMBOL, OTHER]) as outer:
        watchdog = watchdog_of(outer)
        exchange.place(OTHER)
        exchange.place(SYMBOL)
        with client.guard(SYMBOL) as inner:
            assert watchdog_of(inner) == watchdog
        assert exchange.open_orders(SYMBOL) == []
        assert exchange.open_orders(OTHER)
        exchange.place(SYMBOL)
        assert not has_ended(watchdog)
        assert len(list(locks.iterdir())) == 2
    assert exchange.open_orders() == []


def test_two_accounts_have_two_watchdogs(exchange: Exchange) -> None:
    clients = [
        espresso.Client(key, base_url=exchange.url, ca_file=exchange.ca_file)
        for key in (exchange.key, exchange.new_key())
    ]
    with clients[0].guard(SYMBOL) as one, clients[1].guard(SYMBOL) as two:
        assert watchdog_of(one) != watchdog_of(two)


def test_threads_that_arm_at_once_share_a_watchdog(
    client: espresso.Client, exchange: Exchange
) -> None:
    guards = [client.guard(f"S{n}USDM") for n in range(8)]
    for g in guards:
        exchange.place(g.symbols[0])
    threads = [threading.Thread(target=g.start) for g in guards]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({watchdog_of(g) for g in guards}) == 1
    assert len(psutil.Process().children()) == 1
    for g in guards:
        thread = threading.Thread(target=g.stop)
        threads.append(thread)
        thread.start()
    for thread in threads:
        thread.join()
    assert exchange.open_orders() == []


# ---- beats without a heart, and after the end ----------------------------------------


def test_beats(client: espresso.Client) -> None:
    g = client.guard(SYMBOL)
    with pytest.raises(espresso.GuardError, match="not armed"):
        g.beat()
    with g:
        g.beat()
        assert g.tripped is False
    with pytest.raises(espresso.GuardError, match="not armed"):
        g.beat()


def test_many_beats_are_cheap_and_never_block(client: espresso.Client) -> None:
    """A watchdog that reads nothing stops no bot."""
    with client.guard(SYMBOL, heartbeat=60, timeout=1) as g:
        pid = watchdog_of(g)
        os.kill(pid, signal.SIGSTOP)
        try:
            began = time.monotonic()
            sent = g._link.beat if g._link is not None else None
            assert sent is not None
            for _ in range(20_000):
                g.beat()
                sent(g.number, 0.0)
            assert time.monotonic() - began < 10
        finally:
            os.kill(pid, signal.SIGCONT)


def test_auto_beat_needs_a_loop(client: espresso.Client) -> None:
    with pytest.raises(RuntimeError, match="async with"):
        client.guard(SYMBOL, heartbeat=5, auto_beat=True).start()
