"""The clients that can be judged: a face turns one call into what was `Said`.

espresso, espresso-list
    The blocking `espresso.Client`, one symbol a call or several.
espresso-async, espresso-async-list
    `espresso.AsyncClient`, the same; see async_clients.py.
naive, naive-async, naive-async-list
    What a plain HTTP library does: re-sends on a dead connection without a word
    and takes whatever lies on the connection for its answer. It must be caught.
careful
    A small reference for the contract, in pure Python. It must not be caught, or
    the judge is wrong.
crashing
    Dies of a signal. It must be caught, and the judge must survive it.

Another face is one more class with `cancel` and `close` and one line in `FACES`,
or in `ASYNC_FACES` if these two are coroutines.
"""

from __future__ import annotations

import contextlib
import http.client
import importlib
import json
import logging
import os
import random
import re
import select
import signal
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

from .records import (
    CANCELLED,
    CERTAIN,
    CODES,
    CONNECT_TIMEOUT,
    RATE_CALLS,
    STATUS_CLASSES,
    Options,
    Reading,
    Said,
    reading_of,
)

HOST = "127.0.0.1"
KEY = "sandbox-chaos"
PATIENCE = 2.5
PATIENCE_OF_TASKS = 4.0
"""So many times longer are time-outs for a face with hundreds of requests in flight,
so that the faults are what it suffers from, not the crowd."""


@dataclass(frozen=True)
class Target:
    """Where the hostile exchange listens, and the certificate to trust."""

    port: int
    ca_file: str

    @property
    def url(self) -> str:
        return f"https://{HOST}:{self.port}"


class Face(Protocol):
    """One client; `cancel` may be called from many threads at once.

    It says something of each symbol, in the order given.
    """

    most_symbols: int
    """Of one call; 1: the symbol is given alone, not as a list."""
    patience: float
    """The time-outs of its calls are so many times longer."""

    def cancel(self, symbols: Sequence[str], options: Options) -> list[Said]: ...

    def close(self) -> None: ...


# --- espresso ------------------------------------------------------------------


MANY = 14
"""Symbols of one call at most: more than the exchange takes within two seconds."""


class Witness:
    """Makes clients of one class of espresso, and puts their words down."""

    def __init__(
        self, target: Target, kind: str, most_symbols: int, patience: float
    ) -> None:
        # Imported here: the judge and the other clients do without the extension.
        espresso = importlib.import_module("espresso")
        self.error: type[Exception] = espresso.EspressoError
        self._partial: type[Exception] = espresso.PartialCancelError
        self._most = most_symbols
        # By symbol, which is of one call: attempts, and when the last one ended.
        self._seen: dict[str, tuple[int, float]] = {}
        self._slowest = 0.0
        self.client: Any = getattr(espresso, kind)(
            KEY,
            base_url=target.url,
            ca_file=target.ca_file,
            connect_timeout=CONNECT_TIMEOUT * patience,
            on_event=self._note_attempt,
        )
        # Thousands of retries are the point here, not news.
        logging.getLogger("espresso").setLevel(logging.CRITICAL)

    def _note_attempt(self, event: Any) -> None:
        self._seen[event.symbol] = (event.attempt, time.monotonic())
        self._slowest = max(self._slowest, event.tls or 0.0)

    def start(self, symbols: Sequence[str], options: Options) -> Any:
        """Call `cancel_all`: its result, or a coroutine."""
        return self.client.cancel_all(
            symbols[0] if self._most == 1 else list(symbols),
            missing_ok=options.missing_ok,
            confirm=options.confirm,
            timeout=options.timeout,
            max_retries=options.max_retries,
        )

    def of_results(self, symbols: Sequence[str], value: Any) -> list[Said]:
        results = [value] if self._most == 1 else value
        return [
            self._of_result(symbol, result)
            for symbol, result in zip(symbols, results, strict=True)
        ]

    def _of_result(self, symbol: str, result: dict[str, Any]) -> Said:
        attempts, ended = self._seen.pop(symbol)
        return Said(result=result, attempts=attempts, ended=ended)

    def of_error(self, symbols: Sequence[str], error: Any) -> list[Said]:
        if self._most == 1:
            return [self._of_failure(symbols[0], error)]
        if not isinstance(error, self._partial):
            raise TypeError(f"a list raised {error!r}")
        return [self._of_half(symbol, error) for symbol in symbols]

    def _of_half(self, symbol: str, error: Any) -> Said:
        """Each symbol is in one half of a PartialCancelError, and only there."""
        if (symbol in error.results) == (symbol in error.failed):
            raise ValueError(f"{symbol} is in both halves or in none")
        if symbol in error.results:
            return self._of_result(symbol, error.results[symbol])
        if error.failed[symbol] not in error.exceptions:
            raise ValueError(f"{symbol} failed, but is no member of the group")
        return self._of_failure(symbol, error.failed[symbol])

    def _of_failure(self, symbol: str, error: Any) -> Said:
        _, ended = self._seen.pop(symbol, (0, None))
        return replace(said_of(error), ended=ended, connect=self._slowest)

    def of_cancelled(self, symbols: Sequence[str], error: BaseException) -> list[Said]:
        """What the note on a CancelledError says of each symbol."""
        notes = "\n".join(getattr(error, "__notes__", []))
        return [self._of_note(symbol, notes) for symbol in symbols]

    def _of_note(self, symbol: str, notes: str) -> Said:
        # An attempt that was cut off has no event.
        attempts = self._seen.pop(symbol, (0, 0.0))[0] + 1
        said = {outcome for outcome, text in NOTES.items() if text % symbol in notes}
        return Said(
            error=CANCELLED,
            outcome=said.pop() if len(said) == 1 else None,
            attempts=attempts,
            message=notes,
        )


