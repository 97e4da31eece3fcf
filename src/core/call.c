/* call.c - the life of one symbol's call: its rounds, the waits between its
 * attempts, and what it may claim in the end.
 *
 *     call_go             a slot is held: attempt_begin (attempt.c)
 *     call_on_...         turns, until the attempt has ended
 *     WAITING, QUEUED     ... then until another may begin, and call_go again
 *     call_end            the outcome speaks of all attempts
 *
 * Nothing here blocks, and nothing knows who gives the turns: a press does,
 * driven by driver.c or by an event loop. */
#include "core.h"

#include <stdlib.h>
#include <string.h>

#define ROUNDS_FIRST 4 /* most confirmed calls need one */

/* ---- Rounds ------------------------------------------------------------- */

static bool
reserve_round(struct esp_call *call)
{
    int capacity =
        call->round_capacity > 0 ? 2 * call->round_capacity : ROUNDS_FIRST;
    struct cJSON **rounds;

    if (call->round_count < call->round_capacity)
        return true;
    rounds = realloc(call->rounds, (size_t)capacity * sizeof *rounds);
    if (rounds == NULL)
        return false;
    call->rounds = rounds;
    call->round_capacity = capacity;
    return true;
}

bool
call_end_round(struct esp_call *call)
{
    struct esp_outcome *outcome = call->outcome;
    const cJSON *ids;

    if (!reserve_round(call))
        return false;
    ids = cJSON_GetObjectItemCaseSensitive(outcome->json, "order_ids");
    call->last_had_orders = cJSON_IsArray(ids) && ids->child != NULL;
    call->rounds[call->round_count++] = outcome->json;
    outcome->json = NULL;
    call->round_attempts = 0;
    call->is_next_round = true;
    return true;
}

/* ---- The end ------------------------------------------------------------ */

/* What all attempts together did.  Where a round was carried out and the next
 * did not even leave, "not sent" would be a lie. */
static enum esp_sent
call_sent(const struct esp_call *call)
{
    if (call->outcome->kind == ESP_OK && !call->press->is_warm_up &&
        !call->reply_lost)
        return ESP_DONE;
    if (call->worst == ESP_NOT_SENT && call->round_count > 0)
        return ESP_DONE;
    return call->worst;
}

void
call_give_slot(struct esp_call *call, int64_t free_at)
{
    if (call->slot >= 0)
        pace_give(&call->press->pace, call->slot, free_at);
    call->slot = -1;
}

void
call_end(struct esp_call *call)
{
    struct esp_outcome *outcome = call->outcome;
    int64_t now = esp_clock_ms();

    call->state = CALL_DONE;
    call->press->running--;
    call_give_slot(call, now + ESP_RATE_WINDOW_MS);
    press_sign(call->press, outcome, now);
    outcome->attempts = call->attempts;
    outcome->call_sent = call_sent(call);
    outcome->rounds = call->rounds;
    outcome->round_count = call->round_count;
    call->rounds = NULL;
    call->round_count = 0;
    pool_leave(call->press->pool, &call->entry);
}

void
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
                call->entry.lane->response.left && !call->press->is_warm_up;

    return left ? ESP_UNKNOWN : ESP_NOT_SENT;
}

void
call_stop(struct esp_call *call, enum esp_kind kind, const char *message)
{
    enum esp_sent sent = sent_so_far(call);

    if (call->state == CALL_DONE)
        return;
    if (call->entry.lane != NULL && !call->entry.lane->abandoned)
        lane_abort(call->entry.lane, CURLE_ABORTED_BY_CALLBACK, message);
    call_fail(call, kind, sent, message);
}

void
call_end_unproven(struct esp_call *call)
{
    struct esp_outcome *outcome = call->outcome;

    if (call->last_had_orders)
        call_fail(call, ESP_STILL_OPEN, ESP_UNKNOWN,
                  "the time was over while orders still appeared");
    else
        call_fail(call, ESP_TIMEOUT, ESP_UNKNOWN,
                  "the time was over before the exchange said that nothing "
                  "is open");
    outcome->retry = ESP_RETRY_BACKOFF;
}

void
call_give_up(struct esp_call *call)
{
    if (call->is_next_round)
        call_end_unproven(call);
    else
        call_end(call);
}

/* ---- Attempts ----------------------------------------------------------- */

