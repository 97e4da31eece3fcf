/* call.c - the life of a call: its attempts, its deadline, and what it may
 * claim in the end.
 *
 *     esp_call_start      enter the pool, first attempt
 *       attempt_begin     a lane, a request, the first turn of libcurl
 *       esp_call_on_...   turns, until the lane's transfer has ended
 *       attempt_end       judge, remember what is unknown, ask the policy
 *         wait            ... and attempt_begin again, or
 *         call_end        the outcome speaks of all attempts
 *
 * Nothing here blocks; driver.c or an event loop gives the turns. */
#include "core.h"

#include <stdlib.h>
#include <string.h>

#define NOTHING_OPEN 4200 /* [field]: the code of "nothing was open" */
#define GRACE_MS 5        /* libcurl's own time-out comes first */

static void attempt_begin(struct esp_call *call);

/* ---- The end ------------------------------------------------------------ */

static void
call_end(struct esp_call *call)
{
    struct esp_outcome *outcome = call->outcome;

    call->state = CALL_DONE;
    outcome->attempts = call->attempts;
    outcome->attempts_max = call->cancel.max_retries + 1;
    outcome->call_sent = call->worst;
    if (outcome->kind == ESP_OK && !call->is_warm_up && !call->reply_lost)
        outcome->call_sent = ESP_DONE;
    outcome->elapsed_s = (double)(clock_now_ms() - call->started_at) / 1000;
    pool_leave(call->pool, &call->entry);
}

/* End with a transport outcome that no exchange has spoken to. */
static void
call_fail(struct esp_call *call, enum esp_kind kind, enum esp_sent sent,
          const char *message)
{
    struct esp_outcome *outcome = call->outcome;

    esp_outcome_free(outcome);
    esp_outcome_init(outcome); /* nothing of an earlier attempt stays */
    outcome->kind = kind;
    outcome->sent = sent;
    text_copy_masked(outcome->message, sizeof outcome->message, message,
                     strlen(message), NULL);
    if (sent > call->worst)
        call->worst = sent;
    call_end(call);
}

/* What the transfer under way has sent, if the call ends here.  A warm-up
 * carries no cancel. */
static enum esp_sent
sent_so_far(const struct esp_call *call)
{
    bool left = call->state == CALL_RUNNING && call->entry.lane != NULL &&
                call->entry.lane->response.left && !call->is_warm_up;

    return left ? ESP_UNKNOWN : ESP_NOT_SENT;
}

static void
call_stop(struct esp_call *call, enum esp_kind kind, const char *message)
{
    enum esp_sent sent = sent_so_far(call);

    if (call->entry.lane != NULL && !call->entry.lane->abandoned)
        lane_abort(call->entry.lane, CURLE_ABORTED_BY_CALLBACK, message);
    call_fail(call, kind, sent, message);
}

void
call_end_closed(struct esp_call *call)
{
    if (esp_pool_is_closed(call->pool))
        call_stop(call, ESP_TRANSPORT,
                  "the client was closed during the call");
    else
        call_stop(call, ESP_CLOSED, "the program ended during the call");
}

void
esp_call_interrupt(struct esp_call *call)
{
    if (call->state != CALL_DONE)
        call_stop(call, ESP_INTERRUPTED, "interrupted");
}

void
call_end_if_orphan(struct esp_call *call)
{
    if (call->state != CALL_DONE && call->entry.lane->abandoned)
        call_stop(call, ESP_TRANSPORT,
                  "the process forked during the call: the parent goes on "
                  "with it");
}

/* ---- One attempt -------------------------------------------------------- */

/* A success is what the exchange called one, or its word that nothing is
 * open, where that is an answer to the question: when the caller said so, or
 * when an earlier attempt may have cancelled all and its reply was lost. */
static void
settle_success(struct esp_call *call)
{
    struct esp_outcome *outcome = call->outcome;

    if (outcome->kind == ESP_API && outcome->code == NOTHING_OPEN &&
        (call->cancel.missing_ok || call->reply_lost)) {
        outcome->kind = ESP_OK;
        outcome->sent = ESP_DONE;
    }
    outcome->lost_reply = outcome->kind == ESP_OK && call->reply_lost;
}

static void
remember(struct esp_call *call)
{
    const struct esp_outcome *outcome = call->outcome;

    if (outcome->kind == ESP_OK)
        return;
    if (outcome->sent == ESP_UNKNOWN)
        call->reply_lost = true;
    if (outcome->sent > call->worst)
        call->worst = outcome->sent;
}

/* xorshift32: the jitter needs no better. */
static uint32_t
next_random(struct esp_call *call)
{
    call->random ^= call->random << 13;
    call->random ^= call->random >> 17;
    call->random ^= call->random << 5;
    return call->random;
}

