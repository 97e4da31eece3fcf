"""Build of the extension ``espresso._core``. All metadata is in pyproject.toml.

Environment, all optional:

* ``ESPRESSO_WERROR=1``  compiler warnings are errors (``make`` sets it)
* ``PKG_CONFIG``         the pkg-config program to ask
* ``ESPRESSO_STATIC``    a folder made by ``python -m scripts.wheels.libraries``: its
  libraries go into the extension, its licences and its list of parts into the wheel
"""

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Distribution, Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

STATIC = Path(os.environ["ESPRESSO_STATIC"]) if os.getenv("ESPRESSO_STATIC") else None
ARCHIVES = ["libcurl.a", "libssl.a", "libcrypto.a", "libcjson.a"]
STATIC_LICENCE = "MIT AND Apache-2.0 AND curl"  # ours and cJSON's, OpenSSL's, libcurl's
LIBRARIES = {"libcurl": "7.87", "libcjson": "1.7.15"}
INSTALL_HINT = (
    "Debian and Ubuntu: apt-get install gcc libcurl4-openssl-dev libcjson-dev"
    " pkg-config; Fedora: dnf install gcc libcurl-devel cjson-devel"
    " pkgconf-pkg-config; Alpine: apk add gcc musl-dev curl-dev cjson-dev pkgconf;"
    " macOS: brew install curl cjson pkgconf."
)
COMPILE_FLAGS = [
    "-std=c11",
    "-D_GNU_SOURCE",
    "-fvisibility=hidden",
    "-O2",
    "-fstack-protector-strong",
    "-U_FORTIFY_SOURCE",
    "-D_FORTIFY_SOURCE=2",
    "-Wall",
    "-Wextra",
    "-Wconversion",
    "-Wshadow",
]
EXPORTS = "scripts/exports.map"

# One binary for 3.11 and every later CPython. Free-threaded builds have no
# Limited API before 3.15, and setuptools refuses to combine the two.
LIMITED_API = sys.implementation.name == "cpython" and not sysconfig.get_config_var(
    "Py_GIL_DISABLED"
)


def pkg_config(*arguments: str) -> str:
    """Return what pkg-config prints; OSError or CalledProcessError if it fails."""
    command = [os.environ.get("PKG_CONFIG", "pkg-config"), *arguments]
    done = subprocess.run(command, check=True, text=True, capture_output=True)
    return done.stdout.strip()


def pkg_config_succeeds(*arguments: str) -> bool:
    """Tell whether pkg-config is there and says yes."""
    try:
        pkg_config(*arguments)
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


def missing_compiler() -> list[str]:
    """Name what compiling any extension needs and this machine lacks."""
    compiler = shlex.split(
        os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"
    )
    program = "#include <stdlib.h>\n"
    missing = []
    try:
        done = subprocess.run(
            [*compiler, "-E", "-x", "c", "-"],
            input=program,
            text=True,
            capture_output=True,
        )
        if done.returncode != 0:
            missing.append("the headers of the C library")
    except OSError:
        missing.append("a C compiler")
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        missing.append("the headers of this Python")
    return missing


def missing_libraries() -> list[str]:
    """Name the libraries that are not here, or are too old."""
    if not pkg_config_succeeds("--version"):
        return ["pkg-config"]
    missing = []
    for name, floor in LIBRARIES.items():
        if not pkg_config_succeeds("--exists", name):
            missing.append(f"{name} {floor} or later with its headers")
        elif not pkg_config_succeeds("--exists", f"{name} >= {floor}"):
            found = pkg_config("--modversion", name)
            missing.append(f"{name} {floor} or later (found {found})")
    return missing


def missing_archives(folder: Path) -> list[str]:
    """Name what ``ESPRESSO_STATIC`` should hold and does not."""
    return [
        str(folder / "lib" / name)
        for name in ARCHIVES
        if not (folder / "lib" / name).exists()
    ]


def refuse_if_missing() -> None:
    """Raise SystemExit with one sentence if something needed is not here."""
    missing = missing_compiler()
    missing += missing_archives(STATIC) if STATIC else missing_libraries()
    if missing:
        raise SystemExit(
            f"espresso cannot be built, missing here: {', '.join(missing)}."
            f" {INSTALL_HINT}"
        )


