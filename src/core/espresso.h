/* espresso.h - cancel all open orders of a symbol on DeltaDeFi, from C.
 *
 * The core of espresso: one authenticated HTTPS POST, carried out with a
 * deadline, with exact knowledge of what was sent, and with a verdict that
 * never says "cancelled" when the exchange did not.  It needs libcurl and
 * cJSON and knows nothing of Python.
 *
 * A whole program:
 *
 *     struct esp_error error;
 *     struct esp_group *group = esp_group_new();
 *     struct esp_settings settings = ESP_SETTINGS_DEFAULT;
 *     struct esp_pool *pool = esp_pool_new(group, &settings, &error);
 *     struct esp_cancel cancel = {.symbol = "ADAUSDM", .api_key = key,
 *                                 .timeout_ms = 10000,
 *                                 .connect_timeout_ms = 2000,
 *                                 .max_retries = 2};
 *     struct esp_outcome outcome;
 *     esp_cancel_all(pool, &cancel, &outcome);
 *     if (outcome.kind == ESP_OK) { ... }
 *     esp_outcome_free(&outcome);
 *     esp_pool_release(pool);
 *     esp_group_free(group);
 *
 * Threads: every function may be called from any thread at any time unless
 * its comment says otherwise.  Strings are UTF-8 with a final NUL.  Times are
 * milliseconds unless the name says otherwise.  Sources of facts: [spec] is
 * the exchange's published OpenAPI document, [field] was seen on the live
 * server. */
#ifndef ESPRESSO_H
#define ESPRESSO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cJSON;

#define ESP_MAINNET "https://api.deltadefi.io"         /* [spec] */
#define ESP_PREPROD "https://api-staging.deltadefi.io" /* [field] */

/* ---- Ceilings: every buffer is born with one, and all stand here -------- */

#define ESP_SYMBOL_MAX 64          /* bytes of a symbol */
#define ESP_KEY_MAX 256            /* bytes of an API key */
#define ESP_URL_MAX 2048           /* bytes of a base or proxy URL */
#define ESP_PATH_MAX 4096          /* bytes of a path of the trust store */
#define ESP_MESSAGE_MAX 2048       /* bytes of an error message: 512 chars */
#define ESP_BODY_KEPT_MAX 4096     /* bytes of a reply kept with an error */
#define ESP_BODY_MAX (1024 * 1024) /* bytes of a reply's body */
#define ESP_HEAD_MAX (256 * 1024)  /* bytes of a reply's head, 1xx included */
#define ESP_DEPTH_MAX 32           /* nesting of a reply's JSON */
#define ESP_IDLE_MAX 64            /* idle connections a pool keeps */
#define ESP_TIMEOUT_MAX_MS (24 * 60 * 60 * 1000) /* longest deadline */
#define ESP_RETRIES_MAX 1000                     /* most retries of a round */
#define ESP_SYMBOLS_MAX 100000                   /* symbols of one press */
#define ESP_ROUNDS_MAX 10000    /* rounds of a confirmed call */
#define ESP_RATE_CALLS 10       /* requests of one press that start ... */
#define ESP_RATE_WINDOW_MS 2001 /* ... within 2 s [field], rounded up */

/* ---- What became of a call ---------------------------------------------- */

/* What ended an attempt.  The list is closed: C knows kinds, the languages
 * above know exception classes. */
enum esp_kind {
    ESP_OK,           /* the exchange said yes */
    ESP_API,          /* the exchange said no, with a code */
    ESP_HTTP,         /* an error status without the API's code */
    ESP_TRANSPORT,    /* no complete answer: connection, TLS, proxy */
    ESP_TIMEOUT,      /* no complete answer in time */
    ESP_BAD_REPLY,    /* a complete answer, but not the promised one */
    ESP_STILL_OPEN,   /* confirm: orders still appeared at the deadline */
    ESP_BAD_ARGUMENT, /* a value the caller gave is not usable */
    ESP_INTERRUPTED,  /* the interrupt hook asked to stop */
    ESP_CLOSED,       /* the pool was closed before the call began, or its
                         group is drained: esp_pool_is_closed tells */
    ESP_NO_MEMORY,    /* an allocation of ours failed */
};

