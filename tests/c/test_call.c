/* test_call.c - who may end a call, and what it says then: hooks, closing,
 * draining, interrupting, freeing. */
#include "world.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static const struct step hang[] = {{ACT_HANG, NULL, NULL}};

/* ---- Hooks -------------------------------------------------------------- */

struct hooked {
    struct world *world;
    int asked;      /* times that interrupted() was called */
    int stop_after; /* say stop at this look; 0: never */
    int shown;      /* attempts that were shown */
    int stop_at;    /* end the call after this attempt; 0: never */
    struct {
        int number;
        enum esp_kind kind;
        enum esp_sent sent;
        int64_t next_in_ms;
        bool lost_reply;
    } seen[4];
};

static int
on_look(void *user)
{
    struct hooked *hooked = user;

    return ++hooked->asked == hooked->stop_after;
}

static int
on_attempt(void *user, const struct esp_attempt *attempt)
{
    struct hooked *hooked = user;
    int i = hooked->shown++;

    assert_string_equal(attempt->symbol, SYMBOL);
    assert_true(i < (int)COUNT_OF(hooked->seen));
    hooked->seen[i].number = attempt->number;
    hooked->seen[i].kind = attempt->outcome->kind;
    hooked->seen[i].sent = attempt->outcome->sent;
    hooked->seen[i].next_in_ms = attempt->next_in_ms;
    hooked->seen[i].lost_reply = attempt->lost_reply;
    return attempt->number == hooked->stop_at;
}

static void
hook(struct world *world, struct hooked *hooked)
{
    *hooked = (struct hooked){.world = world};
    world->cancel.hooks = (struct esp_hooks){.interrupted = on_look,
                                             .on_attempt = on_attempt,
                                             .user = hooked,
                                             .poll = true};
}

static void
test_on_attempt(void **state)
{
    static const struct step steps[] = {
        {ACT_CLOSE, NULL, NULL},
        {ACT_ANSWER, HEAD("503 Service Unavailable", "13") "{\"code\":5002}",
         NULL},
        {ACT_ANSWER, OK_200, NULL}};
    struct world world;
    struct hooked hooked;

    (void)state;
    world_open(&world, steps, COUNT_OF(steps));
    hook(&world, &hooked);
    world.cancel.max_retries = 5;
    world_press(&world);
    assert_int_equal(world.outcome.kind, ESP_OK);
    assert_int_equal(hooked.shown, 3);
    assert_int_equal(hooked.seen[0].number, 1);
    assert_int_equal(hooked.seen[0].kind, ESP_TRANSPORT);
    assert_int_equal(hooked.seen[0].sent, ESP_UNKNOWN);
    assert_in_range(hooked.seen[0].next_in_ms, 50, 100);
    assert_int_equal(hooked.seen[1].number, 2);
    assert_int_equal(hooked.seen[1].kind, ESP_API);
    assert_int_equal(hooked.seen[1].sent, ESP_REJECTED);
    assert_in_range(hooked.seen[1].next_in_ms, 100, 200);
    assert_false(hooked.seen[1].lost_reply);
    assert_int_equal(hooked.seen[2].number, 3);
    assert_int_equal(hooked.seen[2].kind, ESP_OK);
    assert_int_equal(hooked.seen[2].next_in_ms, -1);
    assert_true(hooked.seen[2].lost_reply);
    world_close(&world);
}

/* A hook that ends the call does not make it forget what was sent. */
static void
test_stop_on_attempt(void **state)
{
    static const struct {
        const char *name;
        struct step step;
        enum esp_sent at_least;
    } rows[] = {
        {"after a success", {ACT_ANSWER, OK_200, NULL}, ESP_UNKNOWN},
        {"after a lost reply", {ACT_CLOSE, NULL, NULL}, ESP_UNKNOWN},
        {"after a refusal", {ACT_ANSWER, NOTHING_OPEN, NULL}, ESP_REJECTED},
    };
    struct world world;
    struct hooked hooked;
    size_t i;

    (void)state;
    for (i = 0; i < COUNT_OF(rows); i++) {
        world_open(&world, &rows[i].step, 1);
        hook(&world, &hooked);
        hooked.stop_at = 1;
        world.cancel.max_retries = 3;
        world_press(&world);
        CHECK(rows[i].name, world.outcome.kind == ESP_INTERRUPTED);
        CHECK(rows[i].name, world.outcome.call_sent >= rows[i].at_least);
        CHECK(rows[i].name, world.outcome.attempts == 1);
        CHECK(rows[i].name, world.outcome.json == NULL);
        CHECK(rows[i].name, !world.outcome.has_code);
        CHECK(rows[i].name, server_posts(world.server) == 1);
        world_close(&world);
    }
}

