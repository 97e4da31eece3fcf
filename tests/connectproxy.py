"""A proxy that knows CONNECT, and every way to fail at it."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

PASSWORD = "hunter2-9f8e7d"
PATIENCE = 10.0


class ConnectProxy:
    """A proxy that knows CONNECT, and leads every target to one port on loopback.

    Args:
        port: where all its tunnels end.
        refusal: these bytes answer a CONNECT in place of a tunnel.
        then: what happens after them, or (without them) in their place: "close",
            "reset" or "hold".
        context: for a proxy that is itself spoken to over TLS.
    """

    def __init__(
        self,
        port: int,
        *,
        refusal: bytes = b"",
        then: str = "",
        context: ssl.SSLContext | None = None,
    ) -> None:
        self._target = port
        self._refusal = refusal
        self._then = then
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self.connects: list[bytes] = []
        self.relayed = bytearray()
        self.accepted = 0
        self._start(self._accept)

    @property
    def port(self) -> int:
        port: int = self._listener.getsockname()[1]
        return port

    @property
    def url(self) -> str:
        scheme = "http" if self._context is None else "https"
        return f"{scheme}://127.0.0.1:{self.port}"

    def with_credentials(self) -> str:
        return self.url.replace("://", f"://trader:{PASSWORD}@")

    def drop_tunnels(self) -> None:
        """End every connection there is."""
        with self._lock:
            sockets, self._sockets = self._sockets, []
        for sock in sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # the listener was closed
            while True:
                sock, _ = self._listener.accept()
                self.accepted += 1
                self._start(self._serve, sock)

    def _serve(self, sock: socket.socket) -> None:
        sock.settimeout(PATIENCE)
        with contextlib.suppress(OSError), self._wrapped(sock) as client:
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                data = client.recv(65536)
                if not data:
                    return
                head += data
            with self._lock:
                self.connects.append(head)
            self._answer(client)

    def _wrapped(self, sock: socket.socket) -> socket.socket:
        with self._lock:
            self._sockets.append(sock)
        if self._context is None:
            return sock
        wrapped = self._context.wrap_socket(sock, server_side=True)
        with self._lock:
            self._sockets.append(wrapped)
        return wrapped

    def _answer(self, client: socket.socket) -> None:
        if self._refusal:
            client.sendall(self._refusal)
        if self._then == "hold":
            while client.recv(65536):
                pass
        elif self._then == "reset":
            client.setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0" + b"\0" * 4
            )
        elif not self._refusal and not self._then:
            self._tunnel(client)

    def _tunnel(self, client: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", self._target)) as there:
            with self._lock:
                self._sockets.append(there)
            client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=self._relay, args=(there, client))
            back.start()
            self._relay(client, there)
            back.join(PATIENCE)

    def _relay(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                with self._lock:
                    self.relayed += data
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.drop_tunnels()
        for thread in self._threads:
            thread.join(PATIENCE)


def reply(status: int, reason: str, *headers: str, body: str = "") -> bytes:
    lines = [f"HTTP/1.1 {status} {reason}", f"Content-Length: {len(body)}", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()
