/* press.c - the engine on a clock of its own: a press of one or several
 * symbols, whose transfers end as the input says.
 *
 *     1 byte   symbols, 1 byte flags, 1 byte max_retries
 *     4 bytes  timeout_ms, 2 bytes attempt_timeout_ms
 *     then, for whatever is next: 1 byte what happens, 2 bytes how long
 *
 * press.c, call.c, attempt.c, pace.c, policy.c, response.c and pool.c are the
 * real ones; the lane and the clocks are played here, so that hours pass in
 * no time.  What the press claims is held against what happened. */
#include "fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SYMBOLS_MAX 13 /* three more than start at once */
#define STARTS_MAX 4096
#define TURNS_MAX 100000
#define GRACE_MS 5 /* attempt.c: libcurl's own time-out comes first */
#define LEAST_MS 100
#define START_AT 1000000 /* of the clock */

enum flag {
    FLAG_MISSING_OK = 1,
    FLAG_CONFIRM = 2,
    FLAG_JITTER = 4,    /* turns come late */
    FLAG_HOOK = 8,      /* on_attempt is there, and may take its time */
    FLAG_INTERRUPT = 16 /* ... or say stop; or the caller does */
};

/* ---- What may happen to a transfer -------------------------------------- */

/* What the contract's table says of it, written down here once more. */
struct event {
    const char *name;
    CURLcode curl_code;
    int status; /* 0: no answer */
    const char *retry_after;
    const char *body;
    enum esp_sent sent;
    bool is_retried;
    int64_t wait_ms; /* at least, before the next attempt */
    bool is_done;    /* a 200 that says so */
    bool is_nothing_open;
};

#define NO_WAIT 0
#define EVENT_REFUSED 3 /* of the table */
#define EVENT_SILENCE 6
#define API(number) "{\"error\":\"x\",\"code\":" #number "}"

static const struct event events[] = {
    {"nothing open", CURLE_OK, 400, "", API(4200), ESP_REJECTED, false,
     NO_WAIT, false, true},
    {"done", CURLE_OK, 200, "", "{\"order_ids\":[\"a\"]}", ESP_DONE, false,
     NO_WAIT, true, false},
    {"none cancelled", CURLE_OK, 200, "", "{\"order_ids\":[]}", ESP_DONE,
     false, NO_WAIT, true, false},
    {"refused connection", CURLE_COULDNT_CONNECT, 0, "", "", ESP_NOT_SENT,
     true, NO_WAIT, false, false},
    {"bad certificate", CURLE_PEER_FAILED_VERIFICATION, 0, "", "",
     ESP_NOT_SENT, false, NO_WAIT, false, false},
    {"reset", CURLE_RECV_ERROR, 0, "", "", ESP_UNKNOWN, true, 50, false,
     false},
    {"silence", CURLE_OPERATION_TIMEDOUT, 0, "", "", ESP_UNKNOWN, true, 50,
     false, false},
    {"rate limit", CURLE_OK, 429, "", API(4290), ESP_REJECTED, true, 2000,
     false, false},
    {"rate limit, 3 s", CURLE_OK, 429, "3", API(4290), ESP_REJECTED, true,
     3000, false, false},
    {"rate limit, 0 s", CURLE_OK, 400, "0", API(4290), ESP_REJECTED, true,
     NO_WAIT, false, false},
    {"locked", CURLE_OK, 503, "", API(5002), ESP_REJECTED, true, 50, false,
     false},
    {"server error", CURLE_OK, 400, "", API(5000), ESP_UNKNOWN, true, 50,
     false, false},
    {"gateway", CURLE_OK, 503, "", "upstream", ESP_UNKNOWN, true, 50, false,
     false},
    {"unauthorized", CURLE_OK, 401, "", API(4010), ESP_REJECTED, false,
     NO_WAIT, false, false},
    {"undocumented", CURLE_OK, 400, "", API(4999), ESP_UNKNOWN, false, NO_WAIT,
     false, false},
    {"html", CURLE_OK, 200, "", "<html>", ESP_UNKNOWN, false, NO_WAIT, false,
     false},
    {"redirect", CURLE_OK, 302, "", "", ESP_REJECTED, false, NO_WAIT, false,
     false},
    {"request time-out", CURLE_OK, 408, "", "", ESP_UNKNOWN, true, 50, false,
     false},
};