static void
test_interrupt_hook(void **state)
{
    struct world world;
    struct hooked hooked;

    (void)state;
    world_open(&world, hang, COUNT_OF(hang));
    hook(&world, &hooked);
    hooked.stop_after = 3;
    world.cancel.max_retries = 3;
    world_press(&world);
    assert_int_equal(world.outcome.kind, ESP_INTERRUPTED);
    assert_int_equal(world.outcome.sent, ESP_UNKNOWN);
    assert_int_equal(world.outcome.call_sent, ESP_UNKNOWN);
    assert_int_equal(world.outcome.attempts, 1);
    assert_int_equal(hooked.asked, 3);
    assert_int_equal(hooked.shown, 0);
    assert_int_equal(server_posts(world.server), 1);
    world_close(&world);
}

/* During a back-off nothing is under way, but what was sent stays sent, and
 * nothing of the attempt before is taken for this end. */
static void
test_interrupt_between_attempts(void **state)
{
    static const struct step steps[] = {
        {ACT_ANSWER, HEAD("500 Broken", "13") "{\"code\":5000}", NULL}};
    struct world world;
    struct esp_press *press;
    struct pollfd polled[ESP_WATCHES_MAX];

    (void)state;
    world_open(&world, steps, COUNT_OF(steps));
    world.cancel.max_retries = 3;
    press = world_start(&world);
    assert_non_null(press);
    while (watches_of(press, polled) > 0 ||
           !server_has_requests(world.server, 1))
        drive_once(press, 1);
    esp_press_interrupt(press);
    assert_true(esp_press_is_done(press));
    esp_press_interrupt(press); /* does nothing on one that is done */
    press_on_timer(press);
    press_on_socket(press, press->calls[0], 0, true, true);
    esp_press_free(press);
    assert_int_equal(world.outcome.kind, ESP_INTERRUPTED);
    assert_int_equal(world.outcome.call_sent, ESP_UNKNOWN);
    assert_false(world.outcome.has_code);
    assert_int_equal(world.outcome.http_status, 0);
    world_close(&world);
}

static int signals;

static void
on_signal(int number)
{
    (void)number;
    signals++;
}

static void *
signal_soon(void *thread)
{
    sleep_ms(100);
    pthread_kill(*(pthread_t *)thread, SIGUSR1);
    return NULL;
}

static int
on_look_for_signal(void *user)
{
    (void)user;
    return signals > 0;
}

/* A signal on this thread ends the wait at once, with no slices. */
static void
test_signal(void **state)
{
    struct sigaction action = {.sa_handler = on_signal};
    struct sigaction before;
    pthread_t self = pthread_self();
    pthread_t thread;
    struct world world;

    (void)state;
    signals = 0;
    assert_int_equal(sigaction(SIGUSR1, &action, &before), 0);
    world_open(&world, hang, COUNT_OF(hang));
    world.cancel.hooks.interrupted = on_look_for_signal;
    assert_int_equal(pthread_create(&thread, NULL, signal_soon, &self), 0);
    world_press(&world);
    pthread_join(thread, NULL);
    assert_int_equal(sigaction(SIGUSR1, &before, NULL), 0);
    assert_int_equal(signals, 1);
    assert_int_equal(world.outcome.kind, ESP_INTERRUPTED);
    assert_int_equal(world.outcome.call_sent, ESP_UNKNOWN);
    world_close(&world);
}

/* A hook may press the button itself, on the same pool. */
static int
press_inside(void *user, const struct esp_attempt *attempt)
{
    struct hooked *hooked = user;
    struct esp_cancel cancel = hooked->world->cancel;
    struct esp_outcome outcome;

    (void)attempt;
    cancel.hooks = (struct esp_hooks){0};
    esp_cancel_all(hooked->world->pool, &cancel, &outcome);
    hooked->shown += outcome.kind == ESP_OK;
    esp_outcome_free(&outcome);
    return 0;
}

