"""A call of Python, and what it has told. Light: each child process imports it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import espresso
from tests.faces import FACES, Face

SYMBOL = "ADAUSDM"
IN_PYTHON = {face.name: face for face in FACES if face.name != "list twice"}


@dataclass(frozen=True)
class Told:
    """What came of a call."""

    kind: str
    """The class of the exception; "done": a result."""
    outcome: str
    took: float
    """Seconds, measured by the caller."""
    attempts: int = 0
    retryable: bool = False
    elapsed: float = 0.0
    symbol: str | None = None
    code: int | None = None
    order_ids: list[str] = field(default_factory=list)
    lost_reply: bool = False
    said: str = ""
    """Everything that was said: no secret may be in it."""
    status: int | None = None
    """Of the command line."""


def told_by(error: BaseException, took: float) -> Told:
    """What an exception tells."""
    if not isinstance(error, espresso.EspressoError):
        notes = _notes_of(error)
        outcome = "unknown" if "had gone out" in notes else "?"
        outcome = "not_sent" if "had not gone out" in notes else outcome
        return Told(type(error).__name__, outcome, took, said=notes)
    return Told(
        kind=type(error).__name__,
        outcome=error.outcome,
        took=took,
        attempts=error.attempts,
        retryable=error.retryable,
        elapsed=error.elapsed,
        symbol=error.symbol,
        code=error.code,
        order_ids=error.order_ids,
        said=f"{error} {vars(error)!r}",
    )


def _notes_of(error: BaseException) -> str:
    """asyncio.run raises a KeyboardInterrupt of its own in place of what has notes."""
    notes = getattr(error, "__notes__", None)
    if notes is None and error.__context__ is not None:
        return _notes_of(error.__context__)
    return " ".join(notes or ())


def told_of(result: Mapping[str, Any], took: float, attempts: int) -> Told:
    """What a result tells."""
    return Told(
        kind="done",
        outcome="done",
        took=took,
        attempts=attempts,
        symbol=result["symbol"],
        order_ids=result["order_ids"],
        lost_reply=result.get("lost_reply", False),
        said=repr(result),
    )


def in_python(face: Face, place: Any, options: Mapping[str, Any]) -> list[Told]:
    """In this process."""
    attempts: list[int] = []
    client = face.client(
        place,
        **{
            "on_event": lambda event: attempts.append(event.attempt),
            **place.options,
            **options,
        },
    )
    try:
        told = [_once(face, client, attempts)]
        if told[0].kind == "done":
            attempts.clear()
            told.append(_once(face, client, attempts))
    finally:
        close(client)
    return told


def _once(face: Face, client: Any, attempts: list[int]) -> Told:
    begun = time.monotonic()
    try:
        result = face.press(client, SYMBOL)
    except espresso.EspressoError as error:
        return told_by(error, time.monotonic() - begun)
    return told_of(result, time.monotonic() - begun, len(attempts))


def close(client: Any) -> None:
    if isinstance(client, espresso.AsyncClient):
        asyncio.run(client.aclose())
    else:
        client.close()


def as_line(told: Told) -> str:
    return json.dumps(asdict(told))
