"""Bad input: refused before anything is sent, in words that do not quote a secret."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

import espresso
from espresso import _core
from espresso.sandbox import Exchange
from tests.rawserver import DONE, IDS, RawServer, answering, http

SYMBOL = "ADAUSDM"
KEY = "sandbox-5e6f7a8b9c0d1e2f"
ANSWER = answering(http(DONE))

Call = Callable[..., object]


@pytest.fixture(scope="module")
def shared() -> Iterator[Exchange]:
    """One exchange for all: it never gets to see a request."""
    with Exchange(rate=None) as running:
        yield running


@pytest.fixture
def untouched(shared: Exchange) -> Iterator[Exchange]:
    """The exchange, to which nothing may be sent."""
    yield shared
    assert shared.requests == []


@pytest.fixture(params=["method", "module"])
def call(
    request: pytest.FixtureRequest,
    untouched: Exchange,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Call]:
    """``cancel_all`` in its two forms, to the exchange."""
    monkeypatch.setenv("DELTADEFI_API_KEY", untouched.key)
    monkeypatch.setenv("DELTADEFI_BASE_URL", untouched.url)
    monkeypatch.setenv("SSL_CERT_FILE", untouched.ca_file)
    if request.param == "module":
        yield espresso.cancel_all
        return
    with espresso.Client() as client:
        yield client.cancel_all


def no_leak(error: BaseException, *secrets: str) -> None:
    shown = f"{error!r} {error} {vars(error)}"
    for secret in secrets:
        assert secret not in shown


# --- the symbol ------------------------------------------------------------------


def short(value: object) -> str:
    """An id that is the same in each process: without an address."""
    return repr(value)[:20]


WRONG_TYPES = [None, b"ADAUSDM", bytearray(b"ADAUSDM"), 1, 1.5, True, object()]


@pytest.mark.parametrize("symbol", WRONG_TYPES, ids=short)
def test_a_symbol_is_a_str(call: Call, symbol: object) -> None:
    with pytest.raises(TypeError, match="symbol"):
        call(symbol)


BAD_SYMBOLS = [
    "",
    " ",
    "A" * 65,
    "A" * 1_000_000,
    "ADA USDM",
    " ADAUSDM",
    "ADAUSDM ",
    "ADAUSDM\n",
    "ADA\r\nX: y",
    "ADA\tUSDM",
    "ADA\x00USDM",
    "\x00",
    "ADAUSDM\x7f",
    "\ud800",
    "ADA\udc80",
    "ADAÜSDM",
    "\uff21\uff24\uff21",  # full-width letters
    "😀",
    "ADA\u200bUSDM",
    "ADA\u202eUSDM",
    *(f"ADA{character}USDM" for character in "/?#%\"\\<>'{}[]()&=+,;:!@$*|`^~"),
]


@pytest.mark.parametrize("symbol", BAD_SYMBOLS, ids=lambda symbol: ascii(symbol)[:20])
def test_what_no_symbol_may_hold(call: Call, symbol: str) -> None:
    with pytest.raises(ValueError, match="symbol") as caught:
        call(symbol)
    assert len(str(caught.value)) < 300
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("symbol", ["ADA/USDM", "/ADAUSDM", "ADA//USDM"])
def test_a_slash_gets_advice(call: Call, symbol: str) -> None:
    with pytest.raises(ValueError, match="ADAUSDM"):
        call(symbol)


def test_every_character_is_judged(call: Call) -> None:
    """Of the first 256, those of the contract are all, and no others."""
    plain = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-"
    for number in range(256):
        if chr(number) not in plain:
            with pytest.raises(ValueError, match="symbol"):
                call("ADA" + chr(number))


class Long(str):
    """Says that it is short."""

    def __len__(self) -> int:
        return 3


def test_a_str_subclass_cannot_lie(call: Call) -> None:
    with pytest.raises(ValueError, match="longer than 64"):
        call(Long("A" * 65))


def test_the_symbol_is_missing_or_there_twice(call: Call) -> None:
    with pytest.raises(TypeError, match="symbol"):
        call()
    with pytest.raises(TypeError, match="symbol"):
        call(SYMBOL, symbol=SYMBOL)
    with pytest.raises(TypeError, match="keyword"):
        call(SYMBOL, True)
    with pytest.raises(TypeError, match="no_such"):
        call(SYMBOL, no_such=1)


def test_the_symbol_may_be_given_by_keyword() -> None:
    with RawServer(ANSWER, tls=False) as server, server.client() as client:
        assert client.cancel_all(symbol=SYMBOL)["order_ids"] == IDS


# --- the key ---------------------------------------------------------------------

BAD_KEYS = [
    "",
    f"{KEY}\n",
    f"{KEY}\r",
    f"{KEY}\r\nInjected: yes",
    f"\n{KEY}",
    f"{KEY[:8]}\x00{KEY[8:]}",
    f"{KEY} ",
    f" {KEY}",
    f"{KEY[:8]} {KEY[8:]}",
    f"{KEY}\t",
    f"{KEY}\x7f",
    f"{KEY}\x1b[0m",
    f"{KEY}ü",
    f"{KEY}\udc80",
    f"{KEY}\ud83d",
    f"{KEY}😀",
    KEY + "k" * (257 - len(KEY)),
    KEY + "k" * 1_000_000,
]


def named(key: str) -> str:
    return ascii(key)[:40]


@pytest.mark.parametrize("key", BAD_KEYS, ids=named)
@pytest.mark.parametrize("form", ["client", "module"])
def test_a_key_that_is_none(untouched: Exchange, form: str, key: str) -> None:
    with pytest.raises(espresso.ConfigError) as caught:
        if form == "client":
            espresso.Client(key, base_url=untouched.url)
        else:
            espresso.cancel_all(SYMBOL, api_key=key, base_url=untouched.url)
    error = caught.value
    no_leak(error, KEY, KEY[:8], KEY[8:])
    assert isinstance(error, ValueError)
    assert (error.outcome, error.attempts) == ("not_sent", 0)


# os.fsencode takes U+DC80 to U+DCFF, which stand for bytes, and no other surrogate.
LONE = re.compile("[\ud800-\udc7f\udd00-\udfff]")


def environment_can_hold(text: str) -> bool:
    return "\x00" not in text and not LONE.search(text) and len(text) < 100_000


@pytest.mark.parametrize(
    "key", [key for key in BAD_KEYS if key and environment_can_hold(key)], ids=named
)
@pytest.mark.parametrize("form", ["client", "module"])
def test_a_bad_key_in_the_environment(
    untouched: Exchange, monkeypatch: pytest.MonkeyPatch, form: str, key: str
) -> None:
    monkeypatch.setenv("DELTADEFI_API_KEY", key)
    client = espresso.Client(base_url=untouched.url)
    with pytest.raises(espresso.ConfigError, match="DELTADEFI_API_KEY") as caught:
        if form == "client":
            client.cancel_all(SYMBOL)
        else:
            espresso.cancel_all(SYMBOL, base_url=untouched.url)
    no_leak(caught.value, KEY, KEY[:8], KEY[8:])


@pytest.mark.parametrize("key", [KEY.encode(), 5, 1.5, [KEY], object()], ids=short)
def test_a_key_is_a_str(untouched: Exchange, key: Any) -> None:
    with pytest.raises(TypeError, match="api_key") as client_error:
        espresso.Client(key, base_url=untouched.url)
    with pytest.raises(TypeError, match="api_key") as module_error:
        espresso.cancel_all(SYMBOL, api_key=key, base_url=untouched.url)
    no_leak(client_error.value, KEY)
    no_leak(module_error.value, KEY)


@pytest.mark.parametrize("key", ["k", "!~", "k" * 256, "'\"\\<>&%{}", ":", "-"])
def test_keys_that_may_be(key: str) -> None:
    with RawServer(ANSWER, tls=False) as server:
        with espresso.Client(key, base_url=server.url) as client:
            client.cancel_all(SYMBOL)
        assert f"\r\nX-API-KEY: {key}\r\n".encode() in server.posts[0]


@pytest.mark.parametrize("value", [None, ""])
def test_no_key(
    untouched: Exchange, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    if value is not None:
        monkeypatch.setenv("DELTADEFI_API_KEY", value)
    client = espresso.Client(base_url=untouched.url)  # does not miss it
    for call in (client.cancel_all, espresso.cancel_all):
        with pytest.raises(espresso.ConfigError, match="DELTADEFI_API_KEY") as caught:
            call(SYMBOL)
        assert caught.value.outcome == "not_sent"


# --- base_url --------------------------------------------------------------------

BAD_URLS = [
    "",
    " ",
    "localhost",
    "localhost:8443",
    "//localhost",
    "https",
    "https:",
    "https:/",
    "https://",
    "https:///",
    "https:///order",
    "https:localhost",
    "https:/localhost",
    "https:////localhost",
    "://localhost",
    "ftp://localhost",
    "file:///etc/passwd",
    "file://localhost/etc/passwd",
    "ws://localhost",
    "socks5://localhost",
    "javascript:alert(1)",
    "http://api.deltadefi.io",
    "http://example.invalid",
    "http://localhost.example.invalid",
    "http://127.0.0.1.example.invalid",
    "http://127.0.0.1@example.invalid",
    "http://127.0.0.256",
    "http://127.0.0.999",
    "http://127.0.0.+1",
    "http://127.0.0.-1",
    "http://127.0.0",
    "http://127.1",
    "http://0x7f000001",
    "http://0x7f.0.0.1",
    "http://0177.0.0.1",
    "http://2130706433",
    "http://128.0.0.1",
    "http://10.0.0.1",
    "http://0.0.0.0",
    "http://[::]",
    "http://[::2]",
    "https://0x7f000001",
    "https://127.1",
    "https://2130706433",
    "https://%31%32%37.0.0.1",
    "https://local%68ost",
    "https://user@localhost",
    "https://user:hunter2@localhost",
    "https://:hunter2@localhost",
    "https://@localhost",
    "https://localhost@",
    "https://localhost?",
    "https://localhost?a=b",
    "https://localhost/?a=b",
    "https://localhost#",
    "https://localhost/#a",
    "https://localhost:0",
    "https://localhost:65536",
    "https://localhost:99999999999",
    "https://localhost:-1",
    "https://localhost:abc",
    "https://localhost:80:80",
    "https://[fe80::1%25eth0]",
    "https://[::1%25lo]",
    "https://[::1",
    "https://::1",
    "https://[]",
    "https://[localhost]",
    "https://exämple.invalid",
    "https://例え.invalid",
    "https://local host",
    " https://localhost",
    "https://localhost ",
    "https://localhost\n",
    "https://localhost\r\nX: y",
    "https://localhost/\r\nX: y",
    "https://localhost/\t",
    "https://localhost\x00.example.invalid",
    "https://localhost/\x00",
    "https://localhost/\ud800",
    "https://localhost\\@example.invalid",
    "https://localhost/a b",
    'https://localhost/"',
    "https://localhost/<a>",
    "https://localhost/" + "a" * 1_000_000,
    "https://" + "a" * 3000,
]


IN_ALL_FORMS = [
    pytest.param(form, url, id=f"{form}-{named(url)}")
    for form in ("client", "module", "environment")
    for url in BAD_URLS
    # Empty, the variable means the default.
    if form != "environment" or (url and environment_can_hold(url))
]


@pytest.mark.parametrize(("form", "url"), IN_ALL_FORMS)
def test_a_base_url_that_is_none(
    untouched: Exchange, monkeypatch: pytest.MonkeyPatch, form: str, url: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    if form == "environment":
        monkeypatch.setenv("DELTADEFI_BASE_URL", url)
    with pytest.raises(espresso.ConfigError) as caught:
        if form == "module":
            espresso.cancel_all(
                SYMBOL, api_key=KEY, base_url=url, timeout=0.2, max_retries=0
            )
        else:
            espresso.Client(KEY, base_url=None if form == "environment" else url)
    error = caught.value
    no_leak(error, KEY, "hunter2")
    assert isinstance(error, ValueError)
    assert (
        "BASE_URL" in str(error) if form == "environment" else "base_url" in str(error)
    )
    assert (error.outcome, error.attempts) == ("not_sent", 0)
    assert len(str(error)) < 400


@pytest.mark.parametrize("url", [b"https://localhost", 5, ["https://localhost"]])
def test_a_base_url_is_a_str(url: Any) -> None:
    with pytest.raises(TypeError):
        espresso.Client(KEY, base_url=url)
    with pytest.raises(TypeError):
        espresso.cancel_all(SYMBOL, api_key=KEY, base_url=url)


GOOD_URLS = {
    "https://example.invalid": "https://example.invalid",
    "https://example.invalid/": "https://example.invalid",
    "https://example.invalid//": "https://example.invalid",
    "https://example.invalid:8443": "https://example.invalid:8443",
    "https://example.invalid:65535/": "https://example.invalid:65535",
    "https://example.invalid/a/b": "https://example.invalid/a/b",
    "https://example.invalid/a/b/": "https://example.invalid/a/b",
    "HTTPS://Example.INVALID/A": "https://example.invalid/A",
    "https://xn--exmple-cua.invalid": "https://xn--exmple-cua.invalid",
    "https://10.0.0.1": "https://10.0.0.1",
    "https://[2001:db8::1]:8443/x": "https://[2001:db8::1]:8443/x",
    "http://localhost:8000": "http://localhost:8000",
    "http://LOCALHOST": "http://localhost",
    "http://127.0.0.1": "http://127.0.0.1",
    "http://127.1.2.3:1": "http://127.1.2.3:1",
    "http://[::1]:8000/": "http://[::1]:8000",
    "https://localhost": "https://localhost",
}


@pytest.mark.parametrize(("url", "seen"), GOOD_URLS.items(), ids=GOOD_URLS)
def test_base_urls_that_may_be(url: str, seen: str) -> None:
    with espresso.Client(KEY, base_url=url) as client:
        assert client.base_url == seen
        assert repr(client) == f"<espresso.Client {seen} key=set timeout=10.0>"


# --- seconds and retries ---------------------------------------------------------

BAD_SECONDS = [0, 0.0, -0.0, -1, -1e-9, math.nan, math.inf, -math.inf, 1e300, 86401]
BAD_SECONDS += [10**400, -(10**400)]
NOT_SECONDS = [True, False, "3", b"3", [3], {3}, 3j, object(), (3, 10), (3,), ()]


@pytest.mark.parametrize("value", BAD_SECONDS, ids=short)
def test_a_timeout_of_a_call_that_is_none(call: Call, value: float) -> None:
    with pytest.raises(ValueError, match="timeout"):
        call(SYMBOL, timeout=value)


@pytest.mark.parametrize("value", [None, *NOT_SECONDS], ids=short)
def test_a_timeout_of_a_call_is_a_number(call: Call, value: object) -> None:
    with pytest.raises(TypeError, match="timeout"):
        call(SYMBOL, timeout=value)


OPTIONS = ["timeout", "attempt_timeout", "connect_timeout"]


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("value", BAD_SECONDS, ids=short)
def test_seconds_of_a_client_that_are_none(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        espresso.Client(KEY, **{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("value", NOT_SECONDS, ids=short)
def test_seconds_of_a_client_are_a_number(name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=name):
        espresso.Client(KEY, **{name: value})


@pytest.mark.parametrize("name", ["timeout", "connect_timeout"])
def test_none_is_not_without_limit(name: str) -> None:
    options: Any = {name: None}
    with pytest.raises(TypeError, match=name):
        espresso.Client(KEY, **options)


@pytest.mark.parametrize("value", [1e-9, 0.001, 1, 2.5, Fraction(1, 3), 86400])
def test_seconds_that_may_be(value: Any) -> None:
    client = espresso.Client(
        KEY, timeout=value, attempt_timeout=value, connect_timeout=value
    )
    assert client.timeout == float(value)


def test_a_tiny_timeout_is_a_millisecond_not_for_ever() -> None:
    with Exchange(rate=None) as exchange:
        exchange.fault("tls_hang", times=None)
        for timeout in (1e-9, 5e-324, 0.0004):
            with (
                espresso.Client(
                    exchange.key,
                    base_url=exchange.url,
                    ca_file=exchange.ca_file,
                    timeout=timeout,
                ) as client,
                pytest.raises(espresso.RequestTimeoutError) as caught,
            ):
                client.cancel_all(SYMBOL)
            assert caught.value.outcome == "not_sent"
            assert caught.value.elapsed < 1


@pytest.mark.parametrize("value", [-1, 10**30, -(10**30)], ids=short)
def test_retries_that_are_none(call: Call, value: int) -> None:
    with pytest.raises(ValueError, match="max_retries"):
        call(SYMBOL, max_retries=value)
    with pytest.raises(ValueError, match="max_retries"):
        espresso.Client(KEY, max_retries=value)


@pytest.mark.parametrize("value", [None, True, 1.0, "2", b"2", (1,)], ids=short)
def test_retries_are_an_int(call: Call, value: Any) -> None:
    with pytest.raises(TypeError, match="max_retries"):
        call(SYMBOL, max_retries=value)
    with pytest.raises(TypeError, match="max_retries"):
        espresso.Client(KEY, max_retries=value)


# --- the other options -----------------------------------------------------------


@pytest.mark.parametrize("value", [1, "print", object()], ids=short)
def test_on_event_is_callable(value: Any) -> None:
    with pytest.raises(TypeError, match="on_event"):
        espresso.Client(KEY, on_event=value)


@pytest.mark.parametrize("value", [1, 1.5, object(), ["ca.pem"]], ids=short)
def test_ca_file_is_a_path(value: Any) -> None:
    with pytest.raises(TypeError):
        espresso.Client(KEY, ca_file=value)


@pytest.mark.parametrize("value", ["ca\x00.pem", "/" + "a" * 5000], ids=short)
def test_ca_file_that_no_system_has(value: str) -> None:
    with pytest.raises(ValueError, match=r"null|ca_file"):
        espresso.Client(KEY, ca_file=value)


@pytest.mark.parametrize("form", [str, Path, lambda path: str(path).encode()])
def test_ca_file_in_all_forms(form: Callable[[str], Any]) -> None:
    with (
        RawServer(ANSWER) as server,
        server.client(ca_file=form(server.ca_file)) as client,
    ):
        assert client.cancel_all(SYMBOL)["order_ids"] == IDS


BAD_PROXIES = [
    "http://",
    "://127.0.0.1",
    "ftp://user:hunter2@127.0.0.1:3128",
    "file:///etc/passwd",
    "http://user:hunter2@127.0.0.1:99999",
    "http://user:hunter2@127.0.0.1:port",
    "http://user:hunter2@127.0.0.1:3128\r\nX: y",
    "http://user:hunter2@local host:3128",
    "http://user:hunter2@\x00",
    "http://user:hunter2@\ud800",
    "http://user:hunter2@" + "a" * 3000,
]


PROXIES_IN_ALL_FORMS = [
    pytest.param(form, proxy, id=f"{form}-{named(proxy)}")
    for form in ("client", "module", "environment")
    for proxy in BAD_PROXIES
    if form == "client" or environment_can_hold(proxy)
]


@pytest.mark.parametrize(("form", "proxy"), PROXIES_IN_ALL_FORMS)
@pytest.mark.parametrize("url", ["https://exchange.invalid", "https://127.0.0.1:1"])
def test_a_proxy_that_is_none(
    monkeypatch: pytest.MonkeyPatch, url: str, form: str, proxy: str
) -> None:
    """Refused even where loopback would not use it."""
    if form != "client":
        monkeypatch.setenv("HTTPS_PROXY", proxy)
    with pytest.raises(ValueError, match="proxy") as caught:
        if form == "client":
            espresso.Client(KEY, base_url=url, proxy=proxy)
        elif form == "environment":
            espresso.Client(KEY, base_url=url)
        else:
            espresso.cancel_all(SYMBOL, api_key=KEY, base_url=url, timeout=0.2)
    no_leak(caught.value, "hunter2", KEY)
    # A UnicodeEncodeError, a ValueError too, would carry it all in `.object`.
    assert type(caught.value) is espresso.ConfigError


@pytest.mark.parametrize("proxy", [b"http://127.0.0.1:3128", 5, ["x"]], ids=repr)
def test_a_proxy_is_a_str(proxy: Any) -> None:
    with pytest.raises(TypeError, match="proxy"):
        espresso.Client(KEY, proxy=proxy)


def test_only_the_key_is_positional() -> None:
    too_many: Any = (KEY, espresso.PREPROD)
    with pytest.raises(TypeError):
        espresso.Client(*too_many)
    with pytest.raises(TypeError, match="no_such"):
        espresso.Client(KEY, no_such=1)  # type: ignore[call-arg]


# --- a client that is none, or no longer -----------------------------------------


def test_a_closed_client(untouched: Exchange) -> None:
    client = espresso.Client(
        untouched.key, base_url=untouched.url, ca_file=untouched.ca_file
    )
    client.close()
    client.close()
    assert client.closed
    for use in (lambda: client.cancel_all(SYMBOL), client.warm_up, client.__enter__):
        with pytest.raises(RuntimeError, match="closed"):
            use()
    with pytest.raises(ValueError, match="symbol"):
        client.cancel_all("")


def test_a_client_that_was_never_made(untouched: Exchange) -> None:
    client = espresso.Client.__new__(espresso.Client)
    for use in (lambda: client.cancel_all(SYMBOL), client.warm_up, client.__enter__):
        with pytest.raises(RuntimeError, match="__init__"):
            use()
    assert "espresso" in repr(client), "debuggers print what is half made"
    client.close()


def test_a_client_whose_constructor_failed(untouched: Exchange) -> None:
    client = espresso.Client.__new__(espresso.Client)
    with pytest.raises(ValueError, match="timeout"):
        client.__init__(KEY, timeout=0)  # type: ignore[misc]
    with pytest.raises(RuntimeError, match="__init__"):
        client.cancel_all(SYMBOL)
    client.__init__(KEY, base_url=untouched.url)  # type: ignore[misc]
    assert client.base_url == untouched.url
    with pytest.raises(RuntimeError, match="__init__"):
        client.__init__(KEY)  # type: ignore[misc]


def test_warm_up_takes_nothing(untouched: Exchange) -> None:
    client = espresso.Client(KEY, base_url=untouched.url)
    with pytest.raises(TypeError):
        client.warm_up(1)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        client.warm_up(timeout=1)  # type: ignore[call-arg]


def test_a_refused_call_leaves_the_client_usable() -> None:
    with RawServer(ANSWER, tls=False) as server:
        with server.client() as client:
            for symbol, timeout in (("", 1), (SYMBOL, 0)):
                with pytest.raises(ValueError, match=r"symbol|timeout"):
                    client.cancel_all(symbol, timeout=timeout)
            assert client.cancel_all(SYMBOL)["order_ids"] == IDS
        assert len(server.posts) == 1


@pytest.mark.parametrize("url", [None, "", "https://user:hunter2@x"])
def test_parse_base_url_is_no_way_round(url: Any) -> None:
    with pytest.raises((TypeError, espresso.ConfigError)) as caught:
        _core.parse_base_url(url)
    no_leak(caught.value, "hunter2")
