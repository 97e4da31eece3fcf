/* test_memory.c - the n-th allocation fails, for every n of a whole life: no
 * crash, no leak, no claim that is not true. */
#include "life.h"

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
static _Thread_local size_t refused_size;   /* these fail ... */
static _Thread_local int64_t refused_until; /* ... until then */

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
is_refused(size_t size)
{
    if (size == refused_size && esp_clock_ms() < refused_until)
        return true;
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
    return is_refused(size) ? NULL : next(size);
}

void *
calloc(size_t count, size_t size)
{
    static void *(*next)(size_t, size_t);

    if (next == NULL)
        find_next(&next, "calloc");
    return is_refused(count * size) ? NULL : next(count, size);
}

void *
realloc(void *old, size_t size)
{
    static void *(*next)(void *, size_t);

    if (next == NULL)
        find_next(&next, "realloc");
    return is_refused(size) ? NULL : next(old, size);
}

/* Not so under valgrind: see below. */
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

/* ---- Torture ------------------------------------------------------------- */

/* How to fail: allocation 1, 1 + `stride` ... and, if `all`, those after it,
 * until a whole life of `claims` claims passes without.  Under valgrind the
 * strides of a long life are longer. */
struct plan {
    life_presses *presses;
    int claims;
    int more; /* posts of which nothing is claimed */
    int stride;
    bool all;
    bool is_long;
};

static void
torture(const struct step *steps, size_t count, const struct plan *plan)
{
    struct server *server;
    struct life life;
    struct esp_settings settings = {.user_agent = "espresso-test"};
    int stride = plan->is_long && !own_malloc_is_used() ? 7 : plan->stride;
    bool met = true;
    int number;

    for (number = 1; met; number += stride) {
        assert_true(number < RUNS_MAX);
        server = server_start(steps, count, false);
        assert_non_null(server);
        settings.base_url = server_url(server);
        alloc_fail(number, plan->all);
        live(&settings, &life, plan->presses);
        met = alloc_stop();
        assert_true(met || life.count == plan->claims);
        judge(&life, server_posts(server), plan->more);
        server_stop(server);
    }
    assert_true(number > 20); /* it did fail something */
}

static void
test_success(void **state)
{
    static const struct plan rows[] = {{press_twice, 2, 0, 1, false, false},
                                       {press_twice, 2, 0, 1, true, false}};

    (void)state;
    torture(NULL, 0, &rows[0]);
    torture(NULL, 0, &rows[1]);
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

    static const struct plan plan = {press_twice, 2, 0, 1, false, false};

    (void)state;
    torture(steps, COUNT_OF(steps), &plan);
}

/* Each of these waits for a back-off: not all of them, then. */
static void
test_lost_reply(void **state)
{
    static const struct step steps[] = {{ACT_CLOSE, NULL, NULL},
                                        {ACT_ANSWER, OK_200, NULL},
                                        {ACT_ANSWER, NOTHING_OPEN, NULL}};

    static const struct plan plan = {press_twice, 2, 0, 7, false, false};

    (void)state;
    torture(steps, COUNT_OF(steps), &plan);
}

/* A symbol for which there is no memory ends, and the others go on. */
static void
test_list(void **state)
{
    static const struct plan rows[] = {{press_list, 4, 0, 1, false, true},
                                       {press_list, 4, 0, 3, true, true}};

    (void)state;
    torture(NULL, 0, &rows[0]);
    torture(NULL, 0, &rows[1]);
}

/* Rounds, more of them than are reserved at first. */
static void
test_confirm(void **state)
{
    static const struct plan plan = {press_confirmed, 1, 0, 1, false, true};
    struct step steps[16];
    size_t i;

    (void)state;
    for (i = 0; i < COUNT_OF(steps); i++)
        steps[i] =
            (struct step){ACT_ANSWER, i < 5 ? OK_200 : NOTHING_OPEN, NULL};
    torture(steps, COUNT_OF(steps), &plan);
}

