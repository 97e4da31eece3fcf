"""What the documents are made of, and how what they show is run.

Sybil finds the blocks of code. Each is run on its own, in a process and a folder of its
own, as its reader would who copies it; the text block that follows at once is what it
prints. A comment in front of a block says what its exchange is to do::

    <!-- exchange: place("NIGHTUSDM", 2); fault("envoy_503", times=3) -->

and one that cannot be run says why::

    <!-- skip: next "a file of another program" -->
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from sybil import Document, Example, Region, Sybil
from sybil.parsers.markdown.lexers import (
    DirectiveInHTMLCommentLexer,
    FencedCodeBlockLexer,
)

from espresso.sandbox import Exchange

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 180.0  # seconds; a busy machine builds slowly
PYTHON = ("python", "py")
SHELL = ("sh", "bash", "shell", "console")
OUTPUT = "text"
METHODS = ("place", "fault", "reply", "reset")  # of Exchange, for the comments

UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
# What differs from run to run: ids, the sandbox's address, and times.
VARIABLE = (
    (UUID, "ID"),
    (re.compile(r"127\.0\.0\.1:\d+"), "api.deltadefi.io"),
    (re.compile(r"\b\d+\.\d+ ?(m?s)\b"), r"TIME \1"),
    (re.compile(r" +\[100%\]"), " [100%]"),
    (re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z espresso\[\d+\]"), "WHEN espresso[PID]"),
)


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def pages() -> list[str]:
    """The documents whose blocks are run by the same rules, README.md first."""
    found = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/*.md"))
    return ["README.md", *found]


# ---- the blocks of a document --------------------------------------------------------


@dataclass(frozen=True)
class Block:
    """One block of code, and what stands around it."""

    language: str
    code: str
    output: str | None = None
    """The text block that follows at once: what the code prints."""
    exchange: str = ""
    """What is done to the exchange before: calls of its methods."""
    skipped: str = ""
    """Why it is not run."""


def _is_next(document: Document, first: Region, second: Region) -> bool:
    """Whether nothing stands between the two; Sybil leaves out a comment's end."""
    between = document.text[first.end : second.start]
    return not between.removeprefix("-->").strip()


def parse_blocks(document: Document) -> Iterator[Region]:
    """A parser for Sybil: a region for each block, with its `Block`."""
    lexers = (
        FencedCodeBlockLexer(r"\w+"),
        DirectiveInHTMLCommentLexer("exchange"),
        DirectiveInHTMLCommentLexer("skip"),
    )
    found = (region for lexer in lexers for region in lexer(document))
    regions = sorted(found, key=lambda region: region.start)
    for at, region in enumerate(regions):
        if "language" not in region.lexemes:
            continue
        before = list(_directives(document, regions[:at], region))
        after = regions[at + 1] if at + 1 < len(regions) else None
        if after is not None and not _is_next(document, region, after):
            after = None
        if region.lexemes["language"] == OUTPUT and _is_output(document, regions, at):
            continue
        block = Block(
            region.lexemes["language"],
            textwrap.dedent(region.lexemes["source"]),
            _output(after),
            _argument(before, "exchange"),
            _argument(before, "skip"),
        )
        yield Region(region.start, region.end, block, evaluate)


def _directives(
    document: Document, before: Sequence[Region], region: Region
) -> Iterator[Region]:
    """The comments directly in front of a block."""
    for one in reversed(before):
        if "directive" not in one.lexemes or not _is_next(document, one, region):
            break
        yield one
        region = one


def _argument(directives: Iterable[Region], name: str) -> str:
    found = [one.lexemes for one in directives if one.lexemes["directive"] == name]
    words = "; ".join(one["arguments"].strip() for one in found)
    return words.removeprefix("next").strip().strip('"')


def _output(after: Region | None) -> str | None:
    if after is None or after.lexemes.get("language") != OUTPUT:
        return None
    return textwrap.dedent(after.lexemes["source"])


