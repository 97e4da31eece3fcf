"""The named faults: what can go wrong between a client and the exchange.

A fault strikes one cancel-all call and is then used up.  Each says in its first line
whether the cancel is **carried out**, for that is what the client cannot see and must
not guess.  ``Exchange.fault(name, times, **params)`` takes the fields of the classes
below as parameters.  Those that strike a connection: see connection_faults.py.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar

from .api import Answer, Api, Request
from .checks import check_choice, check_count, check_flag, check_number
from .connection_faults import CONNECTION_FAULTS, ConnectionFault
from .replies import Reply, load

if TYPE_CHECKING:
    from .server import Line

__all__ = ["FAULTS", "Fault", "Scripted"]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """No fault: the call is carried out and answered."""

    name: ClassVar[str | None] = None

    def answer(self, api: Api, request: Request) -> Answer:
        """Decide what is done and said.  Does not wait; called under the lock."""
        return api.answer(request)

    async def deliver(self, line: Line, data: bytes) -> None:
        """Bring the answer's bytes to the client."""
        await line.finish(data)


@dataclass(frozen=True, kw_only=True)
class _Instead(Fault):
    """The answer of one reply file in place of the exchange's own."""

    file: ClassVar[str]

    def answer(self, api: Api, request: Request) -> Answer:
        return Answer(load(self.file))


@dataclass(frozen=True, kw_only=True)
class NothingOpen(_Instead):
    """Not carried out: HTTP 400, code 4200, whatever is open.

    [field] Without any fault this is the answer when nothing is open, as on the
    live server (the specification says 404).
    """

    name: ClassVar[str | None] = "4200_as_400"
    file: ClassVar[str] = "400_code_4200"


@dataclass(frozen=True, kw_only=True)
class InternalError(Fault):
    """Carried out for the oldest `cancel` orders: HTTP 400, code 5000.  [field]

    `cancel`: how many orders it cancels before it fails; 0 by default.
    """

    name: ClassVar[str | None] = "5000_as_400"

    cancel: int = 0

    def __post_init__(self) -> None:
        check_count("cancel", self.cancel)

    def answer(self, api: Api, request: Request) -> Answer:
        key, symbol = request.key, request.symbol
        ids: list[str] = []
        if key is not None and symbol is not None:
            ids = api.book.cancel(symbol, key, self.cancel)
        return Answer(load("400_code_5000"), tuple(ids))


@dataclass(frozen=True, kw_only=True)
class Forbidden(_Instead):
    """Not carried out: HTTP 403 without a body, from the gateway.  [field]"""

    name: ClassVar[str | None] = "403_empty"
    file: ClassVar[str] = "403_empty"


@dataclass(frozen=True, kw_only=True)
class NoRoute(_Instead):
    """Not carried out: HTTP 404 ``404 page not found``, from the router.  [field]"""

    name: ClassVar[str | None] = "404_text"
    file: ClassVar[str] = "404_text"


@dataclass(frozen=True, kw_only=True)
class GatewayError(Fault):
    """Not carried out unless `carry_out`: HTTP 503 with Envoy's text.  [field]

    `reason`: ``"timeout"`` (connection timeout) or ``"refused"`` (connection
    refused).  `carry_out`: the exchange did it, and the gateway lost the answer.
    """

    name: ClassVar[str | None] = "envoy_503"

    reason: str = "timeout"
    carry_out: bool = False

    def __post_init__(self) -> None:
        check_choice("reason", self.reason, ("timeout", "refused"))
        check_flag("carry_out", self.carry_out)

    def answer(self, api: Api, request: Request) -> Answer:
        ids = api.answer(request).cancelled if self.carry_out else ()
        return Answer(load(f"503_envoy_{self.reason}"), ids)


@dataclass(frozen=True, kw_only=True)
class TradingLocked(_Instead):
    """Not carried out: HTTP 400, code 5002, trading is locked.  [field] the code

    The status is the one under which the live server sends its 5000.
    """

    name: ClassVar[str | None] = "locked_5002"
    file: ClassVar[str] = "400_code_5002"


@dataclass(frozen=True, kw_only=True)
class MaintenancePage(_Instead):
    """Not carried out: HTTP 200 with a page of HTML."""

    name: ClassVar[str | None] = "html_200"
    file: ClassVar[str] = "200_html"


@dataclass(frozen=True, kw_only=True)
class UnknownSymbol(Fault):
    """Carried out, but a symbol that is not listed gets 4200 instead of 4106.

    What the live server says to such a symbol is not known: both can be met.
    """

    name: ClassVar[str | None] = "unknown_symbol_4200"

    def answer(self, api: Api, request: Request) -> Answer:
        return api.answer(request, unknown_symbol="400_code_4200")


@dataclass(frozen=True, kw_only=True)
class Hang(Fault):
    """Not carried out unless `carry_out`: no answer, the connection stays open.

    It lasts until the client or the exchange closes.  `sent`: so many bytes of the
    answer arrive before (0: none), to hang within its head or its body.
    """

    name: ClassVar[str | None] = "hang"

    carry_out: bool = False
    sent: int = 0

    def __post_init__(self) -> None:
        check_flag("carry_out", self.carry_out)
        check_count("sent", self.sent)

    def answer(self, api: Api, request: Request) -> Answer:
        if self.carry_out:
            return api.answer(request)
        return Answer(load("200_two_orders"))

    async def deliver(self, line: Line, data: bytes) -> None:
        # Never the last byte: an answer that is complete is no hang.
        await line.send(data[: min(self.sent, len(data) - 1)])
        await line.pause(None)
        line.drop()


