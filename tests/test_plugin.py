"""The pytest plugin, as a user's own project meets it.

Each test writes the tests of somebody's bot into a folder and runs pytest there, in a
process of its own. Whatever goes wrong, nothing can be called: the hosts are cut off.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import unittest
from importlib import metadata
from pathlib import Path
from unittest import mock

import pytest

import espresso
from espresso.sandbox import Exchange
from tests.children import ROOT

pytest_plugins = ["pytester"]

PLUGIN = "_espresso_pytest_plugin"
REAL_KEY = "0123456789abcdef" * 2  # looks like one [field]; belongs to nobody
ADVICE = "under pytest, ask for the fixture espresso_exchange"
BLOCKED = f"ESPRESSO_LOOPBACK_ONLY (is|was) set, as in tests: .*; {ADVICE}"

BOT = """
import espresso

def stop(symbol="ADAUSDM"):
    return espresso.cancel_all(symbol, missing_ok=True)

if __name__ == "__main__":
    print(stop()["order_ids"])
"""


@pytest.fixture
def project(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> pytest.Pytester:
    """Somebody's project with a bot, in an environment with a real key.

    A proxy that is not there stands before every host but loopback: should the block
    of live hosts ever fail, the call ends there, and the test fails.
    """
    monkeypatch.setenv("DELTADEFI_API_KEY", REAL_KEY)
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    pytester.makepyfile(bot=BOT)
    return pytester


def run(
    project: pytest.Pytester, *arguments: str, plugins: str | None = PLUGIN
) -> pytest.RunResult:
    """Run pytest there, with these plugins alone.

    plugins: None lets pytest find ours by itself, as it does for a user
    """
    others = {it.name for it in metadata.entry_points(group="pytest11")} - {"espresso"}
    refused = [f"-pno:{name}" for name in others]  # they take seconds to load
    with pytest.MonkeyPatch.context() as patch:
        if plugins is not None:
            patch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
            patch.setenv("PYTEST_PLUGINS", plugins)
            refused = []
        return project.runpytest_subprocess("-pno:cacheprovider", *refused, *arguments)


# ---- the fixture ---------------------------------------------------------------------

WITH_FIXTURE = """
import asyncio, os, subprocess, sys, unittest
import espresso, pytest
import bot

VARIABLES = ("DELTADEFI_API_KEY", "DELTADEFI_BASE_URL", "SSL_CERT_FILE")

def test_before():
    assert os.environ["DELTADEFI_API_KEY"] == "{real}"
    assert "SSL_CERT_FILE" not in os.environ

def test_bot(espresso_exchange):
    ids = espresso_exchange.place("ADAUSDM", 3)
    assert bot.stop()["order_ids"] == ids
    assert espresso_exchange.open_orders() == []
    assert [call.status for call in espresso_exchange.calls] == [200]

def test_each_has_its_own(espresso_exchange):
    assert espresso_exchange.calls == []
    with pytest.raises(espresso.OrderNotFoundError):
        espresso.Client().cancel_all("ADAUSDM")

def test_child(espresso_exchange):
    ids = espresso_exchange.place("ADAUSDM", 2)
    command = [sys.executable, bot.__file__]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == str(ids)

def test_asyncio(espresso_exchange):
    async def main():
        async with espresso.AsyncClient() as client:
            return await client.cancel_all(["ADAUSDM", "NIGHTUSDM"], missing_ok=True)
    espresso_exchange.place("NIGHTUSDM", 1)
    assert [len(it["order_ids"]) for it in asyncio.run(main())] == [0, 1]

def test_a_guarded_bot(espresso_exchange):
    with pytest.raises(ZeroDivisionError), espresso.guard("ADAUSDM", at_start=True):
        espresso_exchange.place("ADAUSDM", 2)
        1 / 0
    assert espresso_exchange.open_orders() == []

def test_own_key_and_undo(espresso_exchange, monkeypatch):
    monkeypatch.setenv("DELTADEFI_API_KEY", "sandbox-other")
    with pytest.raises(espresso.AuthenticationError):
        bot.stop()

@pytest.mark.usefixtures("espresso_exchange")
class TestOfUnittest(unittest.TestCase):
    def test(self):
        self.assertEqual(bot.stop()["order_ids"], [])

def test_after():
    assert os.environ["DELTADEFI_API_KEY"] == "{real}"
    assert not {{"DELTADEFI_BASE_URL", "SSL_CERT_FILE"}} & set(os.environ)
"""


def test_a_bot_is_tested_with_the_fixture(project: pytest.Pytester) -> None:
    project.makepyfile(test_bot=WITH_FIXTURE.format(real=REAL_KEY))
    result = run(project, "-W", "error", plugins=None)
    result.assert_outcomes(passed=9)
    result = run(project, "--fixtures", "-q", "--collect-only", "test_bot.py")
    result.stdout.fnmatch_lines(["espresso_exchange*", "*of this test go there*"])


FAULTY = """
import bot