/* Kinds of trouble that are no end of a transfer. */
enum trouble {
    TROUBLE_NONE,
    TROUBLE_STALE,   /* the kept connection was dead: nothing was sent */
    TROUBLE_AT_ONCE, /* lane_start says that it cannot begin */
    TROUBLE_DEAF,    /* libcurl forgets its own time-out */
    TROUBLE_NAME,    /* where nothing is sent: the name is not found before */
    TROUBLE_COUNT
};

/* ---- What has happened -------------------------------------------------- */

struct start {
    int64_t at;
    int64_t ended_at;
    const char *symbol;
    const struct event *event; /* NULL: it was cut off */
    bool left;
    bool is_stale;      /* it found its connection dead */
    bool is_same_still; /* goes on for one that did */
};

static struct world {
    struct input input;
    int64_t now;
    unsigned flags;
    struct esp_cancel cancel;
    struct esp_press *press;
    struct start starts[STARTS_MAX];
    size_t count;
    int64_t late_ms; /* that the turns and the hook have cost */
    bool is_interrupted;
} world;

int64_t
esp_clock_ms(void)
{
    return world.now;
}

int64_t
clock_boot_ms(void)
{
    return world.now;
}

/* ---- A lane that is played ---------------------------------------------- */

/* A lane and the transfer on it. */
struct played {
    struct esp_lane lane; /* first: the core knows no more */
    size_t start;
    const struct event *event;
    int64_t ends_at;
    bool looks_up;
};

struct esp_lane *
lane_new(struct esp_shared *shared)
{
    struct played *played = calloc(1, sizeof *played);

    buffer_init(&played->lane.response.body, ESP_BODY_MAX);
    played->lane.timer_at = -1;
    played->lane.shared = shared;
    return &played->lane;
}

bool
lane_looks_up(const struct esp_lane *lane)
{
    return lane->running &&
           ((const struct played *)(const void *)lane)->looks_up;
}

void
lane_close(struct esp_lane *lane)
{
    lane->running = false;
    lane->multi = NULL;
    lane->socket_count = 0;
    lane->timer_at = -1;
}

void
lane_abandon(struct esp_lane *lane)
{
    lane_close(lane);
    lane->abandoned = true;
}

void
lane_free(struct esp_lane *lane)
{
    if (lane == NULL)
        return;
    buffer_free(&lane->response.body);
    free(lane);
}

static void
check_request(const struct esp_request *request)
{
    int64_t left = world.press->deadline - world.now;

    HOLDS(request->timeout_ms >= 1);
    HOLDS(request->timeout_ms == 1 || request->timeout_ms <= left);
    HOLDS(request->connect_timeout_ms >= 1);
    HOLDS(request->connect_timeout_ms <= request->timeout_ms);
    HOLDS(strcmp(request->api_key, KEY) == 0);
    if (world.cancel.attempt_timeout_ms > 0)
        HOLDS(request->timeout_ms <= world.cancel.attempt_timeout_ms);
}

/* Whether the last one of this symbol found its connection dead. */
static bool
was_stale(const char *symbol)
{
    size_t i = world.count;

    while (i > 0 && world.starts[i - 1].symbol != symbol)
        i--;
    return i > 0 && world.starts[i - 1].is_stale;
}

/* Write down that an attempt begins. */
static struct start *
note_start(struct played *played, const struct esp_request *request)
{
    struct start *start = &world.starts[world.count];
    bool is_same_still = was_stale(request->symbol);

    HOLDS(world.count < STARTS_MAX);
    played->start = world.count++;
    *start = (struct start){.at = world.now,
                            .ended_at = -1,
                            .symbol = request->symbol,
                            .event = played->event,
                            .is_same_still = is_same_still};
    return start;
}

static void
play(struct played *played, const struct esp_request *request)
{
    struct esp_lane *lane = &played->lane;
    unsigned trouble = input_byte(&world.input) & 15;
    int64_t lasts = input_16(&world.input) % 4096;
    struct start *start;

    played->event =
        &events[input_below(&world.input, sizeof events / sizeof *events)];
    start = note_start(played, request);
    start->is_stale = trouble == TROUBLE_STALE && lane->socket_count > 0;
    start->left = !start->is_stale && played->event->sent != ESP_NOT_SENT;
    played->looks_up =
        trouble == TROUBLE_NAME && !start->left && !start->is_stale;
    lane->found_stale = start->is_stale;
    lane->response.left = start->left;
    lane->left_at = world.now;
    if (lasts > request->timeout_ms ||
        played->event->curl_code == CURLE_OPERATION_TIMEDOUT) {
        lasts = request->timeout_ms;
        if (start->left) /* it ends before that event */
            start->event = played->event = &events[EVENT_SILENCE];
        if (trouble == TROUBLE_DEAF && !start->is_stale)
            lasts = ESP_TIMEOUT_MAX_MS * INT64_C(2);
    }
    played->ends_at = world.now + lasts;
    lane->timer_at = played->ends_at;
    lane->running =
        trouble != TROUBLE_AT_ONCE || start->left || start->is_stale;
}

