"""The verb: what it sends, what it returns, and what it reads from the environment."""

from __future__ import annotations

import inspect
import json
import logging
import os
import pydoc
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any, is_typeddict

import pytest

import espresso
from espresso import _client
from espresso.sandbox import Exchange
from tests.rawserver import DONE, KEY, RawServer, Wire, answering, http

SYMBOL = "ADAUSDM"


# --- the request -----------------------------------------------------------------


def test_the_request_is_the_one_of_the_specification() -> None:
    with RawServer(answering(http(DONE)), tls=False) as server:
        with server.client() as client:
            client.cancel_all(SYMBOL)
        (request,) = server.posts
    head, _, body = request.partition(b"\r\n\r\n")
    line, *headers = head.decode().split("\r\n")
    assert line == "POST /order/cancel-all HTTP/1.1"
    assert json.loads(body) == {"symbol": SYMBOL}
    sent = {name.lower(): value for name, value in (h.split(": ") for h in headers)}
    assert len(sent) == len(headers), "no header stands twice"
    assert sent["content-type"] == "application/json"
    assert sent["x-api-key"] == KEY
    assert sent["content-length"] == str(len(body))
    assert sent["user-agent"] == f"espresso-deltadefi/{espresso.__version__}"
    unwanted = {"expect", "transfer-encoding", "authorization", "cookie", "te"}
    assert not unwanted & set(sent)
    assert "accept-encoding" not in sent, "nothing packed is asked for"


def test_the_path_of_the_base_url_is_kept(exchange: Exchange) -> None:
    url = f"{exchange.url}/gateway/v1/"
    with (
        espresso.Client(exchange.key, base_url=url, ca_file=exchange.ca_file) as client,
        pytest.raises(espresso.APIError) as caught,
    ):
        client.cancel_all(SYMBOL)
    assert [call.path for call in exchange.calls] == ["/gateway/v1/order/cancel-all"]
    assert type(caught.value) is espresso.APIError
    assert (caught.value.code, caught.value.status_code) == (None, 404)


@pytest.mark.parametrize("symbol", ["ADA.USDM_1-x", "a", "0", "X" * 64])
def test_symbols_are_sent_as_typed(
    exchange: Exchange, client: espresso.Client, symbol: str
) -> None:
    ids = exchange.place(symbol, 1)
    assert client.cancel_all(symbol) == {"symbol": symbol, "order_ids": ids}
    assert [call.symbol for call in exchange.calls] == [symbol]


# --- the value -------------------------------------------------------------------


def test_the_result_is_an_exact_dict(
    exchange: Exchange, client: espresso.Client
) -> None:
    ids = exchange.place(SYMBOL, 2)
    result = client.cancel_all(SYMBOL)
    assert result == {"symbol": SYMBOL, "order_ids": ids}
    assert type(result) is dict
    assert type(result["order_ids"]) is list
    assert {type(name) for name in (*result, *result["order_ids"])} == {str}
    assert exchange.open_orders() == []


def test_only_the_symbol_and_the_account_asked_for(
    exchange: Exchange, client: espresso.Client
) -> None:
    other = exchange.new_key()
    exchange.place(SYMBOL, 1)
    left = exchange.place("NIGHTUSDM", 1)
    foreign = exchange.place(SYMBOL, 1, key=other)
    client.cancel_all(SYMBOL)
    assert exchange.open_orders() == left
    assert exchange.open_orders(key=other) == foreign


def test_results_are_the_callers_own(
    exchange: Exchange, client: espresso.Client
) -> None:
    exchange.reply("200_two_orders", times=2)
    first, second = client.cancel_all(SYMBOL), client.cancel_all(SYMBOL)
    first["order_ids"].clear()
    assert len(second["order_ids"]) == 2


def test_unknown_members_are_kept(exchange: Exchange, client: espresso.Client) -> None:
    document = {
        "symbol": SYMBOL,
        "order_ids": ["a"],
        "count": 1,
        "most": 2**53,
        "least": -(2**53),
        "fee": 0.125,
        "ok": True,
        "not_ok": False,
        "note": None,
        "texts": ["", "€", "😀", "a\nb"],
        "deep": {"a": [{"b": {}}], "symbol": "other", "": []},
    }
    exchange.reply(http(json.dumps(document).encode()))
    result = client.cancel_all(SYMBOL)
    assert result == document
    assert [type(value) for value in result.values()] == [
        type(value) for value in document.values()
    ]


