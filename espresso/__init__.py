"""Cancel all open orders on DeltaDeFi, and know what became of it.

>>> import espresso
>>> espresso.cancel_all("ADAUSDM")
{'symbol': 'ADAUSDM', 'order_ids': ['550e8400-...', ...]}

The verb is ``cancel_all``; ``Client`` is where options live; what goes wrong
is an ``EspressoError`` whose ``outcome`` says whether orders may be gone.

PYTEST_DONT_REWRITE, or pytest would warn a program that runs it after this import.
"""

import os as _os
import sys as _sys

try:
    from ._client import Client
except ImportError as _error:
    if _error.name != __name__:  # it is there, and something that it needs is not
        raise
    raise ImportError(
        f"espresso is not built in {_os.path.dirname(__file__)}: these are the "
        "sources. Start Python in another folder, or build it there: make build",
        name="espresso._core",
    ) from None
from ._core import MAINNET, PREPROD, VERSIONS, __version__, cancel_all
from .errors import (
    APIError,
    AuthenticationError,
    BadRequestError,
    CertificateError,
    ConfigError,
    ConnectError,
    ConnectionLostError,
    EspressoError,
    GuardError,
    GuardTrippedError,
    InvalidSymbolError,
    OrderNotFoundError,
    PartialCancelError,
    PermissionDeniedError,
    RateLimitError,
    RequestTimeoutError,
    ResponseError,
    ServerError,
    StillOpenError,
    TradingLockedError,
    TransportError,
    UnavailableError,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._aio import AsyncClient as AsyncClient
    from ._guard import Guard as Guard
    from ._guard import guard as guard
    from ._types import CancelAllResult as CancelAllResult
    from ._types import Event as Event

__versions__ = VERSIONS
del VERSIONS

# The traceback of a user shows the name that was typed.
cancel_all.__module__ = "espresso"

__all__ = [
    "MAINNET",
    "PREPROD",
    "APIError",
    "AsyncClient",
    "AuthenticationError",
    "BadRequestError",
    "CancelAllResult",
    "CertificateError",
    "Client",
    "ConfigError",
    "ConnectError",
    "ConnectionLostError",
    "EspressoError",
    "Event",
    "Guard",
    "GuardError",
    "GuardTrippedError",
    "InvalidSymbolError",
    "OrderNotFoundError",
    "PartialCancelError",
    "PermissionDeniedError",
    "RateLimitError",
    "RequestTimeoutError",
    "ResponseError",
    "ServerError",
    "StillOpenError",
    "TradingLockedError",
    "TransportError",
    "UnavailableError",
    "__version__",
    "__versions__",
    "cancel_all",
    "guard",
]

# Loaded when first asked for, with the module each is in: they need typing,
# dataclasses, asyncio, threads and processes, which importing espresso must not.
_LATER = {
    "AsyncClient": "_aio",
    "CancelAllResult": "_types",
    "Event": "_types",
    "Guard": "_guard",
    "guard": "_guard",
}

# What people type from habit, and what they meant.
_HABITS = {
    "cancel_all_orders": "cancel_all",
    "cancelAll": "cancel_all",
    "cancel_all_order": "cancel_all",
}


if not TYPE_CHECKING:  # or each name of this module would be an object to a checker

    def __getattr__(name: str) -> object:
        if name in _LATER:
            from importlib import import_module

            return getattr(import_module(f"espresso.{_LATER[name]}"), name)
        advice = ""
        if name in _HABITS:
            advice = f"; it is called espresso.{_HABITS[name]}"
        raise AttributeError(f"module 'espresso' has no attribute {name!r}{advice}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})


def _after_fork() -> None:
    """In the child: hardly ever is there an import that the fork broke off."""
    importlib = _sys.modules.get("_frozen_importlib")
    locks = getattr(importlib, "_module_locks", None)
    if locks:
        from ._fork import forget_imports_of_others

        forget_imports_of_others(locks)


_os.register_at_fork(after_in_child=_after_fork)
