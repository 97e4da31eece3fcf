/* replay.c - run a target on files, without a fuzzer: `TARGET FILE...`.
 *
 * Prints how many were run.  A file that breaks a promise aborts, and the name
 * of it is the last line on stdout. */
#include "fuzz.h"

#include <stdio.h>
#include <stdlib.h>

static uint8_t *
read_file(const char *path, size_t *size)
{
    FILE *file = fopen(path, "rb");
    uint8_t *bytes = malloc(1);
    uint8_t *more = bytes;

    *size = 0;
    while (file != NULL && more != NULL && !feof(file) && !ferror(file)) {
        more = realloc(bytes, *size + 65536);
        if (more != NULL) {
            bytes = more;
            *size += fread(bytes + *size, 1, 65536, file);
        }
    }
    if (file == NULL || more == NULL || ferror(file)) {
        fprintf(stderr, "%s: cannot be read\n", path);
        exit(2);
    }
    fclose(file);
    return bytes;
}

int
main(int count, char **paths)
{
    uint8_t *bytes;
    uint8_t *exact;
    size_t size;
    int i;

    for (i = 1; i < count; i++) {
        printf("%s\n", paths[i]);
        fflush(stdout);
        bytes = read_file(paths[i], &size);
        exact = (uint8_t *)copy_exactly(bytes, size, false);
        free(bytes);
        LLVMFuzzerTestOneInput(exact, size);
        free(exact);
    }
    printf("%d files, no finding\n", count - 1);
    return count > 1 ? 0 : 2;
}
