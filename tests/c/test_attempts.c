/* test_attempts.c - whole calls against scripted answers: what each attempt
 * is taken for, whether another follows, and how many requests really came.
 *
 * Every scenario runs through the blocking face and through a press driven by hand. */
#include "world.h"

#include <stdio.h>
#include <string.h>

/* In a scenario: not looked at. */
#define ANY (-1)

#define REPLY_4290(retry_after)                                               \
    "HTTP/1.1 429 Too Many Requests\r\n" retry_after                          \
    "Content-Length: 32\r\n\r\n{\"error\":\"too many\",\"code\":4290}"
#define LOCKED                                                                \
    HEAD("503 Service Unavailable", "30")                                     \
    "{\"error\":\"locked\",\"code\":5002}"
#define ENVOY HEAD("503 Service Unavailable", "22") "upstream connect error"

struct scenario {
    const char *name;
    struct step steps[4];
    /* what the caller asks for */
    int max_retries;
    bool missing_ok;
    int timeout_ms;         /* 0: ten seconds */
    int attempt_timeout_ms; /* 0: the policy's */
    /* what must become of it */
    enum esp_kind kind;
    enum esp_sent sent;
    int call_sent; /* ANY for a plain success */
    int attempts;
    int posts;
    bool lost_reply;
    int http_status;
};

static const struct scenario answers[] = {
    {"a plain success",
     {{ACT_ANSWER, OK_200, NULL}},
     .kind = ESP_OK,
     .sent = ESP_DONE,
     .call_sent = ANY,
     .attempts = 1,
     .posts = 1,
     .http_status = 200},
    {"nothing open",
     {{ACT_ANSWER, NOTHING_OPEN, NULL}},
     .max_retries = 3,
     .kind = ESP_API,
     .sent = ESP_REJECTED,
     .call_sent = ESP_REJECTED,
     .attempts = 1,
     .posts = 1,
     .http_status = 400},
    {"nothing open, missing_ok",
     {{ACT_ANSWER, NOTHING_OPEN, NULL}},
     .missing_ok = true,
     .kind = ESP_OK,
     .sent = ESP_DONE,
     .call_sent = ANY,
     .attempts = 1,
     .posts = 1,
     .http_status = 400},
    {"chunked",
     {{ACT_ANSWER,
       "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
       "10\r\n{\"order_ids\":[\"a\r\n3\r\n\"]}\r\n0\r\n\r\n",
       NULL}},
     .kind = ESP_OK,
     .sent = ESP_DONE,
     .call_sent = ANY,
     .attempts = 1,
     .posts = 1,
     .http_status = 200},
    {"the end of the connection announced",
     {{ACT_ANSWER_CLOSE,
       "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: "
       "42\r\n\r\n" OK_BODY,
       NULL}},
     .kind = ESP_OK,
     .sent = ESP_DONE,
     .call_sent = ANY,
     .attempts = 1,
     .posts = 1,
     .http_status = 200},
    {"HTTP/1.0 with a length",
     {{ACT_ANSWER_CLOSE,
       "HTTP/1.0 200 OK\r\nContent-Length: 42\r\n\r\n" OK_BODY, NULL}},
     .kind = ESP_OK,
     .sent = ESP_DONE,
     .call_sent = ANY,
     .attempts = 1,
     .posts = 1,
     .http_status = 200},
    {"100, then 200",
     {{ACT_ANSWER, "HTTP/1.1 100 Continue\r\n\r\n" OK_200, NULL}},
     .kind = ESP_OK,
     .sent = ESP_DONE,
     .call_sent = ANY,
     .attempts = 1,
     .posts = 1,
     .http_status = 200},
    {"103 with headers, then 200",
     {{ACT_ANSWER,
       "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\nContent-Length: 7\r\n"
       "Retry-After: 9\r\n\r\n" OK_200,
       NULL}},
     .kind = ESP_OK,
     .sent = ESP_DONE,
     .call_sent = ANY,
     .attempts = 1,
     .posts = 1,
     .http_status = 200},
    {"bytes behind the answer",
     {{ACT_ANSWER, OK_200 OK_200, NULL}},
     .kind = ESP_OK,
     .sent = ESP_DONE,
     .call_sent = ANY,
     .attempts = 1,
     .posts = 1,
     .http_status = 200},
    {"of another symbol",
     {{ACT_ANSWER,
       HEAD("200 OK", "42") "{\"symbol\":\"NIGHTUSDM\",\"order_ids\":[\"x\"]}"
                            "  ",
       NULL}},
     .max_retries = 3,
     .kind = ESP_BAD_REPLY,
     .sent = ESP_UNKNOWN,
     .call_sent = ESP_UNKNOWN,
     .attempts = 1,
     .posts = 1,
     .http_status = 200},
    {"a redirect is not followed",
     {{ACT_ANSWER,
       "HTTP/1.1 307 Temporary Redirect\r\nLocation: /elsewhere\r\n"
       "Content-Length: 0\r\n\r\n",
       NULL}},
     .max_retries = 3,
     .kind = ESP_BAD_REPLY,
     .sent = ESP_REJECTED,
     .call_sent = ESP_REJECTED,
     .attempts = 1,
     .posts = 1,
     .http_status = 307},
    {"204",
     {{ACT_ANSWER, "HTTP/1.1 204 No Content\r\n\r\n", NULL}},
     .max_retries = 3,
     .kind = ESP_BAD_REPLY,
     .sent = ESP_UNKNOWN,
     .call_sent = ESP_UNKNOWN,
     .attempts = 1,
     .posts = 1,
     .http_status = 204},
    {"403 without a body",
     {{ACT_ANSWER, HEAD("403 Forbidden", "0"), NULL}},
     .max_retries = 3,
     .kind = ESP_HTTP,
     .sent = ESP_REJECTED,
     .call_sent = ESP_REJECTED,
     .attempts = 1,
     .posts = 1,
     .http_status = 403},
};

