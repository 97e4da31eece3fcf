/* policy.c - the policy alone, with any numbers: whether, when and for how
 * long there is another attempt.
 *
 *     1 byte retry, 1 byte how retry_after is given, 4 bytes that,
 *     2 bytes attempts, 2 bytes attempts_max, 4 bytes remaining_ms,
 *     4 bytes connect_ms, 4 bytes random, 4 bytes attempt_timeout_ms,
 *     4 bytes timeout_ms
 *
 * press.c runs it inside the engine; here it meets numbers that the engine
 * may never give it. */
#include "fuzz.h"

#include <math.h>
#include <string.h>

#define LEAST_MS 100      /* an attempt needs that much of the deadline */
#define BACKOFF_MOST 2000 /* the contract's longest back-off */
#define WINDOW_MS 2000    /* the wait where Retry-After names none */

struct sample {
    struct esp_outcome outcome;
    struct esp_policy policy;
    int64_t attempt_timeout_ms;
    int64_t timeout_ms;
};

/* Retry-After as the decoder may give it: none, whole seconds, or a number of
 * up to 64 digits. */
static double
take_retry_after(struct input *input)
{
    unsigned how = input_below(input, 4);
    double number = input_32(input);

    switch (how) {
    case 0:
        return -1;
    case 1:
        return fmod(number, 120);
    case 2:
        return number;
    default:
        return number * 1e54;
    }
}

static void
take_sample(struct input *input, struct sample *sample)
{
    esp_outcome_init(&sample->outcome);
    sample->outcome.kind = ESP_HTTP;
    sample->outcome.retry = (enum esp_retry)input_below(input, 4);
    sample->outcome.retry_after = take_retry_after(input);
    sample->policy.attempts = 1 + input_16(input) % (ESP_RETRIES_MAX + 1);
    sample->policy.attempts_max = 1 + input_16(input) % (ESP_RETRIES_MAX + 1);
    sample->policy.remaining_ms =
        (int32_t)input_32(input) % (ESP_TIMEOUT_MAX_MS + 1);
    sample->policy.connect_ms = input_32(input) % (ESP_TIMEOUT_MAX_MS + 1);
    sample->policy.random = input_32(input);
    sample->attempt_timeout_ms = input_32(input);
    sample->timeout_ms = 1 + input_32(input) % ESP_TIMEOUT_MAX_MS;
}

/* The range of waits that the contract allows after this outcome. */
static void
allowed_waits(const struct sample *sample, double *least, double *most)
{
    int number = sample->policy.attempts;
    double backoff;

    if (sample->outcome.retry == ESP_RETRY_AFTER) {
        *least = sample->outcome.retry_after < 0
                     ? WINDOW_MS
                     : sample->outcome.retry_after * 1000;
        *most = *least;
        return;
    }
    if (sample->outcome.retry == ESP_RETRY_SOON)
        number--; /* the first is at once */
    backoff = number < 1 ? 0 : 100 * pow(2, number - 1);
    if (backoff > BACKOFF_MOST)
        backoff = BACKOFF_MOST;
    *least = backoff / 2;
    *most = backoff;
}

static void
check_next(const struct sample *sample)
{
    const struct esp_policy *policy = &sample->policy;
    int64_t least_ms = policy_least_ms(policy->connect_ms);
    int64_t delay = policy_next(&sample->outcome, policy);
    double least;
    double most;

    HOLDS(least_ms >= LEAST_MS && least_ms >= 2 * policy->connect_ms);
    HOLDS(delay >= -1);
    allowed_waits(sample, &least, &most);
    if (delay >= 0) {
        HOLDS(sample->outcome.retry != ESP_RETRY_NEVER);
        HOLDS(policy->attempts < policy->attempts_max);
        HOLDS(delay + least_ms <= policy->remaining_ms);
        HOLDS((double)delay >= floor(least) && (double)delay <= ceil(most));
    }
    else {
        HOLDS(sample->outcome.retry == ESP_RETRY_NEVER ||
              policy->attempts >= policy->attempts_max ||
              most + (double)least_ms > (double)policy->remaining_ms);
    }
}

/* How long an attempt may take: something, and never beyond the deadline. */
static void
check_length(const struct sample *sample)
{
    int number = sample->policy.attempts;
    int64_t remaining = sample->policy.remaining_ms;
    int64_t ms = policy_attempt_ms(number, sample->attempt_timeout_ms,
                                   sample->timeout_ms, remaining);

    HOLDS(ms >= 1);
    HOLDS(ms == 1 || ms <= remaining);
    if (sample->attempt_timeout_ms > 0)
        HOLDS(ms <= sample->attempt_timeout_ms);
    else if (number == 1)
        HOLDS((double)(ms - 1) < 0.4 * (double)sample->timeout_ms);
    else
        HOLDS(ms == (remaining > 1 ? remaining : 1));
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct sample sample; /* only its head is read and written */
    struct input input = {data, size};

    take_sample(&input, &sample);
    check_next(&sample);
    check_length(&sample);
    return 0;
}
