/* test_press.c - several symbols at once: their order, their pace, and one end
 * for all of them. */
#include "world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define MANY 25

static const struct step hang[] = {{ACT_HANG, NULL, NULL}};
static const struct step locked[] = {
    {ACT_ANSWER, HEAD("503 Busy", "13") "{\"code\":5002}", NULL}};

static const char *const symbols[MANY] = {
    "S00", "S01", "S02", "S03", "S04", "S05", "S06", "S07", "S08",
    "S09", "S10", "S11", "S12", "S13", "S14", "S15", "S16", "S17",
    "S18", "S19", "S20", "S21", "S22", "S23", "S24"};

/* Nobody reads this trust store: every attempt ends as it begins. */
static const struct esp_settings hopeless = {.base_url = "https://127.0.0.1:1",
                                             .ca_path = "/nonexistent",
                                             .user_agent = "espresso-test"};

static struct esp_press *
start_list(struct world *world, size_t count)
{
    struct press_plan plan = {.pool = world->pool,
                              .cancel = &world->cancel,
                              .symbols = symbols,
                              .count = count};

    return press_start(&plan, &world->outcome);
}

static struct esp_press *
press_list(struct world *world, size_t count)
{
    return esp_cancel_list(world->pool, &world->cancel, symbols, count,
                           &world->outcome);
}

static void
script_all(struct world *world, size_t count, const struct step *step)
{
    size_t i;

    for (i = 0; i < count; i++)
        server_script(world->server, symbols[i], step, 1);
}

/* That no time has come for a symbol. */
static void
check_not_tried(const struct esp_outcome *outcome, enum esp_kind kind)
{
    assert_int_equal(outcome->kind, kind);
    assert_int_equal(outcome->sent, ESP_NOT_SENT);
    assert_int_equal(outcome->call_sent, ESP_NOT_SENT);
    assert_int_equal(outcome->attempts, 0);
    assert_int_equal(outcome->http_status, 0);
    assert_null(outcome->json);
    assert_true(outcome->message[0] != '\0');
}

static void
check_answered(const struct esp_press *press, size_t i)
{
    const struct esp_outcome *outcome = esp_press_outcome(press, i);
    const cJSON *symbol;

    assert_int_equal(outcome->kind, ESP_OK);
    assert_int_equal(outcome->sent, ESP_DONE);
    assert_int_equal(outcome->call_sent, ESP_DONE);
    symbol = cJSON_GetObjectItemCaseSensitive(outcome->json, "symbol");
    assert_string_equal(symbol->valuestring, symbols[i]);
}

/* ---- Order and pace ----------------------------------------------------- */

/* A press of its own thread, so that the seconds of all of them are the same. */
struct paced {
    const char *name;
    size_t count;
    enum act first; /* what the first ten get */
    /* what must become of it */
    int at_least_ms; /* between the first and the last request */
    int at_most_ms;  /* a hang, not speed */
    /* the thread's */
    pthread_t thread;
    struct world world;
    struct esp_press *press;
};

static void *
press_paced(void *user)
{
    struct paced *paced = user;

    paced->press = press_list(&paced->world, paced->count);
    return NULL;
}

/* The server's own times: no ten-and-first request within the window. */
static void
check_pace(struct paced *paced)
{
    int64_t at[MANY];
    char symbol[128];
    int posts = server_posts(paced->world.server);
    int i;

    CHECK(paced->name, posts == (int)paced->count);
    for (i = 0; i < posts; i++) {
        server_post(paced->world.server, i, symbol, &at[i]);
        CHECK(paced->name,
              i < ESP_RATE_CALLS ||
                  at[i] - at[i - ESP_RATE_CALLS] >= ESP_RATE_WINDOW_MS);
        /* in the order given, ten by ten */
        CHECK(paced->name,
              atoi(symbol + 1) / ESP_RATE_CALLS == i / ESP_RATE_CALLS);
    }
    CHECK(paced->name, at[posts - 1] - at[0] >= paced->at_least_ms);
    CHECK(paced->name, at[posts - 1] - at[0] <= paced->at_most_ms);
}

