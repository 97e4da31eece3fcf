/* loop.h - what the yardsticks in C share: calls, their clock, the answer.
 *
 * Each line on stdin is a number of calls to make, twice.  The answer is one
 * line: CPU seconds of this process per call, of the first half; and the
 * seconds of a call at the median and at the 99th percentile, of the second. */
#ifndef BENCHMARKS_LOOP_H
#define BENCHMARKS_LOOP_H

#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

/* `name` is the program's; the process ends. */
static void
die(const char *name, const char *what)
{
    fprintf(stderr, "%s: %s\n", name, what);
    exit(1);
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

/* Make the calls that stdin asks for, until it ends.  `call` makes one. */
static void
serve(void (*call)(void *), void *context)
{
    double *times = NULL;
    double *larger;
    double start;
    double cpu;
    size_t calls;
    size_t i;

    while (scanf("%zu", &calls) == 1 && calls > 0) {
        larger = realloc(times, calls * sizeof(*times));
        if (larger == NULL)
            die("benchmark", "out of memory");
        times = larger;
        cpu = cpu_seconds();
        for (i = 0; i < calls; i++)
            call(context);
        cpu = (cpu_seconds() - cpu) / (double)calls;
        for (i = 0; i < calls; i++) {
            start = wall_seconds();
            call(context);
            times[i] = wall_seconds() - start;
        }
        qsort(times, calls, sizeof(*times), ascending);
        printf("%.9f %.9f %.9f\n", cpu, times[calls / 2],
               times[calls * 99 / 100]);
        fflush(stdout);
    }
    free(times);
}

#endif
