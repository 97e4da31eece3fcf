/* test_lookups.c - a resolver that does not answer.
 *
 * This program's own getaddrinfo takes the place of the system's: libcurl's
 * resolver threads call it. */
#include "world.h"

#include <dlfcn.h>
#include <errno.h>
#include <netdb.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define WAIT_MS 10000

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static bool hanging;
static int inside; /* look-ups under way */
static int asked;  /* look-ups so far */

int
getaddrinfo(const char *node, const char *service,
            const struct addrinfo *hints, struct addrinfo **result)
{
    (void)node;
    (void)service;
    (void)hints;
    *result = NULL;
    pthread_mutex_lock(&lock);
    inside++;
    asked++;
    while (hanging)
        pthread_cond_wait(&changed, &lock);
    inside--;
    pthread_mutex_unlock(&lock);
    return EAI_NONAME;
}

/* And its own pthread_create: there may be no thread to be had. */
static bool threads_are_short;

int
pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
               void *(*run)(void *), void *user)
{
    int (*next)(pthread_t *, const pthread_attr_t *, void *(*)(void *),
                void *);
    void *found = dlsym(RTLD_NEXT, "pthread_create");

    memcpy(&next, &found, sizeof next);
    return threads_are_short ? EAGAIN : next(thread, attributes, run, user);
}

static void
set_hanging(bool hangs)
{
    pthread_mutex_lock(&lock);
    hanging = hangs;
    asked = 0;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

static int
count(const int *what)
{
    int value;

    pthread_mutex_lock(&lock);
    value = *what;
    pthread_mutex_unlock(&lock);
    return value;
}

/* Let the resolver's threads go, so that none outlives the test. */
static int
release(void **state)
{
    int waited;

    (void)state;
    set_hanging(false);
    for (waited = 0; count(&inside) > 0 && waited < WAIT_MS; waited++)
        sleep_ms(1);
    sleep_ms(50); /* they have left this function, and end now */
    return count(&inside) == 0 ? 0 : -1;
}

static const struct esp_settings by_name = {
    .base_url = "https://exchange.invalid", .user_agent = "espresso-test"};

static void
test_unknown_name(void **state)
{
    struct world world;

    (void)state;
    world_open_with(&world, NULL, 0, by_name);
    world.cancel.max_retries = 1;
    world_press(&world);
    assert_int_equal(world.outcome.kind, ESP_TRANSPORT);
    assert_int_equal(world.outcome.call_sent, ESP_NOT_SENT);
    assert_int_equal(world.outcome.curl_code, CURLE_COULDNT_RESOLVE_HOST);
    assert_int_equal(world.outcome.attempts, 2);
    world_close(&world);
}

/* Said at once, not when the time is over. */
static void
test_no_thread(void **state)
{
    struct world world;
    int64_t began;

    (void)state;
    world_open_with(&world, NULL, 0, by_name);
    world.cancel.max_retries = 0;
    threads_are_short = true;
    began = esp_clock_ms();
    world_press(&world);
    threads_are_short = false;
    assert_int_equal(world.outcome.kind, ESP_TRANSPORT);
    assert_int_equal(world.outcome.call_sent, ESP_NOT_SENT);
    assert_non_null(strstr(world.outcome.message, "no thread can be started"));
    assert_true(esp_clock_ms() - began < world.cancel.connect_timeout_ms);
    world_press(&world);
    assert_int_equal(world.outcome.curl_code, CURLE_COULDNT_RESOLVE_HOST);
    world_close(&world);
}

/* Later libcurls ask for A and AAAA in a thread each, and take back what no
 * thread has begun with. */
static bool
asks_twice(void)
{
    return curl_version_info(CURLVERSION_NOW)->version_num >= 0x081400;
}

/* Wait until no further look-up is asked, and return how many there are. */
static int
settled(void)
{
    int least = asks_twice() ? 1 : ESP_LOOKUPS_MAX;
    int before = -1;
    int now = count(&asked);
    int waited;

    for (waited = 0; waited < WAIT_MS; waited += 200) {
        if (now >= least && now == before)
            break;
        before = now;
        sleep_ms(200);
        now = count(&asked);
    }
    assert_in_range(now, least, ESP_LOOKUPS_MAX * (asks_twice() ? 2 : 1));
    return now;
}

/* The deadline holds, also when the call is freed; after ESP_LOOKUPS_MAX
 * hanging look-ups the next call fails at once and starts no thread; a child
 * of a fork begins anew. */
static void
test_hanging_resolver(void **state)
{
    struct world world;
    struct esp_press *press;
    pid_t child;
    int status = -1;
    int started;
    int i;

    (void)state;
    world_open_with(&world, NULL, 0, by_name);
    world.cancel.timeout_ms = 50;
    set_hanging(true);
    for (i = 1; i < ESP_LOOKUPS_MAX; i++) {
        world_press(&world);
        assert_int_equal(world.outcome.kind, ESP_TIMEOUT);
        assert_int_equal(world.outcome.call_sent, ESP_NOT_SENT);
        assert_true(world.outcome.elapsed_s < 2); /* a hang, not speed */
    }
    esp_outcome_free(&world.outcome);
    world.cancel.timeout_ms = 10000;
    press = world_start(&world);
    assert_non_null(press);
    esp_press_free(press);
    assert_int_equal(world.outcome.kind, ESP_INTERRUPTED);
    assert_int_equal(world.outcome.call_sent, ESP_NOT_SENT);
    started = settled();
    assert_int_equal(count(&inside), started);
    world_press(&world);
    assert_int_equal(world.outcome.kind, ESP_TRANSPORT);
    assert_int_equal(world.outcome.call_sent, ESP_NOT_SENT);
    assert_int_equal(world.outcome.curl_code, CURLE_COULDNT_RESOLVE_HOST);
    assert_non_null(strstr(world.outcome.message, "DNS"));
    assert_int_equal(count(&asked), started);
    child = fork();
    assert_true(child >= 0);
    if (child == 0)
        leave_child(!lookups_exhausted());
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_true(lookups_exhausted());
    world_close(&world);
}

/* More of them than the table has room for: it keeps the latest. */
static void
test_table_is_a_ring(void **state)
{
    int i;

    (void)state;
    for (i = 0; i < 3 * ESP_LOOKUPS_MAX; i++) {
        lookups_note_abandoned();
        assert_true(lookups_exhausted());
    }
    lookups_prepare_fork();
    lookups_after_fork(false);
    assert_true(lookups_exhausted());
    lookups_prepare_fork();
    lookups_after_fork(true); /* none of them is the child's */
    assert_false(lookups_exhausted());
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unknown_name),
        cmocka_unit_test(test_no_thread),
        cmocka_unit_test_teardown(test_hanging_resolver, release),
        cmocka_unit_test(test_table_is_a_ring),
    };

    return cmocka_run_group_tests_name("lookups", tests, NULL, NULL);
}
