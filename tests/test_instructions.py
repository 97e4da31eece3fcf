"""The count of a warm call's instructions, which may not creep up."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any

import pytest

from benchmarks import instructions
from benchmarks.instructions import Counted
from tests.children import ROOT
from tests.documents import rows_under, text_of

OUTPUT = """\
# callgrind format
positions: line
ob=(1) /lib/libone.so
fl=(1) ???
fn=(1) first
0 100
+3 20
cob=(2) /lib/libtwo.so
cfn=(2) second
calls=2 0
* 5000
-1 3
ob=(2)
fn=(2)
16 7
cfn=(1)
calls=1 +4
+2 900
12 1
summary: 131
"""
RECORD = {**instructions.measured_on(), "ratio": 2.0}


def test_each_library_has_what_it_executes_itself() -> None:
    """What a callee costs is the callee's."""
    found = instructions.spent(iter(OUTPUT.splitlines()))
    assert found == {"libone.so": 123, "libtwo.so": 8}


def counted(ratio: float) -> Counted:
    return Counted({"ours": ratio * 600, "libcurl": ratio * 400}, {"libcurl": 1000.0})


@pytest.mark.parametrize(
    ("ratio", "held", "words"),
    [
        (2.0, True, "recorded 2.000, +0.0%: held"),
        (2.058, True, "+2.9%: held"),
        (2.062, False, "+3.1%: NOT HELD, at most +3%"),
        (1.9, True, "record it with `make instructions WRITE=1`: held"),
    ],
)
def test_verdict(ratio: float, held: bool, words: str) -> None:
    found, said = instructions.verdict(counted(ratio), RECORD)
    assert found == held
    assert said.endswith(words)


@pytest.mark.parametrize("name", ["python", "libcurl"])
def test_record_of_something_else_holds_nothing(name: str) -> None:
    held, said = instructions.verdict(counted(9.0), RECORD | {name: "3.0"})
    assert held and said.endswith(f"the record is of {name} 3.0: not held")


def test_table_leaves_out_what_is_next_to_nothing() -> None:
    rows = instructions.table(
        Counted({"a": 100.0, "b": 2000.0, "c": 49.0}, {"b": 1000.0, "cloop": 60.0})
    )
    assert rows[2:] == [
        "| b | 2,000 | 1,000 |",
        "| a | 100 | 0 |",
        "| cloop | 0 | 60 |",
        "| all | 2,149 | 1,060 |",
    ]


def test_page_says_what_is_recorded() -> None:
    record = json.loads(text_of("benchmarks/instructions.json"))
    rows = rows_under(text_of("docs/performance.md"), "| instructions of a warm call")
    _, ours, theirs = rows[-1]
    assert int(ours.replace(",", "")) == record["espresso"]
    assert int(theirs.replace(",", "")) == record["libcurl loop in C"]


@pytest.fixture
def slower(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that does 2 % of a call more in Python: 3 % and more in all."""
    loop = "for _ in range(150): pass"
    text = instructions.PROGRAM.replace(
        "call = worker", f"def again():\n    {loop}\n    return first()\nfirst = worker"
    ).replace("repeated(call", "repeated(again")
    assert "again" in text
    monkeypatch.setattr(instructions, "PROGRAM", text)


@pytest.mark.slow
@pytest.mark.preload
def test_a_warm_call_has_no_more_instructions_than_recorded() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.instructions"],
        cwd=ROOT,
        text=True,
        capture_output=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"(: held|: not held)$", done.stdout.strip())


@pytest.mark.slow
@pytest.mark.preload
def test_a_few_instructions_more_are_noticed(
    slower: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record: dict[str, Any] = json.loads(instructions.RECORD.read_text())
    if other := instructions.elsewhere(record):
        pytest.skip(f"the record is of {other}")
    monkeypatch.setattr(sys, "argv", ["instructions"])
    assert instructions.main() == 1
    assert "NOT HELD" in capsys.readouterr().out