/* What the exchange may have got.  Ordered by what the caller must fear. */
enum esp_sent {
    ESP_NOT_SENT, /* no byte of the request left this machine */
    ESP_REJECTED, /* the exchange or its gateway refused: nothing cancelled,
                     but by earlier rounds of a confirmed call */
    ESP_UNKNOWN,  /* it may have been carried out, wholly or in part */
    ESP_DONE,     /* it was carried out */
};

/* Whether and when another attempt makes sense. */
enum esp_retry {
    ESP_RETRY_NEVER,
    ESP_RETRY_SOON,    /* the first at once, then with back-off */
    ESP_RETRY_BACKOFF, /* after 0.1, 0.2, 0.4 ... 2 s, with jitter */
    ESP_RETRY_AFTER,   /* after Retry-After, or else after 2 s */
};

/* Where the seconds of one attempt went; -1 where a phase was not reached. */
struct esp_timing {
    double dns_s;        /* start to name resolved */
    double connect_s;    /* start to TCP connected */
    double tls_s;        /* start to TLS finished */
    double first_byte_s; /* start to first byte of the answer */
    double total_s;      /* start to end */
    bool reused;         /* on a kept connection */
    char remote[64];     /* numeric address of the peer, or "" */
};

/* The verdict on one attempt, and, handed out by esp_cancel_all, on the whole
 * call.  Init with esp_outcome_init, end with esp_outcome_free; a freed one
 * may be freed again. */
struct esp_outcome {
    enum esp_kind kind;      /* what ended the last attempt */
    enum esp_sent sent;      /* what the last attempt did */
    enum esp_sent call_sent; /* the worst of all attempts of the call */
    enum esp_retry retry;    /* what the table of attempts says of `kind` */
    int http_status;         /* 0: none */
    int code;                /* the API's code, if has_code */
    bool has_code;
    bool certificate;   /* TRANSPORT: verification or the trust store */
    bool lost_reply;    /* OK after an attempt whose reply was lost */
    int curl_code;      /* CURLcode of the transfer, 0: none */
    int attempts;       /* attempts started, all of the call */
    int attempts_max;   /* attempts the caller allowed; 0: no fixed number */
    double elapsed_s;   /* of the whole call */
    double retry_after; /* seconds; negative: the server named none */
    struct esp_timing timing;
    struct cJSON *json;    /* OK: the reply, owned; NULL: a 4200 that counts */
    struct cJSON **rounds; /* confirm: replies of earlier rounds, owned */
    int round_count;
    size_t body_length; /* of `body`; 0 unless the attempt failed */
    char message[ESP_MESSAGE_MAX + 1];
    char body[ESP_BODY_KEPT_MAX + 1]; /* start of the reply, the key masked */
};

/* Make `outcome` empty: kind OK, nothing sent, no text.  Never fails. */
void esp_outcome_init(struct esp_outcome *outcome);

/* Free what `outcome` owns.  NULL is fine, twice is fine. */
void esp_outcome_free(struct esp_outcome *outcome);

/* Why an argument was refused. */
struct esp_error {
    enum esp_kind kind;                /* BAD_ARGUMENT or NO_MEMORY */
    char message[ESP_MESSAGE_MAX + 1]; /* never quotes a secret */
};

/* ---- The table of API codes --------------------------------------------- */

/* One row of codes.def. */
struct esp_code {
    int code;
    enum esp_sent sent;
    enum esp_retry retry;
    const char *class_name; /* of the exception, for the languages above */
    const char *meaning;
};

/* The table, sorted by code; *count is set.  Static storage. */
const struct esp_code *esp_codes(size_t *count);

