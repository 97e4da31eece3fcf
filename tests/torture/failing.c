/* failing.c - see failing.h. */
#include "failing.h"

#include <cJSON.h>
#include <curl/curl.h>
#include <dlfcn.h>
#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__)
#define OURS(name) __wrap_##name
#define THEIRS(name) __real_##name
#else
#define OURS(name) name
#define THEIRS(name) __libc_##name
#endif

void *THEIRS(malloc)(size_t size);
void *THEIRS(calloc)(size_t count, size_t size);
void *THEIRS(realloc)(void *old, size_t size);
void THEIRS(free)(void *memory);

void *OURS(malloc)(size_t size);
void *OURS(calloc)(size_t count, size_t size);
void *OURS(realloc)(void *old, size_t size);
void OURS(free)(void *memory);

/* Neither fails nor keeps a record: in a child, which may have threads. */
static bool is_off;

/* This thread's do not fail for a moment. */
static _Thread_local bool is_spared;

/* ---- What is still there ------------------------------------------------ */

#define PATIENCE_MS 200 /* for a thread that nobody waits for */
#define BLOCKS_MAX 262144
#define BUCKETS 65536

/* Who asked for a block: a place in the code, or a line of OpenSSL. */
struct asker {
    const void *address;
    const char *file;
    int line;
};

struct block {
    const void *memory;
    size_t size;
    unsigned run; /* in which it was allocated */
    struct asker asker;
    struct block *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct block blocks[BLOCKS_MAX];
static struct block *buckets[BUCKETS];
static struct block *unused;
static size_t used;
static unsigned run;
static int alive;
static int alive_before; /* this run */

static struct block **
bucket_of(const void *memory)
{
    return &buckets[((uintptr_t)memory >> 4) % BUCKETS];
}

static void
record(void *memory, size_t size, struct asker asker)
{
    struct block **bucket = bucket_of(memory);
    struct block *block = unused;

