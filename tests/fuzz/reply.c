/* reply.c - the reply decoder: head lines and a body in, an outcome out.
 *
 *     1 byte   how the transfer ended (0: well)
 *     1 byte   what else is odd (bits; 0: nothing)
 *     1 byte   in what pieces the body comes (0: in one)
 *     the rest the raw answer, as a file of espresso/sandbox/replies
 *
 * The verdict is held against an independent reading of the same bytes. */
#include "fuzz.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "answer.h"
#include "contract.h"
#include "shape.h"

/* For its callbacks, which have no other door: this replaces callbacks.o. */
#include "callbacks.c"

#define NOW ((time_t)1767225600)

enum odd {
    ODD_NOT_LEFT = 1,
    ODD_RESEND = 2,
    ODD_NO_MEMORY = 4,
    ODD_DETAIL = 8,
    ODD_NO_DESCRIPTOR = 16,
    ODD_TRUST = 32,
    ODD_NO_BODY = 64,
};

static const CURLcode endings[] = {
    CURLE_OK,
    CURLE_OPERATION_TIMEDOUT,
    CURLE_RECV_ERROR,
    CURLE_SEND_ERROR,
    CURLE_GOT_NOTHING,
    CURLE_PARTIAL_FILE,
    CURLE_UNSUPPORTED_PROTOCOL,
    CURLE_WEIRD_SERVER_REPLY,
    CURLE_OUT_OF_MEMORY,
    (CURLcode)100, /* CURLE_TOO_LARGE */
    CURLE_PEER_FAILED_VERIFICATION,
    CURLE_SSL_CACERT_BADFILE,
    CURLE_COULDNT_CONNECT,
    CURLE_WRITE_ERROR,
    CURLE_ABORTED_BY_CALLBACK,
};

struct sample {
    const char *raw;
    size_t length;
    struct answer answer;
    struct shape shape;
    struct esp_response *response;
};

/* Give the lane its head, a line at a time, each in memory of its own; libcurl
 * keeps one without an end to itself. */
static void
feed_head(struct esp_lane *lane, const char *raw, size_t length)
{
    const char *end = raw + length;
    const char *stop;
    char *line;
    size_t used;

    for (; (stop = memchr(raw, '\n', (size_t)(end - raw))) != NULL;
         raw += used) {
        used = (size_t)(stop + 1 - raw);
        line = copy_exactly(raw, used, false);
        HOLDS(on_header(line, 1, used, lane) == used ||
              lane->response.head_too_large);
        free(line);
    }
}

/* Give it the body in pieces, then cut its memory to the exact size. */
static void
feed_body(struct esp_lane *lane, const char *body, size_t length, size_t piece)
{
    struct esp_buffer *buffer = &lane->response.body;
    size_t used;
    char *copy;

    for (; length > 0; body += used, length -= used) {
        used = piece > 0 && piece < length ? piece : length;
        copy = copy_exactly(body, used, false);
        HOLDS(on_body(copy, 1, used, lane) == used ||
              lane->response.body_too_large);
        free(copy);
    }
    HOLDS(buffer->length <= ESP_BODY_MAX);
    if (buffer->data != NULL) {
        HOLDS(buffer->data[buffer->length] == '\0');
        copy = copy_exactly(buffer->data, buffer->length, true);
        free(buffer->data);
        buffer->data = copy;
        buffer->capacity = buffer->length + 1;
    }
}

/* The status that libcurl would name: see final_status of lane.c. */
static int
status_of(const struct answer *answer)
{
    return answer->status >= 200 || answer->status == 101 ? answer->status : 0;
}

static void
set_ending(struct esp_response *response, CURLcode code, unsigned odd)
{
    response->curl_code = code;
    response->left = !(odd & ODD_NOT_LEFT);
    response->resend_refused = (odd & ODD_RESEND) != 0;
    response->no_memory = (odd & ODD_NO_MEMORY) != 0;
    response->no_descriptor = (odd & ODD_NO_DESCRIPTOR) != 0;
    response->trust_failed = (odd & ODD_TRUST) != 0;
    if (odd & ODD_DETAIL)
        memcpy(response->detail, "unexpected eof: " KEY,
               sizeof "unexpected eof: " KEY);
}

/* ---- What must come out ------------------------------------------------- */

/* Whether there is one whole answer to read. */
static bool
is_answered(const struct sample *sample)
{
    const struct answer *answer = &sample->answer;

    return sample->response->left && !sample->response->no_memory &&
           sample->response->curl_code == CURLE_OK && answer->is_whole &&
           answer->is_http && !answer->is_odd &&
           !sample->response->body_too_large &&
           !sample->response->head_too_large &&
           (answer->lengths == 1 ||
            (answer->lengths == 0 &&
             (answer->status == 204 || answer->status == 304)));
}

/* A body that we cannot read, but that may be one of the API's. */
static bool
may_be_json(const struct esp_buffer *body)
{
    size_t i = 0;

    while (i < body->length && strchr(" \t\r\n", body->data[i]) != NULL &&
           body->data[i] != '\0')
        i++;
    return i < body->length && body->data[i] == '{';
}

