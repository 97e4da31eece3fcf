/* client.c - the button: str in, GIL off, dict or exception out. */
#include "client.h"

/* ---- One call ----------------------------------------------------------- */

bool
client_is_ready(Client *self)
{
    /* The garbage collector takes the key before the pool. */
    bool ready = self->pool != NULL && self->key != NULL;

    if (!ready)
        PyErr_SetString(PyExc_RuntimeError,
                        "Client.__init__ was not called or failed");
    return ready;
}

bool
client_is_open(Client *self)
{
    bool open = !esp_pool_is_closed(self->pool);

    if (!open)
        PyErr_SetString(PyExc_RuntimeError, "the client is closed");
    return open;
}

/* A libcurl that logs the secrets of every session must not carry a key. */
static bool
refuse_keylog(struct module_state *state)
{
    bool on = esp_keylog_is_on();

    if (on)
        PyErr_SetString(state->config_error,
                        "SSLKEYLOGFILE is set: this libcurl writes the "
                        "secrets of every TLS session to that file; unset it "
                        "and start again");
    return on;
}

PyObject *
client_find_key(struct module_state *state, Client *self)
{
    PyObject *key;

    if (self->key != Py_None)
        return Py_NewRef(self->key);
    key = PyObject_CallNoArgs(self->key_source);
    if (key != NULL && Py_TYPE(key) != state->key_type) {
        PyErr_SetString(PyExc_TypeError, "key_source must return a Key");
        Py_CLEAR(key);
    }
    return key;
}

/* Fill `cancel` from the client's options and those of this call. */
static bool
read_options(Client *self, const struct press_arguments *given,
             struct esp_cancel *cancel)
{
    double unused;
    int missing_ok =
        given->missing_ok != NULL ? PyObject_IsTrue(given->missing_ok) : 0;
    int confirm = given->confirm != NULL && missing_ok >= 0
                      ? PyObject_IsTrue(given->confirm)
                      : 0;

    if (missing_ok < 0 || confirm < 0)
        return false;
    cancel->missing_ok = missing_ok;
    cancel->confirm = confirm;
    cancel->timeout_ms = self->timeout_ms;
    cancel->attempt_timeout_ms = self->attempt_timeout_ms;
    cancel->connect_timeout_ms = self->connect_timeout_ms;
    cancel->max_retries = self->max_retries;
    return (given->timeout == NULL ||
            arguments_seconds(given->timeout, "timeout", &unused,
                              &cancel->timeout_ms)) &&
           (given->max_retries == NULL ||
            arguments_retries(given->max_retries, &cancel->max_retries));
}

typedef void core_call(struct esp_pool *pool, const struct esp_cancel *cancel,
                       struct esp_outcome *outcome);

/* Run `call` without the GIL; signals and attempts come back through the
 * hooks. */
static void
run_without_gil(struct module_state *state, core_call *call, Client *self,
                struct esp_cancel *cancel, struct hooks_context *context,
                struct esp_outcome *outcome)
{
    hooks_init(state, self->on_event, &cancel->hooks, context);
    context->thread = PyEval_SaveThread();
    call(self->pool, cancel, outcome);
    PyEval_RestoreThread(context->thread);
}

/* Press the button for one symbol, the text of `value`. */
static PyObject *
press_one(struct module_state *state, Client *self, struct esp_cancel *cancel,
          PyObject *value)
{
    struct hooks_context context;
    struct esp_outcome outcome;
    PyObject *result;

    run_without_gil(state, esp_cancel_all, self, cancel, &context, &outcome);
    result = results_convert_one(state, self->pool, &outcome, cancel->symbol,
                                 value, &context.listeners);
    esp_outcome_free(&outcome);
    return result;
}

static PyObject *
press_list(struct module_state *state, Client *self, struct esp_cancel *cancel,
           const struct symbols *symbols)
{
    struct hooks_context context;
    struct esp_outcome refused;
    struct esp_press *press;
    PyObject *result = NULL;

    hooks_init(state, self->on_event, &cancel->hooks, &context);
    context.thread = PyEval_SaveThread();
    press = esp_cancel_list(self->pool, cancel, symbols->texts, symbols->count,
                            &refused);
    PyEval_RestoreThread(context.thread);
    if (press != NULL)
        result = results_convert(state, self->pool, press, symbols,
                                 &context.listeners);
    else
        errors_raise_outcome(state, self->pool, &refused, NULL);
    esp_press_free(press);
    return result;
}

bool
client_prepare(struct module_state *state, Client *self, PyObject *key,
               const struct symbols *symbols,
               const struct press_arguments *given, struct esp_cancel *cancel,
               char *key_text)
{
    if (!read_options(self, given, cancel) || refuse_keylog(state) ||
        !symbols_warn(symbols))
        return false;
    if (!key_copy(key, key_text)) {
        PyErr_SetString(PyExc_RuntimeError, "the client is closed");
        return false;
    }
    cancel->symbol = symbols->text;
    cancel->api_key = key_text;
    return true;
}

