"""One run: a server, a client's process, and the judge's verdict on both."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import trustme

from .async_clients import ASYNC_FACES
from .faults import all_names
from .judge import Figures, Verdict, judge
from .records import Claim, Note, Post, ServerLog, read_claims, read_log

ROOT = Path(__file__).parents[2]
STALL = 20.0
"""Seconds without one finished call after which the client's process is stuck."""
THREADS = 48
WORKERS = {
    "careful": 24,
    "espresso-list": 16,
    "espresso-async": 200,
    "espresso-async-list": 24,
}
"""Who calls at once; a list puts some five requests in flight."""
FOREIGN_VARIABLES = (
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "SSLKEYLOGFILE",
    "DELTADEFI_API_KEY",
    "DELTADEFI_BASE_URL",
)
"""What the machine may have set; neither client nor server is to see it."""


@dataclass(frozen=True)
class Plan:
    """What to run; `only` names the faults to draw from, all of them if empty.

    `calls` counts the symbols, `workers` those who call at once: threads, or tasks
    of an asynchronous face; 0: as WORKERS has it.
    """

    client: str = "espresso"
    seed: int = 1
    calls: int = 1000
    workers: int = 0
    only: frozenset[str] = frozenset()

    @property
    def callers(self) -> str:
        return "tasks" if self.client in ASYNC_FACES else "threads"

    @property
    def count(self) -> int:
        return self.workers or WORKERS.get(self.client, THREADS)


@dataclass(frozen=True)
class Run:
    """A finished run; `seconds` is the time of the client's process."""

    plan: Plan
    verdict: Verdict
    claims: list[Claim]
    log: ServerLog
    seconds: float

    @property
    def undrawn(self) -> list[str]:
        """The faults that were to be drawn and never were."""
        wanted = self.plan.only or all_names()
        return [name for name in wanted if not self.verdict.figures.faults[name]]


def run(plan: Plan) -> Run:
    """Start the server and the client, wait for both, judge.

    Both processes end when this one does: they watch their standard input.
    """
    with TemporaryDirectory(prefix="chaos-") as name:
        folder = Path(name)
        _write_certificates(folder)
        with _server(plan, folder) as (port, control):
            started = time.monotonic()
            died = _drive(plan, folder, port, control)
            seconds = time.monotonic() - started
        claims = read_claims(folder / "claims")
        log = read_log(folder / "log")
    verdict = judge(claims, log, plan.calls, died)
    return Run(plan, verdict, claims, log, seconds)


def _write_certificates(folder: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    leaf = authority.issue_cert("127.0.0.1", "localhost")
    leaf.private_key_and_cert_chain_pem.write_to_path(str(folder / "leaf.pem"))


def _environment() -> dict[str, str]:
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in FOREIGN_VARIABLES and not name.lower().endswith("_proxy")
    }
    return {**environment, "PYTHONUNBUFFERED": "1"}


def _start(module: str, *args: object, stdout: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", f"tests.chaos.{module}", *map(str, args)],
        cwd=ROOT,
        env=_environment(),
        stdin=subprocess.PIPE,
        stdout=stdout,
        text=True,
    )


def _stop(process: subprocess.Popen[str]) -> int:
    """End a process of ours by closing its standard input, else by force."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        return process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()
    finally:
        if process.stdout is not None:
            process.stdout.close()


@contextmanager
def _server(plan: Plan, folder: Path) -> Iterator[tuple[int, int]]:
    process = _start(
        "server",
        f"--seed={plan.seed}",
        f"--only={','.join(sorted(plan.only))}",
        f"--cert={folder / 'leaf.pem'}",
        f"--log={folder / 'log'}",
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        port, control = map(int, process.stdout.readline().split())
        yield port, control
    finally:
        status = _stop(process)
    if status != 0:
        raise RuntimeError(f"the chaos server ended with status {status}")


def _drive(plan: Plan, folder: Path, port: int, control: int) -> str:
    """Run the client's process; how it died, "" if it ended in order."""
    claims = folder / "claims"
    claims.touch()
    process = _start(
        "driver",
        f"--client={plan.client}",
        f"--port={port}",
        f"--control={control}",
        f"--ca={folder / 'ca.pem'}",
        f"--claims={claims}",
        f"--seed={plan.seed}",
        f"--calls={plan.calls}",
        f"--workers={plan.count}",
        stdout=subprocess.DEVNULL,
    )
    try:
        stuck = _wait(process, claims)
    except BaseException:
        process.kill()
        _stop(process)
        raise
    if stuck:
        process.kill()
    status = _stop(process)
    if stuck:
        return f"stood still for {STALL:.0f} s"
    return "" if status == 0 else f"ended with status {status}"