static void
test_press_inside_a_hook(void **state)
{
    struct world world;
    struct hooked hooked;

    (void)state;
    world_open(&world, NULL, 0);
    hook(&world, &hooked);
    world.cancel.hooks.on_attempt = press_inside;
    world_press(&world);
    assert_int_equal(world.outcome.kind, ESP_OK);
    assert_int_equal(hooked.shown, 1);
    assert_int_equal(server_posts(world.server), 2);
    world_close(&world);
}

/* A fork inside a hook: the child's copy of the call ends by itself, without
 * a request of its own. */
static int
fork_inside(void *user, const struct esp_attempt *attempt)
{
    struct hooked *hooked = user;

    (void)attempt;
    hooked->shown++;
    if (hooked->shown == 1)
        hooked->asked = fork();
    return 0;
}

static void
test_fork_inside_a_hook(void **state)
{
    static const struct step steps[] = {
        {ACT_ANSWER, HEAD("503 Busy", "13") "{\"code\":5002}", NULL}};
    struct world world;
    struct hooked hooked;
    int status = -1;

    (void)state;
    world_open(&world, steps, COUNT_OF(steps));
    hook(&world, &hooked);
    world.cancel.hooks.interrupted = NULL;
    world.cancel.hooks.on_attempt = fork_inside;
    world.cancel.max_retries = 1;
    world_press(&world);
    if (hooked.asked == 0)
        leave_child(world.outcome.kind != ESP_OK);
    assert_true(hooked.asked > 0);
    assert_int_equal(waitpid(hooked.asked, &status, 0), hooked.asked);
    assert_int_equal(status, 0);
    assert_int_equal(world.outcome.kind, ESP_OK);
    assert_int_equal(server_posts(world.server), 2);
    world_close(&world);
}

/* ---- Closing ------------------------------------------------------------ */

static void *
close_soon(void *user)
{
    struct world *world = user;

    server_wait_requests(world->server, 1);
    sleep_ms(500); /* libcurl's timers of the connecting have rung by then */
    esp_pool_close(world->pool, 10000);
    return NULL;
}

static void
test_close_from_another_thread(void **state)
{
    struct world world;
    pthread_t thread;

    (void)state;
    world_open(&world, hang, COUNT_OF(hang));
    world.cancel.max_retries = 3;
    world.cancel.timeout_ms = 50000;
    world.cancel.attempt_timeout_ms = 40000;
    world.cancel.connect_timeout_ms = 40000; /* its timer would wake us */
    assert_int_equal(pthread_create(&thread, NULL, close_soon, &world), 0);
    world_press(&world);
    pthread_join(thread, NULL);
    /* It was woken: nothing else ends it so soon. */
    assert_true(world.outcome.elapsed_s < 15);
    assert_int_equal(world.outcome.kind, ESP_TRANSPORT);
    assert_int_equal(world.outcome.sent, ESP_UNKNOWN);
    assert_int_equal(world.outcome.call_sent, ESP_UNKNOWN);
    assert_int_equal(world.outcome.attempts, 1);
    assert_non_null(strstr(world.outcome.message, "closed"));
    assert_int_equal(server_posts(world.server), 1);
    world_close(&world);
}

static void
test_closed_pool(void **state)
{
    struct world world;

    (void)state;
    world_open(&world, NULL, 0);
    world_press(&world);
    assert_false(esp_pool_is_closed(world.pool));
    esp_pool_close(world.pool, 0);
    esp_pool_close(world.pool, 0);
    assert_true(esp_pool_is_closed(world.pool));
    world_press(&world);
    assert_int_equal(world.outcome.kind, ESP_CLOSED);
    assert_int_equal(world.outcome.call_sent, ESP_NOT_SENT);
    assert_int_equal(world.outcome.attempts, 0);
    assert_null(world_start(&world));
    assert_int_equal(world.outcome.kind, ESP_CLOSED);
    assert_int_equal(server_posts(world.server), 1);
    world_close(&world);
}

