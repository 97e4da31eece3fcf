"""What the benchmark makes of its figures. The figures themselves are `make bench`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks import (
    cold_peers,
    cores,
    page,
    picture,
    scale,
    server,
    trips,
    warm,
    worker,
)
from benchmarks.figures import Bar, Figure, difference, ratio
from benchmarks.setting import Setting
from espresso.sandbox import Exchange
from tests.children import ROOT
from tests.documents import rows_under, text_of
from tests.rawserver import DONE, RawServer, answering, http

SVG = "{http://www.w3.org/2000/svg}"
PEERS = ROOT / ".venv-bench/bin/python"
SDK = ROOT / "build/venv-sdk/bin/python"

# ---- figures and bars ----------------------------------------------------------------


def test_figure_is_median_and_quartiles() -> None:
    assert Figure.of([5, 1, 3, 2, 4]) == Figure(3, 2, 4)
    assert Figure(0.0012345, 0.001, 0.002).text(1e3, 1) == "1.2 [1.0–2.0]"


def test_ratio_and_difference_are_of_the_same_round() -> None:
    """A round in which all is ten times as slow changes no ratio."""
    assert ratio([2, 40, 6], [1, 20, 3]) == Figure(2, 2, 2)
    assert difference([2, 21, 4], [1, 20, 3]) == Figure(1, 1, 1)
    with pytest.raises(ValueError):
        ratio([1, 2], [1])


@pytest.mark.parametrize(
    ("bar", "verdict"),
    [
        (Bar("a", 1.1, 1.1, "x"), "held"),
        (Bar("a", 1.11, 1.1, "x"), "NOT HELD"),
        (Bar("a", None, 1.1, "x"), "not measured"),
        (Bar("a", 0.9, 0.9, "x", at_least=True), "held"),
        (Bar("a", 0.89, 0.9, "x", at_least=True), "NOT HELD"),
        (Bar("a", None, 0.9, "x", at_least=True), "not measured"),
    ],
)
def test_bar(bar: Bar, verdict: str) -> None:
    assert bar.verdict == verdict
    assert bar.text().endswith(verdict)
    assert bar.held == (verdict == "held")
    assert bar.missed == (verdict == "NOT HELD")
    assert ("at least" in bar.text()) == bar.at_least


def test_bars_in_the_page() -> None:
    bars = [
        Bar("threads", 0.95, 0.9, "x", at_least=True),
        Bar("the wheel", None, 2.5, "ms"),
    ]
    _, _, *rows = page.table(bars)
    assert rows == [
        "| threads | 0.95 x | at least 0.90 x | held |",
        "| the wheel | – | 2.50 ms | not measured |",
    ]


# ---- who is measured -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "means"),
    [
        ("espresso", ("espresso", "", 0, 0, 0)),
        ("http.client", ("http.client", "", 0, 0, 0)),
        ("aiohttp/uvloop", ("aiohttp", "uvloop", 0, 0, 0)),
        ("espresso/asyncio:10", ("espresso", "asyncio", 10, 0, 0)),
        ("espresso@16", ("espresso", "", 0, 16, 0)),
        ("espresso*64", ("espresso", "", 0, 0, 64)),
    ],
)
def test_words_of_a_client(words: str, means: tuple[str, str, int, int, int]) -> None:
    assert worker.asked(words) == means


def test_words_that_name_no_client() -> None:
    with pytest.raises(SystemExit, match="not a client"):
        worker.asked("espresso 3")


def test_each_peer_can_be_asked_for() -> None:
    assert {*warm.PEERS, "espresso"} == set(worker.CLIENTS)
    assert {*warm.ASYNC_PEERS, "espresso"} == set(worker.ASYNC_CLIENTS)
    assert set(warm.PEER_LIMITS) <= set(warm.PEERS)
    assert set(cold_peers.WHEEL_LIMITS) <= set(cold_peers.PEERS)


def test_each_peer_is_pinned_or_comes_with_python() -> None:
    texts = [text_of(f"{it}/requirements.txt") for it in ("benchmarks", "tests/sdk")]
    lines = [
        line
        for text in texts
        for line in text.splitlines()
        if line and not line.startswith("#")
    ]
    pinned = {line.split("==")[0] for line in lines if "==" in line}
    assert len(pinned) <= len(lines) == sum("==" in line for line in lines)
    names = {*warm.PEERS, *warm.ASYNC_PEERS, *cold_peers.PEERS}
    assert names - pinned == {"http.client", "urllib"}


@pytest.mark.parametrize("name", cold_peers.PEERS)
def test_cold_program_of_a_peer(name: str, tmp_path: Path) -> None:
    """It compiles, names its roots, and leaves no place unfilled."""
    bundle = tmp_path / "bundle.pem"
    for store in (tmp_path, bundle):
        code = cold_peers.code_of(name, "https://127.0.0.1:1", store)
        if code is None:
            assert (name, store) == ("curl_cffi", tmp_path)
            continue
        compile(code, name, "exec")
        assert "_HERE" not in code and "127.0.0.1:1" in code
        assert repr(str(store)) in code or cold_peers.PEERS[name].variable


def test_taken_is_per_call_and_sorted() -> None:
    times = [float(number) for number in range(200, 0, -1)]
    assert worker.taken(20.0, times, 2) == (0.05, 101.0, 199.0)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has it")
def test_a_server_and_its_clients_share_no_processor() -> None:
    asks = "import os; print(*os.sched_getaffinity(0))"
    before = os.sched_getaffinity(0)
    if len(before) < 2:
        pytest.skip("one processor")
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        with cores.apart(process.pid):
            servers = os.sched_getaffinity(process.pid)
            told = subprocess.check_output([sys.executable, "-c", asks], text=True)
        after = os.sched_getaffinity(process.pid)
    assert len(servers) == 1
    assert {int(it) for it in told.split()} == before - servers
    assert after == os.sched_getaffinity(0) == before


# ---- the loops in C ------------------------------------------------------------------


ANSWER = answering(http(DONE))


def setting_at(url: str, ca_file: str, folder: Path) -> Setting:
    where = server.Server(url, Path(ca_file), "", os.getpid())
    return Setting(where, folder)


def fields(request: bytes) -> dict[str, str]:
    """The names and values of a request's head; the request line by ``""``."""
    first, *lines = request.partition(b"\r\n\r\n")[0].decode().split("\r\n")
    found = dict(line.split(": ", 1) for line in lines)
    del found["Host"]  # each server's own
    return {"": first} | found


