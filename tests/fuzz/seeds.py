"""What the fuzzers begin with, made from the raw replies when it is needed.

A seed of ``reply`` and ``wire`` is three bytes that say how the answer comes, and the
bytes of one answer; the other targets take apart what their file comments say.
"""

import struct
from pathlib import Path

from espresso.sandbox import replies

TARGETS = ("reply", "wire", "press", "policy", "arguments")

PLAIN = bytes(3)
# The last byte of `wire`: so many bytes of the answer come when the call has ended.
LATE = bytes([0, 0, 40])
ENDED_LATE = bytes([2, 7, 0])
ENDED_EARLY = bytes([1, 0, 0])

SYMBOL, KEY, REQUEST, BASE_URL, PROXY, TIMEOUT = range(6)
URLS = (
    "https://api.deltadefi.io",
    "https://api.deltadefi.io:8443/gate/way/",
    "http://localhost:8080",
    "http://127.0.0.1/",
    "https://[2001:db8::1]:443",
    "http://[::1]:65535/x",
    "http://api.deltadefi.io",
    "https://127.1",
    "https://user:pw@host",
    "https://0x7f000001",
)
PROXIES = (
    "http://proxy:3128",
    "socks5h://user:pass%2Fword@127.0.0.1:1080",
    "proxy.example:3128",
    "http://user:%0d%0a@host",
)


def in_chunks(answer: replies.Reply, size: int = 9) -> bytes:
    """The same answer with its body in chunks."""
    lines = answer.head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    kept = [line for line in lines if not line.lower().startswith(b"content-length:")]
    head = b"\r\n".join([*kept, b"Transfer-Encoding: chunked"]) + b"\r\n\r\n"
    pieces = [answer.body[i : i + size] for i in range(0, len(answer.body), size)]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return head + chunks + b"0\r\n\r\n"


def answers() -> dict[str, bytes]:
    """Every raw reply as it is, and a few in other clothes."""
    found = {name: replies.load(name).raw for name in replies.names()}
    good = replies.load("200_two_orders")
    found["chunked"] = in_chunks(good)
    found["continue"] = b"HTTP/1.1 100 Continue\r\n\r\n" + good.raw
    found["twice"] = good.raw + good.raw
    found["cut"] = good.raw[:-20]
    found["closing"] = good.with_header("Connection", "close").raw
    return found


def arguments() -> dict[str, bytes]:
    """One of each kind that is accepted, and some that are not."""
    texts = [
        *((SYMBOL, text) for text in ("ADAUSDM", "ada-usdm.x_1", "ADA/USDM")),
        *((KEY, text) for text in ("sandbox-0123456789abcdef", "a b", "a\r\nb")),
        (REQUEST, "ADAUSDM\0sandbox-0123456789abcdef"),
        *((BASE_URL, text) for text in URLS),
        *((PROXY, text) for text in PROXIES),
    ]
    found = {
        f"text{i}": bytes([kind]) + text.encode()
        for i, (kind, text) in enumerate(texts)
    }
    for seconds in (10.0, 1e-9, 86400.0, 1e300, -1.0):
        found[f"timeout{seconds}"] = bytes([TIMEOUT]) + struct.pack("<d", seconds)
    return found


def policies() -> dict[str, bytes]:
    """An outcome of each kind, in the middle of a call."""
    return {
        f"retry{retry}": struct.pack(
            "<BBIHHiIIII", retry, retry, 3, 0, 3, 9000, 40, 7, 0, 10000
        )
        for retry in range(4)
    }


def presses() -> dict[str, bytes]:
    """One symbol or more than start at once, plain or confirmed, with an end of each
    kind (`press.c`, `events`)."""
    found = {}
    for flags in range(32):
        for count in (0, 2, 12):
            head = struct.pack("<BBBIH", count, flags, 3, 20000, 0)
            # random, trouble, how long, what: see lane_start and play of press.c
            body = b"".join(
                struct.pack("<HBHB", i, i % 5, i * 37, (i + flags) % 18)
                for i in range(60)
            )
            found[f"press{flags}-{count}"] = head + body
    return found


def seeds(target: str) -> dict[str, bytes]:
    """The seeds of `target` by name.

    Raises ValueError if there is no such target.
    """
    if target == "reply":
        return {name: PLAIN + raw for name, raw in answers().items()}
    if target == "wire":
        kinds = {"": PLAIN, "-late": LATE, "-ended": ENDED_LATE, "-cut": ENDED_EARLY}
        return {
            name + kind: how + raw
            for name, raw in answers().items()
            for kind, how in kinds.items()
        }
    makers = {"press": presses, "policy": policies, "arguments": arguments}
    if target not in makers:
        raise ValueError(f"no target {target!r}; there are: {', '.join(TARGETS)}")
    return makers[target]()


def write(target: str, folder: Path) -> list[Path]:
    """Write the seeds of `target` into `folder` (made if need be); their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, content in seeds(target).items():
        paths.append(folder / name)
        paths[-1].write_bytes(content)
    return paths
