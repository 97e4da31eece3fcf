/* fuzz.h - what the fuzz targets share.
 *
 * A target is one C file with LLVMFuzzerTestOneInput: it makes of the bytes
 * what the core would get, and asserts with HOLDS what must be true of the
 * result.  libFuzzer links it for `make fuzz`; replay.c does for `make test`,
 * where kept files are run through it without clang. */
#ifndef FUZZ_H
#define FUZZ_H

#include "core.h"

#define SYMBOL "ADAUSDM"
#define KEY "sandbox-key" /* short, so that a dictionary can quote it */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What must be true; if not, the process aborts and names it. */
#define HOLDS(condition)                                                      \
    do {                                                                      \
        if (!(condition))                                                     \
            fuzz_broken(#condition, __FILE__, __LINE__);                      \
    } while (0)

_Noreturn void fuzz_broken(const char *condition, const char *file, int line);

/* Bytes that a target has not used yet; 0 where there are none. */
struct input {
    const uint8_t *at;
    size_t left;
};

uint8_t input_byte(struct input *input);
uint16_t input_16(struct input *input);
uint32_t input_32(struct input *input);

/* One of 0 .. most - 1. */
unsigned input_below(struct input *input, unsigned most);

/* A copy that ends where the bytes end, so that the address sanitizer sees a
 * read of one too far; with `nul` there is a NUL behind them.  To be freed. */
char *copy_exactly(const void *bytes, size_t length, bool nul);

/* What holds for every outcome that an attempt may have, whatever came: all
 * enums in range, texts ended, no secret in them. */
void check_outcome(const struct esp_outcome *outcome);

/* Whether the `length` bytes write `secret`, also with the escapes of JSON. */
bool writes_secret(const char *text, size_t length, const char *secret);

#endif