/* max_retries is 0 in each: one look at one broken answer. */
static const struct scenario faults[] = {
    {"closed without a word",
     {{ACT_CLOSE, NULL, NULL}},
     .kind = ESP_TRANSPORT},
    {"reset", {{ACT_RESET, NULL, NULL}}, .kind = ESP_TRANSPORT},
    {"half a status line", {{ACT_CLOSE, "HTTP/1.1 20", NULL}}, .kind = ANY},
    {"half a head",
     {{ACT_CLOSE, "HTTP/1.1 200 OK\r\nContent-Length: 42\r\n", NULL}},
     .kind = ANY},
    {"an empty head",
     {{ACT_CLOSE, "HTTP/1.1 200 OK\r\n\r\n", NULL}},
     .kind = ESP_BAD_REPLY},
    {"only a 100",
     {{ACT_CLOSE, "HTTP/1.1 100 Continue\r\n\r\n", NULL}},
     .kind = ANY},
    {"a 103 with a length and a body",
     {{ACT_CLOSE,
       "HTTP/1.1 103 Early Hints\r\nContent-Length: 42\r\n\r\n" OK_BODY,
       NULL}},
     .kind = ANY},
    {"a body cut short",
     {{ACT_CLOSE, HEAD("200 OK", "50") OK_BODY, NULL}},
     .kind = ESP_TRANSPORT},
    {"a body longer than said",
     {{ACT_ANSWER, HEAD("200 OK", "41") OK_BODY, NULL}},
     .kind = ESP_BAD_REPLY},
    {"a chunk cut short",
     {{ACT_CLOSE,
       "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
       "40\r\n{\"order_ids\"",
       NULL}},
     .kind = ESP_TRANSPORT},
    {"the last chunk missing",
     {{ACT_CLOSE,
       "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
       "10\r\n{\"order_ids\":[]}\r\n",
       NULL}},
     .kind = ESP_TRANSPORT},
    {"a bad chunk",
     {{ACT_ANSWER,
       "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n",
       NULL}},
     .kind = ESP_TRANSPORT},
    {"no length, closed",
     {{ACT_CLOSE, "HTTP/1.1 200 OK\r\n\r\n" OK_BODY, NULL}},
     .kind = ESP_BAD_REPLY},
    {"two equal lengths",
     {{ACT_ANSWER,
       "HTTP/1.1 200 OK\r\nContent-Length: 42\r\nContent-Length: "
       "42\r\n\r\n" OK_BODY,
       NULL}},
     .kind = ESP_BAD_REPLY},
    {"two different lengths",
     {{ACT_CLOSE,
       "HTTP/1.1 200 OK\r\nContent-Length: 42\r\nContent-Length: "
       "2\r\n\r\n" OK_BODY,
       NULL}},
     .kind = ESP_BAD_REPLY},
    {"a length and chunks",
     {{ACT_ANSWER,
       "HTTP/1.1 200 OK\r\nContent-Length: 26\r\n"
       "Transfer-Encoding: chunked\r\n\r\n"
       "10\r\n{\"order_ids\":[]}\r\n0\r\n\r\n",
       NULL}},
     .kind = ESP_BAD_REPLY},
    {"a negative length",
     {{ACT_CLOSE, HEAD("200 OK", "-1") OK_BODY, NULL}},
     .kind = ESP_BAD_REPLY},
    {"a length that is no number",
     {{ACT_CLOSE, HEAD("200 OK", "many") OK_BODY, NULL}},
     .kind = ANY},
    {"a space before the colon",
     {{ACT_CLOSE, "HTTP/1.1 200 OK\r\nContent-Length : 43\r\n\r\n" OK_BODY,
       NULL}},
     .kind = ANY},
    {"http in small letters",
     {{ACT_CLOSE, "http/1.1 200 OK\r\nContent-Length: 42\r\n\r\n" OK_BODY,
       NULL}},
     .kind = ESP_BAD_REPLY},
    {"the same after an interim answer",
     {{ACT_CLOSE,
       "HTTP/1.1 103 Early Hints\r\nContent-Length: 42\r\n\r\n"
       "hTTP/1.1 200 OK\r\n\r\n" OK_BODY,
       NULL}},
     .kind = ESP_BAD_REPLY},
    {"a head inside of a head",
     {{ACT_CLOSE,
       "HTTP/1.1 200 OK\r\nContent-Length: 42\r\nHTTP/1.1 200 OK\r\n"
       "Content-Length: 42\r\n\r\n" OK_BODY,
       NULL}},
     .kind = ESP_BAD_REPLY},
    {"a head that some end a line earlier",
     {{ACT_CLOSE,
       "HTTP/1.1 200 OK\r\nContent-Length: 42\r\n\rX-Filler: x\r\n" OK_BODY,
       NULL}},
     .kind = ANY},
    {"HTTP/0.9", {{ACT_CLOSE, OK_BODY, NULL}}, .kind = ESP_BAD_REPLY},
    {"garbage",
     {{ACT_CLOSE, "\x16\x03\x01 nonsense\r\n\r\n", NULL}},
     .kind = ESP_BAD_REPLY},
    {"an endless head",
     {{ACT_FLOOD, "HTTP/1.1 200 OK\r\n", "X-Filler: xxxxxxxxxxxxxxxxxx\r\n"}},
     .kind = ESP_BAD_REPLY},
    {"an endless line of a head",
     {{ACT_FLOOD, "HTTP/1.1 200 OK\r\nX-Filler: ", "xxxxxxxx"}},
     .kind = ANY},
    {"endless answers of 100",
     {{ACT_FLOOD, "", "HTTP/1.1 100 Continue\r\n\r\n"}},
     .kind = ESP_BAD_REPLY},
    {"a body of 2 MiB",
     {{ACT_FLOOD, HEAD("200 OK", "2097152"), " "}},
     .kind = ESP_BAD_REPLY},
    {"endless chunks",
     {{ACT_FLOOD, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
       "10\r\n                \r\n"}},
     .kind = ESP_BAD_REPLY},
    {"a hang",
     {{ACT_HANG, NULL, NULL}},
     .timeout_ms = 400,
     .kind = ESP_TIMEOUT},
    {"a hang in the head",
     {{ACT_HANG, "HTTP/1.1 200 OK\r\nContent-Le", NULL}},
     .timeout_ms = 400,
     .kind = ESP_TIMEOUT},
    {"a hang in the body",
     {{ACT_HANG, HEAD("200 OK", "50") OK_BODY, NULL}},
     .timeout_ms = 400,
     .kind = ESP_TIMEOUT},
    {"a drip in the head",
     {{ACT_DRIP, "HTTP/1.1 200 OK\r\nX: ", "x"}},
     .timeout_ms = 400,
     .kind = ESP_TIMEOUT},
    {"a drip in the body",
     {{ACT_DRIP, HEAD("200 OK", "5000"), " "}},
     .timeout_ms = 400,
     .kind = ESP_TIMEOUT},
    {"a drip of 100",
     {{ACT_DRIP, "", "HTTP/1.1 100 Continue\r\n\r\n"}},
     .timeout_ms = 400,
     .kind = ESP_TIMEOUT},
};

