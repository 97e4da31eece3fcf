"""`Exchange`: the sandbox as a test or a notebook holds it."""

from __future__ import annotations

import os
import weakref
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from .book import Book, Call
from .checks import check_count, check_number
from .fault_queue import FaultQueue, make
from .faults import Scripted
from .replies import Reply, load
from .server import Server
from .tls import Certificates

__all__ = ["Exchange"]


class Exchange:
    """An exchange to practise and test on: real TLS sockets, on loopback only.

    It keeps open orders for each account and symbol, checks the key, limits the
    rate and answers as the live server does ([field], wire.md), in a thread of its
    own.  Every attribute and method may be used from any thread::

        with Exchange(orders={"ADAUSDM": 3}) as ex:
            client = espresso.Client(ex.key, base_url=ex.url, ca_file=ex.ca_file)
            client.cancel_all("ADAUSDM")

    Args:
        orders: how many orders are open at the start, by symbol.
        rate: ``(calls, seconds)`` for each account, (10, 2.0) as on the live
            exchange [field]; None for no limit.
        port: TCP port; 0 for any free one.

    Raises:
        TypeError, ValueError: for arguments of a wrong type or out of range.

    Known symbols are ADAUSDM, NIGHTUSDM, IAGUSDM and all that orders were ever
    placed on; any other is answered with code 4106.
    """

    def __init__(
        self,
        *,
        orders: Mapping[str, int] | None = None,
        rate: tuple[int, float] | None = (10, 2.0),
        port: int = 0,
    ) -> None:
        _check_port(port)
        self._book = Book(_checked_rate(rate))
        self._faults = FaultQueue()
        self._port = port
        self._address: tuple[str, str] | None = None
        self._stop: weakref.finalize[..., Exchange] | None = None
        self._key = self._book.new_key()
        for symbol, n in (orders or {}).items():
            self.place(symbol, n)

    # ---------------------------------------------------------------- life cycle

    def start(self) -> Self:
        """Listen and serve; nothing if it does already.  `with` does it.

        Raises:
            OSError: if the port is taken.
            RuntimeError: after `close`.
        """
        if self._stop is not None:
            if not self._stop.alive:
                raise RuntimeError("this Exchange is closed; make a new one")
            return self
        certificates = Certificates()
        try:
            server = Server(self._book, self._faults, certificates, self._port)
            server.start()
        except BaseException:
            certificates.remove()
            raise
        self._address = f"https://127.0.0.1:{server.port}", certificates.ca_file
        # The thread does not keep this object alive: an exchange that is forgotten
        # is stopped when it is collected, at the latest at exit.
        self._stop = weakref.finalize(
            self, _stop_server, server, certificates, os.getpid()
        )
        return self

    def close(self) -> None:
        """Abort every connection, end the thread, delete `ca_file`.  Idempotent.

        `calls` and `open_orders` can still be read.
        """
        if self._stop is not None:
            self._stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        counts = f"open={self._book.open_count()} calls={len(self.calls)}"
        return f"<espresso.sandbox.Exchange {self._state()} {counts}>"

    def _repr_html_(self) -> str:
        """What a notebook shows: open orders, armed faults, last calls. No key."""
        from .table import html

        return html(self._state(), self._book, self._faults.armed())

    def _state(self) -> str:
        if self._stop is None:
            return "not started"
        return self.url if self._stop.alive else "closed"

    # ------------------------------------------------------- what a client needs

    @property
    def key(self) -> str:
        """The API key of the first account; it begins with ``sandbox-``."""
        return self._key

    @property
    def url(self) -> str:
        """The base URL, ``https://127.0.0.1:PORT``.

        Raises RuntimeError before `start`.
        """
        return self._started()[0]

    @property
    def ca_file(self) -> str:
        """Path of the PEM file with the certificate to trust; gone after `close`.

        Raises RuntimeError before `start`.
        """
        return self._started()[1]

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables that make this exchange the one that is called.

        For a child process, as ``env={**os.environ, **ex.environment}``, or for this
        one, as ``unittest.mock.patch.dict(os.environ, ex.environment)``: the key, the
        URL, the certificate, and ``ESPRESSO_LOOPBACK_ONLY``, so that no other host is
        called.  A new dict each time.

        Raises RuntimeError before `start`.
        """
        return {
            "DELTADEFI_API_KEY": self.key,
            "DELTADEFI_BASE_URL": self.url,
            "SSL_CERT_FILE": self.ca_file,
            "ESPRESSO_LOOPBACK_ONLY": "1",
        }

    def new_key(self) -> str:
        """Open one more account; return its API key."""
        return self._book.new_key()

    def _started(self) -> tuple[str, str]:
        if self._address is None:
            raise RuntimeError("not started: use `with` or start()")
        return self._address

    # -------------------------------------------------------------------- orders

    def place(self, symbol: str, n: int = 1, *, key: str | None = None) -> list[str]:
        """Open n orders on the symbol; return their ids (UUID strings).

        Args:
            symbol: any non-empty name; it is a known symbol from now on.
            n: how many; 0 only makes the symbol known.
            key: the account; None for the first one.

        Raises:
            TypeError, ValueError: for a wrong type, an empty symbol, a negative n
                or a key that is not one of this exchange's.
        """
        _check_symbol(symbol)
        check_count("n", n)
        return self._book.place(symbol, n, self._account(key))

    def open_orders(
        self, symbol: str | None = None, *, key: str | None = None
    ) -> list[str]:
        """The ids of the account's open orders, oldest first.

        Args:
            symbol: only those on it; None for all.
            key: the account; None for the first one.

        Raises:
            ValueError: for a key that is not one of this exchange's.
        """
        return self._book.open_orders(symbol, self._account(key))

    def _account(self, key: str | None) -> str:
        if key is None:
            return self._key
        if not self._book.knows_key(key):
            raise ValueError("not a key of this exchange; new_key() opens an account")
        return key

    # --------------------------------------------------------------------- calls

    @property
    def calls(self) -> list[Call]:
        """Every request so far but HEAD (a client's warm-up), oldest first.

        One that is not yet, or never, answered in full has status None.
        """
        return self._book.calls()

    @property
    def requests(self) -> list[Call]:
        """Every request so far, HEAD too, oldest first."""
        return self._book.requests()

    def wait_for_calls(self, n: int, timeout: float = 5.0) -> list[Call]:
        """Wait until there are n `calls`, answered or not; return them.

        Args:
            n: how many.
            timeout: seconds.

        Raises:
            TimeoutError: if there are fewer by then.
        """
        return self._book.wait_for_calls(n, timeout)

    # -------------------------------------------------------------------- faults

    def fault(self, name: str, /, times: int | None = 1, **params: object) -> None:
        """Let the fault strike the next calls that no earlier fault is meant for.

        Args:
            name: one of `espresso.sandbox.FAULTS`; the classes there say what each
                does, whether the cancel is carried out, and its parameters.
            times: how many calls (or, for faults of a connection, new
                connections); None: all until `clear_faults`.
            params: the fault's own parameters.

        Raises:
            ValueError: for an unknown name (it lists the names), or a value out of
                range.
            TypeError: for an unknown parameter or a wrong type.
        """
        self._faults.add(make(name, **params), times)

    def reply(
        self, reply: str | bytes, times: int | None = 1, *, close: bool = False
    ) -> None:
        """Answer the next calls with these very bytes; nothing is carried out.

        It queues up with the faults; `calls` shows it as the fault ``"reply"``.

        Args:
            reply: the name of a file in `espresso.sandbox.replies`, or raw bytes,
                which need not be HTTP.
            times: how many calls; None: all until `clear_faults`.
            close: close the connection afterwards.

        Raises:
            ValueError: for an unknown name (it lists the names).
        """
        script = Reply(reply) if isinstance(reply, bytes) else load(reply)
        self._faults.add(Scripted(script=script, close=close), times)

    def clear_faults(self) -> None:
        """Forget all faults and replies that have not struck yet."""
        self._faults.clear()

    def reset(self) -> None:
        """Forget orders, calls, rates and faults; keep accounts and address."""
        self._faults.clear()
        self._book.clear()


def _stop_server(server: Server, certificates: Certificates, pid: int) -> None:
    if os.getpid() != pid:  # a forked child: thread and file are its parent's
        return
    server.stop()
    certificates.remove()


def _check_symbol(symbol: object) -> None:
    if not isinstance(symbol, str):
        raise TypeError(f"symbol is a str, not {type(symbol).__name__}")
    if not symbol:
        raise ValueError("symbol is empty")


def _check_port(port: int) -> None:
    check_count("port", port)
    if port > 65535:
        raise ValueError(f"port is at most 65535, not {port}")


def _checked_rate(rate: tuple[int, float] | None) -> tuple[int, float] | None:
    if rate is None:
        return None
    calls, seconds = rate
    check_count("rate: calls", calls, least=1)
    check_number("rate: seconds", seconds)
    if seconds == 0:
        raise ValueError("rate: seconds is above 0")
    return calls, float(seconds)