static enum esp_sent
expected_of_words(const struct sample *sample)
{
    const struct shape *shape = &sample->shape;
    bool is_readable = shape_is_readable(shape);
    int code;

    if (is_readable && shape_is_of_another(shape, SYMBOL))
        return ESP_UNKNOWN;
    if (is_readable && shape_code(shape, &code))
        return shape->ids_kind <= SHAPE_NULL && contract_refuses_by_code(code)
                   ? ESP_REJECTED
                   : ESP_UNKNOWN;
    if (sample->answer.status == 200)
        return is_readable && shape_is_success(shape, SYMBOL) ? ESP_DONE
                                                              : ESP_UNKNOWN;
    if (!is_readable && may_be_json(&sample->response->body))
        return ESP_UNKNOWN;
    return contract_refuses_by_status(sample->answer.status) ? ESP_REJECTED
                                                             : ESP_UNKNOWN;
}

static enum esp_sent
expected(const struct sample *sample)
{
    if (!sample->response->left)
        return ESP_NOT_SENT;
    return is_answered(sample) ? expected_of_words(sample) : ESP_UNKNOWN;
}

static void
check_success(const struct sample *sample, const struct esp_outcome *outcome)
{
    HOLDS(outcome->json != NULL);
    HOLDS(outcome->http_status == 200);
    HOLDS(outcome->curl_code == CURLE_OK);
    HOLDS(outcome->message[0] == '\0');
    HOLDS(outcome->body_length == 0);
    HOLDS(outcome->retry == ESP_RETRY_NEVER);
    HOLDS(shape_is_success(&sample->shape, SYMBOL));
}

static void
check_failure(const struct sample *sample, const struct esp_outcome *outcome)
{
    int code;

    HOLDS(outcome->json == NULL);
    HOLDS(outcome->message[0] != '\0');
    HOLDS(outcome->has_code == (outcome->kind == ESP_API));
    HOLDS(outcome->body_length > 0 || sample->response->body.length == 0);
    if (outcome->has_code) {
        HOLDS(is_answered(sample));
        HOLDS(shape_code(&sample->shape, &code) && code == outcome->code);
    }
    if (outcome->sent == ESP_NOT_SENT)
        HOLDS(outcome->retry == ESP_RETRY_SOON ||
              outcome->retry == ESP_RETRY_NEVER);
    /* All certain refusals are final but these. */
    if (outcome->sent == ESP_REJECTED && outcome->retry != ESP_RETRY_NEVER)
        HOLDS(outcome->code == 4290 || outcome->code == 5002 ||
              (!outcome->has_code && outcome->http_status == 429));
    if (outcome->retry == ESP_RETRY_AFTER && outcome->retry_after >= 0)
        HOLDS(isfinite(outcome->retry_after));
}

/* What a warm-up makes of it: never anything that was sent. */
static void
check_warm_up(const struct esp_response *response)
{
    struct esp_outcome outcome;

    esp_outcome_init(&outcome);
    response_decode_warm_up(response, &outcome);
    HOLDS(outcome.sent == ESP_NOT_SENT);
    HOLDS(outcome.json == NULL);
    HOLDS(outcome.kind != ESP_OK ||
          (response->curl_code == CURLE_OK && response->head_complete));
    esp_outcome_free(&outcome);
}

static void
check(const struct sample *sample)
{
    struct esp_outcome outcome;
    bool is_clean;

    esp_outcome_init(&outcome);
    response_decode(sample->response, SYMBOL, KEY, NOW, &outcome);
    check_outcome(&outcome);
    /* Which numbers a double holds is not the shape's to say. */
    if (expected(sample) == ESP_DONE && !sample->shape.is_tame)
        HOLDS(outcome.sent == ESP_DONE || outcome.sent == ESP_UNKNOWN);
    else
        HOLDS(outcome.sent == expected(sample));
    if (outcome.kind == ESP_OK)
        check_success(sample, &outcome);
    else
        check_failure(sample, &outcome);
    is_clean = response_leaves_connection_clean(sample->response, &outcome);
    HOLDS(!is_clean || is_answered(sample));
    esp_outcome_free(&outcome);
    check_warm_up(sample->response);
}

/* The scan alone, on bytes with no NUL behind them. */
static void
check_scan(const char *body, size_t length, const struct shape *shape)
{
    char *copy = copy_exactly(body, length, false);
    bool is_exact;
    bool is_strict = json_scan(copy, length, &is_exact);

    HOLDS(is_strict ==
          (shape->is_json && shape->depth <= ESP_DEPTH_MAX &&
           !shape->has_nul && !shape->has_lone && shape->longest <= 63));
    HOLDS(!is_strict || !shape->is_tame || is_exact);
    free(copy);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input input = {data, size};
    CURLcode ending =
        endings[input_below(&input, sizeof endings / sizeof *endings)];
    unsigned odd = input_byte(&input);
    size_t piece = input_byte(&input);
    struct esp_lane *lane = lane_new(NULL);
    struct sample sample = {.raw = (const char *)input.at,
                            .length = input.left,
                            .response = &lane->response};
    const char *body;
    size_t body_length;

    response_reset(sample.response);
    answer_read(sample.raw, sample.length, &sample.answer);
    body = sample.raw + sample.answer.body;
    body_length = sample.length - sample.answer.body;
    feed_head(lane, sample.raw, sample.answer.body);
    if (!(odd & ODD_NO_BODY))
        feed_body(lane, body, body_length, piece);
    else
        body_length = 0;
    if (ending == CURLE_OK && sample.answer.is_foreign)
        ending = CURLE_UNSUPPORTED_PROTOCOL; /* what libcurl makes of it */
    set_ending(sample.response, ending, odd);
    sample.response->http_status = status_of(&sample.answer);
    shape_read(body, body_length, &sample.shape);
    check_scan(body, body_length, &sample.shape);
    check(&sample);
    lane_free(lane);
    return 0;
}
