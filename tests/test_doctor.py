"""``espresso doctor``: each trouble is met for real, and its sentence is read.

What cannot be met on one machine (the mainnet, a clock that is wrong) is told to the
diagnosis as a fact.
"""

from __future__ import annotations

import datetime
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pexpect
import pytest
import trustme

import espresso
from espresso import _cli_diagnosis, _cli_doctor
from espresso.sandbox import Exchange
from tests.children import PATIENCE, ROOT
from tests.names import KnownNames
from tests.obstacles import Gate
from tests.rawserver import HOSTS, RawServer, answering, http

SCRIPT = str(Path(sys.executable).with_name("espresso"))
PASSWORD = "hunter2-c0ffee"
Env = dict[str, str]


@pytest.fixture
def env(exchange: Exchange, clean_env: Env) -> Env:
    return {
        **{name: clean_env[name] for name in clean_env if name[:6] != "PYTHON"},
        "DELTADEFI_API_KEY": exchange.key,
        "DELTADEFI_BASE_URL": exchange.url,
        "SSL_CERT_FILE": exchange.ca_file,
        "ESPRESSO_LOOPBACK_ONLY": "1",
    }


def doctor(env: Env, *words: str, given: str = "") -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [SCRIPT, "doctor", *words],
        env=env,
        cwd=ROOT,
        input=given,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert "Traceback" not in done.stderr
    return done


def looked(env: Env, *words: str, given: str = "") -> tuple[int, dict[str, Any], str]:
    """The exit status, the facts, and all problems with what is to be done."""
    done = doctor(env, "--json", *words, given=given)
    facts: dict[str, Any] = json.loads(done.stdout)
    assert facts["ok"] is (done.returncode == 0)
    assert done.stderr == ""
    told = [f"{it['problem']} {it['mend']}" for it in facts["problems"]]
    return done.returncode, facts, "\n".join(told)


# --- all is well ------------------------------------------------------------------


def test_a_healthy_place(exchange: Exchange, env: Env) -> None:
    orders = exchange.place("ADAUSDM", 2)
    done = doctor(env)
    assert (done.returncode, done.stderr) == (0, "")
    for words in (
        f"espresso      {espresso.__version__}, in {(ROOT / 'espresso').resolve()}",
        f"Python        CPython {sys.version.split()[0]}, {sys.executable}",
        f"libcurl       {espresso.__versions__['libcurl']}",
        f"TLS library   {espresso.__versions__['tls']}",
        f"cJSON         {espresso.__versions__['cjson']}",
        f"exchange      {exchange.url} (DELTADEFI_BASE_URL)",
        "key           DELTADEFI_API_KEY\n",
        "proxy         none\n",
        f"trust store   {exchange.ca_file} (SSL_CERT_FILE)",
        "Ready: TLS stands and there is a key. Nothing was cancelled.",
    ):
        assert words in done.stdout
    for phase in ("name look-up", "TCP", "TLS", "first byte"):
        assert re.search(rf"^{phase} +\d+\.\d ms$", done.stdout, re.MULTILINE)
    assert re.search(r"^in all .* ms, HTTP 404 from 127\.0\.0\.1$", done.stdout, re.M)
    assert exchange.key not in done.stdout
    assert exchange.open_orders() == orders
    assert exchange.calls == []
    (head,) = exchange.requests
    assert (head.method, head.key) == ("HEAD", None)


def test_the_same_for_a_program(exchange: Exchange, env: Env) -> None:
    status, facts, problems = looked(env)
    assert status == 0
    probe = facts["probe"]
    phases = [probe[name] for name in ("dns", "connect", "tls", "first_byte", "total")]
    assert phases == sorted(phases)
    assert phases[0] >= 0 and phases[-1] < 5
    assert (probe["status_code"], probe["remote"]) == (404, "127.0.0.1")
    assert facts["distributions"] == ["espresso-deltadefi"]
    assert facts["trust_store_from"] == "SSL_CERT_FILE"
    assert abs(facts["clock"] - time.time()) < PATIENCE
    assert "this machine, by DELTADEFI_BASE_URL" in problems  # and nothing else
    assert len(facts["problems"]) == 1
    assert exchange.key not in json.dumps(facts)


@pytest.mark.parametrize("status", [200, 403, 500])
def test_any_answer_is_good(status: int, env: Env) -> None:
    with RawServer(answering(http(b"", status))) as server:
        env |= {"DELTADEFI_BASE_URL": server.url, "SSL_CERT_FILE": server.ca_file}
        code, facts, _ = looked(env)
    assert (code, facts["probe"]["status_code"]) == (0, status)