NOTES = {
    "not_sent": "the request for %s had not gone out",
    "rejected": "had refused the request for %s;",
    "unknown": "the request for %s had gone out; whether its orders are",
    "done": "the request for %s was carried out",
}


class Espresso:
    """`espresso.Client`, the blocking face."""

    def __init__(self, target: Target, most_symbols: int = 1) -> None:
        self.most_symbols = most_symbols
        self.patience = PATIENCE if most_symbols > 1 else 1.0
        self._witness = Witness(target, "Client", most_symbols, self.patience)

    def cancel(self, symbols: Sequence[str], options: Options) -> list[Said]:
        try:
            value = self._witness.start(symbols, options)
        except self._witness.error as error:
            return self._witness.of_error(symbols, error)
        return self._witness.of_results(symbols, value)

    def close(self) -> None:
        self._witness.client.close()


def said_of(error: Any) -> Said:
    """The attributes that contract.md promises on every exception."""
    return Said(
        error=type(error).__name__,
        message=str(error),
        outcome=error.outcome,
        attempts=error.attempts,
        code=error.code,
        status=error.status_code,
        order_ids=tuple(error.order_ids),
    )


# --- naive ---------------------------------------------------------------------


class Naive:
    """A keep-alive pool over `http.client`, as a plain HTTP library has it."""

    most_symbols = 1
    patience = 1.0

    def __init__(self, target: Target) -> None:
        self._target = target
        self._context = ssl.create_default_context(cafile=target.ca_file)
        self._idle: list[http.client.HTTPSConnection] = []

    def cancel(self, symbols: Sequence[str], options: Options) -> list[Said]:
        return [self._cancel(symbol, options) for symbol in symbols]

    def _cancel(self, symbol: str, options: Options) -> Said:
        outcome = "not_sent"
        for attempt in range(1, options.max_retries + 2):
            try:
                status, body = self._request(symbol, options.timeout)
                said = believe(symbol, status, body, options)
                return replace(said, attempts=attempt)
            except (OSError, http.client.HTTPException) as error:
                name = type(error).__name__
                connecting = isinstance(error, ConnectionRefusedError | ssl.SSLError)
                outcome = "not_sent" if connecting else "unknown"
        return Said(error=name, outcome=outcome, attempts=attempt, message="gave up")

    def _request(self, symbol: str, timeout: float) -> tuple[int, bytes]:
        """Send it, and send it again if a used connection turns out to be dead."""
        try:
            used = self._idle.pop()
        except IndexError:
            return self._exchange(self._connect(timeout), symbol)
        try:
            return self._exchange(used, symbol)
        except (ConnectionError, http.client.RemoteDisconnected):
            return self._exchange(self._connect(timeout), symbol)

    def _connect(self, timeout: float) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(
            HOST, self._target.port, timeout=timeout, context=self._context
        )

    def _exchange(
        self, connection: http.client.HTTPSConnection, symbol: str
    ) -> tuple[int, bytes]:
        headers = {"X-API-KEY": KEY, "Content-Type": "application/json"}
        body = json.dumps({"symbol": symbol})
        try:
            connection.request("POST", "/order/cancel-all", body, headers)
            answer = connection.getresponse()
            text = answer.read()
        except BaseException:
            connection.close()
            raise
        if connection.sock is not None:
            self._idle.append(connection)
        return answer.status, text

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()


