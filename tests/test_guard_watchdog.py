"""The watchdog as a process: what it holds and costs, how it dies and is mended."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import espresso
from espresso import _guard_process, _watchdog_loop
from espresso._guard_wire import Inbox, pack
from espresso.sandbox import Exchange
from tests.children import ROOT, Child, default_environment, environment
from tests.guarded import (
    ARMED,
    SYMBOL,
    Relay,
    bot,
    has_ended,
    nothing_open,
    wait_until,
    watchdog_pid,
)

MOST_MEMORY = 25e6  # bytes
IDLE = 2.0  # seconds
TICK = 1 / os.sysconf("SC_CLK_TCK")


@pytest.fixture(autouse=True)
def locks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "locks"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))


@pytest.fixture
def guard(client: espresso.Client) -> Iterator[espresso.Guard]:
    with client.guard(SYMBOL, when="error") as armed:
        yield armed


def process_of(guard: espresso.Guard) -> psutil.Process:
    pid = guard._watchdog_pid()
    assert pid is not None
    return psutil.Process(pid)


def wait_for_another(guard: espresso.Guard, pid: int) -> int:
    def another() -> bool:
        now = guard._watchdog_pid()
        return now is not None and now != pid

    wait_until(another, "another watchdog")
    return process_of(guard).pid


# ---- what it holds -------------------------------------------------------------------

linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@linux
def test_its_own_session_directory_and_limits(guard: espresso.Guard) -> None:
    watchdog = process_of(guard)
    assert os.getsid(watchdog.pid) == watchdog.pid
    assert watchdog.cwd() == "/"
    assert watchdog.rlimit(psutil.RLIMIT_CORE) == (0, 0)
    assert watchdog.cmdline()[1:3] == ["-I", "-S"]
    assert watchdog.cmdline()[3].endswith("/espresso/_watchdog.py")


@linux
def test_it_holds_nothing_of_the_bot_but_pipe_and_stderr(
    exchange: Exchange, clean_env: dict[str, str], tmp_path: Path
) -> None:
    """Not even what a C library has opened without O_CLOEXEC."""
    body = """
def held(pid):
    names = os.listdir(f"/proc/{pid}/fd")
    return {n: os.readlink(f"/proc/{pid}/fd/{n}") for n in names if n != "2"}
theirs = held(g._watchdog_pid())
say(theirs.pop("0"), theirs.pop("1"))
say("shared", *set(theirs.values()) & {os.readlink(f"/proc/self/fd/{n}") for n in kept})
"""
    opened = f"""
kept = [os.open({str(tmp_path)!r}, os.O_RDONLY) for _ in range(50)]
for one in kept:
    os.set_inheritable(one, True)
