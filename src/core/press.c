/* press.c - one press of the button: a call for each of its symbols, all under
 * one deadline and one pace.
 *
 * A call is made when a slot of the pace is free for it.  Symbols that were
 * never tried come first, in their order, then whoever has waited longest. */
#include "core.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define NAME_WAIT_MS 50 /* a resolver that is near answers within a few */

/* ---- Who is waiting ----------------------------------------------------- */

static bool
has_unbegun(const struct esp_press *press)
{
    return press->begun < press->count && !press->is_over;
}

void
press_queue(struct esp_press *press, struct esp_call *call)
{
    call->next_queued = NULL;
    *press->queue_end = call;
    press->queue_end = &call->next_queued;
}

static void
empty_queue(struct esp_press *press)
{
    press->queue = NULL;
    press->queue_end = &press->queue;
}

/* Take out the call that has waited longest. */
static struct esp_call *
leave_queue(struct esp_press *press)
{
    struct esp_call *call = press->queue;

    press->queue = call->next_queued;
    if (press->queue == NULL)
        empty_queue(press);
    return call;
}

static bool
has_waiting(const struct esp_press *press)
{
    return has_unbegun(press) || press->queue != NULL;
}

/* ---- The end ------------------------------------------------------------ */

void
press_sign(const struct esp_press *press, struct esp_outcome *outcome,
           int64_t now)
{
    outcome->attempts_max =
        press->cancel.confirm ? 0 : press->cancel.max_retries + 1;
    outcome->elapsed_s = (double)(now - press->started_at) / 1000;
}

/* No call is made any more: `rest` is the outcome of the symbols whose turn
 * has not come. */
static void
end_rest(struct esp_press *press, enum esp_kind kind, const char *message)
{
    struct esp_outcome *rest = press->rest;

    if (has_unbegun(press)) {
        rest->kind = kind;
        rest->retry = kind == ESP_TIMEOUT ? ESP_RETRY_SOON : ESP_RETRY_NEVER;
        press_sign(press, rest, esp_clock_ms());
        text_copy_masked(rest->message, sizeof rest->message, message,
                         strlen(message), NULL);
    }
    press->is_over = true;
}

static void
stop_all(struct esp_press *press, enum esp_kind kind, const char *message)
{
    size_t i;

    for (i = 0; i < press->begun; i++)
        call_stop(press->calls[i], kind, message);
    empty_queue(press);
    end_rest(press, kind, message);
}

void
esp_press_interrupt(struct esp_press *press)
{
    if (!esp_press_is_done(press))
        stop_all(press, ESP_INTERRUPTED, "interrupted");
}

bool
press_must_end(struct esp_press *press)
{
    if (press->forks != atomic_load(&press->pool->forks))
        stop_all(press, ESP_TRANSPORT,
                 "the process forked during the call: the parent goes on "
                 "with it");
    else if (!pool_must_end(press->pool))
        return false;
    else if (esp_pool_is_closed(press->pool))
        stop_all(press, ESP_TRANSPORT,
                 "the client was closed during the call");
    else
        stop_all(press, ESP_CLOSED, "the program ended during the call");
    return true;
}

/* The same, or if a hook has said so. */
static bool
ends_now(struct esp_press *press)
{
    if (press_must_end(press))
        return true;
    if (press->is_stopped)
        esp_press_interrupt(press);
    return press->is_stopped;
}

bool
esp_press_is_done(const struct esp_press *press)
{
    return press->running == 0 && !has_unbegun(press);
}

/* ---- Slots -------------------------------------------------------------- */

/* Make the next call and begin it.  Where that is not possible it ends at
 * once, with an outcome that says so. */
static void
begin_next(struct esp_press *press, int slot)
{
    struct esp_call *call =
        call_new(press, press->symbols[press->begun], press->only);

    if (call == NULL) {
        pace_give(&press->pace, slot, 0);
        end_rest(press, ESP_NO_MEMORY, "out of memory");
        return;
    }
    if (press->begun == 0) /* what a fork did before does not concern it */
        press->forks = atomic_load(&press->pool->forks);
    press->calls[press->begun++] = call;
    if (call->state == CALL_DONE) { /* the pool is closed */
        pace_give(&press->pace, slot, 0);
        return;
    }
    press->running++;
    call_go(call, slot);
}

/* Whether the others begin later, when one has found the address that all of
 * them need.  Not for long: its question may be the one that gets lost. */
