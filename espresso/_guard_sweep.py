"""One cancel of several symbols; what became of each."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from . import _core


class Swept:
    """What one call did."""

    __slots__ = ("failed", "order_ids")

    def __init__(
        self, order_ids: Mapping[str, list[str]], failed: Mapping[str, Exception]
    ) -> None:
        self.order_ids = dict(order_ids)
        """Symbol to the orders it cancelled, of those that succeeded."""
        self.failed = dict(failed)
        """Symbol to what went wrong."""


def sweep(
    client: _core.Client,
    symbols: Sequence[str],
    *,
    confirm: bool,
    timeout: float,
    **options: Any,
) -> Swept:
    """Cancel all of these at once, and with `confirm` until nothing is open.

    Blocks, at most `timeout` seconds. Raises what is no failure of a symbol, such
    as KeyboardInterrupt, MemoryError, and RuntimeError for a closed client.
    """
    import time

    from .errors import EspressoError, StillOpenError

    ids: dict[str, list[str]] = {}
    failed: dict[str, Exception] = {}
    until = time.monotonic() + timeout
    for symbol in symbols:
        found: list[str] = []
        while True:
            try:
                left = max(0.001, until - time.monotonic())
                more = client.cancel_all(
                    symbol, missing_ok=True, timeout=left, **options
                )["order_ids"]
            except EspressoError as error:
                failed[symbol] = error
                break
            found += more
            if not (confirm and more):
                ids[symbol] = found
                break
            if time.monotonic() > until:
                failed[symbol] = StillOpenError("orders still appear")
                break
    return Swept(ids, failed)
