/* test_connection.c - the kept connection: when it is used again, when not,
 * and what never goes over it twice. */
#include "world.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* Press and expect a plain success. */
static void
press_ok(struct world *world)
{
    world_press(world);
    assert_int_equal(world->outcome.kind, ESP_OK);
    assert_int_equal(world->outcome.attempts, 1);
    assert_false(world->outcome.lost_reply);
}

static void
test_keep_alive(void **state)
{
    struct world world;
    int i;

    (void)state;
    world_open(&world, NULL, 0);
    press_ok(&world);
    assert_false(world.outcome.timing.reused);
    assert_true(world.outcome.timing.connect_s > 0);
    assert_string_equal(world.outcome.timing.remote, "127.0.0.1");
    for (i = 0; i < 4; i++) {
        press_ok(&world);
        assert_true(world.outcome.timing.reused);
        assert_true(world.outcome.timing.connect_s < 0);
        assert_true(world.outcome.timing.first_byte_s > 0);
        assert_true(world.outcome.timing.total_s > 0);
        assert_string_equal(world.outcome.timing.remote, "127.0.0.1");
    }
    assert_int_equal(server_connections(world.server), 1);
    assert_int_equal(server_posts(world.server), 5);
    world_close(&world);
}

/* A "no" of the exchange is as good as a "yes" for the connection. */
static void
test_kept_after_a_code(void **state)
{
    static const struct step steps[] = {{ACT_ANSWER, NOTHING_OPEN, NULL}};
    struct world world;

    (void)state;
    world_open(&world, steps, COUNT_OF(steps));
    world_press(&world);
    assert_int_equal(world.outcome.kind, ESP_API);
    press_ok(&world);
    assert_int_equal(server_connections(world.server), 1);
    world_close(&world);
}

/* After anything odd the next call has a connection of its own. */
static void
test_not_kept(void **state)
{
    static const struct step rows[] = {
        {ACT_ANSWER, OK_200 OK_200, NULL},
        {ACT_ANSWER_CLOSE, OK_200, NULL},
        {ACT_ANSWER,
         "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: "
         "42\r\n\r\n" OK_BODY,
         NULL},
        {ACT_ANSWER, HEAD("403 Forbidden", "0"), NULL},
        {ACT_ANSWER, HEAD("200 OK", "2") "{}", NULL},
        {ACT_ANSWER, HEAD("200 OK", "41") OK_BODY, NULL},
        {ACT_ANSWER, HEAD("302 Found", "0"), NULL},
        {ACT_CLOSE, NULL, NULL},
        {ACT_HANG, NULL, NULL},
    };
    struct world world;
    size_t i;

    (void)state;
    for (i = 0; i < COUNT_OF(rows); i++) {
        world_open(&world, &rows[i], 1);
        world.cancel.attempt_timeout_ms = 100;
        world_press(&world);
        sleep_ms(20); /* an end of the connection has arrived by then */
        world.cancel.attempt_timeout_ms = 0;
        press_ok(&world);
        assert_int_equal(server_connections(world.server), 2);
        assert_int_equal(server_posts(world.server), 2);
        world_close(&world);
    }
}

/* What came on the idle connection is never an answer: not an extra 200, not
 * a 408, not its end. */
static void
test_idle_connection_is_looked_at(void **state)
{
    static const char *const pushed[] = {
        HEAD("200 OK", "26") "{\"order_ids\":[\"POISONED!\"]}",
        "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n", " ",
        NULL, /* FIN */
    };
    struct world world;
    size_t i;

    (void)state;
    for (i = 0; i < COUNT_OF(pushed); i++) {
        world_open(&world, NULL, 0);
        press_ok(&world);
        server_push(world.server, pushed[i]);
        press_ok(&world);
        assert_non_null(
            cJSON_GetObjectItemCaseSensitive(world.outcome.json, "symbol"));
        assert_int_equal(server_connections(world.server), 2);
        assert_int_equal(server_posts(world.server), 2);
        world_close(&world);
    }
}