/* The transfer has come to its end. */
static void
finish(struct played *played)
{
    const struct event *event = played->event;
    struct esp_response *response = &played->lane.response;
    struct start *start = &world.starts[played->start];

    played->lane.running = false;
    played->lane.timer_at = -1;
    start->ended_at = world.now;
    response->curl_code = event->curl_code;
    response->http_status = event->status;
    response->head_complete = event->status != 0;
    response->framing_headers = event->status != 0;
    snprintf(response->retry_after, sizeof response->retry_after, "%s",
             event->retry_after);
    if (start->is_stale) {
        response->curl_code = CURLE_ABORTED_BY_CALLBACK;
        if (world.now >= world.press->deadline) { /* no time for another */
            start->is_stale = false;
            start->event = &events[EVENT_REFUSED];
        }
    }
    HOLDS(buffer_append(&response->body, event->body, strlen(event->body)) ==
          BUFFER_OK);
    if (event->status != 0) {
        played->lane.multi = (CURLM *)played; /* a connection is kept */
        played->lane.socket_count = 1;
    }
}

bool
lane_start(struct esp_lane *lane, const struct esp_target *target,
           const struct esp_request *request)
{
    struct played *played = (struct played *)lane;

    (void)target;
    check_request(request);
    response_reset(&lane->response);
    lane->call->random = input_16(&world.input) | 1u; /* not an address */
    play(played, request);
    if (!lane->running)
        finish(played);
    return lane->running;
}

bool
lane_on_timer(struct esp_lane *lane)
{
    struct played *played = (struct played *)lane;

    if (!lane->running || world.now < played->ends_at)
        return false;
    finish(played);
    return true;
}

bool
lane_on_socket(struct esp_lane *lane, int fd, bool readable, bool writable)
{
    (void)fd;
    (void)readable;
    (void)writable;
    return lane_on_timer(lane);
}

void
lane_abort(struct esp_lane *lane, CURLcode code, const char *why)
{
    struct played *played = (struct played *)lane;
    struct start *start = &world.starts[played->start];

    if (lane->running) {
        start->ended_at = world.now;
        start->is_stale = false; /* nobody has found that yet */
        start->event = NULL;
        if (code == CURLE_OPERATION_TIMEDOUT)
            start->event =
                &events[start->left ? EVENT_SILENCE : EVENT_REFUSED];
    }
    snprintf(lane->response.detail, sizeof lane->response.detail, "%s", why);
    lane->response.curl_code = code;
    lane_close(lane);
}

/* ---- The caller --------------------------------------------------------- */

static int
on_attempt(void *user, const struct esp_attempt *attempt)
{
    int64_t takes = input_16(&world.input) % 512;
    bool stops = (world.flags & FLAG_INTERRUPT) != 0 &&
                 input_byte(&world.input) % 32 == 31;

    (void)user;
    HOLDS(attempt->number >= 1);
    HOLDS(attempt->next_in_ms >= -1);
    check_outcome(attempt->outcome);
    world.now += takes;
    world.late_ms += takes;
    world.is_interrupted = world.is_interrupted || stops;
    return stops;
}

static void
pass_time(void)
{
    int64_t turn_at = press_turn_at(world.press);
    int64_t late =
        (world.flags & FLAG_JITTER) != 0 ? input_byte(&world.input) % 64 : 0;

    HOLDS(turn_at != INT64_MAX); /* else it waits for ever */
    if (turn_at > world.now)
        world.now = turn_at;
    world.now += late;
    world.late_ms += late;
}

static void
drive(void)
{
    int turns = 0;

    while (!esp_press_is_done(world.press)) {
        HOLDS(++turns < TURNS_MAX);
        if ((world.flags & FLAG_INTERRUPT) != 0 &&
            input_byte(&world.input) == 255) {
            world.is_interrupted = true;
            esp_press_interrupt(world.press);
            break;
        }
        pass_time();
        press_on_timer(world.press);
    }
}

