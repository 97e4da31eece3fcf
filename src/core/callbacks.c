/* callbacks.c - what libcurl tells a lane, and the record that it keeps.
 *
 * No callback allocates more than the reply.  None enters libcurl but for the
 * one question that curl_easy_getinfo may be asked in a callback. */
#include "core.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef POLLRDHUP
#define POLLRDHUP 0
#endif

/* ---- The record of sockets ---------------------------------------------- */

/* libcurl 7.88 closes a socket that never got its connection without asking
 * on_close_socket (cf-socket.c: "we did never publish it"): after a connect
 * that came to nothing, or lost to another address.  Its number may be
 * anybody's by then: it is struck off the record, and never closed here. */
static void
strike_off(struct esp_lane *lane, int i)
{
    int fd = lane->sockets[i];

    lane->sockets[i] = lane->sockets[--lane->socket_count];
    if (lane->watcher != NULL)
        watcher_forget(lane->watcher, lane, fd);
}

/* Where the record has it; socket_count: nowhere. */
static int
place_of(const struct esp_lane *lane, int fd)
{
    int i = 0;

    while (i < lane->socket_count && lane->sockets[i] != fd)
        i++;
    return i;
}

void
callbacks_forget_sockets(struct esp_lane *lane)
{
    while (lane->socket_count > 0)
        strike_off(lane, 0);
}

static int
local_port_of(int fd)
{
    struct sockaddr_storage address = {0};
    socklen_t size = sizeof address;

    if (getsockname(fd, (struct sockaddr *)&address, &size) != 0)
        return -1;
    if (address.ss_family == AF_INET6)
        return ntohs(((struct sockaddr_in6 *)&address)->sin6_port);
    return ntohs(((struct sockaddr_in *)&address)->sin_port);
}

/* The connection stands: what else was tried is closed, or will be. */
static void
strike_off_losers(struct esp_lane *lane, int local_port)
{
    int i = lane->socket_count > 1 ? lane->socket_count : 0;

    while (i-- > 0) {
        if (local_port_of(lane->sockets[i]) != local_port)
            strike_off(lane, i);
    }
}

static curl_socket_t
on_open_socket(void *user, curlsocktype purpose, struct curl_sockaddr *address)
{
    struct esp_lane *lane = user;
    int fd;
    int known;

    (void)purpose;
    if (lane->prereq_calls > 0) {
        /* The request is out and libcurl wants a connection to send it again:
         * do not even wait for the handshake. */
        lane->response.resend_refused = true;
        return CURL_SOCKET_BAD;
    }
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
    if (lane->watcher != NULL && !watcher_reserve(lane->watcher, fd)) {
        close(fd);
        return CURL_SOCKET_BAD;
    }
    known = place_of(lane, fd);
    if (known < lane->socket_count) /* the number comes again */
        strike_off(lane, known);
    lane->sockets[lane->socket_count++] = fd;
    lane->sockets_opened++;
    return fd;
}

static int
on_close_socket(void *user, curl_socket_t fd)
{
    struct esp_lane *lane = user;
    int i = place_of(lane, fd);

    if (i < lane->socket_count)
        lane->sockets[i] = lane->sockets[--lane->socket_count];
    if (lane->watcher == NULL)
        return close(fd);
    watcher_close(lane->watcher, lane, fd);
    return 0;
}

bool
lane_has_socket(const struct esp_lane *lane, int fd)
{
    return place_of(lane, fd) < lane->socket_count;
}

void
lane_watch(struct esp_lane *lane, struct esp_watcher *watcher)
{
    int i;

    lane->watcher = watcher;
    for (i = 0; watcher != NULL && i < lane->socket_count; i++)
        watcher_want(watcher, lane, lane->sockets[i], true, false);
}

bool
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
    strike_off_losers(lane, local_port);
    if (++lane->prereq_calls > 1) {
        lane->response.resend_refused = true;
        return CURL_PREREQFUNC_ABORT;
    }
    if (lane->sockets_opened == 0 &&
        (lane_is_readable(lane) || tls_holds_plaintext(lane->easy))) {
        lane->found_stale = true;
        return CURL_PREREQFUNC_ABORT;
    }
    if (lane->sockets_opened > 0 && tls_is_unverified(lane->easy)) {
        lane->response.no_memory = true;
        return CURL_PREREQFUNC_ABORT;
    }
    lane->response.left = true;
    lane->left_at = esp_clock_ms();
    text_copy_masked(lane->timing.remote, sizeof lane->timing.remote, remote,
                     strlen(remote), NULL);
    return CURL_PREREQFUNC_OK;
}

/* The value of header `name` (with its colon) in a line, or NULL.  Most lines
 * are told apart by their first letter. */
static const char *
header_value(const char *line, size_t length, const char *name)
{
    size_t name_length = strlen(name);

    if (length < name_length || (line[0] | 0x20) != (name[0] | 0x20) ||
        strncasecmp(line, name, name_length) != 0)
        return NULL;
    return line + name_length;
}

/* Copy a header's value without the white space around it, up to a NUL. */
static void
keep_value(char *out, size_t size, const char *value, const char *end)
{
    size_t length;

    while (value < end && (*value == ' ' || *value == '\t'))
        value++;
    while (end > value && (unsigned char)end[-1] <= ' ')
        end--;
    length = strnlen(value, (size_t)(end - value));
    if (length >= size)
        length = size - 1;
    memcpy(out, value, length);
    out[length] = '\0';
}

