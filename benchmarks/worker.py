"""One client in a process of its own, commanded over pipes.

``python worker.py CLIENT BASE_URL CA_FILE``. Each line on stdin is a number of calls
to make, twice. The answer is one line: CPU seconds of this process per call (user and
system, all its threads), of the first half, in which no clock is read; and the seconds
of a call at the median and at the 99th percentile, of the second.

Every client sends the same request, on one connection kept open, and reads the ids
of the reply. What may follow the client's name, in this order:

* ``/LOOP``  the event loop of an asynchronous one, asyncio or uvloop: one call after
  the other there, too
* ``:N``     a list of N symbols, which counts as N calls
* ``@N``     N threads on one client, which share the calls
* ``*N``     N clients, used in turns
"""

import importlib
import io
import itertools
import json
import os
import re
import resource
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    asynccontextmanager,
    contextmanager,
    nullcontext,
)
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

PATH = "/order/cancel-all"
BODY = b'{"symbol":"ADAUSDM"}'
HEADERS = {
    "Content-Type": "application/json",
    "X-API-KEY": "sandbox-bench",
    "User-Agent": "espresso-deltadefi/bench",
    "Accept": "application/json",
}
IDS = 2  # in every reply of the server

LISTS = "/lists"  # where a reply names no symbol, and so fits every one

# Makes one call and returns the ids of the reply, or of each reply.
Call = Callable[[], list[str]]
AsyncCall = Callable[[], Awaitable[list[str]]]
AsyncMaker = AbstractAsyncContextManager[AsyncCall]
# CPU seconds of a call; seconds at the median and at the 99th percentile.
Taken = tuple[float, float, float]
# Makes so many calls.
Measure = Callable[[int], Taken]
SDK_STAND_IN = Path(__file__).resolve().parent.parent / "tests" / "sdk"


def espresso(base_url: str, ca_file: str) -> Call:
    module: Any = importlib.import_module("espresso")
    client = module.Client("sandbox-bench", base_url=base_url, ca_file=ca_file)

    def call() -> list[str]:
        ids: list[str] = client.cancel_all("ADAUSDM")["order_ids"]
        return ids

    return call


def espresso_list(base_url: str, ca_file: str, count: int) -> Call:
    module: Any = importlib.import_module("espresso")
    client = module.Client("sandbox-bench", base_url=base_url + LISTS, ca_file=ca_file)
    symbols = names(count)

    def call() -> list[str]:
        return ids_of(client.cancel_all(symbols))

    return call


def names(count: int) -> list[str]:
    return [f"S{number}USDM" for number in range(count)]


def ids_of(results: list[dict[str, list[str]]]) -> list[str]:
    return [name for result in results for name in result["order_ids"]]


def espresso_in_turns(base_url: str, ca_file: str, count: int) -> Call:
    """As many clients, each with a connection of its own."""
    made = [espresso(base_url, ca_file) for _ in range(count)]
    turn = itertools.cycle(made)
    return lambda: next(turn)()


def pycurl(base_url: str, ca_file: str) -> Call:
    module: Any = importlib.import_module("pycurl")
    easy = module.Curl()
    easy.setopt(module.URL, base_url + PATH)
    easy.setopt(module.CAINFO, ca_file)
    easy.setopt(module.HTTPHEADER, [f"{k}: {v}" for k, v in HEADERS.items()])
    easy.setopt(module.POSTFIELDS, BODY)

    def call() -> list[str]:
        body = io.BytesIO()
        easy.setopt(module.WRITEDATA, body)
        easy.perform()
        ids: list[str] = json.loads(body.getvalue())["order_ids"]
        return ids

    return call


def as_requests(name: str) -> Callable[[str, str], Call]:
    """The maker of a client whose module is used as requests is."""

    def make(base_url: str, ca_file: str) -> Call:
        session: Any = importlib.import_module(name).Session()
        session.verify = ca_file
        session.headers.update(HEADERS)

        def call() -> list[str]:
            reply = session.post(base_url + PATH, data=BODY)
            ids: list[str] = reply.json()["order_ids"]
            return ids

        return call

    return make


def httpx(base_url: str, ca_file: str) -> Call:
    module: Any = importlib.import_module("httpx")
    ssl: Any = importlib.import_module("ssl")
    context = ssl.create_default_context(cafile=ca_file)
    session = module.Client(verify=context, headers=HEADERS, base_url=base_url)

    def call() -> list[str]:
        ids: list[str] = session.post(PATH, content=BODY).json()["order_ids"]
        return ids

    return call


