/* group.c - all pools of one interpreter, and what a process has once: libcurl,
 * the fork handlers, and the list they walk. */
#include "core.h"

#include <stdlib.h>

/* All groups of the process, for the fork handlers. */
static pthread_mutex_t registry_lock = PTHREAD_MUTEX_INITIALIZER;
static struct esp_group *groups;
static pthread_once_t process_once = PTHREAD_ONCE_INIT;

/* libcurl is initialised by the first call, not by the import: it takes a
 * millisecond, and opens what SSLKEYLOGFILE names. */
static pthread_once_t libcurl_once = PTHREAD_ONCE_INIT;
static bool libcurl_is_ready;

/* ---- Fork --------------------------------------------------------------- */

static pthread_rwlock_t inside;

static void
inside_init(void)
{
    pthread_rwlockattr_t attributes;

    pthread_rwlockattr_init(&attributes);
#ifdef __GLIBC__
    /* Or a fork could wait for ever while calls come and go. */
    pthread_rwlockattr_setkind_np(
        &attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
#endif
    pthread_rwlock_init(&inside, &attributes);
    pthread_rwlockattr_destroy(&attributes);
}

void
libcurl_enter(void)
{
    pthread_rwlock_rdlock(&inside);
}

void
libcurl_leave(void)
{
    pthread_rwlock_unlock(&inside);
}

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
    pthread_rwlock_wrlock(&inside);
}

static void
after_fork_in_parent(void)
{
    struct esp_group *group;
    struct esp_pool *pool;

    pthread_rwlock_unlock(&inside);
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

    inside_init();
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

/* ---- The process -------------------------------------------------------- */

/* libcurl opens the file when it is initialised and keeps it open. */
static bool keylog_at_init;

static bool
keylog_is_named(void)
{
#ifdef ESP_WITHOUT_KEYLOG
    return false;
#else
    const char *file = getenv("SSLKEYLOGFILE");

    return file != NULL && file[0] != '\0';
#endif
}

bool
esp_keylog_is_on(void)
{
    return keylog_at_init || keylog_is_named();
}

static void
process_init(void)
{
    inside_init();
    pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

static void
libcurl_init_once(void)
{
    keylog_at_init = keylog_is_named();
    tls_init();
    libcurl_is_ready = curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK;
}

bool
libcurl_init(void)
{
    pthread_once(&libcurl_once, libcurl_init_once);
    return libcurl_is_ready;
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
    int64_t until = clock_now_ms() + wait_ms;
    struct esp_pool *pool;

    pthread_mutex_lock(&registry_lock);
    group->drain_thread = pthread_self();
    group->draining = true;
    for (pool = group->pools; pool != NULL; pool = pool->next)
        pool_drain(pool);
    pthread_mutex_unlock(&registry_lock);
    while (group_count_others(group) > 0 && clock_now_ms() < until)
        pool_wait_a_little();
    return group_count_others(group) == 0;
}
