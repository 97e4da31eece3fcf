/* check.c - what a user gave: symbol, key, base URL, proxy, time-out. */
#include "core.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static bool
is_symbol_byte(char byte)
{
    return (byte >= 'A' && byte <= 'Z') || (byte >= 'a' && byte <= 'z') ||
           (byte >= '0' && byte <= '9') || byte == '.' || byte == '_' ||
           byte == '-';
}

/* `ADA/USDM` is how most exchanges write it: say how this one does. */
static bool
refuse_slash(const char *symbol, size_t length, struct esp_error *error)
{
    char advice[ESP_SYMBOL_MAX + 1];
    size_t used = 0;
    size_t i;

    for (i = 0; i < length; i++) {
        if (symbol[i] != '/')
            advice[used++] = symbol[i];
    }
    advice[used] = '\0';
    return error_set(error,
                     "symbol %.*s: this exchange writes pairs without a "
                     "slash: %s",
                     (int)length, symbol, advice);
}

bool
esp_symbol_check(const char *symbol, size_t length, struct esp_error *error)
{
    bool slash = false;
    size_t i;

    if (length == 0)
        return error_set(error, "symbol is empty");
    if (length > ESP_SYMBOL_MAX)
        return error_set(error, "symbol is longer than %d characters",
                         ESP_SYMBOL_MAX);
    for (i = 0; i < length; i++) {
        if (symbol[i] == '/')
            slash = true;
        else if (!is_symbol_byte(symbol[i]))
            return error_set(error,
                             "symbol may hold only A-Z a-z 0-9 . _ - "
                             "(position %zu does not)",
                             i + 1);
    }
    return !slash || refuse_slash(symbol, length, error);
}

bool
esp_key_check(const char *key, size_t length, struct esp_error *error)
{
    size_t i;

    if (length == 0)
        return error_set(error, "the API key is empty");
    if (length > ESP_KEY_MAX)
        return error_set(error, "the API key is longer than %d characters",
                         ESP_KEY_MAX);
    for (i = 0; i < length; i++) {
        if (key[i] < '\x21' || key[i] > '\x7e')
            return error_set(error,
                             "the API key holds a character that no key has "
                             "(white space, a line end or non-ASCII)");
    }
    return true;
}

int64_t
esp_timeout_ms(double seconds)
{
    if (!isfinite(seconds) || seconds <= 0 ||
        seconds > ESP_TIMEOUT_MAX_MS / 1000.0)
        return -1;
    return (int64_t)ceil(seconds * 1000);
}

/* ---- URLs --------------------------------------------------------------- */

/* Only what a URL may hold unescaped, so that nothing hides in it. */
static bool
is_plain_url(const char *text)
{
    size_t length = strnlen(text, ESP_URL_MAX + 1);

    return length > 0 && length <= ESP_URL_MAX &&
           strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                        "0123456789-._~:/?#[]@!$&'()*+,;=%") == length;
}

/* A URL that libcurl takes apart.  What it has no memory for must not pass for
 * a part that is absent or wrong. */
struct url_reader {
    CURLU *handle;
    bool no_memory;
};

/* BAD_LOGIN is what libcurl makes of a user and password that it has no memory
 * for, and of nothing else (source: lib/urlapi.c, parse_hostname_login). */
static bool
url_note(struct url_reader *reader, CURLUcode code)
{
    reader->no_memory = reader->no_memory || code == CURLUE_OUT_OF_MEMORY ||
                        code == CURLUE_BAD_LOGIN;
    return code == CURLUE_OK;
}

static bool
url_open(struct url_reader *reader, const char *text, unsigned int flags)
{
    *reader = (struct url_reader){.handle = curl_url()};
    reader->no_memory = reader->handle == NULL;
    return reader->handle != NULL &&
           url_note(reader,
                    curl_url_set(reader->handle, CURLUPART_URL, text, flags));
}

/* Free it; `ok` unless memory was missing, which then is the error. */
static bool
url_close(struct url_reader *reader, bool ok, struct esp_error *error)
{
    curl_url_cleanup(reader->handle);
    return reader->no_memory ? error_set_no_memory(error) : ok;
}

