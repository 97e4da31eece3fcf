/* lane.c - one curl_multi, one easy handle and at most one connection.
 *
 * libcurl alone would do three things that a cancel must not suffer, in every
 * version that we measured:
 *
 * - send a POST again by itself when a kept connection dies before the first
 *   byte of the answer: the PREREQ callback lets each transfer start one
 *   request and no more;
 * - take what lies on an idle connection for the answer to the next request:
 *   before reuse we poll the sockets, which we record ourselves because
 *   CURLINFO_ACTIVESOCKET is -1 between transfers of a multi handle, and
 *   again in PREREQ;
 * - accept answers whose framing is contradictory or missing: the header
 *   callback counts.
 *
 * No callback allocates more than the reply, and none enters libcurl. */
#include "core.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef POLLRDHUP
#define POLLRDHUP 0
#endif

/* ---- The record of sockets ---------------------------------------------- */

static curl_socket_t
on_open_socket(void *user, curlsocktype purpose, struct curl_sockaddr *address)
{
    struct esp_lane *lane = user;
    int fd;

    (void)purpose;
    if (lane->socket_count == ESP_SOCKETS_MAX)
        return CURL_SOCKET_BAD;
#ifdef SOCK_CLOEXEC
    fd = socket(address->family, address->socktype | SOCK_CLOEXEC,
                address->protocol);
#else
    fd = socket(address->family, address->socktype, address->protocol);
    if (fd >= 0)
        fcntl(fd, F_SETFD, FD_CLOEXEC);
#endif
    if (fd < 0)
        return CURL_SOCKET_BAD;
    lane->sockets[lane->socket_count++] = fd;
    lane->sockets_opened++;
    return fd;
}

static int
on_close_socket(void *user, curl_socket_t fd)
{
    struct esp_lane *lane = user;
    int i;

    for (i = 0; i < lane->socket_count; i++) {
        if (lane->sockets[i] == fd) {
            lane->sockets[i] = lane->sockets[--lane->socket_count];
            break;
        }
    }
    return close(fd);
}

/* Something lies on the idle connection: its end, or bytes that nobody asked
 * for.  Either way it must not carry another request. */
static bool
lane_is_readable(const struct esp_lane *lane)
{
    struct pollfd polled[ESP_SOCKETS_MAX];
    int i;

    for (i = 0; i < lane->socket_count; i++)
        polled[i] = (struct pollfd){.fd = lane->sockets[i],
                                    .events = POLLIN | POLLRDHUP};
    return lane->socket_count > 0 &&
           poll(polled, (nfds_t)lane->socket_count, 0) != 0;
}

/* ---- What libcurl tells us during a transfer ---------------------------- */

/* Runs when the connection stands and before each time a request is sent. */
static int
on_before_request(void *user, char *remote, char *local, int remote_port,
                  int local_port)
{
    struct esp_lane *lane = user;

    (void)local;
    (void)remote_port;
    (void)local_port;
    if (++lane->prereq_calls > 1) {
        lane->response.resend_refused = true;
        return CURL_PREREQFUNC_ABORT;
    }
    if (lane->sockets_opened == 0 && lane_is_readable(lane)) {
        lane->found_stale = true;
        return CURL_PREREQFUNC_ABORT;
    }
    lane->response.left = true;
    snprintf(lane->timing.remote, sizeof lane->timing.remote, "%s", remote);
    return CURL_PREREQFUNC_OK;
}

/* The value of header `name` (with its colon) in a line, or NULL. */
static const char *
header_value(const char *line, size_t length, const char *name)
{
    size_t name_length = strlen(name);

    if (length < name_length || strncasecmp(line, name, name_length) != 0)
        return NULL;
    return line + name_length;
}

/* Copy a header's value without the white space around it. */
static void
keep_value(char *out, size_t size, const char *value, const char *end)
{
    while (value < end && (*value == ' ' || *value == '\t'))
        value++;
    while (end > value && (unsigned char)end[-1] <= ' ')
        end--;
    snprintf(out, size, "%.*s", (int)(end - value), value);
}

static void
read_header(struct esp_response *response, const char *line, size_t length)
{
    const char *value;

    if (length >= 5 && memcmp(line, "HTTP/", 5) == 0) {
        response->head_complete = false;
        response->framing_headers = 0;
        response->retry_after[0] = '\0';
    }
    else if (line[0] == '\r' || line[0] == '\n') {
        response->head_complete = true;
    }
    else if (header_value(line, length, "Content-Length:") != NULL ||
             header_value(line, length, "Transfer-Encoding:") != NULL) {
        response->framing_headers++;
    }
    else if ((value = header_value(line, length, "Retry-After:")) != NULL) {
        keep_value(response->retry_after, sizeof response->retry_after, value,
                   line + length);
    }
}

