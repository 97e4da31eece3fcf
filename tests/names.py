"""A resolver of our own, for child processes: it knows what a test tells it.

Names that it was not told are not found, and no question leaves the machine.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import espresso
from tests.children import preloaded

_PATIENCE = 30.0  # seconds

LIBCURL = tuple(map(int, espresso.__versions__["libcurl"].split(".")[:2]))
QUESTIONS = 1 if LIBCURL < (8, 20) else 2
"""Of one look-up: later libcurls ask for IPv4 and IPv6 apart."""

# KNOWN_NAMES is "name=address+address,name=address"; the addresses of a name come
# in one list, in that order. What is an address already is passed on. Of each question
# a byte goes to KNOWN_NOTES, and the answer takes KNOWN_DELAY milliseconds.
_STUB = r"""
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

typedef int lookup(const char *, const char *, const struct addrinfo *,
                   struct addrinfo **);

static const char *
addresses_of(const char *node)
{
    const char *at = getenv("KNOWN_NAMES");
    size_t length = strlen(node);

    while (at != NULL && *at != '\0') {
        if (strncmp(at, node, length) == 0 && at[length] == '=')
            return at + length + 1;
        at = strchr(at, ',');
        at = at != NULL ? at + 1 : NULL;
    }
    return NULL;
}

static void
take_note(void)
{
    int fd = open(getenv("KNOWN_NOTES"), O_WRONLY | O_CREAT | O_APPEND, 0600);
    long delay = atol(getenv("KNOWN_DELAY"));
    struct timespec pause = {delay / 1000, delay % 1000 * 1000000};

    if (fd < 0 || write(fd, ".", 1) != 1)
        abort();
    close(fd);
    nanosleep(&pause, NULL);
}

int
getaddrinfo(const char *node, const char *service,
            const struct addrinfo *hints, struct addrinfo **result)
{
    lookup *real = (lookup *)dlsym(RTLD_NEXT, "getaddrinfo");
    struct addrinfo **last = result;
    struct in6_addr raw;
    const char *at;
    char address[64];
    size_t length;

    if (node == NULL || inet_pton(AF_INET, node, &raw) == 1 ||
        inet_pton(AF_INET6, node, &raw) == 1)
        return real(node, service, hints, result);
    take_note();
    *result = NULL;
    for (at = addresses_of(node); at != NULL && *at != '\0' && *at != ',';
         at += length + (at[length] == '+')) {
        length = strcspn(at, "+,");
        if (length >= sizeof address)
            abort();
        memcpy(address, at, length);
        address[length] = '\0';
        if (real(address, service, hints, last) == 0)
            while (*last != NULL)
                last = &(*last)->ai_next;
    }
    return *result != NULL ? 0 : EAI_NONAME;
}
"""


class KnownNames:
    """The environment for children in which just these names are found.

    Args:
        folder: an empty one, for the library that is preloaded.
    """

    supported = sys.platform == "linux"  # elsewhere LD_PRELOAD is no such thing

    def __init__(self, folder: Path) -> None:
        source = folder / "names.c"
        source.write_text(_STUB)
        self._library = folder / "names.so"
        self._notes = folder / "notes"
        command = ["cc", "-shared", "-fPIC", "-o", str(self._library), str(source)]
        subprocess.run([*command, "-ldl"], check=True, timeout=_PATIENCE)

    def env(
        self, known: Mapping[str, Sequence[str]], delay: float = 0.0
    ) -> dict[str, str]:
        """`delay`: seconds that each answer takes."""
        names = (f"{name}={'+'.join(known[name])}" for name in known)
        return {
            "LD_PRELOAD": preloaded(self._library),
            "KNOWN_NAMES": ",".join(names),
            "KNOWN_NOTES": str(self._notes),
            "KNOWN_DELAY": str(round(1000 * delay)),
        }

    @property
    def count(self) -> int:
        """Look-ups so far; an answer for IPv4 and IPv6 at once counts as one."""
        return self._notes.stat().st_size if self._notes.exists() else 0
