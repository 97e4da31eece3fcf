/* contract.h - the contract's lists of what is certain, written down once
 * more: not made from codes.def or the tables of reply.c. */
#ifndef CONTRACT_H
#define CONTRACT_H

#include <stdbool.h>

/* Whether the API's code says that nothing was cancelled. */
bool contract_refuses_by_code(int code);

/* Whether an HTTP status says so, where there is no code. */
bool contract_refuses_by_status(int status);

#endif
