/* answer.c - see answer.h. */
#include "answer.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* A line without its end; *next is where the following one begins, NULL if
 * the line has no end. */
static size_t
line_length(const char *line, const char *end, const char **next)
{
    const char *stop = memchr(line, '\n', (size_t)(end - line));

    *next = stop != NULL ? stop + 1 : NULL;
    if (stop == NULL)
        stop = end;
    if (stop > line && stop[-1] == '\r')
        stop--;
    return (size_t)(stop - line);
}

static bool
is_digits(const char *text, size_t length)
{
    size_t i = 0;

    while (i < length && text[i] >= '0' && text[i] <= '9')
        i++;
    return length > 0 && i == length;
}

static void
read_status(struct answer *answer, const char *line, size_t length)
{
    bool is_http = length >= 12 && (memcmp(line, "HTTP/1.1 ", 9) == 0 ||
                                    memcmp(line, "HTTP/1.0 ", 9) == 0);

    answer->status = 0;
    answer->lengths = 0;
    answer->is_odd = false;
    answer->is_chunked = false;
    answer->length = 0;
    if (!is_http || !is_digits(line + 9, 3) ||
        (length > 12 && line[12] != ' '))
        answer->is_http = false;
    else
        answer->status =
            (line[9] - '0') * 100 + (line[10] - '0') * 10 + (line[11] - '0');
}

static void
trim(const char **text, size_t *length)
{
    while (*length > 0 && (**text == ' ' || **text == '\t')) {
        (*text)++;
        (*length)--;
    }
    while (*length > 0 && (*text)[*length - 1] > '\0' &&
           (*text)[*length - 1] <= ' ')
        (*length)--; /* but a NUL is no white space */
}

static void
read_field(struct answer *answer, const char *line, size_t length)
{
    static const char names[2][20] = {"Content-Length:", "Transfer-Encoding:"};
    bool is_encoding = (line[0] | 0x20) == 't';
    size_t name = strlen(names[is_encoding]);
    size_t i;

    if (line[0] == '\r')
        answer->is_http = false; /* to some readers the head ends here */
    if (length < name || strncasecmp(line, names[is_encoding], name) != 0)
        return;
    line += name;
    length -= name;
    trim(&line, &length);
    answer->lengths++;
    answer->is_chunked = is_encoding;
    if (is_encoding) {
        if (length != 7 || strncasecmp(line, "chunked", 7) != 0)
            answer->is_odd = true;
        return;
    }
    if (!is_digits(line, length) || length > 18) {
        answer->is_odd = true;
        return;
    }
    answer->length = 0;
    for (i = 0; i < length; i++)
        answer->length = answer->length * 10 + (size_t)(line[i] - '0');
}

/* One head, from its status line; the byte after it, NULL: not whole. */
static const char *
read_head(struct answer *answer, const char *line, const char *end)
{
    const char *next = NULL;
    size_t length;
    bool is_first = true;
    bool is_status;

    if (end - line < 5 || strncasecmp(line, "HTTP/", 5) != 0)
        answer->is_foreign = true;
    while (line < end) {
        length = line_length(line, end, &next);
        if (next == NULL)
            return NULL;
        if (length == 0 && !is_first)
            return next;
        is_status = length >= 5 && strncasecmp(line, "HTTP/", 5) == 0;
        if (is_first || is_status)
            read_status(answer, line, length);
        else
            read_field(answer, line, length);
        if (!is_first && is_status)
            answer->is_http = false; /* a head in the middle of a head */
        is_first = false;
        line = next;
    }
    return NULL;
}

void
answer_read(const char *bytes, size_t length, struct answer *answer)
{
    const char *end = bytes + length;
    const char *at = bytes;

    *answer = (struct answer){.is_http = true};
    do {
        at = read_head(answer, at, end);
    } while (at != NULL && answer->status >= 100 && answer->status < 200 &&
             answer->status != 101);
    answer->is_whole = at != NULL;
    answer->body = at != NULL ? (size_t)(at - bytes) : length;
}

/* ---- The body ----------------------------------------------------------- */

/* The size of a chunk; -1: no such line. */
static long
chunk_size(const char *line, size_t length)
{
    long size = 0;
    size_t i;
    char digit;

    for (i = 0; i < length; i++) {
        digit = line[i];
        if (digit >= '0' && digit <= '9')
            size = size * 16 + (digit - '0');
        else if ((digit | 0x20) >= 'a' && (digit | 0x20) <= 'f')
            size = size * 16 + ((digit | 0x20) - 'a' + 10);
        else
            break; /* an extension, or white space */
        if (size > 0x1000000)
            return -1;
    }
    return i > 0 ? size : -1;
}

/* What follows the last chunk: trailer lines, then an empty one. */
static const char *
skip_trailer(const char *at, const char *end)
{
    const char *next;
    size_t length;

    while (at < end) {
        length = line_length(at, end, &next);
        if (next == NULL || length == 0)
            return next;
        at = next;
    }
    return NULL;
}

/* The end of a chunked body, NULL: not whole; its bytes go to `out`. */
static const char *
join_chunks(const char *at, const char *end, char *out, size_t *out_length)
{
    const char *next;
    size_t length;
    long size;

    while (at < end) {
        length = line_length(at, end, &next);
        size = next != NULL ? chunk_size(at, length) : -1;
        if (size < 0)
            return NULL;
        if (size == 0)
            return skip_trailer(next, end);
        if (size > end - next)
            return NULL;
        memcpy(out + *out_length, next, (size_t)size);
        *out_length += (size_t)size;
        at = next + size;
        if (at == end || line_length(at, end, &next) != 0 || next == NULL)
            return NULL;
        at = next;
    }
    return NULL;
}

char *
answer_body(const char *bytes, size_t length, const struct answer *answer,
            size_t *body_length, size_t *used)
{
    const char *start = bytes + answer->body;
    size_t left = length - answer->body;
    const char *end = NULL;
    char *body;

    *body_length = 0;
    if (!answer->is_whole || answer->lengths != 1 || answer->is_odd)
        return NULL;
    body = malloc(left + 1);
    if (body == NULL)
        abort();
    if (answer->is_chunked) {
        end = join_chunks(start, bytes + length, body, body_length);
    }
    else if (answer->length <= left) {
        memcpy(body, start, answer->length);
        *body_length = answer->length;
        end = start + answer->length;
    }
    if (end == NULL) {
        free(body);
        return NULL;
    }
    *used = (size_t)(end - bytes);
    return body;
}