static const struct scenario retries[] = {
    {"a lost reply, then 200",
     {{ACT_CLOSE, NULL, NULL}, {ACT_ANSWER, OK_200, NULL}},
     .max_retries = 2,
     .kind = ESP_OK,
     .sent = ESP_DONE,
     .call_sent = ESP_UNKNOWN,
     .attempts = 2,
     .posts = 2,
     .lost_reply = true,
     .http_status = 200},
    {"a lost reply, then 4200",
     {{ACT_CLOSE, NULL, NULL}, {ACT_ANSWER, NOTHING_OPEN, NULL}},
     .max_retries = 2,
     .kind = ESP_OK,
     .sent = ESP_DONE,
     .call_sent = ESP_UNKNOWN,
     .attempts = 2,
     .posts = 2,
     .lost_reply = true,
     .http_status = 400},
    {"a lost reply, locked, then 4200",
     {{ACT_CLOSE, NULL, NULL},
      {ACT_ANSWER, LOCKED, NULL},
      {ACT_ANSWER, NOTHING_OPEN, NULL}},
     .max_retries = 2,
     .kind = ESP_OK,
     .sent = ESP_DONE,
     .call_sent = ESP_UNKNOWN,
     .attempts = 3,
     .posts = 3,
     .lost_reply = true,
     .http_status = 400},
    {"a lost reply, then a refusal",
     {{ACT_CLOSE, NULL, NULL}, {ACT_ANSWER, HEAD("403 Forbidden", "0"), NULL}},
     .max_retries = 2,
     .kind = ESP_HTTP,
     .sent = ESP_REJECTED,
     .call_sent = ESP_UNKNOWN,
     .attempts = 2,
     .posts = 2,
     .http_status = 403},
    {"every reply lost",
     {{ACT_CLOSE, NULL, NULL},
      {ACT_RESET, NULL, NULL},
      {ACT_CLOSE, NULL, NULL}},
     .max_retries = 2,
     .kind = ESP_TRANSPORT,
     .sent = ESP_UNKNOWN,
     .call_sent = ESP_UNKNOWN,
     .attempts = 3,
     .posts = 3},
    {"no retry allowed",
     {{ACT_CLOSE, NULL, NULL}},
     .kind = ESP_TRANSPORT,
     .sent = ESP_UNKNOWN,
     .call_sent = ESP_UNKNOWN,
     .attempts = 1,
     .posts = 1},
    {"a gateway's 503, then 200",
     {{ACT_ANSWER, ENVOY, NULL}, {ACT_ANSWER, OK_200, NULL}},
     .max_retries = 2,
     .kind = ESP_OK,
     .sent = ESP_DONE,
     .call_sent = ESP_UNKNOWN,
     .attempts = 2,
     .posts = 2,
     .lost_reply = true,
     .http_status = 200},
    {"locked, then 200",
     {{ACT_ANSWER, LOCKED, NULL}, {ACT_ANSWER, OK_200, NULL}},
     .max_retries = 2,
     .kind = ESP_OK,
     .sent = ESP_DONE,
     .call_sent = ANY,
     .attempts = 2,
     .posts = 2,
     .http_status = 200},
    {"locked, then 4200",
     {{ACT_ANSWER, LOCKED, NULL}, {ACT_ANSWER, NOTHING_OPEN, NULL}},
     .max_retries = 2,
     .kind = ESP_API,
     .sent = ESP_REJECTED,
     .call_sent = ESP_REJECTED,
     .attempts = 2,
     .posts = 2,
     .http_status = 400},
    {"locked for ever",
     {{ACT_ANSWER, LOCKED, NULL}, {ACT_ANSWER, LOCKED, NULL}},
     .max_retries = 1,
     .kind = ESP_API,
     .sent = ESP_REJECTED,
     .call_sent = ESP_REJECTED,
     .attempts = 2,
     .posts = 2,
     .http_status = 503},
    {"too many, Retry-After: 0",
     {{ACT_ANSWER, REPLY_4290("Retry-After: 0\r\n"), NULL},
      {ACT_ANSWER, OK_200, NULL}},
     .max_retries = 2,
     .timeout_ms = 1000,
     .kind = ESP_OK,
     .sent = ESP_DONE,
     .call_sent = ANY,
     .attempts = 2,
     .posts = 2,
     .http_status = 200},
    {"too many, the window does not fit",
     {{ACT_ANSWER, REPLY_4290(""), NULL}},
     .max_retries = 2,
     .timeout_ms = 2000,
     .kind = ESP_API,
     .sent = ESP_REJECTED,
     .call_sent = ESP_REJECTED,
     .attempts = 1,
     .posts = 1,
     .http_status = 429},
    {"too many, Retry-After does not fit",
     {{ACT_ANSWER, REPLY_4290("Retry-After: \t 3600 \r\n"), NULL}},
     .max_retries = 2,
     .kind = ESP_API,
     .sent = ESP_REJECTED,
     .call_sent = ESP_REJECTED,
     .attempts = 1,
     .posts = 1,
     .http_status = 429},
    {"408, then 200",
     {{ACT_ANSWER_CLOSE, HEAD("408 Request Timeout", "0"), NULL},
      {ACT_ANSWER, OK_200, NULL}},
     .max_retries = 2,
     .kind = ESP_OK,
     .sent = ESP_DONE,
     .call_sent = ESP_UNKNOWN,
     .attempts = 2,
     .posts = 2,
     .lost_reply = true,
     .http_status = 200},
    {"no length, then 200",
     {{ACT_CLOSE, "HTTP/1.1 200 OK\r\n\r\n" OK_BODY, NULL},
      {ACT_ANSWER, OK_200, NULL}},
     .max_retries = 2,
     .kind = ESP_OK,
     .sent = ESP_DONE,
     .call_sent = ESP_UNKNOWN,
     .attempts = 2,
     .posts = 2,
     .lost_reply = true,
     .http_status = 200},
    {"a hang, then 200",
     {{ACT_HANG, NULL, NULL}, {ACT_ANSWER, OK_200, NULL}},
     .max_retries = 2,
     .timeout_ms = 5000,
     .attempt_timeout_ms = 400,
     .kind = ESP_OK,
     .sent = ESP_DONE,
     .call_sent = ESP_UNKNOWN,
     .attempts = 2,
     .posts = 2,
     .lost_reply = true,
     .http_status = 200},
    {"the first attempt leaves time for a second",
     {{ACT_HANG, NULL, NULL}, {ACT_ANSWER, OK_200, NULL}},
     .max_retries = 1,
     .timeout_ms = 1000,
     .kind = ESP_OK,
     .sent = ESP_DONE,
     .call_sent = ESP_UNKNOWN,
     .attempts = 2,
     .posts = 2,
     .lost_reply = true,
     .http_status = 200},
    {"an undocumented code is final",
     {{ACT_ANSWER,
       HEAD("400 Bad Request", "26") "{\"error\":\"x\",\"code\":4201 }",
       NULL}},
     .max_retries = 3,
     .kind = ESP_API,
     .sent = ESP_UNKNOWN,
     .call_sent = ESP_UNKNOWN,
     .attempts = 1,
     .posts = 1,
     .http_status = 400},
};

