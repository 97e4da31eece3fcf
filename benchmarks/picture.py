"""The picture of README.md: a warm call of each client, CPU and time, as SVG.

Made from the figures of ``benchmarks/results.json`` alone. It stands on the page's own
ground, and a style in it follows the reader's choice of light or dark.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

PICTURE = Path(__file__).resolve().parent.parent / "docs" / "warm-call.svg"
WIDTH, LEFT, RIGHT = 760, 190, 64  # of all; of the names; of the last numbers
TOP, ROW, BAR = 64, 38, 13  # heights, of the legend, of a client, of one bar
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #24292f }
.ours { font-weight: 700 }
.cpu { fill: #0a69c4 }
.p50 { fill: #9fc5ea }
.axis { stroke: #8c959f; stroke-width: 1 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .cpu { fill: #4da3ff }
  .p50 { fill: #2b5b8c }
}
"""


def shown(results: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """Each client with one symbol a call: CPU and p50 in µs, the quickest first."""
    found = {
        name.replace("/", " on "): (
            figures["cpu_seconds"]["median"] * 1e6,
            figures["p50_seconds"]["median"] * 1e6,
        )
        for name, figures in results["warm"].items()
        if ":" not in name
    }
    return dict(sorted(found.items(), key=lambda item: item[1]))


def rows(clients: Mapping[str, tuple[float, float]]) -> list[str]:
    scale = (WIDTH - LEFT - RIGHT) / max(max(both) for both in clients.values())
    lines = []
    for number, (name, both) in enumerate(clients.items()):
        top = TOP + number * ROW
        kind = ' class="ours"' if name.startswith("espresso") else ""
        lines.append(
            f'<text x="{LEFT - 10}" y="{top + BAR + 5}" text-anchor="end"{kind}>'
            f"{escape(name)}</text>"
        )
        for place, (word, value) in enumerate(zip(("cpu", "p50"), both, strict=True)):
            y, width = top + place * (BAR + 1), value * scale
            lines.append(
                f'<rect class="{word}" x="{LEFT}" y="{y}" width="{width:.1f}"'
                f' height="{BAR}" rx="2"/>'
                f'<text x="{LEFT + width + 5:.1f}" y="{y + BAR - 2}">{value:.0f}</text>'
            )
    return lines


def legend() -> list[str]:
    words = (("cpu", LEFT, "CPU, µs"), ("p50", LEFT + 110, "time, median, µs"))
    return [
        f'<text x="{LEFT}" y="20" class="ours">A warm call: one POST over TLS on'
        " loopback (less is better)</text>",
        *(
            f'<rect class="{kind}" x="{x}" y="34" width="{BAR}" height="{BAR}" rx="2"/>'
            f'<text x="{x + BAR + 6}" y="45">{text}</text>'
            for kind, x, text in words
        ),
    ]


def draw(results: Mapping[str, Any]) -> str:
    """Return the picture; raises KeyError where there are no figures of warm calls."""
    clients = shown(results)
    height = TOP + len(clients) * ROW
    described = "; ".join(
        f"{name}: {cpu:.0f} µs CPU, {p50:.0f} µs"
        for name, (cpu, p50) in clients.items()
    )
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}"'
        f' width="{WIDTH}" height="{height}" role="img" aria-labelledby="title desc">',
        '<title id="title">CPU and time of a warm call, by client</title>',
        f'<desc id="desc">{escape(described)}</desc>',
        f"<style>{STYLE}</style>",
        *legend(),
        *rows(clients),
        f'<path class="axis" d="M{LEFT} {TOP - 6}V{height - 4}"/>',
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def write(results: Mapping[str, Any], path: Path = PICTURE) -> None:
    path.write_text(draw(results), encoding="utf-8")
