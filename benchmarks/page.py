"""The figures in ``docs/performance.md``: ``make bench WRITE=1`` makes them anew."""

from __future__ import annotations

import datetime
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.figures import Bar

PAGE = Path(__file__).resolve().parent.parent / "docs" / "performance.md"
BEGIN = "<!-- figures: made by `make bench WRITE=1` -->"
END = "<!-- figures end -->"


def table(bars: Sequence[Bar]) -> list[str]:
    rows = [
        f"| {bar.name} | {bar.value:.2f} {bar.unit} | {bar.limit:.2f} {bar.unit} "
        f"| {'held' if bar.held else 'NOT HELD'} |"
        for bar in bars
    ]
    return ["| figure | reached | at most | |", "| --- | --- | --- | --- |", *rows]


def write(
    bars: Sequence[Bar], machine: Mapping[str, object], path: Path = PAGE
) -> None:
    """Put the bars between the marks of the page, with where they were measured."""
    before, begin, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{path} has no place for figures: {BEGIN} ... {END}")
    server = str(machine["server"]).rpartition(": ")[2]
    where = (
        f"CPython {machine['python']}, {platform.system()} {platform.machine()}, "
        f"{machine['cpus']} processors; {server}; {datetime.date.today().isoformat()}"
    )
    text = "\n".join([where, "", *table(bars)])
    path.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")
