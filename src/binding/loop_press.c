/* loop_press.c - one press that an event loop drives, and its result. */
#include "loop.h"

/* ---- The end ------------------------------------------------------------ */

/* Whoever waits may have been cancelled: then its future is done already. */
static bool
wake_waiter(LoopPress *self)
{
    PyObject *done =
        PyObject_CallMethod(self->future, "set_result", "O", Py_None);
    bool no_memory = done == NULL && PyErr_ExceptionMatches(PyExc_MemoryError);

    PyErr_Clear();
    Py_XDECREF(done);
    return !no_memory;
}

/* Into the driver's list, which owns it until it has ended. */
static void
enter_list(LoopPress *self)
{
    LoopPress **first = &self->driver->under_way;

    Py_INCREF((PyObject *)self);
    self->next = *first;
    self->link = first;
    if (self->next != NULL)
        self->next->link = &self->next;
    *first = self;
}

/* The caller may have had no other reference. */
static void
leave_list(LoopPress *self)
{
    if (self->link == NULL)
        return;
    *self->link = self->next;
    if (self->next != NULL)
        self->next->link = self->link;
    self->link = NULL;
    Py_DECREF((PyObject *)self);
}

/* Without memory at the first time it is tried once more: nobody else would
 * ever wake who waits. */
void
loop_press_complete(LoopPress *self)
{
    key_wipe_copy(self->key_text);
    if (!wake_waiter(self))
        wake_waiter(self);
    leave_list(self);
}

void
loop_press_abandon(LoopPress *self)
{
    esp_press_interrupt(self->press);
    key_wipe_copy(self->key_text);
    leave_list(self);
}

void
loop_press_fail(LoopPress *self, PyObject *error)
{
    if (self->error == NULL)
        self->error = Py_NewRef(error);
    esp_press_interrupt(self->press);
}

/* An exception of the log or of on_event that must end the call waits in the
 * press until somebody asks for its result. */
static int
on_attempt(void *user, const struct esp_attempt *attempt)
{
    LoopPress *self = user;

    if (hooks_tell(&self->listeners, attempt) == 0)
        return 0;
    Py_XDECREF(self->error);
    self->error = errors_take();
    return -1;
}

/* ---- The beginning ------------------------------------------------------ */

static LoopPress *
press_new(LoopDriver *driver, Client *client)
{
    struct module_state *state = driver->state;
    PyTypeObject *type = state->loop_press_type;
    LoopPress *self =
        (LoopPress *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);

    if (self == NULL)
        return NULL;
    self->state = state;
    self->driver = (LoopDriver *)Py_NewRef((PyObject *)driver);
    self->client = (Client *)Py_NewRef((PyObject *)client);
    self->future = PyObject_CallMethod(driver->loop, "create_future", NULL);
    if (self->future == NULL)
        Py_CLEAR(self);
    return self;
}

/* Begin it; `self` is stolen, NULL raises. */
static PyObject *
begin(LoopPress *self, struct esp_cancel *cancel)
{
    LoopDriver *driver = self->driver;
    struct esp_outcome refused;
    bool was_in_turn = driver->in_turn;

    hooks_find_listeners(self->state, self->client->on_event,
                         &self->listeners);
    cancel->hooks = (struct esp_hooks){.on_attempt = on_attempt, .user = self};
    driver->in_turn = true;
    enter_list(self);
    if (self->value != NULL)
        self->press =
            esp_watcher_cancel(driver->watcher, cancel, self->symbols.texts,
                               self->symbols.count, self, &refused);
    else
        self->press =
            esp_watcher_warm_up(driver->watcher, cancel, self, &refused);
    driver->in_turn = was_in_turn;
    if (self->press == NULL) {
        errors_raise_outcome(self->state, self->client->pool, &refused,
                             self->symbols.text);
        leave_list(self);
        Py_DECREF(self);
        return NULL;
    }
    loop_settle(driver);
    return (PyObject *)self;
}

/* With the key that the client has or finds; false raises. */
static bool
prepare(LoopPress *self, const struct press_arguments *given,
        struct esp_cancel *cancel)
{
    PyObject *key;
    bool ok;

    if (!symbols_read(given->symbol, &self->symbols) ||
        !client_is_open(self->client))
        return false;
    self->value = Py_NewRef(given->symbol);
    key = client_find_key(self->state, self->client);
    ok = key != NULL &&
         client_prepare(self->state, self->client, key, &self->symbols, given,
                        cancel, self->key_text);
    Py_XDECREF(key);
    return ok;
}

