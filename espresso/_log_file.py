"""How the file of ``ESPRESSO_LOG_FILE`` is opened, by a program and by its watchdog."""

from __future__ import annotations

import os
import stat

APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT


def open_log(path: str, flags: int = APPEND) -> int:
    """A descriptor of the file, which is for the user alone.

    OSError for a symbolic link, or what is no plain file.
    """
    # Without O_NONBLOCK, opening a named pipe would wait for its reader.
    flags |= os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"not a regular file: {path!r}")
    return descriptor
