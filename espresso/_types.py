"""The types of what goes out: a reply and an event.

Made when first asked for: ``dataclasses`` and ``typing`` cost more than the
call itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NotRequired, TypedDict


class CancelAllResult(TypedDict):
    """What ``cancel_all`` returns; an exact ``dict`` at run time.

    Members that the exchange adds [spec allows them] are kept.
    """

    symbol: str
    order_ids: list[str]
    lost_reply: NotRequired[Literal[True]]


@dataclass(frozen=True, slots=True)
class Event:
    """One attempt that has ended, as ``on_event`` gets it.

    Phases count in seconds from the attempt's start to the end of the phase;
    None where it was not reached or, on a reused connection, not needed.
    """

    symbol: str
    attempt: int
    """From 1; the attempts of one call."""
    status_code: int | None
    code: int | None
    """The API's code [field]."""
    outcome: str
    """Of this attempt: "done", "not_sent", "rejected" or "unknown"."""
    lost_reply: bool
    """The call succeeded after an attempt whose reply was lost."""
    dns: float | None
    connect: float | None
    tls: float | None
    first_byte: float | None
    total: float | None
    reused: bool
    """On a connection that an earlier call or warm_up() had opened."""
    remote: str
    """Numeric address of the peer, or ""."""