/* ---- Checking what a user gave ------------------------------------------ */

/* The `length` bytes at `symbol` are 1 to 64 of A-Z a-z 0-9 . _ - .  False
 * fills `error`.  Never blocks. */
bool esp_symbol_check(const char *symbol, size_t length,
                      struct esp_error *error);

/* The `length` bytes at `key` are 1 to 256 of \x21-\x7e.  False fills
 * `error`, whose text never holds any of them.  Never blocks. */
bool esp_key_check(const char *key, size_t length, struct esp_error *error);

/* A base URL in its parts. */
struct esp_base_url {
    char url[ESP_URL_MAX + 1];  /* normalised, without a trailing slash */
    char host[ESP_URL_MAX + 1]; /* without port, IPv6 without brackets */
    char peer[ESP_URL_MAX + 1]; /* host, and the port where not the default */
    bool loopback;              /* localhost, 127.0.0.0/8 or ::1 */
    bool needs_dns;             /* neither an address nor localhost */
};

/* Take `text` apart: https, or http to loopback; no user, query, fragment,
 * zone, or numeric host in any but its usual form.  False fills `error`.
 * Never blocks, never looks up a name. */
bool esp_base_url_parse(const char *text, struct esp_base_url *url,
                        struct esp_error *error);

/* The proxy URL `text` is one libcurl can use.  False fills `error`, which
 * never quotes the text: it may hold a password.  Never blocks. */
bool esp_proxy_check(const char *text, struct esp_error *error);

/* Seconds to milliseconds, rounded up: a positive finite number of at most
 * 24 h.  -1 if it is not. */
int64_t esp_timeout_ms(double seconds);

/* ---- Pools -------------------------------------------------------------- */

/* How many forks lie between this process and the first that had a group, as a
 * handler counts them: a bare clone is none.  Takes no system call. */
unsigned esp_forks(void);

/* All pools of one interpreter (or of one C program), so that its end can
 * wait for their calls. */
struct esp_group;

/* NULL when out of memory. */
struct esp_group *esp_group_new(void);

/* Give `group` back; the last of its pools to go frees it.  NULL is fine. */
void esp_group_free(struct esp_group *group);

/* End the calls of other threads and refuse new ones of theirs; wait until
 * they have left, at most `wait_ms`.  Calls of the calling thread still go
 * through, so that an exit handler can press the button.  Blocks; true if
 * every call has left. */
bool esp_group_drain(struct esp_group *group, int wait_ms);

/* The settings of a pool; strings are copied.  NULL means "none". */
struct esp_settings {
    const char *base_url; /* see esp_base_url_parse */
    const char *proxy;    /* URL, credentials allowed */
    const char *no_proxy; /* hosts that go without, as NO_PROXY has them */
    const char *ca_path;  /* file or hashed directory; NULL: the system's */
    const char *user_agent;
};

#define ESP_SETTINGS_DEFAULT                                                  \
    {.base_url = ESP_MAINNET, .user_agent = "espresso-core"}

struct esp_pool;

/* A pool of warm connections to one host, holding one reference for the
 * caller.  Opens no socket and reads no file.  NULL fills `error`. */
struct esp_pool *esp_pool_new(struct esp_group *group,
                              const struct esp_settings *settings,
                              struct esp_error *error);

/* Refuse new calls and end those in flight; wait until the ones of other
 * threads have left, at most `wait_ms`, then close the idle connections.
 * Idempotent.  Blocks. */
void esp_pool_close(struct esp_pool *pool, int wait_ms);

/* Give back the reference of esp_pool_new.  Calls in flight keep the pool
 * alive; the last user frees it.  NULL is fine.  Does not block. */
void esp_pool_release(struct esp_pool *pool);

/* Whether esp_pool_close was called. */
bool esp_pool_is_closed(struct esp_pool *pool);

