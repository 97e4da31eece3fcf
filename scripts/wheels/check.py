"""Measure what the wheels promise, and fail on a promise that is not held.

``make wheel-check``, or ``python -m scripts.wheels.check PART...`` in ``.venv``:

* ``inside``  what the binaries need, export and tell; licences, list of parts, sizes
* ``speed``   import and first call in a fresh process, beside its peers (nginx)
* ``suite``   the whole pytest suite on the files that pip installed from the wheel
* ``judge``   the chaos judge on them (``CALLS`` calls)
* ``twice``   two builds from clean trees, libraries and all: the same bytes
"""

import os
import re
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.cold import bundle_store, hashed_store
from benchmarks.figures import Bar, difference, ratio
from benchmarks.program import Program
from benchmarks.server import Server, nginx

from .build import tracked
from .common import (
    BUILD,
    DIST,
    HALF_AN_HOUR,
    ROOT,
    WheelError,
    bundled,
    clean_environment,
    main,
    run,
    say,
    sha256,
)
from .places import interpreters

LIBC = {"libc.so.6", "libm.so.6", "libpthread.so.0", "libdl.so.2", "librt.so.1"}
LOADERS = {"ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"}
SIZE_LIMIT = 2.0  # MB of a wheel
BINARY_LIMIT = 5.0  # MB of its binary
BARE_LIMIT = 1.65  # times the bare interpreter, process with its first call
PEER_LIMIT = 0.5  # of the fastest peer's process
ROUNDS = 40
PEERS = ROOT / ".venv-bench/bin/python"
WHEEL = "espresso, the wheel"
SYSTEM = "espresso, on the system's libcurl"
BARE = "bare interpreter"
SUITE = BUILD / "venv-suite"
GUARD_TESTS = "tests/test_guard*.py"  # they mostly wait, so they do it side by side

BODY = 'b\'{"symbol":"ADAUSDM"}\''
HEADERS = "{'X-API-KEY': 'sandbox-bench', 'Content-Type': 'application/json'}"
# One cold call of each peer, with the quickest trust store it can be given.
CALLS = {
    "urllib": (
        "import json, ssl, urllib.request as r;"
        f"q = r.Request(URL_HERE, data={BODY}, headers={HEADERS});"
        "c = ssl.create_default_context(capath=STORE_HERE);"
        "print(json.load(r.urlopen(q, context=c)))"
    ),
    "pycurl": (
        "import io, json, pycurl; b = io.BytesIO(); c = pycurl.Curl();"
        f"h = [': '.join(p) for p in {HEADERS}.items()];"
        "c.setopt(c.URL, URL_HERE); c.setopt(c.CAPATH, STORE_HERE);"
        f"c.setopt(c.POSTFIELDS, {BODY}); c.setopt(c.HTTPHEADER, h);"
        "c.setopt(c.WRITEDATA, b); c.perform(); print(json.loads(b.getvalue()))"
    ),
    "requests": (
        "import requests;"
        f"print(requests.post(URL_HERE, data={BODY}, headers={HEADERS},"
        " verify=STORE_HERE).json())"
    ),
    "httpx": (
        "import httpx, ssl; c = ssl.create_default_context(capath=STORE_HERE);"
        f"print(httpx.post(URL_HERE, content={BODY}, headers={HEADERS},"
        " verify=c).json())"
    ),
    "curl_cffi": (
        "from curl_cffi import requests;"
        f"print(requests.post(URL_HERE, data={BODY}, headers={HEADERS},"
        " verify=BUNDLE_HERE).json())"
    ),
}
# How many files of machine code an import maps, and their bytes.
MAPPED = """
import os, sys
def mapped():
    with open("/proc/self/maps") as maps:
        return {line.split()[-1] for line in maps if ".so" in line}
BEFORE_HERE
before = mapped()
import MODULE_HERE
new = mapped() - before
print(len(new), sum(map(os.path.getsize, new)))
"""
OURS = (
    "import espresso;"
    "print(espresso.Client('sandbox-bench', base_url=BASE_HERE).cancel_all('ADAUSDM'))"
)


def held(bars: list[Bar]) -> None:
    """Print each bar; raise WheelError if one is not held."""
    for bar in bars:
        print(bar.text(), flush=True)
    if missed := [bar.name for bar in bars if not bar.held]:
        raise WheelError(f"not held: {', '.join(missed)}")


def wheels() -> list[Path]:
    """Return the finished wheels."""
    found = sorted(DIST.glob("espresso_deltadefi-*.whl"))
    if not found:
        raise WheelError("no wheel in dist/; run `make wheel`")
    return found


