"""What stands in for functions of the C library in a child process (LD_PRELOAD).

Each is switched on by a variable of the child's environment; without it the real
function is called.
"""

from __future__ import annotations

import atexit
import functools
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

SUPPORTED = sys.platform == "linux"  # elsewhere LD_PRELOAD is no such thing

_PATIENCE = 30.0  # seconds

# STUB_DNS: the error of every look-up of a name, or "hang": it never ends.
# STUB_NAME, STUB_ADDRESSES: this name is found, and has these two addresses ("a+b").
# STUB_NO_THREAD: none starts.
# STUB_NO_MEMORY: while a TCP connection is open, no block of 16 KiB or more is had.
# STUB_CLOCK: "wall" or "boot": while the file STUB_CLOCK_JUMPED is there, this
# clock is a day ahead.
_SOURCE = r"""
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <netdb.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);

#define LARGE 16384
#define DAY 86400

static atomic_int scarce_since = -1; /* the socket of the connection */

static int
is_set(const char *name, const char *value)
{
    const char *given = getenv(name);

    return given != NULL && (value == NULL || strcmp(given, value) == 0);
}

typedef int lookup(const char *, const char *, const struct addrinfo *,
                   struct addrinfo **);

static int
found(lookup *real, const char *service, const struct addrinfo *hints,
      struct addrinfo **result)
{
    const char *both = getenv("STUB_ADDRESSES");
    const char *second = strchr(both, '+');
    char first[64] = "";
    int failed;

    strncpy(first, both, second != NULL ? (size_t)(second - both) : strlen(both));
    failed = real(first, service, hints, result);
    while (failed == 0 && second != NULL && *result != NULL) {
        while (*result != NULL)
            result = &(*result)->ai_next;
        failed = real(second + 1, service, hints, result);
        second = NULL;
    }
    return failed;
}

int
getaddrinfo(const char *node, const char *service,
            const struct addrinfo *hints, struct addrinfo **result)
{
    lookup *real = (lookup *)dlsym(RTLD_NEXT, "getaddrinfo");
    struct in6_addr raw;

    if (node != NULL && is_set("STUB_NAME", node))
        return found(real, service, hints, result);
    if (!is_set("STUB_DNS", NULL) || node == NULL ||
        inet_pton(AF_INET, node, &raw) == 1)
        return real(node, service, hints, result);
    while (is_set("STUB_DNS", "hang"))
        sleep(1);
    return is_set("STUB_DNS", "SERVFAIL") ? EAI_AGAIN : EAI_NONAME;
}

int
pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
               void *(*start)(void *), void *argument)
{
    int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *) =
        dlsym(RTLD_NEXT, "pthread_create");

    if (is_set("STUB_NO_THREAD", NULL))
        return EAGAIN;
    return real(thread, attributes, start, argument);
}

int
connect(int fd, const struct sockaddr *address, socklen_t length)
{
    int (*real)(int, const struct sockaddr *, socklen_t) =
        dlsym(RTLD_NEXT, "connect");

    if (is_set("STUB_NO_MEMORY", NULL) && address->sa_family == AF_INET)
        atomic_store(&scarce_since, fd);
    return real(fd, address, length);
}

int
close(int fd)
{
    int (*real)(int) = dlsym(RTLD_NEXT, "close");
    int open = fd;

    if (fd >= 0)
        atomic_compare_exchange_strong(&scarce_since, &open, -1);
    return real(fd);
}

static int
is_refused(size_t size)
{
    if (size < LARGE || atomic_load(&scarce_since) < 0)
        return 0;
    errno = ENOMEM;
    return 1;
}

void *
malloc(size_t size)
{
    return is_refused(size) ? NULL : __libc_malloc(size);
}

void *
calloc(size_t count, size_t size)
{
    return is_refused(count * size) ? NULL : __libc_calloc(count, size);
}

void *
realloc(void *block, size_t size)
{
    return is_refused(size) ? NULL : __libc_realloc(block, size);
}

static time_t
leap(const char *clock)
{
    const char *file = getenv("STUB_CLOCK_JUMPED");

    return is_set("STUB_CLOCK", clock) && access(file, F_OK) == 0 ? DAY : 0;
}

int
clock_gettime(clockid_t id, struct timespec *now)
{
    int (*real)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(id, now);

    if (id == CLOCK_REALTIME)
        now->tv_sec += leap("wall");
    if (id == CLOCK_BOOTTIME)
        now->tv_sec += leap("boot");
    return result;
}

int
gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    int (*real)(struct timeval *, void *) = dlsym(RTLD_NEXT, "gettimeofday");
    int result = real(now, zone);

    now->tv_sec += leap("wall");
    return result;
}

time_t
time(time_t *at)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    if (at != NULL)
        *at = now.tv_sec;
    return now.tv_sec;
}
"""


@functools.cache
def _built() -> str:
    folder = tempfile.mkdtemp(prefix="espresso-stubs-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    source, library = Path(folder, "stubs.c"), Path(folder, "stubs.so")
    source.write_text(_SOURCE)
    command = ["cc", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"]
    subprocess.run(command, check=True, timeout=_PATIENCE)
    return str(library)


def environment(**variables: str) -> dict[str, str]:
    """What a child needs for the stubs that these variables switch on."""
    with _LOCK:
        library = _built()
    return {"LD_PRELOAD": library, **variables}


_LOCK = threading.Lock()