static void
check(const struct scenario *row, struct world *world)
{
    const struct esp_outcome *outcome = &world->outcome;

    CHECK(row->name,
          row->kind == (enum esp_kind)ANY || outcome->kind == row->kind);
    CHECK(row->name, outcome->sent == row->sent);
    CHECK(row->name,
          row->call_sent == ANY || (int)outcome->call_sent == row->call_sent);
    CHECK(row->name, outcome->attempts == row->attempts);
    CHECK(row->name, outcome->attempts_max == row->max_retries + 1);
    /* A server that is late reads its last request after we gave up. */
    CHECK(row->name, server_wait_requests(world->server, row->posts));
    CHECK(row->name, server_posts(world->server) == row->posts);
    CHECK(row->name, outcome->lost_reply == row->lost_reply);
    CHECK(row->name,
          row->http_status == ANY || outcome->http_status == row->http_status);
    CHECK(row->name, outcome->kind == ESP_OK || outcome->message[0] != '\0');
    CHECK(row->name, outcome->elapsed_s >= 0);
    CHECK(row->name,
          outcome->elapsed_s * 1000 <=
              (double)world->cancel.timeout_ms + 2000); /* a hang, not speed */
}

static void
run(const struct scenario *row, void (*press)(struct world *))
{
    struct world world;
    size_t steps = 0;

    while (steps < COUNT_OF(row->steps) && (row->steps[steps].act != ACT_ECHO))
        steps++;
    world_open(&world, row->steps, steps);
    world.cancel.max_retries = row->max_retries;
    world.cancel.missing_ok = row->missing_ok;
    world.cancel.attempt_timeout_ms = row->attempt_timeout_ms;
    if (row->timeout_ms > 0)
        world.cancel.timeout_ms = row->timeout_ms;
    press(&world);
    check(row, &world);
    world_close(&world);
}