/* The server takes the second request and closes: libcurl alone would send it
 * again on a new connection, and again. */
static void
test_no_silent_resend(void **state)
{
    static const enum act acts[] = {ACT_CLOSE, ACT_RESET};
    struct step steps[] = {{ACT_ANSWER, OK_200, NULL}, {ACT_ECHO, NULL, NULL}};
    struct world world;
    size_t i;

    (void)state;
    for (i = 0; i < COUNT_OF(acts); i++) {
        steps[1].act = acts[i];
        world_open(&world, steps, COUNT_OF(steps));
        press_ok(&world);
        world_press(&world);
        assert_int_equal(world.outcome.kind, ESP_TRANSPORT);
        assert_int_equal(world.outcome.sent, ESP_UNKNOWN);
        assert_int_equal(world.outcome.call_sent, ESP_UNKNOWN);
        assert_int_equal(world.outcome.attempts, 1);
        assert_int_equal(server_posts(world.server), 2);
        press_ok(&world);
        assert_int_equal(server_posts(world.server), 3);
        world_close(&world);
    }
}

/* With retries each one is an attempt that is counted. */
static void
test_resend_is_an_attempt(void **state)
{
    static const struct step steps[] = {{ACT_ANSWER, OK_200, NULL},
                                        {ACT_CLOSE, NULL, NULL}};
    struct world world;

    (void)state;
    world_open(&world, steps, COUNT_OF(steps));
    press_ok(&world);
    world.cancel.max_retries = 1;
    world_press(&world);
    assert_int_equal(world.outcome.kind, ESP_OK);
    assert_true(world.outcome.lost_reply);
    assert_int_equal(world.outcome.attempts, 2);
    assert_int_equal(server_posts(world.server), 3);
    world_close(&world);
}

/* An answer that comes after its call gave up is nobody's. */
static void
test_late_answer(void **state)
{
    static const struct step steps[] = {{ACT_HANG, NULL, NULL}};
    struct world world;

    (void)state;
    world_open(&world, steps, COUNT_OF(steps));
    world.cancel.attempt_timeout_ms = 50;
    world_press(&world);
    assert_int_equal(world.outcome.kind, ESP_TIMEOUT);
    server_push(world.server, OK_200);
    world.cancel.attempt_timeout_ms = 0;
    press_ok(&world);
    assert_int_equal(server_connections(world.server), 2);
    world_close(&world);
}

/* ---- Warm-up ------------------------------------------------------------ */

static void
test_warm_up(void **state)
{
    static const struct step steps[] = {
        {ACT_ANSWER, "HTTP/1.1 404 Not Found\r\nContent-Length: 18\r\n\r\n",
         NULL}};
    struct world world;
    char text[2048];

    (void)state;
    world_open(&world, steps, COUNT_OF(steps));
    esp_warm_up(world.pool, &world.cancel, &world.outcome);
    assert_int_equal(world.outcome.kind, ESP_OK);
    assert_int_equal(world.outcome.sent, ESP_NOT_SENT);
    assert_int_equal(server_heads(world.server), 1);
    assert_int_equal(server_posts(world.server), 0);
    server_last_request(world.server, text, sizeof text);
    assert_memory_equal(text, "HEAD / HTTP/1.1\r\n", 17);
    assert_null(strstr(text, "X-API-KEY"));
    assert_null(strstr(text, "sandbox-"));
    press_ok(&world);
    assert_true(world.outcome.timing.reused);
    assert_int_equal(server_connections(world.server), 1);
    assert_int_equal(server_posts(world.server), 1);
    world_close(&world);
}

