/* test_threads.c - many threads on one pool: each gets its own answer. */
#include "world.h"

#include <stdio.h>
#include <string.h>

#define THREADS 16
#define CALLS 25 /* of each thread */

struct worker {
    pthread_t thread;
    struct world *world;
    int number;
    int right; /* answers that were for this call */
    int ended; /* calls that the close ended */
};

/* The answer names this thread's symbol, in its one order id as well. */
static bool
is_mine(const struct esp_outcome *outcome, const char *symbol)
{
    const cJSON *ids;

    if (outcome->kind != ESP_OK || outcome->attempts != 1)
        return false;
    ids = cJSON_GetObjectItemCaseSensitive(outcome->json, "order_ids");
    return strncmp(cJSON_GetArrayItem(ids, 0)->valuestring, symbol,
                   strlen(symbol)) == 0;
}

static void *
work(void *user)
{
    struct worker *worker = user;
    struct esp_cancel cancel = worker->world->cancel;
    struct esp_outcome outcome;
    char symbol[32];
    int i;

    snprintf(symbol, sizeof symbol, "PAIR%02dUSDM", worker->number);
    cancel.symbol = symbol;
    for (i = 0; i < CALLS; i++) {
        esp_cancel_all(worker->world->pool, &cancel, &outcome);
        worker->right += is_mine(&outcome, symbol);
        worker->ended +=
            outcome.kind == ESP_TRANSPORT || outcome.kind == ESP_CLOSED;
        esp_outcome_free(&outcome);
    }
    return NULL;
}

static void
start(struct worker *workers, struct world *world)
{
    int i;

    for (i = 0; i < THREADS; i++) {
        workers[i] = (struct worker){.world = world, .number = i};
        assert_int_equal(
            pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
    }
}

static void
test_one_pool(void **state)
{
    struct worker workers[THREADS];
    struct world world;
    int i;

    (void)state;
    world_open(&world, NULL, 0);
    start(workers, &world);
    for (i = 0; i < THREADS; i++) {
        pthread_join(workers[i].thread, NULL);
        assert_int_equal(workers[i].right, CALLS);
    }
    assert_int_equal(server_posts(world.server), THREADS * CALLS);
    assert_in_range(server_connections(world.server), 1, THREADS);
    world_close(&world);
}

/* Closed while all of them press: every call is answered or ended. */
static void
test_close_while_pressing(void **state)
{
    struct worker workers[THREADS];
    struct world world;
    int right = 0;
    int i;

    (void)state;
    world_open(&world, NULL, 0);
    start(workers, &world);
    server_wait_requests(world.server, THREADS);
    esp_pool_close(world.pool, 10000);
    for (i = 0; i < THREADS; i++) {
        pthread_join(workers[i].thread, NULL);
        assert_int_equal(workers[i].right + workers[i].ended, CALLS);
        right += workers[i].right;
    }
    assert_true(server_posts(world.server) >= right);
    world_close(&world);
}

/* The maker lets go while others are in calls: the last one frees. */
static void
test_drain_while_pressing(void **state)
{
    struct worker workers[THREADS];
    struct world world;
    int i;

    (void)state;
    world_open(&world, NULL, 0);
    start(workers, &world);
    server_wait_requests(world.server, THREADS);
    assert_true(esp_group_drain(world.group, 10000));
    world_press(&world);
    assert_int_equal(world.outcome.kind, ESP_OK);
    for (i = 0; i < THREADS; i++) {
        pthread_join(workers[i].thread, NULL);
        assert_int_equal(workers[i].right + workers[i].ended, CALLS);
    }
    world_close(&world);
}

/* Each thread makes, uses and drops a pool of its own in one group. */
static void *
own_pool(void *user)
{
    struct worker *worker = user;
    struct esp_settings settings = {.base_url =
                                        server_url(worker->world->server),
                                    .user_agent = "espresso-test"};
    struct esp_outcome outcome;
    struct esp_pool *pool;
    struct esp_error error;
    int i;

    for (i = 0; i < 3; i++) {
        pool = esp_pool_new(worker->world->group, &settings, &error);
        if (pool == NULL)
            return NULL;
        esp_cancel_all(pool, &worker->world->cancel, &outcome);
        worker->right += outcome.kind == ESP_OK;
        esp_outcome_free(&outcome);
        esp_pool_release(pool);
    }
    return NULL;
}

static void
test_own_pools(void **state)
{
    struct worker workers[THREADS];
    struct world world;
    int i;

    (void)state;
    world_open(&world, NULL, 0);
    for (i = 0; i < THREADS; i++) {
        workers[i] = (struct worker){.world = &world, .number = i};
        assert_int_equal(
            pthread_create(&workers[i].thread, NULL, own_pool, &workers[i]),
            0);
    }
    for (i = 0; i < THREADS; i++) {
        pthread_join(workers[i].thread, NULL);
        assert_int_equal(workers[i].right, 3);
    }
    world_close(&world);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_pool),
        cmocka_unit_test(test_close_while_pressing),
        cmocka_unit_test(test_drain_while_pressing),
        cmocka_unit_test(test_own_pools),
    };

    return cmocka_run_group_tests_name("threads", tests, NULL, NULL);
}
