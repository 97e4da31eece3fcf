/* loop.h - what loop.c, the face for event loops, and loop_press.c, its calls,
 * share. */
#ifndef ESP_LOOP_H
#define ESP_LOOP_H

#include "client.h"

struct loop_press;

/* One event loop and one client's pool. */
typedef struct {
    PyObject_HEAD
    struct module_state *state;
    struct esp_watcher *watcher;
    PyObject *loop;
    PyObject *timer;  /* the handle of the one timer; NULL: none is set */
    int64_t timer_at; /* esp_clock_ms; when it fires */
    pid_t pid;        /* of the process whose loop it is */
    int wake_fd;      /* that the loop watches; -1: none */
    bool in_turn;     /* the core is running: a hook may have called us */
    struct loop_press *under_way; /* owned: the core has their address */
} LoopDriver;

/* One press under way, and its result. */
typedef struct loop_press {
    PyObject_HEAD
    struct loop_press *next;  /* in the driver's list */
    struct loop_press **link; /* that names us there; NULL: not in it */
    struct module_state *state;
    LoopDriver *driver;
    Client *client;
    PyObject *future; /* done when the press is */
    PyObject *value;  /* what was asked for; NULL: a warm-up */
    PyObject *error;  /* that ended it from outside; NULL: none */
    struct symbols symbols;
    struct listeners listeners; /* on_event is the client's */
    struct esp_press *press;
    char key_text[ESP_KEY_MAX + 1];
} LoopPress;

/* Carry out what the watcher wants after a turn: changes, timer, results. */
void loop_settle(LoopDriver *driver);

/* A press that the driver runs: a new reference; NULL raises. */
PyObject *loop_press_start(LoopDriver *driver, Client *client,
                           const struct press_arguments *given);
PyObject *loop_press_warm_up(LoopDriver *driver, Client *client);

/* The press has ended: wipe its key, wake who waits for it. */
void loop_press_complete(LoopPress *self);

/* Its loop is closed, or garbage: end it, and tell nobody. */
void loop_press_abandon(LoopPress *self);

/* End it with `error`. */
void loop_press_fail(LoopPress *self, PyObject *error);

#endif