def _wait(process: subprocess.Popen[str], claims: Path) -> bool:
    """Wait while calls end; True if they no longer do."""
    size, since = -1, time.monotonic()
    while process.poll() is None:
        time.sleep(0.05)
        now = time.monotonic()
        if (grown := claims.stat().st_size) != size:
            size, since = grown, now
        if now - since > STALL:
            return True
    return False


# --- the report ------------------------------------------------------------------

STORIES = 5
"""How many violations are told with all that happened."""
TELL = 1000
"""Characters of a claim that are printed."""


def report(run: Run) -> str:
    """The run in words: figures, broken rules, and the story of the first ones."""
    lines = [_headline(run), *_figures(run.verdict.figures, run.seconds)]
    if run.undrawn:
        lines.append(f"  never drawn       {', '.join(run.undrawn)}")
    if not run.verdict.violations:
        return "\n".join([*lines, "no violation"])
    lines.append(f"{len(run.verdict.violations)} VIOLATIONS")
    lines += [f"  {rule:22}{n:7}" for rule, n in run.verdict.rules.most_common()]
    told: set[str] = set()
    for violation in run.verdict.violations:
        if violation.rule not in told and len(told) < STORIES:
            told.add(violation.rule)
            lines += ["", f"{violation.rule}: {violation.id} {violation.text}"]
            lines += story(run, violation.id)
    return "\n".join(lines)


def _headline(run: Run) -> str:
    plan = run.plan
    return f"chaos: {plan.client}, seed {plan.seed}, {plan.count} {plan.callers}"


def _figures(figures: Figures, seconds: float) -> list[str]:
    rows = {
        "calls": f"{figures.calls} in {seconds:.1f} s, {figures.at_once} at once; "
        f"{figures.lists} of several symbols, {figures.never_tried} symbols not tried",
        "POSTs": f"{figures.posts}, {figures.on_used_connections} of them on a "
        f"used connection; {figures.delivered_again} calls took several",
        "outcomes": _listing(figures.outcomes),
        "errors": _listing(figures.errors),
        "lost replies": f"{figures.lost_replies} named",
        "confirm": f"{figures.confirmed} proven, {figures.still_open} still open",
        "cancelled": f"{figures.cancelled} on their way",
        "believed": f"{figures.believed.total()} of {figures.prompt.total()} "
        "prompt final answers",
        "tried again": f"{figures.persisted} of {figures.chances} lost at once",
        "over-cautious": f"{figures.unfounded} of {figures.unknowns} unknown",
        "worst overrun": f"{figures.worst_overrun * 1000:.0f} ms",
        "faults": _listing(figures.faults),
    }
    return [f"  {name:18}{text}" for name, text in rows.items()]


def _listing(counts: dict[str, int]) -> str:
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    return ", ".join(f"{name or 'none'} {n}" for name, n in ordered)


def story(run: Run, symbol: str) -> list[str]:
    """What the client claimed of a call, and all that happened around it."""
    claims = [claim for claim in run.claims if claim.id == symbol]
    connections = {post.conn for post in run.log.posts if post.id == symbol}
    start = claims[0].started if claims else 0.0
    lines = [_claim_line(claim) for claim in claims]
    everything: list[Post | Note] = [*run.log.posts, *run.log.notes]
    records = [record for record in everything if record.conn in connections]
    records.sort(key=lambda record: (record.conn, record.t))
    return lines + [_record_line(record, start, symbol) for record in records]


def _claim_line(claim: Claim) -> str:
    options, said = claim.options, claim.said
    what = said.result if said.error is None else said
    return (
        f"  claimed by worker {claim.worker} after {claim.elapsed:.3f} s "
        f"(timeout={options.timeout}, max_retries={options.max_retries}, "
        f"missing_ok={options.missing_ok}, confirm={options.confirm}, "
        f"cancel_after={options.cancel_after}): {str(what)[:TELL]}"
    )


def _record_line(record: Post | Note, start: float, symbol: str) -> str:
    when = f"  {record.t - start:+9.4f} s  connection {record.conn:<6}"
    if isinstance(record, Note):
        flag = f" [{record.flag}]" if record.flag else ""
        fault = f" (fault {record.fault})" if record.fault else ""
        return f"{when}{record.what}{fault}{flag}"
    mark = "POST" if record.id == symbol else "post"
    answer = f"answered {record.reading} at {record.t_whole - start:+.4f} s"
    return (
        f"{when}{mark} {record.id} #{record.nth}, fault {record.fault or 'none'}: "
        f"{answer if record.whole else 'not answered whole'}, "
        f"statuses {list(record.statuses)}, code {record.code}, "
        f"ids {list(record.ids)}, then {record.end or 'nothing'}"
    )
