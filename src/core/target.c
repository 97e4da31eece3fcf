/* target.c - where the requests of one pool go: host, proxy, roots. */
#include "core.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The one operation [spec]. */
#define ESP_ENDPOINT "/order/cancel-all"

/* Copy `text`, or leave *copy NULL for NULL; false: no memory. */
static bool
copy_text(char **copy, const char *text)
{
    if (text == NULL)
        return true;
    *copy = strdup(text);
    return *copy != NULL;
}

static void
wipe_and_free(char **secret)
{
    if (*secret != NULL)
        text_wipe(*secret, strlen(*secret));
    free(*secret);
    *secret = NULL;
}

/* A part that may be absent, but may not be lost. */
static bool
url_secret(CURLU *handle, CURLUPart part, char **text)
{
    CURLUcode code = curl_url_get(handle, part, text, CURLU_URLDECODE);

    return code == CURLUE_OK || code == CURLUE_NO_USER ||
           code == CURLUE_NO_PASSWORD;
}

/* Cut user and password out of a proxy URL: libcurl quotes the URL in some of
 * its error texts, and gets the credentials by options of their own. */
static bool
split_proxy(struct esp_target *target, CURLU *handle)
{
    char *url = NULL;
    char *user = NULL;
    char *password = NULL;
    bool ok;

    ok = url_secret(handle, CURLUPART_USER, &user) &&
         url_secret(handle, CURLUPART_PASSWORD, &password) &&
         curl_url_set(handle, CURLUPART_USER, NULL, 0) == CURLUE_OK &&
         curl_url_set(handle, CURLUPART_PASSWORD, NULL, 0) == CURLUE_OK &&
         curl_url_get(handle, CURLUPART_URL, &url, 0) == CURLUE_OK &&
         copy_text(&target->proxy, url) &&
         copy_text(&target->proxy_user, user) &&
         copy_text(&target->proxy_password, password);
    if (password != NULL)
        text_wipe(password, strlen(password));
    curl_free(url);
    curl_free(user);
    curl_free(password);
    return ok;
}

/* Loopback is never sent to a proxy: then the setting is only checked. */
static bool
target_set_proxy(struct esp_target *target, const char *proxy)
{
    CURLU *handle;
    bool ok;

    if (target->base.loopback || proxy == NULL)
        return true;
    handle = curl_url();
    ok = handle != NULL &&
         curl_url_set(handle, CURLUPART_URL, proxy,
                      CURLU_NON_SUPPORT_SCHEME | CURLU_GUESS_SCHEME) ==
             CURLUE_OK &&
         split_proxy(target, handle);
    curl_url_cleanup(handle);
    return ok;
}

bool
target_init(struct esp_target *target, const struct esp_settings *settings,
            struct esp_error *error)
{
    *target = (struct esp_target){0};
    if (!esp_base_url_parse(settings->base_url, &target->base, error))
        return false;
    if (settings->proxy != NULL && !esp_proxy_check(settings->proxy, error))
        return false;
    if (settings->ca_path != NULL &&
        strnlen(settings->ca_path, ESP_PATH_MAX + 1) > ESP_PATH_MAX)
        return error_set(error, "ca_file is longer than %d bytes",
                         ESP_PATH_MAX);
    target->uses_tls = strncmp(target->base.url, "https:", 6) == 0;
    snprintf(target->endpoint, sizeof target->endpoint, "%s%s",
             target->base.url, ESP_ENDPOINT);
    if (target_set_proxy(target, settings->proxy) &&
        copy_text(&target->no_proxy, settings->no_proxy) &&
        copy_text(&target->ca_path, settings->ca_path) &&
        copy_text(&target->user_agent, settings->user_agent))
        return true;
    target_free(target);
    return error_set_no_memory(error);
}

void
target_free(struct esp_target *target)
{
    free(target->proxy);
    wipe_and_free(&target->proxy_user);
    wipe_and_free(&target->proxy_password);
    free(target->no_proxy);
    free(target->ca_path);
    free(target->user_agent);
    *target = (struct esp_target){0};
}
