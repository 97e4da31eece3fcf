"""What the documents show is run; what they state is compared with the code."""

from __future__ import annotations

import ast
import doctest
import importlib.util
import inspect
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
from sybil import Document, Example
from sybil.example import SybilFailure

import espresso
from benchmarks import page
from benchmarks.figures import Bar
from espresso import errors, sandbox
from espresso.sandbox import FAULTS, Exchange
from tests.documents import (
    PYTHON,
    ROOT,
    SHELL,
    Block,
    blocks,
    enter,
    examples,
    pages,
    parse_blocks,
    rows_under,
    run,
    text_of,
    unquoted,
)

README = text_of("README.md")

# Run by tests/test_readme.py, with more than one shell, a keyboard, or a fresh machine.
COMMANDS = [block.code for block in blocks("README.md", *SHELL)]
HERE_TOO = ("espresso cancel-all",)


def is_elsewhere(name: str, block: Block) -> bool:
    """Whether it is one of README.md's own, or the very same on another page."""
    is_known = block.language in SHELL and block.code in COMMANDS
    return is_known and (name == "README.md" or not block.code.startswith(HERE_TOO))


EXAMPLES = {
    f"{name}:{example.line}": example
    for name in pages()
    for example in examples(name)
    if not is_elsewhere(name, example.parsed)
}


@pytest.fixture(scope="module")
def shared_exchange() -> Iterator[Exchange]:
    with Exchange(rate=None) as running:
        yield running


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES.keys())
def test_block(
    example: Example,
    shared_exchange: Exchange,
    clean_env: dict[str, str],
    tmp_path: Path,
) -> None:
    if example.parsed.skipped:
        pytest.skip(example.parsed.skipped)
    example.document.namespace.update(
        exchange=shared_exchange, env=clean_env, folder=tmp_path
    )
    example.evaluate()


# ---- the rules for blocks ------------------------------------------------------------

# The blocks that are not run, and why; there is hardly ever a reason.
NOT_RUN: dict[str, list[str]] = {}


@pytest.mark.parametrize("name", pages())
def test_every_block_is_run_or_says_why_not(name: str) -> None:
    found = [example.parsed for example in examples(name)]
    languages = {block.language for block in found if not block.skipped}
    assert languages <= {*PYTHON, *SHELL}, (
        "a block that shows something else is skipped"
    )
    assert [it.skipped for it in found if it.skipped] == NOT_RUN.get(name, [])


def test_pages_of_rest_have_no_code() -> None:
    for path in sorted(ROOT.glob("docs/**/*.rst")):
        text = path.read_text(encoding="utf-8")
        assert re.search(r"::\n\n {3}|code-block|>>>", _without_fields(text)) is None


def _without_fields(text: str) -> str:
    """Without directives that have a text of their own but show no code."""
    return re.sub(r"^\.\. (?:py|c|auto)[\w:]*::.*\n", "", text, flags=re.MULTILINE)


def evaluated(text: str, exchange: Exchange, env: dict[str, str], folder: Path) -> None:
    document = Document(text, "page.md")
    for region in parse_blocks(document):
        document.add(region)
    document.namespace.update(exchange=exchange, env=env, folder=folder)
    for example in document.examples():
        example.evaluate()


PRESS = 'import espresso\nprint(espresso.cancel_all("ADAUSDM")["symbol"])\n'


@pytest.mark.parametrize(
    "text",
    [
        f"```python\n{PRESS}```\n\n```text\nADAUSDM\n```\n",
        "```sh\nespresso --help >/dev/null\n```\n",
        "```python\nprint(\"{'order_ids': [1]}\")\n```\n",
        '<!-- exchange: fault("envoy_503") -->\n\n```python\nimport espresso\n'
        'print(espresso.cancel_all("ADAUSDM", max_retries=1)["symbol"])\n```\n\n'
        "```text\nADAUSDM\n```\n",
        "- In a list:\n\n  ```sh\n  echo 1\n  ```\n\n  ```text\n  1\n  ```\n",
        "```python\ndef test_it():\n    assert True\n```\n\n```text\n.   [100%]\n"
        "1 passed in 0.01s\n```\n",
    ],
)
def test_good_block(
    text: str, shared_exchange: Exchange, clean_env: dict[str, str], tmp_path: Path
) -> None:
    evaluated(text, shared_exchange, clean_env, tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        f"```python\n{PRESS}```\n\n```text\nNIGHTUSDM\n```\n",
        "```python\nprint(1)\n```\n",
        "```python\nraise SystemExit(1)\n```\n",
        "```sh\nfalse\n```\n",
        "```sh\necho 1\n```\n\n```text\n2\n```\n",
        '<!-- exchange: fault("403_empty") -->\n\n```python\nimport espresso\n'
        'espresso.cancel_all("ADAUSDM")\n```\n',
        "```python\ndef test_it():\n    assert False\n```\n",
        "```ini\n[Unit]\n```\n",
        "Some text.\n\n```text\nOf no block.\n```\n",
    ],
)
def test_bad_block(
    text: str, shared_exchange: Exchange, clean_env: dict[str, str], tmp_path: Path
) -> None:
    with pytest.raises((AssertionError, SybilFailure)):
        evaluated(text, shared_exchange, clean_env, tmp_path)


