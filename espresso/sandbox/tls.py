"""Throw-away certificates for the sandbox: made anew for each exchange."""

from __future__ import annotations

import ssl
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme

__all__ = ["Certificates"]

_HOSTS = ("localhost", "127.0.0.1", "::1")


class Certificates:
    """A certificate authority of its own, and server contexts signed by it.

    Its PEM file, `ca_file`, is what a client trusts; `remove` takes it away.
    """

    def __init__(self) -> None:
        self._ca = trustme.CA()
        self._good = _context(self._ca.issue_cert(*_HOSTS))
        self.ca_file: str = _write_pem(self._ca.cert_pem.bytes())

    def good(self) -> ssl.SSLContext:
        """The certificate for localhost, 127.0.0.1 and ::1."""
        return self._good

    def expired(self) -> ssl.SSLContext:
        """One for the right hosts that ran out yesterday."""
        yesterday = datetime.now(UTC) - timedelta(days=1)
        return _context(self._ca.issue_cert(*_HOSTS, not_after=yesterday))

    def wrong_host(self) -> ssl.SSLContext:
        """One for another host."""
        return _context(self._ca.issue_cert("elsewhere.invalid"))

    def unknown_ca(self) -> ssl.SSLContext:
        """One for the right hosts, signed by an authority nobody trusts."""
        return _context(trustme.CA().issue_cert(*_HOSTS))

    def remove(self) -> None:
        """Delete `ca_file`; a second time does nothing."""
        Path(self.ca_file).unlink(missing_ok=True)


def _context(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    certificate.configure_cert(context)
    return context


def _write_pem(pem: bytes) -> str:
    handle, path = tempfile.mkstemp(prefix="espresso-sandbox-", suffix=".pem")
    with open(handle, "wb") as file:
        file.write(pem)
    return path
