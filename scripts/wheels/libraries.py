"""Build the static libraries that go into a self-contained wheel.

``python -m scripts.wheels.libraries [TARGET]`` prints the folder that holds them:
``lib``, ``include``, ``licenses`` and a list of parts, ``sbom.cdx.json``. It is built
once for each state of this file, of the pins and of the compiler. Targets:

* ``x86_64``, ``aarch64``: for Linux with glibc 2.17 or later, by the C compiler of
  the ``ziglang`` package, on any Linux
* ``native``: for this machine, by its own compiler (macOS, musl, a quick look)

What is left out of OpenSSL and libcurl is what one POST over HTTP/1.1 cannot need.
Kept on purpose: proxies, IPv6, error texts, the dates of Retry-After, TLS 1.2 and 1.3,
hybrid key exchange.
"""

import argparse
import hashlib
import json
import os
import platform
import shlex
import shutil
import sys
import sysconfig
import tempfile
import uuid
from pathlib import Path

from . import sources
from .common import (
    BUILD,
    PINS,
    Bundled,
    WheelError,
    bundled,
    clean_environment,
    main,
    run,
    say,
)

GLIBC = "2.17"  # manylinux2014
ZIG_TARGETS = ("x86_64", "aarch64")
TARGETS = (*ZIG_TARGETS, "native")
# OpenSSL writes a date into the library: not that of a commit of ours, or libraries
# kept from an earlier commit would differ from new ones.
LIBRARY_DATE = "315619200"  # 1980-01-02
C_FLAGS = [
    "-O2",
    "-fPIC",
    "-fvisibility=hidden",
    "-ffunction-sections",
    "-fdata-sections",
    "-fstack-protector-strong",
    "-U_FORTIFY_SOURCE",
    "-D_FORTIFY_SOURCE=2",
]


def words(text: str) -> list[str]:
    """Return the words of a text: a long list that stays readable."""
    return text.split()


OPENSSL_WITHOUT = words("""
    shared module dso engine legacy apps tests docs autoload-config atexit ui-console
    comp ssl3 tls1 tls1_1 dtls quic srp srtp psk nextprotoneg ssl-trace http ct ts cms
    cmp rfc3779 async multiblock thread-pool deprecated ec2m dsa ml-dsa slh-dsa sm2 sm3
    sm4 gost aria bf blake2 camellia cast idea md4 mdc2 rc2 rc4 rmd160 seed siphash siv
    ocb scrypt whirlpool
""")
CURL_WITHOUT = words("""
    zlib brotli zstd libpsl libidn2 nghttp2 nghttp3 ngtcp2 libssh libssh2 librtmp gssapi
    libgsasl ca-bundle ca-path
""")
CURL_DISABLED = words("""
    ares dict file ftp gopher imap ipfs ldap ldaps mqtt pop3 rtsp smb smtp telnet tftp
    websockets manual docs ntlm kerberos-auth negotiate-auth digest-auth aws tls-srp
    alt-svc hsts cookies netrc doh mime form-api libcurl-option
    get-easy-options progress-meter openssl-auto-load-config
""")
OPENSSL_FLAGS = [
    "--prefix=/usr",
    "--libdir=lib",
    "--openssldir=/etc/ssl",
    *(f"no-{feature}" for feature in OPENSSL_WITHOUT),
]
CURL_FLAGS = [
    "--prefix=/usr",
    "--libdir=/usr/lib",
    "--disable-shared",
    "--enable-static",
    "--with-pic",
    "--enable-symbol-hiding",
    "--enable-threaded-resolver",
    *(f"--without-{feature}" for feature in CURL_WITHOUT),
    *(f"--disable-{feature}" for feature in CURL_DISABLED),
]
CJSON_FLAGS = ["-DENABLE_LOCALES"]  # or a comma locale would break 1.5


def machine(target: str) -> str:
    """Return the processor that a target is for: ``x86_64`` or ``aarch64``."""
    name = platform.machine() if target == "native" else target
    return {"arm64": "aarch64", "AMD64": "x86_64"}.get(name, name)


