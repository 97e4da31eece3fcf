/* fuzz.c - see fuzz.h. */
#include "fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void
fuzz_broken(const char *condition, const char *file, int line)
{
    fprintf(stderr, "%s:%d: does not hold: %s\n", file, line, condition);
    abort();
}

uint8_t
input_byte(struct input *input)
{
    if (input->left == 0)
        return 0;
    input->left--;
    return *input->at++;
}

uint16_t
input_16(struct input *input)
{
    unsigned low = input_byte(input);

    return (uint16_t)(low | (unsigned)input_byte(input) << 8);
}

uint32_t
input_32(struct input *input)
{
    uint32_t low = input_16(input);

    return low | (uint32_t)input_16(input) << 16;
}

unsigned
input_below(struct input *input, unsigned most)
{
    return input_byte(input) % most;
}

char *
copy_exactly(const void *bytes, size_t length, bool nul)
{
    char *copy = malloc(length + nul);

    if (copy == NULL)
        abort();
    if (length > 0)
        memcpy(copy, bytes, length);
    if (nul)
        copy[length] = '\0';
    return copy;
}

/* One character as JSON may write it: its value, and the bytes it took. */
static int
written_byte(const char *text, size_t length, size_t *used)
{
    unsigned value;
    char hex[5] = "";
    char more;

    *used = 1;
    if (text[0] != '\\' || length < 2)
        return (unsigned char)text[0];
    *used = 2;
    if (text[1] != 'u' || length < 6)
        return (unsigned char)text[1];
    memcpy(hex, text + 2, 4);
    if (sscanf(hex, "%4x%c", &value, &more) != 1 ||
        strspn(hex, "0123456789abcdefABCDEF") != 4)
        return 'u';
    *used = 6;
    return value < 256 ? (int)value : -1;
}

bool
writes_secret(const char *text, size_t length, const char *secret)
{
    size_t secret_length = strlen(secret);
    size_t start;
    size_t at;
    size_t used;
    size_t same;

    if (memmem(text, length, secret, secret_length) != NULL)
        return true;
    for (start = 0; start < length; start++) {
        if (text[start] != '\\' && text[start] != secret[0])
            continue;
        for (at = start, same = 0; at < length && same < secret_length;
             same++) {
            if (written_byte(text + at, length - at, &used) !=
                (unsigned char)secret[same])
                break;
            at += used;
        }
        if (same == secret_length)
            return true;
    }
    return false;
}

void
check_outcome(const struct esp_outcome *outcome)
{
    size_t length = strnlen(outcome->message, sizeof outcome->message);

    HOLDS(outcome->kind >= ESP_OK && outcome->kind <= ESP_NO_MEMORY);
    HOLDS(outcome->sent >= ESP_NOT_SENT && outcome->sent <= ESP_DONE);
    HOLDS(outcome->retry >= ESP_RETRY_NEVER &&
          outcome->retry <= ESP_RETRY_AFTER);
    HOLDS(length <= ESP_MESSAGE_MAX);
    HOLDS(!writes_secret(outcome->message, length, KEY));
    HOLDS(outcome->body_length <= ESP_BODY_KEPT_MAX);
    HOLDS(outcome->body[outcome->body_length] == '\0');
    HOLDS(!writes_secret(outcome->body, outcome->body_length, KEY));
    HOLDS(outcome->has_code || outcome->kind != ESP_API);
    HOLDS(outcome->has_code || outcome->code == 0);
    if (outcome->kind == ESP_OK)
        HOLDS(outcome->sent == ESP_DONE);
    else /* a hook may have said stop after a success */
        HOLDS(outcome->sent != ESP_DONE || outcome->kind == ESP_INTERRUPTED);
    HOLDS(outcome->retry_after == -1 ||
          (outcome->retry_after >= 0 && outcome->retry == ESP_RETRY_AFTER));
}
