/* client.h - the object of client_type.c, which makes it, and of client.c,
 * loop.c and loop_press.c, which make its calls. */
#ifndef ESP_CLIENT_H
#define ESP_CLIENT_H

#include "module.h"

typedef struct {
    PyObject_HEAD
    atomic_bool is_taken; /* by an __init__ that runs or has succeeded */
    _Atomic(struct esp_pool *) pool; /* NULL until __init__ has succeeded */
    PyObject *key; /* a Key, or None: ask key_source at each call */
    PyObject *key_source;
    PyObject *on_event; /* or None */
    int64_t timeout_ms;
    int64_t attempt_timeout_ms; /* 0: the policy's own */
    int64_t connect_timeout_ms;
    int max_retries;
    double timeout; /* as the user wrote it */
} Client;

/* False raises RuntimeError: __init__ has not succeeded. */
bool client_is_ready(Client *self);

/* False raises RuntimeError: it is closed. */
bool client_is_open(Client *self);

/* The Key to use, a new reference; NULL raises. */
PyObject *client_find_key(struct module_state *state, Client *self);

/* Fill `cancel` for a press of `symbols`; `key_text` (ESP_KEY_MAX + 1 bytes)
 * gets the key, to be wiped after the press.  False raises. */
bool client_prepare(struct module_state *state, Client *self, PyObject *key,
                    const struct symbols *symbols,
                    const struct press_arguments *given,
                    struct esp_cancel *cancel, char *key_text);

/* The same for a warm-up, which has no key. */
bool client_prepare_warm_up(struct module_state *state, Client *self,
                            struct esp_cancel *cancel);

/* Warm up without the GIL, and fill `outcome`. */
void client_run_warm_up(struct module_state *state, Client *self,
                        struct esp_cancel *cancel,
                        struct esp_outcome *outcome);

/* The methods that call the exchange. */
PyObject *client_cancel_all(PyObject *object, PyTypeObject *defining,
                            PyObject *const *args, Py_ssize_t nargs,
                            PyObject *names);
PyObject *client_warm_up(PyObject *object, PyTypeObject *defining,
                         PyObject *const *args, Py_ssize_t nargs,
                         PyObject *names);
PyObject *client_probe(PyObject *object, PyTypeObject *defining,
                       PyObject *const *args, Py_ssize_t nargs,
                       PyObject *names);

/* AsyncClient._drive(loop): a LoopDriver (loop.c). */
PyObject *loop_driver_new(PyObject *object, PyTypeObject *defining,
                          PyObject *const *args, Py_ssize_t nargs,
                          PyObject *names);

#endif