static void
check_outcomes(struct paced *paced)
{
    size_t i;

    for (i = 0; i < paced->count; i++) {
        if (i < ESP_RATE_CALLS && paced->first == ACT_HANG)
            CHECK(paced->name,
                  esp_press_outcome(paced->press, i)->kind == ESP_TIMEOUT);
        else
            check_answered(paced->press, i);
    }
}

static void
test_pace(void **state)
{
    static const struct step hangs[] = {
        {ACT_HANG, NULL, NULL}, {ACT_HANG, NULL, NULL}, {ACT_HANG, NULL, NULL},
        {ACT_HANG, NULL, NULL}, {ACT_HANG, NULL, NULL}, {ACT_HANG, NULL, NULL},
        {ACT_HANG, NULL, NULL}, {ACT_HANG, NULL, NULL}, {ACT_HANG, NULL, NULL},
        {ACT_HANG, NULL, NULL}};
    static struct paced rows[] = {
        {"one", 1, ACT_ECHO, 0, 5000, .press = NULL},
        {"ten", 10, ACT_ECHO, 0, 5000, .press = NULL},
        {"eleven", 11, ACT_ECHO, 2000, 7000, .press = NULL},
        {"twenty-five", 25, ACT_ECHO, 4000, 9000, .press = NULL},
        /* a request without an answer has come within a second */
        {"no answers", 20, ACT_HANG, 2000, 8000, .press = NULL},
    };
    size_t i;

    (void)state;
    for (i = 0; i < COUNT_OF(rows); i++) {
        world_open(&rows[i].world, hangs,
                   rows[i].first == ACT_HANG ? COUNT_OF(hangs) : 0);
        rows[i].world.cancel.attempt_timeout_ms = 3500;
        assert_int_equal(
            pthread_create(&rows[i].thread, NULL, press_paced, &rows[i]), 0);
    }
    for (i = 0; i < COUNT_OF(rows); i++) {
        pthread_join(rows[i].thread, NULL);
        assert_non_null(rows[i].press);
        check_pace(&rows[i]);
        check_outcomes(&rows[i]);
        esp_press_free(rows[i].press);
        world_close(&rows[i].world);
    }
}

/* Make the pace leave `slots` slots, now. */
static void
leave_slots(struct esp_press *press, int slots)
{
    int i;

    for (i = 0; i < ESP_RATE_CALLS; i++)
        press->pace.free_at[i] = i < slots ? 0 : INT64_MAX;
}

/* Give turns until calls 0 to 3 wait for a slot, in `order`; the others up to
 * the ninth are done. */
static void
drive_until_queued(struct esp_press *press, struct esp_call **order)
{
    bool is_queued[4] = {false};
    int queued = 0;
    int i;

    while (queued < 4 || press->running > 4) {
        drive_once(press, 1);
        for (i = 0; i < 4; i++) {
            if (!is_queued[i] && press->calls[i]->state == CALL_QUEUED) {
                is_queued[i] = true;
                order[queued++] = press->calls[i];
            }
        }
    }
}

/* Each symbol is tried once before one is tried again, and those wait for
 * their turn in the order in which they came. */