void
call_go(struct esp_call *call, int slot)
{
    call->slot = slot;
    if (call->entry.lane != NULL ||
        pool_take_lane(call->press->pool, &call->entry,
                       call->press->watcher)) {
        call->entry.lane->call = call;
        attempt_begin(call);
    }
    else {
        call_give_slot(call, esp_clock_ms());
        call_fail(call, ESP_NO_MEMORY, ESP_NOT_SENT, "out of memory");
    }
}

/* The wait is over.  A slow hook may have taken the time that the policy
 * counted on: then the last error is the verdict. */
static void
attempt_again(struct esp_call *call, int64_t now)
{
    if (call->press->deadline - now < call_least_ms(call->press)) {
        call_give_up(call);
    }
    else {
        call->state = CALL_QUEUED;
        press_queue(call->press, call);
    }
}

/* ---- Turns -------------------------------------------------------------- */

/* Between two attempts a connection has nothing to say: it is dead. */
void
call_on_socket(struct esp_call *call, int fd, bool readable, bool writable)
{
    struct esp_lane *lane = call->entry.lane;

    if (call->state == CALL_RUNNING)
        attempt_turned(call, lane_on_socket(lane, fd, readable, writable));
    else if (call->state != CALL_DONE)
        lane_close(lane);
}

void
call_on_timer(struct esp_call *call, int64_t now)
{
    struct esp_lane *lane = call->entry.lane;

    if (call->state == CALL_WAITING) {
        if (now >= call->turn_at)
            attempt_again(call, now);
    }
    else if (call->state != CALL_RUNNING) {
        return;
    }
    else if (now >= call->turn_at) {
        lane_abort(lane, CURLE_OPERATION_TIMEDOUT, "no answer in time");
        attempt_end(call);
    }
    else if (lane->timer_at >= 0 && now >= lane->timer_at) {
        attempt_turned(call, lane_on_timer(lane));
    }
}

bool
call_looks_up(const struct esp_call *call)
{
    return call->state == CALL_RUNNING && call->entry.lane != NULL &&
           lane_looks_up(call->entry.lane);
}

int64_t
call_turn_at(const struct esp_call *call)
{
    const struct esp_lane *lane = call->entry.lane;

    if (call->state != CALL_RUNNING)
        return call->state == CALL_WAITING ? call->turn_at : INT64_MAX;
    if (lane->timer_at >= 0 && lane->timer_at < call->turn_at)
        return lane->timer_at;
    return call->turn_at;
}

int64_t
call_settle_slot(struct esp_call *call, int64_t now)
{
    int64_t late_at;

    if (call->slot < 0 || call->state != CALL_RUNNING ||
        !call->entry.lane->response.left)
        return INT64_MAX;
    late_at = call->entry.lane->left_at + PACE_LATE_MS;
    if (late_at > now)
        return late_at;
    call_give_slot(call, late_at + ESP_RATE_WINDOW_MS);
    return INT64_MAX;
}

/* ---- The beginning ------------------------------------------------------ */

struct esp_call *
call_new(struct esp_press *press, const char *symbol,
         struct esp_outcome *outcome)
{
    bool owns = outcome == NULL;
    struct esp_call *call = malloc(sizeof *call);

    if (owns)
        outcome = malloc(sizeof *outcome);
    if (call == NULL || outcome == NULL) {
        free(call);
        if (owns)
            free(outcome);
        return NULL;
    }
    *call = (struct esp_call){.press = press,
                              .symbol = symbol,
                              .outcome = outcome,
                              .owns_outcome = owns,
                              .state = CALL_QUEUED,
                              .slot = -1,
                              .worst = ESP_NOT_SENT};
    call->entry.is_looped = press->watcher != NULL;
    call->random = (uint32_t)press->started_at ^ (uint32_t)(uintptr_t)call;
    call->random |= 1; /* xorshift never leaves 0 */
    esp_outcome_init(outcome);
    if (!pool_enter(press->pool, &call->entry)) {
        outcome->kind = ESP_CLOSED;
        call->state = CALL_DONE;
    }
    return call;
}

void
call_free(struct esp_call *call)
{
    if (call == NULL)
        return;
    outcome_free_rounds(call->rounds, call->round_count);
    if (call->owns_outcome) {
        esp_outcome_free(call->outcome);
        free(call->outcome);
    }
    free(call);
}
