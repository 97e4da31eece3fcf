"""What the server and the client write down, and what an answer is worth.

Records are JSON lines: they must survive the crash of the process that wrote
them. Times are ``time.monotonic()`` seconds, one clock for all processes of a
machine.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

Reading = Literal["done", "missing", "refused", "later", "again", "odd"]
"""What the contract takes a delivered request for, by the answer to it.

done
    200 of the promised shape.
missing
    Code 4200, nothing was open: a rejection, or a success with ``missing_ok``
    and after an unknown attempt.
refused
    A certain rejection that is final.
later
    A certain rejection that may be tried again (429, 4290, 5002).
again
    Unknown, to be tried again: no complete answer, or one such as 5000.
odd
    Unknown and final: a complete answer, but not a promised or documented one.
"""

CERTAIN: frozenset[Reading] = frozenset({"missing", "refused", "later"})

CODES: dict[int, tuple[Reading, str]] = {
    4000: ("refused", "BadRequestError"),
    4010: ("refused", "AuthenticationError"),
    4106: ("refused", "InvalidSymbolError"),
    4200: ("missing", "OrderNotFoundError"),
    4290: ("later", "RateLimitError"),
    4400: ("refused", "BadRequestError"),
    4404: ("refused", "BadRequestError"),
    4405: ("refused", "BadRequestError"),
    4406: ("refused", "BadRequestError"),
    5000: ("again", "ServerError"),
    5001: ("again", "UnavailableError"),
    5002: ("later", "TradingLockedError"),
}
"""Reading and exception class of each code whose meaning is settled.

Written down a second time on purpose: the judge must not read the table of the
client that it judges.
"""

CONNECT_TIMEOUT = 0.25
"""Seconds; calls last 0.3 to 1.0 s, a hanging handshake must leave time for more."""

RATE_CALLS = 10
RATE_WINDOW = 2.0
"""The exchange takes so many calls within so many seconds."""

REFUSED_STATUSES = frozenset({401, 403, 404, 405, 413, 415, 431})
STATUS_CLASSES = {
    401: "AuthenticationError",
    403: "PermissionDeniedError",
    429: "RateLimitError",
    502: "UnavailableError",
    503: "UnavailableError",
    504: "UnavailableError",
}


def reading_of(status: int, code: int | None) -> Reading:
    """What an error answer is worth; the code decides before the status."""
    if code is not None:
        return CODES[code][0] if code in CODES else "odd"
    if status == 429:
        return "later"
    if status >= 500 or status in {408, 425}:
        return "again"
    if status in REFUSED_STATUSES or 300 <= status < 400:
        return "refused"
    return "odd"


@dataclass(frozen=True, slots=True)
class Post:
    """One POST as the server saw it."""

    id: str
    conn: int
    nth: int  # the how-manieth request of its connection, from 1
    t: float  # when its first byte was seen
    fault: str
    complete: bool  # the whole request arrived
    carried: bool = False  # the orders were cancelled by this POST
    whole: bool = False  # all bytes of a well-framed answer reached the kernel
    reading: Reading = "again"
    statuses: tuple[int, ...] = ()  # every status line that was sent
    code: int | None = None
    ids: tuple[str, ...] = ()
    t_whole: float = 0.0
    end: str = ""  # what the server then did to the connection

    @property
    def certain(self) -> bool:
        """Was the client told for certain that this POST was turned down?"""
        return self.whole and self.reading in CERTAIN


CANCELLED = "CancelledError"
"""What a cancelled task says; its outcome may be "done", too."""


Flag = Literal["", "blind", "malformed", "orphan"]
"""What a note means to the judge.

blind
    The server may have thrown away a request unread: the only kind of delivery
    that is missing from its log.
malformed
    A request that is not what the exchange documents.
orphan
    Bytes of a request that was cut off before it named its symbol.
"""


@dataclass(frozen=True, slots=True)
class Note:
    """Anything else that happened on a connection."""

    conn: int
    t: float
    what: str
    fault: str = ""
    flag: Flag = ""


@dataclass(frozen=True, slots=True)
class Options:
    """The options of one call, in the words of ``cancel_all``."""

    timeout: float
    max_retries: int
    missing_ok: bool
    confirm: bool = False
    cancel_after: float | None = None
    """Seconds after which the task of the call is cancelled; None: it is not."""
    patience: float = 1.0
    """How many times longer than other clients' this one's time-outs are."""


@dataclass(frozen=True, slots=True)
class Said:
    """What a client said of one call: a result, or an exception's attributes."""

    result: dict[str, Any] | None = None
    error: str | None = None  # the exception's class name
    message: str = ""
    outcome: str | None = None
    attempts: int | None = None  # None where a client does not tell
    code: int | None = None
    status: int | None = None
    order_ids: tuple[str, ...] = ()
    ended: float | None = None  # when its last attempt was over, if that is known
    connect: float = 0.0  # seconds of the slowest connect that the client has seen


@dataclass(frozen=True, slots=True)
class Claim:
    """What a client said of one symbol, and under which circumstances."""

    id: str
    options: Options
    started: float
    elapsed: float
    said: Said
    worker: int = 0
    press: str = ""  # the first symbol of the call; "": this one, and it is alone

    @property
    def lasted(self) -> float:
        """Seconds from the call's start to the end of this symbol's part of it."""
        ended = self.said.ended
        return self.elapsed if ended is None else ended - self.started

    @property
    def was_cancelled(self) -> bool:
        return self.said.error == CANCELLED


@dataclass
class ServerLog:
    """All that the server wrote down, in the order of arrival."""

    posts: list[Post] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)


def dump(record: Post | Note | Claim) -> str:
    """One record as a JSON line."""
    return json.dumps({"kind": type(record).__name__, **asdict(record)}) + "\n"


def read_log(path: Path) -> ServerLog:
    """The server's log, sorted by time of arrival."""
    log = ServerLog()
    for row in _rows(path, "Post", "Note"):
        if row.pop("kind") == "Note":
            log.notes.append(Note(**row))
            continue
        post = Post(**row)
        log.posts.append(
            replace(post, statuses=tuple(post.statuses), ids=tuple(post.ids))
        )
    log.posts.sort(key=lambda post: post.t)
    log.notes.sort(key=lambda note: note.t)
    return log


def read_claims(path: Path) -> list[Claim]:
    """The claims in the order in which the calls ended."""
    claims = []
    for row in _rows(path, "Claim"):
        del row["kind"]
        row["options"] = Options(**row["options"])
        said = row["said"]
        said["order_ids"] = tuple(said["order_ids"])
        row["said"] = Said(**said)
        claims.append(Claim(**row))
    return claims


def _rows(path: Path, *kinds: str) -> list[dict[str, Any]]:
    """Every complete line; a crash may have cut the last one."""
    rows = []
    for line in path.read_text().splitlines(keepends=True):
        if line.endswith("\n"):
            row = json.loads(line)
            if row["kind"] in kinds:
                rows.append(row)
    return rows
