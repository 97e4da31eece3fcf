/* client_type.c - the type _core.Client: its life, and what can be read. */
#include "client.h"

#define CLOSE_WAIT_MS 1000

/* ---- The object's life -------------------------------------------------- */

static PyObject *
client_close(PyObject *object, PyObject *unused)
{
    Client *self = (Client *)object;

    (void)unused;
    if (self->pool != NULL) {
        Py_BEGIN_ALLOW_THREADS
        esp_pool_close(self->pool, CLOSE_WAIT_MS);
        Py_END_ALLOW_THREADS
        if (self->key != NULL && self->key != Py_None)
            key_forget(self->key);
    }
    return Py_NewRef(Py_None);
}

static PyObject *
client_enter(PyObject *object, PyObject *unused)
{
    Client *self = (Client *)object;

    (void)unused;
    if (!client_is_ready(self))
        return NULL;
    if (!client_is_open(self))
        return NULL;
    return Py_NewRef(object);
}

static PyObject *
client_exit(PyObject *object, PyObject *args)
{
    (void)args;
    return client_close(object, NULL);
}

static PyObject *
client_reduce(PyObject *object, PyObject *args)
{
    (void)object;
    (void)args;
    PyErr_SetString(PyExc_TypeError,
                    "an espresso client cannot be pickled or copied: it "
                    "holds a key and connections; make one in each process");
    return NULL;
}

/* The constructor's arguments, as espresso.Client passes them. */
struct client_options {
    PyObject *key;
    PyObject *key_source;
    PyObject *timeout;
    PyObject *attempt_timeout;
    PyObject *connect_timeout;
    PyObject *max_retries;
    PyObject *on_event;
    PyObject *proxy;
    PyObject *no_proxy;
    PyObject *ca_path; /* bytes, owned; NULL: none */
    struct esp_settings settings;
};

/* None, or a path in the file system's encoding. */
static int
convert_path(PyObject *value, void *out)
{
    return value == Py_None ? 1 : PyUnicode_FSConverter(value, out);
}

static bool
parse_options(PyObject *args, PyObject *kwargs, struct client_options *options)
{
    static char *names[] = {
        "key",         "key_source",      "base_url",
        "timeout",     "attempt_timeout", "connect_timeout",
        "max_retries", "proxy",           "no_proxy",
        "ca_path",     "user_agent",      "on_event",
        NULL};

    if (!PyArg_ParseTupleAndKeywords(
            args, kwargs, "$OOsOOOOOOO&sO:Client", names, &options->key,
            &options->key_source, &options->settings.base_url,
            &options->timeout, &options->attempt_timeout,
            &options->connect_timeout, &options->max_retries, &options->proxy,
            &options->no_proxy, convert_path, &options->ca_path,
            &options->settings.user_agent, &options->on_event))
        return false;
    if (options->ca_path != NULL)
        options->settings.ca_path = PyBytes_AsString(options->ca_path);
    return true;
}

static bool
set_numbers(Client *self, const struct client_options *options)
{
    double unused;

    self->attempt_timeout_ms = 0;
    return arguments_seconds(options->timeout, "timeout", &self->timeout,
                             &self->timeout_ms) &&
           arguments_seconds(options->connect_timeout, "connect_timeout",
                             &unused, &self->connect_timeout_ms) &&
           arguments_retries(options->max_retries, &self->max_retries) &&
           (options->attempt_timeout == Py_None ||
            arguments_seconds(options->attempt_timeout, "attempt_timeout",
                              &unused, &self->attempt_timeout_ms));
}

static int
client_clear(PyObject *object)
{
    Client *self = (Client *)object;

    Py_CLEAR(self->key);
    Py_CLEAR(self->key_source);
    Py_CLEAR(self->on_event);
    return 0;
}

/* A text of the proxy settings, borrowed; NULL for None.  False raises, and
 * the exception never holds the text: the codec's own would. */
static bool
read_hidden_text(struct module_state *state, PyObject *value,
                 const char **text)
{
    Py_ssize_t length;

    *text = NULL;
    if (value == Py_None)
        return true;
    if (!PyUnicode_Check(value))
        return arguments_refuse_type(value, "proxy", "str");
    *text = PyUnicode_AsUTF8AndSize(value, &length);
    if (*text != NULL && strlen(*text) == (size_t)length)
        return true;
    PyErr_Clear();
    PyErr_SetString(state->config_error,
                    "the proxy holds a character that no URL may hold");
    return false;
}

static bool
set_up(struct module_state *state, Client *self,
       struct client_options *options)
{
    struct esp_error error;

    if (options->key != Py_None && Py_TYPE(options->key) != state->key_type) {
        PyErr_SetString(PyExc_TypeError, "key must be a Key or None");
        return false;
    }
    if (!set_numbers(self, options) ||
        !read_hidden_text(state, options->proxy, &options->settings.proxy) ||
        !read_hidden_text(state, options->no_proxy,
                          &options->settings.no_proxy))
        return false;
    client_clear((PyObject *)self); /* of an __init__ that failed */
    self->key = Py_NewRef(options->key);
    self->key_source = Py_NewRef(options->key_source);
    self->on_event = Py_NewRef(options->on_event);
    self->pool = esp_pool_new(state->group, &options->settings, &error);
    if (self->pool == NULL)
        errors_raise_argument(state->config_error, &error);
    return self->pool != NULL;
}

