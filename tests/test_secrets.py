"""Where the key and a proxy's password must not be found.

Tools that report errors show more than the message: they print the locals of every
frame, pickle exceptions, keep log records. What is searched here is all of that, for
every way in which a call or a constructor can fail.
"""

from __future__ import annotations

import base64
import copy
import ctypes
import gc
import json
import logging
import pickle
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import espresso
from espresso import _core
from espresso.sandbox import Exchange
from tests import children
from tests.rawserver import DONE, KEY, SYMBOL, RawServer, Script, answering, http

PASSWORD = "hunter2-c0ffee"
PROXY = f"http://trader:{PASSWORD}@127.0.0.1:1"
PACKAGE = str(Path(espresso.__file__).parent)
LONGEST = 10  # so many characters of a key in a row are a part of it

Fails = Callable[[], object]


def parts(secret: str) -> set[str]:
    return {secret[i : i + LONGEST] for i in range(len(secret) - LONGEST + 1)}


def clean(text: str, *secrets: str) -> None:
    """No part of a secret is in the text, as it is or in usual disguises."""
    for secret in secrets or (KEY, PASSWORD):
        for part in parts(secret):
            assert part not in text, f"{part!r} in {text[:500]}"
        for form in (base64.b64encode(secret.encode()).decode(), secret.encode().hex()):
            assert form not in text


def of_the_package(frame: FrameType) -> bool:
    return frame.f_code.co_filename.startswith(PACKAGE)


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error, its causes and contexts, and the members of groups."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        waiting += [one.__cause__, one.__context__]
        waiting += getattr(one, "exceptions", ())


def shown_by(error: BaseException) -> Iterator[str]:
    """All that a tool could print or keep of an error, our frames included."""
    for one in chain(error):
        yield f"{one} {one!r} {one.args!r} {vars(one)!r}"
        yield "".join(getattr(one, "__notes__", ()))
        yield repr([getattr(one, n, "") for n in ("object", "filename", "doc", "name")])
        yield "".join(traceback.format_exception(one))
        for frame, _ in traceback.walk_tb(one.__traceback__):
            if of_the_package(frame):
                for name, value in frame.f_locals.items():
                    yield f"{frame.f_code.co_qualname}: {name} = {printed(value)}"
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            yield pickle.dumps(one, protocol).decode("latin-1")


def printed(value: object) -> str:
    try:
        return repr(value)
    except Exception as error:  # as the tools do, for an object half made
        return repr(error)


def caught(fails: Fails) -> BaseException:
    """What it raises, with the traceback."""
    try:
        fails()
    except BaseException as error:
        return error
    raise AssertionError("it did not fail")


def check(error: BaseException, *secrets: str) -> None:
    for text in shown_by(error):
        clean(text, *secrets)


# --- every way to fail -----------------------------------------------------------


