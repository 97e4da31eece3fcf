"""What the scripts for wheels share: paths, pins, and how a program is run."""

import hashlib
import os
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build"
DIST = ROOT / "dist"
PINS = Path(__file__).with_name("bundled.toml")
HALF_AN_HOUR = 1800.0  # seconds; no step takes longer on two slow cores


class WheelError(Exception):
    """A step that cannot be done here; the text is for the person at the terminal."""


@dataclass(frozen=True)
class Bundled:
    """One library inside a wheel, as ``bundled.toml`` names it."""

    name: str
    title: str
    version: str
    source: str
    follow: str
    licence: str
    licence_file: str
    home: str
    cpe: str
    refused: Mapping[str, str]
    sha256: Mapping[str, str]

    def file(self, ending: str) -> str:
        """Return the one file of the source package whose name ends so."""
        (found,) = (name for name in self.sha256 if name.endswith(ending))
        return found


def pins() -> dict[str, object]:
    """Return ``bundled.toml`` as it is."""
    return tomllib.loads(PINS.read_text(encoding="utf-8"))


def suites() -> list[str]:
    """Return the Debian suites whose source packages are looked through."""
    debian = pins()["debian"]
    assert isinstance(debian, dict)
    return [str(suite) for suite in debian["suites"]]


def bundled() -> list[Bundled]:
    """Return the libraries in a wheel, in the order they are built."""
    return [
        Bundled(name=name, **table)
        for name, table in pins().items()
        if name != "debian" and isinstance(table, dict)
    ]


def say(text: str) -> None:
    """Print one line at once."""
    print(f"espresso: {text}", flush=True)


def run(
    command: Sequence[str | Path],
    *,
    what: str = "",
    cwd: Path = ROOT,
    env: Mapping[str, str] | None = None,
    timeout: float = HALF_AN_HOUR,
) -> str:
    """Run a program without stdin and return what it prints.

    Raises WheelError with the end of its output if it fails, is not there, or takes
    longer than ``timeout`` seconds.
    """
    what = what or Path(command[0]).name
    try:
        done = subprocess.run(
            [str(word) for word in command],
            cwd=cwd,
            env=dict(env) if env is not None else None,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout,
        )
    except OSError as error:
        raise WheelError(f"{what}: {error}") from None
    except subprocess.TimeoutExpired:
        raise WheelError(f"{what} took longer than {timeout:.0f} s") from None
    text = done.stdout.decode(errors="replace")
    if done.returncode != 0:
        raise WheelError(f"{what} failed ({done.returncode}):\n{text[-6000:]}")
    return text


def extract(archive: tarfile.TarFile, folder: Path) -> None:
    """Unpack an archive, nothing of it outside of ``folder``.

    The filter came with Python 3.11.4. Debian 12 has 3.11.2: there it is trust in what
    is pinned by its checksum, or made here.
    """
    archive.extraction_filter = getattr(tarfile, "tar_filter", None)
    archive.extractall(folder)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def source_date() -> str:
    """Return the seconds since 1970 that files in an archive shall show.

    SOURCE_DATE_EPOCH if it is set, else the date of the last commit, else the
    earliest date that a zip file can hold.
    """
    named = os.environ.get("SOURCE_DATE_EPOCH")
    if named:
        return named
    try:
        return run(["git", "log", "-1", "--format=%ct"]).strip()
    except WheelError:
        return "315619200"  # 1980-01-02


def clean_environment(**more: str) -> dict[str, str]:
    """Return an environment in which two builds give the same bytes."""
    kept = ("PATH", "HOME", "TMPDIR", "PIP_CERT", "SSL_CERT_FILE", "http_proxy")
    return {
        **{name: os.environ[name] for name in kept if name in os.environ},
        "LC_ALL": "C",
        "TZ": "UTC",
        "SOURCE_DATE_EPOCH": source_date(),
        "PYTHONHASHSEED": "0",
        **more,
    }


def main(work: Callable[[], None]) -> None:
    """Run a script; a WheelError is its last line and exit status 1."""
    try:
        work()
    except WheelError as error:
        print(f"espresso: {error}", file=sys.stderr)
        sys.exit(1)