static void
run_all(const struct scenario *rows, size_t count)
{
    for (; count > 0; count--, rows++) {
        run(rows, world_press);
        run(rows, world_press_by_hand);
    }
}

static void
test_answers(void **state)
{
    (void)state;
    run_all(answers, COUNT_OF(answers));
}

/* Whatever is broken about an answer: one POST, and nobody knows. */
static void
test_faults(void **state)
{
    struct scenario row;
    size_t i;

    (void)state;
    for (i = 0; i < COUNT_OF(faults); i++) {
        row = faults[i];
        row.sent = ESP_UNKNOWN;
        row.call_sent = ESP_UNKNOWN;
        row.attempts = row.posts = 1;
        row.http_status = ANY;
        run_all(&row, 1);
    }
}

static void
test_retries(void **state)
{
    (void)state;
    run_all(retries, COUNT_OF(retries));
}

/* Nobody listens: nothing left, and the first retry comes at once. */
static void
test_refused(void **state)
{
    struct world world;

    (void)state;
    world_open(&world, NULL, 0);
    server_stop(world.server);
    world.server = NULL;
    world.cancel.max_retries = 1;
    world_press(&world);
    assert_int_equal(world.outcome.kind, ESP_TRANSPORT);
    assert_int_equal(world.outcome.sent, ESP_NOT_SENT);
    assert_int_equal(world.outcome.call_sent, ESP_NOT_SENT);
    assert_int_equal(world.outcome.attempts, 2);
    assert_int_equal(world.outcome.curl_code, CURLE_COULDNT_CONNECT);
    assert_false(world.outcome.certificate);
    world_close(&world);
}

