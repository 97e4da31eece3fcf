"""The key of ``--api-key-file``: a file, a pipe, or stdin."""

from __future__ import annotations

import os
import stat

from . import _core
from .errors import ConfigError

SHORT = 12  # characters: what is longer, and no path, could be a key

TYPE_CHECKING = False
if TYPE_CHECKING:
    from io import BufferedReader

READ_MOST = 4096  # bytes: no key is so long, and no file is read for ever


def read_key(name: str) -> str:
    """The key in the file, without its final newline.

    Args:
        name: a path; ``-`` for stdin, which must not be a terminal: nobody is asked
            for anything.

    Raises:
        ConfigError: it cannot be read, or holds no key; the message names the file
            and quotes nothing of it.
    """
    shown = shown_name(name)
    data, text = b"", ""
    try:
        with _opened(name) as file:
            data = file.read(READ_MOST)
        text = data.removesuffix(b"\n").removesuffix(b"\r").decode("latin-1")
        _core.Key(text)  # refuses what is no key, and quotes nothing of it
        return text
    except OSError as error:
        raise ConfigError(f"API key: {shown}: {error.strerror}") from None
    except ConfigError as error:
        raise ConfigError(f"{shown}: {error}") from None
    finally:
        del data, text


def shown_name(name: str) -> str:
    """The name as it may be shown: some will type the key itself in its place."""
    if name == "-":
        return "stdin"
    is_path = os.path.exists(name) or "/" in name or "." in name
    return name if is_path or len(name) < SHORT else "the file that was named"


def _opened(name: str) -> BufferedReader:
    if name != "-":
        return open(name, "rb")
    if os.isatty(0):
        raise ConfigError("it is a terminal, and nobody is asked: pipe the key in")
    return open(0, "rb", closefd=False)


def warning_of(name: str) -> str:
    """A line about a file that other users can read; else an empty text."""
    try:
        mode = 0 if name == "-" else os.stat(name).st_mode
    except OSError:  # gone by now
        mode = 0
    if stat.S_ISREG(mode) and mode & (stat.S_IRGRP | stat.S_IROTH):
        return f"warning: other users can read the key; run: chmod 600 {name}\n"
    return ""