# ---- the guides say what the code does -----------------------------------------------

GUIDE = text_of("docs/errors.md")
SECTION = re.compile(
    r"^### (?P<name>\w+Error)\n\nOutcome: (?P<outcome>.*?)\. "
    r"Tried again: (?P<again>.*?)\.$",
    re.MULTILINE,
)


def sections() -> dict[str, re.Match[str]]:
    return {found["name"]: found for found in SECTION.finditer(GUIDE)}


def test_errors_guide_has_every_class() -> None:
    headings = re.findall(r"^### (\w+)$", GUIDE, re.MULTILINE)
    assert len(headings) == len(set(headings))
    assert set(headings) == set(sections()) == set(errors.__all__)


def test_errors_guide_says_the_outcomes_of_the_readme() -> None:
    rows = rows_under(README, "| exception | `outcome`")
    assert rows
    for name, outcomes, *_ in rows:
        told = re.findall(r"`(\w+)`", sections()[unquoted(name)]["outcome"])
        assert set(told) == set(outcomes.split(" or "))


def test_errors_guide_says_what_the_classes_say() -> None:
    for name, found in sections().items():
        kind = getattr(espresso, name)
        if name == "PartialCancelError":
            continue
        assert kind.outcome in re.findall(r"`(\w+)`", found["outcome"])
        assert found["again"] == ("yes" if kind.retryable else "no")


def test_errors_guide_shows_each_in_code() -> None:
    """A block names each class, but for those that are never raised themselves."""
    code = "".join(block.code for block in blocks("docs/errors.md", "python"))
    shown = set(re.findall(r"espresso\.(\w+Error)", code)) | {"RequestTimeoutError"}
    assert set(errors.__all__) - shown == {"TransportError"}


@pytest.mark.parametrize("first", ["| exit status | your orders"])
def test_table_that_is_the_readmes(first: str) -> None:
    assert rows_under(text_of("docs/cli.md"), first) == rows_under(README, first)


def test_tables_of_the_guard_are_the_readmes() -> None:
    guide = text_of("docs/guard.md")
    wanted = rows_under(README, "| the guard's option |")
    assert rows_under(guide, "| option | default |") == wanted


