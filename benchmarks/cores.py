"""A processor for the server alone, the others for its clients.

A scheduler that is free puts a client on the processor of its server or on another,
for as long as it likes, and the same call takes half the time in the one place: then
two clients differ by where they are, and not by what they do.
"""

import contextlib
import os
from collections.abc import Iterator


@contextlib.contextmanager
def apart(pid: int) -> Iterator[None]:
    """Keep the server of that pid, and what is started in the block, from each other.

    Does nothing on a system that cannot, or that has one processor.
    """
    if not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2:
        yield
        return
    ours = os.sched_getaffinity(0)
    servers = os.sched_getaffinity(pid)
    its_own = {max(ours)}
    os.sched_setaffinity(pid, its_own)
    os.sched_setaffinity(0, ours - its_own)
    try:
        yield
    finally:
        os.sched_setaffinity(0, ours)
        os.sched_setaffinity(pid, servers)
