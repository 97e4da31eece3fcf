/* test_trust.c - which roots are trusted: files and hashed directories. */
#include "unit.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define HASHED "3513523f.0"

/* This program's own open and opendir stand before the system's: to the core
 * no path below /etc, /system or /usr can be opened, for the errno below.  */
static int hidden_errno;

static bool
is_hidden(const char *path)
{
    errno = hidden_errno;
    return hidden_errno != 0 && (strncmp(path, "/etc/", 5) == 0 ||
                                 strncmp(path, "/system/", 8) == 0 ||
                                 strncmp(path, "/usr/", 5) == 0);
}

int
open(const char *path, int flags, ...)
{
    va_list arguments;
    mode_t mode;

    va_start(arguments, flags);
    mode = flags & O_CREAT ? va_arg(arguments, mode_t) : 0;
    va_end(arguments);
    return is_hidden(path) ? -1 : openat(AT_FDCWD, path, flags, mode);
}

DIR *
opendir(const char *path)
{
    int fd = is_hidden(path) ? -1 : open(path, O_RDONLY | O_DIRECTORY);
    DIR *directory = fd < 0 ? NULL : fdopendir(fd);

    if (fd >= 0 && directory == NULL)
        close(fd);
    return directory;
}

/* A directory of this test; what is in it goes with it. */
struct folder {
    char path[64];
};

static int
setup(void **state)
{
    struct folder *folder = malloc(sizeof *folder);

    if (folder == NULL)
        return -1;
    snprintf(folder->path, sizeof folder->path,
             P_tmpdir "/espresso-trust-XXXXXX");
    *state = folder;
    return mkdtemp(folder->path) != NULL ? 0 : -1;
}

static const char *
inside(const struct folder *folder, const char *name)
{
    static char path[320];

    snprintf(path, sizeof path, "%s/%s", folder->path, name);
    return path;
}

static int
teardown(void **state)
{
    static const char *const names[] = {
        HASHED,     "3513523f.r0", "3513523F.0", "3513523f.0x", "3513523f.",
        "3513523f", "13513523f.0", "root.pem",   "aaaaaaaa.0",  "loop.0"};
    struct folder *folder = *state;
    size_t i;

    for (i = 0; i < COUNT_OF(names); i++)
        unlink(inside(folder, names[i]));
    if (rmdir(folder->path) != 0)
        return -1;
    free(folder);
    return 0;
}

static void
make_file(const struct folder *folder, const char *name)
{
    int fd = open(inside(folder, name), O_CREAT | O_WRONLY, 0600);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, "x\n", 2), 2);
    close(fd);
}

struct result {
    bool ok;
    bool no_descriptor;
    struct esp_trust trust;
    char message[ESP_PATH_MAX + 512];
};

static struct result
resolve(const char *path)
{
    struct result result = {.no_descriptor = true};

    result.ok = trust_resolve(path, &result.trust, result.message,
                              sizeof result.message, &result.no_descriptor);
    return result;
}

static bool
exists(const char *path)
{
    struct stat status;

    return stat(path, &status) == 0;
}

static void
test_hashed_directory(void **state)
{
    struct folder *folder = *state;
    struct result result;

    make_file(folder, "root.pem");
    make_file(folder, HASHED);
    result = resolve(folder->path);
    assert_true(result.ok);
    assert_false(result.no_descriptor);
    assert_string_equal(result.trust.directory, folder->path);
    assert_string_equal(result.trust.file, inside(folder, HASHED));
}

/* Names that openssl would not look for: nothing in it would be trusted. */
static void
test_unhashed_directory(void **state)
{
    static const char *const names[] = {
        "root.pem",  "3513523f.r0", "3513523F.0", "3513523f.0x",
        "3513523f.", "3513523f",    "13513523f.0"};
    struct folder *folder = *state;
    struct result result;
    size_t i;

    for (i = 0; i < COUNT_OF(names); i++)
        make_file(folder, names[i]);
    result = resolve(folder->path);
    assert_false(result.ok);
    assert_false(result.no_descriptor);
    assert_non_null(strstr(result.message, folder->path));
    assert_non_null(strstr(result.message, "rehash"));
}