static bool
waits_for_name(const struct esp_press *press)
{
    bool is_asked = false;
    size_t i;

    if (!has_unbegun(press))
        return false;
    for (i = 0; i < press->begun && !is_asked; i++)
        is_asked = call_looks_up(press->calls[i]);
    return is_asked && esp_clock_ms() < press->started_at + NAME_WAIT_MS;
}

/* Give slots to those that wait, until `latest`, as long as there are any that
 * are free `now`: one that comes back meanwhile is for the next turn, or many
 * attempts that end at once would keep the others from theirs.  A hook of such
 * an attempt may take its time, fork, or say stop. */
static void
hand_out_slots(struct esp_press *press, int64_t now, int64_t latest)
{
    int slot;

    while (has_waiting(press) && !waits_for_name(press) &&
           esp_clock_ms() <= latest &&
           (slot = pace_take(&press->pace, now)) >= 0) {
        if (has_unbegun(press))
            begin_next(press, slot);
        else
            call_go(leave_queue(press), slot);
        ends_now(press); /* then nobody waits any more */
    }
}

static int64_t
earliest(int64_t one, int64_t other)
{
    return one < other ? one : other;
}

/* Give back the slots of requests that must have arrived.  When to look
 * again. */
static int64_t
settle_slots(struct esp_press *press, int64_t now)
{
    int64_t soonest = INT64_MAX;
    size_t i;

    for (i = 0; i < press->begun; i++)
        soonest = earliest(soonest, call_settle_slot(press->calls[i], now));
    return soonest;
}

/* The last moment at which an attempt is worth starting. */
static int64_t
latest_start(const struct esp_press *press)
{
    return press->deadline - call_least_ms(press);
}

static void
give_up_waiting(struct esp_press *press)
{
    while (press->queue != NULL)
        call_give_up(leave_queue(press));
    end_rest(press, ESP_TIMEOUT,
             "its turn did not come in time: the exchange grants 10 calls "
             "in 2 s");
}

/* Whoever waits gets a slot, or an end if none can come in time. */
static void
serve_waiting(struct esp_press *press)
{
    int64_t now;
    int64_t latest;
    int64_t settled;

    press->look_at = INT64_MAX;
    if (!has_waiting(press))
        return;
    now = esp_clock_ms();
    settle_slots(press, now);
    /* However short the time is, the first try is worth it. */
    hand_out_slots(press, now,
                   press->begun == 0 ? press->deadline : latest_start(press));
    if (!has_waiting(press))
        return;
    if (waits_for_name(press)) {
        press->look_at = press->started_at + NAME_WAIT_MS;
        return;
    }
    settled = settle_slots(press, now);
    latest = latest_start(press);
    if (now > latest ||
        (!pace_is_held(&press->pace) && pace_next(&press->pace) > latest))
        give_up_waiting(press);
    else
        press->look_at =
            earliest(earliest(settled, latest + 1), pace_next(&press->pace));
}

/* ---- Turns -------------------------------------------------------------- */

/* What a turn of one call means for the others. */
static void
after_turn(struct esp_press *press)
{
    if (!ends_now(press))
        serve_waiting(press);
}

void
press_on_socket(struct esp_press *press, struct esp_call *call, int fd,
                bool readable, bool writable)
{
    if (call->state == CALL_DONE || press_must_end(press))
        return;
    call_on_socket(call, fd, readable, writable);
    after_turn(press);
}

void
press_on_timer(struct esp_press *press)
{
    int64_t now;
    size_t i;

    if (esp_press_is_done(press) || press_must_end(press))
        return;
    now = esp_clock_ms();
    for (i = 0; i < press->begun; i++) {
        call_on_timer(press->calls[i], now);
        if (press->is_stopped ||
            press->forks != atomic_load(&press->pool->forks))
            break; /* a hook said so, or forked: then they are the parent's */
    }
    after_turn(press);
}

int64_t
press_turn_at(const struct esp_press *press)
{
    int64_t soonest = press->look_at;
    size_t i;

    for (i = 0; i < press->begun; i++)
        soonest = earliest(soonest, call_turn_at(press->calls[i]));
    return soonest;
}

/* ---- The beginning ------------------------------------------------------ */

static bool
check_numbers(const struct esp_cancel *cancel, struct esp_error *error)
{
    if (cancel->timeout_ms < 1 || cancel->timeout_ms > ESP_TIMEOUT_MAX_MS ||
        cancel->connect_timeout_ms < 1 || cancel->attempt_timeout_ms < 0)
        return error_set(error, "a time-out is out of range");
    if (cancel->max_retries < 0 || cancel->max_retries > ESP_RETRIES_MAX)
        return error_set(error, "max_retries is out of range");
    return true;
}

