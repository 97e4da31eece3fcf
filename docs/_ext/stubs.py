"""The signatures of what is written in C, with types, out of espresso/_core.pyi.

Autodoc sees a C function's names and defaults, but no types. A docstring may begin
with signatures, several for an overload; they are put there from the stub.
"""

from __future__ import annotations

import ast
import types
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

STUB = Path(__file__).resolve().parents[2] / "espresso" / "_core.pyi"
C_FUNCTIONS = (types.BuiltinFunctionType, types.MethodDescriptorType)


def functions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.FunctionDef]]:
    """Every function of a stub with its qualified name; an overload comes often."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef):
            yield from functions(node, f"{node.name}.")
        elif isinstance(node, ast.FunctionDef):
            yield prefix + node.name, node


def signature_of(node: ast.FunctionDef) -> str:
    """``name(arguments) -> type`` in one line, without `self`."""
    arguments = node.args
    if arguments.args and arguments.args[0].arg == "self":
        del arguments.args[0]
    returned = "" if node.returns is None else f" -> {ast.unparse(node.returns)}"
    return f"{node.name}({ast.unparse(arguments)}){returned}"


@cache
def signatures() -> dict[str, list[str]]:
    """By qualified name, such as ``Client.cancel_all``."""
    found: dict[str, list[str]] = {}
    for name, node in functions(ast.parse(STUB.read_text(encoding="utf-8"))):
        found.setdefault(name, []).append(signature_of(node))
    return found


def get(obj: Any, name: str, *default: Any) -> Any:
    """What autodoc reads of a C function: its docstring begins with signatures."""
    value = getattr(obj, name, *default)
    if name == "__doc__" and isinstance(value, str):
        lines = signatures().get(obj.__qualname__)
        if lines:
            value = " \\\n".join(lines) + "\n\n" + value
    return value


def setup(app: Any) -> dict[str, bool]:
    for kind in C_FUNCTIONS:
        app.add_autodoc_attrgetter(kind, get)
    return {"parallel_read_safe": True}
