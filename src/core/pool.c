/* pool.c - the warm lanes of one client, and who is using them.
 *
 * A pool never runs libcurl: it hands a lane to one call at a time and takes
 * it back.  It also knows every call in flight, so that closing, the end of
 * the interpreter and a fork can reach them. */
#include "shared.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/eventfd.h>
#endif

#define LEFT_POLL_NS 1000000L /* between two looks whether calls have left */

/* ---- Fork --------------------------------------------------------------- */

static void
wake_close(struct esp_pool *pool)
{
    if (pool->wake[0] >= 0) {
        close(pool->wake[0]);
        if (pool->wake[1] != pool->wake[0])
            close(pool->wake[1]);
    }
    pool->wake[0] = -1;
    pool->wake[1] = -1;
}

/* In the child: the lanes are the parent's, and so are the threads that were
 * in a call.  Two processes writing into one TLS session would break both. */
void
pool_abandon_held(struct esp_pool *pool)
{
    struct esp_lane *lane = pool->idle;
    struct pool_entry *entry = pool->entries;
    struct pool_entry *next;

    for (; lane != NULL; lane = lane->next)
        lane_abandon(lane);
    for (; entry != NULL; entry = next) {
        next = entry->next;
        entry->link = NULL;
        if (entry->lane != NULL)
            lane_abandon(entry->lane);
    }
    pool->shared = NULL; /* with what those lanes have of it */
    pool->idle = NULL;
    pool->idle_count = 0;
    pool->entries = NULL;
    wake_close(pool);
    pool->pid = getpid();
    atomic_fetch_add(&pool->forks, 1);
}

/* A fork that ran no handlers (a bare clone) is found by its pid. */
static void
pool_check_pid_held(struct esp_pool *pool)
{
    if (pool->pid != getpid())
        pool_abandon_held(pool);
}

/* ---- Waking and waiting ------------------------------------------------- */

/* One descriptor where there are eventfds: a process may have few left, and
 * the cancel must go out all the same. */
static bool
open_wake(int ends[2])
{
#ifdef __linux__
    ends[0] = ends[1] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return ends[0] >= 0;
#else
    int i;

    if (pipe(ends) != 0)
        return false;
    for (i = 0; i < 2; i++) {
        fcntl(ends[i], F_SETFD, FD_CLOEXEC);
        fcntl(ends[i], F_SETFL, O_NONBLOCK);
    }
    return true;
#endif
}

/* Without it, calls look every ESP_SLICE_MS whether they must end. */
static void
wake_open_held(struct esp_pool *pool)
{
    if (pool->wake[0] < 0 && !open_wake(pool->wake)) {
        pool->wake[0] = -1;
        pool->wake[1] = -1;
    }
}

/* Wake every call of the pool, now and for ever: nobody reads it. */
static void
wake_write_held(struct esp_pool *pool)
{
    const uint64_t once = 1; /* what an eventfd takes */
    ssize_t written;

    if (pool->wake[1] >= 0) {
        written = write(pool->wake[1], &once, sizeof once);
        (void)written; /* a full pipe wakes as well */
    }
}

/* Blocking calls in flight of threads other than this one.  A call that a
 * loop drives is inside the core for moments only, with Python's lock or
 * whatever the loop's thread holds: nobody has to wait for it. */
static int
count_others_held(const struct esp_pool *pool)
{
    const struct pool_entry *entry = pool->entries;
    int count = 0;

    for (; entry != NULL; entry = entry->next)
        count +=
            !entry->is_looped && !pthread_equal(entry->thread, pthread_self());
    return count;
}

int
pool_count_others(struct esp_pool *pool)
{
    int count;

    pthread_mutex_lock(&pool->lock);
    count = count_others_held(pool);
    pthread_mutex_unlock(&pool->lock);
    return count;
}

void
pool_wait_a_little(void)
{
    struct timespec pause = {.tv_nsec = LEFT_POLL_NS};

    nanosleep(&pause, NULL);
}

void
pool_drain(struct esp_pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    pool->drain_thread = pthread_self();
    pool->draining = true;
    wake_write_held(pool);
    pthread_mutex_unlock(&pool->lock);
}