static void
test_order_of_waiting(void **state)
{
    enum { COUNT = 13 };
    struct world world;
    struct esp_press *press;
    struct esp_call *order[4];
    size_t i;

    (void)state;
    world_open(&world, NULL, 0);
    script_all(&world, 4, locked);
    world.cancel.max_retries = 1;
    press = start_list(&world, COUNT);
    assert_non_null(press);
    drive_until_queued(press, order);
    assert_int_equal(press->begun, ESP_RATE_CALLS);
    for (i = ESP_RATE_CALLS; i < COUNT; i++) {
        leave_slots(press, 1);
        press_on_timer(press);
        assert_int_equal(press->begun, i + 1);
        assert_ptr_equal(press->queue, order[0]);
    }
    for (i = 0; i < 4; i++) {
        assert_int_equal(order[i]->attempts, 1);
        leave_slots(press, 1);
        press_on_timer(press);
        assert_int_equal(order[i]->attempts, 2);
        assert_ptr_equal(press->queue, i < 3 ? order[i + 1] : NULL);
    }
    drive_by_hand(press);
    for (i = 0; i < COUNT; i++) {
        check_answered(press, i);
        assert_int_equal(esp_press_outcome(press, i)->attempts, i < 4 ? 2 : 1);
    }
    esp_press_free(press);
    world_close(&world);
}

/* No answer within a second: the request has come, and a window after that its
 * slot is free, though the attempt goes on. */
static void
test_late_answer_frees_its_slot(void **state)
{
    enum { COUNT = ESP_RATE_CALLS + 1 };
    struct world world;
    struct esp_press *press;
    struct esp_lane *lane;
    int64_t late_at;

    (void)state;
    world_open(&world, NULL, 0);
    script_all(&world, 1, hang);
    world.cancel.attempt_timeout_ms = 9000;
    press = start_list(&world, COUNT);
    assert_non_null(press);
    while (press->running > 1 || !server_has_requests(world.server, 10))
        drive_once(press, 1);
    lane = press->calls[0]->entry.lane;
    leave_slots(press, 0);
    late_at = lane->left_at + PACE_LATE_MS;
    press_on_timer(press);
    assert_in_range(press->look_at, 1, late_at);
    assert_true(press->calls[0]->slot >= 0);
    lane->left_at -= PACE_LATE_MS; /* a second goes by */
    press_on_timer(press);
    assert_int_equal(press->calls[0]->slot, -1);
    assert_int_equal(press->look_at,
                     lane->left_at + PACE_LATE_MS + ESP_RATE_WINDOW_MS);
    assert_int_equal(press->begun, ESP_RATE_CALLS);
    leave_slots(press, 1); /* the window, too */
    press_on_timer(press);
    assert_int_equal(press->begun, COUNT);
    server_push(world.server, OK_200); /* of another symbol: the late answer */
    drive_by_hand(press);
    assert_int_equal(esp_press_outcome(press, 0)->kind, ESP_BAD_REPLY);
    esp_press_free(press);
    world_close(&world);
}

/* ---- Symbols whose turn does not come ----------------------------------- */

static void
test_rest(void **state)
{
    enum { COUNT = ESP_RATE_CALLS + 3 };
    struct world world;
    struct esp_press *press;
    size_t i;

    (void)state;
    world_open(&world, NULL, 0);
    world.cancel.timeout_ms = 1900; /* less than the window */
    world.cancel.attempt_timeout_ms = 1800;
    world.cancel.max_retries = 4;
    press = press_list(&world, COUNT);
    assert_non_null(press);
    for (i = 0; i < ESP_RATE_CALLS; i++)
        check_answered(press, i);
    for (; i < COUNT; i++) {
        const struct esp_outcome *outcome = esp_press_outcome(press, i);

        check_not_tried(outcome, ESP_TIMEOUT);
        assert_int_equal(outcome->retry, ESP_RETRY_SOON);
        assert_int_equal(outcome->attempts_max, 5);
        assert_true(outcome->elapsed_s <= 1.9); /* no need to wait for it */
    }
    assert_int_equal(server_posts(world.server), ESP_RATE_CALLS);
    esp_press_free(press);
    world_close(&world);
}

