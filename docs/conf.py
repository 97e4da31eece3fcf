"""How Sphinx makes the documents: `make docs`, into build/docs."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(ROOT), str(HERE / "_ext")]

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

COMPILER_HEADERS = subprocess.run(
    ["cc", "-print-file-name=include"], check=True, capture_output=True, text=True
).stdout.strip()

project = "espresso"
version = release = PROJECT["version"]
author = "the authors of espresso"
language = "en"

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "myst_parser",
    "hawkmoth",
    "c_header",
    "docstrings",
    "stubs",
]
exclude_patterns = ["_ext", "requirements.txt"]

# ---- Markdown ------------------------------------------------------------------------

myst_enable_extensions = ["colon_fence", "deflist", "attrs_block"]
myst_heading_anchors = 3

# ---- the reference of Python ---------------------------------------------------------

default_role = "literal"  # docstrings have their code in single backticks
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_display_short_literal_types = True
maximum_signature_line_length = 68
napoleon_google_docstring = True
napoleon_numpy_docstring = False
add_module_names = False

# Names of Python itself: their pages cannot be looked up without a network.
nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", r"(collections\.abc|types|typing|os|asyncio|enum|dataclasses)\..*"),
    ("py:.*", r"(Any|Callable|Ellipsis|EllipsisType|Iterable|Literal|Mapping|Self)"),
    ("py:.*", r"(None|bool|bytes|dict|float|int|list|object|str|tuple)"),
    ("py:.*", r"([A-Z]\w*Error|Exception(Group)?|BaseException|TracebackType)"),
    ("py:class", "Outcome"),  # Literal of the three words, told in the text
    ("c:identifier", r"(u?int\d+_t|size_t|bool|cJSON)"),
]

# ---- the reference of C --------------------------------------------------------------

hawkmoth_root = str(ROOT / "build/docs-header")
hawkmoth_autoconf: list[str] = []
# The header needs stdbool.h, stddef.h and stdint.h, which are the compiler's own.
hawkmoth_clang = ["-std=c11", "-ffreestanding", "-isystem", COMPILER_HEADERS]

# ---- how it looks --------------------------------------------------------------------

html_theme = "furo"
html_title = "espresso"
html_static_path = ["_static"]
html_css_files = ["espresso.css"]
html_show_sphinx = False
html_show_copyright = False
html_copy_source = False
html_theme_options = {"navigation_with_keys": False}
pygments_style = "friendly"
pygments_dark_style = "monokai"

assert re.fullmatch(r"\d+\.\d+\.\d+", release)