def requests_of(command: Sequence[str], raw: RawServer) -> list[bytes]:
    """What a loop in C sends that is told to make one call of each kind."""
    done = subprocess.run(
        command, input="1\n", text=True, capture_output=True, check=True
    )
    assert len([float(it) for it in done.stdout.split()]) == 3
    return raw.posts


def sent_by(number: int, folder: Path) -> list[bytes]:
    """What the loop in C of that number sends."""
    with RawServer(ANSWER) as raw:
        clients = warm.in_c(setting_at(raw.url, raw.ca_file, folder))
        return requests_of(clients[number].command, raw)


def sent_by_worker(name: str, folder: Path) -> list[bytes]:
    with RawServer(ANSWER) as raw:
        setting = setting_at(raw.url, raw.ca_file, folder)
        return requests_of(warm.worker(setting, sys.executable, name), raw)


def test_loops_send_what_espresso_sends(tmp_path: Path) -> None:
    """Else a ratio is one of two requests, not of two clients."""
    floor, cloop = sent_by(0, tmp_path), sent_by(1, tmp_path)
    ours = sent_by_worker("espresso", tmp_path)
    assert len(floor) == len(cloop) == len(ours) == 2  # for CPU, for the time
    assert fields(floor[0]) == fields(cloop[0])
    agent = {"User-Agent": worker.HEADERS["User-Agent"]}
    assert fields(cloop[0]) == fields(ours[0]) | agent
    assert floor[0].endswith(worker.BODY) and cloop[0].endswith(worker.BODY)


def test_core_alone_sends_the_same(tmp_path: Path) -> None:
    with RawServer(ANSWER) as raw:
        (core,) = warm.core_in_c(setting_at(raw.url, raw.ca_file, tmp_path))
        sent = requests_of(core.command, raw)
    assert fields(sent[0]) == fields(sent_by(1, tmp_path)[0])
    assert sent[0].endswith(worker.BODY)


def test_a_client_of_the_server_that_ends_each_connection() -> None:
    url = "https://127.0.0.1:9"
    clients = [
        warm.Client("loop", ["loop", f"{url}{warm.PATH}", "ca"], 1),
        warm.Client("worker", ["python", "worker.py", url, "ca"], 1),
    ]
    loop, told = warm.anew(clients, url)
    assert (loop.name, loop.command[1]) == ("loop:anew", f"{url}/anew{warm.PATH}")
    assert told.command == ["python", "worker.py", f"{url}/anew", "ca"]
    assert loop.calls == told.calls == warm.NEW_CALLS
    assert "location {anew}/ {{ keepalive_timeout 0; " in server.CONFIG


def test_a_new_connection_of_the_wheel_is_held_to_the_loop_of_its_libcurl() -> None:
    ours = warm.Client(f"{warm.ESPRESSO}, wheel:anew", [], 1, cpu=[1.2, 1.3])
    loop = warm.Client(f"{warm.WHEEL_YARDSTICK}:anew", [], 1, cpu=[1.0, 1.0])
    (bar,) = warm.anew_bars({ours.name: ours, loop.name: loop})
    assert (bar.value, bar.verdict) == (1.25, "held")
    assert warm.anew_bars({ours.name: ours}) == []


