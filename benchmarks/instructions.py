"""``make instructions``: the instructions of one warm call, counted by callgrind.

A busy machine blurs times and no count of instructions, if each call takes the same
turns: so the server here takes its time, and every answer is waited for. What is held
is the ratio to the C loop on the same libraries and the same (simulated) processor: it
may be 3 % above what `RECORD` says, and no more. ``--write`` records it anew, and puts
into docs/performance.md where the instructions are spent.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import espresso
from benchmarks.page import PAGE, put
from benchmarks.server import REPLY, Server
from benchmarks.setting import Setting
from benchmarks.warm import ESPRESSO, YARDSTICK, in_c
from tests.rawserver import RawServer, Wire, http

RECORD = Path(__file__).with_name("instructions.json")
LIMIT = 1.03  # times the recorded ratio
PATIENCE = 300  # seconds for a client under callgrind
FEW, MANY = 100, 500  # calls; the difference has no start of a process in it
DELAY = 0.003  # seconds to an answer: longer than a client needs to begin to wait
PROGRAM = """
import sys
sys.path.insert(0, {folder!r})
import worker
call = worker.espresso({url!r}, {ca_file!r})
for line in sys.stdin:
    worker.repeated(call, int(line), 1)
"""
BEGIN = "<!-- instructions: made by `make instructions WRITE=1` -->"
END = "<!-- instructions end -->"

# What one call costs in each library.
Profile = Mapping[str, float]


@dataclass(frozen=True)
class Counted:
    """Instructions of a call, by library: espresso's and those of the C loop."""

    espresso: Profile
    cloop: Profile

    @property
    def ratio(self) -> float:
        return sum(self.espresso.values()) / sum(self.cloop.values())

    def record(self) -> dict[str, object]:
        return {
            **measured_on(),
            ESPRESSO: round(sum(self.espresso.values())),
            YARDSTICK: round(sum(self.cloop.values())),
            "ratio": round(self.ratio, 4),
        }


def measured_on() -> dict[str, str]:
    """What a count depends on; the loop in C is of this system, the client's libcurl
    may be a wheel's own."""
    return {
        "python": ".".join(platform.python_version_tuple()[:2]),
        "libcurl": espresso.__versions__["libcurl"],
    }


def elsewhere(record: Mapping[str, object]) -> str:
    """What the record was measured on, if that is something else; or ""."""
    here = measured_on()
    return ", ".join(
        f"{name} {record[name]}" for name in here if record[name] != here[name]
    )


def slowly(wire: Wire) -> None:
    """Answer each request, after a while."""
    while True:
        wire.read_request()
        time.sleep(DELAY)
        wire.send(http(REPLY.encode()))


# ---- callgrind -------------------------------------------------------------------


def spent(lines: Iterator[str]) -> Profile:
    """Sum up callgrind's output by library: what each executes itself.

    ``ob=(1) /path`` names the library of the lines that follow, ``ob=(1)`` does again;
    a line of a cost ends in it, but one after ``calls=`` is what the callee costs.
    """
    names: dict[str, str] = {}
    found: Counter[str] = Counter()
    library = ""
    is_callee = False
    for line in lines:
        if named := re.match(r"(c?ob)=\((\d+)\)(?: (.+))?", line):
            kind, number, path = named.groups()
            if path:
                names[number] = os.path.basename(path)
            if kind == "ob":
                library = names[number]
        elif line.startswith("calls="):
            is_callee = True
        elif cost := re.match(r"[-+*\d]\S* (\d+)$", line):
            if not is_callee:
                found[library] += int(cost[1])
            is_callee = False
    return found


def run(command: Sequence[str], calls: int) -> None:
    """Run a client that is told to make so many calls."""
    done = subprocess.run(
        command,
        input=f"{calls}\n",
        text=True,
        capture_output=True,
        timeout=PATIENCE,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "0"},
    )
    if done.returncode:
        raise SystemExit(f"{command[0]}: {done.returncode}: {done.stderr}")


def counted_run(command: Sequence[str], calls: int, folder: Path) -> Profile:
    path = folder / "callgrind.out"
    callgrind = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={path}"]
    run([*callgrind, *command], calls)
    with path.open(encoding="utf-8") as lines:
        return spent(lines)


def of_a_call(command: Sequence[str], folder: Path, times: int = 1) -> Profile:
    """What a call costs; the client makes ``times`` of them where it is told one."""
    run(command, 1)  # what Python compiles once and keeps is no part of either
    few, many = (counted_run(command, calls, folder) for calls in (FEW, MANY))
    calls = (MANY - FEW) * times
    return {name: (many[name] - few.get(name, 0)) / calls for name in many}


def count(python: str, folder: Path, server: Server) -> Counted:
    here = str(Path(__file__).parent)
    program = PROGRAM.format(
        folder=here, url=server.base_url, ca_file=str(server.ca_file)
    )
    (cloop,) = (
        client for client in in_c(Setting(server, folder)) if client.name == YARDSTICK
    )
    return Counted(
        espresso=of_a_call([python, "-c", program], folder),
        cloop=of_a_call(cloop.command, folder, times=2),
    )


# ---- what it means ---------------------------------------------------------------


def verdict(counted: Counted, record: Mapping[str, object]) -> tuple[bool, str]:
    """Whether the count is held, and a sentence that says so."""
    then = float(str(record["ratio"]))
    change = counted.ratio / then - 1
    said = (
        f"a warm call: {sum(counted.espresso.values()):,.0f} instructions,"
        f" {counted.ratio:.3f} of the C loop's; recorded {then:.3f}, {change:+.1%}"
    )
    if other := elsewhere(record):
        return True, f"{said}; the record is of {other}: not held"
    if counted.ratio > then * LIMIT:
        return False, f"{said}: NOT HELD, at most {LIMIT - 1:+.0%}"
    if change < 1 - LIMIT:
        said += "; record it with `make instructions WRITE=1`"
    return True, f"{said}: held"


def table(counted: Counted) -> list[str]:
    """Where they are spent, the most first."""
    ours, theirs = counted.espresso, counted.cloop
    names = sorted({*ours, *theirs}, key=lambda name: -ours.get(name, 0))
    rows = [
        f"| {name} | {ours.get(name, 0):,.0f} | {theirs.get(name, 0):,.0f} |"
        for name in names
        if max(ours.get(name, 0), theirs.get(name, 0)) >= 50
    ]
    total = f"| all | {sum(ours.values()):,.0f} | {sum(theirs.values()):,.0f} |"
    return [
        "| instructions of a warm call in | espresso | libcurl loop in C |",
        *("| --- | --- | --- |", *rows, total),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(prog="instructions", description=__doc__)
    parser.add_argument("--write", action="store_true", help="record it")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="espresso-count-") as name,
        RawServer(slowly) as raw,
    ):
        server = Server(raw.url, Path(raw.ca_file), "", os.getpid())
        counted = count(sys.executable, Path(name), server)
    print("\n".join(table(counted)))
    if options.write:
        RECORD.write_text(json.dumps(counted.record(), indent=2) + "\n")
        where = f"CPython {platform.python_version()}; {datetime.date.today()}"
        put([where, "", *table(counted)], BEGIN, END, PAGE)
    held, said = verdict(counted, json.loads(RECORD.read_text()))
    print(said)
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
