/* loop.h - an event loop around poll(2) that does what a watcher asks for, to
 * the letter, and fails the test when that is not what a loop can do: to add
 * a descriptor twice or a closed one, to remove one that it does not watch, to
 * close one that it still watches, to believe that it watches one whose number
 * is another's by now (epoll(7) and kqueue would not), or to ring for ever. */
#ifndef LOOP_H
#define LOOP_H

#include "world.h"

#include <sys/types.h>

#define LOOP_DESCRIPTORS 4096

/* One press of a loop. */
struct pressed {
    struct esp_press *press; /* NULL: it was refused */
    struct esp_outcome refused;
    int named; /* how often the watcher has said that it is done */
};

struct loop {
    struct esp_watcher *watcher;
    int wake; /* -1: not watched */
    bool reads[LOOP_DESCRIPTORS];
    bool writes[LOOP_DESCRIPTORS];
    unsigned added[LOOP_DESCRIPTORS]; /* how often: a number may come again */
    ino_t inodes[LOOP_DESCRIPTORS];   /* of what was added last */
    int highest;
    int rang;     /* turns in a row that only the timer brought */
    int closed;   /* descriptors that it was told to close */
    bool is_late; /* bring what was ready before it was removed, too */
};

/* A loop for `pool`, with a watcher of its own.  Any check in it fails the
 * test, here and below. */
void loop_open(struct loop *loop, struct esp_pool *pool);

/* Watch nothing any more, and free the watcher. */
void loop_close(struct loop *loop);

/* Carry out what the watcher wants after any of its functions. */
void loop_settle(struct loop *loop);

/* Begin a press of `count` symbols (0: a warm-up). */
void loop_press(struct loop *loop, const struct esp_cancel *cancel,
                const char *const *symbols, size_t count,
                struct pressed *pressed);

/* One wait of at most `limit_ms`, and the turns it brings. */
void loop_turn(struct loop *loop, int limit_ms);

/* Turns until `pressed` is done, and the watcher has said so. */
void loop_run(struct loop *loop, struct pressed *pressed);

/* Free the press. */
void loop_free(struct loop *loop, struct pressed *pressed);

/* Descriptors that the loop watches, the wake descriptor not among them. */
int loop_watches(const struct loop *loop);

/* Connections among them, made or in the making.  libcurl has descriptors of its
 * own watched while a transfer runs: for its wake-ups [8.22], and for what its
 * resolver tells it. */
int loop_connections(const struct loop *loop);
bool loop_is_connection(int fd);

#endif
