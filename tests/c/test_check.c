/* test_check.c - what a user gave: symbol, key, base URL, proxy, time-out. */
#include "unit.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define TEXT(literal) (literal), sizeof(literal) - 1
#define TEN "ADAUSDM-12"
#define SIXTY_FOUR TEN TEN TEN TEN TEN TEN "ABCD"

static void
test_symbol(void **state)
{
    static const struct {
        const char *name;
        const char *symbol;
        size_t length;
        bool accepted;
    } rows[] = {
        {"usual", TEXT("ADAUSDM"), true},
        {"one byte", TEXT("A"), true},
        {"lower case", TEXT("adausdm"), true},
        {"all marks", TEXT("a.B_c-9"), true},
        {"64 bytes", TEXT(SIXTY_FOUR), true},
        {"65 bytes", TEXT(SIXTY_FOUR "E"), false},
        {"empty", TEXT(""), false},
        {"slash", TEXT("ADA/USDM"), false},
        {"space", TEXT("ADA USDM"), false},
        {"space behind", TEXT("ADAUSDM "), false},
        {"newline", TEXT("ADAUSDM\n"), false},
        {"tab", TEXT("\tADAUSDM"), false},
        {"NUL", TEXT("ADA\0USDM"), false},
        {"0x01", TEXT("ADA\x01"), false},
        {"0x7f", TEXT("ADA\x7f"), false},
        {"question mark", TEXT("ADA?"), false},
        {"fragment", TEXT("ADA#"), false},
        {"per cent", TEXT("ADA%41"), false},
        {"quote", TEXT("ADA\""), false},
        {"backslash", TEXT("ADA\\"), false},
        {"angle", TEXT("<ADA>"), false},
        {"comma", TEXT("ADA,BTC"), false},
        {"brace", TEXT("ADA}"), false},
        {"beside the digits", TEXT("ADA:"), false},
        {"beside the letters", TEXT("ADA@"), false},
        {"beside the small letters", TEXT("ADA`"), false},
        {"non-ASCII", TEXT("AD\xC3\x84"), false},
        {"lone surrogate in UTF-8", TEXT("\xED\xA0\x80"), false},
    };
    struct esp_error error;
    size_t i;

    (void)state;
    for (i = 0; i < COUNT_OF(rows); i++) {
        error = (struct esp_error){.kind = ESP_OK};
        CHECK(rows[i].name, esp_symbol_check(rows[i].symbol, rows[i].length,
                                             &error) == rows[i].accepted);
        CHECK(rows[i].name, (error.message[0] == '\0') == rows[i].accepted);
        CHECK(rows[i].name,
              error.kind == (rows[i].accepted ? ESP_OK : ESP_BAD_ARGUMENT));
    }
}

/* Only the length is looked at: the bytes behind the limit are not even
 * there. */
static void
test_symbol_length_comes_first(void **state)
{
    struct esp_error error;

    (void)state;
    assert_false(esp_symbol_check("A", 100000000, &error));
    assert_non_null(strstr(error.message, "64"));
}

static void
test_symbol_advice(void **state)
{
    struct esp_error error;

    (void)state;
    assert_false(esp_symbol_check(TEXT("ADA/USDM"), &error));
    assert_non_null(strstr(error.message, "ADAUSDM"));
    assert_false(esp_symbol_check(TEXT("ADA/USD M"), &error));
    assert_null(strstr(error.message, "ADAUSD M"));
}

