"""docs/reliability.md and the command that measures its figures."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

from scripts import reliability
from tests.children import ROOT

DOCUMENT = (ROOT / "docs/reliability.md").read_text()
PROOF = re.compile(r"`(tests/[\w/]+\.(?:py|c))(?:::(\w+))?`")


def functions(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def missing_proofs(text: str) -> list[str]:
    """Tests that a text names and that are not there."""
    return [
        f"{name}::{test}"
        for name, test in PROOF.findall(text)
        if not (ROOT / name).exists() or (test and test not in functions(ROOT / name))
    ]


def test_each_promise_has_a_proof_that_exists() -> None:
    rows = re.findall(r"^\| P(\d+) \|.*\|(.*)\|$", DOCUMENT, re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, len(rows) + 1))
    assert all(PROOF.search(proof) for _, proof in rows)
    assert missing_proofs(DOCUMENT) == []


def test_a_proof_that_is_not_there_is_found() -> None:
    assert missing_proofs("`tests/test_tls.py::test_a_file` `tests/x.py::test_y`") == [
        "tests/x.py::test_y"
    ]


@pytest.mark.parametrize("column", [reliability.LANDING, reliability.RELEASE])
def test_the_document_has_every_figure_and_none_is_missed(
    column: reliability.Column,
) -> None:
    table = DOCUMENT.partition(column.begin)[2].partition(column.end)[0]
    rows = re.findall(r"^\| (.*?) \| (.*?) \| (.*?) \| (.*?) \|$", table, re.MULTILINE)
    stated = {what: (bar, reached, verdict) for what, bar, reached, verdict in rows}
    for figure in column.figures:
        bar, reached, verdict = stated[figure.what]
        assert bar == figure.bar
        assert reached
        assert verdict == "held" or (
            column is reliability.RELEASE
            and f"| {figure.what} | {bar} | {reached} | {verdict} |"
            == reliability.not_run(figure)
        )


def figure(program: str, pattern: str) -> reliability.Figure:
    command = (sys.executable, "-c", program)
    return reliability.Figure(
        "name", "what", "bar", (command,), reliability.said(pattern)
    )


@pytest.fixture(autouse=True)
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reliability, "LOGS", tmp_path)


@pytest.mark.parametrize(
    ("program", "reached", "is_held"),
    [
        ("print('4 of 4 rows')", "4 of 4 rows", True),
        ("print('3 of 4 rows'); raise SystemExit(1)", "3 of 4 rows", False),
        ("print('nothing was measured')", "", False),
    ],
)
def test_a_figure_is_held(program: str, reached: str, is_held: bool) -> None:
    """By a command that ends well and says how much it did."""
    reading = reliability.measure(figure(program, r"^(\d of \d rows)"), 30)
    assert (reading.reached, reading.is_held) == (reached, is_held)
    assert (reliability.LOGS / "name.log").read_text()


def test_what_hangs_is_ended() -> None:
    program = "print(1, flush=True); import time; time.sleep(60)"
    reading = reliability.measure(figure(program, r"^(1)"), 0.5)
    assert not reading.is_held
    assert reading.seconds < 30


def test_numbers_are_added_up() -> None:
    reached = reliability.total(r"^ok ([\d,]+)", "runs")
    assert reached("ok 1,900\nok 200\n") == "2,100 runs"
    assert reached("") == ""


def test_a_row_is_made_anew_and_the_others_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    column = reliability.LANDING
    page = tmp_path / "page.md"
    page.write_text(f"before\n{column.begin}\n{column.end}\nafter\n")
    monkeypatch.setattr(reliability, "DOCUMENT", page)
    first, second = column.figures[:2]
    for figure, reached in ((second, "2"), (first, "1"), (second, "3")):
        reading = reliability.Reading(figure, reached, True, 1.0)
        reliability.document([reading], column)
    rows = re.findall(r"^\| (.*?) \| .* \| (.*) \| (.*) \|$", page.read_text(), re.M)
    assert rows[1:4] == [
        (first.what, "1", "held"),
        (second.what, "3", "held"),
        (column.figures[2].what, "-", "not run yet"),
    ]
    assert len(rows) == 1 + len(column.figures)
    assert page.read_text().startswith("before\n")
    assert page.read_text().endswith("after\n")
