"""``make bench``: espresso beside C loops and its peers, against one TLS server.

Prints a table for each part and whether the bars are held; writes every figure to
``benchmarks/results.json``. Times depend on the machine, so the bars are ratios
where that is possible. With ``--check`` a bar that is missed is exit status 1. With
names of parts: these alone.
"""

import argparse
import dataclasses
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from benchmarks import page, picture
from benchmarks.cli import CommandLine
from benchmarks.cold import Cold
from benchmarks.cold_peers import Peers
from benchmarks.decode import Decode
from benchmarks.figures import Bar, Report
from benchmarks.memory import Memory
from benchmarks.scale import Scale
from benchmarks.server import Server, nginx
from benchmarks.setting import Setting, environment
from benchmarks.together import Together
from benchmarks.trips import Trips
from benchmarks.warm import Warm

RESULTS = Path(__file__).with_name("results.json")
PEERS_PYTHON = ".venv-bench/bin/python"
SDK_PYTHON = "build/venv-sdk/bin/python"


class Part(Protocol):
    """A part of the benchmark."""

    title: str

    def __init__(self, setting: Setting) -> None: ...
    def measure(self) -> None: ...
    def report(self) -> Report: ...


PARTS: tuple[type[Part], ...] = (
    *(Warm, Cold, Peers, CommandLine, Scale, Decode),
    *(Memory, Trips, Together),
)


def absolute(path: str) -> Path:
    """Parts of it are read in other folders."""
    return Path(path).absolute()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--check", action="store_true", help="status 1 on a missed bar")
    parser.add_argument("--write", action="store_true", help="into the documents, too")
    parser.add_argument("--rounds", type=int, default=40, help="of warm calls")
    parser.add_argument("--processes", type=int, default=40, help="of each cold kind")
    parser.add_argument("--wheel", type=Path, help="a wheel to measure as well")
    parser.add_argument("--static", type=absolute, help="the libraries that it brings")
    parser.add_argument("--results", type=Path, default=RESULTS, help="JSON")
    names = [part.title for part in PARTS]
    parser.add_argument("parts", nargs="*", choices=[*names, []], metavar="PART")
    options = parser.parse_args()
    if options.parts and options.write:
        parser.error("what is written is the whole: no PART with --write")
    if min(options.rounds, options.processes) < 2:
        parser.error("a spread takes two rounds")
    return options


def installed(wheel: Path, folder: Path) -> str:
    """Put the wheel into a venv of its own; return its Python."""
    if not wheel.is_file():
        raise SystemExit(f"no such wheel: {wheel}; `make wheel` builds it into dist/")
    venv = folder / "venv-wheel"
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    python = str(venv / "bin/python")
    pip = [python, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    subprocess.run([*pip, str(wheel)], check=True)
    return python


def setting_of(options: argparse.Namespace, folder: Path, server: Server) -> Setting:
    return Setting(
        server=server,
        folder=folder,
        ours=sys.executable,
        wheel=installed(options.wheel, folder) if options.wheel else "",
        static=options.static,
        peers=os.path.abspath(PEERS_PYTHON),
        sdk=os.path.abspath(SDK_PYTHON),
        environment=environment(),
        rounds=options.rounds,
        processes=options.processes,
    )


def measured(setting: Setting, names: list[str]) -> dict[str, Report]:
    """Run the parts, one after the other; print the table of each at once."""
    found = {}
    for kind in PARTS:
        if names and kind.title not in names:
            continue
        start = time.monotonic()
        part = kind(setting)
        part.measure()
        found[kind.title] = part.report()
        print("\n".join([*found[kind.title][0], ""]), flush=True)
        took = time.monotonic() - start
        print(f"espresso: {kind.title} took {took:.0f} s", file=sys.stderr, flush=True)
    return found


def results(
    reports: Mapping[str, Report], machine: Mapping[str, object], path: Path
) -> dict[str, object]:
    """Write all that was found to a file; return it as JSON has it."""
    bars = [bar for _, _, bars in reports.values() for bar in bars]
    found: dict[str, object] = {
        "machine": machine,
        **{title: figures for title, (_, figures, _) in reports.items()},
        "bars": [dataclasses.asdict(bar) | {"verdict": bar.verdict} for bar in bars],
    }

    def plain(value: object) -> object:
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return dataclasses.asdict(value)
        raise TypeError(f"not a figure: {value!r}")

    text = json.dumps(found, indent=2, default=plain)
    path.write_text(text + "\n")
    as_read: dict[str, object] = json.loads(text)
    return as_read


def machine_of(server: Server) -> dict[str, object]:
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "cpus": os.cpu_count(),
        "server": server.version,
    }


def main() -> int:
    options = arguments()
    with tempfile.TemporaryDirectory(prefix="espresso-bench-") as name:
        folder = Path(name)
        with nginx(folder) as server:
            reports = measured(setting_of(options, folder, server), options.parts)
    machine = machine_of(server)
    found = results(reports, machine, options.results)
    bars: list[Bar] = [bar for _, _, bars in reports.values() for bar in bars]
    print("\n".join(["bars", *(bar.text() for bar in bars)]))
    if options.write:
        page.write(bars, machine)
        page.write_scale(found)
        picture.write(found)
    return 1 if options.check and any(bar.missed for bar in bars) else 0


if __name__ == "__main__":
    sys.exit(main())
