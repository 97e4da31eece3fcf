"""Check the release without releasing: ``make lint-release``.

The workflows against their schema, for pins by commit and for common holes; the
metadata; which wheels cibuildwheel would build; and, where there is a ``dist/``, every
file in it. What only hosted CI can do (macOS, musl, native ARM) is not checked.
"""

import os
import re
import sys
from pathlib import Path

from .common import DIST, ROOT, WheelError, main, run, say

WORKFLOWS = ROOT / ".github/workflows"
PINNED = re.compile(r"[\w.-]+/[\w.-]+@[0-9a-f]{40} # v\d[\w.]*")
BUILDS = {
    "linux": {"cp311-musllinux_x86_64", "cp314t-manylinux_x86_64"},
    "macos": {"cp311-macosx_arm64", "cp314t-macosx_arm64"},
}
ARCHITECTURES = {"linux": "x86_64", "macos": "arm64"}


def workflows() -> list[Path]:
    """Return the files of the workflows."""
    return sorted(WORKFLOWS.glob("*.yml"))


def unpinned(text: str) -> list[str]:
    """Return the actions that a workflow does not pin by commit and version."""
    used = re.findall(r"uses: *(.+?) *$", text, re.MULTILINE)
    return [action for action in used if not PINNED.fullmatch(action)]


def lint_workflows() -> None:
    """Schema, pins, and what zizmor knows of holes in workflows."""
    files = [str(path) for path in workflows()]
    run(["check-jsonschema", "--builtin-schema", "vendor.github-workflows", *files])
    for path in workflows():
        if loose := unpinned(path.read_text(encoding="utf-8")):
            raise WheelError(f"{path.name} does not pin {', '.join(loose)}")
    print(
        run(["zizmor", "--offline", "--no-progress", "--min-severity=medium", *files])
    )


def lint_builds() -> None:
    """Ask cibuildwheel what it would build, on a machine of each kind."""
    for system, wanted in BUILDS.items():
        chosen = ["--platform", system, "--archs", ARCHITECTURES[system]]
        told = run(["cibuildwheel", "--print-build-identifiers", *chosen]).split()
        if lacking := wanted - set(told):
            raise WheelError(f"cibuildwheel would not build {', '.join(lacking)}")
        say(f"cibuildwheel on {system}: {', '.join(told)}")


def lint_dist() -> None:
    """Check every finished file.

    pyroma asks for an address of the project too, and there is none yet: 7 of 10.
    """
    files = sorted(str(path) for path in DIST.glob("espresso_deltadefi-*"))
    if not files:
        say("dist/ is empty: its files are not checked (make wheel)")
        return
    print(run(["twine", "check", "--strict", *files]))
    print(run(["check-wheel-contents", *(one for one in files if one.endswith("whl"))]))
    for name in files:
        if "-abi3-" in name:
            print(run(["abi3audit", "--strict", "--report", name])[-300:])
        if name.endswith(".tar.gz"):
            print(run(["pyroma", "--min=7", name])[-300:])


def work() -> None:
    """Run all of it; the first thing found wrong is the last line."""
    tools = Path(sys.executable).parent
    os.environ["PATH"] = f"{tools}:{os.environ['PATH']}"
    print(run(["validate-pyproject", "pyproject.toml"]))
    lint_workflows()
    lint_builds()
    lint_dist()


if __name__ == "__main__":
    main(work)