def believe(symbol: str, status: int, body: bytes, options: Options) -> Said:
    """What a plain client makes of an answer; it knows nothing of `confirm`."""
    try:
        answer = json.loads(body)
    except ValueError:
        answer = None
    fields = answer if isinstance(answer, dict) else {}
    if status == 200 and "order_ids" in fields:
        return Said(result={"symbol": symbol, **fields})
    code = fields.get("code")
    if code == 4200 and (options.missing_ok or options.confirm):
        return Said(result={"symbol": symbol, "order_ids": []})
    certain = reading_of(status, code) in CERTAIN
    return Said(
        error=CODES.get(code or 0, ("odd", "APIError"))[1],
        outcome="rejected" if certain else "unknown",
        code=code,
        status=status,
    )


class Crashing(Naive):
    """Takes its process down in the middle of the run."""

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self._left = 50

    def cancel(self, symbols: Sequence[str], options: Options) -> list[Said]:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().cancel(symbols, options)


# --- careful -------------------------------------------------------------------


class Broken(Exception):
    """What came is not one complete, well-framed answer."""


class NotSent(Exception):
    """No connection stood; not one byte of the request has left."""


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Verdict:
    """How one attempt ended."""

    reading: Reading | None  # None: nothing was sent
    error: str = ""
    code: int | None = None
    status: int | None = None
    result: dict[str, Any] | None = None
    retry_after: float | None = None


class Wire:
    """One TLS connection that reads one strictly framed answer at a time."""

    STATUS_LINE = re.compile(rb"HTTP/1\.1 ([1-5]\d\d) [^\r\n]*$")
    HEAD_LIMIT = 64 * 1024
    BODY_LIMIT = 1024 * 1024

    def __init__(self, target: Target, context: ssl.SSLContext, until: float) -> None:
        timeout = min(CONNECT_TIMEOUT, until - time.monotonic())
        if timeout <= 0:
            raise NotSent("no time left")
        plain = None
        try:
            plain = socket.create_connection((HOST, target.port), timeout)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.sock = context.wrap_socket(plain, server_hostname=HOST)
        except OSError as error:
            if plain is not None:
                plain.close()
            raise NotSent(str(error)) from error
        self._buffer = bytearray()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.close()

    def is_silent(self) -> bool:
        """Nothing to read, neither data nor an end: fit for another request."""
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        return not (self._buffer or self.sock.pending() or poll.poll(0))

    def exchange(self, request: bytes, until: float) -> Answer:
        self._wait(until)
        self.sock.sendall(request)
        while True:
            status, headers = self._read_head(until)
            if status >= 200:
                return Answer(status, headers, self._read_body(headers, until))

    def _wait(self, until: float) -> None:
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError("the attempt's time is over")
        self.sock.settimeout(left)

    def _more(self, until: float) -> None:
        self._wait(until)
        data = self.sock.recv(1 << 16)
        if not data:
            raise Broken("closed in the middle")
        self._buffer += data

    def _take(self, count: int, until: float) -> bytes:
        while len(self._buffer) < count:
            self._more(until)
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data

    def _take_line(self, until: float) -> bytes:
        while (end := self._buffer.find(b"\r\n")) < 0:
            if len(self._buffer) > self.HEAD_LIMIT:
                raise Broken("too long a line")
            self._more(until)
        return self._take(end + 2, until)[:-2]

    def _read_head(self, until: float) -> tuple[int, dict[str, str]]:
        match = self.STATUS_LINE.match(self._take_line(until))
        if not match:
            raise Broken("not HTTP/1.1")
        headers: dict[str, str] = {}
        size = framings = 0
        while line := self._take_line(until).decode("latin-1"):
            size += len(line)
            if size > self.HEAD_LIMIT:
                raise Broken("too many headers")
            name, _, value = line.partition(":")
            framings += name.lower() in {"content-length", "transfer-encoding"}
            headers[name.lower()] = value.strip()
        if int(match[1]) >= 200 and framings != 1:
            raise Broken("not exactly one framing header")
        return int(match[1]), headers

    def _read_body(self, headers: dict[str, str], until: float) -> bytes:
        length = headers.get("content-length")
        if length is None:
            return self._read_chunks(until)
        if not length.isdecimal() or int(length) > self.BODY_LIMIT:
            raise Broken("no length, or too long a body")
        return self._take(int(length), until)

    def _read_chunks(self, until: float) -> bytes:
        body = b""
        while True:
            line = self._take_line(until)
            if not re.fullmatch(rb"[0-9a-fA-F]{1,6}", line):
                raise Broken("bad chunk size")
            size = int(line, 16)
            if len(body) + size > self.BODY_LIMIT:
                raise Broken("too long a body")
            body += self._take(size, until)
            if self._take(2, until) != b"\r\n":
                raise Broken("bad end of chunk")
            if size == 0:
                return body


