"""What a process pays once: the import, the first call, the way to the first reply.

Each sample is a fresh process, so that nothing is warm but the disk. The runs are
interleaved, and each is compared with its neighbour of the same round.
"""

import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.figures import Bar, Figure, difference, ratio
from benchmarks.server import Server

SYSTEM_DIRECTORY = Path("/etc/ssl/certs")
SYSTEM_BUNDLE = SYSTEM_DIRECTORY / "ca-certificates.crt"
HASHED_NAME = re.compile(r"[0-9a-f]{8}\.[0-9]+")

IMPORT_LIMIT = 10.0  # ms that the import adds
MODULES_LIMIT = 12  # modules that the import adds
FIRST_CALL_LIMIT = 10.0  # ms of the first call with a hashed trust store
PROCESS_LIMIT = 2.5  # times the bare interpreter, start to first reply

BARE = "pass"
IMPORT = "import espresso"
MODULES = (
    "import sys; before = set(sys.modules); import espresso;"
    " print(*sorted(set(sys.modules) - before))"
)
# What loading the distribution's libcurl and its libraries costs, whoever does it.
LIBCURL = (
    "import time, ctypes\n"
    "start = time.perf_counter()\n"
    "ctypes.CDLL('libcurl.so.4')\n"
    "print(time.perf_counter() - start)\n"
)
CALL = "import espresso; espresso.Client('sandbox-bench', base_url={url!r})" + (
    ".cancel_all('ADAUSDM')"
)
TIMED_CALL = (
    "import time, espresso\n"
    "client = espresso.Client('sandbox-bench', base_url={url!r})\n"
    "start = time.perf_counter()\n"
    "client.cancel_all('ADAUSDM')\n"
    "print(time.perf_counter() - start)\n"
)


@dataclass
class Program:
    """Python code for a fresh interpreter, and its samples in seconds."""

    code: str
    environment: dict[str, str]
    prints_seconds: bool = False
    samples: list[float] = field(default_factory=list)

    def command(self, python: str) -> list[str]:
        return [python, "-I", "-c", self.code]

    def run(self, python: str) -> str:
        """Run it once and take a sample: what it prints, else the process's life."""
        start = time.perf_counter()
        done = subprocess.run(
            self.command(python),
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        lived = time.perf_counter() - start
        if done.returncode:
            raise SystemExit(f"{self.code}: {done.returncode}: {done.stderr}")
        self.samples.append(float(done.stdout) if self.prints_seconds else lived)
        return done.stdout


def hashed_store(folder: Path, ca_file: Path) -> Path:
    """The system's hashed directory, and our authority in it under its hash."""
    store = folder / "hashed"
    store.mkdir()
    for path in SYSTEM_DIRECTORY.iterdir():
        if HASHED_NAME.fullmatch(path.name):
            (store / path.name).symlink_to(path.resolve())
    command = ["openssl", "x509", "-subject_hash", "-noout", "-in", str(ca_file)]
    done = subprocess.run(command, check=True, text=True, capture_output=True)
    shutil.copy(ca_file, store / f"{done.stdout.strip()}.0")
    return store


def bundle_store(folder: Path, ca_file: Path) -> Path:
    """The system's bundle, and our authority at its end."""
    store = folder / "bundle.pem"
    store.write_bytes(SYSTEM_BUNDLE.read_bytes() + ca_file.read_bytes())
    return store


def measure(programs: Sequence[Program], rounds: int, python: str) -> None:
    """Take a sample of each program a round; the first round only warms up."""
    for number in range(rounds + 1):
        for program in programs[:: 1 if number % 2 else -1]:
            program.run(python)
    for program in programs:
        del program.samples[0]


class Cold:
    """The programs of this benchmark, and what their samples mean."""

    def __init__(
        self, server: Server, folder: Path, python: str, environment: dict[str, str]
    ) -> None:
        hashed = {"SSL_CERT_DIR": str(hashed_store(folder, server.ca_file))}
        bundle = {"SSL_CERT_FILE": str(bundle_store(folder, server.ca_file))}
        timed = TIMED_CALL.format(url=server.base_url)
        whole = CALL.format(url=server.base_url)
        self.python = python
        self.environment = environment
        self.bare = Program(BARE, environment)
        self.imported = Program(IMPORT, environment)
        self.libcurl = Program(LIBCURL, environment, prints_seconds=True)
        self.first_hashed = Program(timed, environment | hashed, prints_seconds=True)
        self.first_bundle = Program(timed, environment | bundle, prints_seconds=True)
        self.whole_hashed = Program(whole, environment | hashed)
        self.whole_bundle = Program(whole, environment | bundle)

    def measure(self, rounds: int) -> None:
        programs = [p for p in vars(self).values() if isinstance(p, Program)]
        measure(programs, rounds, self.python)

    def modules(self) -> list[str]:
        """Return the names of the modules that the import adds."""
        return Program(MODULES, self.environment).run(self.python).split()

    def report(self) -> tuple[list[str], dict[str, object], list[Bar]]:
        """Return the lines of the table, the figures, and the bars."""
        modules = self.modules()
        added = difference(self.imported.samples, self.bare.samples)
        whole = ratio(self.whole_hashed.samples, self.bare.samples)
        hashed = Figure.of(self.first_hashed.samples)
        figures = {
            "bare_interpreter_seconds": Figure.of(self.bare.samples),
            "import_adds_seconds": added,
            "of_which_loading_libcurl_seconds": Figure.of(self.libcurl.samples),
            "import_adds_modules": modules,
            "first_call_hashed_seconds": hashed,
            "first_call_bundle_seconds": Figure.of(self.first_bundle.samples),
            "process_ratio_hashed": whole,
            "process_ratio_bundle": ratio(self.whole_bundle.samples, self.bare.samples),
        }
        lines = [
            "cold process: median [quartiles] over interleaved runs",
            *(f"  {line}" for line in cold_lines(figures)),
        ]
        bars = [
            Bar("import espresso adds", added.median * 1e3, IMPORT_LIMIT, "ms"),
            Bar("import espresso adds modules", len(modules), MODULES_LIMIT, ""),
            Bar(
                "first call, hashed trust store",
                hashed.median * 1e3,
                FIRST_CALL_LIMIT,
                "ms",
            ),
            Bar("start to first reply / bare", whole.median, PROCESS_LIMIT, "x"),
        ]
        return lines, figures, bars


def cold_lines(figures: dict[str, object]) -> list[str]:
    """One line a figure: seconds as ms, ratios as they are, lists by their length."""
    lines = []
    for name, figure in figures.items():
        if isinstance(figure, Figure):
            in_ms = name.endswith("_seconds")
            text = figure.text(1e3 if in_ms else 1, 1 if in_ms else 2)
            label = name.removesuffix("_seconds") + (", ms" if in_ms else "")
            lines.append(f"{label.replace('_', ' '):32}{text:>24}")
        elif isinstance(figure, list):
            lines.append(f"{name.replace('_', ' '):32}{len(figure):>10}")
    return lines