/* ---- What must be true -------------------------------------------------- */

/* What happened to one symbol. */
struct story {
    const char *symbol;
    const struct start *last; /* NULL: it never began */
    int attempts;
    int round_attempts;
    int rounds; /* that ended with a success */
    enum esp_sent worst;
    bool was_lost; /* an attempt but the last ended unknown */
};

static bool
is_success(const struct start *start)
{
    return start->event != NULL && start->event->is_done;
}

/* Another attempt was made after `last`: was it allowed, and late enough? */
static void
check_next_attempt(const struct story *story, const struct start *next)
{
    const struct start *last = story->last;

    HOLDS(last->event != NULL && last->ended_at >= 0);
    if (is_success(last)) {
        HOLDS(world.cancel.confirm);
        return;
    }
    HOLDS(last->event->is_retried);
    HOLDS(story->round_attempts <= world.cancel.max_retries);
    HOLDS(next->at - last->ended_at >= last->event->wait_ms ||
          /* the first after one that was not sent is at once */
          last->event->sent == ESP_NOT_SENT);
}

static enum esp_sent
sent_of(const struct start *start)
{
    if (!start->left)
        return ESP_NOT_SENT;
    return start->event != NULL ? start->event->sent : ESP_UNKNOWN;
}

static void
add_to_story(struct story *story, const struct start *start)
{
    if (story->last != NULL && !story->last->is_stale) {
        check_next_attempt(story, start);
        if (is_success(story->last)) {
            story->rounds++;
            story->round_attempts = 0;
        }
        else if (sent_of(story->last) == ESP_UNKNOWN) {
            story->was_lost = true;
        }
    }
    story->attempts += !start->is_stale;
    story->round_attempts += !start->is_stale;
    if (!is_success(start) && sent_of(start) > story->worst)
        story->worst = sent_of(start);
    story->last = start;
}

static struct story
story_of(const char *symbol)
{
    struct story story = {.symbol = symbol, .worst = ESP_NOT_SENT};
    size_t i;

    for (i = 0; i < world.count; i++) {
        if (strcmp(world.starts[i].symbol, symbol) == 0)
            add_to_story(&story, &world.starts[i]);
    }
    return story;
}

/* A success is the exchange's word, and for `confirm` that nothing is open. */
static void
check_success(const struct story *story, const struct esp_outcome *outcome)
{
    const struct event *event = story->last->event;

    HOLDS(event != NULL && story->last->left);
    if (event->is_done)
        HOLDS(!world.cancel.confirm && outcome->json != NULL);
    else
        HOLDS(event->is_nothing_open && outcome->json == NULL &&
              (world.cancel.confirm || world.cancel.missing_ok ||
               story->was_lost));
    HOLDS(outcome->lost_reply == story->was_lost);
    HOLDS(outcome->call_sent == (story->was_lost ? ESP_UNKNOWN : ESP_DONE));
}

/* What the exchange called done, or answered to the question, is no error. */
static void
check_error(const struct story *story, const struct esp_outcome *outcome)
{
    const struct event *event = story->last->event;

    HOLDS(outcome->json == NULL && !outcome->lost_reply);
    HOLDS(outcome->call_sent != ESP_DONE ||
          (story->rounds > 0 && story->worst == ESP_NOT_SENT) ||
          world.is_interrupted || is_success(story->last));
    HOLDS(outcome->call_sent >= story->worst);
    if (event == NULL || world.is_interrupted)
        return;
    if (outcome->kind == ESP_STILL_OPEN)
        HOLDS(world.cancel.confirm && event->is_done);
    HOLDS(!event->is_done || world.cancel.confirm);
    HOLDS(
        !event->is_nothing_open ||
        !(world.cancel.confirm || world.cancel.missing_ok || story->was_lost));
}

static void
check_symbol(const char *symbol, const struct esp_outcome *outcome)
{
    struct story story = story_of(symbol);

    check_outcome(outcome);
    HOLDS(outcome->attempts == story.attempts);
    HOLDS(outcome->attempts_max ==
          (world.cancel.confirm ? 0 : world.cancel.max_retries + 1));
    if (story.last == NULL) {
        HOLDS(outcome->kind == ESP_TIMEOUT || world.is_interrupted);
        HOLDS(outcome->call_sent == ESP_NOT_SENT);
        return;
    }
    if (outcome->kind == ESP_OK)
        check_success(&story, outcome);
    else
        check_error(&story, outcome);
}

