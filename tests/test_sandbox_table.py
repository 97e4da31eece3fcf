"""An exchange as a notebook shows it."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from espresso.sandbox import Exchange
from tests.test_sandbox import ask, cancel, connect

TAGS = {"div", "p", "b", "table", "caption", "thead", "tbody", "tr", "th", "td"}


class Tables(HTMLParser):
    """The tables of a page, each a list of rows of texts; what else stands there."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.words: list[str] = []
        self.tags: set[str] = set()
        self._at = ""
        self._rows: list[list[str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self._at = tag
        if tag == "table":
            self._rows = []
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self._at = ""

    def handle_data(self, data: str) -> None:
        if self._at in ("td", "th"):
            self._rows[-1][-1] += data
        elif self._at == "caption":
            self.tables[data] = self._rows
        else:
            self.words.append(data)


def short(ids: list[str]) -> str:
    return ", ".join(f"{it[:8]}…" for it in ids)


def shown(exchange: Exchange) -> Tables:
    return Tables(exchange._repr_html_())


def test_a_notebook_shows_orders_faults_and_calls(exchange: Exchange) -> None:
    ids = exchange.place("ADAUSDM", 2)
    cancel(exchange, "ADAUSDM")
    more = exchange.place("NIGHTUSDM", 5)
    exchange.fault("envoy_503", times=2, reason="refused")
    exchange.fault("hang", times=None)
    exchange.fault("tls_hang")
    other = exchange.new_key()
    exchange.place("IAGUSDM", key=other)
    exchange.reply("200_html")
    page = shown(exchange)
    assert list(page.tables) == ["Open orders: 6", "Armed faults: 4", "Calls: 1"]
    orders, faults, calls = page.tables.values()
    assert orders == [
        ["symbol", "account", "orders", "ids, oldest first"],
        ["NIGHTUSDM", "1", "5", f"{short(more[:3])} and 2 more"],
        ["IAGUSDM", "2", "1", short(exchange.open_orders(key=other))],
    ]
    assert faults[1:] == [
        ["envoy_503", "calls", "2", "reason='refused'"],
        ["hang", "calls", "until cleared", ""],
        ["reply", "calls", "1", ""],
        ["tls_hang", "connections", "1", ""],
    ]
    assert [calls[1][0], *calls[1][2:]] == [
        *("1", "POST /order/cancel-all", "ADAUSDM", "1", "", "200"),
        short(ids),
    ]
    assert re.fullmatch(r"\d\d:\d\d:\d\d", calls[1][1])


def test_a_notebook_shows_the_last_calls(exchange: Exchange) -> None:
    for n in range(12):
        exchange.place(f"S{n}")
        cancel(exchange, f"S{n}")
        exchange.place(f"T{n}")
    page = shown(exchange)
    assert list(page.tables) == [
        "Open orders: 12; the first 10 of 12 rows",
        "Calls: 12; the last 10",
    ]
    calls = page.tables["Calls: 12; the last 10"]
    assert [row[0] for row in calls[1:]] == [str(n) for n in range(3, 13)]
    assert [row[3] for row in calls[1:]] == [f"S{n}" for n in range(2, 12)]
    assert "Armed faults: 0" in page.words


def test_a_notebook_shows_an_exchange_in_each_state() -> None:
    exchange = Exchange(orders={"ADAUSDM": 1})
    assert ", not started" in shown(exchange).words
    with exchange:
        assert f", {exchange.url}" in shown(exchange).words
    assert ", closed" in shown(exchange).words
    assert "Open orders: 1" in shown(exchange).tables


def test_a_notebook_shows_no_key_and_no_markup_of_others(exchange: Exchange) -> None:
    """Of what comes from outside nothing is believed; a real key is not even kept."""
    real = "0123456789abcdef" * 2
    evil = "<script>alert('&')</script>"
    exchange.place(evil)
    exchange.place(exchange.key)
    exchange.fault("slow", seconds=0.0)
    cancel(exchange, evil)
    cancel(exchange, exchange.key)
    cancel(exchange, "ADAUSDM", key=real)
    connection = connect(exchange)
    ask(connection, exchange.key, b"", "GET", f"/{'x' * 80}{exchange.key}<b>")
    connection.close()
    exchange.place(evil)
    text = exchange._repr_html_()
    page = Tables(text)
    assert page.tags <= TAGS
    assert exchange.key not in text
    assert exchange.key[:20] not in text
    assert real not in text
    assert page.tables["Open orders: 1"][1][0] == evil
    calls = page.tables["Calls: 4"]
    assert [row[3] for row in calls[1:]] == [evil, "(a key)", "ADAUSDM", ""]
    assert [row[4] for row in calls[1:]] == ["1", "1", "unknown", "1"]
    assert max(len(cell) for row in calls for cell in row) <= 130
