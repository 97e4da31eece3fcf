"""An exchange as a notebook shows it: open orders, armed faults, last calls.

Plain tables without colours of their own, so that they are readable in a light and in
a dark notebook. All text is escaped, and no key is shown: accounts have numbers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .book import Book, Call
    from .fault_queue import Armed

__all__ = ["html"]

SHOWN = 10
"""Rows of a table that are shown; the caption counts all."""
SHOWN_IDS = 3
LENGTH = 100
"""Characters of a text that are shown."""

_LEFT = ' style="text-align:left"'


def html(where: str, book: Book, armed: Sequence[Armed]) -> str:
    """The tables of one moment.

    where: its address, or why it has none
    """
    with book.at_once():
        keys = book.keys()
        orders = book.orders()
        calls = book.calls()
    numbers = {key: str(number) for number, key in enumerate(keys, 1)}

    def hidden(text: str) -> str:
        """Somebody may have sent a key as a symbol, or in a path."""
        for key in keys:
            text = text.replace(key, "(a key)")
        return text

    return "\n".join(
        [
            f"<div><p><b>Sandbox exchange</b>, {_text(where)}</p>",
            _orders([(key, hidden(it), ids) for key, it, ids in orders], numbers),
            _faults(armed),
            _calls([_with_texts(call, hidden) for call in calls], numbers),
            "</div>",
        ]
    )


def _with_texts(call: Call, change: Callable[[str], str]) -> Call:
    symbol = None if call.symbol is None else change(call.symbol)
    return replace(call, path=change(call.path), symbol=symbol)


def _orders(orders: Sequence[tuple[str, str, list[str]]], of: dict[str, str]) -> str:
    caption = f"Open orders: {sum(len(ids) for _, _, ids in orders)}"
    if len(orders) > SHOWN:
        caption += f"; the first {SHOWN} of {len(orders)} rows"
    rows = [
        (symbol, of[key], len(ids), _ids(ids)) for key, symbol, ids in orders[:SHOWN]
    ]
    return _table(caption, ("symbol", "account", "orders", "ids, oldest first"), rows)


def _faults(armed: Sequence[Armed]) -> str:
    caption = f"Armed faults: {len(armed)}"
    if len(armed) > SHOWN:
        caption += f"; the first {SHOWN}"
    rows = [
        (
            fault.name,
            "connections" if fault.strikes_connections else "calls",
            "until cleared" if fault.times is None else fault.times,
            ", ".join(f"{name}={value!r}" for name, value in fault.parameters),
        )
        for fault in armed[:SHOWN]
    ]
    return _table(caption, ("fault", "strikes", "times", "parameters"), rows)


def _calls(calls: Sequence[Call], of: dict[str, str]) -> str:
    caption = f"Calls: {len(calls)}"
    if len(calls) > SHOWN:
        caption += f"; the last {SHOWN}"
    first = max(len(calls) - SHOWN, 0)
    rows = [
        (
            number,
            time.strftime("%H:%M:%S", time.localtime(call.time)),
            f"{call.method} {call.path}",
            "" if call.symbol is None else call.symbol,
            "unknown" if call.key is None else of[call.key],
            call.fault or "",
            "no answer" if call.status is None else call.status,
            _ids(call.cancelled),
        )
        for number, call in enumerate(calls[first:], first + 1)
    ]
    head = ("", "time", "call", "symbol", "account", "fault", "status", "cancelled")
    return _table(caption, head, rows)


def _ids(ids: Sequence[str]) -> str:
    """The first part of each UUID, which tells them apart and leaves room."""
    more = len(ids) - SHOWN_IDS
    shown = ", ".join(f"{it[:8]}…" for it in ids[:SHOWN_IDS])
    return f"{shown} and {more} more" if more > 0 else shown


def _table(caption: str, head: Iterable[str], rows: Sequence[Iterable[object]]) -> str:
    """A table with a caption; the caption alone where there is nothing in it."""
    if not rows:
        return f"<p>{_text(caption)}</p>"
    body = "".join(f"<tr>{_cells('td', row)}</tr>" for row in rows)
    return (
        f"<table><caption{_LEFT}>{_text(caption)}</caption>"
        f"<thead><tr>{_cells('th', head)}</tr></thead><tbody>{body}</tbody></table>"
    )


def _cells(tag: str, values: Iterable[object]) -> str:
    return "".join(f"<{tag}{_LEFT}>{_text(value)}</{tag}>" for value in values)


def _text(value: object) -> str:
    text = str(value)
    return escape(text if len(text) <= LENGTH else f"{text[:LENGTH]}…")