static size_t
on_header(char *line, size_t size, size_t count, void *user)
{
    struct esp_lane *lane = user;
    size_t length = size * count;

    lane->head_length += length;
    if (lane->head_length > ESP_HEAD_MAX) {
        lane->response.head_too_large = true;
        return 0;
    }
    if (length > 0)
        read_header(&lane->response, line, length);
    return length;
}

static size_t
on_body(char *bytes, size_t size, size_t count, void *user)
{
    struct esp_response *response = &((struct esp_lane *)user)->response;
    size_t length = size * count;

    switch (buffer_append(&response->body, bytes, length)) {
    case BUFFER_OK:
        return length;
    case BUFFER_TOO_LARGE:
        response->body_too_large = true;
        break;
    case BUFFER_NO_MEMORY:
        response->no_memory = true;
        break;
    }
    return 0;
}

static int
on_socket_interest(CURL *easy, curl_socket_t fd, int what, void *user,
                   void *unused)
{
    struct esp_lane *lane = user;
    size_t i = 0;

    (void)easy;
    (void)unused;
    while (i < lane->watch_count && lane->watches[i].fd != fd)
        i++;
    if (what == CURL_POLL_REMOVE) {
        if (i < lane->watch_count)
            lane->watches[i] = lane->watches[--lane->watch_count];
        return 0;
    }
    if (i == ESP_WATCHES_MAX)
        return -1; /* libcurl ends the transfer */
    lane->watches[i] =
        (struct esp_watch){.fd = fd,
                           .read = (what & CURL_POLL_IN) != 0,
                           .write = (what & CURL_POLL_OUT) != 0};
    if (i == lane->watch_count)
        lane->watch_count++;
    return 0;
}

static int
on_timer_wish(CURLM *multi, long timeout_ms, void *user)
{
    struct esp_lane *lane = user;

    (void)multi;
    lane->timer_at = timeout_ms < 0 ? -1 : clock_now_ms() + timeout_ms;
    return 0;
}

/* ---- Opening and closing ------------------------------------------------ */

static bool
prepare_multi(struct esp_lane *lane)
{
    CURLM *multi = lane->multi;

#if LIBCURL_VERSION_NUM >= 0x081400
    /* Older libraries at run time refuse it: they need it less. */
    curl_multi_setopt(multi, CURLMOPT_QUICK_EXIT, 1L);
#endif
    return curl_multi_setopt(multi, CURLMOPT_SOCKETFUNCTION,
                             on_socket_interest) == CURLM_OK &&
           curl_multi_setopt(multi, CURLMOPT_SOCKETDATA, lane) == CURLM_OK &&
           curl_multi_setopt(multi, CURLMOPT_TIMERFUNCTION, on_timer_wish) ==
               CURLM_OK &&
           curl_multi_setopt(multi, CURLMOPT_TIMERDATA, lane) == CURLM_OK &&
           curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, 1L) == CURLM_OK;
}

static CURLcode
prepare_callbacks(struct esp_lane *lane)
{
    CURL *easy = lane->easy;
    CURLcode code = CURLE_OK;

#define SET(option, value)                                                    \
    do {                                                                      \
        if (code == CURLE_OK)                                                 \
            code = curl_easy_setopt(easy, option, value);                     \
    } while (0)
    SET(CURLOPT_OPENSOCKETFUNCTION, on_open_socket);
    SET(CURLOPT_OPENSOCKETDATA, lane);
    SET(CURLOPT_CLOSESOCKETFUNCTION, on_close_socket);
    SET(CURLOPT_CLOSESOCKETDATA, lane);
    SET(CURLOPT_PREREQFUNCTION, on_before_request);
    SET(CURLOPT_PREREQDATA, lane);
    SET(CURLOPT_HEADERFUNCTION, on_header);
    SET(CURLOPT_HEADERDATA, lane);
    SET(CURLOPT_WRITEFUNCTION, on_body);
    SET(CURLOPT_WRITEDATA, lane);
    SET(CURLOPT_ERRORBUFFER, lane->error_text);
#undef SET
    return code;
}

