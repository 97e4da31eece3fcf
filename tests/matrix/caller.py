"""Faults that the caller makes itself while the server is silent."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

from tests.children import Child
from tests.matrix.places import Place
from tests.matrix.press import (
    COMMAND_LINE,
    child_environment,
    command,
    command_environment,
    told_by_command,
)
from tests.matrix.told import Told
from tests.obstacles import wait_until

TIMEOUT = {"timeout": 60.0}  # seconds: what ends the call is the act
PATIENT = {**TIMEOUT, "connect_timeout": 60.0}
INTERRUPTED = 130  # exit status
# A shell starts its background jobs with SIGINT ignored; the tests may be in one.
_WITH_CTRL_C = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.argv[1], sys.argv[1:])
"""


def act(name: str, face: str, place: Place, sent: bool) -> Told:
    """Call, wait until the request has come (or not `sent`: a connection), and act.

    `took` is the time from the act to the end of the call, and for "exit" to the end
    of the process.
    """
    if face == COMMAND_LINE:
        return _interrupt_command(place, sent)
    env = child_environment(face, place, PATIENT, name)
    with Child(Path("tests.matrix.child"), env, flags=["-m"]) as child:
        child.expect("calling")
        _arrived(place, sent)
        begun = time.monotonic()
        if name == "interrupt":
            child.signal(signal.SIGINT)
        else:
            child.tell()
        told = Told(**json.loads(child.line()))
        at = time.monotonic()
        ended = child.end().check()
    if name == "exit":
        at = ended.at
    return Told(**{**vars(told), "took": at - begun})


def _arrived(place: Place, sent: bool) -> None:
    assert place.connections is not None
    count = place.posts if sent else place.connections
    wait_until(lambda: count() >= 1, "the call")
    time.sleep(0.05)  # into the middle of the phase, not to its first moment


def _interrupt_command(place: Place, sent: bool) -> Told:
    env = command_environment(place)
    with Child(_WITH_CTRL_C, env, *command(place, TIMEOUT)) as child:
        _arrived(place, sent)
        begun = child.signal(signal.SIGINT)
        ended = child.end()
    assert ended.status == INTERRUPTED, ended
    return told_by_command(ended.out, ended.err, ended.status, ended.at - begun)
