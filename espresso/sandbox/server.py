"""Sockets, TLS and HTTP/1.1 of the sandbox: an asyncio loop in its own thread.

Why raw sockets: the faults work on bytes and on the way a connection ends, which
no HTTP server library lets one choose.  h11 parses the requests; the answers are
the bytes of the reply files.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable
from email.utils import formatdate

import h11

from .api import Answer, Api, Request
from .book import Book, Call
from .connection_faults import reset_socket
from .fault_queue import FaultQueue
from .faults import Fault
from .replies import Reply, load
from .tls import Certificates

__all__ = ["Line", "Server"]

_MAX_HEAD = 64 * 1024
_MAX_BODY = 64 * 1024
_CHUNK = 64 * 1024
# Seconds: a peer that does not finish its handshake or its farewell is dropped.
_HANDSHAKE_TIMEOUT = 60.0
_SHUTDOWN_TIMEOUT = 1.0
_ACCEPT_REST = 0.05


class Server:
    """Accepts, reads, answers.  `start` and `stop` may be called from any thread."""

    def __init__(
        self, book: Book, faults: FaultQueue, certificates: Certificates, port: int
    ) -> None:
        self._api = Api(book)
        self._faults = faults
        self._certificates = certificates
        self._listener = _listen(port)
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        self._connections: set[asyncio.Task[None]] = set()
        self._accepted = 0
        self._thread = threading.Thread(
            target=self._run, name="espresso-sandbox", daemon=True
        )

    @property
    def port(self) -> int:
        """The TCP port it listens on, until it stops."""
        port: int = self._listener.getsockname()[1]
        return port

    def start(self) -> None:
        """Serve.  Raises RuntimeError if no thread can be had."""
        try:
            self._thread.start()
        except BaseException:
            self._loop.close()
            self._listener.close()
            raise

    def stop(self) -> None:
        """End every connection and wait for the thread; a second time is nothing."""
        with contextlib.suppress(RuntimeError):  # the loop is closed already
            self._loop.call_soon_threadsafe(self._stopping.set)
        # The garbage collector may call this on the server's own thread.
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        # Not in debug mode, even under -X dev: it would write about our slow
        # callbacks to the terminal of whoever debugs a bot of theirs.
        self._loop.set_debug(False)
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        self._listen_on()
        try:
            await self._stopping.wait()
        finally:
            self._loop.remove_reader(self._listener)
            self._listener.close()
            for task in self._connections:
                task.cancel()
            await asyncio.gather(*self._connections, return_exceptions=True)
            # One more turn: that is when asyncio closes the aborted sockets.
            await asyncio.sleep(0)

    def _listen_on(self) -> None:
        self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        # Not `loop.sock_accept`: cancelled in the wrong moment, it loses the socket.
        try:
            sock, _ = self._listener.accept()
        except OSError:  # out of descriptors, or the peer is gone again
            self._loop.remove_reader(self._listener)
            self._loop.call_later(_ACCEPT_REST, self._listen_on)
            return
        sock.setblocking(False)
        self._accepted += 1
        task = self._loop.create_task(self._converse(sock, self._accepted))
        self._connections.add(task)
        # Here, since a task that is cancelled before its first step runs no `finally`.
        task.add_done_callback(lambda task: self._forget(task, sock))

    def _forget(self, task: asyncio.Task[None], sock: socket.socket) -> None:
        self._connections.discard(task)
        sock.close()

    async def _converse(self, sock: socket.socket, number: int) -> None:
        """The life of one connection; what the peer does wrong only ends it."""
        with contextlib.suppress(OSError):
            fault = self._faults.next_for_connection()
            context = await fault.meet(sock, self._certificates)
            if context is not None:
                await self._talk(await Line.open(sock, context), number)

    async def _talk(self, line: Line, number: int) -> None:
        try:
            while line.is_open and (request := await line.receive()):
                await self._handle(line, request, number)
        except asyncio.CancelledError:
            line.drop()
            raise
        finally:
            await line.end()

    async def _handle(self, line: Line, request: Request, number: int) -> None:
        strikes = request.is_cancel_all
        fault = self._faults.next_for_call() if strikes else Fault()
        with self._api.book.at_once():
            answer = fault.answer(self._api, request)
            call = self._api.book.note(
                _call(self._api.book, request, fault, answer, number)
            )
        line.on_finish = lambda: self._api.book.renote(
            call, status=_status(answer.reply)
        )
        data = _render(answer, request, keep_alive=line.keep_alive)
        await fault.deliver(line, data)
        if not line.keep_alive:
            line.close()


class Line:
    """One TLS connection to a client, down to its bytes and its end."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._ahead = b""  # what came before its turn
        self.is_open: bool = True
        self.keep_alive: bool = True
        self.on_finish: Callable[[], None] = lambda: None

    @classmethod
    async def open(cls, sock: socket.socket, context: ssl.SSLContext) -> Line:
        """Shake hands.  Raises OSError if that fails; the socket is closed then."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        transport, _ = await loop.connect_accepted_socket(
            lambda: protocol,
            sock,
            ssl=context,
            ssl_handshake_timeout=_HANDSHAKE_TIMEOUT,
            ssl_shutdown_timeout=_SHUTDOWN_TIMEOUT,
        )
        # `drain` waits for the TLS layer to be empty.  Not 0: asyncio's TLS would
        # then pause writing for ever.
        transport.set_write_buffer_limits(high=1)
        return cls(reader, asyncio.StreamWriter(transport, protocol, reader, loop))

    # ------------------------------------------------------------------ reading

    async def receive(self) -> Request | None:
        """The next request in full; None when the client has no more."""
        try:
            return await self._parse()
        except h11.RemoteProtocolError:
            await self.send(load("400_bad_request").raw)
            self.close()
            return None

    async def _parse(self) -> Request | None:
        # A fresh parser a request: h11 wants to see the answers too, and ours are
        # often none it would allow.
        parser = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_HEAD)
        if self._ahead:
            parser.receive_data(self._ahead)
        head: h11.Request | None = None
        body = bytearray()
        while True:
            event = parser.next_event()
            if event is h11.NEED_DATA:
                if not await self._feed(parser):
                    return None
            elif isinstance(event, h11.Request):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > _MAX_BODY:
                    raise h11.RemoteProtocolError("body too large")
            elif isinstance(event, h11.EndOfMessage) and head is not None:
                self._ahead = parser.trailing_data[0]
                self.keep_alive = parser.their_state is h11.DONE
                return _request(head, bytes(body))
            else:  # ConnectionClosed
                return None

    async def _feed(self, parser: h11.Connection) -> bool:
        if parser.they_are_waiting_for_100_continue:
            await self.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        data = await self._reader.read(_CHUNK)
        parser.receive_data(data)
        return bool(data)

    # ------------------------------------------------------------------ writing

    async def send(self, data: bytes) -> None:
        """Hand the bytes to the kernel.  Raises OSError if the client is gone."""
        self._writer.write(data)
        await self._writer.drain()

    async def finish(self, data: bytes) -> None:
        """Send the last bytes of an answer: from here on it counts as answered.

        It is noted before the bytes go, so that the client, once it has them, finds
        it in ``Exchange.calls``.
        """
        if self._writer.is_closing():
            raise ConnectionResetError("the client is gone")
        self.on_finish()
        await self.send(data)

    async def pause(self, seconds: float | None) -> bool:
        """Wait (None: for ever); False, at once, when the client goes."""
        try:
            async with asyncio.timeout(seconds):
                while data := await self._reader.read(_CHUNK):
                    self._ahead += data
        except TimeoutError:
            return True
        return False

    # ------------------------------------------------------------------- ending

    def reset(self) -> None:
        """End it with a RST."""
        reset_socket(self._writer.get_extra_info("socket"))
        self.drop()

    def drop(self) -> None:
        """End it with a FIN, without TLS's close_notify."""
        self.is_open = False
        self._writer.transport.abort()

    def close(self) -> None:
        """End it with close_notify and FIN, as a server does that is done."""
        self.is_open = False
        self._writer.close()

    async def end(self) -> None:
        """Close it, if it is not, and wait until that is done."""
        self.close()
        try:
            await self._writer.wait_closed()
        except OSError:
            pass
        except asyncio.CancelledError:
            self.drop()
            raise