/* A retry that finds no slot in time keeps the verdict of its last attempt. */
static void
test_retry_without_a_slot(void **state)
{
    struct world world;
    struct esp_press *press;
    const struct esp_outcome *outcome;

    (void)state;
    world_open(&world, NULL, 0);
    script_all(&world, 1, locked);
    world.cancel.timeout_ms = 1900;
    world.cancel.attempt_timeout_ms = 1800;
    world.cancel.max_retries = 4;
    press = press_list(&world, ESP_RATE_CALLS);
    assert_non_null(press);
    outcome = esp_press_outcome(press, 0);
    assert_int_equal(outcome->kind, ESP_API);
    assert_int_equal(outcome->code, 5002);
    assert_int_equal(outcome->call_sent, ESP_REJECTED);
    assert_int_equal(outcome->attempts, 1);
    assert_int_equal(outcome->retry, ESP_RETRY_BACKOFF);
    assert_true(outcome->elapsed_s < 1.9 + 2); /* a hang, not speed */
    check_answered(press, 1);
    esp_press_free(press);
    world_close(&world);
}

/* However short the time is, it is worth one try. */
static void
test_short_time(void **state)
{
    struct world world;
    struct esp_press *press;
    size_t i;

    (void)state;
    world_open(&world, NULL, 0);
    script_all(&world, 3, hang);
    world.cancel.timeout_ms = 95; /* less than an attempt needs */
    press = press_list(&world, 3);
    assert_non_null(press);
    for (i = 0; i < 3; i++) {
        assert_int_equal(esp_press_outcome(press, i)->kind, ESP_TIMEOUT);
        assert_int_equal(esp_press_outcome(press, i)->attempts, 1);
    }
    esp_press_free(press);
    world_close(&world);
}

/* ---- The deadline ------------------------------------------------------- */

/* Twenty thousand whose every attempt fails at once and who all want another:
 * the deadline holds, and nobody is forgotten. */
static void
test_deadline_of_many(void **state)
{
    enum { COUNT = 20000 };
    const struct esp_settings by_name = {
        .base_url = "https://exchange.invalid", .user_agent = "espresso-test"};
    static char names[COUNT][8];
    static const char *list[COUNT];
    struct world world;
    struct esp_press *press;
    size_t i;

    (void)state;
    for (i = 0; i < COUNT; i++) {
        snprintf(names[i], sizeof names[i], "S%zu", i);
        list[i] = names[i];
    }
    for (i = 0; i < ESP_LOOKUPS_MAX; i++)
        lookups_note_abandoned(); /* now every look-up fails at once */
    world_open_with(&world, NULL, 0, by_name);
    world.cancel.timeout_ms = 400;
    world.cancel.max_retries = ESP_RETRIES_MAX;
    press = esp_cancel_list(world.pool, &world.cancel, list, COUNT,
                            &world.outcome);
    assert_non_null(press);
    for (i = 0; i < COUNT; i++) {
        const struct esp_outcome *outcome = esp_press_outcome(press, i);

        assert_true(outcome->elapsed_s < 0.4 + 2); /* a hang, not speed */
        assert_int_equal(outcome->call_sent, ESP_NOT_SENT);
        assert_int_equal(outcome->kind,
                         outcome->attempts > 0 ? ESP_TRANSPORT : ESP_TIMEOUT);
    }
    assert_true(esp_press_outcome(press, 0)->attempts > 0);
    esp_press_free(press);
    lookups_prepare_fork();
    lookups_after_fork(true); /* forget them */
    world_close(&world);
}

/* ---- Hooks -------------------------------------------------------------- */

struct hooked {
    int shown;
    int stop_at; /* say stop at this attempt; 0: never */
    int pause_ms;
    bool forks;
    pid_t child;
};

static int
on_attempt(void *user, const struct esp_attempt *attempt)
{
    struct hooked *hooked = user;

    (void)attempt;
    hooked->shown++;
    if (hooked->shown == 1 && hooked->forks)
        hooked->child = fork();
    if (hooked->shown == 1)
        sleep_ms(hooked->pause_ms);
    return hooked->shown == hooked->stop_at;
}

static void
hook(struct world *world, struct hooked *hooked)
{
    world->cancel.hooks =
        (struct esp_hooks){.on_attempt = on_attempt, .user = hooked};
}

