"""The figures in ``docs/performance.md``: ``make bench WRITE=1`` makes them anew."""

from __future__ import annotations

import datetime
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.figures import Bar
from benchmarks.scale import counted

PAGE = Path(__file__).resolve().parent.parent / "docs" / "performance.md"
BEGIN = "<!-- figures: made by `make bench WRITE=1` -->"
END = "<!-- figures end -->"
SCALE_BEGIN = "<!-- scale: made by `make bench WRITE=1` -->"
SCALE_END = "<!-- scale end -->"

RATE_CALLS, RATE_WINDOW = 10, 2.0  # requests of an account in so many seconds [field]
KEPT = 64  # idle connections of a client
SYMBOLS = (30, 100, 1000)  # beyond what is measured
ACCOUNTS = (1, 100)  # each at its own limit, on one machine


def table(bars: Sequence[Bar]) -> list[str]:
    rows = []
    for bar in bars:
        value = "–" if bar.value is None else f"{bar.value:.2f} {bar.unit}"
        bound = f"{'at least ' if bar.at_least else ''}{bar.limit:.2f} {bar.unit}"
        rows.append(f"| {bar.name} | {value} | {bound} | {bar.verdict} |")
    return ["| figure | reached | at most | |", "| --- | --- | --- | --- |", *rows]


def put(lines: Sequence[str], begin: str, end: str, path: Path) -> None:
    """Put the lines between two marks of the page; ValueError if it has none."""
    before, found_begin, rest = path.read_text(encoding="utf-8").partition(begin)
    _, found_end, after = rest.partition(end)
    if not (found_begin and found_end):
        raise ValueError(f"{path} has no place for figures: {begin} ... {end}")
    text = "\n".join(lines)
    path.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}", encoding="utf-8")


def write(
    bars: Sequence[Bar], machine: Mapping[str, object], path: Path = PAGE
) -> None:
    """Put the bars between the marks of the page, with where they were measured."""
    server = str(machine["server"]).rpartition(": ")[2]
    where = (
        f"CPython {machine['python']}, {platform.system()} {platform.machine()}, "
        f"{machine['cpus']} processors; {server}; {datetime.date.today().isoformat()}"
    )
    put([where, "", *table(bars)], BEGIN, END, path)


# ---- how the cost grows ----------------------------------------------------------


def measured_rows(scale: Mapping[str, Any]) -> list[str]:
    """What was measured, a row each."""
    rows = []
    for kind, counts in scale.items():
        for count, figures in counts.items():
            rate = figures["calls_per_second"]["median"]
            once = figures["seconds_of_a_call"]["median"]
            what = counted(int(count), kind)
            rows.append(
                f"| {f'a list of {what}' if kind == 'symbols' else what} "
                f"| {figures['cpu_seconds']['median'] * 1e6:.0f} µs "
                + (
                    f"| {once * 1e3:.1f} ms the list "
                    if kind == "symbols"
                    else f"| {rate:.0f} "
                )
                + f"| {figures['megabytes']:.1f} MB |"
            )
    return rows


def window_seconds(symbols: int) -> float:
    """Seconds before the last request of a list may start."""
    return (symbols - 1) // RATE_CALLS * RATE_WINDOW


def beyond(scale: Mapping[str, Any]) -> list[str]:
    """What follows from it for more, a row each: what, seconds, CPU."""
    ten, held_back = scale["symbols"]["10"], scale["symbols"]["20"]
    a_symbol = held_back["cpu_seconds"]["median"]
    a_call = scale["threads"]["1"]["cpu_seconds"]["median"]
    rows = []
    for symbols in SYMBOLS:
        seconds = window_seconds(symbols) + ten["seconds_of_a_call"]["median"]
        rows.append(
            f"| a list of {symbols:,} symbols | {seconds:.2f} s "
            f"| {symbols * a_symbol * 1e3:.1f} ms in all |"
        )
    for accounts in ACCOUNTS:
        rate = accounts * RATE_CALLS / RATE_WINDOW
        who = f"{accounts} accounts, each" if accounts > 1 else "an account"
        rows.append(
            f"| {who} at the limit | {rate:.0f} calls a second "
            f"| {rate * a_call:.2%} of a core |"
        )
    rows.append(f"| one core, no limit | {1 / a_call:.0f} calls a second | all of it |")
    return rows


def connection_memory(scale: Mapping[str, Any]) -> float:
    """MB of a client with its connection, from the most and the fewest of them."""
    clients = {int(count): it["megabytes"] for count, it in scale["clients"].items()}
    most, fewest = max(clients), min(clients)
    grown: float = (clients[most] - clients[fewest]) / (most - fewest)
    return grown


def scale_lines(scale: Mapping[str, Any]) -> list[str]:
    each = connection_memory(scale)
    return [
        "| measured | CPU of a call | calls a second | memory of a process |",
        "| --- | --- | --- | --- |",
        *measured_rows(scale),
        "",
        "| reckoned from it | how long, how many | CPU |",
        "| --- | --- | --- |",
        *beyond(scale),
        f"| a client that keeps {KEPT} connections | {KEPT * each:.1f} MB more | – |",
    ]


def write_scale(results: Mapping[str, Any], path: Path = PAGE) -> None:
    """Put how the cost grows between the other marks."""
    put(scale_lines(results["scale"]), SCALE_BEGIN, SCALE_END, path)