/* The base URL a pool was made for.  Lives as long as the pool. */
const struct esp_base_url *esp_pool_base_url(const struct esp_pool *pool);

/* Whether a file or hashed directory of roots was found on this system, and
 * which.  `path` holds at least ESP_PATH_MAX + 1 bytes.  Reads directories. */
bool esp_trust_system(char *path);

/* ---- Calls -------------------------------------------------------------- */

/* One attempt that has just ended, as shown to on_attempt. */
struct esp_attempt {
    const char *symbol;
    int number;                        /* from 1 */
    const struct esp_outcome *outcome; /* of this attempt */
    int64_t next_in_ms;                /* to the retry; -1: none follows */
    bool lost_reply;                   /* the call succeeds, a reply is lost */
};

/* What the caller of a blocking call is asked in the middle of it.  Both run
 * on the calling thread, outside of libcurl and of every lock, and may press
 * the button themselves.  Nonzero ends the call with ESP_INTERRUPTED. */
struct esp_hooks {
    int (*interrupted)(void *user); /* at EINTR, and every 50 ms if poll */
    int (*on_attempt)(void *user, const struct esp_attempt *attempt);
    void *user;
    bool poll; /* a signal may be meant for this thread: look every 50 ms */
};

/* One press of the button.  The strings must outlive it; the key is copied
 * into memory that is wiped. */
struct esp_cancel {
    const char *symbol; /* of esp_cancel_all; a list has its own */
    const char *api_key;
    bool missing_ok;            /* a 4200 is a success */
    bool confirm;               /* again until a 4200, which is a success */
    int64_t timeout_ms;         /* the whole press, 1 .. ESP_TIMEOUT_MAX_MS */
    int64_t attempt_timeout_ms; /* 0: 0.4 of the timeout for the first */
    int64_t connect_timeout_ms; /* DNS, TCP, proxy and TLS of an attempt */
    int max_retries;            /* of each round, 0 .. ESP_RETRIES_MAX */
    struct esp_hooks hooks;
};

/* POST /order/cancel-all for one symbol [spec], with the attempts that the
 * policy allows, and fill `outcome` (initialised here, freed by the caller).
 * Blocks, at most `timeout_ms`.  One attempt is one POST. */
void esp_cancel_all(struct esp_pool *pool, const struct esp_cancel *cancel,
                    struct esp_outcome *outcome);

/* Open a connection that the next call finds warm: DNS, TCP, TLS and one HEAD
 * of the base path without the key (libcurl keeps no connection that carried
 * no request).  Any complete answer will do.  Uses timeout_ms,
 * connect_timeout_ms and hooks of `cancel`; outcome.elapsed_s is the time it
 * took.  Blocks, at most `timeout_ms`. */
void esp_warm_up(struct esp_pool *pool, const struct esp_cancel *cancel,
                 struct esp_outcome *outcome);

/* ---- Several symbols at once -------------------------------------------- */

/* One press of the button: a call for each symbol, all at once, a connection
 * each, under one deadline.  At most ESP_RATE_CALLS requests start within
 * ESP_RATE_WINDOW_MS, repeats included: what the exchange grants an account
 * [field].  Each symbol is tried once before one is tried again. */
struct esp_press;

/* Cancel the orders of `count` symbols, all different, and return when every
 * one of them has its outcome.  NULL: it could not begin, and `refused`
 * (initialised here) says why: BAD_ARGUMENT, CLOSED or NO_MEMORY.  Blocks, at
 * most `timeout_ms`.  The strings must outlive the press. */
struct esp_press *esp_cancel_list(struct esp_pool *pool,
                                  const struct esp_cancel *cancel,
                                  const char *const *symbols, size_t count,
                                  struct esp_outcome *refused);

/* The outcome of symbol `index` of a press that is done.  Lives as long as
 * the press. */
const struct esp_outcome *esp_press_outcome(const struct esp_press *press,
                                            size_t index);

