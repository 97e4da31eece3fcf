"""One client in a process of its own, commanded over pipes.

``python worker.py CLIENT BASE_URL CA_FILE``. Each line on stdin is a number of calls
to make. The answer is one line: CPU seconds of this process per call (user and
system, all its threads), and the median seconds of a call.

Every client sends the same request, on one connection kept open, and reads the ids
of the reply. ``CLIENT/LOOP`` names an asynchronous one and the event loop that it runs
on, asyncio or uvloop: one call after the other there, too. A list of N symbols counts
as N calls.
"""

import importlib
import io
import json
import resource
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    asynccontextmanager,
    contextmanager,
    nullcontext,
)
from typing import Any

PATH = "/order/cancel-all"
BODY = b'{"symbol":"ADAUSDM"}'
HEADERS = {
    "Content-Type": "application/json",
    "X-API-KEY": "sandbox-bench",
    "User-Agent": "espresso-deltadefi/bench",
}
IDS = 2  # in every reply of the server

LISTS = "/lists"  # where a reply names no symbol, and so fits every one

# Makes one call and returns the ids of the reply, or of each reply.
Call = Callable[[], list[str]]
AsyncCall = Callable[[], Awaitable[list[str]]]
AsyncMaker = AbstractAsyncContextManager[AsyncCall]
# Makes so many calls; CPU seconds of one and the median of all.
Measure = Callable[[int], tuple[float, float]]


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


def requests(base_url: str, ca_file: str) -> Call:
    module: Any = importlib.import_module("requests")
    session = module.Session()
    session.verify = ca_file
    session.headers.update(HEADERS)

    def call() -> list[str]:
        ids: list[str] = session.post(base_url + PATH, data=BODY).json()["order_ids"]
        return ids

    return call


def httpx(base_url: str, ca_file: str) -> Call:
    module: Any = importlib.import_module("httpx")
    ssl: Any = importlib.import_module("ssl")
    context = ssl.create_default_context(cafile=ca_file)
    session = module.Client(verify=context, headers=HEADERS, base_url=base_url)

    def call() -> list[str]:
        ids: list[str] = session.post(PATH, content=BODY).json()["order_ids"]
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
    "requests": requests,
    "httpx": httpx,
}


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def check(ids: list[str], symbols: int) -> None:
    if len(ids) != symbols * IDS:
        raise SystemExit(f"not the answer that was expected: {ids}")


def run(call: Call, calls: int, symbols: int) -> tuple[float, float]:
    """Make the calls; return CPU seconds per symbol and the median seconds."""
    times = []
    cpu = cpu_seconds()
    for _ in range(calls):
        start = time.perf_counter()
        ids = call()
        times.append(time.perf_counter() - start)
        check(ids, symbols)
    return (cpu_seconds() - cpu) / (calls * symbols), statistics.median(times)


async def run_async(call: AsyncCall, calls: int, symbols: int) -> tuple[float, float]:
    """The same on the running loop."""
    times = []
    cpu = cpu_seconds()
    for _ in range(calls):
        start = time.perf_counter()
        ids = await call()
        times.append(time.perf_counter() - start)
        check(ids, symbols)
    return (cpu_seconds() - cpu) / (calls * symbols), statistics.median(times)


def blocking(name: str, symbols: int, base_url: str, ca_file: str) -> Measure:
    call = (
        espresso_list(base_url, ca_file, symbols)
        if symbols
        else CLIENTS[name](base_url, ca_file)
    )
    return lambda calls: run(call, calls, symbols or 1)


@contextmanager
def on_loop(
    loop_name: str, name: str, symbols: int, base_url: str, ca_file: str
) -> Iterator[Measure]:
    # Not for the others: asyncio loads logging, and who has that is told more.
    asyncio: Any = importlib.import_module("asyncio")
    module: Any = importlib.import_module(loop_name)
    maker = (
        espresso_async_list(base_url, ca_file, symbols)
        if symbols
        else ASYNC_CLIENTS[name](base_url, ca_file)
    )
    with asyncio.Runner(loop_factory=module.new_event_loop) as runner:
        call = runner.run(maker.__aenter__())
        yield lambda calls: runner.run(run_async(call, calls, symbols or 1))
        runner.run(maker.__aexit__(None, None, None))


def main() -> None:
    """``CLIENT`` or ``CLIENT/LOOP``, and ``:N`` after it for a list."""
    words, base_url, ca_file = sys.argv[1:]
    words, _, count = words.partition(":")
    name, _, loop_name = words.partition("/")
    symbols = int(count or 0)
    manager = (
        on_loop(loop_name, name, symbols, base_url, ca_file)
        if loop_name
        else nullcontext(blocking(name, symbols, base_url, ca_file))
    )
    with manager as measure:
        for line in sys.stdin:
            cpu, median = measure(int(line))
            print(f"{cpu:.9f} {median:.9f}", flush=True)


if __name__ == "__main__":
    main()
