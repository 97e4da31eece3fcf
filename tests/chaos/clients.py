"""The clients that can be judged: a face turns one call into what was `Said`.

espresso
    The blocking `espresso.Client`.
naive
    What a plain HTTP library does: re-sends on a dead connection without a word
    and takes whatever lies on the connection for its answer. It must be caught.
careful
    A small reference for the contract, in pure Python. It must not be caught, or
    the judge is wrong.
crashing
    Dies of a signal. It must be caught, and the judge must survive it.

Another face is one more class with `cancel` and `close` and one line in `FACES`.
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
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

from .records import CERTAIN, CODES, STATUS_CLASSES, Options, Reading, Said, reading_of

HOST = "127.0.0.1"
KEY = "sandbox-chaos"
CONNECT_TIMEOUT = 0.25
"""Seconds; calls last 0.3 to 1.0 s, a hanging handshake must leave time for more."""


@dataclass(frozen=True)
class Target:
    """Where the hostile exchange listens, and the certificate to trust."""

    port: int
    ca_file: str

    @property
    def url(self) -> str:
        return f"https://{HOST}:{self.port}"


class Face(Protocol):
    """One client; `cancel` may be called from many threads at once."""

    def cancel(self, symbol: str, options: Options) -> Said: ...

    def close(self) -> None: ...


# --- espresso ------------------------------------------------------------------


class Espresso:
    """`espresso.Client`, the blocking face."""

    def __init__(self, target: Target) -> None:
        # Imported here: the judge and the other clients do without the extension.
        espresso = importlib.import_module("espresso")
        self._error: type[Exception] = espresso.EspressoError
        # on_event runs on the calling thread: each worker sees its own attempts.
        self._seen = threading.local()
        self._client: Any = espresso.Client(
            KEY,
            base_url=target.url,
            ca_file=target.ca_file,
            connect_timeout=CONNECT_TIMEOUT,
            on_event=self._note_attempt,
        )
        # Thousands of retries are the point here, not news.
        logging.getLogger("espresso").setLevel(logging.CRITICAL)

    def _note_attempt(self, event: Any) -> None:
        self._seen.attempts = event.attempt

    def cancel(self, symbol: str, options: Options) -> Said:
        try:
            result = self._client.cancel_all(
                symbol,
                missing_ok=options.missing_ok,
                timeout=options.timeout,
                max_retries=options.max_retries,
            )
        except self._error as error:
            return said_of(error)
        return Said(result=result, attempts=self._seen.attempts)

    def close(self) -> None:
        self._client.close()


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

    def __init__(self, target: Target) -> None:
        self._target = target
        self._context = ssl.create_default_context(cafile=target.ca_file)
        self._idle: list[http.client.HTTPSConnection] = []

    def cancel(self, symbol: str, options: Options) -> Said:
        outcome = "not_sent"
        for attempt in range(1, options.max_retries + 2):
            try:
                status, body = self._request(symbol, options.timeout)
                said = self._believe(symbol, status, body, options)
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

    @staticmethod
    def _believe(symbol: str, status: int, body: bytes, options: Options) -> Said:
        try:
            answer = json.loads(body)
        except ValueError:
            answer = None
        fields = answer if isinstance(answer, dict) else {}
        if status == 200 and "order_ids" in fields:
            return Said(result={"symbol": symbol, **fields})
        code = fields.get("code")
        if code == 4200 and options.missing_ok:
            return Said(result={"symbol": symbol, "order_ids": []})
        certain = reading_of(status, code) in CERTAIN
        return Said(
            error=CODES.get(code or 0, ("odd", "APIError"))[1],
            outcome="rejected" if certain else "unknown",
            code=code,
            status=status,
        )

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()


class Crashing(Naive):
    """Takes its process down in the middle of the run."""

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self._left = 50

    def cancel(self, symbol: str, options: Options) -> Said:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().cancel(symbol, options)


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


class Careful:
    """The contract's table of attempts, written down as plainly as possible."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._context = ssl.create_default_context(cafile=target.ca_file)
        self._idle: list[Wire] = []

    def cancel(self, symbol: str, options: Options) -> Said:
        started = time.monotonic()
        deadline = started + options.timeout
        readings: set[Reading | None] = set()
        for attempt in range(1, options.max_retries + 2):
            until = started + 0.4 * options.timeout if attempt == 1 else deadline
            verdict = self._attempt(symbol, until)
            lost = not readings.isdisjoint({"again", "odd"})
            if result := self._success(symbol, verdict, options, lost):
                return Said(result=result, attempts=attempt)
            readings.add(verdict.reading)
            pause = self._pause(verdict, attempt)
            if pause is None or time.monotonic() + pause + 0.1 > deadline:
                break
            if attempt <= options.max_retries:
                time.sleep(pause)
        return self._failure(verdict, readings, attempt)

    @staticmethod
    def _success(
        symbol: str, verdict: Verdict, options: Options, lost: bool
    ) -> dict[str, Any] | None:
        result = verdict.result
        if verdict.reading == "missing" and (options.missing_ok or lost):
            result = {"symbol": symbol, "order_ids": []}
        if result is not None and lost:
            result["lost_reply"] = True
        return result

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
    def _failure(
        verdict: Verdict, readings: set[Reading | None], attempts: int
    ) -> Said:
        outcome = "not_sent" if readings == {None} else "rejected"
        if not readings.isdisjoint({"again", "odd"}):
            outcome = "unknown"
        return Said(
            error=verdict.error,
            outcome=outcome,
            attempts=attempts,
            code=verdict.code,
            status=verdict.status,
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
