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

/* Close the connection of the only lane, so that the next press opens one. */
static void
close_idle(struct world *world)
{
    world->pool->idle->used_at -= ESP_IDLE_AGE_MS + 1;
}

static void
test_lanes_share(void **state)
{
    struct world world;
    struct esp_share *share;

    (void)state;
    world_open(&world, NULL, 0);
    assert_null(world.pool->shared);
    world_press(&world);
    share = world.pool->shared->current;
    assert_ptr_equal(world.pool->idle->share, share);
    assert_int_equal(share->references, 2);
    close_idle(&world);
    world_press(&world);
    assert_int_equal(server_connections(world.server), 2);
    assert_ptr_equal(world.pool->idle->share, share);
    assert_int_equal(share->references, 2);
    world_close(&world);
}

/* A lane that is open keeps the old one; it goes with the last of them. */
static void
test_a_share_is_used_for_half_an_hour(void **state)
{
    struct world world;
    struct esp_share *share;

    (void)state;
    world_open(&world, NULL, 0);
    world_press(&world);
    share = world.pool->shared->current;
    age(share, ESP_SHARE_AGE_MS - 10000);
    close_idle(&world);
    world_press(&world);
    assert_ptr_equal(world.pool->idle->share, share);
    age(share, 10001);
    world_press(&world);
    assert_int_equal(server_connections(world.server), 2);
    assert_ptr_equal(world.pool->idle->share, share);
    close_idle(&world);
    world_press(&world);
    assert_int_equal(world.outcome.kind, ESP_OK);
    assert_int_equal(server_connections(world.server), 3);
    assert_ptr_equal(world.pool->idle->share, world.pool->shared->current);
    assert_in_range(world.pool->shared->current->made_at,
                    clock_boot_ms() - 10000, clock_boot_ms());
    world_close(&world);
}

/* Where a session may have been taken up, a connection is as old as the share:
 * no certificate is trusted for longer than ESP_LIFETIME_MS. */
static void
test_age_of_a_certificate(void **state)
{
    static const int64_t ages[] = {0, 1, ESP_SHARE_AGE_MS - 10000};
    struct world world;
    struct esp_share *share;
    bool has_sessions;
    size_t i;

    (void)state;
    for (i = 0; i < 2 * COUNT_OF(ages); i++) {
        has_sessions = i % 2 == 1;
        world_open(&world, NULL, 0);
        world_press(&world);
        share = world.pool->shared->current;
        share->has_sessions = has_sessions;
        age(share, ages[i / 2]);
        close_idle(&world);
        world_press(&world);
        assert_int_equal(server_connections(world.server), 2);
        if (has_sessions)
            assert_int_equal(world.pool->idle->verified_at, share->made_at);
        else
            assert_int_equal(world.pool->idle->verified_at,
                             world.pool->idle->used_at);
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
    assert_int_equal(world.pool->shared->current->has_sessions,
                     version >= 0x080c00);
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
    share_leave(share);
    shared_doubt(NULL, true);
    shared_free(NULL);
    curl_easy_cleanup(easy);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lanes_share),
        cmocka_unit_test(test_a_share_is_used_for_half_an_hour),
        cmocka_unit_test(test_age_of_a_certificate),
        cmocka_unit_test(test_which_libcurl_has_sessions),
        cmocka_unit_test(test_a_handle_without_a_share),
    };

    return cmocka_run_group_tests_name("shared", tests, NULL, NULL);
}
