/* symbols.c - the symbols of one press: one str, or any iterable of str. */
#include "module.h"

/* Whether `value` can be read as a list of symbols.  The bytes of a symbol
 * are no list of anything. */
static bool
is_iterable(PyObject *value)
{
    return !PyBytes_Check(value) && !PyByteArray_Check(value) &&
           (PyObject_HasAttrString(value, "__iter__") ||
            PySequence_Check(value));
}

/* The place of `symbol` among the different ones, after adding it if need be;
 * -1 raises. */
static Py_ssize_t
place_of(PyObject *places, PyObject *symbol)
{
    PyObject *known = PyDict_GetItemWithError(places, symbol);
    Py_ssize_t place = PyDict_Size(places);
    PyObject *number;
    int added;

    if (known != NULL)
        return PyLong_AsSsize_t(known);
    if (PyErr_Occurred())
        return -1;
    number = PyLong_FromSsize_t(place);
    added = number != NULL ? PyDict_SetItem(places, symbol, number) : -1;
    Py_XDECREF(number);
    return added < 0 ? -1 : place;
}

/* Check one member and keep a plain str of it. */
static bool
read_member(PyObject *member, struct symbols *symbols)
{
    PyObject *plain;
    bool ok;

    if (arguments_symbol(member) == NULL)
        return false;
    if (PyList_Size(symbols->asked) == ESP_SYMBOLS_MAX) {
        PyErr_Format(PyExc_ValueError, "more than %d symbols in one call",
                     ESP_SYMBOLS_MAX);
        return false;
    }
    plain = PyUnicode_FromObject(member);
    ok = plain != NULL && PyList_Append(symbols->asked, plain) == 0 &&
         place_of(symbols->places, plain) >= 0;
    Py_XDECREF(plain);
    return ok;
}

static bool
read_members(PyObject *iterable, struct symbols *symbols)
{
    PyObject *iterator = PyObject_GetIter(iterable);
    PyObject *member;
    bool ok = iterator != NULL;

    while (ok && (member = PyIter_Next(iterator)) != NULL) {
        ok = read_member(member, symbols);
        Py_DECREF(member);
    }
    Py_XDECREF(iterator);
    if (ok && !PyErr_Occurred() && PyList_Size(symbols->asked) == 0)
        PyErr_SetString(PyExc_ValueError,
                        "no symbol: an empty list cancels nothing");
    return ok && !PyErr_Occurred();
}

/* The texts live as long as the strings that are the keys of `places`. */
static bool
take_texts(struct symbols *symbols)
{
    PyObject *symbol;
    PyObject *place;
    Py_ssize_t position = 0;

    symbols->count = (size_t)PyDict_Size(symbols->places);
    symbols->texts = PyMem_Calloc(symbols->count, sizeof *symbols->texts);
    if (symbols->texts == NULL) {
        PyErr_NoMemory();
        return false;
    }
    while (PyDict_Next(symbols->places, &position, &symbol, &place)) {
        const char *text = PyUnicode_AsUTF8AndSize(symbol, NULL);

        if (text == NULL)
            return false;
        symbols->texts[PyLong_AsSsize_t(place)] = text;
    }
    return true;
}

bool
symbols_read(PyObject *value, struct symbols *symbols)
{
    *symbols = (struct symbols){0};
    if (PyUnicode_Check(value)) {
        symbols->text = arguments_symbol(value);
        symbols->texts = &symbols->text;
        symbols->count = 1;
        return symbols->text != NULL;
    }
    if (!is_iterable(value))
        return arguments_refuse_type(value, "symbol",
                                     "one str or an iterable of str");
    symbols->asked = PyList_New(0);
    symbols->places = PyDict_New();
    return symbols->asked != NULL && symbols->places != NULL &&
           read_members(value, symbols) && take_texts(symbols);
}

void
symbols_free(struct symbols *symbols)
{
    if (symbols->texts != &symbols->text)
        PyMem_Free(symbols->texts);
    symbols->texts = NULL;
    Py_CLEAR(symbols->asked);
    Py_CLEAR(symbols->places);
}

bool
symbols_warn(const struct symbols *symbols)
{
    size_t i;

    for (i = 0; i < symbols->count; i++) {
        if (!hooks_warn_lower_case(symbols->texts[i]))
            return false;
    }
    return true;
}
