"""What every test may rely on: a clean environment and an exchange."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

import espresso
from espresso import _client, _watch
from espresso.sandbox import Exchange
from tests.names import KnownNames

# Whatever the machine sets, a test sees none of it unless it says so.
VARIABLES = (
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "SSLKEYLOGFILE",
    *_client.TRUST_VARIABLES,
    *_client.PROXY_VARIABLES,
    *_client.NO_PROXY_VARIABLES,
    "http_proxy",
    "HTTP_PROXY",
)
PREFIXES = ("DELTADEFI_", "ESPRESSO_")


def cleaned() -> dict[str, str]:
    """The environment without anything espresso would read."""
    return {
        name: value
        for name, value in os.environ.items()
        if name not in VARIABLES and not name.startswith(PREFIXES)
    }


def clean(patch: pytest.MonkeyPatch) -> None:
    """Take all of that out of this process, and let go what the plugin holds."""
    for name in set(os.environ) - set(cleaned()):
        patch.delenv(name)
    patch.setattr(_client, "held_to_loopback", False)


def pytest_configure() -> None:
    """Children get Ctrl-C: a shell has what it runs in the background ignore it."""
    for number, handler in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGQUIT, signal.SIG_DFL),
    ):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, handler)


# Markers of tests that a sanitizer stands in the way of.
NOT_SANITIZED = ("clock", "forked", "memory", "preload")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if "SANITIZER" not in os.environ:
        return
    for item in items:
        for name in NOT_SANITIZED:
            if item.get_closest_marker(name) is not None:
                reason = f"not under a sanitizer: marked `{name}`, see pyproject.toml"
                item.add_marker(pytest.mark.skip(reason=reason))


def asked(request: pytest.FixtureRequest, fixture: str) -> Iterator[dict[str, object]]:
    """Parameters of the chosen tests of a module that take this fixture."""
    for item in request.session.items:
        if (
            isinstance(item, pytest.Function)
            and item.module is request.module
            and fixture in item.fixturenames
            and item.get_closest_marker("skip") is None
        ):
            yield item.callspec.params


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    clean(monkeypatch)
    monkeypatch.setattr(_client, "_clients", {})
    monkeypatch.setattr(_watch, "_said", set())


@pytest.fixture
def clean_env() -> dict[str, str]:
    """The environment for a child process."""
    return cleaned()


@pytest.fixture
def exchange() -> Iterator[Exchange]:
    with Exchange(rate=None) as running:
        yield running


@pytest.fixture
def client(exchange: Exchange) -> Iterator[espresso.Client]:
    with espresso.Client(
        exchange.key, base_url=exchange.url, ca_file=exchange.ca_file, timeout=5
    ) as ready:
        yield ready


@pytest.fixture
def known(tmp_path: Path) -> KnownNames:
    """A resolver for child processes, which counts."""
    if not KnownNames.supported:
        pytest.skip("needs LD_PRELOAD")
    folder = tmp_path / "names"
    folder.mkdir()
    return KnownNames(folder)
