/* module.c - what _core is made of: a table, no logic. */
#include "module.h"

#define DRAIN_WAIT_MS 2000

PyDoc_STRVAR(module_doc, "The C extension of espresso: the call itself.");

PyDoc_STRVAR(
    cancel_all_doc,
    "cancel_all($module, /, symbol, *, missing_ok=False, timeout=...,\n"
    "           max_retries=..., api_key=None, base_url=None)\n--\n\n"
    "Cancel all open orders of your account on one symbol.\n\n"
    "    >>> espresso.cancel_all(\"ADAUSDM\")\n"
    "    {'symbol': 'ADAUSDM', 'order_ids': ['550e8400-...', ...]}\n\n"
    "The account is that of DELTADEFI_API_KEY, read at each call. Blocks, at\n"
    "most `timeout` (10 s). All open orders on the symbol go, also those\n"
    "placed by hand or by another program.\n\n"
    "symbol: str, 1 to 64 of A-Z a-z 0-9 . _ -\n"
    "missing_ok: bool; nothing open is a success with no ids, not\n"
    "    OrderNotFoundError\n"
    "timeout: float, seconds for the whole call, attempts and waits included\n"
    "max_retries: int, attempts after the first (2)\n"
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

static PyMethodDef module_methods[] = {
    {"cancel_all", (PyCFunction)(void (*)(void))client_cancel_all_anywhere,
     METH_FASTCALL | METH_KEYWORDS, cancel_all_doc},
    {"parse_base_url", module_parse_base_url, METH_O, parse_doc},
    {"system_trust", module_system_trust, METH_NOARGS, trust_doc},
    {"_drain", module_drain, METH_NOARGS, drain_doc},
    {NULL, NULL, 0, NULL},
};

/* CODES: (code, class, outcome, retryable, meaning), made from codes.def. */
static PyObject *
make_codes(void)
{
    size_t count;
    const struct esp_code *row = esp_codes(&count);
    PyObject *codes = PyTuple_New((Py_ssize_t)count);
    PyObject *entry;
    size_t i;

    for (i = 0; codes != NULL && i < count; i++) {
        entry = Py_BuildValue("issNs", row[i].code, row[i].class_name,
                              errors_sent_name(row[i].sent),
                              PyBool_FromLong(row[i].retry != ESP_RETRY_NEVER),
                              row[i].meaning);
        if (entry == NULL || PyTuple_SetItem(codes, (Py_ssize_t)i, entry) < 0)
            Py_CLEAR(codes);
    }
    return codes;
}

static PyObject *
make_versions(void)
{
    return Py_BuildValue("{s:s,s:s,s:s,s:s}", "espresso", ESPRESSO_VERSION,
                         "libcurl", esp_version_libcurl(), "tls",
                         esp_version_tls(), "cjson", esp_version_cjson());
}

/* Add `value` (stolen) as `name`. */
static int
add(PyObject *module, const char *name, PyObject *value)
{
    int result =
        value != NULL ? PyModule_AddObjectRef(module, name, value) : -1;

    Py_XDECREF(value);
    return result;
}

static int
add_constants(PyObject *module)
{
    if (PyModule_AddStringConstant(module, "__version__", ESPRESSO_VERSION) <
            0 ||
        PyModule_AddStringConstant(module, "MAINNET", ESP_MAINNET) < 0 ||
        PyModule_AddStringConstant(module, "PREPROD", ESP_PREPROD) < 0)
        return -1;
    if (add(module, "CODES", make_codes()) < 0)
        return -1;
    return add(module, "VERSIONS", make_versions());
}

/* Make `spec`'s type, keep it in *slot and show it in the module. */
static int
add_type(PyObject *module, PyType_Spec *spec, PyTypeObject **slot)
{
    *slot = (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, NULL);
    return *slot != NULL ? PyModule_AddType(module, *slot) : -1;
}

/* One attribute of another module, as a new reference. */
static PyObject *
import_from(const char *module_name, const char *name)
{
    PyObject *module = PyImport_ImportModule(module_name);
    PyObject *value =
        module != NULL ? PyObject_GetAttrString(module, name) : NULL;

    Py_XDECREF(module);
    return value;
}

/* Before the interpreter ends, no thread may be left inside libcurl: the exit
 * hooks of its TLS library free what that thread uses. */
static int
register_drain(PyObject *module)
{
    PyObject *drain = PyObject_GetAttrString(module, "_drain");
    PyObject *enrol = import_from("atexit", "register");
    PyObject *done = NULL;

    if (drain != NULL && enrol != NULL)
        done = PyObject_CallFunctionObjArgs(enrol, drain, NULL);
    Py_XDECREF(drain);
    Py_XDECREF(enrol);
    Py_XDECREF(done);
    return done != NULL ? 0 : -1;
}

static int
module_exec(PyObject *module)
{
    struct module_state *state = PyModule_GetState(module);
    struct esp_error error;

    if (!esp_libcurl_check(&error)) {
        PyErr_SetString(PyExc_ImportError, error.message);
        return -1;
    }
    if (add_type(module, &client_type_spec, &state->client_type) < 0 ||
        add_type(module, &key_type_spec, &state->key_type) < 0)
        return -1;
    state->from_outcome = import_from("espresso.errors", "from_outcome");
    if (state->from_outcome == NULL)
        return -1;
    state->config_error = import_from("espresso.errors", "ConfigError");
    if (state->config_error == NULL)
        return -1;
    state->name_symbol = PyUnicode_InternFromString("symbol");
    state->name_order_ids = PyUnicode_InternFromString("order_ids");
    state->name_lost_reply = PyUnicode_InternFromString("lost_reply");
    if (state->name_symbol == NULL || state->name_order_ids == NULL ||
        state->name_lost_reply == NULL)
        return -1;
    state->group = esp_group_new();
    if (state->group == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    return add_constants(module) < 0 ? -1 : register_drain(module);
}

static int
module_traverse(PyObject *module, visitproc visit, void *arg)
{
    struct module_state *state = PyModule_GetState(module);

    Py_VISIT(state->client_type);
    Py_VISIT(state->key_type);
    Py_VISIT(state->from_outcome);
    Py_VISIT(state->config_error);
    Py_VISIT(state->name_symbol);
    Py_VISIT(state->name_order_ids);
    Py_VISIT(state->name_lost_reply);
    return 0;
}

static int
module_clear(PyObject *module)
{
    struct module_state *state = PyModule_GetState(module);

    Py_CLEAR(state->client_type);
    Py_CLEAR(state->key_type);
    Py_CLEAR(state->from_outcome);
    Py_CLEAR(state->config_error);
    Py_CLEAR(state->name_symbol);
    Py_CLEAR(state->name_order_ids);
    Py_CLEAR(state->name_lost_reply);
    return 0;
}

static void
module_free(void *module)
{
    struct module_state *state = PyModule_GetState(module);

    module_clear(module);
    esp_group_free(state->group);
    state->group = NULL;
}

/* The headers of 3.11, which the Limited API is compiled with, do not know
 * these slots; the numbers are part of the stable ABI.  An interpreter that
 * does not know a slot refuses the module, so each gets the table that fits
 * it. */
#ifndef Py_mod_multiple_interpreters
#define Py_mod_multiple_interpreters 3
#define Py_MOD_PER_INTERPRETER_GIL_SUPPORTED ((void *)2)
#endif
#ifndef Py_MOD_GIL_NOT_USED
#undef Py_mod_gil
#define Py_mod_gil 4
#define Py_MOD_GIL_NOT_USED ((void *)1)
#endif

#define EXEC_SLOT {Py_mod_exec, module_exec}
#define INTERPRETERS_SLOT                                                     \
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED}
#define GIL_SLOT {Py_mod_gil, Py_MOD_GIL_NOT_USED}
#define END_SLOT {0, NULL}

static PyModuleDef_Slot slots_311[] = {EXEC_SLOT, END_SLOT};
static PyModuleDef_Slot slots_312[] = {EXEC_SLOT, INTERPRETERS_SLOT, END_SLOT};
static PyModuleDef_Slot slots_313[] = {EXEC_SLOT, INTERPRETERS_SLOT, GIL_SLOT,
                                       END_SLOT};

#define MODULE_DEF(slot_table)                                                \
    {PyModuleDef_HEAD_INIT,         .m_name = "espresso._core",               \
     .m_doc = module_doc,           .m_size = sizeof(struct module_state),    \
     .m_methods = module_methods,   .m_slots = slot_table,                    \
     .m_traverse = module_traverse, .m_clear = module_clear,                  \
     .m_free = module_free}

static struct PyModuleDef def_311 = MODULE_DEF(slots_311);
static struct PyModuleDef def_312 = MODULE_DEF(slots_312);
static struct PyModuleDef def_313 = MODULE_DEF(slots_313);

PyMODINIT_FUNC PyInit__core(void);

PyMODINIT_FUNC
PyInit__core(void)
{
    if (Py_Version >= 0x030D0000)
        return PyModuleDef_Init(&def_313);
    if (Py_Version >= 0x030C0000)
        return PyModuleDef_Init(&def_312);
    return PyModuleDef_Init(&def_311);
}