static void
test_key(void **state)
{
    static const struct {
        const char *name;
        const char *key;
        size_t length;
        bool accepted;
    } rows[] = {
        {"hex", TEXT("0123456789abcdef0123456789abcdef"), true},
        {"every border", TEXT("!~"), true},
        {"256 bytes", TEXT(SIXTY_FOUR SIXTY_FOUR SIXTY_FOUR SIXTY_FOUR), true},
        {"257 bytes", TEXT(SIXTY_FOUR SIXTY_FOUR SIXTY_FOUR SIXTY_FOUR "E"),
         false},
        {"empty", TEXT(""), false},
        {"newline", TEXT("sandbox-k\n"), false},
        {"CR LF and a header", TEXT("sandbox-k\r\nInjected: yes"), false},
        {"NUL", TEXT("sandbox\0k"), false},
        {"space", TEXT("sandbox k"), false},
        {"tab", TEXT("sandbox\tk"), false},
        {"0x7f", TEXT("sandbox\x7f"), false},
        {"non-ASCII", TEXT("sandbox\xC3\xA9"), false},
    };
    struct esp_error error;
    size_t i;

    (void)state;
    for (i = 0; i < COUNT_OF(rows); i++) {
        error = (struct esp_error){.kind = ESP_OK};
        CHECK(rows[i].name, esp_key_check(rows[i].key, rows[i].length,
                                          &error) == rows[i].accepted);
        CHECK(rows[i].name, strstr(error.message, "sandbox") == NULL);
        CHECK(rows[i].name, strstr(error.message, "ADAUSDM") == NULL);
        CHECK(rows[i].name, (error.message[0] == '\0') == rows[i].accepted);
    }
    assert_false(esp_key_check("A", 100000000, &error));
}

static void
test_timeouts(void **state)
{
    static const struct {
        const char *name;
        double seconds;
        int64_t ms;
    } rows[] = {
        {"ten seconds", 10.0, 10000},
        {"a fraction", 0.25, 250},
        {"rounded up", 0.0101, 11},
        {"1e-9 is 1 ms", 1e-9, 1},
        {"the smallest double", 5e-324, 1},
        {"24 h", 86400, 86400000},
        {"24 h and 1 ms", 86400.001, -1},
        {"zero", 0.0, -1},
        {"minus zero", -0.0, -1},
        {"negative", -1, -1},
        {"1e300", 1e300, -1},
        {"inf", INFINITY, -1},
        {"-inf", -INFINITY, -1},
        {"NaN", NAN, -1},
    };
    size_t i;

    (void)state;
    for (i = 0; i < COUNT_OF(rows); i++)
        CHECK(rows[i].name, esp_timeout_ms(rows[i].seconds) == rows[i].ms);
}

/* ---- Base URLs ---------------------------------------------------------- */

static void
test_base_url_accepted(void **state)
{
    static const struct {
        const char *text;
        const char *url;
        const char *host;
        const char *peer;
        bool loopback;
        bool needs_dns;
    } rows[] = {
        {"https://api.deltadefi.io", "https://api.deltadefi.io",
         "api.deltadefi.io", "api.deltadefi.io", false, true},
        {"https://api.deltadefi.io/", "https://api.deltadefi.io",
         "api.deltadefi.io", "api.deltadefi.io", false, true},
        {"HTTPS://API.DeltaDeFi.io", "https://api.deltadefi.io",
         "api.deltadefi.io", "api.deltadefi.io", false, true},
        {"https://host.example:8443/v1/", "https://host.example:8443/v1",
         "host.example", "host.example:8443", false, true},
        {"https://host.example/a//", "https://host.example/a", "host.example",
         "host.example", false, true},
        {"https://host.example/a%20b", "https://host.example/a%20b",
         "host.example", "host.example", false, true},
        {"https://host.example:65535", "https://host.example:65535",
         "host.example", "host.example:65535", false, true},
        {"https://192.0.2.7", "https://192.0.2.7", "192.0.2.7", "192.0.2.7",
         false, false},
        {"https://[2001:db8::1]:8443", "https://[2001:db8::1]:8443",
         "2001:db8::1", "[2001:db8::1]:8443", false, false},
        {"https://gateway1", "https://gateway1", "gateway1", "gateway1", false,
         true},
        {"http://localhost:8080", "http://localhost:8080", "localhost",
         "localhost:8080", true, false},
        {"http://LOCALHOST/x", "http://localhost/x", "localhost", "localhost",
         true, false},
        {"http://127.0.0.1:1", "http://127.0.0.1:1", "127.0.0.1",
         "127.0.0.1:1", true, false},
        {"http://127.255.255.254", "http://127.255.255.254", "127.255.255.254",
         "127.255.255.254", true, false},
        {"http://[::1]:8080/", "http://[::1]:8080", "::1", "[::1]:8080", true,
         false},
        {"https://127.0.0.1", "https://127.0.0.1", "127.0.0.1", "127.0.0.1",
         true, false},
    };
    struct esp_base_url url;
    struct esp_error error;
    size_t i;

    (void)state;
    for (i = 0; i < COUNT_OF(rows); i++) {
        CHECK(rows[i].text, esp_base_url_parse(rows[i].text, &url, &error));
        CHECK(rows[i].text, strcmp(url.url, rows[i].url) == 0);
        CHECK(rows[i].text, strcmp(url.host, rows[i].host) == 0);
        CHECK(rows[i].text, strcmp(url.peer, rows[i].peer) == 0);
        CHECK(rows[i].text, url.loopback == rows[i].loopback);
        CHECK(rows[i].text, url.needs_dns == rows[i].needs_dns);
    }
}