def _listen(port: int) -> socket.socket:
    """A listening socket on loopback.  Raises OSError if the port is taken."""
    # The protocol is named, or asyncio would not set TCP_NODELAY on what it accepts.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(512)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def _request(head: h11.Request, body: bytes) -> Request:
    return Request(
        method=head.method.decode("latin-1"),
        target=head.target.decode("latin-1"),
        headers={n.decode("latin-1"): v.decode("latin-1") for n, v in head.headers},
        body=body,
    )


def _call(
    book: Book, request: Request, fault: Fault, answer: Answer, connection: int
) -> Call:
    headers = {n: v for n, v in request.headers.items() if n != "x-api-key"}
    return Call(
        method=request.method,
        path=request.path,
        symbol=request.symbol,
        status=None,
        fault=fault.name,
        cancelled=answer.cancelled,
        key=request.key if book.knows_key(request.key) else None,
        connection=connection,
        time=time.time(),
        body=request.body,
        headers=headers,
    )


def _status(reply: Reply) -> int | None:
    """The status; None for scripted bytes that are no HTTP answer."""
    try:
        return reply.status
    except ValueError:
        return None


def _render(answer: Answer, request: Request, *, keep_alive: bool) -> bytes:
    if answer.literal:
        return answer.reply.raw
    reply = answer.reply.with_header("Date", formatdate(usegmt=True))
    if not keep_alive:
        reply = reply.with_header("Connection", "close")
    return reply.head if request.method == "HEAD" else reply.raw
