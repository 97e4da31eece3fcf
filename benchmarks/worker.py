"""One client in a process of its own, commanded over pipes.

``python worker.py CLIENT BASE_URL CA_FILE``. Each line on stdin is a number of calls
to make. The answer is one line: CPU seconds of this process per call (user and
system, all its threads), and the median seconds of a call.

Every client sends the same request, on one connection kept open, and reads the ids
of the reply.
"""

import importlib
import io
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

PATH = "/order/cancel-all"
BODY = b'{"symbol":"ADAUSDM"}'
HEADERS = {
    "Content-Type": "application/json",
    "X-API-KEY": "sandbox-bench",
    "User-Agent": "espresso-deltadefi/bench",
}
IDS = 2  # in every reply of the server

# Makes one call and returns the ids of the reply.
Call = Callable[[], list[str]]


def espresso(base_url: str, ca_file: str) -> Call:
    module: Any = importlib.import_module("espresso")
    client = module.Client("sandbox-bench", base_url=base_url, ca_file=ca_file)

    def call() -> list[str]:
        ids: list[str] = client.cancel_all("ADAUSDM")["order_ids"]
        return ids

    return call


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


CLIENTS: dict[str, Callable[[str, str], Call]] = {
    "espresso": espresso,
    "pycurl": pycurl,
    "requests": requests,
    "httpx": httpx,
}


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def run(call: Call, calls: int) -> tuple[float, float]:
    """Make the calls; return CPU seconds per call and the median seconds."""
    times = []
    cpu = cpu_seconds()
    for _ in range(calls):
        start = time.perf_counter()
        ids = call()
        times.append(time.perf_counter() - start)
        if len(ids) != IDS:
            raise SystemExit(f"not the answer that was expected: {ids}")
    return (cpu_seconds() - cpu) / calls, statistics.median(times)


def main() -> None:
    name, base_url, ca_file = sys.argv[1:]
    call = CLIENTS[name](base_url, ca_file)
    for line in sys.stdin:
        cpu, median = run(call, int(line))
        print(f"{cpu:.9f} {median:.9f}", flush=True)


if __name__ == "__main__":
    main()