/* What the exchange gets is the one request of the specification. */
static void
test_request(void **state)
{
    struct esp_settings settings = {.user_agent = "espresso-test/1"};
    struct world world;
    char url[128];
    char text[2048];

    (void)state;
    world_open_with(&world, NULL, 0, settings);
    snprintf(url, sizeof url, "%s/v1/", server_url(world.server));
    settings.base_url = url;
    esp_pool_release(world.pool);
    world.pool = esp_pool_new(world.group, &settings, NULL);
    assert_non_null(world.pool);
    world_press(&world);
    assert_int_equal(world.outcome.kind, ESP_OK);
    server_last_request(world.server, text, sizeof text);
    assert_memory_equal(text, "POST /v1/order/cancel-all HTTP/1.1\r\n", 36);
    assert_non_null(strstr(text, "\r\nX-API-KEY: " KEY "\r\n"));
    assert_non_null(strstr(text, "\r\nContent-Type: application/json\r\n"));
    assert_non_null(strstr(text, "\r\nAccept: application/json\r\n"));
    assert_non_null(strstr(text, "\r\nUser-Agent: espresso-test/1\r\n"));
    assert_non_null(strstr(text, "\r\n\r\n{\"symbol\":\"ADAUSDM\"}"));
    assert_null(strstr(text, "Expect"));
    assert_null(strstr(text, "Cookie"));
    assert_null(strstr(text, "Accept-Encoding"));
    assert_null(strstr(text, "Authorization"));
    world_close(&world);
}

