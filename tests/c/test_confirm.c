/* test_confirm.c - a confirmed call: rounds until the exchange itself says that
 * nothing is open, and what it claims when it does not come to that. */
#include "world.h"

#include <stdio.h>
#include <string.h>

#define STEPS_MAX 12

#define LOCKED HEAD("503 Busy", "13") "{\"code\":5002}"
#define NONE HEAD("200 OK", "16") "{\"order_ids\":[]}"
#define FORBIDDEN HEAD("403 Forbidden", "0")
#define UNDOCUMENTED HEAD("400 Bad Request", "13") "{\"code\":4201}"

struct scenario {
    const char *name;
    const char *steps[STEPS_MAX]; /* answers; "": the connection ends */
    int max_retries;
    int timeout_ms; /* 0: ten seconds */
    /* what must become of it */
    enum esp_kind kind;
    enum esp_sent sent;
    enum esp_sent call_sent;
    int attempts;
    int rounds;
    bool lost_reply;
    int code;
};

static const struct scenario rows[] = {
    {"nothing open at once",
     {NOTHING_OPEN},
     .sent = ESP_DONE,
     .call_sent = ESP_DONE,
     .attempts = 1},
    {"one round",
     {OK_200, NOTHING_OPEN},
     .sent = ESP_DONE,
     .call_sent = ESP_DONE,
     .attempts = 2,
     .rounds = 1},
    {"orders appear while it cancels",
     {OK_200, OK_200, OK_200, OK_200, OK_200, NOTHING_OPEN},
     .sent = ESP_DONE,
     .call_sent = ESP_DONE,
     .attempts = 6,
     .rounds = 5},
    {"a 200 without orders proves nothing",
     {NONE, NOTHING_OPEN},
     .sent = ESP_DONE,
     .call_sent = ESP_DONE,
     .attempts = 2,
     .rounds = 1},
    {"orders at the end of the time",
     {OK_200, OK_200, OK_200, OK_200, OK_200, OK_200, OK_200, OK_200, OK_200,
      OK_200, NOTHING_OPEN},
     .timeout_ms = 1900, /* less than the window */
     .kind = ESP_STILL_OPEN,
     .sent = ESP_UNKNOWN,
     .call_sent = ESP_UNKNOWN,
     .attempts = 10,
     .rounds = 10},
    {"no orders, and no proof, at the end of the time",
     {OK_200, OK_200, OK_200, OK_200, OK_200, OK_200, OK_200, OK_200, OK_200,
      NONE, NOTHING_OPEN},
     .timeout_ms = 1900,
     .kind = ESP_TIMEOUT,
     .sent = ESP_UNKNOWN,
     .call_sent = ESP_UNKNOWN,
     .attempts = 10,
     .rounds = 10},
    {"a refusal for which there is no time is the verdict",
     {OK_200, OK_200, OK_200, OK_200, OK_200, OK_200, OK_200, OK_200, OK_200,
      LOCKED, NOTHING_OPEN},
     .max_retries = 3,
     .timeout_ms = 1900,
     .kind = ESP_API,
     .sent = ESP_REJECTED,
     .call_sent = ESP_REJECTED,
     .attempts = 10,
     .rounds = 9,
     .code = 5002},
    {"refused in the second round",
     {OK_200, FORBIDDEN},
     .max_retries = 3,
     .kind = ESP_HTTP,
     .sent = ESP_REJECTED,
     .call_sent = ESP_REJECTED,
     .attempts = 2,
     .rounds = 1},
    {"an undocumented code in the third round",
     {OK_200, OK_200, UNDOCUMENTED},
     .max_retries = 3,
     .kind = ESP_API,
     .sent = ESP_UNKNOWN,
     .call_sent = ESP_UNKNOWN,
     .attempts = 3,
     .rounds = 2,
     .code = 4201},
    {"each round has its own retries",
     {LOCKED, OK_200, LOCKED, OK_200, LOCKED, NOTHING_OPEN},
     .max_retries = 1,
     .sent = ESP_DONE,
     .call_sent = ESP_DONE,
     .attempts = 6,
     .rounds = 2},
    {"... and no more than those",
     {LOCKED, OK_200, LOCKED, LOCKED, NOTHING_OPEN},
     .max_retries = 1,
     .kind = ESP_API,
     .sent = ESP_REJECTED,
     .call_sent = ESP_REJECTED,
     .attempts = 4,
     .rounds = 1,
     .code = 5002},
    {"a reply lost in the first round",
     {"", OK_200, NOTHING_OPEN},
     .max_retries = 1,
     .sent = ESP_DONE,
     .call_sent = ESP_UNKNOWN,
     .attempts = 3,
     .rounds = 1,
     .lost_reply = true},
    {"a reply lost in the last round",
     {OK_200, "", NOTHING_OPEN},
     .max_retries = 1,
     .sent = ESP_DONE,
     .call_sent = ESP_UNKNOWN,
     .attempts = 3,
     .rounds = 1,
     .lost_reply = true},
    {"a reply lost in an earlier round, then a refusal",
     {"", OK_200, FORBIDDEN},
     .max_retries = 1,
     .kind = ESP_HTTP,
     .sent = ESP_REJECTED,
     .call_sent = ESP_UNKNOWN,
     .attempts = 3,
     .rounds = 1},
    {"a reply lost in the second round for good",
     {OK_200, "", NOTHING_OPEN},
     .kind = ESP_TRANSPORT,
     .sent = ESP_UNKNOWN,
     .call_sent = ESP_UNKNOWN,
     .attempts = 2,
     .rounds = 1},
    {"an error before the first round",
     {FORBIDDEN},
     .kind = ESP_HTTP,
     .sent = ESP_REJECTED,
     .call_sent = ESP_REJECTED,
     .attempts = 1},
};

