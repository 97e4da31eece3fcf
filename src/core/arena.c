/* arena.c - the memory of one parsed reply, taken in a few chunks and given
 * back at once.
 *
 * cJSON asks for every item and every string by itself, and a reply of 10,000
 * ids is 20,000 of them.  Only where that cJSON is nobody else's
 * (ESP_PRIVATE_LIBRARIES): what it asks for memory is one for the whole
 * process.  The other builds leave each item to malloc, where valgrind and the
 * sanitizers see its bounds. */
#include "core.h"

#include <stdalign.h>
#include <stddef.h>
#include <stdlib.h>

/* A chunk of the usual reply holds all of it: five items and their strings. */
#define FIRST_BYTES 512
#define BYTES_PER_BYTE 3 /* of a list of UUIDs, with its items */

struct chunk {
    struct chunk *next;
    size_t size;
    size_t used;
    alignas(max_align_t) unsigned char bytes[];
};

/* Of the parse under way, which holds the parse lock (json.c). */
static struct chunk *newest;

static struct chunk *
chunk_new(size_t size)
{
    struct chunk *chunk = malloc(sizeof *chunk + size);

    if (chunk != NULL) {
        chunk->next = NULL;
        chunk->size = size;
        chunk->used = 0;
    }
    return chunk;
}

/* Make room for `size` bytes; false: no memory, and all is as before. */
static bool
grow(size_t size)
{
    size_t doubled = 2 * newest->size;
    struct chunk *chunk = chunk_new(size > doubled ? size : doubled);

    if (chunk == NULL)
        return false;
    newest->next = chunk;
    newest = chunk;
    return true;
}

static void *
take(size_t size)
{
    size_t unit = alignof(max_align_t);
    size_t rounded = (size + unit - 1) / unit * unit;
    void *bytes;

    if (rounded > newest->size - newest->used && !grow(rounded))
        return NULL;
    bytes = newest->bytes + newest->used;
    newest->used += rounded;
    return bytes;
}

/* All go together, in arena_free. */
static void
give_back_nothing(void *bytes)
{
    (void)bytes;
}

static void
free_chunks(struct chunk *chunk)
{
    while (chunk != NULL) {
        struct chunk *next = chunk->next;

        free(chunk);
        chunk = next;
    }
}

void
arena_init(void)
{
    cJSON_Hooks of_an_arena = {.malloc_fn = take,
                               .free_fn = give_back_nothing};

    cJSON_InitHooks(&of_an_arena);
}

cJSON *
arena_parse(const char *data, size_t size)
{
    struct chunk *first = chunk_new(FIRST_BYTES + BYTES_PER_BYTE * size);
    cJSON *root;

    if (first == NULL)
        return NULL;
    newest = first;
    root = cJSON_ParseWithLengthOpts(data, size, NULL, 1);
    newest = NULL;
    if (root == NULL)
        free_chunks(first);
    return root;
}

/* The root is what cJSON asks for first: it lies where its arena begins. */
void
arena_free(cJSON *root)
{
    unsigned char *bytes = (unsigned char *)root;

    if (root != NULL)
        free_chunks((void *)(bytes - offsetof(struct chunk, bytes)));
}
