"""The clients that can be judged on an event loop: many tasks share one.

espresso-async, espresso-async-list
    `espresso.AsyncClient`, one symbol a call or several.
naive-async, naive-async-list
    What a plain asyncio client does. It must be caught.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import ssl
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol

from .clients import HOST, KEY, MANY, PATIENCE_OF_TASKS, Target, Witness, believe
from .records import CANCELLED, Options, Said


class AsyncFace(Protocol):
    """One client; `cancel` may run in many tasks at once, and be cancelled.

    It says something of each symbol, in the order given, also when it is cancelled.
    """

    most_symbols: int
    patience: float

    async def cancel(self, symbols: Sequence[str], options: Options) -> list[Said]: ...

    async def close(self) -> None: ...


class AsyncEspresso:
    """`espresso.AsyncClient`."""

    patience = PATIENCE_OF_TASKS

    def __init__(self, target: Target, most_symbols: int = 1) -> None:
        self.most_symbols = most_symbols
        self._witness = Witness(target, "AsyncClient", most_symbols, PATIENCE_OF_TASKS)

    async def cancel(self, symbols: Sequence[str], options: Options) -> list[Said]:
        try:
            value = await self._witness.start(symbols, options)
        except self._witness.error as error:
            return self._witness.of_error(symbols, error)
        except asyncio.CancelledError as error:
            return self._witness.of_cancelled(symbols, error)
        return self._witness.of_results(symbols, value)

    async def close(self) -> None:
        await self._witness.client.aclose()


Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class NaiveAsync:
    """A keep-alive pool with the usual mistakes.

    It re-sends on a dead connection; a call that is cancelled or late gives its
    connection back with the answer still to come; a list is sent all at once, and
    its answers are taken in the order in which they come; `confirm` is not known.
    """

    patience = PATIENCE_OF_TASKS
    LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)

    def __init__(self, target: Target, most_symbols: int = 1) -> None:
        self.most_symbols = most_symbols
        self._port = target.port
        self._context = ssl.create_default_context(cafile=target.ca_file)
        self._idle: list[Stream] = []

    async def cancel(self, symbols: Sequence[str], options: Options) -> list[Said]:
        calls = [asyncio.ensure_future(self._cancel(s, options)) for s in symbols]
        try:
            return [await call for call in asyncio.as_completed(calls)]
        except asyncio.CancelledError:
            for call in calls:
                call.cancel()
            return [
                Said(error=CANCELLED, outcome="not_sent", attempts=1) for _ in symbols
            ]

    async def _cancel(self, symbol: str, options: Options) -> Said:
        try:
            async with asyncio.timeout(options.timeout):
                status, body = await self._request(symbol)
            return replace(believe(symbol, status, body, options), attempts=1)
        except (OSError, EOFError, ValueError) as error:
            return Said(error=type(error).__name__, outcome="unknown", attempts=1)

    async def _request(self, symbol: str) -> tuple[int, bytes]:
        with contextlib.suppress(IndexError, ConnectionError, EOFError):
            return await self._exchange(self._idle.pop(), symbol)
        stream = await asyncio.open_connection(HOST, self._port, ssl=self._context)
        return await self._exchange(stream, symbol)

    async def _exchange(self, stream: Stream, symbol: str) -> tuple[int, bytes]:
        reader, writer = stream
        body = json.dumps({"symbol": symbol})
        writer.write(
            f"POST /order/cancel-all HTTP/1.1\r\nHost: {HOST}\r\nX-API-KEY: {KEY}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            f"{body}".encode()
        )
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = self.LENGTH.search(head)
            answer = await reader.readexactly(int(length[1]) if length else 0)
        finally:
            if not reader.at_eof():
                self._idle.append(stream)
        return int(head.split()[1]), answer

    async def close(self) -> None:
        while self._idle:
            self._idle.pop()[1].transport.abort()


ASYNC_FACES: dict[str, Callable[[Target], AsyncFace]] = {
    "espresso-async": AsyncEspresso,
    "espresso-async-list": partial(AsyncEspresso, most_symbols=MANY),
    "naive-async": NaiveAsync,
    "naive-async-list": partial(NaiveAsync, most_symbols=MANY),
}


class AsyncControl:
    """A worker's line to the server, as `clients.Control`."""

    def __init__(self, stream: Stream) -> None:
        self._reader, self._writer = stream

    @classmethod
    async def open(cls, port: int) -> AsyncControl:
        return cls(await asyncio.open_connection(HOST, port))

    async def stand_still(self, worker: str) -> None:
        """Let the server act on the idle connections of this worker's client."""
        self._writer.write(f"idle {worker}\n".encode())
        if await self._reader.readline() != b"ok\n":
            raise ConnectionError("the server has gone")

    def close(self) -> None:
        self._writer.close()
