/* preload.c - in front of the malloc of a whole program: each thread may let
 * one of its allocations fail.  See tests/test_torture.py. */
#include <errno.h>
#include <stddef.h>

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *old, size_t size);

static _Thread_local long until; /* allocations to the failure; 0: off */
static _Thread_local long refused;

/* Allocation `number` (from 1) of this thread fails; 0: none. */
void
torture_begin(long number)
{
    until = number;
    refused = 0;
}

/* No more failures; how many there were since torture_begin. */
long
torture_end(void)
{
    until = 0;
    return refused;
}

static int
is_refused(void)
{
    if (until == 0 || --until > 0)
        return 0;
    refused++;
    errno = ENOMEM;
    return 1;
}

void *
malloc(size_t size)
{
    return is_refused() ? NULL : __libc_malloc(size);
}

void *
calloc(size_t count, size_t size)
{
    return is_refused() ? NULL : __libc_calloc(count, size);
}

void *
realloc(void *old, size_t size)
{
    return is_refused() ? NULL : __libc_realloc(old, size);
}
