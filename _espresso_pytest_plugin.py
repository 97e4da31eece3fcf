"""The pytest plugin of espresso: no test reaches the live exchange by accident.

pytest loads it in every project of an environment that espresso is installed in.
Hence a module of its own, beside the package: loading it imports nothing but what
pytest has imported already, and not espresso before a test asks for it.

While pytest runs, ``ESPRESSO_LOOPBACK_ONLY=1`` makes a call to any host but loopback a
``ConfigError``, here and in the child processes, which inherit it. In this process it
holds although a test clears the environment.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import pytest

if TYPE_CHECKING:
    from espresso.sandbox import Exchange

__all__ = ["espresso_exchange"]

_VARIABLE = "ESPRESSO_LOOPBACK_ONLY"
# The variable as each session found it. Not in the stash, which old pytests lack.
_before: WeakKeyDictionary[pytest.Config, str | None] = WeakKeyDictionary()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("espresso").addoption(
        "--espresso-allow-live",
        action="store_true",
        default=False,
        help="Let tests call the live exchange with real keys: they cancel real "
        f"orders. Without it {_VARIABLE}=1 is set, and only loopback can be called.",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Before any file of the user is imported."""
    _block(early_config, early_config.known_args_namespace.espresso_allow_live)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """For a plugin that a conftest.py names, which is too late for the above."""
    _block(config, config.getoption("espresso_allow_live"))


def pytest_unconfigure(config: pytest.Config) -> None:
    """Leave the process as it was: it may be a notebook."""
    if config in _before:
        before = _before.pop(config)
        if before is None:
            os.environ.pop(_VARIABLE, None)
        else:
            os.environ[_VARIABLE] = before
        _tell_espresso(False)


def pytest_report_header(config: pytest.Config) -> str | None:
    if config.getoption("espresso_allow_live"):
        return "espresso: tests may call the LIVE exchange (--espresso-allow-live)"
    return None


@pytest.fixture
def espresso_exchange(monkeypatch: pytest.MonkeyPatch) -> Iterator[Exchange]:
    """A running `espresso.sandbox.Exchange`; calls of this test go there.

    Its key, URL and certificate stand in the environment, for this process and for
    those that the test starts: ``espresso.cancel_all``, and every client made without
    ``api_key=``, ``base_url=`` and ``ca_file=`` during the test, talk to it.
    """
    missing = ""
    try:
        from espresso.sandbox import Exchange
    except ImportError as error:  # its message says what to install, and is enough
        missing = str(error)
    if missing:
        pytest.fail(missing, pytrace=False)
    with Exchange() as exchange:
        for name, value in exchange.environment.items():
            monkeypatch.setenv(name, value)
        yield exchange


def _block(config: pytest.Config, allow_live: bool) -> None:
    if not allow_live and config not in _before:
        _before[config] = os.environ.get(_VARIABLE)
        os.environ[_VARIABLE] = "1"
        _tell_espresso(True)


def _tell_espresso(loopback_only: bool) -> None:
    """Where it is loaded; it finds the variable by itself when it is loaded later."""
    if "espresso._client" in sys.modules:
        from espresso._loopback import hold

        hold(loopback_only)