static void
test_empty_directory(void **state)
{
    struct folder *folder = *state;
    struct result result = resolve(folder->path);

    assert_false(result.ok);
    assert_false(result.no_descriptor);
    assert_non_null(strstr(result.message, "rehash"));
}

/* The first hashed name may lead nowhere: the next one is as good. */
static void
test_dangling_link(void **state)
{
    struct folder *folder = *state;
    struct result result;

    assert_int_equal(symlink("nowhere", inside(folder, "aaaaaaaa.0")), 0);
    assert_false(resolve(folder->path).ok);
    make_file(folder, HASHED);
    result = resolve(folder->path);
    assert_true(result.ok);
    assert_string_equal(result.trust.file, inside(folder, HASHED));
}

static void
test_missing(void **state)
{
    struct folder *folder = *state;
    const char *path = inside(folder, "absent.pem");
    struct result result = resolve(path);

    assert_false(result.ok);
    assert_false(result.no_descriptor);
    assert_non_null(strstr(result.message, path));
}

static void
test_empty_path(void **state)
{
    (void)state;
    assert_false(resolve("").ok);
}

/* With a file nothing else may be trusted: CAPATH is set, and can never
 * become a directory. */
static void
test_file(void **state)
{
    struct folder *folder = *state;
    struct result result;

    make_file(folder, "root.pem");
    result = resolve(inside(folder, "root.pem"));
    assert_true(result.ok);
    assert_string_equal(result.trust.file, inside(folder, "root.pem"));
    assert_true(result.trust.directory[0] != '\0');
    assert_false(exists(result.trust.directory));
    assert_int_equal(mkdir(result.trust.directory, 0700), -1);
    assert_int_equal(errno, ENOTDIR);
}

static void
test_unreadable_file(void **state)
{
    struct folder *folder = *state;
    struct result result;

    assert_int_equal(symlink("loop.0", inside(folder, "loop.0")), 0);
    result = resolve(inside(folder, "loop.0"));
    assert_false(result.ok);
    assert_false(result.no_descriptor);
}

/* The longest path the core takes is not cut. */
static void
test_longest_path(void **state)
{
    char path[ESP_PATH_MAX + 1];
    struct result result;

    (void)state;
    memset(path, '/', sizeof path - 1);
    memcpy(path + sizeof path - 4, "etc", 4);
    result = resolve(path);
    assert_false(result.ok);
    assert_false(result.no_descriptor);
}

/* Without a free descriptor nothing can be said about the store: the caller
 * must not take that for a bad one. */
static void
test_no_descriptor(void **state)
{
    struct folder *folder = *state;
    struct rlimit before;
    struct rlimit none;
    struct result file;
    struct result directory;
    struct result nothing;
    char path[ESP_PATH_MAX + 1];
    bool found;

    make_file(folder, HASHED);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    none = before;
    none.rlim_cur = 0;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    file = resolve(inside(folder, HASHED));
    directory = resolve(folder->path);
    nothing = resolve(NULL);
    found = esp_trust_system(path);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_false(file.ok || directory.ok || nothing.ok || found);
    assert_true(file.no_descriptor);
    assert_true(directory.no_descriptor);
    assert_true(nothing.no_descriptor);
    assert_true(nothing.message[0] != '\0');
    assert_true(resolve(folder->path).ok);
}

/* One descriptor opens the directory, and none is left for the file in it. */
static void
test_one_descriptor(void **state)
{
    struct folder *folder = *state;
    struct rlimit before;
    struct rlimit one;
    struct result result;
    int lowest = dup(0);

    assert_true(lowest >= 0);
    close(lowest);
    make_file(folder, HASHED);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    one = before;
    one.rlim_cur = (rlim_t)lowest + 1;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &one), 0);
    result = resolve(folder->path);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_false(result.ok);
    assert_true(result.no_descriptor);
}

