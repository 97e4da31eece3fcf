"""Static analysis of src/core and src/binding: gcc -fanalyzer, clang-tidy, cppcheck.

``python scripts/analyze.py`` from the root of the repository; exit status 0 only if no
tool has a word to say. Each must first find the fault of a sample that has one: a tool
that has become silent is no proof. What is asked, and what not, stands in .clang-tidy
and in TOOLS below; a single exception stands in the code, with its reason.
"""

import os
import shlex
import subprocess
import sys
import sysconfig
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

FOLDERS = ("src/core", "src/binding")
TIMEOUT = 600.0  # seconds for one file

# Found by each tool: the memory is given back twice.
SAMPLE = """
#include <stdlib.h>
int
sample(int value)
{
    int *copy = malloc(sizeof *copy);

    if (copy == NULL)
        return 0;
    *copy = value;
    value = *copy;
    free(copy);
    free(copy);
    return value;
}
"""


def compile_flags() -> list[str]:
    """What the sources are compiled with, as far as it tells them apart."""
    found = subprocess.run(
        ["pkg-config", "--cflags", "libcurl", "libcjson"],
        check=True,
        capture_output=True,
        text=True,
    )
    return [
        "-std=c11",
        "-D_GNU_SOURCE",
        '-DESPRESSO_VERSION="0"',
        "-DPy_LIMITED_API=0x030B0000",
        "-Isrc/core",
        "-isystem",
        sysconfig.get_path("include"),
        *shlex.split(found.stdout),
    ]


def gcc(path: str, flags: list[str]) -> list[str]:
    """`-O1` shows the analyzer what is inlined."""
    command = ["gcc", *flags, "-O1", "-fanalyzer", "-Wall", "-Wextra", "-Werror"]
    return [*command, "-Wno-format-truncation", "-c", "-o", "/dev/null", path]


def clang_tidy(path: str, flags: list[str]) -> list[str]:
    tool = str(Path(sys.executable).parent / "clang-tidy")
    return [tool, "--quiet", "--config-file=.clang-tidy", path, "--", *flags]


def cppcheck(path: str, flags: list[str]) -> list[str]:
    """Without its rules of style: those are clang-format's and the review's.

    It reads no system headers: what it must know of Python is in its own library.
    """
    options = ["--std=c11", "--library=python", "--library=posix", "--inline-suppr"]
    options += ["--enable=warning,performance,portability", "--error-exitcode=1"]
    kept = [flag for flag in flags if flag.startswith("-D") or flag == "-Isrc/core"]
    return ["cppcheck", "--quiet", *options, *kept, path]


TOOLS = {"gcc -fanalyzer": gcc, "clang-tidy": clang_tidy, "cppcheck": cppcheck}


def complaint(command: list[str]) -> str:
    """What a tool says; "": nothing."""
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=TIMEOUT,
    )
    return done.stdout if done.returncode != 0 else ""


def is_awake(name: str, flags: list[str], folder: Path) -> bool:
    """Whether the tool finds the fault of the sample."""
    path = folder / "sample.c"
    path.write_text(SAMPLE)
    return complaint(TOOLS[name](str(path), flags)) != ""


def main() -> int:
    flags = compile_flags()
    files = sorted(str(path) for x in FOLDERS for path in Path(x).glob("*.c"))
    failed = not files
    with (
        tempfile.TemporaryDirectory() as folder,
        ThreadPoolExecutor(os.cpu_count()) as pool,
    ):
        for name, tool in TOOLS.items():
            begun = time.monotonic()
            awake = is_awake(name, flags, Path(folder))
            commands = [tool(path, flags) for path in files]
            said = [words for words in pool.map(complaint, commands) if words]
            print("\n".join(said), end="")
            if not awake:
                print(f"{name} does not find the fault of a bad sample")
            verdict = "clean" if awake and not said else "NOT CLEAN"
            print(
                f"{name:16}{len(files):4} files {time.monotonic() - begun:7.1f} s"
                f"  {verdict}",
                flush=True,
            )
            failed = failed or bool(said) or not awake
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
