/* module.c - what _core is made of: a table, no logic. */
#include "module.h"

PyDoc_STRVAR(module_doc, "The C extension of espresso: the call itself.");

static int
module_traverse(PyObject *module, visitproc visit, void *arg)
{
    struct module_state *state = PyModule_GetState(module);

    Py_VISIT(state->base_client_type);
    Py_VISIT(state->client_type);
    Py_VISIT(state->async_client_type);
    Py_VISIT(state->loop_driver_type);
    Py_VISIT(state->loop_press_type);
    Py_VISIT(state->key_type);
    Py_VISIT(state->from_outcome);
    Py_VISIT(state->config_error);
    Py_VISIT(state->partial_error);
    Py_VISIT(state->name_symbol);
    Py_VISIT(state->name_order_ids);
    Py_VISIT(state->name_lost_reply);
    Py_VISIT(state->name_logging);
    Py_VISIT(state->name_watch);
    Py_VISIT(state->name_level);
    return 0;
}

static int
module_clear(PyObject *module)
{
    struct module_state *state = PyModule_GetState(module);

    Py_CLEAR(state->base_client_type);
    Py_CLEAR(state->client_type);
    Py_CLEAR(state->async_client_type);
    Py_CLEAR(state->loop_driver_type);
    Py_CLEAR(state->loop_press_type);
    Py_CLEAR(state->key_type);
    Py_CLEAR(state->from_outcome);
    Py_CLEAR(state->config_error);
    Py_CLEAR(state->partial_error);
    Py_CLEAR(state->name_symbol);
    Py_CLEAR(state->name_order_ids);
    Py_CLEAR(state->name_lost_reply);
    Py_CLEAR(state->name_logging);
    Py_CLEAR(state->name_watch);
    Py_CLEAR(state->name_level);
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
