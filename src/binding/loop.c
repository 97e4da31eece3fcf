/* loop.c - the face for asyncio: the loop's readers, writers and one timer
 * drive the core's watcher.
 *
 * Turns run with the GIL held: they never block, they are short, and giving
 * the GIL back would mean waiting for it behind other threads.  It also means
 * that no turn runs while the interpreter ends.
 *
 * The loop holds its callbacks, and they hold the driver: it lives as long as
 * anything is watched. */
#include "loop.h"

#include <unistd.h>

/* ---- What the loop is asked to do --------------------------------------- */

/* A closed loop has forgotten all descriptors, and answers everything with an
 * error.  False: it is another error, which stays set. */
static bool
forgive_closed(LoopDriver *self)
{
    PyObject *error = errors_take();
    PyObject *answer = PyObject_CallMethod(self->loop, "is_closed", NULL);
    bool closed = answer == Py_True;

    Py_XDECREF(answer);
    PyErr_Clear();
    if (closed)
        Py_XDECREF(error);
    else
        errors_put_back(error);
    return closed;
}

/* loop.add_reader(fd, self.on_readable, fd) and its kin; `callback` is NULL
 * for the two that remove. */
static bool
ask_loop(LoopDriver *self, const char *method, const char *callback, int fd)
{
    PyObject *target = NULL;
    PyObject *done = NULL;

    if (callback == NULL) {
        done = PyObject_CallMethod(self->loop, method, "i", fd);
    }
    else {
        target = PyObject_GetAttrString((PyObject *)self, callback);
        if (target != NULL)
            done =
                PyObject_CallMethod(self->loop, method, "iOi", fd, target, fd);
    }
    Py_XDECREF(target);
    Py_XDECREF(done);
    return done != NULL;
}

/* A descriptor must be out of the loop before it is closed. */
static bool
apply(LoopDriver *self, const struct esp_change *change)
{
    bool ok = true;

    if (change->remove_reader)
        ok = ask_loop(self, "remove_reader", NULL, change->fd);
    if (ok && change->remove_writer)
        ok = ask_loop(self, "remove_writer", NULL, change->fd);
    if (change->close)
        close(change->fd);
    if (ok && change->add_reader)
        ok = ask_loop(self, "add_reader", "on_readable", change->fd);
    if (ok && change->add_writer)
        ok = ask_loop(self, "add_writer", "on_writable", change->fd);
    return ok;
}

/* ---- The timer ---------------------------------------------------------- */

static void
drop_timer(LoopDriver *self)
{
    PyObject *timer = self->timer;
    PyObject *done;

    if (timer == NULL)
        return;
    self->timer = NULL;
    done = PyObject_CallMethod(timer, "cancel", NULL);
    if (done == NULL)
        PyErr_Clear();
    Py_XDECREF(done);
    Py_DECREF(timer);
}

static bool
set_timer(LoopDriver *self, int64_t left)
{
    PyObject *callback = PyObject_GetAttrString((PyObject *)self, "on_timer");

    drop_timer(self);
    if (callback != NULL)
        self->timer =
            left == 0
                ? PyObject_CallMethod(self->loop, "call_soon", "O", callback)
                : PyObject_CallMethod(self->loop, "call_later", "dO",
                                      (double)left / 1000, callback);
    Py_XDECREF(callback);
    return self->timer != NULL;
}

/* One timer for all, moved only when it must ring earlier: most calls end long
 * before their deadline, and a timer that rings for nothing costs less than
 * one set anew for each call. */
static bool
arm(LoopDriver *self)
{
    int64_t left = esp_watcher_timer_ms(self->watcher);
    int64_t at = esp_clock_ms() + left;

    if (left < 0 || (self->timer != NULL && self->timer_at <= at))
        return true;
    self->timer_at = at;
    return set_timer(self, left);
}

/* ---- After a turn ------------------------------------------------------- */

/* The loop refuses what a call cannot do without: end all of them with the
 * exception that is set. */
static void
fail_all(LoopDriver *self)
{
    PyObject *error = errors_take();
    LoopPress *press;

    while ((press = esp_watcher_first(self->watcher)) != NULL)
        loop_press_fail(press, error);
    Py_XDECREF(error);
}

static bool
apply_all(LoopDriver *self)
{
    struct esp_change change;

    while (esp_watcher_next_change(self->watcher, &change)) {
        if (!apply(self, &change) && !forgive_closed(self))
            return false;
    }
    return true;
}