/* A hook that says stop ends them all, there and then: no further attempt is
 * begun or shown. */
static void
test_stop_as_it_begins(void **state)
{
    struct hooked hooked = {.stop_at = 2};
    struct world world;
    struct esp_press *press;

    (void)state;
    world_open_with(&world, NULL, 0, hopeless);
    hook(&world, &hooked);
    press = start_list(&world, 4);
    assert_non_null(press);
    assert_true(esp_press_is_done(press));
    assert_int_equal(hooked.shown, 2);
    assert_int_equal(esp_press_outcome(press, 0)->kind, ESP_TRANSPORT);
    assert_int_equal(esp_press_outcome(press, 1)->kind, ESP_INTERRUPTED);
    assert_int_equal(esp_press_outcome(press, 1)->attempts, 1);
    check_not_tried(esp_press_outcome(press, 2), ESP_INTERRUPTED);
    check_not_tried(esp_press_outcome(press, 3), ESP_INTERRUPTED);
    esp_press_free(press);
    world_close(&world);
}

/* The same while others wait for their second attempt. */
static void
test_stop_while_others_wait(void **state)
{
    const struct esp_settings by_name = {
        .base_url = "https://exchange.invalid", .user_agent = "espresso-test"};
    struct hooked hooked = {.stop_at = 4};
    struct world world;
    struct esp_press *press;
    size_t i;

    (void)state;
    for (i = 0; i < ESP_LOOKUPS_MAX; i++)
        lookups_note_abandoned(); /* now every look-up fails at once */
    world_open_with(&world, NULL, 0, by_name);
    world.cancel.max_retries = 5;
    hook(&world, &hooked);
    press = press_list(&world, 3);
    assert_non_null(press);
    assert_int_equal(hooked.shown, 4);
    for (i = 0; i < 3; i++) {
        assert_int_equal(esp_press_outcome(press, i)->kind, ESP_INTERRUPTED);
        assert_int_equal(esp_press_outcome(press, i)->attempts,
                         i == 0 ? 2 : 1);
    }
    esp_press_free(press);
    lookups_prepare_fork();
    lookups_after_fork(true); /* forget them */
    world_close(&world);
}

/* In the middle: what was answered stays, what is under way is unknown, and
 * what has not begun never left. */
static void
test_stop_in_the_middle(void **state)
{
    enum { COUNT = ESP_RATE_CALLS + 2 };
    struct hooked hooked = {.stop_at = 3};
    struct world world;
    struct esp_press *press;
    int answered = 0;
    int stopped = 0;
    size_t i;

    (void)state;
    world_open(&world, NULL, 0);
    script_all(&world, 5, hang);
    hook(&world, &hooked);
    press = press_list(&world, COUNT);
    assert_non_null(press);
    assert_int_equal(hooked.shown, 3);
    for (i = 0; i < ESP_RATE_CALLS; i++) {
        const struct esp_outcome *outcome = esp_press_outcome(press, i);

        answered += outcome->kind == ESP_OK;
        stopped += outcome->kind == ESP_INTERRUPTED;
        assert_int_equal(outcome->attempts, 1);
        if (i < 5)
            assert_int_equal(outcome->kind, ESP_INTERRUPTED);
    }
    assert_int_equal(answered, 2);
    assert_int_equal(stopped, ESP_RATE_CALLS - 2);
    for (; i < COUNT; i++)
        check_not_tried(esp_press_outcome(press, i), ESP_INTERRUPTED);
    esp_press_free(press);
    world_close(&world);
}

/* Two attempts end by the same ring of the timer: the hook that says stop at
 * the first is not asked about the second. */
