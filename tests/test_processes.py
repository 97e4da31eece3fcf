"""Results and errors between processes: pools, a Dask cluster, and the fleet.

A worker writes down everything that its result or its error says and sends it along;
the process that gets the thing finds the same in it. What the exchange has seen, and
a table, say what it should be.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import pytest

import espresso
from espresso.sandbox import FAULTS, Exchange
from examples import fleet
from tests.children import PATIENCE, ROOT, Child, Ended, default_environment, run
from tests.obstacles import wait_until

SYMBOL = "ADAUSDM"
FLEET = ROOT / "examples/fleet.py"

# Each program is a file: a worker that is spawned imports it.
PRELUDE = """
import json, os, sys
from contextlib import contextmanager
import espresso

def told(thing):
    '''All that a result or an error says, in words.'''
    if isinstance(thing, BaseException):
        cls = type(thing)
        said = {name: told(value) for name, value in sorted(vars(thing).items())
                if name != "__notes__"}
        parents = [one.__name__ for one in cls.__mro__]
        return [cls.__module__, parents, told(thing.args), str(thing), said]
    if isinstance(thing, (list, tuple)):
        return [type(thing).__name__, *map(told, thing)]
    if isinstance(thing, dict):
        return [type(thing).__name__, *((key, told(thing[key])) for key in thing)]
    return repr(thing)

@contextmanager
def engine(name):
    '''submit(function, *arguments) of a pool of processes, or of a cluster.'''
    if name == "dask":
        from distributed import Client
        with Client(n_workers=2, host="127.0.0.1", dashboard_address=None) as cluster:
            yield lambda *call: cluster.submit(*call, pure=False)
    else:
        import concurrent.futures, multiprocessing
        context = multiprocessing.get_context(name)
        with concurrent.futures.ProcessPoolExecutor(2, context) as pool:
            yield pool.submit

def outcome_of(future):
    try:
        return future.result(timeout=30)
    except Exception as error:
        return error
"""

ENGINES = ("fork", "forkserver", "spawn", "dask")


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def env(exchange: Exchange, clean_env: dict[str, str]) -> dict[str, str]:
    """A worker's: with the key, and nothing that leads to a real host."""
    known = default_environment(clean_env, exchange)
    return {**known, "PYTHONPATH": str(ROOT), "ESPRESSO_LOOPBACK_ONLY": "1"}


def run_file(
    source: str, folder: Path, env: Mapping[str, str], *arguments: str
) -> list[Any]:
    """Run the program; what it printed, a JSON document a line."""
    program = folder / "program.py"
    program.write_text(PRELUDE + source)
    ended = run(program, env, *arguments, timeout=2 * PATIENCE).check()
    return [json.loads(line) for line in ended.out.splitlines()]


# --- as one writes it ------------------------------------------------------------

MAP = """
if __name__ == "__main__":
    espresso.cancel_all("BEFORE")  # the parent has a client, and a warm connection
    symbols = sys.argv[2:]
    with engine(sys.argv[1]) as submit:
        futures = [submit(espresso.cancel_all, symbol) for symbol in symbols]
        for outcome in map(outcome_of, futures):
            said = vars(outcome) if isinstance(outcome, Exception) else outcome
            print(json.dumps([type(outcome).__name__, said]))
    espresso.cancel_all("AFTER")
"""


def test_the_verb_itself_is_sent_to_the_workers(
    engine: str, exchange: Exchange, env: dict[str, str], tmp_path: Path
) -> None:
    """`submit(espresso.cancel_all, symbol)`: dicts, and errors with their code."""
    ids = {f"S{n}": exchange.place(f"S{n}", n + 1) for n in range(6)}
    exchange.place("BEFORE")
    exchange.place("AFTER")
    symbols = [*ids, SYMBOL, "NOPE", "ADA/USDM"]
    *done, empty, nope, slash = run_file(MAP, tmp_path, env, engine, *symbols)
    assert done == [["dict", {"symbol": s, "order_ids": ids[s]}] for s in ids]
    kind, attributes = empty
    assert (kind, attributes["code"]) == ("OrderNotFoundError", 4200)
    assert attributes["outcome"] == "rejected"
    assert attributes["symbol"] == SYMBOL
    kind, attributes = nope
    assert (kind, attributes["code"]) == ("InvalidSymbolError", 4106)
    assert slash == ["ValueError", {}]
    assert not exchange.open_orders()
    seen = [call.symbol for call in exchange.calls]
    assert sorted(filter(None, seen)) == sorted(["BEFORE", "AFTER", *symbols[:-1]])
    by_symbol = {call.symbol: call.connection for call in exchange.calls}
    assert by_symbol["BEFORE"] == by_symbol["AFTER"]
    assert by_symbol["BEFORE"] not in {by_symbol[symbol] for symbol in ids}


