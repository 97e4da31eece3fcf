"""Calls and answers of the sandbox, as openapi-core holds them against our document."""

from __future__ import annotations

from openapi_core.datatypes import RequestParameters

import espresso
from espresso.sandbox import Call
from espresso.sandbox.replies import Reply
from tests.children import ROOT

DOCUMENT = ROOT / "espresso/sandbox/openapi.yaml"
HOST = espresso.MAINNET


class Asked:
    """A request.

    key: what it came with, where that was no key of the sandbox's
    """

    def __init__(self, call: Call, key: str | None = None) -> None:
        self.host_url = HOST
        self.path = call.path
        self.full_url_pattern = HOST + call.path
        self.method = call.method.lower()
        self.content_type = call.headers.get("content-type", "")
        self.body = call.body
        # The sandbox keeps the key apart from the other headers.
        key = call.key or key
        keys = {} if key is None else {"X-API-KEY": key}
        self.parameters = RequestParameters(header={**call.headers, **keys})


class Answered:
    """An answer."""

    def __init__(self, reply: Reply) -> None:
        lines = reply.head.decode().splitlines()[1:]
        pairs = [line.partition(": ") for line in lines if line]
        self.status_code = reply.status
        self.headers = {name.lower(): value for name, _, value in pairs}
        self.content_type = self.headers.get("content-type", "")
        self.data = reply.body
