"""Rules of the source that no compiler and no linter checks.

Each rule is a function from text to a list of complaints. It is tested twice: on the
repository, where it must find nothing, and on a bad sample, where it must speak.
"""

import ast
import re
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
C_FILES = sorted(ROOT.glob("src/*/*.[ch]"))
PYTHON_FILES = sorted(ROOT.glob("espresso/**/*.py"))
MAX_FUNCTION = 60  # lines
MAX_FILE = 400  # lines of code; comments are welcome

# A word that ends in "(" is banned as that very function, any other as a prefix.
BANNED = {
    "sprintf(": "knows no length: snprintf",
    "vsprintf(": "knows no length: vsnprintf",
    "strcpy(": "knows no length: memcpy with a checked one",
    "strcat(": "knows no length: memcpy with a checked one",
    "strncpy(": "may leave out the final NUL",
    "strncat(": "its length is not the buffer's",
    "gets(": "knows no length",
    "alloca(": "an overflow of the stack is no error one can return",
    "strtok": "hidden state; changes its argument",
    "atoi(": "no error for what is no number",
    "atol(": "no error for what is no number",
    "atof(": "no error for what is no number, and reads the locale",
    "strerror(": "one buffer for all threads: strerror_r",
    "gmtime(": "one buffer for all threads: gmtime_r",
    "localtime(": "one buffer for all threads: localtime_r",
    "getenv(": "the environment is read by espresso/_client.py",
    "setenv(": "the environment is the user's",
    "putenv(": "the environment is the user's",
    "setlocale(": "the locale is the user's",
    "curl_easy_perform(": "does not see Ctrl-C for up to a second",
    "PyGILState_": "knows one interpreter only",
    "PyState_FindModule": "knows one interpreter only",
    "cJSON_GetErrorPtr": "one place for all threads: cJSON_ParseWithLengthOpts",
    "cJSON_GetObjectItem(": "ignores case: cJSON_GetObjectItemCaseSensitive",
    "cJSON_HasObjectItem(": "ignores case",
    "cJSON_InitHooks": "one set of hooks for the whole process",
    "cJSON_Parse(": "no length, no end: cJSON_ParseWithLengthOpts",
    "cJSON_ParseWithLength(": "ignores what follows: cJSON_ParseWithLengthOpts",
}
ALLOWED = (
    # libcurl's own variable: no value of ours comes from it, its presence is refused.
    'getenv("SSLKEYLOGFILE")',
    # Of a cJSON that nobody else in the process has.
    "cJSON_InitHooks(&of_an_arena)",
)
BANNED_PATTERN = re.compile(
    r"\b(?:" + "|".join(re.escape(word) for word in BANNED) + ")"
)

# Written so that this file does not match itself.
FOREIGN = re.compile(
    r"pypi\.org|pythonhosted\.org|(?:deb|security)\.debian\.org|crates\.io"
    r"|npmjs\.(?:org|com)|\bpyenv\b|(?<![\w.:/~}])/(?:home|root|work|tmp|Users)/\w"
)

CODE = re.compile(
    r'ESP_CODE\(\s*(?P<code>\d+),\s*(?P<outcome>\w+),\s*(?P<retry>\w+),\s*"(?P<name>\w+)"'
    r',\s*"(?P<meaning>[^"]+)"\s*\)'
)


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


# ---- rules ---------------------------------------------------------------------------


def without_comments(code: str) -> str:
    """Blank out C comments; line numbers and strings ("https://…") stay."""

    def blank(match: re.Match[str]) -> str:
        return match[0] if match[0][0] == '"' else "\n" * match[0].count("\n")

    pattern = r'"(?:\\.|[^"\\\n])*"|/\*.*?\*/|//[^\n]*'
    return re.sub(pattern, blank, code, flags=re.DOTALL)


def banned_words(code: str) -> list[str]:
    return [
        f"line {number}: {word}: {BANNED[word]}"
        for number, line in enumerate(without_comments(code).splitlines(), 1)
        for word in BANNED_PATTERN.findall(without_allowed(line))
    ]


