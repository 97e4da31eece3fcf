/* probe.c - Client._probe(): a warm-up that tells where the time went, also
 * when it failed; what `espresso doctor` shows. */
#include "client.h"

/* The timings are those of an Event.  "ok": there was an answer, whichever;
 * "keylog": a call would be refused for SSLKEYLOGFILE. */
static PyObject *
describe(const struct esp_outcome *outcome)
{
    const struct esp_timing *timing = &outcome->timing;

    return Py_BuildValue(
        "{s:N,s:N,s:i,s:N,s:N,s:N,s:N,s:N,s:N,s:N,s:s,s:N}", "ok",
        PyBool_FromLong(outcome->kind == ESP_OK), "certificate",
        PyBool_FromLong(outcome->certificate), "curl_code", outcome->curl_code,
        "message", convert_text(outcome->message, strlen(outcome->message)),
        "status_code",
        convert_int(outcome->http_status != 0, outcome->http_status), "dns",
        convert_seconds(timing->dns_s), "connect",
        convert_seconds(timing->connect_s), "tls",
        convert_seconds(timing->tls_s), "first_byte",
        convert_seconds(timing->first_byte_s), "total",
        convert_seconds(timing->total_s), "remote", timing->remote, "keylog",
        PyBool_FromLong(esp_keylog_is_on()));
}

static PyObject *
describe_or_raise(struct module_state *state, Client *self,
                  const struct esp_outcome *outcome)
{
    switch (outcome->kind) {
    case ESP_OK:
    case ESP_TRANSPORT:
    case ESP_TIMEOUT:
    case ESP_BAD_REPLY:
        return describe(outcome);
    default:
        return errors_raise_outcome(state, self->pool, outcome, NULL);
    }
}

PyObject *
client_probe(PyObject *object, PyTypeObject *defining, PyObject *const *args,
             Py_ssize_t nargs, PyObject *names)
{
    Client *self = (Client *)object;
    struct module_state *state = PyType_GetModuleState(defining);
    struct esp_outcome outcome;
    struct esp_cancel cancel = {0};
    PyObject *result;

    (void)args;
    if (!arguments_none("_probe", nargs, names) || !client_is_ready(self))
        return NULL;
    cancel.timeout_ms = self->timeout_ms;
    cancel.connect_timeout_ms = self->connect_timeout_ms;
    client_run_warm_up(state, self, &cancel, &outcome);
    result = describe_or_raise(state, self, &outcome);
    esp_outcome_free(&outcome);
    return result;
}
