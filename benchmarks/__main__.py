"""``make bench``: espresso beside a C loop and its peers, against one TLS server.

Prints a table and whether the bars are held; writes every figure to
``benchmarks/results.json``. Times depend on the machine, so the bars are ratios
where that is possible. With ``--check`` a bar that is not held is exit status 1.
"""

import argparse
import dataclasses
import json
import os
import platform
import sys
import tempfile
from pathlib import Path

from benchmarks import page, warm
from benchmarks.cli import CommandLine
from benchmarks.cold import Cold
from benchmarks.server import nginx
from benchmarks.together import Together

RESULTS = Path(__file__).with_name("results.json")
PEERS_PYTHON = ".venv-bench/bin/python"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--check", action="store_true", help="status 1 on a missed bar")
    parser.add_argument("--write", action="store_true", help="into the page, too")
    parser.add_argument("--rounds", type=int, default=60, help="of warm calls")
    parser.add_argument("--processes", type=int, default=40, help="of each cold kind")
    return parser.parse_args()


def environment() -> dict[str, str]:
    """Nothing of this machine's proxies, trust stores and Python settings."""
    return {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}


def write_results(figures: dict[str, object]) -> None:
    def plain(value: object) -> object:
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return dataclasses.asdict(value)
        raise TypeError(f"not a figure: {value!r}")

    RESULTS.write_text(json.dumps(figures, indent=2, default=plain) + "\n")


def main() -> int:
    options = arguments()
    with tempfile.TemporaryDirectory(prefix="espresso-bench-") as name:
        folder = Path(name)
        with nginx(folder) as server:
            clean = environment()
            found = warm.clients(server, folder, sys.executable, PEERS_PYTHON)
            warm.measure(found, options.rounds, clean)
            cold = Cold(server, folder, sys.executable, clean)
            cold.measure(options.processes)
            cold_lines, cold_figures, cold_bars = cold.report()
            typed = CommandLine(server, folder, sys.executable, clean)
            typed.measure(options.processes)
            typed_lines, typed_figures, typed_bars = typed.report()
    together = Together(sys.executable, clean)
    together.measure()
    together_lines, together_figures, together_bars = together.report()
    warm_lines, warm_figures, warm_bars = warm.report(found)
    bars = [*warm_bars, *cold_bars, *typed_bars, *together_bars]
    tables = (warm_lines, cold_lines, typed_lines, together_lines)
    print("\n".join(line for table in tables for line in (*table, "")) + "bars")
    print("\n".join(bar.text() for bar in bars))
    machine = {
        "python": platform.python_version(),
        "system": platform.platform(),
        "cpus": os.cpu_count(),
        "server": server.version,
    }
    write_results(
        {
            "machine": machine,
            "warm": warm_figures,
            "cold": cold_figures,
            "command_line": typed_figures,
            "together": together_figures,
            "bars": [dataclasses.asdict(bar) | {"held": bar.held} for bar in bars],
        }
    )
    if options.write:
        page.write(bars, machine)
    return 1 if options.check and not all(bar.held for bar in bars) else 0


if __name__ == "__main__":
    sys.exit(main())
