/* watcher.c - the face for event loops: which descriptors a loop is to watch,
 * which press a ready one belongs to, and which press has ended.
 *
 * libcurl's callbacks only write down here what they want; the loop asks for
 * the changes after each turn, when libcurl has returned.  A kept connection
 * stays watched between calls: that saves adding it anew for each, and its end
 * is seen at once.  So no socket may be closed before the loop has ceased to
 * watch it, for its number comes again with the next open(2): closing is the
 * loop's, too. */
#include "core.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TABLE_FIRST 64

/* One descriptor, by its number. */
struct watched {
    struct esp_lane *lane; /* NULL: nobody's */
    bool reads;            /* what the loop does */
    bool writes;
    bool wants_read; /* what it is to do */
    bool wants_write;
    bool is_new;   /* the number was closed by libcurl: it begins anew */
    bool is_ended; /* to be closed by the loop */
    bool is_changed;
};

struct esp_watcher {
    struct esp_pool *pool;
    unsigned forks; /* of the pool: in a child the table is the parent's */
    struct esp_press *presses;
    struct watched *table; /* by descriptor */
    int *changed;          /* descriptors of which is_changed */
    int changed_count;
    int capacity; /* of both */
};

/* ---- The table ---------------------------------------------------------- */

bool
watcher_reserve(struct esp_watcher *watcher, int fd)
{
    int capacity = watcher->capacity > 0 ? watcher->capacity : TABLE_FIRST;
    struct watched *table;
    int *changed;

    if (fd < watcher->capacity)
        return true;
    if (fd >= ESP_DESCRIPTORS_MAX)
        return false;
    while (capacity <= fd)
        capacity *= 2;
    table = realloc(watcher->table, (size_t)capacity * sizeof *table);
    if (table == NULL)
        return false;
    memset(table + watcher->capacity, 0,
           (size_t)(capacity - watcher->capacity) * sizeof *table);
    watcher->table = table;
    changed = realloc(watcher->changed, (size_t)capacity * sizeof *changed);
    if (changed == NULL)
        return false;
    watcher->changed = changed;
    watcher->capacity = capacity;
    return true;
}

static void
note_change(struct esp_watcher *watcher, int fd)
{
    if (!watcher->table[fd].is_changed)
        watcher->changed[watcher->changed_count++] = fd;
    watcher->table[fd].is_changed = true;
}

bool
watcher_want(struct esp_watcher *watcher, struct esp_lane *lane, int fd,
             bool read, bool write)
{
    struct watched *watched;

    if (!watcher_reserve(watcher, fd))
        return false;
    watched = &watcher->table[fd];
    watched->lane = lane;
    watched->wants_read = read;
    watched->wants_write = write;
    if (watched->reads != read || watched->writes != write)
        note_change(watcher, fd);
    return true;
}

void
watcher_forget(struct esp_watcher *watcher, const struct esp_lane *lane,
               int fd)
{
    struct watched *watched;

    if (fd >= watcher->capacity || watcher->table[fd].lane != lane)
        return;
    watched = &watcher->table[fd];
    watched->lane = NULL;
    watched->wants_read = false;
    watched->wants_write = false;
    watched->is_new = true;
    note_change(watcher, fd);
}

void
watcher_close(struct esp_watcher *watcher, const struct esp_lane *lane, int fd)
{
    if (fd >= watcher->capacity) { /* of a lane that nobody watched before */
        close(fd);
        return;
    }
    watcher_forget(watcher, lane, fd);
    watcher->table[fd].is_ended = true;
    note_change(watcher, fd);
}

bool
esp_watcher_next_change(struct esp_watcher *watcher, struct esp_change *change)
{
    struct watched *watched;
    bool anew;
    int fd;

    if (watcher->changed_count == 0)
        return false;
    fd = watcher->changed[--watcher->changed_count];
    watched = &watcher->table[fd];
    anew = watched->is_new || watched->is_ended;
    *change = (struct esp_change){
        .fd = fd,
        .remove_reader = watched->reads && (anew || !watched->wants_read),
        .remove_writer = watched->writes && (anew || !watched->wants_write),
        .close = watched->is_ended};
    watched->reads = watched->reads && !change->remove_reader;
    watched->writes = watched->writes && !change->remove_writer;
    change->add_reader = watched->wants_read && !watched->reads;
    change->add_writer = watched->wants_write && !watched->writes;
    watched->reads = watched->wants_read;
    watched->writes = watched->wants_write;
    watched->is_new = false;
    watched->is_ended = false;
    watched->is_changed = false;
    return true;
}

/* ---- Presses ------------------------------------------------------------ */

void
watcher_add(struct esp_watcher *watcher, struct esp_press *press)
{
    press->next = watcher->presses;
    watcher->presses = press;
}

void
watcher_remove(struct esp_watcher *watcher, struct esp_press *press)
{
    struct esp_press **link = &watcher->presses;

    while (*link != press)
        link = &(*link)->next;
    *link = press->next;
}