/* http to anything that is not surely this machine carries the key in the
 * clear; the rest has a meaning that libcurl and a reader see differently. */
static void
test_base_url_refused(void **state)
{
    static const char *const rows[] = {
        "",
        "api.deltadefi.io",
        "//api.deltadefi.io",
        "https:api.deltadefi.io",
        "https:/api.deltadefi.io",
        "https:///api.deltadefi.io",
        "https://",
        "https:///",
        "https://:443",
        "http://api.deltadefi.io",
        "http://192.0.2.7",
        "http://[2001:db8::1]",
        "http://[::ffff:127.0.0.1]",
        "http://localhost.example",
        "http://localhost.",
        "http://127.0.0.1.example",
        "http://127.0.0.1.",
        "http://127.0.0.999",
        "http://127.0.0.256",
        "http://127.-1.0.1",
        "http://128.0.0.1",
        "http://0.0.0.0",
        "ftp://api.deltadefi.io",
        "file:///etc/passwd",
        "httpsx://api.deltadefi.io",
        "averyveryverylongscheme://host",
        "https://user:secret-pw@host.example",
        "https://user@host.example",
        "https://@host.example",
        "https://host.example/a@b",
        "https://host.example?x=1",
        "https://host.example/?",
        "https://host.example#x",
        "https://host.example/#",
        "https://host.example\r\nX: y",
        "https://host.example ",
        " https://host.example",
        "https://host .example",
        "https://host.example\\x",
        "https://host.example\x7f",
        "https://b\xC3\xBC"
        "cher.example",
        "https://host.example:0",
        "https://host.example:65536",
        "https://host.example:99999999999999999999",
        "https://host.example:-1",
        "https://host.example:x",
        "https://0x7f000001",
        "https://0x7f.1",
        "https://127.1",
        "https://2130706433",
        "https://0177.0.0.1",
        "http://0x7f000001",
        "http://127.1",
        "http://2130706433",
        "https://%31%32%37.0.0.1",
        "https://host%2eexample",
        "https://[fe80::1%25eth0]",
        "https://[fe80::1%eth0]",
        "https://[::1",
        "https://::1",
        "https://[]",
        "https://[0:0:0:0:0:0:0:1]x",
        "javascript:alert(1)",
    };
    struct esp_base_url url;
    struct esp_error error;
    size_t i;

    (void)state;
    for (i = 0; i < COUNT_OF(rows); i++) {
        error = (struct esp_error){.kind = ESP_OK};
        CHECK(rows[i], !esp_base_url_parse(rows[i], &url, &error));
        CHECK(rows[i], error.kind == ESP_BAD_ARGUMENT);
        CHECK(rows[i], error.message[0] != '\0');
        CHECK(rows[i], strstr(error.message, "secret-pw") == NULL);
    }
}

/* `length` bytes: a URL with a path of `a`. */
static bool
parse_long(size_t length, struct esp_base_url *url)
{
    static const char start[] = "https://host.example/";
    struct esp_error error;
    char *text = malloc(length + 1);
    bool accepted;

    assert_non_null(text);
    memset(text, 'a', length);
    memcpy(text, start, sizeof start - 1);
    text[length] = '\0';
    accepted = esp_base_url_parse(text, url, &error);
    free(text);
    return accepted;
}

