"""What a type checker must make of espresso: read by mypy and by pyright, never run.

`assert_type` fails where a type is another one. Each ``type: ignore`` stands for an
error that must be reported: both checkers complain of one that is not needed.
"""

from collections.abc import Iterator
from typing import Any, Literal, assert_type

import espresso
from espresso import AsyncClient, CancelAllResult, Client, Event
from espresso.errors import Outcome
from espresso.sandbox import Call, Exchange

SYMBOLS = ("ADAUSDM", "NIGHTUSDM")


def names() -> Iterator[str]:
    yield from SYMBOLS


# ---- a str is one symbol, any other iterable of them several -------------------------


def module() -> None:
    assert_type(espresso.cancel_all("ADAUSDM"), CancelAllResult)
    assert_type(espresso.cancel_all("ADAUSDM", confirm=True), CancelAllResult)
    assert_type(
        espresso.cancel_all(
            "ADAUSDM",
            missing_ok=True,
            timeout=1,
            max_retries=0,
            api_key=None,
            base_url=espresso.MAINNET,
        ),
        CancelAllResult,
    )
    assert_type(espresso.cancel_all(["ADAUSDM"]), list[CancelAllResult])
    assert_type(espresso.cancel_all(SYMBOLS), list[CancelAllResult])
    assert_type(espresso.cancel_all({"ADAUSDM": 1}), list[CancelAllResult])
    assert_type(espresso.cancel_all(names()), list[CancelAllResult])


def client(client: Client) -> None:
    assert_type(client.cancel_all("ADAUSDM", missing_ok=True), CancelAllResult)
    assert_type(client.cancel_all(["ADAUSDM"], timeout=0.5), list[CancelAllResult])
    assert_type(client.cancel_all(n for n in SYMBOLS), list[CancelAllResult])
    assert_type(client.warm_up(), float)
    assert_type(client.base_url, str)
    with client as entered:
        assert_type(entered, Client)


async def async_client(client: AsyncClient) -> None:
    assert_type(await client.cancel_all("ADAUSDM"), CancelAllResult)
    assert_type(await client.cancel_all(SYMBOLS), list[CancelAllResult])
    assert_type(await client.cancel_all(set(SYMBOLS)), list[CancelAllResult])
    assert_type(await client.warm_up(), float)
    async with client as entered:
        assert_type(entered, AsyncClient)


class Subclass(Client):
    """With options of somebody's own."""


def subclass() -> None:
    with Subclass() as client:
        assert_type(client, Subclass)
        assert_type(client.cancel_all("ADAUSDM"), CancelAllResult)


# ---- what comes back -----------------------------------------------------------------


def result(result: CancelAllResult) -> None:
    assert_type(result["symbol"], str)
    assert_type(result["order_ids"], list[str])
    assert_type(result.get("lost_reply"), Literal[True] | None)
    result["orders"]  # type: ignore[typeddict-item]


def event(event: Event) -> None:
    assert_type(event.attempt, int)
    assert_type(event.tls, float | None)
    event.attempt = 2  # type: ignore[misc]


def error(error: espresso.EspressoError) -> None:
    assert_type(error.outcome, Outcome)
    assert_type(error.code, int | None)
    assert_type(error.order_ids, list[str])
    if isinstance(error, espresso.PartialCancelError):
        assert_type(error.failed, dict[str, Exception])
        assert_type(error.results, dict[str, dict[str, Any]])


def guard(client: Client) -> None:
    with espresso.guard("ADAUSDM", heartbeat=30) as first:
        assert_type(first, espresso.Guard)
        assert_type(first.tripped, bool)
    assert_type(espresso.guard(SYMBOLS).start(), espresso.Guard)
    assert_type(client.guard(names()), espresso.Guard)


def sandbox(espresso_exchange: Exchange) -> None:
    assert_type(espresso_exchange.place("ADAUSDM", 2), list[str])
    assert_type(espresso_exchange.calls, list[Call])
    assert_type(espresso_exchange.environment, dict[str, str])


# ---- what must be an error -----------------------------------------------------------


def wrong(client: Client, async_client: AsyncClient) -> None:
    espresso.cancel_all(5)  # type: ignore[call-overload]
    espresso.cancel_all([5])  # type: ignore[list-item]
    espresso.cancel_all()  # type: ignore[call-overload]
    espresso.cancel_all("ADAUSDM", True)  # type: ignore[call-overload]
    espresso.cancel_all("ADAUSDM", timeout=(3, 10))  # type: ignore[call-overload]
    espresso.cancel_all("ADAUSDM", verify=False)  # type: ignore[call-overload]
    espresso.cancel_all("ADAUSDM")["code"]  # type: ignore[typeddict-item]
    client.cancel_all("ADAUSDM", retries=1)  # type: ignore[call-overload]
    client.cancel_all(None)  # type: ignore[call-overload]
    _ = async_client.cancel_all(b"ADAUSDM")  # type: ignore[arg-type]
    Client(timeout=None)  # type: ignore[arg-type]
    Client(on_event=print, ca_file=5)  # type: ignore[arg-type]
    _ = espresso.cancel_all_orders  # type: ignore[attr-defined]