def http_client(base_url: str, ca_file: str) -> Call:
    http: Any = importlib.import_module("http.client")
    ssl: Any = importlib.import_module("ssl")
    context = ssl.create_default_context(cafile=ca_file)
    connection = http.HTTPSConnection(urlsplit(base_url).netloc, context=context)

    def call() -> list[str]:
        connection.request("POST", PATH, BODY, HEADERS)
        with connection.getresponse() as reply:
            ids: list[str] = json.loads(reply.read())["order_ids"]
        return ids

    return call


def urllib3(base_url: str, ca_file: str) -> Call:
    module: Any = importlib.import_module("urllib3")
    pool = module.PoolManager(ca_certs=ca_file, headers=HEADERS)

    def call() -> list[str]:
        reply = pool.request("POST", base_url + PATH, body=BODY)
        ids: list[str] = reply.json()["order_ids"]
        return ids

    return call


def curl_cffi(base_url: str, ca_file: str) -> Call:
    module: Any = importlib.import_module("curl_cffi.requests")
    session = module.Session(verify=ca_file, headers=HEADERS)

    def call() -> list[str]:
        ids: list[str] = session.post(base_url + PATH, data=BODY).json()["order_ids"]
        return ids

    return call


def deltadefi(base_url: str, ca_file: str) -> Call:
    """The exchange's own SDK; its module that signs has no wheel: a stand-in."""
    os.environ["REQUESTS_CA_BUNDLE"] = ca_file
    sys.path.insert(0, str(SDK_STAND_IN))
    # It prints words of its own.
    sys.stdout = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    module: Any = importlib.import_module("deltadefi")
    client = module.ApiClient(
        network="mainnet", api_key=HEADERS["X-API-KEY"], base_url=base_url
    )

    def call() -> list[str]:
        ids: list[str] = client.cancel_all_orders("ADAUSDM")["order_ids"]
        return ids

    return call


# --- on an event loop; the clients are made where a loop runs ---------------------


@asynccontextmanager
async def espresso_async(base_url: str, ca_file: str) -> AsyncIterator[AsyncCall]:
    module: Any = importlib.import_module("espresso")

    async def call() -> list[str]:
        ids: list[str] = (await client.cancel_all("ADAUSDM"))["order_ids"]
        return ids

    async with module.AsyncClient(
        "sandbox-bench", base_url=base_url, ca_file=ca_file
    ) as client:
        yield call


@asynccontextmanager
async def espresso_async_list(
    base_url: str, ca_file: str, count: int
) -> AsyncIterator[AsyncCall]:
    module: Any = importlib.import_module("espresso")
    symbols = names(count)

    async def call() -> list[str]:
        return ids_of(await client.cancel_all(symbols))

    async with module.AsyncClient(
        "sandbox-bench", base_url=base_url + LISTS, ca_file=ca_file
    ) as client:
        yield call


@asynccontextmanager
async def aiohttp(base_url: str, ca_file: str) -> AsyncIterator[AsyncCall]:
    module: Any = importlib.import_module("aiohttp")
    ssl: Any = importlib.import_module("ssl")
    context = ssl.create_default_context(cafile=ca_file)
    connector = module.TCPConnector(ssl=context)

    async def call() -> list[str]:
        async with session.post(base_url + PATH, data=BODY) as reply:
            ids: list[str] = (await reply.json())["order_ids"]
        return ids

    async with module.ClientSession(connector=connector, headers=HEADERS) as session:
        yield call


@asynccontextmanager
async def httpx_async(base_url: str, ca_file: str) -> AsyncIterator[AsyncCall]:
    module: Any = importlib.import_module("httpx")
    ssl: Any = importlib.import_module("ssl")
    context = ssl.create_default_context(cafile=ca_file)

    async def call() -> list[str]:
        reply = await session.post(PATH, content=BODY)
        ids: list[str] = reply.json()["order_ids"]
        return ids

    async with module.AsyncClient(
        verify=context, headers=HEADERS, base_url=base_url
    ) as session:
        yield call


ASYNC_CLIENTS: dict[str, Callable[[str, str], AsyncMaker]] = {
    "espresso": espresso_async,
    "aiohttp": aiohttp,
    "httpx": httpx_async,
}
CLIENTS: dict[str, Callable[[str, str], Call]] = {
    "espresso": espresso,
    "pycurl": pycurl,
    "http.client": http_client,
    "urllib3": urllib3,
    "requests": as_requests("requests"),
    "niquests": as_requests("niquests"),
    "httpx": httpx,
    "curl_cffi": curl_cffi,
    "deltadefi": deltadefi,
}


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def check(ids: list[str], symbols: int) -> None:
    if len(ids) != symbols * IDS:
        raise SystemExit(f"not the answer that was expected: {ids}")