struct esp_press *
esp_watcher_cancel(struct esp_watcher *watcher,
                   const struct esp_cancel *cancel, const char *const *symbols,
                   size_t count, void *user, struct esp_outcome *refused)
{
    struct press_plan plan = {.pool = watcher->pool,
                              .watcher = watcher,
                              .user = user,
                              .cancel = cancel,
                              .symbols = symbols,
                              .count = count};

    return press_start(&plan, refused);
}

struct esp_press *
esp_watcher_warm_up(struct esp_watcher *watcher,
                    const struct esp_cancel *cancel, void *user,
                    struct esp_outcome *refused)
{
    struct press_plan plan = {.pool = watcher->pool,
                              .watcher = watcher,
                              .user = user,
                              .cancel = cancel,
                              .is_warm_up = true,
                              .count = 1};

    return press_start(&plan, refused);
}

void *
esp_watcher_next_done(struct esp_watcher *watcher)
{
    struct esp_press *press = watcher->presses;

    while (press != NULL && (press->is_reported || !esp_press_is_done(press)))
        press = press->next;
    if (press == NULL)
        return NULL;
    press->is_reported = true;
    return press->user;
}

void *
esp_watcher_first(struct esp_watcher *watcher)
{
    struct esp_press *press = watcher->presses;

    while (press != NULL && esp_press_is_done(press))
        press = press->next;
    return press != NULL ? press->user : NULL;
}

/* ---- Turns -------------------------------------------------------------- */

/* Whether this is the child of a fork, and the loop its parent's. */
static bool
is_inherited(const struct esp_watcher *watcher)
{
    return watcher->forks != atomic_load(&watcher->pool->forks);
}

/* Close the idle connection with socket `fd`, or all of them (-1). */
static void
drop_idle(struct esp_watcher *watcher, int fd)
{
    struct esp_lane *lane;

    while ((lane = pool_take_idle_of(watcher->pool, watcher, fd)) != NULL)
        lane_free(lane);
}

void
esp_watcher_on_socket(struct esp_watcher *watcher, int fd, bool readable,
                      bool writable)
{
    struct esp_lane *lane =
        fd < watcher->capacity ? watcher->table[fd].lane : NULL;

    if (is_inherited(watcher))
        return;
    if (lane == NULL) /* a descriptor whose end the loop did not know yet */
        return;
    if (lane->call != NULL)
        press_on_socket(lane->call->press, lane->call, fd, readable, writable);
    else
        drop_idle(watcher, fd); /* its end, or bytes nobody asked for */
}

int64_t
esp_watcher_timer_ms(const struct esp_watcher *watcher)
{
    const struct esp_press *press = watcher->presses;
    int64_t soonest = INT64_MAX;
    int64_t at;

    for (; press != NULL; press = press->next) {
        at = esp_press_is_done(press) ? INT64_MAX : press_turn_at(press);
        if (at < soonest)
            soonest = at;
    }
    if (soonest == INT64_MAX)
        return -1;
    at = soonest - esp_clock_ms();
    return at > 0 ? at : 0;
}

/* A hook may begin a press and so lengthen the list, at its front. */
void
esp_watcher_on_timer(struct esp_watcher *watcher)
{
    int64_t now = esp_clock_ms();
    struct esp_press *press;

    for (press = watcher->presses; press != NULL; press = press->next) {
        if (press_turn_at(press) <= now)
            press_on_timer(press);
    }
}

int
esp_watcher_wake_fd(struct esp_watcher *watcher)
{
    return pool_wake_fd(watcher->pool);
}

void
esp_watcher_on_wake(struct esp_watcher *watcher)
{
    struct esp_press *press;

    for (press = watcher->presses; press != NULL; press = press->next)
        press_on_timer(press);
    if (esp_pool_is_closed(watcher->pool))
        drop_idle(watcher, -1);
}

/* ---- The watcher -------------------------------------------------------- */

struct esp_watcher *
esp_watcher_new(struct esp_pool *pool)
{
    struct esp_watcher *watcher = calloc(1, sizeof *watcher);

    if (watcher == NULL)
        return NULL;
    watcher->pool = pool_hold(pool);
    pool_open_wake(pool);
    watcher->forks = atomic_load(&pool->forks);
    return watcher;
}

/* The descriptors that the loop was to close.  Not in the child of a fork:
 * what had a number in the parent may be something else here by now. */
static void
close_ended(struct esp_watcher *watcher)
{
    struct esp_change change;

    if (is_inherited(watcher))
        return;
    while (esp_watcher_next_change(watcher, &change)) {
        if (change.close)
            close(change.fd);
    }
}

void
esp_watcher_retire(struct esp_watcher *watcher)
{
    if (esp_pool_is_closed(watcher->pool))
        drop_idle(watcher, -1);
    pool_forget_watcher(watcher->pool, watcher);
    close_ended(watcher);
}

void
esp_watcher_free(struct esp_watcher *watcher)
{
    if (watcher == NULL)
        return;
    esp_watcher_retire(watcher);
    esp_pool_release(watcher->pool);
    free(watcher->changed);
    free(watcher->table);
    free(watcher);
}