def wheel_for_here() -> Path:
    """Return the wheel with the stable ABI for this machine."""
    for wheel in wheels():
        if "-abi3-" in wheel.name and os.uname().machine in wheel.name:
            return wheel
    raise WheelError("no wheel for this machine in dist/; run `make wheel`")


# ---- What is inside --------------------------------------------------------------


def needed_and_exported(binary: Path) -> tuple[set[str], set[str]]:
    """Return the libraries a shared object needs and the symbols it exports."""
    dynamic = run(["readelf", "--dynamic", "--wide", binary])
    needed = re.findall(r"\(NEEDED\).*\[(.+)\]", dynamic)
    symbols = run(["readelf", "--dyn-syms", "--wide", binary])
    exported = re.findall(r"(?:GLOBAL|WEAK) +DEFAULT +\d+ (\S+)", symbols)
    return set(needed), set(exported)


def paths_in(binary: bytes) -> list[str]:
    """Return the strings of a binary that tell where it was built."""
    told = [str(ROOT), str(Path.home()) + "/", tempfile.gettempdir() + "/"]
    told += ["site-packages", "/zig/", "espresso-build"]
    strings = re.findall(rb"[\x20-\x7e]{4,}", binary)
    text = [string.decode() for string in strings]
    return [string for string in text if any(path in string for path in told)]


def papers_missing(names: list[str]) -> list[str]:
    """Return what a wheel should carry beside its code, and does not."""
    wanted = [f"licenses/licenses/{library.title}.txt" for library in bundled()]
    wanted += ["licenses/LICENSE", "sboms/espresso.cdx.json"]
    return [
        paper
        for paper in wanted
        if not any(name.endswith(f".dist-info/{paper}") for name in names)
    ]


def inside() -> None:
    """Look into each wheel."""
    bars = []
    for wheel in wheels():
        with zipfile.ZipFile(wheel) as archive:
            names = archive.namelist()
            (name,) = (one for one in names if one.endswith(".so"))
            binary = archive.read(name)
        with tempfile.NamedTemporaryFile() as file:
            file.write(binary)
            file.flush()
            needed, exported = needed_and_exported(Path(file.name))
        say(f"{wheel.name}\n    needs {', '.join(sorted(needed))}; exports {exported}")
        if needed - LIBC - LOADERS or exported != {"PyInit__core"}:
            raise WheelError(f"{name} needs or exports more than it may")
        if told := paths_in(binary):
            raise WheelError(f"{name} tells where it was built: {told[:5]}")
        if lacking := papers_missing(names):
            raise WheelError(f"{wheel.name} lacks {', '.join(lacking)}")
        bars.append(Bar("wheel", wheel.stat().st_size / 1e6, SIZE_LIMIT, "MB"))
        bars.append(Bar("its binary", len(binary) / 1e6, BINARY_LIMIT, "MB"))
    held(bars)


# ---- How quick it is ---------------------------------------------------------------


def wheel_venv(folder: Path) -> str:
    """Install the wheel for this machine into a fresh venv; return its Python."""
    run([sys.executable, "-m", "venv", folder])
    python = f"{folder}/bin/python"
    run([python, "-m", "pip", "install", "--quiet", "--no-index", wheel_for_here()])
    return python


def timed_import(module: str, before: str = "") -> str:
    """Return a program that prints the seconds an import takes."""
    start = f"import time; {before}start = time.perf_counter();"
    return f"{start} import {module}; print(time.perf_counter() - start)"


@dataclass(frozen=True)
class Imported:
    """An import in a fresh process of one Python."""

    python: str
    module: str
    timed: Program
    before: str = ""

    @classmethod
    def of(
        cls, python: str, module: str, env: dict[str, str], before: str = ""
    ) -> "Imported":
        timed = Program(timed_import(module, before), env, prints_seconds=True)
        return cls(python, module, timed, before)

    def code(self) -> tuple[int, float]:
        """Return how many files of machine code it maps, and their MB."""
        program = MAPPED.replace("MODULE_HERE", self.module)
        program = program.replace("BEFORE_HERE", self.before)
        told = Program(program, self.timed.environment).run(self.python).split()
        return int(told[0]), int(told[1]) / 1e6


def imports_of(ours: str, env: dict[str, str]) -> dict[str, Imported]:
    """Return the imports to measure, by name."""
    path = f"import sys; sys.path.insert(0, {str(ROOT)!r}); "
    return {
        WHEEL: Imported.of(ours, "espresso", env),
        SYSTEM: Imported.of(str(PEERS), "espresso", env, path),
        **{name: Imported.of(str(PEERS), module_of(name), env) for name in CALLS},
    }


