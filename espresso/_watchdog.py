"""The watchdog of a guard: a process of its own that cancels when the bot is dead.

Not to be run by hand: `espresso.guard` starts it, with ``python -I -S`` and the
descriptor of a socket to itself, and this very file finds the package it is part
of, so that a bot's search path and site directories do not matter.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType


def load_package(file: str) -> ModuleType:
    """Import the package that this file is part of, whatever the search path."""
    from importlib.machinery import ModuleSpec, SourceFileLoader
    from importlib.util import module_from_spec

    folder = file.rpartition("/")[0]
    init = f"{folder}/__init__.py"
    spec = ModuleSpec("espresso", SourceFileLoader("espresso", init), origin=init)
    spec.submodule_search_locations = [folder]
    spec.has_location = True
    package = module_from_spec(spec)
    sys.modules["espresso"] = package
    SourceFileLoader("espresso", init).exec_module(package)
    return package


def main() -> None:
    """Watch until there is nothing left to prove."""
    load_package(__file__)
    from espresso._watchdog_loop import run

    run(int(sys.argv[1]))


if __name__ == "__main__":
    main()
