"""The command line: ``espresso`` and ``python -m espresso``.

Each verb is one entry of `_VERBS` and one module, which is imported when that verb
runs, so that none waits for the others. A module of a verb has

    add_arguments(parser)   tells argparse what it takes
    run(arguments) -> int   does it and returns the exit status

and may have ``parse(parser, words, namespace)``, where argparse's usual way will not
do, and ``plain(words)``, which returns the arguments where nothing is left to
parse, and else None: argparse and what it imports take as long as half a start of the
interpreter, and whoever presses the panic button waits for them.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, HelpFormatter, Namespace
    from collections.abc import Iterable, Sequence
    from types import ModuleType
    from typing import NoReturn, TextIO

__all__ = ["main"]

OK = 0
MAY_BE_OPEN = 1  # a request may have been carried out, or not
USAGE = 2  # bad arguments, a missing extra, a port that is taken: nothing was done
REFUSED = 3
AGAIN = 4  # not carried out, and worth another try
INTERRUPTED = 130  # by Ctrl-C, as shells have it: 128 + SIGINT

LINE = 79  # columns that a terminal has at least

# name: (one line for the list of verbs, its module)
_VERBS = {
    "cancel-all": (
        "Cancel all open orders of symbols, until the exchange says so.",
        "_cli_cancel",
    ),
    "doctor": (
        "Check installation, key and connection; cancel nothing.",
        "_cli_doctor",
    ),
    "guard": (
        "Run a program, and cancel when it ends, however it does.",
        "_cli_guard",
    ),
    "sandbox": (
        "Run a practice exchange on this machine until Ctrl-C.",
        "_cli_sandbox",
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit status.

    Args:
        argv: the arguments after the program's name; None for the process's own.

    Raises:
        SystemExit: 2 for bad arguments, 0 for ``--help``; the text is on stderr,
            or stdout.
    """
    _fill_standard_descriptors()
    words = sys.argv[1:] if argv is None else list(argv)
    try:
        if not words or words[0] not in _VERBS:
            _complain_of_verb(words)
        return _run(words[0], words[1:])
    except KeyboardInterrupt:
        return INTERRUPTED


def _run(name: str, words: list[str]) -> int:
    module = _module_of(name)
    plain = getattr(module, "plain", None)
    arguments = None if plain is None else plain(words)
    if arguments is None:
        arguments = _parse(name, module, words)
    status: int = module.run(arguments)
    return status


def _module_of(name: str) -> ModuleType:
    """The module of a verb; `importlib` would cost more than most of them."""
    module: ModuleType = __import__(
        _VERBS[name][1], globals(), locals(), ["run"], level=1
    )
    return module


# ---- argparse ------------------------------------------------------------------------


def _parse(name: str, module: ModuleType, words: list[str]) -> object:
    import argparse

    parser = argparse.ArgumentParser(
        prog=f"espresso {name}",
        description=_VERBS[name][0],
        # A long option that is cut short would change its meaning with the next one
        # that begins alike; in a runbook it must not.
        allow_abbrev=False,
        formatter_class=_formatter,
    )
    module.add_arguments(parser)
    _refuse_key(parser, words)
    # A class of arguments that holds the defaults itself.
    namespace = getattr(module, "Arguments", argparse.Namespace)()
    parse = getattr(module, "parse", _parse_intermixed)
    return parse(parser, words, namespace)


def _parse_intermixed(
    parser: ArgumentParser, words: list[str], namespace: Namespace
) -> object:
    """Options may stand between and after the names; what is unknown is not quoted
    beyond its name, since a key may have been meant for it."""
    arguments, unknown = parser.parse_known_intermixed_args(words, namespace)
    if unknown:
        names = [word.partition("=")[0] for word in unknown if word.startswith("-")]
        parser.error(f"unknown option {names[0]}" if names else "unknown arguments")
    return arguments


