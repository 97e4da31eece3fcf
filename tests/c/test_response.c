/* test_response.c - what came back, judged: the tables of the contract. */
#include "unit.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "replies.h"

#define SYMBOL "ADAUSDM"
#define KEY "sandbox-0123456789abcdef"
#define NOW ((time_t)1767225600) /* Thu, 01 Jan 2026 00:00:00 GMT */
#define NO_CODE 99999            /* none: no code of the API is so large */

/* The columns of every table here. */
#define DONE ESP_OK, ESP_DONE, ESP_RETRY_NEVER, NO_CODE
#define BAD ESP_BAD_REPLY, ESP_UNKNOWN, ESP_RETRY_NEVER, NO_CODE
#define BAD_AGAIN ESP_BAD_REPLY, ESP_UNKNOWN, ESP_RETRY_BACKOFF, NO_CODE
#define REDIRECT ESP_BAD_REPLY, ESP_REJECTED, ESP_RETRY_NEVER, NO_CODE
#define HTTP_NO ESP_HTTP, ESP_REJECTED, ESP_RETRY_NEVER, NO_CODE
#define HTTP_PERHAPS ESP_HTTP, ESP_UNKNOWN, ESP_RETRY_NEVER, NO_CODE
#define HTTP_AGAIN ESP_HTTP, ESP_UNKNOWN, ESP_RETRY_BACKOFF, NO_CODE
#define HTTP_LATER ESP_HTTP, ESP_REJECTED, ESP_RETRY_AFTER, NO_CODE
#define API_NO(code) ESP_API, ESP_REJECTED, ESP_RETRY_NEVER, (code)
#define API_PERHAPS(code) ESP_API, ESP_UNKNOWN, ESP_RETRY_NEVER, (code)
#define API_AGAIN(code) ESP_API, ESP_UNKNOWN, ESP_RETRY_BACKOFF, (code)
#define API_LOCKED(code) ESP_API, ESP_REJECTED, ESP_RETRY_BACKOFF, (code)
#define API_LATER(code) ESP_API, ESP_REJECTED, ESP_RETRY_AFTER, (code)

struct expected {
    enum esp_kind kind;
    enum esp_sent sent;
    enum esp_retry retry;
    int code;
};

static void
check(const char *name, const struct esp_outcome *outcome,
      const struct expected *expected)
{
    CHECK(name, outcome->kind == expected->kind);
    CHECK(name, outcome->sent == expected->sent);
    CHECK(name, outcome->retry == expected->retry);
    CHECK(name, outcome->has_code == (expected->code != NO_CODE));
    CHECK(name, !outcome->has_code || outcome->code == expected->code);
    CHECK(name, (outcome->json != NULL) == (expected->kind == ESP_OK));
    CHECK(name, (outcome->message[0] == '\0') == (expected->kind == ESP_OK));
}

/* A whole, well framed answer. */
static struct esp_response
answer(int status, const char *body)
{
    struct esp_response response = {.left = true,
                                    .head_complete = true,
                                    .http_status = status,
                                    .framing_headers = 1};

    buffer_init(&response.body, ESP_BODY_MAX);
    if (body[0] != '\0')
        assert_int_equal(buffer_append(&response.body, body, strlen(body)),
                         BUFFER_OK);
    return response;
}

static void
decode(const struct esp_response *response, struct esp_outcome *outcome)
{
    esp_outcome_init(outcome);
    response_decode(response, SYMBOL, KEY, NOW, outcome);
}

/* ---- Every raw reply that the sandbox has ------------------------------- */

static const struct reply_row {
    const char *name;
    struct expected expected;
} reply_rows[] = {
    {"200_empty_ids", {DONE}},
    {"200_html", {BAD}},
    {"200_no_ids", {DONE}},
    {"200_no_symbol", {DONE}},
    {"200_null_ids", {DONE}},
    {"200_one_order", {DONE}},
    {"200_two_orders", {DONE}},
    {"400_bad_request", {HTTP_PERHAPS}},
    {"400_code_4000", {API_NO(4000)}},
    {"400_code_4106", {API_NO(4106)}},
    {"400_code_4200", {API_NO(4200)}},
    {"400_code_4290", {API_LATER(4290)}},
    {"400_code_4406", {API_NO(4406)}},
    {"400_code_5000", {API_AGAIN(5000)}},
    {"400_code_5002", {API_LOCKED(5002)}},
    {"401_code_4010", {API_NO(4010)}},
    {"403_empty", {HTTP_NO}},
    {"404_code_4200", {API_NO(4200)}},
    {"404_text", {HTTP_NO}},
    {"422_code_4000", {API_NO(4000)}},
    {"429_code_4290", {API_LATER(4290)}},
    {"500_code_5000", {API_AGAIN(5000)}},
    {"503_code_5001", {API_AGAIN(5001)}},
    {"503_code_5002", {API_LOCKED(5002)}},
    {"503_envoy_refused", {HTTP_AGAIN}},
    {"503_envoy_timeout", {HTTP_AGAIN}},
};