static void
test_stop_within_one_turn(void **state)
{
    struct hooked hooked = {.stop_at = 1};
    struct world world;
    struct esp_press *press;

    (void)state;
    world_open(&world, NULL, 0);
    script_all(&world, 2, hang);
    hook(&world, &hooked);
    press = start_list(&world, 2);
    assert_non_null(press);
    drive_until_sent(press, world.server, 2);
    press->calls[0]->turn_at = 0;
    press->calls[1]->turn_at = 0;
    press_on_timer(press);
    assert_true(esp_press_is_done(press));
    assert_int_equal(hooked.shown, 1);
    assert_int_equal(esp_press_outcome(press, 0)->call_sent, ESP_UNKNOWN);
    assert_int_equal(esp_press_outcome(press, 1)->kind, ESP_INTERRUPTED);
    assert_int_equal(esp_press_outcome(press, 1)->call_sent, ESP_UNKNOWN);
    esp_press_free(press);
    world_close(&world);
}

/* A hook that takes all the time there was: no attempt is begun after it. */
static void
test_slow_hook(void **state)
{
    struct hooked hooked = {.pause_ms = 300};
    struct world world;
    struct esp_press *press;

    (void)state;
    world_open_with(&world, NULL, 0, hopeless);
    world.cancel.timeout_ms = 250;
    hook(&world, &hooked);
    press = press_list(&world, 3);
    assert_non_null(press);
    assert_int_equal(hooked.shown, 1);
    assert_int_equal(esp_press_outcome(press, 0)->kind, ESP_TRANSPORT);
    check_not_tried(esp_press_outcome(press, 1), ESP_TIMEOUT);
    check_not_tried(esp_press_outcome(press, 2), ESP_TIMEOUT);
    esp_press_free(press);
    world_close(&world);
}

/* ---- Fork --------------------------------------------------------------- */

/* Wait for the child; true: it ended well. */
static bool
child_ended_well(pid_t child)
{
    int status = -1;

    return waitpid(child, &status, 0) == child && status == 0;
}

/* A fork inside a hook, where attempts end as they begin and where they do
 * not: the child's copy ends by itself and begins nothing. */
static void
test_fork_in_a_hook(void **state)
{
    const struct esp_settings plain = {.user_agent = "espresso-test"};
    struct hooked hooked;
    struct world world;
    struct esp_press *press;
    size_t i;

    (void)state;
    for (i = 0; i < 2; i++) {
        hooked = (struct hooked){.forks = true};
        world_open_with(&world, NULL, 0, i == 0 ? hopeless : plain);
        script_all(&world, 1, hang);
        hook(&world, &hooked);
        world.cancel.attempt_timeout_ms = 1000;
        press = press_list(&world, 3);
        assert_non_null(press);
        if (hooked.child == 0)
            leave_child(hooked.shown == 1 &&
                        esp_press_outcome(press, 0)->kind == ESP_TRANSPORT &&
                        esp_press_outcome(press, 2)->call_sent != ESP_DONE &&
                        (i > 0 || esp_press_outcome(press, 1)->attempts == 0));
        assert_true(child_ended_well(hooked.child));
        assert_int_equal(hooked.shown, 3);
        assert_int_equal(server_posts(world.server), i == 0 ? 0 : 3);
        esp_press_free(press);
        world_close(&world);
    }
}

/* A child presses a list with a pool that has seen a fork. */
static void
test_list_in_a_child(void **state)
{
    struct world world;
    struct esp_press *press;
    pid_t child;

    (void)state;
    world_open(&world, NULL, 0);
    press = press_list(&world, 2);
    esp_press_free(press);
    child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        press = press_list(&world, 3);
        leave_child(press != NULL &&
                    esp_press_outcome(press, 2)->kind == ESP_OK);
    }
    assert_true(child_ended_well(child));
    press = press_list(&world, 2);
    check_answered(press, 1);
    assert_true(esp_press_outcome(press, 1)->timing.reused);
    assert_int_equal(server_posts(world.server), 7);
    esp_press_free(press);
    world_close(&world);
}

/* ---- The end from outside ----------------------------------------------- */

struct ender {
    struct world *world;
    bool drains;
};

