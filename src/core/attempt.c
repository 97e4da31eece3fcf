/* attempt.c - one attempt of a call: one POST at most.
 *
 *     attempt_begin     a lane, a request, the first turn of libcurl
 *     attempt_turned    after each turn: has the transfer ended?
 *     attempt_end       judge, remember what is unknown, ask what follows */
#include "core.h"

#define NOTHING_OPEN 4200 /* [field]: the code of "nothing was open" */
#define GRACE_MS 5        /* libcurl's own time-out comes first */

/* A success is what the exchange called one, or its word that nothing is
 * open, where that is an answer to the question: when the caller said so, or
 * when an earlier attempt may have cancelled all and its reply was lost. */
static void
settle_success(struct esp_call *call)
{
    const struct esp_cancel *cancel = &call->press->cancel;
    struct esp_outcome *outcome = call->outcome;

    if (outcome->kind == ESP_API && outcome->code == NOTHING_OPEN &&
        (cancel->missing_ok || cancel->confirm || call->reply_lost)) {
        outcome->kind = ESP_OK;
        outcome->sent = ESP_DONE;
    }
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
connect_ms(const struct esp_press *press)
{
    return atomic_load(&press->pool->connect_ms);
}

int64_t
call_least_ms(const struct esp_press *press)
{
    return policy_least_ms(connect_ms(press));
}

static int64_t
ask_policy(struct esp_call *call)
{
    const struct esp_press *press = call->press;
    struct esp_policy policy = {.attempts = call->round_attempts,
                                .attempts_max = press->cancel.max_retries + 1,
                                .remaining_ms =
                                    press->deadline - esp_clock_ms(),
                                .connect_ms = connect_ms(press),
                                .random = next_random(call)};

    return policy_next(call->outcome, &policy);
}

static bool
show_attempt(struct esp_call *call, int64_t next_in_ms)
{
    const struct esp_hooks *hooks = &call->press->cancel.hooks;
    struct esp_attempt attempt = {.symbol = call->symbol,
                                  .number = call->attempts,
                                  .outcome = call->outcome,
                                  .next_in_ms = next_in_ms,
                                  .lost_reply = call->outcome->lost_reply};

    return hooks->on_attempt == NULL || call->press->is_warm_up ||
           hooks->on_attempt(hooks->user, &attempt) == 0;
}

/* Whether the attempt was a success that `confirm` wants to see followed by
 * the exchange's word that nothing is open. */
static bool
ends_round(const struct esp_call *call)
{
    return call->press->cancel.confirm && call->outcome->json != NULL;
}

/* After how many milliseconds another attempt or round follows; -1: none. */
static int64_t
delay_to_next(struct esp_call *call)
{
    if (call->outcome->kind != ESP_OK)
        return ask_policy(call);
    return ends_round(call) ? 0 : -1;
}

static void
judge(struct esp_call *call)
{
    struct esp_lane *lane = call->entry.lane;
    struct esp_outcome *outcome = call->outcome;

    outcome->timing = lane->timing;
    if (call->press->is_warm_up)
        response_decode_warm_up(&lane->response, outcome);
    else
        response_decode(&lane->response, call->symbol,
                        call->press->cancel.api_key, time(NULL), outcome);
    if (!response_leaves_connection_clean(&lane->response, outcome))
        lane_close(lane);
    if (lane->timing.tls_s > 0)
        atomic_store(&call->press->pool->connect_ms,
                     (int)(lane->timing.tls_s * 1000));
}

/* Another attempt or round, or the end. */
static void
follow(struct esp_call *call, int64_t delay)
{
    if (delay < 0)
        call_end(call); /* in the child of a fork, too: it is the verdict */
    else if (ends_round(call) && !call_end_round(call))
        call_fail(call, ESP_NO_MEMORY, ESP_UNKNOWN, "out of memory");
    else if (call->round_count == ESP_ROUNDS_MAX)
        call_end_unproven(call);
}

/* Judge the attempt, then end the call or wait for the next. */
void
attempt_end(struct esp_call *call)
{
    struct esp_outcome *outcome = call->outcome;
    int64_t delay;
    int64_t now;

    judge(call);
    remember(call);
    settle_success(call);
    delay = delay_to_next(call);
    outcome->lost_reply =
        outcome->kind == ESP_OK && delay < 0 && call->reply_lost;
    now = esp_clock_ms();
    call_give_slot(call, call->entry.lane->response.left
                             ? now + ESP_RATE_WINDOW_MS
                             : now);
    call->state = CALL_WAITING; /* nothing of this attempt is under way */
    call->turn_at = now + delay;
    if (show_attempt(call, outcome->kind == ESP_OK ? -1 : delay)) {
        follow(call, delay);
    }
    else {
        call->press->is_stopped = true;
        call_fail(call, ESP_INTERRUPTED, outcome->sent, "interrupted");
    }
}

/* After a turn of libcurl.  A kept connection that was dead when the request
 * was about to go out cost nothing: the same attempt goes on with a new one,
 * which by its newness cannot be found dead in this way. */
void
attempt_turned(struct esp_call *call, bool ended)
{
    if (!ended)
        return;
    if (call->entry.lane->found_stale &&
        esp_clock_ms() < call->press->deadline) {
        lane_close(call->entry.lane);
        call->attempts--;
        call->round_attempts--;
        attempt_begin(call);
    }
    else {
        attempt_end(call);
    }
}

void
attempt_begin(struct esp_call *call)
{
    const struct esp_press *press = call->press;
    int64_t now = esp_clock_ms();
    int64_t attempt_ms;
    struct esp_request request;
    struct esp_lane *lane = call->entry.lane;

    call->attempts++;
    call->round_attempts++;
    call->is_next_round = false;
    attempt_ms = policy_attempt_ms(
        call->round_attempts, press->cancel.attempt_timeout_ms,
        press->cancel.timeout_ms, press->deadline - now);
    request = (struct esp_request){
        .symbol = press->is_warm_up ? NULL : call->symbol,
        .api_key = press->cancel.api_key,
        .timeout_ms = attempt_ms,
        .connect_timeout_ms = press->cancel.connect_timeout_ms};
    if (request.connect_timeout_ms > attempt_ms)
        request.connect_timeout_ms = attempt_ms;
    esp_outcome_free(call->outcome);
    esp_outcome_init(call->outcome);
    call->state = CALL_RUNNING;
    call->turn_at = now + attempt_ms + GRACE_MS;
    if (lane_start(lane, &press->pool->target, &request))
        attempt_turned(call, lane_on_timer(lane));
    else
        attempt_end(call);
}
