/* module.h - what the files of the binding share.
 *
 * The only files with Python.h.  Arguments come in here, a dict or an
 * exception goes out; everything between is the core's. */
#ifndef ESP_MODULE_H
#define ESP_MODULE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "espresso.h"

#include <stdatomic.h>
#include <string.h>
#include <sys/types.h>

/* Everything this module would otherwise keep in globals.  module_exec,
 * module_traverse and module_clear list the objects in this order. */
struct module_state {
    PyTypeObject *base_client_type;
    PyTypeObject *client_type;
    PyTypeObject *async_client_type;
    PyTypeObject *loop_driver_type;
    PyTypeObject *loop_press_type;
    PyTypeObject *key_type;
    PyObject *from_outcome;   /* espresso.errors.from_outcome */
    PyObject *config_error;   /* espresso.errors.ConfigError */
    PyObject *partial_error;  /* espresso.errors.PartialCancelError */
    PyObject *name_symbol;    /* "symbol" */
    PyObject *name_order_ids; /* "order_ids" */
    PyObject *name_lost_reply;
    PyObject *name_logging;
    PyObject *name_watch; /* WATCH_MODULE */
    PyObject *name_level;
    struct esp_group *group;
    atomic_uint main_known;   /* 0: not yet; else after how many forks, ... */
    atomic_ulong main_thread; /* ... the main thread is this; see hooks.c */
};

/* ---- exec.c, functions.c: what module.c puts together ------------------- */

int module_exec(PyObject *module);
extern PyMethodDef module_methods[];

/* ---- errors.c: the one place that raises for the core ------------------- */

/* Raise what `outcome` says of a call for `symbol` (NULL: a warm-up); always
 * NULL.  For INTERRUPTED an exception is set already and gets a note. */
PyObject *errors_raise_outcome(struct module_state *state,
                               struct esp_pool *pool,
                               const struct esp_outcome *outcome,
                               const char *symbol);

/* The exception of one symbol of a list that failed, not raised: MemoryError
 * for NO_MEMORY.  New reference; NULL raises. */
PyObject *errors_make(struct module_state *state, struct esp_pool *pool,
                      const struct esp_outcome *outcome, const char *symbol);

/* Raise `exception` (stolen; NULL: one is set already); always NULL. */
PyObject *errors_raise(PyObject *exception);

/* Raise what ends a call while the interpreter exits. */
void errors_raise_exit(void);

/* How far a call for `symbol` (NULL: a warm-up) had come.  New reference. */
PyObject *errors_note(const struct esp_outcome *outcome, const char *symbol);

/* Take off the exception that is set, as one object with its traceback; NULL:
 * none is.  errors_put_back (steals, NULL is fine) sets it again. */
PyObject *errors_take(void);
void errors_put_back(PyObject *exception);

/* Add `note` (stolen; NULL: an exception is set, which is forgotten) to
 * `exception` (NULL is fine). */
void errors_attach_note(PyObject *exception, PyObject *note);

/* "not_sent", "rejected", "unknown" or "done".  Static. */
const char *errors_sent_name(enum esp_sent sent);

/* Raise a refused argument as `type`; always NULL. */
PyObject *errors_raise_argument(PyObject *type, const struct esp_error *error);

/* ---- convert.c ---------------------------------------------------------- */

/* The dict of a successful cancel of `symbol`.  New reference. */
PyObject *convert_success(struct module_state *state,
                          const struct esp_outcome *outcome, PyObject *symbol);

/* The ids that the earlier rounds of a confirmed call cancelled, a list. */
PyObject *convert_round_ids(const struct esp_outcome *outcome);

/* New references; None for what is absent, or negative seconds. */
PyObject *convert_seconds(double seconds);
PyObject *convert_int(bool present, long number);

/* The text of a server, which may be anything.  New reference. */
PyObject *convert_text(const char *text, size_t length);

/* ---- arguments.c: what a user gave, or a clear exception ---------------- */

/* Raise TypeError: `name` must be `expected`; always false. */
bool arguments_refuse_type(PyObject *value, const char *name,
                           const char *expected);

/* Read a time-out: as it was given, and in milliseconds; false raises
 * TypeError or ValueError that names the argument. */
bool arguments_seconds(PyObject *value, const char *name, double *seconds,
                       int64_t *ms);

/* 0 .. ESP_RETRIES_MAX; false raises. */
bool arguments_retries(PyObject *value, int *retries);

/* The UTF-8 of a valid symbol, borrowed from `value`; NULL raises. */
const char *arguments_symbol(PyObject *value);

/* Raise TypeError unless a vectorcall of `function` has no arguments. */
bool arguments_none(const char *function, Py_ssize_t nargs, PyObject *names);