static void *
end_soon(void *user)
{
    struct ender *ender = user;

    server_wait_requests(ender->world->server, ESP_RATE_CALLS);
    if (ender->drains)
        esp_group_drain(ender->world->group, 10000);
    else
        esp_pool_close(ender->world->pool, 10000);
    return NULL;
}

/* Closed or drained in the middle, while two symbols have not begun. */
static void
test_end_in_the_middle(void **state)
{
    enum { COUNT = ESP_RATE_CALLS + 2 };
    static const enum esp_kind kinds[] = {ESP_TRANSPORT, ESP_CLOSED};
    struct ender ender;
    struct world world;
    struct esp_press *press;
    pthread_t thread;
    size_t i;
    size_t k;

    (void)state;
    for (k = 0; k < COUNT_OF(kinds); k++) {
        world_open(&world, NULL, 0);
        script_all(&world, 5, hang);
        world.cancel.max_retries = 3;
        ender = (struct ender){.world = &world, .drains = k == 1};
        assert_int_equal(pthread_create(&thread, NULL, end_soon, &ender), 0);
        press = press_list(&world, COUNT);
        pthread_join(thread, NULL);
        assert_non_null(press);
        for (i = 0; i < 5; i++) {
            const struct esp_outcome *outcome = esp_press_outcome(press, i);

            assert_int_equal(outcome->kind, kinds[k]);
            assert_int_equal(outcome->call_sent, ESP_UNKNOWN);
            assert_int_equal(outcome->attempts, 1);
        }
        for (i = ESP_RATE_CALLS; i < COUNT; i++)
            check_not_tried(esp_press_outcome(press, i), kinds[k]);
        assert_int_equal(server_posts(world.server), ESP_RATE_CALLS);
        esp_press_free(press);
        world_close(&world);
    }
}

static void
test_closed_before(void **state)
{
    struct world world;

    (void)state;
    world_open(&world, NULL, 0);
    esp_pool_close(world.pool, 0);
    assert_null(press_list(&world, 3));
    assert_int_equal(world.outcome.kind, ESP_CLOSED);
    assert_int_equal(world.outcome.call_sent, ESP_NOT_SENT);
    assert_int_equal(server_connections(world.server), 0);
    world_close(&world);
}

/* Closed by a hook, while a symbol waits: nothing more is begun. */
static int
close_at_once(void *user, const struct esp_attempt *attempt)
{
    struct world *world = user;

    (void)attempt;
    esp_pool_close(world->pool, 0);
    return 0;
}

static void
test_closed_by_a_hook(void **state)
{
    struct world world;
    struct esp_press *press;

    (void)state;
    world_open_with(&world, NULL, 0, hopeless);
    world.cancel.hooks =
        (struct esp_hooks){.on_attempt = close_at_once, .user = &world};
    press = press_list(&world, 3);
    assert_non_null(press);
    assert_true(esp_press_outcome(press, 0)->certificate);
    assert_int_equal(esp_press_outcome(press, 0)->attempts, 1);
    check_not_tried(esp_press_outcome(press, 1), ESP_TRANSPORT);
    check_not_tried(esp_press_outcome(press, 2), ESP_TRANSPORT);
    esp_press_free(press);
    world_close(&world);
}

static void
test_freed_in_flight(void **state)
{
    struct world world;
    struct esp_press *press;

    (void)state;
    world_open(&world, NULL, 0);
    script_all(&world, 2, hang);
    press = start_list(&world, 12);
    assert_non_null(press);
    drive_until_sent(press, world.server, 10);
    esp_press_free(press);
    assert_int_equal(pool_count_others(world.pool), 0);
    assert_null(world.pool->entries);
    press = press_list(&world, 3); /* and the pool serves on */
    check_answered(press, 2);
    esp_press_free(press);
    world_close(&world);
}

/* ---- Limits ------------------------------------------------------------- */

