"""One cancel of several symbols, and what became of each."""

from __future__ import annotations

from .errors import PartialCancelError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from . import _core
    from ._client import Origin


class Swept:
    """What one cancel did."""

    __slots__ = ("failed", "failure", "orders")

    def __init__(
        self,
        orders: dict[str, int],
        failed: dict[str, Exception] | None = None,
        failure: Exception | None = None,
    ) -> None:
        self.orders = orders
        """Symbol to the number of orders cancelled, where it succeeded."""
        self.failed = failed or {}
        """Symbol to what went wrong."""
        self.failure = failure
        """All that went wrong, as ``cancel_all`` itself would raise it."""


def sweep(
    client: _core.Client,
    symbols: Sequence[str],
    *,
    confirm: bool,
    timeout: float,
    **options: Any,
) -> Swept:
    """Cancel all of these at once, and with `confirm` until nothing is open.

    Blocks, at most `timeout` seconds. Raises what is no failure of a symbol, such as
    KeyboardInterrupt, MemoryError, and RuntimeError for a closed client.
    """
    try:
        results = client.cancel_all(
            list(symbols), missing_ok=True, confirm=confirm, timeout=timeout, **options
        )
    except PartialCancelError as error:
        done = {name: len(error.results[name]["order_ids"]) for name in error.results}
        alone = len(symbols) == 1
        failure = error.failed[symbols[0]] if alone else error
        return Swept(done, error.failed, failure)
    return Swept({r["symbol"]: len(r["order_ids"]) for r in results})


def watchdog_options(origin: Origin) -> dict[str, Any]:
    """What the client of a watchdog is made with, the secrets aside."""
    return {
        **origin.options,
        "timeout": 5.0,
        "attempt_timeout": 2.0,
        "max_retries": 0,
        "on_event": None,
    }