/* Closed by the thread that drives it: its next turn ends it. */
static void
test_close_under_a_call(void **state)
{
    struct world world;
    struct esp_press *press;

    (void)state;
    world_open(&world, hang, COUNT_OF(hang));
    press = world_start(&world);
    assert_non_null(press);
    drive_until_sent(press, world.server, 1);
    esp_pool_close(world.pool, 0);
    assert_false(esp_press_is_done(press));
    press_on_timer(press);
    assert_true(esp_press_is_done(press));
    esp_press_free(press);
    assert_int_equal(world.outcome.kind, ESP_TRANSPORT);
    assert_int_equal(world.outcome.call_sent, ESP_UNKNOWN);
    world_close(&world);
}

/* The last user frees the pool, not the one who made it. */
static void
test_released_under_a_call(void **state)
{
    struct world world;
    struct esp_press *press;

    (void)state;
    world_open(&world, NULL, 0);
    press = world_start(&world);
    assert_non_null(press);
    esp_pool_release(world.pool);
    world.pool = NULL;
    drive_by_hand(press);
    esp_press_free(press);
    assert_int_equal(world.outcome.kind, ESP_OK);
    world_close(&world);
}

static void
test_freed_in_flight(void **state)
{
    struct world world;
    struct esp_press *press;

    (void)state;
    world_open(&world, hang, COUNT_OF(hang));
    press = world_start(&world);
    assert_non_null(press);
    drive_until_sent(press, world.server, 1);
    esp_press_free(press);
    assert_int_equal(world.outcome.kind, ESP_INTERRUPTED);
    assert_int_equal(world.outcome.sent, ESP_UNKNOWN);
    assert_int_equal(world.outcome.call_sent, ESP_UNKNOWN);
    assert_int_equal(world.outcome.attempts, 1);
    esp_press_free(NULL);
    world_press(&world); /* and the pool serves on */
    assert_int_equal(world.outcome.kind, ESP_OK);
    assert_int_equal(server_connections(world.server), 2);
    world_close(&world);
}

/* Freed before a byte left: nothing was sent. */
static void
test_freed_before_it_left(void **state)
{
    struct world world;
    struct esp_press *press;

    (void)state;
    world_open(&world, NULL, 0);
    press = world_start(&world);
    assert_non_null(press);
    esp_press_free(press);
    assert_int_equal(world.outcome.kind, ESP_INTERRUPTED);
    sleep_ms(20);
    assert_true(world.outcome.call_sent == ESP_UNKNOWN ||
                server_posts(world.server) == 0);
    world_close(&world);
}

/* ---- Draining ----------------------------------------------------------- */

struct other {
    pthread_t thread;
    struct world *world;
    struct esp_outcome outcome;
};

static void *
press_in_thread(void *user)
{
    struct other *other = user;

    esp_cancel_all(other->world->pool, &other->world->cancel, &other->outcome);
    return NULL;
}

/* The end of a program: the calls of other threads end, and those of the
 * thread that runs the exit handlers still go through. */
static void
test_drain(void **state)
{
    static const struct step steps[] = {{ACT_HANG, NULL, NULL},
                                        {ACT_HANG, NULL, NULL}};
    struct world world;
    struct other others[2];
    size_t i;

    (void)state;
    world_open(&world, steps, COUNT_OF(steps));
    for (i = 0; i < COUNT_OF(others); i++) {
        others[i].world = &world;
        assert_int_equal(pthread_create(&others[i].thread, NULL,
                                        press_in_thread, &others[i]),
                         0);
    }
    assert_true(server_wait_requests(world.server, 2));
    assert_true(esp_group_drain(world.group, 10000));
    assert_false(esp_pool_is_closed(world.pool));
    for (i = 0; i < COUNT_OF(others); i++) {
        pthread_join(others[i].thread, NULL);
        assert_int_equal(others[i].outcome.kind, ESP_CLOSED);
        assert_int_equal(others[i].outcome.call_sent, ESP_UNKNOWN);
        esp_outcome_free(&others[i].outcome);
    }
    world_press(&world);
    assert_int_equal(world.outcome.kind, ESP_OK);
    assert_int_equal(
        pthread_create(&others[0].thread, NULL, press_in_thread, &others[0]),
        0);
    pthread_join(others[0].thread, NULL);
    assert_int_equal(others[0].outcome.kind, ESP_CLOSED);
    assert_int_equal(server_posts(world.server), 3);
    world_close(&world);
}