/* Press the button with `key` for `symbols`, which are those of `given`. */
static PyObject *
press(struct module_state *state, Client *self, PyObject *key,
      const struct symbols *symbols, const struct press_arguments *given)
{
    char key_text[ESP_KEY_MAX + 1];
    struct esp_cancel cancel = {0};
    PyObject *result;

    if (!client_prepare(state, self, key, symbols, given, &cancel, key_text))
        return NULL;
    result = symbols->asked == NULL
                 ? press_one(state, self, &cancel, given->symbol)
                 : press_list(state, self, &cancel, symbols);
    key_wipe_copy(key_text);
    return result;
}

/* The same, with the key that the client has or finds. */
static PyObject *
press_with_own_key(struct module_state *state, Client *self,
                   const struct symbols *symbols,
                   const struct press_arguments *given)
{
    PyObject *key = client_is_open(self) ? client_find_key(state, self) : NULL;
    PyObject *result =
        key != NULL ? press(state, self, key, symbols, given) : NULL;

    Py_XDECREF(key);
    return result;
}

PyObject *
client_cancel_all(PyObject *object, PyTypeObject *defining,
                  PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
    Client *self = (Client *)object;
    struct module_state *state = PyType_GetModuleState(defining);
    struct press_arguments given;
    struct symbols symbols;
    PyObject *result = NULL;

    if (!client_is_ready(self) ||
        !arguments_press(args, nargs, names, false, &given))
        return NULL;
    if (symbols_read(given.symbol, &symbols))
        result = press_with_own_key(state, self, &symbols, &given);
    symbols_free(&symbols);
    return result;
}

/* The client and the Key for a module-level call, from one snapshot of the
 * environment: espresso._client puts its client_for here, into the module it
 * was imported with. */
static PyObject *
choose_client(PyObject *module, const struct press_arguments *given)
{
    return PyObject_CallMethod(
        module, "client_for", "OO",
        given->api_key != NULL ? given->api_key : Py_None,
        given->base_url != NULL ? given->base_url : Py_None);
}

/* The client and the key, a pair that client_for has made. */
static PyObject *
press_pair(struct module_state *state, PyObject *pair,
           const struct symbols *symbols, const struct press_arguments *given)
{
    if (!PyTuple_Check(pair) || PyTuple_Size(pair) != 2 ||
        !PyObject_TypeCheck(PyTuple_GetItem(pair, 0), state->client_type) ||
        Py_TYPE(PyTuple_GetItem(pair, 1)) != state->key_type) {
        PyErr_SetString(PyExc_TypeError,
                        "client_for must return a client and a Key");
        return NULL;
    }
    return press(state, (Client *)PyTuple_GetItem(pair, 0),
                 PyTuple_GetItem(pair, 1), symbols, given);
}

PyObject *
client_cancel_all_anywhere(PyObject *module, PyObject *const *args,
                           Py_ssize_t nargs, PyObject *names)
{
    struct module_state *state = PyModule_GetState(module);
    struct press_arguments given;
    struct symbols symbols;
    PyObject *pair = NULL;
    PyObject *result = NULL;

    if (!arguments_press(args, nargs, names, true, &given))
        return NULL;
    /* A wrong symbol is the first thing to hear of, before a missing key. */
    if (symbols_read(given.symbol, &symbols))
        pair = choose_client(module, &given);
    if (pair != NULL)
        result = press_pair(state, pair, &symbols, &given);
    Py_XDECREF(pair);
    symbols_free(&symbols);
    return result;
}

bool
client_prepare_warm_up(struct module_state *state, Client *self,
                       struct esp_cancel *cancel)
{
    const struct press_arguments nothing = {0};

    return read_options(self, &nothing, cancel) && !refuse_keylog(state);
}

void
client_run_warm_up(struct module_state *state, Client *self,
                   struct esp_cancel *cancel, struct esp_outcome *outcome)
{
    struct hooks_context context;

    run_without_gil(state, esp_warm_up, self, cancel, &context, outcome);
}

PyObject *
client_warm_up(PyObject *object, PyTypeObject *defining, PyObject *const *args,
               Py_ssize_t nargs, PyObject *names)
{
    Client *self = (Client *)object;
    struct module_state *state = PyType_GetModuleState(defining);
    struct esp_outcome outcome;
    struct esp_cancel cancel = {0};
    PyObject *result;

    (void)args;
    if (!arguments_none("warm_up", nargs, names) || !client_is_ready(self) ||
        !client_prepare_warm_up(state, self, &cancel))
        return NULL;
    client_run_warm_up(state, self, &cancel, &outcome);
    result = results_convert_warm_up(state, self->pool, &outcome);
    esp_outcome_free(&outcome);
    return result;
}