/* Every earlier round's reply is there, in its order and whole. */
static void
check_rounds(const struct scenario *row, const struct esp_outcome *outcome)
{
    int i;

    CHECK(row->name, outcome->round_count == row->rounds);
    for (i = 0; i < outcome->round_count; i++)
        CHECK(row->name, cJSON_IsArray(cJSON_GetObjectItemCaseSensitive(
                             outcome->rounds[i], "order_ids")));
}

static void
check(const struct scenario *row, struct world *world)
{
    const struct esp_outcome *outcome = &world->outcome;
    int code = row->kind == ESP_OK ? 4200 : row->code; /* the proof */

    CHECK(row->name, outcome->kind == row->kind);
    CHECK(row->name, outcome->sent == row->sent);
    CHECK(row->name, outcome->call_sent == row->call_sent);
    CHECK(row->name, outcome->attempts == row->attempts);
    CHECK(row->name, outcome->attempts_max == 0);
    CHECK(row->name, outcome->lost_reply == row->lost_reply);
    CHECK(row->name, outcome->has_code == (code != 0));
    CHECK(row->name, outcome->code == code);
    CHECK(row->name, outcome->json == NULL); /* a 4200 has none */
    CHECK(row->name, outcome->kind == ESP_OK || outcome->message[0] != '\0');
    CHECK(row->name, server_posts(world->server) == row->attempts);
    CHECK(row->name, outcome->elapsed_s * 1000 <=
                         (double)world->cancel.timeout_ms + 1000);
    check_rounds(row, outcome);
}

static void
run(const struct scenario *row, void (*press)(struct world *))
{
    struct step steps[STEPS_MAX];
    struct world world;
    size_t count = 0;

    for (; count < STEPS_MAX && row->steps[count] != NULL; count++)
        steps[count] = row->steps[count][0] != '\0'
                           ? (struct step){ACT_ANSWER, row->steps[count], NULL}
                           : (struct step){ACT_CLOSE, NULL, NULL};
    world_open(&world, steps, count);
    world.cancel.confirm = true;
    world.cancel.max_retries = row->max_retries;
    if (row->timeout_ms > 0) {
        world.cancel.timeout_ms = row->timeout_ms;
        world.cancel.attempt_timeout_ms = row->timeout_ms;
    }
    press(&world);
    check(row, &world);
    world_close(&world);
}

static void
test_rounds(void **state)
{
    size_t i;

    (void)state;
    for (i = 0; i < COUNT_OF(rows); i++) {
        run(&rows[i], world_press);
        run(&rows[i], world_press_by_hand);
    }
}

/* All that the rounds cancelled, and one connection for all of them. */
static void
test_union(void **state)
{
    static const struct step steps[] = {{ACT_ECHO, NULL, NULL},
                                        {ACT_ECHO, NULL, NULL},
                                        {ACT_ECHO, NULL, NULL},
                                        {ACT_ANSWER, NOTHING_OPEN, NULL}};
    struct world world;
    char id[32];
    int i;

    (void)state;
    world_open(&world, steps, COUNT_OF(steps));
    world.cancel.confirm = true;
    world_press(&world);
    assert_int_equal(world.outcome.kind, ESP_OK);
    assert_int_equal(world.outcome.round_count, 3);
    for (i = 0; i < 3; i++) {
        const cJSON *ids = cJSON_GetObjectItemCaseSensitive(
            world.outcome.rounds[i], "order_ids");

        snprintf(id, sizeof id, SYMBOL "-%d", i + 1);
        assert_string_equal(cJSON_GetArrayItem(ids, 0)->valuestring, id);
    }
    assert_int_equal(server_connections(world.server), 1);
    world_close(&world);
}

