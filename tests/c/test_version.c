/* test_version.c - the libraries under the core, and the ones it refuses.
 *
 * This program's own curl_version_info stands before libcurl's. */
#include "unit.h"

#include <stdlib.h>
#include <string.h>

#define GOOD (CURL_VERSION_SSL | CURL_VERSION_THREADSAFE)

static curl_version_info_data shown = {.version = "8.9.1",
                                       .version_num = 0x080901,
                                       .features = GOOD,
                                       .ssl_version = "OpenSSL/3.0.17"};

curl_version_info_data *
curl_version_info(CURLversion age)
{
    (void)age;
    return &shown;
}

static void
test_libcurl_check(void **state)
{
    static const struct {
        const char *version;
        unsigned number;
        int features;
        const char *complaint; /* NULL: accepted */
    } rows[] = {
        {"7.87.0", 0x075700, GOOD, NULL},
        {"7.88.1", 0x075801, GOOD, NULL},
        {"8.9.1", 0x080901, GOOD, NULL},
        {"7.86.0", 0x075600, GOOD, "7.86.0"},
        {"7.58.0", 0x073A00, GOOD, "7.58.0"},
        {"8.0.0", 0x080000, CURL_VERSION_THREADSAFE, "TLS"},
        {"8.0.0", 0x080000, CURL_VERSION_SSL, "threads"},
    };
    struct esp_error error;
    curl_version_info_data before = shown;
    size_t i;

    (void)state;
    for (i = 0; i < COUNT_OF(rows); i++) {
        shown.version = rows[i].version;
        shown.version_num = rows[i].number;
        shown.features = rows[i].features;
        error = (struct esp_error){.message = ""};
        CHECK(rows[i].version,
              esp_libcurl_check(&error) == (rows[i].complaint == NULL));
        CHECK(rows[i].version,
              rows[i].complaint == NULL ||
                  strstr(error.message, rows[i].complaint) != NULL);
    }
    shown = before;
}

static void
test_versions(void **state)
{
    (void)state;
    assert_string_equal(esp_version_libcurl(), "8.9.1");
    assert_string_equal(esp_version_tls(), "OpenSSL/3.0.17");
    assert_string_equal(esp_version_cjson(), cJSON_Version());
    shown.version = "9.0.0"; /* they are read once */
    assert_string_equal(esp_version_libcurl(), "8.9.1");
}

/* libcurl reads the variable when it starts, and OpenSSL's file stays open:
 * it counts now, and if it counted then. */
static void
test_keylog(void **state)
{
    (void)state;
    assert_int_equal(setenv("SSLKEYLOGFILE", "", 1), 0);
    assert_false(esp_keylog_is_on());
    assert_int_equal(setenv("SSLKEYLOGFILE", "/dev/null", 1), 0);
    assert_true(esp_keylog_is_on());
    assert_int_equal(unsetenv("SSLKEYLOGFILE"), 0);
    assert_false(esp_keylog_is_on());
    assert_int_equal(setenv("SSLKEYLOGFILE", "/dev/null", 1), 0);
    assert_true(libcurl_init());
    assert_int_equal(unsetenv("SSLKEYLOGFILE"), 0);
    assert_true(esp_keylog_is_on());
}

/* The file that libcurl opened for the test above. */
static int
end_libcurl(void **state)
{
    (void)state;
    curl_global_cleanup();
    return 0;
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_libcurl_check),
        cmocka_unit_test(test_versions),
        cmocka_unit_test(test_keylog),
    };

    return cmocka_run_group_tests_name("version", tests, NULL, end_libcurl);
}
