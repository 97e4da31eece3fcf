/* test_json.c - the strict scan before cJSON, and what comes out of both. */
#include "unit.h"

#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEXT(literal) (literal), sizeof(literal) - 1

struct row {
    const char *name;
    const char *text;
    size_t length;
    bool accepted;
};

/* Here a text is accepted if the reply of a success may hold it: strict JSON,
 * and no number but such as a double holds.
 *
 * The scan of a copy that ends where the text ends: one byte too far is an
 * invalid read that valgrind sees. */
static bool
scan_exactly(const char *text, size_t length)
{
    char *copy = malloc(length > 0 ? length : 1);
    bool accepted;
    bool is_exact;

    assert_non_null(copy);
    memcpy(copy, text, length);
    accepted = json_scan(copy, length, &is_exact) && is_exact;
    free(copy);
    return accepted;
}

/* The same for the parser, which needs a NUL behind the text. */
static enum json_result
parse_exactly(const char *text, size_t length, cJSON **root)
{
    char *copy = malloc(length + 1);
    enum json_result result;
    bool is_exact;

    assert_non_null(copy);
    memcpy(copy, text, length);
    copy[length] = '\0';
    result = json_parse(copy, length, root, &is_exact);
    free(copy);
    if (result == JSON_OK && !is_exact) {
        json_free(*root);
        *root = NULL;
        result = JSON_REFUSED;
    }
    return result;
}

static void
check_rows(const struct row *row, size_t count)
{
    cJSON *root;
    enum json_result result;

    for (; count > 0; count--, row++) {
        CHECK(row->name,
              scan_exactly(row->text, row->length) == row->accepted);
        result = parse_exactly(row->text, row->length, &root);
        CHECK(row->name, result == (row->accepted ? JSON_OK : JSON_REFUSED));
        CHECK(row->name, (root != NULL) == row->accepted);
        json_free(root);
    }
}

static void
test_documents(void **state)
{
    static const struct row rows[] = {
        {"empty object", TEXT("{}"), true},
        {"empty array", TEXT("[]"), true},
        {"a string alone", TEXT("\"x\""), true},
        {"a number alone", TEXT("7"), true},
        {"words", TEXT("[true,false,null]"), true},
        {"white space", TEXT(" \t\r\n{ \"a\" : [ 1 , 2 ] } \n"), true},
        {"nested", TEXT("{\"a\":{\"b\":[[],{}]}}"), true},
        {"nothing", TEXT(""), false},
        {"only white space", TEXT(" \n"), false},
        {"garbage behind", TEXT("{\"a\":1}garbage"), false},
        {"two documents", TEXT("{} {}"), false},
        {"NUL behind", TEXT("{\"a\":1}\0"), false},
        {"NUL in front", TEXT("\0{}"), false},
        {"byte-order mark", TEXT("\xEF\xBB\xBF{}"), false},
        {"form feed as space", TEXT("\f{}"), false},
        {"0x01 as space", TEXT("{\x01}"), false},
        {"vertical tab as space", TEXT("[1,\v2]"), false},
        {"no-break space", TEXT("\xC2\xA0{}"), false},
        {"comma at the end", TEXT("[1,]"), false},
        {"comma at the end of an object", TEXT("{\"a\":1,}"), false},
        {"comma alone", TEXT("[,]"), false},
        {"no comma", TEXT("[1 2]"), false},
        {"no colon", TEXT("{\"a\" 1}"), false},
        {"no value", TEXT("{\"a\":}"), false},
        {"no key", TEXT("{:1}"), false},
        {"a number as key", TEXT("{1:1}"), false},
        {"single quotes", TEXT("{'a':1}"), false},
        {"a comment", TEXT("{}/**/"), false},
        {"open object", TEXT("{"), false},
        {"open array", TEXT("["), false},
        {"open member", TEXT("{\"1\":1,"), false},
        {"open key", TEXT("{\"a"), false},
        {"key without end", TEXT("{\"a\""), false},
        {"wrong bracket", TEXT("[1}"), false},
        {"only a bracket", TEXT("]"), false},
        {"half a word", TEXT("tru"), false},
        {"a longer word", TEXT("trueish"), false},
        {"a capital word", TEXT("True"), false},
        {"another word", TEXT("nul1"), false},
        {"fals", TEXT("[fals]"), false},
        {"HTML", TEXT("<html></html>"), false},
        {"plain text", TEXT("404 page not found"), false},
    };

    (void)state;
    check_rows(rows, COUNT_OF(rows));
}

