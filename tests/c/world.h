/* world.h - a group, a pool and a server to call, for one test. */
#ifndef WORLD_H
#define WORLD_H

#include "server.h"
#include "unit.h"

#include <poll.h>

#define SYMBOL "ADAUSDM"
#define KEY "sandbox-0123456789abcdef"

#define DRIVEN_MAX 64 /* symbols of a press that is driven by hand */

#define OK_BODY "{\"symbol\":\"ADAUSDM\",\"order_ids\":[\"a\",\"b\"]}"
#define OK_200 HEAD("200 OK", "42") OK_BODY
#define NOTHING_OPEN                                                          \
    HEAD("400 Bad Request", "39")                                             \
    "{\"error\":\"Order not found\",\"code\":"                                \
    "4200}"

struct world {
    struct server *server;
    struct esp_group *group;
    struct esp_pool *pool;
    struct esp_cancel cancel; /* ten seconds, no retry */
    struct esp_outcome outcome;
};

/* A pool for the server of that script.  Any check in it fails the test. */
void world_open(struct world *world, const struct step *steps, size_t count);

/* The same for `settings`; a NULL base_url is the server's. */
void world_open_with(struct world *world, const struct step *steps,
                     size_t count, struct esp_settings settings);

/* Free all, the outcome too. */
void world_close(struct world *world);

/* Press the button; frees the outcome of the press before. */
void world_press(struct world *world);

/* The same through a press, with a poll loop of our own. */
void world_press_by_hand(struct world *world);

/* Give `press` turns until it is done. */
void drive_by_hand(struct esp_press *press);

/* Begin a press whose outcome is the world's; NULL: it was refused. */
struct esp_press *world_start(struct world *world);

/* The sockets that a press of one symbol waits for: their count. */
size_t watches_of(const struct esp_press *press, struct pollfd *polled);

/* One wait of at most `limit_ms`, and the turns it brings. */
void drive_once(struct esp_press *press, int limit_ms);

/* Give `press` turns until the server has `count` requests, or it is done. */
void drive_until_sent(struct esp_press *press, struct server *server,
                      int count);

/* End a forked child with status 0 or 1, by running another program: what the
 * core abandons in a child on purpose is no leak of this one. */
void leave_child(bool ok);

void sleep_ms(long milliseconds);

#endif
