/* names.c - the addresses that were found, for all lanes of a client.
 *
 * By itself each multi handle keeps its own, and forgets them with the lane:
 * ten symbols would ask ten times, in a thread each, and a connection that is
 * made anew asks again.  TLS sessions are not shared: in TLS 1.3 they save no
 * round trip, and a new connection is where the certificate is looked at. */
#include "core.h"

#include <stdlib.h>

struct esp_names {
    CURLSH *share;
    atomic_bool is_doubted; /* the last address led to no connection */
    pthread_mutex_t locks[CURL_LOCK_DATA_LAST];
};

static void
on_lock(CURL *easy, curl_lock_data data, curl_lock_access access, void *user)
{
    struct esp_names *names = user;

    (void)easy;
    (void)access;
    pthread_mutex_lock(&names->locks[data]);
}

static void
on_unlock(CURL *easy, curl_lock_data data, void *user)
{
    struct esp_names *names = user;

    (void)easy;
    pthread_mutex_unlock(&names->locks[data]);
}

static bool
set_share(struct esp_names *names)
{
    CURLSH *share = names->share;

    return curl_share_setopt(share, CURLSHOPT_USERDATA, names) == CURLSHE_OK &&
           curl_share_setopt(share, CURLSHOPT_LOCKFUNC, on_lock) ==
               CURLSHE_OK &&
           curl_share_setopt(share, CURLSHOPT_UNLOCKFUNC, on_unlock) ==
               CURLSHE_OK &&
           curl_share_setopt(share, CURLSHOPT_SHARE, CURL_LOCK_DATA_DNS) ==
               CURLSHE_OK;
}

struct esp_names *
names_new(void)
{
    struct esp_names *names = malloc(sizeof *names);
    size_t i;

    if (names == NULL)
        return NULL;
    atomic_init(&names->is_doubted, false);
    for (i = 0; i < CURL_LOCK_DATA_LAST; i++)
        pthread_mutex_init(&names->locks[i], NULL);
    libcurl_enter();
    names->share = curl_share_init();
    libcurl_leave();
    if (names->share == NULL || !set_share(names)) {
        names_free(names);
        names = NULL;
    }
    return names;
}

void
names_free(struct esp_names *names)
{
    size_t i;

    if (names == NULL)
        return;
    libcurl_enter();
    curl_share_cleanup(names->share);
    libcurl_leave();
    for (i = 0; i < CURL_LOCK_DATA_LAST; i++)
        pthread_mutex_destroy(&names->locks[i]);
    free(names);
}

CURLcode
names_prepare(const struct esp_names *names, CURL *easy)
{
    bool is_doubted = names != NULL && atomic_load(&names->is_doubted);
    CURLcode code = CURLE_OK;

    if (names != NULL)
        SET(CURLOPT_SHARE, names->share);
    SET(CURLOPT_DNS_CACHE_TIMEOUT, is_doubted ? 0L : ESP_NAMES_AGE_S);
    return code;
}

void
names_doubt(struct esp_names *names, bool is_doubted)
{
    if (names != NULL)
        atomic_store(&names->is_doubted, is_doubted);
}