def use_system_libraries(ext: Extension) -> None:
    """Link to the libcurl and cJSON of this system."""
    ext.extra_compile_args += shlex.split(pkg_config("--cflags", *LIBRARIES))
    ext.extra_link_args += shlex.split(pkg_config("--libs", *LIBRARIES))


def use_static_libraries(ext: Extension, folder: Path) -> None:
    """Put the libraries into the extension, and leave out what it never calls."""
    ext.define_macros.append(("ESP_PRIVATE_LIBRARIES", "1"))
    ext.include_dirs.append(str(folder / "include"))
    ext.extra_objects += [str(folder / "lib" / name) for name in ARCHIVES]
    if sys.platform == "darwin":
        for framework in ("CoreFoundation", "CoreServices", "SystemConfiguration"):
            ext.extra_link_args += ["-framework", framework]
        ext.extra_link_args += ["-Wl,-dead_strip", "-Wl,-x"]
    else:
        ext.extra_link_args += ["-Wl,--gc-sections", "-Wl,--as-needed", "-s"]
        ext.libraries.append("pthread")


class BuildExt(build_ext):
    """build_ext that looks for libraries only when something is really compiled.

    Metadata and source distributions can be made on a machine without libcurl.
    """

    def run(self) -> None:
        refuse_if_missing()
        super().run()

    def build_extension(self, ext: Extension) -> None:
        version = self.distribution.get_version()
        ext.define_macros.append(("ESPRESSO_VERSION", f'"{version}"'))
        if STATIC:
            use_static_libraries(ext, STATIC)
        else:
            use_system_libraries(ext)
        ext.libraries += ["m", "dl"]  # a part of libc only from glibc 2.34 on
        super().build_extension(ext)


class BundlingDistribution(Distribution):
    """A distribution that names the licences of what it bundles beside its own."""

    def parse_config_files(self, *arguments: object, **named: object) -> None:
        super().parse_config_files(*arguments, **named)
        if STATIC:
            shutil.copytree(STATIC / "licenses", "licenses", dirs_exist_ok=True)
            texts = sorted(path.as_posix() for path in Path("licenses").glob("*.txt"))
            self.metadata.license_expression = STATIC_LICENCE
            self.metadata.license_files = [*self.metadata.license_files, *texts]


class BundlingWheel(bdist_wheel):
    """bdist_wheel that puts the list of bundled parts where PEP 770 wants it."""

    def write_wheelfile(self, wheelfile_base: str, *arguments: str) -> None:
        super().write_wheelfile(wheelfile_base, *arguments)
        if STATIC:
            folder = Path(wheelfile_base, "sboms")
            folder.mkdir()
            shutil.copy(STATIC / "sbom.cdx.json", folder / "espresso.cdx.json")


def compile_flags() -> list[str]:
    """Our warnings, but not for CPython's own headers (hence -isystem)."""
    headers = [
        f"-isystem{sysconfig.get_path(key)}" for key in ("include", "platinclude")
    ]
    strict = ["-Werror"] if os.environ.get("ESPRESSO_WERROR") == "1" else []
    return [*COMPILE_FLAGS, *strict, *headers]


def link_flags() -> list[str]:
    """Export PyInit__core and nothing else; resolve every symbol at load."""
    if sys.platform == "darwin":
        return ["-Wl,-exported_symbol,_PyInit__core"]
    return [f"-Wl,--version-script={EXPORTS}", "-Wl,-z,relro,-z,now"]


def sources(pattern: str) -> list[str]:
    """Return the files that match, sorted: the same tree gives the same binary."""
    here = Path(__file__).parent
    return sorted(path.relative_to(here).as_posix() for path in here.glob(pattern))


setup(
    ext_modules=[
        Extension(
            "espresso._core",
            sources=[*sources("src/core/*.c"), *sources("src/binding/*.c")],
            depends=[*sources("src/*/*.h"), "src/core/codes.def", EXPORTS],
            include_dirs=["src/core", "src/binding"],
            define_macros=[("Py_LIMITED_API", "0x030B0000")] if LIMITED_API else [],
            extra_compile_args=compile_flags(),
            extra_link_args=link_flags(),
            py_limited_api=LIMITED_API,
        )
    ],
    cmdclass={"build_ext": BuildExt, "bdist_wheel": BundlingWheel},
    distclass=BundlingDistribution,
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if LIMITED_API else {},
)
