"""``espresso cancel-all`` in processes of its own, against the sandbox.

What a shell script relies on: the exit status, stdout, and that neither ever says more
than the exchange has said. And what a person sees who presses it in a hurry.
"""

from __future__ import annotations

import json
import os
import pty
import re
import resource
import signal
import stat
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pexpect
import psutil
import pytest

import espresso
from espresso import _cli, _cli_cancel, errors
from espresso.sandbox import Exchange, replies
from tests.children import PATIENCE, ROOT
from tests.obstacles import wait_until
from tests.rawserver import RawServer, Wire

SCRIPT = str(Path(sys.executable).with_name("espresso"))
MODULE = [sys.executable, "-m", "espresso"]
SYMBOL = "ADAUSDM"

Done = subprocess.CompletedProcess[str]
Env = dict[str, str]


@pytest.fixture
def env(exchange: Exchange, clean_env: Env) -> Env:
    """The environment of somebody whose shell is set up for the sandbox."""
    return {
        **{name: clean_env[name] for name in clean_env if name[:6] != "PYTHON"},
        "DELTADEFI_API_KEY": exchange.key,
        "DELTADEFI_BASE_URL": exchange.url,
        "SSL_CERT_FILE": exchange.ca_file,
        "ESPRESSO_LOOPBACK_ONLY": "1",
    }


def cancel(env: Mapping[str, str], *words: str, **options: Any) -> Done:
    """``espresso cancel-all WORDS`` to its end."""
    return espresso_command(env, "cancel-all", *words, **options)


def espresso_command(
    env: Mapping[str, str],
    *words: str,
    command: Sequence[str] = (SCRIPT,),
    given: str = "",
    **options: Any,
) -> Done:
    return subprocess.run(
        [*command, *words],
        env=dict(env),
        cwd=ROOT,
        input=given,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        **options,
    )


def objects(done: Done) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def announcement(exchange: Exchange, *symbols: str) -> str:
    """What stderr begins with."""
    return (
        f"espresso: at {exchange.url} (from DELTADEFI_BASE_URL, not the mainnet)\n"
        f"espresso: cancelling all open orders of {' '.join(symbols)}\n"
    )


# --- it is done -------------------------------------------------------------------


def test_symbols_are_cancelled_and_proven(exchange: Exchange, env: Env) -> None:
    exchange.place(SYMBOL, 3)
    exchange.place("IAGUSDM", 1)
    done = cancel(env, SYMBOL, "NIGHTUSDM", "IAGUSDM")
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        "ADAUSDM    nothing open; 3 orders cancelled",
        "NIGHTUSDM  nothing open; there was nothing to cancel",
        "IAGUSDM    nothing open; 1 order cancelled",
    ]
    assert done.stderr == announcement(exchange, SYMBOL, "NIGHTUSDM", "IAGUSDM")
    assert exchange.open_orders() == []
    # Each was asked until the exchange itself said that nothing is open.
    last = {call.symbol: call.status for call in exchange.calls}
    assert last == dict.fromkeys((SYMBOL, "NIGHTUSDM", "IAGUSDM"), 400)


@pytest.mark.parametrize(
    "command", [[SCRIPT], MODULE, [*MODULE[:1], "-I", *MODULE[1:]]]
)
def test_every_way_to_start_it(
    command: list[str], exchange: Exchange, env: Env
) -> None:
    if "-I" in command:  # an isolated interpreter: only what is installed
        assert "-m" in command
    exchange.place(SYMBOL, 1)
    done = cancel(env, SYMBOL, command=command)
    assert (done.returncode, exchange.open_orders()) == (0, [])
    assert done.stderr == announcement(exchange, SYMBOL)


def test_without_confirmation_one_answer_is_enough(
    exchange: Exchange, env: Env
) -> None:
    exchange.place(SYMBOL, 2)
    done = cancel(env, SYMBOL, "NIGHTUSDM", "--no-confirm")
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        "ADAUSDM    2 orders cancelled; not confirmed",
        "NIGHTUSDM  there was nothing to cancel",
    ]
    assert sorted(call.status or 0 for call in exchange.calls) == [200, 400]


def test_an_order_that_comes_late_is_found(exchange: Exchange, env: Env) -> None:
    exchange.place(SYMBOL, 1)
    exchange.fault("late_order", after=0)
    done = cancel(env, SYMBOL)
    assert (done.returncode, exchange.open_orders()) == (0, [])
    assert done.stdout == "ADAUSDM  nothing open; 2 orders cancelled\n"


