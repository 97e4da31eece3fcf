"""Whom the client trusts: certificates, and the store they are verified by.

Nothing may ever be sent to a server that was not verified, and no store may stand
in for one that was named.
"""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

import espresso
from espresso.sandbox import Exchange
from tests import children
from tests.names import LIBCURL
from tests.rawserver import DONE, IDS, SYMBOL, RawServer, Wire, answering, http

RESULT = {"symbol": SYMBOL, "order_ids": IDS}
TAKES_UP = LIBCURL >= (8, 12)  # sessions; the cache of those before is not sound


def hashed(folder: Path, *certificates: str | bytes) -> str:
    """A directory of certificates as OpenSSL looks them up."""
    folder.mkdir()
    for number, certificate in enumerate(certificates):
        pem = certificate if isinstance(certificate, bytes) else read(certificate)
        (folder / f"{number}.pem").write_bytes(pem)
    subprocess.run(
        ["openssl", "rehash", str(folder)], check=True, capture_output=True, timeout=30
    )
    assert any(name.name.endswith(".0") for name in folder.iterdir())
    return str(folder)


def read(path: str) -> bytes:
    return Path(path).read_bytes()


def stranger(folder: Path) -> str:
    """A file with the certificate of an authority that signed nothing here."""
    path = folder / "stranger.pem"
    path.write_bytes(trustme.CA().cert_pem.bytes())
    return str(path)


@pytest.fixture
def server() -> Iterator[RawServer]:
    with RawServer(answering(http(DONE))) as running:
        yield running


def cancel(server: RawServer, **options: Any) -> dict[str, Any]:
    """One call; without `ca_file` unless that is given."""
    with server.client(**{"ca_file": None} | options) as client:
        return dict(client.cancel_all(SYMBOL))


def refused(server: RawServer, **options: Any) -> espresso.CertificateError:
    """The error of a call that must not go out."""
    with pytest.raises(espresso.CertificateError) as caught:
        cancel(server, max_retries=2, **{"timeout": 5} | options)
    error = caught.value
    assert type(error) is espresso.CertificateError
    assert (error.outcome, error.attempts, error.retryable) == ("not_sent", 1, False)
    assert (error.code, error.status_code) == (None, None)
    assert server.requests == []
    return error


# --- certificates ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("expired_certificate", "expired"),
        ("wrong_host_certificate", "127.0.0.1"),
        ("unknown_ca_certificate", "certificate"),
    ],
)
@pytest.mark.parametrize("use", ["cancel_all", "warm_up"])
def test_a_certificate_that_is_not_good(
    exchange: Exchange, client: espresso.Client, fault: str, says: str, use: str
) -> None:
    exchange.fault(fault)
    with pytest.raises(espresso.CertificateError, match=says) as caught:
        if use == "warm_up":
            client.warm_up()
        else:
            client.cancel_all(SYMBOL)
    error = caught.value
    assert isinstance(error, ConnectionError)
    assert (error.outcome, error.attempts, error.retryable) == ("not_sent", 1, False)
    assert exchange.requests == []
    # The next connection shows the right one.
    assert client.cancel_all(SYMBOL, missing_ok=True)["order_ids"] == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_the_name_that_was_typed_is_verified(host: str, tmp_path: Path) -> None:
    other = {"127.0.0.1": "localhost", "localhost": "127.0.0.1"}[host]
    with RawServer(answering(http(DONE)), hosts=(other,)) as wrong:
        refused(wrong, ca_file=wrong.ca_file, base_url=f"https://{host}:{wrong.port}")
    with RawServer(answering(http(DONE)), hosts=(host,)) as right:
        url = f"https://{host}:{right.port}"
        assert cancel(right, ca_file=right.ca_file, base_url=url) == RESULT


def test_a_certificate_of_a_name_beside_it() -> None:
    """A wildcard, and a name that only begins with the right one."""
    with RawServer(answering(http(DONE)), hosts=("*.0.0.1", "127.0.0.1.invalid")) as it:
        refused(it, ca_file=it.ca_file)


