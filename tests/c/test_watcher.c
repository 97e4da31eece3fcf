/* test_watcher.c - the face for event loops: what a loop is asked to watch and
 * to close, through whole lives of connections, presses and pools. */
#include "loop.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define SYMBOLS 5

static const struct step hang[] = {{ACT_HANG, NULL, NULL}};
static const struct step broken[] = {{ACT_CLOSE, NULL, NULL}};
static const struct step nothing[] = {{ACT_ANSWER, NOTHING_OPEN, NULL}};

static const char *const symbols[SYMBOLS] = {"AAA", "BBB", "CCC", "DDD",
                                             "EEE"};

/* ---- What no loop forgives ---------------------------------------------- */

/* This program's own close stands before the system's, for libcurl too: a
 * connection that a loop still watches must not be closed by its thread.  Of
 * another thread poll(2) will tell. */
static _Thread_local struct loop *checked; /* of this test; NULL: none */
static int wrong_closes;

/* libcurl opens and closes others: to talk to its resolver, to see whether there
 * is IPv6, and such as never got a connection. */
static bool
is_connection(int fd)
{
    struct sockaddr_storage peer = {.ss_family = AF_UNIX};
    socklen_t size = sizeof peer;

    return getpeername(fd, (struct sockaddr *)&peer, &size) == 0 &&
           peer.ss_family != AF_UNIX;
}

int
close(int fd)
{
    if (checked != NULL && fd >= 0 && fd < LOOP_DESCRIPTORS &&
        (checked->reads[fd] || checked->writes[fd]) && is_connection(fd))
        wrong_closes++;
    return (int)syscall(SYS_close, fd);
}

