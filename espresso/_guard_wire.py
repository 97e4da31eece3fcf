"""What a guard and its watchdog say to each other: one tuple a message.

A message is its length in four bytes and a marshalled tuple of plain values. Both
ends are the same interpreter and the same files; `marshal` is in the interpreter
itself, where json would bring `re` and two megabytes along.

First the watchdog sends HELLO, which proves that it is Python, has these very
files and is ready to read. Only then does it get the key.
"""

from __future__ import annotations

import marshal
import time

from ._core import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HELLO = f"espresso watchdog {__version__}\n".encode()

# Bytes. No message comes near; what claims more is not one of ours.
LONGEST = 1 << 20

# Seconds. Beats that follow each other faster are not all sent; the watchdog waits
# that much longer, so that none which was left out can be missed.
BEAT_SLACK = 0.05

_LENGTH = 4

# Goes on while the machine sleeps. macOS has no such clock by that name; there the
# monotonic one is like that.
_CLOCK: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def clock() -> float:
    """Seconds since the start of the machine, its sleep included."""
    return time.clock_gettime(_CLOCK)


def pack(*message: Any) -> bytes:
    """The bytes of a message. Never for secrets: they would be locals here."""
    body = marshal.dumps(message)
    return len(body).to_bytes(_LENGTH, "big") + body


class Inbox:
    """Bytes in, whole messages out."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> list[tuple[Any, ...]]:
        """The messages that are complete now.

        Raises ValueError for bytes that are no message.
        """
        self._data += data
        messages = []
        while (message := self._next()) is not None:
            messages.append(message)
        return messages

    def _next(self) -> tuple[Any, ...] | None:
        length = int.from_bytes(self._data[:_LENGTH], "big")
        if length > LONGEST:
            raise ValueError("not a message between a guard and its watchdog")
        end = _LENGTH + length
        if len(self._data) < end or not length:
            return None
        message: tuple[Any, ...] = marshal.loads(self._data[_LENGTH:end])
        del self._data[:end]
        return message
