"""Try the finished wheels where their users are: ``make wheel-test``.

Each place presses the button against a TLS sandbox on this machine, with nothing
installed but the wheel: every CPython found here, roots of other Debian releases
without compiler, libcurl or CA certificates, and aarch64 under qemu. In one of the
roots the trust store is moved to where other distributions have it; in another one
the source distribution is built, and refused for each package that is missing.

Run by the Python of ``.venv``, which has the sandbox.
"""

import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import trustme

from espresso.sandbox import Exchange

from . import roots
from .build import FREETHREADED
from .common import DIST, ROOT, WheelError, bundled, main, run, say

SYMBOL = "ADAUSDM"
ORDERS = 3
SDIST_LIMIT = 30.0  # seconds for `pip install` of the sdist, its promise
PRESS = """
import json, platform, sys
import espresso
try:
    said = espresso.cancel_all("ADAUSDM")
except espresso.EspressoError as error:
    said = {"error": type(error).__name__, "text": str(error)}
gil = getattr(sys, "_is_gil_enabled", lambda: True)()
print(json.dumps({"said": said, "versions": espresso.__versions__, "gil": gil,
                  "where": espresso.__file__,
                  "python": platform.python_version(), "machine": platform.machine(),
                  "libc": " ".join(platform.libc_ver())}))
"""

# Where distributions keep the roots: a directory of hashed names, or one bundle.
HASHED = {
    "Debian, Ubuntu, Arch, SUSE, Alpine": "/etc/ssl/certs",
    "Fedora, hashed": "/etc/pki/ca-trust/extracted/pem/directory-hash",
    "Fedora, by hand": "/etc/pki/tls/certs",
}
BUNDLES = {
    "Debian, Ubuntu, Arch, Alpine": "/etc/ssl/certs/ca-certificates.crt",
    "Fedora": "/etc/pki/tls/certs/ca-bundle.crt",
    "Fedora, its source": "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "SUSE": "/etc/ssl/ca-bundle.pem",
    "Alpine, macOS": "/etc/ssl/cert.pem",
    "FreeBSD": "/usr/local/share/certs/ca-root-nss.crt",
}


@dataclass(frozen=True)
class Place:
    """Somewhere a program can be run: what comes before its arguments."""

    name: str
    command: tuple[str, ...]
    path: str = ""  # PYTHONPATH there
    root: Path | None = None

    def run(self, program: str, **named: str) -> str:
        """Run a Python program there, in an environment of its own."""
        env = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "HOME": "/nowhere", **named}
        if self.path:
            env["PYTHONPATH"] = self.path
        return run(
            [*self.command, "-c", program], what=self.name, cwd=Path("/"), env=env
        )

    def press(self, exchange: Exchange, **named: str) -> dict[str, object]:
        """Press the button there; return what it said."""
        there = {"DELTADEFI_API_KEY": exchange.key, "DELTADEFI_BASE_URL": exchange.url}
        text = self.run(PRESS, **there, **named)
        said: dict[str, object] = json.loads(text.splitlines()[-1])
        return said


def must(condition: object, text: str) -> None:
    """Raise WheelError with ``text`` unless the condition holds."""
    if not condition:
        raise WheelError(text)


# ---- Places -------------------------------------------------------------------


def interpreters() -> list[Path]:
    """Return every CPython from 3.11 on that is found on this machine."""
    folders = [Path(name) for name in os.environ["PATH"].split(":")]
    folders = [folder for folder in folders if folder.name != "shims"]
    folders += sorted(Path.home().glob(".*/versions/*/bin"))  # of version managers
    found = {
        path.resolve(): None
        for folder in folders
        for path in sorted(folder.glob("python3.*"))
        if re.fullmatch(r"python3\.(1[1-9]|[2-9][0-9])t?", path.name)
    }
    return [path for path in found if starts(path)]


def starts(python: Path) -> bool:
    """Tell whether a program is an interpreter, not a signpost to one."""
    try:
        run([python, "-c", ""])
    except WheelError:
        return False
    return True