def _is_output(document: Document, regions: Sequence[Region], at: int) -> bool:
    if at == 0:
        return False
    before = regions[at - 1]
    runs = before.lexemes.get("language") in (*PYTHON, *SHELL)
    return runs and _is_next(document, before, regions[at])


SYBIL = Sybil([parse_blocks], path=str(ROOT), patterns=["*.md"])


def examples(name: str) -> list[Example]:
    """The blocks of one document, as Sybil's examples."""
    return list(SYBIL.parse(ROOT / name).examples())


def blocks(name: str, *languages: str) -> list[Block]:
    """The blocks of one document in these languages, in their order."""
    found = [example.parsed for example in examples(name)]
    return [block for block in found if block.language in languages]


# ---- tables --------------------------------------------------------------------------


def rows_under(text: str, first_cells: str) -> list[list[str]]:
    """The body of the one table whose head begins with these cells."""
    lines = text.splitlines()
    (start,) = (i for i, line in enumerate(lines) if line.startswith(first_cells))
    body = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        body.append([cell.strip() for cell in line.strip("|").split("|")])
    return body


def unquoted(cell: str) -> str:
    return cell.strip('`"')


# ---- how it is run -------------------------------------------------------------------


def run(
    command: Sequence[str | Path],
    env: Mapping[str, str],
    folder: Path,
    given: str = "",
) -> str:
    """Run a command to its end, which must be a good one; what it printed."""
    done = subprocess.run(
        command,
        env=dict(env),
        cwd=folder,
        input=given,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def bash(script: str) -> list[str]:
    return ["bash", "-euc", script]


def environment_of(exchange: Exchange, base: Mapping[str, str]) -> dict[str, str]:
    """The environment in which a user's program meets the sandbox."""
    return {
        **base,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), base["PATH"]]),
        "PYTHONPATH": str(ROOT),
        **exchange.environment,
    }


def enter(
    patch: pytest.MonkeyPatch, exchange: Exchange, base: Mapping[str, str]
) -> None:
    """Have this process in that environment."""
    for name, value in environment_of(exchange, base).items():
        patch.setenv(name, value)


def same_but_variable(text: str) -> str:
    for pattern, word in VARIABLE:
        text = pattern.sub(word, text)
    return text.rstrip()


def prepare(exchange: Exchange, calls: str) -> None:
    """One open order, and what the comment in front of the block asks for."""
    exchange.reset()
    exchange.place("ADAUSDM", 1)
    names = {name: getattr(exchange, name) for name in METHODS}
    exec(compile(calls, "<exchange>", "exec"), names)


def evaluate(example: Example) -> str | None:
    """Run a block, in the world that the namespace of its document has.

    Returns what is wrong, as Sybil wants it; None if nothing is.
    """
    block: Block = example.parsed
    world = example.document.namespace
    exchange, folder = world["exchange"], world["folder"]
    prepare(exchange, block.exchange)
    printed = run(
        _command(block, folder), environment_of(exchange, world["env"]), folder
    )
    if block.output is None:
        # A block that shows nothing prints nothing, or the dict that is shown above.
        is_fine = not printed or is_test(block) or "'order_ids': [" in printed
        return None if is_fine else f"it prints, and no text block says so:\n{printed}"
    wanted, found = same_but_variable(block.output), same_but_variable(printed)
    return None if wanted == found else f"it is to print\n{wanted}\nbut prints\n{found}"


def is_test(block: Block) -> bool:
    """Whether it is a file of tests, for pytest."""
    return re.search(r"^def test_", block.code, re.MULTILINE) is not None


def _command(block: Block, folder: Path) -> list[str | Path]:
    if block.language in SHELL:
        return [*bash(block.code)]
    program = folder / ("test_bot.py" if is_test(block) else "bot.py")
    program.write_text(block.code, encoding="utf-8")
    if is_test(block):
        options = ["-q", "--no-header", "-p", "no:cacheprovider", "--rootdir", "."]
        return [sys.executable, "-m", "pytest", *options, program.name]
    return [sys.executable, program.name]
