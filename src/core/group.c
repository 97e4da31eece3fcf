/* group.c - all pools of one interpreter, and what a process has once: the fork
 * handlers, and the list they walk. */
#include "core.h"

#include <stdlib.h>

/* All groups of the process, for the fork handlers. */
static pthread_mutex_t registry_lock = PTHREAD_MUTEX_INITIALIZER;
static struct esp_group *groups;
static pthread_once_t process_once = PTHREAD_ONCE_INIT;
static atomic_uint forks;

/* ---- Fork --------------------------------------------------------------- */

static void
before_fork(void)
{
    struct esp_group *group;
    struct esp_pool *pool;

    pthread_mutex_lock(&registry_lock);
    for (group = groups; group != NULL; group = group->next)
        for (pool = group->pools; pool != NULL; pool = pool->next)
            pthread_mutex_lock(&pool->lock);
    json_lock_prepare_fork();
    lookups_prepare_fork();
    libcurl_prepare_fork();
}

static void
after_fork_in_parent(void)
{
    struct esp_group *group;
    struct esp_pool *pool;

    libcurl_after_fork(false);
    lookups_after_fork(false);
    json_lock_after_fork(false);
    for (group = groups; group != NULL; group = group->next)
        for (pool = group->pools; pool != NULL; pool = pool->next)
            pthread_mutex_unlock(&pool->lock);
    pthread_mutex_unlock(&registry_lock);
}

static void
after_fork_in_child(void)
{
    struct esp_group *group;
    struct esp_pool *pool;

    atomic_fetch_add(&forks, 1);
    libcurl_after_fork(true);
    lookups_after_fork(true);
    json_lock_after_fork(true);
    pthread_mutex_init(&registry_lock, NULL);
    for (group = groups; group != NULL; group = group->next) {
        for (pool = group->pools; pool != NULL; pool = pool->next) {
            pthread_mutex_init(&pool->lock, NULL);
            pool_abandon_held(pool);
        }
    }
}

static void
process_init(void)
{
    libcurl_gate_init();
    pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

unsigned
esp_forks(void)
{
    return atomic_load(&forks);
}

/* ---- Groups ------------------------------------------------------------- */

struct esp_group *
esp_group_new(void)
{
    struct esp_group *group = calloc(1, sizeof *group);

    pthread_once(&process_once, process_init);
    if (group == NULL)
        return NULL;
    atomic_init(&group->references, 1);
    pthread_mutex_lock(&registry_lock);
    group->next = groups;
    groups = group;
    pthread_mutex_unlock(&registry_lock);
    return group;
}

/* A call that outlived the drain still holds its pool, and so the group. */
void
group_release(struct esp_group *group)
{
    struct esp_group **link = &groups;

    if (atomic_fetch_sub(&group->references, 1) > 1)
        return;
    pthread_mutex_lock(&registry_lock);
    while (*link != group)
        link = &(*link)->next;
    *link = group->next;
    pthread_mutex_unlock(&registry_lock);
    free(group);
}

void
esp_group_free(struct esp_group *group)
{
    if (group != NULL)
        group_release(group);
}

void
group_add(struct esp_group *group, struct esp_pool *pool)
{
    atomic_fetch_add(&group->references, 1);
    pthread_mutex_lock(&registry_lock);
    pool->draining = group->draining;
    pool->drain_thread = group->drain_thread;
    pool->next = group->pools;
    group->pools = pool;
    pthread_mutex_unlock(&registry_lock);
}

void
group_remove(struct esp_pool *pool)
{
    struct esp_pool **link = &pool->group->pools;

    pthread_mutex_lock(&registry_lock);
    while (*link != pool)
        link = &(*link)->next;
    *link = pool->next;
    pthread_mutex_unlock(&registry_lock);
}

/* ---- The end ------------------------------------------------------------ */

static int
group_count_others(struct esp_group *group)
{
    struct esp_pool *pool;
    int count = 0;

    pthread_mutex_lock(&registry_lock);
    for (pool = group->pools; pool != NULL; pool = pool->next)
        count += pool_count_others(pool);
    pthread_mutex_unlock(&registry_lock);
    return count;
}

bool
esp_group_drain(struct esp_group *group, int wait_ms)
{
    int64_t until = esp_clock_ms() + wait_ms;
    struct esp_pool *pool;

    pthread_mutex_lock(&registry_lock);
    group->drain_thread = pthread_self();
    group->draining = true;
    for (pool = group->pools; pool != NULL; pool = pool->next)
        pool_drain(pool);
    pthread_mutex_unlock(&registry_lock);
    while (group_count_others(group) > 0 && esp_clock_ms() < until)
        pool_wait_a_little();
    return group_count_others(group) == 0;
}
