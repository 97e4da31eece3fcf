/* replies.h - the raw answers that the sandbox serves, for the C tests. */
#ifndef REPLIES_H
#define REPLIES_H

#include "core.h"

#define REPLIES "espresso/sandbox/replies" /* from the repository's root */

/* A whole HTTP/1.1 answer, as bytes and as what the lane would make of it. */
struct reply {
    char *raw; /* with a final NUL */
    size_t length;
    struct esp_response response; /* owns its body */
};

/* Read reply `name` (without `.http`); false: no such file, or not an HTTP
 * answer.  Free with reply_free, also after a failure. */
bool reply_load(const char *name, struct reply *reply);

void reply_free(struct reply *reply);

/* Call `visit` with the name of each reply; returns their count. */
int replies_each(void (*visit)(const char *name, void *user), void *user);

#endif