static int64_t
connect_ms(const struct esp_call *call)
{
    return atomic_load(&call->pool->connect_ms);
}

static int64_t
ask_policy(struct esp_call *call)
{
    struct esp_policy policy = {.attempts = call->attempts,
                                .attempts_max = call->cancel.max_retries + 1,
                                .remaining_ms =
                                    call->deadline - clock_now_ms(),
                                .connect_ms = connect_ms(call),
                                .random = next_random(call)};

    return policy_next(call->outcome, &policy);
}

static bool
show_attempt(struct esp_call *call, int64_t next_in_ms)
{
    const struct esp_hooks *hooks = &call->cancel.hooks;
    struct esp_attempt attempt = {.symbol = call->cancel.symbol,
                                  .number = call->attempts,
                                  .outcome = call->outcome,
                                  .next_in_ms = next_in_ms,
                                  .lost_reply = call->outcome->lost_reply};

    return hooks->on_attempt == NULL || call->is_warm_up ||
           hooks->on_attempt(hooks->user, &attempt) == 0;
}

/* Judge the attempt, then end the call or wait for the next. */
static void
attempt_end(struct esp_call *call)
{
    struct esp_lane *lane = call->entry.lane;
    int64_t delay;
    int64_t now;

    call->outcome->timing = lane->timing;
    if (call->is_warm_up)
        response_decode_warm_up(&lane->response, call->outcome);
    else
        response_decode(&lane->response, call->cancel.symbol,
                        call->cancel.api_key, time(NULL), call->outcome);
    if (!response_leaves_connection_clean(&lane->response, call->outcome))
        lane_close(lane);
    if (lane->timing.tls_s > 0)
        atomic_store(&call->pool->connect_ms,
                     (int)(lane->timing.tls_s * 1000));
    remember(call);
    settle_success(call);
    delay = call->outcome->kind == ESP_OK ? -1 : ask_policy(call);
    now = clock_now_ms();
    call->state = CALL_WAITING; /* nothing of this attempt is under way */
    call->turn_at = now + delay;
    if (!show_attempt(call, delay))
        call_fail(call, ESP_INTERRUPTED, call->outcome->sent, "interrupted");
    else if (delay < 0)
        call_end(call); /* in the child of a fork, too: it is the verdict */
    else
        call_end_if_orphan(call);
}

/* After a turn of libcurl.  A kept connection that was dead when the request
 * was about to go out cost nothing: the same attempt goes on with a new one,
 * which by its newness cannot be found dead in this way. */
static void
attempt_turned(struct esp_call *call, bool ended)
{
    if (!ended)
        return;
    if (call->entry.lane->found_stale && clock_now_ms() < call->deadline) {
        lane_close(call->entry.lane);
        call->attempts--;
        attempt_begin(call);
    }
    else {
        attempt_end(call);
    }
}

static void
attempt_begin(struct esp_call *call)
{
    int64_t now = clock_now_ms();
    int64_t attempt_ms;
    struct esp_request request;
    struct esp_lane *lane = call->entry.lane;

    call->attempts++;
    attempt_ms =
        policy_attempt_ms(call->attempts, call->cancel.attempt_timeout_ms,
                          call->cancel.timeout_ms, call->deadline - now);
    request = (struct esp_request){
        .symbol = call->is_warm_up ? NULL : call->cancel.symbol,
        .api_key = call->cancel.api_key,
        .timeout_ms = attempt_ms,
        .connect_timeout_ms = call->cancel.connect_timeout_ms};
    if (request.connect_timeout_ms > attempt_ms)
        request.connect_timeout_ms = attempt_ms;
    esp_outcome_free(call->outcome);
    esp_outcome_init(call->outcome);
    call->state = CALL_RUNNING;
    call->turn_at = now + attempt_ms + GRACE_MS;
    if (lane_start(lane, &call->pool->target, &request))
        attempt_turned(call, lane_on_timer(lane));
    else
        attempt_end(call);
}

/* The wait is over.  A slow hook may have taken the time that the policy
 * counted on: then the last error is the verdict. */
static void
attempt_again(struct esp_call *call)
{
    int64_t left = call->deadline - clock_now_ms();

    if (left < policy_least_ms(connect_ms(call)))
        call_end(call);
    else
        attempt_begin(call);
}

/* ---- Turns -------------------------------------------------------------- */

static bool
call_may_run(struct esp_call *call)
{
    if (call->state == CALL_DONE)
        return false;
    if (pool_must_end(call->pool)) {
        call_end_closed(call);
        return false;
    }
    return true;
}