/* A warm-up on a connection that carried a key must not carry it again. */
static void
test_warm_up_after_a_call(void **state)
{
    struct world world;
    char text[2048];

    (void)state;
    world_open(&world, NULL, 0);
    press_ok(&world);
    esp_outcome_free(&world.outcome);
    esp_warm_up(world.pool, &world.cancel, &world.outcome);
    assert_int_equal(world.outcome.kind, ESP_OK);
    server_last_request(world.server, text, sizeof text);
    assert_memory_equal(text, "HEAD / HTTP/1.1\r\n", 17);
    assert_null(strstr(text, "X-API-KEY"));
    assert_null(strstr(text, "symbol"));
    press_ok(&world);
    server_last_request(world.server, text, sizeof text);
    assert_non_null(strstr(text, "{\"symbol\":\"ADAUSDM\"}"));
    assert_int_equal(server_connections(world.server), 1);
    world_close(&world);
}

/* No symbol and no key are needed, and none is sent; a failure is not_sent,
 * since no cancel was in it. */
static void
test_warm_up_fails(void **state)
{
    static const struct step steps[] = {{ACT_CLOSE, NULL, NULL},
                                        {ACT_HANG, NULL, NULL}};
    struct world world;
    struct esp_press *press;

    (void)state;
    world_open(&world, steps, COUNT_OF(steps));
    world.cancel.symbol = NULL;
    world.cancel.api_key = NULL;
    esp_warm_up(world.pool, &world.cancel, &world.outcome);
    assert_int_equal(world.outcome.kind, ESP_TRANSPORT);
    assert_int_equal(world.outcome.call_sent, ESP_NOT_SENT);
    world.cancel.timeout_ms = 100;
    press = press_start_one(world.pool, &world.cancel, true, &world.outcome);
    assert_non_null(press);
    drive_by_hand(press);
    esp_press_free(press);
    assert_int_equal(world.outcome.kind, ESP_TIMEOUT);
    assert_int_equal(world.outcome.call_sent, ESP_NOT_SENT);
    world.cancel.timeout_ms = 0;
    esp_warm_up(world.pool, &world.cancel, &world.outcome);
    assert_int_equal(world.outcome.kind, ESP_BAD_ARGUMENT);
    world_close(&world);
}

/* ---- Other ways to the server ------------------------------------------- */

static void
test_ipv6(void **state)
{
    struct server *server = server_start(NULL, 0, true);
    struct esp_settings settings = {.user_agent = "espresso-test"};
    struct world world;

    (void)state;
    if (server == NULL) {
        print_message("this machine has no IPv6 loopback\n");
        skip();
    }
    settings.base_url = server_url(server);
    world_open_with(&world, NULL, 0, settings);
    press_ok(&world);
    assert_string_equal(world.outcome.timing.remote, "::1");
    assert_int_equal(server_posts(server), 1);
    assert_string_equal(esp_pool_base_url(world.pool)->host, "::1");
    world_close(&world);
    server_stop(server);
}

/* Loopback is never sent to a proxy. */
static void
test_proxy_is_not_for_loopback(void **state)
{
    struct server *proxy = server_start(NULL, 0, false);
    struct esp_settings settings = {.user_agent = "espresso-test"};
    struct world world;

    (void)state;
    assert_non_null(proxy);
    settings.proxy = server_url(proxy);
    world_open_with(&world, NULL, 0, settings);
    press_ok(&world);
    assert_int_equal(server_connections(proxy), 0);
    world_close(&world);
    server_stop(proxy);
}

/* The environment names no proxy: whoever calls the core reads it, if at
 * all. */
static void
test_environment_is_not_read(void **state)
{
    static const char *const names[] = {"http_proxy", "all_proxy",
                                        "ALL_PROXY"};
    struct server *proxy = server_start(NULL, 0, false);
    struct world world;
    size_t i;

    (void)state;
    assert_non_null(proxy);
    for (i = 0; i < COUNT_OF(names); i++)
        assert_int_equal(setenv(names[i], server_url(proxy), 1), 0);
    world_open(&world, NULL, 0);
    press_ok(&world);
    for (i = 0; i < COUNT_OF(names); i++)
        assert_int_equal(unsetenv(names[i]), 0);
    assert_int_equal(server_connections(proxy), 0);
    assert_int_equal(server_posts(world.server), 1);
    world_close(&world);
    server_stop(proxy);
}