static void
test_numbers(void **state)
{
    static const struct row rows[] = {
        {"zero", TEXT("0"), true},
        {"minus zero", TEXT("-0"), true},
        {"fraction", TEXT("1.5"), true},
        {"exponent", TEXT("1e5"), true},
        {"signs in exponents", TEXT("[1E+5,1e-5]"), true},
        {"largest exact integer", TEXT("9007199254740992"), true},
        {"largest negative", TEXT("-9007199254740992"), true},
        {"2147483648", TEXT("2147483648"), true},
        {"tiny is zero", TEXT("1e-9999999"), true},
        {"the largest double's size", TEXT("1e307"), true},
        {"2^53 + 1", TEXT("9007199254740993"), false},
        {"twenty digits", TEXT("12345678901234567890"), false},
        {"1e999", TEXT("1e999"), false},
        {"1e99999999999", TEXT("1e99999999999"), false},
        {"leading zeros", TEXT("007"), false},
        {"negative leading zero", TEXT("-01"), false},
        {"leading plus", TEXT("+1"), false},
        {"minus alone", TEXT("-"), false},
        {"two minuses", TEXT("--1"), false},
        {"point at the end", TEXT("1."), false},
        {"point in front", TEXT(".5"), false},
        {"exponent without digits", TEXT("1e"), false},
        {"exponent with a sign only", TEXT("1e+"), false},
        {"two exponents", TEXT("1e1e1"), false},
        {"two points", TEXT("1.2.3"), false},
        {"hexadecimal", TEXT("0x10"), false},
        {"NaN", TEXT("NaN"), false},
        {"Infinity", TEXT("-Infinity"), false},
        {"comma as point", TEXT("1,5"), false},
    };

    (void)state;
    check_rows(rows, COUNT_OF(rows));
}

static void
test_strings(void **state)
{
    static const struct row rows[] = {
        {"escapes", TEXT("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\""), true},
        {"unicode escape", TEXT("\"\\u00e9\\u20AC\""), true},
        {"surrogate pair", TEXT("\"\\ud83d\\ude00\""), true},
        {"0x7f", TEXT("\"\x7f\""), true},
        {"unknown escape", TEXT("\"\\x41\""), false},
        {"escape at the end", TEXT("\"\\"), false},
        {"escaped quote at the end", TEXT("\"\\\""), false},
        {"no end", TEXT("\"abc"), false},
        {"\\u0000 in a value", TEXT("\"x\\u0000y\""), false},
        {"\\u0000 in a key", TEXT("{\"a\\u0000b\":1}"), false},
        {"raw NUL in a string", TEXT("\"x\0y\""), false},
        {"raw newline", TEXT("\"x\ny\""), false},
        {"raw tab", TEXT("\"x\ty\""), false},
        {"raw 0x01", TEXT("\"x\x01y\""), false},
        {"raw 0x1f", TEXT("\"\x1f\""), false},
        {"three hex digits", TEXT("\"\\u12\""), false},
        {"hex cut by the end", TEXT("\"\\u12"), false},
        {"not hex", TEXT("\"\\u12g4\""), false},
        {"lone high surrogate", TEXT("\"\\ud800\""), false},
        {"lone low surrogate", TEXT("\"\\udc00\""), false},
        {"high, then text", TEXT("\"\\ud800abcdef\""), false},
        {"high, then another escape", TEXT("\"\\ud800\\n0000\""), false},
        {"high, then high", TEXT("\"\\ud800\\ud800\""), false},
        {"high, then no surrogate", TEXT("\"\\ud800\\u0041\""), false},
        {"high, then a cut", TEXT("\"\\ud800\\u"), false},
        {"high, then a letter above", TEXT("\"\\ud800\\ue000\""), false},
    };

    (void)state;
    check_rows(rows, COUNT_OF(rows));
}