def calls_of(
    server: Server, folder: Path, ours: str, env: dict[str, str]
) -> dict[str, tuple[str, Program]]:
    """Return the whole processes to measure: name to (python, program)."""
    bundle = str(bundle_store(folder, server.ca_file))
    url = f"{server.base_url}/order/cancel-all"
    words = {"URL": url, "STORE": env["SSL_CERT_DIR"], "BUNDLE": bundle}
    ours_there = OURS.replace("BASE_HERE", repr(server.base_url))
    calls = {
        BARE: (ours, Program("pass", env)),
        WHEEL: (ours, Program(ours_there, env)),
    }
    for name, code in CALLS.items():
        for word, value in words.items():
            code = code.replace(word + "_HERE", repr(value))
        calls[name] = (str(PEERS), Program(code, env))
    return calls


def module_of(peer: str) -> str:
    """Return what a peer's user imports."""
    return {"urllib": "urllib.request", "curl_cffi": "curl_cffi.requests"}.get(
        peer, peer
    )


def interleave(measured: dict[str, tuple[str, Program]], rounds: int) -> None:
    """Run all of them in turn, so that what slows the machine slows them all."""
    for turn in range(rounds + 1):
        for name, (python, program) in measured.items():
            told = program.run(python)
            if turn == 0:  # byte code and disk are warm from the second turn on
                program.samples.clear()
                if "espresso" in name and not program.prints_seconds:
                    assert "order_ids" in told, told


def speed() -> None:
    """Measure imports and first calls side by side."""
    run(["scripts/bootstrap", "bench"])
    run(["scripts/venv", ".venv-bench", "benchmarks/requirements.txt"])
    with tempfile.TemporaryDirectory(prefix="espresso-") as name:
        (Path(name) / "nginx").mkdir()
        ours = wheel_venv(Path(name, "venv"))
        with nginx(Path(name, "nginx")) as server:
            store = str(hashed_store(Path(name), server.ca_file))
            env = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}
            env["SSL_CERT_DIR"] = store
            imports = imports_of(ours, env)
            calls = calls_of(server, Path(name), ours, env)
            timed = {name: (one.python, one.timed) for name, one in imports.items()}
            interleave(timed, ROUNDS)
            interleave(calls, ROUNDS)
            bars = [*report_imports(imports), *report_calls(calls)]
    held(bars)


def report_imports(imports: dict[str, Imported]) -> list[Bar]:
    """Print the table of imports; return their bar."""
    print("import in a fresh process: ms, median [quartiles], times ours; machine code")
    ours = imports[WHEEL].timed.samples
    for name, one in imports.items():
        samples = one.timed.samples
        figure = difference(samples, [0.0] * len(samples)).text(1e3, 2)
        files, size = one.code()
        times = ratio(samples, ours).median
        print(f"  {name:36}{figure:>24}  x {times:<5.1f}{files:4} files {size:6.1f} MB")
    share = ratio(ours, imports[SYSTEM].timed.samples).median
    return [Bar("import, of that on the system's libcurl", share, 1.0, "x")]


def report_calls(calls: dict[str, tuple[str, Program]]) -> list[Bar]:
    """Print the table of whole processes; return their bars."""
    bare = calls[BARE][1].samples
    ours = calls[WHEEL][1].samples
    print("process with its first call over TLS, ms, and times the bare interpreter")
    for name, (_, program) in calls.items():
        figure = difference(program.samples, [0.0] * len(program.samples))
        times = ratio(program.samples, bare)
        print(f"  {name:36}{figure.text(1e3, 1):>24}  x {times.median:.2f}")
    bars = [
        Bar("process with the first call", ratio(ours, bare).median, BARE_LIMIT, "x")
    ]
    for name in CALLS:
        share = ratio(ours, calls[name][1].samples).median
        bars.append(Bar(f"of the process with {name}", share, PEER_LIMIT, "x"))
    return bars


# ---- Whether it is right -------------------------------------------------------------


def brought(wheel: Path) -> set[str]:
    """Return what a wheel puts into site-packages: its package and its pytest plugin.

    Its papers (``.dist-info``) are left out.
    """
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.split("/")[0] for name in archive.namelist()}
    return {name for name in tops if not name.endswith(".dist-info")}


def link_installed(folder: Path, installed: Path, names: set[str]) -> None:
    """Copy the repository to ``folder``, but for what is installed: that is linked.

    pytest puts the folder first on sys.path, so a copy would hide what pip installed.
    """
    for name in tracked():
        if name.split("/")[0] not in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    for name in names:
        (folder / name).symlink_to(installed / name)


