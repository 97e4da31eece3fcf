/* tls.c - a look into the TLS library that libcurl uses.
 *
 * libcurl reads no more than the Content-Length.  When the end of an answer
 * shares a TLS record with something more, the rest stays decrypted inside the
 * TLS library: the socket is silent, and the next request would be answered by
 * what lies there.  Only the TLS library can tell.
 *
 * OpenSSL's SSL_has_pending must be that of the library that made the session,
 * whatever other OpenSSL the process has loaded.  Where libcurl and OpenSSL are
 * a part of this binary it is linked, else it is looked up among libcurl's own
 * dependencies. */
#include "core.h"

typedef int has_pending_function(const void *session);

static has_pending_function *has_pending;

#ifdef ESP_PRIVATE_LIBRARIES

/* As <openssl/ssl.h> has it, but for the pointer's type. */
has_pending_function SSL_has_pending;

void
tls_init(void)
{
    has_pending = SSL_has_pending;
}

#else

#include <dlfcn.h>

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
    /* POSIX lets a void pointer hold a function; ISO C wants the union. */
    union {
        void *object;
        has_pending_function *function;
    } symbol = {.object = dlsym(handle, "SSL_has_pending")};
    has_pending = symbol.function;
    dlclose(handle);
}

#endif

bool
tls_can_look(void)
{
    return has_pending != NULL;
}

bool
tls_holds_plaintext(CURL *easy)
{
    struct curl_tlssessioninfo *session = NULL;

    if (has_pending == NULL ||
        curl_easy_getinfo(easy, CURLINFO_TLS_SSL_PTR, &session) != CURLE_OK ||
        session == NULL || session->backend != CURLSSLBACKEND_OPENSSL ||
        session->internals == NULL)
        return false;
    return has_pending(session->internals) > 0;
}
