/* test_arena.c - a reply's memory in a few chunks: where malloc refuses, too. */
#include "unit.h"

#include <stdalign.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define MANY 100000

/* The linker puts it before the core's calls of malloc (see the Makefile). */
void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);

static int until; /* allocations to the one that fails; 0: none does */
static int asked; /* how often malloc was called */

void *
__wrap_malloc(size_t size)
{
    asked++;
    if (until > 0 && --until == 0)
        return NULL;
    return __real_malloc(size);
}

static int
init_once(void **state)
{
    (void)state;
    arena_init();
    return 0;
}

static cJSON *
parse(const char *text)
{
    asked = 0;
    return arena_parse(text, strlen(text) + 1);
}

/* `[0,1,2,...]`: far more bytes of items than of text. */
static char *
many_numbers(void)
{
    char *text = malloc(MANY * 8);
    char *at = text;
    int i;

    assert_non_null(text);
    for (i = 0; i < MANY; i++)
        at += sprintf(at, "%c%d", i == 0 ? '[' : ',', i);
    memcpy(at, "]", 2);
    return text;
}

static void
test_usual_reply(void **state)
{
    cJSON *root = parse("{\"message\":\"All open orders cancelled\","
                        "\"order_ids\":"
                        "[\"6d0c2a9e-71ec-4d2c-8d52-0f6b1c6f6a11\","
                        "\"0b1c6f6a-71ec-4d2c-8d52-6d0c2a9e11aa\"]}");
    const cJSON *ids = cJSON_GetObjectItemCaseSensitive(root, "order_ids");

    (void)state;
    assert_int_equal(asked, 1); /* what it is for */
    assert_int_equal(cJSON_GetArraySize(ids), 2);
    assert_string_equal(ids->child->next->valuestring,
                        "0b1c6f6a-71ec-4d2c-8d52-6d0c2a9e11aa");
    arena_free(root);
}

static void
test_many_chunks(void **state)
{
    char *text = many_numbers();
    cJSON *root = parse(text);
    const cJSON *item;
    int count = 0;

    (void)state;
    assert_non_null(root);
    assert_in_range(asked, 2, 10);
    cJSON_ArrayForEach(item, root) {
        assert_int_equal((size_t)item % alignof(max_align_t), 0);
        assert_int_equal(item->valueint, count);
        count++;
    }
    assert_int_equal(count, MANY);
    arena_free(root);
    free(text);
}

/* Two replies at once, as a list has them; the first to come goes last. */
static void
test_two_arenas(void **state)
{
    cJSON *first = parse("{\"a\":\"one\"}");
    cJSON *second = parse("[\"two\"]");

    (void)state;
    arena_free(second);
    assert_string_equal(first->child->string, "a");
    assert_string_equal(first->child->valuestring, "one");
    arena_free(first);
    arena_free(NULL);
}

/* Refused in the middle: valgrind and ASan see what is not given back. */
static void
test_refused(void **state)
{
    static const char *const texts[] = {"", "[1,2", "{\"a\":[\"b\",nul]}",
                                        "[1] x"};
    size_t i;

    (void)state;
    for (i = 0; i < COUNT_OF(texts); i++)
        assert_null(parse(texts[i]));
}

static void
test_no_memory(void **state)
{
    char *text = many_numbers();
    cJSON *root = NULL;
    int number = 0;

    (void)state;
    while (root == NULL) {
        until = ++number;
        root = parse(text);
        assert_true(root != NULL || asked == number);
    }
    until = 0;
    assert_in_range(number, 3, 10); /* each chunk was refused once */
    arena_free(root);
    free(text);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_usual_reply), cmocka_unit_test(test_many_chunks),
        cmocka_unit_test(test_two_arenas),  cmocka_unit_test(test_refused),
        cmocka_unit_test(test_no_memory),
    };

    return cmocka_run_group_tests(tests, init_once, NULL);
}