static const struct reply_row *
find_row(const char *name)
{
    size_t i;

    for (i = 0; i < COUNT_OF(reply_rows); i++) {
        if (strcmp(reply_rows[i].name, name) == 0)
            return &reply_rows[i];
    }
    return NULL;
}

static void
check_reply(const char *name, void *user)
{
    const struct reply_row *row = find_row(name);
    struct esp_outcome outcome;
    struct reply reply;

    (void)user;
    if (row == NULL)
        fail_msg("%s.http has no row in this test: say what it means", name);
    CHECK(name, reply_load(name, &reply));
    decode(&reply.response, &outcome);
    check(name, &outcome, &row->expected);
    CHECK(name, outcome.http_status == reply.response.http_status);
    esp_outcome_free(&outcome);
    reply_free(&reply);
}

static void
test_raw_replies(void **state)
{
    (void)state;
    assert_int_equal(replies_each(check_reply, NULL),
                     (int)COUNT_OF(reply_rows));
}

static void
test_retry_after_of_a_raw_reply(void **state)
{
    struct esp_outcome outcome;
    struct reply reply;

    (void)state;
    assert_true(reply_load("429_code_4290", &reply));
    decode(&reply.response, &outcome);
    assert_true(outcome.retry_after >= 2 && outcome.retry_after <= 2);
    esp_outcome_free(&outcome);
    reply_free(&reply);
}

/* ---- Bodies of a 200 ---------------------------------------------------- */

struct body_row {
    const char *body;
    struct expected expected;
};

static void
check_bodies(int status, const struct body_row *rows, size_t count)
{
    struct esp_response response;
    struct esp_outcome outcome;

    for (; count > 0; count--, rows++) {
        response = answer(status, rows->body);
        decode(&response, &outcome);
        check(rows->body, &outcome, &rows->expected);
        CHECK(rows->body, outcome.http_status == status);
        CHECK(rows->body, outcome.kind == ESP_OK ||
                              outcome.body_length == strlen(rows->body));
        esp_outcome_free(&outcome);
        buffer_free(&response.body);
    }
}

