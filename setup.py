"""Build of the extension ``espresso._core``. All metadata is in pyproject.toml.

Environment, all optional:

* ``ESPRESSO_WERROR=1``  compiler warnings are errors (``make`` sets it)
* ``PKG_CONFIG``         the pkg-config program to ask
"""

import os
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

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


def missing_library() -> str | None:
    """Say in one sentence what the build lacks, or None if it has everything."""
    if not pkg_config_succeeds("--version"):
        return "espresso needs pkg-config to find libcurl and cJSON."
    for name, floor in LIBRARIES.items():
        if not pkg_config_succeeds("--exists", name):
            return f"espresso needs {name} {floor} or later, with its headers."
        if not pkg_config_succeeds("--exists", f"{name} >= {floor}"):
            found = pkg_config("--modversion", name)
            return f"espresso needs {name} {floor} or later and found {found}."
    return None


class BuildExt(build_ext):
    """build_ext that asks pkg-config, only when something is really compiled.

    Metadata and source distributions can be made on a machine without libcurl.
    """

    def run(self) -> None:
        problem = missing_library()
        if problem:
            raise SystemExit(f"{problem} {INSTALL_HINT}")
        super().run()

    def build_extension(self, ext: Extension) -> None:
        version = self.distribution.get_version()
        ext.define_macros.append(("ESPRESSO_VERSION", f'"{version}"'))
        ext.extra_compile_args += shlex.split(pkg_config("--cflags", *LIBRARIES))
        ext.extra_link_args += shlex.split(pkg_config("--libs", *LIBRARIES))
        ext.libraries += ["m", "dl"]  # a part of libc only from glibc 2.34 on
        super().build_extension(ext)


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
    cmdclass={"build_ext": BuildExt},
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if LIMITED_API else {},
)
