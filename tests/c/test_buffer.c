/* test_buffer.c - bytes that grow up to a ceiling. */
#include "unit.h"

#include <stdlib.h>
#include <string.h>

static void
test_starts_empty(void **state)
{
    struct esp_buffer buffer;

    (void)state;
    buffer_init(&buffer, 10);
    assert_null(buffer.data);
    assert_int_equal(buffer.length, 0);
    assert_int_equal(buffer.ceiling, 10);
    buffer_reset(&buffer, 0); /* of nothing: nothing */
    buffer_free(&buffer);
    buffer_free(&buffer); /* twice is fine */
}

static void
test_ends_with_nul(void **state)
{
    struct esp_buffer buffer;

    (void)state;
    buffer_init(&buffer, 100);
    assert_int_equal(buffer_append(&buffer, "", 0), BUFFER_OK);
    assert_string_equal(buffer.data, "");
    assert_int_equal(buffer_append(&buffer, "abc", 3), BUFFER_OK);
    assert_int_equal(buffer_append(&buffer, "d", 1), BUFFER_OK);
    assert_string_equal(buffer.data, "abcd");
    assert_int_equal(buffer.length, 4);
    buffer_free(&buffer);
}

/* Up to the ceiling and not a byte more; what is refused changes nothing. */
static void
test_ceiling(void **state)
{
    static const struct {
        const char *name;
        size_t first;
        size_t second;
        enum buffer_result result;
    } rows[] = {
        {"exactly full", 6, 4, BUFFER_OK},
        {"one too many", 6, 5, BUFFER_TOO_LARGE},
        {"full, then nothing", 10, 0, BUFFER_OK},
        {"full, then one", 10, 1, BUFFER_TOO_LARGE},
        {"overflowing sum", 6, SIZE_MAX, BUFFER_TOO_LARGE},
    };
    struct esp_buffer buffer;
    size_t expected;
    size_t i;

    (void)state;
    for (i = 0; i < COUNT_OF(rows); i++) {
        buffer_init(&buffer, 10);
        CHECK(rows[i].name, buffer_append(&buffer, "0123456789",
                                          rows[i].first) == BUFFER_OK);
        CHECK(rows[i].name, buffer_append(&buffer, "0123456789",
                                          rows[i].second) == rows[i].result);
        expected =
            rows[i].first + (rows[i].result == BUFFER_OK ? rows[i].second : 0);
        CHECK(rows[i].name, buffer.length == expected);
        CHECK(rows[i].name, buffer.data[expected] == '\0');
        buffer_free(&buffer);
    }
}

static void
test_grows_to_the_ceiling_of_a_reply(void **state)
{
    struct esp_buffer buffer;
    char piece[4096];
    size_t i;

    (void)state;
    memset(piece, 'x', sizeof piece);
    buffer_init(&buffer, ESP_BODY_MAX);
    for (i = 0; i < ESP_BODY_MAX / sizeof piece; i++)
        assert_int_equal(buffer_append(&buffer, piece, sizeof piece),
                         BUFFER_OK);
    assert_int_equal(buffer.length, ESP_BODY_MAX);
    assert_int_equal(buffer_append(&buffer, "x", 1), BUFFER_TOO_LARGE);
    assert_int_equal(strlen(buffer.data), ESP_BODY_MAX);
    buffer_free(&buffer);
}

static void
test_reset(void **state)
{
    struct esp_buffer buffer;
    const char *kept;

    (void)state;
    buffer_init(&buffer, ESP_BODY_MAX);
    assert_int_equal(buffer_append(&buffer, "abc", 3), BUFFER_OK);
    kept = buffer.data;
    buffer_reset(&buffer, ESP_BUFFER_KEPT_MAX);
    assert_ptr_equal(buffer.data, kept);
    assert_int_equal(buffer.length, 0);
    assert_string_equal(buffer.data, "");
    buffer_reset(&buffer, 10); /* more than that is given back */
    assert_null(buffer.data);
    assert_int_equal(buffer.capacity, 0);
    assert_int_equal(buffer_append(&buffer, "x", 1), BUFFER_OK);
    buffer_free(&buffer);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_starts_empty),
        cmocka_unit_test(test_ends_with_nul),
        cmocka_unit_test(test_ceiling),
        cmocka_unit_test(test_grows_to_the_ceiling_of_a_reply),
        cmocka_unit_test(test_reset),
    };

    return cmocka_run_group_tests_name("buffer", tests, NULL, NULL);
}