def test_a_lost_reply_is_named(exchange: Exchange, env: Env) -> None:
    exchange.place(SYMBOL, 2)
    exchange.fault("reset_after_read")
    done = cancel(env, SYMBOL)
    assert done.returncode == 0
    assert done.stdout == (
        "ADAUSDM  nothing open; how many were cancelled is unknown, a reply was lost\n"
    )
    assert "espresso: ADAUSDM: attempt 1 failed (" in done.stderr
    assert "the reply to an earlier attempt was lost" in done.stderr
    exchange.place(SYMBOL, 2)
    exchange.fault("reset_after_read")
    (one,) = objects(cancel(env, SYMBOL, "--json"))
    assert one == {
        "symbol": SYMBOL,
        "order_ids": [],
        "lost_reply": True,
        "outcome": "done",
    }


def test_a_symbol_named_twice_is_answered_once(exchange: Exchange, env: Env) -> None:
    done = cancel(env, SYMBOL, SYMBOL, "--json")
    assert [one["symbol"] for one in objects(done)] == [SYMBOL]
    assert len(exchange.calls) == 1


def test_options_may_stand_anywhere(exchange: Exchange, env: Env) -> None:
    for words in (["--json", SYMBOL, "NIGHTUSDM"], [SYMBOL, "--json", "NIGHTUSDM"]):
        done = cancel(env, *words)
        assert [one["symbol"] for one in objects(done)] == [SYMBOL, "NIGHTUSDM"]


# --- it is not: the exit status ---------------------------------------------------


def reply_with(code: int, name: str = "400_code_4000") -> Callable[[Exchange], None]:
    answer = replies.load(name).with_json({"error": "no", "code": code}).raw
    return lambda exchange: exchange.reply(answer, times=None)


def fault(name: str, **params: object) -> Callable[[Exchange], None]:
    return lambda exchange: exchange.fault(name, times=None, **params)


# What is done to the exchange, the exit status, the error of --json, and words that
# stderr has to have.
FAILURES: list[tuple[Callable[[Exchange], None], int, str, str]] = [
    (fault("5000_as_400"), 1, "ServerError", "Run the same command again"),
    (fault("envoy_503"), 1, "UnavailableError", "Run the same command again"),
    (fault("hang"), 1, "RequestTimeoutError", "Run the same command again"),
    (fault("html_200"), 1, "ResponseError", "Run the same command again"),
    (fault("reset_after_read"), 1, "ConnectionLostError", "Run the same command"),
    (reply_with(4050), 1, "APIError", "Run the same command again"),
    (fault("locked_5002"), 4, "TradingLockedError", "Run the same command again."),
    (reply_with(4290), 4, "RateLimitError", "Run the same command again in 2 s."),
    (fault("connect_reset"), 4, "ConnectError", "Run the same command again."),
    (fault("403_empty"), 3, "PermissionDeniedError", "address, region"),
    (reply_with(4106), 3, "InvalidSymbolError", "the spelling of the symbol"),
    (reply_with(4010), 3, "AuthenticationError", "belongs to this host"),
    (reply_with(4000), 3, "BadRequestError", "see the message above"),
    (fault("expired_certificate"), 3, "CertificateError", "espresso doctor"),
]


