/* trust.c - which roots are trusted, decided by us and never by a default
 * that was compiled into libcurl.
 *
 * A hashed directory (what `openssl rehash` makes: 8 hex digits, a dot, a
 * number) comes before a bundle: OpenSSL then reads the one root it needs
 * instead of all 145, which is 20 to 30 ms less on the first call. */
#include "core.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The usual places of Debian, Fedora, SUSE, Alpine, FreeBSD and macOS.  Not
 * Android's: its names are hashed in a way that OpenSSL no longer looks up. */
static const char *const system_directories[] = {
    "/etc/ssl/certs",
    "/etc/pki/tls/certs",
    "/etc/pki/ca-trust/extracted/pem/directory-hash",
};
static const char *const system_files[] = {
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/usr/local/share/certs/ca-root-nss.crt",
};
#define COUNT(array) (sizeof(array) / sizeof *(array))

/* `3513523f.0`, but not a revocation list, `3513523f.r0`. */
static bool
is_hashed_name(const char *name)
{
    size_t digits;

    if (strspn(name, "0123456789abcdef") != 8 || name[8] != '.')
        return false;
    digits = strspn(name + 9, "0123456789");
    return digits > 0 && name[9 + digits] == '\0';
}

/* 0, or the errno of opening `path` for reading. */
static int
open_error(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return errno;
    close(fd);
    return 0;
}

/* Use `path` as a hashed directory: CAINFO is any one file of it, because an
 * unset CAINFO would bring libcurl's own default back.  0 or an errno;
 * ENOENT: nothing in it has a hashed name. */
static int
use_directory(const char *path, struct esp_trust *trust)
{
    DIR *directory = opendir(path);
    const struct dirent *entry;
    int error = ENOENT;

    if (directory == NULL)
        return errno;
    /* cppcheck-suppress readdirCalled ; a stream of our own: no other thread
     * reads it.  NOLINTNEXTLINE(concurrency-mt-unsafe) */
    while (error != 0 && (entry = readdir(directory)) != NULL) {
        if (!is_hashed_name(entry->d_name))
            continue;
        snprintf(trust->file, sizeof trust->file, "%s/%s", path,
                 entry->d_name);
        error = open_error(trust->file);
        if (error == EMFILE || error == ENFILE)
            break;
    }
    closedir(directory);
    snprintf(trust->directory, sizeof trust->directory, "%s", path);
    return error;
}

/* Use `path` as a bundle: CAPATH is a name below a file, which no directory
 * can ever have. */
static int
use_file(const char *path, struct esp_trust *trust)
{
    struct stat status;

    snprintf(trust->file, sizeof trust->file, "%s", path);
    snprintf(trust->directory, sizeof trust->directory, "%s/none", path);
    if (stat(path, &status) == 0 && !S_ISREG(status.st_mode))
        return EINVAL; /* opening a pipe would wait for its writer */
    return open_error(path);
}

static bool
is_directory(const char *path)
{
    struct stat status;

    return stat(path, &status) == 0 && S_ISDIR(status.st_mode);
}

/* The errors that opening a file or directory can have; strerror is not safe
 * where other threads run, and strerror_r differs between libcs. */
static const char *
describe_errno(int error)
{
    switch (error) {
    case ENOENT:
    case ENOTDIR:
        return "no such file";
    case EACCES:
    case EPERM:
        return "permission denied";
    case EMFILE:
    case ENFILE:
        return "too many open files";
    default:
        return "it cannot be opened";
    }
}

static bool
is_descriptor_error(int error)
{
    return error == EMFILE || error == ENFILE;
}

static bool
use_named(const char *path, struct esp_trust *trust, char *message,
          size_t size, bool *no_descriptor)
{
    bool directory = is_directory(path);
    int error = directory ? use_directory(path, trust) : use_file(path, trust);

    *no_descriptor = is_descriptor_error(error);
    if (error == ENOENT && directory)
        snprintf(message, size,
                 "trust store %s holds no hashed certificate "
                 "(run: openssl rehash %s)",
                 path, path);
    else if (error != 0)
        snprintf(message, size, "trust store %s cannot be read: %s", path,
                 describe_errno(error));
    return error == 0;
}

/* Without a free descriptor we cannot know what there is: stop then. */
static bool
use_system(struct esp_trust *trust, int *error)
{
    size_t i;

    for (i = 0; i < COUNT(system_directories); i++) {
        *error = use_directory(system_directories[i], trust);
        if (*error == 0 || is_descriptor_error(*error))
            return *error == 0;
    }
    for (i = 0; i < COUNT(system_files); i++) {
        *error = use_file(system_files[i], trust);
        if (*error == 0 || is_descriptor_error(*error))
            return *error == 0;
    }
    return false;
}

/* Say where we looked, so that the user can put the roots there. */
static void
list_tried(char *message, size_t size)
{
    size_t used;
    size_t i;

    snprintf(message, size, "no trust store found; tried");
    for (i = 0; i < COUNT(system_directories); i++) {
        used = strlen(message);
        snprintf(message + used, size - used, " %s,", system_directories[i]);
    }
    for (i = 0; i < COUNT(system_files); i++) {
        used = strlen(message);
        snprintf(message + used, size - used, " %s,", system_files[i]);
    }
    used = strlen(message);
    snprintf(message + used, size - used,
             " certifi; install ca-certificates or name one in ca_file");
}

bool
trust_resolve(const char *path, struct esp_trust *trust, char *message,
              size_t size, bool *no_descriptor)
{
    int error = 0;

    *no_descriptor = false;
    if (path != NULL)
        return use_named(path, trust, message, size, no_descriptor);
    if (use_system(trust, &error))
        return true;
    *no_descriptor = is_descriptor_error(error);
    if (*no_descriptor)
        snprintf(message, size,
                 "no file descriptor is free to read the "
                 "trust store");
    else
        list_tried(message, size);
    return false;
}

bool
esp_trust_system(char *path)
{
    struct esp_trust trust;
    int error;
    bool found = use_system(&trust, &error);

    if (found)
        snprintf(path, ESP_PATH_MAX + 1, "%.*s", ESP_PATH_MAX,
                 is_directory(trust.directory) ? trust.directory : trust.file);
    return found;
}
