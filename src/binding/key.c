/* key.c - an API key, copied once into memory that is wiped.
 *
 * A Python str cannot be wiped and shows up in tracebacks that print locals;
 * this object has neither text nor repr of it, and refuses to be pickled. */
#include "module.h"

#include <pthread.h>

typedef struct {
    PyObject_HEAD
    pthread_mutex_t lock; /* a closing thread wipes while others copy */
    size_t length;        /* 0: wiped */
    char text[ESP_KEY_MAX + 1];
} Key;

/* Through a volatile pointer, so that no compiler can leave it out. */
static void
wipe(char *text)
{
    static void *(*const volatile set)(void *, int, size_t) = memset;

    set(text, 0, ESP_KEY_MAX + 1);
}

bool
key_copy(PyObject *key, char *out)
{
    Key *self = (Key *)key;
    bool present;

    pthread_mutex_lock(&self->lock);
    present = self->length > 0;
    if (present)
        memcpy(out, self->text, self->length + 1);
    pthread_mutex_unlock(&self->lock);
    return present;
}

void
key_wipe_copy(char *text)
{
    wipe(text);
}

void
key_forget(PyObject *key)
{
    Key *self = (Key *)key;

    pthread_mutex_lock(&self->lock);
    self->length = 0;
    wipe(self->text);
    pthread_mutex_unlock(&self->lock);
}

static PyObject *
key_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    struct module_state *state = PyType_GetModuleState(type);
    struct esp_error error;
    const char *text;
    Py_ssize_t length;
    PyObject *value;
    Key *self;

    if (kwargs != NULL && PyDict_Size(kwargs) > 0) {
        PyErr_SetString(PyExc_TypeError, "Key takes no keywords");
        return NULL;
    }
    if (!PyArg_ParseTuple(args, "O:Key", &value))
        return NULL;
    if (!PyUnicode_Check(value)) {
        arguments_refuse_type(value, "api_key", "str");
        return NULL;
    }
    text = PyUnicode_AsUTF8AndSize(value, &length);
    if (text == NULL) {
        /* The error of the codec would quote the key. */
        PyErr_Clear();
        text = "\x7f";
        length = 1;
    }
    if (!esp_key_check(text, (size_t)length, &error))
        return errors_raise_argument(state->config_error, &error);
    self = (Key *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
    if (self != NULL) {
        pthread_mutex_init(&self->lock, NULL);
        memcpy(self->text, text, (size_t)length + 1);
        self->length = (size_t)length;
    }
    return (PyObject *)self;
}

static void
key_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);

    key_forget(self);
    pthread_mutex_destroy(&((Key *)self)->lock);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

static PyObject *
key_repr(PyObject *self)
{
    (void)self;
    return PyUnicode_FromString("<espresso API key>");
}

static PyObject *
key_reduce(PyObject *self, PyObject *args)
{
    (void)self;
    (void)args;
    PyErr_SetString(PyExc_TypeError, "an API key cannot be pickled");
    return NULL;
}

static PyMethodDef key_methods[] = {
    {"__reduce__", key_reduce, METH_NOARGS, NULL},
    {"__reduce_ex__", key_reduce, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(key_doc, "Key(text, /)\n--\n\n"
                      "An API key in memory that is wiped when it ends.\n\n"
                      "Raises ConfigError, which does not quote it, for "
                      "anything but 1 to 256\ncharacters from \\x21 to \\x7e, "
                      "and TypeError for anything but str.");

static PyType_Slot key_slots[] = {
    {Py_tp_doc, (void *)key_doc}, {Py_tp_new, key_new},
    {Py_tp_dealloc, key_dealloc}, {Py_tp_repr, key_repr},
    {Py_tp_methods, key_methods}, {0, NULL},
};

PyType_Spec key_type_spec = {
    .name = "espresso._core.Key",
    .basicsize = sizeof(Key),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = key_slots,
};