def eight_descriptors() -> None:
    """Three streams; two of libcurl, one of ours, the connection, the roots."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (8, 8))


BUTTON = [sys.executable, "-c", f"import espresso; espresso.cancel_all({SYMBOL!r})"]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a pipe takes one more")
@pytest.mark.parametrize(
    "command", [[SCRIPT, "cancel-all", SYMBOL], BUTTON], ids=["command", "button"]
)
def test_eight_descriptors_are_enough(
    exchange: Exchange, env: Env, command: list[str]
) -> None:
    exchange.place(SYMBOL, 2)
    done = espresso_command(env, command=command, preexec_fn=eight_descriptors)
    assert done.returncode == 0, done.stderr
    assert not exchange.open_orders()


@pytest.mark.parametrize(
    ("prepare", "status", "error", "advice"), FAILURES, ids=[it[2] for it in FAILURES]
)
def test_exit_status_of_a_failure(
    prepare: Callable[[Exchange], None],
    status: int,
    error: str,
    advice: str,
    exchange: Exchange,
    env: Env,
) -> None:
    prepare(exchange)
    done = cancel(env, SYMBOL, "--timeout", "0.7", "--json")
    assert done.returncode == status
    assert done.stderr.startswith(announcement(exchange, SYMBOL))
    assert "espresso: NOT DONE. Orders may be open on ADAUSDM\n" in done.stderr
    assert advice in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    (one,) = objects(done)
    assert (one["symbol"], one["error"]) == (SYMBOL, error)
    assert one["retryable"] is getattr(errors, error).retryable
    expected = {
        1: {"unknown"},
        4: {"rejected", "not_sent"},
        3: {"rejected", "not_sent"},
    }
    assert one["outcome"] in expected[status]
    assert one["message"]
    assert one["order_ids"] == []
    assert one.keys() >= {"code", "status_code", "attempts", "elapsed"}


def test_orders_that_keep_coming_are_still_open(exchange: Exchange, env: Env) -> None:
    exchange.place(SYMBOL, 1)
    exchange.fault("late_order", times=None, after=0)
    done = cancel(env, SYMBOL, "--timeout", "0.5")
    assert done.returncode == 1
    assert re.match(r"ADAUSDM  STILL OPEN \(\d+ cancelled so far\): ", done.stdout)
    done = cancel(env, SYMBOL, "--timeout", "0.5", "--json")
    (one,) = objects(done)
    assert one["error"] == "StillOpenError"
    assert len(one["order_ids"]) > 1


def test_one_refused_does_not_keep_the_others(exchange: Exchange, env: Env) -> None:
    exchange.place(SYMBOL, 2)
    done = cancel(env, "XXXYYY", SYMBOL)
    assert (done.returncode, exchange.open_orders()) == (3, [])
    refused, fine = done.stdout.splitlines()
    assert refused.startswith("XXXYYY   NOT CANCELLED: [4106] ")
    assert fine == "ADAUSDM  nothing open; 2 orders cancelled"
    assert "Orders may be open on XXXYYY\n" in done.stderr


def test_the_wrong_key(exchange: Exchange, env: Env) -> None:
    done = cancel({**env, "DELTADEFI_API_KEY": "sandbox-wrong-0123456789"}, SYMBOL)
    assert done.returncode == 3
    assert "NOT CANCELLED: [4010]" in done.stdout
    assert "sandbox-wrong" not in done.stdout + done.stderr


def error_of(outcome: str, retryable: bool) -> espresso.EspressoError:
    return espresso.APIError("no", outcome=outcome, retryable=retryable)


UNKNOWN, AGAIN = error_of("unknown", False), error_of("rejected", True)
REFUSED, FINE = error_of("rejected", False), {"symbol": SYMBOL, "order_ids": []}


@pytest.mark.parametrize(
    ("answers", "status"),
    [
        ([FINE], 0),
        ([FINE, UNKNOWN], 1),
        ([REFUSED, AGAIN, UNKNOWN], 1),
        ([error_of("unknown", True)], 1),
        ([FINE, REFUSED, AGAIN], 4),
        ([error_of("not_sent", True)], 4),
        ([FINE, REFUSED], 3),
        ([error_of("not_sent", False), REFUSED], 3),
        ([espresso.StillOpenError("no")], 1),
        ([MemoryError()], 1),
    ],
)
def test_status_of_what_came_of_it(answers: list[Any], status: int) -> None:
    assert _cli_cancel.status_of(answers) == status


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "the following arguments are required: SYMBOL"),
        (["ADA/USDM", "NIGHTUSDM"], "without a slash: ADAUSDM"),
        (["x" * 65], "64"),
        (["", "NIGHTUSDM"], "empty"),
        (["ADA\udcffUSDM"], "A-Z a-z 0-9"),
        ([SYMBOL, "--timeout", "soon"], "invalid float value: 'soon'"),
        ([SYMBOL, "--timeout", "nan"], "timeout must be positive"),
        ([SYMBOL, "--timeout", "-1"], "timeout must be positive"),
        ([SYMBOL, "--base-url", "ftp://x"], "must begin with https://"),
        ([SYMBOL, "--base-url", ""], "base_url is empty"),
        ([SYMBOL, "--base-url", "https://example.com"], "ESPRESSO_LOOPBACK_ONLY"),
        ([SYMBOL, "--js"], "unknown option --js"),
        ([SYMBOL, "-q", "-v"], "not allowed with argument"),
        ([SYMBOL, "--api-key", "0123456789abcdef"], "a key is no argument"),
        ([SYMBOL, "--api_key=0123456789abcdef"], "a key is no argument"),
        ([SYMBOL, "--secret=0123456789abcdef"], "unknown option --secret"),
        ([SYMBOL, "--api-key-file", "/none/such"], "/none/such: No such file"),
        ([SYMBOL, "--api-key-file", "0123456789abcdef"], "that was named: No such"),
        ([SYMBOL, "--api-key-file", "/"], "/: Is a directory"),
        ([SYMBOL, "--api-key-file", "/dev/null"], "/dev/null: the API key is empty"),
    ],
)
def test_a_bad_command_sends_nothing(
    words: list[str], sentence: str, exchange: Exchange, env: Env
) -> None:
    done = cancel(env, *words)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert "0123456789" not in done.stderr
    assert done.stdout == ""
    assert exchange.requests == []


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("DELTADEFI_API_KEY", "", "DELTADEFI_API_KEY or name a file in --api-key-file"),
        ("DELTADEFI_API_KEY", "two words", "DELTADEFI_API_KEY: the API key holds"),
        (
            "DELTADEFI_BASE_URL",
            "https://x.example",
            "; give --base-url for another host",
        ),
        ("DELTADEFI_BASE_URL", "nonsense", "DELTADEFI_BASE_URL: "),
        ("HTTPS_PROXY", "http://trader:hunter2-c0ffee@:1:1", "proxy"),
    ],
)
def test_a_bad_environment_sends_nothing(
    name: str, value: str, sentence: str, exchange: Exchange, env: Env
) -> None:
    changed = {**env, name: value}
    done = cancel(changed, SYMBOL, "NIGHTUSDM", "--json")
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "espresso: nothing was sent\n" in done.stderr
    assert "hunter2" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert [one["symbol"] for one in objects(done)] == [SYMBOL, "NIGHTUSDM"]
    for one in objects(done):
        assert (one["error"], one["outcome"]) == ("ConfigError", "not_sent")
        assert not one["retryable"]
    assert exchange.requests == []


def test_what_a_call_refuses_for_its_secrets_is_status_2(
    exchange: Exchange, env: Env, tmp_path: Path
) -> None:
    done = cancel({**env, "SSLKEYLOGFILE": str(tmp_path / "secrets")}, SYMBOL)
    assert done.returncode == 2
    assert "SSLKEYLOGFILE is set" in done.stderr
    assert exchange.calls == []


# --- signals ----------------------------------------------------------------------


@pytest.fixture
def started(
    exchange: Exchange, env: Env
) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a command whose calls the exchange has received; ends what is left."""
    processes = []

    def start(*words: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [SCRIPT, "cancel-all", *words],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        exchange.wait_for_calls(sum(not word.startswith("-") for word in words))
        return process

    yield start
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=PATIENCE)


