"""Where a run of the benchmark takes place: what all its parts are given."""

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.server import Server

HERE = Path(__file__).parent
WARNINGS = ["-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror"]
ARCHIVES = ["libcurl.a", "libssl.a", "libcrypto.a", "libcjson.a"]


@dataclass(frozen=True)
class Setting:
    """The server, a folder to write into, and the interpreters of the venvs.

    The loops in C need no more than the first two.

    Attributes:
        ours: has espresso, built on this system's libcurl.
        wheel: has the wheel that was given; "": none was.
        static: the folder of the libraries that the wheel brings, made by
            ``scripts.wheels.libraries``; None: not given.
        peers, sdk: have what espresso is measured beside.
        environment: of every process, with nothing of this machine's own.
        rounds: of warm calls. processes: of each cold kind.
    """

    server: Server
    folder: Path
    ours: str = ""
    wheel: str = ""
    static: Path | None = None
    peers: str = ""
    sdk: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    rounds: int = 2
    processes: int = 2

    @property
    def builds(self) -> dict[str, str]:
        """The interpreters that have espresso, by what is said behind its name."""
        return {"": self.ours} | ({", wheel": self.wheel} if self.wheel else {})

    def compiled(
        self, name: str, static: Path | None = None, parts: Sequence[Path] = ()
    ) -> str:
        """Compile a program of this folder, and parts of espresso with it; with the
        libraries of the wheel, or those of the system that espresso itself uses."""
        program = str(self.folder / (f"{name}-static" if static else name))
        if static:
            archives = [str(static / "lib" / it) for it in ARCHIVES]
            flags = [f"-I{static / 'include'}", *archives]
        else:
            query = ["pkg-config", "--cflags", "--libs", "libcurl", "libcjson"]
            flags = subprocess.run(
                [*query, "openssl"], check=True, text=True, capture_output=True
            ).stdout.split()
        sources = [str(HERE / f"{name}.c"), *map(str, parts)]
        command = ["cc", "-std=c11", "-D_GNU_SOURCE", "-O2", *WARNINGS]
        if parts:
            command += [f"-I{parts[0].parent}", '-DESPRESSO_VERSION="bench"']
            command += ["-DESP_PRIVATE_LIBRARIES"] if static else []
        command += ["-o", program, *sources, *flags, "-pthread", "-lm", "-ldl"]
        subprocess.run(command, check=True)
        return program


def environment() -> dict[str, str]:
    """Nothing of this machine's proxies, trust stores and Python settings."""
    return {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}
