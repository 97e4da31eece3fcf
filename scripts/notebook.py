"""Run examples/notebook.ipynb, keep what its cells show, and make a page of it.

    python -m scripts.notebook              run it anew, write its outputs
    python -m scripts.notebook --page       build/notebook.html from what is stored

A notebook is JSON that no editor makes twice alike: cells are numbered, and what only
says when and on which machine they ran is left out.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Mapping
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbconvert import HTMLExporter
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "examples/notebook.ipynb"
PAGE = ROOT / "build/notebook.html"
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
TIMEOUT = 60  # seconds for a cell

# What differs from run to run, and what stands for it when two are compared.
VOLATILE = {
    r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}": "ID",
    r"\b[0-9a-f]{8}…": "ID…",
    r"127\.0\.0\.1:\d+": "HOST",
    r"\b\d\d:\d\d:\d\d\b": "TIME",
    r"\b\d+\.\d s\b": "SECONDS",
    r"failed \(.*?; outcome": "failed (REASON; outcome",
}


def read() -> NotebookNode:
    """The notebook as it is stored."""
    stored: NotebookNode = nbformat.read(NOTEBOOK, as_version=4)
    return stored


def run(notebook: NotebookNode, env: Mapping[str, str]) -> NotebookNode:
    """The same with fresh outputs, of a kernel in this environment.

    Raises CellExecutionError if a cell fails.
    """
    fresh: NotebookNode = nbformat.from_dict(notebook)
    client = NotebookClient(
        fresh, timeout=TIMEOUT, coalesce_streams=True, resources=_folder(ROOT)
    )
    client.execute(env=env)
    for number, cell in enumerate(fresh.cells):
        cell.id = f"cell-{number}"
        cell.metadata = NotebookNode()
    fresh.metadata = nbformat.from_dict({"kernelspec": KERNEL})
    return fresh


def _folder(path: Path) -> dict[str, dict[str, str]]:
    return {"metadata": {"path": str(path)}}


def shown(cell: NotebookNode) -> list[str]:
    """What a cell shows, without what differs from run to run."""
    texts = []
    for output in cell.get("outputs", []):
        texts += [output.get("text", ""), *output.get("data", {}).values()]
    return [steady(text) for text in texts if text]


def steady(text: str) -> str:
    for pattern, word in VOLATILE.items():
        text = re.sub(pattern, word, text)
    return text


def page(notebook: NotebookNode) -> str:
    """The notebook as one HTML page, as nbconvert exports it."""
    text, _ = HTMLExporter().from_notebook_node(notebook)
    return str(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--page", action="store_true", help=f"write {PAGE.name} only")
    if not parser.parse_args().page:
        nbformat.write(run(read(), os.environ), NOTEBOOK)
        print(f"espresso: ran {NOTEBOOK.relative_to(ROOT)}, outputs are stored in it")
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(read()), encoding="utf-8")
    print(f"espresso: {PAGE.relative_to(ROOT)} is what it looks like")


if __name__ == "__main__":
    main()