/* A proxy gets its own credentials and never the key; what it refuses was not
 * sent, and no text of ours holds the password. */
static void
test_proxy_refuses(void **state)
{
    static const struct step rows[] = {
        {ACT_ANSWER, "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n",
         NULL},
        {ACT_ANSWER,
         "HTTP/1.1 407 Proxy Authentication Required\r\n"
         "Content-Length: 0\r\n\r\n",
         NULL},
        {ACT_ANSWER_CLOSE, OK_200, NULL},
        {ACT_CLOSE, NULL, NULL},
        {ACT_HANG, NULL, NULL},
    };
    struct esp_settings settings = {.user_agent = "espresso-test",
                                    .base_url = "https://exchange.invalid",
                                    .no_proxy = "other.invalid"};
    struct server *proxy;
    struct world world;
    char url[128];
    char text[2048];
    size_t i;

    (void)state;
    for (i = 0; i < COUNT_OF(rows); i++) {
        proxy = server_start(&rows[i], 1, false);
        assert_non_null(proxy);
        snprintf(url, sizeof url, "http://trader:secret%%2Dpw@127.0.0.1:%d",
                 server_port(proxy));
        settings.proxy = url;
        world_open_with(&world, NULL, 0, settings);
        if (rows[i].act == ACT_HANG)
            world.cancel.timeout_ms = 200;
        world_press(&world);
        assert_int_equal(world.outcome.kind, rows[i].act == ACT_HANG
                                                 ? ESP_TIMEOUT
                                                 : ESP_TRANSPORT);
        assert_int_equal(world.outcome.call_sent, ESP_NOT_SENT);
        assert_int_equal(world.outcome.http_status, 0);
        assert_null(strstr(world.outcome.message, "secret"));
        assert_null(strstr(world.outcome.message, "trader"));
        server_last_request(proxy, text, sizeof text);
        assert_memory_equal(text, "CONNECT exchange.invalid:443 HTTP/1.1", 37);
        assert_non_null(strstr(text, "Proxy-Authorization: Basic "
                                     "dHJhZGVyOnNlY3JldC1wdw=="));
        assert_null(strstr(text, "X-API-KEY"));
        assert_null(strstr(text, "sandbox-"));
        world_close(&world);
        server_stop(proxy);
    }
}

static void
test_settings_are_checked(void **state)
{
    static const struct esp_settings rows[] = {
        {.base_url = "http://exchange.invalid"},
        {.base_url = ""},
        {.base_url = ESP_MAINNET, .proxy = "ftp://t:secret-pw@proxy.invalid"},
        {.base_url = "http://127.0.0.1", .proxy = "http://t:secret-pw@"},
    };
    struct esp_group *group = esp_group_new();
    struct esp_settings settings = ESP_SETTINGS_DEFAULT;
    struct esp_error error;
    struct esp_pool *pool;
    char path[ESP_PATH_MAX + 2];
    size_t i;

    (void)state;
    assert_non_null(group);
    for (i = 0; i < COUNT_OF(rows); i++) {
        assert_null(esp_pool_new(group, &rows[i], &error));
        assert_int_equal(error.kind, ESP_BAD_ARGUMENT);
        assert_null(strstr(error.message, "secret-pw"));
    }
    memset(path, 'a', sizeof path - 1);
    path[sizeof path - 1] = '\0';
    settings.ca_path = path;
    assert_null(esp_pool_new(group, &settings, &error));
    assert_int_equal(error.kind, ESP_BAD_ARGUMENT);
    path[ESP_PATH_MAX] = '\0';
    pool = esp_pool_new(group, &settings, &error);
    assert_non_null(pool);
    assert_string_equal(esp_pool_base_url(pool)->url, ESP_MAINNET);
    esp_pool_release(pool);
    esp_pool_release(NULL);
    esp_group_free(group);
    esp_group_free(NULL);
}