# --- whole -----------------------------------------------------------------------

CASES = """
def press(symbol, options):
    '''The call, and what this process knows of its end.'''
    try:
        result = espresso.cancel_all(symbol, **options)
    except espresso.EspressoError as error:
        error.add_note(json.dumps(told(error)))
        raise
    return result, json.dumps(told(result))

if __name__ == "__main__":
    with engine(sys.argv[1]) as submit:
        for symbol, options in json.loads(sys.argv[2]):
            outcome = outcome_of(submit(press, symbol, options))
            if isinstance(outcome, tuple):
                outcome, there = outcome
                shown = ["dict", outcome]
            else:
                (there,) = outcome.__notes__
                shown = [type(outcome).__name__, outcome.code, outcome.status_code,
                         outcome.outcome, outcome.attempts]
            assert json.loads(there) == json.loads(json.dumps(told(outcome)))
            print(json.dumps(shown))
"""


class Case(NamedTuple):
    """A call that fails in a certain way, and what is known of that way."""

    script: str
    """The fault or the reply that meets it; "": none."""
    error: str
    code: int | None
    status_code: int | None
    outcome: str
    attempts: int = 1
    options: Mapping[str, Any] = {}


SOON = {"timeout": 0.3}
NOWHERE = {"base_url": "https://127.0.0.1:1"}
NO_KEY = {"api_key": "a b"}

FAILURES = [
    Case("4200_as_400", "OrderNotFoundError", 4200, 400, "rejected"),
    Case("5000_as_400", "ServerError", 5000, 400, "unknown"),
    Case("locked_5002", "TradingLockedError", 5002, 400, "rejected"),
    Case("403_empty", "PermissionDeniedError", None, 403, "rejected"),
    Case("404_text", "APIError", None, 404, "rejected"),
    Case("envoy_503", "UnavailableError", None, 503, "unknown"),
    Case("429_code_4290", "RateLimitError", 4290, 429, "rejected"),
    Case("401_code_4010", "AuthenticationError", 4010, 401, "rejected"),
    Case("400_code_4106", "InvalidSymbolError", 4106, 400, "rejected"),
    Case("422_code_4000", "BadRequestError", 4000, 422, "rejected"),
    Case("html_200", "ResponseError", None, 200, "unknown"),
    Case("hang", "RequestTimeoutError", None, None, "unknown", 1, SOON),
    Case("reset", "ConnectionLostError", None, None, "unknown"),
    Case("", "ConnectError", None, None, "not_sent", 1, NOWHERE),
    Case("", "ConfigError", None, None, "not_sent", 0, NO_KEY),
]


def test_results_and_errors_arrive_whole(
    engine: str, exchange: Exchange, env: dict[str, str], tmp_path: Path
) -> None:
    calls: list[tuple[str | list[str], Mapping[str, Any]]] = []
    for case in FAILURES:
        if case.script in FAULTS:
            exchange.fault(case.script)
        elif case.script:
            exchange.reply(case.script)
        calls.append((SYMBOL, {"max_retries": 0, **case.options}))
    exchange.fault("reset_after_read")
    calls.append((SYMBOL, {"missing_ok": True}))
    with Exchange() as stranger:
        calls.append((SYMBOL, {"base_url": stranger.url, "max_retries": 0}))
        calls.append(([SYMBOL, "NOPE"], {"missing_ok": True}))
        exchange.fault("late_order", times=None, after=0.0)
        exchange.place("LATE")
        calls.append(("LATE", {"confirm": True, "timeout": 0.5}))
        printed = run_file(CASES, tmp_path, env, engine, json.dumps(calls))
    *_, still_open = printed
    assert printed == [
        *([*case[1:6]] for case in FAILURES),
        ["dict", {"symbol": SYMBOL, "order_ids": [], "lost_reply": True}],
        ["CertificateError", None, None, "not_sent", 1],
        ["PartialCancelError", None, None, "rejected", 1],
        ["StillOpenError", None, None, "unknown", still_open[-1]],
    ]
    assert len(exchange.calls) > still_open[-1] > 1


MADE = """
def make(name):
    '''An error of this class with every attribute set.'''
    cls = getattr(espresso, name)
    attributes = dict(code=4999, status_code=418, symbol="ADAUSDM", outcome="unknown",
        retryable=True, attempts=3, attempts_max=4, elapsed=1.5, order_ids=["a", "b"],
        body="<html>", peer="127.0.0.1:1")
    if issubclass(cls, espresso.RateLimitError):
        attributes["retry_after"] = 2.5
    if not issubclass(cls, espresso.PartialCancelError):
        return cls("what went wrong", **attributes)
    failed = {one: make(one) for one in ("RateLimitError", "RequestTimeoutError")}
    results = {"ADAUSDM": {"symbol": "ADAUSDM", "order_ids": ["c"]}}
    return cls.from_results(results, failed, **attributes)

def fail(name):
    raise make(name)

if __name__ == "__main__":
    with engine(sys.argv[1]) as submit:
        for name in espresso.errors.__all__:
            error = outcome_of(submit(fail, name))
            assert told(error) == told(make(name)), (told(error), told(make(name)))
            print(json.dumps(type(error).__name__))
"""