@contextmanager
def venv_of(python: Path, *options: str) -> Iterator[Place]:
    """Install the wheel into a fresh venv, as a user does."""
    with tempfile.TemporaryDirectory(prefix="espresso-") as name:
        run([python, "-m", "venv", name])
        pip = [f"{name}/bin/python", "-m", "pip", "install", "--quiet", "--no-index"]
        only = ["--only-binary=:all:", "--find-links", str(DIST)]
        run([*pip, *only, *options, "espresso-deltadefi"])
        yield Place(f"venv of {python}", (f"{name}/bin/python", "-I"))


@contextmanager
def copy_of(root: roots.Root) -> Iterator[Path]:
    """Copy a root, to do with as one likes."""
    folder = roots.make(root)
    with tempfile.TemporaryDirectory(prefix="copy-", dir=roots.FOLDER) as name:
        run(["cp", "-a", "--reflink=auto", folder, f"{name}/root"])
        yield Path(name, "root")


def root_python(root: roots.Root, copy: Path, python: str) -> tuple[str, ...]:
    """Return the command that starts a Python inside a copied root."""
    enter = (shutil.which("chroot") or "chroot", str(copy))
    if not root.architecture:
        return (*enter, python)
    emulator = "qemu-aarch64-static"
    shutil.copy(shutil.which(emulator) or emulator, copy)
    return (*enter, f"/{emulator}", python)