static void
test_base_url_length(void **state)
{
    struct esp_base_url url;

    (void)state;
    assert_true(parse_long(ESP_URL_MAX, &url));
    assert_int_equal(strlen(url.url), ESP_URL_MAX);
    assert_false(parse_long(ESP_URL_MAX + 1, &url));
    assert_false(parse_long(1024 * 1024, &url));
}

/* A default port that is written out is no part of the name. */
static void
test_base_url_default_port(void **state)
{
    struct esp_base_url url;
    struct esp_error error;

    (void)state;
    assert_true(esp_base_url_parse("https://host.example:443", &url, &error));
    assert_string_equal(url.peer, "host.example");
    assert_true(esp_base_url_parse("https://host.example:", &url, &error));
    assert_string_equal(url.peer, "host.example");
    assert_true(esp_base_url_parse("http://localhost:80", &url, &error));
    assert_string_equal(url.peer, "localhost");
    assert_true(esp_base_url_parse("http://localhost:443", &url, &error));
    assert_string_equal(url.peer, "localhost:443");
}

/* ---- Proxies ------------------------------------------------------------ */

static void
test_proxy(void **state)
{
    static const struct {
        const char *text;
        bool accepted;
    } rows[] = {
        {"http://proxy.example:3128", true},
        {"https://proxy.example", true},
        {"http://user:secret-pw@proxy.example:3128", true},
        {"socks4://proxy.example", true},
        {"socks4a://proxy.example", true},
        {"socks5://127.0.0.1:1080", true},
        {"socks5h://[::1]:1080", true},
        {"proxy.example:3128", true},
        {"proxy.example", true},
        {"", false},
        {"ftp://user:secret-pw@proxy.example", false},
        {"file:///etc/passwd", false},
        {"http://user:secret-pw@", false},
        {"http://user:secret-pw@proxy.example:99999", false},
        {"http://user:secret-pw@proxy example", false},
        {"http://user:secret-pw%0A@proxy.example", false},
        {"http://us%00er:secret-pw@proxy.example", false},
        {"http://user:secret-pw%1f@proxy.example", false},
        {"http://user:secret-pw%20@proxy.example", true},
        {"http://user:100%1%0gsecret-pw%@proxy.example", true},
        {"http://user:secret-pw@proxy.example\r\n", false},
        {"http://proxy%2eexample:3128", true},
        {"http://proxy%2525example:3128", false}, /* still an escape */
        {"http://proxy%7Fexample:3128", false},
        {"http://proxy%C3%A9.example:3128", false},
    };
    struct esp_error error;
    size_t i;

    (void)state;
    for (i = 0; i < COUNT_OF(rows); i++) {
        error = (struct esp_error){.kind = ESP_OK};
        CHECK(rows[i].text,
              esp_proxy_check(rows[i].text, &error) == rows[i].accepted);
        CHECK(rows[i].text, (error.message[0] == '\0') == rows[i].accepted);
        CHECK(rows[i].text, strstr(error.message, "secret-pw") == NULL);
    }
}

/* ---- The table of codes ------------------------------------------------- */

static void
test_codes_are_sorted(void **state)
{
    size_t count = 0;
    const struct esp_code *rows = esp_codes(&count);
    size_t i;

    (void)state;
    assert_true(count > 1);
    for (i = 1; i < count; i++)
        assert_true(rows[i - 1].code < rows[i].code);
    for (i = 0; i < count; i++) {
        assert_true(rows[i].class_name[0] != '\0');
        assert_true(rows[i].meaning[0] != '\0');
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_symbol),
        cmocka_unit_test(test_symbol_length_comes_first),
        cmocka_unit_test(test_symbol_advice),
        cmocka_unit_test(test_key),
        cmocka_unit_test(test_timeouts),
        cmocka_unit_test(test_base_url_accepted),
        cmocka_unit_test(test_base_url_refused),
        cmocka_unit_test(test_base_url_length),
        cmocka_unit_test(test_base_url_default_port),
        cmocka_unit_test(test_proxy),
        cmocka_unit_test(test_codes_are_sorted),
    };

    return cmocka_run_group_tests_name("check", tests, NULL, NULL);
}
