"""Fetch the source packages that ``bundled.toml`` pins, and unpack them.

``python -m scripts.wheels.sources`` fetches what ``build/sources`` lacks. It needs
apt-get, with a configuration of its own: the system's sources and lists stay as they
are. Where there is no apt-get (macOS, other distributions), put the files there.
"""

import re
import shutil
import tarfile
import tempfile
from pathlib import Path

from .common import (
    BUILD,
    Bundled,
    WheelError,
    bundled,
    extract,
    main,
    run,
    say,
    sha256,
    suites,
)

FOLDER = BUILD / "sources"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


class Apt:
    """apt-get and apt-cache over Debian's source packages, apart from the system's.

    The lists are fetched once, into ``work``, from the server that the system's own
    packages come from.
    """

    def __init__(self, work: Path) -> None:
        if shutil.which("apt-get") is None or not KEYRING.exists():
            raise WheelError(
                "the sources come from Debian, and apt-get or Debian's keyring is"
                f" missing here: put the files of bundled.toml into {FOLDER}"
            )
        self.work = work
        for folder in ("state/lists/partial", "cache/archives/partial"):
            (work / folder).mkdir(parents=True)
        self.options = [
            f"-oDir::State={work}/state",
            "-oDir::State::status=/dev/null",
            f"-oDir::Cache={work}/cache",
            "-oDir::Etc::SourceParts=/dev/null",
            f"-oDir::Etc::SourceList={work}/sources.list",
            "-oAPT::Sandbox::User=",
            "-oAcquire::Check-Valid-Until=false",  # the index may be some weeks old
            "-oAcquire::Retries=3",
        ]
        self.write_list()
        run(["apt-get", "-q", *self.options, "update"], what="apt-get update")

    def write_list(self) -> None:
        """Write the one line for each suite that apt shall look through."""
        listed = run(["apt-get", "indextargets", "--format", "$(REPO_URI)"]).split()
        servers = [uri.rstrip("/") for uri in listed if re.search("/debian/?$", uri)]
        if not servers:
            raise WheelError("no Debian server among this system's package sources")
        lines = []
        for suite in suites():
            server = servers[0] + ("-security" if suite.endswith("-security") else "")
            lines.append(f"deb-src [signed-by={KEYRING}] {server} {suite} main\n")
        (self.work / "sources.list").write_text("".join(lines), encoding="utf-8")

    def versions(self, package: str) -> list[str]:
        """Return the versions of a source package that the lists name."""
        shown = run(["apt-cache", *self.options, "showsrc", package])
        return re.findall(r"^Version: (.+)$", shown, re.MULTILINE)

    def download(self, package: str, version: str, folder: Path) -> None:
        """Download all files of a source package into ``folder``."""
        wanted = f"{package}={version}"
        run(
            ["apt-get", "-q", *self.options, "source", "--download-only", wanted],
            what=f"apt-get source {wanted}",
            cwd=folder,
        )


def wrong(library: Bundled) -> list[str]:
    """Return the files of a library that are missing or not the pinned ones."""
    return [
        name
        for name, digest in library.sha256.items()
        if not (FOLDER / name).exists() or sha256(FOLDER / name) != digest
    ]


def fetch() -> None:
    """Fetch what is missing; raise WheelError if it is not what was pinned."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    lacking = [library for library in bundled() if wrong(library)]
    if lacking:
        with tempfile.TemporaryDirectory() as work:
            apt = Apt(Path(work))
            for library in lacking:
                say(f"fetching the source of {library.name} {library.source}")
                apt.download(library.name, library.source, FOLDER)
    for library in lacking:
        for name in wrong(library):
            raise WheelError(f"{FOLDER / name} is not the file that bundled.toml pins")


def unpack(library: Bundled, folder: Path) -> Path:
    """Unpack a source package below ``folder``, apply Debian's patches, return it.

    By hand, since macOS and the images of manylinux have no dpkg-source.
    """
    tree = folder / library.name
    with tarfile.open(FOLDER / library.file(".orig.tar.gz")) as archive:
        extract(archive, folder)
        (folder / archive.getnames()[0].split("/")[0]).rename(tree)
    with tarfile.open(FOLDER / library.file(".debian.tar.xz")) as archive:
        extract(archive, tree)
    series = (tree / "debian/patches/series").read_text(encoding="utf-8")
    for line in series.splitlines():
        name = line.split("#")[0].strip()
        if name:
            patch = ["patch", "-p1", "--batch", "--forward", "--silent"]
            run([*patch, f"--input=debian/patches/{name}"], what=name, cwd=tree)
    return tree


if __name__ == "__main__":
    main(fetch)
