/* lookups.c - how many name look-ups were left hanging, and whether one may begin.
 *
 * A look-up that outlives its transfer keeps a detached thread until the
 * resolver answers.  A bot that retries for hours while DNS hangs must not
 * collect thousands of them. */
#include "core.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int64_t abandoned_at[ESP_LOOKUPS_MAX];
static unsigned abandoned_count;

bool
lookups_exhausted(void)
{
    int64_t oldest = 0;
    bool full;

    pthread_mutex_lock(&lock);
    full = abandoned_count >= ESP_LOOKUPS_MAX;
    if (full)
        oldest = abandoned_at[abandoned_count % ESP_LOOKUPS_MAX];
    pthread_mutex_unlock(&lock);
    return full && esp_clock_ms() - oldest < ESP_LOOKUPS_WINDOW_MS;
}

void
lookups_note_abandoned(void)
{
    pthread_mutex_lock(&lock);
    abandoned_at[abandoned_count % ESP_LOOKUPS_MAX] = esp_clock_ms();
    abandoned_count++;
    if (abandoned_count == 2 * ESP_LOOKUPS_MAX)
        abandoned_count = ESP_LOOKUPS_MAX;
    pthread_mutex_unlock(&lock);
}

static void *
end_at_once(void *unused)
{
    return unused;
}

/* Later libcurls do not look whether theirs has started, and wait for it until
 * the time is over [8.22: lib/thrdqueue.c]. */
bool
lookups_have_thread(void)
{
    pthread_t thread;

    if (pthread_create(&thread, NULL, end_at_once, NULL) != 0)
        return false;
    pthread_detach(thread);
    return true;
}

void
lookups_prepare_fork(void)
{
    pthread_mutex_lock(&lock);
}

/* The threads stayed in the parent: a child has abandoned none. */
void
lookups_after_fork(bool in_child)
{
    if (in_child) {
        pthread_mutex_init(&lock, NULL);
        abandoned_count = 0;
    }
    else {
        pthread_mutex_unlock(&lock);
    }
}
