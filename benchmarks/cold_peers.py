"""A cold process to the first reply: espresso and its peers, side by side.

Each peer has the shortest program in which it makes one call over verified TLS, as its
user would write it, with the roots it is given: a hashed directory, or a bundle.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.cold import Build, stores_in
from benchmarks.figures import Bar, Figure, Report, difference, ratio
from benchmarks.program import BARE, Program, measure, modules
from benchmarks.setting import Setting
from benchmarks.worker import SDK_STAND_IN

PATH = "/order/cancel-all"
BODY = 'b\'{"symbol":"ADAUSDM"}\''
HEADERS = "{'X-API-KEY': 'sandbox-bench', 'Content-Type': 'application/json'}"
WHEEL_LIMITS = {"pycurl": 0.6, "requests": 0.3}  # of their process, with a bundle
KINDS = ("hashed", "bundle")  # of trust stores
SHARE = 3  # one process of a peer for so many of espresso's
CONTEXT = "ssl.create_default_context(TRUST_HERE)"


@dataclass(frozen=True)
class Peer:
    """What a peer's user imports, and the rest of the program.

    Attributes:
        before: what must be run before the import.
        variable: of the environment, where roots can be named only there.
        directory, bundle: how the roots are named; "": such a one is not taken.
    """

    imports: str
    code: str
    directory: str = "PATH_HERE"
    bundle: str = "PATH_HERE"
    before: str = ""
    variable: str = ""


IN_CONTEXT = {"directory": "capath=PATH_HERE", "bundle": "cafile=PATH_HERE"}
WITH_BODY = f"data={BODY}, headers={HEADERS}, verify=TRUST_HERE).json())"
PEERS = {
    "urllib": Peer(
        "urllib.request",
        "import json, ssl;"
        f"q = urllib.request.Request(URL_HERE, data={BODY}, headers={HEADERS});"
        f"print(json.load(urllib.request.urlopen(q, context={CONTEXT})))",
        **IN_CONTEXT,
    ),
    "http.client": Peer(
        "http.client",
        "import json, ssl;"
        f"c = http.client.HTTPSConnection(HOST_HERE, context={CONTEXT});"
        f"c.request('POST', {PATH!r}, {BODY}, {HEADERS});"
        "print(json.load(c.getresponse()))",
        **IN_CONTEXT,
    ),
    "pycurl": Peer(
        "pycurl",
        "import io, json; b = io.BytesIO(); c = pycurl.Curl();"
        f"h = [': '.join(p) for p in {HEADERS}.items()];"
        "c.setopt(c.URL, URL_HERE); c.setopt(TRUST_HERE);"
        f"c.setopt(c.POSTFIELDS, {BODY}); c.setopt(c.HTTPHEADER, h);"
        "c.setopt(c.WRITEDATA, b); c.perform(); print(json.loads(b.getvalue()))",
        "c.CAPATH, PATH_HERE",
        "c.CAINFO, PATH_HERE",
    ),
    "urllib3": Peer(
        "urllib3",
        f"c = urllib3.PoolManager(TRUST_HERE); r = c.request('POST', URL_HERE,"
        f" body={BODY}, headers={HEADERS}); print(r.json())",
        "ca_cert_dir=PATH_HERE",
        "ca_certs=PATH_HERE",
    ),
    "requests": Peer("requests", f"print(requests.post(URL_HERE, {WITH_BODY}"),
    "niquests": Peer("niquests", f"print(niquests.post(URL_HERE, {WITH_BODY}"),
    "httpx": Peer(
        "httpx",
        f"import ssl; print(httpx.post(URL_HERE, content={BODY}, headers={HEADERS},"
        f" verify={CONTEXT}).json())",
        **IN_CONTEXT,
    ),
    "aiohttp": Peer(
        "aiohttp",
        "import asyncio, ssl\n"
        "async def main():\n"
        f"    async with aiohttp.ClientSession(headers={HEADERS}) as session:\n"
        f"        call = session.post(URL_HERE, data={BODY}, ssl={CONTEXT})\n"
        "        async with call as reply: print(await reply.json())\n"
        "asyncio.run(main())",
        **IN_CONTEXT,
    ),
    "curl_cffi": Peer(
        "curl_cffi.requests",
        f"print(curl_cffi.requests.post(URL_HERE, {WITH_BODY}",
        directory="",
    ),
    "deltadefi": Peer(
        "deltadefi",
        "print(deltadefi.ApiClient(network='mainnet', api_key='sandbox-bench',"
        " base_url=BASE_HERE).cancel_all_orders('ADAUSDM'))",
        before=f"import sys; sys.path.insert(0, {str(SDK_STAND_IN)!r});",
        variable="REQUESTS_CA_BUNDLE",
    ),
}


def words_in(text: str, words: Mapping[str, str]) -> str:
    for word, value in words.items():
        text = text.replace(f"{word}_HERE", value)
    return text


def code_of(name: str, base_url: str, store: os.PathLike[str]) -> str | None:
    """Return the program of a peer's call, with the roots at ``store``, a hashed
    directory or a file; None: the peer does not take such a one."""
    peer = PEERS[name]
    trust = peer.directory if os.path.isdir(store) else peer.bundle
    words = {
        "TRUST": trust,
        "PATH": repr(os.fspath(store)),
        "URL": repr(base_url + PATH),
        "BASE": repr(base_url),
        "HOST": repr(base_url.partition("//")[2]),
    }
    code = words_in(f"{peer.before}import {peer.imports}\n{peer.code}", words)
    return code if trust else None


def python_of(name: str, setting: Setting) -> str:
    return setting.sdk if name == "deltadefi" else setting.peers


def calling(name: str, setting: Setting, store: os.PathLike[str]) -> Program | None:
    """The whole program of a peer's call."""
    code = code_of(name, setting.server.base_url, store)
    environment = setting.environment
    if variable := PEERS[name].variable:
        environment = environment | {variable: os.fspath(store)}
    python = python_of(name, setting)
    return Program(code, environment, python=python) if code else None