@pytest.mark.parametrize(
    ("number", "status", "name"),
    [
        (signal.SIGINT, 130, "KeyboardInterrupt"),
        (signal.SIGTERM, 143, "Terminated"),
    ],
)
def test_a_signal_ends_the_wait_and_says_what_had_gone_out(
    number: signal.Signals,
    status: int,
    name: str,
    exchange: Exchange,
    started: Callable[..., subprocess.Popen[str]],
) -> None:
    exchange.fault("hang", times=None)
    process = started(SYMBOL, "NIGHTUSDM")
    process.send_signal(number)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == status
    gone = "had gone out; whether its orders are cancelled is unknown"
    assert out.splitlines() == [
        f"ADAUSDM    MAY BE OPEN: the request for ADAUSDM {gone}",
        f"NIGHTUSDM  MAY BE OPEN: the request for NIGHTUSDM {gone}",
    ]
    assert "NOT DONE. Orders may be open on ADAUSDM NIGHTUSDM" in err
    assert "Traceback" not in err
    process = started(SYMBOL, "NIGHTUSDM", "--json")
    exchange.wait_for_calls(4)
    process.send_signal(number)
    out, _ = process.communicate(timeout=PATIENCE)
    for line, symbol in zip(out.splitlines(), (SYMBOL, "NIGHTUSDM"), strict=True):
        one = json.loads(line)
        assert (one["symbol"], one["error"]) == (symbol, name)
        assert (one["outcome"], one["retryable"]) == ("unknown", True)
        assert symbol in one["message"]


