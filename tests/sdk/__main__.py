"""Let the SDK of build/venv-sdk cancel on a sandbox, and say what became of it.

Exit status 1 if anything was not as on the live exchange.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from openapi_core import OpenAPI

from espresso.sandbox import Call, Exchange
from tests.children import ROOT
from tests.conftest import cleaned
from tests.described import DOCUMENT, Asked

PYTHON = ROOT / "build/venv-sdk/bin/python"
CHILD = Path(__file__).with_name("child.py")


def answers(exchange: Exchange) -> list[dict[str, Any]]:
    """What the SDK made of each of its calls."""
    env = cleaned() | {
        "DELTADEFI_API_KEY": exchange.key,
        "REQUESTS_CA_BUNDLE": exchange.ca_file,
        "PYTHONPATH": str(CHILD.parent),
    }
    done = subprocess.run(
        [PYTHON, CHILD, exchange.url], env=env, capture_output=True, text=True
    )
    if done.returncode != 0:
        sys.exit(f"the SDK does not run here:\n{done.stderr}")
    # It prints words of its own, too.
    return [json.loads(line) for line in done.stdout.splitlines() if line[:2] == '{"']


def complaints(
    ids: list[str], told: list[dict[str, Any]], exchange: Exchange
) -> list[str]:
    """What is not as it should be."""
    found = []
    if told[0].get("result") != {"symbol": "ADAUSDM", "order_ids": ids}:
        found.append(f"the first cancel: {told[0]}")
    for number, name in ((1, "nothing open"), (2, "a wrong key")):
        if "error" not in told[number]:
            found.append(f"{name}: {told[number]}")
    if exchange.open_orders():
        found.append("orders are left open")
    if [call.status for call in exchange.calls] != [200, 400, 401]:
        found.append(f"answers: {[call.status for call in exchange.calls]}")
    return found + [it for call in exchange.calls for it in undescribed(call)]


def undescribed(call: Call) -> list[str]:
    """Whether our document describes what the SDK sends."""
    asked = Asked(call, key="sandbox-of-nobody")
    errors = OpenAPI.from_file_path(str(DOCUMENT)).iter_request_errors(asked)
    return [f"not described: {error}" for error in errors]


def main() -> None:
    with Exchange(rate=None) as exchange:
        ids = exchange.place("ADAUSDM", 3)
        told = answers(exchange)
        for line in told:
            print(f"the SDK: {json.dumps(line)}")
        found = complaints(ids, told, exchange)
    print("\n".join(found) or "the exchange's SDK cancels on the sandbox")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