/* ---- TLS that does not come about --------------------------------------- */

struct tls_row {
    const char *name;
    const char *ca_path;
    bool certificate;
    int attempts;
};

/* https to a server that speaks none: before a byte of the request. */
static void
test_tls(void **state)
{
    static const struct tls_row rows[] = {
        {"plain text", NULL, false, 2},
        {"no such trust store", "/nonexistent/roots.pem", true, 1},
        {"an empty trust store", "/dev/null", true, 1},
        {"a trust store that is none", "tests/c/test_connection.c", true, 1},
    };
    static const struct step steps[] = {
        {ACT_ANSWER_CLOSE, "HTTP/1.1 400 Bad Request\r\n\r\n", NULL},
        {ACT_ANSWER_CLOSE, "HTTP/1.1 400 Bad Request\r\n\r\n", NULL}};
    struct esp_settings settings = {.user_agent = "espresso-test"};
    struct server *server;
    struct world world;
    char url[64];
    size_t i;

    (void)state;
    for (i = 0; i < COUNT_OF(rows); i++) {
        server = server_start(steps, COUNT_OF(steps), false);
        assert_non_null(server);
        snprintf(url, sizeof url, "https://127.0.0.1:%d", server_port(server));
        settings.base_url = url;
        settings.ca_path = rows[i].ca_path;
        world_open_with(&world, NULL, 0, settings);
        world.cancel.max_retries = 1;
        world_press(&world);
        CHECK(rows[i].name, world.outcome.kind == ESP_TRANSPORT);
        CHECK(rows[i].name, world.outcome.call_sent == ESP_NOT_SENT);
        CHECK(rows[i].name, world.outcome.certificate == rows[i].certificate);
        CHECK(rows[i].name, world.outcome.attempts == rows[i].attempts);
        CHECK(rows[i].name, server_posts(server) == 0);
        world_close(&world);
        server_stop(server);
    }
}

/* Press with only `left` free descriptors. */
static void
press_with_descriptors(struct world *world, int left)
{
    struct rlimit before;
    struct rlimit few;
    int lowest = dup(0);

    assert_true(lowest >= 0);
    close(lowest);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    few = before;
    few.rlim_cur = (rlim_t)(lowest + left);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    world_press(world);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
}

/* Where descriptors are short the call blames no trust store, tells the truth
 * about what it sent, and the next one works.  (The server shares the limit:
 * some of these calls reach one that cannot accept them.) */
static void
test_no_descriptors(void **state)
{
    struct world world;
    int left;

    (void)state;
    for (left = 0; left < 8; left++) {
        world_open(&world, NULL, 0);
        world.cancel.timeout_ms = 300;
        press_with_descriptors(&world, left);
        assert_true(left > 0 || world.outcome.call_sent == ESP_NOT_SENT);
        assert_true(world.outcome.kind == ESP_OK ||
                    world.outcome.call_sent == ESP_UNKNOWN ||
                    server_posts(world.server) == 0);
        assert_false(world.outcome.certificate);
        world.cancel.timeout_ms = 10000;
        press_ok(&world);
        world_close(&world);
    }
}

static void
test_no_descriptors_for_tls(void **state)
{
    struct esp_settings settings = {.user_agent = "espresso-test"};
    struct server *server = server_start(NULL, 0, false);
    struct world world;
    char url[64];
    int left;

    (void)state;
    assert_non_null(server);
    snprintf(url, sizeof url, "https://127.0.0.1:%d", server_port(server));
    settings.base_url = url;
    for (left = 0; left < 8; left++) {
        world_open_with(&world, NULL, 0, settings);
        world.cancel.timeout_ms = 300;
        press_with_descriptors(&world, left);
        assert_int_equal(world.outcome.call_sent, ESP_NOT_SENT);
        assert_false(world.outcome.certificate);
        world_close(&world);
    }
    server_stop(server);
}

/* ---- Fork --------------------------------------------------------------- */

