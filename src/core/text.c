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

size_t
text_copy_masked(char *out, size_t size, const char *text, size_t length,
                 const char *secret)
{
    size_t secret_length = secret != NULL ? strlen(secret) : 0;
    size_t masked = 0; /* bytes of an occurrence still to be starred */
    size_t i;

    for (i = 0; i < length && i + 1 < size; i++) {
        if (secret_length > 0 && secret_length <= length - i &&
            memcmp(text + i, secret, secret_length) == 0)
            masked = secret_length;
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

static char
lower(char byte)
{
    return byte >= 'A' && byte <= 'Z' ? (char)(byte - 'A' + 'a') : byte;
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