/* Nothing of this may raise: whoever waits is told by its future. */
void
loop_settle(LoopDriver *self)
{
    LoopPress *press;

    if (self->in_turn)
        return; /* called from a hook: the turn itself will come here */
    while (!apply_all(self) || !arm(self))
        fail_all(self);
    while ((press = esp_watcher_next_done(self->watcher)) != NULL)
        loop_press_complete(press);
}

/* ---- Turns -------------------------------------------------------------- */

/* Whether a turn may be taken now.  A loop that a hook runs inside of a turn
 * has to wait for the end of it. */
static bool
enter_turn(LoopDriver *self)
{
    bool entered = !self->in_turn;

    self->in_turn = true;
    return entered;
}

static PyObject *
leave_turn(LoopDriver *self)
{
    self->in_turn = false;
    loop_settle(self);
    return Py_NewRef(Py_None);
}

static PyObject *
on_socket(LoopDriver *self, PyObject *number, bool readable, bool writable)
{
    long fd = PyLong_AsLong(number);

    if (fd == -1 && PyErr_Occurred())
        return NULL;
    if (!enter_turn(self))
        return Py_NewRef(Py_None);
    esp_watcher_on_socket(self->watcher, (int)fd, readable, writable);
    return leave_turn(self);
}

static PyObject *
on_readable(PyObject *self, PyObject *fd)
{
    return on_socket((LoopDriver *)self, fd, true, false);
}

static PyObject *
on_writable(PyObject *self, PyObject *fd)
{
    return on_socket((LoopDriver *)self, fd, false, true);
}

static PyObject *
on_timer(PyObject *object, PyObject *unused)
{
    LoopDriver *self = (LoopDriver *)object;

    (void)unused;
    if (!enter_turn(self))
        return Py_NewRef(Py_None);
    Py_CLEAR(self->timer); /* it has rung */
    esp_watcher_on_timer(self->watcher);
    return leave_turn(self);
}

/* ---- The end of the client ---------------------------------------------- */

static bool
forget_wake(LoopDriver *self)
{
    int fd = self->wake_fd;

    self->wake_fd = -1;
    return fd < 0 || ask_loop(self, "remove_reader", NULL, fd) ||
           forgive_closed(self);
}

/* The client was closed, by whatever thread: end its calls on this loop, close
 * its connections, and let the loop go. */
static PyObject *
on_wake(PyObject *object, PyObject *unused)
{
    LoopDriver *self = (LoopDriver *)object;

    (void)unused;
    if (!enter_turn(self))
        return Py_NewRef(Py_None);
    esp_watcher_on_wake(self->watcher);
    Py_DECREF(leave_turn(self));
    drop_timer(self);
    if (!forget_wake(self))
        return NULL;
    return Py_NewRef(Py_None);
}

static PyObject *
refuse_loop(LoopDriver *self)
{
    PyErr_Clear();
    PyErr_Format(PyExc_RuntimeError,
                 "espresso.AsyncClient needs an event loop with add_reader, "
                 "such as asyncio's SelectorEventLoop or uvloop, and %R has "
                 "none; with this one, call espresso.Client in "
                 "asyncio.to_thread",
                 self->loop);
    return NULL;
}

/* Watch for the end of the client; it also shows what the loop can do. */
static bool
watch_wake(LoopDriver *self)
{
    int fd = esp_watcher_wake_fd(self->watcher);

    if (fd < 0) /* no descriptor is free: the calls themselves will say so */
        return true;
    if (!ask_loop(self, "add_reader", "on_wake", fd)) {
        if (PyErr_ExceptionMatches(PyExc_NotImplementedError) ||
            PyErr_ExceptionMatches(PyExc_AttributeError))
            refuse_loop(self);
        return false;
    }
    self->wake_fd = fd;
    return true;
}

/* ---- Calls -------------------------------------------------------------- */

/* start(client, symbol, missing_ok, confirm, timeout, max_retries) */
static PyObject *
driver_start(PyObject *object, PyObject *const *args, Py_ssize_t nargs)
{
    LoopDriver *self = (LoopDriver *)object;
    struct press_arguments given = {0};

    if (nargs != 6 ||
        !PyObject_TypeCheck(args[0], self->state->async_client_type)) {
        PyErr_SetString(PyExc_TypeError, "start() takes what _aio.py gives");
        return NULL;
    }
    given.symbol = args[1];
    given.missing_ok = args[2];
    given.confirm = args[3];
    given.timeout = args[4] == Py_Ellipsis ? NULL : args[4];
    given.max_retries = args[5] == Py_Ellipsis ? NULL : args[5];
    return loop_press_start(self, (Client *)args[0], &given);
}

