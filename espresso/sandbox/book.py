"""What the sandbox exchange knows: accounts, open orders, rates and past calls.

Thread-safe: the test's thread places orders and reads while the server's thread
cancels.  One lock guards all of it, so that whoever sees an order gone also sees
the call that cancelled it.
"""

from __future__ import annotations

import secrets
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

__all__ = ["Book", "Call"]

# [field] the pairs seen on the live exchange; any other becomes known by placing.
LISTED = ("ADAUSDM", "NIGHTUSDM", "IAGUSDM")


@dataclass(frozen=True, slots=True)
class Call:
    """One request as the exchange saw it, and what became of it."""

    method: str
    path: str
    symbol: str | None
    """The symbol asked for; None if the body named none."""
    status: int | None
    """HTTP status of the answer; None while, or if, none was sent in full."""
    fault: str | None
    """The name of the fault that struck it, if one did."""
    cancelled: tuple[str, ...]
    """The ids of the orders it cancelled, whether or not it was answered."""
    key: str | None
    """The sandbox key it came with; None for none or a foreign one, which is
    not kept: it could be a real one."""
    connection: int
    """Counts the connections from 1: the same number, the same connection."""
    time: float
    """When it came, in seconds since the epoch."""
    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(repr=False, compare=False)
    """Its headers, names in lower case, without X-API-KEY."""

    @property
    def carried_out(self) -> bool:
        """Whether orders were cancelled, be it answered or not."""
        return bool(self.cancelled)


class Book:
    """The state of one exchange."""

    def __init__(self, rate: tuple[int, float] | None) -> None:
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._rate = rate
        self._keys: list[str] = []
        self._orders: dict[tuple[str, str], list[str]] = {}
        self._symbols = set(LISTED)
        self._admitted: dict[str, deque[float]] = {}
        self._calls: dict[int, Call] = {}
        self._next_call = 0

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """What is done inside is seen by other threads as one step."""
        with self._lock:
            yield

    def new_key(self) -> str:
        key = f"sandbox-{secrets.token_hex(16)}"
        with self._lock:
            self._keys.append(key)
        return key

    def knows_key(self, key: str | None) -> bool:
        with self._lock:
            return key in self._keys

    def knows_symbol(self, symbol: str) -> bool:
        with self._lock:
            return symbol in self._symbols

    def place(self, symbol: str, n: int, key: str) -> list[str]:
        """Open n orders; n = 0 only makes the symbol known."""
        ids = [str(uuid.uuid4()) for _ in range(n)]
        with self._changed:
            self._symbols.add(symbol)
            if ids:
                self._orders.setdefault((key, symbol), []).extend(ids)
            self._changed.notify_all()
        return ids

    def cancel(self, symbol: str, key: str, limit: int | None = None) -> list[str]:
        """Close the oldest `limit` orders, or all; return their ids."""
        with self._lock:
            ids = self._orders.pop((key, symbol), [])
            stop = len(ids) if limit is None else limit
            if ids[stop:]:
                self._orders[key, symbol] = ids[stop:]
            return ids[:stop]

    def open_orders(self, symbol: str | None, key: str) -> list[str]:
        with self._lock:
            return [
                order
                for (owner, pair), ids in self._orders.items()
                if owner == key and symbol in (None, pair)
                for order in ids
            ]

    def keys(self) -> list[str]:
        """The keys of all accounts, oldest first."""
        with self._lock:
            return list(self._keys)

    def orders(self) -> list[tuple[str, str, list[str]]]:
        """Key, symbol and ids of all that is open."""
        with self._lock:
            return [(key, pair, list(ids)) for (key, pair), ids in self._orders.items()]

    def open_count(self) -> int:
        """How many orders are open, all accounts together."""
        with self._lock:
            return sum(map(len, self._orders.values()))

    def admit(self, key: str) -> float | None:
        """Count one call of the account; or seconds to wait if it is over the rate.

        A sliding window; a call that is refused does not count.
        """
        if self._rate is None:
            return None
        limit, window = self._rate
        with self._lock:
            now = time.monotonic()
            admitted = self._admitted.setdefault(key, deque())
            while admitted and now - admitted[0] >= window:
                admitted.popleft()
            if len(admitted) >= limit:
                return window - (now - admitted[0])
            admitted.append(now)
            return None

    def note(self, call: Call) -> int:
        """Keep a call; the number is for `renote`."""
        with self._changed:
            number = self._next_call
            self._next_call += 1
            self._calls[number] = call
            self._changed.notify_all()
        return number

    def renote(self, number: int, **changes: Any) -> None:
        """Change a call kept before; nothing if it was forgotten meanwhile."""
        with self._changed:
            if number in self._calls:
                self._calls[number] = replace(self._calls[number], **changes)
            self._changed.notify_all()

    def requests(self) -> list[Call]:
        """Every request, oldest first."""
        with self._lock:
            return list(self._calls.values())

    def calls(self) -> list[Call]:
        """Every request but HEAD, which is how a client warms its connection."""
        return [call for call in self.requests() if call.method != "HEAD"]

    def wait_for_calls(self, n: int, timeout: float) -> list[Call]:
        """Wait until there are n calls.  Raises TimeoutError."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self.calls()) >= n, timeout):
                raise TimeoutError(f"{len(self.calls())} of {n} calls in {timeout} s")
            return self.calls()

    def clear(self) -> None:
        """Forget orders, calls and rates; keep the accounts and known symbols."""
        with self._lock:
            self._orders.clear()
            self._admitted.clear()
            self._calls.clear()