/* The last attempt was on its way when the time was over: its own error. */
static void
test_no_answer_in_the_last_round(void **state)
{
    static const struct step steps[] = {{ACT_ANSWER, OK_200, NULL},
                                        {ACT_HANG, NULL, NULL}};
    struct world world;

    (void)state;
    world_open(&world, steps, COUNT_OF(steps));
    world.cancel.confirm = true;
    world.cancel.timeout_ms = 1000;
    world.cancel.attempt_timeout_ms = 900;
    world_press(&world);
    assert_int_equal(world.outcome.kind, ESP_TIMEOUT);
    assert_int_equal(world.outcome.sent, ESP_UNKNOWN);
    assert_int_equal(world.outcome.attempts, 2);
    assert_int_equal(world.outcome.round_count, 1);
    world_close(&world);
}

/* ---- Hooks between rounds ----------------------------------------------- */

struct hooked {
    struct world *world;
    int shown;
    int pause_ms;
    bool stops;
    bool ends_server;
    int64_t next_in_ms;
};

static int
on_attempt(void *user, const struct esp_attempt *attempt)
{
    struct hooked *hooked = user;

    hooked->shown++;
    hooked->next_in_ms = attempt->next_in_ms;
    assert_int_equal(attempt->number, hooked->shown);
    if (hooked->ends_server && hooked->shown == 1) {
        server_stop(hooked->world->server);
        hooked->world->server = NULL;
    }
    if (hooked->shown == 1)
        sleep_ms(hooked->pause_ms);
    return hooked->stops;
}

static void
press_hooked(struct world *world, struct hooked *hooked)
{
    world_open(world, NULL, 0);
    hooked->world = world;
    world->cancel.confirm = true;
    world->cancel.hooks =
        (struct esp_hooks){.on_attempt = on_attempt, .user = hooked};
    world_press(world);
}

/* The second round does not even leave: "not sent" would be a lie. */
static void
test_second_round_is_not_sent(void **state)
{
    struct hooked hooked = {.ends_server = true};
    struct world world;

    (void)state;
    press_hooked(&world, &hooked);
    assert_int_equal(hooked.shown, 2);
    assert_int_equal(world.outcome.kind, ESP_TRANSPORT);
    assert_int_equal(world.outcome.sent, ESP_NOT_SENT);
    assert_int_equal(world.outcome.call_sent, ESP_DONE);
    assert_int_equal(world.outcome.round_count, 1);
    world_close(&world);
}

static void
test_stop_after_a_round(void **state)
{
    struct hooked hooked = {.stops = true};
    struct world world;

    (void)state;
    press_hooked(&world, &hooked);
    assert_int_equal(hooked.shown, 1);
    assert_int_equal(hooked.next_in_ms, -1); /* a round is no retry */
    assert_int_equal(world.outcome.kind, ESP_INTERRUPTED);
    assert_int_equal(world.outcome.call_sent, ESP_DONE);
    assert_int_equal(world.outcome.attempts, 1);
    assert_int_equal(server_posts(world.server), 1);
    world_close(&world);
}

/* A hook that takes the time there was for another round. */
static void
test_slow_hook(void **state)
{
    struct hooked hooked = {.pause_ms = 950};
    struct world world;

    (void)state;
    world_open(&world, NULL, 0);
    world.cancel.confirm = true;
    world.cancel.timeout_ms = 1000;
    world.cancel.attempt_timeout_ms = 900;
    world.cancel.hooks =
        (struct esp_hooks){.on_attempt = on_attempt, .user = &hooked};
    world_press(&world);
    assert_int_equal(hooked.shown, 1);
    assert_int_equal(world.outcome.kind, ESP_STILL_OPEN);
    assert_int_equal(world.outcome.sent, ESP_UNKNOWN);
    assert_int_equal(world.outcome.call_sent, ESP_UNKNOWN);
    assert_int_equal(world.outcome.retry, ESP_RETRY_BACKOFF);
    assert_int_equal(world.outcome.round_count, 1);
    assert_int_equal(server_posts(world.server), 1);
    world_close(&world);
}

/* ---- The end from outside ----------------------------------------------- */

/* Interrupted while the second round is under way, and while it waits for a
 * slot: what the first one cancelled is kept. */
