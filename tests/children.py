"""Programs that a test runs in a process of their own.

A crash, a hang, a fork or a signal then strikes the child and not the test run.
Whatever becomes of the test, `Child` ends its process, by its own pid.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from espresso.sandbox import Exchange

ROOT = Path(__file__).resolve().parent.parent

# Seconds. Far beyond what anything here takes: who waits so long waits for ever.
PATIENCE = 30.0

PRELUDE = """
import os, signal, sys, time
try:
    # A shell starts its background jobs with SIGINT ignored; this may be in one.
    signal.signal(signal.SIGINT, signal.default_int_handler)
except ValueError:
    pass  # a subinterpreter, or not the main thread
import espresso

def make_client(face, key, options):
    options.setdefault("base_url", os.environ["TEST_URL"])
    options.setdefault("timeout", 20)
    key = key or os.environ["TEST_KEY"]
    return face(key, ca_file=os.environ["TEST_CA"], **options)

def connect(key=None, **options):
    return make_client(espresso.Client, key, options)

def connect_async(key=None, **options):
    return make_client(espresso.AsyncClient, key, options)

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())
"""


def environment(base: Mapping[str, str], exchange: Exchange) -> dict[str, str]:
    """What `connect` of the PRELUDE needs to know, on top of `base`."""
    return {
        **base,
        "TEST_KEY": exchange.key,
        "TEST_URL": exchange.url,
        "TEST_CA": exchange.ca_file,
    }


def default_environment(base: Mapping[str, str], exchange: Exchange) -> dict[str, str]:
    """What the module-level ``espresso.cancel_all`` needs to know."""
    return {
        **environment(base, exchange),
        "DELTADEFI_API_KEY": exchange.key,
        "DELTADEFI_BASE_URL": exchange.url,
        "SSL_CERT_FILE": exchange.ca_file,
    }


def preloaded(library: Path) -> str:
    """LD_PRELOAD of a child that gets this library: a sanitizer's comes first."""
    return " ".join(filter(None, (os.environ.get("LD_PRELOAD"), str(library))))


@dataclass(frozen=True)
class Ended:
    """How a program ended."""

    status: int
    """Exit status; -N: killed by signal N."""
    out: str
    err: str
    at: float
    """time.monotonic() when that was seen."""

    def check(self) -> Self:
        """Itself, if the program ended well."""
        assert self.status == 0, f"status {self.status}\n{self.out}\n{self.err}"
        return self


class Child:
    """A Python program that runs until the end of the ``with`` block at most."""

    def __init__(
        self,
        program: str | Path,
        env: Mapping[str, str],
        *arguments: str,
        flags: Sequence[str] = (),
        python: str = sys.executable,
        prefix: Sequence[str] = (),
    ) -> None:
        given = [str(program)] if isinstance(program, Path) else ["-c", program]
        self._unread = b""
        # A file, not a pipe: nobody need read it for the child to go on.
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  closed by __exit__
        self._process = subprocess.Popen(
            [*prefix, python, *flags, *given, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=dict(env),
            cwd=ROOT,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(PATIENCE)
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        self._errors.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def line(self, timeout: float = PATIENCE) -> str:
        """The next line it says.

        Raises AssertionError if none comes in time, or it ends before.
        """
        until = time.monotonic() + timeout
        while b"\n" not in self._unread:
            assert self._read(until - time.monotonic()), f"no line:\n{self._stderr()}"
        line, _, self._unread = self._unread.partition(b"\n")
        return line.decode()

    def expect(self, line: str, timeout: float = PATIENCE) -> None:
        """Wait until it says this very line."""
        said = self.line(timeout)
        assert said == line, f"{said!r} instead of {line!r}:\n{self._stderr()}"

    def tell(self) -> None:
        """Give it one line to read."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()

    def signal(self, number: int) -> float:
        """Send it a signal; time.monotonic() just before."""
        at = time.monotonic()
        self._process.send_signal(number)
        return at

    def end(self, timeout: float = PATIENCE) -> Ended:
        """Wait until it ends by itself; AssertionError if it does not."""
        until = time.monotonic() + timeout
        while self._read(until - time.monotonic()):
            pass
        try:
            status = self._process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still runs:\n{self._stderr()}") from None
        out, self._unread = self._unread.decode(), b""
        return Ended(status, out, self._stderr(), time.monotonic())

    def _read(self, timeout: float) -> bool:
        """Read on; False at the end of its output, or of the time."""
        assert self._process.stdout is not None
        pipe = self._process.stdout.fileno()
        ready, _, _ = select.select([pipe], [], [], max(0.0, timeout))
        data = os.read(pipe, 65536) if ready else b""
        self._unread += data
        return bool(data)

    def _stderr(self) -> str:
        # Not by seeking: the child writes at the same offset.
        length = os.fstat(self._errors.fileno()).st_size
        return os.pread(self._errors.fileno(), length, 0).decode(errors="replace")


def run(
    program: str | Path,
    env: Mapping[str, str],
    *arguments: str,
    flags: Sequence[str] = (),
    python: str = sys.executable,
    timeout: float = PATIENCE,
) -> Ended:
    """Run a program to its end."""
    with Child(program, env, *arguments, flags=flags, python=python) as child:
        return child.end(timeout)