static void
test_utf8(void **state)
{
    static const struct row rows[] = {
        {"U+0080", TEXT("\"\xC2\x80\""), true},
        {"U+07FF", TEXT("\"\xDF\xBF\""), true},
        {"U+0800", TEXT("\"\xE0\xA0\x80\""), true},
        {"U+D7FF", TEXT("\"\xED\x9F\xBF\""), true},
        {"U+E000", TEXT("\"\xEE\x80\x80\""), true},
        {"U+FFFF", TEXT("\"\xEF\xBF\xBF\""), true},
        {"U+10000", TEXT("\"\xF0\x90\x80\x80\""), true},
        {"U+10FFFF", TEXT("\"\xF4\x8F\xBF\xBF\""), true},
        {"in a key", TEXT("{\"\xC3\xA9\":1}"), true},
        {"0xff", TEXT("\"\xFF\""), false},
        {"0xfe", TEXT("\"\xFE\""), false},
        {"continuation alone", TEXT("\"\x80\""), false},
        {"two bytes, cut", TEXT("\"\xC3\""), false},
        {"three bytes, cut", TEXT("\"\xE2\x82\""), false},
        {"four bytes, cut", TEXT("\"\xF0\x9F\x98\""), false},
        {"cut by the end", TEXT("\"\xE2\x82"), false},
        {"wrong continuation", TEXT("\"\xC3\x28\""), false},
        {"overlong slash, two bytes", TEXT("\"\xC0\xAF\""), false},
        {"overlong, C1", TEXT("\"\xC1\xBF\""), false},
        {"overlong, three bytes", TEXT("\"\xE0\x9F\xBF\""), false},
        {"overlong, four bytes", TEXT("\"\xF0\x8F\xBF\xBF\""), false},
        {"overlong NUL", TEXT("\"\xC0\x80\""), false},
        {"surrogate D800", TEXT("\"\xED\xA0\x80\""), false},
        {"surrogate DFFF", TEXT("\"\xED\xBF\xBF\""), false},
        {"above U+10FFFF", TEXT("\"\xF4\x90\x80\x80\""), false},
        {"F5", TEXT("\"\xF5\x80\x80\x80\""), false},
        {"in a key, invalid", TEXT("{\"\xFF\":1}"), false},
        {"outside of a string", TEXT("\xC3\xA9"), false},
    };

    (void)state;
    check_rows(rows, COUNT_OF(rows));
}

/* `depth` arrays in each other. */
static char *
nested(size_t depth, bool closed)
{
    char *text = malloc(2 * depth + 1);

    assert_non_null(text);
    memset(text, '[', depth);
    memset(text + depth, ']', depth);
    text[closed ? 2 * depth : depth] = '\0';
    return text;
}

/* The scan looks at eight bytes at once: each byte is seen at each place of a
 * string, beside each kind of neighbour. */
static void
test_each_byte_at_each_place(void **state)
{
    static const char *const rest[] = {"aaaaaaaaaaaaaaaaaa",
                                       "\x7f~\x7f~ ! #[]^`\x7f~\x7f~  ",
                                       "\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9"
                                       "\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9"
                                       "ab"};
    char text[32];
    size_t kind;
    size_t place;
    int byte;
    bool accepted;

    (void)state;
    for (kind = 0; kind < 3; kind++) {
        for (place = 0; place <= 18; place += kind == 2 ? 2 : 1) {
            for (byte = 0; byte < 256; byte++) {
                text[0] = '"';
                memcpy(text + 1, rest[kind], place);
                text[1 + place] = (char)byte;
                memcpy(text + 2 + place, rest[kind] + place, 18 - place);
                text[20] = '"';
                accepted =
                    byte >= 0x20 && byte < 0x80 && byte != '"' && byte != '\\';
                assert_int_equal(scan_exactly(text, 21), accepted);
            }
        }
    }
}

static void
test_depth(void **state)
{
    static const struct {
        const char *name;
        size_t depth;
        bool closed;
        bool accepted;
    } rows[] = {
        {"at the limit", ESP_DEPTH_MAX, true, true},
        {"beyond the limit", ESP_DEPTH_MAX + 1, true, false},
        {"1,000 levels", 1000, true, false},
        {"100,000 levels", 100000, true, false},
        {"1 MiB of [", ESP_BODY_MAX, false, false},
    };
    size_t i;
    char *text;

    (void)state;
    for (i = 0; i < COUNT_OF(rows); i++) {
        text = nested(rows[i].depth, rows[i].closed);
        CHECK(rows[i].name,
              scan_exactly(text, strlen(text)) == rows[i].accepted);
        free(text);
    }
}

/* Depth is what is open at a time, not what was opened in all. */
static void
test_siblings_are_not_depth(void **state)
{
    char text[4 * ESP_DEPTH_MAX + 3] = "[";
    size_t used = 1;
    int i;

    (void)state;
    for (i = 0; i < ESP_DEPTH_MAX; i++)
        used += (size_t)snprintf(text + used, sizeof text - used, "{},");
    snprintf(text + used, sizeof text - used, "[]]");
    assert_true(scan_exactly(text, strlen(text)));
}

