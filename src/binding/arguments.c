/* arguments.c - what a user gave, or an exception that says how to mend it. */
#include "module.h"

#include <string.h>

/* ---- Single values ------------------------------------------------------ */

bool
arguments_refuse_type(PyObject *value, const char *name, const char *expected)
{
    PyObject *type = PyType_GetName(Py_TYPE(value));

    if (type != NULL)
        PyErr_Format(PyExc_TypeError, "%s must be %s, not %S", name, expected,
                     type);
    Py_XDECREF(type);
    return false;
}

/* A float of anything that has one; false raises TypeError, or whatever the
 * value's own __float__ raised. */
static bool
read_float(PyObject *value, const char *name, double *seconds)
{
    if (PyBool_Check(value) || PyUnicode_Check(value))
        return arguments_refuse_type(value, name, "a number of seconds");
    *seconds = PyFloat_AsDouble(value);
    if (*seconds != -1.0 || !PyErr_Occurred())
        return true;
    if (PyErr_ExceptionMatches(PyExc_TypeError)) {
        PyErr_Clear();
        return arguments_refuse_type(value, name, "a number of seconds");
    }
    if (!PyErr_ExceptionMatches(PyExc_OverflowError))
        return false;
    PyErr_Clear(); /* an int that no float holds: out of range like -1 */
    return true;
}

bool
arguments_seconds(PyObject *value, const char *name, double *seconds,
                  int64_t *ms)
{
    if (PyTuple_Check(value)) {
        PyErr_Format(PyExc_TypeError,
                     "%s is one number, the seconds of the whole call; for "
                     "the connection alone use connect_timeout",
                     name);
        return false;
    }
    if (value == Py_None) {
        PyErr_Format(PyExc_TypeError,
                     "%s may not be None: a call without a limit can hang",
                     name);
        return false;
    }
    if (!read_float(value, name, seconds))
        return false;
    *ms = esp_timeout_ms(*seconds);
    if (*ms < 0)
        PyErr_Format(PyExc_ValueError,
                     "%s must be positive, finite and at most 86400 seconds, "
                     "not %R",
                     name, value);
    return *ms >= 0;
}

bool
arguments_retries(PyObject *value, int *retries)
{
    long number;

    if (PyBool_Check(value) || !PyLong_Check(value))
        return arguments_refuse_type(value, "max_retries", "an int");
    number = PyLong_AsLong(value);
    if (number == -1 && PyErr_Occurred())
        PyErr_Clear();
    if (number < 0 || number > ESP_RETRIES_MAX) {
        PyErr_Format(PyExc_ValueError, "max_retries must be 0 to %d, not %R",
                     ESP_RETRIES_MAX, value);
        return false;
    }
    *retries = (int)number;
    return true;
}

const char *
arguments_symbol(PyObject *value)
{
    struct esp_error error;
    const char *text;
    Py_ssize_t length;

    if (!PyUnicode_Check(value)) {
        arguments_refuse_type(value, "symbol", "str");
        return NULL;
    }
    /* The length first: 10^8 characters need no encoding to be refused. */
    length = PyUnicode_GetLength(value);
    text =
        length > ESP_SYMBOL_MAX ? "" : PyUnicode_AsUTF8AndSize(value, &length);
    if (text == NULL) {
        PyErr_Clear(); /* a lone surrogate: not a symbol either */
        text = "\x7f";
        length = 1;
    }
    if (!esp_symbol_check(text, (size_t)length, &error)) {
        errors_raise_argument(PyExc_ValueError, &error);
        return NULL;
    }
    return text;
}

bool
arguments_none(const char *function, Py_ssize_t nargs, PyObject *names)
{
    bool none = nargs == 0 && (names == NULL || PyTuple_Size(names) == 0);

    if (!none)
        PyErr_Format(PyExc_TypeError, "%s() takes no arguments", function);
    return none;
}

/* ---- Keywords ----------------------------------------------------------- */

bool
arguments_refuse_habit(const char *name)
{
    static const struct {
        const char *name;
        const char *advice;
    } habits[] = {
        {"verify", "TLS verification cannot be switched off; name your own "
                   "roots in Client(ca_file=...)"},
        {"cert", "the exchange knows accounts by api_key, not by client "
                 "certificates"},
        {"proxies", "name one proxy URL in Client(proxy=...)"},
        {"retries", "it is called max_retries"},
    };
    size_t i;

    for (i = 0; i < sizeof habits / sizeof *habits; i++) {
        if (strcmp(name, habits[i].name) == 0) {
            PyErr_Format(PyExc_TypeError, "no keyword %s: %s", name,
                         habits[i].advice);
            return true;
        }
    }
    return false;
}

/* Where the value of keyword `name` goes; NULL: there is no such keyword. */
static PyObject **
press_slot(struct press_arguments *out, PyObject *name, bool is_module_level)
{
    const struct {
        const char *name;
        PyObject **slot;
        bool everywhere;
    } known[] = {
        {"missing_ok", &out->missing_ok, true},
        {"confirm", &out->confirm, true},
        {"timeout", &out->timeout, true},
        {"max_retries", &out->max_retries, true},
        {"symbol", &out->symbol, true},
        {"api_key", &out->api_key, false},
        {"base_url", &out->base_url, false},
    };
    size_t i;

    for (i = 0; i < sizeof known / sizeof *known; i++) {
        if ((known[i].everywhere || is_module_level) &&
            PyUnicode_CompareWithASCIIString(name, known[i].name) == 0)
            return known[i].slot;
    }
    return NULL;
}

bool
arguments_refuse_keyword(PyObject *name)
{
    const char *text = PyUnicode_AsUTF8AndSize(name, NULL);

    if (text != NULL && !arguments_refuse_habit(text))
        PyErr_Format(PyExc_TypeError,
                     "cancel_all() got an unexpected keyword argument %R",
                     name);
    return false;
}

static bool
read_keywords(PyObject *const *values, PyObject *names, bool is_module_level,
              struct press_arguments *out)
{
    Py_ssize_t count = names != NULL ? PyTuple_Size(names) : 0;
    PyObject **slot;
    Py_ssize_t i;

    for (i = 0; i < count; i++) {
        PyObject *name = PyTuple_GetItem(names, i);

        slot = press_slot(out, name, is_module_level);
        if (slot == NULL)
            return arguments_refuse_keyword(name);
        if (*slot != NULL) {
            PyErr_Format(PyExc_TypeError,
                         "cancel_all() got multiple values for %R", name);
            return false;
        }
        *slot = values[i];
    }
    return true;
}

/* `...` is how the signature writes "the client's own". */
static void
forget_default(PyObject **value)
{
    if (*value == Py_Ellipsis)
        *value = NULL;
}

bool
arguments_press(PyObject *const *args, Py_ssize_t nargs, PyObject *names,
                bool is_module_level, struct press_arguments *out)
{
    *out = (struct press_arguments){0};
    if (nargs > 1) {
        PyErr_SetString(
            PyExc_TypeError,
            "cancel_all() takes one symbol or one list of symbols; "
            "everything else is given by keyword");
        return false;
    }
    if (nargs == 1)
        out->symbol = args[0];
    if (!read_keywords(args + nargs, names, is_module_level, out))
        return false;
    if (out->symbol == NULL) {
        PyErr_SetString(PyExc_TypeError,
                        "cancel_all() needs a symbol, such as \"ADAUSDM\"");
        return false;
    }
    forget_default(&out->timeout);
    forget_default(&out->max_retries);
    return true;
}
