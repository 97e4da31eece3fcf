/* dump.c - what the core makes of JSON texts, for differential.py.
 *
 * Reads, over and over, 4 bytes of length (little end first) and so many bytes
 * of text from stdin, and writes one line for each to stdout: `refused`,
 * `twice`, or what was read, in a form that needs no JSON to be compared:
 *
 *     n t f            null, true, false
 *     d<16 hex>        a number: the bits of the double
 *     s<hex>;          a string, as UTF-8
 *     [...] {s...;...} an array; an object, names and values in turn
 *
 * with `!` in front where a number is not one that a double holds. */
#include "fuzz.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void
put_string(const char *text)
{
    putchar('s');
    for (; *text != '\0'; text++)
        printf("%02x", (unsigned char)*text);
    putchar(';');
}

static void
put_number(double number)
{
    uint64_t bits;

    memcpy(&bits, &number, sizeof bits);
    printf("d%016" PRIx64, bits);
}

static void
put_value(const cJSON *item)
{
    const cJSON *child;

    if (cJSON_IsNull(item))
        putchar('n');
    else if (cJSON_IsBool(item))
        putchar(cJSON_IsTrue(item) ? 't' : 'f');
    else if (cJSON_IsNumber(item))
        put_number(item->valuedouble);
    else if (cJSON_IsString(item))
        put_string(item->valuestring);
    else {
        putchar(cJSON_IsArray(item) ? '[' : '{');
        cJSON_ArrayForEach(child, item) {
            if (cJSON_IsObject(item))
                put_string(child->string);
            put_value(child);
        }
        putchar(cJSON_IsArray(item) ? ']' : '}');
    }
}

static void
put_answer(const char *text, size_t length)
{
    cJSON *root;
    bool is_exact;

    switch (json_parse(text, length, &root, &is_exact)) {
    case JSON_OK:
        if (!is_exact)
            putchar('!');
        put_value(root);
        break;
    case JSON_REFUSED:
        printf("refused");
        break;
    case JSON_TWICE:
        printf("twice");
        break;
    case JSON_NO_MEMORY:
        printf("no memory");
        break;
    }
    putchar('\n');
    fflush(stdout); /* the other side waits for it */
    json_free(root);
}

static bool
read_whole(void *bytes, size_t length)
{
    return fread(bytes, 1, length, stdin) == length;
}

int
main(void)
{
    unsigned char head[4];
    size_t length;
    char *text;

    while (read_whole(head, sizeof head)) {
        length = head[0] | (size_t)head[1] << 8 | (size_t)head[2] << 16;
        text = malloc(length + 1); /* exactly what json_parse is promised */
        if (text == NULL || !read_whole(text, length))
            return 2;
        text[length] = '\0';
        put_answer(text, length);
        free(text);
    }
    return 0;
}
