/* test_stale.c - what arrives on the kept connection after it was looked at
 * and before the request goes out.
 *
 * This program's own poll stands before the system's and can be blind for one
 * look: so the first look, before the transfer, sees nothing. */
#include "world.h"

#include <poll.h>
#include <time.h>

static _Thread_local int blind; /* looks that will see nothing */
static _Thread_local int looks;

/* A look is what the core does before it uses a connection again. */
static bool
is_look(const struct pollfd *polled, nfds_t count, int timeout_ms)
{
    return timeout_ms == 0 && count == 1 &&
           polled[0].events == (POLLIN | POLLRDHUP);
}

int
poll(struct pollfd *polled, nfds_t count, int timeout_ms)
{
    struct timespec limit = {.tv_sec = timeout_ms / 1000,
                             .tv_nsec = timeout_ms % 1000 * 1000000L};

    if (is_look(polled, count, timeout_ms)) {
        looks++;
        if (blind > 0) {
            blind--;
            return 0;
        }
    }
    return ppoll(polled, count, timeout_ms < 0 ? NULL : &limit, NULL);
}

/* The second look finds it: nothing was sent, and the same attempt goes on
 * with a new connection. */
static void
test_second_look(void **state)
{
    static const char *const pushed[] = {
        HEAD("200 OK", "26") "{\"order_ids\":[\"POISONED!\"]}", NULL};
    struct world world;
    size_t i;

    (void)state;
    for (i = 0; i < COUNT_OF(pushed); i++) {
        world_open(&world, NULL, 0);
        world_press(&world);
        assert_int_equal(world.outcome.kind, ESP_OK);
        server_push(world.server, pushed[i]);
        blind = 1;
        world_press(&world);
        assert_int_equal(blind, 0);
        assert_int_equal(world.outcome.kind, ESP_OK);
        assert_int_equal(world.outcome.attempts, 1);
        assert_false(world.outcome.lost_reply);
        assert_non_null(
            cJSON_GetObjectItemCaseSensitive(world.outcome.json, "symbol"));
        assert_int_equal(server_posts(world.server), 2);
        assert_int_equal(server_connections(world.server), 2);
        world_close(&world);
    }
}

/* A good connection is looked at twice, a new one never. */
static void
test_number_of_looks(void **state)
{
    struct world world;

    (void)state;
    world_open(&world, NULL, 0);
    looks = 0;
    world_press(&world);
    assert_int_equal(looks, 0);
    world_press(&world);
    assert_int_equal(looks, 2);
    assert_true(world.outcome.timing.reused);
    world_close(&world);
}

/* Too old by the clock that also runs while the machine sleeps. */
static void
test_age(void **state)
{
    struct world world;

    (void)state;
    world_open(&world, NULL, 0);
    world_press(&world);
    world.pool->idle->used_at -= ESP_IDLE_AGE_MS + 1;
    world_press(&world);
    assert_int_equal(world.outcome.kind, ESP_OK);
    assert_int_equal(server_connections(world.server), 2);
    world.pool->idle->verified_at -= ESP_LIFETIME_MS + 1;
    world_press(&world);
    assert_int_equal(world.outcome.kind, ESP_OK);
    assert_int_equal(server_connections(world.server), 3);
    world_press(&world);
    assert_int_equal(server_connections(world.server), 3);
    world_close(&world);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_second_look),
        cmocka_unit_test(test_number_of_looks),
        cmocka_unit_test(test_age),
    };

    return cmocka_run_group_tests_name("stale", tests, NULL, NULL);
}