@dataclass
class History:
    """What the attempts and rounds of a call have come to so far."""

    readings: set[Reading | None] = field(default_factory=set)
    attempts: int = 0
    ids: list[str] = field(default_factory=list)  # of a confirmed call's rounds

    @property
    def lost(self) -> bool:
        return not self.readings.isdisjoint({"again", "odd"})


class Careful:
    """The contract's table of attempts, written down as plainly as possible."""

    most_symbols = 1
    patience = 1.0

    def __init__(self, target: Target) -> None:
        self._target = target
        self._context = ssl.create_default_context(cafile=target.ca_file)
        self._idle: list[Wire] = []

    def cancel(self, symbols: Sequence[str], options: Options) -> list[Said]:
        return [self._cancel(symbol, options) for symbol in symbols]

    def _cancel(self, symbol: str, options: Options) -> Said:
        deadline = time.monotonic() + options.timeout
        history = History()
        while True:
            verdict = self._round(symbol, options, deadline, history)
            result = self._success(symbol, verdict, options, history)
            if result is None:
                return self._failure(verdict, history)
            if not options.confirm or verdict.reading == "missing":
                return Said(result=result, attempts=history.attempts)
            history.ids = result["order_ids"]
            is_late = time.monotonic() + 0.1 > deadline
            if is_late or history.attempts >= RATE_CALLS:
                return self._unproven(verdict, history)

    def _round(
        self, symbol: str, options: Options, deadline: float, history: History
    ) -> Verdict:
        """The attempts of one round; the last one's verdict."""
        first_until = time.monotonic() + 0.4 * options.timeout
        for attempt in range(1, options.max_retries + 2):
            until = min(first_until, deadline) if attempt == 1 else deadline
            verdict = self._attempt(symbol, until)
            history.attempts += 1
            pause = self._pause(verdict, attempt)
            if (
                pause is None
                or time.monotonic() + pause + 0.1 > deadline
                or attempt > options.max_retries
                or history.attempts >= RATE_CALLS
            ):
                break
            history.readings.add(verdict.reading)
            time.sleep(pause)
        return verdict

    @staticmethod
    def _success(
        symbol: str, verdict: Verdict, options: Options, history: History
    ) -> dict[str, Any] | None:
        result = verdict.result
        may_be_missing = options.missing_ok or options.confirm or history.lost
        if verdict.reading == "missing" and may_be_missing:
            result = {"symbol": symbol, "order_ids": []}
        if result is not None:
            result["order_ids"] = [*history.ids, *result["order_ids"]]
            if history.lost:
                result["lost_reply"] = True
        return result

    @staticmethod
    def _unproven(verdict: Verdict, history: History) -> Said:
        """A round was carried out, and there is no time for the next."""
        had_orders = bool(verdict.result and verdict.result["order_ids"])
        return Said(
            error="StillOpenError" if had_orders else "RequestTimeoutError",
            outcome="unknown",
            attempts=history.attempts,
            order_ids=tuple(history.ids),
        )

    @staticmethod
    def _pause(verdict: Verdict, attempt: int) -> float | None:
        """Seconds until the next attempt, None if there must not be one."""
        if verdict.reading is None:
            return 0.0 if attempt == 1 else 0.1 * random.uniform(0.5, 1)
        if verdict.error == "RateLimitError":
            return 2.0 if verdict.retry_after is None else verdict.retry_after
        if verdict.reading in {"again", "later"}:
            return 0.1 * 2.0 ** (attempt - 1) * random.uniform(0.5, 1)
        return None

    @staticmethod
    def _failure(verdict: Verdict, history: History) -> Said:
        history.readings.add(verdict.reading)
        outcome = "not_sent" if history.readings == {None} else "rejected"
        if history.lost or (outcome == "not_sent" and history.ids):
            outcome = "unknown"
        return Said(
            error=verdict.error,
            outcome=outcome,
            attempts=history.attempts,
            code=verdict.code,
            status=verdict.status,
            order_ids=tuple(history.ids),
        )

    def _attempt(self, symbol: str, until: float) -> Verdict:
        try:
            wire = self._silent_wire() or Wire(self._target, self._context, until)
        except NotSent:
            return Verdict(None, "ConnectError")
        try:
            answer = wire.exchange(_request(symbol), until)
        except (OSError, Broken) as error:
            wire.close()
            timed_out = isinstance(error, TimeoutError)
            lost = "RequestTimeoutError" if timed_out else "ConnectionLostError"
            return Verdict("again", lost)
        self._idle.append(wire)
        return _interpret(symbol, answer)

    def _silent_wire(self) -> Wire | None:
        while self._idle:
            try:
                wire = self._idle.pop()
            except IndexError:  # another thread was faster
                break
            if wire.is_silent():
                return wire
            wire.close()
        return None

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()


