"""The documents stay true.

Every block of commands of README.md is run as it stands, against the sandbox (its
Python blocks by test_docs.py); every table is compared with the code. So are the column
and the paths of CONTRIBUTING.md. The examples are run as a user runs them.
"""

from __future__ import annotations

import inspect
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
import zipfile
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import pytest

import espresso
from espresso import _cli, _cli_cancel, _core, errors
from espresso.sandbox import Exchange, replies
from examples import demo, panic
from tests.documents import (
    PATIENCE,
    ROOT,
    SHELL,
    UUID,
    bash,
    blocks,
    enter,
    environment_of,
    examples,
    pages,
    rows_under,
    run,
    text_of,
    unquoted,
)

DOCUMENTS = (
    *("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"),
    "docs/reliability.md",
)
GUIDES = [name for name in pages() if name not in DOCUMENTS]
README = text_of("README.md")


@pytest.fixture
def env(exchange: Exchange, clean_env: dict[str, str]) -> dict[str, str]:
    return environment_of(exchange, clean_env)


# ---- Python blocks: tests/test_docs.py runs them -------------------------------------

PYTHON = blocks("README.md", "python", "py")


def test_there_are_python_blocks_and_the_first_is_the_one_line() -> None:
    assert len(PYTHON) >= 4
    assert PYTHON[0].output is not None
    assert 'espresso.cancel_all("ADAUSDM")' in PYTHON[0].code


@pytest.fixture
def cancel_until_sure(
    exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], espresso.CancelAllResult]:
    """The README's function, in this process, without its pauses."""
    (code,) = (block.code for block in PYTHON if "def cancel_until_sure" in block.code)
    enter(monkeypatch, exchange, os.environ)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    definition = code[: code.index("\n\n\nprint(")]
    names: dict[str, Callable[[str], espresso.CancelAllResult]] = {}
    exec(compile(definition, "README.md", "exec"), names)
    return names["cancel_until_sure"]


@pytest.mark.parametrize("fault", ["html_200", "locked_5002", "envoy_503"])
def test_cancel_until_sure_goes_on(
    fault: str,
    exchange: Exchange,
    cancel_until_sure: Callable[[str], espresso.CancelAllResult],
) -> None:
    ids = exchange.place("ADAUSDM", 2)
    exchange.fault(fault, times=4)
    assert cancel_until_sure("ADAUSDM")["order_ids"] == ids


def test_cancel_until_sure_gives_up_on_what_cannot_succeed(
    exchange: Exchange,
    cancel_until_sure: Callable[[str], espresso.CancelAllResult],
) -> None:
    exchange.fault("403_empty", times=None)
    with pytest.raises(espresso.PermissionDeniedError):
        cancel_until_sure("ADAUSDM")
    assert len(exchange.calls) == 1
    exchange.clear_faults()
    exchange.fault("html_200", times=None)
    with pytest.raises(espresso.ResponseError):
        cancel_until_sure("ADAUSDM")
    assert len(exchange.calls) == 1 + 5


# ---- blocks of commands --------------------------------------------------------------

COMMANDS = [block.code for block in blocks("README.md", *SHELL)]
# Each is run by the test that asks for it by these first words.
INSTALL = "pip install espresso-deltadefi"
KEY = "read -rs DELTADEFI_API_KEY"
SANDBOX = "espresso sandbox"
PRESS = "python -c"
CANCEL = "espresso cancel-all"
DOCTOR = "espresso doctor"
CHECKOUT = "sudo apt-get"
MAKE = "make demo"


def command(first_words: str) -> str:
    (code,) = (code for code in COMMANDS if code.startswith(first_words))
    return code


def test_every_block_of_commands_has_its_test() -> None:
    names = (INSTALL, KEY, SANDBOX, PRESS, CHECKOUT, MAKE, CANCEL, DOCTOR)
    known = [command(name) for name in names]
    assert sorted(known) == sorted(COMMANDS)


def test_install_line_comes_first() -> None:
    first = examples("README.md")[0].parsed
    assert first.code == f"{INSTALL}\n"


