"""The fuzz targets without a fuzzer: kept files and seeds pass, a broken core does not.

`make fuzz` needs clang; here the same targets are linked with tests/fuzz/replay.c by
the compiler of the C tests, under the address and undefined-behaviour sanitizers.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fuzz import __main__ as fuzz
from tests.fuzz import differential, seeds

ROOT = Path(__file__).resolve().parent.parent
PLAYERS = ROOT / "build/fuzz/gcc"
KEPT = ROOT / "tests/fuzz/regressions"
TIMEOUT = 300  # seconds, for what takes a few
HELPERS = ("replay", "fuzz", "shape", "answer", "contract")
CHECKS = ["-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
DEFINES = ["-std=c11", "-D_GNU_SOURCE", '-DESPRESSO_VERSION="0"', "-w", "-pthread"]


def replay(program: Path, files: list[Path]) -> subprocess.CompletedProcess[str]:
    """Run a target on files; its output is in one piece."""
    return subprocess.run(
        [program, *files],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=TIMEOUT,
        env=os.environ | {"ASAN_OPTIONS": "detect_leaks=1"},
    )


@pytest.fixture(scope="session", autouse=True)
def _players() -> None:
    """Build them, where pytest was not started by `make test`."""
    command = ["make", "--no-print-directory", "-s", "fuzz-replay"]
    subprocess.run(command, cwd=ROOT, check=True, timeout=TIMEOUT)


@pytest.mark.parametrize("target", seeds.TARGETS)
def test_kept_files_and_seeds_pass(target: str, tmp_path: Path) -> None:
    kept = sorted((KEPT / target).iterdir())
    assert kept, "a target without a kept file"
    done = replay(PLAYERS / target, kept + seeds.write(target, tmp_path))
    assert done.returncode == 0, done.stdout
    assert done.stdout.endswith(
        f"{len(kept) + len(seeds.seeds(target))} files, no finding\n"
    )


def test_every_kept_file_belongs_to_a_target() -> None:
    assert {path.name for path in KEPT.iterdir()} == set(seeds.TARGETS)
    assert set(fuzz.SHARES) == {*seeds.TARGETS, "json"}


# ---- a broken core is noticed --------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Break:
    """One line of the core that is exchanged, and the target that must see it."""

    target: str
    file: str
    old: str
    new: str


BREAKS = {
    "an id that is no string": Break(
        "reply", "reply.c", "if (!cJSON_IsString(item))", "if (false)"
    ),
    "a NUL in a name": Break(
        "reply",
        "json.c",
        "!scan_hex4(scan, &value) || value == 0",
        "!scan_hex4(scan, &value)",
    ),
    "one byte beyond the end": Break(
        "reply",
        "json.c",
        "    if (scan->at == scan->end)\n        return false;\n    if (scan_byte(",
        "    if (scan_byte(",
    ),
    "a code that is not certain": Break(
        "reply", "codes.def", "ESP_CODE(5000, UNKNOWN,", "ESP_CODE(5000, REJECTED,"
    ),
    "a line end in a key": Break(
        "arguments", "check.c", "key[i] < '\\x21' ||", "key[i] < '\\x0a' ||"
    ),
    "http to another machine": Break(
        "arguments", "check.c", "scheme[4] == '\\0' && !url->loopback", "false"
    ),
    "one attempt too many": Break(
        "policy",
        "policy.c",
        "policy->attempts >= policy->attempts_max",
        "policy->attempts > policy->attempts_max",
    ),
    "a wait beyond the deadline": Break(
        "policy", "policy.c", "policy->remaining_ms - delay <", "policy->remaining_ms <"
    ),
    "a lost reply forgotten": Break(
        "press", "attempt.c", "call->reply_lost = true;", "call->reply_lost = false;"
    ),
    "one attempt too many of a press": Break(
        "press",
        "attempt.c",
        "press->cancel.max_retries + 1,",
        "press->cancel.max_retries + 2,",
    ),
    "eleven requests at once": Break(
        "press", "attempt.c", "now + ESP_RATE_WINDOW_MS\n", "now\n"
    ),
    "an answer of before": Break(
        "wire",
        "callbacks.c",
        "poll(polled, (nfds_t)lane->socket_count, 0) != 0",
        "false",
    ),
    "http in small letters": Break(
        "wire",
        "callbacks.c",
        'strncasecmp(line, "HTTP/", 5)',
        'memcmp(line, "HTTP/", 5)',
    ),
}


def flags(package: str) -> list[str]:
    done = subprocess.run(
        ["pkg-config", "--cflags", "--libs", *package.split()],
        check=True,
        capture_output=True,
        text=True,
    )
    return shlex.split(done.stdout)


def build_broken(broken: Break, folder: Path) -> Path:
    """Link the target with the one file that is broken, the rest as it is."""
    source = (ROOT / "src/core" / broken.file).read_text()
    assert source.count(broken.old) == 1, "the line is not there (any more)"
    (folder / broken.file).write_text(source.replace(broken.old, broken.new))
    program = folder / broken.target
    # A table is compiled by the file that includes it; a target may be that file.
    compiled = [folder / broken.file] if broken.file != "codes.def" else []
    if broken.file == "codes.def":
        (folder / "codes.c").write_text((ROOT / "src/core/codes.c").read_text())
        compiled = [folder / "codes.c"]
    command = [os.environ.get("CC", "cc"), *CHECKS, *DEFINES]
    command += [f"-I{folder}", f"-I{ROOT}/src/core", f"-I{ROOT}/tests/fuzz"]
    command += ["-o", str(program), f"{PLAYERS}/{broken.target}.o", *map(str, compiled)]
    command += [f"{PLAYERS}/{name}.o" for name in HELPERS]
    command += [f"{PLAYERS}/core.a", *flags("libcurl libcjson"), "-lm", "-ldl"]
    subprocess.run(command, check=True, timeout=TIMEOUT)
    return program


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_core_is_noticed(name: str, tmp_path: Path) -> None:
    broken = BREAKS[name]
    program = build_broken(broken, tmp_path)
    kept = sorted((KEPT / broken.target).iterdir())
    done = replay(program, kept + seeds.write(broken.target, tmp_path / "seeds"))
    assert done.returncode != 0
    assert "does not hold" in done.stdout or "ERROR: AddressSanitizer" in done.stdout


def test_a_file_that_is_not_there_is_no_success(tmp_path: Path) -> None:
    assert replay(PLAYERS / "policy", [tmp_path / "none"]).returncode == 2
    assert replay(PLAYERS / "policy", []).returncode == 2


# ---- the differential ----------------------------------------------------------------


def test_the_core_reads_json_as_python_does() -> None:
    with differential.Core(PLAYERS / "dump") as core:
        result = differential.compare(core, seed=1, runs=20_000, seconds=None)
    assert result.finding is None
    assert result.runs == 20_000
    assert 2_000 < result.accepted < 18_000  # both sides of the line were met


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"[1]", "refused"),  # too strict
        (b"[01]", "[d3ff0000000000000]"),  # too lax
        (b"[1]", "[d4000000000000000]"),  # another number
        (b'["\\u0000"]', "[s00;]"),  # a rule of our own
        (b'{"a":1,"a":2}', "{s61;d3ff0000000000000s61;d4000000000000000}"),
        (b"[9007199254740993]", "[d4340000000000000]"),  # not marked
        (b"[1]", "![d3ff0000000000000]"),  # marked for nothing
        (b"[" * 33 + b"]" * 33, "[" * 33 + "]" * 33),
    ],
)
def test_the_differential_speaks(text: bytes, said: str) -> None:
    assert differential.complaint(text, said) is not None


def test_a_core_that_ends_is_a_finding() -> None:
    with (
        differential.Core(Path("/bin/true")) as core,
        pytest.raises(RuntimeError, match="ended"),
    ):
        core.ask([b"[]"])


# ---- the run of all ------------------------------------------------------------------


def row(target: str, runs: int, *findings: str) -> fuzz.Row:
    return fuzz.Row(target, runs, 2.0, list(findings))


def test_table() -> None:
    text = fuzz.table([row("reply", 3000), row("wire", 10, "build/x")])
    assert [line.split() for line in text.splitlines()] == [
        ["target", "runs", "seconds", "runs/s", "findings"],
        ["reply", "3,000", "2.0", "1,500", "0"],
        ["wire", "10", "2.0", "5", "1"],
        ["all", "3,010", "4.0", "752", "1"],
    ]


def test_faults() -> None:
    assert fuzz.faults([row("reply", 10)], None) == []
    assert fuzz.faults([row("reply", 10)], 10) == []
    assert fuzz.faults([row("reply", 9)], 10) != []
    assert fuzz.faults([row("reply", 0)], None) != []
    assert fuzz.faults([row("reply", 10, "build/x")], None) != []


def test_shares_make_a_whole() -> None:
    for kind in range(2):
        assert sum(share[kind] for share in fuzz.SHARES.values()) == pytest.approx(1)
    plans = [fuzz.budget(target, None, 5_000_000, False) for target in fuzz.SHARES]
    assert sum(plan.runs or 0 for plan in plans) == 5_000_000


@pytest.mark.parametrize("words", ["--seconds 1 --runs 1", "--runs -1", "--target x"])
def test_usage(words: str) -> None:
    command = [sys.executable, "-m", "tests.fuzz", *words.split()]
    assert subprocess.run(command, cwd=ROOT, capture_output=True).returncode == 2
