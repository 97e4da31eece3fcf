/* test_text.c - error texts: cut, with the key masked, in no locale. */
#include "unit.h"

#include <string.h>

static void
test_copy_masked(void **state)
{
    static const struct {
        const char *name;
        const char *text;
        const char *secret;
        size_t size; /* of the destination */
        const char *copy;
    } rows[] = {
        {"no secret", "hello", NULL, 16, "hello"},
        {"empty secret", "hello", "", 16, "hello"},
        {"absent secret", "hello", "key", 16, "hello"},
        {"in the middle", "a key b", "key", 16, "a *** b"},
        {"at the start", "key b", "key", 16, "*** b"},
        {"at the end", "a key", "key", 16, "a ***"},
        {"twice", "keykey key", "key", 16, "****** ***"},
        {"overlapping", "aaa", "aa", 16, "***"},
        {"the whole text", "key", "key", 16, "***"},
        {"a beginning of it only", "ke", "key", 16, "ke"},
        {"near misses", "kkekey", "key", 16, "kke***"},
        {"cut without a secret", "hello", NULL, 4, "hel"},
        {"cut within the secret", "a secret", "secret", 6, "a ***"},
        {"cut before the secret", "abcsecret", "secret", 4, "abc"},
        {"cut behind its first byte", "abcsecret", "secret", 5, "abc*"},
        {"exactly fits", "secret", "secret", 7, "******"},
        {"one byte of room", "secret", "secret", 1, ""},
        {"empty text", "", "secret", 4, ""},
    };
    char out[32];
    size_t length;
    size_t i;

    (void)state;
    for (i = 0; i < COUNT_OF(rows); i++) {
        memset(out, '#', sizeof out);
        length = text_copy_masked(out, rows[i].size, rows[i].text,
                                  strlen(rows[i].text), rows[i].secret);
        CHECK(rows[i].name, strcmp(out, rows[i].copy) == 0);
        CHECK(rows[i].name, length == strlen(rows[i].copy));
        CHECK(rows[i].name, out[rows[i].size] == '#');
    }
    assert_int_equal(text_copy_masked(out, 0, "hello", 5, NULL), 0);
}

/* A reply may hold a NUL, and the key behind it. */
static void
test_masks_behind_a_nul(void **state)
{
    char out[32];

    (void)state;
    assert_int_equal(text_copy_masked(out, sizeof out, "a\0key", 5, "key"), 5);
    assert_memory_equal(out, "a\0***", 6);
}

static void
test_case(void **state)
{
    char text[] = "ADA-usdm_Z.@[`{09\xC4";

    (void)state;
    text_lower(text);
    assert_string_equal(text, "ada-usdm_z.@[`{09\xC4");
    assert_true(text_same_ignoring_case("ADAUSDM", "adaUSDm"));
    assert_true(text_same_ignoring_case("", ""));
    assert_false(text_same_ignoring_case("ADAUSDM", "ADAUSD"));
    assert_false(text_same_ignoring_case("ADAUSD", "ADAUSDM"));
    assert_false(text_same_ignoring_case("ADAUSDM", "ADAUSDT"));
    assert_false(text_same_ignoring_case("@", "`"));
}

static void
test_error_set(void **state)
{
    struct esp_error error = {.kind = ESP_OK};
    char many[2 * ESP_MESSAGE_MAX];

    (void)state;
    assert_false(error_set(&error, "%s is %d", "seven", 7));
    assert_int_equal(error.kind, ESP_BAD_ARGUMENT);
    assert_string_equal(error.message, "seven is 7");
    memset(many, 'x', sizeof many - 1);
    many[sizeof many - 1] = '\0';
    assert_false(error_set(&error, "%s", many));
    assert_int_equal(strlen(error.message), ESP_MESSAGE_MAX);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_copy_masked),
        cmocka_unit_test(test_masks_behind_a_nul),
        cmocka_unit_test(test_case),
        cmocka_unit_test(test_error_set),
    };

    return cmocka_run_group_tests_name("text", tests, NULL, NULL);
}