/* Slots get no defining class, and a subclass written in Python has no
 * module: walk up to the type that has one. */
static struct module_state *
find_state(PyTypeObject *type)
{
    PyObject *module = PyType_GetModule(type);

    while (module == NULL) {
        PyErr_Clear();
        type = PyType_GetSlot(type, Py_tp_base);
        module = PyType_GetModule(type);
    }
    return PyModule_GetState(module);
}

static int
client_init(PyObject *object, PyObject *args, PyObject *kwargs)
{
    Client *self = (Client *)object;
    struct client_options options = {0};
    bool ok;

    /* In one step: another thread may come, or an argument's own code. */
    if (atomic_exchange(&self->is_taken, true)) {
        PyErr_SetString(PyExc_RuntimeError,
                        "Client.__init__ was called before");
        return -1;
    }
    ok = parse_options(args, kwargs, &options) &&
         set_up(find_state(Py_TYPE(object)), self, &options);
    Py_XDECREF(options.ca_path);
    if (!ok)
        atomic_store(&self->is_taken, false);
    return ok ? 0 : -1;
}

/* Here because a Python __init__ with `**kwargs` would spoil the signature
 * that help() and editors show. */
static bool
refuse_habits(PyObject *kwargs)
{
    PyObject *name;
    PyObject *value;
    const char *text;
    Py_ssize_t position = 0;

    while (kwargs != NULL && PyDict_Next(kwargs, &position, &name, &value)) {
        text = PyUnicode_AsUTF8AndSize(name, NULL);
        if (text == NULL || arguments_refuse_habit(text))
            return false;
    }
    return true;
}

static PyObject *
client_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);

    (void)args;
    if (!refuse_habits(kwargs))
        return NULL;
    return allocate(type, 0);
}

static int
client_traverse(PyObject *object, visitproc visit, void *arg)
{
    Client *self = (Client *)object;

    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->key);
    Py_VISIT(self->key_source);
    Py_VISIT(self->on_event);
    return 0;
}

static void
client_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);

    PyObject_GC_UnTrack(object);
    if (((Client *)object)->pool !=
        NULL) /* loops may watch connections of it */
        esp_pool_close(((Client *)object)->pool, 0);
    esp_pool_release(((Client *)object)->pool);
    client_clear(object);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

/* ---- What can be read --------------------------------------------------- */

static PyObject *
client_get_base_url(PyObject *object, void *unused)
{
    Client *self = (Client *)object;

    (void)unused;
    if (!client_is_ready(self))
        return NULL;
    return PyUnicode_FromString(esp_pool_base_url(self->pool)->url);
}

static PyObject *
client_get_timeout(PyObject *object, void *unused)
{
    (void)unused;
    return PyFloat_FromDouble(((Client *)object)->timeout);
}

static PyObject *
client_get_closed(PyObject *object, void *unused)
{
    Client *self = (Client *)object;

    (void)unused;
    return PyBool_FromLong(self->pool != NULL &&
                           esp_pool_is_closed(self->pool));
}

static PyObject *
client_get_ready(PyObject *object, void *unused)
{
    (void)unused;
    return PyBool_FromLong(((Client *)object)->pool != NULL);
}

static PyObject *
client_get_own_key(PyObject *object, void *unused)
{
    Client *self = (Client *)object;

    (void)unused;
    return PyBool_FromLong(self->key != NULL && self->key != Py_None);
}

