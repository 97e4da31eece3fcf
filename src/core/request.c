/* request.c - symbol and key in, an easy handle ready to go out.
 *
 * POST /order/cancel-all, X-API-KEY: <key>, {"symbol": "<symbol>"} [spec].
 * Every option's return code is checked: an option that was not taken could
 * mean no time-out or no verification. */
#include "core.h"

#include <string.h>

#define KEY_NAME "X-API-KEY: "

/* Both are always given: what is not set would come from how libcurl was
 * compiled. */
static CURLcode
set_trust(CURL *easy, const struct esp_trust *trust)
{
    CURLcode code = CURLE_OK;

    SET(CURLOPT_CAINFO, trust->file);
    SET(CURLOPT_CAPATH, trust->directory);
    SET(CURLOPT_PROXY_CAINFO, trust->file);
    SET(CURLOPT_PROXY_CAPATH, trust->directory);
    return code;
}

static CURLcode
set_tls(CURL *easy)
{
    CURLcode code = CURLE_OK;

    SET(CURLOPT_SSL_VERIFYPEER, 1L);
    SET(CURLOPT_SSL_VERIFYHOST, 2L);
    SET(CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    SET(CURLOPT_PROXY_SSL_VERIFYPEER, 1L);
    SET(CURLOPT_PROXY_SSL_VERIFYHOST, 2L);
    SET(CURLOPT_PROXY_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    return code;
}

/* An empty PROXY keeps libcurl from reading the environment. */
static CURLcode
set_proxy(CURL *easy, const struct esp_target *target)
{
    CURLcode code = CURLE_OK;

    if (target->proxy == NULL) {
        SET(CURLOPT_PROXY, "");
        SET(CURLOPT_NOPROXY, "*");
        return code;
    }
    SET(CURLOPT_PROXY, target->proxy);
    SET(CURLOPT_NOPROXY, target->no_proxy ? target->no_proxy : "");
    SET(CURLOPT_PROXYUSERNAME, target->proxy_user);
    SET(CURLOPT_PROXYPASSWORD, target->proxy_password);
    SET(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    return code;
}

static CURLcode
set_protocol(CURL *easy, const struct esp_target *target)
{
    CURLcode code = CURLE_OK;

    SET(CURLOPT_PROTOCOLS_STR, target->uses_tls ? "https" : "http");
    SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    SET(CURLOPT_HTTP09_ALLOWED, 0L);
    SET(CURLOPT_FOLLOWLOCATION, 0L);
#ifndef ESP_PRIVATE_LIBRARIES /* that libcurl cannot read a .netrc at all */
    SET(CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
#endif
    SET(CURLOPT_HEADEROPT, (long)CURLHEADER_SEPARATE);
    SET(CURLOPT_USERAGENT, target->user_agent);
    return code;
}

CURLcode
request_prepare_connection(CURL *easy, const struct esp_target *target,
                           const struct esp_trust *trust)
{
    CURLcode code = set_protocol(easy, target);

    SET(CURLOPT_NOSIGNAL, 1L);
    SET(CURLOPT_QUICK_EXIT, 1L);
    SET(CURLOPT_TCP_NODELAY, 1L);
    SET(CURLOPT_TCP_KEEPALIVE, 1L);
    SET(CURLOPT_TCP_KEEPIDLE, 15L);
    SET(CURLOPT_TCP_KEEPINTVL, 15L);
    SET(CURLOPT_MAXCONNECTS, 1L);
    SET(CURLOPT_MAXAGE_CONN, ESP_IDLE_AGE_MS / 1000L);
    SET(CURLOPT_MAXLIFETIME_CONN, ESP_LIFETIME_MS / 1000L);
    if (code == CURLE_OK)
        code = set_tls(easy);
    if (target->uses_tls && !tls_can_look())
        SET(CURLOPT_FORBID_REUSE, 1L);
    if (code == CURLE_OK && target->uses_tls)
        code = set_trust(easy, trust);
    if (code == CURLE_OK)
        code = set_proxy(easy, target);
    return code;
}

/* Link the header lines, the key's last so that a warm-up can leave it out.
 * libcurl only reads the list [documentation of CURLOPT_HTTPHEADER]. */
static void
link_headers(struct esp_request_text *text, bool with_key)
{
    static char *const lines[] = {"Content-Type: application/json",
                                  "Accept: application/json"};
    size_t i;

    for (i = 0; i < 2; i++) {
        text->headers[i].data = lines[i];
        text->headers[i].next = &text->headers[i + 1];
    }
    text->headers[2].data = text->key_line;
    text->headers[2].next = NULL;
    if (!with_key)
        text->headers[1].next = NULL;
}

/* Copy `text` to `out` and return the byte after it: on the warm path this is
 * a tenth of what snprintf costs. */
static char *
append(char *out, const char *text)
{
    size_t length = strlen(text);

    memcpy(out, text, length + 1);
    return out + length;
}

/* Symbol and key were checked when the call began: both fit. */
static size_t
write_cancel(const struct esp_request *request, struct esp_request_text *text)
{
    char *end = append(text->body, "{\"symbol\":\"");

    end = append(append(end, request->symbol), "\"}");
    append(append(text->key_line, KEY_NAME), request->api_key);
    return (size_t)(end - text->body);
}

/* Given the parts of the URL, libcurl need not take it apart for each call,
 * which is a ninth of all that it does then. */
static CURLcode
read_endpoint(struct esp_request_text *text, const struct esp_target *target)
{
    if (text->url == NULL)
        text->url = curl_url();
    /* It was read before, when the pool was made: now only memory can lack. */
    if (text->url == NULL || curl_url_set(text->url, CURLUPART_URL,
                                          target->endpoint, 0) != CURLUE_OK)
        return CURLE_OUT_OF_MEMORY;
    return CURLE_OK;
}

/* What is the same for all cancels, and for all warm-ups. */
static CURLcode
set_asked(CURL *easy, const struct esp_target *target,
          enum request_asked asked, struct esp_request_text *text)
{
    CURLcode code = CURLE_OK;

    if (text->asked == asked)
        return code;
    text->asked = ASKED_NOTHING;
    link_headers(text, asked == ASKED_CANCEL);
    SET(CURLOPT_HTTPHEADER, text->headers);
    if (asked == ASKED_CANCEL) {
        if (code == CURLE_OK)
            code = read_endpoint(text, target);
        SET(CURLOPT_URL, target->endpoint); /* for what libcurl says of it */
        SET(CURLOPT_CURLU, text->url);
        SET(CURLOPT_POST, 1L);
        SET(CURLOPT_POSTFIELDS, text->body);
    }
    else {
        SET(CURLOPT_CURLU, NULL);
        SET(CURLOPT_URL, target->base.url);
        SET(CURLOPT_NOBODY, 1L);
    }
    if (code == CURLE_OK)
        text->asked = asked;
    return code;
}

CURLcode
request_prepare(CURL *easy, const struct esp_target *target,
                const struct esp_request *request,
                struct esp_request_text *text)
{
    bool is_cancel = request->symbol != NULL;
    size_t length = is_cancel ? write_cancel(request, text) : 0;
    CURLcode code = set_asked(easy, target,
                              is_cancel ? ASKED_CANCEL : ASKED_WARM_UP, text);

    if (is_cancel)
        SET(CURLOPT_POSTFIELDSIZE, (long)length);
    SET(CURLOPT_TIMEOUT_MS, (long)request->timeout_ms);
    SET(CURLOPT_CONNECTTIMEOUT_MS, (long)request->connect_timeout_ms);
    return code;
}

void
request_wipe(struct esp_request_text *text)
{
    text_wipe(text->key_line, sizeof text->key_line);
}

void
request_free(struct esp_request_text *text)
{
    request_wipe(text);
    curl_url_cleanup(text->url);
    text->url = NULL;
}