/* What cancel_all was called with, in the form the core takes. */
struct press_arguments {
    PyObject *symbol;      /* borrowed */
    PyObject *missing_ok;  /* borrowed; NULL: not given */
    PyObject *confirm;     /* borrowed; NULL: not given */
    PyObject *timeout;     /* borrowed; NULL: not given, or ... */
    PyObject *max_retries; /* borrowed; NULL: not given, or ... */
    PyObject *api_key;     /* borrowed; only the module-level function */
    PyObject *base_url;    /* borrowed; only the module-level function */
};

/* Read a vectorcall's arguments; `is_module_level` allows the last two.
 * False raises TypeError, with advice for habits from other libraries. */
bool arguments_press(PyObject *const *args, Py_ssize_t nargs, PyObject *names,
                     bool is_module_level, struct press_arguments *out);

/* Raise TypeError: cancel_all has no keyword `name`; always false. */
bool arguments_refuse_keyword(PyObject *name);

/* Raise TypeError with advice if `name` is a habit from another library;
 * false: it is not. */
bool arguments_refuse_habit(const char *name);

/* ---- symbols.c: the symbols of one press -------------------------------- */

/* One str, or the members of an iterable. */
struct symbols {
    PyObject *asked;    /* list of plain str, as they were given; one: NULL */
    PyObject *places;   /* dict: each different one -> its place in texts */
    const char **texts; /* UTF-8, borrowed; one: &text */
    const char *text;
    size_t count; /* of texts */
};

/* Read `value`; false raises TypeError, ValueError, or what the iterable
 * raised.  Free it either way. */
bool symbols_read(PyObject *value, struct symbols *symbols);
void symbols_free(struct symbols *symbols);

/* Say once of each that it holds small letters; false: an exception is set. */
bool symbols_warn(const struct symbols *symbols);

struct listeners;

/* ---- results.c: the results of a press ---------------------------------- */

/* What a press of one symbol that is done returns: the dict of `value`, the
 * str that was given, or an exception; the log is told of either. */
PyObject *results_convert_one(struct module_state *state,
                              struct esp_pool *pool,
                              const struct esp_outcome *outcome,
                              const char *symbol, PyObject *value,
                              const struct listeners *listeners);

/* What a warm-up returns: the seconds it took, or an exception. */
PyObject *results_convert_warm_up(struct module_state *state,
                                  struct esp_pool *pool,
                                  const struct esp_outcome *outcome);

/* What a press of a list that is done returns: a list of dicts in the order
 * asked for, or an exception. */
PyObject *results_convert(struct module_state *state, struct esp_pool *pool,
                          const struct esp_press *press,
                          const struct symbols *symbols,
                          const struct listeners *listeners);

/* How far each symbol had come, a line each.  New reference. */
PyObject *results_note(const struct esp_press *press,
                       const struct symbols *symbols);

/* ---- key.c: an API key that Python never sees again --------------------- */

extern PyType_Spec key_type_spec;

/* Copy the text of a Key object to `out` (ESP_KEY_MAX + 1 bytes); false: it
 * was forgotten. */
bool key_copy(PyObject *key, char *out);

/* Wipe what key_copy wrote. */
void key_wipe_copy(char *text);

/* Wipe the text of a Key object now. */
void key_forget(PyObject *key);

/* ---- client.c, client_type.c, hooks.c -------------------------------------------------- */

extern PyType_Spec base_client_type_spec;
extern PyType_Spec client_type_spec;
extern PyType_Spec async_client_type_spec;
extern PyType_Spec loop_driver_type_spec;
extern PyType_Spec loop_press_type_spec;

/* The module-level cancel_all(). */
PyObject *client_cancel_all_anywhere(PyObject *module, PyObject *const *args,
                                     Py_ssize_t nargs, PyObject *names);

/* What is told, and to whom. */
#define WATCH_MODULE "espresso._watch"

/* Levels of Python's logging. */
#define LOG_DEBUG 10
#define LOG_INFO 20
#define LOG_WARNING 30

/* Who wants to hear of a call. */
struct listeners {
    PyObject *on_event; /* borrowed; NULL: none */
    long level;         /* the least that the log listens to */
};

/* Ask who does; `on_event` may be None. */
void hooks_find_listeners(struct module_state *state, PyObject *on_event,
                          struct listeners *listeners);

/* Tell them of an attempt, with the GIL held; 0, or -1 with an exception set
 * that must end the call. */
int hooks_tell(const struct listeners *listeners,
               const struct esp_attempt *attempt);

/* Tell the log what a call for `symbol` came to: `value`, or if that is NULL
 * the exception that is set, which stays set. */
void hooks_tell_result(const struct listeners *listeners, const char *symbol,
                       PyObject *value, const struct esp_outcome *outcome);

/* What a call that runs without the GIL needs to come back to it. */
struct hooks_context {
    PyThreadState *thread;
    struct listeners listeners;
};

/* Fill `hooks` for a call of this thread; `on_event` may be None. */
void hooks_init(struct module_state *state, PyObject *on_event,
                struct esp_hooks *hooks, struct hooks_context *context);

/* Say once that `symbol` holds small letters; false: an exception is set. */
bool hooks_warn_lower_case(const char *symbol);

#endif
