/* pace.c - at most ESP_RATE_CALLS requests of a press start within
 * ESP_RATE_WINDOW_MS.
 *
 * A request needs a slot to start, and the slot is free again a window after
 * the request has arrived.  The exchange knows when that is; we know when it
 * left and when it was answered.  One that arrived late (a slow link, a busy
 * machine) must not meet one that came a window later and fast: so the answer
 * counts, or PACE_LATE_MS after it left if none has come by then. */
#include "core.h"

int
pace_take(struct pace *pace, int64_t now)
{
    int slot = 0;

    while (slot < ESP_RATE_CALLS && pace->free_at[slot] > now)
        slot++;
    if (slot == ESP_RATE_CALLS)
        return -1;
    pace->free_at[slot] = INT64_MAX;
    return slot;
}

void
pace_give(struct pace *pace, int slot, int64_t free_at)
{
    pace->free_at[slot] = free_at;
}

int64_t
pace_next(const struct pace *pace)
{
    int64_t next = INT64_MAX;
    int slot;

    for (slot = 0; slot < ESP_RATE_CALLS; slot++) {
        if (pace->free_at[slot] < next)
            next = pace->free_at[slot];
    }
    return next;
}

bool
pace_is_held(const struct pace *pace)
{
    int slot = 0;

    while (slot < ESP_RATE_CALLS && pace->free_at[slot] != INT64_MAX)
        slot++;
    return slot < ESP_RATE_CALLS;
}
