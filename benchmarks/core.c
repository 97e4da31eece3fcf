/* The same call by espresso's own core, without Python: what is more than this
 * in espresso's figure is the price of the binding and of the interpreter.
 *
 *     core BASE_URL CA_FILE */
#include "loop.h"

#include "espresso.h"

#define NAME "core"

struct caller {
    struct esp_pool *pool;
    struct esp_cancel cancel;
};

static void
call(void *context)
{
    struct caller *caller = context;
    struct esp_outcome outcome;

    esp_cancel_all(caller->pool, &caller->cancel, &outcome);
    if (outcome.kind != ESP_OK || outcome.json == NULL)
        die(NAME, "not the answer that was expected");
    esp_outcome_free(&outcome);
}

int
main(int argc, char **argv)
{
    struct esp_settings settings = ESP_SETTINGS_DEFAULT;
    struct esp_group *group = esp_group_new();
    struct esp_error error;
    struct caller caller = {.cancel = {.symbol = "ADAUSDM",
                                       .api_key = "sandbox-bench",
                                       .timeout_ms = 10000,
                                       .connect_timeout_ms = 3000,
                                       .max_retries = 2}};

    if (argc != 3)
        die(NAME, "usage: core BASE_URL CA_FILE");
    settings.base_url = argv[1];
    settings.ca_path = argv[2];
    settings.user_agent = "espresso-deltadefi/bench";
    caller.pool =
        group != NULL ? esp_pool_new(group, &settings, &error) : NULL;
    if (caller.pool == NULL)
        die(NAME, "out of memory, or no base URL");
    serve(call, &caller);
    esp_pool_release(caller.pool);
    esp_group_free(group);
    return 0;
}
