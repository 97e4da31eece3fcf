/* unit.h - cmocka, the headers it wants, and a check that names its row. */
#ifndef UNIT_H
#define UNIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core.h"

/* A row of a table fails with its own name, not only with a line number. */
#define CHECK(row, condition)                                                 \
    do {                                                                      \
        if (!(condition))                                                     \
            fail_msg("%s: %s", (row), #condition);                            \
    } while (0)

#define COUNT_OF(array) (sizeof(array) / sizeof *(array))

#endif
