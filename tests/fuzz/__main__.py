"""``python -m tests.fuzz``: every target for its share, one table, exit 1 on a finding.

The programs are built by ``make fuzz``, into ``build/fuzz/clang``. What a target has
learned is kept in ``build/fuzz/corpus/TARGET``; a finding is a file in
``build/fuzz/findings/TARGET``, which is run again by ``build/fuzz/clang/TARGET FILE``.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from . import differential, seeds

ROOT = Path("build/fuzz")
DICTIONARY = Path("tests/fuzz/http.dict")
GRACE = 120.0  # seconds beyond its time: a sanitizer's report takes a while
# A freed block is kept back for a while, or each run would touch new memory.
SANITIZERS = "quarantine_size_mb=16:malloc_context_size=12"

# Target: share of the time, and of the runs, which cost more or less.
SHARES = {
    "reply": (0.32, 0.34),
    "wire": (0.24, 0.01),
    "press": (0.20, 0.01),
    "arguments": (0.12, 0.20),
    "policy": (0.04, 0.42),
    "json": (0.08, 0.02),
}


@dataclass(frozen=True, slots=True)
class Budget:
    """What one target may take: seconds, or a number of runs."""

    seconds: float | None
    runs: int | None


@dataclass(frozen=True, slots=True)
class Row:
    """What became of one target."""

    target: str
    runs: int
    seconds: float
    findings: list[str]
    report: str = ""


def budget(target: str, total: float | None, runs: int | None, alone: bool) -> Budget:
    """The share of `target`; `alone`: it gets all."""
    of_time, of_runs = (1.0, 1.0) if alone else SHARES[target]
    if runs is not None:
        return Budget(None, max(1, round(runs * of_runs)))
    assert total is not None
    return Budget(max(1.0, total * of_time), None)


def number_after(name: str, text: str) -> int:
    """libFuzzer's closing figure of that name; 0 if it did not come so far."""
    found = re.search(rf"^{re.escape(name)}\s*(\d+)", text, re.MULTILINE)
    return int(found[1]) if found else 0


def fuzz(target: str, plan: Budget, seed: int) -> Row:
    """Run libFuzzer on `target` within its budget."""
    corpus, findings = ROOT / "corpus" / target, ROOT / "findings" / target
    begin = ROOT / "seeds" / target
    for folder in (corpus, findings):
        folder.mkdir(parents=True, exist_ok=True)
    seeds.write(target, begin)
    before = set(findings.iterdir())
    limit = f"-runs={plan.runs}" if plan.runs else f"-max_total_time={plan.seconds:.0f}"
    command = [str(ROOT / "clang" / target), limit, f"-seed={seed}", "-entropic=0"]
    command += ["-print_final_stats=1", "-timeout=30", "-rss_limit_mb=2048"]
    command += [f"-dict={DICTIONARY}", f"-artifact_prefix={findings}/"]
    command += [str(corpus), str(begin)]
    begun = os.times().elapsed
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=plan.seconds + GRACE if plan.seconds else None,
        env=os.environ | {"ASAN_OPTIONS": SANITIZERS},
    )
    report = done.stdout.decode(errors="replace")
    found = sorted(str(path) for path in set(findings.iterdir()) - before)
    if done.returncode != 0 and not found:
        found = [f"exit status {done.returncode}"]
    runs = number_after("stat::number_of_executed_units:", report)
    return Row(target, runs, os.times().elapsed - begun, found, report if found else "")


def compare(target: str, plan: Budget, seed: int) -> Row:
    """The differential against Python's json, as one more target."""
    with differential.Core() as core:
        result = differential.compare(core, seed, plan.runs, plan.seconds)
    finding = result.finding
    found = [f"{finding.text!r}: {finding.complaint}"] if finding else []
    return Row(target, result.runs, result.seconds, found)


def run(target: str, plan: Budget, seed: int) -> Row:
    """Run one target; what goes wrong with it is a finding too."""
    runner: Callable[[str, Budget, int], Row] = compare if target == "json" else fuzz
    try:
        return runner(target, plan, seed)
    except (OSError, RuntimeError, subprocess.TimeoutExpired) as error:
        return Row(target, 0, 0.0, [f"{type(error).__name__}: {error}"])


def table(rows: list[Row]) -> str:
    """The rows and their sum."""
    total = Row(
        "all",
        sum(row.runs for row in rows),
        sum(row.seconds for row in rows),
        [finding for row in rows for finding in row.findings],
    )
    lines = [f"{'target':12}{'runs':>14}{'seconds':>10}{'runs/s':>12}{'findings':>10}"]
    for row in [*rows, total]:
        rate = row.runs / row.seconds if row.seconds else 0
        lines.append(
            f"{row.target:12}{row.runs:14,}{row.seconds:10.1f}{rate:12,.0f}"
            f"{len(row.findings):10}"
        )
    return "\n".join(lines)


def faults(rows: list[Row], runs: int | None) -> list[str]:
    """What keeps the run from being a good one."""
    found = [f"{row.target}: {finding}" for row in rows for finding in row.findings]
    found += [f"{row.target}: nothing was run" for row in rows if row.runs == 0]
    done = sum(row.runs for row in rows)
    if runs is not None and done < runs and not found:
        found.append(f"{done:,} runs instead of {runs:,}")
    return found


def parse(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--seconds", type=float, help="for all targets together (60)")
    parser.add_argument("--runs", type=int, help="of all targets together")
    parser.add_argument("--target", choices=sorted(SHARES), help="only this one")
    parser.add_argument("--seed", type=int, default=1, help="of the dice")
    parser.add_argument("--jobs", type=int, default=0, help="at once; 0: a core each")
    options = parser.parse_args(words)
    if options.seconds is not None and options.runs is not None:
        parser.error("either --seconds or --runs")
    if (options.seconds or 1) <= 0 or (options.runs or 1) <= 0:
        parser.error("--seconds and --runs are positive")
    return options


def main(words: list[str] | None = None) -> int:
    options = parse(words)
    targets = [options.target] if options.target else list(SHARES)
    seconds = options.seconds or 60.0
    jobs = options.jobs or os.cpu_count() or 1
    with ThreadPoolExecutor(jobs) as pool:
        waiting = [
            pool.submit(
                run,
                target,
                # So many at once: each may take so much longer.
                budget(
                    target,
                    seconds * min(jobs, len(targets)),
                    options.runs,
                    options.target is not None,
                ),
                options.seed,
            )
            for target in targets
        ]
        rows = [done.result() for done in waiting]
    print("\n".join(row.report for row in rows if row.report), end="")
    print(table(rows))
    wrong = faults(rows, options.runs)
    print("\n".join(f"FINDING {line}" for line in wrong) or "no finding")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
