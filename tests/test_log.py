"""``logging.getLogger("espresso")``, ``ESPRESSO_LOG`` and ``ESPRESSO_LOG_FILE``.

Each program runs in a process of its own, since logging is set up once a process.
`on_event` makes the core tell every attempt.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import pytest

from espresso import _client
from espresso.sandbox import Exchange
from tests.children import PRELUDE, Ended, environment, run

Env = dict[str, str]

CALL = (
    PRELUDE
    + """
client = connect()
say(client.cancel_all("ADAUSDM", missing_ok=True)["order_ids"])
"""
)
# Each face has a result of its own to tell: two of a list, and one that fails.
RESULTS = (
    PRELUDE
    + """
import asyncio
connect().cancel_all(["ADAUSDM", "NIGHTUSDM"], missing_ok=True)
client = connect_async()
for symbols in "ADAUSDM", ["IAGUSDM"]:
    try:
        asyncio.run(client.cancel_all(symbols))
    except Exception:
        pass
asyncio.run(client.warm_up())
"""
)
LINE = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z espresso\[(\d+)\] ([A-Z]+) (.*)"
)


@pytest.fixture
def env(exchange: Exchange, clean_env: Env) -> Env:
    return environment(clean_env, exchange)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "espresso.log"


def call(env: Env, **changes: str | Path) -> Ended:
    ended = run(CALL, {**env, **{k: str(v) for k, v in changes.items()}}).check()
    assert ended.out == "[]\n"
    return ended


def records(text: str) -> list[tuple[str, str]]:
    """Level and message of each line, which all have to be ours."""
    found = [LINE.fullmatch(line) for line in text.splitlines()]
    assert all(found), text
    return [(it[2], it[3]) for it in found if it is not None]


# --- to stderr --------------------------------------------------------------------


def test_without_the_variables_a_call_says_nothing(
    exchange: Exchange, env: Env
) -> None:
    assert call(env).err == ""


def test_warnings_come_of_themselves(exchange: Exchange, env: Env) -> None:
    exchange.fault("envoy_503")
    first, second = call(env).err.splitlines()
    assert first.startswith("ADAUSDM: attempt 1 failed (upstream connect error")
    assert first.endswith("; outcome unknown), next in 0.1 s")
    assert second.startswith("ADAUSDM: cancelled, but the reply to an earlier")


def test_debug_tells_each_attempt(exchange: Exchange, env: Env) -> None:
    exchange.fault("envoy_503")
    told = records(call(env, ESPRESSO_LOG="debug").err)
    assert [level for level, _ in told] == [
        "DEBUG",
        "WARNING",
        "DEBUG",
        "WARNING",
        "INFO",
    ]
    (_, first), _, (_, second), _, _ = told
    assert re.match(
        r"ADAUSDM: attempt 1: unknown, HTTP 503 \(upstream .*\); dns ", first
    )
    assert re.match(r"ADAUSDM: attempt 2: done, HTTP 400.*; .*first byte .* ms", second)
    assert "127.0.0.1" in second
    assert exchange.key not in str(told)


def test_info_tells_each_result(exchange: Exchange, env: Env) -> None:
    exchange.place("ADAUSDM", 2)
    told = records(run(RESULTS, {**env, "ESPRESSO_LOG": "INFO"}).check().err)
    assert [level for level, _ in told] == ["INFO"] * 4
    texts = [re.sub(r" in 0\.\d{3} s$", "", text) for _, text in told]
    assert texts[:2] == [
        "ADAUSDM: cancelled 2 orders",
        "NIGHTUSDM: cancelled 0 orders",
    ]
    assert texts[2].startswith("ADAUSDM: OrderNotFoundError: [4200] ")
    assert texts[3].startswith("IAGUSDM: OrderNotFoundError: [4200] ")
    assert run(RESULTS, env).check().err == ""


@pytest.mark.parametrize("name", _client.LOG_VARIABLES)
def test_a_variable_is_heeded_from_the_import_on(
    name: str, env: Env, path: Path
) -> None:
    """By loading logging, which costs nobody else."""
    program = "import sys, espresso; print('logging' in sys.modules)"
    assert run(program, env).check().out == "False\n"
    value = "info" if name == "ESPRESSO_LOG" else str(path)
    assert run(program, {**env, name: value}).check().out == "True\n"


def test_a_level_that_is_none_is_named_and_harmless(env: Env) -> None:
    ended = call(env, ESPRESSO_LOG="loud\x1b[2J")
    assert ended.err == "ESPRESSO_LOG=loud [2J is no level: it is info or debug\n"


def test_a_program_that_logs_gets_the_records(exchange: Exchange, env: Env) -> None:
    """Its own settings hold, as for every logger."""
    exchange.fault("envoy_503")
    logging = (
        "import logging; logging.basicConfig(level=logging.{}, format='%(message)s')"
    )
    told = run(logging.format("DEBUG") + CALL, env).check().err.splitlines()
    told = [re.sub(r"in 0\.\d{3} s", "in time", line) for line in told]
    assert [re.split(r"[:(]", line)[1] for line in told] == [
        " attempt 1",
        " attempt 1 failed ",
        " attempt 2",
        " cancelled, but the reply to an earlier attempt was lost",
        " cancelled 0 orders in time",
    ]
    exchange.fault("envoy_503")
    ended = run(logging.format("WARNING") + CALL, env).check()
    assert len(ended.err.splitlines()) == 2


def test_who_listens_is_known(env: Env) -> None:
    program = f"{PRELUDE}\nfrom espresso import _watch; say(_watch.level())"
    for changes, level in (
        ({}, 30),
        ({"ESPRESSO_LOG": "info"}, 20),
        ({"ESPRESSO_LOG": "debug"}, 10),
        ({"ESPRESSO_LOG": "critical"}, 30),
    ):
        assert run(program, {**env, **changes}).check().out == f"{level}\n"


# --- to a file --------------------------------------------------------------------


def test_the_file_is_for_the_user_alone_and_grows(
    exchange: Exchange, env: Env, path: Path
) -> None:
    for n in (1, 2):
        exchange.fault("envoy_503")
        ended = call(env, ESPRESSO_LOG_FILE=path, ESPRESSO_LOG="debug")
        told = records(path.read_text())
        assert len(told) == 5 * n
        assert records(ended.err) == told[-5:]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert exchange.key not in path.read_text()


def test_the_file_alone_takes_results_and_hides_no_warning(
    exchange: Exchange, env: Env, path: Path
) -> None:
    exchange.fault("envoy_503")
    ended = call(env, ESPRESSO_LOG_FILE=path)
    levels = [level for level, _ in records(path.read_text())]
    assert levels == ["WARNING", "WARNING", "INFO"]
    assert ended.err.startswith("ADAUSDM: attempt 1 failed (")
    assert "INFO" not in ended.err
    logging = "import logging; logging.basicConfig(format='>%(message)s')"
    exchange.fault("envoy_503")
    told = run(logging + CALL, {**env, "ESPRESSO_LOG_FILE": str(path)}).check().err
    assert [line[0] for line in told.splitlines()] == [">"] * 3


def test_processes_share_the_file(exchange: Exchange, env: Env, path: Path) -> None:
    program = (
        PRELUDE
        + """
