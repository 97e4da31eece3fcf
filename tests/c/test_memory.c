/* test_memory.c - the n-th allocation fails, for every n of a whole life: no
 * crash, no leak, no claim that is not true. */
#include "world.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define RUNS_MAX 2000

/* ---- Allocations that fail ---------------------------------------------- */

/* This program's own malloc, calloc and realloc stand before the system's,
 * for libcurl and cJSON too.  Only the thread that asked for it fails. */
static _Thread_local int until; /* allocations to the failure; 0: off */
static _Thread_local bool fails_on;
static _Thread_local bool was_refused;

/* Allocation `number` (from 1) fails and, if `all`, each one after it. */
static void
alloc_fail(int number, bool all)
{
    until = number;
    fails_on = all;
    was_refused = false;
}

/* No more failures; true if there was one since alloc_fail. */
static bool
alloc_stop(void)
{
    until = 0;
    return was_refused;
}

static bool
is_refused(void)
{
    if (until == 0 || --until > 0)
        return false;
    until = fails_on ? 1 : 0;
    was_refused = true;
    errno = ENOMEM;
    return true;
}

/* ISO C has no cast from dlsym's result to a function; POSIX lets its bytes
 * be copied. */
static void
find_next(void *function, const char *name)
{
    void *found = dlsym(RTLD_NEXT, name);

    memcpy(function, &found, sizeof found);
}

void *
malloc(size_t size)
{
    static void *(*next)(size_t);

    if (next == NULL)
        find_next(&next, "malloc");
    return is_refused() ? NULL : next(size);
}

void *
calloc(size_t count, size_t size)
{
    static void *(*next)(size_t, size_t);

    if (next == NULL)
        find_next(&next, "calloc");
    return is_refused() ? NULL : next(count, size);
}

void *
realloc(void *old, size_t size)
{
    static void *(*next)(void *, size_t);

    if (next == NULL)
        find_next(&next, "realloc");
    return is_refused() ? NULL : next(old, size);
}

/* ---- Lives -------------------------------------------------------------- */

/* What one life did, to be judged when memory is back. */
struct life {
    struct esp_outcome outcomes[2];
    int calls;
};

static void
press(struct esp_pool *pool, struct life *life)
{
    struct esp_cancel cancel = {.symbol = SYMBOL,
                                .api_key = KEY,
                                .timeout_ms = 10000,
                                .connect_timeout_ms = 10000,
                                .max_retries = 1};

    esp_cancel_all(pool, &cancel, &life->outcomes[life->calls++]);
}

/* A pool, a first call, a second on the kept connection, the end. */
static void
live(const struct esp_settings *settings, struct life *life)
{
    struct esp_error error;
    struct esp_group *group = esp_group_new();
    struct esp_pool *pool;

    life->calls = 0;
    if (group == NULL)
        return;
    pool = esp_pool_new(group, settings, &error);
    if (pool != NULL) {
        press(pool, life);
        press(pool, life);
    }
    esp_pool_release(pool);
    esp_group_free(group);
}

/* `posts` came in all. */
static void
judge(struct life *life, int posts)
{
    struct esp_outcome *outcome;
    int attempts = 0;
    int must = 0;
    int i;

    for (i = 0; i < life->calls; i++) {
        outcome = &life->outcomes[i];
        attempts += outcome->attempts;
        if (outcome->kind == ESP_OK) {
            must++;
            assert_true(outcome->json != NULL || outcome->lost_reply);
        }
        else {
            assert_null(outcome->json);
            assert_true(outcome->sent != ESP_DONE);
        }
        if (outcome->call_sent == ESP_NOT_SENT && outcome->kind != ESP_OK)
            attempts -= outcome->attempts;
        esp_outcome_free(outcome);
    }
    assert_in_range(posts, must, attempts);
}

/* Fail allocation 1, 1 + `stride` ... until a whole life passes without. */
static void
torture(const struct step *steps, size_t count, int stride, bool all)
{
    struct server *server;
    struct life life;
    struct esp_settings settings = {.user_agent = "espresso-test"};
    bool met = true;
    int number;

    for (number = 1; met; number += stride) {
        assert_true(number < RUNS_MAX);
        server = server_start(steps, count, false);
        assert_non_null(server);
        settings.base_url = server_url(server);
        alloc_fail(number, all);
        live(&settings, &life);
        met = alloc_stop();
        assert_true(met || life.calls == 2);
        judge(&life, server_posts(server));
        server_stop(server);
    }
    assert_true(number > 20); /* it did fail something */
}