@dataclass(frozen=True, kw_only=True)
class Reset(Fault):
    """Not carried out: the connection is reset (RST) when the request came."""

    name: ClassVar[str | None] = "reset"

    def answer(self, api: Api, request: Request) -> Answer:
        return Answer(load("200_two_orders"))

    async def deliver(self, line: Line, data: bytes) -> None:
        line.reset()


@dataclass(frozen=True, kw_only=True)
class ResetAfterRead(Fault):
    """Carried out, then the connection is reset (RST): the reply is lost."""

    name: ClassVar[str | None] = "reset_after_read"

    async def deliver(self, line: Line, data: bytes) -> None:
        line.reset()


@dataclass(frozen=True, kw_only=True)
class Truncate(Fault):
    """Carried out; only the first part of the answer arrives, then an end.

    `sent`: bytes that arrive (None: the head and half of the body).  `end`: how
    the connection ends, ``"close_notify"`` (TLS's own farewell), ``"fin"``
    (without it) or ``"reset"``.
    """

    name: ClassVar[str | None] = "truncate"

    sent: int | None = None
    end: str = "close_notify"

    def __post_init__(self) -> None:
        if self.sent is not None:
            check_count("sent", self.sent)
        check_choice("end", self.end, ("close_notify", "fin", "reset"))

    async def deliver(self, line: Line, data: bytes) -> None:
        half = len(data) - (len(Reply(data).body) + 1) // 2
        sent = half if self.sent is None else self.sent
        await line.send(data[: min(sent, len(data) - 1)])
        if self.end == "reset":
            line.reset()
        elif self.end == "fin":
            line.drop()
        else:
            line.close()


@dataclass(frozen=True, kw_only=True)
class Drip(Fault):
    """Carried out; the answer arrives in drops of `size` bytes.

    `interval`: seconds between two drops.  `sent`: bytes that arrive at once
    before the first drop, to drip only within the body.
    """

    name: ClassVar[str | None] = "drip"

    interval: float = 0.1
    size: int = 1
    sent: int = 0

    def __post_init__(self) -> None:
        check_number("interval", self.interval)
        check_count("size", self.size, least=1)
        check_count("sent", self.sent)

    async def deliver(self, line: Line, data: bytes) -> None:
        at = min(self.sent, len(data) - 1)
        await line.send(data[:at])
        while at + self.size < len(data):
            await line.send(data[at : at + self.size])
            at += self.size
            if not await line.pause(self.interval):
                return
        await line.finish(data[at:])


@dataclass(frozen=True, kw_only=True)
class Slow(Fault):
    """Carried out at once; the answer comes `seconds` later."""

    name: ClassVar[str | None] = "slow"

    seconds: float = 1.0

    def __post_init__(self) -> None:
        check_number("seconds", self.seconds)

    async def deliver(self, line: Line, data: bytes) -> None:
        if await line.pause(self.seconds):
            await line.finish(data)


@dataclass(frozen=True, kw_only=True)
class LateOrder(Fault):
    """Carried out and answered; `after` seconds after the cancel `n` orders appear.

    The bot's last order was still on its way.  `after=0`: it is there before the
    answer arrives.
    """

    name: ClassVar[str | None] = "late_order"

    after: float = 0.2
    n: int = 1

    def __post_init__(self) -> None:
        check_number("after", self.after)
        check_count("n", self.n, least=1)

    def answer(self, api: Api, request: Request) -> Answer:
        answer = api.answer(request)
        key, symbol = request.key, request.symbol
        if key is not None and api.book.knows_key(key) and symbol is not None:
            if self.after == 0:
                api.book.place(symbol, self.n, key)
            else:
                loop = asyncio.get_running_loop()
                loop.call_later(self.after, api.book.place, symbol, self.n, key)
        return answer


@dataclass(frozen=True, kw_only=True)
class Scripted(Fault):
    """Not carried out: these very bytes.  Made by ``Exchange.reply``."""

    name: ClassVar[str | None] = "reply"
    script: Reply
    close: bool = False

    def answer(self, api: Api, request: Request) -> Answer:
        return Answer(self.script, literal=True)

    async def deliver(self, line: Line, data: bytes) -> None:
        await line.finish(data)
        if self.close:
            line.close()


_CALL_FAULTS: tuple[type[Fault], ...] = (
    NothingOpen,
    InternalError,
    Forbidden,
    NoRoute,
    GatewayError,
    TradingLocked,
    MaintenancePage,
    UnknownSymbol,
    Hang,
    Reset,
    ResetAfterRead,
    Truncate,
    Drip,
    Slow,
    LateOrder,
)

_ALL_FAULTS: tuple[type[Fault] | type[ConnectionFault], ...] = (
    *_CALL_FAULTS,
    *CONNECTION_FAULTS,
)

FAULTS = MappingProxyType({str(fault.name): fault for fault in _ALL_FAULTS})
"""Every fault by its name."""
