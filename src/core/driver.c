/* driver.c - the blocking face: one poll(2) loop around a call.
 *
 * curl_easy_perform would not see Ctrl-C for up to a second.  Here a signal
 * on this thread ends the poll at once (EINTR), and one that came between the
 * look and the poll, or on another thread, is found after ESP_SLICE_MS. */
#include "core.h"

#include <errno.h>
#include <poll.h>

struct wait {
    struct pollfd polled[ESP_WATCHES_MAX + 1];
    nfds_t count;
    nfds_t watches;    /* the first ones; the last may be the pool's wake fd */
    bool is_sliced;    /* we look around every ESP_SLICE_MS anyway */
    int64_t looked_at; /* when the interrupt hook was last asked */
};

static short
events_of(const struct esp_watch *watch)
{
    return (short)((watch->read ? POLLIN : 0) | (watch->write ? POLLOUT : 0));
}

/* What to wait for: the lane's sockets, and the end of the pool unless the
 * next slice finds it. */
static void
wait_fill(struct wait *wait, const struct esp_call *call)
{
    const struct esp_hooks *hooks = &call->cancel.hooks;
    const struct esp_watch *watches;
    int wake = pool_wake_fd(call->pool);
    nfds_t i;

    wait->watches = (nfds_t)esp_call_watches(call, &watches);
    for (i = 0; i < wait->watches; i++)
        wait->polled[i] = (struct pollfd){.fd = watches[i].fd,
                                          .events = events_of(&watches[i])};
    wait->count = wait->watches;
    wait->is_sliced = wake < 0 || (hooks->poll && hooks->interrupted != NULL);
    if (!wait->is_sliced)
        wait->polled[wait->count++] =
            (struct pollfd){.fd = wake, .events = POLLIN};
}

/* How long: until the next timer, or until the next look is due. */
static int
wait_ms(const struct wait *wait, const struct esp_call *call)
{
    int64_t left = esp_call_timer_ms(call);
    int64_t slice = wait->looked_at + ESP_SLICE_MS - clock_now_ms();

    if (!wait->is_sliced || left <= slice)
        return (int)left;
    return slice > 0 ? (int)slice : 0;
}

/* Ask the hook if a signal came or the slice is over. */
static void
look_for_interrupt(struct wait *wait, struct esp_call *call, bool signalled)
{
    const struct esp_hooks *hooks = &call->cancel.hooks;
    int64_t now = clock_now_ms();

    if (!signalled && now - wait->looked_at < ESP_SLICE_MS)
        return;
    wait->looked_at = now;
    if (hooks->interrupted == NULL || (!signalled && !hooks->poll))
        return;
    if (hooks->interrupted(hooks->user) != 0)
        esp_call_interrupt(call);
    call_end_if_orphan(call);
}

static bool
is_ready(const struct pollfd *polled, short events)
{
    return (polled->revents & (events | POLLERR | POLLHUP)) != 0;
}

static void
dispatch(struct wait *wait, struct esp_call *call)
{
    nfds_t i;

    if (wait->count > wait->watches && wait->polled[wait->watches].revents) {
        if (pool_must_end(call->pool))
            call_end_closed(call);
        return;
    }
    for (i = 0; i < wait->watches && !esp_call_is_done(call); i++) {
        if (wait->polled[i].revents != 0)
            esp_call_on_socket(call, wait->polled[i].fd,
                               is_ready(&wait->polled[i], POLLIN),
                               is_ready(&wait->polled[i], POLLOUT));
    }
}

static void
drive(struct esp_call *call)
{
    struct wait wait = {.looked_at = call->started_at};
    int ready;

    while (!esp_call_is_done(call)) {
        wait_fill(&wait, call);
        ready = poll(wait.polled, wait.count, wait_ms(&wait, call));
        look_for_interrupt(&wait, call, ready < 0 && errno == EINTR);
        if (ready > 0 && !esp_call_is_done(call))
            dispatch(&wait, call);
        esp_call_on_timer(call);
    }
}

static void
run(struct esp_call *call)
{
    if (call != NULL) {
        drive(call);
        esp_call_free(call);
    }
}

void
esp_cancel_all(struct esp_pool *pool, const struct esp_cancel *cancel,
               struct esp_outcome *outcome)
{
    run(esp_call_start(pool, cancel, outcome));
}

void
esp_warm_up(struct esp_pool *pool, const struct esp_cancel *cancel,
            struct esp_outcome *outcome)
{
    run(esp_call_start_warm_up(pool, cancel, outcome));
}
