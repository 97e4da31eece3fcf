"""Types of the C extension; the docstrings are in the C."""

from asyncio import AbstractEventLoop, Future
from collections.abc import Iterable
from types import EllipsisType, TracebackType
from typing import Any, Final, NoReturn, Self, final, overload

from typing_extensions import disjoint_base

from ._types import CancelAllResult

__version__: Final[str]
MAINNET: Final[str]
PREPROD: Final[str]
CODES: Final[tuple[tuple[int, str, str, bool, str], ...]]
VERSIONS: Final[dict[str, str]]

@final
class Key:
    def __new__(cls, text: str, /) -> Self: ...
    def __reduce__(self) -> NoReturn: ...
    def __reduce_ex__(self, protocol: object, /) -> NoReturn: ...

@disjoint_base
class BaseClient:
    def __new__(cls, *args: Any, **kwargs: Any) -> Self: ...
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...
    @property
    def base_url(self) -> str: ...
    @property
    def timeout(self) -> float: ...
    @property
    def closed(self) -> bool: ...
    @property
    def _has_own_key(self) -> bool: ...
    @property
    def _is_ready(self) -> bool: ...
    def __reduce__(self) -> NoReturn: ...
    def __reduce_ex__(self, protocol: object, /) -> NoReturn: ...

class Client(BaseClient):
    @overload
    def cancel_all(  # type: ignore[overload-overlap]  # a str is one symbol
        self,
        symbol: str,
        *,
        missing_ok: bool = False,
        confirm: bool = False,
        timeout: float | EllipsisType = ...,
        max_retries: int | EllipsisType = ...,
    ) -> CancelAllResult: ...
    @overload
    def cancel_all(
        self,
        symbol: Iterable[str],
        *,
        missing_ok: bool = False,
        confirm: bool = False,
        timeout: float | EllipsisType = ...,
        max_retries: int | EllipsisType = ...,
    ) -> list[CancelAllResult]: ...
    def warm_up(self) -> float: ...
    def _probe(self) -> dict[str, Any]: ...
    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None: ...

class AsyncClient(BaseClient):
    def _drive(self, loop: AbstractEventLoop, /) -> LoopDriver: ...
    def _close(self) -> None: ...

@final
class LoopDriver:
    @property
    def is_ours(self) -> bool: ...
    def start(
        self,
        client: AsyncClient,
        symbol: str | Iterable[str],
        missing_ok: bool,
        confirm: bool,
        timeout: float | EllipsisType,
        max_retries: int | EllipsisType,
        /,
    ) -> LoopPress: ...
    def warm_up(self, client: AsyncClient, /) -> LoopPress: ...
    def retire(self) -> None: ...
    def on_readable(self, fd: int, /) -> None: ...
    def on_writable(self, fd: int, /) -> None: ...
    def on_timer(self) -> None: ...
    def on_wake(self, *args: object) -> None: ...

@final
class LoopPress:
    @property
    def future(self) -> Future[None]: ...
    def stop(self, error: BaseException, /) -> None: ...
    def result(self) -> CancelAllResult | list[CancelAllResult] | float: ...

@overload
def cancel_all(  # type: ignore[overload-overlap]  # a str is one symbol
    symbol: str,
    *,
    missing_ok: bool = False,
    confirm: bool = False,
    timeout: float | EllipsisType = ...,
    max_retries: int | EllipsisType = ...,
    api_key: str | None = None,
    base_url: str | None = None,
) -> CancelAllResult: ...
@overload
def cancel_all(
    symbol: Iterable[str],
    *,
    missing_ok: bool = False,
    confirm: bool = False,
    timeout: float | EllipsisType = ...,
    max_retries: int | EllipsisType = ...,
    api_key: str | None = None,
    base_url: str | None = None,
) -> list[CancelAllResult]: ...
def client_for(
    api_key: str | None, base_url: str | None
) -> tuple[Client, Key]: ...  # put here by espresso._client
def check_symbols(symbol: str | Iterable[str], /) -> list[str]: ...
def refuse_keyword(name: str, /) -> NoReturn: ...
def parse_base_url(text: str, /) -> tuple[str, str, bool]: ...
def system_trust() -> str | None: ...
def _drain() -> None: ...
