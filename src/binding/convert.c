/* convert.c - a reply of the exchange as Python objects. */
#include "module.h"

#include <cJSON.h>
#include <math.h>
#include <string.h>

static PyObject *convert_value(struct module_state *state, const cJSON *item);

PyObject *
convert_seconds(double seconds)
{
    return seconds >= 0 ? PyFloat_FromDouble(seconds) : Py_NewRef(Py_None);
}

PyObject *
convert_int(bool present, long number)
{
    return present ? PyLong_FromLong(number) : Py_NewRef(Py_None);
}

PyObject *
convert_text(const char *text, size_t length)
{
    return PyUnicode_DecodeUTF8(text, (Py_ssize_t)length, "replace");
}

/* The scan let only integers up to 2^53 through: a double holds them. */
static PyObject *
convert_number(const cJSON *item)
{
    double value = item->valuedouble;

    if (value == floor(value) && fabs(value) <= 9007199254740992.0)
        return PyLong_FromLongLong((long long)value);
    return PyFloat_FromDouble(value);
}

static PyObject *
convert_array(struct module_state *state, const cJSON *array)
{
    PyObject *list = PyList_New(cJSON_GetArraySize(array));
    PyObject *value;
    const cJSON *item;
    Py_ssize_t place = 0;

    for (item = array->child; list != NULL && item != NULL;
         item = item->next) {
        value = convert_value(state, item);
        if (value == NULL || PyList_SetItem(list, place++, value) < 0)
            Py_CLEAR(list);
    }
    return list;
}

/* The two names of every reply are made once; others as they come. */
static PyObject *
convert_name(struct module_state *state, const char *name)
{
    if (strcmp(name, "order_ids") == 0)
        return Py_NewRef(state->name_order_ids);
    if (strcmp(name, "symbol") == 0)
        return Py_NewRef(state->name_symbol);
    return PyUnicode_FromString(name);
}

static PyObject *
convert_object(struct module_state *state, const cJSON *object)
{
    PyObject *dict = PyDict_New();
    PyObject *name;
    PyObject *value;
    const cJSON *item;

    for (item = object->child; dict != NULL && item != NULL;
         item = item->next) {
        name = convert_name(state, item->string);
        value = name != NULL ? convert_value(state, item) : NULL;
        if (value == NULL || PyDict_SetItem(dict, name, value) < 0)
            Py_CLEAR(dict);
        Py_XDECREF(name);
        Py_XDECREF(value);
    }
    return dict;
}

/* Depth is bounded by the scan (ESP_DEPTH_MAX). */
static PyObject *
convert_value(struct module_state *state, const cJSON *item)
{
    if (cJSON_IsString(item))
        return PyUnicode_FromString(item->valuestring);
    if (cJSON_IsNumber(item))
        return convert_number(item);
    if (cJSON_IsArray(item))
        return convert_array(state, item);
    if (cJSON_IsObject(item))
        return convert_object(state, item);
    if (cJSON_IsBool(item))
        return PyBool_FromLong(cJSON_IsTrue(item));
    return Py_NewRef(Py_None);
}

/* `name` of `dict` becomes `value` (stolen) if it is absent or None. */
static bool
fill_in(PyObject *dict, PyObject *name, PyObject *value)
{
    PyObject *present = PyDict_GetItemWithError(dict, name);
    bool ok = value != NULL && (present != NULL || !PyErr_Occurred());

    if (ok && (present == NULL || present == Py_None))
        ok = PyDict_SetItem(dict, name, value) == 0;
    Py_XDECREF(value);
    return ok;
}

/* The name is ours: a server cannot claim it. */
static bool
forget_lost_reply(struct module_state *state, PyObject *dict)
{
    int present = PyDict_Contains(dict, state->name_lost_reply);

    if (present > 0)
        present = PyDict_DelItem(dict, state->name_lost_reply);
    return present >= 0;
}

/* Add what `json` cancelled to `ids`, a dict that serves as an ordered set. */
static bool
collect_ids(PyObject *ids, const cJSON *json)
{
    const cJSON *array = cJSON_GetObjectItemCaseSensitive(json, "order_ids");
    const cJSON *item = array != NULL ? array->child : NULL;
    bool ok = true;

    for (; ok && item != NULL; item = item->next) {
        PyObject *id = PyUnicode_FromString(item->valuestring);

        ok = id != NULL && PyDict_SetItem(ids, id, Py_None) == 0;
        Py_XDECREF(id);
    }
    return ok;
}

PyObject *
convert_round_ids(const struct esp_outcome *outcome)
{
    PyObject *ids = PyDict_New();
    PyObject *list = NULL;
    bool ok = ids != NULL;
    int i;

    for (i = 0; ok && i < outcome->round_count; i++)
        ok = collect_ids(ids, outcome->rounds[i]);
    if (ok)
        list = PyDict_Keys(ids);
    Py_XDECREF(ids);
    return list;
}

/* The replies of a confirmed call in one: the later word on a member counts,
 * and order_ids are those of all rounds. */
static PyObject *
convert_rounds(struct module_state *state, const struct esp_outcome *outcome)
{
    PyObject *dict = PyDict_New();
    PyObject *ids = convert_round_ids(outcome);
    PyObject *reply;
    bool ok = dict != NULL && ids != NULL;
    int i;

    for (i = 0; ok && i < outcome->round_count; i++) {
        reply = convert_object(state, outcome->rounds[i]);
        ok = reply != NULL && PyDict_Update(dict, reply) == 0;
        Py_XDECREF(reply);
    }
    if (!ok || PyDict_SetItem(dict, state->name_order_ids, ids) < 0)
        Py_CLEAR(dict);
    Py_XDECREF(ids);
    return dict;
}

static PyObject *
convert_reply(struct module_state *state, const struct esp_outcome *outcome)
{
    if (outcome->round_count > 0)
        return convert_rounds(state, outcome);
    return outcome->json != NULL ? convert_object(state, outcome->json)
                                 : PyDict_New();
}

/* Whether the reply is what the result will be, as it nearly always is: both
 * of its members are there, and none that is ours. */
static bool
is_result(const struct esp_outcome *outcome)
{
    const cJSON *item = outcome->json != NULL ? outcome->json->child : NULL;
    int found = 0;
    bool is_plain = outcome->round_count == 0 && !outcome->lost_reply;

    for (; is_plain && item != NULL; item = item->next) {
        found += strcmp(item->string, "symbol") == 0 ||
                 strcmp(item->string, "order_ids") == 0;
        is_plain =
            !cJSON_IsNull(item) && strcmp(item->string, "lost_reply") != 0;
    }
    return is_plain && found == 2;
}

/* Make a result of the `dict` of a reply. */
static bool
complete(struct module_state *state, PyObject *dict,
         const struct esp_outcome *outcome, PyObject *symbol)
{
    /* A plain str even where the caller gave a subclass. */
    PyObject *plain = PyUnicode_FromObject(symbol);

    return forget_lost_reply(state, dict) &&
           fill_in(dict, state->name_symbol, plain) &&
           fill_in(dict, state->name_order_ids, PyList_New(0)) &&
           (!outcome->lost_reply ||
            PyDict_SetItem(dict, state->name_lost_reply, Py_True) == 0);
}

PyObject *
convert_success(struct module_state *state, const struct esp_outcome *outcome,
                PyObject *symbol)
{
    PyObject *dict = convert_reply(state, outcome);

    if (dict != NULL && !is_result(outcome) &&
        !complete(state, dict, outcome, symbol))
        Py_CLEAR(dict);
    return dict;
}
