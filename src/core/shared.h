/* shared.h - what the lanes of a client have together; see shared.c.  Private. */
#ifndef ESP_SHARED_H
#define ESP_SHARED_H

#include "core.h"

/* Addresses that were found, and TLS sessions where libcurl keeps them well. */
struct esp_share {
    CURLSH *handle;
    atomic_int references; /* of lanes; while it is current, of esp_shared */
    int64_t made_at;       /* clock_boot_ms */
    bool has_sessions;
    atomic_bool is_doubted; /* something in it may have led to no connection */
    pthread_mutex_t locks[CURL_LOCK_DATA_LAST];
};

/* The share of a pool, a new one from time to time.  Its lock is the first of
 * all and held for moments; a fork does not wait for it, since the child
 * forgets all of this. */
struct esp_shared {
    pthread_mutex_t lock;
    struct esp_share *current; /* NULL: none yet, or no memory */
};

/* NULL: no memory. */
struct esp_shared *shared_new(void);

/* Takes NULL.  After the last lane that has it. */
void shared_free(struct esp_shared *shared);

/* Let `easy` use the current share.  *share is a reference to it, for
 * share_leave when no handle has it any more.  It is NULL if `shared` is, and
 * where memory is short: the handle then looks up and shakes hands for
 * itself. */
CURLcode shared_prepare(struct esp_shared *shared, CURL *easy,
                        struct esp_share **share);

/* Takes NULL. */
void share_leave(struct esp_share *share);

/* No connection was made: the next handles get another share, with nothing of
 * this one.  Takes NULL. */
void share_doubt(struct esp_share *share);

/* When the certificate of a connection was looked at, at the earliest, that was
 * made at `connected_at`; both clock_boot_ms. */
int64_t share_verified_at(const struct esp_share *share, int64_t connected_at);

#endif
