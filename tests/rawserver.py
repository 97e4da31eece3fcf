"""A server that sends what a script says, byte by byte, over TLS or in the clear.

The sandbox answers as the exchange does; here is what no exchange and no HTTP
library would ever send. A script is a function of one `Wire`, which is one accepted
connection; it runs on a thread of its own and must not outlive the client's
patience: every wait in here ends after `PATIENCE` seconds.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import tempfile
import threading
import warnings
from collections.abc import Callable, Collection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import trustme

import espresso

KEY = "sandbox-0f1e2d3c4b5a69788796a5b4c3d2e1f0"
SYMBOL = "ADAUSDM"
PATIENCE = 10.0
HOSTS = ("127.0.0.1", "localhost", "::1")

DONE = b'{"symbol":"ADAUSDM","order_ids":["a-1","b-2"]}'
IDS = ["a-1", "b-2"]


def http(body: bytes, status: int = 200, *headers: str, sized: bool = True) -> bytes:
    """A whole answer; `sized` adds the Content-Length that fits."""
    lines = [f"HTTP/1.1 {status} Some Reason", "Content-Type: application/json"]
    if sized:
        lines.append(f"Content-Length: {len(body)}")
    head = "\r\n".join([*lines, *headers]) + "\r\n\r\n"
    return head.encode("latin-1") + body


class Wire:
    """One accepted connection, in the hands of a script."""

    def __init__(self, server: RawServer, sock: socket.socket, number: int) -> None:
        self.server = server
        self.sock = sock
        self.number = number
        self._ahead = b""

    def read_request(self) -> bytes:
        """The next whole request, noted in ``server.requests``.

        Raises EOFError when the client sends no more.
        """
        data = self._ahead
        while b"\r\n\r\n" not in data:
            data += self._receive()
        head, _, rest = data.partition(b"\r\n\r\n")
        length = _content_length(head)
        while len(rest) < length:
            rest += self._receive()
        request = head + b"\r\n\r\n" + rest[:length]
        self._ahead = rest[length:]
        self.server.note(self.number, request)
        return request

    def _receive(self) -> bytes:
        data = self.sock.recv(65536)
        if not data:
            raise EOFError
        return data

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def answer(self, data: bytes) -> None:
        """Read a request, then send these bytes; of a HEAD their head alone."""
        if self.read_request().startswith(b"HEAD "):
            data = data.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
        self.send(data)

    def hold(self) -> None:
        """Say nothing until the client goes."""
        while self.sock.recv(65536):
            pass

    def fin(self) -> None:
        """End the connection with a FIN, without TLS's farewell."""
        self.sock.close()

    def reset(self) -> None:
        """End it with a RST."""
        linger = struct.pack("ii", 1, 0)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.sock.close()

    def close_notify(self) -> None:
        """Send TLS's farewell and leave the socket open."""
        assert isinstance(self.sock, ssl.SSLSocket)
        self.sock.settimeout(0.05)
        # It waits for the peer's farewell, too, which an idle client does not send; and
        # `RawServer.close` may have taken its TLS from it meanwhile (ValueError).
        with contextlib.suppress(OSError, ValueError):
            self.sock.unwrap()
        self.sock.settimeout(PATIENCE)

    def wait_for(self, event: threading.Event) -> None:
        if not event.wait(PATIENCE):
            raise TimeoutError("the test never said to go on")


Script = Callable[[Wire], object]


def answering(*answers: bytes) -> Script:
    """One request, one answer; the last answer again and again."""

    def script(wire: Wire) -> None:
        for data in answers:
            wire.answer(data)
        while True:
            wire.answer(answers[-1])

    return script


