"""Docstrings of the package as reST: arguments, and what is raised.

They are written to be read in a terminal: an argument is a line ``name: what``, its
second line is indented; what is raised is a paragraph that begins with "Raises".
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection, Iterator
from typing import Any

ARGUMENT = re.compile(r"(?P<name>\w+): +(?P<what>\S.*)")
ERROR = re.compile(r"(?<![\w.`])([A-Z]\w*Error)(?![\w`(])")


def parameters_of(obj: object) -> set[str]:
    """The names that a call takes; {} where none can be found."""
    try:
        return set(inspect.signature(obj).parameters)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return set()


def paragraphs(lines: list[str]) -> Iterator[list[str]]:
    """Runs of lines without an empty one; that follows each."""
    run: list[str] = []
    for line in [*lines, ""]:
        if line.strip():
            run.append(line)
        elif run:
            yield run
            run = []


def as_fields(paragraph: list[str], names: Collection[str]) -> list[str]:
    """The paragraph as a field list, if each of its lines begins or goes on with an
    argument; else as it was."""
    fields: list[str] = []
    for line in paragraph:
        found = ARGUMENT.fullmatch(line)
        if found is not None and (found["name"] in names or found["name"] == "options"):
            fields.append(f":param {found['name']}: {found['what']}")
        elif fields and line.startswith("  "):
            fields.append(line)
        else:
            return paragraph
    return fields


def with_links(paragraph: list[str], known: Collection[str]) -> list[str]:
    """Names of our exceptions point at them, where they are told as raised."""

    def link(found: re.Match[str]) -> str:
        return f":py:exc:`{found[1]}`" if found[1] in known else f"``{found[1]}``"

    is_told = re.search(r"\b[Rr]aises [A-Z`]", " ".join(paragraph)) is not None
    if not is_told or paragraph[0].startswith(" "):
        return paragraph
    return [ERROR.sub(link, line) for line in paragraph]


def process(
    app: Any, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    import espresso

    done: list[str] = []
    for paragraph in paragraphs(lines):
        fields = as_fields(paragraph, parameters_of(obj))
        done += [*with_links(fields, espresso.__all__), ""]
    # Napoleon would take "Seconds to wait; None: ..." for a type and a text: an empty
    # comment stands in front.
    is_value = what in ("attribute", "property", "data")
    lines[:] = ["..", "", *done] if is_value else done


def signature(
    app: Any,
    what: str,
    name: str,
    obj: object,
    options: object,
    args: Any,
    returned: Any,
) -> tuple[str, None] | None:
    """None for exceptions: espresso makes them, programs only catch them."""
    return ("", None) if what == "exception" else None


def setup(app: Any) -> dict[str, bool]:
    # Before napoleon (500), whose field lists are none of ours.
    app.connect("autodoc-process-docstring", process, priority=400)
    app.connect("autodoc-process-signature", signature)
    return {"parallel_read_safe": True}
