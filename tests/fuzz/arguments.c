/* arguments.c - what a user gives: symbol, key, URLs, time-out.
 *
 *     1 byte   which of them
 *     the rest its text (of a time-out: 8 bytes, a double; of a request: a
 *              symbol, a NUL, a key)
 *
 * What is accepted goes through the encoder and is read back. */
#include "fuzz.h"

#include <arpa/inet.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "shape.h"

/* What a refusal says, and never quotes. */
static void
check_refusal(const struct esp_error *error, const char *secret, size_t length)
{
    size_t used = strnlen(error->message, sizeof error->message);
    size_t i;

    HOLDS(error->kind == ESP_BAD_ARGUMENT);
    HOLDS(used > 0 && used <= ESP_MESSAGE_MAX);
    for (i = 0; i < used; i++)
        HOLDS(error->message[i] >= ' ' && error->message[i] <= '~');
    /* Shorter ones may be words of the message itself. */
    if (secret != NULL && length >= 24)
        HOLDS(memmem(error->message, used, secret, length) == NULL);
}

/* Bytes that would end a header or a string, or hide in either. */
static bool
is_harmless(const char *text, size_t length)
{
    size_t i;

    for (i = 0; i < length; i++) {
        if (text[i] <= ' ' || text[i] > '~')
            return false;
    }
    return true;
}

/* ---- The request -------------------------------------------------------- */

static void
check_body(const char *body, const char *symbol)
{
    struct shape shape;

    shape_read(body, strlen(body), &shape);
    HOLDS(is_harmless(body, strlen(body)));
    HOLDS(shape.is_object && shape.members == 1);
    HOLDS(shape.symbol_kind == SHAPE_STRING);
    HOLDS(strcmp(shape.symbol, symbol) == 0);
}

static void
check_headers(const struct curl_slist *line, const char *key)
{
    static const char name[] = "X-API-KEY: ";
    int keys = 0;

    for (; line != NULL; line = line->next) {
        HOLDS(strpbrk(line->data, "\r\n") == NULL);
        if (strncmp(line->data, name, sizeof name - 1) != 0)
            continue;
        keys++;
        HOLDS(strcmp(line->data + sizeof name - 1, key) == 0);
    }
    HOLDS(keys == 1);
}

/* The same lane, call after call: the encoder must leave nothing behind. */
static void
check_request(const char *symbol, const char *key)
{
    static CURL *easy;
    static struct esp_target target;
    static struct esp_request_text text;
    struct esp_settings settings = ESP_SETTINGS_DEFAULT;
    struct esp_request request = {.symbol = symbol,
                                  .api_key = key,
                                  .timeout_ms = 1000,
                                  .connect_timeout_ms = 1000};
    struct esp_error error;
    size_t i;

    if (easy == NULL) {
        HOLDS(libcurl_init() && target_init(&target, &settings, &error));
        easy = curl_easy_init();
    }
    HOLDS(request_prepare(easy, &target, &request, &text) == CURLE_OK);
    check_body(text.body, symbol);
    check_headers(text.headers, key);
    request_wipe(&text);
    for (i = 0; i < sizeof text.key_line; i++)
        HOLDS(text.key_line[i] == '\0');
}

static bool
fuzz_symbol(const char *text, size_t length)
{
    static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijkl"
                                  "mnopqrstuvwxyz0123456789._-";
    struct esp_error error = {.message = ""};
    char *exact = copy_exactly(text, length, false);
    bool ok = esp_symbol_check(exact, length, &error);

    free(exact);
    HOLDS(ok == (length >= 1 && length <= 64 && !memchr(text, 0, length) &&
                 strspn(text, allowed) == length));
    if (!ok)
        check_refusal(&error, NULL, 0);
    return ok;
}

static bool
fuzz_key(const char *text, size_t length)
{
    struct esp_error error = {.message = ""};
    char *exact = copy_exactly(text, length, false);
    bool ok = esp_key_check(exact, length, &error);

    free(exact);
    HOLDS(ok == (length >= 1 && length <= 256 && is_harmless(text, length)));
    if (!ok)
        check_refusal(&error, text, length);
    return ok;
}

static void
fuzz_request(const char *text, size_t length)
{
    size_t symbol = strnlen(text, length);
    const char *key = symbol < length ? text + symbol + 1 : text + length;

    if (fuzz_symbol(text, symbol) &&
        fuzz_key(key, (size_t)(text + length - key)))
        check_request(text, key);
}

/* ---- URLs --------------------------------------------------------------- */

/* A part of `url` as libcurl, which sends the request, reads it. */
static char *
part_of(const char *url, CURLUPart part)
{
    CURLU *handle = curl_url();
    char *text = NULL;

    HOLDS(curl_url_set(handle, CURLUPART_URL, url, CURLU_NON_SUPPORT_SCHEME) ==
          CURLUE_OK);
    if (curl_url_get(handle, part, &text, 0) != CURLUE_OK)
        text = NULL;
    curl_url_cleanup(handle);
    return text;
}

static void
check_part(const char *url, CURLUPart part, const char *expected)
{
    char *text = part_of(url, part);

    if (expected == NULL)
        HOLDS(text == NULL);
    else
        HOLDS(text != NULL && strcmp(text, expected) == 0);
    curl_free(text);
}

static bool
is_loopback(const char *host)
{
    struct in_addr four;
    struct in6_addr six;

    if (inet_pton(AF_INET6, host, &six) == 1)
        return IN6_IS_ADDR_LOOPBACK(&six);
    if (inet_pton(AF_INET, host, &four) == 1)
        return ntohl(four.s_addr) >> 24 == 127;
    return strcmp(host, "localhost") == 0;
}

