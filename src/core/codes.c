/* codes.c - the table of API codes, made from codes.def. */
#include "core.h"

static const struct esp_code codes[] = {
#define ESP_CODE(number, sent_as, retry_as, class_of, what)                   \
    {.code = number,                                                          \
     .sent = ESP_##sent_as,                                                   \
     .retry = ESP_RETRY_##retry_as,                                           \
     .class_name = class_of,                                                  \
     .meaning = what},
#include "codes.def"
#undef ESP_CODE
};

const struct esp_code *
esp_codes(size_t *count)
{
    *count = sizeof codes / sizeof *codes;
    return codes;
}