static void
test_success(void **state)
{
    (void)state;
    torture(NULL, 0, 1, false);
    torture(NULL, 0, 1, true);
}

/* An attempt that is refused, and another at once. */
static void
test_second_attempt(void **state)
{
    static const struct step steps[] = {
        {ACT_ANSWER,
         "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 0\r\n"
         "Content-Length: 13\r\n\r\n{\"code\":4290}",
         NULL},
        {ACT_ANSWER, OK_200, NULL},
        {ACT_ANSWER, NOTHING_OPEN, NULL}};

    (void)state;
    torture(steps, COUNT_OF(steps), 1, false);
}

/* Each of these waits for a back-off: not all of them, then. */
static void
test_lost_reply(void **state)
{
    static const struct step steps[] = {{ACT_CLOSE, NULL, NULL},
                                        {ACT_ANSWER, OK_200, NULL},
                                        {ACT_ANSWER, NOTHING_OPEN, NULL}};

    (void)state;
    torture(steps, COUNT_OF(steps), 7, false);
}

static void
test_proxy_settings(void **state)
{
    struct esp_settings settings = ESP_SETTINGS_DEFAULT;
    struct esp_group *group = esp_group_new();
    struct esp_pool *pool = NULL;
    struct esp_error error;
    int number;

    (void)state;
    assert_non_null(group);
    settings.proxy = "http://trader:secret-pw@proxy.invalid:3128";
    settings.no_proxy = "other.invalid";
    settings.ca_path = "/nonexistent";
    for (number = 1; pool == NULL; number++) {
        assert_true(number < RUNS_MAX);
        error = (struct esp_error){.kind = ESP_OK};
        alloc_fail(number, false);
        pool = esp_pool_new(group, &settings, &error);
        alloc_stop();
        assert_true(pool != NULL || error.message[0] != '\0');
        assert_null(strstr(error.message, "secret-pw"));
    }
    assert_true(number > 10);
    /* one that came about is whole: its password was not lost on the way */
    assert_non_null(pool->target.proxy_user);
    assert_non_null(pool->target.proxy_password);
    assert_string_equal(pool->target.proxy_user, "trader");
    assert_string_equal(pool->target.proxy_password, "secret-pw");
    esp_pool_release(pool);
    esp_group_free(group);
}

/* ---- Under valgrind ----------------------------------------------------- */

/* valgrind puts its own malloc in the place of ours.  Then the libraries get
 * theirs from here, the core's own never fail, and the whole is run once more
 * without valgrind, in a process of its own. */
static void *
refusing_malloc(size_t size)
{
    return is_refused() ? NULL : malloc(size);
}

static void *
refusing_calloc(size_t count, size_t size)
{
    return is_refused() ? NULL : calloc(count, size);
}

static void *
refusing_realloc(void *old, size_t size)
{
    return is_refused() ? NULL : realloc(old, size);
}

static char *
refusing_strdup(const char *text)
{
    return is_refused() ? NULL : strdup(text);
}

static bool
own_malloc_is_used(void)
{
    void *volatile memory;

    alloc_fail(1, false);
    memory = malloc(1);
    alloc_stop();
    free(memory);
    return memory == NULL;
}

/* libcurl starts before the first failure: how it starts without memory is
 * its own affair. */
static int
start_libcurl(void **state)
{
    cJSON_Hooks hooks = {.malloc_fn = refusing_malloc, .free_fn = free};

    (void)state;
    if (!own_malloc_is_used()) {
        cJSON_InitHooks(&hooks);
        if (curl_global_init_mem(CURL_GLOBAL_DEFAULT, refusing_malloc, free,
                                 refusing_realloc, refusing_strdup,
                                 refusing_calloc) != CURLE_OK)
            return -1;
    }
    assert_true(libcurl_init());
    return 0;
}

static int
run_again(const char *program)
{
    int status = -1;
    pid_t child = fork();

    if (child == 0) {
        execl(program, program, (char *)NULL);
        _exit(127);
    }
    if (child < 0 || waitpid(child, &status, 0) != child)
        return 1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

int
main(int count, char **arguments)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_success),
        cmocka_unit_test(test_second_attempt),
        cmocka_unit_test(test_lost_reply),
        cmocka_unit_test(test_proxy_settings),
    };
    int failed =
        cmocka_run_group_tests_name("memory", tests, start_libcurl, NULL);

    if (failed == 0 && count > 0 && !own_malloc_is_used())
        failed = run_again(arguments[0]);
    return failed;
}
