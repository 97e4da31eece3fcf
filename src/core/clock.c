/* clock.c - the two clocks of the core. */
#include "core.h"

/* macOS calls it differently: there CLOCK_MONOTONIC runs while asleep. */
#ifdef CLOCK_BOOTTIME
#define ESP_CLOCK_BOOT CLOCK_BOOTTIME
#else
#define ESP_CLOCK_BOOT CLOCK_MONOTONIC
#endif

static int64_t
clock_ms(clockid_t id)
{
    struct timespec now = {0};

    clock_gettime(id, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int64_t
esp_clock_ms(void)
{
    return clock_ms(CLOCK_MONOTONIC);
}

int64_t
clock_boot_ms(void)
{
    return clock_ms(ESP_CLOCK_BOOT);
}
