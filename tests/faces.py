"""The faces of one call: what is true of one must be true of all.

A test that takes `face` runs once for each; a face turns the call of one symbol into
its result or its own exception, whatever wraps it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import espresso

Result = dict[str, Any]


def press(client: Any, symbol: Any, **options: Any) -> Any:
    """``cancel_all`` of either client."""
    if isinstance(client, espresso.AsyncClient):
        return asyncio.run(client.cancel_all(symbol, **options))
    return client.cancel_all(symbol, **options)


def press_one(client: Any, symbol: Any, **options: Any) -> Result:
    return dict(press(client, symbol, **options))


def press_list_of_one(client: Any, symbol: Any, **options: Any) -> Result:
    """The list form's result for its only symbol, or what is in the group for it."""
    try:
        (result,) = press(client, [symbol], **options)
    except espresso.PartialCancelError as error:
        assert error.results == {}
        assert list(error.failed) == [symbol]
        assert error.outcome == error.failed[symbol].outcome  # type: ignore[attr-defined]
        raise error.failed[symbol] from None
    return dict(result)


def press_among_others(client: Any, symbol: Any, **options: Any) -> Result:
    """The same, twice in the list."""
    try:
        first, second = press(client, (name for name in (symbol, symbol)), **options)
    except espresso.PartialCancelError as error:
        raise error.failed[symbol] from None
    assert first == second and first is not second
    return dict(first)


@dataclass(frozen=True)
class Face:
    name: str
    client_type: type[Any]
    press: Callable[..., Result]

    def client(self, exchange: Any, **options: Any) -> Any:
        """A client of a sandbox exchange, or of a raw server."""
        defaults: Mapping[str, Any] = {
            "base_url": exchange.url,
            "ca_file": exchange.ca_file,
            "timeout": 5.0,
        }
        key = getattr(exchange, "key", "sandbox-0f1e2d3c4b5a69788796a5b4c3d2e1f0")
        return self.client_type(key, **{**defaults, **options})

    @staticmethod
    def warm_up(client: Any) -> float:
        if isinstance(client, espresso.AsyncClient):
            return asyncio.run(client.warm_up())
        return float(client.warm_up())


FACES = [
    Face("sync", espresso.Client, press_one),
    Face("list", espresso.Client, press_list_of_one),
    Face("list twice", espresso.Client, press_among_others),
    Face("async", espresso.AsyncClient, press_one),
    Face("async list", espresso.AsyncClient, press_list_of_one),
]
