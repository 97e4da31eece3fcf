"""``AsyncClient``: the same call, driven by the running event loop.

The call itself is C (``_core.LoopDriver``): here is only who waits for it. Nothing
is bound to a loop; each that asks gets a driver of its own.
"""

import inspect
import sys
from asyncio import AbstractEventLoop, TimerHandle, get_running_loop
from collections.abc import Iterable, Mapping
from types import EllipsisType, MappingProxyType, TracebackType
from typing import Any, Never, Self, overload

from . import _core
from ._client import Client, Options
from ._types import CancelAllResult


class AsyncClient(Options, _core.AsyncClient):
    """What ``Client`` is, for asyncio: the same options and words, as coroutines.

    Needs a running loop with ``add_reader``: asyncio's own on Linux and macOS, or
    uvloop. Hundreds of calls may run at once. Cancelling a task ends its transfer at
    once; a note on the ``CancelledError`` says whether the request had gone out.

    One object may be used by several loops, one after the other or in several
    threads, and after a ``fork``. Without ``aclose`` its connections end with it.
    """

    # Empty for all; each object gets its own with its first driver, because an
    # __init__ here would hide the signature that help() shows.
    _drivers: Mapping[AbstractEventLoop, _core.LoopDriver] = MappingProxyType({})

    @overload
    async def cancel_all(  # type: ignore[overload-overlap]  # a str is one symbol
        self,
        symbol: str,
        *,
        missing_ok: bool = False,
        confirm: bool = False,
        timeout: float | EllipsisType = ...,
        max_retries: int | EllipsisType = ...,
    ) -> CancelAllResult: ...
    @overload
    async def cancel_all(
        self,
        symbol: Iterable[str],
        *,
        missing_ok: bool = False,
        confirm: bool = False,
        timeout: float | EllipsisType = ...,
        max_retries: int | EllipsisType = ...,
    ) -> list[CancelAllResult]: ...
    async def cancel_all(
        self,
        symbol: str | Iterable[str],
        *,
        missing_ok: bool = False,
        confirm: bool = False,
        timeout: float | EllipsisType = ...,
        max_retries: int | EllipsisType = ...,
        **unknown: Never,
    ) -> Any:
        """Cancel all open orders of the account on one symbol, or on several.

        Arguments, results and errors are those of ``Client.cancel_all``. Cancelling
        the task closes the connection; what was sent stays sent.

        Raises RuntimeError on a closed client, or on a loop without ``add_reader``.
        """
        for name in unknown:
            _core.refuse_keyword(name)
        press = self._driver().start(
            self, symbol, missing_ok, confirm, timeout, max_retries
        )
        return await _result_of(press)

    async def warm_up(self) -> float:
        """Open a connection now, so that the next call is one round trip.

        DNS, TCP, TLS and one HEAD of the base path, without the key. Returns the
        seconds it took. Raises ConnectError, CertificateError, RequestTimeoutError.
        """
        return float(await _result_of(self._driver().warm_up(self)))

    async def aclose(self) -> None:
        """Close the connections and wipe the key.

        Calls in flight, on whatever loop, end with ConnectionLostError or
        ConnectError, later ones are RuntimeError. Closing twice is fine.
        """
        self._close()
        self._wipe()
        driver = self._drivers.get(get_running_loop())
        if driver is not None and driver.is_ours:
            driver.on_wake()
        self._forget_closed_loops()

    async def __aenter__(self) -> Self:
        if self.closed:
            raise RuntimeError("the client is closed")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def _driver(self) -> _core.LoopDriver:
        """The driver of the running loop."""
        loop = get_running_loop()
        driver = self._drivers.get(loop)
        if driver is None or not driver.is_ours:
            self._forget_closed_loops()
            drivers = vars(self).setdefault("_drivers", {})
            driver = drivers[loop] = self._drive(loop)
        return driver

    def _forget_closed_loops(self) -> None:
        """Leave what they kept warm to the loops that come after."""
        drivers = vars(self).get("_drivers", {})
        for loop in list(drivers):
            if loop.is_closed():
                driver = drivers.pop(loop, None)
                if driver is not None:
                    driver.retire()


# What help() and editors show is what the other face shows, too.
AsyncClient.cancel_all.__signature__ = inspect.signature(  # type: ignore[attr-defined]
    Client.cancel_all
)


async def _result_of(press: _core.LoopPress) -> Any:
    waker = _Waker(get_running_loop()) if "ipykernel" in sys.modules else None
    try:
        await press.future
    except BaseException as error:
        press.stop(error)
        raise
    finally:
        if waker is not None:
            waker.stop()
    return press.result()


class _Waker:
    """Lets the loop turn now and then, so that a notebook's stop button is heard.

    The handler of SIGINT in ipykernel (7.4, with tornado 6.6) asks the loop for a
    callback without waking it: a cell that awaits would go on until something else
    happens. ``asyncio.run`` and uvloop wake theirs.
    """

    SECONDS = 0.05

    def __init__(self, loop: AbstractEventLoop) -> None:
        self._loop = loop
        self._turn()

    def _turn(self) -> None:
        self._timer: TimerHandle = self._loop.call_later(self.SECONDS, self._turn)

    def stop(self) -> None:
        self._timer.cancel()
