/* hooks.c - what a call without the GIL comes back to Python for: signals on
 * the main thread, and attempts that somebody wants to hear of. */
#include "module.h"

#include <unistd.h>
#ifdef __linux__
#include <sys/syscall.h>
#else
#include <pthread.h>
#endif

static bool
is_first_thread(void)
{
#ifdef __linux__
    return syscall(SYS_gettid) == getpid();
#else
    return pthread_main_np() != 0;
#endif
}

/* Python runs signal handlers on the main thread only: every other one may
 * wait without ever looking.  In the child of a fork the thread that forked
 * is the main one, hence the number of forks beside the thread. */
static bool
is_main_thread(struct module_state *state)
{
    unsigned long thread = PyThread_get_thread_ident();
    unsigned now = esp_forks() + 1;

    if (atomic_load(&state->main_known) != now && is_first_thread()) {
        atomic_store(&state->main_thread, thread);
        atomic_store(&state->main_known, now);
    }
    return atomic_load(&state->main_known) == now &&
           atomic_load(&state->main_thread) == thread;
}

/* Runs Python's signal handlers; nonzero: one of them raised. */
static int
on_interrupted(void *user)
{
    struct hooks_context *context = user;
    int raised;

    PyEval_RestoreThread(context->thread);
    raised = PyErr_CheckSignals();
    context->thread = PyEval_SaveThread();
    return raised;
}

static PyObject *
describe(const struct esp_attempt *attempt)
{
    const struct esp_outcome *outcome = attempt->outcome;
    const struct esp_timing *timing = &outcome->timing;

    return Py_BuildValue(
        "{s:s,s:i,s:N,s:N,s:s,s:N,s:N,s:N,s:N,s:N,s:N,s:N,s:s}", "symbol",
        attempt->symbol, "attempt", attempt->number, "status_code",
        convert_int(outcome->http_status != 0, outcome->http_status), "code",
        convert_int(outcome->has_code, outcome->code), "outcome",
        errors_sent_name(outcome->sent), "lost_reply",
        PyBool_FromLong(attempt->lost_reply), "dns",
        convert_seconds(timing->dns_s), "connect",
        convert_seconds(timing->connect_s), "tls",
        convert_seconds(timing->tls_s), "first_byte",
        convert_seconds(timing->first_byte_s), "total",
        convert_seconds(timing->total_s), "reused",
        PyBool_FromLong(timing->reused), "remote", timing->remote);
}

/* espresso._watch.attempt(on_event, fields, message, seconds to the next).
 * Nothing is called while an exception is set: it could be lost on the way. */
static PyObject *
tell(PyObject *on_event, const struct esp_attempt *attempt)
{
    const char *message = attempt->outcome->message;
    double next =
        attempt->next_in_ms < 0 ? -1 : (double)attempt->next_in_ms / 1000;
    PyObject *module = PyImport_ImportModule(WATCH_MODULE);
    PyObject *fields = module != NULL ? describe(attempt) : NULL;
    PyObject *text =
        fields != NULL ? convert_text(message, strlen(message)) : NULL;
    PyObject *seconds = text != NULL ? convert_seconds(next) : NULL;
    PyObject *result = NULL;

    if (seconds != NULL)
        result = PyObject_CallMethod(module, "attempt", "OOOO",
                                     on_event != NULL ? on_event : Py_None,
                                     fields, text, seconds);
    Py_XDECREF(seconds);
    Py_XDECREF(text);
    Py_XDECREF(fields);
    Py_XDECREF(module);
    return result;
}

/* An Exception of the watching code must not end a cancel; KeyboardInterrupt
 * and SystemExit, which are none, must.  0, or -1 with an exception set. */
static int
settle(PyObject *result)
{
    if (result != NULL) {
        Py_DECREF(result);
        return 0;
    }
    if (!PyErr_ExceptionMatches(PyExc_Exception))
        return -1;
    PyErr_WriteUnraisable(NULL);
    return 0;
}

/* Whether anybody wants to hear of it. */
static bool
is_worth_telling(const struct listeners *listeners,
                 const struct esp_attempt *attempt)
{
    return listeners->on_event != NULL || attempt->next_in_ms >= 0 ||
           attempt->lost_reply || listeners->level <= LOG_DEBUG;
}