/* Make the handles for a lane that has none.  False: response says why. */
static bool
lane_open(struct esp_lane *lane, const struct esp_target *target)
{
    struct esp_response *response = &lane->response;
    struct esp_trust trust;
    CURLcode code;

    if (!trust_resolve(target->ca_path, &trust, response->detail,
                       sizeof response->detail, &response->no_descriptor)) {
        response->trust_failed = true;
        response->curl_code = CURLE_SSL_CACERT_BADFILE;
        return false;
    }
    lane->multi = curl_multi_init();
    lane->easy = curl_easy_init();
    if (lane->multi == NULL || lane->easy == NULL || !prepare_multi(lane)) {
        response->no_memory = true;
        return false;
    }
    code = prepare_callbacks(lane);
    if (code == CURLE_OK)
        code = request_prepare_connection(lane->easy, target, &trust);
    response->curl_code = code;
    response->no_memory = code == CURLE_OUT_OF_MEMORY;
    lane->connected_at = -1;
    return code == CURLE_OK;
}

struct esp_lane *
lane_new(void)
{
    struct esp_lane *lane = calloc(1, sizeof *lane);

    if (lane != NULL) {
        buffer_init(&lane->response.body, ESP_BODY_MAX);
        lane->timer_at = -1;
    }
    return lane;
}

void
lane_close(struct esp_lane *lane)
{
    if (lane->running)
        curl_multi_remove_handle(lane->multi, lane->easy);
    lane->running = false;
    curl_easy_cleanup(lane->easy);
    curl_multi_cleanup(lane->multi);
    lane->easy = NULL;
    lane->multi = NULL;
    lane->watch_count = 0;
    lane->timer_at = -1;
    lane->connected_at = -1;
}

void
lane_abandon(struct esp_lane *lane)
{
    int i;

    for (i = 0; i < lane->socket_count; i++)
        close(lane->sockets[i]);
    request_wipe(&lane->text);
    lane->socket_count = 0;
    lane->watch_count = 0;
    lane->easy = NULL;
    lane->multi = NULL;
    lane->running = false;
    lane->abandoned = true;
}

void
lane_free(struct esp_lane *lane)
{
    if (lane == NULL)
        return;
    lane_close(lane);
    request_wipe(&lane->text);
    buffer_free(&lane->response.body);
    free(lane);
}

/* ---- One transfer ------------------------------------------------------- */

/* The kept connection is too old by a clock that also ran while the machine
 * slept, or has something to read. */
static bool
lane_is_stale(const struct esp_lane *lane)
{
    int64_t now = clock_boot_ms();

    return now - lane->used_at > ESP_IDLE_AGE_MS ||
           now - lane->connected_at > ESP_LIFETIME_MS ||
           lane_is_readable(lane);
}

static void
lane_reset(struct esp_lane *lane)
{
    response_reset(&lane->response);
    lane->sockets_opened = 0;
    lane->prereq_calls = 0;
    lane->found_stale = false;
    lane->head_length = 0;
    lane->error_text[0] = '\0';
    lane->timing.remote[0] = '\0';
}

bool
lane_start(struct esp_lane *lane, const struct esp_target *target,
           const struct esp_request *request)
{
    struct esp_response *response = &lane->response;

    lane_reset(lane);
    if (lane->multi != NULL && lane_is_stale(lane))
        lane_close(lane);
    if (lane->multi != NULL && lane->socket_count == 0)
        lane_close(lane); /* the answer said "Connection: close" */
    lane->needs_dns = lane->multi == NULL &&
                      (target->base.needs_dns || target->proxy != NULL);
    if (lane->needs_dns && lookups_exhausted()) {
        response->curl_code = CURLE_COULDNT_RESOLVE_HOST;
        snprintf(response->detail, sizeof response->detail,
                 "%d name look-ups hang already: DNS does not answer",
                 ESP_LOOKUPS_MAX);
        return false;
    }
    if (lane->multi == NULL && !lane_open(lane, target)) {
        lane_close(lane);
        return false;
    }
    response->curl_code =
        request_prepare(lane->easy, target, request, &lane->text);
    if (response->curl_code == CURLE_OK &&
        curl_multi_add_handle(lane->multi, lane->easy) != CURLM_OK)
        response->curl_code = CURLE_OUT_OF_MEMORY;
    lane->running = response->curl_code == CURLE_OK;
    return lane->running;
}

