/* test_shared.c - what the lanes of a client have together, and for how long.
 *
 * That a server sees its sessions again is tested in tests/test_tls.py: there
 * is no TLS here.  Where libcurl is too old to be trusted with sessions, the
 * tests say so to a share themselves. */
#include "shared.h"
#include "world.h"

static void
age(struct esp_share *share, int64_t by_ms)
{
    assert_non_null(share);
    share->made_at -= by_ms;
}

static struct esp_share *
current(const struct world *world)
{
    assert_non_null(world->pool->shared);
    assert_non_null(world->pool->shared->current);
    return world->pool->shared->current;
}

/* A world whose pool has pressed for two symbols at once: two lanes, which are
 * idle now.  Their share. */
static struct esp_share *
open_with_two_lanes(struct world *world)
{
    static const char *const symbols[] = {SYMBOL, "OTHER"};
    struct esp_press *press;
    size_t i;

    world_open(world, NULL, 0);
    assert_null(world->pool->shared);
    press = esp_cancel_list(world->pool, &world->cancel, symbols, 2,
                            &world->outcome);
    assert_non_null(press);
    for (i = 0; i < 2; i++)
        assert_int_equal(esp_press_outcome(press, i)->kind, ESP_OK);
    esp_press_free(press);
    assert_int_equal(world->pool->idle_count, 2);
    return current(world);
}

/* Press with a lane whose connection is too old, so that it makes a new one. */
static void
press_anew(struct world *world)
{
    int connections = server_connections(world->server);

    world->pool->idle->used_at -= ESP_IDLE_AGE_MS + 1;
    world_press(world);
    assert_int_equal(world->outcome.kind, ESP_OK);
    assert_int_equal(server_connections(world->server), connections + 1);
}

static void
test_lanes_share(void **state)
{
    struct world world;
    struct esp_share *share;

    (void)state;
    share = open_with_two_lanes(&world);
    assert_ptr_equal(world.pool->idle->share, share);
    assert_ptr_equal(world.pool->idle->next->share, share);
    assert_int_equal(share->references, 3); /* and the pool's own */
    press_anew(&world);
    assert_ptr_equal(world.pool->idle->share, share);
    assert_int_equal(share->references, 3);
    world_close(&world);
}

/* What a lane has it keeps; the last of them takes the old share with it. */
static void
check_that_lanes_move(struct world *world, struct esp_share *old)
{
    world_press(world);
    assert_ptr_equal(world->pool->idle->share, old);
    assert_int_equal(old->references, 3);
    press_anew(world);
    assert_ptr_not_equal(current(world), old);
    assert_ptr_equal(world->pool->idle->share, current(world));
    assert_int_equal(current(world)->references, 2);
    assert_int_equal(old->references, 1);
    assert_in_range(current(world)->made_at, clock_boot_ms() - 10000,
                    clock_boot_ms());
}

static void
test_new_lanes_get_a_share_for_half_an_hour(void **state)
{
    struct world world;
    struct esp_share *share;

    (void)state;
    share = open_with_two_lanes(&world);
    age(share, ESP_SHARE_AGE_MS - 10000);
    press_anew(&world);
    assert_ptr_equal(world.pool->idle->share, share);
    age(share, 10001);
    check_that_lanes_move(&world, share);
    world_close(&world);
}

/* It may be what it holds that keeps a lane from its connection. */
static void
test_a_share_in_doubt_is_given_to_nobody(void **state)
{
    struct world world;
    struct esp_share *share;

    (void)state;
    share = open_with_two_lanes(&world);
    share_doubt(share);
    check_that_lanes_move(&world, share);
    world_close(&world);
}

static void
test_no_connection_is_a_doubt(void **state)
{
    /* The second is a port where nobody listens. */
    static const char *const urls[] = {NULL, "http://127.0.0.1:1"};
    struct world world;
    size_t i;

    (void)state;
    for (i = 0; i < COUNT_OF(urls); i++) {
        struct esp_settings settings = {.user_agent = "espresso-test",
                                        .base_url = urls[i]};

        world_open_with(&world, NULL, 0, settings);
        world_press(&world);
        assert_int_equal(world.outcome.kind, i == 0 ? ESP_OK : ESP_TRANSPORT);
        assert_int_equal(current(&world)->is_doubted, i == 1);
        world_close(&world);
    }
}

/* Where a session may have been taken up, a connection is as old as the share:
 * no certificate is trusted for longer than ESP_LIFETIME_MS. */
static void
test_age_of_a_certificate(void **state)
{
    static const int64_t ages[] = {0, 1, ESP_SHARE_AGE_MS - 10000};
    struct world world;
    const struct esp_lane *lane;
    size_t i;

    (void)state;
    for (i = 0; i < 2 * COUNT_OF(ages); i++) {
        world_open(&world, NULL, 0);
        world_press(&world);
        current(&world)->has_sessions = i % 2 == 1;
        age(current(&world), ages[i / 2]);
        press_anew(&world);
        lane = world.pool->idle;
        assert_int_equal(lane->verified_at, i % 2 == 1
                                                ? current(&world)->made_at
                                                : lane->used_at);
        world_close(&world);
    }
}

/* Only a libcurl whose cache of sessions is sound is given one. */
static void
test_which_libcurl_has_sessions(void **state)
{
    unsigned int version = curl_version_info(CURLVERSION_NOW)->version_num;
    struct world world;

    (void)state;
    world_open(&world, NULL, 0);
    world_press(&world);
    assert_int_equal(current(&world)->has_sessions,
                     version >= 0x080c00 && tls_can_look());
    world_close(&world);
}

static void
test_a_handle_without_a_share(void **state)
{
    CURL *easy = curl_easy_init();
    struct esp_share *share;

    (void)state;
    assert_non_null(easy);
    assert_int_equal(shared_prepare(NULL, easy, &share), CURLE_OK);
    assert_null(share);
    assert_int_equal(share_verified_at(share, 7), 7);
    share_doubt(share);
    share_leave(share);
    shared_free(NULL);
    curl_easy_cleanup(easy);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lanes_share),
        cmocka_unit_test(test_new_lanes_get_a_share_for_half_an_hour),
        cmocka_unit_test(test_a_share_in_doubt_is_given_to_nobody),
        cmocka_unit_test(test_no_connection_is_a_doubt),
        cmocka_unit_test(test_age_of_a_certificate),
        cmocka_unit_test(test_which_libcurl_has_sessions),
        cmocka_unit_test(test_a_handle_without_a_share),
    };

    return cmocka_run_group_tests_name("shared", tests, NULL, NULL);
}