/* A part as libcurl sees it; "" where it is absent. */
static bool
url_part(struct url_reader *reader, CURLUPart part, char *out, size_t size)
{
    char *text = NULL;
    bool fits = true;

    out[0] = '\0';
    if (url_note(reader, curl_url_get(reader->handle, part, &text,
                                      CURLU_NO_DEFAULT_PORT)))
        fits = (size_t)snprintf(out, size, "%s", text) < size;
    curl_free(text);
    return fits && !reader->no_memory;
}

static bool
url_has(struct url_reader *reader, CURLUPart part)
{
    char *text = NULL;
    bool has = url_note(reader, curl_url_get(reader->handle, part, &text, 0));

    curl_free(text);
    return has;
}

/* To a resolver `127.0.0.999` and `127.-1.0.1` are names: an address is what
 * inet_pton reads, and nothing else. */
static bool
is_loopback_address(const char *host)
{
    unsigned char octets[4];

    return strcmp(host, "::1") == 0 ||
           (inet_pton(AF_INET, host, octets) == 1 && octets[0] == 127);
}

/* An IPv4 or IPv6 address, not a name that must be looked up. */
static bool
is_address(const char *host)
{
    unsigned char octets[4];

    return strchr(host, ':') != NULL || inet_pton(AF_INET, host, octets) == 1;
}

/* The authority as typed must be the host that libcurl understood: a numeric
 * host in disguise (`127.1`, `0x7f000001`, `%31`) is refused. */
static bool
host_is_as_typed(const char *text, const char *scheme, const char *host)
{
    size_t scheme_length = strlen(scheme);
    const char *authority = text + scheme_length + 3;
    size_t length = strlen(host);

    if (strncasecmp(text, scheme, scheme_length) != 0 ||
        strncmp(text + scheme_length, "://", 3) != 0)
        return false;
    return strncasecmp(authority, host, length) == 0 &&
           strchr(":/", authority[length]) != NULL;
}

/* The port as typed: 1 to 65535, or "" for the default. */
static bool
port_is_valid(const char *port)
{
    long value = strtol(port, NULL, 10);

    return port[0] == '\0' || (value >= 1 && value <= 65535);
}

/* Fill `url` from its checked parts. */
static bool
base_url_join(struct esp_base_url *url, const char *scheme, const char *host,
              const char *port, const char *path)
{
    const char *colon = port[0] != '\0' ? ":" : "";
    size_t length;

    snprintf(url->peer, sizeof url->peer, "%s%s%s", host, colon, port);
    length = (size_t)snprintf(url->url, sizeof url->url, "%s://%s%s", scheme,
                              url->peer, path);
    if (length >= sizeof url->url)
        return false;
    while (length > 0 && url->url[length - 1] == '/')
        url->url[--length] = '\0';
    /* libcurl keeps the brackets of an IPv6 host */
    length = strlen(host);
    if (host[0] == '[')
        snprintf(url->host, sizeof url->host, "%.*s", (int)length - 2,
                 host + 1);
    else
        snprintf(url->host, sizeof url->host, "%s", host);
    url->loopback = strcasecmp(url->host, "localhost") == 0 ||
                    is_loopback_address(url->host);
    url->needs_dns = !url->loopback && !is_address(url->host);
    return true;
}

static bool
base_url_check(struct url_reader *reader, const char *text,
               struct esp_base_url *url, struct esp_error *error)
{
    char scheme[16] = "";
    char host[ESP_URL_MAX + 1];
    char port[8];
    char path[ESP_URL_MAX + 1];

