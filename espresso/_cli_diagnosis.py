"""What ``espresso doctor`` says is wrong, and what to do about it.

Each function looks at the facts that `_cli_doctor` has gathered and yields a problem
for each thing to mend. None of them looks anywhere else.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from . import _client, _core

OUR_DISTRIBUTION = "espresso-deltadefi"
DAY = 86400.0

Facts = dict[str, Any]


class Problem(NamedTuple):
    """One thing that is wrong, and a sentence on how to mend it."""

    what: str
    mend: str


def diagnose(facts: Facts) -> list[Problem]:
    """All that is wrong, in the order in which a call would meet it."""
    looks: tuple[Callable[[Facts], Iterator[Problem]], ...] = (
        _installation,
        _exchange,
        _key,
        _secrets,
        _clock,
        _options,
        _connection,
    )
    return [problem for look in looks for problem in look(facts)]


# ---- Before the connection -----------------------------------------------------------


def _installation(facts: Facts) -> Iterator[Problem]:
    strangers = [it for it in facts["distributions"] if not _is_ours(it)]
    for name in strangers:
        yield Problem(
            f"The distribution {name!r} owns a folder espresso/ too: which of the two "
            "is imported is a matter of luck, and files of both may be mixed.",
            f"pip uninstall {name}, then "
            f"pip install --force-reinstall {OUR_DISTRIBUTION}.",
        )


def _is_ours(distribution: str) -> bool:
    return distribution.lower().replace("_", "-").replace(".", "-") == OUR_DISTRIBUTION


def _exchange(facts: Facts) -> Iterator[Problem]:
    source, url = facts["base_url_from"], facts["base_url"]
    if facts["base_url_error"]:
        yield Problem(
            f"The base URL cannot be used: {facts['base_url_error']}.",
            f"Correct {source}, or leave it out: the mainnet is {_core.MAINNET}.",
        )
    elif facts["is_loopback"]:
        yield from _loopback(facts)
    elif url == _core.PREPROD:
        yield Problem(
            f"Calls go to the pre-production exchange, by {source}: orders on the "
            "mainnet stay open.",
            f"For the mainnet, leave {source} out.",
        )
    elif url != _core.MAINNET:
        yield Problem(
            f"Calls go to {url}, by {source}: neither the mainnet nor pre-production, "
            "and your key would go there.",
            f"Unless you trust that host, leave {source} out.",
        )


def _loopback(facts: Facts) -> Iterator[Problem]:
    yield Problem(
        f"Calls go to this machine, by {facts['base_url_from']}: a sandbox or a "
        "gateway; orders on the mainnet stay open.",
        f"For the mainnet, leave {facts['base_url_from']} out.",
    )
    if facts["base_url"].startswith("http:"):
        yield Problem(
            "The base URL is plain http: no TLS, and nobody knows who answers.",
            "Use https.",
        )


def _key(facts: Facts) -> Iterator[Problem]:
    if facts["key_from"] is None:
        yield Problem(
            "There is no key.",
            f"Set {_client.KEY_VARIABLE}, or name a file in --api-key-file.",
        )
    elif facts["key_error"]:
        yield Problem(
            f"The key cannot be used: {facts['key_error']}.",
            f"Copy it anew, without quotation marks and spaces; it came from "
            f"{facts['key_from']}.",
        )
    if facts["key_is_quoted"]:
        yield Problem(
            f"The value of {_client.KEY_VARIABLE} begins with a quotation mark.",
            "In an env file or a unit file the marks become a part of the key: "
            "take them out.",
        )
    if facts["key_warning"]:
        yield Problem("Other users of this machine can read the key.", _mode(facts))
    for name in facts["misspelt"]:
        yield Problem(
            f"The variable {name} is set, and not read: names count with their case.",
            f"Call it {name.upper()}.",
        )


def _mode(facts: Facts) -> str:
    command: str = facts["key_warning"].partition("run: ")[2]
    return f"Run: {command}"


def _secrets(facts: Facts) -> Iterator[Problem]:
    probe = facts["probe"]
    if probe is not None and probe["keylog"]:
        yield Problem(
            "SSLKEYLOGFILE is set: this libcurl would write the secrets of every TLS "
            "session to that file, and so every call is refused.",
            "Unset SSLKEYLOGFILE.",
        )


def _clock(facts: Facts) -> Iterator[Problem]:
    if facts["clock"] < facts["installed_at"] - DAY:
        yield Problem(
            f"The clock says {_utc(facts['clock'])}, which is before espresso was "
            "installed: certificates will not verify.",
            "Set the clock: timedatectl set-ntp true.",
        )


def _utc(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))


def _options(facts: Facts) -> Iterator[Problem]:
    error = facts["client_error"]
    if error is None:
        return
    if error.startswith(_client.LOOPBACK_VARIABLE):
        yield Problem(
            f"{error.partition(';')[0]}.",
            f"Outside of tests, unset {_client.LOOPBACK_VARIABLE}.",
        )
    else:
        source = facts["proxy_from"] or "the settings"
        yield Problem(f"No call can be made: {error}.", f"Correct {source}.")


# ---- The connection ------------------------------------------------------------------

# Of libcurl's documented error codes.
_NO_PROXY_NAME, _NO_NAME, _NO_CONNECTION = 5, 6, 7
_TOO_LATE, _NO_TLS = 28, 35


def _connection(facts: Facts) -> Iterator[Problem]:
    probe = facts["probe"]
    if probe is not None and not probe["ok"]:
        judge = _certificate if probe["certificate"] else _way
        yield judge(facts, probe)


def _certificate(facts: Facts, probe: Facts) -> Problem:
    said = probe["message"]
    if "trust store" in said:
        return Problem(f"{_sentence(said)}", _mend_store(facts))
    if "expired" in said or "not yet valid" in said:
        return Problem(
            f"{_sentence(said)} This machine's clock says {_utc(facts['clock'])}.",
            "If the clock is wrong, set it (timedatectl set-ntp true). If it is right, "
            "do not go on: somebody may stand in between.",
        )
    if "match" in said:
        return Problem(
            f"{_sentence(said)} The certificate is another host's.",
            "Check base URL, DNS and proxy. Do not go on: somebody may stand in "
            "between.",
        )
    return Problem(
        f"{_sentence(said)} Nobody in the trust store vouches for this server.",
        _mend_roots(facts),
    )


def _mend_store(facts: Facts) -> str:
    source = facts["trust_store_from"]
    if source in _client.TRUST_VARIABLES:
        return f"Correct or unset {source}."
    return "Install the system's ca-certificates, or name a file in SSL_CERT_FILE."


def _mend_roots(facts: Facts) -> str:
    others = ("CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE")
    named = [name for name in others if name in facts["variables"]]
    if named:
        return (
            f"{named[0]} is set, and not read here: put its value into SSL_CERT_FILE, "
            "if you trust it."
        )
    return (
        "If a proxy of your firm opens TLS, name its root in SSL_CERT_FILE. If there "
        "is none, do not go on: somebody may stand in between."
    )


def _way(facts: Facts, probe: Facts) -> Problem:
    """No connection, or no answer on it; the certificate is not to blame."""
    return Problem(_sentence(probe["message"]), _mend_way(facts, probe))


def _mend_way(facts: Facts, probe: Facts) -> str:
    code = probe["curl_code"]
    if probe["tls"] is not None:
        return "TLS stood, but no answer came: try again; the exchange may be down."
    if facts["proxy"] and not facts["is_loopback"]:
        return (
            f"Check the proxy of {facts['proxy_from']}: its host, port, user and "
            "password; and whether it lets you through to this host."
        )
    if code == _NO_NAME:
        return (
            f"The name {facts['host']} was not found: check the spelling, the network, "
            "and DNS (/etc/resolv.conf)."
        )
    if code == _NO_CONNECTION:
        return (
            "Nothing listens there, or the way is barred: check host and port, the "
            "network, a VPN, a firewall."
        )
    if code == _TOO_LATE:
        return (
            "Something swallows the packets: check the network, a firewall, a VPN, "
            "or whether a proxy is needed (HTTPS_PROXY)."
        )
    if code == _NO_TLS:
        return (
            "What answers there speaks no TLS 1.2 or later, or breaks off: check the "
            "port, and what stands in between."
        )
    return "Check the network, then try again."


def _sentence(text: str) -> str:
    """The words of libcurl or of the core, with a capital and a full stop."""
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."