@pytest.mark.parametrize("said", ["", ", wheel"])
def test_core_alone_is_held_to_the_loop_of_its_libcurl(said: str) -> None:
    bases = {"": warm.YARDSTICK, ", wheel": warm.WHEEL_YARDSTICK}
    named = {
        name: warm.Client(name, [], 1, cpu=[cpu, cpu])
        for name, cpu in ((warm.CORE + said, 1.3), (bases[said], 1.0))
    }
    (bar,) = warm.core_bars(named)
    assert said in bar.name and (bar.value, bar.verdict) == (1.3, "NOT HELD")


def test_peers_send_the_same_fields(tmp_path: Path) -> None:
    sent = fields(sent_by_worker("http.client", tmp_path)[0])
    assert {name: sent.get(name) for name in worker.HEADERS} == worker.HEADERS


def test_loop_that_gets_another_answer_says_so(
    exchange: Exchange, tmp_path: Path
) -> None:
    """Nothing is open: whoever measured that would measure another call."""
    setting = setting_at(exchange.url, exchange.ca_file, tmp_path)
    for client in warm.in_c(setting):
        done = subprocess.run(
            client.command, input="1\n", text=True, capture_output=True
        )
        assert done.returncode == 1
        assert "not the answer that was expected" in done.stderr


# ---- pages and the picture -----------------------------------------------------------


def figure(median: float) -> dict[str, float]:
    return {"median": median, "low": median, "high": median}


def of_a_client(cpu: float, p50: float) -> dict[str, dict[str, float]]:
    return {"cpu_seconds": figure(cpu), "p50_seconds": figure(p50)}


RESULTS = {
    "warm": {
        "a <slow> & old one": of_a_client(0.001, 0.002),
        "espresso/uvloop": of_a_client(0.0002, 0.0003),
        "espresso": of_a_client(0.0001, 0.0002),
        "espresso:10": of_a_client(1.0, 1.0),
    }
}


def test_picture_has_each_client_quickest_first(tmp_path: Path) -> None:
    path = tmp_path / "picture.svg"
    picture.write(RESULTS, path)
    root = ElementTree.fromstring(path.read_text(encoding="utf-8"))
    texts = [it.text or "" for it in root.iter(f"{SVG}text")]
    names = [it for it in texts if re.match(r"a <slow>|espresso", it)]
    assert names == ["espresso", "espresso on uvloop", "a <slow> & old one"]
    assert texts[3:] == [
        *("espresso", "100", "200", "espresso on uvloop", "200", "300"),
        *("a <slow> & old one", "1000", "2000"),
    ]
    described = root.findtext(f"{SVG}desc") or ""
    assert "espresso: 100 µs CPU, 200 µs" in described


def test_bars_of_the_picture_are_as_long_as_their_numbers() -> None:
    root = ElementTree.fromstring(picture.draw(RESULTS))
    widths = [float(it.attrib["width"]) for it in root.iter(f"{SVG}rect")][2:]
    longest = max(widths)
    assert [round(it / longest, 2) for it in widths] == [0.05, 0.1, 0.1, 0.15, 0.5, 1]
    assert picture.LEFT + longest < picture.WIDTH - 40  # room for its number


def test_picture_of_the_documents_has_each_client() -> None:
    root = ElementTree.fromstring(picture.PICTURE.read_text(encoding="utf-8"))
    names = {it.text for it in root.iter(f"{SVG}text")}
    on_loops = {
        f"{name} on {loop}"
        for name in (*warm.ASYNC_PEERS, "espresso")
        for loop in warm.LOOPS
    }
    in_c = {warm.FLOOR, warm.YARDSTICK}
    assert {*warm.PEERS, "espresso", *in_c, *on_loops} <= names
    assert root.findtext(f"{SVG}title") and root.findtext(f"{SVG}desc")


def test_documents_show_the_picture() -> None:
    assert "(docs/warm-call.svg)" in text_of("README.md")
    assert "(warm-call.svg)" in text_of("docs/performance.md")


def grown(
    cpu: float, rate: float, once: float = 0.01, megabytes: float = 24.0
) -> dict[str, Any]:
    return {
        "cpu_seconds": figure(cpu),
        "calls_per_second": figure(rate),
        "seconds_of_a_call": figure(once),
        "megabytes": megabytes,
    }


SCALE = {
    "threads": {"1": grown(1e-4, 9000), "16": grown(1.1e-4, 12000)},
    "clients": {"1": grown(1e-4, 9000), "64": grown(1e-4, 8000, megabytes=30.3)},
    "processes": {"1": grown(1e-4, 9000)},
    "symbols": {"10": grown(1e-4, 5000, 0.02), "20": grown(2e-4, 10, 2.0)},
}