class Odd(str):
    """A str that answers wrongly when it is asked."""

    def __str__(self) -> str:
        return "NIGHTUSDM"

    def __len__(self) -> int:
        return 1

    def encode(self, *args: Any, **kwargs: Any) -> bytes:
        return b"NIGHTUSDM"


@pytest.mark.parametrize("reply", ["200_two_orders", "200_no_symbol"])
def test_a_str_subclass_is_read_as_what_it_holds(
    exchange: Exchange, client: espresso.Client, reply: str
) -> None:
    exchange.reply(reply)
    result = client.cancel_all(Odd(SYMBOL))
    assert exchange.calls[0].body == b'{"symbol":"ADAUSDM"}'
    assert result["symbol"] == SYMBOL
    assert type(result["symbol"]) is str


def test_small_letters_are_said_once(
    exchange: Exchange, client: espresso.Client, caplog: pytest.LogCaptureFixture
) -> None:
    exchange.reply("200_two_orders", times=3)
    for _ in range(2):
        assert client.cancel_all("adausdm")["symbol"] == SYMBOL
    client.cancel_all(SYMBOL)
    assert exchange.calls[0].symbol == "adausdm"
    said = [r for r in caplog.records if r.name == "espresso"]
    assert [record.levelno for record in said] == [logging.WARNING]
    assert "adausdm" in said[0].getMessage()


# --- nothing open ----------------------------------------------------------------


def test_nothing_open_is_an_error(client: espresso.Client) -> None:
    with pytest.raises(espresso.OrderNotFoundError) as caught:
        client.cancel_all(SYMBOL)
    error = caught.value
    assert (error.code, error.status_code, error.symbol) == (4200, 400, SYMBOL)
    assert (error.outcome, error.attempts, error.retryable) == ("rejected", 1, False)


@pytest.mark.parametrize("reply", ["400_code_4200", "404_code_4200"])
def test_missing_ok(exchange: Exchange, client: espresso.Client, reply: str) -> None:
    exchange.reply(reply)
    result = client.cancel_all(SYMBOL, missing_ok=True)
    assert result == {"symbol": SYMBOL, "order_ids": []}
    assert type(result) is dict


@pytest.mark.parametrize(
    "reply", ["400_code_4106", "401_code_4010", "404_text", "400_code_4000"]
)
def test_missing_ok_forgives_nothing_else(
    exchange: Exchange, client: espresso.Client, reply: str
) -> None:
    exchange.reply(reply)
    with pytest.raises(espresso.APIError):
        client.cancel_all(SYMBOL, missing_ok=True)


def test_missing_ok_is_of_one_call(client: espresso.Client) -> None:
    client.cancel_all(SYMBOL, missing_ok=True)
    with pytest.raises(espresso.OrderNotFoundError):
        client.cancel_all(SYMBOL, missing_ok=False)


# --- lost replies ----------------------------------------------------------------


@pytest.fixture
def events() -> list[espresso.Event]:
    return []


@pytest.fixture
def watched(
    exchange: Exchange, events: list[espresso.Event]
) -> Iterator[espresso.Client]:
    with espresso.Client(
        exchange.key,
        base_url=exchange.url,
        ca_file=exchange.ca_file,
        timeout=5,
        on_event=events.append,
    ) as client:
        yield client


@pytest.mark.parametrize("missing_ok", [False, True])
def test_nothing_open_after_a_lost_reply_is_success(
    exchange: Exchange, client: espresso.Client, missing_ok: bool
) -> None:
    exchange.place(SYMBOL, 2)
    exchange.fault("reset_after_read")
    result = client.cancel_all(SYMBOL, missing_ok=missing_ok)
    assert result == {"symbol": SYMBOL, "order_ids": [], "lost_reply": True}
    assert result["lost_reply"] is True
    assert [call.status for call in exchange.calls] == [None, 400]