/* A loop gets what it can carry out, whatever fails. */
static void
test_watcher(void **state)
{
    static const struct plan rows[] = {{press_in_loops, 6, 4, 1, false, true},
                                       {press_in_loops, 6, 4, 5, true, true}};

    (void)state;
    torture(NULL, 0, &rows[0]);
    torture(NULL, 0, &rows[1]);
}

/* ---- More sockets than one poll(2) has room for ------------------------- */

#define FIRST_GROWN (2 * (ESP_WATCHES_MAX + 1) * sizeof(struct pollfd))

/* All slots of the press are free again, once: so many run at once. */
static int
free_the_pace(void *user, const struct esp_attempt *attempt)
{
    struct esp_pool *pool = user;
    const struct pool_entry *entry = pool->entries;
    const struct esp_call *call =
        (const void *)((const char *)entry - offsetof(struct esp_call, entry));

    if (strcmp(attempt->symbol, life_symbols[0]) == 0)
        call->press->pace = (struct pace){{0}};
    return 0;
}

/* Those that poll(2) has no room for still end in time, and are heard as soon
 * as there is memory for them. */
static void
test_many_sockets(void **state)
{
    enum { COUNT = ESP_WATCHES_MAX + 3 };
    static const int64_t rows[] = {0, 300, 1000000}; /* without memory */
    struct step steps[COUNT];
    struct world world;
    struct esp_press *pressed;
    size_t i;
    size_t row;

    (void)state;
    for (i = 0; i < COUNT; i++)
        steps[i] = (struct step){ACT_HANG, NULL, NULL};
    for (row = 0; row < (own_malloc_is_used() ? COUNT_OF(rows) : 1); row++) {
        world_open(&world, steps, COUNT);
        server_script(world.server, life_symbols[0], NULL, 0);
        server_script(world.server, life_symbols[COUNT - 1], NULL, 0);
        world.cancel.attempt_timeout_ms = 1200;
        world.cancel.hooks = (struct esp_hooks){.on_attempt = free_the_pace,
                                                .user = world.pool};
        refused_size = FIRST_GROWN;
        refused_until = esp_clock_ms() + rows[row];
        pressed = esp_cancel_list(world.pool, &world.cancel, life_symbols,
                                  COUNT, &world.outcome);
        refused_until = 0;
        assert_non_null(pressed);
        assert_int_equal(esp_press_outcome(pressed, 0)->kind, ESP_OK);
        for (i = 1; i < COUNT - 1; i++) {
            const struct esp_outcome *outcome = esp_press_outcome(pressed, i);

            assert_int_equal(outcome->kind, ESP_TIMEOUT);
            assert_int_equal(outcome->attempts, 1);
            assert_true(outcome->elapsed_s < 1.2 + 2); /* a hang, not speed */
        }
        if (rows[row] < world.cancel.attempt_timeout_ms) {
            const struct esp_outcome *last =
                esp_press_outcome(pressed, COUNT - 1);

            assert_int_equal(last->kind, ESP_OK);
            assert_true(last->elapsed_s < 1.2); /* not with the others */
        }
        esp_press_free(pressed);
        world_close(&world);
    }
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
        /* a setting that is right is not called wrong for want of memory */
        assert_true(pool != NULL || error.kind == ESP_NO_MEMORY);
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
    return is_refused(size) ? NULL : malloc(size);
}

static void *
refusing_calloc(size_t count, size_t size)
{
    return is_refused(count * size) ? NULL : calloc(count, size);
}

static void *
refusing_realloc(void *old, size_t size)
{
    return is_refused(size) ? NULL : realloc(old, size);
}

static char *
refusing_strdup(const char *text)
{
    return is_refused(strlen(text) + 1) ? NULL : strdup(text);
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
        cmocka_unit_test(test_list),
        cmocka_unit_test(test_confirm),
        cmocka_unit_test(test_watcher),
        cmocka_unit_test(test_many_sockets),
        cmocka_unit_test(test_proxy_settings),
    };
    int failed =
        cmocka_run_group_tests_name("memory", tests, start_libcurl, NULL);

    if (failed == 0 && count > 0 && !own_malloc_is_used())
        failed = run_again(arguments[0]);
    return failed;
}