static void
test_200(void **state)
{
    static const struct body_row rows[] = {
        {"{\"symbol\":\"ADAUSDM\",\"order_ids\":[\"a\",\"b\"]}", {DONE}},
        {"{\"symbol\":\"adausdm\",\"order_ids\":[]}", {DONE}},
        {"{\"symbol\":\"ADAUSDM\"}", {DONE}},
        {"{\"symbol\":\"ADAUSDM\",\"order_ids\":null}", {DONE}},
        {"{\"order_ids\":[]}", {DONE}},
        {"{\"symbol\":null,\"order_ids\":[]}", {DONE}},
        {" {\"order_ids\":[]}\n", {DONE}},
        {"{\"symbol\":\"ADAUSDM\",\"more\":{\"x\":[1.5]}}", {DONE}},
        {"{\"symbol\":\"ADAUSDM\",\"code\":null}", {DONE}},
        {"{\"symbol\":\"ADAUSDM\",\"error\":null}", {DONE}},
        {"{\"symbol\":\"ADAUSDM\",\"CODE\":4200}", {DONE}},
        {"{\"symbol\":\"ADAUSDM\",\"Error\":\"x\"}", {DONE}},
        /* a gateway's stray reply must not read as "cancelled" */
        {"", {BAD}},
        {"{}", {BAD}},
        {"[]", {BAD}},
        {"null", {BAD}},
        {"true", {BAD}},
        {"200", {BAD}},
        {"\"ok\"", {BAD}},
        {"{\"order_ids\":null}", {BAD}},
        {"{\"symbol\":null}", {BAD}},
        {"{\"symbol\":null,\"order_ids\":null}", {BAD}},
        {"{\"Symbol\":\"ADAUSDM\"}", {BAD}},
        {"{\"ORDER_IDS\":[]}", {BAD}},
        {"{\"status\":\"ok\"}", {BAD}},
        {"[{\"symbol\":\"ADAUSDM\",\"order_ids\":[]}]", {BAD}},
        {"<html><body>ok</body></html>", {BAD}},
        {"ok", {BAD}},
        /* of another symbol */
        {"{\"symbol\":\"NIGHTUSDM\",\"order_ids\":[\"a\"]}", {BAD}},
        {"{\"symbol\":\"ADAUSD\",\"order_ids\":[]}", {BAD}},
        {"{\"symbol\":\"ADAUSDMX\",\"order_ids\":[]}", {BAD}},
        {"{\"symbol\":\"\",\"order_ids\":[]}", {BAD}},
        {"{\"symbol\":7,\"order_ids\":[]}", {BAD}},
        {"{\"symbol\":[\"ADAUSDM\"],\"order_ids\":[]}", {BAD}},
        /* wrong types */
        {"{\"symbol\":\"ADAUSDM\",\"order_ids\":\"a\"}", {BAD}},
        {"{\"symbol\":\"ADAUSDM\",\"order_ids\":{}}", {BAD}},
        {"{\"symbol\":\"ADAUSDM\",\"order_ids\":false}", {BAD}},
        {"{\"symbol\":\"ADAUSDM\",\"order_ids\":0}", {BAD}},
        {"{\"symbol\":\"ADAUSDM\",\"order_ids\":[1]}", {BAD}},
        {"{\"symbol\":\"ADAUSDM\",\"order_ids\":[\"a\",null]}", {BAD}},
        {"{\"symbol\":\"ADAUSDM\",\"order_ids\":[[\"a\"]]}", {BAD}},
        /* not strict */
        {"{\"symbol\":\"ADAUSDM\",\"order_ids\":[]}{}", {BAD}},
        {"{\"symbol\":\"ADAUSDM\",\"order_ids\":[]", {BAD}},
        {"\xEF\xBB\xBF{\"symbol\":\"ADAUSDM\",\"order_ids\":[]}", {BAD}},
        {"{\"order_ids\":[\"a\\u0000b\"]}", {BAD}},
        {"{\"order_ids\":[\"\xFF\"]}", {BAD}},
        {"{\"order_ids\":[],\"n\":12345678901234567890}", {BAD}},
        {"{\"order_ids\":[\"a\"],\"order_ids\":[]}", {BAD}},
        {"{\"symbol\":\"ADAUSDM\",\"symbol\":\"NIGHTUSDM\"}", {BAD}},
        /* an error under a 200 */
        {"{\"error\":\"Order not found\",\"code\":4200}", {API_NO(4200)}},
        {"{\"symbol\":\"ADAUSDM\",\"code\":4200}", {API_NO(4200)}},
        {"{\"order_ids\":null,\"code\":5000}", {API_AGAIN(5000)}},
        {"{\"symbol\":\"ADAUSDM\",\"code\":0}", {API_PERHAPS(0)}},
        {"{\"order_ids\":[],\"code\":4200}", {BAD}},
        {"{\"order_ids\":[\"a\"],\"code\":0}", {BAD}},
        {"{\"error\":\"x\"}", {BAD}},
        {"{\"symbol\":\"ADAUSDM\",\"error\":\"x\"}", {BAD}},
        {"{\"order_ids\":[],\"error\":false}", {BAD}},
        {"{\"symbol\":\"ADAUSDM\",\"code\":\"4200\"}", {BAD}},
        {"{\"symbol\":\"ADAUSDM\",\"code\":true}", {BAD}},
        {"{\"symbol\":\"ADAUSDM\",\"code\":4200.5}", {BAD}},
        {"{\"symbol\":\"ADAUSDM\",\"code\":65536}", {BAD}},
        {"{\"code\":4200,\"code\":0}", {BAD}},
        {"{\"symbol\":\"NIGHTUSDM\",\"code\":4200}", {BAD}},
    };

    (void)state;
    check_bodies(200, rows, COUNT_OF(rows));
}

/* ---- Codes -------------------------------------------------------------- */

/* Each code of the table, under statuses that say something else. */
static void
test_every_code(void **state)
{
    static const int statuses[] = {200, 201, 302, 400, 404, 422, 500, 503};
    size_t count;
    const struct esp_code *code = esp_codes(&count);
    struct body_row row;
    char body[128];
    size_t i;

    (void)state;
    for (; count > 0; count--, code++) {
        snprintf(body, sizeof body, "{\"error\":\"e\",\"code\":%d}",
                 code->code);
        row = (struct body_row){
            body, {ESP_API, code->sent, code->retry, code->code}};
        for (i = 0; i < COUNT_OF(statuses); i++)
            check_bodies(statuses[i], &row, 1);
    }
}

/* The certain list of the contract, written out: a slip in codes.def must
 * not make an unknown outcome a certain one. */
static void
test_certain_codes(void **state)
{
    static const int certain[] = {4000, 4010, 4106, 4200, 4290,
                                  4400, 4404, 4405, 4406, 5002};
    size_t count;
    const struct esp_code *code = esp_codes(&count);
    size_t found = 0;
    size_t i;
    bool listed;

    (void)state;
    for (; count > 0; count--, code++) {
        listed = false;
        for (i = 0; i < COUNT_OF(certain); i++)
            listed = listed || certain[i] == code->code;
        found += listed;
        assert_int_equal(code->sent, listed ? ESP_REJECTED : ESP_UNKNOWN);
    }
    assert_int_equal(found, COUNT_OF(certain));
}

