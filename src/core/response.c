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
 * The exchange answers 400 where its specification says 404 [field]: the
 * status cannot be trusted, the code can. */
#include "core.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What the parts of the judgement know. */
struct judge {
    const struct esp_response *response;
    const char *symbol;
    const char *secret;
    time_t now;
    struct esp_outcome *outcome;
};

static void
set_message(struct judge *judge, const char *text)
{
    text_copy_masked(judge->outcome->message, sizeof judge->outcome->message,
                     text, strlen(text), judge->secret);
}

static void
verdict(struct judge *judge, enum esp_kind kind, enum esp_sent sent,
        enum esp_retry retry)
{
    judge->outcome->kind = kind;
    judge->outcome->sent = sent;
    judge->outcome->retry = retry;
}

static void
bad_reply(struct judge *judge, const char *why)
{
    verdict(judge, ESP_BAD_REPLY, ESP_UNKNOWN, ESP_RETRY_NEVER);
    set_message(judge, why);
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

    set_message(judge, response->detail[0] != '\0'
                           ? response->detail
                           : curl_easy_strerror(response->curl_code));
}

/* The request did not leave: whatever went wrong, nothing was cancelled. */
static void
judge_not_sent(struct judge *judge)
{
    bool late = judge->response->curl_code == CURLE_OPERATION_TIMEDOUT;

    verdict(judge, late ? ESP_TIMEOUT : ESP_TRANSPORT, ESP_NOT_SENT,
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

    verdict(judge, late ? ESP_TIMEOUT : ESP_TRANSPORT, ESP_UNKNOWN,
            ESP_RETRY_BACKOFF);
    if (judge->response->resend_refused)
        set_message(judge, "the kept connection died after the request "
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

/* What is wrong with the framing of an answer; NULL: nothing. */
static const char *
framing_fault(const struct esp_response *response)
{
    if (response->head_too_large)
        return "the head of the answer is too large";
    if (response->curl_code == CURLE_UNSUPPORTED_PROTOCOL ||
        response->curl_code == CURLE_WEIRD_SERVER_REPLY)
        return "the answer is not HTTP/1.1";
    if (response->curl_code != CURLE_OK)
        return NULL;
    if (!response->head_complete)
        return "the head of the answer was cut off";
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
        verdict(judge, ESP_NO_MEMORY,
                response->left ? ESP_UNKNOWN : ESP_NOT_SENT, ESP_RETRY_NEVER);
        set_message(judge, "out of memory");
    }
    else if (response->closed) {
        verdict(judge, ESP_TRANSPORT,
                response->left ? ESP_UNKNOWN : ESP_NOT_SENT, ESP_RETRY_NEVER);
        describe_failure(judge);
    }
    else if (!response->left) {
        judge_not_sent(judge);
    }
    else if (response->body_too_large) {
        bad_reply(judge, "the answer is larger than 1 MiB");
    }
    else if ((fault = framing_fault(response)) != NULL) {
        bad_reply(judge, fault);
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

/* ---- The API's words ---------------------------------------------------- */

/* A member of the reply, or NULL if absent or null. */
static const cJSON *
member(const cJSON *root, const char *name)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(root, name);

    return cJSON_IsNull(item) ? NULL : item;
}

/* A code is an integer in the 16-bit range; all else is no code. */
static bool
code_of(const cJSON *root, int *code)
{
    const cJSON *item = member(root, "code");
    double value = cJSON_IsNumber(item) ? item->valuedouble : 0.5;

    if (value != floor(value) || value < -32768 || value > 65535)
        return false;
    *code = (int)value;
    return true;
}

static const struct esp_code *
find_code(int code)
{
    size_t count;
    const struct esp_code *row = esp_codes(&count);

    for (; count > 0; row++, count--) {
        if (row->code == code)
            return row;
    }
    return NULL;
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

static void
judge_code(struct judge *judge, const cJSON *root, int code)
{
    const struct esp_code *row = find_code(code);
    const cJSON *error = member(root, "error");

    judge->outcome->has_code = true;
    judge->outcome->code = code;
    verdict(judge, ESP_API, row ? row->sent : ESP_UNKNOWN,
            row ? row->retry : ESP_RETRY_NEVER);
    if (cJSON_IsString(error))
        set_message(judge, error->valuestring);
    else
        set_message(judge, row ? row->meaning : "an undocumented error");
}

/* ---- The status, where there is no code --------------------------------- */

struct status_row {
    int status;
    enum esp_sent sent;
    enum esp_retry retry;
};

/* A gateway's refusals; every other 4xx is unknown and final. */
static const struct status_row status_rows[] = {
    {401, ESP_REJECTED, ESP_RETRY_NEVER},
    {403, ESP_REJECTED, ESP_RETRY_NEVER},
    {404, ESP_REJECTED, ESP_RETRY_NEVER},
    {405, ESP_REJECTED, ESP_RETRY_NEVER},
    {408, ESP_UNKNOWN, ESP_RETRY_BACKOFF},
    {413, ESP_REJECTED, ESP_RETRY_NEVER},
    {415, ESP_REJECTED, ESP_RETRY_NEVER},
    {425, ESP_UNKNOWN, ESP_RETRY_BACKOFF},
    {429, ESP_REJECTED, ESP_RETRY_AFTER},
    {431, ESP_REJECTED, ESP_RETRY_NEVER},
};

static void
judge_error_status(struct judge *judge, int status)
{
    enum esp_retry retry = status >= 500 ? ESP_RETRY_BACKOFF : ESP_RETRY_NEVER;
    enum esp_sent sent = ESP_UNKNOWN;
    size_t i;

    for (i = 0; i < sizeof status_rows / sizeof *status_rows; i++) {
        if (status_rows[i].status == status) {
            sent = status_rows[i].sent;
            retry = status_rows[i].retry;
        }
    }
    verdict(judge, ESP_HTTP, sent, retry);
}

/* The gateway's own words, or what can be said in their place. */
static void
describe_error_body(struct judge *judge, const cJSON *root)
{
    const cJSON *error = member(root, "error");
    const struct esp_buffer *body = &judge->response->body;

    if (cJSON_IsString(error))
        set_message(judge, error->valuestring);
    else if (body->length == 0)
        set_message(judge, "an error without a body");
    else if (body->data[0] == '<')
        set_message(judge, "an error with an HTML page");
    else
        text_copy_masked(judge->outcome->message,
                         sizeof judge->outcome->message, body->data,
                         body->length, judge->secret);
}

static void
judge_status(struct judge *judge, const cJSON *root)
{
    int status = judge->response->http_status;

    if (status >= 400 && status <= 599) {
        judge_error_status(judge, status);
        describe_error_body(judge, root);
    }
    else if (status >= 300 && status <= 399) {
        bad_reply(judge, "a redirect: refused, the key stays with this host");
        judge->outcome->sent = ESP_REJECTED;
    }
    else {
        bad_reply(judge, "a status this operation does not have");
    }
}

/* ---- Success ------------------------------------------------------------ */

static bool
all_strings(const cJSON *array)
{
    const cJSON *item;

    cJSON_ArrayForEach(item, array) {
        if (!cJSON_IsString(item))
            return false;
    }
    return true;
}

/* What keeps a 200 from being the promised one; NULL: nothing. */
static const char *
success_fault(const cJSON *root)
{
    const cJSON *ids = member(root, "order_ids");

    if (!cJSON_IsObject(root))
        return "a 200 that is not a JSON object";
    if (member(root, "code") != NULL)
        return "a 200 whose code is not a number of the API";
    if (member(root, "error") != NULL)
        return "a 200 that names an error";
    if (ids != NULL && (!cJSON_IsArray(ids) || !all_strings(ids)))
        return "a 200 whose order_ids are not a list of strings";
    if (ids == NULL && member(root, "symbol") == NULL)
        return "a 200 that names neither symbol nor order_ids";
    return NULL;
}

/* An answer that names another symbol is not an answer to this request. */
static bool
names_other_symbol(const struct judge *judge, const cJSON *root)
{
    const cJSON *symbol = member(root, "symbol");

    return symbol != NULL &&
           !(cJSON_IsString(symbol) &&
             text_same_ignoring_case(symbol->valuestring, judge->symbol));
}

/* Judge a parsed answer; true: *root is the reply of a success. */
static bool
judge_json(struct judge *judge, const cJSON *root)
{
    const char *fault;
    int code;

    if (names_other_symbol(judge, root)) {
        bad_reply(judge, "an answer that names another symbol");
        return false;
    }
    if (code_of(root, &code)) {
        if (member(root, "order_ids") != NULL)
            bad_reply(judge, "an answer with both a code and order_ids");
        else
            judge_code(judge, root, code);
        return false;
    }
    if (judge->response->http_status != 200) {
        judge_status(judge, root);
        return false;
    }
    fault = success_fault(root);
    if (fault != NULL) {
        bad_reply(judge, fault);
        return false;
    }
    verdict(judge, ESP_OK, ESP_DONE, ESP_RETRY_NEVER);
    return true;
}

/* Two members of one name: whatever a refusal says, it may say otherwise
 * too. */
static void
judge_ambiguous(struct judge *judge)
{
    if (judge->response->http_status == 200)
        bad_reply(judge, "a 200 with a member that stands twice");
    else
        judge_status(judge, NULL);
    judge->outcome->sent = ESP_UNKNOWN;
    judge->outcome->retry = ESP_RETRY_NEVER;
}

static void
judge_body(struct judge *judge)
{
    const struct esp_buffer *body = &judge->response->body;
    cJSON *root = NULL;

    switch (json_parse(body->data ? body->data : "", body->length, &root)) {
    case JSON_OK:
        if (judge_json(judge, root)) {
            judge->outcome->json = root;
            root = NULL;
        }
        break;
    case JSON_REFUSED:
        if (judge->response->http_status == 200)
            bad_reply(judge, "a 200 that is not strict JSON");
        else
            judge_status(judge, NULL);
        break;
    case JSON_TWICE:
        judge_ambiguous(judge);
        break;
    case JSON_NO_MEMORY:
        verdict(judge, ESP_NO_MEMORY, ESP_UNKNOWN, ESP_RETRY_NEVER);
        set_message(judge, "out of memory");
        break;
    }
    cJSON_Delete(root);
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
    response->closed = false;
    response->http_status = 0;
    response->framing_headers = 0;
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
        verdict(&judge, ESP_OK, ESP_NOT_SENT, ESP_RETRY_NEVER);
    else if (judge_transfer(&judge))
        bad_reply(&judge, "the head of the answer was cut off");
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