/* ---- Pools -------------------------------------------------------------- */

struct esp_pool *
esp_pool_new(struct esp_group *group, const struct esp_settings *settings,
             struct esp_error *error)
{
    struct esp_pool *pool = calloc(1, sizeof *pool);

    if (pool == NULL) {
        error_set_no_memory(error);
        return NULL;
    }
    if (!target_init(&pool->target, settings, error)) {
        free(pool);
        return NULL;
    }
    atomic_init(&pool->references, 1);
    pthread_mutex_init(&pool->lock, NULL);
    pool->group = group;
    pool->pid = getpid();
    pool->wake[0] = -1;
    pool->wake[1] = -1;
    group_add(group, pool);
    return pool;
}

/* Take the idle lanes off the pool that no loop watches, to be freed without
 * its lock: the others are closed by their loop, which the wake-up reaches. */
static struct esp_lane *
take_unwatched_held(struct esp_pool *pool)
{
    struct esp_lane **link = &pool->idle;
    struct esp_lane *taken = NULL;
    struct esp_lane *lane;

    while ((lane = *link) != NULL) {
        if (lane->watcher != NULL) {
            link = &lane->next;
            continue;
        }
        *link = lane->next;
        lane->next = taken;
        taken = lane;
        pool->idle_count--;
    }
    return taken;
}

static void
free_lanes(struct esp_lane *lane)
{
    struct esp_lane *next;

    for (; lane != NULL; lane = next) {
        next = lane->next;
        lane_free(lane);
    }
}

void
esp_pool_close(struct esp_pool *pool, int wait_ms)
{
    int64_t until = esp_clock_ms() + wait_ms;
    struct esp_lane *idle;

    pthread_mutex_lock(&pool->lock);
    pool_check_pid_held(pool);
    pool->closed = true;
    wake_write_held(pool);
    idle = take_unwatched_held(pool);
    pthread_mutex_unlock(&pool->lock);
    free_lanes(idle);
    while (pool_count_others(pool) > 0 && esp_clock_ms() < until)
        pool_wait_a_little();
}

struct esp_pool *
pool_hold(struct esp_pool *pool)
{
    atomic_fetch_add(&pool->references, 1);
    return pool;
}

void
esp_pool_release(struct esp_pool *pool)
{
    if (pool == NULL || atomic_fetch_sub(&pool->references, 1) > 1)
        return;
    group_remove(pool);
    pthread_mutex_lock(&pool->lock);
    pool_check_pid_held(pool);
    pthread_mutex_unlock(&pool->lock);
    free_lanes(take_unwatched_held(pool)); /* a watcher would hold the pool */
    shared_free(pool->shared);
    wake_close(pool);
    target_free(&pool->target);
    pthread_mutex_destroy(&pool->lock);
    group_release(pool->group);
    free(pool);
}

bool
esp_pool_is_closed(struct esp_pool *pool)
{
    return pool->closed;
}

const struct esp_base_url *
esp_pool_base_url(const struct esp_pool *pool)
{
    return &pool->target.base;
}

/* ---- Calls in flight ---------------------------------------------------- */

bool
pool_must_end(struct esp_pool *pool)
{
    return pool->closed ||
           (pool->draining &&
            !pthread_equal(pool->drain_thread, pthread_self()));
}

void
pool_open_wake(struct esp_pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    pool_check_pid_held(pool);
    wake_open_held(pool);
    pthread_mutex_unlock(&pool->lock);
}

int
pool_wake_fd(struct esp_pool *pool)
{
    /* The draining thread's own calls go on: it must not be woken. */
    return pool->draining ? -1 : pool->wake[0];
}

bool
pool_enter(struct esp_pool *pool, struct pool_entry *entry)
{
    bool entered;

    entry->lane = NULL;
    entry->link = NULL;
    pthread_mutex_lock(&pool->lock);
    pool_check_pid_held(pool);
    entered = !pool_must_end(pool);
    if (entered) {
        wake_open_held(pool);
        entry->thread = pthread_self();
        entry->next = pool->entries;
        entry->link = &pool->entries;
        if (entry->next != NULL)
            entry->next->link = &entry->next;
        pool->entries = entry;
    }
    pthread_mutex_unlock(&pool->lock);
    return entered;
}