@pytest.fixture
def loud(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Everything is logged."""
    caplog.set_level(logging.DEBUG)
    return caplog


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment that holds both secrets."""
    monkeypatch.setenv("DELTADEFI_API_KEY", KEY)
    monkeypatch.setenv("HTTPS_PROXY", PROXY)
    # Where nobody listens, were a call made in spite of all.
    monkeypatch.setenv("DELTADEFI_BASE_URL", "https://127.0.0.1:1")
    return monkeypatch


def with_env(monkeypatch: pytest.MonkeyPatch, fails: Fails, **variables: str) -> Fails:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return fails


URL = "https://exchange.invalid"

CONSTRUCTORS: dict[str, dict[str, Any]] = {
    "key too long": {"api_key": KEY * 9},
    "key with a line end": {"api_key": f"{KEY}\n"},
    "key not ASCII": {"api_key": f"{KEY}\u00fc"},
    "key no text": {"api_key": KEY.encode()},
    "key a surrogate": {"api_key": f"{KEY}\udc80"},
    "URL without scheme": {"base_url": "exchange.invalid"},
    "URL no text": {"base_url": 5},
    "timeout": {"timeout": 0},
    "attempt_timeout": {"attempt_timeout": "3"},
    "connect_timeout": {"connect_timeout": None},
    "max_retries": {"max_retries": -1},
    "proxy scheme": {"proxy": f"gopher://trader:{PASSWORD}@127.0.0.1"},
    "proxy port": {"proxy": f"http://trader:{PASSWORD}@127.0.0.1:99999"},
    "proxy with a NUL": {"proxy": f"http://trader:{PASSWORD}@\0"},
    "proxy a surrogate": {"proxy": f"http://trader:{PASSWORD}@\ud800"},
    "proxy no text": {"proxy": f"http://trader:{PASSWORD}@x".encode()},
    "ca_file no path": {"ca_file": 5},
    "ca_file with a NUL": {"ca_file": "\0"},
    "on_event": {"on_event": 5},
    "verify": {"verify": False},
    "unknown": {"no_such": 1},
}


@pytest.mark.parametrize("options", CONSTRUCTORS.values(), ids=CONSTRUCTORS)
def test_constructors_that_fail(
    full: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    given = {"api_key": KEY, "base_url": URL, "proxy": PROXY} | options
    error = caught(lambda: espresso.Client(**given))
    assert isinstance(error, (TypeError, ValueError))
    check(error)


ENVIRONMENTS: dict[str, dict[str, str]] = {
    "loopback only": {
        "ESPRESSO_LOOPBACK_ONLY": "1",
        "DELTADEFI_BASE_URL": espresso.PREPROD,
    },
    "a stranger": {"DELTADEFI_BASE_URL": "https://example.invalid"},
    "no URL": {"DELTADEFI_BASE_URL": "not a URL"},
    "proxy": {"HTTPS_PROXY": f"gopher://trader:{PASSWORD}@127.0.0.1"},
    "proxy, small": {"https_proxy": f"gopher://trader:{PASSWORD}@127.0.0.1"},
    "key": {"DELTADEFI_API_KEY": f"{KEY} "},
    "key with a line end": {"DELTADEFI_API_KEY": f"{KEY}\n"},
    "key not UTF-8": {"DELTADEFI_API_KEY": f"{KEY}\udcff"},
    "trust store": {"SSL_CERT_FILE": "/nowhere"},
    "nobody there": {},
}
FORMS: dict[str, Callable[[], object]] = {
    "client": lambda: espresso.Client().cancel_all(SYMBOL, max_retries=0),
    "module": lambda: espresso.cancel_all(SYMBOL, max_retries=0),
}


@pytest.mark.parametrize("variables", ENVIRONMENTS.values(), ids=ENVIRONMENTS)
@pytest.mark.parametrize("fails", FORMS.values(), ids=FORMS)
def test_environments_that_fail(
    full: pytest.MonkeyPatch,
    loud: pytest.LogCaptureFixture,
    variables: dict[str, str],
    fails: Fails,
) -> None:
    error = caught(with_env(full, fails, **variables))
    assert isinstance(error, espresso.EspressoError)
    assert error.outcome == "not_sent"
    check(error)
    clean(loud.text)


MODULE_CALLS: dict[str, dict[str, Any]] = {
    "symbol": {"symbol": ""},
    "symbol no text": {"symbol": 5},
    "timeout": {"timeout": 0},
    "max_retries": {"max_retries": -1},
    "key": {"api_key": f"{KEY}\n"},
    "key no text": {"api_key": KEY.encode()},
    "URL": {"base_url": "exchange.invalid"},
    "URL no text": {"base_url": 5},
    "verify": {"verify": False},
    "trust": {"base_url": "https://127.0.0.1:1"},
}


@pytest.mark.parametrize("given", MODULE_CALLS.values(), ids=MODULE_CALLS)
def test_module_level_calls_that_fail(
    full: pytest.MonkeyPatch, given: dict[str, Any]
) -> None:
    options: dict[str, Any] = {"symbol": SYMBOL, "api_key": KEY, "max_retries": 0}
    options |= given
    check(caught(lambda: espresso.cancel_all(**options)))


FAULTS = [
    "hang",
    "reset",
    "reset_after_read",
    "truncate",
    "html_200",
    "403_empty",
    "404_text",
    "envoy_503",
    "5000_as_400",
    "locked_5002",
    "4200_as_400",
    "connect_reset",
    "tls_hang",
    "expired_certificate",
    "wrong_host_certificate",
    "unknown_ca_certificate",
]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("form", ["client", "module"])
def test_calls_that_fail(
    exchange: Exchange,
    monkeypatch: pytest.MonkeyPatch,
    loud: pytest.LogCaptureFixture,
    fault: str,
    form: str,
) -> None:
    key = exchange.key
    exchange.fault(fault, times=None)
    monkeypatch.setenv("DELTADEFI_API_KEY", key)
    monkeypatch.setenv("SSL_CERT_FILE", exchange.ca_file)
    events: list[espresso.Event] = []
    with espresso.Client(base_url=exchange.url, on_event=events.append) as client:
        call: Callable[..., object] = client.cancel_all
        options: dict[str, Any] = {"timeout": 0.3, "max_retries": 1}
        if form == "module":
            call = espresso.cancel_all
            options["base_url"] = exchange.url
        error = caught(lambda: call(SYMBOL, **options))
    assert isinstance(error, espresso.EspressoError)
    check(error, key)
    clean(f"{loud.text} {events}", key)
    for event in events:
        clean(pickle.dumps(event).decode("latin-1"), key)


def test_other_calls_that_fail() -> None:
    client = espresso.Client(KEY, base_url="https://127.0.0.1:1", proxy=PROXY)
    check(caught(client.warm_up))
    through = espresso.Client(KEY, base_url=URL, proxy=PROXY, max_retries=0)
    check(caught(through.warm_up))
    check(caught(lambda: through.cancel_all(SYMBOL)))
    check(caught(lambda: client.cancel_all("")))
    check(caught(lambda: client.cancel_all(SYMBOL, timeout=0)))
    check(caught(lambda: client.cancel_all(SYMBOL, verify=0)))  # type: ignore[call-arg]
    client.close()
    check(caught(lambda: client.cancel_all(SYMBOL)))
    check(caught(client.warm_up))
    check(caught(client.__enter__))


# --- a server that says the key --------------------------------------------------

ECHOES: dict[str, bytes] = {
    "JSON": http(json.dumps({"error": f"no key {KEY}", "code": 4010}).encode(), 401),
    "JSON in other members": http(
        json.dumps({"error": "no", "code": 4010, "key": KEY, KEY: 1}).encode(), 401
    ),
    "JSON, 4000": http(json.dumps({"error": KEY * 3, "code": 4000}).encode(), 400),
    "text": http(f"denied: {KEY}".encode(), 403),
    "text twice": http(f"{KEY}{KEY} {KEY}".encode(), 503),
    "the request": http(f"POST /\r\nX-API-KEY: {KEY}\r\n\r\n".encode(), 400),
    "HTML": http(f"<html>{KEY}</html>".encode(), 502),
    "HTML 200": http(f"<html>{KEY}</html>".encode(), 200),
    "JSON 200": http(json.dumps({"key": KEY}).encode(), 200),
    "other symbol": http(json.dumps({"symbol": KEY, "order_ids": []}).encode()),
    "invalid UTF-8": http(b"\xff" + KEY.encode() + b"\xff", 400),
    "reason": http(b"no", 403).replace(b"Some Reason", KEY.encode()),
    "header": http(b"no", 403, f"X-Debug: {KEY}", f"X-API-KEY: {KEY}"),
    "Retry-After": http(b"no", 429, f"Retry-After: {KEY}"),
    "Location": http(b"moved", 302, f"Location: https://127.0.0.1:1/?key={KEY}"),
    "no HTTP": f"{KEY} {KEY}\r\n\r\n".encode(),
    "bad chunk": http(
        b"%b\r\n" % KEY.encode(), 200, "Transfer-Encoding: chunked", sized=False
    ),
    "bad length": http(b"no", 200, f"Content-Length: {KEY}", sized=False),
    "bad status": b"HTTP/1.1 " + KEY.encode() + b"\r\n\r\n",
    "bad version": b"HTTP/" + KEY.encode() + b" 200 OK\r\n\r\n",
}


@pytest.mark.parametrize("answer", ECHOES.values(), ids=ECHOES)
def test_an_answer_that_holds_the_key(
    loud: pytest.LogCaptureFixture, answer: bytes
) -> None:
    check_echo(loud, answer, KEY)


# Around the ends of what is kept: 512 characters of the message, 4 KiB of the body,
# 2 KiB of a text on its way.
EDGES = [512, 2048, 4096, 8192]
OFFSETS = [-len(KEY) - 1, -len(KEY), -20, -LONGEST, -1, 0, 1]


@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("filler", ["x", " ", "\u20ac", "\x01"], ids=ascii)
def test_a_key_that_is_cut_is_masked_too(
    loud: pytest.LogCaptureFixture, edge: int, offset: int, filler: str
) -> None:
    wide = len(filler.encode())
    text = filler * ((edge + offset) // wide) + "y" * ((edge + offset) % wide) + KEY
    check_echo(loud, http(text.encode(), 403), KEY)


ODD_KEYS = ['a"b\\c/d-0123456789', "<a&b>'c'+0123456789", "%41%42%43-0123456789"]
QUOTES: dict[str, Callable[[str], str]] = {
    "plain": lambda key: key,
    "JSON": lambda key: json.dumps({"error": f"no key {key}", "code": 4010}),
    "JSON as Go writes it": lambda key: (
        json.dumps({"error": key, "code": 4010})
        .replace("<", r"\u003c")
        .replace(">", r"\u003e")
        .replace("&", r"\u0026")
    ),
    "JSON with escaped slashes": lambda key: json.dumps({"error": key}).replace(
        "/", r"\/"
    ),
}


@pytest.mark.parametrize("key", ODD_KEYS)
@pytest.mark.parametrize("quote", QUOTES.values(), ids=QUOTES)
def test_a_key_that_json_writes_otherwise(
    loud: pytest.LogCaptureFixture, key: str, quote: Callable[[str], str]
) -> None:
    """Masked also as an escaped string: that is how a server quotes it in its body."""
    body = quote(key)
    error = check_echo(loud, http(body.encode(), 401), key)
    clean(json.dumps(error.body) + error.body.replace("\\", ""), key)
    assert "0123456789" not in error.body, "the plain tail of the key"


def check_echo(
    loud: pytest.LogCaptureFixture, answer: bytes, key: str
) -> espresso.EspressoError:
    events: list[espresso.Event] = []

    def script(wire: Any) -> None:
        wire.answer(answer)

    with (
        RawServer(script, tls=False) as server,
        espresso.Client(
            key, base_url=server.url, timeout=1.9, max_retries=1, on_event=events.append
        ) as client,
    ):
        error = caught(lambda: client.cancel_all(SYMBOL))
    assert isinstance(error, espresso.EspressoError)
    assert error.outcome in ("rejected", "unknown")
    check(error, key)
    clean(f"{loud.text} {events}", key)
    return error


def test_a_retry_that_is_logged_does_not_quote_it(
    loud: pytest.LogCaptureFixture,
) -> None:
    answer = http(f"upstream said {KEY}".encode(), 503)
    with (
        RawServer(
            answering(answer, http(DONE)), answering(http(DONE)), tls=False
        ) as it,
        it.client(max_retries=1) as client,
    ):
        assert client.cancel_all(SYMBOL)["lost_reply"] is True
    assert "upstream said" in loud.text
    clean(loud.text)


# --- where it is sent ------------------------------------------------------------


@pytest.mark.parametrize("status", [300, 301, 302, 303, 305, 307, 308])
@pytest.mark.parametrize("where", ["other port", "same", "relative", "http", "name"])
def test_a_redirect_is_not_followed(status: int, where: str) -> None:
    with ExitStack() as stack:
        capture = stack.enter_context(RawServer(answering(http(DONE)), tls=False))
        location = {
            "other port": f"http://127.0.0.1:{capture.port}/order/cancel-all",
            "http": f"http://localhost:{capture.port}/",
            "name": f"//localhost:{capture.port}/",
            "relative": "/elsewhere",
            "same": "",
        }[where]
        answer = http(b"moved", status, f"Location: {location}")
        server = stack.enter_context(RawServer(answering(answer), tls=False))
        client = stack.enter_context(server.client(max_retries=2))
        error = caught(lambda: client.cancel_all(SYMBOL))
        assert type(error) is espresso.ResponseError
        assert (error.outcome, error.attempts) == ("rejected", 1)
        assert error.status_code == status
        assert len(server.requests) == 1
        assert capture.connections == 0
    check(error)


def test_a_redirect_over_tls_is_not_followed() -> None:
    with RawServer(answering(http(DONE))) as capture:
        answer = http(b"", 307, f"Location: {capture.url}/order/cancel-all")
        with RawServer(answering(answer)) as server:
            both = Path(server.ca_file)
            both.write_bytes(both.read_bytes() + Path(capture.ca_file).read_bytes())
            with server.client() as client:
                error = caught(lambda: client.cancel_all(SYMBOL))
        assert type(error) is espresso.ResponseError
        assert capture.connections == 0


def test_a_warm_up_has_no_key() -> None:
    with RawServer(_head_then_post()) as server, server.client() as client:
        assert isinstance(client.warm_up(), float)
        client.cancel_all(SYMBOL)
        (_, head), (_, post) = server.requests
    assert head.startswith(b"HEAD / HTTP/1.1\r\n")
    assert KEY.encode() not in head
    assert b"API-KEY" not in head.upper()
    assert KEY.encode() in post
    assert server.connections == 1


def _head_then_post() -> Script:
    def script(wire: Any) -> None:
        wire.answer(http(DONE).partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
        answering(http(DONE))(wire)

    return script


def test_no_file_and_no_variable_add_to_a_request(
    clean_env: dict[str, str], tmp_path: Path
) -> None:
    """Neither a password file, nor cookies, nor curl's own settings."""
    (tmp_path / ".netrc").write_text(f"machine 127.0.0.1 login a password {PASSWORD}\n")
    (tmp_path / ".netrc").chmod(0o600)
    (tmp_path / ".curlrc").write_text('header = "X-Extra: yes"\n')
    with RawServer(answering(http(DONE))) as server:
        env = clean_env | {
            "HOME": str(tmp_path),
            "NETRC": str(tmp_path / ".netrc"),
            "CURL_HOME": str(tmp_path),
            "TEST_URL": server.url,
            "TEST_KEY": KEY,
            "TEST_CA": server.ca_file,
        }
        program = f"{children.PRELUDE}\nconnect().cancel_all('ADAUSDM')"
        children.run(program, env).check()
        (request,) = server.posts
    assert b"uthorization" not in request
    assert b"X-Extra" not in request
    assert b"ookie" not in request


# --- what lies about -------------------------------------------------------------


def test_a_key_is_a_box_without_a_window() -> None:
    key = _core.Key(KEY)
    clean(f"{key!r} {key} {key!s:>9} {dir(key)} {_core.Key.__doc__}")
    assert not hasattr(key, "__dict__")
    assert [name for name in dir(key) if not name.startswith("__")] == []
    assert gc.get_referents(key) in ([], [_core.Key])
    with pytest.raises(TypeError):
        memoryview(key)  # type: ignore[arg-type]
    with pytest.raises((AttributeError, TypeError)):
        key.text = KEY  # type: ignore[attr-defined]


@pytest.mark.parametrize("make", [lambda: _core.Key(KEY), lambda: espresso.Client(KEY)])
def test_neither_key_nor_client_is_copied(make: Callable[[], object]) -> None:
    """In a clear sentence."""
    held = make()
    copies: list[Callable[[], object]] = [
        lambda: copy.copy(held),
        lambda: copy.deepcopy(held),
        *(
            lambda p=p: pickle.dumps(held, p)
            for p in range(pickle.HIGHEST_PROTOCOL + 1)
        ),
    ]
    for attempt in copies:
        error = caught(attempt)
        assert isinstance(error, TypeError)
        assert "cannot be pickled" in str(error)
        check(error)


def reachable(root: object) -> Iterator[object]:
    """Whatever the collector finds from an object, our own modules aside."""
    seen: set[int] = set()
    waiting = [root]
    while waiting and len(seen) < 5000:
        one = waiting.pop()
        if id(one) in seen or isinstance(one, type | type(sys)) or callable(one):
            continue
        seen.add(id(one))
        yield one
        waiting += gc.get_referents(one)


def test_a_client_holds_no_text_of_its_secrets(exchange: Exchange) -> None:
    client = espresso.Client(KEY, base_url=exchange.url, proxy=PROXY)
    clean(f"{client!r} {vars(client)}")
    for name in dir(client):
        clean(repr(getattr(client, name)))
    for found in reachable(client):
        if isinstance(found, str | bytes):
            clean(repr(found))
    check(caught(lambda: client.cancel_all(SYMBOL, timeout=0.2, max_retries=0)))


def test_a_key_is_wiped_when_its_client_is_closed() -> None:
    """The memory of the object itself is read, as a core dump would show it."""
    client = espresso.Client(KEY)
    (key,) = [one for one in reachable(client) if isinstance(one, _core.Key)]
    assert KEY.encode() in ctypes.string_at(id(key), key.__sizeof__())
    client.close()
    assert KEY[-8:].encode() not in ctypes.string_at(id(key), key.__sizeof__())


def test_the_repr_says_only_whether_there_is_a_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert "key=missing" in repr(espresso.Client())
    assert "key=set" in repr(espresso.Client(KEY))
    monkeypatch.setenv("DELTADEFI_API_KEY", KEY)
    assert repr(espresso.Client()) == (
        f"<espresso.Client {espresso.MAINNET} key=set timeout=10.0>"
    )


def test_frames_beneath_a_callback(
    exchange: Exchange, full: pytest.MonkeyPatch
) -> None:
    """on_event may look up the stack, as profilers and debuggers do."""
    texts: list[str] = []

    def look(event: espresso.Event) -> None:
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            if of_the_package(frame):
                texts.append(repr(frame.f_locals))
            frame = frame.f_back
        texts.append(repr(event))

    exchange.fault("envoy_503")
    with espresso.Client(
        exchange.key, base_url=exchange.url, ca_file=exchange.ca_file, on_event=look
    ) as client:
        client.cancel_all(SYMBOL, missing_ok=True)
    assert len(texts) >= 2
    for text in texts:
        clean(text, exchange.key, KEY, PASSWORD)


def test_a_callback_that_raises_is_logged_without_it(
    exchange: Exchange, client: espresso.Client, loud: pytest.LogCaptureFixture
) -> None:
    def fail(event: espresso.Event) -> None:
        raise ValueError("mine")

    with espresso.Client(
        exchange.key, base_url=exchange.url, ca_file=exchange.ca_file, on_event=fail
    ) as noisy:
        noisy.cancel_all(SYMBOL, missing_ok=True)
    assert "mine" in loud.text
    for record in loud.records:
        assert record.exc_info is None or isinstance(record.exc_info, tuple)
        if record.exc_info and record.exc_info[1]:
            check(record.exc_info[1], exchange.key)
    clean(loud.text, exchange.key)


def test_a_callback_that_ends_the_call(
    exchange: Exchange, full: pytest.MonkeyPatch
) -> None:
    def leave(event: espresso.Event) -> None:
        raise SystemExit(3)

    client = espresso.Client(
        exchange.key, base_url=exchange.url, ca_file=exchange.ca_file, on_event=leave
    )
    error = caught(lambda: client.cancel_all(SYMBOL))
    assert isinstance(error, SystemExit)
    check(error, exchange.key)


LOOK_AROUND = """
key = os.environ.pop("TEST_KEY")[::-1]
before = dict(os.environ)
espresso.cancel_all("ADAUSDM", missing_ok=True, api_key=key)
with connect(key) as client:
    client.cancel_all("ADAUSDM", missing_ok=True)
assert dict(os.environ) == before
for name in ("cmdline", "environ"):
    with open(f"/proc/self/{name}", "rb") as file:
        assert key.encode() not in file.read(), name
assert os.listdir(os.environ["HOME"]) == [], "nothing is written"
print("clean")
"""


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="needs /proc")
def test_neither_argv_nor_environment_nor_files(
    exchange: Exchange, clean_env: dict[str, str], tmp_path: Path
) -> None:
    env = children.default_environment(clean_env, exchange)
    # Backwards, so that only what espresso does can bring it there.
    env["TEST_KEY"] = exchange.key[::-1]
    env["DELTADEFI_API_KEY"] = "sandbox-nobody"
    env |= {"HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    program = children.PRELUDE + LOOK_AROUND
    ended = children.run(program, env, flags=("-X", "dev")).check()
    assert ended.out.strip() == "clean"
    clean(ended.out + ended.err, exchange.key)


UNCAUGHT = """
espresso.cancel_all("ADAUSDM", timeout=5, max_retries=1)
"""


@pytest.mark.parametrize("flags", [(), ("-X", "dev"), ("-X", "tracemalloc")])
def test_an_uncaught_error_in_a_program(
    exchange: Exchange, clean_env: dict[str, str], flags: tuple[str, ...]
) -> None:
    exchange.reply(http(f"denied {exchange.key}".encode(), 403))
    env = children.default_environment(clean_env, exchange)
    ended = children.run(children.PRELUDE + UNCAUGHT, env, flags=flags)
    assert ended.status == 1
    assert "espresso.PermissionDeniedError: denied ***" in ended.err
    clean(ended.out + ended.err, exchange.key)


CRASH = """
import faulthandler, threading
faulthandler.enable()
key = os.environ.pop("TEST_KEY")
client = connect(key)
threading.Thread(target=client.cancel_all, args=["ADAUSDM"], daemon=True).start()
def in_a_call(event):
    faulthandler.dump_traceback()
    os.abort()
other = connect(key, on_event=in_a_call)
say("calling")
sys.stdin.readline()
other.cancel_all("NIGHTUSDM", missing_ok=True)
"""


def test_what_faulthandler_prints(
    exchange: Exchange, clean_env: dict[str, str]
) -> None:
    """On demand and in a crash, in the middle of two calls."""
    exchange.fault("hang")
    env = children.environment(clean_env, exchange)
    with children.Child(children.PRELUDE + CRASH, env) as child:
        child.expect("calling")
        exchange.wait_for_calls(1)
        child.tell()
        ended = child.end()
    assert ended.status == -signal.SIGABRT
    assert ended.err.count("in in_a_call") >= 2
    assert ended.err.count("Thread 0x") >= 2
    clean(ended.out + ended.err, exchange.key)


VERBOSE = """
client = connect()
client.warm_up()
client.cancel_all("ADAUSDM", missing_ok=True)
"""


def test_no_variable_makes_libcurl_talk(
    exchange: Exchange, clean_env: dict[str, str]
) -> None:
    """Its verbose output prints every header: nothing here turns it on."""
    env = children.environment(clean_env, exchange)
    env |= {"CURL_DEBUG": "all", "CURL_VERBOSE": "1", "CURL_TRACE": "all"}
    ended = children.run(children.PRELUDE + VERBOSE, env).check()
    assert ended.out + ended.err == ""
    for path in Path(PACKAGE).parent.glob("src/*/*.[ch]"):
        code = path.read_text()
        assert "CURLOPT_VERBOSE" not in code
        assert "DEBUGFUNCTION" not in code


# --- the memory of the process ---------------------------------------------------

# The key comes backwards, so that no copy is there but those that a call makes. All
# that ends goes before the last word; the program stays until it is told to end.
LIVES = {
    "sync": """
with connect(key()) as client:
    opened(client)
    client.cancel_all("ADAUSDM", missing_ok=True)
    client.cancel_all(["ADAUSDM", "NIGHTUSDM"], missing_ok=True)
    client.cancel_all("ADAUSDM", confirm=True)
    try:
        client.cancel_all("NOSUCH")
    except espresso.InvalidSymbolError:
        pass
""",
    "module": """
os.environ["DELTADEFI_BASE_URL"] = os.environ["TEST_URL"]
os.environ["SSL_CERT_FILE"] = os.environ["TEST_CA"]
mine = key()
espresso.cancel_all("ADAUSDM", missing_ok=True, api_key=mine)
opened(None)
del mine
for _, client in list(espresso._client._clients.values()):
    client.close()
espresso._client._clients.clear()
""",
    "asyncio": """
import asyncio
async def main():
    async with espresso.AsyncClient(
        key(), base_url=os.environ["TEST_URL"], ca_file=os.environ["TEST_CA"]
    ) as client:
        await client.cancel_all("ADAUSDM", missing_ok=True)
        opened(client)
        await client.cancel_all(["ADAUSDM", "NIGHTUSDM"], missing_ok=True)
        task = asyncio.ensure_future(client.cancel_all("ADAUSDM"))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
asyncio.run(main())
""",
    "guard": """
client = connect(key())
with client.guard("ADAUSDM"):
    opened(client)
client.close()
""",
}

LIFE = """
import gc
def key():
    return os.environ["TEST_YEK"][::-1]
def opened(client):
    say("opened")
    sys.stdin.readline()
"""

LIFE_ENDS = """
gc.collect()
say("closed")
sys.stdin.readline()
"""


def copies_in_memory(pid: int, secret: bytes) -> dict[str, int]:
    """How often it stands in the memory that the process may write, by region."""
    found: dict[str, int] = {}
    maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in maps:
            where, rights, *rest = line.split()
            if "w" not in rights or line.endswith(("[vvar]", "[vsyscall]")):
                continue
            start, end = (int(part, 16) for part in where.split("-"))
            memory.seek(start)
            count = bytearray(memory.read(end - start)).count(secret)
            if count:
                name = rest[-1] if len(rest) > 3 else where
                found[name] = found.get(name, 0) + count
    return found


def living(
    life: str, exchange: Exchange, env: dict[str, str], **more: str
) -> tuple[dict[str, int], dict[str, int]]:
    """What is found in a program while its client is open, and after the end."""
    env = children.environment(env, exchange) | {"TEST_YEK": exchange.key[::-1]} | more
    del env["TEST_KEY"]
    program = children.PRELUDE + LIFE + LIVES[life] + LIFE_ENDS
    with children.Child(program, env) as child:
        child.expect("opened")
        open_copies = copies_in_memory(child.pid, exchange.key.encode())
        child.tell()
        child.expect("closed")
        closed_copies = copies_in_memory(child.pid, exchange.key.encode())
        child.tell()
        child.end().check()
    return open_copies, closed_copies


@pytest.mark.memory
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/PID/mem")
@pytest.mark.parametrize("life", LIVES)
def test_the_memory_holds_no_copy_after_the_end(
    exchange: Exchange, clean_env: dict[str, str], life: str
) -> None:
    """None that is in use, of ours, of Python's or of libcurl's; and none on a stack.

    What is freed is overwritten by the allocators here: else the shared libcurl,
    whose free() does not, leaves parts behind, as SECURITY.md says.
    """
    while_open, after = living(
        life,
        exchange,
        clean_env,
        PYTHONMALLOC="malloc_debug",
        MALLOC_PERTURB_="165",
        GLIBC_TUNABLES="glibc.malloc.tcache_count=0",  # what lies there is not filled
    )
    assert while_open, "the search finds what is there"
    assert after == {}
