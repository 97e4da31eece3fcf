/* failing.h - allocations that fail on purpose, and a record of those that are
 * still there.
 *
 * Two kinds are numbered apart: what OpenSSL asks for, through its own hooks,
 * and everything else: the core, libcurl, cJSON, the C library.  There malloc,
 * calloc and realloc of this program stand before the system's.  Under the
 * address sanitizer, whose own malloc must stay, the linker puts them before
 * the core's calls (-Wl,--wrap), and libcurl and cJSON get them as hooks. */
#ifndef FAILING_H
#define FAILING_H

#include <stdbool.h>
#include <stddef.h>

enum origin { FROM_ALL_BUT_TLS, FROM_TLS, ORIGINS };

/* Take over; false: somebody was faster.  Before any of the libraries is used.
 * Allocations of all threads count: libcurl starts one for a name where it has
 * no memory to read an address.  Children are left alone. */
bool failing_init(void);

/* Allocation `number` (from 1) of `origin` fails and, if `all`, each one of
 * any origin after it. */
void failing_begin(enum origin origin, int number, bool all);

/* No more failures; true if there was one since failing_begin. */
bool failing_end(void);

/* Allocations of `origin` since failing_begin. */
int failing_count(enum origin origin);

/* How many more blocks are there than at failing_begin.  What OpenSSL keeps for
 * this thread is given back before, and a thread that nobody waits for any more
 * gets the time to end. */
int failing_grown(void);

/* Print those that were not there at failing_begin, by who asked for them. */
void failing_name_new(void);

#endif
