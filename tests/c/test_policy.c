/* test_policy.c - whether and when there is another attempt. */
#include "unit.h"

/* Enough draws to meet both ends of every range below. */
#define DRAWS 5000

static int64_t
next(enum esp_retry retry, double retry_after, struct esp_policy policy)
{
    struct esp_outcome outcome;
    int64_t delay;

    esp_outcome_init(&outcome);
    outcome.retry = retry;
    outcome.retry_after = retry_after;
    delay = policy_next(&outcome, &policy);
    esp_outcome_free(&outcome);
    return delay;
}

static struct esp_policy
plenty(int attempts)
{
    return (struct esp_policy){.attempts = attempts,
                               .attempts_max = ESP_RETRIES_MAX + 1,
                               .remaining_ms = ESP_TIMEOUT_MAX_MS};
}

/* Each back-off reaches both ends of its range and never leaves it. */
static void
test_backoff_ranges(void **state)
{
    static const struct {
        const char *name;
        enum esp_retry retry;
        int attempts;
        int64_t least;
        int64_t most;
    } rows[] = {
        {"soon, first: at once", ESP_RETRY_SOON, 1, 0, 0},
        {"soon, second", ESP_RETRY_SOON, 2, 50, 100},
        {"soon, third", ESP_RETRY_SOON, 3, 100, 200},
        {"back-off, first", ESP_RETRY_BACKOFF, 1, 50, 100},
        {"back-off, second", ESP_RETRY_BACKOFF, 2, 100, 200},
        {"back-off, third", ESP_RETRY_BACKOFF, 3, 200, 400},
        {"back-off, fifth", ESP_RETRY_BACKOFF, 5, 800, 1600},
        {"back-off, sixth", ESP_RETRY_BACKOFF, 6, 1000, 2000},
        {"back-off, for ever", ESP_RETRY_BACKOFF, 1000, 1000, 2000},
    };
    struct esp_policy policy;
    int64_t least;
    int64_t most;
    int64_t delay;
    size_t i;
    uint32_t draw;

    (void)state;
    for (i = 0; i < COUNT_OF(rows); i++) {
        policy = plenty(rows[i].attempts);
        least = INT64_MAX;
        most = -1;
        for (draw = 0; draw < DRAWS; draw++) {
            policy.random = draw;
            delay = next(rows[i].retry, -1, policy);
            least = delay < least ? delay : least;
            most = delay > most ? delay : most;
        }
        CHECK(rows[i].name, least == rows[i].least);
        CHECK(rows[i].name, most == rows[i].most);
    }
}

static void
test_retry_after(void **state)
{
    static const struct {
        const char *name;
        double seconds;
        int64_t delay;
    } rows[] = {
        {"none named: the window", -1, 2000},
        {"zero", 0, 0},
        {"three seconds", 3, 3000},
        {"a day does not fit", 86400, -1},
        {"1e300 does not overflow", 1e300, -1},
    };
    size_t i;

    (void)state;
    for (i = 0; i < COUNT_OF(rows); i++)
        CHECK(rows[i].name, next(ESP_RETRY_AFTER, rows[i].seconds,
                                 plenty(1)) == rows[i].delay);
}

static void
test_never(void **state)
{
    (void)state;
    assert_int_equal(next(ESP_RETRY_NEVER, -1, plenty(1)), -1);
    assert_int_equal(next(ESP_RETRY_NEVER, 1, plenty(1)), -1);
}

/* A retry must leave 0.1 s of the deadline, or twice the time that a new
 * connection took. */
static void
test_fits_the_deadline(void **state)
{
    static const struct {
        const char *name;
        double retry_after;
        int64_t remaining_ms;
        int64_t connect_ms;
        int64_t delay;
    } rows[] = {
        {"just enough", 0, 100, 0, 0},
        {"one less", 0, 99, 0, -1},
        {"nothing left", 0, 0, 0, -1},
        {"late already", 0, -50, 0, -1},
        {"a wait that just fits", 2, 2100, 0, 2000},
        {"a wait that does not", 2, 2099, 0, -1},
        {"a slow network, just enough", 0, 800, 400, 0},
        {"a slow network, one less", 0, 799, 400, -1},
        {"a fast network changes nothing", 0, 100, 50, 0},
        {"a slow network and a wait", 2, 2800, 400, 2000},
    };
    struct esp_policy policy;
    size_t i;

    (void)state;
    for (i = 0; i < COUNT_OF(rows); i++) {
        policy = plenty(1);
        policy.remaining_ms = rows[i].remaining_ms;
        policy.connect_ms = rows[i].connect_ms;
        CHECK(rows[i].name, next(ESP_RETRY_AFTER, rows[i].retry_after,
                                 policy) == rows[i].delay);
    }
}

static void
test_attempts_max(void **state)
{
    static const struct {
        const char *name;
        int attempts;
        int attempts_max;
        int64_t delay;
    } rows[] = {
        {"max_retries=0", 1, 1, -1},
        {"the first of two", 1, 2, 0},
        {"the second of two", 2, 2, -1},
        {"beyond", 3, 2, -1},
    };
    struct esp_policy policy;
    size_t i;

    (void)state;
    for (i = 0; i < COUNT_OF(rows); i++) {
        policy = plenty(rows[i].attempts);
        policy.attempts_max = rows[i].attempts_max;
        CHECK(rows[i].name, next(ESP_RETRY_SOON, -1, policy) == rows[i].delay);
    }
}

/* 0.4 of the time-out for the first attempt; a later one may run to the
 * deadline; a number bounds each. */
static void
test_attempt_ms(void **state)
{
    static const struct {
        const char *name;
        int number;
        int64_t attempt_timeout_ms;
        int64_t timeout_ms;
        int64_t remaining_ms;
        int64_t allowed;
    } rows[] = {
        {"first", 1, 0, 10000, 10000, 4000},
        {"first, rounded up", 1, 0, 1, 1, 1},
        {"first of 3 ms", 1, 0, 3, 3, 2},
        {"first, little left", 1, 0, 10000, 300, 300},
        {"second", 2, 0, 10000, 6000, 6000},
        {"third", 3, 0, 10000, 5, 5},
        {"a number", 1, 700, 10000, 10000, 700},
        {"a number, second", 2, 700, 10000, 9000, 700},
        {"a number beyond the deadline", 2, 700, 10000, 90, 90},
        {"never 0: that were no limit", 2, 0, 10000, 0, 1},
        {"never negative", 2, 700, 10000, -7, 1},
        {"the longest", 1, 0, ESP_TIMEOUT_MAX_MS, ESP_TIMEOUT_MAX_MS,
         ESP_TIMEOUT_MAX_MS * INT64_C(4) / 10},
    };
    size_t i;

    (void)state;
    for (i = 0; i < COUNT_OF(rows); i++)
        CHECK(rows[i].name,
              policy_attempt_ms(rows[i].number, rows[i].attempt_timeout_ms,
                                rows[i].timeout_ms,
                                rows[i].remaining_ms) == rows[i].allowed);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_backoff_ranges),
        cmocka_unit_test(test_retry_after),
        cmocka_unit_test(test_never),
        cmocka_unit_test(test_fits_the_deadline),
        cmocka_unit_test(test_attempts_max),
        cmocka_unit_test(test_attempt_ms),
    };

    return cmocka_run_group_tests_name("policy", tests, NULL, NULL);
}
