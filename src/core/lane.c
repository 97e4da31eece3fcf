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
 *   again in PREREQ, where the TLS library is asked, too;
 * - accept answers whose framing is contradictory or missing: the header
 *   callback counts. */
#include "shared.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- Opening and closing ------------------------------------------------ */

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

/* Make the handles for a lane that has none.  False: response says why. */
static bool
lane_open(struct esp_lane *lane, const struct esp_target *target)
{
    struct esp_response *response = &lane->response;
    struct esp_trust trust = {0};
    CURLcode code;

    if (target->uses_tls &&
        !trust_resolve(target->ca_path, &trust, response->detail,
                       sizeof response->detail, &response->no_descriptor)) {
        response->trust_failed = true;
        response->curl_code = CURLE_SSL_CACERT_BADFILE;
        return false;
    }
    libcurl_enter();
    lane->multi = curl_multi_init();
    lane->easy = curl_easy_init();
    libcurl_leave();
    if (lane->multi == NULL && descriptors_are_short()) {
        response->no_descriptor = true; /* 8.22 opens one for its wake-ups */
        response->curl_code = CURLE_FAILED_INIT;
        snprintf(response->detail, sizeof response->detail,
                 "no file descriptor is free for a connection");
        return false;
    }
    if (lane->multi == NULL || lane->easy == NULL ||
        !callbacks_set_multi(lane)) {
        response->no_memory = true;
        return false;
    }
    code = callbacks_set_easy(lane);
    if (code == CURLE_OK)
        code = request_prepare_connection(lane->easy, target, &trust);
    if (code == CURLE_OK)
        code = shared_prepare(lane->shared, lane->easy, &lane->share);
    response->curl_code = code;
    response->no_memory = code == CURLE_OUT_OF_MEMORY;
    lane->verified_at = -1;
    return code == CURLE_OK;
}

struct esp_lane *
lane_new(struct esp_shared *shared)
{
    struct esp_lane *lane = calloc(1, sizeof *lane);

    if (lane != NULL) {
        buffer_init(&lane->response.body, ESP_BODY_MAX);
        lane->timer_at = -1;
        lane->shared = shared;
    }
    return lane;
}

void
lane_close(struct esp_lane *lane)
{
    libcurl_enter();
    if (lane->running)
        curl_multi_remove_handle(lane->multi, lane->easy);
    curl_easy_cleanup(lane->easy);
    curl_multi_cleanup(lane->multi);
    libcurl_leave();
    share_leave(lane->share);
    callbacks_forget_sockets(lane);
    lane->share = NULL;
    lane->running = false;
    lane->easy = NULL;
    lane->text.asked = ASKED_NOTHING;
    lane->multi = NULL;
    lane->watch_count = 0;
    lane->timer_at = -1;
    lane->verified_at = -1;
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
    lane->share = NULL;
    lane->shared = NULL;
    lane->running = false;
    lane->abandoned = true;
}

void
lane_free(struct esp_lane *lane)
{
    if (lane == NULL)
        return;
    lane_close(lane);
    request_free(&lane->text);
    buffer_free(&lane->response.body);
    free(lane);
}

/* ---- One transfer ------------------------------------------------------- */

/* There is no kept connection ("Connection: close"), it is too old by a clock
 * that also ran while the machine slept, or it has something to read. */
static bool
lane_is_stale(const struct esp_lane *lane)
{
    int64_t now = clock_boot_ms();

    return lane->socket_count == 0 || now - lane->used_at > ESP_IDLE_AGE_MS ||
           now - lane->verified_at > ESP_LIFETIME_MS || lane_is_readable(lane);
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
    lane->timing = (struct esp_timing){.dns_s = -1,
                                       .connect_s = -1,
                                       .tls_s = -1,
                                       .first_byte_s = -1,
                                       .total_s = -1};
}

/* False: response says why no name can be looked up. */
static bool
may_look_up(struct esp_response *response)
{
    response->curl_code = CURLE_COULDNT_RESOLVE_HOST;
    if (lookups_exhausted())
        snprintf(response->detail, sizeof response->detail,
                 "%d name look-ups hang already: DNS does not answer",
                 ESP_LOOKUPS_MAX);
    else if (!lookups_have_thread())
        snprintf(response->detail, sizeof response->detail,
                 "no thread can be started to look the name up");
    else
        response->curl_code = CURLE_OK;
    return response->curl_code == CURLE_OK;
}

bool
lane_start(struct esp_lane *lane, const struct esp_target *target,
           const struct esp_request *request)
{
    struct esp_response *response = &lane->response;

    lane_reset(lane);
    if (lane->multi != NULL && lane_is_stale(lane))
        lane_close(lane);
    lane->needs_dns = lane->multi == NULL &&
                      (target->base.needs_dns || target->proxy != NULL);
    if (lane->needs_dns && !may_look_up(response))
        return false;
    if (lane->multi == NULL && !lane_open(lane, target)) {
        lane_close(lane);
        return false;
    }
    libcurl_enter();
    response->curl_code =
        request_prepare(lane->easy, target, request, &lane->text);
    if (response->curl_code == CURLE_OK &&
        curl_multi_add_handle(lane->multi, lane->easy) != CURLM_OK)
        response->curl_code = CURLE_OUT_OF_MEMORY;
    libcurl_leave();
    lane->running = response->curl_code == CURLE_OK;
    return lane->running;
}

bool
lane_looks_up(const struct esp_lane *lane)
{
    return lane->running && lane->needs_dns && lane->sockets_opened == 0;
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
    if (!timing->reused) {
        timing->dns_s = info_seconds(easy, CURLINFO_NAMELOOKUP_TIME_T);
        timing->connect_s = info_seconds(easy, CURLINFO_CONNECT_TIME_T);
        timing->tls_s = info_seconds(easy, CURLINFO_APPCONNECT_TIME_T);
    }
    timing->first_byte_s = info_seconds(easy, CURLINFO_STARTTRANSFER_TIME_T);
    timing->total_s = info_seconds(easy, CURLINFO_TOTAL_TIME_T);
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

/* The status of the answer; 0: none came.  libcurl names that of the last
 * head, and an interim one is no answer (RFC 9110, 15.2), but for 101, after
 * which no other can come. */
static int
final_status(const struct esp_lane *lane)
{
    long status = 0;

    curl_easy_getinfo(lane->easy, CURLINFO_RESPONSE_CODE, &status);
    return status >= 200 || status == 101 ? (int)status : 0;
}

static void
lane_finish(struct esp_lane *lane, CURLcode code)
{
    lane->response.curl_code = code;
    lane->response.http_status = final_status(lane);
    read_timing(lane);
    describe_end(lane, code);
    libcurl_enter();
    curl_multi_remove_handle(lane->multi, lane->easy);
    libcurl_leave();
    request_wipe(&lane->text);
    lane->running = false;
    lane->used_at = clock_boot_ms();
    if (lane->sockets_opened > 0) {
        lane->verified_at = share_verified_at(lane->share, lane->used_at);
        if (!lane->response.left)
            share_doubt(lane->share);
    }
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
    CURLMcode result;

    libcurl_enter();
    result = curl_multi_socket_action(lane->multi, fd, events, &running);
    libcurl_leave();
    return lane_collect(lane, result, running);
}

bool
lane_on_timer(struct esp_lane *lane)
{
    int running = 1;
    CURLMcode result;

    libcurl_enter();
    result = curl_multi_socket_action(lane->multi, CURL_SOCKET_TIMEOUT, 0,
                                      &running);
    libcurl_leave();
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
