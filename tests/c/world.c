/* world.c - see world.h. */
#include "world.h"

#include <poll.h>
#include <time.h>
#include <unistd.h>

void
world_open_with(struct world *world, const struct step *steps, size_t count,
                struct esp_settings settings)
{
    struct esp_error error = {.message = ""};

    *world = (struct world){.cancel = {.symbol = SYMBOL,
                                       .api_key = KEY,
                                       .timeout_ms = 10000,
                                       .connect_timeout_ms = 10000}};
    esp_outcome_init(&world->outcome);
    world->server = server_start(steps, count, false);
    assert_non_null(world->server);
    if (settings.base_url == NULL)
        settings.base_url = server_url(world->server);
    world->group = esp_group_new();
    assert_non_null(world->group);
    world->pool = esp_pool_new(world->group, &settings, &error);
    if (world->pool == NULL)
        fail_msg("no pool: %s", error.message);
}

void
world_open(struct world *world, const struct step *steps, size_t count)
{
    struct esp_settings settings = {.user_agent = "espresso-test"};

    world_open_with(world, steps, count, settings);
}

void
world_close(struct world *world)
{
    esp_outcome_free(&world->outcome);
    esp_pool_release(world->pool);
    esp_group_free(world->group);
    server_stop(world->server);
}

void
world_press(struct world *world)
{
    esp_outcome_free(&world->outcome);
    esp_cancel_all(world->pool, &world->cancel, &world->outcome);
}

/* The sockets that `call` waits for: their count. */
static size_t
watches_of_call(const struct esp_call *call, struct pollfd *polled)
{
    const struct esp_watch *watches;
    size_t i;

    if (call->state != CALL_RUNNING)
        return 0;
    watches = call->entry.lane->watches;
    for (i = 0; i < call->entry.lane->watch_count; i++)
        polled[i] = (struct pollfd){
            .fd = watches[i].fd,
            .events = (short)((watches[i].read ? POLLIN : 0) |
                              (watches[i].write ? POLLOUT : 0))};
    return call->entry.lane->watch_count;
}

size_t
watches_of(const struct esp_press *press, struct pollfd *polled)
{
    return watches_of_call(press->calls[0], polled);
}

void
drive_once(struct esp_press *press, int limit_ms)
{
    struct pollfd polled[DRIVEN_MAX * ESP_WATCHES_MAX];
    struct esp_call *calls[DRIVEN_MAX * ESP_WATCHES_MAX];
    int64_t left = press_turn_at(press) - esp_clock_ms();
    size_t count = 0;
    size_t found;
    size_t i;

    for (i = 0; i < press->begun; i++) {
        found = watches_of_call(press->calls[i], polled + count);
        for (; found > 0; found--)
            calls[count++] = press->calls[i];
    }
    if (left < 0)
        left = 0;
    poll(polled, (nfds_t)count, left < limit_ms ? (int)left : limit_ms);
    for (i = 0; i < count; i++) {
        if (polled[i].revents != 0)
            press_on_socket(press, calls[i], polled[i].fd,
                            (polled[i].revents & ~POLLOUT) != 0,
                            (polled[i].revents & POLLOUT) != 0);
    }
    press_on_timer(press);
}

void
drive_by_hand(struct esp_press *press)
{
    while (!esp_press_is_done(press))
        drive_once(press, ESP_TIMEOUT_MAX_MS);
}

void
drive_until_sent(struct esp_press *press, struct server *server, int count)
{
    while (!esp_press_is_done(press) && !server_has_requests(server, count))
        drive_once(press, 1);
}

struct esp_press *
world_start(struct world *world)
{
    return press_start_one(world->pool, &world->cancel, false,
                           &world->outcome);
}

void
world_press_by_hand(struct world *world)
{
    struct esp_press *press;

    esp_outcome_free(&world->outcome);
    press = world_start(world);
    if (press == NULL)
        return;
    drive_by_hand(press);
    esp_press_free(press);
}

/* Of gcov, where the core is compiled for it. */
void __gcov_dump(void) __attribute__((weak));

void
leave_child(bool ok)
{
    const char *program = ok ? "true" : "false";

    if (__gcov_dump != NULL) /* else what the child did counts for nothing */
        __gcov_dump();
    execlp(program, program, (char *)NULL);
    _exit(2);
}

void
sleep_ms(long milliseconds)
{
    struct timespec pause = {.tv_sec = milliseconds / 1000,
                             .tv_nsec = milliseconds % 1000 * 1000000};

    nanosleep(&pause, NULL);
}
