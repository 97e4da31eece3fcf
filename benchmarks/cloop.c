/* The yardstick: what one cancel-all costs a plain C program.
 *
 *     cloop URL CA_FILE
 *
 * One easy handle, reused, so that the connection stays open; the headers and
 * the body of espresso; the reply is parsed with cJSON and its ids are read.
 * Nothing is defended against: that is what espresso is measured beside. */
#include "loop.h"

#include <string.h>

#include <cJSON.h>
#include <curl/curl.h>

#define NAME "cloop"
#define BODY_MAX 65536
#define IDS 2 /* in every reply of the server */

struct reply {
    CURL *easy;
    size_t size;
    char body[BODY_MAX];
};

static size_t
receive(char *data, size_t unit, size_t count, void *context)
{
    struct reply *reply = context;
    size_t size = unit * count;

    if (size > BODY_MAX - reply->size) {
        return 0;
    }
    memcpy(reply->body + reply->size, data, size);
    reply->size += size;
    return size;
}

/* Read the ids as a caller would; their number proves that they were there. */
static int
count_ids(const struct reply *reply)
{
    cJSON *tree = cJSON_ParseWithLength(reply->body, reply->size);
    const cJSON *ids = cJSON_GetObjectItemCaseSensitive(tree, "order_ids");
    const cJSON *id;
    int count = 0;

    cJSON_ArrayForEach(id, ids) {
        if (cJSON_IsString(id) && id->valuestring[0] != '\0') {
            count++;
        }
    }
    cJSON_Delete(tree);
    return count;
}

static void
call(void *context)
{
    struct reply *reply = context;
    long status = 0;

    reply->size = 0;
    if (curl_easy_perform(reply->easy) != CURLE_OK) {
        die(NAME, "the call failed");
    }
    curl_easy_getinfo(reply->easy, CURLINFO_RESPONSE_CODE, &status);
    if (status != 200 || count_ids(reply) != IDS) {
        die(NAME, "not the answer that was expected");
    }
}

int
main(int argc, char **argv)
{
    static struct reply reply;
    struct curl_slist *headers = NULL;
    CURL *easy;

    if (argc != 3) {
        die(NAME, "usage: cloop URL CA_FILE");
    }
    curl_global_init(CURL_GLOBAL_DEFAULT);
    easy = curl_easy_init();
    headers = curl_slist_append(headers, "Content-Type: application/json");
    headers = curl_slist_append(headers, "X-API-KEY: sandbox-bench");
    headers = curl_slist_append(headers, "Accept: application/json");
    if (easy == NULL || headers == NULL) {
        die(NAME, "out of memory");
    }
    /* Without it libcurl asks the kernel about SIGPIPE 16 times a call: the
     * yardstick must not be slow for a reason that no good program has. */
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_URL, argv[1]);
    curl_easy_setopt(easy, CURLOPT_CAINFO, argv[2]);
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(easy, CURLOPT_USERAGENT, "espresso-deltadefi/bench");
    curl_easy_setopt(easy, CURLOPT_POSTFIELDS, "{\"symbol\":\"ADAUSDM\"}");
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, receive);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, &reply);
    reply.easy = easy;
    serve(call, &reply);
    curl_easy_cleanup(easy);
    curl_slist_free_all(headers);
    curl_global_cleanup();
    return 0;
}
