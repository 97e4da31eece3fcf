/* torture.c - every allocation of a cancel over TLS fails, one at a time: no
 * crash, no leak, no claim that is not true, and the next call succeeds.
 *
 *     torture STRIDE [STORY]    every one of the core, libcurl and cJSON, and
 *                               every STRIDE-th of OpenSSL, which has thousands
 *     torture stories           their names, a line each
 *
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
    bool all;      /* after the first failure everything fails */
    bool stranger; /* the server's certificate is none that is trusted */
};

static struct peer *peer;
static const struct story *playing;
static int openssl_stride;
static bool met;

/* ---- One life ----------------------------------------------------------- */

/* The end of the story: with memory again, the button does its work, or still
 * refuses a stranger. */
static void
judge_recovery(const struct claim *last)
{
    bool ok = playing->stranger ? last->certificate : last->kind == ESP_OK;

    if (!ok)
        fail_msg("%s: with memory again the call ends in another way",
                 playing->name);
}

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
    judge_recovery(&life->claims[life->count - 1]);
}

/* True if an allocation failed. */
static bool
run(enum origin origin, int number)
{
    struct esp_settings settings = {.user_agent = "espresso-torture",
                                    .base_url = peer_url(peer),
                                    .ca_path = playing->stranger
                                                   ? peer_stranger_file(peer)
                                                   : peer_ca_file(peer)};
    struct life life;
    int posts;

    peer_play(peer, playing->steps, playing->step_count);
    met = false;
    failing_begin(origin, number, playing->all);
    live(&settings, &life, play_and_recover);
    met = failing_end() || met;
    posts = peer_posts(peer);
    if (playing->stranger)
        assert_int_equal(posts, 0);
    judge(&life, posts, playing->more);
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
    {"cold, then warm", press_twice, 2, 0, NULL, 0, false, false},
    {"cold, then warm; after the first all fail", press_twice, 2, 0, NULL, 0,
     true, false},
    {"the exchange says no", press_twice, 2, 0, STEPS(refused), false, false},
    {"a lost reply", press_twice, 2, 0, STEPS(lost), false,
     false}, /* it backs off */
    {"confirm", press_confirmed, 1, 0, STEPS(rounds), false, false},
    {"a list", press_list, 4, 0, NULL, 0, false, false},
    {"an event loop", press_in_loops, 6, 4, NULL, 0, false, false},
    {"a stranger", press_twice, 2, 0, NULL, 0, false, true},
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
        stride = origin == FROM_TLS ? openssl_stride : 1;
        number = torture(origin, stride);
        assert_true(number > 50); /* it did fail something */
        print_message("%s: held without any one of %d allocations of %s%s\n",
                      playing->name, number - 1, names[origin],
                      stride == 1 ? "" : " (not every one tried)");
    }
}

static int
print_stories(void)
{
    size_t i;

    for (i = 0; i < COUNT_OF(stories); i++)
        puts(stories[i].name);
    return 0;
}

static int
torture_stories(const char *story)
{
    struct CMUnitTest tests[COUNT_OF(stories)];
    size_t i;
    int failed;

    for (i = 0; i < COUNT_OF(stories); i++)
        tests[i] = (struct CMUnitTest){.name = stories[i].name,
                                       .test_func = test_story,
                                       .initial_state = (void *)&stories[i]};
    /* How libcurl starts without memory is its own affair. */
    cmocka_set_test_filter(story);
    failed = libcurl_init() ? cmocka_run_group_tests(tests, NULL, NULL) : 1;
    peer_stop(peer);
    return failed;
}

int
main(int count, char **arguments)
{
    if (count == 2 && strcmp(arguments[1], "stories") == 0)
        return print_stories();
    openssl_stride = count > 1 ? atoi(arguments[1]) : 0;
    if (openssl_stride < 1 || count > 3 || !failing_init() ||
        (peer = peer_start()) == NULL) {
        fprintf(stderr, "usage: torture STRIDE [STORY] | torture stories\n");
        return 2;
    }
    return torture_stories(arguments[2]); /* NULL: all */
}
