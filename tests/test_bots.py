"""The recipes and adapters of examples/, run as their own heads say.

ccxt pins all that it needs, so its example runs in a venv of its own, which
``scripts/venv`` makes once.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from prometheus_client import CollectorRegistry

import espresso
from espresso.sandbox import Exchange
from examples import metrics_prometheus, strategy, traces_opentelemetry
from tests.documents import PATIENCE, ROOT, enter, environment_of, run

SYMBOL = "ADAUSDM"


@pytest.fixture
def env(exchange: Exchange, clean_env: dict[str, str]) -> dict[str, str]:
    return environment_of(exchange, clean_env)


def client_of(exchange: Exchange, on_event: object) -> espresso.Client:
    return espresso.Client(
        exchange.key,
        base_url=exchange.url,
        ca_file=exchange.ca_file,
        on_event=on_event,  # type: ignore[arg-type]
    )


# ---- Prometheus ----------------------------------------------------------------------


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def test_attempts_are_counted(exchange: Exchange, registry: CollectorRegistry) -> None:
    exchange.place(SYMBOL, 1)
    exchange.fault("reset_after_read")
    metrics = metrics_prometheus.Metrics(registry)
    with client_of(exchange, metrics) as client:
        assert client.cancel_all(SYMBOL)["lost_reply"]

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"espresso_{name}", labels)

    first = {"symbol": SYMBOL, "outcome": "unknown", "code": ""}
    second = {"symbol": SYMBOL, "outcome": "done", "code": "4200"}
    assert value("attempts_total", **first) == 1
    assert value("attempts_total", **second) == 1
    assert value("lost_replies_total", symbol=SYMBOL) == 1
    for phase in ("dns", "connect", "tls", "total"):
        assert value("phase_seconds_count", phase=phase) == 2
    assert value("phase_seconds_count", phase="first_byte") == 1


def test_phases_add_up_to_the_first_byte() -> None:
    event = espresso.Event(
        symbol=SYMBOL,
        attempt=1,
        status_code=200,
        code=None,
        outcome="done",
        lost_reply=False,
        reused=False,
        remote="",
        dns=0.1,
        connect=0.3,
        tls=0.6,
        first_byte=1.0,
        total=1.5,
    )
    taken = metrics_prometheus.durations(event)
    assert taken == pytest.approx(
        {"dns": 0.1, "connect": 0.2, "tls": 0.3, "first_byte": 0.4, "total": 1.5}
    )


def test_alarm_of_a_guard_is_counted(registry: CollectorRegistry) -> None:
    import logging

    metrics = metrics_prometheus.Metrics(registry)
    log = logging.getLogger("espresso")
    handler = metrics_prometheus.Alarms(metrics)
    log.addHandler(handler)
    try:
        log.critical("ADAUSDM: could not be cancelled")
        log.warning("only a warning")
    finally:
        log.removeHandler(handler)
    assert registry.get_sample_value("espresso_guard_alarms_total") == 1


def test_metrics_as_the_head_says(env: dict[str, str], tmp_path: Path) -> None:
    program = ROOT / "examples/metrics_prometheus.py"
    printed = run([sys.executable, program, SYMBOL], env, tmp_path)
    assert 'outcome="done"' in printed
    assert "espresso_phase_seconds_bucket" in printed


# ---- OpenTelemetry -------------------------------------------------------------------


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def provider(exporter: InMemorySpanExporter) -> Iterator[TracerProvider]:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield provider
    provider.shutdown()


def test_each_attempt_is_a_span_of_the_call(
    exchange: Exchange, exporter: InMemorySpanExporter, provider: TracerProvider
) -> None:
    exchange.place(SYMBOL, 1)
    exchange.fault("envoy_503")
    tracer = provider.get_tracer("test")
    client = client_of(exchange, traces_opentelemetry.Spans(tracer))
    with client, tracer.start_as_current_span("stop trading"):
        client.cancel_all(SYMBOL)
    first, second, call = exporter.get_finished_spans()
    assert call.context is not None
    for span in (first, second):
        assert span.parent is not None
        assert span.parent.span_id == call.context.span_id
        assert (span.start_time or 0) < (span.end_time or 0)
        assert [event.name for event in span.events] == [
            *("dns", "connect", "tls", "first_byte")
        ]
        times = [event.timestamp for event in span.events]
        assert times == sorted(times)
        assert (span.start_time or 0) <= times[0]
    assert first.status.status_code is StatusCode.ERROR
    assert first.attributes is not None and second.attributes is not None
    assert first.attributes["http.response.status_code"] == 503
    assert first.attributes["espresso.outcome"] == "unknown"
    assert second.attributes["espresso.attempt"] == 2
    assert second.status.status_code is StatusCode.UNSET


def test_spans_of_asyncio_have_no_parent(
    exchange: Exchange, exporter: InMemorySpanExporter, provider: TracerProvider
) -> None:
    tracer = provider.get_tracer("test")
    spans = traces_opentelemetry.Spans(tracer, parent=Context())

    async def press() -> None:
        client = espresso.AsyncClient(
            exchange.key,
            base_url=exchange.url,
            ca_file=exchange.ca_file,
            on_event=spans,
        )
        async with client:
            with tracer.start_as_current_span("any task"):
                await client.cancel_all(SYMBOL, missing_ok=True)

    asyncio.run(press())
    attempt, _ = exporter.get_finished_spans()
    assert attempt.name == "espresso.attempt"
    assert attempt.parent is None


def test_traces_as_the_head_says(env: dict[str, str], tmp_path: Path) -> None:
    program = ROOT / "examples/traces_opentelemetry.py"
    printed = run([sys.executable, program, SYMBOL], env, tmp_path)
    assert printed.count('"name": "espresso.attempt"') == 1
    assert '"espresso.outcome": "done"' in printed


# ---- ccxt ----------------------------------------------------------------------------


def in_ccxt(test: Callable[..., None]) -> Callable[..., None]:
    """The venv, and ccxt alone takes seconds to load; no sanitizer is loaded there."""
    marked: Callable[..., None] = pytest.mark.slow(pytest.mark.preload(test))
    return marked


CCXT = ROOT / "examples/ccxt_words.py"


@pytest.fixture(scope="module")
def ccxt_python() -> Path:
    """The interpreter of a venv that has ccxt; it is made anew if need be."""
    command = ["scripts/venv", ".venv-ccxt", "examples/requirements-ccxt.txt"]
    base = getattr(sys, "_base_executable", sys.executable)
    subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHON": base}, check=True, timeout=600
    )
    return ROOT / ".venv-ccxt/bin/python"


# What the exchange does -> the class in ccxt's words, whether a bot tries again, and
# what is known of the orders.
IN_CCXT = {
    'reply("400_code_4106")': ("BadSymbol", False, "rejected"),
    'reply("400_code_4000")': ("BadRequest", False, "rejected"),
    'reply("401_code_4010")': ("AuthenticationError", False, "rejected"),
    'fault("403_empty")': ("PermissionDenied", False, "rejected"),
    'reply("429_code_4290")': ("RateLimitExceeded", True, "rejected"),
    'fault("locked_5002")': ("OnMaintenance", True, "rejected"),
    'fault("envoy_503")': ("ExchangeNotAvailable", True, "unknown"),
    'fault("5000_as_400")': ("ExchangeNotAvailable", True, "unknown"),
    'fault("hang")': ("RequestTimeout", True, "unknown"),
    'fault("reset")': ("NetworkError", True, "unknown"),
    'fault("connect_reset")': ("NetworkError", True, "not_sent"),
    'fault("expired_certificate")': ("ExchangeError", False, "not_sent"),
    'fault("html_200")': ("BadResponse", True, "unknown"),
    'fault("late_order", times=None, after=0)': ("CancelPending", True, "unknown"),
    # A code whose meaning is not known: espresso's APIError.
    'reply("400_code_4290_as_4050")': ("OperationFailed", True, "unknown"),
}

PROGRAM = """
import json, sys
import ccxt
from examples.ccxt_words import DeltaDefi

