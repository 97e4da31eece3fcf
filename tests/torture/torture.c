/* torture.c - every allocation of a cancel over TLS fails, one at a time: no
 * crash, no leak, no claim that is not true, and the next call succeeds.
 *
 *     torture short    all of the core, libcurl and cJSON, some of OpenSSL
 *     torture all      all
 *
 * A pattern ("*list*") picks stories.
 *
 * A story is played from a pool's birth to its end with allocation 1 failing,
 * then with allocation 2, until it passes without.  What stays allocated is
 * played once more: a cache is filled once, a leak comes again. */
#include "failing.h"
#include "life.h"
#include "peer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RUNS_MAX 1000000

struct story {
    const char *name;
    life_presses *presses;
    int claims;
    int more; /* posts of which nothing is claimed */
    const struct step *steps;
    size_t step_count;
    bool all;                   /* after the first failure everything fails */
    int short_strides[ORIGINS]; /* of the short form */
};

static struct peer *peer;
static const struct story *playing;
static bool is_short;
static bool met;

/* ---- One life ----------------------------------------------------------- */

/* What the story does, then memory is back and so is the button. */
static void
play_and_recover(struct esp_pool *pool, struct life *life)
{
    struct esp_cancel cancel = life_usual;

    playing->presses(pool, life);
    met = failing_end();
    cancel.missing_ok = true;
    cancel.max_retries = 5;
    life_press(pool, &cancel, life);
    if (life->claims[life->count - 1].kind != ESP_OK)
        fail_msg("%s: with memory again the call fails", playing->name);
}

/* True if an allocation failed. */
static bool
run(enum origin origin, int number)
{
    struct esp_settings settings = {.user_agent = "espresso-torture",
                                    .base_url = peer_url(peer),
                                    .ca_path = peer_ca_file(peer)};
    struct life life;

    peer_play(peer, playing->steps, playing->step_count);
    met = false;
    failing_begin(origin, number, playing->all);
    live(&settings, &life, play_and_recover);
    met = failing_end() || met;
    judge(&life, peer_posts(peer), playing->more);
    assert_true(met || life.count == playing->claims + 1);
    return met;
}

/* The same, with a look at what it has left behind. */
static bool
run_without_leak(enum origin origin, int number)
{
    bool failed = run(origin, number);

    if (failing_grown() > 0) {
        run(origin, number);
        if (failing_grown() > 0) {
            failing_name_new();
            fail_msg("%s: without allocation %d the above leaks",
                     playing->name, number);
        }
    }
    return failed;
}

static int
torture(enum origin origin, int stride)
{
    int number = 1;

    while (run_without_leak(origin, number)) {
        number += stride;
        assert_true(number < RUNS_MAX);
    }
    return number;
}

/* ---- Stories ------------------------------------------------------------ */

static const struct step refused[] = {
    {ACT_ANSWER,
     "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 0\r\n"
     "Content-Length: 13\r\n\r\n{\"code\":4290}",
     NULL},
    {ACT_ANSWER,
     HEAD("400 Bad Request",
          "37") "{\"error\":\"Unknown symbol\",\"code\":4106}",
     NULL}};

static const struct step lost[] = {{ACT_CLOSE, NULL, NULL},
                                   {ACT_ANSWER, NOTHING_OPEN, NULL}};

static const struct step rounds[] = {{ACT_ANSWER, OK_200, NULL},
                                     {ACT_ANSWER, OK_200, NULL},
                                     {ACT_ANSWER, NOTHING_OPEN, NULL}};

#define STEPS(array) array, COUNT_OF(array)

static const struct story stories[] = {
    {"cold, then warm", press_twice, 2, 0, NULL, 0, false, {1, 10}},
    {"cold, then warm; after the first all fail",
     press_twice,
     2,
     0,
     NULL,
     0,
     true,
     {1, 100}},
    {"the exchange says no",
     press_twice,
     2,
     0,
     STEPS(refused),
     false,
     {1, 80}},
    /* waits for a back-off each time */
    {"a lost reply", press_twice, 2, 0, STEPS(lost), false, {7, 200}},
    {"confirm", press_confirmed, 1, 0, STEPS(rounds), false, {1, 40}},
    {"a list", press_list, 4, 0, NULL, 0, false, {1, 800}},
    {"an event loop", press_in_loops, 6, 4, NULL, 0, false, {11, 900}},
};

static void
test_story(void **state)
{
    static const char *const names[] = {"core, libcurl and cJSON", "OpenSSL"};
    enum origin origin;
    int stride;
    int number;

    playing = *state;
    for (origin = 0; origin < ORIGINS; origin++) {
        stride = is_short ? playing->short_strides[origin] : 1;
        number = torture(origin, stride);
        assert_true(number > 50); /* it did fail something */
        print_message("%s: held without any one of %d allocations of %s%s\n",
                      playing->name, number - 1, names[origin],
                      stride == 1 ? "" : " (not every one tried)");
    }
}

int
main(int count, char **arguments)
{
    struct CMUnitTest tests[COUNT_OF(stories)];
    size_t i;
    int failed;

    if (count < 2 || count > 3 || !failing_init() ||
        (peer = peer_start()) == NULL) {
        fprintf(stderr, "usage: torture short|all [STORY]\n");
        return 2;
    }
    is_short = strcmp(arguments[1], "short") == 0;
    for (i = 0; i < COUNT_OF(stories); i++)
        tests[i] = (struct CMUnitTest){.name = stories[i].name,
                                       .test_func = test_story,
                                       .initial_state = (void *)&stories[i]};
    /* How libcurl starts without memory is its own affair. */
    if (count == 3)
        cmocka_set_test_filter(arguments[2]);
    failed = libcurl_init() ? cmocka_run_group_tests(tests, NULL, NULL) : 1;
    peer_stop(peer);
    return failed;
}
