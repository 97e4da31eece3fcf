/* contract.c - see contract.h. */
#include "contract.h"

#include <stddef.h>

static bool
is_in(int value, const int *values, size_t count)
{
    while (count > 0 && values[count - 1] != value)
        count--;
    return count > 0;
}

bool
contract_refuses_by_code(int code)
{
    static const int codes[] = {4000, 4010, 4106, 4200, 4290,
                                4400, 4404, 4405, 4406, 5002};

    return is_in(code, codes, sizeof codes / sizeof *codes);
}

bool
contract_refuses_by_status(int status)
{
    static const int statuses[] = {401, 403, 404, 405, 413, 415, 429, 431};

    return is_in(status, statuses, sizeof statuses / sizeof *statuses) ||
           (status >= 300 && status < 400);
}
