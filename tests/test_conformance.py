"""The sandbox, the client and the exchange's own words agree.

`espresso/sandbox/openapi.yaml` describes the operation. schemathesis asks the sandbox
what it describes and much that it forbids; every reply that the sandbox plays is held
against it, and so is every request that espresso makes.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openapi_core import OpenAPI
from openapi_core.datatypes import RequestParameters
from openapi_core.exceptions import OpenAPIError

import espresso
from espresso.sandbox import Call, Exchange, replies
from tests.children import ROOT
from tests.described import DOCUMENT, HOST, Answered, Asked
from tests.faces import FACES, Face

PATH = "/order/cancel-all"

# What the gateway or Python's peers send, and no exchange: not described.
NO_ANSWERS = {"200_html", "400_bad_request"}


@pytest.fixture(scope="module")
def described() -> OpenAPI:
    """The document; reading it checks that it is one."""
    return OpenAPI.from_file_path(str(DOCUMENT))


# ---- the document --------------------------------------------------------------------


def unmarked(node: Any, at: str = "") -> Iterator[str]:
    """Servers, responses and schemas that do not say where they are known from."""
    marked = ("responses", "schemas", "securitySchemes")
    for name, value in node.items() if isinstance(node, dict) else enumerate(node):
        if isinstance(value, dict | list):
            parent = at.rpartition("/")[2]
            if parent in (*marked, "servers") and "x-source" not in value:
                yield f"{at}/{name}"
            yield from unmarked(value, f"{at}/{name}")


def test_each_fact_has_its_source(described: OpenAPI) -> None:
    document = described.spec.read_value()
    assert list(unmarked(document)) == []
    del document["paths"][PATH]["post"]["responses"]["429"]["x-source"]
    assert list(unmarked(document)) == [f"/paths/{PATH}/post/responses/429"]


def test_its_hosts_are_those_of_the_client(described: OpenAPI) -> None:
    urls = [server["url"] for server in described.spec.read_value()["servers"]]
    assert urls == [espresso.MAINNET, espresso.PREPROD]


# ---- what the sandbox answers --------------------------------------------------------


@pytest.fixture(scope="module")
def a_call() -> Call:
    """Any good one: an answer is held against what its request may be answered by."""
    with Exchange() as exchange:
        client = espresso.Client(
            exchange.key, base_url=exchange.url, ca_file=exchange.ca_file
        )
        client.cancel_all("ADAUSDM", missing_ok=True)
        client.close()
        return exchange.calls[0]


@pytest.mark.parametrize("name", replies.names())
def test_every_reply_is_described(name: str, described: OpenAPI, a_call: Call) -> None:
    asked, answered = Asked(a_call), Answered(replies.load(name))
    if name in NO_ANSWERS:
        with pytest.raises(OpenAPIError):
            described.validate_response(asked, answered)
    else:
        described.validate_response(asked, answered)


def judge(
    exchange: Exchange, folder: Path, *options: str
) -> subprocess.CompletedProcess[str]:
    """Let schemathesis ask the exchange; the same questions each time."""
    command = [
        sys.executable,
        "-c",
        "from schemathesis.cli import schemathesis as s; s()",
    ]
    command += ["--config-file", str(ROOT / "tests/schemathesis.toml")]
    command += ["run", str(DOCUMENT), "--url", exchange.url, "--no-color"]
    command += ["--tls-verify", exchange.ca_file, "-H", f"X-API-KEY: {exchange.key}"]
    command += ["--generation-deterministic", "--max-examples", "30", *options]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=180
    )


def test_the_sandbox_keeps_to_what_is_described(
    exchange: Exchange, tmp_path: Path
) -> None:
    exchange.place("ADAUSDM")
    exchange.fault("late_order", times=None, after=0)  # there is always one to cancel
    done = judge(exchange, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No issues found" in done.stdout
    seen = Counter(call.status for call in exchange.calls if call.method == "POST")
    assert sum(seen.values()) >= 40
    assert set(seen) == {200, 400, 401, 422}


def test_a_sandbox_that_does_not_is_found(exchange: Exchange, tmp_path: Path) -> None:
    good = replies.load("200_two_orders")
    wrong = good.with_json({"symbol": "ADAUSDM", "order_ids": [1]})
    exchange.reply(wrong.raw, times=None)
    done = judge(exchange, tmp_path, "--phases", "examples")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Response violates schema" in done.stdout


# ---- what espresso asks --------------------------------------------------------------


def check(described: OpenAPI, exchange: Exchange, least: int) -> None:
    calls = exchange.calls
    assert len(calls) >= least
    for call in calls:
        described.validate_request(Asked(call))


@pytest.mark.parametrize("face", FACES, ids=lambda face: face.name)
def test_every_request_of_a_client(
    face: Face, exchange: Exchange, described: OpenAPI
) -> None:
    """Its first attempt, a retry, each round of a confirmed call."""
    exchange.place("ADAUSDM")
    exchange.fault("envoy_503")
    client = face.client(exchange)
    face.press(client, "ADAUSDM", confirm=True)
    check(described, exchange, 3)
    if isinstance(client, espresso.AsyncClient):
        asyncio.run(client.aclose())


def test_every_request_of_a_guard(
    exchange: Exchange, client: espresso.Client, described: OpenAPI
) -> None:
    with client.guard(["ADAUSDM", "NIGHTUSDM"], at_start=True):
        exchange.place("ADAUSDM")
    check(described, exchange, 4)


def test_every_request_of_the_command_line(
    exchange: Exchange, clean_env: dict[str, str], described: OpenAPI
) -> None:
    exchange.place("ADAUSDM")
    command = [sys.executable, "-m", "espresso", "cancel-all", "ADAUSDM", "X.Y_Z-1"]
    env = {**clean_env, "PYTHONPATH": str(ROOT), **exchange.environment}
    subprocess.run(command, env=env, timeout=60, capture_output=True)
    check(described, exchange, 3)


@pytest.mark.parametrize(
    "change",
    [
        {"body": b'{"symbol":5}'},
        {"body": b"{}"},
        {"body": b"symbol=ADAUSDM"},
        {"method": "put"},
        {"path": "/order/cancel", "full_url_pattern": f"{HOST}/order/cancel"},
        {"content_type": "text/plain"},
        {"parameters": RequestParameters()},
    ],
    ids=lambda change: "-".join(change),
)
def test_a_request_that_is_not_described_is_found(
    change: dict[str, Any], described: OpenAPI, a_call: Call
) -> None:
    asked = Asked(a_call)
    described.validate_request(asked)
    vars(asked).update(change)
    with pytest.raises(OpenAPIError):
        described.validate_request(asked)