def zig(target: str) -> list[str]:
    """Return the command of zig's C compiler for a target."""
    try:
        import ziglang
    except ImportError:
        raise WheelError("the package ziglang is missing; run `make wheel`") from None
    program = str(Path(ziglang.__file__).with_name("zig"))
    return [program, "cc", "-target", f"{target}-linux-gnu.{GLIBC}"]


def compiler(target: str) -> list[str]:
    """Return the command that compiles C for a target."""
    if target == "native":
        return shlex.split(os.environ.get("CC", "cc"))
    return zig(target)


def fingerprint(target: str) -> str:
    """Return a short hash of all that the libraries of a target are made from."""
    version = run([*compiler(target), "--version"]).splitlines()[0]
    told = "\n".join([target, machine(target), version, sysconfig.get_platform()])
    parts = [told.encode(), PINS.read_bytes(), Path(__file__).read_bytes()]
    parts.append(Path(sources.__file__).read_bytes())
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:12]


class Tools:
    """A folder on PATH with ``dep-cc``, ``dep-ar`` and ``dep-ranlib``.

    OpenSSL prints its CFLAGS into the library, so what must not be seen there (the
    paths of this build) is in the scripts.
    """

    def __init__(self, target: str, work: Path) -> None:
        self.folder = work / "bin"
        self.folder.mkdir()
        command = compiler(target)
        hidden = [f"-ffile-prefix-map={work}=."]
        zig_program = [command[0]] if target in ZIG_TARGETS else []
        self.write("cc", [*command, *hidden])
        self.write("ar", [*zig_program, "ar"])
        self.write("ranlib", [*zig_program, "ranlib"])

    def write(self, name: str, command: list[str]) -> None:
        """Write one script that runs ``command``."""
        script = self.folder / f"dep-{name}"
        script.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
        script.chmod(0o755)

    def environment(self) -> dict[str, str]:
        """Return the environment of a build, with the folder first on PATH."""
        env = clean_environment(ZIG_GLOBAL_CACHE_DIR=str(BUILD / "zig-cache"))
        env["ZIG_LOCAL_CACHE_DIR"] = env["ZIG_GLOBAL_CACHE_DIR"]
        env["SOURCE_DATE_EPOCH"] = LIBRARY_DATE
        return {**env, "PATH": f"{self.folder}:{env['PATH']}"}


def openssl_platform(target: str) -> str:
    """Return OpenSSL's name for a target."""
    if sys.platform == "darwin":
        return "darwin64-arm64" if machine(target) == "aarch64" else "darwin64-x86_64"
    return f"linux-{machine(target)}"


def jobs() -> str:
    """Return make's option for as many jobs as there are processors."""
    return f"-j{os.cpu_count() or 1}"


def build_openssl(target: str, work: Path, out: Path, env: dict[str, str]) -> None:
    """Build libssl and libcrypto in ``work`` and install them into ``out``."""
    tree = work / "openssl"
    folder = work / "openssl-build"
    folder.mkdir()
    tools = [f"{name.upper()}=dep-{name}" for name in ("cc", "ar", "ranlib")]
    options = [openssl_platform(target), *OPENSSL_FLAGS, *tools, *C_FLAGS]
    run(
        ["perl", str(tree / "Configure"), *options],
        what="OpenSSL's Configure",
        cwd=folder,
        env=env,
    )
    run(["make", jobs(), "build_libs"], what="make (OpenSSL)", cwd=folder, env=env)
    run(["make", "install_dev", f"DESTDIR={out}"], cwd=folder, env=env)


