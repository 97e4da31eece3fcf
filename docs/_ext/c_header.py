"""A copy of src/core/espresso.h whose comments hawkmoth takes for documentation.

The header is written to be read as it is: plain comments, those of a member to the
right of it. Hawkmoth wants ``/**``, in front. The copy is made anew by each build, in
``build/docs-header``; nothing is compiled from it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
HEADER = ROOT / "src" / "core" / "espresso.h"
COPY = ROOT / "build" / "docs-header" / "espresso.h"

SECTION = re.compile(r"^/\* -+ (?P<title>.+?) -+ \*/$", re.MULTILINE)
# What a comment may stand to the right of: a member, a constant, a macro.
TRAILING = re.compile(
    r"^(?P<code>(?:    [^\s/]|#define ESP_)[^\n]*?) */\* (?P<text>(?:.|\n)*?) \*/$",
    re.MULTILINE,
)
PLAIN = re.compile(r"^/\* (?P<text>(?:.|\n)*?) \*/$", re.MULTILINE)
# A function or macro without a comment in front: one further up is for it, too.
UNTOLD = re.compile(
    r"(?<!\*/\n)^(?=(?:struct|const|int|int64_t|void|bool)\b[\w *]*\besp_\w+\("
    r"|#define ESP_)",
    re.MULTILINE,
)
# Of a member that speaks for itself; hawkmoth leaves out what has no comment.
SILENT = re.compile(r"(?<=[{;,]\n)(?=    (?![/* ])\w[^\n]*[;,]\n)")
# Declared, defined in the core alone, and without a comment of its own.
OPAQUE = re.compile(r"(?<=\n\n)(?=struct (?!cJSON)\w+;\n)")


def lifted(found: re.Match[str]) -> str:
    """The comment to the right, in front; a second line loses its margin."""
    margin = " " * (len(found["code"]) - len(found["code"].lstrip()))
    text = " ".join(found["text"].split())
    value = re.fullmatch(r"#define \w+ +(.+)", found["code"])
    if value is not None:  # hawkmoth shows the name alone
        text = f"`{value[1]}`: {text}"
    return f"{margin}/**\n{margin} * {text}\n{margin} */\n{found['code']}"


def converted(text: str) -> str:
    """The header with documentation comments; no declaration is changed."""
    text = SECTION.sub(r"/**\n * .. rubric:: \g<title>\n */\n/**/", text)
    parts = re.split(r"(?m)^(/\*(?:.|\n)*?\*/\n)", text)
    text = "".join(
        part if part.startswith("/*") else TRAILING.sub(lifted, part) for part in parts
    )
    text = PLAIN.sub(r"/**\n * \g<text>\n */", text)
    # The first comment is the file's, not the include guard's below it.
    text = text.replace(" */\n#ifndef", " */\n/**/\n#ifndef", 1)
    text = OPAQUE.sub("/** Opaque: made and freed by the functions below. */\n", text)
    return UNTOLD.sub("/** See above. */\n", SILENT.sub("    /** */\n", text))


def as_rest(text: str) -> str:
    """Plain English with code in backticks, as reST."""
    parts = re.split(r"(`[^`\n]+`)", text)
    code = [f"`{part}`" for part in parts[1::2]]
    words = [re.sub(r"([\\*|])", r"\\\1", part) for part in parts[::2]]
    return "".join(x + y for x, y in zip(words, [*code, ""], strict=True))


def process(app: Any, lines: list[str], transform: object, options: object) -> None:
    """Paragraphs of text only; a block that is indented by four is code."""
    done: list[str] = []
    for line in lines:
        if line.lstrip().startswith(".. "):
            done.append(line)
        elif line.startswith("    ") and (not done or not done[-1] or in_code(done)):
            if not in_code(done):
                done += ["::", ""]
            done.append(line)
        else:
            done.append(as_rest(line))
    lines[:] = done


def in_code(done: list[str]) -> bool:
    """Whether the last line that is not empty belongs to a block of code."""
    last = next((line for line in reversed(done) if line.strip()), "")
    return last.startswith("    ")


def make(app: Any) -> None:
    COPY.parent.mkdir(parents=True, exist_ok=True)
    COPY.write_text(converted(HEADER.read_text(encoding="utf-8")), encoding="utf-8")


def setup(app: Any) -> dict[str, bool]:
    app.connect("builder-inited", make)
    app.connect("hawkmoth-process-docstring", process)
    return {"parallel_read_safe": True}