static void
test_codes_without_a_row(void **state)
{
    static const struct body_row rows[] = {
        {"{\"error\":\"e\",\"code\":4199}", {API_PERHAPS(4199)}},
        {"{\"error\":\"e\",\"code\":0}", {API_PERHAPS(0)}},
        {"{\"error\":\"e\",\"code\":-1}", {API_PERHAPS(-1)}},
        {"{\"error\":\"e\",\"code\":-32768}", {API_PERHAPS(-32768)}},
        {"{\"error\":\"e\",\"code\":65535}", {API_PERHAPS(65535)}},
        {"{\"error\":\"e\",\"code\":5999}", {API_PERHAPS(5999)}},
        {"{\"code\":4200}", {API_NO(4200)}},
        {"{\"code\":4.2e3}", {API_NO(4200)}},
        {"{\"code\":4200,\"error\":null}", {API_NO(4200)}},
        {"{\"code\":4200,\"error\":[]}", {API_NO(4200)}},
        {"{\"code\":4199}", {API_PERHAPS(4199)}},
        {"{\"symbol\":\"ADAUSDM\",\"code\":4200}", {API_NO(4200)}},
        {"{\"symbol\":\"NIGHTUSDM\",\"code\":4200}", {BAD}},
        {"{\"order_ids\":[\"a\"],\"code\":4200}", {BAD}},
        /* what is no code leaves the word to the status */
        {"{\"code\":\"4200\"}", {HTTP_NO}},
        {"{\"code\":true}", {HTTP_NO}},
        {"{\"code\":null}", {HTTP_NO}},
        {"{\"code\":[4200]}", {HTTP_NO}},
        {"{\"code\":4200.9}", {HTTP_NO}},
        {"{\"code\":65536}", {HTTP_NO}},
        {"{\"code\":-32769}", {HTTP_NO}},
        {"{\"code\":2147483648}", {HTTP_NO}},
        {"{\"code\":1e300}", {HTTP_NO}},
        {"{\"code\":1e999}", {HTTP_NO}},
        {"{\"CODE\":4200}", {HTTP_NO}},
        {"{\"data\":{\"code\":4200}}", {HTTP_NO}},
        {"[{\"code\":4200}]", {HTTP_NO}},
        {"{\"code\":4200}garbage", {HTTP_PERHAPS}},
        {"{\"co\\u0000de\":4200}", {HTTP_PERHAPS}},
        {"{\"error\":\"x\"}", {HTTP_NO}},
        {"{\"error\":\"x\",\"symbol\":\"ADAUSDM\"}", {HTTP_NO}},
        {"{\"error\":\"x\",\"symbol\":\"NIGHTUSDM\"}", {HTTP_PERHAPS}},
        {"{}", {HTTP_NO}},
        {"", {HTTP_NO}},
        {"null", {HTTP_NO}},
        {"<html>", {HTTP_NO}},
        {"{\"error\":\"a\",\"error\":\"b\"}", {HTTP_PERHAPS}},
        {"{\"code\":4200,\"code\":0}", {HTTP_PERHAPS}},
    };

    (void)state;
    check_bodies(404, rows, COUNT_OF(rows));
}

/* ---- Statuses ----------------------------------------------------------- */

static void
test_statuses_without_a_code(void **state)
{
    static const struct {
        int status;
        struct expected expected;
    } rows[] = {
        {0, {BAD}},
        {101, {BAD}},
        {199, {BAD}},
        {201, {BAD}},
        {202, {BAD}},
        {204, {BAD}},
        {206, {BAD}},
        {299, {BAD}},
        {300, {REDIRECT}},
        {301, {REDIRECT}},
        {302, {REDIRECT}},
        {304, {REDIRECT}},
        {307, {REDIRECT}},
        {308, {REDIRECT}},
        {399, {REDIRECT}},
        {400, {HTTP_PERHAPS}},
        {401, {HTTP_NO}},
        {402, {HTTP_PERHAPS}},
        {403, {HTTP_NO}},
        {404, {HTTP_NO}},
        {405, {HTTP_NO}},
        {406, {HTTP_PERHAPS}},
        {408, {HTTP_AGAIN}},
        {409, {HTTP_PERHAPS}},
        {413, {HTTP_NO}},
        {415, {HTTP_NO}},
        {418, {HTTP_PERHAPS}},
        {422, {HTTP_PERHAPS}},
        {425, {HTTP_AGAIN}},
        {429, {HTTP_LATER}},
        {431, {HTTP_NO}},
        {499, {HTTP_PERHAPS}},
        {500, {HTTP_AGAIN}},
        {501, {HTTP_AGAIN}},
        {502, {HTTP_AGAIN}},
        {503, {HTTP_AGAIN}},
        {504, {HTTP_AGAIN}},
        {599, {HTTP_AGAIN}},
        {600, {BAD}},
        {999, {BAD}},
    };
    static const char *const bodies[] = {
        "", "text", "<html>", "{\"error\":\"x\"}",
        "{\"symbol\":\"ADAUSDM\",\"order_ids\":[\"a\"]}"};
    struct body_row row;
    size_t i;
    size_t j;

    (void)state;
    for (i = 0; i < COUNT_OF(rows); i++) {
        for (j = 0; j < COUNT_OF(bodies); j++) {
            row = (struct body_row){bodies[j], rows[i].expected};
            check_bodies(rows[i].status, &row, 1);
        }
    }
}

