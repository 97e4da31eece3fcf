/* answer.h - an independent reading of the bytes of an HTTP/1.1 answer.
 *
 * Strict where the core must be: what it leaves in doubt may not be called
 * a success.  It shares no code with callbacks.c or libcurl. */
#ifndef ANSWER_H
#define ANSWER_H

#include <stdbool.h>
#include <stddef.h>

struct answer {
    bool is_whole;   /* the empty line after the last head is there */
    bool is_http;    /* every status line is `HTTP/1.0 NNN` or 1.1 */
    bool is_foreign; /* a head begins with anything but HTTP/ */
    int status;      /* of the last head; 0: none */
    int lengths;     /* its Content-Length and Transfer-Encoding lines */
    bool is_odd;     /* it leaves a doubt about where the body is */
    bool is_chunked; /* the last of them */
    size_t length;   /* ... or this */
    size_t body;     /* where the body begins */
};

/* Read all heads: those of 1xx answers, but 101, are followed by another. */
void answer_read(const char *bytes, size_t length, struct answer *answer);

/* The body of a whole answer whose framing is in no doubt, to be freed; NULL:
 * it is not there, or not whole.  *used: where it ends in `bytes`. */
char *answer_body(const char *bytes, size_t length,
                  const struct answer *answer, size_t *body_length,
                  size_t *used);

#endif