void
esp_call_on_socket(struct esp_call *call, int fd, bool readable, bool writable)
{
    if (call_may_run(call) && call->state == CALL_RUNNING)
        attempt_turned(
            call, lane_on_socket(call->entry.lane, fd, readable, writable));
}

void
esp_call_on_timer(struct esp_call *call)
{
    int64_t now = clock_now_ms();
    struct esp_lane *lane = call->entry.lane;

    if (!call_may_run(call))
        return;
    if (call->state == CALL_WAITING) {
        if (now >= call->turn_at)
            attempt_again(call);
    }
    else if (now >= call->turn_at) {
        lane_abort(lane, CURLE_OPERATION_TIMEDOUT, "no answer in time");
        attempt_end(call);
    }
    else if (lane->timer_at >= 0 && now >= lane->timer_at) {
        attempt_turned(call, lane_on_timer(lane));
    }
}

size_t
esp_call_watches(const struct esp_call *call, const struct esp_watch **watches)
{
    if (call->state != CALL_RUNNING)
        return 0;
    *watches = call->entry.lane->watches;
    return call->entry.lane->watch_count;
}

int64_t
esp_call_timer_ms(const struct esp_call *call)
{
    int64_t at = call->turn_at;
    int64_t left;

    if (call->state == CALL_RUNNING && call->entry.lane->timer_at >= 0 &&
        call->entry.lane->timer_at < at)
        at = call->entry.lane->timer_at;
    left = at - clock_now_ms();
    return left > 0 ? left : 0;
}

bool
esp_call_is_done(const struct esp_call *call)
{
    return call->state == CALL_DONE;
}

/* ---- The beginning ------------------------------------------------------ */

/* False fills `outcome`: nothing can be sent with these. */
static bool
check_options(const struct esp_cancel *cancel, bool is_warm_up,
              struct esp_outcome *outcome)
{
    struct esp_error error = {.kind = ESP_BAD_ARGUMENT};
    bool ok = true;

    if (cancel->timeout_ms < 1 || cancel->timeout_ms > ESP_TIMEOUT_MAX_MS ||
        cancel->connect_timeout_ms < 1 || cancel->attempt_timeout_ms < 0)
        ok = error_set(&error, "a time-out is out of range");
    else if (cancel->max_retries < 0 || cancel->max_retries > ESP_RETRIES_MAX)
        ok = error_set(&error, "max_retries is out of range");
    else if (!is_warm_up)
        ok =
            esp_symbol_check(cancel->symbol, strlen(cancel->symbol), &error) &&
            esp_key_check(cancel->api_key, strlen(cancel->api_key), &error);
    if (!ok) {
        outcome->kind = error.kind;
        memcpy(outcome->message, error.message, sizeof outcome->message);
    }
    return ok;
}

static struct esp_call *
call_start(struct esp_pool *pool, const struct esp_cancel *cancel,
           bool is_warm_up, struct esp_outcome *outcome)
{
    struct esp_call *call;

    esp_outcome_init(outcome);
    if (!check_options(cancel, is_warm_up, outcome))
        return NULL;
    call = libcurl_init() ? malloc(sizeof *call) : NULL;
    if (call == NULL || !pool_enter(pool, &call->entry)) {
        outcome->kind = call == NULL ? ESP_NO_MEMORY : ESP_CLOSED;
        free(call);
        return NULL;
    }
    call->pool = pool;
    call->cancel = *cancel;
    call->outcome = outcome;
    call->state = CALL_WAITING;
    call->is_warm_up = is_warm_up;
    call->attempts = 0;
    call->reply_lost = false;
    call->worst = ESP_NOT_SENT;
    call->started_at = clock_now_ms();
    call->deadline = call->started_at + cancel->timeout_ms;
    call->turn_at = call->started_at;
    call->random = (uint32_t)call->started_at ^ (uint32_t)(uintptr_t)call;
    call->random |= 1; /* xorshift never leaves 0 */
    if (pool_take_lane(pool, &call->entry))
        attempt_begin(call);
    else
        call_fail(call, ESP_NO_MEMORY, ESP_NOT_SENT, "out of memory");
    return call;
}

struct esp_call *
esp_call_start(struct esp_pool *pool, const struct esp_cancel *cancel,
               struct esp_outcome *outcome)
{
    return call_start(pool, cancel, false, outcome);
}

struct esp_call *
esp_call_start_warm_up(struct esp_pool *pool, const struct esp_cancel *cancel,
                       struct esp_outcome *outcome)
{
    return call_start(pool, cancel, true, outcome);
}

void
esp_call_free(struct esp_call *call)
{
    if (call == NULL)
        return;
    esp_call_interrupt(call);
    free(call);
}
