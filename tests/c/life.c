/* life.c - see life.h. */
#include "life.h"

#include <string.h>

const char *const life_symbols[LIFE_SYMBOLS] = {
    "S00", "S01", "S02", "S03", "S04", "S05", "S06", "S07", "S08", "S09",
    "S10", "S11", "S12", "S13", "S14", "S15", "S16", "S17", "S18", "S19"};

static void
note(struct life *life, const struct esp_outcome *outcome)
{
    assert_true(life->count < CLAIMS_MAX);
    life->claims[life->count++] = (struct claim){
        .kind = outcome->kind,
        .sent = outcome->sent,
        .call_sent = outcome->call_sent,
        .attempts = outcome->attempts,
        .rounds = outcome->round_count,
        .has_json = outcome->json != NULL,
        .certificate = outcome->certificate,
        .has_proof = outcome->json != NULL || outcome->lost_reply ||
                     outcome->code == 4200};
}

const struct esp_cancel life_usual = {.symbol = SYMBOL,
                                      .api_key = KEY,
                                      .timeout_ms = 10000,
                                      .connect_timeout_ms = 10000};

void
life_press(struct esp_pool *pool, const struct esp_cancel *cancel,
           struct life *life)
{
    struct esp_outcome outcome;

    esp_cancel_all(pool, cancel, &outcome);
    note(life, &outcome);
    esp_outcome_free(&outcome);
}

void
press_twice(struct esp_pool *pool, struct life *life)
{
    struct esp_cancel cancel = life_usual;

    cancel.max_retries = 1;
    life_press(pool, &cancel, life);
    life_press(pool, &cancel, life);
}

void
press_confirmed(struct esp_pool *pool, struct life *life)
{
    struct esp_cancel cancel = life_usual;

    cancel.confirm = true;
    life_press(pool, &cancel, life);
}

/* What a press of several says, or why there is none. */
static void
note_press(struct esp_press *pressed, size_t count,
           const struct esp_outcome *refused, struct life *life)
{
    size_t i;

    for (i = 0; pressed != NULL && i < count; i++)
        note(life, esp_press_outcome(pressed, i));
    if (pressed == NULL)
        note(life, refused);
}

void
press_list(struct esp_pool *pool, struct life *life)
{
    struct esp_outcome refused;
    struct esp_press *pressed =
        esp_cancel_list(pool, &life_usual, life_symbols, 4, &refused);

    note_press(pressed, 4, &refused, life);
    esp_press_free(pressed);
}

static void
press_in_loop(struct loop *loop, size_t count, struct life *life)
{
    struct pressed pressed;

    loop_press(loop, &life_usual, life_symbols, count, &pressed);
    if (pressed.press != NULL)
        loop_run(loop, &pressed);
    note_press(pressed.press, count, &pressed.refused, life);
    loop_free(loop, &pressed);
}

void
press_in_loops(struct esp_pool *pool, struct life *life)
{
    static struct loop loop;
    struct pressed left;

    memset(&loop, 0, sizeof loop);
    loop.watcher = esp_watcher_new(pool);
    if (loop.watcher == NULL)
        return;
    loop.wake = esp_watcher_wake_fd(loop.watcher);
    press_in_loop(&loop, 3, life);
    press_in_loop(&loop, 1, life);
    life_press(pool, &life_usual,
               life); /* a connection for the loop to take over */
    loop_press(&loop, &life_usual, life_symbols, 4, &left);
    loop_free(&loop, &left);
    press_in_loop(&loop, 1, life);
    loop_close(&loop);
}

void
live(const struct esp_settings *settings, struct life *life,
     life_presses *presses)
{
    struct esp_error error;
    struct esp_group *group = esp_group_new();
    struct esp_pool *pool;

    life->count = 0;
    if (group == NULL)
        return;
    pool = esp_pool_new(group, settings, &error);
    if (pool != NULL)
        presses(pool, life);
    esp_pool_release(pool);
    esp_group_free(group);
}

void
judge(const struct life *life, int posts, int more)
{
    const struct claim *claim = life->claims;
    int attempts = more;
    int must = 0;

    for (; claim < life->claims + life->count; claim++) {
        if (claim->kind == ESP_OK) {
            must++;
            assert_true(claim->has_proof);
            assert_int_equal(claim->sent, ESP_DONE);
        }
        else {
            assert_false(claim->has_json);
            assert_true(claim->sent != ESP_DONE);
        }
        must += claim->rounds;
        if (claim->call_sent != ESP_NOT_SENT || claim->kind == ESP_OK)
            attempts += claim->attempts;
    }
    assert_in_range(posts, must, attempts);
}