from espresso import _watch
children = []
for _ in range(3):
    children.append(os.fork())
    if children[-1] == 0:
        children = []
        break
for n in range(200):
    _watch.result("S" * 60, {"symbol": "", "order_ids": []})
for child in children:
    os.waitpid(child, 0)
"""
    )
    changed = {**env, "ESPRESSO_LOG_FILE": str(path), "ESPRESSO_LOG": "info"}
    run(program, changed).check()
    text = path.read_text()
    assert len(records(text)) == 800
    assert len({it[1] for it in LINE.finditer(text)}) == 4


def test_never_through_a_symbolic_link(
    exchange: Exchange, env: Env, path: Path, tmp_path: Path
) -> None:
    target = tmp_path / "precious"
    target.write_text("as it was\n")
    path.symlink_to(target)
    ended = call(env, ESPRESSO_LOG_FILE=path)
    assert ended.err.startswith("ESPRESSO_LOG_FILE: nothing is written there: ")
    assert target.read_text() == "as it was\n"


@pytest.mark.parametrize("kind", ["folder", "fifo", "missing folder", "full disk"])
def test_a_file_that_cannot_be_written_costs_nothing(
    kind: str, exchange: Exchange, env: Env, path: Path
) -> None:
    match kind:
        case "folder":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)
        case "missing folder":
            path /= "none"
        case "full disk":
            path = Path("/dev/full")
    ended = call(env, ESPRESSO_LOG_FILE=path)
    (line,) = ended.err.splitlines()
    assert line.startswith("ESPRESSO_LOG_FILE: nothing is written there: ")
    exchange.fault("envoy_503")
    assert len(call(env, ESPRESSO_LOG_FILE=path).err.splitlines()) == 3


def test_a_name_from_an_older_encoding(env: Env, path: Path) -> None:
    """What cannot be encoded is escaped; the record is not lost."""
    program = (
        PRELUDE + "from espresso import _watch; _watch.log.warning('%s', '\\udcff')"
    )
    run(program, {**env, "ESPRESSO_LOG_FILE": str(path)}).check()
    assert records(path.read_text()) == [("WARNING", "\\udcff")]


# --- on the command line ----------------------------------------------------------


def command(env: Env, exchange: Exchange, *words: str, **changes: str) -> Ended:
    program = (
        f"from espresso._cli import main; main(['cancel-all', {str(words)[1:-1]}])"
    )
    given = {
        "DELTADEFI_API_KEY": exchange.key,
        "DELTADEFI_BASE_URL": exchange.url,
        "SSL_CERT_FILE": exchange.ca_file,
    }
    return run(program, {**env, **given, **changes}).check()


def test_verbose_and_the_variable_do_not_say_it_twice(
    exchange: Exchange, env: Env
) -> None:
    told = command(env, exchange, "ADAUSDM", "-v", ESPRESSO_LOG="debug").err
    assert told.count("attempt 1: ") == 1
    assert "espresso: ADAUSDM: attempt 1: done" in told


def test_a_file_takes_the_attempts_of_the_command(
    exchange: Exchange, env: Env, path: Path
) -> None:
    exchange.fault("envoy_503")
    words = {"ESPRESSO_LOG_FILE": str(path)}
    told = command(env, exchange, "ADAUSDM", **words).err
    assert "espresso: ADAUSDM: attempt 1 failed (" in told
    assert len(records(path.read_text())) == 3
    exchange.fault("envoy_503")
    assert command(env, exchange, "ADAUSDM", "-q", **words).err == ""
    assert len(records(path.read_text())) == 6
