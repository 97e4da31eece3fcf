/* decode.c - the decoder alone: bytes of a reply in, a dict out.
 *
 * Compiled into a second copy of the extension, with all its files and flags,
 * so that what is measured is what runs in a call: the strict scan, the parser,
 * the verdict, and the conversion to Python objects.  Of a call only the
 * network is left out. */
#include "module.h"

#include "core.h"

/* decode(core, symbol, body): `core` is the module _core of this very copy.
 * Raises ValueError for what is not the reply of a success. */
static PyObject *
decode(PyObject *self, PyObject *args)
{
    struct esp_response response = {.curl_code = CURLE_OK,
                                    .left = true,
                                    .head_complete = true,
                                    .http_status = 200,
                                    .framing_headers = 1};
    struct esp_outcome outcome;
    PyObject *core;
    PyObject *symbol;
    PyObject *bytes;
    PyObject *dict = NULL;
    const char *text;
    char *body;
    Py_ssize_t size;

    (void)self;
    if (!PyArg_ParseTuple(args, "OUS", &core, &symbol, &bytes) ||
        PyBytes_AsStringAndSize(bytes, &body, &size) < 0)
        return NULL;
    text = PyUnicode_AsUTF8AndSize(symbol, NULL);
    if (text == NULL)
        return NULL;
    response.body = (struct esp_buffer){.data = body,
                                        .length = (size_t)size,
                                        .capacity = (size_t)size + 1,
                                        .ceiling = ESP_BODY_MAX};
    esp_outcome_init(&outcome);
    response_decode(&response, text, NULL, 0, &outcome);
    if (outcome.kind == ESP_OK)
        dict = convert_success(PyModule_GetState(core), &outcome, symbol);
    else
        PyErr_SetString(PyExc_ValueError, outcome.message);
    esp_outcome_free(&outcome);
    return dict;
}

static PyMethodDef methods[] = {
    {"decode", decode, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_decode",
    .m_methods = methods,
};

PyMODINIT_FUNC PyInit__decode(void);

PyMODINIT_FUNC
PyInit__decode(void)
{
    return PyModule_Create(&definition);
}
