/* functions.c - the functions of the module _core. */
#include "module.h"

#define DRAIN_WAIT_MS 2000

PyDoc_STRVAR(
    cancel_all_doc,
    "cancel_all($module, /, symbol, *, missing_ok=False, confirm=False,\n"
    "           timeout=..., max_retries=..., api_key=None, base_url=None)\n"
    "--\n\n"
    "Cancel all open orders of your account on one symbol, or on several.\n\n"
    "    >>> espresso.cancel_all(\"ADAUSDM\")\n"
    "    {'symbol': 'ADAUSDM', 'order_ids': ['550e8400-...', ...]}\n"
    "    >>> espresso.cancel_all([\"ADAUSDM\", \"NIGHTUSDM\"], confirm=True)\n"
    "    [{'symbol': 'ADAUSDM', ...}, {'symbol': 'NIGHTUSDM', ...}]\n\n"
    "The account is that of DELTADEFI_API_KEY, read at each call. Blocks, at\n"
    "most `timeout` (10 s). All open orders on the symbol go, also those\n"
    "placed by hand or by another program.\n\n"
    "symbol: str, 1 to 64 of A-Z a-z 0-9 . _ -, or an iterable of such\n"
    "missing_ok: bool; nothing open is a success with no ids, not\n"
    "    OrderNotFoundError\n"
    "confirm: bool; cancel again until the exchange says that nothing is\n"
    "    open; implies missing_ok\n"
    "timeout: float, seconds for the whole call, attempts and waits included\n"
    "max_retries: int, attempts after the first (2), of each symbol and "
    "round\n"
    "api_key: str, instead of DELTADEFI_API_KEY\n"
    "base_url: str, instead of DELTADEFI_BASE_URL or espresso.MAINNET\n\n"
    "Returns and raises what Client.cancel_all does.");

PyDoc_STRVAR(parse_doc,
             "parse_base_url(text, /)\n--\n\n"
             "(normalised URL, host, whether it is loopback) of a base URL.\n"
             "Raises ConfigError for one that could leak the key.");

PyDoc_STRVAR(trust_doc, "system_trust()\n--\n\n"
                        "The system's hashed directory or bundle of roots, "
                        "or None.");

PyDoc_STRVAR(
    symbols_doc,
    "check_symbols(symbol, /)\n--\n\n"
    "The symbols of a str or an iterable of them, each once, as a list\n"
    "of str. Raises TypeError and ValueError as cancel_all does.");

PyDoc_STRVAR(refuse_doc, "refuse_keyword(name, /)\n--\n\n"
                         "Raise the TypeError of a keyword that cancel_all\n"
                         "does not have.");

PyDoc_STRVAR(drain_doc, "_drain()\n--\n\n"
                        "End the calls of other threads; run at exit.");

static PyObject *
module_parse_base_url(PyObject *module, PyObject *text)
{
    struct module_state *state = PyModule_GetState(module);
    struct esp_base_url url;
    struct esp_error error;
    const char *utf8;
    Py_ssize_t length;

    if (!PyUnicode_Check(text)) {
        arguments_refuse_type(text, "base_url", "str");
        return NULL;
    }
    utf8 = PyUnicode_AsUTF8AndSize(text, &length);
    if (utf8 == NULL || (size_t)length != strlen(utf8)) {
        PyErr_Clear(); /* a lone surrogate, or a NUL inside: no URL */
        utf8 = "";
    }
    if (!esp_base_url_parse(utf8, &url, &error))
        return errors_raise_argument(state->config_error, &error);
    return Py_BuildValue("ssN", url.url, url.host,
                         PyBool_FromLong(url.loopback));
}

static PyObject *
module_system_trust(PyObject *module, PyObject *unused)
{
    char path[ESP_PATH_MAX + 1];

    (void)module;
    (void)unused;
    if (!esp_trust_system(path))
        return Py_NewRef(Py_None);
    return PyUnicode_DecodeFSDefault(path);
}

static PyObject *
module_drain(PyObject *module, PyObject *unused)
{
    struct module_state *state = PyModule_GetState(module);

    (void)unused;
    Py_BEGIN_ALLOW_THREADS
    esp_group_drain(state->group, DRAIN_WAIT_MS);
    Py_END_ALLOW_THREADS
    return Py_NewRef(Py_None);
}

static PyObject *
module_check_symbols(PyObject *module, PyObject *value)
{
    struct symbols symbols;
    PyObject *list = NULL;

    (void)module;
    if (symbols_read(value, &symbols))
        list = symbols.asked != NULL ? PyDict_Keys(symbols.places)
                                     : Py_BuildValue("[s]", symbols.text);
    symbols_free(&symbols);
    return list;
}

/* For coroutines, which Python itself gives their keywords. */
static PyObject *
module_refuse_keyword(PyObject *module, PyObject *name)
{
    (void)module;
    arguments_refuse_keyword(name);
    return NULL;
}

PyMethodDef module_methods[] = {
    {"cancel_all", (PyCFunction)(void (*)(void))client_cancel_all_anywhere,
     METH_FASTCALL | METH_KEYWORDS, cancel_all_doc},
    {"parse_base_url", module_parse_base_url, METH_O, parse_doc},
    {"system_trust", module_system_trust, METH_NOARGS, trust_doc},
    {"check_symbols", module_check_symbols, METH_O, symbols_doc},
    {"refuse_keyword", module_refuse_keyword, METH_O, refuse_doc},
    {"_drain", module_drain, METH_NOARGS, drain_doc},
    {NULL, NULL, 0, NULL},
};