def test_options_of_the_command_line(clean_env: dict[str, str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "espresso", "cancel-all", "--help"]
    printed = run(command, {**clean_env, "PYTHONPATH": str(ROOT)}, tmp_path)
    exists = set(re.findall(r"^  (?:-\w, )?(--[a-z-]+)", printed, re.MULTILINE))
    rows = rows_under(text_of("docs/cli.md"), "| option | |")
    stated = {name for row in rows for name in re.findall(r"--[a-z-]+", row[0])}
    assert stated == exists - {"--help"}


def test_table_of_event_fields() -> None:
    rows = rows_under(text_of("docs/watching.md"), "| field | |")
    stated = [unquoted(row[0]) for row in rows]
    assert sorted(stated) == sorted(field.name for field in fields(espresso.Event))


def test_table_of_faults() -> None:
    """Names, parameters, and whether the cancel is carried out, as the classes say."""
    rows = rows_under(text_of("docs/testing.md"), "| fault | cancel carried out |")
    assert [unquoted(row[0]) for row in rows] == list(FAULTS)
    for name, carried, what in rows:
        kind = FAULTS[unquoted(name)]
        words = f"{carried} {what}"
        for field in fields(kind):
            assert re.search(rf"`{field.name}\b", words), f"{name}: {field.name}"
        says = inspect.getdoc(kind) or ""
        if says.startswith("Not carried out unless"):
            assert carried == "only with `carry_out=True`"
        elif says.startswith(("Not carried out", "The new connection")):
            assert carried == "no"
        elif says.startswith("Carried out for"):
            assert carried.startswith("for the oldest")
        else:
            assert says.startswith("Carried out")
            assert carried == "yes"


# ---- the reference has everything ----------------------------------------------------


def documented(page: str) -> list[str]:
    found = re.findall(
        r"^\.\. (?:auto\w+|py:data):: espresso\.(?:sandbox\.)?(\w+)(?:\(\))?$",
        text_of(page),
        re.MULTILINE,
    )
    return [str(name) for name in found]


def test_reference_has_every_public_name() -> None:
    assert sorted(documented("docs/api/python.rst")) == sorted(espresso.__all__)


def test_reference_of_the_sandbox_has_every_public_name() -> None:
    names = set(sandbox.__all__) - {"replies"}
    assert set(documented("docs/api/sandbox.rst")) == names


@pytest.fixture(scope="module")
def header() -> str:
    """The C header as the reference is made of it."""
    spec = importlib.util.spec_from_file_location(
        "c_header", ROOT / "docs/_ext/c_header.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return str(module.converted(text_of("src/core/espresso.h")))


def code_alone(text: str) -> str:
    return " ".join(re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL).split())


def test_copy_of_the_header_declares_the_same(header: str) -> None:
    assert code_alone(header) == code_alone(text_of("src/core/espresso.h"))


def test_all_that_the_header_declares_is_in_the_reference(header: str) -> None:
    """Hawkmoth leaves out what has no comment in front of it."""
    assert len(re.findall(r"^[\w *]*\besp_\w+\(", header, re.MULTILINE)) > 40
    bare = re.findall(
        r"(?<!\*/\n)^(?:(?:struct|enum|const|int|int64_t|void|bool)\b[\w *]*\besp_\w+"
        r"|#define ESP_).*$",
        header,
        re.MULTILINE,
    )
    assert bare == []


def test_program_of_the_header_compiles(tmp_path: Path) -> None:
    text = text_of("src/core/espresso.h")
    lines = re.findall(r"^ \*     (.*)$", text, re.MULTILINE)
    program = "\n".join(lines).replace("{ ... }", "{ return 0; }")
    assert "esp_cancel_all(" in program
    source = tmp_path / "program.c"
    source.write_text(
        '#include "espresso.h"\nint main(void)\n{\n'
        f'const char *key = "k";\n{program}\nreturn 1;\n}}\n'
    )
    warnings = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-fsyntax-only"]
    subprocess.run(["cc", *warnings, f"-I{ROOT / 'src/core'}", source], check=True)


# ---- code in docstrings, which the reference shows -----------------------------------


def docstrings() -> dict[str, str]:
    """Of the package, of all public names, and of the public methods of each."""
    found = {"espresso": espresso.__doc__ or "", "sandbox": sandbox.__doc__ or ""}
    public = {name: getattr(espresso, name) for name in espresso.__all__}
    public |= {name: getattr(sandbox, name) for name in sandbox.__all__}
    for name, thing in public.items():
        if not isinstance(thing, str | dict):
            found[name] = inspect.getdoc(thing) or ""
        if inspect.isclass(thing):
            members = [it for it in dir(thing) if not it.startswith("_")]
            docs = {it: inspect.getdoc(getattr(thing, it)) or "" for it in members}
            found |= {f"{name}.{it}": doc for it, doc in docs.items()}
    return found


SESSIONS = {name: text for name, text in docstrings().items() if ">>>" in text}


@pytest.fixture
def in_sandbox(
    exchange: Exchange, clean_env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    enter(monkeypatch, exchange, clean_env)


@pytest.mark.usefixtures("in_sandbox")
@pytest.mark.parametrize("name", SESSIONS)
def test_session_in_a_docstring(name: str, exchange: Exchange) -> None:
    exchange.place("ADAUSDM", 2)
    exchange.place("NIGHTUSDM", 1)
    names: dict[str, object] = {"espresso": espresso}
    for example in doctest.DocTestParser().get_examples(SESSIONS[name]):
        if example.source.startswith("import"):
            continue
        got = f"{eval(example.source, names)}\n"
        # Ids differ, and those shown are cut short.
        want = example.want.replace("550e8400-...", "...")
        assert doctest.OutputChecker().check_output(want, got, doctest.ELLIPSIS), got


def code_of(docstring: str) -> list[str]:
    """The blocks that stand below ``::``."""
    found = re.findall(r"::\n\n((?: {4}.*\n|\n)+)", f"{inspect.cleandoc(docstring)}\n")
    return [textwrap.dedent(block) for block in found]


def test_code_in_docstrings(exchange: Exchange) -> None:
    """Each block compiles; those of the sandbox, which are whole, are run."""
    shown = {name: code_of(text) for name, text in docstrings().items()}
    assert {"sandbox", "Exchange", "Guard"} <= {
        it for it, code in shown.items() if code
    }
    for name, codes in shown.items():
        for code in codes:
            flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
            program = compile(code, name, "exec", flags)
            if "Exchange(" in code:
                exec(program, {"espresso": espresso, "Exchange": Exchange})


# ---- figures -------------------------------------------------------------------------


def test_figures_are_put_into_the_page(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text(f"before\n{page.BEGIN}\nof before\n{page.END}\nafter\n")
    bars = [Bar("a warm call", 1.1, 1.25, "×"), Bar("a cold one", 9.0, 3.0, "ms")]
    machine = {"python": "3.11", "system": "Linux", "cpus": 2, "server": "nginx"}
    page.write(bars, machine, path)
    text = path.read_text()
    assert text.startswith("before\n") and text.endswith("after\n")
    assert "of before" not in text
    assert "| a warm call | 1.10 × | 1.25 × | held |" in text
    assert "| a cold one | 9.00 ms | 3.00 ms | NOT HELD |" in text
    path.write_text("no place")
    with pytest.raises(ValueError, match="no place for figures"):
        page.write(bars, machine, path)


def test_page_has_figures_of_a_run() -> None:
    text = text_of("docs/performance.md")
    table = text[text.index(page.BEGIN) : text.index(page.END)]
    assert rows_under(table, "| figure | reached")