/* Only a lane with an open connection is warm: a cold one would lie on top of
 * those that are. */
static bool
is_worth_keeping(const struct esp_lane *lane)
{
    return !lane->abandoned && lane->multi != NULL && lane->socket_count > 0;
}

/* Take a lane off the pool that fits: with any watcher of these two and, unless
 * `fd` is -1, that socket.  The warmest, or the coldest. */
static struct esp_lane *
unlink_idle_held(struct esp_pool *pool, const struct esp_watcher *one,
                 const struct esp_watcher *other, int fd, bool coldest)
{
    struct esp_lane **link = &pool->idle;
    struct esp_lane **found = NULL;
    struct esp_lane *lane;

    for (; *link != NULL && (found == NULL || coldest);
         link = &(*link)->next) {
        if (((*link)->watcher == one || (*link)->watcher == other) &&
            (fd < 0 || lane_has_socket(*link, fd)))
            found = link;
    }
    if (found == NULL)
        return NULL;
    lane = *found;
    *found = lane->next;
    lane->next = NULL;
    pool->idle_count--;
    return lane;
}

/* Keep the lane warm, on top.  The one that must go for it, or the lane itself
 * if it is not worth it, is returned for the caller to free.  Lanes that
 * another loop watches are not ours to close. */
static struct esp_lane *
keep_lane_held(struct esp_pool *pool, struct esp_lane *lane)
{
    if (lane == NULL || !is_worth_keeping(lane) || pool->closed)
        return lane;
    lane->next = pool->idle;
    pool->idle = lane;
    if (++pool->idle_count <= ESP_IDLE_MAX)
        return NULL;
    return unlink_idle_held(pool, lane->watcher, NULL, -1, true);
}

void
pool_leave(struct esp_pool *pool, struct pool_entry *entry)
{
    struct esp_lane *lane = entry->lane;

    /* While the call still counts, so that whoever waits for the calls to
     * leave waits for libcurl, too. */
    if (lane != NULL && !is_worth_keeping(lane))
        lane_close(lane);
    if (lane != NULL)
        lane->call = NULL;
    pthread_mutex_lock(&pool->lock);
    lane = keep_lane_held(pool, lane);
    entry->lane = NULL;
    if (entry->link != NULL) {
        *entry->link = entry->next;
        if (entry->next != NULL)
            entry->next->link = entry->link;
        entry->link = NULL;
    }
    pthread_mutex_unlock(&pool->lock);
    lane_free(lane);
}

/* Made when the first lane is: an import or a client alone does not start
 * libcurl. */
static struct esp_shared *
shared_held(struct esp_pool *pool)
{
    if (pool->shared == NULL)
        pool->shared = shared_new();
    return pool->shared;
}

bool
pool_take_lane(struct esp_pool *pool, struct pool_entry *entry,
               struct esp_watcher *watcher)
{
    struct esp_shared *shared;
    struct esp_lane *lane;

    pthread_mutex_lock(&pool->lock);
    lane = unlink_idle_held(pool, watcher, NULL, -1, false);
    shared = lane == NULL ? shared_held(pool) : NULL;
    pthread_mutex_unlock(&pool->lock);
    if (lane == NULL)
        lane = lane_new(shared);
    if (lane != NULL)
        lane_watch(lane, watcher);
    entry->lane = lane;
    return lane != NULL;
}

struct esp_lane *
pool_take_idle_of(struct esp_pool *pool, struct esp_watcher *watcher, int fd)
{
    struct esp_lane *lane;

    pthread_mutex_lock(&pool->lock);
    lane = unlink_idle_held(pool, watcher, watcher, fd, false);
    pthread_mutex_unlock(&pool->lock);
    return lane;
}

void
pool_forget_watcher(struct esp_pool *pool, struct esp_watcher *watcher)
{
    struct esp_lane *lane;

    pthread_mutex_lock(&pool->lock);
    for (lane = pool->idle; lane != NULL; lane = lane->next) {
        if (lane->watcher == watcher)
            lane->watcher = NULL;
    }
    pthread_mutex_unlock(&pool->lock);
}