def test_where_the_roots_come_from(
    exchange: Exchange, env: Env, tmp_path: Path
) -> None:
    del env["SSL_CERT_FILE"]
    system = espresso._core.system_trust()
    assert looked(env)[1]["trust_store"] == system
    assert looked(env)[1]["trust_store_from"] == "the system's"
    status, facts, problems = looked({**env, "SSL_CERT_DIR": str(tmp_path)})
    assert status == 2
    assert facts["trust_store_from"] == "SSL_CERT_DIR"
    assert "holds no hashed certificate" in problems
    assert "Correct or unset SSL_CERT_DIR" in problems


# --- the key ----------------------------------------------------------------------


def test_no_key(exchange: Exchange, env: Env) -> None:
    del env["DELTADEFI_API_KEY"]
    status, facts, problems = looked(env)
    assert (status, facts["key_from"], facts["tls_stood"]) == (2, None, True)
    assert "There is no key. Set DELTADEFI_API_KEY, or name a file" in problems
    done = doctor(env)
    assert done.returncode == 2
    assert "key           none\n" in done.stdout
    assert done.stdout.endswith(
        "NOT READY: a call would fail. Nothing was cancelled.\n"
    )


def test_a_name_with_small_letters(exchange: Exchange, env: Env) -> None:
    env["deltadefi_api_key"] = env.pop("DELTADEFI_API_KEY")
    status, _, problems = looked(env)
    assert status == 2
    assert "The variable deltadefi_api_key is set, and not read" in problems
    assert "Call it DELTADEFI_API_KEY." in problems
    assert exchange.key not in problems


def test_a_key_that_cannot_be_used(exchange: Exchange, env: Env) -> None:
    status, facts, problems = looked({**env, "DELTADEFI_API_KEY": f"{exchange.key} "})
    assert (status, facts["tls_stood"]) == (2, True)
    assert "The key cannot be used: DELTADEFI_API_KEY: the API key holds" in problems
    assert exchange.key not in json.dumps(facts)
    done = doctor({**env, "DELTADEFI_API_KEY": f"{exchange.key} "})
    assert "key           DELTADEFI_API_KEY (cannot be used)\n" in done.stdout


def test_a_key_in_quotation_marks(exchange: Exchange, env: Env) -> None:
    _, facts, problems = looked({**env, "DELTADEFI_API_KEY": f'"{exchange.key}"'})
    assert "begins with a quotation mark" in problems
    assert exchange.key not in json.dumps(facts)


def test_the_key_of_a_file(exchange: Exchange, env: Env, tmp_path: Path) -> None:
    del env["DELTADEFI_API_KEY"]
    path = tmp_path / "key"
    path.write_text(f"{exchange.key}\n")
    path.chmod(0o644)
    status, facts, problems = looked(env, "--api-key-file", str(path))
    assert (status, facts["key_from"]) == (0, f"--api-key-file, {path}")
    assert f"Other users of this machine can read the key. Run: chmod 600 {path}" in (
        problems
    )
    assert looked(env, "--api-key-file", "-", given=exchange.key)[0] == 0
    status, facts, problems = looked(env, "--api-key-file", "/none/such")
    assert status == 2
    assert "The key cannot be used: API key: /none/such: No such file" in problems


# --- where it goes ----------------------------------------------------------------


def test_a_base_url_that_is_refused(env: Env) -> None:
    for url in ("https://elsewhere.example", "nonsense", "https://u:p@127.0.0.1"):
        status, facts, problems = looked({**env, "DELTADEFI_BASE_URL": url})
        assert (status, facts["base_url"], facts["probe"]) == (2, None, None)
        assert "The base URL cannot be used: DELTADEFI_BASE_URL" in problems
        assert "Correct DELTADEFI_BASE_URL, or leave it out: the mainnet is" in problems
    status, _, problems = looked(env, "--base-url", "ftp://x")
    assert status == 2
    assert "Correct --base-url" in problems
    done = doctor(env, "--base-url", "ftp://x")
    assert "exchange      none that can be used (--base-url)\n" in done.stdout
    assert "connection    not tried\n" in done.stdout