def taken(cpu: float, times: list[float], symbols: int) -> Taken:
    times.sort()
    at = (len(times) // 2, len(times) * 99 // 100)
    return cpu / (len(times) * symbols), times[at[0]], times[at[1]]


def repeated(call: Call, calls: int, symbols: int) -> float:
    """Make the calls; return their CPU seconds, with nothing of a clock in them."""
    ids: list[str] = []
    cpu = cpu_seconds()
    for _ in range(calls):
        ids = call()
    cpu = cpu_seconds() - cpu
    check(ids, symbols)
    return cpu


def timed(call: Call, calls: int, symbols: int, times: list[float]) -> None:
    for _ in range(calls):
        start = time.perf_counter()
        ids = call()
        times.append(time.perf_counter() - start)
        check(ids, symbols)


def run(call: Call, calls: int, symbols: int) -> Taken:
    """Make the calls twice, one after the other: for their CPU, for their times."""
    times: list[float] = []
    cpu = repeated(call, calls, symbols)
    timed(call, calls, symbols, times)
    return taken(cpu, times, symbols)


def run_in_threads(call: Call, calls: int, count: int) -> Taken:
    """Make the calls once, shared by so many threads."""
    times: list[list[float]] = [[] for _ in range(count)]
    threads = [
        threading.Thread(target=timed, args=(call, calls // count, 1, mine))
        for mine in times
    ]
    cpu = cpu_seconds()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    cpu = cpu_seconds() - cpu
    every = [it for mine in times for it in mine]
    if len(every) != calls // count * count:
        raise SystemExit("a thread gave up; its message is above")
    return taken(cpu, every, 1)


async def run_async(call: AsyncCall, calls: int, symbols: int) -> Taken:
    """The same on the running loop."""
    times = []
    ids: list[str] = []
    cpu = cpu_seconds()
    for _ in range(calls):
        ids = await call()
    cpu = cpu_seconds() - cpu
    check(ids, symbols)
    for _ in range(calls):
        start = time.perf_counter()
        ids = await call()
        times.append(time.perf_counter() - start)
        check(ids, symbols)
    return taken(cpu, times, symbols)


class Asked(NamedTuple):
    """What the words of a client mean; a number that is not given is 0."""

    name: str
    loop: str
    symbols: int
    threads: int
    clients: int


def asked(words: str) -> Asked:
    found = re.fullmatch(
        r"([\w.]+)(?:/(\w+))?(?::(\d+))?(?:@(\d+))?(?:\*(\d+))?", words
    )
    if found is None:
        raise SystemExit(f"not a client: {words}")
    name, loop, *numbers = found.groups()
    return Asked(name, loop or "", *(int(number or 0) for number in numbers))


def blocking(what: Asked, base_url: str, ca_file: str) -> Measure:
    if what.symbols:
        call = espresso_list(base_url, ca_file, what.symbols)
    elif what.clients:
        call = espresso_in_turns(base_url, ca_file, what.clients)
    else:
        call = CLIENTS[what.name](base_url, ca_file)
    if what.threads:
        return lambda calls: run_in_threads(call, calls, what.threads)
    return lambda calls: run(call, calls, what.symbols or 1)


@contextmanager
def on_loop(what: Asked, base_url: str, ca_file: str) -> Iterator[Measure]:
    # Not for the others: asyncio loads logging, and who has that is told more.
    asyncio: Any = importlib.import_module("asyncio")
    module: Any = importlib.import_module(what.loop)
    maker = (
        espresso_async_list(base_url, ca_file, what.symbols)
        if what.symbols
        else ASYNC_CLIENTS[what.name](base_url, ca_file)
    )
    with asyncio.Runner(loop_factory=module.new_event_loop) as runner:
        call = runner.run(maker.__aenter__())
        yield lambda calls: runner.run(run_async(call, calls, what.symbols or 1))
        runner.run(maker.__aexit__(None, None, None))


def main() -> None:
    words, base_url, ca_file = sys.argv[1:]
    what = asked(words)
    answers = sys.stdout
    manager = (
        on_loop(what, base_url, ca_file)
        if what.loop
        else nullcontext(blocking(what, base_url, ca_file))
    )
    with manager as measure:
        for line in sys.stdin:
            numbers = measure(int(line))
            print(*(f"{it:.9f}" for it in numbers), file=answers, flush=True)


if __name__ == "__main__":
    main()