    if (block != NULL)
        unused = block->next;
    else if (used < BLOCKS_MAX)
        block = &blocks[used++];
    else
        abort(); /* a record that is not whole proves nothing */
    *block = (struct block){memory, size, run, asker, *bucket};
    *bucket = block;
    alive++;
}

static void *
remember(void *memory, size_t size, struct asker asker)
{
    if (memory != NULL && !is_off) {
        pthread_mutex_lock(&lock);
        record(memory, size, asker);
        pthread_mutex_unlock(&lock);
    }
    return memory;
}

static void
strike_off(const void *memory)
{
    struct block **link = bucket_of(memory);
    struct block *block;

    while (*link != NULL && (*link)->memory != memory)
        link = &(*link)->next;
    block = *link;
    if (block == NULL)
        return;
    alive--;
    *link = block->next;
    block->memory = NULL;
    block->next = unused;
    unused = block;
}

/* A block that has moved.  In one step: what it leaves may be another's at once. */
static void *
move(void *old, size_t size, struct asker asker)
{
    void *memory;

    if (is_off)
        return THEIRS(realloc)(old, size);
    pthread_mutex_lock(&lock);
    memory = THEIRS(realloc)(old, size);
    if (memory != NULL) {
        strike_off(old);
        record(memory, size, asker);
    }
    pthread_mutex_unlock(&lock);
    return memory;
}

static void
forget(const void *memory)
{
    if (memory != NULL && !is_off) {
        pthread_mutex_lock(&lock);
        strike_off(memory);
        pthread_mutex_unlock(&lock);
    }
}

static void
name(const struct block *block)
{
    const struct asker *asker = &block->asker;
    Dl_info found;

    if (asker->file != NULL)
        printf("  %zu bytes: %s:%d\n", block->size, asker->file, asker->line);
    else if (dladdr(asker->address, &found) != 0)
        printf("  %zu bytes: %s+0x%tx (%s)\n", block->size, found.dli_fname,
               (const char *)asker->address - (const char *)found.dli_fbase,
               found.dli_sname == NULL ? "?" : found.dli_sname);
    else
        printf("  %zu bytes: %p\n", block->size, asker->address);
}

static int
grown(void)
{
    int more;

    pthread_mutex_lock(&lock);
    more = alive - alive_before;
    pthread_mutex_unlock(&lock);
    return more;
}

int
failing_grown(void)
{
    int waited;

    /* The errors that it keeps for its thread; else they change all the time. */
    OPENSSL_thread_stop();
    for (waited = 0; grown() > 0 && waited < PATIENCE_MS; waited++)
        usleep(1000);
    return grown();
}

void
failing_name_new(void)
{
    const struct block *block;

    for (block = blocks; block < blocks + used; block++) {
        if (block->memory != NULL && block->run == run)
            name(block);
    }
}

/* ---- What fails --------------------------------------------------------- */

static enum origin victim;
static int until; /* allocations of the victim to the failure; 0: off */
static bool fails_on;
static bool fails_all; /* from now on */
static bool was_refused;
static int counts[ORIGINS];

void
failing_begin(enum origin origin, int number, bool all)
{
    memset(counts, 0, sizeof counts);
    run++;
    alive_before = alive;
    victim = origin;
    until = number;
    fails_on = all;
    fails_all = false;
    was_refused = false;
}

bool
failing_end(void)
{
    until = 0;
    fails_all = false;
    return was_refused;
}

int
failing_count(enum origin origin)
{
    return counts[origin];
}

static bool
is_refused(enum origin origin)
{
    bool refused;

    if (is_off || is_spared)
        return false;
    pthread_mutex_lock(&lock);
    refused = fails_all;
    counts[origin]++;
    if (origin == victim && until > 0 && --until == 0) {
        refused = true;
        fails_all = fails_on;
    }
    was_refused = was_refused || refused;
    pthread_mutex_unlock(&lock);
    if (refused)
        errno = ENOMEM;
    return refused;
}

/* ---- Everybody but OpenSSL ---------------------------------------------- */

#define CALLER ((struct asker){.address = __builtin_return_address(0)})

void *
OURS(malloc)(size_t size)
{
    if (is_refused(FROM_ALL_BUT_TLS))
        return NULL;
    return remember(THEIRS(malloc)(size), size, CALLER);
}

void *
OURS(calloc)(size_t count, size_t size)
{
    if (is_refused(FROM_ALL_BUT_TLS))
        return NULL;
    return remember(THEIRS(calloc)(count, size), count * size, CALLER);
}

void *
OURS(realloc)(void *old, size_t size)
{
    if (is_refused(FROM_ALL_BUT_TLS))
        return NULL;
    return move(old, size, CALLER);
}

void
OURS(free)(void *memory)
{
    int kept = errno;

    forget(memory);
    THEIRS(free)(memory);
    errno = kept;
}

/* ---- OpenSSL ------------------------------------------------------------ */

static void *
tls_malloc(size_t size, const char *file, int line)
{
    if (is_refused(FROM_TLS))
        return NULL;
    return remember(THEIRS(malloc)(size), size,
                    (struct asker){NULL, file, line});
}

static void *
tls_realloc(void *old, size_t size, const char *file, int line)
{
    if (is_refused(FROM_TLS))
        return NULL;
    return move(old, size, (struct asker){NULL, file, line});
}

static void
tls_free(void *memory, const char *file, int line)
{
    (void)file;
    (void)line;
    OURS(free)(memory);
}

#ifdef ESP_PRIVATE_LIBRARIES
void __real_SSL_set_connect_state(SSL *ssl);
void __wrap_SSL_set_connect_state(SSL *ssl);

/* OpenSSL gives memory back here and takes as much again.  From 3.2 on it does
 * not look whether it got it, and the process ends in SSL_set0_rbio [3.5.7:
 * ssl_lib.c]; 3.0 takes none.  We cannot come between.  To happen, another
 * thread would have to take those very blocks in between, and nothing be left;
 * docs/reliability.md says so. */
void
__wrap_SSL_set_connect_state(SSL *ssl)
{
    is_spared = true;
    __real_SSL_set_connect_state(ssl);
    is_spared = false;
}
#endif

/* ---- Both --------------------------------------------------------------- */

#if defined(__SANITIZE_ADDRESS__)
static char *
copy_text(const char *text)
{
    size_t size = strlen(text) + 1;
    char *copy = OURS(malloc)(size);

    return copy == NULL ? NULL : memcpy(copy, text, size);
}

static bool
hook_libraries(void)
{
    cJSON_Hooks hooks = {.malloc_fn = OURS(malloc), .free_fn = OURS(free)};

    cJSON_InitHooks(&hooks);
    return curl_global_init_mem(CURL_GLOBAL_DEFAULT, OURS(malloc), OURS(free),
                                OURS(realloc), copy_text,
                                OURS(calloc)) == CURLE_OK;
}
#else
static bool
hook_libraries(void)
{
    return true;
}
#endif

static void
stay_off(void)
{
    is_off = true;
}

bool
failing_init(void)
{
    return pthread_atfork(NULL, NULL, stay_off) == 0 &&
           CRYPTO_set_mem_functions(tls_malloc, tls_realloc, tls_free) == 1 &&
           hook_libraries();
}