def test_nothing_is_left_open(espresso_exchange):
    espresso_exchange.place("ADAUSDM", 2)
    espresso_exchange.fault("late_order", after=0)  # one was still on its way
    bot.stop()
    assert espresso_exchange.open_orders("ADAUSDM") == []

def test_trading_is_locked(espresso_exchange):
    espresso_exchange.fault("locked_5002", times=None)
    bot.stop()
"""


def test_a_fault_of_a_bot_is_caught(project: pytest.Pytester) -> None:
    """This bot does not confirm, and does not know what to do with an error."""
    project.makepyfile(test_bot=FAULTY)
    result = run(project, "-l")
    result.assert_outcomes(failed=2)
    result.stdout.re_match_lines(
        [
            r"E +AssertionError: assert \['\w{8}-.*'\] == \[\]",
            r"E +espresso.TradingLockedError: \[5002\] .*\(HTTP 400, ADAUSDM at "
            r"127\.0\.0\.1:\d+, attempt 3 of 3, .*\)",
        ]
    )
    assert REAL_KEY not in result.stdout.str()
    # And once the bot is mended, it passes.
    mended = BOT.replace("missing_ok=True", "confirm=True")
    project.makepyfile(bot=mended)
    run(project, "-k", "left_open").assert_outcomes(passed=1)


def test_what_the_fixture_needs_is_said(project: pytest.Pytester) -> None:
    """As long as the extra is not installed."""
    project.makepyfile(
        h11="raise ModuleNotFoundError('no', name='h11')",
        test_bot="def test(espresso_exchange): pass",
    )
    result = run(project)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        [
            "espresso.sandbox needs h11, which is not installed: "
            'pip install "espresso-deltadefi[[]sandbox]"',
        ]
    )
    result.stdout.no_fnmatch_line("*exception*")


# ---- the live host -------------------------------------------------------------------

FORGOTTEN = """
import asyncio, os, subprocess, sys
from unittest.mock import patch
import espresso, pytest
import bot

def child(*arguments, **env):
    command = [sys.executable, *arguments]
    done = subprocess.run(command, env=os.environ | env, capture_output=True, text=True)
    raise RuntimeError(done.stderr)

def test_one_line():
    bot.stop()

def test_client():
    espresso.Client(base_url=espresso.PREPROD)

def test_asyncio():
    asyncio.run(espresso.AsyncClient().cancel_all("ADAUSDM"))

def test_guard():
    with espresso.guard("ADAUSDM"):
        pass

def test_child():
    child(bot.__file__)

def test_grandchild():
    child("-c", "import subprocess, sys; subprocess.run([sys.executable, 'bot.py'])")

def test_command_line():
    child("-m", "espresso", "cancel-all", "ADAUSDM")

@patch.dict(os.environ, {"DELTADEFI_API_KEY": "key"}, clear=True)
def test_cleared():
    espresso.Client()  # is made, not called: no proxy stands before the world now

def test_deleted(monkeypatch):
    monkeypatch.delenv("ESPRESSO_LOOPBACK_ONLY")
    monkeypatch.setenv("ESPRESSO_LOOPBACK_ONLY", "0")
    bot.stop()

def test_other_host(espresso_exchange):
    espresso.cancel_all("ADAUSDM", base_url="https://elsewhere.example")
"""


def test_nothing_goes_live_without_the_fixture(project: pytest.Pytester) -> None:
    project.makepyfile(test_bot=FORGOTTEN)
    result = run(project, "-l", "--tb=short")
    names = re.findall(r"^def (test_\w+)", FORGOTTEN, re.MULTILINE)
    result.assert_outcomes(failed=len(names))
    found = result.stdout.str()
    parts = re.split(r"^_+ (test_\w+) _+$", found, flags=re.MULTILINE)
    said = dict(zip(parts[1::2], parts[2::2], strict=True))
    assert set(said) == set(names)
    # The command line folds its lines.
    unfolded = {name: " ".join(text.split()) for name, text in said.items()}
    assert [name for name in names if not re.search(BLOCKED, unfolded[name])] == []
    assert REAL_KEY not in found


def test_a_client_made_while_the_bot_is_imported(project: pytest.Pytester) -> None:
    """It would be the live exchange's, whatever fixture came later."""
    project.makepyfile(
        bot="import espresso\nclient = espresso.Client()\n",
        test_bot="import bot\ndef test(espresso_exchange): pass\n",
        conftest="import espresso\n",
    )
    result = run(project)
    result.assert_outcomes(errors=1)
    assert re.search(f"E +espresso.ConfigError: {BLOCKED}", result.stdout.str())


