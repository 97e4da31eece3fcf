"""In place of uvloop, which has no build for a CPython 3.13 without a GIL.

Tests that would use it are left out there (see the Makefile); this is for the imports.
"""

from __future__ import annotations

import asyncio


def new_event_loop() -> asyncio.AbstractEventLoop:
    raise NotImplementedError("uvloop has no build for this Python")
