/* response.c - what came back, judged.
 *
 * The order of the questions is the safety of the product:
 *
 *     did a byte of the request leave?      no  -> not_sent
 *     is there one whole, framed answer?    no  -> unknown
 *     does it carry a code of the API?      yes -> what codes.def says
 *     is it a 200 of the promised shape?    yes -> done
 *     what does the status say?             rejected or unknown
 *
 * The last three are reply.c's. */
#include "core.h"

#include <stdlib.h>
#include <string.h>

#define TOO_LARGE 100 /* CURLE_TOO_LARGE, which is there from 8.6 on */

void
judge_say(struct judge *judge, const char *text)
{
    text_copy_masked(judge->outcome->message, sizeof judge->outcome->message,
                     text, strlen(text), judge->secret);
}

void
judge_verdict(struct judge *judge, enum esp_kind kind, enum esp_sent sent,
              enum esp_retry retry)
{
    judge->outcome->kind = kind;
    judge->outcome->sent = sent;
    judge->outcome->retry = retry;
}

void
judge_bad_reply(struct judge *judge, const char *why)
{
    judge_verdict(judge, ESP_BAD_REPLY, ESP_UNKNOWN, ESP_RETRY_NEVER);
    judge_say(judge, why);
}

/* ---- No answer ---------------------------------------------------------- */

static bool
is_certificate_failure(const struct esp_response *response)
{
    switch (response->curl_code) {
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_SSL_INVALIDCERTSTATUS:
        return !response->no_descriptor;
    default:
        return response->trust_failed && !response->no_descriptor;
    }
}

static void
describe_failure(struct judge *judge)
{
    const struct esp_response *response = judge->response;

    judge_say(judge, response->detail[0] != '\0'
                         ? response->detail
                         : curl_easy_strerror(response->curl_code));
}

/* The request did not leave: whatever went wrong, nothing was cancelled. */
static void
judge_not_sent(struct judge *judge)
{
    bool late = judge->response->curl_code == CURLE_OPERATION_TIMEDOUT;

    judge_verdict(judge, late ? ESP_TIMEOUT : ESP_TRANSPORT, ESP_NOT_SENT,
                  ESP_RETRY_SOON);
    if (is_certificate_failure(judge->response)) {
        judge->outcome->certificate = true;
        judge->outcome->retry = ESP_RETRY_NEVER;
    }
    describe_failure(judge);
}

/* The connection ended before the answer did. */
static void
judge_incomplete(struct judge *judge)
{
    bool late = judge->response->curl_code == CURLE_OPERATION_TIMEDOUT;

    judge_verdict(judge, late ? ESP_TIMEOUT : ESP_TRANSPORT, ESP_UNKNOWN,
                  ESP_RETRY_BACKOFF);
    if (late)
        judge_say(judge, judge->response->http_status != 0
                             ? "the answer did not end in time"
                             : "no answer in time");
    else if (judge->response->resend_refused)
        judge_say(judge, "the kept connection died after the request "
                         "went out");
    else
        describe_failure(judge);
}

/* No body follows these, whatever the head says (RFC 9112, 6.3). */
static bool
status_has_no_body(int status)
{
    return status == 204 || status == 304;
}

/* The connection ended in an answer: without TLS's goodbye, which early
 * libcurls take for the answer's end [7.88] and later ones do not [8.22], or
 * just before the empty line of a head, where early ones miss the body and
 * later ones do not.  The framing is judged in all of them.  Only OpenSSL's
 * words tell the first from a reset. */
static bool
was_cut_off(const struct esp_response *response)
{
    if (response->http_status < 200)
        return false;
    if (response->curl_code == CURLE_PARTIAL_FILE)
        return !response->head_complete;
    return response->curl_code == CURLE_RECV_ERROR &&
           strstr(response->detail, "unexpected eof") != NULL;
}

/* What is wrong with the framing of an answer; NULL: nothing. */
static const char *
framing_fault(const struct esp_response *response)
{
    /* libcurl calls a header line of over 100 kB "out of memory", and more
     * than 5,000 lines "too large" [8.22: lib/headers.c]. */
    if (response->head_too_large ||
        ((response->curl_code == CURLE_OUT_OF_MEMORY ||
          response->curl_code == TOO_LARGE) &&
         !response->head_complete))
        return "the head of the answer is too large";
    if (response->curl_code == CURLE_UNSUPPORTED_PROTOCOL ||
        response->curl_code == CURLE_WEIRD_SERVER_REPLY ||
        response->status_is_odd)
        return "the answer is not HTTP/1.1";
    if (response->curl_code != CURLE_OK && !was_cut_off(response))
        return NULL;
    if (!response->head_complete)
        return "the head of the answer was cut off";
    if (response->framing_is_odd)
        return "the answer names its length in no usual way";
    if (response->framing_headers > 1)
        return "the answer names its length more than once";
    if (response->framing_headers == 0 &&
        !status_has_no_body(response->http_status))
        return "the answer does not name its length";
    return NULL;
}