static void
test_interrupted(void **state)
{
    static const struct step steps[] = {{ACT_ANSWER, OK_200, NULL},
                                        {ACT_HANG, NULL, NULL}};
    struct world world;
    struct esp_press *press;
    size_t i;

    (void)state;
    for (i = 0; i < 2; i++) {
        world_open(&world, steps, COUNT_OF(steps));
        world.cancel.confirm = true;
        press = world_start(&world);
        assert_non_null(press);
        while (i == 0 ? !server_has_requests(world.server, 2)
                      : press->calls[0]->state != CALL_QUEUED) {
            assert_false(esp_press_is_done(press));
            if (i ==
                1) /* no second slot, even if one turn brings the answer */
                press->pace = (struct pace){
                    {INT64_MAX, INT64_MAX, INT64_MAX, INT64_MAX, INT64_MAX,
                     INT64_MAX, INT64_MAX, INT64_MAX, INT64_MAX, INT64_MAX}};
            drive_once(press, 1);
        }
        esp_press_free(press);
        assert_int_equal(world.outcome.kind, ESP_INTERRUPTED);
        assert_int_equal(world.outcome.call_sent,
                         i == 0 ? ESP_UNKNOWN : ESP_DONE);
        assert_int_equal(world.outcome.round_count, 1);
        assert_non_null(world.outcome.rounds[0]);
        world_close(&world);
    }
}

/* ---- Lists -------------------------------------------------------------- */

/* Each symbol has its own rounds and its own proof. */
static void
test_list(void **state)
{
    static const char *const symbols[] = {"AAA", "BBB", "CCC"};
    static const struct step proven[] = {{ACT_ANSWER, NOTHING_OPEN, NULL}};
    static const struct step second[] = {{ACT_ECHO, NULL, NULL},
                                         {ACT_ANSWER, NOTHING_OPEN, NULL}};
    static const struct step refused[] = {{ACT_ECHO, NULL, NULL},
                                          {ACT_ECHO, NULL, NULL},
                                          {ACT_ANSWER, FORBIDDEN, NULL}};
    struct world world;
    struct esp_press *press;

    (void)state;
    world_open(&world, NULL, 0);
    server_script(world.server, "AAA", proven, COUNT_OF(proven));
    server_script(world.server, "BBB", second, COUNT_OF(second));
    server_script(world.server, "CCC", refused, COUNT_OF(refused));
    world.cancel.confirm = true;
    press =
        esp_cancel_list(world.pool, &world.cancel, symbols, 3, &world.outcome);
    assert_non_null(press);
    assert_int_equal(esp_press_outcome(press, 0)->kind, ESP_OK);
    assert_int_equal(esp_press_outcome(press, 0)->round_count, 0);
    assert_int_equal(esp_press_outcome(press, 1)->kind, ESP_OK);
    assert_int_equal(esp_press_outcome(press, 1)->round_count, 1);
    assert_int_equal(esp_press_outcome(press, 2)->kind, ESP_HTTP);
    assert_int_equal(esp_press_outcome(press, 2)->round_count, 2);
    assert_int_equal(server_posts(world.server), 6);
    esp_press_free(press);
    world_close(&world);
}

/* ---- The most rounds ---------------------------------------------------- */

/* The pace makes 10 000 rounds last half an hour: most of them are put in by
 * hand. */
static void
test_most_rounds(void **state)
{
    static const char again[] = "{\"order_ids\":[\"a\"]}";
    struct world world;
    struct esp_press *press;
    struct esp_call *call;
    bool is_exact;

    (void)state;
    world_open(&world, NULL, 0);
    world.cancel.confirm = true;
    press = world_start(&world);
    assert_non_null(press);
    call = press->calls[0];
    while (call->round_count < 2)
        drive_once(press, 1);
    while (call->round_count < ESP_ROUNDS_MAX - 2) {
        esp_outcome_free(call->outcome);
        assert_int_equal(
            json_parse(again, strlen(again), &call->outcome->json, &is_exact),
            JSON_OK);
        assert_true(call_end_round(call));
    }
    drive_by_hand(press);
    esp_press_free(press);
    assert_int_equal(world.outcome.kind, ESP_STILL_OPEN);
    assert_int_equal(world.outcome.round_count, ESP_ROUNDS_MAX);
    world_close(&world);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rounds),
        cmocka_unit_test(test_union),
        cmocka_unit_test(test_no_answer_in_the_last_round),
        cmocka_unit_test(test_second_round_is_not_sent),
        cmocka_unit_test(test_stop_after_a_round),
        cmocka_unit_test(test_slow_hook),
        cmocka_unit_test(test_interrupted),
        cmocka_unit_test(test_list),
        cmocka_unit_test(test_most_rounds),
    };

    return cmocka_run_group_tests_name("confirm", tests, NULL, NULL);
}
