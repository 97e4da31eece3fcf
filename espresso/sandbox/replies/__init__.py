"""Raw answers of the exchange, one real case a file: the one set of them.

Each ``<status>_<case>.http`` beside this module holds the bytes of one whole
HTTP/1.1 answer: a head with CRLF line ends, an empty line, the body, and a
``Content-Length`` that fits.  The sandbox serves these files, the C tests read
them, and so may any test: a new fact from production is one new file.

Statuses and bodies were seen on the live server where wire.md says [field], and
follow the published specification [spec] elsewhere; the headers are what its Go
server and its Envoy gateway usually send.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

__all__ = ["Reply", "load", "names"]

_FOLDER = Path(__file__).parent
_END_OF_HEAD = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Reply:
    """The bytes of one answer, and copies of it with a part exchanged."""

    raw: bytes

    @property
    def status(self) -> int:
        """The HTTP status of the first line.

        Raises ValueError if the bytes do not begin with a status line.
        """
        version, _, rest = self.raw.partition(b" ")
        if not version.startswith(b"HTTP/") or not rest[:3].isdigit():
            raise ValueError(f"not an HTTP answer: {self.raw[:40]!r}")
        return int(rest[:3])

    @property
    def head(self) -> bytes:
        """Status line and headers, with the empty line that ends them."""
        head, end, _ = self.raw.partition(_END_OF_HEAD)
        return head + end

    @property
    def body(self) -> bytes:
        """All that follows the head."""
        return self.raw.partition(_END_OF_HEAD)[2]

    def with_header(self, name: str, value: str) -> Reply:
        """This answer with one header set: replaced in its place, or appended."""
        lines = self.head.removesuffix(_END_OF_HEAD).split(b"\r\n")
        mark = name.lower().encode() + b":"
        at = next((i for i, x in enumerate(lines) if x.lower().startswith(mark)), None)
        line = name.encode() + b": " + value.encode()
        if at is None:
            lines.append(line)
        else:
            lines[at] = lines[at][: len(name)] + line[len(name) :]
        return Reply(b"\r\n".join(lines) + _END_OF_HEAD + self.body)

    def with_json(self, document: Mapping[str, object]) -> Reply:
        """This answer with another JSON body and the Content-Length it needs."""
        body = json.dumps(document, separators=(",", ":")).encode()
        sized = self.with_header("Content-Length", str(len(body)))
        return Reply(sized.head + body)


def names() -> tuple[str, ...]:
    """The names of all replies, sorted: ``"200_two_orders"`` and so on."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.http")))


@cache
def load(name: str) -> Reply:
    """The reply of that name, with or without ``.http``.

    Raises ValueError that lists the names if there is none.
    """
    stem = name.removesuffix(".http")
    if stem not in names():
        raise ValueError(f"no reply {name!r}; there are: {', '.join(names())}")
    return Reply((_FOLDER / f"{stem}.http").read_bytes())