def without_allowed(line: str) -> str:
    for words in ALLOWED:
        line = line.replace(words, "")
    return line


def knowledge_of_python(code: str) -> list[str]:
    """The core is C alone, in its comments too."""
    return re.findall(r"Python\.h|\bPy_[A-Z]\w+|\bPy[A-Z]\w+_\w+\(", code)


def c_function_lengths(code: str) -> Iterator[tuple[str, int]]:
    """Name and length of each function; its outermost braces stand in column 0."""
    lines = code.splitlines()
    start = 0
    for number, line in enumerate(lines):
        if line == "{":
            start = number
        elif line == "}":
            heading = re.findall(r"^(\w+)\(", "\n".join(lines[:start]), re.MULTILINE)
            yield heading[-1] if heading else "?", number - start + 1


def python_function_lengths(code: str) -> Iterator[tuple[str, int]]:
    """Name and length of each function, its docstring not counted."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            has_docstring = ast.get_docstring(node) is not None
            first = node.body[0].end_lineno if has_docstring else node.lineno - 1
            yield node.name, (node.end_lineno or 0) - (first or 0)


def long_functions(code: str, *, python: bool = False) -> list[str]:
    lengths = python_function_lengths if python else c_function_lengths
    return [
        f"{name}: {length} lines"
        for name, length in lengths(code)
        if length > MAX_FUNCTION
    ]


def long_file(code: str, *, python: bool = False) -> list[str]:
    """Lines that are neither blank nor comment; a docstring counts as code."""
    if python:
        code = re.sub(r"^\s*#.*$", "", code, flags=re.MULTILINE)
    else:
        code = without_comments(code)
    length = sum(1 for line in code.splitlines() if line.strip())
    return [f"{length} lines"] if length > MAX_FILE else []


def pairs_of_dicts(code: str) -> list[str]:
    """Where `dict.items` is asked for: where no memory is left for the first pair, its
    iterator ends the interpreter [CPython 3.11: dictiter_new]."""
    return [
        f"line {node.lineno}: {ast.unparse(node)}: iterate the keys"
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.Attribute) and node.attr == "items"
    ]


def foreign_words(text: str) -> list[str]:
    """Hosts of package registries, and paths that exist on one machine only."""
    return [
        f"line {number}: {word}"
        for number, line in enumerate(text.splitlines(), 1)
        for word in FOREIGN.findall(line)
    ]


def targets_without_help(makefile: str) -> list[str]:
    """Every phony target but FORCE explains itself in ``make help``."""
    phony = re.search(r"^\.PHONY:(.*)$", makefile, re.MULTILINE)
    names = phony[1].split() if phony else ["no .PHONY line"]
    helped = re.findall(r"^([a-z-]+):[^#\n]*## \S", makefile, re.MULTILINE)
    return sorted(set(names) - set(helped) - {"FORCE"})


def faults_of_codes(table: str, classes: set[str]) -> list[str]:
    """The table of API codes: sorted, complete, of known words, 16 bits."""
    text = without_comments(table)
    entries = list(CODE.finditer(text))
    codes = [int(entry["code"]) for entry in entries]
    faults = [f"not understood: {rest}" for rest in CODE.sub("", text).split()]
    if codes != sorted(set(codes)):
        faults.append("not sorted, or a code stands twice")
    for entry in entries:
        if not 0 < int(entry["code"]) < 2**15:
            faults.append(f"{entry['code']} is no 16-bit code")
        if entry["outcome"] not in {"REJECTED", "UNKNOWN"}:
            faults.append(f"{entry['code']}: outcome {entry['outcome']}")
        if entry["retry"] not in {"NEVER", "AFTER", "BACKOFF"}:
            faults.append(f"{entry['code']}: retry {entry['retry']}")
        if entry["name"] not in classes:
            faults.append(f"{entry['code']}: no class {entry['name']}")
    return faults if entries else ["no entries"]


def surplus_symbols(listing: str) -> list[str]:
    """What ``nm -D --defined-only`` lists besides the one entry of the module."""
    symbols = [line.split()[-1] for line in listing.splitlines() if line.strip()]
    found = [symbol for symbol in symbols if symbol != "PyInit__core"]
    return found if "PyInit__core" in symbols else [*found, "PyInit__core is missing"]


# ---- the repository keeps them -------------------------------------------------------


@pytest.mark.parametrize("path", C_FILES, ids=relative)
def test_c_file(path: Path) -> None:
    code = path.read_text(encoding="utf-8")
    assert banned_words(code) == []
    assert long_functions(code) == []
    assert long_file(code) == []
    if path.parent.name == "core":
        assert knowledge_of_python(code) == []


@pytest.mark.parametrize("path", PYTHON_FILES, ids=relative)
def test_python_file(path: Path) -> None:
    code = path.read_text(encoding="utf-8")
    assert long_functions(code, python=True) == []
    assert long_file(code, python=True) == []
    if path.parent.name == "espresso":
        assert pairs_of_dicts(code) == []


def test_there_is_source_to_check() -> None:
    assert any(path.parent.name == "core" for path in C_FILES)
    assert any(path.parent.name == "binding" for path in C_FILES)
    assert PYTHON_FILES


def repository_files() -> list[Path]:
    """Tracked files, and those that would be with ``git add .``."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    command = ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z", "--cached"]
    command += ["--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout
    paths = [ROOT / name.decode() for name in listing.split(b"\0") if name]
    return [path for path in paths if path.is_file()]


def test_no_registry_and_no_machine_is_named() -> None:
    found = {
        relative(path): words
        for path in repository_files()
        if (words := foreign_words(path.read_text(encoding="utf-8", errors="replace")))
    }
    assert found == {}


def test_every_make_target_has_help() -> None:
    assert targets_without_help((ROOT / "Makefile").read_text()) == []


def test_table_of_codes() -> None:
    tree = ast.parse((ROOT / "espresso/errors.py").read_text())
    classes = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    table = (ROOT / "src/core/codes.def").read_text()
    assert faults_of_codes(table, classes) == []


@pytest.mark.skipif(sys.platform != "linux", reason="ELF only")
def test_extension_exports_one_symbol() -> None:
    built = sorted(ROOT.glob("espresso/_core*.so"))
    assert built, "the extension is not built in place"
    for path in built:
        command = ["nm", "-D", "--defined-only", str(path)]
        done = subprocess.run(command, check=True, text=True, capture_output=True)
        assert surplus_symbols(done.stdout) == []


def test_version_has_one_source() -> None:
    from espresso import _core

    with (ROOT / "pyproject.toml").open("rb") as file:
        assert _core.__version__ == tomllib.load(file)["project"]["version"]


def test_source_distribution_can_be_built(tmp_path: Path) -> None:
    """Without MANIFEST.in the headers and the version script would be left out."""
    command = [sys.executable, "setup.py", "--quiet", "egg_info", "--egg-base"]
    command += [str(tmp_path), "sdist", "--dist-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        packed = {name.partition("/")[2] for name in tar.getnames()}
    needed = [*C_FILES, *PYTHON_FILES, *ROOT.glob("espresso/sandbox/replies/*.http")]
    needed += [ROOT / "src/core/codes.def", ROOT / "scripts/exports.map"]
    assert {relative(path) for path in needed} - packed == set()
    assert not [name for name in packed if name.endswith((".so", ".o", ".pyc"))]


# ---- each rule can speak -------------------------------------------------------------


@pytest.mark.parametrize("word", BANNED)
def test_banned_word_is_found(word: str) -> None:
    assert len(banned_words(f"int x;\nfoo(1, {word});\n")) == 1


def test_pairs_of_a_dict_are_found() -> None:
    assert len(pairs_of_dicts("for a, b in x.y.items():\n    pass\n")) == 1
    assert pairs_of_dicts("items = [x[a] for a in x]\n") == []


def test_banned_word_in_a_comment_or_a_longer_name_is_none() -> None:
    code = "/* never\n   strcpy(a, b) */\nsnprintf(a, 1); // atoi(a)\n"
    assert banned_words(code + "cJSON_ParseWithLengthOpts(a);\n") == []
    assert banned_words('x("http://a"); atoi(b);') != []


@pytest.mark.parametrize(
    "line", ["#include <Python.h>", "/* Py_INCREF(x) */", "PyErr_SetString(x, y);"]
)
def test_python_in_the_core_is_found(line: str) -> None:
    assert knowledge_of_python(f"int x;\n{line}\n")


def test_long_functions_are_found() -> None:
    body = "    x();\n" * (MAX_FUNCTION - 2)
    fine = f"static int\nfine(int a)\n{{\n{body}}}\n"
    long = f"static int\nlong_one(int a)\n{{\n{body}    x();\n}}\n"
    assert long_functions(fine + long) == [f"long_one: {MAX_FUNCTION + 1} lines"]
    body = "    x()\n" * (MAX_FUNCTION - 1)
    fine = f"def fine():\n    '''Not\n    counted.'''\n{body}    x()\n"
    long = f"def long_one():\n{body}    x()\n"
    found = long_functions(fine + long, python=True)
    assert found == [f"long_one: {MAX_FUNCTION + 1} lines"]


def test_long_file_is_found() -> None:
    assert long_file("x;\n/* why */\n\n" * MAX_FILE) == []
    assert long_file("x;\n" * (MAX_FILE + 1)) == [f"{MAX_FILE + 1} lines"]
    assert long_file("x = 1\n# why\n\n" * MAX_FILE, python=True) == []
    assert long_file("x = 1\n" * (MAX_FILE + 1), python=True) != []


@pytest.mark.parametrize(
    "word",
    ["https://pypi" + ".org/simple", "/ho" + "me/ann/x", '"/tm' + 'p/x"', "py" + "env"],
)
def test_foreign_word_is_found(word: str) -> None:
    assert foreign_words(f"fine\nsee {word}\n") != []


def test_relative_path_is_not_foreign() -> None:
    assert foreign_words("see docs/home/x, ~/work/bot, https://host/tmp/x") == []


def test_target_without_help_is_found() -> None:
    makefile = ".PHONY: help test FORCE\nhelp: ## show\ntest: build\n\tpytest\n"
    assert targets_without_help(makefile) == ["test"]
    assert targets_without_help("test: ## x\n") != []


@pytest.mark.parametrize(
    "table",
    [
        "",
        'ESP_CODE(2, UNKNOWN, NEVER, "A", "x")\nESP_CODE(1, UNKNOWN, NEVER, "A", "x")',
        'ESP_CODE(1, UNKNOWN, NEVER, "A", "x")\nESP_CODE(1, UNKNOWN, NEVER, "A", "x")',
        'ESP_CODE(1, DONE, NEVER, "A", "x")',
        'ESP_CODE(1, REJECTED, SOON, "A", "x")',
        'ESP_CODE(1, REJECTED, NEVER, "B", "x")',
        'ESP_CODE(99999, REJECTED, NEVER, "A", "x")',
        'ESP_CODE(1, REJECTED, NEVER, "A", "x")\nESP_CODE(2, REJECTED)',
    ],
)
def test_fault_of_codes_is_found(table: str) -> None:
    assert faults_of_codes(table, {"A"}) != []


def test_good_codes_have_no_fault() -> None:
    good = '/* why */\nESP_CODE(1, REJECTED, AFTER, "A",\n         "x y, z")\n'
    assert faults_of_codes(good, {"A"}) == []


def test_surplus_symbol_is_found() -> None:
    entry = "0000000000001250 T PyInit__core\n"
    assert surplus_symbols(entry) == []
    assert surplus_symbols(entry + "0000000000001300 T esp_call\n") == ["esp_call"]
    assert surplus_symbols("") == ["PyInit__core is missing"]
