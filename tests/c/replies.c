/* replies.c - split a raw answer as the lane's callbacks would see it. */
#include "replies.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static bool
read_file(const char *path, struct reply *reply)
{
    FILE *file = fopen(path, "rb");
    long size;
    bool ok;

    if (file == NULL)
        return false;
    ok = fseek(file, 0, SEEK_END) == 0 && (size = ftell(file)) >= 0 &&
         fseek(file, 0, SEEK_SET) == 0;
    if (ok) {
        reply->raw = calloc(1, (size_t)size + 1);
        reply->length = (size_t)size;
        ok = reply->raw != NULL &&
             fread(reply->raw, 1, reply->length, file) == reply->length;
    }
    fclose(file);
    return ok;
}

static void
read_line(const char *line, struct esp_response *response)
{
    static const char retry[] = "Retry-After:";

    if (strncasecmp(line, "Content-Length:", 15) == 0 ||
        strncasecmp(line, "Transfer-Encoding:", 18) == 0)
        response->framing_headers++;
    else if (strncasecmp(line, retry, sizeof retry - 1) == 0)
        sscanf(line + sizeof retry - 1, " %64[^\r\n]", response->retry_after);
}

static bool
split(struct reply *reply)
{
    struct esp_response *response = &reply->response;
    const char *end = strstr(reply->raw, "\r\n\r\n");
    const char *line;

    if (end == NULL ||
        sscanf(reply->raw, "HTTP/1.1 %d", &response->http_status) != 1)
        return false;
    for (line = strstr(reply->raw, "\r\n"); line < end;
         line = strstr(line + 2, "\r\n"))
        read_line(line + 2, response);
    response->left = true;
    response->head_complete = true;
    return buffer_append(&response->body, end + 4,
                         reply->length - (size_t)(end + 4 - reply->raw)) ==
           BUFFER_OK;
}

bool
reply_load(const char *name, struct reply *reply)
{
    char path[512];

    *reply = (struct reply){0};
    buffer_init(&reply->response.body, ESP_BODY_MAX);
    snprintf(path, sizeof path, REPLIES "/%s.http", name);
    return read_file(path, reply) && split(reply);
}

void
reply_free(struct reply *reply)
{
    free(reply->raw);
    reply->raw = NULL;
    buffer_free(&reply->response.body);
}

int
replies_each(void (*visit)(const char *name, void *user), void *user)
{
    DIR *directory = opendir(REPLIES);
    const struct dirent *entry;
    char name[256];
    char *dot;
    int count = 0;

    if (directory == NULL)
        return 0;
    while ((entry = readdir(directory)) != NULL) {
        snprintf(name, sizeof name, "%s", entry->d_name);
        dot = strrchr(name, '.');
        if (dot == NULL || strcmp(dot, ".http") != 0)
            continue;
        *dot = '\0';
        visit(name, user);
        count++;
    }
    closedir(directory);
    return count;
}
