"""Proxies: who is one, what it gets to see, and what it can break.

The target is a name that only the proxy can reach: loopback itself never goes
through one. Where a name must also be reachable without it, it is one below
``.localhost``, which libcurl itself resolves to loopback (RFC 6761, 6.3).
"""

from __future__ import annotations

import base64
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import trustme

import espresso
from espresso.sandbox import Exchange
from tests.connectproxy import PASSWORD, ConnectProxy, reply
from tests.rawserver import DONE, IDS, KEY, SYMBOL, RawServer, answering, http

RESULT = {"symbol": SYMBOL, "order_ids": IDS}
TARGET = "exchange.test"
NEARBY = "exchange.localhost"

VARIABLES = ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]


@dataclass(frozen=True)
class Net:
    """An exchange under two names, and a proxy that leads to it."""

    server: RawServer
    proxy: ConnectProxy

    @property
    def target(self) -> str:
        """Reached through the proxy alone."""
        return f"https://{TARGET}"

    @property
    def nearby(self) -> str:
        """Reached through the proxy, or without."""
        return f"https://{NEARBY}:{self.server.port}"

    def client(self, **options: Any) -> espresso.Client:
        return self.server.client(**{"base_url": self.target} | options)

    def cancel(self, **options: Any) -> None:
        with self.client(**options) as client:
            assert client.cancel_all(SYMBOL) == RESULT

    def refused(self, **options: Any) -> espresso.EspressoError:
        with (
            self.client(**options) as client,
            pytest.raises(espresso.EspressoError) as caught,
        ):
            client.cancel_all(SYMBOL)
        assert self.server.posts == []
        return caught.value


@pytest.fixture
def server() -> Iterator[RawServer]:
    with RawServer(answering(http(DONE)), hosts=(TARGET, NEARBY)) as running:
        yield running


@pytest.fixture
def net(server: RawServer) -> Iterator[Net]:
    with ConnectProxy(server.port) as proxy:
        yield Net(server, proxy)


# --- through it ------------------------------------------------------------------


def test_the_proxy_finds_the_host(net: Net) -> None:
    """The name is passed on as it is; here nobody could resolve it."""
    net.cancel(proxy=net.proxy.url)
    (head,) = net.proxy.connects
    line, *headers = head.decode().removesuffix("\r\n\r\n").split("\r\n")
    assert line == f"CONNECT {TARGET}:443 HTTP/1.1"
    assert f"Host: {TARGET}:443" in headers
    assert not [h for h in headers if h.lower().startswith("proxy-authorization")]
    assert len(net.server.posts) == 1


def test_the_proxy_never_sees_the_key(net: Net) -> None:
    net.cancel(proxy=net.proxy.with_credentials())
    seen = b"".join(net.proxy.connects) + net.proxy.relayed
    assert len(net.proxy.relayed) > 500, "the tunnel was seen"
    assert KEY.encode() not in seen
    assert b"X-API-KEY" not in seen
    assert SYMBOL.encode() not in seen
    assert f"\r\nX-API-KEY: {KEY}\r\n".encode() in net.server.posts[0]


def test_credentials_go_to_the_proxy_alone(net: Net) -> None:
    net.cancel(proxy=net.proxy.with_credentials())
    token = base64.b64encode(f"trader:{PASSWORD}".encode())
    assert b"Proxy-Authorization: Basic " + token in net.proxy.connects[0]
    assert b"roxy" not in net.server.posts[0]
    assert b"uthorization" not in net.server.posts[0]
    assert token not in net.server.posts[0]


def test_credentials_may_be_escaped(net: Net) -> None:
    url = net.proxy.url.replace("://", "://tra%40der:p%3Ass%2Fw%20%25@")
    net.cancel(proxy=url)
    token = base64.b64encode(b"tra@der:p:ss/w %")
    assert b"Proxy-Authorization: Basic " + token in net.proxy.connects[0]


def test_a_scheme_may_be_left_out(net: Net) -> None:
    net.cancel(proxy=f"127.0.0.1:{net.proxy.port}")
    assert len(net.proxy.connects) == 1


def test_one_tunnel_serves_many_calls(net: Net) -> None:
    with net.client(proxy=net.proxy.url) as client:
        client.warm_up()
        for _ in range(3):
            assert client.cancel_all(SYMBOL) == RESULT
    assert len(net.proxy.connects) == 1
    assert net.server.post_connections == [0, 0, 0]


def test_a_tunnel_that_was_dropped_is_dug_again(net: Net) -> None:
    with net.client(proxy=net.proxy.url, max_retries=0) as client:
        assert client.cancel_all(SYMBOL) == RESULT
        net.proxy.drop_tunnels()
        assert client.cancel_all(SYMBOL) == RESULT
    assert len(net.proxy.connects) == 2
    assert net.server.post_connections == [0, 1]


