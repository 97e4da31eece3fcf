"""The table of mutants fits the source, and the script that tries them sees.

`make mutants` breaks the guards one by one; here is only what keeps the table honest.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from scripts import mutants
from scripts.mutants import Edit, Mutant, TableError, Tree

TABLE = mutants.load()
LEAST = 25


def test_there_are_enough_and_each_has_a_name() -> None:
    names = [mutant.name for mutant in TABLE]
    assert len(set(names)) == len(names) >= LEAST
    assert all(mutant.edits and mutant.tests for mutant in TABLE)


@pytest.mark.parametrize("mutant", TABLE, ids=[mutant.name for mutant in TABLE])
def test_it_applies_to_the_source(mutant: Mutant) -> None:
    for name, text in mutant.apply(mutants.ROOT).items():
        assert text != (mutants.ROOT / name).read_text("utf-8")


@pytest.mark.parametrize("mutant", TABLE, ids=[mutant.name for mutant in TABLE])
def test_its_tests_are_there_the_fastest_first(mutant: Mutant) -> None:
    kinds = [mutants.is_c_program(test) for test in mutant.tests]
    assert kinds == sorted(kinds, reverse=True)
    assert mutant.is_c or not any(kinds)
    for test in mutant.tests:
        for one in test.split():
            assert exists(one), one


def exists(test: str) -> bool:
    """Whether there is such a C program, file of tests, or test."""
    if mutants.is_c_program(test):
        return (mutants.ROOT / "tests" / f"{test}.c").exists()
    name, _, function = test.partition("::")
    path = mutants.ROOT / name
    if not path.exists():
        return False
    wanted = rf"^(?:async )?def {re.escape(function)}\(" if function else r"^"
    return re.search(wanted, path.read_text("utf-8"), re.MULTILINE) is not None


def test_what_is_not_there_is_missed() -> None:
    assert exists("c/test_json")
    for test in ("c/test_none", "tests/test_none.py", "tests/test_mutants.py::test_no"):
        assert not exists(test)


# ---- the script ----------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "x = 2\n", "x = 1\nx = 1\n"])
def test_an_edit_applies_once_or_not_at_all(text: str) -> None:
    with pytest.raises(TableError, match=r"a\.py"):
        Edit("a.py", "x = 1", "x = 3").apply(text)


def test_an_edit_of_no_file_or_of_nothing_does_not_apply(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\n")
    for edit in (Edit("b.py", "x = 1", "x = 3"), Edit("a.py", "x = 1", "x = 1")):
        with pytest.raises(TableError):
            Mutant("none", (edit,), ("a",)).apply(tmp_path)


def test_two_edits_of_one_file_both_count(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\ny = 1\n")
    edits = (Edit("a.py", "x = 1", "x = 2"), Edit("a.py", "y = 1", "y = 2"))
    assert Mutant("both", edits, ("a",)).apply(tmp_path) == {"a.py": "x = 2\ny = 2\n"}


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    """A tree with a guard and a test that looks at half of it."""
    root = tmp_path / "root"
    root.mkdir()
    (root / "guard.py").write_text("def check(n):\n    return 0 < n <= 64\n")
    test = "import guard\n\ndef test_it():\n    assert not guard.check(65)\n"
    (root / "test_guard.py").write_text(test)
    (root / "pytest.ini").write_text("[pytest]\npythonpath = .\n")
    monkeypatch.setattr(mutants, "ROOT", root)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    return Tree(tmp_path / "tree")


def test_it_tells_the_killed_from_those_that_survive(toy: Tree) -> None:
    def mutant(old: str, new: str) -> Mutant:
        return Mutant(old, (Edit("guard.py", old, new),), ("test_guard.py",))

    assert toy.verdict("test_guard.py") == ""
    is_killed, line = mutants.judge(toy, mutant("<= 64", "<= 640"))
    assert is_killed and line.endswith("test_guard.py::test_it")
    is_killed, line = mutants.judge(toy, mutant("0 < n", "0 <= n"))
    assert not is_killed and line.endswith("SURVIVED")
    text = (toy.folder / "guard.py").read_text()
    assert text == (mutants.ROOT / "guard.py").read_text()  # all is as before
    assert not list(toy.folder.rglob("*.pyc"))  # none is taken for the next one's


def test_what_does_not_compile_is_not_killed(toy: Tree) -> None:
    for root in (mutants.ROOT, toy.folder):
        (root / "src").mkdir()
        (root / "src" / "a.c").write_text("int one(void);\n")
    (toy.folder / "Makefile").write_text(
        "build/c/test_a: FORCE\n\t$(CC) -fsyntax-only src/a.c\nFORCE:\n"
    )
    broken = Mutant("no C", (Edit("src/a.c", "int", "in t"),), ("c/test_a",))
    is_killed, line = mutants.judge(toy, broken)
    assert not is_killed
    assert "DOES NOT COMPILE" in line and "src/a.c" in line
