/* tls.c - a look into the TLS library that libcurl uses: what only it can tell.
 *
 * Bytes too many.  libcurl reads no more than the Content-Length.  When the end
 * of an answer shares a TLS record with something more, the rest stays
 * decrypted inside the TLS library: the socket is silent, and the next request
 * would be answered by what lies there.
 *
 * A chain that was never verified.  From 8.17 on libcurl lets every handshake
 * end and asks OpenSSL for its verdict afterwards; and the verdict that OpenSSL
 * begins with is "good".  Where memory is short it stops before it has looked
 * [3.5.7: ssl_verify_internal], and any certificate passes.
 *
 * The functions must be those of the library that made the session, whatever
 * other OpenSSL the process has loaded.  Where libcurl and OpenSSL are a part
 * of this binary they are linked, else they are looked up among libcurl's own
 * dependencies. */
#include "core.h"

#define GOOD 0 /* X509_V_OK */

/* As <openssl/ssl.h> has them, but for the types of pointers. */
typedef int int_of_session(const void *session);
typedef long long_of_session(const void *session);
typedef void *chain_of_session(const void *session);

static int_of_session *has_pending;
static int_of_session *session_reused;
static long_of_session *get_verify_result;
static chain_of_session *get0_verified_chain;

#ifdef ESP_PRIVATE_LIBRARIES

int_of_session SSL_has_pending;
int_of_session SSL_session_reused;
long_of_session SSL_get_verify_result;
chain_of_session SSL_get0_verified_chain;

void
tls_init(void)
{
    has_pending = SSL_has_pending;
    session_reused = SSL_session_reused;
    get_verify_result = SSL_get_verify_result;
    get0_verified_chain = SSL_get0_verified_chain;
}

#else

#include <dlfcn.h>
#include <string.h>

/* POSIX lets a void pointer hold a function; ISO C has no conversion. */
static void
look_up(void *handle, const char *name, void *function)
{
    void *symbol = dlsym(handle, name);

    memcpy(function, &symbol, sizeof symbol);
}

void
tls_init(void)
{
    Dl_info libcurl;
    void *handle;

    /* A function has no other way to a void pointer. */
    /* NOLINTNEXTLINE(performance-no-int-to-ptr) */
    if (dladdr((const void *)(uintptr_t)curl_easy_init, &libcurl) == 0)
        return;
    handle = dlopen(libcurl.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
    if (handle == NULL)
        return;
    look_up(handle, "SSL_has_pending", &has_pending);
    look_up(handle, "SSL_session_reused", &session_reused);
    look_up(handle, "SSL_get_verify_result", &get_verify_result);
    look_up(handle, "SSL_get0_verified_chain", &get0_verified_chain);
    dlclose(handle);
}

#endif

bool
tls_can_look(void)
{
    return has_pending != NULL;
}

/* OpenSSL's session of the connection; NULL: it has none. */
static const void *
session_of(CURL *easy)
{
    struct curl_tlssessioninfo *session = NULL;

    if (curl_easy_getinfo(easy, CURLINFO_TLS_SSL_PTR, &session) != CURLE_OK ||
        session == NULL || session->backend != CURLSSLBACKEND_OPENSSL)
        return NULL;
    return session->internals;
}

bool
tls_holds_plaintext(CURL *easy)
{
    const void *session = tls_can_look() ? session_of(easy) : NULL;

    return session != NULL && has_pending(session) > 0;
}

static bool
can_ask_for_verdict(void)
{
    return session_reused != NULL && get_verify_result != NULL &&
           get0_verified_chain != NULL;
}

bool
tls_is_unverified(CURL *easy)
{
    const void *session = can_ask_for_verdict() ? session_of(easy) : NULL;

    return session != NULL && (get_verify_result(session) != GOOD ||
                               (session_reused(session) == 0 &&
                                get0_verified_chain(session) == NULL));
}