kept += [0, 1]
with espresso"""
    program = bot(body, "when='error'").replace("with espresso", opened)
    env = default_environment(clean_env, exchange)
    with Child(program, env) as child:
        watchdog_pid(child.line())
        child.tell()
        ended = child.end().check()
    assert ended.out.splitlines() == ["/dev/null /dev/null", "shared", "left"]


@linux
@pytest.mark.preload
def test_its_environment_is_built(
    client: espresso.Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DELTADEFI_API_KEY", "sandbox-in-the-environment")
    monkeypatch.setenv("HTTPS_PROXY", "http://a:secret@127.0.0.1:1")
    monkeypatch.setenv("ESPRESSO_LOOPBACK_ONLY", "1")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ESPRESSO_LOG_FILE", "guard.log")
    monkeypatch.setenv("LANG", "C.UTF-8")
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    with client.guard(SYMBOL) as g:
        env = process_of(g).environ()
    assert env == {
        "PATH": os.environ["PATH"],
        "LANG": "C.UTF-8",
        "ESPRESSO_LOOPBACK_ONLY": "1",
        "ESPRESSO_LOG_FILE": str(tmp_path / "guard.log"),
    }


@linux
def test_the_key_is_where_nobody_looks(
    exchange: Exchange, clean_env: dict[str, str], tmp_path: Path
) -> None:
    """No /proc/*/cmdline, no /proc/*/environ that we made, no log, no lock."""
    program = (
        ARMED + "g = armed(connect(sys.stdin.readline().strip()).guard('ADAUSDM'))\n"
        "g.start(); say('ready', g._watchdog_pid()); time.sleep(60)"
    ).replace("armed(connect", "(connect")
    log = tmp_path / "log"
    env = environment(clean_env, exchange) | {"ESPRESSO_LOG_FILE": str(log)}
    del env["TEST_KEY"]
    exchange.place(SYMBOL)
    with Child(program, env) as child:
        assert child._process.stdin is not None
        child._process.stdin.write(f"{exchange.key}\n".encode())
        child._process.stdin.flush()
        watchdog = int(child.line().split()[1])
        key = exchange.key.encode()
        for pid in (child.pid, watchdog):
            for name in ("cmdline", "environ"):
                assert key not in Path(f"/proc/{pid}/{name}").read_bytes()
        child.signal(signal.SIGKILL)
        wait_until(lambda: has_ended(watchdog), "the watchdog ends")
        assert exchange.key not in child.end().err
    assert exchange.open_orders() == []
    assert key not in log.read_bytes()
    runtime = Path(os.environ["XDG_RUNTIME_DIR"])
    assert not [p for p in runtime.iterdir() if key in p.read_bytes()]


@linux
def test_it_is_not_dumpable() -> None:
    """Asked by itself, since root may look into everything."""
    program = """
