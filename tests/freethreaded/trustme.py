"""trustme for a Python that cryptography has no build for: the one in .venv does it.

The free-threaded build of 3.13 is such a Python. With this folder on its path the
sandbox and the tests get their certificates, real ones, from a second process: the
interpreter of ``.venv``, which has trustme itself. Only what they use is here.
"""

from __future__ import annotations

import atexit
import json
import os
import ssl
import subprocess
import tempfile
import threading
from datetime import datetime
from pathlib import Path

_PYTHON = Path(__file__).resolve().parents[2] / ".venv/bin/python"

# A question a line: the authority's certificate and key, if it is to sign something,
# and for which hosts. The answer: the same two, and what was signed.
_HELPER = """
import datetime, json, sys, trustme
for line in sys.stdin:
    asked = json.loads(line)
    given = map(str.encode, asked["ca"])
    ca = trustme.CA.from_pem(*given) if asked["ca"] else trustme.CA()
    leaf, until = "", asked["until"]
    if asked["hosts"]:
        until = until and datetime.datetime.fromisoformat(until)
        made = ca.issue_cert(*asked["hosts"], not_after=until)
        leaf = made.private_key_and_cert_chain_pem.bytes().decode()
    pems = [ca.cert_pem.bytes().decode(), ca.private_key_pem.bytes().decode(), leaf]
    print(json.dumps(pems), flush=True)
"""

_lock = threading.Lock()
_helper: subprocess.Popen[str] | None = None


def _ask(**question: object) -> list[str]:
    global _helper
    with _lock:
        if _helper is None:
            _helper = subprocess.Popen(
                [_PYTHON, "-I", "-c", _HELPER],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            atexit.register(_end, _helper, os.getpid())
        assert _helper.stdin is not None
        assert _helper.stdout is not None
        print(json.dumps(question), file=_helper.stdin, flush=True)
        pems: list[str] = json.loads(_helper.stdout.readline())
        return pems


def _end(helper: subprocess.Popen[str], owner: int) -> None:
    if os.getpid() == owner:  # a forked child would wait for its parent's
        helper.communicate()  # the end of its input ends it


class Blob:
    """PEM text."""

    def __init__(self, pem: str) -> None:
        self._pem = pem.encode()

    def bytes(self) -> bytes:
        return self._pem

    def write_to_path(self, path: str) -> None:
        Path(path).write_bytes(self._pem)


class LeafCert:
    """A certificate with its key."""

    def __init__(self, pem: str) -> None:
        self.private_key_and_cert_chain_pem = Blob(pem)

    def configure_cert(self, context: ssl.SSLContext) -> None:
        with tempfile.NamedTemporaryFile(suffix=".pem") as file:
            file.write(self.private_key_and_cert_chain_pem.bytes())
            file.flush()
            context.load_cert_chain(file.name)


class CA:
    """A throw-away authority."""

    def __init__(self) -> None:
        certificate, key, _ = _ask(ca=[], hosts=[], until=None)
        self.cert_pem = Blob(certificate)
        self.private_key_pem = Blob(key)

    def issue_cert(self, *hosts: str, not_after: datetime | None = None) -> LeafCert:
        own = [self.cert_pem.bytes().decode(), self.private_key_pem.bytes().decode()]
        until = not_after.isoformat() if not_after else None
        return LeafCert(_ask(ca=own, hosts=hosts, until=until)[2])