def test_without_a_key_there_is_the_same_advice(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DELTADEFI_API_KEY")
    project.makepyfile(test_bot="import bot\ndef test(): bot.stop()\n")
    result = run(project)
    result.assert_outcomes(failed=1)
    said = f"no API key: set the environment variable .*; {ADVICE}"
    assert re.search(said, result.stdout.str())


def test_live_may_be_allowed(project: pytest.Pytester) -> None:
    """Nothing is called here; that the client can be made is enough."""
    project.makepyfile(
        conftest="import os\nassert 'ESPRESSO_LOOPBACK_ONLY' not in os.environ\n",
        test_bot="""
            import os, espresso
            def test():
                assert "ESPRESSO_LOOPBACK_ONLY" not in os.environ
                assert espresso.Client().base_url == espresso.MAINNET
            def test_with_the_fixture(espresso_exchange):
                assert espresso.Client().base_url == espresso_exchange.url
        """,
    )
    result = run(project, "--espresso-allow-live")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["espresso: tests may call the LIVE exchange*"])
    result = run(project, "--espresso-allow-live", "-n", "1", plugins=f"xdist,{PLUGIN}")
    result.assert_outcomes(passed=2)
    result = run(project, "--help")
    result.stdout.fnmatch_lines(["espresso:", "  --espresso-allow-live"])


# ---- what it must leave alone --------------------------------------------------------


def test_it_loads_next_to_nothing(project: pytest.Pytester) -> None:
    """Not espresso, and so nothing of it that could fail."""
    project.makepyfile(
        espresso="raise ImportError('another one of that name')",
        loaded="import sys\nprint('LOADED', *sys.modules)\n",
        test_it="def test(): pass\n",
    )

    def loaded(plugins: str) -> set[str]:
        result = run(project, plugins=f"{plugins}loaded")
        result.assert_outcomes(passed=1)
        (line,) = (it for it in result.outlines if it.startswith("LOADED"))
        return set(line.split())

    assert loaded(f"{PLUGIN},") - loaded("") == {PLUGIN}


IN_PROCESS = """
import os, sys, warnings
{first}
import pytest
status = pytest.main(["-q", "-W", "error", "-p", "no:cacheprovider"])
import espresso
assert status == 0, status
assert "ESPRESSO_LOOPBACK_ONLY" not in os.environ
assert espresso.Client().base_url == espresso.MAINNET
print("GOOD")
"""


@pytest.mark.parametrize("first", ["", "import espresso"], ids=["after", "before"])
def test_a_process_that_goes_on_is_as_before(
    project: pytest.Pytester, first: str
) -> None:
    """A notebook that runs tests in its kernel, and cancels live orders later.

    Of an installed package with a plugin pytest wants to rewrite all modules, and warns
    of one that is loaded already; the conftest asks for it as if ours were installed.
    """
    project.makepyfile(
        conftest="import pytest\npytest.register_assert_rewrite('espresso')\n",
        test_bot="""
            import os, espresso, pytest
            from unittest.mock import patch
            @patch.dict(os.environ, {"DELTADEFI_API_KEY": "k"}, clear=True)
            def test():
                with pytest.raises(espresso.ConfigError, match="LOOPBACK_ONLY"):
                    espresso.Client()
        """,
        program=IN_PROCESS.format(first=first),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
        patch.setenv("PYTEST_PLUGINS", PLUGIN)
        result = project.run(sys.executable, "program.py")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["GOOD"])


def test_a_conftest_may_name_it(project: pytest.Pytester) -> None:
    """Where no plugin is loaded by itself."""
    project.makeconftest(f"pytest_plugins = ['{PLUGIN}']")
    project.makepyfile(
        test_bot="""
            import os, bot
            def test(espresso_exchange): bot.stop()
            def test_blocked(): assert os.environ["ESPRESSO_LOOPBACK_ONLY"] == "1"
        """
    )
    run(project, plugins="").assert_outcomes(passed=2)


# ---- without pytest ------------------------------------------------------------------


class TestOfUnittest(unittest.TestCase):
    def test(self) -> None:
        exchange = self.enterContext(Exchange(orders={"ADAUSDM": 2}))
        self.enterContext(mock.patch.dict(os.environ, exchange.environment))
        self.assertEqual(len(espresso.cancel_all("ADAUSDM")["order_ids"]), 2)
        with self.assertRaisesRegex(espresso.ConfigError, "LOOPBACK_ONLY"):
            espresso.Client(base_url=espresso.MAINNET)


def test_another_process(clean_env: dict[str, str], tmp_path: Path) -> None:
    with Exchange(orders={"ADAUSDM": 2}) as exchange:
        command = [sys.executable, "-m", "espresso", "cancel-all", "ADAUSDM"]
        env = {**clean_env, "PYTHONPATH": str(ROOT), **exchange.environment}
        subprocess.run(command, env=env, check=True, timeout=60)
        assert exchange.open_orders() == []


def test_the_environment_needs_a_start() -> None:
    with pytest.raises(RuntimeError, match="not started"):
        _ = Exchange().environment