static void
test_retry_after(void **state)
{
    static const struct {
        const char *text;
        double seconds;
    } rows[] = {
        {"", -1},
        {"0", 0},
        {"7", 7},
        {"120", 120},
        {"99999999999999999999", 1e20},
        {"-1", -1},
        {"1.5", -1},
        {"soon", -1},
        {"5 minutes", -1},
        {"Thu, 01 Jan 2026 00:00:30 GMT", 30},
        {"Thursday, 01-Jan-26 00:01:00 GMT", 60},
        {"Thu Jan  1 00:00:05 2026", 5},
        {"Thu, 01 Jan 2026 00:00:00 GMT", 0},
        {"Wed, 31 Dec 2025 23:00:00 GMT", 0},
    };
    struct esp_response response;
    struct esp_outcome outcome;
    size_t i;

    (void)state;
    for (i = 0; i < COUNT_OF(rows); i++) {
        response = answer(429, "");
        snprintf(response.retry_after, sizeof response.retry_after, "%s",
                 rows[i].text);
        decode(&response, &outcome);
        CHECK(rows[i].text, outcome.retry_after >= rows[i].seconds &&
                                outcome.retry_after <= rows[i].seconds);
        esp_outcome_free(&outcome);
        buffer_free(&response.body);
    }
}

/* A Retry-After is read where the table says so, and nowhere else. */
static void
test_retry_after_of_another_status(void **state)
{
    struct esp_response response = answer(503, "");
    struct esp_outcome outcome;

    (void)state;
    memcpy(response.retry_after, "7", 2);
    decode(&response, &outcome);
    assert_true(outcome.retry_after < 0);
    esp_outcome_free(&outcome);
}

/* ---- Transfers without a whole answer ----------------------------------- */

#define NOT_SENT(kind) (kind), ESP_NOT_SENT, ESP_RETRY_SOON, NO_CODE
#define NEVER_SENT(kind) (kind), ESP_NOT_SENT, ESP_RETRY_NEVER, NO_CODE
#define LOST(kind) (kind), ESP_UNKNOWN, ESP_RETRY_BACKOFF, NO_CODE
#define GONE(kind) (kind), ESP_UNKNOWN, ESP_RETRY_NEVER, NO_CODE