def test_key_is_read_and_used(
    exchange: Exchange, env: dict[str, str], tmp_path: Path
) -> None:
    ids = exchange.place("ADAUSDM", 1)
    del env["DELTADEFI_API_KEY"]
    script = command(KEY) + command(PRESS)
    printed = run(bash(script), env, tmp_path, given=f"{exchange.key}\n")
    assert str(ids) in printed
    assert exchange.key not in printed


@pytest.fixture
def foreground(
    clean_env: dict[str, str], tmp_path: Path
) -> Iterator[subprocess.Popen[str]]:
    """The sandbox as the README starts it, in a terminal of its own."""
    path = os.pathsep.join([str(Path(sys.executable).parent), clean_env["PATH"]])
    process = subprocess.Popen(
        bash(command(SANDBOX)),
        env={**clean_env, "PATH": path, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(PATIENCE)
        if process.stdout is not None:
            process.stdout.close()


def test_sandbox_in_one_shell_and_a_press_in_another(
    foreground: subprocess.Popen[str], clean_env: dict[str, str], tmp_path: Path
) -> None:
    assert foreground.stdout is not None
    exports = "".join(foreground.stdout.readline() for _ in range(3))
    path = os.pathsep.join([str(Path(sys.executable).parent), clean_env["PATH"]])
    second_shell = {**clean_env, "PATH": path, "PYTHONPATH": str(ROOT)}
    printed = run(bash(exports + command(PRESS)), second_shell, tmp_path)
    assert len(UUID.findall(printed)) == 3
    os.killpg(foreground.pid, signal.SIGINT)  # what Ctrl-C does
    assert foreground.wait(PATIENCE) == 0


def test_cancel_from_a_terminal(
    exchange: Exchange, env: dict[str, str], tmp_path: Path
) -> None:
    """The command as written, and the very lines that are shown below it."""
    exchange.place("ADAUSDM", 3)
    (block,) = (it for it in blocks("README.md", "sh") if it.code.startswith(CANCEL))
    assert run(bash(block.code), env, tmp_path) == block.output
    assert exchange.open_orders() == []


def test_doctor_from_a_terminal(env: dict[str, str], tmp_path: Path) -> None:
    assert "Ready: TLS stands" in run(bash(command(DOCTOR)), env, tmp_path)


def test_table_of_exit_status() -> None:
    """It has the numbers of the code, and says of each what its help says."""
    rows = rows_under(README, "| exit status | your orders")
    stated = [int(unquoted(row[0])) for row in rows]
    in_help = re.findall(r"^  (\d+)  +(.*)$", _cli_cancel.EXIT_STATUS, re.MULTILINE)
    assert stated == [int(number) for number, _ in in_help]
    assert set(stated) == {
        *(_cli.OK, _cli.MAY_BE_OPEN, _cli.AGAIN, _cli.REFUSED),
        *(_cli.USAGE, _cli.INTERRUPTED),
    }
    for (_, orders, advice), (_, words) in zip(rows, in_help, strict=True):
        assert ("open" in orders) or ("Open" in orders)
        assert ("run it again" in words) == ("Run it again" in advice)


def test_options_of_the_command_line(env: dict[str, str], tmp_path: Path) -> None:
    """Each is in the list of README.md, and each that is there exists."""
    printed = run(["espresso", "cancel-all", "--help"], env, tmp_path)
    exists = set(re.findall(r"^  (?:-\w, )?(--[a-z-]+)", printed, re.MULTILINE))
    section = README[README.index("## Command line") : README.index("## Practise")]
    stated = set(re.findall(r"(--[a-z][a-z-]+)", section))
    assert {"--json", "--api-key-file"} <= stated <= exists | {"--quiet"}
    assert exists - {"--quiet", "--verbose", "--help"} <= stated


def test_make_knows_the_targets(clean_env: dict[str, str]) -> None:
    """A dry run: the targets themselves are what runs this test, and the demo's."""
    dry = {**clean_env, "MAKEFLAGS": "n"}
    printed = run(bash(command(MAKE)), dry, ROOT)
    assert "examples/demo.py" in printed
    assert "-m pytest" in printed


# ---- installing ----------------------------------------------------------------------


# What the extra needs, down to the last.
SANDBOX_EXTRA = ("h11", "trustme", "cryptography", "cffi", "pycparser", "idna")


def wheel_of(name: str, folder: Path) -> None:
    """Pack an installed distribution again, for a pip without network. It claims to fit
    anywhere: it is for this machine alone."""
    found = metadata.distribution(name)
    target = folder / f"{name}-{found.version}-py3-none-any.whl"
    with zipfile.ZipFile(target, "w") as wheel:
        for path in found.files or []:
            if ".." not in path.parts and path.suffix != ".pyc":
                wheel.write(str(path.locate()), str(path))


def stand_in(folder: Path, name: str, script: str) -> None:
    program = folder / name
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


@pytest.fixture
def fresh_machine(clean_env: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """The environment of one: without network, with a sudo that only takes notes."""
    for name in ("bin", "links"):
        (tmp_path / name).mkdir()
    base = getattr(sys, "_base_executable", sys.executable)
    stand_in(tmp_path / "bin", "python3", f'exec "{base}" "$@"')
    stand_in(tmp_path / "bin", "sudo", f'echo "$@" >>"{tmp_path}/sudo"')
    for name in ("setuptools", *SANDBOX_EXTRA):
        wheel_of(name, tmp_path / "links")
    return {
        **clean_env,
        "PATH": os.pathsep.join([str(tmp_path / "bin"), clean_env["PATH"]]),
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(tmp_path / "links"),
        "PIP_NO_CACHE_DIR": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }


@pytest.mark.slow
def test_install(
    fresh_machine: dict[str, str], exchange: Exchange, tmp_path: Path
) -> None:
    """From a checkout as written; then, from a wheel of that, by its public name."""
    checkout = tmp_path / "checkout"
    unwanted = shutil.ignore_patterns(".*", "build", "*.so", "*.egg-info", "tests")
    shutil.copytree(ROOT, checkout, ignore=unwanted)
    run(bash(command(CHECKOUT)), fresh_machine, checkout)
    check_packages((tmp_path / "sudo").read_text().split())
    python = checkout / "venv/bin/python"
    check_installed(python, checkout, exchange, fresh_machine, tmp_path)
    check_installed(python, checkout, exchange, fresh_machine, checkout)
    practise = "from espresso.sandbox import Exchange; Exchange().start().close()"
    run([python, "-c", practise], fresh_machine, tmp_path)

    activated = ". venv/bin/activate\n"
    script = f"{activated}pip wheel -q --no-deps -w ../links .\n"
    run(bash(f"{script}pip uninstall -qy espresso-deltadefi"), fresh_machine, checkout)
    run(bash(activated + command(INSTALL)), fresh_machine, checkout)
    check_installed(python, checkout / "venv", exchange, fresh_machine, tmp_path)


def check_installed(
    python: Path, home: Path, exchange: Exchange, base: Mapping[str, str], folder: Path
) -> None:
    """The first example works with what was installed, not with this folder's."""
    env = environment_of(exchange, base)
    del env["PYTHONPATH"]
    where = run(
        [python, "-c", "import espresso; print(espresso.__file__)"], env, folder
    )
    assert Path(where).is_relative_to(home)
    ids = exchange.place("ADAUSDM", 1)
    assert str(ids) in run([python, "-c", PYTHON[0].code], env, folder)


@pytest.mark.parametrize("words", [["-c", "import espresso"], ["-m", "espresso"]])
def test_sources_that_are_not_built_say_what_to_do(
    words: list[str], clean_env: dict[str, str], tmp_path: Path
) -> None:
    """Who has installed espresso and starts Python in the checkout meets them first."""
    unwanted = shutil.ignore_patterns("*.so", "__pycache__")
    shutil.copytree(ROOT / "espresso", tmp_path / "espresso", ignore=unwanted)
    done = subprocess.run(
        [sys.executable, *words],
        env=clean_env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 1
    assert (
        "Start Python in another folder, or build it there: make build" in done.stderr
    )
    assert str(tmp_path / "espresso") in done.stderr


def check_packages(words: list[str]) -> None:
    """What `sudo` was asked for is what the build asks for, and nothing unknown."""
    assert words[:2] == ["apt-get", "install"]
    packages = set(words[2:])
    hint = re.search(r"apt-get install (.*?);", text_of("setup.py").replace('"\n', ""))
    assert hint is not None
    assert set(hint[1].replace('    "', "").split()) <= packages
    known = text_of("scripts/bootstrap").replace("$version-", "python3-")
    assert {name for name in packages if not re.search(rf"\b{name}\b", known)} == set()


def test_no_release_is_claimed_before_there_is_one() -> None:
    version = tomllib.loads(text_of("pyproject.toml"))["project"]["version"]
    heading = re.search(rf"^## \[{version}\] - (.*)$", text_of("CHANGELOG.md"), re.M)
    assert heading is not None
    claim = "No release is out yet" in " ".join(README.split())
    assert claim == (heading[1] == "Unreleased")


# ---- the table of errors -------------------------------------------------------------

# What later features raise, and what is never raised itself.
NOT_RAISED = {
    "EspressoError",
    "TransportError",
    "PartialCancelError",
    "StillOpenError",
    "GuardError",
    "GuardTrippedError",
}


class Case(NamedTuple):
    """How to meet one error in a call of one attempt."""

    name: str
    outcome: str
    prepare: Callable[[Exchange], None]
    key: str | None = None


def fault(name: str) -> Callable[[Exchange], None]:
    return lambda exchange: exchange.fault(name)


def reply(name: str) -> Callable[[Exchange], None]:
    return lambda exchange: exchange.reply(name)


def code_under(name: str, code: int) -> Callable[[Exchange], None]:
    answer = replies.load(name).with_json({"error": "no", "code": code})
    return lambda exchange: exchange.reply(answer.raw)


def redirect(exchange: Exchange) -> None:
    exchange.reply(b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n")


def nothing(exchange: Exchange) -> None:
    pass


CASES = (
    Case("OrderNotFoundError", "rejected", nothing),
    Case("OrderNotFoundError", "unknown", code_under("404_code_4200", 4299)),
    Case("UnavailableError", "unknown", fault("envoy_503")),
    Case("ServerError", "unknown", fault("5000_as_400")),
    Case("RequestTimeoutError", "not_sent", fault("tls_hang")),
    Case("RequestTimeoutError", "unknown", fault("hang")),
    Case("ConnectionLostError", "unknown", fault("reset_after_read")),
    Case("ConnectError", "not_sent", fault("connect_reset")),
    Case("RateLimitError", "rejected", reply("429_code_4290")),
    Case("TradingLockedError", "rejected", fault("locked_5002")),
    Case("AuthenticationError", "rejected", nothing, key="sandbox-wrong"),
    Case("InvalidSymbolError", "rejected", reply("400_code_4106")),
    Case("PermissionDeniedError", "rejected", fault("403_empty")),
    Case("ConfigError", "not_sent", nothing, key="two words"),
    Case("CertificateError", "not_sent", fault("expired_certificate")),
    Case("BadRequestError", "rejected", reply("400_code_4000")),
    Case("BadRequestError", "unknown", code_under("400_code_4000", 4100)),
    Case("ResponseError", "unknown", fault("html_200")),
    Case("ResponseError", "rejected", redirect),
    Case("APIError", "unknown", code_under("400_code_4000", 4050)),
    Case("APIError", "rejected", fault("404_text")),
)

ERRORS = {
    unquoted(name): (set(outcome.split(" or ")), what, advice)
    for name, outcome, what, advice in rows_under(README, "| exception | `outcome`")
}


def meet(case: Case, exchange: Exchange) -> espresso.EspressoError:
    case.prepare(exchange)
    with pytest.raises(espresso.EspressoError) as caught:
        espresso.Client(
            case.key or exchange.key,
            base_url=exchange.url,
            ca_file=exchange.ca_file,
            timeout=0.5,
            max_retries=0,
        ).cancel_all("ADAUSDM")
    return caught.value


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.name}-{case.outcome}")
def test_error_of_the_table(case: Case, exchange: Exchange) -> None:
    error = meet(case, exchange)
    assert type(error).__name__ == case.name
    assert error.outcome == case.outcome
    _, what, advice = ERRORS[case.name]
    if error.retryable:
        assert re.search(r"(?<!not )\bpress again", advice, re.IGNORECASE)
    if error.code in {row[0] for row in _core.CODES}:
        number = str(error.code)
        family = f"{number[:2]}xx"
        assert number in what or family in what or case.name == "APIError"


def test_table_of_errors_is_complete() -> None:
    assert set(ERRORS) == set(errors.__all__) - NOT_RAISED
    for name, (outcomes, _, _) in ERRORS.items():
        assert outcomes == {case.outcome for case in CASES if case.name == name}


def test_table_of_outcomes_is_complete() -> None:
    stated = [unquoted(row[0]) for row in rows_under(README, "| `outcome` | what")]
    assert stated == ["not_sent", "rejected", "unknown"]


def test_named_attributes_are_there() -> None:
    sentence = re.search(r"Each error carries (.*?)\n`except", README, re.DOTALL)
    assert sentence is not None
    names = re.findall(r"`(\w+)`", sentence[1])
    assert len(names) == 10
    error = espresso.ServerError("no")
    assert [name for name in names if not hasattr(error, name)] == []


# ---- the other tables ----------------------------------------------------------------


def code_rows() -> Iterator[str]:
    """The table that src/core/codes.def makes; equal neighbours share a row."""
    numbered = list(enumerate(_core.CODES))
    for _, group in groupby(numbered, lambda pair: (pair[1][0] - pair[0], pair[1][1:])):
        members = [row for _, row in group]
        first, name, outcome, again, meaning = members[0]
        last = members[-1][0]
        code = f"{first}" if first == last else f"{first}–{last}"
        tried = "yes" if again else "no"
        yield f"| {code} | {meaning} | `{name}` | {outcome} | {tried} |"


def test_table_of_codes() -> None:
    wanted = "\n".join(code_rows())
    assert wanted in README, f"the table of codes is to read\n{wanted}"
    assert len(rows_under(README, "| code | meaning")) == len(wanted.splitlines())


def test_table_of_options() -> None:
    stated = {
        unquoted(row[0]): unquoted(row[1]) for row in rows_under(README, "| option |")
    }
    parameters = inspect.signature(espresso.Client).parameters
    assert stated == {name: repr(it.default) for name, it in parameters.items()}


def test_table_of_options_of_the_guard() -> None:
    rows = rows_under(README, "| the guard's option |")
    stated = {unquoted(row[0]): unquoted(row[1]) for row in rows}
    parameters = list(inspect.signature(espresso.guard).parameters.values())[1:]
    assert stated == {it.name: str(it.default) for it in parameters}


def test_defaults_in_the_text() -> None:
    parameters = inspect.signature(espresso.Client).parameters
    assert f"`timeout` ({parameters['timeout'].default:.0f} s)" in README
    assert f"within {parameters['timeout'].default:.0f} seconds" in README
    assert f"`max_retries` ({parameters['max_retries'].default})" in README
    more = (
        f"{_cli_cancel.SECONDS_MORE} more for each over {_cli_cancel.SYMBOLS_IN_TIME}"
    )
    assert f"({parameters['timeout'].default:.0f}; {more})" in README


# ---- what the documents point at -----------------------------------------------------


def broken_links(text: str) -> list[str]:
    """Links to files that are not there, and to headings that the text lacks."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    anchors = {
        "#" + re.sub(r"[^\w -]", "", it).lower().replace(" ", "-") for it in headings
    }
    targets = re.findall(r"\]\((?!https?:)([^)]+)\)", text)
    return [it for it in targets if it not in anchors and not (ROOT / it).exists()]


def missing_paths(text: str) -> list[str]:
    """Paths of the repository in backticks that are not there."""
    folders = "src|espresso|tests|scripts|examples|benchmarks"
    paths = re.findall(rf"`((?:{folders})/[\w./-]*)`", text)
    return [path for path in paths if not (ROOT / path).exists()]


def missing_targets(text: str) -> list[str]:
    known = re.findall(r"^([a-z-]+):", text_of("Makefile"), re.MULTILINE)
    return [it for it in re.findall(r"\bmake ([a-z-]+)`", text) if it not in known]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_document_points_at_what_is_there(name: str) -> None:
    text = text_of(name)
    assert broken_links(text) == []
    # The file of an example, which its reader is to write.
    assert [it for it in missing_paths(text) if "STATUS_CASE" not in it] == []
    assert missing_targets(text) == []


@pytest.mark.parametrize("name", GUIDES)
def test_guide_names_what_is_there(name: str) -> None:
    """Its links are checked by `make docs`."""
    text = text_of(name)
    assert missing_paths(text) == []
    assert missing_targets(text) == []
    files = re.findall(r"^:::\{\w+\} (\.\./\S+)$", text, re.MULTILINE)
    assert [it for it in files if not (ROOT / "docs" / it).exists()] == []


def test_what_is_not_there_is_found() -> None:
    assert broken_links("[a](b.md) [c](#d) [e](LICENSE) [f](#g)\n## G\n") == [
        "b.md",
        "#d",
    ]
    assert missing_paths("`src/core/call.c` `src/core/none.c`") == ["src/core/none.c"]
    assert missing_targets("`make test` `make coffee`") == ["coffee"]


def test_contributing_lists_every_make_target() -> None:
    phony = re.search(r"^\.PHONY:(.*)$", text_of("Makefile"), re.MULTILINE)
    assert phony is not None
    rows = rows_under(text_of("CONTRIBUTING.md"), "| command |")
    stated = {unquoted(row[0]).removeprefix("make ") for row in rows}
    assert stated == set(phony[1].split()) - {"FORCE", "help", "clean", "system"}


def column() -> list[tuple[str, str]]:
    """Function and file of each line of the two columns in CONTRIBUTING.md."""
    columns = blocks("CONTRIBUTING.md", "text")
    assert len(columns) == 2
    lines = [line for block in columns for line in block.code.splitlines()[1:]]
    return [(line.split()[0], line.split()[1]) for line in lines]


@pytest.mark.parametrize(("function", "path"), column())
def test_column_names_the_real_code(function: str, path: str) -> None:
    pattern = rf"^(?:def )?{function}\("
    assert re.search(pattern, text_of(path), re.MULTILINE), f"{path}: no {function}"


def test_report_of_the_judge_is_explained(
    clean_env: dict[str, str],
) -> None:
    """CONTRIBUTING's own command; each line of its report has a row there."""
    (block,) = blocks("CONTRIBUTING.md", "sh")
    path = os.pathsep.join([str(Path(sys.executable).parent), clean_env["PATH"]])
    report = run(bash(block.code), {**clean_env, "PATH": path}, ROOT)
    rows = rows_under(text_of("CONTRIBUTING.md"), "| line |")
    explained = {name for row in rows for name in re.findall(r"`([\w -]+)`", row[0])}
    printed = set(
        re.findall(r"^  (\w+(?: \w+)*|over-cautious)  ", report, re.MULTILINE)
    )
    assert {"calls", "POSTs", "over-cautious"} <= printed <= explained
    assert explained <= printed | {"never drawn"}


def test_command_of_the_security_page(env: dict[str, str], tmp_path: Path) -> None:
    (block,) = blocks("SECURITY.md", "sh")
    assert str(espresso.__versions__) in run(bash(block.code), env, tmp_path)


# ---- the examples --------------------------------------------------------------------


def test_demo(clean_env: dict[str, str], tmp_path: Path) -> None:
    """It never uses the user's own key and host, and leaves nothing behind."""
    process = subprocess.Popen(
        [sys.executable, ROOT / "examples/demo.py"],
        env={
            **clean_env,
            "PYTHONPATH": str(ROOT),
            "TMPDIR": str(tmp_path),
            "DELTADEFI_API_KEY": "sandbox-of-the-user",
            "DELTADEFI_BASE_URL": espresso.MAINNET,
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        printed, _ = process.communicate(timeout=PATIENCE)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(PATIENCE)
    assert process.returncode == 0, printed
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
    assert list(tmp_path.iterdir()) == []
    check_demo_output(printed)


def check_demo_output(printed: str) -> None:
    assert max(len(line) for line in printed.splitlines()) < 80
    assert "sandbox-of-the-user" not in printed
    for line in filter(None, PYTHON[0].code.splitlines()):
        assert f"    >>> {line}\n" in printed
    story = [
        "Open orders now: ADAUSDM 2, NIGHTUSDM 1",
        "{'symbol': 'ADAUSDM', 'order_ids': ['",
        "Open orders now: ADAUSDM 0, NIGHTUSDM 1",
        "OrderNotFoundError: [4200]",
        "{'symbol': 'ADAUSDM', 'order_ids': []}",
        "AuthenticationError: [4010]",
        "TradingLockedError: [5002]",
        "timeout=2.0",
        "RequestTimeoutError: ",
        "outcome: unknown",
        "{'symbol': 'NIGHTUSDM', 'order_ids':",
        "Open orders now: ADAUSDM 0, NIGHTUSDM 0",
        "nothing is left running",
    ]
    at = 0
    for words in story:
        at = printed.index(words, at)
    took = re.search(r"It took (\d+\.\d+) s of at most 2\.00 s", printed)
    assert took is not None
    assert 1.5 < float(took[1]) < 2.0 + demo.PATIENCE


def test_demo_runs_what_the_readme_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "README.md"
    monkeypatch.setattr(demo, "README", other)
    other.write_text("```python\nprint(6 * 7)\n```\n```python\nprint(1)\n```\n")
    demo.run_example()
    assert capsys.readouterr().out.splitlines()[1:] == [
        "    >>> print(6 * 7)",
        "    42",
    ]
    other.write_text("nothing\n")
    with pytest.raises(SystemExit, match="no Python example"):
        demo.run_example()


def test_demo_notices_a_failure_that_does_not_come(exchange: Exchange) -> None:
    failure = demo.Failure("a", lambda it: None, "1 + 1", "b")
    with pytest.raises(SystemExit, match="was to fail"):
        demo.run_failure(failure, exchange)


def run_panic(env: Mapping[str, str], folder: Path) -> tuple[int, list[str]]:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples/panic.py")],
        env=dict(env),
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    return done.returncode, done.stdout.splitlines()


def test_panic_proves_that_nothing_is_open(
    exchange: Exchange, env: dict[str, str], tmp_path: Path
) -> None:
    exchange.place("ADAUSDM", 2)
    exchange.place("IAGUSDM", 1)
    assert run_panic(env, tmp_path) == (
        0,
        [
            "ADAUSDM: nothing open; 2 cancelled",
            "NIGHTUSDM: nothing open; 0 cancelled",
            "IAGUSDM: nothing open; 1 cancelled",
        ],
    )
    assert {call.symbol: call.status for call in exchange.calls} == dict.fromkeys(
        panic.SYMBOLS, 400
    )


def test_panic_says_what_is_not_certain(
    exchange: Exchange, env: dict[str, str], tmp_path: Path
) -> None:
    exchange.place("ADAUSDM", 1)
    exchange.fault("html_200", times=None)
    status, lines = run_panic(env, tmp_path)
    assert status == 1
    for line, symbol in zip(lines, panic.SYMBOLS, strict=True):
        assert line.startswith(f"{symbol}: MAY BE OPEN: ")