static void
test_counts(void **state)
{
    static const struct {
        size_t count;
        enum esp_kind kind; /* CLOSED: it was taken */
    } rows[] = {{0, ESP_BAD_ARGUMENT},
                {1, ESP_CLOSED},
                {ESP_SYMBOLS_MAX, ESP_CLOSED},
                {ESP_SYMBOLS_MAX + 1, ESP_BAD_ARGUMENT},
                {SIZE_MAX, ESP_BAD_ARGUMENT}};
    static const char *list[ESP_SYMBOLS_MAX + 1];
    struct world world;
    size_t i;

    (void)state;
    for (i = 0; i < COUNT_OF(list); i++)
        list[i] = SYMBOL;
    world_open(&world, NULL, 0);
    esp_pool_close(world.pool, 0);
    for (i = 0; i < COUNT_OF(rows); i++) {
        assert_null(esp_cancel_list(world.pool, &world.cancel, list,
                                    rows[i].count, &world.outcome));
        assert_int_equal(world.outcome.kind, rows[i].kind);
        assert_int_equal(world.outcome.attempts, 0);
    }
    world_close(&world);
}

/* The most there can be: those whose turn comes, and the rest. */
static void
test_most_symbols(void **state)
{
    static const char *list[ESP_SYMBOLS_MAX];
    struct world world;
    struct esp_press *press;
    size_t i;

    (void)state;
    for (i = 0; i < COUNT_OF(list); i++)
        list[i] = i < MANY ? symbols[i] : SYMBOL;
    world_open(&world, NULL, 0);
    world.cancel.timeout_ms = 1900;
    world.cancel.attempt_timeout_ms = 1800;
    press = esp_cancel_list(world.pool, &world.cancel, list, COUNT_OF(list),
                            &world.outcome);
    assert_non_null(press);
    for (i = 0; i < ESP_RATE_CALLS; i++)
        check_answered(press, i);
    for (; i < COUNT_OF(list); i++)
        assert_int_equal(esp_press_outcome(press, i)->kind, ESP_TIMEOUT);
    assert_int_equal(server_posts(world.server), ESP_RATE_CALLS);
    esp_press_free(press);
    world_close(&world);
}

/* One that is no symbol, the last of all: nothing is sent for any. */
static void
test_bad_symbol(void **state)
{
    static const char *const list[] = {"AAA", "BBB", "CCC/DDD"};
    struct world world;

    (void)state;
    world_open(&world, NULL, 0);
    assert_null(
        esp_cancel_list(world.pool, &world.cancel, list, 3, &world.outcome));
    assert_int_equal(world.outcome.kind, ESP_BAD_ARGUMENT);
    assert_int_equal(server_connections(world.server), 0);
    world_close(&world);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pace),
        cmocka_unit_test(test_order_of_waiting),
        cmocka_unit_test(test_late_answer_frees_its_slot),
        cmocka_unit_test(test_rest),
        cmocka_unit_test(test_retry_without_a_slot),
        cmocka_unit_test(test_short_time),
        cmocka_unit_test(test_deadline_of_many),
        cmocka_unit_test(test_stop_as_it_begins),
        cmocka_unit_test(test_stop_while_others_wait),
        cmocka_unit_test(test_stop_in_the_middle),
        cmocka_unit_test(test_stop_within_one_turn),
        cmocka_unit_test(test_slow_hook),
        cmocka_unit_test(test_fork_in_a_hook),
        cmocka_unit_test(test_list_in_a_child),
        cmocka_unit_test(test_end_in_the_middle),
        cmocka_unit_test(test_closed_before),
        cmocka_unit_test(test_closed_by_a_hook),
        cmocka_unit_test(test_freed_in_flight),
        cmocka_unit_test(test_counts),
        cmocka_unit_test(test_most_symbols),
        cmocka_unit_test(test_bad_symbol),
    };

    return cmocka_run_group_tests_name("press", tests, NULL, NULL);
}
