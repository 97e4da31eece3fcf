/* exec.c - what fills the module _core when it is imported. */
#include "module.h"

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

/* Make `spec`'s type, derived from `base` (NULL: object), keep it in *slot and
 * show it in the module. */
static int
add_type(PyObject *module, PyType_Spec *spec, PyTypeObject *base,
         PyTypeObject **slot)
{
    *slot = (PyTypeObject *)PyType_FromModuleAndSpec(module, spec,
                                                     (PyObject *)base);
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
add_types(PyObject *module, struct module_state *state)
{
    if (add_type(module, &base_client_type_spec, NULL,
                 &state->base_client_type) < 0 ||
        add_type(module, &client_type_spec, state->base_client_type,
                 &state->client_type) < 0 ||
        add_type(module, &async_client_type_spec, state->base_client_type,
                 &state->async_client_type) < 0)
        return -1;
    if (add_type(module, &loop_driver_type_spec, NULL,
                 &state->loop_driver_type) < 0 ||
        add_type(module, &loop_press_type_spec, NULL,
                 &state->loop_press_type) < 0)
        return -1;
    return add_type(module, &key_type_spec, NULL, &state->key_type);
}

static bool
make_names(struct module_state *state)
{
    state->name_symbol = PyUnicode_InternFromString("symbol");
    state->name_order_ids = PyUnicode_InternFromString("order_ids");
    state->name_lost_reply = PyUnicode_InternFromString("lost_reply");
    state->name_logging = PyUnicode_InternFromString("logging");
    state->name_watch = PyUnicode_InternFromString(WATCH_MODULE);
    state->name_level = PyUnicode_InternFromString("level");
    return state->name_symbol != NULL && state->name_order_ids != NULL &&
           state->name_lost_reply != NULL && state->name_logging != NULL &&
           state->name_watch != NULL && state->name_level != NULL;
}

int
module_exec(PyObject *module)
{
    struct module_state *state = PyModule_GetState(module);
    struct esp_error error;

    if (!esp_libcurl_check(&error)) {
        PyErr_SetString(PyExc_ImportError, error.message);
        return -1;
    }
    if (add_types(module, state) < 0)
        return -1;
    state->from_outcome = import_from("espresso.errors", "from_outcome");
    if (state->from_outcome == NULL)
        return -1;
    state->config_error = import_from("espresso.errors", "ConfigError");
    if (state->config_error == NULL)
        return -1;
    state->partial_error =
        import_from("espresso.errors", "PartialCancelError");
    if (state->partial_error == NULL)
        return -1;
    if (!make_names(state))
        return -1;
    state->group = esp_group_new();
    if (state->group == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    return add_constants(module) < 0 ? -1 : register_drain(module);
}
