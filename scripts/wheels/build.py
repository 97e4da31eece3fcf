"""Make the source distribution and the self-contained wheels, in ``dist/``.

``python -m scripts.wheels.build [WHEEL...]`` with Python 3.11, whose headers the
stable ABI is compiled with. Wheels are made from the source distribution, in folders
that are thrown away; `dist/` gets finished files only. Wheels:

* ``x86_64``, ``aarch64``: cp311-abi3, for every CPython from 3.11 on, glibc 2.17
* ``freethreaded``: cp313-cp313t for this processor; ``scripts/freethreaded`` brings
  its interpreter
"""

import argparse
import gzip
import io
import os
import shlex
import shutil
import sys
import sysconfig
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from . import libraries
from .common import (
    BUILD,
    DIST,
    ROOT,
    WheelError,
    clean_environment,
    extract,
    main,
    run,
    say,
)

FREETHREADED = BUILD / "python3.13t/bin/python3"
HOOK = "import sys, setuptools.build_meta as backend; print(backend.{}(sys.argv[1]))"


@dataclass(frozen=True)
class Wheel:
    """One wheel: the processor it is for and the interpreter that compiles it."""

    name: str
    target: str
    python: Path
    abi3: bool


def wheels() -> dict[str, Wheel]:
    """Return the wheels that can be made, by name."""
    here = libraries.machine("native")
    made = [Wheel(name, name, Path(sys.executable), True) for name in ("x86_64",)]
    made.append(Wheel("aarch64", "aarch64", Path(sys.executable), True))
    made.append(Wheel("freethreaded", here, FREETHREADED, False))
    return {wheel.name: wheel for wheel in made}


def tracked() -> list[str]:
    """Return the files that the repository keeps; WheelError outside of git."""
    listed = run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    )
    return [name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def copy_tree(folder: Path) -> None:
    """Copy what the repository keeps to ``folder``; a stray file cannot come along."""
    for name in tracked():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target)


def normalise(archive: Path, target: Path) -> None:
    """Write a tar.gz again, with nothing in it that depends on who made it when."""
    date = int(clean_environment()["SOURCE_DATE_EPOCH"])
    raw = io.BytesIO()
    with tarfile.open(archive) as old, tarfile.open(fileobj=raw, mode="w") as new:
        for member in sorted(old.getmembers(), key=lambda one: one.name):
            member.uid = member.gid = 0
            member.uname = member.gname = ""
            member.mtime = date
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            member.pax_headers = {}
            new.addfile(member, old.extractfile(member) if member.isfile() else None)
    with target.open("wb") as file, gzip.GzipFile("", "wb", 9, file, date) as packed:
        packed.write(raw.getvalue())


def hook(name: str, python: Path, tree: Path, out: Path, env: dict[str, str]) -> Path:
    """Run a hook of the build backend in ``tree``; return the file that it made."""
    command = [str(python), "-c", HOOK.format(name), str(out)]
    # setuptools is pure Python: an interpreter without packages can borrow it.
    env = {**env, "PYTHONPATH": sysconfig.get_path("purelib")}
    return out / run(command, what=name, cwd=tree, env=env).split()[-1]


def build_sdist(out: Path) -> Path:
    """Make the source distribution in ``out``."""
    with tempfile.TemporaryDirectory(prefix="espresso-") as name:
        tree = Path(name, "tree")
        copy_tree(tree)
        env = clean_environment()
        made = hook("build_sdist", Path(sys.executable), tree, Path(name), env)
        out.mkdir(parents=True, exist_ok=True)
        normalise(made, out / made.name)
        return out / made.name


def cross_environment(wheel: Wheel, static: Path, work: Path) -> dict[str, str]:
    """Return the environment in which setup.py compiles for ``wheel``'s target."""
    shim = work / "zig-cc"
    command = [*libraries.zig(wheel.target), f"-ffile-prefix-map={work}=."]
    shim.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
    shim.chmod(0o755)
    cache = str(BUILD / "zig-cache")
    env = clean_environment(
        CC=str(shim),
        LDSHARED=f"{shim} -shared",
        ESPRESSO_STATIC=str(static),
        ZIG_GLOBAL_CACHE_DIR=cache,
        ZIG_LOCAL_CACHE_DIR=cache,
    )
    if wheel.target != libraries.machine("native"):
        env["_PYTHON_HOST_PLATFORM"] = f"linux-{wheel.target}"
    return env


def build_wheel(wheel: Wheel, sdist: Path, out: Path) -> Path:
    """Make one wheel from the source distribution; return where it is in ``out``."""
    static = libraries.build(wheel.target)
    say(f"building the wheel {wheel.name}")
    tools = Path(sys.executable).parent
    with tempfile.TemporaryDirectory(prefix="espresso-") as name:
        work = Path(name).resolve()
        with tarfile.open(sdist) as archive:
            extract(archive, work)
        tree = work / sdist.name.removesuffix(".tar.gz")
        env = cross_environment(wheel, static, work)
        raw = hook("build_wheel", wheel.python, tree, work, env)
        env["PATH"] = f"{tools}:{env['PATH']}"  # auditwheel looks for patchelf there
        repair = ["auditwheel", "repair", "--wheel-dir", str(work / "repaired")]
        run([*repair, str(raw)], cwd=work, env=env)
        (finished,) = (work / "repaired").glob("*.whl")
        if f"manylinux2014_{wheel.target}" not in finished.name:
            raise WheelError(f"{finished.name} is not for manylinux2014 (glibc 2.17)")
        if wheel.abi3:
            run(["abi3audit", "--strict", finished], cwd=work, env=env)
        shutil.copy(finished, out / finished.name)
        return out / finished.name


def build(names: list[str], out: Path) -> list[Path]:
    """Make the source distribution and the named wheels in ``out``."""
    if sys.version_info[:2] != (3, 11):
        raise WheelError(
            "the wheels are compiled with the headers of CPython 3.11 and this is"
            f" {sys.version.split()[0]};"
            " name a 3.11, as in: make wheel PYTHON=python3.11"
        )
    sdist = build_sdist(out)
    return [sdist, *(build_wheel(wheels()[name], sdist, out) for name in names)]


def work() -> None:
    """Make what is asked for in dist/, which then holds nothing else of ours."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("wheels", nargs="*", metavar="WHEEL")
    names = parser.parse_args().wheels or list(wheels())
    unknown = set(names) - set(wheels())
    if unknown:
        raise WheelError(f"no such wheel: {', '.join(sorted(unknown))}")
    with tempfile.TemporaryDirectory(prefix="espresso-", dir=BUILD) as name:
        made = build(names, Path(name))
        DIST.mkdir(exist_ok=True)
        for old in DIST.glob("espresso_deltadefi-*"):
            old.unlink()
        for path in made:
            shutil.move(path, DIST / path.name)
            say(f"dist/{path.name}  {os.path.getsize(DIST / path.name)} bytes")


if __name__ == "__main__":
    main(work)
