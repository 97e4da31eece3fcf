"""One run of the soak: a server, a client's process, and the table of both."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import trustme

ROOT = Path(__file__).parents[2]
FOREIGN_VARIABLES = ("SSLKEYLOGFILE", "ESPRESSO_LOG", "ESPRESSO_LOG_FILE")
SLOWEST = 100
"""Calls a second: a run that is slower is stuck."""
START = 30.0
"""Seconds that the processes may take beside the calls."""

FLAT = 256
"""KiB that a run may grow after its warm-up."""
FLAT_LONG = 1024
"""The same, of a run of LONG calls or more."""
LONG = 1_000_000
SLOWDOWN = {"Client": 2.0}
"""How much larger the p99 of calls that met no fault may be where others do.

That of AsyncClient is shown only: after a fault a task connects again, and the TLS
handshake, a millisecond of work, is in the way of all tasks of its loop.
"""


@dataclass(frozen=True)
class Line:
    """One figure of a run, and its bound."""

    name: str
    value: float
    most: float
    text: str

    @property
    def is_held(self) -> bool:
        return self.value <= self.most


@dataclass(frozen=True)
class Run:
    """What client and server said."""

    said: dict[str, Any]
    served: dict[str, Any]

    @property
    def faults(self) -> int:
        return sum(self.served["faults"].values())

    def _grown(self, what: str) -> int:
        """How much more there was at the end than after the warm-up."""
        samples = [sample[what] for sample in self.said["samples"]]
        return int(samples[-1] - samples[0])

    def resources(self) -> list[Line]:
        """Memory, descriptors and threads."""
        samples, before = self.said["samples"], self.said["before"]
        flat = FLAT_LONG if self.said["calls"] >= LONG else FLAT
        lines = []
        for name, what, most in (
            ("memory (KiB)", "resident", flat),
            ("descriptors", "descriptors", 0),
            ("threads", "threads", 0),
        ):
            first, last = samples[0][what], samples[-1][what]
            text = f"{first} once warm, {last} at the end"
            lines.append(Line(name, self._grown(what), most, text))
        left = self.said["after"]["descriptors"] - before["descriptors"]
        text = f"{before['descriptors']} before the clients, {left:+} after them"
        lines.append(Line("descriptors kept", left, 0, text))
        return lines

    def times(self) -> Iterator[Line]:
        """The p99 of each face, as a multiple of that without faults."""
        for face, (clean, faulty) in self.said["p99"].items():
            text = f"{clean * 1e6:.0f} µs without faults, {faulty * 1e6:.0f} with"
            most = SLOWDOWN.get(face, math.inf)
            yield Line(f"p99 of {face}", faulty / clean, most, text)

    def lines(self) -> list[Line]:
        return [*self.resources(), *self.times()]


def run(calls: int, seed: int = 1) -> Run:
    """Make so many calls that may meet a fault.

    Raises AssertionError if a process fails or gets stuck.
    """
    env = {k: v for k, v in os.environ.items() if k not in FOREIGN_VARIABLES}
    with TemporaryDirectory(prefix="espresso-soak-") as name:
        folder = Path(name)
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(folder / "ca.pem"))
        issued = authority.issue_cert("127.0.0.1")
        issued.private_key_and_cert_chain_pem.write_to_path(str(folder / "cert.pem"))
        command = [sys.executable, "-m", "tests.soak.server"]
        server = subprocess.Popen(
            [*command, str(folder / "cert.pem"), str(seed)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        try:
            assert server.stdout is not None
            port = int(server.stdout.readline())
            env["SOAK_URL"] = f"https://127.0.0.1:{port}"
            env["SOAK_CA"] = str(folder / "ca.pem")
            said = _client(calls, env)
            served, _ = server.communicate(timeout=START)
        finally:
            server.kill()
            server.wait()
    return Run(json.loads(said), json.loads(served))


def _client(calls: int, env: dict[str, str]) -> str:
    """Run the calls; what they report."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.soak.client", str(calls)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=env,
        timeout=START + calls / SLOWEST,
    )
    assert done.returncode == 0, f"status {done.returncode}\n{done.stderr}"
    return done.stdout


def report(finished: Run) -> str:
    """The table of a run."""
    said, served = finished.said, finished.served
    rate = served["requests"] / said["seconds"]
    lines = [
        f"calls            {said['calls']:,}, and a quarter more without faults",
        f"speed            {said['seconds']:.0f} s, {rate:,.0f} requests a second",
        f"faults           {finished.faults:,}: {_counts(served['faults'])}",
        f"outcomes         {_counts(said['outcomes'])}",
    ]
    for line in finished.lines():
        word = "held" if line.is_held else "NOT HELD"
        figures = f"{line.value:.4g}, at most {line.most:.4g}: {word}"
        if line.most == math.inf:
            figures = f"{line.value:.4g}"
        lines.append(f"{line.name:<18}{line.text:<48}{figures}")
    return "\n".join(lines)


def _counts(counts: dict[str, int]) -> str:
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {count:,}" for name, count in ordered)