static void
test_transfers(void **state)
{
    static const struct {
        const char *name;
        struct esp_response response;
        struct expected expected;
        bool certificate;
    } rows[] = {
        {"name not found",
         {.curl_code = CURLE_COULDNT_RESOLVE_HOST},
         {NOT_SENT(ESP_TRANSPORT)},
         false},
        {"refused",
         {.curl_code = CURLE_COULDNT_CONNECT},
         {NOT_SENT(ESP_TRANSPORT)},
         false},
        {"TLS broke",
         {.curl_code = CURLE_SSL_CONNECT_ERROR},
         {NOT_SENT(ESP_TRANSPORT)},
         false},
        {"proxy broke",
         {.curl_code = CURLE_PROXY},
         {NOT_SENT(ESP_TRANSPORT)},
         false},
        {"receive error in a handshake",
         {.curl_code = CURLE_RECV_ERROR},
         {NOT_SENT(ESP_TRANSPORT)},
         false},
        {"late before sending",
         {.curl_code = CURLE_OPERATION_TIMEDOUT},
         {NOT_SENT(ESP_TIMEOUT)},
         false},
        {"ended well, but nothing left",
         {.http_status = 200, .head_complete = true, .framing_headers = 1},
         {NOT_SENT(ESP_TRANSPORT)},
         false},
        {"peer not verified",
         {.curl_code = CURLE_PEER_FAILED_VERIFICATION},
         {NEVER_SENT(ESP_TRANSPORT)},
         true},
        {"roots unreadable",
         {.curl_code = CURLE_SSL_CACERT_BADFILE},
         {NEVER_SENT(ESP_TRANSPORT)},
         true},
        {"wrong issuer",
         {.curl_code = CURLE_SSL_ISSUER_ERROR},
         {NEVER_SENT(ESP_TRANSPORT)},
         true},
        {"status of the certificate",
         {.curl_code = CURLE_SSL_INVALIDCERTSTATUS},
         {NEVER_SENT(ESP_TRANSPORT)},
         true},
        {"no trust store",
         {.curl_code = CURLE_OK, .trust_failed = true},
         {NEVER_SENT(ESP_TRANSPORT)},
         true},
        {"roots unreadable for want of a descriptor",
         {.curl_code = CURLE_SSL_CACERT_BADFILE, .no_descriptor = true},
         {NOT_SENT(ESP_TRANSPORT)},
         false},
        {"no trust store for want of a descriptor",
         {.curl_code = CURLE_OK, .trust_failed = true, .no_descriptor = true},
         {NOT_SENT(ESP_TRANSPORT)},
         false},
        {"no memory before",
         {.curl_code = CURLE_WRITE_ERROR, .no_memory = true},
         {NEVER_SENT(ESP_NO_MEMORY)},
         false},
        {"no memory after",
         {.curl_code = CURLE_WRITE_ERROR, .no_memory = true, .left = true},
         {GONE(ESP_NO_MEMORY)},
         false},
        {"late after sending",
         {.curl_code = CURLE_OPERATION_TIMEDOUT, .left = true},
         {LOST(ESP_TIMEOUT)},
         false},
        {"reset",
         {.curl_code = CURLE_RECV_ERROR, .left = true},
         {LOST(ESP_TRANSPORT)},
         false},
        {"nothing came",
         {.curl_code = CURLE_GOT_NOTHING, .left = true},
         {LOST(ESP_TRANSPORT)},
         false},
        {"send failed",
         {.curl_code = CURLE_SEND_ERROR, .left = true},
         {LOST(ESP_TRANSPORT)},
         false},
        {"body cut",
         {.curl_code = CURLE_PARTIAL_FILE,
          .left = true,
          .head_complete = true,
          .framing_headers = 1,
          .http_status = 200},
         {LOST(ESP_TRANSPORT)},
         false},
        {"head cut before its empty line",
         {.curl_code = CURLE_PARTIAL_FILE,
          .left = true,
          .framing_headers = 1,
          .http_status = 200},
         {BAD_AGAIN},
         false},
        {"an interim head and no other",
         {.curl_code = CURLE_PARTIAL_FILE, .left = true, .http_status = 0},
         {LOST(ESP_TRANSPORT)},
         false},
        {"a second sending refused",
         {.curl_code = CURLE_ABORTED_BY_CALLBACK,
          .left = true,
          .resend_refused = true},
         {LOST(ESP_TRANSPORT)},
         false},
        {"not HTTP",
         {.curl_code = CURLE_UNSUPPORTED_PROTOCOL, .left = true},
         {BAD_AGAIN},
         false},
        {"weird",
         {.curl_code = CURLE_WEIRD_SERVER_REPLY, .left = true},
         {BAD_AGAIN},
         false},
        {"head too large",
         {.curl_code = CURLE_WRITE_ERROR,
          .left = true,
          .head_too_large = true},
         {BAD_AGAIN},
         false},
        {"head cut",
         {.left = true, .framing_headers = 1, .http_status = 200},
         {BAD_AGAIN},
         false},
        {"no length",
         {.left = true, .head_complete = true, .http_status = 200},
         {BAD_AGAIN},
         false},
        {"two lengths",
         {.left = true,
          .head_complete = true,
          .http_status = 200,
          .framing_headers = 2},
         {BAD_AGAIN},
         false},
        {"a length that is odd",
         {.left = true,
          .head_complete = true,
          .http_status = 200,
          .framing_headers = 1,
          .framing_is_odd = true},
         {BAD_AGAIN},
         false},
        {"a status line that is not HTTP/1",
         {.left = true,
          .head_complete = true,
          .http_status = 200,
          .framing_headers = 1,
          .status_is_odd = true},
         {BAD_AGAIN},
         false},
        {"no length of a 403",
         {.left = true, .head_complete = true, .http_status = 403},
         {BAD_AGAIN},
         false},
        {"body too large",
         {.curl_code = CURLE_WRITE_ERROR,
          .left = true,
          .head_complete = true,
          .http_status = 200,
          .framing_headers = 1,
          .body_too_large = true},
         {BAD},
         false},
        {"204 needs no length",
         {.left = true, .head_complete = true, .http_status = 204},
         {BAD},
         false},
        {"304 needs no length",
         {.left = true, .head_complete = true, .http_status = 304},
         {REDIRECT},
         false},
    };
    struct esp_outcome outcome;
    size_t i;

    (void)state;
    for (i = 0; i < COUNT_OF(rows); i++) {
        decode(&rows[i].response, &outcome);
        check(rows[i].name, &outcome, &rows[i].expected);
        CHECK(rows[i].name, outcome.certificate == rows[i].certificate);
        CHECK(rows[i].name,
              outcome.curl_code == (int)rows[i].response.curl_code);
        CHECK(rows[i].name,
              outcome.http_status ==
                  (rows[i].response.left ? rows[i].response.http_status : 0));
        esp_outcome_free(&outcome);
    }
}

/* A good body does not heal a broken transfer. */
static void
test_body_does_not_heal(void **state)
{
    static const CURLcode codes[] = {
        CURLE_PARTIAL_FILE,        CURLE_RECV_ERROR,
        CURLE_OPERATION_TIMEDOUT,  CURLE_WRITE_ERROR,
        CURLE_ABORTED_BY_CALLBACK, CURLE_UNSUPPORTED_PROTOCOL};
    static const char body[] = "{\"symbol\":\"ADAUSDM\",\"order_ids\":[]}";
    struct esp_response response = answer(200, body);
    struct esp_outcome outcome;
    size_t i;

    (void)state;
    for (i = 0; i < COUNT_OF(codes); i++) {
        response.curl_code = codes[i];
        decode(&response, &outcome);
        assert_int_equal(outcome.sent, ESP_UNKNOWN);
        assert_int_not_equal(outcome.kind, ESP_OK);
        assert_null(outcome.json);
        assert_int_equal(outcome.body_length, sizeof body - 1);
        assert_string_equal(outcome.body, body);
        esp_outcome_free(&outcome);
    }
    buffer_free(&response.body);
}