def test_loopback_only(env: Env) -> None:
    status, facts, problems = looked(env, "--base-url", "https://elsewhere.example")
    assert (status, facts["probe"]) == (2, None)
    assert "ESPRESSO_LOOPBACK_ONLY is set, as in tests" in problems
    assert "Outside of tests, unset ESPRESSO_LOOPBACK_ONLY." in problems


def test_a_base_url_in_capitals_is_the_same(exchange: Exchange, env: Env) -> None:
    url = exchange.url.replace("https://127.0.0.1", "HTTPS://LOCALHOST") + "/"
    status, facts, _ = looked({**env, "DELTADEFI_BASE_URL": url})
    assert (status, facts["host"]) == (0, "localhost")


def test_plain_http(env: Env) -> None:
    with RawServer(answering(http(b"")), tls=False) as server:
        status, facts, problems = looked(env, "--base-url", server.url)
    assert (status, facts["probe"]["ok"], facts["tls_stood"]) == (2, True, False)
    assert "plain http: no TLS" in problems


# --- the connection ---------------------------------------------------------------


def open_env(env: Env, **changes: str) -> Env:
    """Without the variable that keeps tests on this machine: the names are ours."""
    return {k: v for k, v in env.items() if k != "ESPRESSO_LOOPBACK_ONLY"} | changes


def test_a_name_that_is_not_found(env: Env, known: KnownNames) -> None:
    names = known.env({})
    url = "https://nowhere.invalid"
    status, _, problems = looked(open_env(env, **names), "--base-url", url)
    assert status == 2
    assert "Calls go to https://nowhere.invalid, by --base-url: neither the" in problems
    assert "The name nowhere.invalid was not found" in problems


def test_another_host(env: Env, known: KnownNames) -> None:
    """It is warned of, and no reason to fail."""
    with RawServer(answering(http(b"")), hosts=("trader.invalid",)) as server:
        names = known.env({"trader.invalid": ["127.0.0.1"]})
        status, facts, problems = looked(
            open_env(env, SSL_CERT_FILE=server.ca_file, **names),
            *("--base-url", f"https://trader.invalid:{server.port}"),
        )
    assert (status, facts["is_loopback"]) == (0, False)
    assert "your key would go there" in problems


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def test_nobody_listens(env: Env) -> None:
    status, facts, problems = looked(
        env, "--base-url", f"https://127.0.0.1:{closed_port()}"
    )
    assert (status, facts["tls_stood"]) == (2, False)
    assert "Nothing listens there, or the way is barred" in problems
    assert (
        "no answer"
        in doctor(env, "--base-url", f"https://127.0.0.1:{closed_port()}").stdout
    )


def test_a_server_that_breaks_off(env: Env) -> None:
    with RawServer(lambda wire: wire.fin(), tls=False) as server:
        url = f"https://127.0.0.1:{server.port}"
        status, _, problems = looked(env, "--base-url", url)
    assert status == 2
    assert "speaks no TLS 1.2 or later, or breaks off" in problems


def test_packets_that_are_swallowed(exchange: Exchange, env: Env) -> None:
    with Gate(exchange.url) as gate:
        status, _, problems = looked(env, "--base-url", gate.url)
    assert status == 2
    assert "Something swallows the packets" in problems


@pytest.mark.parametrize(
    ("fault", "said", "mend"),
    [
        ("expired_certificate", "certificate has expired", "If the clock is wrong"),
        ("wrong_host_certificate", "another host's", "Check base URL, DNS and proxy"),
        ("unknown_ca_certificate", "Nobody in the trust store", "If a proxy of your"),
    ],
)
def test_a_certificate_that_is_not_good(
    fault: str, said: str, mend: str, exchange: Exchange, env: Env
) -> None:
    exchange.fault(fault)
    status, facts, problems = looked(env)
    assert (status, facts["tls_stood"]) == (2, False)
    assert said in problems
    assert mend in problems
    assert "do not go on" in problems.lower()
    assert exchange.requests == []


def test_a_certificate_of_the_future(env: Env) -> None:
    """What a clock that is behind makes of a new one."""
    authority = trustme.CA()
    tomorrow = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*HOSTS, not_before=tomorrow).configure_cert(context)
    with RawServer(answering(http(b"")), context=context) as server:
        authority.cert_pem.write_to_path(server.ca_file)
        env |= {"DELTADEFI_BASE_URL": server.url, "SSL_CERT_FILE": server.ca_file}
        status, _, problems = looked(env)
    assert status == 2
    # Later libcurls add OpenSSL's number for it.
    said = r"not yet valid( \(9\))?\. This machine's clock says 20"
    assert re.search(said, problems)
    assert "If the clock is wrong, set it" in problems