def importing(name: str, setting: Setting) -> Program:
    """Its import alone."""
    peer = PEERS[name]
    code = f"{peer.before}import {peer.imports}"
    return Program(code, setting.environment, python=python_of(name, setting))


def added(name: str, program: Program) -> list[str]:
    """The modules that its import adds."""
    peer = PEERS[name]
    return modules(
        peer.imports, program.python, program.environment, before=peer.before
    )


class Peers:
    """Whole processes of espresso and of its peers, and the peers' imports."""

    title = "cold_peers"

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        stores = dict(zip(KINDS, stores_in(setting), strict=True))
        self._bare = Program(BARE, setting.environment, python=setting.peers)
        self._imports = {name: importing(name, setting) for name in PEERS}
        self._whole: dict[str, dict[str, Program]] = {kind: {} for kind in KINDS}
        for said, python in setting.builds.items():
            build = Build(setting, python, *stores.values())
            self._whole["hashed"][f"espresso{said}"] = build.whole_hashed
            self._whole["bundle"][f"espresso{said}"] = build.whole_bundle
        for kind, store in stores.items():
            for name in PEERS:
                if program := calling(name, setting, store):
                    self._whole[kind][name] = program

    def measure(self) -> None:
        whole = [it for programs in self._whole.values() for it in programs.values()]
        rounds = max(2, self._setting.processes // SHARE)
        programs = [self._bare, *self._imports.values(), *whole]
        measure(programs, rounds, self._setting.peers)

    def report(self) -> Report:
        bare = self._bare.samples
        lines = [
            "cold process to the first reply, import: median [quartiles]",
            f"  {'':20}{'hashed roots, ms':>22}{'x bare':>18}{'a bundle, ms':>22}"
            f"{'x bare':>18}{'import adds, ms':>22}{'modules':>9}",
        ]
        figures: dict[str, object] = {}
        for name in self._whole["bundle"]:
            found: dict[str, Figure | int] = {}
            for kind, programs in self._whole.items():
                if name in programs:
                    samples = programs[name].samples
                    found[f"{kind}_seconds"] = Figure.of(samples)
                    found[f"{kind}_ratio"] = ratio(samples, bare)
            if imported := self._imports.get(name):
                found["import_adds_seconds"] = difference(imported.samples, bare)
                found["import_adds_modules"] = len(added(name, imported))
            figures[name] = found
            lines.append(f"  {name:20}{peer_columns(found)}")
        return lines, figures, self._bars()

    def _bars(self) -> list[Bar]:
        programs = self._whole["bundle"]
        ours = programs.get("espresso, wheel")
        bars = []
        for name, limit in WHEEL_LIMITS.items():
            share = ratio(ours.samples, programs[name].samples).median if ours else None
            title = f"start to first reply, wheel, a bundle / {name}"
            bars.append(Bar(title, share, limit, "x"))
        return bars


def peer_columns(found: Mapping[str, Figure | int]) -> str:
    """Figures of one client; a dash where it has none."""
    text = ""
    for name, factor, digits, width in (
        ("hashed_seconds", 1e3, 1, 22),
        ("hashed_ratio", 1.0, 2, 18),
        ("bundle_seconds", 1e3, 1, 22),
        ("bundle_ratio", 1.0, 2, 18),
        ("import_adds_seconds", 1e3, 1, 22),
    ):
        figure = found.get(name)
        shown = figure.text(factor, digits) if isinstance(figure, Figure) else "-"
        text += f"{shown:>{width}}"
    return f"{text}{found.get('import_adds_modules', '-'):>9}"