def old_tls_context() -> ssl.SSLContext:
    """Of a server that can do nothing newer than TLS 1.1; it has no certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that is the point
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    return context


class RawServer:
    """Runs the nth script on the nth connection, the last one on all that follow.

    Args:
        scripts: see above.
        tls: False: in the clear.
        clear: with TLS, the numbers of connections that are in the clear all the same.
        hosts: what the certificate is for.
        version: of TLS, no other one; None: what the client likes best.
        context: a TLS context in place of the usual one.

    With its own certificate authority in `ca_file`. What a script raises, but the
    end of its connection, comes out of `close`.
    """

    def __init__(
        self,
        *scripts: Script,
        tls: bool = True,
        clear: Collection[int] = (),
        hosts: tuple[str, ...] = HOSTS,
        version: ssl.TLSVersion | None = None,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self._scripts = scripts
        self._clear = clear
        self._folder = tempfile.TemporaryDirectory(prefix="espresso-test-")
        self.authority = trustme.CA()
        Path(self.ca_file).write_bytes(self.authority.cert_pem.bytes())
        self._context = context or (self._make_context(hosts, version) if tls else None)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._failures: list[BaseException] = []
        self._stopping = False
        self.connections = 0
        self.requests: list[tuple[int, bytes]] = []
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    def _make_context(
        self, hosts: tuple[str, ...], version: ssl.TLSVersion | None
    ) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        if version is not None:
            context.minimum_version = context.maximum_version = version
        self.authority.issue_cert(*hosts).configure_cert(context)
        return context

    @property
    def ca_file(self) -> str:
        return str(Path(self._folder.name, "ca.pem"))

    @property
    def url(self) -> str:
        scheme = "http" if self._context is None else "https"
        return f"{scheme}://127.0.0.1:{self.port}"

    def client(self, **options: Any) -> espresso.Client:
        """A client of this server; short of patience, and it tries but once."""
        settings: dict[str, Any] = {"timeout": 5, "max_retries": 0}
        settings |= {"base_url": self.url}
        if self._context is not None:
            settings["ca_file"] = self.ca_file
        return espresso.Client(KEY, **(settings | options))

    @property
    def posts(self) -> list[bytes]:
        """Every POST that came in full, oldest first."""
        with self._lock:
            return [raw for _, raw in self.requests if raw.startswith(b"POST ")]

    @property
    def post_connections(self) -> list[int]:
        """The number of the connection, from 0, of each POST."""
        with self._lock:
            return [n for n, raw in self.requests if raw.startswith(b"POST ")]

    def note(self, number: int, request: bytes) -> None:
        with self._lock:
            self.requests.append((number, request))

    # ------------------------------------------------------------------ its thread

    def _accept(self) -> None:
        while True:
            sock, _ = self._listener.accept()
            with self._lock:
                if self._stopping:
                    sock.close()
                    return
                number = self.connections
                self.connections += 1
                thread = threading.Thread(
                    target=self._serve, args=(sock, number), daemon=True
                )
                self._threads.append(thread)
                thread.start()

    def _serve(self, sock: socket.socket, number: int) -> None:
        sock.settimeout(PATIENCE)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            if self._context is not None and number not in self._clear:
                sock = self._context.wrap_socket(
                    sock, server_side=True, do_handshake_on_connect=False
                )
            with self._lock:
                self._open.append(sock)
            if isinstance(sock, ssl.SSLSocket):
                sock.do_handshake()
            script = self._scripts[min(number, len(self._scripts) - 1)]
            script(Wire(self, sock, number))
        except (EOFError, OSError):
            pass
        except BaseException as error:
            self._failures.append(error)
        finally:
            sock.close()

    def drain(self) -> None:
        """Wait until every script has ended, now that the client is gone."""
        with self._lock:
            threads = list(self._threads)
        for thread in threads:
            thread.join(PATIENCE)

    def close(self) -> None:
        """End every connection and thread; raise what a script raised."""
        with self._lock:
            self._stopping = True
            for sock in self._open:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
        # `accept` has no other way to be woken that works everywhere.
        socket.create_connection(("127.0.0.1", self.port), PATIENCE).close()
        self._acceptor.join(PATIENCE)
        self._listener.close()
        for thread in self._threads:
            thread.join(PATIENCE)
        self._folder.cleanup()
        if self._failures:
            raise self._failures[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0