def _refuse_key(parser: ArgumentParser, words: list[str]) -> None:
    """Say why no option takes the key, without repeating what followed it."""
    for word in words:
        name = word.partition("=")[0].strip("-").replace("-", "").replace("_", "")
        if word.startswith("-") and name.lower() in ("key", "apikey", "k"):
            parser.error(
                "a key is no argument, since other users can read those: set "
                "DELTADEFI_API_KEY, or name a file in --api-key-file. If it was a "
                "real key, it may be in your shell's history now: withdraw it"
            )


def _formatter(prog: str) -> HelpFormatter:
    """Help of one width: to ask for the terminal's, which argparse does for each
    argument that is added, loads four compression libraries."""
    from argparse import RawDescriptionHelpFormatter

    return RawDescriptionHelpFormatter(prog, width=LINE)


def _complain_of_verb(words: list[str]) -> NoReturn:
    """Print help, version or what is wrong with these words, and exit."""
    import argparse

    parser = argparse.ArgumentParser(
        prog="espresso",
        usage="espresso [-h] [--version] VERB ...",
        description="The cancel-everything button for DeltaDeFi.",
        epilog=_list_of_verbs(),
        allow_abbrev=False,
        formatter_class=_formatter,
    )
    parser.add_argument("--version", action="version", version=_version())
    parser.add_argument("VERB", choices=_VERBS, help=argparse.SUPPRESS)
    verb = next((word for word in words if word in _VERBS), None)
    if verb is not None:
        parser.error(f"options come after the verb: espresso {verb} ...")
    parser.parse_args(words)
    raise AssertionError("argparse has let an unknown verb pass")


def _list_of_verbs() -> str:
    verbs = [f"  {name:12}{_VERBS[name][0]}" for name in _VERBS]
    return "\n".join(
        [
            "verbs:",
            *verbs,
            "",
            "The key is read from DELTADEFI_API_KEY, or from a file; it is never an",
            "argument. `espresso VERB --help` says what a verb takes.",
        ]
    )


def _version() -> str:
    from . import __version__

    return f"espresso {__version__}"


# ---- what every verb says ------------------------------------------------------------


def complain(verb: str, error: object) -> int:
    """Say on stderr why nothing was done; the exit status for it."""
    tell(f"espresso {verb}: error: {error}")
    return USAGE


def tell(text: str) -> bool:
    """Write a line to stderr; see `write`."""
    return write(sys.stderr, f"{text}\n")


def say(text: str) -> None:
    """Write lines of the result to stdout; where that is not possible, to stderr."""
    if not write(sys.stdout, f"{text}\n"):
        tell(f"espresso: stdout takes nothing; what it was to say:\n{text}")


def folded(head: str, words: Iterable[str]) -> str:
    """The words behind the head, in lines that no terminal breaks.

    There is room for ``espresso: `` before the head, and lines that follow keep clear
    of it.
    """
    lines = [head]
    for word in (word if word.isprintable() else ascii(word) for word in words):
        if len(lines[-1]) + 1 + len(word) > LINE - len("espresso: "):
            lines.append(" " * len("espresso:"))
        lines[-1] += f" {word}"
    return "\n".join(lines)


def write(stream: TextIO | None, text: str) -> bool:
    """Write in any locale, and whatever has become of the stream.

    False: it is closed, its reader has gone, or its disk is full; it then leads to
    nowhere, so that the interpreter, which flushes it at the end, does not put a
    status of its own in place of ours.
    """
    if stream is None:
        return False
    try:
        encoding = stream.encoding or "utf-8"
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        stream.flush()
    except (OSError, ValueError):
        _lead_to_nowhere(stream)
        return False
    return True


def _lead_to_nowhere(stream: TextIO) -> None:
    nowhere = _open_nowhere()
    if nowhere is None:
        return
    try:
        os.dup2(nowhere, stream.fileno())
    except (OSError, ValueError):
        pass  # a stream without a descriptor
    finally:
        os.close(nowhere)


def _open_nowhere() -> int | None:
    """A descriptor of /dev/null; None where there is none to be had."""
    try:
        return os.open(os.devnull, os.O_RDWR)
    except OSError:
        return None


def _fill_standard_descriptors() -> None:
    """Give 0, 1 and 2 to nobody else: a socket there would get what we print."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            _open_nowhere()  # the lowest that is free: this one