def install_into(copy: Path, version: str, machine: str) -> None:
    """Unpack the wheel that pip chooses for a Python elsewhere into /opt/espresso."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    choice = [
        "--only-binary=:all:",
        f"--python-version={version}",
        "--implementation=cp",
    ]
    choice += ["--abi=abi3", f"--platform=manylinux2014_{machine}"]
    where = ["--find-links", str(DIST), "--target", str(copy / "opt/espresso")]
    run([*pip, *choice, *where, "espresso-deltadefi"])


@contextmanager
def place_in(root: roots.Root) -> Iterator[list[Place]]:
    """Install the wheel into a copy of a root; yield its interpreters."""
    with copy_of(root) as copy:
        places = []
        for python in root.pythons:
            command = root_python(root, copy, python)
            asked = "import platform; print(platform.python_version())"
            version = Place(root.name, command).run(asked).strip()
            machine = "aarch64" if root.architecture else "x86_64"
            install_into(copy, version, machine)
            places.append(Place(f"Debian {root.name}", command, "/opt/espresso", copy))
        yield places


# ---- What is tried in each ------------------------------------------------------


def expected_versions() -> dict[str, str]:
    """Return what ``__versions__`` must say of the bundled libraries."""
    pinned = {library.name: library.version for library in bundled()}
    return {
        "libcurl": pinned["curl"],
        "tls": f"OpenSSL/{pinned['openssl']}",
        "cjson": pinned["cjson"],
    }


def try_place(place: Place, exchange: Exchange, ca_file: str) -> None:
    """Press with the right roots, and with none: a dict, then a refusal."""
    exchange.place(SYMBOL, ORDERS)
    told = place.press(exchange, SSL_CERT_FILE=ca_file)
    said, versions = told["said"], told["versions"]
    must(isinstance(said, dict) and isinstance(versions, dict), f"{place.name}: {told}")
    assert isinstance(said, dict) and isinstance(versions, dict)
    must(len(said.get("order_ids", [])) == ORDERS, f"{place.name}: {said}")
    must(not exchange.open_orders(SYMBOL), f"{place.name}: orders are still open")
    for name, version in expected_versions().items():
        must(versions[name] == version, f"{place.name}: {versions}")
    must(str(ROOT) + "/espresso" not in str(told["where"]), f"{place.name}: the source")
    refused = place.press(exchange, SSL_CERT_FILE="/nowhere/roots.pem")["said"]
    assert isinstance(refused, dict)
    must(refused.get("error") == "CertificateError", f"{place.name}: {refused}")
    gil = "" if told["gil"] else ", no GIL"
    say(
        f"  {place.name}: CPython {told['python']}{gil}, {told['libc']},"
        f" {told['machine']}: {ORDERS} orders cancelled"
    )


def try_interpreters(exchange: Exchange) -> None:
    """Each CPython of this machine, in a venv."""
    found = interpreters()
    if FREETHREADED.exists():
        found.append(FREETHREADED)
    for python in found:
        with venv_of(python) as place:
            try_place(place, exchange, exchange.ca_file)
            if python == FREETHREADED:
                must(not place.press(exchange)["gil"], "the import switched the GIL on")


def try_roots(exchange: Exchange) -> None:
    """Each root; those for tests alone have neither compiler nor libcurl nor roots."""
    for root in roots.ROOTS.values():
        with place_in(root) as places:
            for place in places:
                assert place.root is not None
                shutil.copy(exchange.ca_file, place.root / "ca.pem")
                try_place(place, exchange, "/ca.pem")
                if root.name == "trixie":
                    must_be_bare(place.root)


def must_be_bare(copy: Path) -> None:
    """Raise WheelError if the root could hide that the wheel needs something."""
    for pattern in ("usr/bin/*gcc*", "usr/lib/*/libcurl*", "etc/ssl/certs/*"):
        must(not list(copy.glob(pattern)), f"the bare root has {pattern}")


# ---- The trust store --------------------------------------------------------------


def hashed_name(pem: Path) -> str:
    """Return the name that OpenSSL looks a certificate up by, in a directory."""
    shown = run(["openssl", "x509", "-noout", "-hash", "-in", str(pem)])
    return f"{shown.strip()}.0"


class Store:
    """The roots of one chroot, to be moved about."""

    def __init__(self, root: Path, right: Path, wrong: Path) -> None:
        self.root = root
        self.pems = {"right": right, "wrong": wrong}

    def clear(self) -> None:
        """Remove every store that a test has made."""
        for path in ("etc/ssl", "etc/pki", "usr/local/share/certs"):
            shutil.rmtree(self.root / path, ignore_errors=True)

    def put_bundle(self, path: str, which: str) -> None:
        """Make a bundle of one root."""
        target = self.root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.pems[which], target)

    def put_hashed(self, path: str, which: str) -> None:
        """Put one root into a directory, under its hashed name."""
        self.put_bundle(f"{path}/{hashed_name(self.pems[which])}", which)


def try_store(exchange: Exchange) -> None:
    """Move the trust store to where each distribution has it, in a bare root."""
    with (
        place_in(roots.ROOTS["trixie"]) as (place,),
        tempfile.TemporaryDirectory() as t,
    ):
        assert place.root is not None
        wrong = Path(t, "wrong.pem")
        trustme.CA().cert_pem.write_to_path(str(wrong))
        store = Store(place.root, Path(exchange.ca_file), wrong)

        def expect(case: str, error: str | None) -> None:
            said = place.press(exchange)["said"]
            assert isinstance(said, dict)
            # No order is open: a verified server says so.
            wanted = error or "OrderNotFoundError"
            must(said.get("error") == wanted, f"trust store, {case}: {said}")
            say(f"  trust store, {case}: {error or 'trusted'}")
            store.clear()

        expect("none at all", "CertificateError")
        for name, path in HASHED.items():
            store.put_hashed(path, "right")
            expect(f"{name} ({path})", None)
            store.put_hashed(path, "wrong")
            expect(f"{name}, another root", "CertificateError")
        for name, path in BUNDLES.items():
            store.put_bundle(path, "right")
            expect(f"{name} ({path})", None)
            store.put_bundle(path, "wrong")
            expect(f"{name}, another root", "CertificateError")
        try_order(store, expect)


def try_order(store: Store, expect: Callable[[str, str | None], None]) -> None:
    """A hashed directory comes first, but only one that holds a certificate."""
    directory, bundle = "/etc/ssl/certs", "/etc/ssl/cert.pem"
    store.put_hashed(directory, "right")
    store.put_bundle(bundle, "wrong")
    expect("a directory before a bundle", None)
    store.put_hashed(directory, "wrong")
    store.put_bundle(bundle, "right")
    expect("a bundle does not add to a directory", "CertificateError")
    store.put_bundle(f"{directory}/0123abcd.r0", "wrong")
    store.put_bundle(bundle, "right")
    expect("a directory of revocation lists is none", None)
    store.put_bundle(bundle, "right")
    dangling = store.root / directory.lstrip("/")
    dangling.mkdir(parents=True)
    (dangling / "0123abcd.0").symlink_to("/nowhere")
    expect("a directory of dangling links is none", None)


# ---- The source distribution ---------------------------------------------------------


def backend(folder: Path) -> None:
    """Fetch the build backend that pip would fetch, so that no network is needed."""
    wanted = re.search(
        r"^setuptools==\S+$", (ROOT / "requirements-dev.txt").read_text(), re.MULTILINE
    )
    assert wanted is not None
    download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    run([*download, "--dest", str(folder), wanted[0]])


def sdist() -> Path:
    """Return the finished source distribution."""
    (found,) = DIST.glob("espresso_deltadefi-*.tar.gz")
    return found


def try_sdist(exchange: Exchange) -> None:
    """Build from source with the documented packages, then without each of them."""
    with copy_of(roots.ROOTS["bookworm"]) as copy:
        (copy / "packages").mkdir()
        backend(copy / "packages")
        shutil.copy(sdist(), copy / "packages")
        shutil.copy(exchange.ca_file, copy / "ca.pem")
        roots.in_root(copy, ["python3", "-m", "venv", "/opt/venv"])
        pip = ["/opt/venv/bin/pip", "install", "--no-index", "--find-links=/packages"]
        began = time.monotonic()
        roots.in_root(
            copy, [*pip, "--no-binary=espresso-deltadefi", "espresso-deltadefi"]
        )
        took = time.monotonic() - began
        say(f"  the sdist was built and installed in {took:.1f} s")
        must(took < SDIST_LIMIT, f"more than {SDIST_LIMIT:.0f} s")
        enter = shutil.which("chroot") or "chroot"
        place = Place("sdist", (enter, str(copy), "/opt/venv/bin/python", "-I"))
        exchange.place(SYMBOL, ORDERS)
        said = place.press(exchange, SSL_CERT_FILE="/ca.pem")["said"]
        assert isinstance(said, dict)
        must(len(said.get("order_ids", [])) == ORDERS, f"sdist: {said}")
        try_missing(copy, [*pip, "--force-reinstall", f"/packages/{sdist().name}"])


# What is taken away, and what the one sentence must then name.
MISSING = {
    "usr/bin/*gcc*": "a C compiler",
    "usr/include/stdlib.h": "the headers of the C library",
    "usr/include/python3.11": "the headers of this Python",
    "usr/bin/*pkg*conf*": "pkg-config",
    "usr/lib/*/pkgconfig/libcurl.pc": "libcurl 7.87 or later with its headers",
    "usr/lib/*/pkgconfig/libcjson.pc": "libcjson 1.7.15 or later with its headers",
}


def try_missing(copy: Path, install: list[str]) -> None:
    """Take each documented package away; the build must name it in one sentence."""
    for pattern, named in MISSING.items():
        hidden = sorted(copy.glob(pattern))
        must(hidden, f"the root of Debian has no {pattern}")
        for path in hidden:
            path.rename(path.with_name(f".hidden-{path.name}"))
        try:
            roots.in_root(copy, install)
            raise AssertionError(f"built without {named}")
        except WheelError as error:
            (line,) = re.findall(r"espresso cannot be built.*", str(error))
            must(f"missing here: {named}. Debian" in line, line)
            say(f"  the sdist without it: {line.split('. Debian')[0].strip()}")
        for path in hidden:
            path.with_name(f".hidden-{path.name}").rename(path)


PARTS: dict[str, Callable[[Exchange], None]] = {
    "interpreters": try_interpreters,
    "roots": try_roots,
    "store": try_store,
    "sdist": try_sdist,
}


def work() -> None:
    """Run the named parts, or all."""
    must(os.geteuid() == 0, "chroot and debootstrap need root")
    for part in sys.argv[1:] or PARTS:
        must(part in PARTS, f"no part {part}; there are {', '.join(PARTS)}")
        say(f"trying the wheels: {part}")
        with Exchange(rate=None) as exchange:
            PARTS[part](exchange)


if __name__ == "__main__":
    main(work)