def test_the_certificate_behind_the_proxy_is_verified(net: Net) -> None:
    """A proxy that leads elsewhere, or looks into the tunnel, gets nothing."""
    with RawServer(answering(http(DONE)), hosts=(TARGET,)) as impostor:
        with ConnectProxy(impostor.port) as proxy:
            error = net.refused(proxy=proxy.url, max_retries=2)
        assert type(error) is espresso.CertificateError
        assert (error.outcome, error.attempts) == ("not_sent", 1)
        assert impostor.requests == []


# --- what the environment says ---------------------------------------------------


@pytest.mark.parametrize("name", VARIABLES)
def test_variables(net: Net, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, net.proxy.with_credentials())
    net.cancel()
    assert len(net.proxy.connects) == 1


def test_the_variable_of_https_goes_first(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", net.proxy.url)
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    net.cancel()
    assert len(net.proxy.connects) == 1


def test_the_argument_goes_before_the_environment(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in VARIABLES:
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "*")
    net.cancel(proxy=net.proxy.url)
    assert len(net.proxy.connects) == 1


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY"])
def test_the_proxy_of_http_is_not_ours(
    net: Net, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, net.proxy.url)
    net.cancel(base_url=net.nearby)
    assert net.proxy.accepted == 0


@pytest.mark.parametrize("name", VARIABLES)
def test_without_trust_env(
    net: Net, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, net.proxy.url)
    net.cancel(base_url=net.nearby, trust_env=False)
    assert net.proxy.accepted == 0
    net.cancel(base_url=net.nearby)
    assert len(net.proxy.connects) == 1


def test_without_trust_env_an_argument_counts(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", TARGET)
    net.cancel(proxy=net.proxy.url, trust_env=False)
    assert len(net.proxy.connects) == 1


@pytest.mark.parametrize("name", ["no_proxy", "NO_PROXY"])
@pytest.mark.parametrize(
    ("value", "around"),
    [
        (NEARBY, True),
        (f".{NEARBY}", True),
        ("example.invalid, exchange.localhost", True),
        ("EXCHANGE.LOCALHOST", True),
        ("localhost", True),
        ("*", True),
        ("", False),
        ("example.invalid", False),
        ("change.localhost", False),
        ("exchange.localhost.invalid", False),
    ],
)
def test_no_proxy(
    net: Net, monkeypatch: pytest.MonkeyPatch, name: str, value: str, around: bool
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", net.proxy.url)
    monkeypatch.setenv(name, value)
    net.cancel(base_url=net.nearby)
    assert (net.proxy.accepted == 0) is around


def test_an_empty_variable_is_no_proxy(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "")
    net.cancel(base_url=net.nearby)
    assert net.proxy.accepted == 0


def test_the_module_level_call(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", net.proxy.url)
    monkeypatch.setenv("SSL_CERT_FILE", net.server.ca_file)
    options: dict[str, Any] = {"api_key": KEY, "base_url": net.nearby}
    assert espresso.cancel_all(SYMBOL, **options) == RESULT
    assert len(net.proxy.connects) == 1
    monkeypatch.delenv("HTTPS_PROXY")
    assert espresso.cancel_all(SYMBOL, **options) == RESULT
    assert len(net.proxy.connects) == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST"])
@pytest.mark.parametrize("form", ["argument", "environment"])
def test_loopback_never_goes_through_one(
    exchange: Exchange,
    net: Net,
    monkeypatch: pytest.MonkeyPatch,
    form: str,
    host: str,
) -> None:
    options: dict[str, Any] = {}
    if form == "argument":
        options["proxy"] = net.proxy.url
    for name in VARIABLES if form == "environment" else []:
        monkeypatch.setenv(name, net.proxy.url)
    url = exchange.url.replace("127.0.0.1", host)
    with espresso.Client(
        exchange.key, base_url=url, ca_file=exchange.ca_file, **options
    ) as client:
        client.cancel_all(SYMBOL, missing_ok=True)
    assert net.proxy.accepted == 0
    assert len(exchange.calls) == 1


# --- what it can break -----------------------------------------------------------


BASIC = 'Proxy-Authenticate: Basic realm="x"'
BROKEN: dict[str, dict[str, Any]] = {
    "407": {"refusal": reply(407, "Who are you", BASIC), "then": "close"},
    "407, kept open": {"refusal": reply(407, "Who are you", BASIC), "then": "hold"},
    "403": {"refusal": reply(403, "Forbidden", body="no"), "then": "close"},
    "502": {"refusal": reply(502, "Bad Gateway", body="x" * 9999), "then": "close"},
    "302": {"refusal": reply(302, "Found", "Location: https://127.0.0.1:1/")},
    "404 in JSON": {
        "refusal": reply(
            404, "Not Found", body='{"error":"Order not found","code":4200}'
        )
    },
    "200, then FIN": {"refusal": reply(200, "OK"), "then": "close"},
    "200, then RST": {"refusal": reply(200, "OK"), "then": "reset"},
    "200, then plain text": {
        "refusal": b"HTTP/1.1 200 OK\r\n\r\n" + http(DONE),
        "then": "close",
    },
    "FIN": {"then": "close"},
    "RST": {"then": "reset"},
    "garbage": {"refusal": b"\x00\x01\x02\r\n\r\n", "then": "close"},
    "half a head": {"refusal": b"HTTP/1.1 200 OK\r\nX: ", "then": "close"},
    "SSH": {"refusal": b"SSH-2.0-OpenSSH_9.2\r\n", "then": "close"},
}


@pytest.mark.parametrize("how", BROKEN.values(), ids=BROKEN)
def test_a_proxy_that_does_not_lead_there(
    server: RawServer, how: dict[str, Any]
) -> None:
    with ConnectProxy(server.port, **how) as proxy:
        net = Net(server, proxy)
        error = net.refused(proxy=proxy.with_credentials(), max_retries=1)
        assert type(error) is espresso.ConnectError, repr(error)
        assert (error.outcome, error.attempts) == ("not_sent", 2)
        assert error.retryable
        assert (error.code, error.body) == (None, "")
        assert len(proxy.connects) == 2
    assert_no_secret(error)


@pytest.mark.parametrize(
    "refusal", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\n\r\n"]
)
def test_a_proxy_that_hangs(server: RawServer, refusal: bytes) -> None:
    with ConnectProxy(server.port, refusal=refusal, then="hold") as proxy:
        net = Net(server, proxy)
        error = net.refused(proxy=proxy.with_credentials(), timeout=0.3)
        assert type(error) is espresso.RequestTimeoutError
        assert error.outcome == "not_sent"
        assert error.elapsed < 1.3
    assert_no_secret(error)


def test_no_proxy_there(net: Net) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        url = f"http://trader:{PASSWORD}@127.0.0.1:{port}"
        error = net.refused(proxy=url, max_retries=1)
    assert type(error) is espresso.ConnectError
    assert (error.outcome, error.attempts) == ("not_sent", 2)
    assert_no_secret(error)


def test_a_tunnel_that_dies_with_the_request(server: RawServer) -> None:
    """After the request has gone into it, it is the exchange's answer that is lost."""
    proxies: list[ConnectProxy] = []

    def script(wire: Any) -> None:
        wire.read_request()
        proxies[0].drop_tunnels()

    with (
        RawServer(script, hosts=(TARGET,)) as target,
        ConnectProxy(target.port) as proxy,
    ):
        proxies.append(proxy)
        with (
            target.client(base_url=f"https://{TARGET}", proxy=proxy.url) as client,
            pytest.raises(espresso.ConnectionLostError) as caught,
        ):
            client.cancel_all(SYMBOL)
        assert (caught.value.outcome, caught.value.attempts) == ("unknown", 1)
        assert len(target.posts) == 1


# --- a proxy over TLS ------------------------------------------------------------


def tls_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


def test_a_proxy_spoken_to_over_tls(server: RawServer) -> None:
    context = tls_context(server.authority)
    with ConnectProxy(server.port, context=context) as proxy:
        Net(server, proxy).cancel(proxy=proxy.with_credentials())
        assert len(proxy.connects) == 1


def test_a_proxy_over_tls_is_verified_before_it_gets_credentials(
    server: RawServer,
) -> None:
    context = tls_context(trustme.CA())
    with ConnectProxy(server.port, context=context) as proxy:
        error = Net(server, proxy).refused(
            proxy=proxy.with_credentials(), max_retries=2
        )
        assert type(error) is espresso.CertificateError
        assert (error.outcome, error.attempts) == ("not_sent", 1)
        assert proxy.connects == []
    assert_no_secret(error)


# --- nobody says the password ----------------------------------------------------


def assert_no_secret(error: espresso.EspressoError) -> None:
    shown = f"{error} {error!r} {vars(error)} {error.__cause__} {error.__context__}"
    for secret in (PASSWORD, KEY, base64.b64encode(PASSWORD.encode()).decode()):
        assert secret not in shown


def test_a_client_does_not_show_its_proxy(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[espresso.Event] = []
    with net.client(
        proxy=net.proxy.with_credentials(), on_event=events.append
    ) as client:
        client.cancel_all(SYMBOL)
        assert PASSWORD not in f"{client!r} {vars(client)} {events}"
    (event,) = events
    assert event.remote == "127.0.0.1"


def test_a_bad_proxy_of_the_environment_is_not_quoted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"gopher://trader:{PASSWORD}@127.0.0.1")
    with pytest.raises(espresso.ConfigError, match="proxy") as caught:
        espresso.Client(KEY, base_url=f"https://{TARGET}")
    assert_no_secret(caught.value)
