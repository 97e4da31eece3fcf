"""One call through one face, and what it has told: alike for all faces.

The faces of Python are those of tests/faces.py, in this process or (where a fault
needs one of its own) in a child; the command line always is a process.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.children import PATIENCE, ROOT
from tests.conftest import cleaned
from tests.matrix.places import Place
from tests.matrix.told import IN_PYTHON, Told, in_python
from tests.rawserver import SYMBOL

COMMAND_LINE = "command line"
ALL_FACES = (*IN_PYTHON, COMMAND_LINE)
NO_DESCRIPTOR = 7  # a limit at which Python itself still starts


def press(face: str, place: Place, options: Mapping[str, Any]) -> list[Told]:
    """Call, and after a result call again: what came of each.

    Args:
        face: one of `ALL_FACES`.
        place: where to.
        options: of the client, over those of the place; of the command line
            `timeout` alone.
    """
    if face == COMMAND_LINE:
        return [_by_command(place, options)]
    if place.env:
        return _in_a_child(face, place, options)
    return in_python(IN_PYTHON[face], place, options)


# ---- processes of their own ----------------------------------------------------------


def child_environment(
    face: str, place: Place, options: Mapping[str, Any], act: str = ""
) -> dict[str, str]:
    """That of ``python -m tests.matrix.child``, its job included."""
    job = json.dumps(
        {
            "face": face,
            "place": {
                "url": place.url,
                "ca_file": place.ca_file,
                "options": place.options,
                "descriptors": place.descriptors,
                "key": place.key,
            },
            "options": dict(options),
            "act": act,
        }
    )
    return {**cleaned(), **place.env, "MATRIX_JOB": job}


def _in_a_child(face: str, place: Place, options: Mapping[str, Any]) -> list[Told]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.matrix.child"],
        env=child_environment(face, place, options),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    return [Told(**json.loads(line)) for line in done.stdout.splitlines()]


def command(place: Place, options: Mapping[str, Any]) -> list[str]:
    """``espresso cancel-all`` at this place."""
    words = [str(Path(sys.executable).with_name("espresso")), "cancel-all", SYMBOL]
    words += ["--no-confirm", "--json", "--base-url", place.url]
    if "timeout" in options:
        words += ["--timeout", str(options["timeout"])]
    if not place.descriptors:
        limit = f'ulimit -n {NO_DESCRIPTOR}; exec "$@"'
        words = ["sh", "-c", limit, "sh", *words]
    return words


def command_environment(place: Place) -> dict[str, str]:
    env = {**cleaned(), **place.env}
    env |= {"DELTADEFI_API_KEY": place.key, "SSL_CERT_FILE": place.ca_file}
    if "proxy" in place.options:
        env["HTTPS_PROXY"] = place.options["proxy"]
    return env


def _by_command(place: Place, options: Mapping[str, Any]) -> Told:
    begun = time.monotonic()
    done = subprocess.run(
        command(place, options),
        env=command_environment(place),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    took = time.monotonic() - begun
    return told_by_command(done.stdout, done.stderr, done.returncode, took)


def told_by_command(out: str, err: str, status: int, took: float) -> Told:
    """What the command has printed, and its exit status."""
    assert out.count("\n") == 1, f"status {status}\n{out}\n{err}"
    shown: dict[str, Any] = json.loads(out)
    return Told(
        kind=shown.get("error", "done"),
        outcome=shown["outcome"],
        took=took,
        # A result does not say it, and each failed attempt is told of on stderr.
        attempts=shown.get("attempts", 1 + err.count(": attempt ")),
        retryable=shown.get("retryable", False),
        elapsed=shown.get("elapsed", 0.0),
        symbol=shown["symbol"],
        code=shown.get("code"),
        order_ids=shown["order_ids"],
        lost_reply=shown.get("lost_reply", False),
        said=out + err,
        status=status,
    )