static double
info_seconds(CURL *easy, CURLINFO info)
{
    curl_off_t microseconds = 0;

    if (curl_easy_getinfo(easy, info, &microseconds) != CURLE_OK ||
        microseconds <= 0)
        return -1;
    return (double)microseconds / 1e6;
}

static void
read_timing(struct esp_lane *lane)
{
    struct esp_timing *timing = &lane->timing;
    CURL *easy = lane->easy;

    timing->reused = lane->sockets_opened == 0 && lane->response.left;
    timing->dns_s = -1;
    timing->connect_s = -1;
    timing->tls_s = -1;
    if (!timing->reused) {
        timing->dns_s = info_seconds(easy, CURLINFO_NAMELOOKUP_TIME_T);
        timing->connect_s = info_seconds(easy, CURLINFO_CONNECT_TIME_T);
        timing->tls_s = info_seconds(easy, CURLINFO_APPCONNECT_TIME_T);
    }
    timing->first_byte_s = info_seconds(easy, CURLINFO_STARTTRANSFER_TIME_T);
    timing->total_s = info_seconds(easy, CURLINFO_TOTAL_TIME_T);
}

/* Whether fewer than three descriptors are free: a handshake needs one for
 * the socket and one for the trust store, and reports the want of one as a
 * certificate that cannot be verified. */
static bool
descriptors_are_short(void)
{
    int fds[3];
    int count = 0;
    bool is_short;

    while (count < 3 && (fds[count] = open("/", O_RDONLY | O_CLOEXEC)) >= 0)
        count++;
    is_short = count < 3 && (errno == EMFILE || errno == ENFILE);
    while (count > 0)
        close(fds[--count]);
    return is_short;
}

static void
describe_end(struct esp_lane *lane, CURLcode code)
{
    struct esp_response *response = &lane->response;

    if (code == CURLE_OK)
        return;
    if (response->detail[0] == '\0')
        snprintf(response->detail, sizeof response->detail, "%s",
                 lane->error_text);
    if (code == CURLE_SSL_CACERT_BADFILE ||
        code == CURLE_PEER_FAILED_VERIFICATION)
        response->no_descriptor = descriptors_are_short();
    if (lane->needs_dns && lane->sockets_opened == 0 &&
        lane->timing.dns_s < 0 &&
        (code == CURLE_OPERATION_TIMEDOUT ||
         code == CURLE_ABORTED_BY_CALLBACK))
        lookups_note_abandoned();
}

static void
lane_finish(struct esp_lane *lane, CURLcode code)
{
    long status = 0;

    lane->response.curl_code = code;
    curl_easy_getinfo(lane->easy, CURLINFO_RESPONSE_CODE, &status);
    lane->response.http_status = (int)status;
    read_timing(lane);
    describe_end(lane, code);
    curl_multi_remove_handle(lane->multi, lane->easy);
    lane->running = false;
    lane->used_at = clock_boot_ms();
    if (lane->sockets_opened > 0)
        lane->connected_at = lane->used_at;
}

/* Whether libcurl has finished; then the lane has, too. */
static bool
lane_collect(struct esp_lane *lane, CURLMcode result, int running)
{
    CURLMsg *message;
    int left;

    if (result != CURLM_OK) {
        lane_abort(lane, CURLE_OUT_OF_MEMORY, curl_multi_strerror(result));
        return true;
    }
    if (running > 0)
        return false;
    message = curl_multi_info_read(lane->multi, &left);
    if (message == NULL || message->msg != CURLMSG_DONE)
        return false;
    lane_finish(lane, message->data.result);
    return true;
}

bool
lane_on_socket(struct esp_lane *lane, int fd, bool readable, bool writable)
{
    int running = 1;
    int events =
        (readable ? CURL_CSELECT_IN : 0) | (writable ? CURL_CSELECT_OUT : 0);
    CURLMcode result =
        curl_multi_socket_action(lane->multi, fd, events, &running);

    return lane_collect(lane, result, running);
}

bool
lane_on_timer(struct esp_lane *lane)
{
    int running = 1;
    CURLMcode result = curl_multi_socket_action(
        lane->multi, CURL_SOCKET_TIMEOUT, 0, &running);

    return lane_collect(lane, result, running);
}

void
lane_abort(struct esp_lane *lane, CURLcode code, const char *why)
{
    snprintf(lane->response.detail, sizeof lane->response.detail, "%s", why);
    if (lane->running)
        lane_finish(lane, code);
    lane->response.curl_code = code;
    lane_close(lane);
}