static bool
check_symbols(const struct press_plan *plan, struct esp_error *error)
{
    size_t i;

    if (plan->count < 1 || plan->count > ESP_SYMBOLS_MAX)
        return error_set(error, "1 to %d symbols, not %zu", ESP_SYMBOLS_MAX,
                         plan->count);
    for (i = 0; i < plan->count; i++) {
        const char *symbol =
            plan->symbols != NULL ? plan->symbols[i] : plan->cancel->symbol;

        if (!esp_symbol_check(symbol, strlen(symbol), error))
            return false;
    }
    return true;
}

/* False fills `refused`: nothing can be sent with these. */
static bool
check_plan(const struct press_plan *plan, struct esp_outcome *refused)
{
    const struct esp_cancel *cancel = plan->cancel;
    struct esp_error error = {.kind = ESP_BAD_ARGUMENT};
    bool ok =
        check_numbers(cancel, &error) &&
        (plan->is_warm_up ||
         (check_symbols(plan, &error) &&
          esp_key_check(cancel->api_key, strlen(cancel->api_key), &error)));

    if (!ok) {
        refused->kind = error.kind;
        memcpy(refused->message, error.message, sizeof refused->message);
    }
    return ok;
}

/* Where outcomes go that no call has: to the caller's, or to memory that is
 * taken now, so that there is no failing later. */
static bool
set_outcomes(struct esp_press *press, struct esp_outcome *only)
{
    press->owns_rest = only == NULL;
    press->rest = press->owns_rest ? malloc(sizeof *press->rest) : only;
    if (press->rest == NULL)
        return false;
    esp_outcome_init(press->rest);
    press->only = press->count == 1 ? press->rest : NULL;
    return true;
}

static struct esp_press *
press_new(const struct press_plan *plan)
{
    struct esp_press *press =
        calloc(1, sizeof *press + plan->count * sizeof press->calls[0]);

    if (press == NULL)
        return NULL;
    press->count = plan->count;
    if (!set_outcomes(press, plan->only)) {
        free(press);
        return NULL;
    }
    press->watcher = plan->watcher;
    press->user = plan->user;
    press->pool = pool_hold(plan->pool);
    press->cancel = *plan->cancel;
    press->is_warm_up = plan->is_warm_up;
    press->symbols =
        plan->symbols != NULL ? plan->symbols : &press->cancel.symbol;
    empty_queue(press);
    press->started_at = esp_clock_ms();
    press->deadline = press->started_at + plan->cancel->timeout_ms;
    if (press->watcher != NULL)
        watcher_add(press->watcher, press);
    return press;
}

/* The pool was closed before: then nothing has begun. */
static bool
was_refused(const struct esp_press *press)
{
    return press->begun == 1 && press->calls[0]->outcome->kind == ESP_CLOSED &&
           press->calls[0]->attempts == 0;
}

struct esp_press *
press_start(const struct press_plan *plan, struct esp_outcome *refused)
{
    struct esp_press *press;

    assert(refused != NULL);
    esp_outcome_init(refused);
    if (!check_plan(plan, refused))
        return NULL;
    press = libcurl_init() ? press_new(plan) : NULL;
    if (press == NULL) {
        refused->kind = ESP_NO_MEMORY;
        return NULL;
    }
    serve_waiting(press);
    if (was_refused(press)) {
        esp_press_free(press);
        refused->kind = ESP_CLOSED;
        return NULL;
    }
    return press;
}

struct esp_press *
press_start_one(struct esp_pool *pool, const struct esp_cancel *cancel,
                bool is_warm_up, struct esp_outcome *outcome)
{
    struct press_plan plan = {.pool = pool,
                              .cancel = cancel,
                              .is_warm_up = is_warm_up,
                              .count = 1,
                              .only = outcome};

    return press_start(&plan, outcome);
}

const struct esp_outcome *
esp_press_outcome(const struct esp_press *press, size_t index)
{
    return index < press->begun ? press->calls[index]->outcome : press->rest;
}

void
esp_press_free(struct esp_press *press)
{
    size_t i;

    if (press == NULL)
        return;
    esp_press_interrupt(press);
    for (i = 0; i < press->begun; i++)
        call_free(press->calls[i]);
    if (press->owns_rest) {
        esp_outcome_free(press->rest);
        free(press->rest);
    }
    if (press->watcher != NULL)
        watcher_remove(press->watcher, press);
    esp_pool_release(press->pool);
    free(press);
}
