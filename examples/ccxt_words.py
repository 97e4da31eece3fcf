"""espresso in ccxt's words: `cancel_all_orders(symbol)`, and ccxt's exceptions.

    python examples/ccxt_words.py ADA/USDM

It needs ``pip install ccxt``. Put `DeltaDefi` where your bot has its ccxt exchange: it
answers `cancel_all_orders` alone. What ccxt calls ``ADA/USDM`` is ``ADAUSDM`` here.

A bot that tries again on ccxt's `OperationFailed` (time-outs, network, maintenance)
does the right thing, since each press here is a ``confirm=True``: it repeats itself
until the exchange says that nothing is open. What is known of the orders is in the
exception's ``__cause__``, which is espresso's own: ``error.__cause__.outcome``.
"""

from __future__ import annotations

import sys
from typing import Any

import ccxt

import espresso

# A class that is not here is told as the one above it in espresso's tree.
IN_THEIR_WORDS: dict[type, Any] = {
    espresso.EspressoError: ccxt.ExchangeError,
    espresso.TransportError: ccxt.NetworkError,
    espresso.CertificateError: ccxt.ExchangeError,
    espresso.RequestTimeoutError: ccxt.RequestTimeout,
    espresso.ResponseError: ccxt.BadResponse,
    espresso.BadRequestError: ccxt.BadRequest,
    espresso.InvalidSymbolError: ccxt.BadSymbol,
    espresso.AuthenticationError: ccxt.AuthenticationError,
    espresso.PermissionDeniedError: ccxt.PermissionDenied,
    espresso.OrderNotFoundError: ccxt.OrderNotFound,
    espresso.RateLimitError: ccxt.RateLimitExceeded,
    espresso.ServerError: ccxt.ExchangeNotAvailable,
    espresso.TradingLockedError: ccxt.OnMaintenance,
    espresso.StillOpenError: ccxt.CancelPending,
}


def translated(error: espresso.EspressoError) -> ccxt.BaseError:
    """ccxt's exception for this one, with the same message.

    After an attempt without an answer it is always one that ccxt takes for worth
    another try, whatever the last attempt said.
    """
    ours = next(kind for kind in type(error).__mro__ if kind in IN_THEIR_WORDS)
    theirs = IN_THEIR_WORDS[ours]
    if error.outcome == "unknown" and not issubclass(theirs, ccxt.OperationFailed):
        theirs = ccxt.OperationFailed
    return theirs(f"deltadefi {error}")


class DeltaDefi:
    """Cancels in ccxt's words. `options` are those of `espresso.Client`; the key is
    read from ``DELTADEFI_API_KEY``."""

    id = "deltadefi"

    def __init__(self, **options: Any) -> None:
        self._client = espresso.Client(**options)

    def cancel_all_orders(
        self, symbol: str | None = None, params: dict[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """Cancel all open orders of one market until none is left.

        Returns what was cancelled, as ccxt's order structures; empty if nothing was
        open. `params` may have espresso's own ``timeout`` and ``max_retries``.
        """
        if symbol is None:
            raise ccxt.ArgumentsRequired("deltadefi cancelAllOrders() needs a symbol")
        try:
            result = self._client.cancel_all(
                symbol.replace("/", ""), confirm=True, **(params or {})
            )
        except espresso.EspressoError as error:
            raise translated(error) from error
        except ValueError as error:  # no symbol, or no number: nothing was sent
            raise ccxt.BadRequest(f"deltadefi {error}") from error
        return [
            {"id": order, "symbol": symbol, "status": "canceled", "info": result}
            for order in result["order_ids"]
        ]

    def close(self) -> None:
        self._client.close()


def main(symbols: list[str]) -> int:
    if not symbols:
        print("usage: ccxt_words.py SYMBOL...", file=sys.stderr)
        return 2
    exchange = DeltaDefi()
    status = 0
    for symbol in symbols:
        try:
            orders = exchange.cancel_all_orders(symbol)
        except ccxt.BaseError as error:
            print(f"{symbol}: MAY BE OPEN: {type(error).__name__}: {error}")
            status = 1
        else:
            print(f"{symbol}: nothing open; {len(orders)} cancelled")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
