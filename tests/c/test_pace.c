/* test_pace.c - the slots of one press: who gets one, and when. */
#include "unit.h"

/* Hold all slots but `left` of them. */
static void
hold(struct pace *pace, int left)
{
    int slot;

    for (slot = left; slot < ESP_RATE_CALLS; slot++)
        assert_true(pace_take(pace, 0) >= 0);
}

static void
test_all_are_free_at_first(void **state)
{
    struct pace pace = {0};
    bool taken[ESP_RATE_CALLS] = {false};
    int slot;
    int i;

    (void)state;
    assert_false(pace_is_held(&pace));
    assert_int_equal(pace_next(&pace), 0);
    for (i = 0; i < ESP_RATE_CALLS; i++) {
        slot = pace_take(&pace, 0);
        assert_in_range(slot, 0, ESP_RATE_CALLS - 1);
        assert_false(taken[slot]);
        taken[slot] = true;
        assert_true(pace_is_held(&pace));
    }
    assert_int_equal(pace_take(&pace, INT64_MAX - 1), -1);
    assert_true(pace_next(&pace) == INT64_MAX);
}

static void
test_free_again(void **state)
{
    static const struct {
        const char *name;
        int64_t free_at;
        int64_t now;
        bool is_free;
    } rows[] = {
        {"long ago", 0, 5000, true},
        {"a millisecond too early", 5000, 4999, false},
        {"on time", 5000, 5000, true},
        {"later", 5000, 5001, true},
        {"far in the future", INT64_MAX - 1, 5000, false},
    };
    struct pace pace;
    size_t i;

    (void)state;
    for (i = 0; i < COUNT_OF(rows); i++) {
        pace = (struct pace){{0}};
        hold(&pace, 0);
        pace_give(&pace, 7, rows[i].free_at);
        CHECK(rows[i].name, pace_next(&pace) == rows[i].free_at);
        CHECK(rows[i].name, pace_is_held(&pace));
        CHECK(rows[i].name,
              pace_take(&pace, rows[i].now) == (rows[i].is_free ? 7 : -1));
        CHECK(rows[i].name, pace_take(&pace, rows[i].now) == -1);
    }
}

/* The one that is free first is named, and nothing is held any more when all
 * have been given back. */
static void
test_next(void **state)
{
    struct pace pace = {0};
    int slot;

    (void)state;
    hold(&pace, 0);
    for (slot = 0; slot < ESP_RATE_CALLS; slot++) {
        assert_true(pace_is_held(&pace));
        pace_give(&pace, slot, 1000 - slot);
        assert_int_equal(pace_next(&pace), 1000 - slot);
    }
    assert_false(pace_is_held(&pace));
    assert_int_equal(pace_take(&pace, 990), -1);
    assert_int_equal(pace_take(&pace, 991), ESP_RATE_CALLS - 1);
    assert_int_equal(pace_next(&pace), 992);
}

/* Whatever the order of answers, no window holds more than it may: requests
 * as fast as the slots allow, each answered after another time. */
static void
test_no_window_is_too_full(void **state)
{
    enum { REQUESTS = 200 };
    struct pace pace = {0};
    int64_t arrived[REQUESTS];
    int64_t now = 0;
    int count = 0;
    int slot;

    (void)state;
    while (count < REQUESTS) {
        slot = pace_take(&pace, now);
        if (slot < 0) {
            assert_true(pace_next(&pace) > now); /* or it would spin */
            now = pace_next(&pace);
            continue;
        }
        arrived[count] = now + count * 37 % 90; /* on a link that wavers */
        pace_give(&pace, slot,
                  arrived[count] + count * 53 % 70 + ESP_RATE_WINDOW_MS);
        count++;
        now += count % 3;
    }
    for (count = 0; count < REQUESTS; count++) {
        int within = 0;
        int i;

        for (i = 0; i < REQUESTS; i++)
            within += arrived[i] >= arrived[count] &&
                      arrived[i] < arrived[count] + ESP_RATE_WINDOW_MS;
        assert_in_range(within, 1, ESP_RATE_CALLS);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_are_free_at_first),
        cmocka_unit_test(test_free_again),
        cmocka_unit_test(test_next),
        cmocka_unit_test(test_no_window_is_too_full),
    };

    return cmocka_run_group_tests_name("pace", tests, NULL, NULL);
}
