"""The faults that strike a new connection, before any request.

No request is read, so nothing is ever carried out, and ``Exchange.calls`` does not
show them.  A connection that stands already is not touched.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from .tls import Certificates

__all__ = ["CONNECTION_FAULTS", "ConnectionFault", "reset_socket"]


@dataclass(frozen=True, kw_only=True)
class ConnectionFault:
    """No fault: the TLS handshake with the right certificate."""

    name: ClassVar[str | None] = None

    async def meet(
        self, sock: socket.socket, certificates: Certificates
    ) -> ssl.SSLContext | None:
        """The context to shake hands with; None: close the connection."""
        return certificates.good()


@dataclass(frozen=True, kw_only=True)
class ConnectReset(ConnectionFault):
    """The new connection is accepted and reset before TLS."""

    name: ClassVar[str | None] = "connect_reset"

    async def meet(
        self, sock: socket.socket, certificates: Certificates
    ) -> ssl.SSLContext | None:
        reset_socket(sock)
        return None


@dataclass(frozen=True, kw_only=True)
class TlsHang(ConnectionFault):
    """The new connection is accepted, the TLS handshake never answered."""

    name: ClassVar[str | None] = "tls_hang"

    async def meet(
        self, sock: socket.socket, certificates: Certificates
    ) -> ssl.SSLContext | None:
        loop = asyncio.get_running_loop()
        while await loop.sock_recv(sock, 4096):
            pass
        return None


@dataclass(frozen=True, kw_only=True)
class ExpiredCertificate(ConnectionFault):
    """The new connection shows a certificate that ran out yesterday."""

    name: ClassVar[str | None] = "expired_certificate"

    async def meet(
        self, sock: socket.socket, certificates: Certificates
    ) -> ssl.SSLContext | None:
        return certificates.expired()


@dataclass(frozen=True, kw_only=True)
class WrongHostCertificate(ConnectionFault):
    """The new connection shows a certificate for another host."""

    name: ClassVar[str | None] = "wrong_host_certificate"

    async def meet(
        self, sock: socket.socket, certificates: Certificates
    ) -> ssl.SSLContext | None:
        return certificates.wrong_host()


@dataclass(frozen=True, kw_only=True)
class UnknownCaCertificate(ConnectionFault):
    """The new connection shows a certificate of a CA nobody trusts."""

    name: ClassVar[str | None] = "unknown_ca_certificate"

    async def meet(
        self, sock: socket.socket, certificates: Certificates
    ) -> ssl.SSLContext | None:
        return certificates.unknown_ca()


def reset_socket(sock: socket.socket) -> None:
    """Make the coming close of the socket a RST: linger, with no time to."""
    linger = struct.pack("ii", 1, 0)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)


CONNECTION_FAULTS: tuple[type[ConnectionFault], ...] = (
    ConnectReset,
    TlsHang,
    ExpiredCertificate,
    WrongHostCertificate,
    UnknownCaCertificate,
)
