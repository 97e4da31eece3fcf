/* shared.c - what the lanes of a client have together: the addresses that were
 * found, and TLS sessions.
 *
 * By itself each multi handle keeps its own, and forgets them with the lane:
 * ten symbols would ask ten times, in a thread each, and a connection that is
 * made anew asks again and shakes hands in full.
 *
 * A session that is taken up again is a certificate that is not looked at.  So
 * a share is given to new lanes for half of ESP_LIFETIME_MS, and its sessions
 * end with it: libcurl can forget no single one, and the successor of a
 * session is as young as the connection that brought it.
 *
 * What was kept can also be what keeps a lane from its connection: an address
 * where nobody is any more, a session that a server or something on the way
 * stumbles over.  libcurl would come with the same one again. */
#include "shared.h"

#include <stdlib.h>

/* The rewritten cache of sessions, which takes each ticket of TLS 1.3 once.
 * That of 7.88.1 frees a session twice when memory is short
 * (Curl_ssl_addsessionid). */
#define SESSIONS_LEAST 0x080c00

/* ---- One share ---------------------------------------------------------- */

static void
on_lock(CURL *easy, curl_lock_data data, curl_lock_access access, void *user)
{
    struct esp_share *share = user;

    (void)easy;
    (void)access;
    pthread_mutex_lock(&share->locks[data]);
}

static void
on_unlock(CURL *easy, curl_lock_data data, void *user)
{
    struct esp_share *share = user;

    (void)easy;
    pthread_mutex_unlock(&share->locks[data]);
}

/* Where we cannot look into the TLS library, each request has a connection of
 * its own, and each connection its handshake. */
static bool
sessions_are_safe(void)
{
    return tls_can_look() &&
           curl_version_info(CURLVERSION_NOW)->version_num >= SESSIONS_LEAST;
}

static bool
set_handle(struct esp_share *share)
{
    CURLSH *handle = share->handle;

    return curl_share_setopt(handle, CURLSHOPT_USERDATA, share) ==
               CURLSHE_OK &&
           curl_share_setopt(handle, CURLSHOPT_LOCKFUNC, on_lock) ==
               CURLSHE_OK &&
           curl_share_setopt(handle, CURLSHOPT_UNLOCKFUNC, on_unlock) ==
               CURLSHE_OK &&
           curl_share_setopt(handle, CURLSHOPT_SHARE, CURL_LOCK_DATA_DNS) ==
               CURLSHE_OK &&
           (!share->has_sessions ||
            curl_share_setopt(handle, CURLSHOPT_SHARE,
                              CURL_LOCK_DATA_SSL_SESSION) == CURLSHE_OK);
}

static void
share_free(struct esp_share *share)
{
    size_t i;

    libcurl_enter();
    curl_share_cleanup(share->handle);
    libcurl_leave();
    for (i = 0; i < CURL_LOCK_DATA_LAST; i++)
        pthread_mutex_destroy(&share->locks[i]);
    free(share);
}

/* With one reference; NULL: no memory. */
static struct esp_share *
share_new(void)
{
    struct esp_share *share = malloc(sizeof *share);
    size_t i;

    if (share == NULL)
        return NULL;
    atomic_init(&share->references, 1);
    share->made_at = clock_boot_ms();
    share->has_sessions = sessions_are_safe();
    atomic_init(&share->is_doubted, false);
    for (i = 0; i < CURL_LOCK_DATA_LAST; i++)
        pthread_mutex_init(&share->locks[i], NULL);
    libcurl_enter();
    share->handle = curl_share_init();
    libcurl_leave();
    if (share->handle == NULL || !set_handle(share)) {
        share_free(share);
        share = NULL;
    }
    return share;
}

void
share_leave(struct esp_share *share)
{
    if (share != NULL && atomic_fetch_sub(&share->references, 1) == 1)
        share_free(share);
}

void
share_doubt(struct esp_share *share)
{
    if (share != NULL)
        atomic_store(&share->is_doubted, true);
}

int64_t
share_verified_at(const struct esp_share *share, int64_t connected_at)
{
    return share != NULL && share->has_sessions ? share->made_at
                                                : connected_at;
}

/* ---- The one in use ----------------------------------------------------- */

struct esp_shared *
shared_new(void)
{
    struct esp_shared *shared = malloc(sizeof *shared);

    if (shared == NULL)
        return NULL;
    pthread_mutex_init(&shared->lock, NULL);
    shared->current = NULL;
    return shared;
}

void
shared_free(struct esp_shared *shared)
{
    if (shared == NULL)
        return;
    share_leave(shared->current);
    pthread_mutex_destroy(&shared->lock);
    free(shared);
}

static bool
is_spent(const struct esp_share *share)
{
    return atomic_load(&share->is_doubted) ||
           clock_boot_ms() - share->made_at > ESP_SHARE_AGE_MS;
}

static void
renew_held(struct esp_shared *shared)
{
    struct esp_share *old = shared->current;

    if (old != NULL && !is_spent(old))
        return;
    shared->current = share_new();
    share_leave(old);
}

static struct esp_share *
join(struct esp_shared *shared)
{
    struct esp_share *share;

    if (shared == NULL)
        return NULL;
    pthread_mutex_lock(&shared->lock);
    renew_held(shared);
    share = shared->current;
    if (share != NULL)
        atomic_fetch_add(&share->references, 1);
    pthread_mutex_unlock(&shared->lock);
    return share;
}

CURLcode
shared_prepare(struct esp_shared *shared, CURL *easy, struct esp_share **share)
{
    bool has_sessions;
    CURLcode code = CURLE_OK;

    *share = join(shared);
    has_sessions = *share != NULL && (*share)->has_sessions;
    if (*share != NULL)
        SET(CURLOPT_SHARE, (*share)->handle);
    SET(CURLOPT_SSL_SESSIONID_CACHE, has_sessions ? 1L : 0L);
    SET(CURLOPT_DNS_CACHE_TIMEOUT, ESP_NAMES_AGE_S);
    return code;
}
