"""What a process pays once: the import, the first call, the way to the first reply.

Each sample is a fresh process, so that nothing is warm but the disk. The runs are
interleaved, and each is compared with its neighbour of the same round.
"""

import re
import shutil
import subprocess
from pathlib import Path

from benchmarks.figures import (
    Bar,
    Figure,
    Report,
    difference,
    ratio,
)
from benchmarks.program import BARE, IMPORT, Program, measure, modules
from benchmarks.setting import Setting

SYSTEM_DIRECTORY = Path("/etc/ssl/certs")
SYSTEM_BUNDLE = SYSTEM_DIRECTORY / "ca-certificates.crt"
HASHED_NAME = re.compile(r"[0-9a-f]{8}\.[0-9]+")

IMPORT_LIMIT = 10.0  # ms that the import adds
MODULES_LIMIT = 12  # modules that the import adds
FIRST_CALL_LIMIT = 10.0  # ms of the first call with a hashed trust store
PROCESS_LIMIT = 2.5  # times the bare interpreter, start to first reply
WHEEL_IMPORT_LIMIT = 2.5  # ms
WHEEL_MODULES_LIMIT = 10
WHEEL_PROCESS_LIMIT = 1.65  # times the bare interpreter

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


class Build:
    """The programs of one build of espresso, beside the same interpreter bare."""

    def __init__(
        self, setting: Setting, python: str, hashed: Path, bundle: Path
    ) -> None:
        clean = setting.environment
        in_directory = clean | {"SSL_CERT_DIR": str(hashed)}
        in_file = clean | {"SSL_CERT_FILE": str(bundle)}
        timed = TIMED_CALL.format(url=setting.server.base_url)
        whole = CALL.format(url=setting.server.base_url)
        self.python = python
        self.bare = Program(BARE, clean, python=python)
        self.imported = Program(IMPORT, clean, python=python)
        self.first_hashed = Program(timed, in_directory, True, python=python)
        self.first_bundle = Program(timed, in_file, True, python=python)
        self.whole_hashed = Program(whole, in_directory, python=python)
        self.whole_bundle = Program(whole, in_file, python=python)

    def programs(self) -> list[Program]:
        return [p for p in vars(self).values() if isinstance(p, Program)]

    def figures(self, environment: dict[str, str]) -> dict[str, object]:
        bare = self.bare.samples
        return {
            "bare_interpreter_seconds": Figure.of(bare),
            "import_adds_seconds": difference(self.imported.samples, bare),
            "import_adds_modules": modules("espresso", self.python, environment),
            "first_call_hashed_seconds": Figure.of(self.first_hashed.samples),
            "first_call_bundle_seconds": Figure.of(self.first_bundle.samples),
            "process_ratio_hashed": ratio(self.whole_hashed.samples, bare),
            "process_ratio_bundle": ratio(self.whole_bundle.samples, bare),
        }


class Cold:
    """Each build of espresso by itself, and what its samples mean."""

    title = "cold"

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        stores = stores_in(setting)
        self._libcurl = Program(LIBCURL, setting.environment, prints_seconds=True)
        self._builds = {
            said: Build(setting, python, *stores)
            for said, python in setting.builds.items()
        }

    def measure(self) -> None:
        programs = [it for build in self._builds.values() for it in build.programs()]
        measure([self._libcurl, *programs], self._setting.processes, self._setting.ours)

    def report(self) -> Report:
        figures: dict[str, object] = {
            "loading_libcurl_seconds": Figure.of(self._libcurl.samples)
        }
        lines = [
            "cold process: median [quartiles] over interleaved runs",
            *(f"  {line}" for line in cold_lines(figures)),
        ]
        bars = []
        for said, build in self._builds.items():
            found = build.figures(self._setting.environment)
            name = f"espresso{said}"
            figures[name] = found
            lines += [f"  {name}", *(f"    {line}" for line in cold_lines(found))]
            bars += bars_of_wheel(found) if said else bars_of_build(found)
        if not self._setting.wheel:
            bars += bars_of_wheel(None)
        return lines, figures, bars


def stores_in(setting: Setting) -> tuple[Path, Path]:
    """The system's roots and our authority: a hashed directory, and a bundle."""
    hashed, bundle = setting.folder / "hashed", setting.folder / "bundle.pem"
    if not bundle.exists():
        hashed_store(setting.folder, setting.server.ca_file)
        bundle_store(setting.folder, setting.server.ca_file)
    return hashed, bundle


def bars_of_build(found: dict[str, object]) -> list[Bar]:
    """Of a build on this system's libcurl, with its thirty shared libraries."""
    added, first = median(found, "import_adds"), median(found, "first_call_hashed")
    whole = median(found, "process_ratio_hashed", "")
    return [
        Bar("import espresso adds", added * 1e3, IMPORT_LIMIT, "ms"),
        Bar("import espresso adds modules", count(found), MODULES_LIMIT, ""),
        Bar("first call, hashed trust store", first * 1e3, FIRST_CALL_LIMIT, "ms"),
        Bar("start to first reply / bare", whole, PROCESS_LIMIT, "x"),
    ]


WHEEL_BARS = (
    ("import from the wheel adds", WHEEL_IMPORT_LIMIT, "ms"),
    ("import from the wheel adds modules", WHEEL_MODULES_LIMIT, ""),
    ("start to first reply, wheel, hashed roots / bare", WHEEL_PROCESS_LIMIT, "x"),
)


def bars_of_wheel(found: dict[str, object] | None) -> list[Bar]:
    """None: there is no wheel, and so nothing was measured."""
    values: list[float | None] = [None] * len(WHEEL_BARS)
    if found is not None:
        whole = median(found, "process_ratio_hashed", "")
        values = [median(found, "import_adds") * 1e3, count(found), whole]
    return [
        Bar(name, value, limit, unit)
        for (name, limit, unit), value in zip(WHEEL_BARS, values, strict=True)
    ]


def median(found: dict[str, object], name: str, unit: str = "_seconds") -> float:
    figure = found[f"{name}{unit}"]
    assert isinstance(figure, Figure)
    return figure.median


def count(found: dict[str, object]) -> int:
    names = found["import_adds_modules"]
    assert isinstance(names, list)
    return len(names)


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
