/* results.c - what a press returns: a dict, or for several symbols a list of
 * dicts, or one exception that holds both halves. */
#include "module.h"

/* The outcome of the symbol that was asked for as number `index`. */
static const struct esp_outcome *
outcome_of(const struct esp_press *press, const struct symbols *symbols,
           PyObject *symbol)
{
    PyObject *place = PyDict_GetItemWithError(symbols->places, symbol);

    return esp_press_outcome(press, (size_t)PyLong_AsSsize_t(place));
}

static void
tell(const struct listeners *listeners, PyObject *symbol, PyObject *value,
     const struct esp_outcome *outcome)
{
    const char *text = PyUnicode_AsUTF8AndSize(symbol, NULL);

    if (text != NULL)
        hooks_tell_result(listeners, text, value, outcome);
}

/* One dict for each symbol that was asked for, duplicates included. */
static PyObject *
make_list(struct module_state *state, const struct esp_press *press,
          const struct symbols *symbols, const struct listeners *listeners)
{
    Py_ssize_t count = PyList_Size(symbols->asked);
    PyObject *list = PyList_New(0);
    Py_ssize_t i;

    for (i = 0; list != NULL && i < count; i++) {
        PyObject *symbol = PyList_GetItem(symbols->asked, i);
        const struct esp_outcome *outcome = outcome_of(press, symbols, symbol);
        PyObject *dict = convert_success(state, outcome, symbol);

        if (dict == NULL || PyList_Append(list, dict) < 0)
            Py_CLEAR(list);
        else
            tell(listeners, symbol, dict, outcome);
        Py_XDECREF(dict);
    }
    return list;
}

/* Put what became of `symbol` into the half it belongs to. */
static bool
sort_out(struct module_state *state, struct esp_pool *pool,
         const struct esp_outcome *outcome, PyObject *symbol,
         PyObject *results, PyObject *failed,
         const struct listeners *listeners)
{
    bool succeeded = outcome->kind == ESP_OK;
    PyObject *value = succeeded
                          ? convert_success(state, outcome, symbol)
                          : errors_make(state, pool, outcome,
                                        PyUnicode_AsUTF8AndSize(symbol, NULL));
    bool ok = value != NULL &&
              PyDict_SetItem(succeeded ? results : failed, symbol, value) == 0;

    if (ok)
        tell(listeners, symbol, value, outcome);
    Py_XDECREF(value);
    return ok;
}

static PyObject *
raise_partial(struct module_state *state, struct esp_pool *pool,
              const struct esp_press *press, const struct symbols *symbols,
              const struct listeners *listeners)
{
    PyObject *results = PyDict_New();
    PyObject *failed = PyDict_New();
    PyObject *exception = NULL;
    PyObject *symbol;
    PyObject *place;
    Py_ssize_t position = 0;
    bool ok = results != NULL && failed != NULL;

    while (ok && PyDict_Next(symbols->places, &position, &symbol, &place))
        ok = sort_out(state, pool, outcome_of(press, symbols, symbol), symbol,
                      results, failed, listeners);
    if (ok)
        exception = PyObject_CallMethod(state->partial_error, "from_results",
                                        "OO", results, failed);
    Py_XDECREF(results);
    Py_XDECREF(failed);
    return errors_raise(exception);
}

/* The first outcome that ends the whole press, or else any that failed; NULL:
 * all succeeded. */
static const struct esp_outcome *
find_failure(const struct esp_press *press, const struct symbols *symbols)
{
    const struct esp_outcome *failure = NULL;
    size_t i;

    for (i = 0; i < symbols->count; i++) {
        const struct esp_outcome *outcome = esp_press_outcome(press, i);

        if (outcome->kind == ESP_INTERRUPTED || outcome->kind == ESP_CLOSED)
            return outcome;
        if (outcome->kind != ESP_OK)
            failure = outcome;
    }
    return failure;
}

PyObject *
results_note(const struct esp_press *press, const struct symbols *symbols)
{
    PyObject *parts = PyList_New(0);
    PyObject *separator = PyUnicode_FromString("\n");
    PyObject *note = NULL;
    size_t i;

    for (i = 0; parts != NULL && i < symbols->count; i++) {
        PyObject *part =
            errors_note(esp_press_outcome(press, i), symbols->texts[i]);

        if (part == NULL || PyList_Append(parts, part) < 0)
            Py_CLEAR(parts);
        Py_XDECREF(part);
    }
    if (parts != NULL && separator != NULL)
        note = PyUnicode_Join(separator, parts);
    Py_XDECREF(parts);
    Py_XDECREF(separator);
    return note;
}

/* Tell with the exception that is set how far each symbol had come. */
static PyObject *
add_note(const struct esp_press *press, const struct symbols *symbols)
{
    PyObject *exception = errors_take();

    errors_attach_note(exception, results_note(press, symbols));
    errors_put_back(exception);
    return NULL;
}

PyObject *
results_convert_one(struct module_state *state, struct esp_pool *pool,
                    const struct esp_outcome *outcome, const char *symbol,
                    PyObject *value, const struct listeners *listeners)
{
    PyObject *result = NULL;

    if (outcome->kind == ESP_OK)
        result = convert_success(state, outcome, value);
    else
        errors_raise_outcome(state, pool, outcome, symbol);
    hooks_tell_result(listeners, symbol, result, outcome);
    return result;
}

PyObject *
results_convert_warm_up(struct module_state *state, struct esp_pool *pool,
                        const struct esp_outcome *outcome)
{
    if (outcome->kind != ESP_OK)
        return errors_raise_outcome(state, pool, outcome, NULL);
    return PyFloat_FromDouble(outcome->elapsed_s);
}

PyObject *
results_convert(struct module_state *state, struct esp_pool *pool,
                const struct esp_press *press, const struct symbols *symbols,
                const struct listeners *listeners)
{
    const struct esp_outcome *failure = find_failure(press, symbols);

    if (failure == NULL)
        return make_list(state, press, symbols, listeners);
    if (failure->kind == ESP_INTERRUPTED)
        return add_note(press, symbols);
    if (failure->kind == ESP_CLOSED) {
        errors_raise_exit();
        return add_note(press, symbols);
    }
    return raise_partial(state, pool, press, symbols, listeners);
}
