/* version.c - what we stand on. */
#include "core.h"

#include <pthread.h>
#include <stdio.h>

#define LIBCURL_LEAST 0x075700 /* 7.87: CURLOPT_QUICK_EXIT */

static char libcurl_version[32];
static char tls_version[64];
static pthread_once_t versions_once = PTHREAD_ONCE_INIT;

static void
read_versions(void)
{
    const curl_version_info_data *info = curl_version_info(CURLVERSION_NOW);

    snprintf(libcurl_version, sizeof libcurl_version, "%s", info->version);
    snprintf(tls_version, sizeof tls_version, "%s",
             info->ssl_version ? info->ssl_version : "none");
}

bool
esp_libcurl_check(struct esp_error *error)
{
    const curl_version_info_data *info = curl_version_info(CURLVERSION_NOW);

    if (info->version_num < LIBCURL_LEAST)
        return error_set(error,
                         "libcurl %s is too old: espresso needs 7.87 or later",
                         info->version);
    if ((info->features & CURL_VERSION_SSL) == 0)
        return error_set(error, "this libcurl was built without TLS");
    if ((info->features & CURL_VERSION_THREADSAFE) == 0)
        return error_set(error, "this libcurl cannot start safely in a "
                                "program with threads");
    return true;
}

const char *
esp_version_libcurl(void)
{
    pthread_once(&versions_once, read_versions);
    return libcurl_version;
}

const char *
esp_version_tls(void)
{
    pthread_once(&versions_once, read_versions);
    return tls_version;
}

const char *
esp_version_cjson(void)
{
    return cJSON_Version();
}