/* A fork that runs no handlers; no C library offers it. */
static pid_t
bare_fork(void)
{
    return (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
}

/* In the child of a fork: a call makes a connection of its own, and freeing
 * tells the parent's peer nothing.  The inherited lane is closed here, and
 * holds no key any more. */
static void
child_of_fork(struct world *world, const struct esp_lane *inherited, int fd)
{
    bool ok;

    world_press(world);
    ok = world->outcome.kind == ESP_OK && !world->outcome.timing.reused &&
         world->pool->idle != inherited && inherited->socket_count == 0 &&
         inherited->text.key_line[0] == '\0';
    esp_outcome_free(&world->outcome);
    esp_pool_close(world->pool, 1000);
    esp_pool_release(world->pool);
    esp_group_free(world->group);
    leave_child(ok && fcntl(fd, F_GETFD) == -1);
}

static int
wait_for(pid_t child)
{
    int status = -1;

    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void
check_fork(pid_t (*fork_it)(void))
{
    const struct esp_lane *lane;
    struct world world;
    pid_t child;
    int fd;

    world_open(&world, NULL, 0);
    press_ok(&world);
    lane = world.pool->idle;
    fd = lane->sockets[0];
    child = fork_it();
    assert_true(child >= 0);
    if (child == 0)
        child_of_fork(&world, lane, fd);
    assert_int_equal(wait_for(child), 0);
    sleep_ms(20);
    press_ok(&world);
    assert_true(world.outcome.timing.reused);
    assert_int_equal(server_connections(world.server), 2);
    assert_int_equal(server_posts(world.server), 3);
    world_close(&world);
}

static void
test_fork(void **state)
{
    (void)state;
    check_fork(fork);
}

static void
test_fork_without_handlers(void **state)
{
    (void)state;
    check_fork(bare_fork);
}

/* Forked in the middle of a call: the child has no part in it. */
static void
test_fork_during_a_call(void **state)
{
    static const struct step steps[] = {{ACT_HANG, NULL, NULL}};
    struct world world;
    struct esp_press *press;
    pid_t child;

    (void)state;
    world_open(&world, steps, COUNT_OF(steps));
    press = world_start(&world);
    assert_non_null(press);
    drive_until_sent(press, world.server, 1);
    child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        press_on_timer(press);
        esp_press_interrupt(press);
        leave_child(esp_press_is_done(press));
    }
    assert_int_equal(wait_for(child), 0);
    server_push(world.server, OK_200);
    drive_by_hand(press);
    esp_press_free(press);
    assert_int_equal(world.outcome.kind, ESP_OK);
    press_ok(&world);
    assert_true(world.outcome.timing.reused);
    assert_int_equal(server_connections(world.server), 1);
    assert_int_equal(server_posts(world.server), 2);
    world_close(&world);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keep_alive),
        cmocka_unit_test(test_kept_after_a_code),
        cmocka_unit_test(test_not_kept),
        cmocka_unit_test(test_idle_connection_is_looked_at),
        cmocka_unit_test(test_no_silent_resend),
        cmocka_unit_test(test_resend_is_an_attempt),
        cmocka_unit_test(test_late_answer),
        cmocka_unit_test(test_warm_up),
        cmocka_unit_test(test_warm_up_after_a_call),
        cmocka_unit_test(test_warm_up_fails),
        cmocka_unit_test(test_ipv6),
        cmocka_unit_test(test_proxy_is_not_for_loopback),
        cmocka_unit_test(test_environment_is_not_read),
        cmocka_unit_test(test_proxy_refuses),
        cmocka_unit_test(test_settings_are_checked),
        cmocka_unit_test(test_tls),
        cmocka_unit_test(test_no_descriptors),
        cmocka_unit_test(test_no_descriptors_for_tls),
        cmocka_unit_test(test_fork),
        cmocka_unit_test(test_fork_without_handlers),
        cmocka_unit_test(test_fork_during_a_call),
    };

    return cmocka_run_group_tests_name("connection", tests, NULL, NULL);
}