/* Free `press`, interrupting it if it still runs.  NULL is fine. */
void esp_press_free(struct esp_press *press);

/* ---- The same, driven by somebody else's event loop --------------------- */

/* What one event loop and one pool have together: the presses that the loop
 * drives, and the connections that it watches, also while they are idle.  All
 * functions of a watcher and of its presses belong to the thread that runs the
 * loop.  None blocks. */
struct esp_watcher;

/* NULL when out of memory.  Keeps the pool alive. */
struct esp_watcher *esp_watcher_new(struct esp_pool *pool);

/* The loop is closed and watches nothing any more: the idle connections go to
 * whoever calls next. */
void esp_watcher_retire(struct esp_watcher *watcher);

/* The same, and give the watcher back; its presses must have been freed.  NULL
 * is fine. */
void esp_watcher_free(struct esp_watcher *watcher);

/* Begin a press, and a warm-up; NULL as for esp_cancel_list.  `user`, which is
 * not NULL, comes back from esp_watcher_next_done.  hooks.interrupted is not used. */
struct esp_press *esp_watcher_cancel(struct esp_watcher *watcher,
                                     const struct esp_cancel *cancel,
                                     const char *const *symbols, size_t count,
                                     void *user, struct esp_outcome *refused);
struct esp_press *esp_watcher_warm_up(struct esp_watcher *watcher,
                                      const struct esp_cancel *cancel,
                                      void *user, struct esp_outcome *refused);

/* What the loop is to do with one descriptor, in the order of the members. */
struct esp_change {
    int fd;
    bool remove_reader;
    bool remove_writer;
    bool close; /* close(2) it, before anything else is done */
    bool add_reader;
    bool add_writer;
};

/* The next change to carry out; false: none is left.  Ask after each of the
 * functions above and below. */
bool esp_watcher_next_change(struct esp_watcher *watcher,
                             struct esp_change *change);

/* `fd` became readable or writable. */
void esp_watcher_on_socket(struct esp_watcher *watcher, int fd, bool readable,
                           bool writable);

/* Milliseconds until esp_watcher_on_timer must be called, 0: now; -1: no need.
 * A call that comes earlier is harmless. */
int64_t esp_watcher_timer_ms(const struct esp_watcher *watcher);

/* Milliseconds of the clock that all times of the core are of: it never
 * jumps. */
int64_t esp_clock_ms(void);

void esp_watcher_on_timer(struct esp_watcher *watcher);

/* The descriptor that becomes readable, for good, when the pool is closed; -1:
 * there is none.  Then call esp_watcher_on_wake: it ends the presses and drops
 * the idle connections. */
int esp_watcher_wake_fd(struct esp_watcher *watcher);
void esp_watcher_on_wake(struct esp_watcher *watcher);

/* The `user` of a press that has ended, each once; NULL: none. */
void *esp_watcher_next_done(struct esp_watcher *watcher);

/* The `user` of any press that is under way; NULL: none. */
void *esp_watcher_first(struct esp_watcher *watcher);

/* End a press now: its connections are closed, its outcomes say INTERRUPTED
 * and what was sent.  Does nothing on one that is done.  Not in a hook. */
void esp_press_interrupt(struct esp_press *press);

/* Whether every symbol has its outcome. */
bool esp_press_is_done(const struct esp_press *press);

/* ---- Versions ----------------------------------------------------------- */

/* libcurl is new enough (7.87); false fills `error`. */
bool esp_libcurl_check(struct esp_error *error);

/* The libcurl, TLS library and cJSON in use, e.g. "7.88.1".  Static. */
const char *esp_version_libcurl(void);
const char *esp_version_tls(void);
const char *esp_version_cjson(void);

/* SSLKEYLOGFILE is set, or was when libcurl was initialised: then libcurl
 * writes the secrets of every session to that file.  Source: libcurl's
 * list of environment variables.  Always false where
 * libcurl was built without it. */
bool esp_keylog_is_on(void);

#endif