/* A server that echoes the key puts it into no text of ours. */
static void
test_key_is_masked(void **state)
{
    static const struct step steps[] = {
        {ACT_ANSWER,
         HEAD("400 Bad Request", "71") "{\"error\":\"no key " KEY
                                       " here, my friend\",\"code\":4010}",
         NULL},
        {ACT_ANSWER, HEAD("404 Not Found", "27") "no " KEY, NULL},
        {ACT_ANSWER, HEAD("200 OK", "26") "[\"" KEY, NULL},
        {ACT_CLOSE, KEY "\r\n", NULL},
    };
    struct world world;
    size_t i;

    (void)state;
    world_open(&world, steps, COUNT_OF(steps));
    for (i = 0; i < COUNT_OF(steps); i++) {
        world_press(&world);
        assert_int_not_equal(world.outcome.kind, ESP_OK);
        assert_null(strstr(world.outcome.message, "0123456789abcdef"));
        assert_null(strstr(world.outcome.body, "0123456789abcdef"));
    }
    assert_int_equal(server_posts(world.server), (int)COUNT_OF(steps));
    world_close(&world);
}

/* What cannot be sent is refused before anything is opened. */
static void
test_bad_options(void **state)
{
    static const struct esp_cancel good = {.symbol = SYMBOL,
                                           .api_key = KEY,
                                           .timeout_ms = 1000,
                                           .connect_timeout_ms = 1000};
    struct esp_cancel rows[10];
    struct world world;
    size_t i;

    (void)state;
    for (i = 0; i < COUNT_OF(rows); i++)
        rows[i] = good;
    rows[0].timeout_ms = 0;
    rows[1].timeout_ms = -1;
    rows[2].timeout_ms = ESP_TIMEOUT_MAX_MS + 1;
    rows[3].connect_timeout_ms = 0;
    rows[4].attempt_timeout_ms = -1;
    rows[5].max_retries = -1;
    rows[6].max_retries = ESP_RETRIES_MAX + 1;
    rows[7].symbol = "ADA/USDM";
    rows[8].api_key = "sandbox-x\r\nInjected: yes";
    rows[9].api_key = "";
    world_open(&world, NULL, 0);
    for (i = 0; i < COUNT_OF(rows); i++) {
        world.cancel = rows[i];
        world_press(&world);
        assert_int_equal(world.outcome.kind, ESP_BAD_ARGUMENT);
        assert_int_equal(world.outcome.call_sent, ESP_NOT_SENT);
        assert_int_equal(world.outcome.attempts, 0);
        assert_true(world.outcome.message[0] != '\0');
        assert_null(strstr(world.outcome.message, "sandbox"));
    }
    world.cancel = good;
    world.cancel.timeout_ms = ESP_TIMEOUT_MAX_MS;
    world.cancel.max_retries = ESP_RETRIES_MAX;
    world_press(&world);
    assert_int_equal(world.outcome.kind, ESP_OK);
    assert_int_equal(server_connections(world.server), 1);
    world_close(&world);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers),
        cmocka_unit_test(test_faults),
        cmocka_unit_test(test_retries),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_request),
        cmocka_unit_test(test_key_is_masked),
        cmocka_unit_test(test_bad_options),
    };

    return cmocka_run_group_tests_name("attempts", tests, NULL, NULL);
}