static PyObject *
driver_warm_up(PyObject *object, PyObject *client)
{
    LoopDriver *self = (LoopDriver *)object;

    if (!PyObject_TypeCheck(client, self->state->async_client_type)) {
        PyErr_SetString(PyExc_TypeError, "warm_up() takes what _aio.py gives");
        return NULL;
    }
    return loop_press_warm_up(self, (Client *)client);
}

/* ---- The type ----------------------------------------------------------- */

PyObject *
loop_driver_new(PyObject *object, PyTypeObject *defining,
                PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
    Client *client = (Client *)object;
    struct module_state *state = PyType_GetModuleState(defining);
    PyTypeObject *type = state->loop_driver_type;
    LoopDriver *self;

    (void)names;
    if (nargs != 1 || !client_is_ready(client) || !client_is_open(client)) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_TypeError, "_drive() takes a loop");
        return NULL;
    }
    self =
        (LoopDriver *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
    if (self == NULL)
        return NULL;
    self->state = state;
    self->loop = Py_NewRef(args[0]);
    self->pid = getpid();
    self->wake_fd = -1;
    self->watcher = esp_watcher_new(client->pool);
    if (self->watcher == NULL)
        PyErr_NoMemory();
    if (self->watcher == NULL || !watch_wake(self)) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static int
driver_traverse(PyObject *object, visitproc visit, void *arg)
{
    LoopDriver *self = (LoopDriver *)object;
    LoopPress *press;

    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->loop);
    Py_VISIT(self->timer);
    for (press = self->under_way; press != NULL; press = press->next)
        Py_VISIT(press);
    return 0;
}

/* Its loop does not run again: what is under way ends here, with its
 * connections and the copies of its key. */
static void
abandon_all(LoopDriver *self)
{
    while (self->under_way != NULL)
        loop_press_abandon(self->under_way);
}

/* The loop stays: whoever awaited a press may still ask it for something. */
static int
driver_clear(PyObject *object)
{
    Py_CLEAR(((LoopDriver *)object)->timer);
    abandon_all((LoopDriver *)object);
    return 0;
}

static void
driver_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    LoopDriver *self = (LoopDriver *)object;

    PyObject_GC_UnTrack(object);
    driver_clear(object);
    esp_watcher_free(self->watcher);
    Py_CLEAR(self->loop);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

/* retire(): its loop is closed. */
static PyObject *
driver_retire(PyObject *object, PyObject *unused)
{
    LoopDriver *self = (LoopDriver *)object;

    (void)unused;
    if (self->pid == getpid() && !self->in_turn) {
        abandon_all(self);
        esp_watcher_retire(self->watcher);
    }
    return Py_NewRef(Py_None);
}

static PyObject *
driver_is_ours(PyObject *object, void *unused)
{
    (void)unused;
    return PyBool_FromLong(((LoopDriver *)object)->pid == getpid());
}

static PyGetSetDef driver_getset[] = {
    {"is_ours", driver_is_ours, NULL,
     "False in the child of a fork: the loop is the parent's (bool).", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef driver_methods[] = {
    {"start", (PyCFunction)(void (*)(void))driver_start, METH_FASTCALL, NULL},
    {"warm_up", driver_warm_up, METH_O, NULL},
    {"retire", driver_retire, METH_NOARGS, NULL},
    {"on_readable", on_readable, METH_O, NULL},
    {"on_writable", on_writable, METH_O, NULL},
    {"on_timer", on_timer, METH_NOARGS, NULL},
    {"on_wake", on_wake, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(driver_doc,
             "What one event loop and one AsyncClient have together.\n\n"
             "Made by AsyncClient._drive(loop). Belongs to the thread that\n"
             "runs the loop.");

static PyType_Slot driver_slots[] = {
    {Py_tp_doc, (void *)driver_doc},
    {Py_tp_dealloc, driver_dealloc},
    {Py_tp_traverse, driver_traverse},
    {Py_tp_clear, driver_clear},
    {Py_tp_getset, driver_getset},
    {Py_tp_methods, driver_methods},
    {0, NULL},
};

PyType_Spec loop_driver_type_spec = {
    .name = "espresso._core.LoopDriver",
    .basicsize = sizeof(LoopDriver),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC |
             Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = driver_slots,
};
