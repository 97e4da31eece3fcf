/* errors.c - the one place where the core's verdicts become exceptions.
 *
 * C knows kinds; which class a kind and a code belong to is decided by
 * espresso.errors.from_outcome. */
#include "module.h"

static const char *const kind_names[] = {
    [ESP_OK] = "ok",
    [ESP_API] = "api",
    [ESP_HTTP] = "http",
    [ESP_TRANSPORT] = "transport",
    [ESP_TIMEOUT] = "timeout",
    [ESP_BAD_REPLY] = "bad_reply",
    [ESP_STILL_OPEN] = "still_open",
    [ESP_BAD_ARGUMENT] = "bad_argument",
    [ESP_INTERRUPTED] = "interrupted",
    [ESP_CLOSED] = "closed",
    [ESP_NO_MEMORY] = "no_memory",
};

static const char *const sent_names[] = {
    [ESP_NOT_SENT] = "not_sent",
    [ESP_REJECTED] = "rejected",
    [ESP_UNKNOWN] = "unknown",
    [ESP_DONE] = "done",
};

const char *
errors_sent_name(enum esp_sent sent)
{
    return sent_names[sent];
}

PyObject *
errors_raise_argument(PyObject *type, const struct esp_error *error)
{
    if (error->kind == ESP_NO_MEMORY)
        return PyErr_NoMemory();
    PyErr_SetString(type, error->message);
    return NULL;
}

static PyObject *
symbol_or_none(const char *symbol)
{
    return symbol != NULL ? PyUnicode_FromString(symbol) : Py_NewRef(Py_None);
}

/* The keywords of from_outcome.  "N" takes over references and passes the
 * failure of any of them on. */
static PyObject *
describe(struct esp_pool *pool, const struct esp_outcome *outcome,
         const char *symbol)
{
    return Py_BuildValue(
        "{s:s,s:s,s:s,s:N,s:N,s:N,s:N,s:N,s:N,s:N,s:s,s:i,s:i,s:d,s:N,s:N}",
        "kind", kind_names[outcome->kind], "sent", sent_names[outcome->sent],
        "call_sent", sent_names[outcome->call_sent], "retryable",
        PyBool_FromLong(outcome->retry != ESP_RETRY_NEVER), "certificate",
        PyBool_FromLong(outcome->certificate), "code",
        convert_int(outcome->has_code, outcome->code), "status_code",
        convert_int(outcome->http_status != 0, outcome->http_status),
        "message", convert_text(outcome->message, strlen(outcome->message)),
        "body", convert_text(outcome->body, outcome->body_length), "symbol",
        symbol_or_none(symbol), "peer", esp_pool_base_url(pool)->peer,
        "attempts", outcome->attempts, "attempts_max", outcome->attempts_max,
        "elapsed", outcome->elapsed_s, "retry_after",
        convert_seconds(outcome->retry_after), "order_ids",
        convert_round_ids(outcome));
}

/* The exception of a call that failed, not raised; NULL raises another. */
static PyObject *
make_exchange(struct module_state *state, struct esp_pool *pool,
              const struct esp_outcome *outcome, const char *symbol)
{
    PyObject *fields = describe(pool, outcome, symbol);
    PyObject *nothing = PyTuple_New(0);
    PyObject *exception = NULL;

    if (fields != NULL && nothing != NULL)
        exception = PyObject_Call(state->from_outcome, nothing, fields);
    Py_XDECREF(nothing);
    Py_XDECREF(fields);
    return exception;
}

PyObject *
errors_make(struct module_state *state, struct esp_pool *pool,
            const struct esp_outcome *outcome, const char *symbol)
{
    if (outcome->kind == ESP_NO_MEMORY)
        return PyObject_CallNoArgs(PyExc_MemoryError);
    return make_exchange(state, pool, outcome, symbol);
}

PyObject *
errors_raise(PyObject *exception)
{
    if (exception != NULL)
        PyErr_SetObject((PyObject *)Py_TYPE(exception), exception);
    Py_XDECREF(exception);
    return NULL;
}

static const char *const notes[] = {
    [ESP_NOT_SENT] = "espresso: the request for %s had not gone out",
    [ESP_REJECTED] = "espresso: the exchange had refused the request for %s; "
                     "nothing was cancelled by it",
    [ESP_UNKNOWN] = "espresso: the request for %s had gone out; whether its "
                    "orders are cancelled is unknown",
    [ESP_DONE] = "espresso: the request for %s was carried out",
};

/* A confirmed call that cancelled something and was then refused. */
static const char *const note_of_rounds =
    "espresso: the request for %s was carried out; one that followed it was "
    "refused";

/* A note is made while no exception is set. */
PyObject *
errors_note(const struct esp_outcome *outcome, const char *symbol)
{
    const char *note = notes[outcome->call_sent];

    if (outcome->call_sent == ESP_REJECTED && outcome->round_count > 0)
        note = note_of_rounds;
    return PyUnicode_FromFormat(note, symbol != NULL ? symbol : "a warm-up");
}

PyObject *
errors_take(void)
{
    PyObject *type;
    PyObject *value;
    PyObject *traceback;

    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (value != NULL && traceback != NULL)
        PyException_SetTraceback(value, traceback);
    Py_XDECREF(type);
    Py_XDECREF(traceback);
    return value;
}

void
errors_put_back(PyObject *exception)
{
    if (exception != NULL)
        PyErr_Restore(Py_NewRef((PyObject *)Py_TYPE(exception)), exception,
                      PyException_GetTraceback(exception));
}

void
errors_attach_note(PyObject *exception, PyObject *note)
{
    PyObject *done = NULL;

    if (exception != NULL && note != NULL)
        done = PyObject_CallMethod(exception, "add_note", "O", note);
    if (done == NULL)
        PyErr_Clear();
    Py_XDECREF(note);
    Py_XDECREF(done);
}

/* Tell with the exception that is set how far the call had come. */
static PyObject *
add_note(const struct esp_outcome *outcome, const char *symbol)
{
    PyObject *exception = errors_take();

    errors_attach_note(exception, errors_note(outcome, symbol));
    errors_put_back(exception);
    return NULL;
}

/* While the interpreter exits, a daemon thread ends as SystemExit ends one:
 * without a word on stderr, and past `except Exception`. */
void
errors_raise_exit(void)
{
    PyErr_SetString(PyExc_SystemExit,
                    "the interpreter is exiting: calls of other threads end");
}

static PyObject *
raise_closed(struct esp_pool *pool, const struct esp_outcome *outcome,
             const char *symbol)
{
    if (esp_pool_is_closed(pool) && outcome->attempts == 0) {
        PyErr_SetString(PyExc_RuntimeError, "the client is closed");
        return NULL;
    }
    errors_raise_exit();
    return add_note(outcome, symbol);
}

PyObject *
errors_raise_outcome(struct module_state *state, struct esp_pool *pool,
                     const struct esp_outcome *outcome, const char *symbol)
{
    switch (outcome->kind) {
    case ESP_INTERRUPTED:
        return add_note(outcome, symbol);
    case ESP_NO_MEMORY:
        PyErr_NoMemory();
        return add_note(outcome, symbol);
    case ESP_BAD_ARGUMENT:
        PyErr_SetString(PyExc_ValueError, outcome->message);
        return NULL;
    case ESP_CLOSED:
        return raise_closed(pool, outcome, symbol);
    default:
        return errors_raise(make_exchange(state, pool, outcome, symbol));
    }
}