import ctypes, os, sys
sys.path.insert(0, sys.argv[1])
from espresso._watchdog_process import harden
pipe = os.dup(1)
harden(pipe)
os.write(pipe, str(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)).encode())
"""
    command = [sys.executable, "-I", "-S", "-c", program, str(ROOT)]
    assert subprocess.run(command, capture_output=True, check=True).stdout == b"0"


# ---- what it costs -------------------------------------------------------------------


@pytest.mark.memory
def test_memory(guard: espresso.Guard) -> None:
    assert process_of(guard).memory_info().rss <= MOST_MEMORY


@pytest.mark.parametrize("heartbeat", [None, 60])
def test_no_work_while_idle(client: espresso.Client, heartbeat: float | None) -> None:
    """Neither its processor time, nor ours."""
    with client.guard(SYMBOL, when="error", heartbeat=heartbeat) as g:
        watchdog = process_of(g)
        time.sleep(0.2)
        before, ours = watchdog.cpu_times(), time.process_time()
        switches = watchdog.num_ctx_switches().voluntary
        time.sleep(IDLE)
        after = watchdog.cpu_times()
        assert after.user + after.system - before.user - before.system <= 2 * TICK
        woken = watchdog.num_ctx_switches().voluntary - switches
        assert woken <= (2 if heartbeat is None else IDLE / 0.5 + 2)
    assert time.process_time() - ours < 0.1


def test_one_warm_connection(exchange: Exchange, guard: espresso.Guard) -> None:
    """A HEAD without the key."""
    (request,) = exchange.requests
    assert request.method == "HEAD"
    assert request.key is None


def test_it_is_opened_again_at_most_once_in_15_s(
    exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _watchdog_loop.REOPEN_PAUSE == 15.0
    with Relay(exchange.url) as relay:
        client = espresso.Client(
            exchange.key, base_url=relay.url, ca_file=exchange.ca_file
        )
        with client.guard(SYMBOL):
            assert relay.accepted == 1
            relay.hang_up()
            time.sleep(1.0)
            assert relay.accepted == 1
            assert process_idle(psutil.Process().children()[0])
            # And a cancel does not wait for it.
            exchange.place(SYMBOL)
        assert exchange.open_orders() == []


def process_idle(process: psutil.Process) -> bool:
    before = sum(process.cpu_times()[:2])
    time.sleep(0.5)
    return bool(sum(process.cpu_times()[:2]) - before <= 2 * TICK)


@pytest.mark.long
def test_it_is_opened_again_after_15_s(exchange: Exchange) -> None:
    with Relay(exchange.url) as relay:
        client = espresso.Client(
            exchange.key, base_url=relay.url, ca_file=exchange.ca_file
        )
        with client.guard(SYMBOL):
            relay.hang_up()
            took = wait_until(lambda: relay.accepted > 1, "a new connection", 25)
            assert took > 10


# ---- how it dies ---------------------------------------------------------------------


def test_killed_it_is_replaced_at_once(
    client: espresso.Client, exchange: Exchange, caplog: pytest.LogCaptureFixture
) -> None:
    """And the new one does what the old one would have done."""
    with client.guard(SYMBOL) as g:
        first = process_of(g).pid
        os.kill(first, signal.SIGKILL)
        second = wait_for_another(g, first)
        g.beat()
        assert has_ended(first)
        wait_until(lambda: f"process {second} now" in caplog.text, "the good news")
        levels = [r.levelname for r in caplog.records]
        assert levels == ["CRITICAL", "WARNING"]
        assert str(first) in caplog.text
        assert str(second) in caplog.text
    assert has_ended(second)


def test_killed_four_times_in_a_minute_beat_raises(
    client: espresso.Client, exchange: Exchange, caplog: pytest.LogCaptureFixture
) -> None:
    exchange.place(SYMBOL)
    with client.guard(SYMBOL) as g:
        for _ in range(3):
            pid = process_of(g).pid
            os.kill(pid, signal.SIGKILL)
            wait_for_another(g, pid)
            g.beat()
        os.kill(process_of(g).pid, signal.SIGKILL)
        wait_until(lambda: g._watchdog_pid() is None, "no watchdog")
        with pytest.raises(espresso.GuardError, match=r"lost: it has ended 4 times"):
            g.beat()
        assert "not guarded against the death" in caplog.text
        # A new guard gets a new watchdog.
        with client.guard("NIGHTUSDM") as other:
            other.beat()
    assert exchange.open_orders() == []


def test_the_bots_death_after_its_watchdogs(
    exchange: Exchange, clean_env: dict[str, str]
) -> None:
    """The replacement is as good, also with the exchange down meanwhile."""
    with Relay(exchange.url) as relay:
        env = default_environment(clean_env, exchange) | {
            "DELTADEFI_BASE_URL": relay.url
        }
        with Child(bot("time.sleep(60)"), env) as child:
            first = watchdog_pid(child.line())
            exchange.place(SYMBOL)
            relay.go_down()
            os.kill(first, signal.SIGKILL)
            parent = psutil.Process(child.pid)
            wait_until(
                lambda: [c for c in parent.children() if c.pid != first], "another"
            )
            time.sleep(0.5)
            child.signal(signal.SIGKILL)
            child.end()
            time.sleep(0.3)
            relay.come_back()
            nothing_open(exchange)


def test_sigterm_makes_it_cancel_then_end(
    client: espresso.Client, exchange: Exchange, capfd: pytest.CaptureFixture[str]
) -> None:
    """The bot lives on: it learns of it, and gets another one."""
    with client.guard(SYMBOL) as g:
        exchange.place(SYMBOL)
        first = process_of(g).pid
        os.kill(first, signal.SIGTERM)
        nothing_open(exchange, 2)
        wait_for_another(g, first)
        assert has_ended(first)
        assert "SIGTERM: cancelling, then ending" in capfd.readouterr().err
        exchange.place(SYMBOL)
    assert exchange.open_orders() == []


@pytest.mark.parametrize("number", ["SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1"])
def test_other_signals_do_not_move_it(
    number: str, guard: espresso.Guard, exchange: Exchange
) -> None:
    """SIGUSR1 is for orphans only."""
    pid = process_of(guard).pid
    os.kill(pid, getattr(signal, number))
    time.sleep(0.2)
    assert process_of(guard).pid == pid
    assert not has_ended(pid)
    assert exchange.calls == []


def test_a_refusal_that_stays_is_critical_at_once(
    exchange: Exchange, clean_env: dict[str, str]
) -> None:
    """And tried every 30 s only."""
    env = default_environment(clean_env, exchange)
    with Child(bot("time.sleep(60)"), env) as child:
        watchdog = watchdog_pid(child.line())
        exchange.fault("403_empty", times=None)
        child.signal(signal.SIGKILL)
        child.end()
        time.sleep(1.5)
        assert len(exchange.calls) == 1
        assert "CRITICAL ADAUSDM: PermissionDeniedError" in child._stderr()
        assert "again in 30.0 s" in child._stderr()
        os.kill(watchdog, signal.SIGKILL)


def test_the_log_file(
    exchange: Exchange, clean_env: dict[str, str], tmp_path: Path
) -> None:
    """0600, appended to, and never through a symlink."""
    log, target, link = (tmp_path / name for name in ("log", "target", "link"))
    link.symlink_to(target)
    for path in (log, link):
        env = default_environment(clean_env, exchange)
        env["ESPRESSO_LOG_FILE"] = str(path)
        exchange.place(SYMBOL)
        with Child(bot("os._exit(1)"), env) as child:
            watchdog = watchdog_pid(child.line())
            child.tell()
            ended = child.end()
            wait_until(lambda pid=watchdog: has_ended(pid), "the watchdog ends")
            said = child._stderr()
        assert f"watchdog[{watchdog}] of {child.pid}" in said
        assert "proven, nothing is open" in said
        assert ended.status == 1
    assert log.stat().st_mode & 0o777 == 0o600
    assert "cancelled 1 order" in log.read_text()
    assert not target.exists()


def test_a_stderr_that_nobody_reads_does_not_stop_a_cancel(
    exchange: Exchange, clean_env: dict[str, str]
) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    try:
        while True:
            os.write(writer, bytes(4096))
    except BlockingIOError:
        pass
    os.set_blocking(writer, True)
    program = ARMED + "armed(connect().guard('ADAUSDM').start()); time.sleep(60)"
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        env=environment(clean_env, exchange),
        stdout=subprocess.PIPE,
        stderr=writer,
        cwd=ROOT,
    )
    os.close(writer)
    try:
        assert process.stdout is not None
        watchdog = watchdog_pid(process.stdout.readline().decode())
        exchange.place(SYMBOL)
        process.kill()
        nothing_open(exchange, 5)
        wait_until(lambda: has_ended(watchdog), "the watchdog ends")
    finally:
        os.close(reader)
        process.kill()
        process.communicate()


def test_without_descriptors_to_spare(client: espresso.Client) -> None:
    """Arming says so; nothing is left behind."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    held: list[int] = []
    g = client.guard(SYMBOL)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, limits[1]))
    try:
        while True:
            held.append(os.dup(0))
    except OSError:
        with pytest.raises(espresso.GuardError):
            g.start()
    finally:
        for one in held:
            os.close(one)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    with g:
        pass


# ---- the messages --------------------------------------------------------------------


def test_messages_in_any_pieces() -> None:
    messages = [("beat", 1, 2.5), ("arm", 1, ["A"], None, [], 4.0), ("end", 0)]
    data = b"".join(pack(*message) for message in messages)
    for size in (1, 3, len(data)):
        inbox, found = Inbox(), []
        for start in range(0, len(data), size):
            found += inbox.feed(data[start : start + size])
        assert found == messages


def test_bytes_that_are_no_message() -> None:
    with pytest.raises(ValueError, match="not a message"):
        Inbox().feed(b"HTTP/1.1 200 OK")


def test_only_named_variables_are_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PATH", "SECRET", "PYTHONPATH", "LD_PRELOAD"):
        monkeypatch.setenv(name, "x")
    assert set(_guard_process.built_environment()) <= set(_guard_process.PASSED_ON)