def told(symbol, **params):
    try:
        orders = DeltaDefi().cancel_all_orders(symbol, params)
    except ccxt.BaseError as error:
        return {
            "error": type(error).__name__,
            "again": isinstance(error, ccxt.OperationFailed),
            "outcome": getattr(error.__cause__, "outcome", None),
            "text": str(error),
        }
    return {"orders": orders}

for line in sys.stdin:
    symbol, params = json.loads(line)
    print(json.dumps(told(symbol, **params)), flush=True)
"""


@pytest.fixture(scope="module")
def ccxt_exchange() -> Iterator[Exchange]:
    with Exchange(rate=None) as running:
        yield running


class Bot:
    """A bot that knows ccxt alone, in the venv that has it: a line in, a line out."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def ask(self, symbol: str | None, **params: object) -> dict[str, object]:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps([symbol, params]) + "\n")
        self.process.stdin.flush()
        told: dict[str, object] = json.loads(self.process.stdout.readline())
        return told


@pytest.fixture(scope="module")
def bot(ccxt_python: Path, ccxt_exchange: Exchange) -> Iterator[Bot]:
    env = environment_of(ccxt_exchange, os.environ)
    process = subprocess.Popen(
        [ccxt_python, "-c", PROGRAM],
        env=env,
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield Bot(process)
        finally:
            process.kill()


def arm(exchange: Exchange, what: str) -> None:
    exchange.reset()
    if "4050" in what:
        from espresso.sandbox import replies

        answer = replies.load("400_code_4000")
        exchange.reply(answer.with_json({"error": "no", "code": 4050}).raw)
    else:
        names = {"fault": exchange.fault, "reply": exchange.reply}
        exec(compile(f"{what}", "<exchange>", "exec"), names)


@in_ccxt
@pytest.mark.parametrize("what", IN_CCXT)
def test_error_in_ccxt_words(what: str, bot: Bot, ccxt_exchange: Exchange) -> None:
    arm(ccxt_exchange, what)
    ccxt_exchange.place(SYMBOL, 1)
    # A late order appears in each round, of which ten are allowed in 2 s.
    seconds = {'fault("hang")': 1.0}.get(what, 1.9 if "late_order" in what else 10.0)
    told = bot.ask("ADA/USDM", max_retries=0, timeout=seconds)
    error, again, outcome = IN_CCXT[what]
    assert (told["error"], told["again"], told["outcome"]) == (error, again, outcome)


@in_ccxt
def test_what_no_answer_came_to_is_tried_again(
    bot: Bot, ccxt_exchange: Exchange
) -> None:
    """A refusal after a lost answer: orders may be gone, so ccxt's bot goes on."""
    ccxt_exchange.reset()
    ccxt_exchange.place(SYMBOL, 1)
    ccxt_exchange.fault("reset_after_read")
    ccxt_exchange.reply("401_code_4010")
    told = bot.ask("ADA/USDM")
    assert told["error"] == "OperationFailed"
    assert told["outcome"] == "unknown"


@in_ccxt
def test_orders_in_ccxt_words(bot: Bot, ccxt_exchange: Exchange) -> None:
    ccxt_exchange.reset()
    ids = ccxt_exchange.place(SYMBOL, 2)
    orders = bot.ask("ADA/USDM")["orders"]
    assert isinstance(orders, list)
    assert [order["id"] for order in orders] == ids
    for order in orders:
        assert (order["symbol"], order["status"]) == ("ADA/USDM", "canceled")
    assert bot.ask("ADA/USDM") == {"orders": []}
    assert ccxt_exchange.open_orders() == []


@in_ccxt
@pytest.mark.parametrize(
    ("symbol", "error"),
    [(None, "ArgumentsRequired"), ("ADA USDM", "BadRequest")],
)
def test_wrong_symbol_in_ccxt_words(
    symbol: str | None, error: str, bot: Bot, ccxt_exchange: Exchange
) -> None:
    ccxt_exchange.reset()
    told = bot.ask(symbol)
    assert told["error"] == error
    assert ccxt_exchange.requests == []


def test_no_class_of_ours_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is told as itself, or as a class above it; lists and guards never come."""
    words = types.ModuleType("ccxt")
    words.__getattr__ = lambda name: name  # type: ignore[method-assign]
    monkeypatch.setitem(sys.modules, "ccxt", words)
    spec = importlib.util.spec_from_file_location("ccxt_words", CCXT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    known = set(module.IN_THEIR_WORDS)
    theirs = {name: getattr(espresso, name) for name in espresso.errors.__all__}
    inherited = {name for name, kind in theirs.items() if kind not in known}
    assert inherited == {
        *("APIError", "ConfigError", "ConnectError", "ConnectionLostError"),
        *("GuardError", "GuardTrippedError", "PartialCancelError", "UnavailableError"),
    }


@in_ccxt
def test_ccxt_as_the_head_says(
    ccxt_python: Path, exchange: Exchange, env: dict[str, str], tmp_path: Path
) -> None:
    exchange.place(SYMBOL, 2)
    printed = run([ccxt_python, CCXT, "ADA/USDM"], env, tmp_path)
    assert printed == "ADA/USDM: nothing open; 2 cancelled\n"


# ---- a strategy on asyncio -----------------------------------------------------------


@pytest.fixture
def in_environment(
    exchange: Exchange, clean_env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    enter(monkeypatch, exchange, clean_env)


class Quoter(strategy.Strategy):
    """Places an order on the sandbox where the example prints."""

    quotes = 0

    def __init__(
        self, exchange: Exchange, client: espresso.AsyncClient, stop: asyncio.Event
    ) -> None:
        super().__init__(SYMBOL, client)
        self.exchange = exchange
        self.stop = stop

    async def quote(self) -> None:
        self.exchange.place(self.symbol, 1)
        self.quotes += 1

    def on_tick(self) -> None:
        """Until the second quotes stand, or it has seen that it does not quote."""
        super().on_tick()
        if self.quotes == 2 or (not self.is_safe and self.ticks > 3 * strategy.REFRESH):
            self.stop.set()


async def go(exchange: Exchange) -> bool:
    stop = asyncio.Event()
    async with espresso.AsyncClient() as client:
        return await strategy.run(Quoter(exchange, client, stop), stop, tick=0.02)


@pytest.mark.usefixtures("in_environment")
def test_strategy_takes_old_quotes_back_and_leaves_none(exchange: Exchange) -> None:
    exchange.place(SYMBOL, 3)  # of an earlier life
    assert asyncio.run(go(exchange))
    cancelled = [len(call.cancelled) for call in exchange.calls if call.cancelled]
    assert cancelled == [3, 1, 1]  # before each quote, and in the end
    assert exchange.open_orders() == []


@pytest.mark.usefixtures("in_environment")
def test_strategy_does_not_quote_while_orders_may_be_open(
    exchange: Exchange, capsys: pytest.CaptureFixture[str]
) -> None:
    exchange.place(SYMBOL, 1)
    exchange.fault("403_empty", times=1)
    assert asyncio.run(go(exchange))
    assert "rejected" in capsys.readouterr().err
    (first, *others) = exchange.calls
    assert (first.status, first.cancelled) == (403, ())
    # Nothing was placed after it: what the stop cancelled is the one order of before.
    assert [len(call.cancelled) for call in others if call.cancelled] == [1]
    assert exchange.open_orders() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_strategy_as_the_head_says(
    number: signal.Signals, exchange: Exchange, env: dict[str, str], tmp_path: Path
) -> None:
    process = subprocess.Popen(
        [sys.executable, ROOT / "examples/strategy.py", SYMBOL],
        env=env,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == f"{SYMBOL}: quotes at tick 1\n"
            exchange.place(SYMBOL, 2)
            process.send_signal(number)
            printed, _ = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    assert (printed, process.returncode) == (f"{SYMBOL}: nothing open\n", 0)
    assert exchange.open_orders() == []


# ---- all of them ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["metrics_prometheus", "traces_opentelemetry", "strategy"]
)
def test_without_a_symbol_the_usage_is_told(
    name: str, clean_env: dict[str, str]
) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / f"examples/{name}.py"],
        env={**clean_env, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode != 0
    assert re.fullmatch(rf"usage: {name}\.py SYMBOL(\.\.\.)?\n", done.stderr)