def build_curl(target: str, work: Path, out: Path, env: dict[str, str]) -> None:
    """Build libcurl over the OpenSSL in ``out`` and install it there."""
    folder = work / "curl-build"
    folder.mkdir()
    tools = [f"{name.upper()}=dep-{name}" for name in ("cc", "ar", "ranlib")]
    host = []
    if target in ZIG_TARGETS:
        here = f"{machine('native')}-pc-linux-gnu"
        host = [f"--host={target}-linux-gnu", f"--build={here}"]
    flags = [
        f"--with-openssl={out}/usr",
        f"CFLAGS={shlex.join(C_FLAGS)}",
        f"CPPFLAGS=-I{out}/usr/include",
        f"LDFLAGS=-L{out}/usr/lib",
        "LIBS=-lpthread",
        "PKG_CONFIG=false",
    ]
    run(
        ["sh", str(work / "curl/configure"), *host, *CURL_FLAGS, *tools, *flags],
        what="libcurl's configure",
        cwd=folder,
        env=env,
    )
    run(["make", "-C", "lib", jobs()], what="make (libcurl)", cwd=folder, env=env)
    for part in ("lib", "include"):
        run(["make", "-C", part, "install", f"DESTDIR={out}"], cwd=folder, env=env)


def build_cjson(work: Path, out: Path, env: dict[str, str]) -> None:
    """Compile cJSON's one file and install it into ``out``."""
    tree = work / "cjson"
    run(
        ["dep-cc", "-std=c99", *C_FLAGS, *CJSON_FLAGS, "-c", "cJSON.c"],
        what="cJSON",
        cwd=tree,
        env=env,
    )
    library = out / "usr/lib/libcjson.a"
    run(["dep-ar", "rcs", library, "cJSON.o"], cwd=tree, env=env)
    shutil.copy(tree / "cJSON.h", out / "usr/include/cJSON.h")


def component(library: Bundled) -> dict[str, object]:
    """Return what a CycloneDX list says of one library."""
    flags = {"openssl": OPENSSL_FLAGS, "curl": CURL_FLAGS, "cjson": CJSON_FLAGS}
    archive = library.file(".orig.tar.gz")
    package = f"pkg:deb/debian/{library.name}@{library.source}?arch=source"
    return {
        "type": "library",
        "bom-ref": package,
        "name": library.name,
        "version": library.version,
        "licenses": [{"license": {"id": library.licence}}],
        "hashes": [{"alg": "SHA-256", "content": library.sha256[archive]}],
        "purl": package,
        "cpe": library.cpe.format(version=library.version),
        "externalReferences": [{"type": "website", "url": library.home}],
        "properties": [
            {"name": "espresso:source", "value": f"{library.name} {library.source}"},
            {"name": "espresso:flags", "value": shlex.join(flags[library.name])},
        ],
    }


def parts_list(target: str) -> dict[str, object]:
    """Return the CycloneDX list of what ``target`` bundles; the same each time."""
    components = [component(library) for library in bundled()]
    told = json.dumps([target, components], sort_keys=True)
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, told)}",
        "version": 1,
        "components": components,
    }


def write_papers(target: str, work: Path, out: Path) -> None:
    """Put licences and the list of parts beside the libraries."""
    licences = out / "usr/licenses"
    licences.mkdir()
    for library in bundled():
        text = work / library.name / library.licence_file
        shutil.copy(text, licences / f"{library.title}.txt")
    listed = json.dumps(parts_list(target), indent=1) + "\n"
    (out / "usr/sbom.cdx.json").write_text(listed, encoding="utf-8")


def build(target: str) -> Path:
    """Return the folder of a target's libraries; build them if need be."""
    folder = BUILD / "static" / f"{target}-{fingerprint(target)}"
    if folder.exists():
        return folder
    sources.fetch()
    say(f"building the libraries for {target} (once; it takes some minutes)")
    with tempfile.TemporaryDirectory(prefix="espresso-") as name:
        work = Path(name).resolve()
        for library in bundled():
            sources.unpack(library, work)
        env = Tools(target, work).environment()
        out = work / "out"
        build_openssl(target, work, out, env)
        build_curl(target, work, out, env)
        build_cjson(work, out, env)
        write_papers(target, work, out)
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(out / "usr", folder)
    return folder


def work() -> None:
    """Build one target and print where its libraries are."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("target", nargs="?", default="native", choices=TARGETS)
    parser.add_argument("--at", type=Path, help="link to the folder under this name")
    options = parser.parse_args()
    folder = build(options.target)
    if options.at:
        options.at.unlink(missing_ok=True)
        options.at.symlink_to(folder)
    print(folder)


if __name__ == "__main__":
    main(work)