static void
check_same_url(const struct esp_base_url *one, const struct esp_base_url *two)
{
    HOLDS(strcmp(one->url, two->url) == 0);
    HOLDS(strcmp(one->host, two->host) == 0);
    HOLDS(strcmp(one->peer, two->peer) == 0);
    HOLDS(one->loopback == two->loopback);
    HOLDS(one->needs_dns == two->needs_dns);
}

/* The request goes to the host that was checked, by the path that was given,
 * and by nothing else that a URL can say. */
static void
check_endpoint(const struct esp_base_url *base)
{
    struct esp_settings settings = {.base_url = base->url};
    struct esp_target target;
    struct esp_error error;
    char *host;
    size_t length;

    HOLDS(target_init(&target, &settings, &error));
    check_same_url(&target.base, base);
    HOLDS(target.uses_tls == (strncmp(base->url, "https://", 8) == 0));
    length = strlen(base->url);
    HOLDS(strncmp(target.endpoint, base->url, length) == 0);
    HOLDS(strcmp(target.endpoint + length, "/order/cancel-all") == 0);
    check_part(target.endpoint, CURLUPART_SCHEME,
               target.uses_tls ? "https" : "http");
    check_part(target.endpoint, CURLUPART_USER, NULL);
    check_part(target.endpoint, CURLUPART_PASSWORD, NULL);
    check_part(target.endpoint, CURLUPART_QUERY, NULL);
    check_part(target.endpoint, CURLUPART_FRAGMENT, NULL);
    host = part_of(target.endpoint, CURLUPART_HOST);
    HOLDS(host != NULL);
    length = strlen(host);
    if (host[0] == '[') {
        HOLDS(length == strlen(base->host) + 2 && host[length - 1] == ']');
        HOLDS(strncmp(host + 1, base->host, length - 2) == 0);
    }
    else {
        HOLDS(strcmp(host, base->host) == 0);
    }
    curl_free(host);
    target_free(&target);
}

static void
fuzz_base_url(const char *text)
{
    static struct esp_base_url url;
    static struct esp_base_url again;
    struct esp_error error = {.message = ""};

    if (!esp_base_url_parse(text, &url, &error)) {
        check_refusal(&error, text, strlen(text));
        return;
    }
    HOLDS(is_harmless(url.url, strlen(url.url)));
    HOLDS(strpbrk(url.url, "@?#\\\"<>^`{|}") == NULL);
    HOLDS(url.loopback == is_loopback(url.host));
    HOLDS(strncmp(url.url, "https://", 8) == 0 ||
          (strncmp(url.url, "http://", 7) == 0 && url.loopback));
    HOLDS(esp_base_url_parse(url.url, &again, &error));
    check_same_url(&url, &again);
    check_endpoint(&url);
}

/* Credentials go to libcurl by options of their own, decoded. */
static void
check_proxy(const char *proxy)
{
    struct esp_settings settings = {.base_url = ESP_MAINNET, .proxy = proxy};
    struct esp_target target;
    struct esp_error error;
    const char *byte;

    HOLDS(target_init(&target, &settings, &error));
    HOLDS(target.proxy != NULL);
    for (byte = target.proxy; *byte != '\0'; byte++)
        HOLDS((unsigned char)*byte > ' '); /* %-escapes of a host may be any */
    check_part(target.proxy, CURLUPART_USER, NULL);
    check_part(target.proxy, CURLUPART_PASSWORD, NULL);
    if (target.proxy_user != NULL)
        HOLDS(strpbrk(target.proxy_user, "\r\n") == NULL);
    if (target.proxy_password != NULL)
        HOLDS(strpbrk(target.proxy_password, "\r\n") == NULL);
    target_free(&target);
}

static void
fuzz_proxy(const char *text)
{
    struct esp_error error = {.message = ""};

    if (esp_proxy_check(text, &error)) {
        HOLDS(is_harmless(text, strlen(text)));
        check_proxy(text);
    }
    else {
        check_refusal(&error, text, strlen(text));
    }
}

/* ---- Time-outs ---------------------------------------------------------- */

static void
fuzz_timeout(struct input *input)
{
    uint64_t low = input_32(input);
    uint64_t bits = low | (uint64_t)input_32(input) << 32;
    double seconds;
    int64_t ms;

    memcpy(&seconds, &bits, sizeof seconds);
    ms = esp_timeout_ms(seconds);
    HOLDS((ms > 0) == (isfinite(seconds) && seconds > 0 && seconds <= 86400));
    HOLDS(ms > 0 ? ms <= ESP_TIMEOUT_MAX_MS : ms == -1);
    if (ms > 0) /* rounded up: never shorter, and by less than one more */
        HOLDS((double)ms >= seconds * 1000 &&
              (double)(ms - 1) < seconds * 1000);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input input = {data, size};
    unsigned what = input_below(&input, 6);
    size_t length = input.left;
    char *text = copy_exactly(input.at, length, true);

    switch (what) {
    case 0:
        fuzz_symbol(text, length);
        break;
    case 1:
        fuzz_key(text, length);
        break;
    case 2:
        fuzz_request(text, length);
        break;
    case 3:
        fuzz_base_url(text);
        break;
    case 4:
        fuzz_proxy(text);
        break;
    default:
        fuzz_timeout(&input);
    }
    free(text);
    return 0;
}