/* ---- Texts -------------------------------------------------------------- */

static void
test_messages(void **state)
{
    static const struct {
        int status;
        const char *body;
        const char *message; /* NULL: some words of our own */
    } rows[] = {
        {400, "{\"error\":\"Order not found\",\"code\":4200}",
         "Order not found"},
        {400, "{\"code\":4200}", "nothing was open"},
        {400, "{\"code\":4199}", NULL},
        {400, "{\"error\":\"\",\"code\":4200}", "nothing was open"},
        {500, "{\"error\":\"\"}", "{\"error\":\"\"}"},
        {404, "404 page not found", "404 page not found"},
        {403, "", NULL},
        {502, "<html>x</html>", NULL},
        {500, "{\"error\":\"broken\"}", "broken"},
        {400, "{\"error\":\"caf\\u00e9\",\"code\":4000}", "caf\xC3\xA9"},
        {400, "{\"error\":\"key " KEY "!\",\"code\":4000}",
         "key ************************!"},
        {404, "no " KEY, "no ************************"},
    };
    struct esp_response response;
    struct esp_outcome outcome;
    size_t i;

    (void)state;
    for (i = 0; i < COUNT_OF(rows); i++) {
        response = answer(rows[i].status, rows[i].body);
        decode(&response, &outcome);
        CHECK(rows[i].body, rows[i].message != NULL
                                ? strcmp(outcome.message, rows[i].message) == 0
                                : isalpha(outcome.message[0]));
        CHECK(rows[i].body, strstr(outcome.body, KEY) == NULL);
        esp_outcome_free(&outcome);
        buffer_free(&response.body);
    }
}

/* A message is whole, whatever bytes the gateway sent. */
static void
test_message_goes_on_after_a_nul(void **state)
{
    static const char body[] = "no\0way";
    struct esp_response response = answer(404, "");
    struct esp_outcome outcome;

    (void)state;
    assert_int_equal(buffer_append(&response.body, body, sizeof body - 1),
                     BUFFER_OK);
    decode(&response, &outcome);
    assert_string_equal(outcome.message, "no way");
    esp_outcome_free(&outcome);
    buffer_free(&response.body);
}

/* libcurl's own words stand where there is no answer. */
static void
test_message_of_a_failure(void **state)
{
    struct esp_response response = {.curl_code = CURLE_COULDNT_CONNECT};
    struct esp_outcome outcome;

    (void)state;
    decode(&response, &outcome);
    assert_string_equal(outcome.message,
                        curl_easy_strerror(CURLE_COULDNT_CONNECT));
    snprintf(response.detail, sizeof response.detail, "no way to %s", KEY);
    decode(&response, &outcome);
    assert_string_equal(outcome.message, "no way to ************************");
}

/* A body larger than what is kept, with the key across the cut. */
static void
test_kept_body_is_cut_and_masked(void **state)
{
    struct esp_response response = answer(404, "");
    struct esp_outcome outcome;
    char filler[ESP_BODY_KEPT_MAX - 4];

    (void)state;
    memset(filler, 'x', sizeof filler);
    assert_int_equal(buffer_append(&response.body, filler, sizeof filler),
                     BUFFER_OK);
    assert_int_equal(buffer_append(&response.body, KEY, strlen(KEY)),
                     BUFFER_OK);
    decode(&response, &outcome);
    assert_int_equal(outcome.body_length, ESP_BODY_KEPT_MAX);
    assert_string_equal(outcome.body + sizeof filler, "****");
    assert_int_equal(strlen(outcome.message), ESP_MESSAGE_MAX);
    esp_outcome_free(&outcome);
    buffer_free(&response.body);
}

/* ---- Warm-up ------------------------------------------------------------ */