/* A length that leaves no doubt: digits that a 64-bit number holds. */
static bool
is_plain_length(const char *value)
{
    size_t digits = strspn(value, "0123456789");

    return digits > 0 && digits <= 18 && value[digits] == '\0';
}

/* One more header that says how long the answer is; a NUL would hide the rest
 * of its value. */
static void
count_framing(struct esp_response *response, const char *value,
              const char *end, bool is_length)
{
    char text[32];

    keep_value(text, sizeof text, value, end);
    response->framing_headers++;
    if (memchr(value, '\0', (size_t)(end - value)) != NULL ||
        (is_length ? !is_plain_length(text)
                   : !text_same_ignoring_case(text, "chunked")))
        response->framing_is_odd = true;
}

/* `HTTP/1.1 200`, then a space or the end.  Later libcurls read a version of 3
 * and the first three of four digits as well [8.22]. */
static bool
is_status_line(const char *line, size_t length)
{
    size_t i;

    if (length < 13 || memcmp(line, "HTTP/1.", 7) != 0 ||
        (line[7] != '0' && line[7] != '1') || line[8] != ' ')
        return false;
    for (i = 9; i < 12; i++) {
        if (line[i] < '0' || line[i] > '9')
            return false;
    }
    return line[12] == ' ' || (line[12] == '\n' && length == 13) ||
           (line[12] == '\r' && length == 14);
}

/* `is_first`: of all heads of the transfer. */
static void
read_header(struct esp_response *response, const char *line, size_t length,
            bool is_first)
{
    const char *value;

    /* libcurl takes `http/` for it, too. */
    if (length >= 5 && strncasecmp(line, "HTTP/", 5) == 0) {
        /* In the middle of a head it is no header of any kind. */
        if (!is_status_line(line, length) ||
            (!is_first && !response->head_complete))
            response->status_is_odd = true;
        response->head_complete = false;
        response->framing_headers = 0;
        response->framing_is_odd = false;
        response->retry_after[0] = '\0';
    }
    else if (line[0] == '\r' || line[0] == '\n') {
        response->head_complete = true;
        /* libcurl takes a line that begins so for the empty one [7.88], who
         * stands between may not: then the body begins elsewhere. */
        if (length != (line[0] == '\r' ? 2 : 1))
            response->status_is_odd = true;
    }
    else if ((value = header_value(line, length, "Content-Length:")) != NULL) {
        count_framing(response, value, line + length, true);
    }
    else if ((value = header_value(line, length, "Transfer-Encoding:")) !=
             NULL) {
        count_framing(response, value, line + length, false);
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
        read_header(&lane->response, line, length,
                    lane->head_length == length);
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

static bool
record_interest(struct esp_lane *lane, const struct esp_watch *watch)
{
    size_t i = 0;

    while (i < lane->watch_count && lane->watches[i].fd != watch->fd)
        i++;
    if (i == ESP_WATCHES_MAX)
        return false;
    lane->watches[i] = *watch;
    if (i == lane->watch_count)
        lane->watch_count++;
    return lane->watcher == NULL ||
           watcher_want(lane->watcher, lane, watch->fd, watch->read,
                        watch->write);
}

/* The socket of a connection stays watched for its end.  Before there is one,
 * libcurl has closed it already, or is about to; and so it is with a descriptor
 * that it opened for itself. */
static void
forget_interest(struct esp_lane *lane, int fd)
{
    size_t i;

    for (i = 0; i < lane->watch_count; i++) {
        if (lane->watches[i].fd == fd) {
            lane->watches[i] = lane->watches[--lane->watch_count];
            break;
        }
    }
    if (lane->prereq_calls == 0 && lane_has_socket(lane, fd))
        strike_off(lane, place_of(lane, fd));
    if (lane->watcher == NULL)
        return;
    if (lane->response.left && lane_has_socket(lane, fd))
        watcher_want(lane->watcher, lane, fd, true, false);
    else
        watcher_forget(lane->watcher, lane, fd);
}

static int
on_socket_interest(CURL *easy, curl_socket_t fd, int what, void *user,
                   void *unused)
{
    struct esp_lane *lane = user;
    struct esp_watch watch = {.fd = fd,
                              .read = (what & CURL_POLL_IN) != 0,
                              .write = (what & CURL_POLL_OUT) != 0};

    (void)easy;
    (void)unused;
    if (what == CURL_POLL_REMOVE) {
        forget_interest(lane, fd);
        return 0;
    }
    return record_interest(lane, &watch) ? 0 : -1; /* -1: libcurl gives up */
}

static int
on_timer_wish(CURLM *multi, long timeout_ms, void *user)
{
    struct esp_lane *lane = user;

    (void)multi;
    lane->timer_at = timeout_ms < 0 ? -1 : esp_clock_ms() + timeout_ms;
    return 0;
}

/* ---- Telling libcurl of them -------------------------------------------- */

bool
callbacks_set_multi(struct esp_lane *lane)
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

CURLcode
callbacks_set_easy(struct esp_lane *lane)
{
    CURL *easy = lane->easy;
    CURLcode code = CURLE_OK;

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
    return code;
}