static void
test_duplicates(void **state)
{
    static const struct {
        const char *name;
        const char *text;
        enum json_result result;
    } rows[] = {
        {"code twice", "{\"code\":4200,\"code\":0}", JSON_TWICE},
        {"any member twice", "{\"x\":1,\"y\":2,\"x\":1}", JSON_TWICE},
        {"twice by an escape", "{\"a\":1,\"\\u0061\":2}", JSON_TWICE},
        {"case differs", "{\"code\":1,\"CODE\":2}", JSON_OK},
        {"deeper", "{\"x\":{\"a\":1,\"a\":2}}", JSON_OK},
        {"equal values", "{\"a\":1,\"b\":1}", JSON_OK},
        {"empty keys", "{\"\":1,\"\":2}", JSON_TWICE},
    };
    size_t i;
    cJSON *root;

    (void)state;
    for (i = 0; i < COUNT_OF(rows); i++) {
        CHECK(rows[i].name, parse_exactly(rows[i].text, strlen(rows[i].text),
                                          &root) == rows[i].result);
        CHECK(rows[i].name, (root != NULL) == (rows[i].result == JSON_OK));
        json_free(root);
    }
}

/* An object of `count` members. */
static enum json_result
parse_members(int count)
{
    char text[32 * (ESP_MEMBERS_MAX + 2)] = "{";
    size_t used = 1;
    cJSON *root;
    enum json_result result;
    int i;

    for (i = 0; i < count; i++)
        used += (size_t)snprintf(text + used, sizeof text - used,
                                 "%s\"m%d\":%d", i > 0 ? "," : "", i, i);
    used += (size_t)snprintf(text + used, sizeof text - used, "}");
    result = parse_exactly(text, used, &root);
    json_free(root);
    return result;
}

static void
test_members(void **state)
{
    (void)state;
    assert_int_equal(parse_members(ESP_MEMBERS_MAX), JSON_OK);
    assert_int_equal(parse_members(ESP_MEMBERS_MAX + 1), JSON_REFUSED);
}

/* Versions of cJSON read at most 63 bytes of a number: what they cannot take
 * is a refused answer, and not a want of memory. */
static void
test_long_numbers(void **state)
{
    static const struct {
        const char *name;
        int zeros;
    } rows[] = {{"62 bytes", 60}, {"70 bytes", 68}, {"400 bytes", 398}};
    char text[512];
    enum json_result result;
    cJSON *root;
    size_t i;

    (void)state;
    for (i = 0; i < COUNT_OF(rows); i++) {
        snprintf(text, sizeof text, "1.%0*d", rows[i].zeros, 0);
        result = parse_exactly(text, strlen(text), &root);
        CHECK(rows[i].name, result == JSON_OK || result == JSON_REFUSED);
        json_free(root);
    }
}

/* A locale whose decimal point is a comma changes nothing. */
static void
test_comma_locale(void **state)
{
    cJSON *root;

    (void)state;
    if (setlocale(LC_NUMERIC, "de_DE.UTF-8") == NULL) {
        print_message("this system has no locale with a comma\n");
        skip();
    }
    assert_int_equal(parse_exactly(TEXT("1.5"), &root), JSON_OK);
    setlocale(LC_NUMERIC, "C");
    assert_true(root->valuedouble > 1.4 && root->valuedouble < 1.6);
    json_free(root);
}

/* Every prefix of a good document is refused: nothing is read beyond. */
static void
test_prefixes(void **state)
{
    static const char text[] =
        "{\"symbol\":\"AD\\u0041\\ud83d\\ude00\xE2\x82\xAC\",\"order_ids\":"
        "[\"550e\",null,true,false,-1.5e+3],\"n\":{}}";
    size_t length;

    (void)state;
    for (length = 0; length < sizeof text - 1; length++)
        assert_false(scan_exactly(text, length));
    assert_true(scan_exactly(text, sizeof text - 1));
}

/* Around a fork the lock is held, and free again on both sides. */
static void
test_fork_lock(void **state)
{
    cJSON *root;
    int in_child;

    (void)state;
    for (in_child = 0; in_child <= 1; in_child++) {
        json_lock_prepare_fork();
        json_lock_after_fork(in_child);
        assert_int_equal(parse_exactly(TEXT("{}"), &root), JSON_OK);
        json_free(root);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_documents),
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_strings),
        cmocka_unit_test(test_utf8),
        cmocka_unit_test(test_each_byte_at_each_place),
        cmocka_unit_test(test_depth),
        cmocka_unit_test(test_siblings_are_not_depth),
        cmocka_unit_test(test_duplicates),
        cmocka_unit_test(test_members),
        cmocka_unit_test(test_long_numbers),
        cmocka_unit_test(test_comma_locale),
        cmocka_unit_test(test_prefixes),
        cmocka_unit_test(test_fork_lock),
    };

    return cmocka_run_group_tests_name("json", tests, NULL, NULL);
}
