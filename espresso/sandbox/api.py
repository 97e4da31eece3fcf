"""The one operation of the API, answered as the live server answers it.

No sockets here: a request and the book in, a reply out.  Order of the checks:
route, key, rate, body, symbol, open orders.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .book import Book
from .replies import Reply, load

__all__ = ["CANCEL_ALL", "Answer", "Api", "Request"]

CANCEL_ALL = "/order/cancel-all"


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request, read in full."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def key(self) -> str | None:
        return self.headers.get("x-api-key")

    @property
    def is_cancel_all(self) -> bool:
        return self.method == "POST" and self.path == CANCEL_ALL

    @property
    def symbol(self) -> str | None:
        """The body's symbol; None if the body is not what the spec asks for."""
        try:
            document: Any = json.loads(self.body)
        except (ValueError, RecursionError):
            return None
        symbol = document.get("symbol") if isinstance(document, dict) else None
        return symbol if isinstance(symbol, str) else None


@dataclass(frozen=True, slots=True)
class Answer:
    """What the exchange says, and what it did before it said so."""

    reply: Reply
    cancelled: tuple[str, ...] = ()
    literal: bool = False
    """Send the bytes exactly as they are: no fresh Date."""


class Api:
    """The exchange's side of the calls."""

    def __init__(self, book: Book) -> None:
        self.book = book

    def answer(self, request: Request, unknown_symbol: str = "400_code_4106") -> Answer:
        """Carry the request out and answer it."""
        if not request.is_cancel_all:
            return Answer(load("404_text"))
        key = request.key
        if key is None or not self.book.knows_key(key):
            return Answer(load("401_code_4010"))
        wait = self.book.admit(key)
        if wait is not None:
            return Answer(_rate_limited(wait))
        symbol = request.symbol
        if symbol is None:
            return Answer(load("422_code_4000"))
        if not self.book.knows_symbol(symbol):
            return Answer(load(unknown_symbol))
        return self._cancel_all(symbol, key)

    def _cancel_all(self, symbol: str, key: str) -> Answer:
        ids = self.book.cancel(symbol, key)
        if not ids:
            return Answer(load("400_code_4200"))
        done = load("200_two_orders").with_json({"symbol": symbol, "order_ids": ids})
        return Answer(done, tuple(ids))


def _rate_limited(wait: float) -> Reply:
    # Whole seconds, as the header wants them, and never a wait that is too short.
    seconds = max(1, math.ceil(wait))
    return load("429_code_4290").with_header("Retry-After", str(seconds))