/* True: there is a whole answer to read. */
static bool
judge_transfer(struct judge *judge)
{
    const struct esp_response *response = judge->response;
    const char *fault;

    if (response->no_memory) {
        judge_verdict(judge, ESP_NO_MEMORY,
                      response->left ? ESP_UNKNOWN : ESP_NOT_SENT,
                      ESP_RETRY_NEVER);
        judge_say(judge, "out of memory");
    }
    else if (!response->left) {
        judge_not_sent(judge);
    }
    else if (response->body_too_large) {
        judge_bad_reply(judge, "the answer is larger than 1 MiB");
    }
    else if ((fault = framing_fault(response)) != NULL) {
        judge_bad_reply(judge, fault);
        judge->outcome->retry = ESP_RETRY_BACKOFF;
    }
    else if (response->curl_code != CURLE_OK) {
        judge_incomplete(judge);
    }
    else {
        return true;
    }
    return false;
}

/* Retry-After in seconds from now: a number or an HTTP date (RFC 9110,
 * 10.2.3); negative if it is neither. */
static double
parse_retry_after(const char *text, time_t now)
{
    size_t digits = strspn(text, "0123456789");
    time_t date;

    if (text[0] == '\0')
        return -1;
    if (text[digits] == '\0')
        return strtod(text, NULL);
    date = curl_getdate(text, NULL);
    if (date == -1)
        return -1;
    return date > now ? (double)(date - now) : 0;
}

/* ---- All of it ---------------------------------------------------------- */

void
response_reset(struct esp_response *response)
{
    struct esp_buffer body = response->body;

    /* The texts are ended, not zeroed: this runs before every transfer. */
    response->curl_code = CURLE_OK;
    response->left = false;
    response->resend_refused = false;
    response->head_complete = false;
    response->head_too_large = false;
    response->body_too_large = false;
    response->no_memory = false;
    response->no_descriptor = false;
    response->trust_failed = false;
    response->http_status = 0;
    response->framing_headers = 0;
    response->framing_is_odd = false;
    response->status_is_odd = false;
    response->retry_after[0] = '\0';
    response->detail[0] = '\0';
    buffer_reset(&body, ESP_BUFFER_KEPT_MAX);
    response->body = body;
}

void
response_decode(const struct esp_response *response, const char *symbol,
                const char *secret, time_t now, struct esp_outcome *outcome)
{
    struct judge judge = {.response = response,
                          .symbol = symbol,
                          .secret = secret,
                          .now = now,
                          .outcome = outcome};

    outcome->curl_code = (int)response->curl_code;
    if (response->left)
        outcome->http_status = response->http_status;
    if (judge_transfer(&judge))
        judge_body(&judge);
    if (outcome->kind == ESP_OK)
        return;
    if (outcome->retry == ESP_RETRY_AFTER)
        outcome->retry_after = parse_retry_after(response->retry_after, now);
    if (response->body.length > 0)
        outcome->body_length = text_copy_masked(
            outcome->body, sizeof outcome->body, response->body.data,
            response->body.length, secret);
}

void
response_decode_warm_up(const struct esp_response *response,
                        struct esp_outcome *outcome)
{
    struct judge judge = {.response = response, .outcome = outcome};

    outcome->curl_code = (int)response->curl_code;
    outcome->http_status = response->http_status;
    if (response->left && response->curl_code == CURLE_OK &&
        response->head_complete)
        judge_verdict(&judge, ESP_OK, ESP_NOT_SENT, ESP_RETRY_NEVER);
    else
        judge_transfer(&judge);
    /* No cancel was in it: whatever happened, nothing was sent. */
    outcome->sent = ESP_NOT_SENT;
}

bool
response_leaves_connection_clean(const struct esp_response *response,
                                 const struct esp_outcome *outcome)
{
    return response->curl_code == CURLE_OK && response->left &&
           (outcome->kind == ESP_OK || outcome->kind == ESP_API);
}