def test_a_bundle_of_other_programs(exchange: Exchange, env: Env) -> None:
    env["CURL_CA_BUNDLE"] = env.pop("SSL_CERT_FILE")
    status, facts, problems = looked(env)
    assert (status, facts["variables"]) == (
        2,
        ["CURL_CA_BUNDLE", "DELTADEFI_API_KEY", *facts["variables"][2:]],
    )
    assert "CURL_CA_BUNDLE is set, and not read here: put its value into" in problems


def test_a_trust_store_that_is_not_there(env: Env) -> None:
    status, _, problems = looked({**env, "SSL_CERT_FILE": "/none/roots.pem"})
    assert status == 2
    assert "Trust store /none/roots.pem cannot be read: no such file." in problems
    assert "Correct or unset SSL_CERT_FILE." in problems


def test_secrets_that_would_be_written(env: Env, tmp_path: Path) -> None:
    status, facts, problems = looked({**env, "SSLKEYLOGFILE": str(tmp_path / "log")})
    assert facts["probe"]["keylog"]
    assert "SSLKEYLOGFILE is set" in problems
    assert "Unset SSLKEYLOGFILE." in problems
    assert status == 0  # the contract: TLS stood, and a key was found


# --- the proxy --------------------------------------------------------------------


def through(port: int) -> str:
    return f"http://trader:{PASSWORD}@127.0.0.1:{port}"


def test_a_proxy_that_refuses_or_is_not_there(env: Env) -> None:
    refusal = b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n"
    with RawServer(answering(refusal), tls=False) as server:
        for port in (server.port, closed_port()):
            status, facts, problems = looked(
                open_env(env, HTTPS_PROXY=through(port), NO_PROXY="a.example"),
                *("--base-url", "https://nowhere.invalid"),
            )
            assert status == 2
            assert facts["proxy"] == f"http://***@127.0.0.1:{port}"
            assert (facts["proxy_from"], facts["no_proxy"]) == (
                "HTTPS_PROXY",
                "a.example",
            )
            assert "Check the proxy of HTTPS_PROXY: its host, port, user" in problems
            assert PASSWORD not in json.dumps(facts)
        done = doctor(
            open_env(env, HTTPS_PROXY=through(server.port), NO_PROXY="a.example"),
            *("--base-url", "https://nowhere.invalid"),
        )
    assert PASSWORD not in done.stdout + done.stderr
    assert (
        f"proxy         http://***@127.0.0.1:{server.port} (from HTTPS_PROXY), "
        "not for a.example\n"
    ) in done.stdout


def test_a_proxy_that_is_no_url(env: Env) -> None:
    url = f"http://trader:{PASSWORD}@:1:1"
    status, facts, problems = looked({**env, "ALL_PROXY": url})
    assert (status, facts["probe"], facts["proxy"]) == (2, None, "(not a URL)")
    assert "Correct ALL_PROXY." in problems
    assert PASSWORD not in json.dumps(facts)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://host:3128", "http://host:3128"),
        ("host:3128", "host:3128"),
        ("socks5h://u:p@[::1]:9", "socks5h://***@[::1]:9"),
        (f"http://trader:{PASSWORD}@host:1/", "http://***@host:1"),
        (f"http://trader:a@b/{PASSWORD}@host", "http://***@host"),
        (f"trader:{PASSWORD}", "(not a URL)"),
        (f"http://trader:{PASSWORD}", "(not a URL)"),
        (f"http://host/{PASSWORD}", "(not a URL)"),
        (f"http://host:1?{PASSWORD}", "(not a URL)"),
    ],
)
def test_a_proxy_is_shown_without_its_password(url: str, shown: str) -> None:
    assert _cli_doctor.without_password(url) == shown


# --- the installation -------------------------------------------------------------


def test_a_second_distribution(exchange: Exchange, env: Env, tmp_path: Path) -> None:
    """A stranger's package of the name that users expect."""
    info = tmp_path / "espresso-2.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: espresso\nVersion: 2.0"
    )
    (info / "RECORD").write_text("espresso/__init__.py,,\nespresso/_cli.py,,\n")
    status, facts, problems = looked({**env, "PYTHONPATH": str(tmp_path)})
    assert facts["distributions"] == ["espresso", "espresso-deltadefi"]
    assert "The distribution 'espresso' owns a folder espresso/ too" in problems
    assert (
        "pip uninstall espresso, then "
        "pip install --force-reinstall espresso-deltadefi." in problems
    )
    assert status == 0  # a warning: this very import is ours


