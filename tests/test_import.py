"""What ``import espresso`` brings in, what it shows, and how often it may be done."""

from __future__ import annotations

import importlib.resources
import inspect
import json
import pydoc

import pytest

import espresso
from espresso.sandbox import Exchange
from tests.children import PRELUDE, ROOT, default_environment, environment, run

# They cost more than all of espresso, and a panic button must not wait for them.
HEAVY = {
    "asyncio",
    "logging",
    "ssl",
    "json",
    "urllib",
    "http",
    "socket",
    "typing",
    "dataclasses",
}
MOST_MODULES = 12  # more than a bare interpreter has

LATER = ("CancelAllResult", "Event")


def modules_after(program: str, env: dict[str, str]) -> set[str]:
    """The modules of an isolated interpreter that ran `program`."""
    source = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
{program}
print(" ".join(sys.modules))
"""
    return set(run(source, env, flags=["-I"]).check().out.split())


def top(names: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


def test_import_is_light(clean_env: dict[str, str]) -> None:
    bare = modules_after("pass", clean_env)
    added = modules_after("import espresso", clean_env) - bare
    print(sorted(added))
    assert not HEAVY & top(added)
    assert len(added) <= MOST_MODULES


def test_a_call_is_light(exchange: Exchange, clean_env: dict[str, str]) -> None:
    """Neither does a call that succeeds, nor one that the exchange refuses."""
    program = f"""{PRELUDE}
client = connect()
client.warm_up()
client.cancel_all("ADAUSDM")
try:
    client.cancel_all("ADAUSDM")
except espresso.OrderNotFoundError as error:
    str(error)
client.close()
"""
    exchange.place("ADAUSDM")
    env = environment(clean_env, exchange)
    assert not HEAVY & top(modules_after(program, env))


def test_importing_opens_nothing(clean_env: dict[str, str]) -> None:
    program = f"""
import os, sys, threading
sys.path.insert(0, {str(ROOT)!r})
before = len(os.listdir("/dev/fd"))
import espresso
assert len(os.listdir("/dev/fd")) == before
assert threading.active_count() == 1
"""
    run(program, clean_env, flags=["-I"]).check()


@pytest.mark.parametrize("directory", ["/", "."])
def test_import_says_nothing(directory: str, clean_env: dict[str, str]) -> None:
    """Also under -X dev, with every warning an error, twice, and from elsewhere."""
    program = f"""
import os, sys
os.chdir({directory!r})
sys.path.insert(0, {str(ROOT)!r})
import espresso
import espresso as again
assert espresso is again
from espresso import _core, cancel_all
assert cancel_all is espresso.cancel_all is _core.cancel_all
"""
    ended = run(program, clean_env, flags=["-I", "-X", "dev", "-W", "error"]).check()
    assert ended.err == ended.out == ""


def test_import_without_site_and_environment(clean_env: dict[str, str]) -> None:
    program = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import espresso"
    for env in ({}, {"LC_ALL": "C"}, clean_env):
        run(program, env, flags=["-I", "-S"]).check()


def test_all_is_what_there_is() -> None:
    assert len(espresso.__all__) == len(set(espresso.__all__))
    for name in espresso.__all__:
        assert getattr(espresso, name) is not None
    assert set(espresso.__all__) <= set(dir(espresso))
    namespace: dict[str, object] = {}
    exec("from espresso import *", namespace)
    assert set(espresso.__all__) <= set(namespace)


def test_all_holds_every_public_name() -> None:
    """What has no underscore and is no submodule is listed."""
    submodules = {"errors", "sandbox"}
    public = {name for name in vars(espresso) if not name.startswith("_")}
    assert public - submodules - {"TYPE_CHECKING"} <= set(espresso.__all__)


def test_later_types_are_made_when_asked_for(clean_env: dict[str, str]) -> None:
    bare = modules_after("import espresso", clean_env)
    for name in LATER:
        asked = modules_after(f"import espresso; espresso.{name}", clean_env)
        assert asked > bare
        assert getattr(espresso, name) is getattr(espresso, name)
    assert espresso.CancelAllResult.__annotations__
    assert espresso.Event.__module__.partition(".")[0] == "espresso"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'nonsense'"):
        _ = espresso.nonsense
    assert not hasattr(espresso, "__wrapped__")


@pytest.mark.parametrize("name", ["cancel_all_orders", "cancelAll", "cancel_all_order"])
def test_a_habit_is_answered_with_the_verb(name: str) -> None:
    with pytest.raises(AttributeError, match=r"espresso\.cancel_all"):
        getattr(espresso, name)
    assert name not in dir(espresso)


def test_help() -> None:
    text = pydoc.plain(pydoc.render_doc(espresso))
    for word in ("cancel_all", "Client", "OrderNotFoundError", "missing_ok"):
        assert word in text
    for thing in (
        espresso.cancel_all,
        espresso.Client.cancel_all,
        espresso.Client.warm_up,
        espresso.Client.close,
    ):
        assert inspect.getdoc(thing)
        assert "(" in pydoc.plain(pydoc.render_doc(thing))


def test_signatures() -> None:
    def names(thing: object) -> list[str]:
        assert callable(thing)
        return list(inspect.signature(thing).parameters)

    options = ["symbol", "missing_ok", "confirm", "timeout", "max_retries"]
    assert names(espresso.cancel_all) == [*options, "api_key", "base_url"]
    assert names(espresso.Client.cancel_all) == ["self", *options]
    assert names(espresso.Client)[:2] == ["api_key", "base_url"]
    assert names(espresso.Client.warm_up) == names(espresso.Client.close) == ["self"]


def test_it_is_typed() -> None:
    files = importlib.resources.files(espresso)
    assert files.joinpath("py.typed").is_file()
    assert files.joinpath("_core.pyi").is_file()


def test_versions() -> None:
    assert set(espresso.__versions__) == {"espresso", "libcurl", "tls", "cjson"}
    assert espresso.__versions__["espresso"] == espresso.__version__
    libcurl = tuple(map(int, espresso.__versions__["libcurl"].split(".")[:2]))
    assert libcurl >= (7, 87)


def test_the_name_in_a_traceback_is_the_one_that_was_typed(
    exchange: Exchange, clean_env: dict[str, str]
) -> None:
    program = """
import espresso
print(espresso.cancel_all.__module__, espresso.cancel_all.__qualname__)
espresso.cancel_all("ADAUSDM")
"""
    ended = run(program, default_environment(clean_env, exchange))
    assert ended.status == 1
    assert ended.out.split() == ["espresso", "cancel_all"]
    assert "\nespresso.OrderNotFoundError: [4200]" in ended.err
    assert exchange.key not in ended.err


def test_the_first_call_of_a_process(
    exchange: Exchange, clean_env: dict[str, str]
) -> None:
    """The README's line, and nothing but an environment."""
    ids = exchange.place("ADAUSDM", 2)
    program = 'import espresso, json; print(json.dumps(espresso.cancel_all("ADAUSDM")))'
    ended = run(program, default_environment(clean_env, exchange)).check()
    assert json.loads(ended.out) == {"symbol": "ADAUSDM", "order_ids": ids}