/* A pool that is made during the drain is drained, too. */
static void
test_pool_made_after_drain(void **state)
{
    struct esp_settings settings = {.user_agent = "espresso-test"};
    struct esp_error error;
    struct world world;
    struct other other;
    struct esp_pool *first;

    (void)state;
    world_open(&world, NULL, 0);
    assert_true(esp_group_drain(world.group, 0));
    first = world.pool;
    settings.base_url = server_url(world.server);
    world.pool = esp_pool_new(world.group, &settings, &error);
    assert_non_null(world.pool);
    esp_pool_release(first);
    other.world = &world;
    pthread_create(&other.thread, NULL, press_in_thread, &other);
    pthread_join(other.thread, NULL);
    assert_int_equal(other.outcome.kind, ESP_CLOSED);
    world_press(&world);
    assert_int_equal(world.outcome.kind, ESP_OK);
    world_close(&world);
}

/* A call that nobody gives turns cannot leave: the drain does not wait for
 * ever. */
static void *
start_in_thread(void *user)
{
    struct other *other = user;

    return press_start_one(other->world->pool, &other->world->cancel, false,
                           &other->outcome);
}

static void
test_drain_is_bounded(void **state)
{
    struct world world;
    struct other other = {.world = &world};
    void *press;

    (void)state;
    world_open(&world, hang, COUNT_OF(hang));
    pthread_create(&other.thread, NULL, start_in_thread, &other);
    pthread_join(other.thread, &press);
    assert_non_null(press);
    esp_pool_close(world.pool, 10);
    assert_false(esp_group_drain(world.group, 10));
    esp_press_free(press);
    esp_outcome_free(&other.outcome);
    assert_true(esp_group_drain(world.group, 0));
    world_close(&world);
}

/* ---- Idle connections --------------------------------------------------- */

/* ESP_IDLE_MAX connections are kept, the warmest, and the rest closed. */
static void
test_idle_max(void **state)
{
    enum { CALLS = ESP_IDLE_MAX + 2 };
    struct step steps[CALLS];
    struct esp_press *presses[CALLS];
    struct esp_outcome outcomes[CALLS];
    const struct esp_lane *warmest;
    struct world world;
    int i;

    (void)state;
    for (i = 0; i < CALLS; i++)
        steps[i] = hang[0];
    world_open(&world, steps, CALLS);
    for (i = 0; i < CALLS; i++) {
        presses[i] =
            press_start_one(world.pool, &world.cancel, false, &outcomes[i]);
        assert_non_null(presses[i]);
        drive_until_sent(presses[i], world.server, i + 1);
    }
    server_push(world.server, OK_200);
    warmest = presses[CALLS - 1]->calls[0]->entry.lane;
    for (i = 0; i < CALLS; i++) {
        drive_by_hand(presses[i]);
        esp_press_free(presses[i]);
        assert_int_equal(outcomes[i].kind, ESP_OK);
        esp_outcome_free(&outcomes[i]);
    }
    assert_int_equal(server_connections(world.server), CALLS);
    assert_int_equal(world.pool->idle_count, ESP_IDLE_MAX);
    assert_ptr_equal(world.pool->idle, warmest);
    world_press(&world);
    assert_true(world.outcome.timing.reused);
    assert_int_equal(server_connections(world.server), CALLS);
    world_close(&world);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_on_attempt),
        cmocka_unit_test(test_stop_on_attempt),
        cmocka_unit_test(test_interrupt_hook),
        cmocka_unit_test(test_interrupt_between_attempts),
        cmocka_unit_test(test_signal),
        cmocka_unit_test(test_press_inside_a_hook),
        cmocka_unit_test(test_fork_inside_a_hook),
        cmocka_unit_test(test_close_from_another_thread),
        cmocka_unit_test(test_closed_pool),
        cmocka_unit_test(test_close_under_a_call),
        cmocka_unit_test(test_released_under_a_call),
        cmocka_unit_test(test_freed_in_flight),
        cmocka_unit_test(test_freed_before_it_left),
        cmocka_unit_test(test_drain),
        cmocka_unit_test(test_pool_made_after_drain),
        cmocka_unit_test(test_drain_is_bounded),
        cmocka_unit_test(test_idle_max),
    };

    return cmocka_run_group_tests_name("call", tests, NULL, NULL);
}
