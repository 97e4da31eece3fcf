"""``espresso doctor``: what is installed, what a call would use, what to mend.

It cancels nothing. It sends one HEAD of the base path, without the key.

All that is seen goes into one dict of facts, which holds no secret and is what
``--json`` prints; `_cli_diagnosis` makes of it what there is to mend.
"""

from __future__ import annotations

import os
import platform
import re
import sys
import textwrap
import time
from importlib import metadata

from . import _cli, _client, _core
from ._cli_cancel import add_key_argument
from ._cli_diagnosis import Problem, diagnose
from ._cli_key import read_key, shown_name, warning_of
from .errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Iterator
    from typing import Any

    Facts = dict[str, Any]

# Their values are not shown, and those of some matter to nobody else.
VARIABLES = (
    "SSLKEYLOGFILE",
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    *(_client.KEY_VARIABLE, _client.URL_VARIABLE, _client.LOOPBACK_VARIABLE),
    *_client.TRUST_VARIABLES,
)
PHASES = {
    "dns": "name look-up",
    "connect": "TCP",
    "tls": "TLS",
    "first_byte": "first byte",
}
WIDTH = 79
MARGIN = " " * 14


def add_arguments(parser: ArgumentParser) -> None:
    parser.epilog = (
        "exit status: 0 if TLS stood and a key was found, else 2. No order is\n"
        "touched. The key is not sent: whether the exchange knows it stays open."
    )
    parser.add_argument(
        "--base-url",
        metavar="URL",
        help="the exchange (default: DELTADEFI_BASE_URL, else the mainnet)",
    )
    add_key_argument(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: Namespace) -> int:
    """Look, say what is found, and return the exit status."""
    facts = survey(arguments)
    if not arguments.json:
        _cli.say(_settings(facts))
    facts |= connect(facts)
    problems = diagnose(facts)
    ok = bool(facts["key_from"] and not facts["key_error"] and facts["tls_stood"])
    if arguments.json:
        _say_json(facts, problems, ok)
    else:
        _cli.say(_connection(facts))
        _cli.say(_verdict(problems, ok))
    return _cli.OK if ok else _cli.USAGE


# ---- What can be seen ----------------------------------------------------------------


def survey(arguments: Namespace) -> Facts:
    """All that can be seen without a connection."""
    environment = _client.Environment()
    return {
        **_installation(),
        **_exchange(environment, arguments.base_url),
        **_key(arguments.api_key_file),
        **_proxy(environment),
        **_trust_store(environment),
        "variables": [name for name in VARIABLES if os.environ.get(name)],
        "misspelt": sorted(_misspelt()),
        "clock": time.time(),
    }


def _installation() -> Facts:
    owners = metadata.packages_distributions().get("espresso", [])
    return {
        "espresso": _core.__version__,
        "libcurl": _core.VERSIONS["libcurl"],
        "tls_library": _core.VERSIONS["tls"],
        "cjson": _core.VERSIONS["cjson"],
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "executable": sys.executable,
        "platform": platform.platform(),
        "folder": os.path.dirname(os.path.abspath(__file__)),
        "installed_at": os.stat(_core.__file__).st_mtime,
        "distributions": sorted(set(owners)),
    }


def _exchange(environment: _client.Environment, given: str | None) -> Facts:
    source = "the default"
    if given is not None:
        source = "--base-url"
    elif environment.get(_client.URL_VARIABLE) is not None:
        source = _client.URL_VARIABLE
    facts: Facts = {"base_url": None, "base_url_from": source, "base_url_error": None}
    try:
        url = _client.base_url_from(environment) if given is None else given
        facts["base_url"], facts["host"], facts["is_loopback"] = _core.parse_base_url(
            url
        )
    except ConfigError as error:
        facts["base_url_error"] = str(error)
    return facts


def _key(file: str | None) -> Facts:
    """Where the key comes from; nothing of the key itself."""
    source = _client.KEY_VARIABLE
    key_error = None
    try:
        if file is None:
            _client.key_from_environment()
        else:
            source = f"--api-key-file, {shown_name(file)}"
            read_key(file)
    except ConfigError as error:
        key_error = str(error)
    there = file is not None or bool(os.environ.get(_client.KEY_VARIABLE))
    return {
        "key_from": source if there else None,
        "key_error": key_error,
        "key_is_quoted": file is None and _is_quoted(_client.KEY_VARIABLE),
        "key_warning": "" if file is None else warning_of(file).strip(),
    }


def _is_quoted(name: str) -> bool:
    """Whether the variable's value has kept the quotation marks of a shell."""
    return os.environ.get(name, "")[:1] in ('"', "'")


