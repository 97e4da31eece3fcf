"""Print which bundled libraries have a newer version: ``make wheel-behind``.

It asks Debian's lists of source packages (the suites that ``bundled.toml`` names) and
exits with status 1 if something is behind, so that a scheduled run can tell. A release
that ``bundled.toml`` refuses is named with its reason and counts as none. Debian's
lists may name a source that its servers do not have, which is said, too.
"""

import re
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from .common import Bundled, WheelError, bundled, main, run
from .sources import Apt


def upstream(version: str) -> str:
    """Return the authors' version in a package's: ``3.5.7`` of ``3.5.7-1~deb13u2``.

    An epoch and what a packager repacked are left out; so is a Debian revision.
    """
    return re.sub(r"^\d+:|[+~]dfsg.*$|-[^-]+$", "", version)


def is_release(version: str) -> bool:
    """Tell a release from a candidate (``8.23.0~rc3``)."""
    return re.fullmatch(r"[0-9.]+", upstream(version)) is not None


def is_newer(one: str, other: str) -> bool:
    """Compare two versions of a package as dpkg does."""
    try:
        run(["dpkg", "--compare-versions", one, "gt", other])
    except WheelError:
        return False
    return True


def newest(library: Bundled, versions: list[str]) -> str:
    """Return the newest version that may be bundled; what is pinned, if none is."""
    best = library.source
    for version in versions:
        followed = version.startswith(library.follow) and is_release(version)
        refused = upstream(version) in library.refused
        if followed and not refused and is_newer(version, best):
            best = version
    return best


def verdict(
    library: Bundled, versions: list[str], is_there: Callable[[str], bool]
) -> str:
    """Return the line to print for one library; `is_there` tells of a source."""
    best = newest(library, versions)
    state = "up to date"
    if best != library.source:
        lacking = "" if is_there(best) else ", but the server does not have its source"
        state = f"BEHIND: {best} is out{lacking}"
    refused = [
        f"{version} is refused: it {reason}"
        for version, reason in library.refused.items()
        if any(upstream(one) == version for one in versions)
    ]
    return "; ".join([f"{library.title:8} {library.source:20} {state}", *refused])


def can_be_had(apt: Apt, package: str, version: str) -> bool:
    """Tell whether the source of a version that the lists name can be fetched."""
    source = ["apt-get", "-q", *apt.options, "source", "--download-only"]
    with tempfile.TemporaryDirectory() as folder:
        try:  # the part with the patches, which is small
            wanted = ["--diff-only", f"{package}={version}"]
            run([*source, *wanted], cwd=Path(folder))
        except WheelError:
            return False
    return True


def work() -> None:
    """Print a line for each library; exit 1 if one is behind."""
    behind = False
    with tempfile.TemporaryDirectory() as folder:
        apt = Apt(Path(folder))
        for library in bundled():
            versions = apt.versions(library.name)
            is_there = partial(can_be_had, apt, library.name)
            print(verdict(library, versions, is_there), flush=True)
            behind |= newest(library, versions) != library.source
    sys.exit(1 if behind else 0)


if __name__ == "__main__":
    main(work)