def test_an_error_of_every_class_arrives_whole(
    engine: str, env: dict[str, str], tmp_path: Path
) -> None:
    assert run_file(MADE, tmp_path, env, engine) == list(espresso.errors.__all__)


# --- the fleet of examples/ ------------------------------------------------------


def run_fleet(env: Mapping[str, str], *symbols: str) -> Ended:
    return run(FLEET, env, *symbols, timeout=2 * PATIENCE)


def test_fleet_on_one_machine(env: dict[str, str]) -> None:
    """Seven symbols, paced: the exchange, which limits the rate, refuses nothing."""
    names = [f"F{n}" for n in range(7)]
    with Exchange(orders=dict.fromkeys(names, 2)) as exchange:
        ended = run_fleet(default_environment(env, exchange), *names, names[0]).check()
    assert ended.out.splitlines() == [f"{n}: nothing open; 2 cancelled" for n in names]
    calls = Counter((call.symbol, call.status) for call in exchange.calls)
    # Cancelled, and then 4200; a 429 would be a third.
    assert calls == Counter((name, status) for name in names for status in (200, 400))


def test_fleet_says_what_is_not_certain(
    exchange: Exchange, env: dict[str, str]
) -> None:
    exchange.place(SYMBOL, 2)
    ended = run_fleet(env, "ADA/USDM", "NOPE", SYMBOL)
    assert ended.status == 1
    slash, nope, fine = ended.out.splitlines()
    assert slash.startswith("symbol ADA/USDM: ")
    assert nope.startswith("NOPE: REJECTED: [4106] ")
    assert fine == f"{SYMBOL}: nothing open; 2 cancelled"


def test_fleet_names_the_workers_without_a_key(env: dict[str, str]) -> None:
    del env["DELTADEFI_API_KEY"]
    ended = run_fleet(env, SYMBOL)
    assert ended.status == 1
    assert ended.out.startswith(f"{SYMBOL}: NOT_SENT: no API key")
    assert ended.err.count("has no DELTADEFI_API_KEY") == 2


def test_fleet_needs_a_symbol(env: dict[str, str]) -> None:
    ended = run_fleet(env)
    assert ended.status == 2
    assert ended.err == "usage: fleet.py SYMBOL...\n"


def test_key_never_comes_near_the_scheduler(
    exchange: Exchange, env: dict[str, str], tmp_path: Path
) -> None:
    """Only the workers have it: the program that presses and the scheduler do not."""
    exchange.place(SYMBOL, 2)
    bare = {name: text for name, text in env.items() if exchange.key not in text}
    address = tmp_path / "scheduler.json"
    place = ["--host", "127.0.0.1", "--no-dashboard", "--scheduler-file", str(address)]
    with ExitStack() as cluster:
        start = partial(Child, flags=["-m"])
        scheduler = Path("distributed.cli.dask_scheduler")
        worker = Path("distributed.cli.dask_worker")
        cluster.enter_context(start(scheduler, bare, *place, "--port", "0"))
        wait_until(address.exists, "a scheduler")
        for _ in range(2):
            cluster.enter_context(start(worker, env, *place, "--no-nanny"))
        found = {"DASK_SCHEDULER_ADDRESS": json.loads(address.read_text())["address"]}
        ended = run_fleet({**bare, **found}, SYMBOL).check()
    assert ended.out == f"{SYMBOL}: nothing open; 2 cancelled\n"
    assert exchange.calls[0].key == exchange.key


TWICE = """
from examples import fleet
if __name__ == "__main__":
    with fleet.connect() as cluster:
        kept = [fleet.press(cluster, ["ADAUSDM"]) for _ in range(2)]
        for (future,) in kept:
            print(json.dumps(future.result(timeout=30)["order_ids"]))
"""


def test_a_second_press_is_a_second_call(
    exchange: Exchange, env: dict[str, str], tmp_path: Path
) -> None:
    ids = exchange.place(SYMBOL, 2)
    assert sorted(run_file(TWICE, tmp_path, env)) == [[], ids]
    assert len(exchange.calls) == 3


def test_fleet_takes_silence_for_unknown() -> None:
    """No worker, a lost worker, a task that was never run: errors of Dask itself."""

    class Silent:
        def result(self, timeout: float) -> Any:
            raise TimeoutError

    sure, line = fleet.told(SYMBOL, cast(Any, Silent()), 1)
    assert not sure
    assert line.startswith(f"{SYMBOL}: UNKNOWN: TimeoutError: ")