PyObject *
loop_press_start(LoopDriver *driver, Client *client,
                 const struct press_arguments *given)
{
    struct esp_cancel cancel = {0};
    LoopPress *self = press_new(driver, client);

    if (self == NULL)
        return NULL;
    if (!prepare(self, given, &cancel)) {
        Py_DECREF(self);
        return NULL;
    }
    return begin(self, &cancel);
}

PyObject *
loop_press_warm_up(LoopDriver *driver, Client *client)
{
    struct esp_cancel cancel = {0};
    LoopPress *self = press_new(driver, client);

    if (self == NULL)
        return NULL;
    if (!client_is_open(client) ||
        !client_prepare_warm_up(self->state, client, &cancel)) {
        Py_DECREF(self);
        return NULL;
    }
    return begin(self, &cancel);
}

/* ---- What the coroutine asks -------------------------------------------- */

static PyObject *
press_get_future(PyObject *object, void *unused)
{
    (void)unused;
    return Py_NewRef(((LoopPress *)object)->future);
}

/* How far it has come, for the exception that ends the wait. */
static PyObject *
make_note(LoopPress *self)
{
    if (self->symbols.asked != NULL)
        return results_note(self->press, &self->symbols);
    return errors_note(esp_press_outcome(self->press, 0), self->symbols.text);
}

/* stop(error): nobody waits any more, because of that exception. */
static PyObject *
press_stop(PyObject *object, PyObject *error)
{
    LoopPress *self = (LoopPress *)object;

    if (self->driver->in_turn) /* by a hook, which the core is waiting for */
        return PyObject_CallMethod(self->driver->loop, "call_soon", "NO",
                                   PyObject_GetAttrString(object, "stop"),
                                   error);
    esp_press_interrupt(self->press);
    loop_settle(self->driver);
    errors_attach_note(error, make_note(self));
    return Py_NewRef(Py_None);
}

/* result(): the future is done. */
static PyObject *
press_result(PyObject *object, PyObject *unused)
{
    LoopPress *self = (LoopPress *)object;
    const struct esp_outcome *outcome;

    (void)unused;
    if (!esp_press_is_done(self->press)) {
        PyErr_SetString(PyExc_RuntimeError, "the press is still under way");
        return NULL;
    }
    if (self->error != NULL)
        PyErr_SetObject((PyObject *)Py_TYPE(self->error), self->error);
    if (self->symbols.asked != NULL)
        return results_convert(self->state, self->client->pool, self->press,
                               &self->symbols, &self->listeners);
    outcome = esp_press_outcome(self->press, 0);
    if (self->value == NULL)
        return results_convert_warm_up(self->state, self->client->pool,
                                       outcome);
    return results_convert_one(self->state, self->client->pool, outcome,
                               self->symbols.text, self->value,
                               &self->listeners);
}

/* ---- The type ----------------------------------------------------------- */

static int
press_traverse(PyObject *object, visitproc visit, void *arg)
{
    LoopPress *self = (LoopPress *)object;

    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->driver);
    Py_VISIT(self->client);
    Py_VISIT(self->future);
    Py_VISIT(self->value);
    Py_VISIT(self->error);
    Py_VISIT(self->symbols.asked);
    Py_VISIT(self->symbols.places);
    return 0;
}

/* Only what the core does not need: it may still be under way. */
static int
press_clear(PyObject *object)
{
    LoopPress *self = (LoopPress *)object;

    Py_CLEAR(self->future);
    Py_CLEAR(self->error);
    return 0;
}

static void
press_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    LoopPress *self = (LoopPress *)object;

    PyObject_GC_UnTrack(object);
    esp_press_free(self->press); /* done, or the watcher would hold us */
    key_wipe_copy(self->key_text);
    press_clear(object);
    symbols_free(&self->symbols);
    Py_CLEAR(self->value);
    Py_CLEAR(self->client);
    Py_CLEAR(self->driver);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

static PyGetSetDef press_getset[] = {
    {"future", press_get_future, NULL, "Done when the press is.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef press_methods[] = {
    {"stop", press_stop, METH_O, NULL},
    {"result", press_result, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(press_doc,
             "One press under way: wait for .future, then ask result().");

static PyType_Slot press_slots[] = {
    {Py_tp_doc, (void *)press_doc},
    {Py_tp_dealloc, press_dealloc},
    {Py_tp_traverse, press_traverse},
    {Py_tp_clear, press_clear},
    {Py_tp_getset, press_getset},
    {Py_tp_methods, press_methods},
    {0, NULL},
};

PyType_Spec loop_press_type_spec = {
    .name = "espresso._core.LoopPress",
    .basicsize = sizeof(LoopPress),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC |
             Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = press_slots,
};
