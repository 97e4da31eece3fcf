"""Roots of other Debian releases, to try the wheels in (``build/roots``).

Each is made once by debootstrap and never changed afterwards: a test works in a copy.
They have no compiler, no libcurl and no CA certificates, but for ``bookworm``, which
has what README names for a build from source.
"""

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from .common import BUILD, WheelError, run, say
from .sources import Apt

FOLDER = BUILD / "roots"
COMPILED_PYTHON = "/opt/python/bin/python3.13"  # where a release has none that fits
SOURCE_PACKAGES = (
    "gcc",
    "pkg-config",
    "libcurl4-openssl-dev",
    "libcjson-dev",
    "python3-dev",
    "python3-venv",
)


@dataclass(frozen=True)
class Root:
    """One release: what is installed in it, and the interpreters to try there."""

    suite: str
    packages: tuple[str, ...]
    pythons: tuple[str, ...]
    architecture: str = ""
    prepare: Callable[[Path], None] = field(default=lambda folder: None)

    @property
    def name(self) -> str:
        """Return what its folder is called."""
        return "-".join(filter(None, (self.suite, self.architecture)))

    @property
    def folder(self) -> Path:
        """Return where it is."""
        return FOLDER / self.name


def server() -> str:
    """Return the server that this system's own Debian packages come from."""
    listed = run(["apt-get", "indextargets", "--format", "$(REPO_URI)"]).split()
    for uri in listed:
        if uri.rstrip("/").endswith("/debian"):
            return uri.rstrip("/")
    raise WheelError("no Debian server among this system's package sources")


def in_root(folder: Path, command: list[str], **named: str) -> str:
    """Run a command inside a root, in an environment of its own."""
    env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LC_ALL": "C"}
    return run(
        ["chroot", folder, *command],
        what=f"{command[0]} in {folder.name}",
        env={**env, **named},
    )


def compile_python(folder: Path) -> None:
    """Compile a CPython in a copy of the root, and bring the result into the root."""
    with tempfile.TemporaryDirectory(dir=FOLDER, prefix="compile-") as name:
        copy = Path(name, "root")
        run(["cp", "-a", folder, copy])
        apt = Apt(Path(name, "apt"))
        versions = apt.versions("python3.13")
        for version in sorted(versions, reverse=True):
            try:
                apt.download("python3.13", version, Path(name))
                break
            except WheelError:
                continue  # an index may name what its server has no more
        (archive,) = Path(name).glob("python3.13_*.orig.tar.xz")
        (copy / "source").mkdir()
        run(["tar", "-xf", archive, "-C", copy / "source", "--strip-components=1"])
        packages = ["gcc", "libc6-dev", "make", "zlib1g-dev"]
        install = ["apt-get", "-qq", "install", "-y", "--no-install-recommends"]
        in_root(copy, ["apt-get", "-qq", "update"])
        in_root(copy, [*install, *packages], DEBIAN_FRONTEND="noninteractive")
        steps = (
            "cd /source && ./configure --quiet --prefix=/opt/python"
            " --disable-test-modules --without-ensurepip"
            f" && make --silent -j{os.cpu_count()} && make --silent install"
        )
        in_root(copy, ["sh", "-c", steps])
        shutil.copytree(copy / "opt/python", folder / "opt/python", symlinks=True)


def unpack_all(folder: Path) -> None:
    """Unpack a foreign root's packages: it cannot configure itself here."""
    for package in sorted((folder / "var/cache/apt/archives").glob("*.deb")):
        run(["dpkg-deb", "-x", package, folder])


ROOTS = {
    root.name: root
    for root in (
        Root("bullseye", (), (COMPILED_PYTHON,), prepare=compile_python),
        Root("bookworm", SOURCE_PACKAGES, ("/usr/bin/python3",)),
        Root("trixie", ("python3",), ("/usr/bin/python3",)),
        Root("sid", ("python3",), ("/usr/bin/python3",)),
        Root("trixie", ("python3",), ("/usr/bin/python3",), "arm64", unpack_all),
    )
}


def make(root: Root) -> Path:
    """Return the folder of a root; make it if it is not there."""
    if (root.folder / ".ready").exists():
        return root.folder
    say(f"making a root of Debian {root.name} (once)")
    shutil.rmtree(root.folder, ignore_errors=True)
    root.folder.parent.mkdir(parents=True, exist_ok=True)
    command = ["debootstrap", "--variant=minbase"]
    if root.packages:
        command.append(f"--include={','.join(root.packages)}")
    if root.architecture:
        command += [f"--arch={root.architecture}", "--foreign"]
    run([*command, root.suite, root.folder, server()])
    root.prepare(root.folder)
    (root.folder / ".ready").touch()
    return root.folder