def test_how_the_cost_grows() -> None:
    lines = page.scale_lines(SCALE)
    for row in (
        "| 1 thread | 100 µs | 9000 | 24.0 MB |",
        "| 1 process | 100 µs | 9000 | 24.0 MB |",
        "| a list of 10 symbols | 100 µs | 20.0 ms the list | 24.0 MB |",
        "| a list of 30 symbols | 4.02 s | 6.0 ms in all |",
        "| a list of 1,000 symbols | 198.02 s | 200.0 ms in all |",
        "| an account at the limit | 5 calls a second | 0.05% of a core |",
        "| 100 accounts, each at the limit | 500 calls a second | 5.00% of a core |",
        "| one core, no limit | 10000 calls a second | all of it |",
        "| a client that keeps 64 connections | 6.4 MB more | – |",
    ):
        assert row in lines


def test_limit_is_the_products_own() -> None:
    header = text_of("src/core/espresso.h")
    for name, value in (
        ("ESP_RATE_CALLS", page.RATE_CALLS),
        ("ESP_RATE_WINDOW_MS", round(page.RATE_WINDOW * 1e3) + 1),  # rounded up
        ("ESP_IDLE_MAX", page.KEPT),
    ):
        assert re.search(rf"#define {name} +{value}\b", header)


def test_scale_goes_into_its_own_place(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    places = f"{page.SCALE_BEGIN}\nold\n{page.SCALE_END}\n{page.BEGIN}\nx\n{page.END}\n"
    path.write_text(places)
    page.write_scale({"scale": SCALE}, path)
    text = path.read_text()
    assert "| 1 thread |" in text and "old" not in text
    assert text.endswith(f"{page.SCALE_END}\n{page.BEGIN}\nx\n{page.END}\n")


def test_page_has_what_a_run_has_measured() -> None:
    text = text_of("docs/performance.md")
    measured = [row[0] for row in rows_under(text, "| measured |")]
    for kind, counts in (
        ("threads", scale.THREADS),
        ("clients", scale.CLIENTS),
        ("processes", scale.PROCESSES),
    ):
        assert {scale.counted(count, kind) for count in counts} <= set(measured)
    assert rows_under(text, "| reckoned from it |")


# ---- the whole -----------------------------------------------------------------------

# The table of what is promised, by what its bars are called.
PROMISED = {
    "warm call, CPU / C loop's": 1.10,
    "warm call, p50 / C loop's": 1.05,
    "warm call, CPU / pycurl's": 0.8,
    "warm call, CPU / http.client's": 0.6,
    "warm call, CPU / requests's": 0.2,
    "warm call on asyncio, CPU / aiohttp's": 0.6,
    "warm call on uvloop, CPU / aiohttp's": 0.6,
    "import from the wheel adds": 2.5,
    "import from the wheel adds modules": 10,
    "start to first reply, wheel, hashed roots / bare": 1.65,
    "start to first reply, wheel, a bundle / pycurl": 0.6,
    "start to first reply, wheel, a bundle / requests": 0.3,
    trips.TITLE: 3.3,
    "calls per CPU second, 16 threads / 1": 0.9,
    "decode of 2 ids / json.loads": 0.6,
    "decode of 100 ids / json.loads": 2.0,
    "decode of 10,000 ids / json.loads": 4.5,
    "memory after 10,000 calls, above bare": 8,
}


def test_page_has_every_promised_bar() -> None:
    rows = rows_under(text_of("docs/performance.md"), "| figure | reached")
    bounds = {row[0]: float(re.findall(r"[\d.]+", row[2])[0]) for row in rows}
    assert {name: bounds.get(name) for name in PROMISED} == PROMISED


@pytest.mark.long
@pytest.mark.skipif(not (PEERS.exists() and SDK.exists()), reason="`make bench` first")
def test_short_run_of_it_all(tmp_path: Path) -> None:
    """Two rounds: every part ends, and nothing is claimed of a wheel."""
    path = tmp_path / "results.json"
    command = [sys.executable, "-m", "benchmarks", "--results", str(path)]
    done = subprocess.run(
        [*command, "--rounds", "2", "--processes", "2"],
        cwd=ROOT,
        text=True,
        capture_output=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    results = json.loads(path.read_text())
    bars = {bar["name"]: bar for bar in results["bars"]}
    assert {name: bars[name]["limit"] for name in PROMISED} == PROMISED
    for name, bar in bars.items():
        assert (bar["verdict"] == "not measured") == ("wheel" in name)
        assert name in done.stdout
    assert picture.draw(results)
    assert page.scale_lines(results["scale"])
