/* reply.c - the words of a whole answer: the API's code first, the status only
 * where there is none, and the one shape that is a success.
 *
 * The exchange answers 400 where its specification says 404 [field]: the
 * status cannot be trusted, the code can. */
#include "core.h"

#include <math.h>

/* ---- The API's words ---------------------------------------------------- */

/* A member of the reply, or NULL if absent or null. */
static const cJSON *
member(const cJSON *root, const char *name)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(root, name);

    return cJSON_IsNull(item) ? NULL : item;
}

/* A code is an integer in the 16-bit range; all else is no code. */
static bool
code_of(const cJSON *root, int *code)
{
    const cJSON *item = member(root, "code");
    double value = cJSON_IsNumber(item) ? item->valuedouble : 0.5;

    if (value != floor(value) || value < -32768 || value > 65535)
        return false;
    *code = (int)value;
    return true;
}

static const struct esp_code *
find_code(int code)
{
    size_t count;
    const struct esp_code *row = esp_codes(&count);

    for (; count > 0; row++, count--) {
        if (row->code == code)
            return row;
    }
    return NULL;
}

static void
judge_code(struct judge *judge, const cJSON *root, int code)
{
    const struct esp_code *row = find_code(code);
    const cJSON *error = member(root, "error");

    judge->outcome->has_code = true;
    judge->outcome->code = code;
    judge_verdict(judge, ESP_API, row ? row->sent : ESP_UNKNOWN,
                  row ? row->retry : ESP_RETRY_NEVER);
    if (cJSON_IsString(error))
        judge_say(judge, error->valuestring);
    else
        judge_say(judge, row ? row->meaning : "an undocumented error");
}

/* ---- The status, where there is no code --------------------------------- */

struct status_row {
    int status;
    enum esp_sent sent;
    enum esp_retry retry;
};

/* A gateway's refusals; every other 4xx is unknown and final. */
static const struct status_row status_rows[] = {
    {401, ESP_REJECTED, ESP_RETRY_NEVER},
    {403, ESP_REJECTED, ESP_RETRY_NEVER},
    {404, ESP_REJECTED, ESP_RETRY_NEVER},
    {405, ESP_REJECTED, ESP_RETRY_NEVER},
    {408, ESP_UNKNOWN, ESP_RETRY_BACKOFF},
    {413, ESP_REJECTED, ESP_RETRY_NEVER},
    {415, ESP_REJECTED, ESP_RETRY_NEVER},
    {425, ESP_UNKNOWN, ESP_RETRY_BACKOFF},
    {429, ESP_REJECTED, ESP_RETRY_AFTER},
    {431, ESP_REJECTED, ESP_RETRY_NEVER},
};

static void
judge_error_status(struct judge *judge, int status)
{
    enum esp_retry retry = status >= 500 ? ESP_RETRY_BACKOFF : ESP_RETRY_NEVER;
    enum esp_sent sent = ESP_UNKNOWN;
    size_t i;

    for (i = 0; i < sizeof status_rows / sizeof *status_rows; i++) {
        if (status_rows[i].status == status) {
            sent = status_rows[i].sent;
            retry = status_rows[i].retry;
        }
    }
    judge_verdict(judge, ESP_HTTP, sent, retry);
}

/* The gateway's own words, or what can be said in their place. */
static void
describe_error_body(struct judge *judge, const cJSON *root)
{
    const cJSON *error = member(root, "error");
    const struct esp_buffer *body = &judge->response->body;

    if (cJSON_IsString(error))
        judge_say(judge, error->valuestring);
    else if (body->length == 0)
        judge_say(judge, "no reason given");
    else if (body->data[0] == '<')
        judge_say(judge, "an HTML page instead of a reason");
    else
        text_copy_masked(judge->outcome->message,
                         sizeof judge->outcome->message, body->data,
                         body->length, judge->secret);
}