def test_a_certificate_that_signs_itself(server: RawServer, tmp_path: Path) -> None:
    refused(server, ca_file=stranger(tmp_path))


# --- sessions --------------------------------------------------------------------


class Visitors:
    """A script that notes of each connection whether it took a session up again; one in
    the clear it ends at the first word of a handshake."""

    def __init__(self) -> None:
        self.resumed: list[bool | None] = []

    def __call__(self, wire: Wire) -> None:
        if not isinstance(wire.sock, ssl.SSLSocket):
            self.resumed.append(None)
            wire.sock.recv(1)
            return
        self.resumed.append(bool(wire.sock.session_reused))
        wire.answer(http(DONE, 200, "Connection: close"))
        wire.close_notify()  # without it OpenSSL forgets a session of TLS 1.2


VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_session_is_taken_up_again(version: ssl.TLSVersion) -> None:
    """By the next connection of the same client, and of no other one."""
    visitors = Visitors()
    with RawServer(visitors, version=version) as server:
        for _ in range(2):
            with server.client() as client:
                for _ in range(3):
                    assert client.cancel_all(SYMBOL) == RESULT
    assert visitors.resumed == [False, TAKES_UP, TAKES_UP] * 2


@pytest.mark.parametrize("version", VERSIONS)
def test_after_a_handshake_that_failed_no_session_is_offered(
    version: ssl.TLSVersion,
) -> None:
    """It may be the session that a server, or something on the way, stumbles over."""
    visitors = Visitors()
    with (
        RawServer(visitors, version=version, clear=(2,)) as server,
        server.client(max_retries=1) as client,
    ):
        for _ in range(4):
            assert client.cancel_all(SYMBOL) == RESULT
    assert visitors.resumed == [False, TAKES_UP, None, False, TAKES_UP]


def test_a_session_that_the_server_does_not_know(
    exchange: Exchange, client: espresso.Client
) -> None:
    """Then it shows its certificate, which is looked at."""
    for fault in ("expired_certificate", "wrong_host_certificate"):
        exchange.reply(http(DONE), close=True)
        assert client.cancel_all(SYMBOL) == RESULT
        exchange.fault(fault)
        with pytest.raises(espresso.CertificateError):
            client.cancel_all(SYMBOL)


# --- want of memory --------------------------------------------------------------

# As libcurl does from 8.17 on, every handshake may end, and the verdict counts; OpenSSL
# has no memory to reach one, and leaves what it begins with.
NO_VERDICT = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

static void *
ssl_library(void)
{
    void *library = dlopen("libssl.so.3", RTLD_LAZY | RTLD_NOLOAD);

    return library ? library : dlopen("libssl.so.1.1", RTLD_LAZY | RTLD_NOLOAD);
}

void
SSL_CTX_set_verify(void *context, int mode, void *callback)
{
    void (*real)(void *, int, void *) = dlsym(ssl_library(), "SSL_CTX_set_verify");

    (void)mode;
    real(context, 0, callback);
}

int
X509_STORE_CTX_init(void *context, void *store, void *certificate, void *chain)
{
    close(open(getenv("TEST_NOTE"), O_WRONLY | O_CREAT, 0600));
    return 0;
}
"""

CALL = """
try:
    print(connect(max_retries=2).cancel_all("ADAUSDM", missing_ok=True))
except (espresso.EspressoError, MemoryError) as error:
    print(type(error).__name__)