def _proxy(environment: _client.Environment) -> Facts:
    """The proxy, without what may be a password."""
    url = environment.get(*_client.PROXY_VARIABLES)
    names = (name for name in _client.PROXY_VARIABLES if name in os.environ)
    return {
        "proxy": None if url is None else without_password(url),
        "proxy_from": None if url is None else next(names),
        "no_proxy": environment.get(*_client.NO_PROXY_VARIABLES),
    }


_PROXY_URL = re.compile(
    r"(?P<scheme>[a-z0-9]+://)?(?P<user>.*@)?(?P<host>[\w.-]+|\[[0-9a-f:.]+\])"
    r"(?P<port>:\d{1,5})?/?",
    re.IGNORECASE | re.DOTALL,
)


def without_password(url: str) -> str:
    """The URL of a proxy with stars for user and password; of a text that is no such
    URL nothing is shown, since any part could be the password."""
    found = _PROXY_URL.fullmatch(url)
    if found is None:
        return "(not a URL)"
    user = "***@" if found["user"] else ""
    return f"{found['scheme'] or ''}{user}{found['host']}{found['port'] or ''}"


def _trust_store(environment: _client.Environment) -> Facts:
    path, source = _client.trust_store(environment)
    return {"trust_store": path, "trust_store_from": source}


def _misspelt() -> Iterator[str]:
    """Variables whose names are ours but for small letters."""
    ours = {_client.KEY_VARIABLE, _client.URL_VARIABLE, _client.LOOPBACK_VARIABLE}
    return (name for name in os.environ if name not in ours and name.upper() in ours)


def connect(facts: Facts) -> Facts:
    """One HEAD, as a call would go; timings in seconds from the start."""
    probe: Facts | None = None
    client_error = None
    if facts["base_url"] is not None:
        try:
            with _client.Client(base_url=facts["base_url"]) as client:
                probe = client._probe()
        except ConfigError as error:
            client_error = str(error)
    stood = probe is not None and probe["tls"] is not None
    return {"probe": probe, "client_error": client_error, "tls_stood": stood}


# ---- What is said --------------------------------------------------------------------


def _say_json(facts: Facts, problems: list[Problem], ok: bool) -> None:
    import json

    told = [{"problem": it.what, "mend": it.mend} for it in problems]
    _cli.say(json.dumps({"ok": ok, **facts, "problems": told}, indent=2))


def _settings(facts: Facts) -> str:
    key = facts["key_from"] or "none"
    if facts["key_error"] and facts["key_from"]:
        key += " (cannot be used)"
    url = facts["base_url"] or "none that can be used"
    proxy = facts["proxy"] or "none"
    if facts["proxy"]:
        proxy += f" (from {facts['proxy_from']})"
    if facts["proxy"] and facts["no_proxy"]:
        proxy += f", not for {facts['no_proxy']}"
    store = facts["trust_store"] or "none"
    clock = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(facts["clock"]))
    rows = {
        "espresso": f"{facts['espresso']}, in {facts['folder']}",
        "Python": f"{facts['python']}, {facts['executable']}",
        "system": facts["platform"],
        "libcurl": facts["libcurl"],
        "TLS library": facts["tls_library"],
        "cJSON": facts["cjson"],
        "exchange": f"{url} ({facts['base_url_from']})",
        "key": key,
        "proxy": proxy,
        "trust store": f"{store} ({facts['trust_store_from']})",
        "clock": clock,
    }
    return "\n".join(f"{name:12}  {rows[name]}" for name in rows)


def _connection(facts: Facts) -> str:
    """The phases of the HEAD, each with the milliseconds that it took."""
    probe = facts["probe"]
    if probe is None:
        return f"{'connection':12}  not tried"
    lines = []
    before = 0.0
    for name in PHASES:
        at = probe[name]
        took = "-" if at is None else f"{(at - before) * 1000:.1f} ms"
        lines.append(f"{PHASES[name]:12}  {took:>10}")
        before = before if at is None else at
    total = f"{probe['total'] * 1000:.1f} ms"
    answer = f", HTTP {probe['status_code']}" if probe["ok"] else ", no answer"
    remote = f" from {probe['remote']}" if probe["remote"] else ""
    lines.append(f"{'in all':12}  {total:>10}{answer}{remote}")
    return "\n".join(lines)


def _verdict(problems: list[Problem], ok: bool) -> str:
    end = "Ready: TLS stands and there is a key. Nothing was cancelled."
    if not ok:
        end = "NOT READY: a call would fail. Nothing was cancelled."
    told = [
        _folded(f"{n}. {it.what}") + "\n" + _folded(f"   {it.mend}")
        for n, it in enumerate(problems, 1)
    ]
    return "\n".join(["", *told, *([""] if told else []), end])


def _folded(text: str) -> str:
    return textwrap.fill(
        text,
        WIDTH,
        subsequent_indent="   ",
        break_on_hyphens=False,
        break_long_words=False,
    )