static void
test_warm_up(void **state)
{
    static const struct {
        const char *name;
        struct esp_response response;
        enum esp_kind kind;
    } rows[] = {
        {"200",
         {.left = true, .head_complete = true, .http_status = 200},
         ESP_OK},
        {"404",
         {.left = true, .head_complete = true, .http_status = 404},
         ESP_OK},
        {"503",
         {.left = true, .head_complete = true, .http_status = 503},
         ESP_OK},
        {"cut head", {.left = true, .http_status = 200}, ESP_BAD_REPLY},
        {"cut head with a length",
         {.left = true, .http_status = 200, .framing_headers = 1},
         ESP_BAD_REPLY},
        {"refused", {.curl_code = CURLE_COULDNT_CONNECT}, ESP_TRANSPORT},
        {"late",
         {.curl_code = CURLE_OPERATION_TIMEDOUT, .left = true},
         ESP_TIMEOUT},
        {"reset",
         {.curl_code = CURLE_RECV_ERROR, .left = true},
         ESP_TRANSPORT},
    };
    struct esp_outcome outcome;
    size_t i;

    (void)state;
    for (i = 0; i < COUNT_OF(rows); i++) {
        esp_outcome_init(&outcome);
        response_decode_warm_up(&rows[i].response, &outcome);
        CHECK(rows[i].name, outcome.kind == rows[i].kind);
        CHECK(rows[i].name, outcome.sent == ESP_NOT_SENT);
        CHECK(rows[i].name,
              (outcome.message[0] == '\0') == (outcome.kind == ESP_OK));
        esp_outcome_free(&outcome);
    }
}

/* ---- The connection afterwards ------------------------------------------ */

static void
test_connection_after(void **state)
{
    static const struct {
        const char *name;
        CURLcode curl_code;
        bool left;
        enum esp_kind kind;
        bool clean;
    } rows[] = {
        {"success", CURLE_OK, true, ESP_OK, true},
        {"a no with a code", CURLE_OK, true, ESP_API, true},
        {"a no without", CURLE_OK, true, ESP_HTTP, false},
        {"a bad reply", CURLE_OK, true, ESP_BAD_REPLY, false},
        {"a broken transfer", CURLE_RECV_ERROR, true, ESP_TRANSPORT, false},
        {"never sent", CURLE_OK, false, ESP_TRANSPORT, false},
        {"no memory", CURLE_OK, true, ESP_NO_MEMORY, false},
    };
    struct esp_response response;
    struct esp_outcome outcome;
    size_t i;

    (void)state;
    for (i = 0; i < COUNT_OF(rows); i++) {
        response = (struct esp_response){.curl_code = rows[i].curl_code,
                                         .left = rows[i].left};
        esp_outcome_init(&outcome);
        outcome.kind = rows[i].kind;
        CHECK(rows[i].name, response_leaves_connection_clean(
                                &response, &outcome) == rows[i].clean);
    }
}

static void
test_reset(void **state)
{
    struct esp_response response = answer(429, "text");
    struct esp_response clean = {.http_status = 0};

    (void)state;
    response.curl_code = CURLE_RECV_ERROR;
    response.resend_refused = response.head_too_large = true;
    response.body_too_large = response.no_memory = true;
    response.no_descriptor = response.trust_failed = true;
    memcpy(response.retry_after, "7", 2);
    memcpy(response.detail, "d", 2);
    response_reset(&response);
    assert_int_equal(response.body.length, 0);
    assert_int_equal(response.body.ceiling, ESP_BODY_MAX);
    buffer_free(&response.body);
    response.body = clean.body;
    response.retry_after[1] = response.detail[1] = '\0';
    assert_memory_equal(&response.retry_after, &clean.retry_after,
                        sizeof clean.retry_after);
    assert_string_equal(response.detail, "");
    assert_int_equal(response.curl_code, CURLE_OK);
    assert_int_equal(response.http_status, 0);
    assert_int_equal(response.framing_headers, 0);
    assert_false(response.left || response.resend_refused ||
                 response.head_complete || response.head_too_large ||
                 response.body_too_large || response.no_memory ||
                 response.no_descriptor || response.trust_failed);
}

static void
test_outcome_free(void **state)
{
    struct esp_outcome outcome;
    struct esp_response response =
        answer(200, "{\"symbol\":\"ADAUSDM\",\"order_ids\":[]}");

    (void)state;
    decode(&response, &outcome);
    assert_non_null(outcome.json);
    esp_outcome_free(&outcome);
    assert_null(outcome.json);
    esp_outcome_free(&outcome); /* twice is fine */
    esp_outcome_free(NULL);     /* so is nothing */
    buffer_free(&response.body);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_raw_replies),
        cmocka_unit_test(test_retry_after_of_a_raw_reply),
        cmocka_unit_test(test_200),
        cmocka_unit_test(test_every_code),
        cmocka_unit_test(test_certain_codes),
        cmocka_unit_test(test_codes_without_a_row),
        cmocka_unit_test(test_statuses_without_a_code),
        cmocka_unit_test(test_retry_after),
        cmocka_unit_test(test_retry_after_of_another_status),
        cmocka_unit_test(test_transfers),
        cmocka_unit_test(test_body_does_not_heal),
        cmocka_unit_test(test_messages),
        cmocka_unit_test(test_message_goes_on_after_a_nul),
        cmocka_unit_test(test_message_of_a_failure),
        cmocka_unit_test(test_kept_body_is_cut_and_masked),
        cmocka_unit_test(test_warm_up),
        cmocka_unit_test(test_connection_after),
        cmocka_unit_test(test_reset),
        cmocka_unit_test(test_outcome_free),
    };

    return cmocka_run_group_tests_name("response", tests, NULL, NULL);
}