static void *
resolve_in_thread(void *path)
{
    resolve(path);
    return NULL;
}

/* A pipe in the place of a bundle must not stop the call for ever. */
static void
test_pipe(void **state)
{
    struct folder *folder = *state;
    char path[320];
    pthread_t thread;
    struct timespec limit;
    int stuck;
    int fd;

    snprintf(path, sizeof path, "%s", inside(folder, "root.pem"));
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(pthread_create(&thread, NULL, resolve_in_thread, path),
                     0);
    clock_gettime(CLOCK_REALTIME, &limit);
    limit.tv_sec += 2;
    stuck = pthread_timedjoin_np(thread, NULL, &limit);
    if (stuck != 0) {
        fd = open(path, O_RDWR); /* a writer lets it go on */
        pthread_join(thread, NULL);
        close(fd);
    }
    assert_int_equal(stuck, 0);
}

/* A machine without roots: every place where they could lie is named. */
static void
test_no_system_store(void **state)
{
    static const char *const tried[] = {"/etc/ssl/certs",
                                        "/etc/pki/tls/certs",
                                        "/etc/ssl/certs/ca-certificates.crt",
                                        "/etc/ssl/cert.pem",
                                        "ca-certificates",
                                        "ca_file"};
    struct result result;
    char path[ESP_PATH_MAX + 1];
    size_t i;

    (void)state;
    hidden_errno = ENOENT;
    result = resolve(NULL);
    assert_false(esp_trust_system(path));
    hidden_errno = 0;
    assert_false(result.ok);
    assert_false(result.no_descriptor);
    for (i = 0; i < COUNT_OF(tried); i++)
        CHECK(tried[i], strstr(result.message, tried[i]) != NULL);
}

/* The reason is named, in words that no locale changes. */
static void
test_reasons(void **state)
{
    static const struct {
        int error;
        const char *words;
    } rows[] = {
        {ENOENT, "no such file"},
        {EACCES, "permission denied"},
        {EIO, "cannot be opened"},
    };
    struct result result;
    size_t i;

    (void)state;
    for (i = 0; i < COUNT_OF(rows); i++) {
        hidden_errno = rows[i].error;
        result = resolve("/etc/absent/roots.pem");
        hidden_errno = 0;
        CHECK(rows[i].words, !result.ok && !result.no_descriptor);
        CHECK(rows[i].words, strstr(result.message, rows[i].words) != NULL);
    }
}

static void
test_system(void **state)
{
    struct result result = resolve(NULL);
    char path[ESP_PATH_MAX + 1] = "";

    (void)state;
    assert_int_equal(esp_trust_system(path), result.ok);
    if (!result.ok) {
        assert_non_null(strstr(result.message, "/etc/ssl/certs"));
        assert_non_null(strstr(result.message, "ca-certificates"));
        return;
    }
    assert_true(exists(result.trust.file));
    assert_true(result.trust.directory[0] == '/');
    assert_true(exists(path));
    assert_true(resolve(path).ok);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_hashed_directory, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_unhashed_directory, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_empty_directory, setup, teardown),
        cmocka_unit_test_setup_teardown(test_dangling_link, setup, teardown),
        cmocka_unit_test_setup_teardown(test_missing, setup, teardown),
        cmocka_unit_test(test_empty_path),
        cmocka_unit_test_setup_teardown(test_file, setup, teardown),
        cmocka_unit_test_setup_teardown(test_unreadable_file, setup, teardown),
        cmocka_unit_test(test_longest_path),
        cmocka_unit_test_setup_teardown(test_no_descriptor, setup, teardown),
        cmocka_unit_test_setup_teardown(test_one_descriptor, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pipe, setup, teardown),
        cmocka_unit_test(test_no_system_store),
        cmocka_unit_test(test_reasons),
        cmocka_unit_test(test_system),
    };

    return cmocka_run_group_tests_name("trust", tests, NULL, NULL);
}
