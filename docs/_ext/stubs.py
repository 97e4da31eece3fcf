"""The signatures of what is written in C, with types, out of espresso/_core.pyi.

Autodoc sees a C function's names and defaults, but no types, and one signature where
the stub has an overload for one symbol and one for several.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from sphinx.addnodes import desc_signature
from sphinx.errors import ExtensionError
from sphinx.pycode import ModuleAnalyzer

STUB = Path(__file__).resolve().parents[2] / "espresso" / "_core.pyi"
# Where autodoc looks for the overloads of what is made from C.
MODULES = ("espresso", "espresso._client")
FACES = 3  # cancel_all of the module, of Client and of AsyncClient


def functions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.FunctionDef]]:
    """Every function of a stub with its qualified name."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef):
            yield from functions(node, f"{node.name}.")
        elif isinstance(node, ast.FunctionDef):
            yield prefix + node.name, node


@cache
def signatures() -> dict[str, tuple[str, str]]:
    """Arguments without `self`, and what is returned, by qualified name."""
    found: dict[str, tuple[str, str]] = {}
    for name, node in functions(ast.parse(STUB.read_text(encoding="utf-8"))):
        arguments = node.args
        if arguments.args and arguments.args[0].arg == "self":
            del arguments.args[0]
        returned = "" if node.returns is None else ast.unparse(node.returns)
        found[name] = f"({ast.unparse(arguments)})", returned
    return found


def add_overloads(app: Any) -> None:
    stub = ModuleAnalyzer.for_file(STUB, "espresso._core")
    stub.analyze()
    for name in MODULES:
        analyzer = ModuleAnalyzer.for_module(name)
        analyzer.analyze()
        analyzer.overloads.update(stub.overloads)


def signature(
    app: Any, what: str, name: str, obj: object, options: object, args: str, back: str
) -> tuple[str, str] | None:
    """With types, where the stub has some and the object has none."""
    if what not in ("function", "method") or hasattr(obj, "__annotations__"):
        return None
    return signatures().get(getattr(obj, "__qualname__", ""))


def check(app: Any, exception: Exception | None) -> None:
    """Both signatures of each button are there, and say what is returned."""
    if exception is not None or app.builder.format != "html":
        return
    tree = app.env.get_doctree("api/python")
    shown = [node.astext() for node in tree.findall(desc_signature)]
    presses = [text for text in shown if "cancel_all(" in text]
    typed = [it for it in presses if "symbol: " in it and "CancelAllResult" in it]
    if len(typed) != len(presses) or len(presses) != 2 * FACES:
        raise ExtensionError(f"signatures of cancel_all without types: {presses}")


def setup(app: Any) -> dict[str, bool]:
    app.connect("builder-inited", add_overloads)
    app.connect("autodoc-process-signature", signature)
    app.connect("build-finished", check)
    return {"parallel_read_safe": True}
