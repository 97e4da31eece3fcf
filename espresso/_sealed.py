"""A key and a proxy's URL on their way into a watchdog.

A guard keeps them as long as it is armed, since a watchdog that dies must be
replaced. No `repr`, no traceback with locals and no search for texts finds them:
what is kept lies under a mask of random bytes, and is wiped when it is over.
"""

from __future__ import annotations

import marshal
import os

from . import _core

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_LENGTH = 4


def _marshalled(key: str | None, proxy: str | None) -> bytes:
    try:
        return marshal.dumps((key, proxy))
    except ValueError:  # what it says of texts that it has no memory for
        raise MemoryError from None
    finally:
        del key, proxy


class Sealed:
    """The secrets of a client: its key (None: it has none of its own), its proxy."""

    __slots__ = ("_mask", "_masked")

    def __init__(self, key: str | None, proxy: str | None) -> None:
        try:
            self._masked = bytearray(_marshalled(key, proxy))
            self._mask = os.urandom(len(self._masked))
            self._masked[:] = self.opened()
        finally:
            del key, proxy

    def opened(self) -> bytes:
        """What was sealed, as `marshal` writes it. Not to be kept in a local."""
        return bytes(map(int.__xor__, self._masked, self._mask))

    @property
    def has_key(self) -> bool:
        return marshal.loads(self.opened())[0] is not None

    def copy(self, variable: str) -> Sealed:
        """The same, or with the key of this environment variable if it has none."""
        return Sealed(
            marshal.loads(self.opened())[0] or os.environ.get(variable),
            marshal.loads(self.opened())[1],
        )

    def key(self) -> _core.Key:
        return _core.Key(marshal.loads(self.opened())[0])

    def client(self, **options: Any) -> _core.Client:
        """A client with these secrets, and options as `_core.Client` takes them.

        It gets the key from here at each call, so that its close() wipes nothing.
        """
        return _core.Client(
            key=None,
            key_source=self.key,
            proxy=marshal.loads(self.opened())[1],
            **options,
        )

    def message(self) -> bytes:
        """The message that tells a watchdog. Not to be kept in a local."""
        return len(self._masked).to_bytes(_LENGTH, "big") + self.opened()

    def account(self, base_url: str) -> str:
        """A name for the account at this host that does not give the key away."""
        from hashlib import blake2b

        return blake2b(
            marshal.loads(self.opened())[0].encode() + b"\0" + base_url.encode(),
            digest_size=16,
        ).hexdigest()

    def forget(self) -> None:
        self._masked[:] = bytes(len(self._masked))
        self._mask = bytes(len(self._masked))
