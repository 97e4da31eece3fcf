/* policy.c - whether and when there is another attempt. */
#include "core.h"

#define BACKOFF_FIRST_MS 100
#define BACKOFF_LAST_MS 2000
#define RATE_WINDOW_MS 2000  /* 10 calls in 2 s [field] */
#define ATTEMPT_LEAST_MS 100 /* less of the deadline is not worth a try */
#define RETRY_AFTER_MOST 1e9 /* seconds; keeps the sum far from overflow */

/* 0.1, 0.2, 0.4 ... 2 s, of which a random half is taken off, so that many
 * clients of a server that comes back do not knock in step. */
static int64_t
backoff_ms(int number, uint32_t random)
{
    int64_t most = BACKOFF_FIRST_MS;

    while (--number > 0 && most < BACKOFF_LAST_MS)
        most *= 2;
    if (most > BACKOFF_LAST_MS)
        most = BACKOFF_LAST_MS;
    return most - (int64_t)(random % (uint32_t)(most / 2 + 1));
}

static int64_t
delay_ms(const struct esp_outcome *outcome, const struct esp_policy *policy)
{
    double seconds = outcome->retry_after;

    switch (outcome->retry) {
    case ESP_RETRY_SOON:
        if (policy->attempts == 1)
            return 0;
        return backoff_ms(policy->attempts - 1, policy->random);
    case ESP_RETRY_BACKOFF:
        return backoff_ms(policy->attempts, policy->random);
    case ESP_RETRY_AFTER:
        if (seconds < 0)
            return RATE_WINDOW_MS;
        if (seconds > RETRY_AFTER_MOST)
            seconds = RETRY_AFTER_MOST;
        return (int64_t)(seconds * 1000);
    case ESP_RETRY_NEVER:
        break;
    }
    return -1;
}

int64_t
policy_least_ms(int64_t connect_ms)
{
    int64_t least = 2 * connect_ms;

    return least > ATTEMPT_LEAST_MS ? least : ATTEMPT_LEAST_MS;
}

int64_t
policy_next(const struct esp_outcome *outcome, const struct esp_policy *policy)
{
    int64_t delay = delay_ms(outcome, policy);

    if (delay < 0 || policy->attempts >= policy->attempts_max ||
        policy->remaining_ms - delay < policy_least_ms(policy->connect_ms))
        return -1;
    return delay;
}

int64_t
policy_attempt_ms(int number, int64_t attempt_timeout_ms, int64_t timeout_ms,
                  int64_t remaining_ms)
{
    int64_t limit = remaining_ms;

    if (attempt_timeout_ms > 0)
        limit = attempt_timeout_ms;
    else if (number == 1)
        limit = (timeout_ms * 4 + 9) / 10;
    if (limit > remaining_ms)
        limit = remaining_ms;
    return limit > 1 ? limit : 1;
}