static int
open_descriptors(void)
{
    int count = 0;
    int fd;

    for (fd = 0; fd < LOOP_DESCRIPTORS; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

static int descriptors_before;

static int
begin(void **state)
{
    (void)state;
    wrong_closes = 0;
    descriptors_before = open_descriptors();
    return 0;
}

static int
end(void **state)
{
    (void)state;
    checked = NULL;
    if (wrong_closes > 0)
        print_error("%d descriptors were closed while watched\n",
                    wrong_closes);
    if (open_descriptors() != descriptors_before)
        print_error("%d descriptors were left, %d now\n", descriptors_before,
                    open_descriptors());
    return wrong_closes == 0 && open_descriptors() == descriptors_before ? 0
                                                                         : -1;
}

/* ---- Names -------------------------------------------------------------- */

/* This program's own getaddrinfo: exchange.invalid is this machine, or nobody
 * knows it (at once, or after a while), or nobody answers. */
static enum { KNOWN, UNKNOWN, SLOW, SILENT } names;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int inside;

int
getaddrinfo(const char *node, const char *service,
            const struct addrinfo *hints, struct addrinfo **result)
{
    int (*next)(const char *, const char *, const struct addrinfo *,
                struct addrinfo **);
    void *found = dlsym(RTLD_NEXT, "getaddrinfo");
    bool known;
    bool slow;

    (void)node;
    memcpy(&next, &found, sizeof next);
    pthread_mutex_lock(&lock);
    inside++;
    while (names == SILENT)
        pthread_cond_wait(&changed, &lock);
    inside--;
    known = names == KNOWN;
    slow = names == SLOW;
    pthread_mutex_unlock(&lock);
    sleep_ms(slow ? 20 : 0);
    return known ? next("127.0.0.1", service, hints, result) : EAI_NONAME;
}

static void
set_names(int now)
{
    pthread_mutex_lock(&lock);
    names = now;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

/* Let the resolver's threads go, so that none outlives the test: they close
 * what they were given. */
static void
release_lookups(void)
{
    bool left = false;
    int waited;

    set_names(UNKNOWN);
    while (!left) {
        sleep_ms(1);
        pthread_mutex_lock(&lock);
        left = inside == 0;
        pthread_mutex_unlock(&lock);
    }
    for (waited = 0; open_descriptors() > descriptors_before && waited < 10000;
         waited++)
        sleep_ms(1);
    sleep_ms(50); /* they end now */
    lookups_prepare_fork();
    lookups_after_fork(true); /* forget them */
}

/* ---- A world with a loop ------------------------------------------------ */

struct scene {
    struct world world;
    struct loop loop;
    struct pressed pressed;
};

static void
scene_open(struct scene *scene)
{
    world_open(&scene->world, NULL, 0);
    loop_open(&scene->loop, scene->world.pool);
    checked = &scene->loop;
}

static void
scene_close(struct scene *scene)
{
    loop_close(&scene->loop);
    world_close(&scene->world);
}

/* No deadline ends it: each look-up starts a thread and each attempt a TLS
 * handshake, which valgrind on a busy machine needs seconds for. */
static void
unhurried(struct scene *scene)
{
    scene->world.cancel.timeout_ms = ESP_TIMEOUT_MAX_MS;
    scene->world.cancel.connect_timeout_ms = ESP_TIMEOUT_MAX_MS;
}

static void
start(struct scene *scene, size_t count)
{
    loop_press(&scene->loop, &scene->world.cancel, symbols, count,
               &scene->pressed);
    assert_non_null(scene->pressed.press);
}

static void
run(struct scene *scene)
{
    loop_run(&scene->loop, &scene->pressed);
}

static const struct esp_outcome *
outcome_of(const struct scene *scene, size_t index)
{
    return esp_press_outcome(scene->pressed.press, index);
}

static void
press_ok(struct scene *scene, size_t count)
{
    size_t i;

    start(scene, count);
    run(scene);
    for (i = 0; i < (count > 0 ? count : 1); i++)
        assert_int_equal(outcome_of(scene, i)->kind, ESP_OK);
    loop_free(&scene->loop, &scene->pressed);
}

/* Of the connections that are open. */
static unsigned
times_added(const struct loop *loop)
{
    unsigned sum = 0;
    int fd;

    for (fd = 0; fd <= loop->highest; fd++)
        sum += loop_is_connection(fd) ? loop->added[fd] : 0;
    return sum;
}

/* ---- Connections that stay ---------------------------------------------- */

/* A kept connection stays watched, and the next press asks for nothing but the
 * moment in which it writes. */
static void
test_stays_watched(void **state)
{
    static const size_t counts[] = {0, 1, SYMBOLS};
    struct scene scene;
    size_t kept;
    size_t i;

    (void)state;
    for (i = 0; i < COUNT_OF(counts); i++) {
        kept = counts[i] > 0 ? counts[i] : 1;
        scene_open(&scene);
        press_ok(&scene, counts[i]);
        assert_int_equal(loop_watches(&scene.loop), kept);
        assert_int_equal(esp_watcher_timer_ms(scene.loop.watcher), -1);
        assert_null(esp_watcher_first(scene.loop.watcher));
        press_ok(&scene, counts[i]);
        press_ok(&scene, counts[i]);
        assert_int_equal(loop_watches(&scene.loop), kept);
        assert_int_equal(server_connections(scene.world.server), kept);
        assert_int_equal(scene.loop.closed, 0);
        assert_true(times_added(&scene.loop) <= 4 * kept);
        scene_close(&scene);
    }
}

/* The end of an idle connection is seen at once, and so are bytes that nobody
 * asked for. */
static void
test_idle_connection_ends(void **state)
{
    static const char *const pushed[] = {NULL, OK_200, " "};
    struct scene scene;
    size_t i;

    (void)state;
    for (i = 0; i < COUNT_OF(pushed); i++) {
        scene_open(&scene);
        press_ok(&scene, 3);
        server_push(scene.world.server, pushed[i]);
        loop_turn(&scene.loop, 1000);
        assert_int_equal(loop_watches(&scene.loop), 0);
        assert_int_equal(scene.loop.closed, 3);
        assert_int_equal(scene.world.pool->idle_count, 0);
        press_ok(&scene, 1);
        assert_int_equal(server_connections(scene.world.server), 4);
        scene_close(&scene);
    }
}

/* Between two attempts, too: the retry has a connection of its own. */
static void
test_connection_ends_between_attempts(void **state)
{
    static const struct step steps[] = {
        {ACT_ANSWER, HEAD("503 Busy", "13") "{\"code\":5002}", NULL}};
    struct scene scene;

    (void)state;
    scene_open(&scene);
    server_script(scene.world.server, symbols[0], steps, 1);
    scene.world.cancel.max_retries = 1;
    start(&scene, 1);
    while (scene.pressed.press->calls[0]->state != CALL_WAITING)
        loop_turn(&scene.loop, 1000);
    assert_int_equal(loop_watches(&scene.loop), 1);
    server_push(scene.world.server, NULL);
    run(&scene);
    assert_int_equal(outcome_of(&scene, 0)->kind, ESP_OK);
    assert_int_equal(outcome_of(&scene, 0)->attempts, 2);
    assert_false(outcome_of(&scene, 0)->lost_reply);
    assert_int_equal(server_connections(scene.world.server), 2);
    assert_int_equal(scene.loop.closed, 1);
    loop_free(&scene.loop, &scene.pressed);
    scene_close(&scene);
}

/* A connection that a blocking call left behind goes to a loop that has never
 * seen its number: alive, and when it has ended meanwhile.  It is watched from
 * the start: the answer may be faster than libcurl's wish to wait for it. */
static void
test_unwatched_connection(void **state)
{
    struct scene scene;
    int ended;

    (void)state;
    for (ended = 0; ended < 2; ended++) {
        world_open(&scene.world, NULL, 0);
        world_press(&scene.world);
        assert_int_equal(scene.world.outcome.kind, ESP_OK);
        if (ended)
            server_push(scene.world.server, NULL);
        loop_open(&scene.loop, scene.world.pool);
        checked = &scene.loop;
        start(&scene, 1);
        assert_int_equal(loop_connections(&scene.loop), 1);
        run(&scene);
        assert_int_equal(outcome_of(&scene, 0)->kind, ESP_OK);
        assert_int_equal(outcome_of(&scene, 0)->timing.reused, !ended);
        assert_int_equal(server_connections(scene.world.server), 1 + ended);
        assert_int_equal(loop_watches(&scene.loop), 1);
        loop_free(&scene.loop, &scene.pressed);
        scene_close(&scene);
    }
}

/* ---- Presses ------------------------------------------------------------ */

/* Whatever becomes of the symbols, and also for a loop that brings what was
 * ready before it was removed. */
static void
test_mixed_list(void **state)
{
    struct scene scene;
    int late;

    (void)state;
    for (late = 0; late < 2; late++) {
        scene_open(&scene);
        scene.loop.is_late = late == 1;
        server_script(scene.world.server, symbols[0], hang, 1);
        server_script(scene.world.server, symbols[1], broken, 1);
        server_script(scene.world.server, symbols[2], nothing, 1);
        start(&scene, SYMBOLS);
        while (scene.pressed.press->running > 1 ||
               !server_has_requests(scene.world.server, SYMBOLS))
            loop_turn(&scene.loop, 1);
        scene.pressed.press->calls[0]->turn_at = 0; /* its time is over */
        run(&scene);
        assert_int_equal(outcome_of(&scene, 0)->kind, ESP_TIMEOUT);
        assert_int_equal(outcome_of(&scene, 1)->kind, ESP_TRANSPORT);
        assert_int_equal(outcome_of(&scene, 2)->code, 4200);
        assert_int_equal(outcome_of(&scene, 3)->kind, ESP_OK);
        assert_int_equal(outcome_of(&scene, 4)->kind, ESP_OK);
        loop_free(&scene.loop, &scene.pressed);
        scene_close(&scene);
    }
}

/* Many presses at once: each is named once, and its `user` is its own. */
static void
test_many_presses(void **state)
{
    enum { PRESSES = 20 };
    struct pressed pressed[PRESSES];
    struct scene scene;
    int i;

    (void)state;
    scene_open(&scene);
    server_script(scene.world.server, symbols[1], broken, 1);
    for (i = 0; i < PRESSES; i++)
        loop_press(&scene.loop, &scene.world.cancel, symbols, 2, &pressed[i]);
    assert_non_null(esp_watcher_first(scene.loop.watcher));
    for (i = 0; i < PRESSES; i++) {
        while (!esp_press_is_done(pressed[i].press))
            loop_turn(&scene.loop, 1000);
    }
    loop_settle(&scene.loop);
    assert_null(esp_watcher_first(scene.loop.watcher));
    for (i = 0; i < PRESSES; i++) {
        assert_int_equal(pressed[i].named, 1);
        assert_int_equal(esp_press_outcome(pressed[i].press, 0)->kind, ESP_OK);
        loop_free(&scene.loop, &pressed[i]);
    }
    scene_close(&scene);
}

static void
test_refused(void **state)
{
    static const char *const bad[] = {"AAA", ""};
    struct scene scene;

    (void)state;
    scene_open(&scene);
    loop_press(&scene.loop, &scene.world.cancel, bad, 2, &scene.pressed);
    assert_null(scene.pressed.press);
    assert_int_equal(scene.pressed.refused.kind, ESP_BAD_ARGUMENT);
    assert_null(esp_watcher_first(scene.loop.watcher));
    esp_pool_close(scene.world.pool, 0);
    loop_press(&scene.loop, &scene.world.cancel, symbols, 2, &scene.pressed);
    assert_null(scene.pressed.press);
    assert_int_equal(scene.pressed.refused.kind, ESP_CLOSED);
    assert_int_equal(scene.pressed.named, 0);
    assert_null(esp_watcher_first(scene.loop.watcher));
    assert_int_equal(server_connections(scene.world.server), 0);
    scene_close(&scene);
}

/* Freed and interrupted in flight: the loop closes what it watched. */
static void
test_ended_in_flight(void **state)
{
    struct scene scene;
    int i;

    (void)state;
    for (i = 0; i < 2; i++) {
        scene_open(&scene);
        server_script(scene.world.server, symbols[0], hang, 1);
        server_script(scene.world.server, symbols[1], hang, 1);
        start(&scene, 2);
        while (!server_has_requests(scene.world.server, 2))
            loop_turn(&scene.loop, 1);
        assert_int_equal(loop_connections(&scene.loop), 2);
        if (i == 0) {
            esp_press_interrupt(scene.pressed.press);
            loop_settle(&scene.loop);
            assert_int_equal(scene.pressed.named, 1);
            assert_int_equal(outcome_of(&scene, 0)->kind, ESP_INTERRUPTED);
            assert_int_equal(outcome_of(&scene, 1)->call_sent, ESP_UNKNOWN);
        }
        loop_free(&scene.loop, &scene.pressed);
        assert_int_equal(loop_watches(&scene.loop), 0);
        assert_int_equal(scene.loop.closed, 2);
        assert_int_equal(esp_watcher_timer_ms(scene.loop.watcher), -1);
        press_ok(&scene, 3);
        scene_close(&scene);
    }
}

/* A hook begins another press on the same loop. */
struct nested {
    struct scene *scene;
    struct pressed pressed;
    int shown;
};

static int
press_in_hook(void *user, const struct esp_attempt *attempt)
{
    struct nested *nested = user;
    struct esp_cancel cancel = nested->scene->world.cancel;

    (void)attempt;
    cancel.hooks = (struct esp_hooks){0};
    if (nested->shown++ == 0)
        nested->pressed.press =
            esp_watcher_cancel(nested->scene->loop.watcher, &cancel, symbols,
                               2, &nested->pressed, &nested->pressed.refused);
    return 0;
}

static void
test_press_in_a_hook(void **state)
{
    struct scene scene;
    struct nested nested = {.scene = &scene};

    (void)state;
    scene_open(&scene);
    scene.world.cancel.hooks =
        (struct esp_hooks){.on_attempt = press_in_hook, .user = &nested};
    start(&scene, 3);
    run(&scene);
    assert_non_null(nested.pressed.press);
    loop_run(&scene.loop, &nested.pressed);
    assert_int_equal(nested.shown, 3);
    assert_int_equal(server_posts(scene.world.server), 5);
    loop_free(&scene.loop, &scene.pressed);
    loop_free(&scene.loop, &nested.pressed);
    scene_close(&scene);
}

/* ---- Descriptors of libcurl, and numbers that come again ---------------- */

/* The resolver's descriptors are libcurl's: it closes them itself, and the
 * connection gets their number within the same turn. */
static void
test_name_lookup(void **state)
{
    struct scene scene;
    struct esp_settings settings = {.user_agent = "espresso-test"};
    char url[64];
    bool came_again = false;
    int waited;
    int fd;

    (void)state;
    set_names(KNOWN);
    world_open_with(&scene.world, NULL, 0, settings);
    snprintf(url, sizeof url, "https://exchange.invalid:%d",
             server_port(scene.world.server));
    settings.base_url = url;
    esp_pool_release(scene.world.pool);
    scene.world.pool = esp_pool_new(scene.world.group, &settings, NULL);
    assert_non_null(scene.world.pool);
    loop_open(&scene.loop, scene.world.pool);
    checked = &scene.loop;
    scene.world.cancel.max_retries = 2;
    unhurried(&scene);
    start(&scene, 3);
    assert_true(loop_watches(&scene.loop) >= 1); /* the resolver's */
    run(&scene);
    /* the server knows no TLS */
    assert_int_equal(outcome_of(&scene, 2)->kind, ESP_TRANSPORT);
    assert_int_equal(outcome_of(&scene, 2)->call_sent, ESP_NOT_SENT);
    assert_int_equal(outcome_of(&scene, 2)->attempts, 3);
    for (waited = 0; !server_has_requests(scene.world.server, 9); waited++) {
        assert_true(waited < 10000); /* a busy machine reads them later */
        sleep_ms(1);
    }
    assert_int_equal(loop_watches(&scene.loop), 0);
    for (fd = 0; fd <= scene.loop.highest; fd++)
        came_again = came_again || scene.loop.added[fd] > 2;
    assert_true(came_again);
    loop_free(&scene.loop, &scene.pressed);
    scene_close(&scene);
}

/* A look-up ends and another begins within the same turn: the numbers are the
 * same, and what the loop is asked to wait for is, too. */
static void
test_lookup_after_lookup(void **state)
{
    enum { COUNT = 2 * ESP_RATE_CALLS };
    const struct esp_settings settings = {
        .base_url = "https://exchange.invalid", .user_agent = "espresso-test"};
    static const char *const many[COUNT] = {
        "S00", "S01", "S02", "S03", "S04", "S05", "S06", "S07", "S08", "S09",
        "S10", "S11", "S12", "S13", "S14", "S15", "S16", "S17", "S18", "S19"};
    struct scene scene;
    size_t i;

    (void)state;
    set_names(SLOW);
    world_open_with(&scene.world, NULL, 0, settings);
    loop_open(&scene.loop, scene.world.pool);
    checked = &scene.loop;
    unhurried(&scene);
    loop_press(&scene.loop, &scene.world.cancel, many, COUNT, &scene.pressed);
    assert_non_null(scene.pressed.press);
    run(&scene);
    for (i = 0; i < COUNT; i++) {
        assert_int_equal(outcome_of(&scene, i)->kind, ESP_TRANSPORT);
        assert_int_equal(outcome_of(&scene, i)->curl_code,
                         CURLE_COULDNT_RESOLVE_HOST);
    }
    assert_int_equal(loop_watches(&scene.loop), 0);
    loop_free(&scene.loop, &scene.pressed);
    scene_close(&scene);
    release_lookups();
}

/* A resolver that does not answer: the deadline holds, the loop is not held
 * up, and what the transfer had watched is forgotten. */
static void
test_silent_resolver(void **state)
{
    const struct esp_settings settings = {
        .base_url = "https://exchange.invalid", .user_agent = "espresso-test"};
    struct scene scene;

    (void)state;
    set_names(SILENT);
    world_open_with(&scene.world, NULL, 0, settings);
    loop_open(&scene.loop, scene.world.pool);
    checked = &scene.loop;
    scene.world.cancel.timeout_ms = 100;
    start(&scene, 3);
    run(&scene);
    assert_int_equal(outcome_of(&scene, 2)->kind, ESP_TIMEOUT);
    assert_int_equal(outcome_of(&scene, 2)->call_sent, ESP_NOT_SENT);
    assert_true(outcome_of(&scene, 2)->elapsed_s < 2); /* a hang, not speed */
    loop_free(&scene.loop, &scene.pressed);
    start(&scene, 1); /* and one that is freed meanwhile */
    loop_free(&scene.loop, &scene.pressed);
    assert_int_equal(loop_watches(&scene.loop), 0);
    scene_close(&scene);
    release_lookups();
}

/* A listener that answers no SYN: its queue is full. */
struct mute {
    int listener;
    int fillers[4];
};

/* On 127.0.0.1 and the port that a server has on ::1.  False: somebody else
 * has it. */
static bool
mute_open(struct mute *mute, int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const struct sockaddr *any = (const struct sockaddr *)&address;
    size_t i;

    mute->listener = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(mute->listener, any, sizeof address) != 0) {
        close(mute->listener);
        return false;
    }
    assert_int_equal(listen(mute->listener, 0), 0);
    for (i = 0; i < COUNT_OF(mute->fillers); i++) {
        mute->fillers[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        connect(mute->fillers[i], any, sizeof address);
    }
    return true;
}

static void
mute_close(struct mute *mute)
{
    size_t i;

    for (i = 0; i < COUNT_OF(mute->fillers); i++)
        close(mute->fillers[i]);
    close(mute->listener);
}

/* A scene whose server is `url` and its port; false: there is no IPv6. */
static bool
scene_open_mute(struct scene *scene, struct mute *mute, const char *url)
{
    struct esp_settings settings = {.user_agent = "espresso-test"};
    struct server *server = server_start(NULL, 0, true);
    char full[64];

    while (server != NULL && !mute_open(mute, server_port(server))) {
        server_stop(server);
        server = server_start(NULL, 0, true);
    }
    if (server == NULL)
        return false;
    snprintf(full, sizeof full, "%s:%d", url, server_port(server));
    settings.base_url = full;
    world_open_with(&scene->world, NULL, 0, settings);
    server_stop(scene->world.server);
    scene->world.server = server;
    loop_open(&scene->loop, scene->world.pool);
    checked = &scene->loop;
    return true;
}

/* Connects that come to nothing: libcurl may close their sockets itself, and
 * more of them than a lane may have open at once change nothing. */
static void
test_connects_that_hang(void **state)
{
    enum { ATTEMPTS = ESP_SOCKETS_MAX + 2 };
    struct scene scene;
    struct mute mute;
    size_t i;

    (void)state;
    if (!scene_open_mute(&scene, &mute, "http://127.0.0.1"))
        skip();
    scene.world.cancel.timeout_ms = ESP_TIMEOUT_MAX_MS;
    scene.world.cancel.connect_timeout_ms = 30;
    scene.world.cancel.max_retries = ATTEMPTS - 1;
    start(&scene, 2);
    while (!esp_press_is_done(scene.pressed.press)) {
        for (i = 0; i < 2; i++) { /* no back-off */
            if (scene.pressed.press->calls[i]->state == CALL_WAITING)
                scene.pressed.press->calls[i]->turn_at = 0;
        }
        loop_turn(&scene.loop, 10);
    }
    run(&scene);
    for (i = 0; i < 2; i++) {
        assert_int_equal(outcome_of(&scene, i)->kind, ESP_TIMEOUT);
        assert_int_equal(outcome_of(&scene, i)->attempts, ATTEMPTS);
        assert_int_equal(outcome_of(&scene, i)->call_sent, ESP_NOT_SENT);
    }
    assert_int_equal(loop_watches(&scene.loop), 0);
    loop_free(&scene.loop, &scene.pressed);
    scene_close(&scene);
    mute_close(&mute);
}

/* Two addresses, of which the first (libcurl puts IPv4 there) does not answer:
 * the second one serves, and nothing of the first stays. */
static void
test_second_address(void **state)
{
    struct scene scene;
    struct mute mute;

    (void)state;
    if (!scene_open_mute(&scene, &mute, "http://localhost"))
        skip();
    press_ok(&scene, 2);
    assert_int_equal(loop_watches(&scene.loop), 2);
    assert_int_equal(scene.world.pool->idle->socket_count, 1);
    press_ok(&scene, 2);
    assert_int_equal(server_connections(scene.world.server), 2);
    scene_close(&scene);
    mute_close(&mute);
}

/* Numbers beyond the first table, and one that no loop can watch. */
static void
test_high_numbers(void **state)
{
    int held[150];
    struct scene scene;
    size_t i;

    (void)state;
    for (i = 0; i < COUNT_OF(held); i++)
        assert_true((held[i] = dup(STDERR_FILENO)) >= 0);
    scene_open(&scene);
    press_ok(&scene, 2);
    assert_true(scene.loop.highest >= (int)COUNT_OF(held));
    assert_false(watcher_reserve(scene.loop.watcher, ESP_DESCRIPTORS_MAX));
    esp_watcher_on_socket(scene.loop.watcher, LOOP_DESCRIPTORS - 1, true,
                          true); /* nobody's */
    press_ok(&scene, 2);
    scene_close(&scene);
    for (i = 0; i < COUNT_OF(held); i++)
        close(held[i]);
}

/* ---- The end of the pool ------------------------------------------------ */

struct ender {
    struct scene *scene;
    int requests;
    bool drains;
};

static void *
end_soon(void *user)
{
    struct ender *ender = user;
    struct world *world = &ender->scene->world;

    server_wait_requests(world->server, ender->requests);
    if (ender->drains)
        esp_group_drain(world->group, 10000);
    else
        esp_pool_close(world->pool, 10000);
    return NULL;
}

/* Closed or drained by another thread, with connections in use and idle. */
static void
test_end_from_another_thread(void **state)
{
    static const enum esp_kind kinds[] = {ESP_TRANSPORT, ESP_CLOSED};
    struct scene scene;
    struct ender ender;
    pthread_t thread;
    int k;

    (void)state;
    for (k = 0; k < 2; k++) {
        scene_open(&scene);
        press_ok(&scene, 4);
        server_script(scene.world.server, symbols[0], hang, 1);
        ender = (struct ender){&scene, 5, k == 1};
        assert_int_equal(pthread_create(&thread, NULL, end_soon, &ender), 0);
        start(&scene, 1);
        run(&scene);
        pthread_join(thread, NULL);
        assert_int_equal(outcome_of(&scene, 0)->kind, kinds[k]);
        assert_int_equal(outcome_of(&scene, 0)->call_sent, ESP_UNKNOWN);
        loop_free(&scene.loop, &scene.pressed);
        while (scene.loop.wake >= 0)
            loop_turn(&scene.loop, 1000);
        assert_int_equal(loop_watches(&scene.loop), k == 0 ? 0 : 3);
        assert_int_equal(scene.world.pool->idle_count, k == 0 ? 0 : 3);
        scene_close(&scene);
    }
}

/* Closed while the loop sleeps: it wakes and lets the connections go. */
static void
test_close_while_idle(void **state)
{
    struct scene scene;

    (void)state;
    scene_open(&scene);
    press_ok(&scene, 3);
    esp_pool_close(scene.world.pool, 0);
    assert_int_equal(scene.world.pool->idle_count,
                     3); /* the loop's to close */
    loop_turn(&scene.loop, 10000);
    assert_int_equal(loop_watches(&scene.loop), 0);
    assert_int_equal(scene.loop.closed, 3);
    assert_int_equal(scene.world.pool->idle_count, 0);
    scene_close(&scene);
}

/* Freed with all it has: idle connections, of a pool that is open or closed,
 * with the loop gone before or not. */
static void
test_freed_with_idle_connections(void **state)
{
    struct scene scene;
    int i;

    (void)state;
    for (i = 0; i < 4; i++) {
        scene_open(&scene);
        press_ok(&scene, 3);
        checked = NULL; /* the loop is closed: it watches nothing */
        if (i & 1)
            esp_pool_close(scene.world.pool, 0);
        if (i & 2)
            esp_watcher_retire(scene.loop.watcher);
        esp_watcher_free(scene.loop.watcher);
        assert_int_equal(scene.world.pool->idle_count, i & 1 ? 0 : 3);
        if (!(i & 1)) {
            world_press(&scene.world);
            assert_true(scene.world.outcome.timing.reused);
        }
        world_close(&scene.world);
    }
    esp_watcher_free(NULL);
}

/* The loop is closed under a press, which is freed after that. */
static void
test_retired_in_flight(void **state)
{
    struct scene scene;

    (void)state;
    scene_open(&scene);
    press_ok(&scene, 2);
    server_script(scene.world.server, symbols[0], hang, 1);
    start(&scene, 1);
    while (!server_has_requests(scene.world.server, 3))
        loop_turn(&scene.loop, 1);
    checked = NULL;
    esp_watcher_retire(scene.loop.watcher);
    esp_press_free(scene.pressed.press);
    esp_watcher_free(scene.loop.watcher);
    assert_int_equal(scene.world.pool->idle_count, 1);
    world_close(&scene.world);
}

/* ---- Two loops ---------------------------------------------------------- */

/* Each has its own connections, and blocking calls have theirs; those of a
 * closed loop serve whoever comes next. */
static void
test_two_watchers(void **state)
{
    struct scene scene;
    struct loop other;
    struct pressed pressed;

    (void)state;
    scene_open(&scene);
    loop_open(&other, scene.world.pool);
    press_ok(&scene, 1);
    loop_press(&other, &scene.world.cancel, symbols, 1, &pressed);
    loop_run(&other, &pressed);
    assert_false(esp_press_outcome(pressed.press, 0)->timing.reused);
    loop_free(&other, &pressed);
    world_press(&scene.world);
    assert_false(scene.world.outcome.timing.reused);
    assert_int_equal(server_connections(scene.world.server), 3);
    loop_press(&other, &scene.world.cancel, symbols, 2, &pressed);
    loop_run(&other, &pressed); /* its own, and that of the blocking call */
    loop_free(&other, &pressed);
    assert_int_equal(server_connections(scene.world.server), 3);
    assert_int_equal(loop_watches(&scene.loop), 1);
    assert_int_equal(loop_watches(&other), 2);
    loop_close(&other);
    press_ok(&scene, 3);
    assert_int_equal(server_connections(scene.world.server), 3);
    scene_close(&scene);
}

/* A pool that is full of one loop's connections keeps none of the other's, and
 * does not touch those. */
static void
test_full_pool(void **state)
{
    enum { PRESSES = ESP_IDLE_MAX + 1 };
    static struct pressed pressed[PRESSES];
    struct scene scene;
    struct loop other;
    int i;

    (void)state;
    scene_open(&scene);
    for (i = 0; i < PRESSES; i++)
        loop_press(&scene.loop, &scene.world.cancel, symbols, 1, &pressed[i]);
    for (i = 0; i < PRESSES; i++) {
        while (!esp_press_is_done(pressed[i].press))
            loop_turn(&scene.loop, 1000);
        assert_int_equal(esp_press_outcome(pressed[i].press, 0)->kind, ESP_OK);
    }
    for (i = 0; i < PRESSES; i++)
        loop_free(&scene.loop, &pressed[i]);
    assert_int_equal(scene.world.pool->idle_count, ESP_IDLE_MAX);
    assert_int_equal(scene.loop.closed, 1); /* the coldest */
    assert_int_equal(loop_watches(&scene.loop), ESP_IDLE_MAX);
    loop_open(&other, scene.world.pool);
    loop_press(&other, &scene.world.cancel, symbols, 1, &pressed[0]);
    loop_run(&other, &pressed[0]);
    loop_free(&other, &pressed[0]);
    assert_int_equal(loop_watches(&other), 0);
    assert_int_equal(other.closed, 1);
    assert_int_equal(loop_watches(&scene.loop), ESP_IDLE_MAX);
    loop_close(&other);
    scene_close(&scene);
}

/* ---- Fork --------------------------------------------------------------- */

/* What the child does with the parent's loop: its press ends, nothing is sent
 * or closed, and all can be freed. */
static bool
live_as_a_child(struct scene *scene)
{
    bool ok;
    int fd;

    for (fd = 0; fd <= scene->loop.highest; fd++)
        esp_watcher_on_socket(scene->loop.watcher, fd, true, true);
    ok = !esp_press_is_done(scene->pressed.press);
    esp_watcher_on_timer(scene->loop.watcher);
    esp_watcher_on_wake(scene->loop.watcher);
    ok = ok && esp_press_is_done(scene->pressed.press) &&
         outcome_of(scene, 0)->kind == ESP_TRANSPORT &&
         esp_watcher_next_done(scene->loop.watcher) == &scene->pressed &&
         esp_watcher_timer_ms(scene->loop.watcher) == -1;
    esp_press_free(scene->pressed.press);
    esp_watcher_free(scene->loop.watcher);
    return ok;
}

static void
test_fork(void **state)
{
    struct scene scene;
    pid_t child;
    int status = -1;

    (void)state;
    scene_open(&scene);
    press_ok(&scene, 2);
    server_script(scene.world.server, symbols[0], hang, 1);
    start(&scene, 1);
    while (!server_has_requests(scene.world.server, 3))
        loop_turn(&scene.loop, 1);
    child = fork();
    assert_true(child >= 0);
    if (child == 0)
        leave_child(live_as_a_child(&scene));
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    server_push(scene.world.server, NULL);
    run(&scene);
    assert_int_equal(outcome_of(&scene, 0)->kind, ESP_TRANSPORT);
    assert_int_equal(server_posts(scene.world.server), 3);
    loop_free(&scene.loop, &scene.pressed);
    assert_int_equal(loop_watches(&scene.loop), 0);
    press_ok(&scene, 2);
    scene_close(&scene);
}

/* What the child does with a number that its parent's loop was to close: it is
 * another file's, and stays open. */
static bool
keep_number(struct scene *scene)
{
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    int pending = -1;
    int fd;

    for (fd = 0; fd <= scene->loop.highest; fd++) {
        if (scene->loop.reads[fd] && is_connection(fd))
            pending = fd;
    }
    checked = NULL;
    if (pending < 0 || dup2(null, pending) != pending)
        return false;
    esp_watcher_free(scene->loop.watcher);
    return fcntl(pending, F_GETFD) >= 0;
}

/* A fork before the loop has carried out what the watcher wanted. */
static void
test_fork_before_a_close(void **state)
{
    struct scene scene;
    pid_t child;
    int status = -1;

    (void)state;
    scene_open(&scene);
    server_script(scene.world.server, symbols[0], hang, 1);
    start(&scene, 1);
    while (!server_has_requests(scene.world.server, 1))
        loop_turn(&scene.loop, 1);
    esp_press_free(scene.pressed.press);
    child = fork();
    assert_true(child >= 0);
    if (child == 0)
        leave_child(keep_number(&scene));
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    loop_settle(&scene.loop);
    assert_int_equal(scene.loop.closed, 1);
    scene_close(&scene);
}

/* A lane whose socket found no place in the table, for want of memory: nobody
 * watches it, and it is closed at once. */
static void
test_close_beyond_the_table(void **state)
{
    struct world world;
    struct esp_watcher *watcher;
    struct esp_change change;
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

    (void)state;
    world_open(&world, NULL, 0);
    watcher = esp_watcher_new(world.pool);
    assert_non_null(watcher);
    assert_true(fd >= 0);
    watcher_close(watcher, NULL, fd);
    assert_int_equal(fcntl(fd, F_GETFD), -1);
    assert_false(esp_watcher_next_change(watcher, &change));
    esp_watcher_free(watcher);
    world_close(&world);
}

#define A_TEST(test) cmocka_unit_test_setup_teardown(test, begin, end)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        A_TEST(test_stays_watched),
        A_TEST(test_close_beyond_the_table),
        A_TEST(test_idle_connection_ends),
        A_TEST(test_connection_ends_between_attempts),
        A_TEST(test_unwatched_connection),
        A_TEST(test_mixed_list),
        A_TEST(test_many_presses),
        A_TEST(test_refused),
        A_TEST(test_ended_in_flight),
        A_TEST(test_press_in_a_hook),
        A_TEST(test_name_lookup),
        A_TEST(test_lookup_after_lookup),
        A_TEST(test_silent_resolver),
        A_TEST(test_connects_that_hang),
        A_TEST(test_second_address),
        A_TEST(test_high_numbers),
        A_TEST(test_end_from_another_thread),
        A_TEST(test_close_while_idle),
        A_TEST(test_freed_with_idle_connections),
        A_TEST(test_retired_in_flight),
        A_TEST(test_two_watchers),
        A_TEST(test_full_pool),
        A_TEST(test_fork),
        A_TEST(test_fork_before_a_close),
    };

    return cmocka_run_group_tests_name("watcher", tests, NULL, NULL);
}
