/* buffer.c - bytes that grow up to a ceiling they were born with. */
#include "core.h"

#include <stdlib.h>
#include <string.h>

/* Enough for a handful of order ids, so that most replies need one malloc. */
#define BUFFER_FIRST 1024

void
buffer_init(struct esp_buffer *buffer, size_t ceiling)
{
    *buffer = (struct esp_buffer){.ceiling = ceiling};
}

/* Make room for `length` bytes and a NUL, at least doubling. */
static bool
buffer_reserve(struct esp_buffer *buffer, size_t length)
{
    size_t capacity = buffer->capacity ? buffer->capacity : BUFFER_FIRST;
    char *data;

    while (capacity < length + 1)
        capacity *= 2;
    if (capacity == buffer->capacity)
        return true;
    data = realloc(buffer->data, capacity);
    if (data == NULL)
        return false;
    buffer->data = data;
    buffer->capacity = capacity;
    return true;
}

enum buffer_result
buffer_append(struct esp_buffer *buffer, const char *bytes, size_t length)
{
    if (length > buffer->ceiling - buffer->length)
        return BUFFER_TOO_LARGE;
    if (!buffer_reserve(buffer, buffer->length + length))
        return BUFFER_NO_MEMORY;
    memcpy(buffer->data + buffer->length, bytes, length);
    buffer->length += length;
    buffer->data[buffer->length] = '\0';
    return BUFFER_OK;
}

void
buffer_reset(struct esp_buffer *buffer, size_t kept)
{
    if (buffer->capacity > kept)
        buffer_free(buffer);
    buffer->length = 0;
    if (buffer->data != NULL)
        buffer->data[0] = '\0';
}

void
buffer_free(struct esp_buffer *buffer)
{
    free(buffer->data);
    buffer->data = NULL;
    buffer->length = 0;
    buffer->capacity = 0;
}