static void
judge_status(struct judge *judge, const cJSON *root)
{
    int status = judge->response->http_status;

    if (status >= 400 && status <= 599) {
        judge_error_status(judge, status);
        describe_error_body(judge, root);
    }
    else if (status >= 300 && status <= 399) {
        judge_bad_reply(judge,
                        "a redirect: refused, the key stays with this host");
        judge->outcome->sent = ESP_REJECTED;
    }
    else {
        judge_bad_reply(judge, "a status this operation does not have");
    }
}

/* ---- Success ------------------------------------------------------------ */

static bool
all_strings(const cJSON *array)
{
    const cJSON *item;

    cJSON_ArrayForEach(item, array) {
        if (!cJSON_IsString(item))
            return false;
    }
    return true;
}

/* What keeps a 200 from being the promised one; NULL: nothing. */
static const char *
success_fault(const cJSON *root)
{
    const cJSON *ids = member(root, "order_ids");

    if (!cJSON_IsObject(root))
        return "a 200 that is not a JSON object";
    if (member(root, "code") != NULL)
        return "a 200 whose code is not a number of the API";
    if (member(root, "error") != NULL)
        return "a 200 that names an error";
    if (ids != NULL && (!cJSON_IsArray(ids) || !all_strings(ids)))
        return "a 200 whose order_ids are not a list of strings";
    if (ids == NULL && member(root, "symbol") == NULL)
        return "a 200 that names neither symbol nor order_ids";
    return NULL;
}

/* An answer that names another symbol is not an answer to this request. */
static bool
names_other_symbol(const struct judge *judge, const cJSON *root)
{
    const cJSON *symbol = member(root, "symbol");

    return symbol != NULL &&
           !(cJSON_IsString(symbol) &&
             text_same_ignoring_case(symbol->valuestring, judge->symbol));
}

/* Judge a parsed answer; true: *root is the reply of a success. */
static bool
judge_json(struct judge *judge, const cJSON *root)
{
    const char *fault;
    int code;

    if (names_other_symbol(judge, root)) {
        judge_bad_reply(judge, "an answer that names another symbol");
        return false;
    }
    if (code_of(root, &code)) {
        if (member(root, "order_ids") != NULL)
            judge_bad_reply(judge, "an answer with both a code and order_ids");
        else
            judge_code(judge, root, code);
        return false;
    }
    if (judge->response->http_status != 200) {
        judge_status(judge, root);
        return false;
    }
    fault = success_fault(root);
    if (fault != NULL) {
        judge_bad_reply(judge, fault);
        return false;
    }
    judge_verdict(judge, ESP_OK, ESP_DONE, ESP_RETRY_NEVER);
    return true;
}

/* Two members of one name: whatever a refusal says, it may say otherwise
 * too. */
static void
judge_ambiguous(struct judge *judge)
{
    if (judge->response->http_status == 200)
        judge_bad_reply(judge, "a 200 with a member that stands twice");
    else
        judge_status(judge, NULL);
    judge->outcome->sent = ESP_UNKNOWN;
    judge->outcome->retry = ESP_RETRY_NEVER;
}

void
judge_body(struct judge *judge)
{
    const struct esp_buffer *body = &judge->response->body;
    cJSON *root = NULL;

    switch (json_parse(body->data ? body->data : "", body->length, &root)) {
    case JSON_OK:
        if (judge_json(judge, root)) {
            judge->outcome->json = root;
            root = NULL;
        }
        break;
    case JSON_REFUSED:
        if (judge->response->http_status == 200)
            judge_bad_reply(judge, "a 200 that is not strict JSON");
        else
            judge_status(judge, NULL);
        break;
    case JSON_TWICE:
        judge_ambiguous(judge);
        break;
    case JSON_NO_MEMORY:
        judge_verdict(judge, ESP_NO_MEMORY, ESP_UNKNOWN, ESP_RETRY_NEVER);
        judge_say(judge, "out of memory");
        break;
    }
    cJSON_Delete(root);
}
