/* reply.c - the words of a whole answer: the API's code first, the status only
 * where there is none, and the one shape that is a success.
 *
 * The exchange answers 400 where its specification says 404 [field]: the
 * status cannot be trusted, the code can. */
#include "core.h"

#include <math.h>
#include <string.h>

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
    double value =
        item != NULL && cJSON_IsNumber(item) ? item->valuedouble : 0.5;

    if (value != floor(value) || value < -32768 || value > 65535)
        return false;
    *code = (int)value;
    return true;
}

/* The words of the member `error`; NULL if it has none. */
static const char *
error_text(const cJSON *root)
{
    const cJSON *error = member(root, "error");

    return error != NULL && cJSON_IsString(error) &&
                   error->valuestring[0] != '\0'
               ? error->valuestring
               : NULL;
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
    const char *error = error_text(root);

    judge->outcome->has_code = true;
    judge->outcome->code = code;
    judge_verdict(judge, ESP_API, row ? row->sent : ESP_UNKNOWN,
                  row ? row->retry : ESP_RETRY_NEVER);
    if (error != NULL)
        judge_say(judge, error);
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

/* A message is a C string: a NUL in the text must not cut it. */
static void
describe_by_body(struct judge *judge, const struct esp_buffer *body)
{
    char *message = judge->outcome->message;
    size_t length = text_copy_masked(message, sizeof judge->outcome->message,
                                     body->data, body->length, judge->secret);
    size_t i;

    for (i = 0; i < length; i++) {
        if (message[i] == '\0')
            message[i] = ' ';
    }
}

/* The gateway's own words, or what can be said in their place. */
static void
describe_error_body(struct judge *judge, const cJSON *root)
{
    const char *error = error_text(root);
    const struct esp_buffer *body = &judge->response->body;

    if (error != NULL)
        judge_say(judge, error);
    else if (body->length == 0)
        judge_say(judge, "no reason given");
    else if (body->data[0] == '<')
        judge_say(judge, "an HTML page instead of a reason");
    else
        describe_by_body(judge, body);
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
is_empty_string(const cJSON *root, const char *name)
{
    const cJSON *item = member(root, name);

    return item != NULL && cJSON_IsString(item) &&
           item->valuestring[0] == '\0';
}

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

/* An answer that names another symbol is not an answer to this request.  An
 * empty name is what Go writes where it has none. */
static bool
names_other_symbol(const struct judge *judge, const cJSON *root)
{
    const cJSON *symbol = member(root, "symbol");

    if (symbol == NULL || !cJSON_IsString(symbol))
        return symbol != NULL;
    return symbol->valuestring[0] != '\0' &&
           !text_same_ignoring_case(symbol->valuestring, judge->symbol);
}

/* What keeps a 200 from being the promised one; NULL: nothing. */
static const char *
success_fault(const struct judge *judge, const cJSON *root)
{
    const cJSON *ids = member(root, "order_ids");

    if (!cJSON_IsObject(root))
        return "a 200 that is not a JSON object";
    if (names_other_symbol(judge, root) || is_empty_string(root, "symbol"))
        return "a 200 that names another symbol";
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

static void
judge_answer_with_code(struct judge *judge, const cJSON *root, int code)
{
    if (names_other_symbol(judge, root))
        judge_bad_reply(judge, "an answer that names another symbol");
    else if (member(root, "order_ids") != NULL)
        judge_bad_reply(judge, "an answer with both a code and order_ids");
    else
        judge_code(judge, root, code);
}

/* True: the reply is that of a success. */
static bool
judge_success(struct judge *judge, const cJSON *root, bool is_exact)
{
    const char *fault = success_fault(judge, root);

    if (fault == NULL && !is_exact)
        fault = "a 200 with a number too large to be kept exactly";
    if (fault != NULL)
        judge_bad_reply(judge, fault);
    else
        judge_verdict(judge, ESP_OK, ESP_DONE, ESP_RETRY_NEVER);
    return fault == NULL;
}

/* Judge a parsed answer; true: it is the reply of a success. */
static bool
judge_json(struct judge *judge, const cJSON *root, bool is_exact)
{
    int code;

    if (code_of(root, &code)) {
        judge_answer_with_code(judge, root, code);
        return false;
    }
    if (judge->response->http_status == 200)
        return judge_success(judge, root, is_exact);
    judge_status(judge, root);
    if (names_other_symbol(judge, root))
        judge->outcome->sent = ESP_UNKNOWN;
    return false;
}

/* An answer that we do not read for sure.  If it looks like one of the API,
 * its code may say "half done" where the status says "refused". */
static void
judge_unreadable(struct judge *judge, const char *why)
{
    const struct esp_buffer *body = &judge->response->body;
    const char *text = body->data != NULL ? body->data : "";

    if (judge->response->http_status == 200) {
        judge_bad_reply(judge, why);
        return;
    }
    judge_status(judge, NULL);
    if (text[strspn(text, " \t\r\n")] == '{')
        judge->outcome->sent = ESP_UNKNOWN;
}

void
judge_body(struct judge *judge)
{
    const struct esp_buffer *body = &judge->response->body;
    cJSON *root = NULL;
    bool is_exact;

    switch (json_parse(body->data ? body->data : "", body->length, &root,
                       &is_exact)) {
    case JSON_OK:
        if (judge_json(judge, root, is_exact)) {
            judge->outcome->json = root;
            root = NULL;
        }
        break;
    case JSON_REFUSED:
        judge_unreadable(judge, "a 200 that is not strict JSON");
        break;
    case JSON_TWICE:
        judge_unreadable(judge, "a 200 with a member that stands twice");
        break;
    case JSON_NO_MEMORY:
        judge_verdict(judge, ESP_NO_MEMORY, ESP_UNKNOWN, ESP_RETRY_NEVER);
        judge_say(judge, "out of memory");
        break;
    }
    json_free(root);
}