def test_a_200_after_a_lost_reply_is_a_lower_bound(
    exchange: Exchange, client: espresso.Client
) -> None:
    placed = exchange.place(SYMBOL, 3)
    exchange.fault("5000_as_400", cancel=1)
    result = client.cancel_all(SYMBOL)
    expected = {"symbol": SYMBOL, "order_ids": placed[1:], "lost_reply": True}
    assert result == expected


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("reset", {}),
        ("truncate", {}),
        ("envoy_503", {}),
        ("5000_as_400", {}),
    ],
)
def test_whatever_ended_unknown_makes_a_lost_reply(
    exchange: Exchange,
    client: espresso.Client,
    caplog: pytest.LogCaptureFixture,
    name: str,
    params: dict[str, Any],
) -> None:
    exchange.fault(name, **params)
    result = client.cancel_all(SYMBOL)
    assert result == {"symbol": SYMBOL, "order_ids": [], "lost_reply": True}
    said = [r.getMessage() for r in caplog.records if r.name == "espresso"]
    assert any("lost" in text and SYMBOL in text for text in said), said


@pytest.mark.parametrize("name", ["connect_reset", "locked_5002"])
def test_a_certain_no_makes_none(
    exchange: Exchange, client: espresso.Client, name: str
) -> None:
    ids = exchange.place(SYMBOL, 1)
    exchange.fault(name)
    assert client.cancel_all(SYMBOL) == {"symbol": SYMBOL, "order_ids": ids}


@pytest.mark.parametrize("name", ["connect_reset", "locked_5002"])
def test_a_4200_after_a_certain_no_raises(
    exchange: Exchange, client: espresso.Client, name: str
) -> None:
    exchange.fault(name)
    with pytest.raises(espresso.OrderNotFoundError) as caught:
        client.cancel_all(SYMBOL)
    assert (caught.value.outcome, caught.value.attempts) == ("rejected", 2)


def test_the_exchanges_own_lost_reply_is_not_ours(
    exchange: Exchange, client: espresso.Client
) -> None:
    """A member of that name in the answer is the exchange's, unless we know better."""
    exchange.fault("reset")
    body = b'{"symbol":"ADAUSDM","order_ids":[],"lost_reply":false}'
    exchange.reply(http(body))
    assert client.cancel_all(SYMBOL)["lost_reply"] is True


def test_the_outcome_speaks_of_all_attempts(
    exchange: Exchange, client: espresso.Client
) -> None:
    exchange.fault("envoy_503")
    exchange.reply("400_code_4106")
    with pytest.raises(espresso.InvalidSymbolError) as caught:
        client.cancel_all(SYMBOL)
    error = caught.value
    assert (error.code, error.status_code) == (4106, 400)
    assert (error.outcome, error.attempts, error.retryable) == ("unknown", 2, False)
    assert "attempt 2 of 3" in str(error)


def test_the_event_says_so(
    exchange: Exchange, watched: espresso.Client, events: list[espresso.Event]
) -> None:
    exchange.fault("reset_after_read")
    watched.cancel_all(SYMBOL)
    assert [
        (event.attempt, event.outcome, event.lost_reply, event.status_code, event.code)
        for event in events
    ] == [(1, "unknown", False, None, None), (2, "done", True, 400, 4200)]
    assert {type(event) for event in events} == {espresso.Event}


