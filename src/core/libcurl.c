/* libcurl.c - what a process has once of libcurl: its initialisation, the file
 * of its session secrets, and the gate that a fork waits at. */
#include "core.h"

#include <stdlib.h>

/* ---- The gate ----------------------------------------------------------- */

/* Read-locked by whoever is inside libcurl, write-locked by a fork. */
static pthread_rwlock_t gate = PTHREAD_RWLOCK_INITIALIZER;

void
libcurl_gate_init(void)
{
    pthread_rwlockattr_t attributes;

    pthread_rwlockattr_init(&attributes);
#ifdef __GLIBC__
    /* Or a fork could wait for ever while calls come and go. */
    pthread_rwlockattr_setkind_np(
        &attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
#endif
    pthread_rwlock_init(&gate, &attributes);
    pthread_rwlockattr_destroy(&attributes);
}

void
libcurl_enter(void)
{
    pthread_rwlock_rdlock(&gate);
}

void
libcurl_leave(void)
{
    pthread_rwlock_unlock(&gate);
}

void
libcurl_prepare_fork(void)
{
    pthread_rwlock_wrlock(&gate);
}

void
libcurl_after_fork(bool in_child)
{
    if (in_child)
        libcurl_gate_init();
    else
        pthread_rwlock_unlock(&gate);
}

/* ---- Initialisation ----------------------------------------------------- */

/* libcurl is initialised by the first call, not by the import: it takes a
 * millisecond, and opens what SSLKEYLOGFILE names. */
static pthread_once_t libcurl_once = PTHREAD_ONCE_INIT;
static bool libcurl_is_ready;

/* libcurl opens the file when it is initialised and keeps it open.  Atomic: a
 * thread asks while another one initialises. */
static atomic_bool keylog_at_init;

static bool
keylog_is_named(void)
{
#ifdef ESP_WITHOUT_KEYLOG
    return false;
#else
    /* Read once, as libcurl itself does; the process must not set it meanwhile,
     * which is so for every variable.  NOLINTNEXTLINE(concurrency-mt-unsafe) */
    const char *file = getenv("SSLKEYLOGFILE");

    return file != NULL && file[0] != '\0';
#endif
}

bool
esp_keylog_is_on(void)
{
    return atomic_load(&keylog_at_init) || keylog_is_named();
}

static void
libcurl_init_once(void)
{
    atomic_store(&keylog_at_init, keylog_is_named());
    tls_init();
    libcurl_is_ready = curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK;
}

bool
libcurl_init(void)
{
    bool ready;

    /* libcurl spins on a lock of its own here: no fork may come between. */
    libcurl_enter();
    pthread_once(&libcurl_once, libcurl_init_once);
    ready = libcurl_is_ready;
    libcurl_leave();
    return ready;
}