def _request(symbol: str) -> bytes:
    body = json.dumps({"symbol": symbol}).encode()
    lines = (
        "POST /order/cancel-all HTTP/1.1",
        f"Host: {HOST}",
        f"X-API-KEY: {KEY}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
    )
    return "\r\n".join((*lines, "", "")).encode() + body


def _interpret(symbol: str, answer: Answer) -> Verdict:
    """From a complete answer to what it is worth."""
    try:
        body = json.loads(answer.body)
    except ValueError:
        body = None
    status = answer.status
    fields = body if isinstance(body, dict) else {}
    code = fields.get("code")
    if type(code) is int and "order_ids" not in fields:
        reading, name = CODES.get(code, ("odd", "APIError"))
        return Verdict(reading, name, code, status, retry_after=_wait_of(answer))
    if status == 200 and _is_promised(symbol, fields):
        ids = fields.get("order_ids") or []
        return Verdict("done", result={"symbol": symbol, **fields, "order_ids": ids})
    if status < 400:
        reading = "odd" if status < 300 else "refused"
        return Verdict(reading, "ResponseError", None, status)
    name = STATUS_CLASSES.get(status, "ServerError" if status >= 500 else "APIError")
    reading = reading_of(status, None)
    return Verdict(reading, name, None, status, retry_after=_wait_of(answer))


def _wait_of(answer: Answer) -> float | None:
    value = answer.headers.get("retry-after")
    return None if value is None else float(value)


def _is_promised(symbol: str, fields: dict[str, Any]) -> bool:
    """Names the symbol or carries a list of ids, and contradicts itself nowhere."""
    if "code" in fields or fields.get("error") is not None:
        return False
    ids = fields.get("order_ids")
    if "symbol" not in fields and not isinstance(ids, list):
        return False
    if str(fields.get("symbol", symbol)).lower() != symbol.lower():
        return False
    return all(isinstance(one, str) and "\0" not in one for one in ids or [])


FACES: dict[str, Callable[[Target], Face]] = {
    "espresso": Espresso,
    "espresso-list": partial(Espresso, most_symbols=MANY),
    "naive": Naive,
    "careful": Careful,
    "crashing": Crashing,
}


class Control:
    """A worker's line to the server; see `server.py`."""

    def __init__(self, port: int) -> None:
        self._sock = socket.create_connection((HOST, port))
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def stand_still(self, worker: str) -> None:
        """Let the server act on the idle connections of this worker's client."""
        self._sock.sendall(f"idle {worker}\n".encode())
        if self._sock.recv(16) != b"ok\n":
            raise ConnectionError("the server has gone")

    def close(self) -> None:
        self._sock.close()