@pytest.mark.parametrize("words", [[], ["--json"]])
def test_what_a_signal_keeps_from_going_out_was_not_sent(
    words: list[str], exchange: Exchange, env: Env
) -> None:
    with RawServer(Wire.hold, clear=(0,)) as server:
        command = [SCRIPT, "cancel-all", SYMBOL, *words, "--base-url"]
        process = subprocess.Popen(
            [*command, f"https://127.0.0.1:{server.port}"],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        wait_until(lambda: server.connections == 1, "a connection")
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    why = "the request for ADAUSDM had not gone out"
    if words:
        one = json.loads(out)
        told = (one["outcome"], one["retryable"], one["message"])
        assert told == ("not_sent", True, why)
    else:
        assert out == f"ADAUSDM  NOT CANCELLED: {why}\n"


def test_a_closed_terminal_does_not_end_the_cancel(
    exchange: Exchange, started: Callable[..., subprocess.Popen[str]]
) -> None:
    exchange.place(SYMBOL, 1)
    exchange.fault("slow", seconds=0.5)
    process = started(SYMBOL)
    process.send_signal(signal.SIGHUP)
    out, _ = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (
        0,
        "ADAUSDM  nothing open; 1 order cancelled\n",
    )
    assert exchange.open_orders() == []


# --- where it writes --------------------------------------------------------------


def shell(env: Env, line: str) -> Done:
    return subprocess.run(
        ["bash", "-c", line],
        env={**env, "ESPRESSO": SCRIPT},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


@pytest.mark.parametrize(
    "line",
    [
        '"$ESPRESSO" cancel-all ADAUSDM >&-',
        '"$ESPRESSO" cancel-all ADAUSDM >/dev/full',
        'exec 3> >(true); sleep 0.1; "$ESPRESSO" cancel-all ADAUSDM >&3',
    ],
)
def test_stdout_that_takes_nothing(line: str, exchange: Exchange, env: Env) -> None:
    """The status speaks of the orders, and the result goes where it still can."""
    exchange.place(SYMBOL, 1)
    done = shell(env, line)
    assert (done.returncode, exchange.open_orders()) == (0, [])
    assert done.stdout == ""
    assert done.stderr.endswith(
        "espresso: stdout takes nothing; what it was to say:\n"
        "ADAUSDM  nothing open; 1 order cancelled\n"
    )
    exchange.fault("403_empty")
    assert shell(env, line).returncode == 3


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full", "<&- 2>&-"])
def test_stderr_that_takes_nothing(
    redirection: str, exchange: Exchange, env: Env
) -> None:
    exchange.place(SYMBOL, 1)
    done = shell(env, f'"$ESPRESSO" cancel-all ADAUSDM {redirection}')
    assert (done.returncode, exchange.open_orders()) == (0, [])
    assert done.stdout == "ADAUSDM  nothing open; 1 order cancelled\n"
    exchange.fault("5000_as_400", times=None)
    line = f'"$ESPRESSO" cancel-all ADAUSDM --timeout 0.5 {redirection}'
    assert shell(env, line).returncode == 1


def test_nothing_to_write_to_at_all(exchange: Exchange, env: Env) -> None:
    exchange.place(SYMBOL, 1)
    done = shell(env, '"$ESPRESSO" cancel-all ADAUSDM <&- >&- 2>&-')
    assert (done.returncode, exchange.open_orders()) == (0, [])


def test_a_reader_that_does_not_read_does_not_hold_the_cancel(
    exchange: Exchange, env: Env
) -> None:
    """stderr is a full pipe, also for the warnings of the attempts."""
    exchange.place(SYMBOL, 1)
    exchange.fault("envoy_503")
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with pytest.raises(BlockingIOError):
        while True:
            os.write(writer, b"x" * 4096)
    os.set_blocking(writer, True)
    try:
        done = subprocess.run(
            [SCRIPT, "cancel-all", SYMBOL],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=writer,
            timeout=PATIENCE,
        )
    finally:
        os.close(reader)
        os.close(writer)
    assert (done.returncode, exchange.open_orders()) == (0, [])


NARROW = {  # no locale that could write all of it, and no help of Python's
    "LC_ALL": "C",
    "LANG": "C",
    "PYTHONUTF8": "0",
    "PYTHONCOERCECLOCALE": "0",
    "PYTHONIOENCODING": "ascii:strict",
}


@pytest.mark.parametrize("locale", [{"LC_ALL": "C"}, {"LANG": "POSIX"}, NARROW])
def test_any_locale(locale: Env, exchange: Exchange, env: Env) -> None:
    words = "geschlossen f\u00fcr heute \u2013 \u672c"
    answer = replies.load("400_code_4000").with_json({"error": words, "code": 4000})
    exchange.reply(answer.raw)
    done = cancel({**env, **locale}, SYMBOL)
    assert done.returncode == 3
    assert "NOT CANCELLED: [4000] geschlossen f" in done.stdout
    exchange.reply(answer.raw)
    (one,) = objects(cancel({**env, **locale}, SYMBOL, "--json"))
    assert one["message"] == words


@pytest.mark.parametrize(
    ("count", "given", "timeout"),
    [(1, None, 10.0), (20, None, 10.0), (24, None, 12.0), (24, 3.0, 3.0)],
)
def test_more_symbols_have_more_time(
    count: int, given: float | None, timeout: float
) -> None:
    """The exchange's own rate would use the usual time up."""
    arguments = _cli_cancel.Arguments()
    arguments.symbols = [f"S{n}" for n in range(count)]
    arguments.timeout = given
    assert _cli_cancel._options(arguments) == {"timeout": timeout}


# --- more and less of it ----------------------------------------------------------


def test_quiet_says_only_what_went_wrong(exchange: Exchange, env: Env) -> None:
    exchange.fault("envoy_503")
    done = cancel(env, SYMBOL, "-q")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        "ADAUSDM  nothing open; how many were cancelled is unknown, a reply was lost\n"
    )
    exchange.fault("403_empty")
    done = cancel(env, SYMBOL, "--quiet")
    assert done.returncode == 3
    assert done.stderr.startswith("espresso: NOT DONE. ")


def test_verbose_tells_every_attempt(exchange: Exchange, env: Env) -> None:
    exchange.place(SYMBOL, 1)
    exchange.fault("envoy_503")
    done = cancel(env, SYMBOL, "-v")
    assert done.returncode == 0
    attempts = re.findall(
        r"espresso: ADAUSDM: attempt (\d): (\w+), HTTP (\d+)", done.stderr
    )
    assert attempts == [
        ("1", "unknown", "503"),
        ("2", "done", "200"),
        ("3", "done", "400"),
    ]
    assert "first byte" in done.stderr
    assert exchange.key not in done.stdout + done.stderr


def test_a_small_letter_is_remarked_on(exchange: Exchange, env: Env) -> None:
    done = cancel(env, "adausdm")
    assert done.returncode == 3
    assert "espresso: adausdm holds small letters" in done.stderr


def test_the_mainnet_is_named_and_no_more(env: Env) -> None:
    """Without a key, so that nothing leaves this machine."""
    del env["DELTADEFI_BASE_URL"], env["ESPRESSO_LOOPBACK_ONLY"]
    done = cancel({**env, "DELTADEFI_API_KEY": ""}, SYMBOL)
    assert done.returncode == 2
    assert done.stderr.startswith(
        f"espresso: at {espresso.MAINNET}\nespresso: cancelling all open orders of "
    )


def test_what_could_move_the_cursor_is_escaped(env: Env) -> None:
    done = cancel(env, "\x1b[2JADAUSDM")
    assert done.returncode == 2
    assert "orders of '\\x1b[2JADAUSDM'\n" in done.stderr
    assert "\x1b" not in done.stdout + done.stderr


def test_what_the_panic_button_loads(exchange: Exchange, env: Env) -> None:
    """No parser, no logging, nothing of the other verbs, before the call or after."""
    program = (
        "import sys; from espresso._cli import main\n"
        f"status = main(['cancel-all', '{SYMBOL}'])\n"
        "print(*sorted(sys.modules)); sys.exit(status)"
    )
    exchange.place(SYMBOL, 1)
    done = espresso_command(env, "-c", program, command=[sys.executable, "-I"])
    assert done.returncode == 0
    loaded = set(done.stdout.splitlines()[-1].split())
    heavy = {"argparse", "re", "enum", "signal", "typing", "logging", "json", "ssl"}
    assert not (heavy | {"textwrap", "shutil", "importlib.metadata"}) & loaded
    ours = {name for name in loaded if name.startswith("espresso.")}
    assert ours == {
        "espresso._cli",
        "espresso._cli_cancel",
        "espresso._cli_report",
        "espresso._client",
        "espresso._core",
        "espresso.errors",
    }


# --- the key ----------------------------------------------------------------------


@pytest.fixture
def keyless(env: Env) -> Env:
    del env["DELTADEFI_API_KEY"]
    return env


@pytest.fixture
def key_file(exchange: Exchange, tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.touch(0o600)
    path.write_text(f"{exchange.key}\n")
    return path


@pytest.mark.parametrize("end", ["\n", "\r\n", ""])
def test_the_key_of_a_file(
    end: str, exchange: Exchange, keyless: Env, key_file: Path
) -> None:
    key_file.write_bytes(f"{exchange.key}{end}".encode())
    exchange.place(SYMBOL, 1)
    done = cancel(keyless, SYMBOL, "--api-key-file", str(key_file))
    assert (done.returncode, exchange.open_orders()) == (0, [])
    assert done.stderr == announcement(exchange, SYMBOL)


def test_the_key_of_stdin(exchange: Exchange, keyless: Env) -> None:
    exchange.place(SYMBOL, 1)
    done = cancel(keyless, SYMBOL, "--api-key-file", "-", given=f"{exchange.key}\n")
    assert (done.returncode, exchange.open_orders()) == (0, [])


def test_the_key_of_a_program(exchange: Exchange, keyless: Env, key_file: Path) -> None:
    """What a password manager prints, through a pipe."""
    exchange.place(SYMBOL, 1)
    line = f'"$ESPRESSO" cancel-all ADAUSDM --api-key-file <(sleep 0.1; cat {key_file})'
    done = shell(keyless, line)
    assert (done.returncode, exchange.open_orders()) == (0, [])
    assert "warning" not in done.stderr


def test_the_file_wins_over_the_environment(
    exchange: Exchange, env: Env, key_file: Path
) -> None:
    changed = {**env, "DELTADEFI_API_KEY": "sandbox-another"}
    assert cancel(changed, SYMBOL, "--api-key-file", str(key_file)).returncode == 0
    assert [call.key for call in exchange.calls] == [exchange.key]


@pytest.mark.parametrize(
    "content", ["\n", "KEY\n\n", " KEY", "KEY KEY\n", "KEY\0", "\ufeffKEY", "KEY" * 99]
)
def test_what_is_no_key_is_not_quoted(
    content: str, exchange: Exchange, keyless: Env, key_file: Path
) -> None:
    key_file.write_text(content.replace("KEY", exchange.key))
    for words in (["--api-key-file", str(key_file)], ["--api-key-file", "-"]):
        given = key_file.read_text() if words[1] == "-" else ""
        done = cancel(keyless, SYMBOL, *words, given=given)
        assert done.returncode == 2
        where = "stdin" if words[1] == "-" else str(key_file)
        assert f"error: {where}: the API key " in done.stderr
        assert exchange.key[:12] not in done.stdout + done.stderr
    assert exchange.calls == []


def test_a_file_that_others_can_read_is_remarked_on(
    exchange: Exchange, keyless: Env, key_file: Path
) -> None:
    key_file.chmod(0o640)
    warning = (
        f"espresso: warning: other users can read the key; run: chmod 600 {key_file}"
    )
    words = [SYMBOL, "--api-key-file", str(key_file)]
    done = cancel(keyless, *words)
    assert done.returncode == 0
    assert done.stderr == f"{announcement(exchange, SYMBOL)}{warning}\n"
    assert cancel(keyless, *words, "-q").stderr == ""
    key_file.chmod(stat.S_IRUSR)
    assert "warning" not in cancel(keyless, *words).stderr


def test_the_key_is_in_no_argument_and_in_no_list_of_processes(
    exchange: Exchange, keyless: Env, key_file: Path
) -> None:
    exchange.fault("slow", seconds=0.5)
    with subprocess.Popen(
        [SCRIPT, "cancel-all", SYMBOL, "--api-key-file", str(key_file)],
        env=keyless,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        exchange.wait_for_calls(1)
        listed = " ".join(psutil.Process(process.pid).cmdline())
        assert str(key_file) in listed
        assert exchange.key not in listed
    assert process.returncode == 0


# --- in a terminal ----------------------------------------------------------------


@pytest.fixture
def terminal(env: Env) -> Iterator[Callable[..., pexpect.spawn[str]]]:
    """Starts the command in a terminal of 80 columns."""
    spawned = []

    def start(*words: str, **changes: str) -> pexpect.spawn[str]:
        child = pexpect.spawn(
            SCRIPT,
            ["cancel-all", *words],
            env={**env, **changes},
            dimensions=(24, 80),
            encoding="utf-8",
            timeout=PATIENCE,
        )
        spawned.append(child)
        return child

    yield start
    for child in spawned:
        child.close(force=True)


def told(child: pexpect.spawn[str]) -> list[str]:
    """All lines of a command that has ended."""
    child.expect(pexpect.EOF)
    child.close()
    text = child.before
    assert isinstance(text, str)
    return text.replace("\r\n", "\n").splitlines()


def test_no_line_is_broken_by_the_terminal(
    exchange: Exchange, terminal: Callable[..., pexpect.spawn[str]]
) -> None:
    many = [f"SYMBOL{n:02}USDM" for n in range(9)]
    for symbol in many:
        exchange.place(symbol, 1)
    exchange.fault("403_empty", times=None)
    child = terminal(*many)
    lines = told(child)
    assert child.exitstatus == 3
    assert max(map(len, lines)) < 80
    text = " ".join(" ".join(lines).split())
    for symbol in many:
        assert re.search(rf"{symbol} NOT CANCELLED: .*? {symbol} at 127", text)
    assert "NOT DONE. Orders may be open on SYMBOL00USDM SYMBOL01USDM" in text


def test_ctrl_c_in_a_terminal(
    exchange: Exchange, terminal: Callable[..., pexpect.spawn[str]]
) -> None:
    exchange.fault("hang", times=None)
    child = terminal(SYMBOL)
    exchange.wait_for_calls(1)
    child.sendintr()
    lines = told(child)
    assert (child.exitstatus, child.signalstatus) == (130, None)
    assert any(line.startswith("ADAUSDM  MAY BE OPEN: ") for line in lines)


def test_a_terminal_that_ctrl_s_holds_does_not_hold_the_cancel(
    exchange: Exchange, env: Env
) -> None:
    """Nothing can be written, the orders go all the same; then the result comes."""
    exchange.place(SYMBOL, 1)
    exchange.fault("envoy_503")
    master, slave = pty.openpty()
    termios.tcflow(slave, termios.TCOOFF)
    process = subprocess.Popen(
        [SCRIPT, "cancel-all", SYMBOL], env=env, stdin=slave, stdout=slave, stderr=slave
    )
    try:
        exchange.wait_for_calls(3, PATIENCE)
        assert exchange.open_orders() == []
        time.sleep(0.1)
        assert process.poll() is None  # it waits to say so
        termios.tcflow(slave, termios.TCOON)
        assert process.wait(PATIENCE) == 0
        assert b"ADAUSDM  nothing open; 1 order cancelled" in os.read(master, 65536)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(PATIENCE)
        os.close(master)
        os.close(slave)


def test_nobody_is_asked_for_a_key(
    exchange: Exchange, terminal: Callable[..., pexpect.spawn[str]]
) -> None:
    child = terminal(SYMBOL, "--api-key-file", "-", DELTADEFI_API_KEY="")
    text = " ".join(told(child))
    assert child.exitstatus == 2
    assert "stdin: it is a terminal, and nobody is asked: pipe the key in" in text
    assert exchange.requests == []


def test_it_works_without_any_terminal(exchange: Exchange, env: Env) -> None:
    """As under cron."""
    exchange.place(SYMBOL, 1)
    done = cancel(env, SYMBOL, start_new_session=True)
    assert (done.returncode, exchange.open_orders()) == (0, [])


# --- help, and words that are no verb ---------------------------------------------


@pytest.mark.parametrize("verb", [[], ["cancel-all"], ["doctor"], ["sandbox"]])
def test_help_fits_and_is_whole(verb: list[str], env: Env) -> None:
    done = espresso_command(env, *verb, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert max(map(len, done.stdout.splitlines())) < 80
    for name in _cli._VERBS if not verb else ():
        assert re.search(rf"^  {name} ", done.stdout, re.MULTILINE)


def test_help_has_every_exit_status(env: Env) -> None:
    stated = re.findall(
        r"^  (\d+) ", espresso_command(env, "cancel-all", "-h").stdout, re.MULTILINE
    )
    assert sorted(map(int, stated)) == sorted(
        [_cli.OK, _cli.MAY_BE_OPEN, _cli.USAGE, _cli.REFUSED, _cli.AGAIN, 130]
    )


def test_version(env: Env) -> None:
    done = espresso_command(env, "--version")
    assert (done.returncode, done.stdout) == (0, f"espresso {espresso.__version__}\n")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["-v", "cancel-all", SYMBOL], "after the verb: espresso cancel-all ..."),
        ([SYMBOL], "invalid choice: 'ADAUSDM'"),
        (["cancel"], "invalid choice: 'cancel'"),
        ([], "the following arguments are required: VERB"),
        (["--"], "the following arguments are required: VERB"),
    ],
)
def test_what_is_no_verb(words: list[str], sentence: str, env: Env) -> None:
    done = espresso_command(env, *words)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_main_leaves_the_process_as_it_was(
    exchange: Exchange, env: Env, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    """For whoever calls it from Python: signals and streams are put back."""
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)]
    stderr = sys.stderr
    assert threading.current_thread() is threading.main_thread()
    assert _cli.main(["cancel-all", SYMBOL]) == 0
    after = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)]
    assert (after, sys.stderr) == (before, stderr)
    assert capfd.readouterr().out.startswith("ADAUSDM  nothing open")
