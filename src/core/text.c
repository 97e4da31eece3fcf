/* text.c - error texts and comparisons that no locale can change. */
#include "core.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

bool
error_set(struct esp_error *error, const char *format, ...)
{
    va_list arguments;

    error->kind = ESP_BAD_ARGUMENT;
    va_start(arguments, format);
    vsnprintf(error->message, sizeof error->message, format, arguments);
    va_end(arguments);
    return false;
}

bool
error_set_no_memory(struct esp_error *error)
{
    error_set(error, "out of memory");
    error->kind = ESP_NO_MEMORY;
    return false;
}

static char
lower(char byte)
{
    return byte >= 'A' && byte <= 'Z' ? (char)(byte - 'A' + 'a') : byte;
}

/* Bytes of `text` that write `byte`, as it is or as JSON may escape it; 0:
 * they write another. */
static size_t
written_length(const char *text, size_t length, char byte)
{
    static const char hex[] = "0123456789abcdef";
    const char escape[] = {'u', '0', '0', hex[byte >> 4 & 15], hex[byte & 15]};
    size_t i;

    if (length > 0 && text[0] == byte)
        return 1;
    if (length > 1 && text[0] == '\\' && text[1] == byte)
        return 2;
    if (length < 6 || text[0] != '\\')
        return 0;
    for (i = 0; i < sizeof escape; i++) {
        if (lower(text[i + 1]) != escape[i])
            return 0;
    }
    return 6;
}

/* Bytes at `text` that write all of `secret`; 0: they do not. */
static size_t
secret_length(const char *text, size_t length, const char *secret)
{
    size_t used = 0;
    size_t more;

    for (; *secret != '\0'; secret++) {
        more = written_length(text + used, length - used, *secret);
        if (more == 0)
            return 0;
        used += more;
    }
    return used;
}

size_t
text_copy_masked(char *out, size_t size, const char *text, size_t length,
                 const char *secret)
{
    size_t masked = 0; /* bytes of an occurrence still to be starred */
    size_t found;
    size_t i;

    for (i = 0; i < length && i + 1 < size; i++) {
        found =
            secret != NULL ? secret_length(text + i, length - i, secret) : 0;
        if (found > masked)
            masked = found;
        out[i] = masked > 0 ? '*' : text[i];
        if (masked > 0)
            masked--;
    }
    if (size > 0)
        out[i] = '\0';
    return i;
}

void
text_wipe(void *secret, size_t length)
{
    /* A volatile pointer to memset: explicit_bzero is not everywhere. */
    static void *(*const volatile set)(void *, int, size_t) = memset;

    set(secret, 0, length);
}

void
text_lower(char *text)
{
    for (; *text != '\0'; text++)
        *text = lower(*text);
}

bool
text_same_ignoring_case(const char *one, const char *other)
{
    while (*one != '\0' && lower(*one) == lower(*other)) {
        one++;
        other++;
    }
    return *one == '\0' && *other == '\0';
}