    if (!url_part(reader, CURLUPART_SCHEME, scheme, sizeof scheme) ||
        !url_part(reader, CURLUPART_HOST, host, sizeof host) ||
        !url_part(reader, CURLUPART_PORT, port, sizeof port) ||
        !url_part(reader, CURLUPART_PATH, path, sizeof path))
        return error_set(error, "base_url is not a URL");
    if (url_has(reader, CURLUPART_USER) ||
        url_has(reader, CURLUPART_PASSWORD) || strchr(text, '@') != NULL)
        return error_set(error, "base_url may not hold a user or password");
    if (strpbrk(text, "?#") != NULL)
        return error_set(error, "base_url may not hold a query or fragment");
    if (url_has(reader, CURLUPART_ZONEID))
        return error_set(error, "base_url may not hold an IPv6 zone");
    if (strcmp(scheme, "https") != 0 && strcmp(scheme, "http") != 0)
        return error_set(error, "base_url must begin with https://");
    if (!host_is_as_typed(text, scheme, host) || !port_is_valid(port))
        return error_set(error, "base_url has no plain host or port");
    text_lower(host);
    if (!base_url_join(url, scheme, host, port, path))
        return error_set(error, "base_url is too long");
    if (scheme[4] == '\0' && !url->loopback)
        return error_set(error, "base_url may be http only to loopback: the "
                                "key would travel in the clear");
    return true;
}

bool
esp_base_url_parse(const char *text, struct esp_base_url *url,
                   struct esp_error *error)
{
    struct url_reader reader;
    bool ok;

    if (!is_plain_url(text))
        return error_set(error,
                         "base_url is empty, longer than %d bytes or "
                         "holds a character no URL may hold",
                         ESP_URL_MAX);
    if (!url_open(&reader, text, CURLU_NON_SUPPORT_SCHEME))
        ok = error_set(error, "base_url is not a URL like https://host");
    else
        ok = base_url_check(&reader, text, url, error);
    return url_close(&reader, ok, error);
}

/* An escape of a byte under 0x20, as libcurl refuses to decode it. */
static bool
hides_control(const char *text)
{
    const char *at = text;

    while ((at = strchr(at, '%')) != NULL) {
        at++;
        if ((at[0] == '0' || at[0] == '1') && isxdigit((unsigned char)at[1]))
            return true;
    }
    return false;
}

/* A user or password whose %-escapes hide a control character would get
 * lost on the way to libcurl, which says the same of one that it has no memory
 * to decode. */
static bool
url_decodes(struct url_reader *reader, CURLUPart part)
{
    char *text = NULL;
    bool decodes = true;

    if (url_note(reader, curl_url_get(reader->handle, part, &text, 0))) {
        decodes = !hides_control(text);
        text_wipe(text, strlen(text));
    }
    curl_free(text);
    return decodes;
}

/* libcurl decodes the escapes of a host each time that it reads one: what is
 * still an escape then, or no character of a URL, would be another host later.
 */
static bool
host_is_plain(struct url_reader *reader)
{
    char host[ESP_URL_MAX + 1];

    return url_part(reader, CURLUPART_HOST, host, sizeof host) &&
           is_plain_url(host) && strchr(host, '%') == NULL;
}

static bool
proxy_is_usable(struct url_reader *reader, const char *text)
{
    static const char *const schemes[] = {"http",    "https",  "socks4",
                                          "socks4a", "socks5", "socks5h"};
    unsigned int guess = strstr(text, "://") ? 0 : CURLU_GUESS_SCHEME;
    char scheme[16];
    bool known = false;
    size_t i;

    if (!url_open(reader, text,
                  CURLU_DEFAULT_SCHEME | CURLU_NON_SUPPORT_SCHEME | guess) ||
        !url_part(reader, CURLUPART_SCHEME, scheme, sizeof scheme) ||
        !host_is_plain(reader) || !url_decodes(reader, CURLUPART_USER) ||
        !url_decodes(reader, CURLUPART_PASSWORD))
        return false;
    for (i = 0; i < sizeof schemes / sizeof *schemes; i++)
        known = known || strcmp(scheme, schemes[i]) == 0;
    return known;
}

bool
esp_proxy_check(const char *text, struct esp_error *error)
{
    struct url_reader reader = {0};
    bool ok = is_plain_url(text) && proxy_is_usable(&reader, text);

    if (!ok)
        error_set(error, "the proxy is not a URL like http://host:3128 "
                         "(http, https, socks4, socks4a, socks5, socks5h)");
    return url_close(&reader, ok, error);
}