int
hooks_tell(const struct listeners *listeners,
           const struct esp_attempt *attempt)
{
    if (!is_worth_telling(listeners, attempt))
        return 0;
    return settle(tell(listeners->on_event, attempt));
}

static int
on_attempt(void *user, const struct esp_attempt *attempt)
{
    struct hooks_context *context = user;
    int result;

    if (!is_worth_telling(&context->listeners, attempt))
        return 0;
    PyEval_RestoreThread(context->thread);
    result = hooks_tell(&context->listeners, attempt);
    context->thread = PyEval_SaveThread();
    return result;
}

/* espresso._watch.level.  Found without the import machinery, which takes as
 * long as the answer, unless the module is not there, or not whole yet because
 * another thread is importing it. */
static PyObject *
level_function(struct module_state *state)
{
    PyObject *module = PyImport_GetModule(state->name_watch);
    PyObject *level =
        module != NULL ? PyObject_GetAttr(module, state->name_level) : NULL;

    if (level == NULL) {
        PyErr_Clear();
        Py_XDECREF(module);
        module = PyImport_ImportModule(WATCH_MODULE);
        if (module != NULL)
            level = PyObject_GetAttr(module, state->name_level);
    }
    Py_XDECREF(module);
    return level;
}

/* Asked once a call.  A program that has not loaded logging listens to
 * warnings only. */
static long
find_level(struct module_state *state)
{
    PyObject *logging = PyImport_GetModule(state->name_logging);
    PyObject *level = logging != NULL ? level_function(state) : NULL;
    PyObject *answer = level != NULL ? PyObject_CallNoArgs(level) : NULL;
    long number = answer != NULL ? PyLong_AsLong(answer) : LOG_WARNING;

    if (PyErr_Occurred()) {
        PyErr_WriteUnraisable(NULL);
        number = LOG_WARNING;
    }
    Py_XDECREF(logging);
    Py_XDECREF(level);
    Py_XDECREF(answer);
    return number;
}

void
hooks_find_listeners(struct module_state *state, PyObject *on_event,
                     struct listeners *listeners)
{
    listeners->on_event = on_event != Py_None ? on_event : NULL;
    listeners->level = find_level(state);
}

void
hooks_init(struct module_state *state, PyObject *on_event,
           struct esp_hooks *hooks, struct hooks_context *context)
{
    bool is_main = is_main_thread(state);

    hooks_find_listeners(state, on_event, &context->listeners);
    *hooks = (struct esp_hooks){.interrupted = is_main ? on_interrupted : NULL,
                                .on_attempt = on_attempt,
                                .user = context,
                                .poll = is_main};
}

/* espresso._watch.result(symbol, value, elapsed). */
static void
tell_result(const char *symbol, PyObject *value, double elapsed)
{
    PyObject *module = PyImport_ImportModule(WATCH_MODULE);
    PyObject *result = NULL;

    if (module != NULL)
        result = PyObject_CallMethod(module, "result", "sOd", symbol, value,
                                     elapsed);
    if (result == NULL) /* the call is over, and has its own result */
        PyErr_WriteUnraisable(NULL);
    Py_XDECREF(module);
    Py_XDECREF(result);
}

void
hooks_tell_result(const struct listeners *listeners, const char *symbol,
                  PyObject *value, const struct esp_outcome *outcome)
{
    PyObject *error;

    if (listeners->level > LOG_INFO)
        return;
    error = errors_take();
    if (value != NULL || error != NULL)
        tell_result(symbol, value != NULL ? value : error, outcome->elapsed_s);
    errors_put_back(error);
}

static bool
has_lower_case(const char *symbol)
{
    while (*symbol != '\0' && (*symbol < 'a' || *symbol > 'z'))
        symbol++;
    return *symbol != '\0';
}

bool
hooks_warn_lower_case(const char *symbol)
{
    PyObject *module;
    PyObject *result = NULL;

    if (!has_lower_case(symbol))
        return true;
    module = PyImport_ImportModule(WATCH_MODULE);
    if (module != NULL)
        result = PyObject_CallMethod(module, "lower_case", "s", symbol);
    Py_XDECREF(module);
    return settle(result) == 0;
}