def installed_tree(folder: Path) -> tuple[Path, str]:
    """Make a tree of the repository in which ``espresso`` is what pip installed.

    Returns the tree and a Python that has the wheel and what the tests need.
    """
    run(["scripts/venv", SUITE, "requirements-dev.txt"])
    python = SUITE / "bin/python"
    wheel = wheel_for_here()
    options = ["--quiet", "--no-index", "--no-deps", "--force-reinstall"]
    run([python, "-m", "pip", "install", *options, wheel])
    asked = "import sysconfig; print(sysconfig.get_path('platlib'))"
    installed = Path(run([python, "-I", "-c", asked]).strip())
    link_installed(folder, installed, brought(wheel))
    run(["scripts/bootstrap", "servers"])
    (folder / "build").mkdir()
    for name in ("nginx", "haproxy"):
        if (BUILD / name).exists():
            (folder / "build" / name).symlink_to(BUILD / name)
    return folder, str(python)


def pytest_runs() -> list[list[str]]:
    """Return the arguments of each run of pytest, as `make test` has them.

    ``TESTS`` names files instead.
    """
    if named := os.environ.get("TESTS", "").split():
        return [named]
    guard = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob(GUARD_TESTS))
    side_by_side = ["--dist", "loadfile"]
    return [
        ["--quiet", "--numprocesses", "6", *side_by_side, *guard],
        ["-m", "alone and not long"],
        [
            *("--numprocesses", "3", *side_by_side, "-m", "not alone and not long"),
            f"--ignore-glob={GUARD_TESTS}",
        ],
    ]


def told_of(text: str) -> list[str]:
    """Return the lines of pytest's output that tell what was skipped, or failed."""
    lines = text.splitlines()
    starts = ("SKIPPED", "FAILED", "ERROR")
    return [*(line for line in lines if line.startswith(starts)), lines[-1]]


def suite() -> None:
    """Run the whole pytest suite on the installed wheel; print what was skipped.

    Each CPython of this machine is on PATH, for the tests that start some of them.
    """
    folders = [str(python.parent) for python in interpreters()]
    path = os.pathsep.join([os.environ["PATH"], *folders])
    failed = []
    with tempfile.TemporaryDirectory(prefix="espresso-") as name:
        tree, python = installed_tree(Path(name, "tree"))
        env = {**os.environ, "ESPRESSO_WERROR": "1", "PATH": path}
        for arguments in pytest_runs():
            command = [python, "-m", "pytest", *arguments]
            try:
                text = run(command, cwd=tree, env=env, timeout=2 * HALF_AN_HOUR)
            except WheelError as error:  # the other runs tell of other tests
                text = str(error)
                failed.append(text)
            print("\n".join(told_of(text)), flush=True)
    if failed:
        raise WheelError("\n\n".join(failed))


def judge() -> None:
    """Let the chaos judge watch the installed wheel."""
    calls = os.environ.get("CALLS", "20000")
    with tempfile.TemporaryDirectory(prefix="espresso-") as name:
        tree, python = installed_tree(Path(name, "tree"))
        print(run([python, "-m", "tests.chaos", "--calls", calls], cwd=tree))


def twice() -> None:
    """Build everything two times, from clean trees in folders of different names."""
    if run(["git", "status", "--porcelain"]).strip():
        raise WheelError("clean trees are clones: commit first")
    commit = run(["git", "rev-parse", "HEAD"]).strip()
    env = clean_environment()  # of this commit, whatever follows it meanwhile
    found = []
    for turn in ("first", "the-second"):
        with tempfile.TemporaryDirectory(prefix=f"espresso-{turn}-") as name:
            run(["git", "clone", "--quiet", "--no-checkout", ROOT, f"{name}/tree"])
            run(["git", "-C", f"{name}/tree", "checkout", "--quiet", commit])
            sources = Path(name, "tree/build/sources")
            shutil.copytree(BUILD / "sources", sources)
            python = str(ROOT / ".venv-wheel/bin/python")
            build = [python, "-m", "scripts.wheels.build", "x86_64"]
            run(build, cwd=Path(name, "tree"), env=env)
            made = sorted(Path(name, "tree/dist").iterdir())
            found.append({path.name: sha256(path) for path in made})
            say(f"{turn}: {found[-1]}")
    if found[0] != found[1]:
        raise WheelError("two builds of one commit differ")


PARTS: dict[str, Callable[[], None]] = {
    "inside": inside,
    "speed": speed,
    "suite": suite,
    "judge": judge,
    "twice": twice,
}


def work() -> None:
    """Run the named parts, or all."""
    for part in sys.argv[1:] or PARTS:
        if part not in PARTS:
            raise WheelError(f"no part {part}; there are {', '.join(PARTS)}")
        say(f"checking the wheels: {part}")
        PARTS[part]()


if __name__ == "__main__":
    main(work)
