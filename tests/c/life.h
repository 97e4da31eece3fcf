/* life.h - whole lives of a pool, and a judge of what was claimed in them: for
 * programs that let allocations fail. */
#ifndef LIFE_H
#define LIFE_H

#include "loop.h"

#define CLAIMS_MAX 32
#define LIFE_SYMBOLS 20

/* Those of a list, as many as it needs. */
extern const char *const life_symbols[LIFE_SYMBOLS];

/* What is said of one symbol. */
struct claim {
    enum esp_kind kind;
    enum esp_sent sent;
    enum esp_sent call_sent;
    int attempts;
    int rounds;
    bool has_json;
    bool certificate; /* it was not verified */
    bool has_proof;   /* a reply, or the 4200 of a confirmed or lost one */
};

/* What one life did, to be judged when memory is back. */
struct life {
    struct claim claims[CLAIMS_MAX];
    int count;
};

/* A press of a plain client: ten seconds, no retry. */
extern const struct esp_cancel life_usual;

/* One call: one claim. */
void life_press(struct esp_pool *pool, const struct esp_cancel *cancel,
                struct life *life);

/* What a life does with its pool. */
typedef void life_presses(struct esp_pool *pool, struct life *life);

/* A first call, and a second on the kept connection: two claims. */
life_presses press_twice;

/* A call that goes on until nothing is open: one claim. */
life_presses press_confirmed;

/* A list: four claims. */
life_presses press_list;

/* A loop, a list, a call on a kept connection, one that is left, the end: six
 * claims, and up to four requests of which nothing is claimed. */
life_presses press_in_loops;

/* A pool, what `presses` does with it, the end. */
void live(const struct esp_settings *settings, struct life *life,
          life_presses *presses);

/* No claim is untrue.  `posts` came in all, of which `more` may be of calls
 * that were left. */
void judge(const struct life *life, int posts, int more);

#endif