@pytest.mark.parametrize("ends", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize(
    ("fault", "carried_out"),
    [(None, True), ("reset_after_read", True), ("reset", False), ("envoy_503", False)],
)
def test_a_callback_that_ends_the_call_is_told_the_truth(
    exchange: Exchange, fault: str | None, carried_out: bool, ends: type[BaseException]
) -> None:
    """The request has gone out, and may be done: no note may say otherwise."""

    def leave(event: espresso.Event) -> None:
        raise ends

    exchange.place(SYMBOL, 1)
    if fault is not None:
        exchange.fault(fault)
    with (
        espresso.Client(
            exchange.key,
            base_url=exchange.url,
            ca_file=exchange.ca_file,
            on_event=leave,
        ) as client,
        pytest.raises(ends) as caught,
    ):
        client.cancel_all(SYMBOL)
    assert (exchange.open_orders() == []) is carried_out
    (note,) = caught.value.__notes__
    assert SYMBOL in note
    assert "not gone out" not in note
    assert "nothing was cancelled" not in note


def test_one_attempt_is_one_post(exchange: Exchange, client: espresso.Client) -> None:
    exchange.place(SYMBOL, 1)
    exchange.fault("reset_after_read")
    with pytest.raises(espresso.ConnectionLostError) as caught:
        client.cancel_all(SYMBOL, max_retries=0)
    assert (caught.value.outcome, caught.value.attempts) == ("unknown", 1)
    assert len(exchange.calls) == 1


# --- the module-level call -------------------------------------------------------


@pytest.fixture
def env(exchange: Exchange, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The environment names the exchange in all."""
    monkeypatch.setenv("DELTADEFI_API_KEY", exchange.key)
    monkeypatch.setenv("DELTADEFI_BASE_URL", exchange.url)
    monkeypatch.setenv("SSL_CERT_FILE", exchange.ca_file)
    return monkeypatch


def test_the_one_line(exchange: Exchange, env: pytest.MonkeyPatch) -> None:
    ids = exchange.place(SYMBOL, 1)
    assert espresso.cancel_all(SYMBOL) == {"symbol": SYMBOL, "order_ids": ids}
    with pytest.raises(espresso.OrderNotFoundError):
        espresso.cancel_all(SYMBOL)
    result = espresso.cancel_all(SYMBOL, missing_ok=True)
    assert result == {"symbol": SYMBOL, "order_ids": []}
    assert {call.connection for call in exchange.calls} == {1}


def test_the_key_is_read_at_each_call(
    exchange: Exchange, env: pytest.MonkeyPatch
) -> None:
    other = exchange.new_key()
    espresso.cancel_all(SYMBOL, missing_ok=True)
    env.setenv("DELTADEFI_API_KEY", other)
    espresso.cancel_all(SYMBOL, missing_ok=True)
    assert [call.key for call in exchange.calls] == [exchange.key, other]
    assert {call.connection for call in exchange.calls} == {1}, "the client is kept"


def test_a_client_reads_the_key_at_each_call(
    exchange: Exchange, env: pytest.MonkeyPatch
) -> None:
    other = exchange.new_key()
    with espresso.Client() as client:
        client.cancel_all(SYMBOL, missing_ok=True)
        env.setenv("DELTADEFI_API_KEY", other)
        client.cancel_all(SYMBOL, missing_ok=True)
        env.delenv("DELTADEFI_API_KEY")
        with pytest.raises(espresso.ConfigError, match="DELTADEFI_API_KEY"):
            client.cancel_all(SYMBOL, missing_ok=True)
    assert [call.key for call in exchange.calls] == [exchange.key, other]


def test_another_host_replaces_the_client(
    exchange: Exchange, env: pytest.MonkeyPatch
) -> None:
    espresso.cancel_all(SYMBOL, missing_ok=True)
    with Exchange(rate=None) as other:
        env.setenv("DELTADEFI_BASE_URL", other.url)
        env.setenv("SSL_CERT_FILE", other.ca_file)
        env.setenv("DELTADEFI_API_KEY", other.key)
        espresso.cancel_all(SYMBOL, missing_ok=True)
        assert len(exchange.calls) == len(other.calls) == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HTTPS_PROXY", "http://127.0.0.1:9"),
        ("NO_PROXY", "example.invalid"),
        ("SSL_CERT_DIR", "/nowhere"),
        ("ESPRESSO_LOOPBACK_ONLY", "1"),
    ],
)
def test_anything_but_the_key_replaces_the_client(
    exchange: Exchange, env: pytest.MonkeyPatch, name: str, value: str
) -> None:
    espresso.cancel_all(SYMBOL, missing_ok=True)
    espresso.cancel_all(SYMBOL, missing_ok=True)
    env.setenv(name, value)
    espresso.cancel_all(SYMBOL, missing_ok=True)
    assert [call.connection for call in exchange.calls] == [1, 1, 2]


def test_a_trust_store_that_changes_is_looked_at_again(
    exchange: Exchange, env: pytest.MonkeyPatch
) -> None:
    espresso.cancel_all(SYMBOL, missing_ok=True)
    env.setenv("SSL_CERT_FILE", "/nowhere/ca.pem")
    with pytest.raises(espresso.CertificateError, match=r"/nowhere/ca\.pem"):
        espresso.cancel_all(SYMBOL, missing_ok=True)
    assert len(exchange.calls) == 1


class Recorder(dict[str, str]):
    """An environment that counts how often each variable is read."""

    def __init__(self) -> None:
        super().__init__(os.environ)
        self.reads: Counter[str] = Counter()

    def __getitem__(self, name: str) -> str:
        self.reads[name] += 1
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self.reads[name] += 1
        return super().get(name, default)

    def __contains__(self, name: object) -> bool:
        self.reads[str(name)] += 1
        return super().__contains__(name)


def test_one_call_is_one_look_at_the_environment(
    exchange: Exchange, env: pytest.MonkeyPatch
) -> None:
    """Else a call could mix the key of one setting with the host of another."""
    recorder = Recorder()
    env.setattr(os, "environ", recorder)
    espresso.cancel_all(SYMBOL, missing_ok=True)
    assert recorder.reads["DELTADEFI_API_KEY"] == 1
    assert set(recorder.reads.values()) == {1}, recorder.reads


def test_api_key_and_base_url_go_before_the_environment(
    exchange: Exchange, env: pytest.MonkeyPatch
) -> None:
    other = exchange.new_key()
    env.setenv("DELTADEFI_BASE_URL", "https://127.0.0.1:1")
    env.setenv("DELTADEFI_API_KEY", "sandbox-nobody")
    espresso.cancel_all(SYMBOL, missing_ok=True, api_key=other, base_url=exchange.url)
    env.delenv("DELTADEFI_API_KEY")
    espresso.cancel_all(SYMBOL, missing_ok=True, api_key=other, base_url=exchange.url)
    assert [call.key for call in exchange.calls] == [other, other]
    assert {call.connection for call in exchange.calls} == {1}, "the client is kept"


def test_api_key_alone(exchange: Exchange, env: pytest.MonkeyPatch) -> None:
    other = exchange.new_key()
    ids = exchange.place(SYMBOL, 1, key=other)
    result = espresso.cancel_all(SYMBOL, api_key=other)
    assert result["order_ids"] == ids
    espresso.cancel_all(SYMBOL, missing_ok=True)
    assert [call.key for call in exchange.calls] == [other, exchange.key]


def test_timeout_and_retries_of_one_call(
    exchange: Exchange, env: pytest.MonkeyPatch
) -> None:
    exchange.fault("hang")
    with pytest.raises(espresso.RequestTimeoutError) as caught:
        espresso.cancel_all(SYMBOL, timeout=0.2, max_retries=0)
    assert 0.05 < caught.value.elapsed < 1
    assert len(exchange.calls) == 1
    espresso.cancel_all(SYMBOL, missing_ok=True)


def test_ellipsis_is_the_default(exchange: Exchange, env: pytest.MonkeyPatch) -> None:
    """As the signature writes it."""
    result = espresso.cancel_all(
        SYMBOL, missing_ok=True, timeout=..., max_retries=..., api_key=None
    )
    assert result["order_ids"] == []


def test_eight_clients_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def path(request: bytes) -> str:
        return request.split(b" ")[1].decode().removesuffix("/order/cancel-all")

    with RawServer(answering(http(DONE)), tls=False) as server:
        for name in [*range(9), *range(1, 9), 0]:
            url = f"{server.url}/{name}"
            espresso.cancel_all(SYMBOL, api_key=KEY, base_url=url)
        used: dict[str, list[int]] = {}
        for connection, request in server.requests:
            used.setdefault(path(request), []).append(connection)
    for name in range(1, 9):
        assert len(set(used[f"/{name}"])) == 1, "among the last eight: kept"
    assert len(set(used["/0"])) == 2, "the ninth: made anew"
    assert len([url for url in _client._clients if url]) == 8


def test_a_replaced_client_ends_with_its_last_call() -> None:
    gone: list[int] = []

    def script(wire: Wire) -> None:
        try:
            answering(http(DONE))(wire)
        except EOFError:
            gone.append(wire.number)
            raise

    with RawServer(script, tls=False) as server:
        for name in range(9):
            url = f"{server.url}/{name}"
            espresso.cancel_all(SYMBOL, api_key=KEY, base_url=url)
        for _ in range(500):
            if gone:
                break
            time.sleep(0.01)
        assert gone == [0]


# --- which hosts the environment may name ----------------------------------------


@pytest.fixture
def unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were a call made in spite of all, it would end at a port nobody listens on."""
    monkeypatch.setenv("DELTADEFI_API_KEY", "sandbox-nobody")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")


HOSTS_NOT_TO_BE_NAMED = [
    "https://example.invalid",
    "https://api.deltadefi.io.example.invalid",
    "https://api.deltadefi.io:8443",
    "https://api.deltadefi.io/v2",
    "http://api.deltadefi.io",
    "https://user@api.deltadefi.io",
    "api.deltadefi.io",
]


@pytest.mark.parametrize("url", HOSTS_NOT_TO_BE_NAMED)
@pytest.mark.parametrize("form", ["module", "client"])
def test_the_environment_may_not_name_a_stranger(
    monkeypatch: pytest.MonkeyPatch, unreachable: None, form: str, url: str
) -> None:
    monkeypatch.setenv("DELTADEFI_BASE_URL", url)
    with pytest.raises(espresso.ConfigError, match="DELTADEFI_BASE_URL") as caught:
        if form == "module":
            espresso.cancel_all(SYMBOL, timeout=0.2, max_retries=0)
        else:
            espresso.Client()
    assert (caught.value.outcome, caught.value.attempts) == ("not_sent", 0)


@pytest.mark.parametrize(
    ("url", "seen"),
    [
        ("https://api.deltadefi.io", espresso.MAINNET),
        ("https://API.deltadefi.io/", espresso.MAINNET),
        ("https://api-staging.deltadefi.io", espresso.PREPROD),
        ("https://localhost:8443", "https://localhost:8443"),
        ("http://127.0.0.1:8000/x/", "http://127.0.0.1:8000/x"),
        ("", espresso.MAINNET),
    ],
)
def test_the_hosts_it_may_name(
    monkeypatch: pytest.MonkeyPatch, url: str, seen: str
) -> None:
    monkeypatch.setenv("DELTADEFI_BASE_URL", url)
    assert espresso.Client().base_url == seen


def test_the_default_is_mainnet() -> None:
    assert espresso.MAINNET == "https://api.deltadefi.io"
    assert espresso.PREPROD == "https://api-staging.deltadefi.io"
    assert espresso.Client().base_url == espresso.MAINNET


def test_another_host_than_mainnet_is_said_once(
    exchange: Exchange, env: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        espresso.cancel_all(SYMBOL, missing_ok=True)
    espresso.Client().close()
    said = [r for r in caplog.records if r.name == "espresso"]
    assert [record.levelno for record in said] == [logging.WARNING]
    assert exchange.url in said[0].getMessage()


def test_a_host_that_was_passed_is_not_remarked_on(
    client: espresso.Client, caplog: pytest.LogCaptureFixture
) -> None:
    client.cancel_all(SYMBOL, missing_ok=True)
    assert not [r for r in caplog.records if r.name == "espresso"]


@pytest.mark.parametrize("form", ["module", "base_url", "client"])
def test_loopback_only(
    monkeypatch: pytest.MonkeyPatch, unreachable: None, form: str
) -> None:
    monkeypatch.setenv("ESPRESSO_LOOPBACK_ONLY", "1")
    with pytest.raises(espresso.ConfigError, match="ESPRESSO_LOOPBACK_ONLY"):
        if form == "module":
            espresso.cancel_all(SYMBOL, timeout=0.2, max_retries=0)
        elif form == "base_url":
            url = "https://example.invalid"
            espresso.cancel_all(SYMBOL, timeout=0.2, max_retries=0, base_url=url)
        else:
            espresso.Client(base_url=espresso.PREPROD)


def test_loopback_only_lets_loopback_through(
    exchange: Exchange, env: pytest.MonkeyPatch
) -> None:
    env.setenv("ESPRESSO_LOOPBACK_ONLY", "1")
    assert espresso.cancel_all(SYMBOL, missing_ok=True)["order_ids"] == []


# --- from habit ------------------------------------------------------------------


def test_cancel_all_orders_names_cancel_all() -> None:
    with pytest.raises(AttributeError, match=r"espresso\.cancel_all\b"):
        _ = espresso.cancel_all_orders


def test_a_name_that_is_nobodys() -> None:
    with pytest.raises(AttributeError, match="no attribute 'flat_white'"):
        _ = espresso.flat_white
    assert not hasattr(espresso, "__wrapped__")


HABITS = [
    ({"timeout": (3, 10)}, "connect_timeout"),
    ({"verify": False}, "ca_file"),
    ({"verify": "/etc/ca.pem"}, "ca_file"),
    ({"cert": "x.pem"}, "cert"),
    ({"proxies": {}}, "proxy"),
    ({"colour": "red"}, "colour"),
]


@pytest.mark.parametrize(("keywords", "names"), HABITS)
@pytest.mark.parametrize("form", ["module", "method", "constructor"])
def test_habits(
    exchange: Exchange,
    env: pytest.MonkeyPatch,
    client: espresso.Client,
    form: str,
    keywords: dict[str, Any],
    names: str,
) -> None:
    with pytest.raises(TypeError, match=names):
        if form == "module":
            espresso.cancel_all(SYMBOL, **keywords)
        elif form == "method":
            client.cancel_all(SYMBOL, **keywords)
        else:
            espresso.Client(exchange.key, base_url=exchange.url, **keywords)
    assert exchange.requests == []


# --- what help() shows -----------------------------------------------------------


def test_signatures() -> None:
    assert str(inspect.signature(espresso.cancel_all)) == (
        "(symbol, *, missing_ok=False, confirm=False, timeout=Ellipsis, "
        "max_retries=Ellipsis, api_key=None, base_url=None)"
    )
    method = inspect.signature(espresso.Client.cancel_all)
    assert list(method.parameters) == [
        "self",
        "symbol",
        "missing_ok",
        "confirm",
        "timeout",
        "max_retries",
    ]
    for name, parameter in method.parameters.items():
        if name not in ("self", "symbol"):
            assert parameter.kind is inspect.Parameter.KEYWORD_ONLY
    assert str(inspect.signature(espresso.Client("k").cancel_all)) == (
        "(symbol, *, missing_ok=False, confirm=False, timeout=Ellipsis, "
        "max_retries=Ellipsis)"
    )
    assert str(inspect.signature(espresso.Client.warm_up)) == "(self, /)"
    assert str(inspect.signature(espresso.Client.close)) == "(self, /)"


def test_the_constructors_signature() -> None:
    parameters = inspect.signature(espresso.Client).parameters
    defaults = {name: parameter.default for name, parameter in parameters.items()}
    assert defaults == {
        "api_key": None,
        "base_url": None,
        "timeout": 10.0,
        "attempt_timeout": None,
        "connect_timeout": 2.0,
        "max_retries": 2,
        "proxy": None,
        "trust_env": True,
        "ca_file": None,
        "on_event": None,
    }
    kinds = [parameter.kind for parameter in parameters.values()]
    assert kinds[0] is inspect.Parameter.POSITIONAL_OR_KEYWORD
    assert set(kinds[1:]) == {inspect.Parameter.KEYWORD_ONLY}


def shown(public: object) -> str:
    """What help() prints, without the bold of a terminal."""
    return pydoc.plain(pydoc.render_doc(public))


@pytest.mark.parametrize("name", espresso.__all__)
def test_help_on_everything_public(name: str) -> None:
    public = getattr(espresso, name)
    assert name in dir(espresso)
    if not callable(public):
        return
    assert inspect.getdoc(public)
    assert name in shown(public)
    if not is_typeddict(public):  # a plain dict: it takes whatever dict takes
        assert inspect.signature(public) is not None


@pytest.mark.parametrize("name", ["cancel_all", "warm_up", "close"])
def test_help_on_the_methods(name: str) -> None:
    method = getattr(espresso.Client, name)
    assert inspect.getdoc(method)
    assert name in shown(method)


def test_star_import() -> None:
    namespace: dict[str, object] = {}
    exec("from espresso import *", namespace)
    assert set(espresso.__all__) <= set(namespace)


def test_versions() -> None:
    assert espresso.__version__ == espresso.__versions__["espresso"]
    assert set(espresso.__versions__) == {"espresso", "libcurl", "tls", "cjson"}
    assert all(espresso.__versions__.values())