FACTS: dict[str, Any] = {
    "distributions": ["espresso-deltadefi"],
    "base_url": espresso.MAINNET,
    "base_url_from": "the default",
    "base_url_error": None,
    "host": "api.deltadefi.io",
    "is_loopback": False,
    "key_from": "DELTADEFI_API_KEY",
    "key_error": None,
    "key_is_quoted": False,
    "key_warning": "",
    "misspelt": [],
    "proxy": None,
    "proxy_from": None,
    "trust_store_from": "the system's",
    "variables": [],
    "clock": 2_000_000_000.0,
    "installed_at": 1_900_000_000.0,
    "probe": {"ok": True, "keylog": False},
    "client_error": None,
}
LATE = {"ok": False, "keylog": False, "certificate": False, "curl_code": 28}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, ""),
        ({"distributions": []}, ""),
        ({"distributions": ["Espresso_DeltaDeFi"]}, ""),
        (
            {"base_url": espresso.PREPROD, "base_url_from": "DELTADEFI_BASE_URL"},
            "pre-production exchange, by DELTADEFI_BASE_URL: orders on the mainnet",
        ),
        ({"clock": 0.0}, "The clock says 1970-01-01 00:00 UTC, which is before"),
        (
            {"probe": {**LATE, "message": "no answer in time", "tls": 0.1}},
            "No answer in time. TLS stood, but no answer came",
        ),
        (
            {"probe": {**LATE, "message": "odd", "tls": None, "curl_code": 99}},
            "Odd. Check the network, then try again.",
        ),
    ],
)
def test_diagnosis_of_what_no_test_can_meet(
    changes: dict[str, Any], words: str
) -> None:
    told = [f"{it.what} {it.mend}" for it in _cli_diagnosis.diagnose(FACTS | changes)]
    assert len(told) == (1 if words else 0), told
    assert words in "".join(told)


# --- what the core tells ----------------------------------------------------------


def test_a_probe_leaves_a_warm_connection(
    exchange: Exchange, client: espresso.Client
) -> None:
    first, second = client._probe(), client._probe()
    assert first["tls"] > 0
    assert (second["dns"], second["connect"], second["tls"]) == (None, None, None)
    client.cancel_all("ADAUSDM", missing_ok=True)
    assert len({request.connection for request in exchange.requests}) == 1


def test_a_probe_that_is_held_wrong(client: espresso.Client) -> None:
    probe: Any = client._probe
    with pytest.raises(TypeError, match="takes no arguments"):
        probe(1)
    with pytest.raises(TypeError, match="takes no arguments"):
        probe(timeout=1)
    client.close()
    with pytest.raises(RuntimeError, match="closed"):
        client._probe()
    with pytest.raises(RuntimeError, match="__init__"):
        espresso.Client.__new__(espresso.Client)._probe()


# --- how it is told ---------------------------------------------------------------


def test_lines_fit_a_terminal(env: Env) -> None:
    del env["DELTADEFI_API_KEY"]
    child = pexpect.spawn(
        SCRIPT,
        ["doctor", "--base-url", f"https://127.0.0.1:{closed_port()}"],
        env=env,
        dimensions=(40, 80),
        encoding="utf-8",
        timeout=PATIENCE,
    )
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 2
    text = child.before
    assert isinstance(text, str)
    problems = text[text.index("1. ") :].replace("\r\n", "\n").splitlines()
    assert max(map(len, problems)) < 80
    assert [line[:2] for line in problems if line[:1].isdigit()] == ["1.", "2.", "3."]


def test_ctrl_c(exchange: Exchange, env: Env) -> None:
    with (
        Gate(exchange.url) as gate,
        subprocess.Popen(
            [SCRIPT, "doctor", "--base-url", gate.url],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        gate.wait_for(1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (130, "")
    assert out.startswith("espresso ")


def test_stdout_that_is_closed(env: Env) -> None:
    done = subprocess.run(
        ["bash", "-c", f"exec '{SCRIPT}' doctor >&-"],
        env={**env, "HOME": os.environ.get("HOME", "/")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0
    assert "Ready: TLS stands" in done.stderr
