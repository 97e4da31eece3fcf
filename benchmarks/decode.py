"""Bytes of a reply to Python objects, against `json.loads` of the same bytes.

A call does more than that, and a reply of ten thousand ids takes so long on its way
that the difference of two calls says nothing of their decoding. So the decoder is taken
out: ``decode.c`` is compiled into a copy of the extension, by the product's setup.py.
"""

import importlib.machinery
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.figures import Bar, Figure, Report, ratio
from benchmarks.setting import HERE, Setting

ROOT = HERE.parent
LIMITS = {2: 0.6, 100: 2.0, 10_000: 4.5}  # times json.loads, by the number of ids
REPEATS = {2: 2000, 100: 200, 10_000: 5}  # in a sample
SYMBOL = "ADAUSDM"
COPIED = ("pyproject.toml", "setup.py", "README.md", "LICENSE", "espresso")
EXPORTS = "{ global: PyInit__core; PyInit__decode; local: *; };\n"


def link(target: Path, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def built(python: str, static: Path | None) -> Path:
    """Build the copy where its files are not newer; return its path.

    The tree of the copy are links, but for the list of what is exported.
    """
    tree = ROOT / "build" / ("bench-static" if static else "bench")
    for old in tree.glob("src/*/*"):
        old.unlink()
    for name in COPIED:
        link(ROOT / name, tree / name)
    for source in ROOT.glob("src/*/*.*"):
        link(source, tree / source.relative_to(ROOT))
    link(HERE / "decode.c", tree / "src/binding/decode.c")
    exports = tree / "scripts/exports.map"
    exports.parent.mkdir(exist_ok=True)
    if not exports.exists():
        exports.write_text(EXPORTS)
    folder = tree / "out"
    command = [python, "setup.py", "--quiet", "build_ext"]
    command += ["--build-lib", str(folder), "--build-temp", str(tree / "temp")]
    given = {**os.environ, **({"ESPRESSO_STATIC": str(static)} if static else {})}
    subprocess.run(command, cwd=tree, env=given, check=True)
    (path,) = folder.glob("espresso/_core*.so")
    return path


def loaded(name: str, path: str) -> Any:
    """Import a module from a file that has more than one."""
    loader = importlib.machinery.ExtensionFileLoader(name, path)
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def body(ids: int) -> bytes:
    """A reply as the exchange writes it: UUIDs, no white space."""
    names = [f"550e8400-e29b-41d4-a716-{number:012x}" for number in range(ids)]
    reply = {"symbol": SYMBOL, "order_ids": names}
    return json.dumps(reply, separators=(",", ":")).encode()


def decoder(path: str) -> Callable[[bytes], object]:
    core = loaded("_core", path)
    decode = loaded("_decode", path).decode
    return lambda data: decode(core, SYMBOL, data)


def seconds(decode: Callable[[bytes], object], data: bytes, repeats: int) -> float:
    """CPU seconds of one: it waits for nothing, and others do not count."""
    start = time.process_time()
    for _ in range(repeats):
        decode(data)
    return (time.process_time() - start) / repeats


def play(path: str, rounds: int) -> None:
    """Print the samples of each number of ids: ours, then json.loads'."""
    ours = decoder(path)
    samples: dict[int, tuple[list[float], list[float]]] = {}
    for ids, repeats in REPEATS.items():
        data = body(ids)
        if ours(data) != json.loads(data):
            raise SystemExit("the decoder and json.loads do not agree")
        samples[ids] = ([], [])
        for number in range(rounds):
            for which in (0, 1) if number % 2 else (1, 0):
                taken = seconds((ours, json.loads)[which], data, repeats)
                samples[ids][which].append(taken)
    print(json.dumps(samples))


class Decode:
    """The samples of the decoder, and what they mean."""

    title = "decode"

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._kinds: dict[str, Path | None] = {"": None}
        if setting.static:
            self._kinds[", wheel's libraries"] = setting.static
        self._samples: dict[str, dict[str, tuple[list[float], list[float]]]] = {}

    def measure(self) -> None:
        for said, static in self._kinds.items():
            path = built(self._setting.ours, static)
            command = [self._setting.ours, "-m", "benchmarks.decode", str(path)]
            done = subprocess.run(
                [*command, str(self._setting.rounds)],
                env=self._setting.environment,
                cwd=ROOT,
                text=True,
                stdout=subprocess.PIPE,
                check=True,
            )
            self._samples[said] = json.loads(done.stdout)

    def report(self) -> Report:
        lines = [
            "decode of a reply: median [quartiles]",
            f"  {'':36}{'µs':>24}{'json.loads, µs':>24}{'ratio':>20}",
        ]
        figures: dict[str, object] = {}
        bars = []
        for said, found in self._samples.items():
            for ids, (ours, plain) in found.items():
                title = f"decode of {int(ids):,} ids{said}"
                share = ratio(ours, plain)
                figures[title] = {
                    "seconds": Figure.of(ours),
                    "json_loads_seconds": Figure.of(plain),
                    "ratio": share,
                }
                lines.append(
                    f"  {title:36}{Figure.of(ours).text(1e6, 1):>24}"
                    f"{Figure.of(plain).text(1e6, 1):>24}{share.text(1, 2):>20}"
                )
                limit = LIMITS[int(ids)]
                bars.append(Bar(f"{title} / json.loads", share.median, limit, "x"))
        return lines, figures, bars


if __name__ == "__main__":
    play(sys.argv[1], int(sys.argv[2]))
