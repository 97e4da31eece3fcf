/* client.h - the object of client.c, which makes its calls, and of
 * client_type.c, which makes the object. */
#ifndef ESP_CLIENT_H
#define ESP_CLIENT_H

#include "module.h"

typedef struct {
    PyObject_HEAD
    struct esp_pool *pool; /* NULL until __init__ has succeeded */
    PyObject *key;         /* a Key, or None: ask key_source at each call */
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

/* The methods that call the exchange. */
PyObject *client_cancel_all(PyObject *object, PyTypeObject *defining,
                            PyObject *const *args, Py_ssize_t nargs,
                            PyObject *names);
PyObject *client_warm_up(PyObject *object, PyTypeObject *defining,
                         PyObject *const *args, Py_ssize_t nargs,
                         PyObject *names);

#endif