"""


@pytest.mark.preload
@pytest.mark.skipif(sys.platform != "linux", reason="LD_PRELOAD is of Linux")
@pytest.mark.parametrize("roots", ["its own", "a stranger's"])
def test_a_chain_that_nobody_has_verified(
    exchange: Exchange, clean_env: dict[str, str], tmp_path: Path, roots: str
) -> None:
    """Not even a good one is trusted; a wheel's OpenSSL cannot be put in this place."""
    source, library, note = (tmp_path / name for name in ("v.c", "v.so", "note"))
    source.write_text(NO_VERDICT)
    command = ["cc", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"]
    subprocess.run(command, check=True, timeout=60)
    env = children.environment(clean_env, exchange)
    env |= {"LD_PRELOAD": children.preloaded(library), "TEST_NOTE": str(note)}
    if roots == "a stranger's":
        env["TEST_CA"] = stranger(tmp_path)
    said = children.run(children.PRELUDE + CALL, env).check().out
    if note.exists():
        assert said.split() == ["MemoryError"]
    else:
        assert ("CertificateError" in said) == (roots == "a stranger's")
    assert (exchange.requests == []) == ("order_ids" not in said)


# --- ca_file ---------------------------------------------------------------------


def test_a_file(server: RawServer) -> None:
    assert cancel(server, ca_file=server.ca_file) == RESULT


def test_a_bundle(server: RawServer, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle.pem"
    strangers = [trustme.CA().cert_pem.bytes() for _ in range(3)]
    bundle.write_bytes(b"# ours\n\n".join([*strangers, read(server.ca_file)]))
    assert cancel(server, ca_file=bundle) == RESULT


def test_a_hashed_directory(server: RawServer, tmp_path: Path) -> None:
    store = hashed(tmp_path / "store", trustme.CA().cert_pem.bytes(), server.ca_file)
    assert cancel(server, ca_file=store) == RESULT
    assert cancel(server, ca_file=store + "/") == RESULT


def test_a_hashed_directory_of_strangers(server: RawServer, tmp_path: Path) -> None:
    refused(server, ca_file=hashed(tmp_path / "store", stranger(tmp_path)))


def test_a_path_with_strange_characters(server: RawServer, tmp_path: Path) -> None:
    path = tmp_path / "ä 'ca' 😀.pem"
    path.write_bytes(read(server.ca_file))
    nowhere = tmp_path / "ä nowhere.pem"
    assert "ä nowhere.pem" in str(refused(server, ca_file=nowhere))
    assert cancel(server, ca_file=path) == RESULT


def unusable(folder: Path, pem: bytes) -> dict[str, Path]:
    """Every path that is no trust store."""
    paths = {name: folder / name for name in ("missing", "loop", "in a file/ca.pem")}
    paths["loop"].symlink_to(paths["loop"])
    (folder / "in a file").write_bytes(pem)
    contents = {
        "empty": b"",
        "blank": b"\n\n",
        "text": b"trust me\n",
        "binary": bytes(range(256)) * 16,
        "DER": b"\x30\x82\x01\x0a",
        "cut": pem[: len(pem) // 2],
        "broken": pem.replace(pem[60:64], b"AAAA", 1).replace(b"A", b"!", 9),
        "key": trustme.CA().private_key_pem.bytes(),
    }
    for name, content in contents.items():
        paths[name] = folder / name
        paths[name].write_bytes(content)
    for name in ("empty directory", "unhashed directory", "odd directory"):
        paths[name] = folder / name
        paths[name].mkdir()
    (paths["unhashed directory"] / "ca.pem").write_bytes(pem)
    (paths["odd directory"] / "0123456.0").write_bytes(pem)
    (paths["odd directory"] / "01234567.r0").write_bytes(pem)
    return paths


UNUSABLE = [
    "missing",
    "loop",
    "in a file/ca.pem",
    "empty",
    "blank",
    "text",
    "binary",
    "DER",
    "cut",
    "broken",
    "key",
    "empty directory",
    "unhashed directory",
    "odd directory",
]


@pytest.mark.parametrize("name", UNUSABLE)
def test_what_is_no_trust_store(
    server: RawServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    """Nothing is fallen back to, though a good store is at hand."""
    paths = unusable(tmp_path, read(server.ca_file))
    assert set(paths) == set(UNUSABLE)
    monkeypatch.setenv("SSL_CERT_FILE", server.ca_file)
    path = paths[name]
    error = refused(server, ca_file=path)
    assert path.name in str(error), "the message says which"


def test_an_unhashed_directory_gets_advice(server: RawServer, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_bytes(read(server.ca_file))
    error = refused(server, ca_file=tmp_path)
    assert "openssl rehash" in str(error)


def test_the_constructor_does_not_look(tmp_path: Path) -> None:
    espresso.Client("sandbox-key", ca_file=tmp_path / "missing").close()


def test_a_store_that_comes_later(server: RawServer, tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    with server.client(ca_file=path) as client:
        with pytest.raises(espresso.CertificateError):
            client.cancel_all(SYMBOL)
        path.write_bytes(read(server.ca_file))
        assert client.cancel_all(SYMBOL) == RESULT


# --- the environment -------------------------------------------------------------


def test_ssl_cert_file(server: RawServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", server.ca_file)
    assert cancel(server) == RESULT


def test_ssl_cert_dir(
    server: RawServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SSL_CERT_DIR", hashed(tmp_path / "store", server.ca_file))
    assert cancel(server) == RESULT


def test_ssl_cert_dir_may_be_a_list(
    server: RawServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store = hashed(tmp_path / "store", server.ca_file)
    monkeypatch.setenv(
        "SSL_CERT_DIR", os.pathsep.join([str(tmp_path / "nowhere"), store])
    )
    assert cancel(server) == RESULT


def test_ssl_cert_file_goes_before_ssl_cert_dir(
    server: RawServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SSL_CERT_DIR", hashed(tmp_path / "store", server.ca_file))
    monkeypatch.setenv("SSL_CERT_FILE", stranger(tmp_path))
    refused(server)
    monkeypatch.setenv("SSL_CERT_DIR", hashed(tmp_path / "other", stranger(tmp_path)))
    monkeypatch.setenv("SSL_CERT_FILE", server.ca_file)
    assert cancel(server) == RESULT


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
@pytest.mark.parametrize("name", ["missing", "empty", "empty directory"])
def test_a_store_that_is_named_is_never_fallen_back_from(
    server: RawServer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    variable: str,
    name: str,
) -> None:
    (tmp_path / "paths").mkdir()
    path = unusable(tmp_path / "paths", read(server.ca_file))[name]
    monkeypatch.setenv("SSL_CERT_DIR", hashed(tmp_path / "store", server.ca_file))
    monkeypatch.setenv(variable, str(path))
    assert path.name in str(refused(server))


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
def test_an_empty_variable_is_none(
    server: RawServer, monkeypatch: pytest.MonkeyPatch, variable: str, tmp_path: Path
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", server.ca_file)
    monkeypatch.setenv("SSL_CERT_DIR", hashed(tmp_path / "store", server.ca_file))
    monkeypatch.setenv(variable, "")
    assert cancel(server) == RESULT


def test_ca_file_goes_before_the_environment(
    server: RawServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", stranger(tmp_path))
    monkeypatch.setenv("SSL_CERT_DIR", hashed(tmp_path / "store", stranger(tmp_path)))
    assert cancel(server, ca_file=server.ca_file) == RESULT


@pytest.mark.parametrize("form", ["file", "directory"])
def test_with_ca_file_no_other_root_is_asked(
    server: RawServer, clean_env: dict[str, str], tmp_path: Path, form: str
) -> None:
    """Set before the process begins, so that whatever reads them has read them."""
    store = hashed(tmp_path / "store", server.ca_file)
    trusted = stranger(tmp_path)
    if form == "directory":
        trusted = hashed(tmp_path / "other", trusted)
    env = clean_env | {
        "SSL_CERT_FILE": server.ca_file,
        "SSL_CERT_DIR": store,
        "CURL_CA_BUNDLE": server.ca_file,
        "TEST_URL": server.url,
        "TEST_KEY": "sandbox-key",
        "TEST_CA": trusted,
    }
    program = children.PRELUDE + TRY
    assert children.run(program, env).check().out.split() == ["CertificateError"]
    # And they would have been right.
    env["TEST_CA"] = server.ca_file
    assert children.run(program, env).check().out.split() == ["done"]
    assert len(server.posts) == 1


TRY = """
try:
    connect(max_retries=0).cancel_all("ADAUSDM")
    print("done")
except espresso.EspressoError as error:
    print(type(error).__name__)
"""


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
def test_without_trust_env(
    server: RawServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str
) -> None:
    store = hashed(tmp_path / "store", server.ca_file)
    monkeypatch.setenv(
        variable, server.ca_file if variable == "SSL_CERT_FILE" else store
    )
    refused(server, trust_env=False)
    monkeypatch.setenv(variable, "/nowhere")
    assert cancel(server, trust_env=False, ca_file=server.ca_file) == RESULT


def test_the_environment_of_the_constructor_counts(
    server: RawServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", server.ca_file)
    with server.client(ca_file=None) as client:
        monkeypatch.setenv("SSL_CERT_FILE", "/nowhere")
        assert client.cancel_all(SYMBOL) == RESULT


def test_the_systems_store_does_not_know_us(server: RawServer) -> None:
    """What is left when nothing is named, be there a store on this system or not."""
    refused(server)


# --- what others read, and espresso does not -------------------------------------


@pytest.mark.parametrize("variable", ["CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE"])
def test_advice_where_others_find_their_roots(
    server: RawServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str
) -> None:
    path = stranger(tmp_path)
    silent = str(refused(server, ca_file=path))
    assert variable not in silent
    monkeypatch.setenv(variable, server.ca_file)
    advice = str(refused(server, ca_file=path))
    assert variable in advice
    assert "ca_file" in advice


def test_no_advice_where_the_store_is_not_at_fault(
    exchange: Exchange, client: espresso.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CURL_CA_BUNDLE", exchange.ca_file)
    exchange.fault("connect_reset")
    with pytest.raises(espresso.ConnectError) as caught:
        client.cancel_all(SYMBOL, max_retries=0)
    assert "CURL_CA_BUNDLE" not in str(caught.value)


KEYLOG = """
client = connect()
for use in (lambda: client.cancel_all("ADAUSDM", missing_ok=True), client.warm_up):
    try:
        use()
        print("done")
    except espresso.ConfigError as error:
        print("ConfigError", "SSLKEYLOGFILE" in str(error), error.outcome)
"""


def test_sslkeylogfile_is_refused(
    exchange: Exchange, clean_env: dict[str, str], tmp_path: Path
) -> None:
    """Or not honoured; in any case no secret of a session is written."""
    log = tmp_path / "keys.log"
    env = children.environment(clean_env | {"SSLKEYLOGFILE": str(log)}, exchange)
    said = children.run(children.PRELUDE + KEYLOG, env).check().out.splitlines()
    if said == ["ConfigError True not_sent"] * 2:
        assert exchange.requests == []
    else:
        assert said == ["done", "done"], "this libcurl takes no notice of it"
    assert not log.exists() or "CLIENT" not in log.read_text()


@pytest.mark.parametrize(
    "variable", ["PYTHONHTTPSVERIFY", "CURL_INSECURE", "SSL_NO_VERIFY", "NODE_TLS"]
)
def test_no_variable_switches_verification_off(
    exchange: Exchange, clean_env: dict[str, str], tmp_path: Path, variable: str
) -> None:
    (tmp_path / ".curlrc").write_text("insecure\n")
    env = children.environment(clean_env, exchange)
    env |= {variable: "0", "HOME": str(tmp_path), "CURL_HOME": str(tmp_path)}
    env["TEST_CA"] = stranger(tmp_path)
    said = children.run(children.PRELUDE + TRY, env).check().out.split()
    assert said == ["CertificateError"]
    assert exchange.requests == []


# --- what helps whoever reads it -------------------------------------------------


def test_the_message_names_the_host_and_never_the_key(
    exchange: Exchange, tmp_path: Path
) -> None:
    client = espresso.Client(
        exchange.key, base_url=exchange.url, ca_file=stranger(tmp_path)
    )
    with pytest.raises(espresso.CertificateError) as caught:
        client.cancel_all(SYMBOL)
    text = str(caught.value)
    assert exchange.url.removeprefix("https://") in text
    assert exchange.key not in text
    assert text.isprintable()