static PyGetSetDef client_getset[] = {
    {"base_url", client_get_base_url, NULL,
     "The exchange this client talks to, without a trailing slash (str).",
     NULL},
    {"timeout", client_get_timeout, NULL,
     "Seconds a whole call may take (float).", NULL},
    {"closed", client_get_closed, NULL, "Whether close() was called (bool).",
     NULL},
    {"_has_own_key", client_get_own_key, NULL,
     "Whether the key was given, not left to the environment (bool).", NULL},
    {"_is_ready", client_get_ready, NULL,
     "Whether __init__ has succeeded (bool).", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyDoc_STRVAR(
    cancel_all_doc,
    "cancel_all($self, /, symbol, *, missing_ok=False, confirm=False,\n"
    "           timeout=..., max_retries=...)\n--\n\n"
    "Cancel all open orders of the account on one symbol, or on several.\n\n"
    "Sends one POST /order/cancel-all [spec] for each symbol, again where\n"
    "that is safe and useful, and blocks until the exchange has answered or\n"
    "`timeout` is over. Other threads run meanwhile; Ctrl-C ends the wait\n"
    "within 0.1 s.\n"
    "\n"
    "symbol: str such as \"ADAUSDM\", 1 to 64 of A-Z a-z 0-9 . _ -, or an\n"
    "    iterable of such: all are attempted, at once; duplicates are sent\n"
    "    once. At most 10 requests of one call start within 2 s [field]\n"
    "missing_ok: bool; nothing open is a success with no ids, not\n"
    "    OrderNotFoundError\n"
    "confirm: bool; cancel again until the exchange says that nothing is\n"
    "    open (4200); implies missing_ok\n"
    "timeout: float, seconds for the whole call; default: the client's\n"
    "max_retries: int, attempts after the first, of each symbol and round;\n"
    "    default: the client's\n"
    "\n"
    "Returns a dict: \"symbol\" (str), \"order_ids\" (list of str; of all\n"
    "rounds), all else the exchange sent, and \"lost_reply\": True if an\n"
    "earlier attempt may have cancelled orders whose ids are lost. For an\n"
    "iterable: a list of dicts, in its order.\n\n"
    "Raises EspressoError subclasses: their .outcome says whether the orders\n"
    "may be gone; for an iterable PartialCancelError, with .results and\n"
    ".failed; StillOpenError if orders still appeared when the time was\n"
    "over. TypeError and ValueError for bad arguments, before anything is\n"
    "sent; RuntimeError on a closed client.");

PyDoc_STRVAR(
    warm_up_doc,
    "warm_up($self, /)\n--\n\n"
    "Open a connection now, so that the next call is one round trip.\n\n"
    "DNS, TCP, TLS and one HEAD of the base path, without the key. Blocks,\n"
    "at most the client's timeout. Returns the seconds it took (float).\n"
    "Raises ConnectError, CertificateError, RequestTimeoutError.");

PyDoc_STRVAR(
    close_doc,
    "close($self, /)\n--\n\n"
    "Close the connections and wipe the key. Calls in flight end with\n"
    "ConnectionLostError or ConnectError, later ones are RuntimeError.\n"
    "Closing twice is fine.");

#define METHOD(function, how) ((PyCFunction)(void (*)(void))function), how

static PyMethodDef base_methods[] = {
    {"__reduce__", client_reduce, METH_NOARGS,
     "__reduce__($self, /)\n--\n\nRefused: raises TypeError."},
    {"__reduce_ex__", client_reduce, METH_VARARGS,
     "__reduce_ex__($self, protocol, /)\n--\n\nRefused: raises TypeError."},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(base_doc, "What both clients are: options, a key and a pool.");

static PyType_Slot base_slots[] = {
    {Py_tp_doc, (void *)base_doc},
    {Py_tp_new, client_new},
    {Py_tp_init, client_init},
    {Py_tp_dealloc, client_dealloc},
    {Py_tp_traverse, client_traverse},
    {Py_tp_clear, client_clear},
    {Py_tp_methods, base_methods},
    {Py_tp_getset, client_getset},
    {0, NULL},
};

PyType_Spec base_client_type_spec = {
    .name = "espresso._core.BaseClient",
    .basicsize = sizeof(Client),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC |
             Py_TPFLAGS_IMMUTABLETYPE,
    .slots = base_slots,
};

/* ---- The two faces: they differ in what they can be asked --------------- */

static PyMethodDef client_methods[] = {
    {"cancel_all",
     METHOD(client_cancel_all, METH_METHOD | METH_FASTCALL | METH_KEYWORDS),
     cancel_all_doc},
    {"warm_up",
     METHOD(client_warm_up, METH_METHOD | METH_FASTCALL | METH_KEYWORDS),
     warm_up_doc},
    {"_probe",
     METHOD(client_probe, METH_METHOD | METH_FASTCALL | METH_KEYWORDS),
     "_probe($self, /)\n--\n\nWarm up; a dict of timings, also on failure."},
    {"close", client_close, METH_NOARGS, close_doc},
    {"__enter__", client_enter, METH_NOARGS,
     "__enter__($self, /)\n--\n\nThe client itself."},
    {"__exit__", client_exit, METH_VARARGS,
     "__exit__($self, kind, value, traceback, /)\n--\n\nClose the client."},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(client_doc,
             "The C half of espresso.Client; make that one instead.");

static PyType_Slot client_slots[] = {
    {Py_tp_doc, (void *)client_doc},
    {Py_tp_methods, client_methods},
    {0, NULL},
};

PyType_Spec client_type_spec = {
    .name = "espresso._core.Client",
    .basicsize = sizeof(Client),
    .flags =
        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = client_slots,
};

PyDoc_STRVAR(close_now_doc,
             "_close($self, /)\n--\n\n"
             "What close() of a Client does; the loops that drive calls of\n"
             "this one end them.");

static PyMethodDef async_client_methods[] = {
    {"_drive",
     METHOD(loop_driver_new, METH_METHOD | METH_FASTCALL | METH_KEYWORDS),
     "_drive($self, loop, /)\n--\n\n"
     "A LoopDriver of this client for that loop."},
    {"_close", client_close, METH_NOARGS, close_now_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(async_client_doc,
             "The C half of espresso.AsyncClient; make that one instead.");

static PyType_Slot async_client_slots[] = {
    {Py_tp_doc, (void *)async_client_doc},
    {Py_tp_methods, async_client_methods},
    {0, NULL},
};

PyType_Spec async_client_type_spec = {
    .name = "espresso._core.AsyncClient",
    .basicsize = sizeof(Client),
    .flags =
        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = async_client_slots,
};