/* At most ten requests of one press start within two seconds. */
static void
check_pace(void)
{
    int64_t recent[ESP_RATE_CALLS] = {0};
    size_t posts = 0;
    size_t i;

    for (i = 0; i < world.count; i++) {
        if (!world.starts[i].left)
            continue;
        HOLDS(posts < ESP_RATE_CALLS ||
              world.starts[i].at - recent[posts % ESP_RATE_CALLS] >=
                  ESP_RATE_WINDOW_MS);
        recent[posts++ % ESP_RATE_CALLS] = world.starts[i].at;
    }
}

/* Nothing begins, and nothing ends, beyond the deadline. */
static void
check_deadline(void)
{
    int64_t deadline = START_AT + world.cancel.timeout_ms;
    size_t i;

    HOLDS(world.now <= deadline + GRACE_MS + world.late_ms + 1);
    for (i = 1; i < world.count; i++)
        HOLDS(world.starts[i].at + LEAST_MS <= deadline ||
              world.starts[i].is_same_still ||
              world.starts[i].at == world.starts[0].at || world.late_ms > 0);
}

/* One that could be tried again was: for one symbol on an exact clock. */
static void
check_persistence(const struct esp_outcome *outcome)
{
    const struct start *last = &world.starts[world.count - 1];
    int64_t left = START_AT + world.cancel.timeout_ms - world.now;

    if (world.press->count > 1 || world.cancel.confirm || world.late_ms > 0 ||
        world.is_interrupted || outcome->kind == ESP_OK)
        return;
    HOLDS(!last->event->is_retried ||
          outcome->attempts > world.cancel.max_retries ||
          left < 2000 + LEAST_MS || /* the longest back-off */
          left < last->event->wait_ms + LEAST_MS);
}

static void
check(void)
{
    size_t i;

    for (i = 0; i < world.press->count; i++)
        check_symbol(world.press->symbols[i],
                     esp_press_outcome(world.press, i));
    check_pace();
    check_deadline();
    check_persistence(esp_press_outcome(world.press, 0));
}

/* ---- One run ------------------------------------------------------------ */

static struct esp_pool *
open_pool(void)
{
    static struct esp_group *group;
    struct esp_settings settings = ESP_SETTINGS_DEFAULT;
    struct esp_error error;

    if (group == NULL)
        group = esp_group_new();
    return esp_pool_new(group, &settings, &error);
}

static void
take_cancel(struct input *input, const char *symbol)
{
    unsigned flags = input_byte(input);
    int max_retries = input_byte(input) % 12;
    int64_t timeout_ms = 1 + input_32(input) % 60000;
    int64_t attempt_timeout_ms = input_16(input) % 8192;

    world.flags = flags;
    world.cancel =
        (struct esp_cancel){.symbol = symbol,
                            .api_key = KEY,
                            .missing_ok = (flags & FLAG_MISSING_OK) != 0,
                            .confirm = (flags & FLAG_CONFIRM) != 0,
                            .max_retries = max_retries,
                            .timeout_ms = timeout_ms,
                            .attempt_timeout_ms = attempt_timeout_ms,
                            .connect_timeout_ms = 2000};
    if (flags & FLAG_HOOK)
        world.cancel.hooks.on_attempt = on_attempt;
}

/* press_start begins attempts before it returns what it has begun. */
static void
take_press(const struct press_plan *plan, struct esp_outcome *refused)
{
    static struct esp_press early;

    early.deadline = world.now + world.cancel.timeout_ms;
    world.press = &early;
    world.press = press_start(plan, refused);
    HOLDS(world.press != NULL);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const symbols[SYMBOLS_MAX] = {
        "A", "B", "C", "D", "E", "F", "G", "H", "I", "J", "K", "L", "M"};
    struct input input = {data, size};
    size_t count = 1 + input_below(&input, SYMBOLS_MAX);
    struct esp_pool *pool = open_pool();
    struct esp_outcome refused;
    struct press_plan plan;

    world.now = START_AT;
    world.count = 0;
    world.late_ms = 0;
    world.is_interrupted = false;
    take_cancel(&input, symbols[0]);
    world.input = input;
    plan = (struct press_plan){.pool = pool,
                               .cancel = &world.cancel,
                               .symbols = symbols,
                               .count = count};
    take_press(&plan, &refused);
    drive();
    check();
    esp_press_free(world.press);
    esp_pool_release(pool);
    return 0;
}
