/* The yardstick: what one cancel-all costs a plain C program.
 *
 *     cloop URL CA_FILE
 *
 * One easy handle, reused, so that the connection stays open; the headers and
 * the body of espresso; the reply is parsed with cJSON and its ids are read.
 * Nothing is defended against: that is what espresso is measured beside.
 *
 * Each line on stdin is a number of calls to make.  The answer is one line:
 * CPU seconds of this process per call, and the median seconds of a call. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include <cJSON.h>
#include <curl/curl.h>

#define BODY_MAX 65536
#define IDS 2 /* in every reply of the server */

struct reply {
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

static void
die(const char *what)
{
    fprintf(stderr, "cloop: %s\n", what);
    exit(1);
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
call(CURL *easy, struct reply *reply)
{
    long status = 0;

    reply->size = 0;
    if (curl_easy_perform(easy) != CURLE_OK) {
        die("the call failed");
    }
    curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
    if (status != 200 || count_ids(reply) != IDS) {
        die("not the answer that was expected");
    }
}

static double
wall_seconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static double
cpu_seconds(void)
{
    struct rusage usage;

    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static int
ascending(const void *left, const void *right)
{
    double a = *(const double *)left;
    double b = *(const double *)right;

    return (a > b) - (a < b);
}

static void
run(CURL *easy, struct reply *reply, size_t calls)
{
    double *times = calloc(calls, sizeof(*times));
    double cpu = cpu_seconds();

    if (times == NULL) {
        die("out of memory");
    }
    for (size_t i = 0; i < calls; i++) {
        double start = wall_seconds();
        call(easy, reply);
        times[i] = wall_seconds() - start;
    }
    cpu = (cpu_seconds() - cpu) / (double)calls;
    qsort(times, calls, sizeof(*times), ascending);
    printf("%.9f %.9f\n", cpu, times[calls / 2]);
    fflush(stdout);
    free(times);
}

int
main(int argc, char **argv)
{
    static struct reply reply;
    struct curl_slist *headers = NULL;
    CURL *easy;
    size_t calls;

    if (argc != 3) {
        die("usage: cloop URL CA_FILE");
    }
    curl_global_init(CURL_GLOBAL_DEFAULT);
    easy = curl_easy_init();
    headers = curl_slist_append(headers, "Content-Type: application/json");
    headers = curl_slist_append(headers, "X-API-KEY: sandbox-bench");
    if (easy == NULL || headers == NULL) {
        die("out of memory");
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
    while (scanf("%zu", &calls) == 1 && calls > 0) {
        run(easy, &reply, calls);
    }
    curl_easy_cleanup(easy);
    curl_slist_free_all(headers);
    curl_global_cleanup();
    return 0;
}
