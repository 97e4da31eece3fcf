/* driver.c - the blocking face: one poll(2) loop around a press.
 *
 * curl_easy_perform would not see Ctrl-C for up to a second.  Here a signal
 * on this thread ends the poll at once (EINTR), and one that came between the
 * look and the poll, or on another thread, is found after ESP_SLICE_MS. */
#include "core.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#define WAIT_FIRST (ESP_WATCHES_MAX + 1) /* enough for one call */

/* What one poll(2) waits for: the sockets of all calls and, as the last one,
 * the pool's wake descriptor unless the next slice finds its end. */
struct wait {
    struct pollfd *polled;
    struct esp_call **calls; /* whose socket polled[i] is */
    size_t capacity;
    size_t watches;    /* the calls' */
    nfds_t count;      /* all */
    bool is_sliced;    /* we look around every ESP_SLICE_MS anyway */
    int64_t looked_at; /* when the interrupt hook was last asked */
    struct pollfd first_polled[WAIT_FIRST];
    struct esp_call *first_calls[WAIT_FIRST];
};

static void
wait_init(struct wait *wait, int64_t now)
{
    wait->polled = wait->first_polled;
    wait->calls = wait->first_calls;
    wait->capacity = WAIT_FIRST;
    wait->looked_at = now;
}

static void
wait_free(struct wait *wait)
{
    if (wait->polled != wait->first_polled)
        free(wait->polled);
    if (wait->calls != wait->first_calls)
        free(wait->calls);
}

/* Double the room; false: no memory, and all is as before. */
static bool
wait_grow(struct wait *wait)
{
    size_t capacity = 2 * wait->capacity;
    struct pollfd *polled = malloc(capacity * sizeof *polled);
    struct esp_call **calls = malloc(capacity * sizeof(struct esp_call *));

    if (polled == NULL || calls == NULL) {
        free(polled);
        free(calls);
        return false;
    }
    memcpy(polled, wait->polled, wait->watches * sizeof *polled);
    memcpy(calls, wait->calls, wait->watches * sizeof(struct esp_call *));
    wait_free(wait);
    wait->polled = polled;
    wait->calls = calls;
    wait->capacity = capacity;
    return true;
}

static short
events_of(const struct esp_watch *watch)
{
    return (short)((watch->read ? POLLIN : 0) | (watch->write ? POLLOUT : 0));
}

/* One place is always left for the wake descriptor.  A socket that finds none
 * for want of memory waits for the next slice. */
static void
wait_add(struct wait *wait, struct esp_call *call)
{
    const struct esp_lane *lane = call->entry.lane;
    size_t i;

    if (call->state != CALL_RUNNING)
        return;
    for (i = 0; i < lane->watch_count; i++) {
        if (wait->watches + 1 == wait->capacity && !wait_grow(wait)) {
            wait->is_sliced = true;
            return;
        }
        /* watches + 1 < capacity, by the lines above and wait_grow. */
        /* NOLINTNEXTLINE(clang-analyzer-security.ArrayBound) */
        wait->calls[wait->watches] = call;
        wait->polled[wait->watches++] = (struct pollfd){
            .fd = lane->watches[i].fd, .events = events_of(&lane->watches[i])};
    }
}

static void
wait_fill(struct wait *wait, const struct esp_press *press)
{
    const struct esp_hooks *hooks = &press->cancel.hooks;
    int wake = pool_wake_fd(press->pool);
    size_t i;

    wait->watches = 0;
    wait->is_sliced = wake < 0 || (hooks->poll && hooks->interrupted != NULL);
    for (i = 0; i < press->begun; i++)
        wait_add(wait, press->calls[i]);
    wait->count = (nfds_t)wait->watches;
    if (!wait->is_sliced)
        wait->polled[wait->count++] =
            (struct pollfd){.fd = wake, .events = POLLIN};
}

/* How long: until the next turn, or until the next look is due. */
static int
wait_ms(const struct wait *wait, const struct esp_press *press)
{
    int64_t now = esp_clock_ms();
    int64_t left = press_turn_at(press) - now;
    int64_t slice = wait->looked_at + ESP_SLICE_MS - now;

    if (wait->is_sliced && slice < left)
        left = slice;
    if (left > ESP_TIMEOUT_MAX_MS)
        left = ESP_TIMEOUT_MAX_MS;
    return left > 0 ? (int)left : 0;
}

/* Ask the hook if a signal came or the slice is over. */
static void
look_for_interrupt(struct wait *wait, struct esp_press *press, bool signalled)
{
    const struct esp_hooks *hooks = &press->cancel.hooks;
    int64_t now = esp_clock_ms();

    if (!signalled && now - wait->looked_at < ESP_SLICE_MS)
        return;
    wait->looked_at = now;
    if (hooks->interrupted == NULL || (!signalled && !hooks->poll))
        return;
    if (hooks->interrupted(hooks->user) != 0)
        esp_press_interrupt(press);
}

static bool
is_ready(const struct pollfd *polled, short events)
{
    return (polled->revents & (events | POLLERR | POLLHUP)) != 0;
}

static void
dispatch(const struct wait *wait, struct esp_press *press)
{
    size_t i;

    for (i = 0; i < wait->watches; i++) {
        if (wait->polled[i].revents != 0)
            press_on_socket(press, wait->calls[i], wait->polled[i].fd,
                            is_ready(&wait->polled[i], POLLIN),
                            is_ready(&wait->polled[i], POLLOUT));
    }
}

static void
drive(struct esp_press *press)
{
    struct wait wait;
    int ready;

    wait_init(&wait, press->started_at);
    while (!esp_press_is_done(press)) {
        wait_fill(&wait, press);
        ready = poll(wait.polled, wait.count, wait_ms(&wait, press));
        look_for_interrupt(&wait, press, ready < 0 && errno == EINTR);
        if (ready > 0)
            dispatch(&wait, press);
        press_on_timer(press); /* the end of the pool is looked for, too */
    }
    wait_free(&wait);
}

static void
run(struct esp_press *press)
{
    if (press != NULL) {
        drive(press);
        esp_press_free(press);
    }
}

void
esp_cancel_all(struct esp_pool *pool, const struct esp_cancel *cancel,
               struct esp_outcome *outcome)
{
    run(press_start_one(pool, cancel, false, outcome));
}

void
esp_warm_up(struct esp_pool *pool, const struct esp_cancel *cancel,
            struct esp_outcome *outcome)
{
    run(press_start_one(pool, cancel, true, outcome));
}

struct esp_press *
esp_cancel_list(struct esp_pool *pool, const struct esp_cancel *cancel,
                const char *const *symbols, size_t count,
                struct esp_outcome *refused)
{
    struct press_plan plan = {
        .pool = pool, .cancel = cancel, .symbols = symbols, .count = count};
    struct esp_press *press = press_start(&plan, refused);

    if (press != NULL)
        drive(press);
    return press;
}
