/* core.h - what the files of the core share; private.
 *
 * Order of locks: that of what lanes share (shared.h), registry (group.c), then
 * pools, then parse (json.c), look-ups (lookups.c), libcurl (libcurl.c) and what
 * libcurl locks (shared.c).  But for the last two, the first of which readers
 * share, none is held during a transfer, and none at all while a hook runs. */
#ifndef ESP_CORE_H
#define ESP_CORE_H

#include "espresso.h"

#include <cJSON.h>
#include <curl/curl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/types.h>
#include <time.h>

/* ---- More ceilings ------------------------------------------------------ */

#define ESP_MEMBERS_MAX 256         /* members of a reply's top-level object */
#define ESP_RETRY_AFTER_MAX 64      /* bytes of a Retry-After value */
#define ESP_SOCKETS_MAX 8           /* sockets a lane may have open at once */
#define ESP_WATCHES_MAX 16          /* sockets a lane may wait for at once */
#define ESP_DESCRIPTORS_MAX 1048576 /* highest descriptor a loop may watch */
#define ESP_BUFFER_KEPT_MAX 8192    /* bytes a lane keeps between its calls */
#define ESP_NAMES_AGE_S 60L         /* a found address is used until then */
#define ESP_LOOKUPS_MAX 8           /* name look-ups abandoned in ... */
#define ESP_LOOKUPS_WINDOW_MS 60000 /* ... this time, then fail at once */
#define ESP_IDLE_AGE_MS 110000      /* an idle connection is used until then */
#define ESP_LIFETIME_MS 3600000     /* the certificate is checked anew then */
#define ESP_SHARE_AGE_MS (ESP_LIFETIME_MS / 2) /* then new lanes get another */
#define ESP_SLICE_MS 50 /* between two looks for a signal */

/* ---- Clocks (clock.c) --------------------------------------------------- */

/* Milliseconds of a clock that also runs while the machine sleeps: for the
 * age of a connection.  For deadlines there is esp_clock_ms. */
int64_t clock_boot_ms(void);

/* ---- Text (text.c) ------------------------------------------------------ */

/* Set `error` to BAD_ARGUMENT with the formatted text; always false. */
bool error_set(struct esp_error *error, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Set `error` to NO_MEMORY; always false. */
bool error_set_no_memory(struct esp_error *error);

/* Copy at most `size` - 1 bytes of `text` into `out`, end it with a NUL, and
 * put stars for each occurrence of `secret` (NULL: none), as it is or escaped
 * as in JSON, also one that the cut would leave half.  Returns the bytes written. */
size_t text_copy_masked(char *out, size_t size, const char *text,
                        size_t length, const char *secret);

/* Overwrite `length` bytes so that no compiler can leave it out. */
void text_wipe(void *secret, size_t length);

/* Make A-Z of `text` small, in any locale. */
void text_lower(char *text);

/* Whether two strings are the same but for ASCII case, in any locale. */
bool text_same_ignoring_case(const char *one, const char *other);

/* ---- Buffer (buffer.c) -------------------------------------------------- */

/* Bytes that grow up to a ceiling; data[length] is always a NUL. */
struct esp_buffer {
    char *data;
    size_t length;
    size_t capacity; /* allocated bytes, the NUL included */
    size_t ceiling;  /* most bytes, without the NUL */
};

enum buffer_result { BUFFER_OK, BUFFER_TOO_LARGE, BUFFER_NO_MEMORY };

void buffer_init(struct esp_buffer *buffer, size_t ceiling);
enum buffer_result buffer_append(struct esp_buffer *buffer, const char *bytes,
                                 size_t length);
/* Forget the content; give memory beyond `kept` bytes back. */
void buffer_reset(struct esp_buffer *buffer, size_t kept);
void buffer_free(struct esp_buffer *buffer);

/* ---- Strict JSON (json.c) ----------------------------------------------- */

enum json_result {
    JSON_OK,
    JSON_REFUSED,   /* not strict JSON, or beyond a ceiling */
    JSON_TWICE,     /* a member of the top-level object stands twice */
    JSON_NO_MEMORY, /* *root is NULL, as for every failure */
};

/* Parse one document that fills all `length` bytes (data[length] must be a
 * NUL).  Refuses whatever Python's json refuses, and more: \u0000, lone
 * surrogates, depth over ESP_DEPTH_MAX, numbers of over 63 bytes, duplicate
 * members at the top.  *is_exact: every number is one that a double holds.
 * *root is the caller's: json_free, for no part of it cJSON_Delete. */
enum json_result json_parse(const char *data, size_t length, cJSON **root,
                            bool *is_exact);

/* Takes NULL.  Any thread. */
void json_free(cJSON *root);

/* The scan alone: whether the bytes are one such document. */
bool json_scan(const char *data, size_t length, bool *is_exact);

void json_lock_prepare_fork(void);
void json_lock_after_fork(bool in_child);

/* ---- The memory of a parsed reply (arena.c) ----------------------------- */

/* Let cJSON take its memory from arenas, all over the process.  Once, before
 * the first arena_parse; no other use of cJSON is possible after it. */
void arena_init(void);

/* cJSON_ParseWithLengthOpts, the whole of `size` bytes, the last of them a
 * NUL.  One thread at a time.  NULL: not what cJSON reads, or no memory. */
cJSON *arena_parse(const char *data, size_t size);

/* The root with all that is below it.  Takes NULL.  Any thread. */
void arena_free(cJSON *root);

/* ---- Trust store (trust.c) ---------------------------------------------- */

/* What libcurl is told; both are always set, so that nothing that was
 * compiled into libcurl or OpenSSL is trusted beside it. */
struct esp_trust {
    char file[ESP_PATH_MAX + 300];    /* CAINFO */
    char directory[ESP_PATH_MAX + 8]; /* CAPATH; may not exist */
};

/* Find the roots at `path` (a file or a hashed directory), or, if NULL, the
 * system's.  False fills `message`; *no_descriptor tells that only a file
 * descriptor was missing. */
bool trust_resolve(const char *path, struct esp_trust *trust, char *message,
                   size_t size, bool *no_descriptor);

/* ---- Request (request.c) ------------------------------------------------ */

/* What one transfer asks for.  A NULL symbol is a warm-up: HEAD, no key. */
struct esp_request {
    const char *symbol;
    const char *api_key;
    int64_t timeout_ms;
    int64_t connect_timeout_ms;
};

/* What an easy handle was last told to ask. */
enum request_asked { ASKED_NOTHING, ASKED_CANCEL, ASKED_WARM_UP };

/* The memory that libcurl reads a request from; one for each easy handle. */
struct esp_request_text {
    enum request_asked asked;
    char key_line[sizeof "X-API-KEY: " + ESP_KEY_MAX];
    char body[sizeof "{\"symbol\":\"\"}" + ESP_SYMBOL_MAX];
    struct curl_slist headers[3]; /* our own nodes: libcurl only reads them */
    CURLU *url; /* the endpoint's parts; NULL: not made yet */
};

/* Set one option of the local `easy`, unless an earlier one failed; the code
 * stays in the local `code`.  An option that was not taken could mean no
 * time-out, or no verification. */
#define SET(option, value)                                                    \
    do {                                                                      \
        if (code == CURLE_OK)                                                 \
            code = curl_easy_setopt(easy, option, value);                     \
    } while (0)

/* Where requests go: the parts of a pool's settings that libcurl gets. */
struct esp_target {
    struct esp_base_url base;
    bool uses_tls; /* else http, which is for loopback only */
    char endpoint[ESP_URL_MAX + 32];
    char *proxy; /* without credentials; NULL: none */
    char *proxy_user;
    char *proxy_password;
    char *no_proxy;
    char *ca_path;
    char *user_agent;
};

bool target_init(struct esp_target *target,
                 const struct esp_settings *settings, struct esp_error *error);
void target_free(struct esp_target *target);

/* Set what stays the same for all requests of a lane. */
CURLcode request_prepare_connection(CURL *easy,
                                    const struct esp_target *target,
                                    const struct esp_trust *trust);

/* Set what this request is; what the handle was told before is not told again.
 * `text` must live as long as the handle, and belongs to no other. */
CURLcode request_prepare(CURL *easy, const struct esp_target *target,
                         const struct esp_request *request,
                         struct esp_request_text *text);

/* Wipe the key from `text`. */
void request_wipe(struct esp_request_text *text);

/* Free what `text` owns; no easy handle may use it any more. */
void request_free(struct esp_request_text *text);

/* ---- Response (response.c) ---------------------------------------------- */

/* All that one transfer brought; what response_decode judges. */
struct esp_response {
    CURLcode curl_code;
    bool left;           /* bytes of the request may have left */
    bool resend_refused; /* libcurl wanted to send a second time */
    bool head_complete;  /* the empty line after the last head came */
    bool head_too_large;
    bool body_too_large;
    bool no_memory;     /* an allocation failed, and we saw it */
    bool no_descriptor; /* want of one, not of trust, ended the attempt */
    bool trust_failed;  /* no usable trust store: nothing was tried */
    int http_status;
    int framing_headers; /* Content-Length and Transfer-Encoding lines */
    bool framing_is_odd; /* ... with a value that is no plain length */
    bool status_is_odd;  /* a head that is not one of HTTP/1 */
    char retry_after[ESP_RETRY_AFTER_MAX + 1]; /* value, "" if none came */
    char detail[ESP_PATH_MAX + 512];           /* libcurl's words or ours */
    struct esp_buffer body;
};

void response_reset(struct esp_response *response);

/* Judge `response` to a cancel of `symbol` at the wall-clock time `now`, into
 * an initialised `outcome`.  Pure: no network, no clock.  `secret` is masked
 * in all text. */
void response_decode(const struct esp_response *response, const char *symbol,
                     const char *secret, time_t now,
                     struct esp_outcome *outcome);

/* The same for a warm-up: any complete answer will do. */
void response_decode_warm_up(const struct esp_response *response,
                             struct esp_outcome *outcome);

/* Whether the connection may serve another call after this. */
bool response_leaves_connection_clean(const struct esp_response *response,
                                      const struct esp_outcome *outcome);

/* ---- Reply (reply.c), a part of the response ---------------------------- */

/* What the parts of the judgement know. */
struct judge {
    const struct esp_response *response;
    const char *symbol;
    const char *secret;
    time_t now;
    struct esp_outcome *outcome;
};

void judge_say(struct judge *judge, const char *text);
void judge_verdict(struct judge *judge, enum esp_kind kind, enum esp_sent sent,
                   enum esp_retry retry);

/* BAD_REPLY, unknown, not to be tried again. */
void judge_bad_reply(struct judge *judge, const char *why);

/* Judge the body of a whole answer; a success keeps the parsed reply. */
void judge_body(struct judge *judge);

/* ---- Outcome (outcome.c) ------------------------------------------------ */

/* Free the replies that a confirmed call has collected; NULL is fine. */
void outcome_free_rounds(struct cJSON **rounds, int count);

/* ---- Policy (policy.c) -------------------------------------------------- */

/* What the policy looks at after an attempt. */
struct esp_policy {
    int attempts;         /* ended so far */
    int attempts_max;     /* allowed */
    int64_t remaining_ms; /* until the deadline */
    int64_t connect_ms;   /* of the pool's last new connection */
    uint32_t random;      /* any number: the jitter */
};

/* Milliseconds after which to try again, or -1: the call has ended.  Pure. */
int64_t policy_next(const struct esp_outcome *outcome,
                    const struct esp_policy *policy);

/* Milliseconds of the deadline that an attempt needs to be worth starting,
 * where the last new connection took `connect_ms`.  Pure. */
int64_t policy_least_ms(int64_t connect_ms);

/* Milliseconds that attempt `number` (from 1) may take.  Pure. */
int64_t policy_attempt_ms(int number, int64_t attempt_timeout_ms,
                          int64_t timeout_ms, int64_t remaining_ms);

/* ---- Abandoned name look-ups (lookups.c) -------------------------------- */

/* Whether ESP_LOOKUPS_MAX of this process were abandoned within the window:
 * then another one is not worth its thread. */
bool lookups_exhausted(void);
void lookups_note_abandoned(void);

/* Whether a thread can be started for one. */
bool lookups_have_thread(void);

void lookups_prepare_fork(void);
void lookups_after_fork(bool in_child);

/* ---- libcurl (libcurl.c) ------------------------------------------------ */

/* Initialise libcurl, once a process; false: it cannot be. */
bool libcurl_init(void);

/* Around every piece of libcurl that may take a lock of libcurl or of the TLS
 * library: a fork waits until no thread is inside, or the child would hang on
 * a lock whose owner it does not have.  Not recursive. */
void libcurl_enter(void);
void libcurl_leave(void);

void libcurl_gate_init(void);
void libcurl_prepare_fork(void);
void libcurl_after_fork(bool in_child);

/* ---- Lane (lane.c) ------------------------------------------------------ */

/* A socket that a lane waits for. */
struct esp_watch {
    int fd;
    bool read;
    bool write;
};

/* One curl_multi, one easy handle and at most one connection, owned by one
 * call at a time. */
struct esp_lane {
    struct esp_lane *next;       /* in the pool's list of idle lanes */
    struct esp_call *call;       /* that owns it; NULL: idle */
    struct esp_watcher *watcher; /* of the loop that watches its sockets, also
                                    while it is idle; NULL: none does */
    struct esp_shared *shared;   /* of the pool, or NULL */
    struct esp_share *share;     /* that `easy` has, or NULL */
    CURLM *multi;
    CURL *easy;
    struct esp_request_text text;
    struct esp_watch watches[ESP_WATCHES_MAX];
    size_t watch_count;
    int64_t timer_at;             /* when libcurl wants a turn; -1: no wish */
    int sockets[ESP_SOCKETS_MAX]; /* our own record of what is open */
    int socket_count;
    int64_t verified_at; /* clock_boot_ms: the certificate, at the earliest */
    int64_t used_at;     /* clock_boot_ms */
    int64_t left_at;     /* esp_clock_ms: the request of this transfer left */
    bool running;        /* a transfer is under way */
    bool abandoned;      /* belongs to the parent of a fork */
    bool needs_dns;      /* this transfer may look up a name */
    int sockets_opened;  /* by this transfer */
    int prereq_calls;    /* in this transfer */
    bool found_stale;    /* the kept connection was dead: nothing was sent */
    size_t head_length;  /* of this transfer, all heads together */
    char error_text[CURL_ERROR_SIZE];
    struct esp_timing timing;
    struct esp_response response;
};

/* `shared` must outlive it; NULL: it shares nothing. */
struct esp_lane *lane_new(struct esp_shared *shared);

/* Begin a transfer.  False: it ended before it began, see lane->response. */
bool lane_start(struct esp_lane *lane, const struct esp_target *target,
                const struct esp_request *request);

/* Give libcurl a turn for `fd` or for its timer.  True: the transfer has
 * ended, lane->response and lane->timing are filled. */
bool lane_on_socket(struct esp_lane *lane, int fd, bool readable,
                    bool writable);
bool lane_on_timer(struct esp_lane *lane);

/* End the transfer with `curl_code` and close the connection. */
void lane_abort(struct esp_lane *lane, CURLcode curl_code, const char *why);

/* Close the connection, keep the lane. */
void lane_close(struct esp_lane *lane);

/* In the child of a fork: close the descriptors, tell the peer nothing, and
 * never touch the handles again. */
void lane_abandon(struct esp_lane *lane);

/* Close and free; NULL is fine. */
void lane_free(struct esp_lane *lane);

/* Whether the transfer under way is still looking up the name. */
bool lane_looks_up(const struct esp_lane *lane);

/* ---- The TLS library under libcurl (tls.c) ------------------------------ */

/* Find what the others need; once a process. */
void tls_init(void);

/* Whether tls_holds_plaintext can tell.  Where it cannot, a connection must
 * not carry a second request. */
bool tls_can_look(void);

/* Whether bytes of the peer lie decrypted, or still to be decrypted, inside
 * the TLS library, where no poll(2) sees them.  Only in a callback of a
 * transfer that has its connection. */
bool tls_holds_plaintext(CURL *easy);

/* Whether nobody has verified the peer's certificate, although libcurl goes on:
 * memory was short.  When and where as above; false also where the TLS library
 * is not OpenSSL. */
bool tls_is_unverified(CURL *easy);

/* ---- Callbacks (callbacks.c) -------------------------------------------- */

/* Give libcurl the callbacks of `lane`. */
bool callbacks_set_multi(struct esp_lane *lane);
CURLcode callbacks_set_easy(struct esp_lane *lane);

/* All handles of the lane are gone, and with them its sockets: also those that
 * libcurl has closed without a word. */
void callbacks_forget_sockets(struct esp_lane *lane);

/* Whether `fd` is one of the sockets that we opened for the lane. */
bool lane_has_socket(const struct esp_lane *lane, int fd);

/* From now on `watcher` (NULL: nobody) watches the lane: its connection, too,
 * which may answer so fast that libcurl never asks for that.  Without memory
 * the end of that connection is found by its next use. */
void lane_watch(struct esp_lane *lane, struct esp_watcher *watcher);

/* Something lies on the idle connection: its end, or bytes that nobody asked
 * for.  Either way it must not carry another request. */
bool lane_is_readable(const struct esp_lane *lane);

/* ---- Pool (pool.c) ------------------------------------------------------ */

/* A call that is in flight, as its pool knows it. */
struct pool_entry {
    struct pool_entry *next;
    struct pool_entry **link; /* what points to this one; NULL: not in */
    pthread_t thread;
    struct esp_lane *lane; /* NULL: none taken yet */
    bool is_looped;        /* driven by a loop: nobody waits for its end */
};

struct esp_group {
    atomic_int references; /* the owner's, and one of each pool */
    struct esp_group *next;
    struct esp_pool *pools;
    bool draining;
    pthread_t drain_thread;
};

struct esp_pool {
    atomic_int references;
    struct esp_group *group;
    struct esp_pool *next; /* in the group */
    struct esp_target target;
    atomic_int connect_ms; /* of the last new connection */
    atomic_bool closed;
    atomic_bool draining; /* only drain_thread may still call */
    pthread_t drain_thread;
    pthread_mutex_t lock; /* guards what follows */
    pid_t pid;
    atomic_uint forks; /* how often a fork has left this pool's calls behind */
    int wake[2];       /* readable for ever once closed or draining */
    struct esp_shared *shared; /* NULL: none yet, or no memory */
    struct esp_lane *idle;     /* the warmest first */
    int idle_count;
    struct pool_entry *entries;
};

/* What a fork, a drain and the group need of a pool.  `held`: its lock is, or
 * the process has one thread only. */
void pool_abandon_held(struct esp_pool *pool);
void pool_drain(struct esp_pool *pool);

/* Blocking calls in flight of threads other than this one. */
int pool_count_others(struct esp_pool *pool);
void pool_wait_a_little(void);

/* One more reference; esp_pool_release gives it back. */
struct esp_pool *pool_hold(struct esp_pool *pool);

/* Take part in the pool: false if it is closed or being drained. */
bool pool_enter(struct esp_pool *pool, struct pool_entry *entry);

/* Leave it, giving back entry->lane. */
void pool_leave(struct esp_pool *pool, struct pool_entry *entry);

/* The warmest idle lane that `watcher` (NULL: nobody) or nobody watches, or a
 * new one, into entry->lane; false: no memory. */
bool pool_take_lane(struct esp_pool *pool, struct pool_entry *entry,
                    struct esp_watcher *watcher);

/* Take an idle lane of `watcher` off the pool, that with socket `fd` or, if
 * that is -1, any; the caller frees it.  NULL: there is none. */
struct esp_lane *pool_take_idle_of(struct esp_pool *pool,
                                   struct esp_watcher *watcher, int fd);

/* The loop of `watcher` is gone: its idle lanes are anybody's. */
void pool_forget_watcher(struct esp_pool *pool, struct esp_watcher *watcher);

/* Whether a call of this thread must end now. */
bool pool_must_end(struct esp_pool *pool);

/* Make pool_wake_fd worth asking before the first call. */
void pool_open_wake(struct esp_pool *pool);

/* The descriptor that becomes readable when a call of this thread must end;
 * -1: there is none, ask pool_must_end now and then. */
int pool_wake_fd(struct esp_pool *pool);

/* ---- Group (group.c) ---------------------------------------------------- */

/* Enter a pool into its group, and take it out; the group lives until the last
 * of its pools has left. */
void group_add(struct esp_group *group, struct esp_pool *pool);
void group_remove(struct esp_pool *pool);
void group_release(struct esp_group *group);

/* ---- Pace (pace.c) ------------------------------------------------------ */

#define PACE_LATE_MS 1000 /* a request without an answer has arrived by then */

/* The slots of one press; all zero: all free. */
struct pace {
    int64_t free_at[ESP_RATE_CALLS]; /* esp_clock_ms; INT64_MAX: held */
};

/* A slot that is free, held from now on; -1: none is. */
int pace_take(struct pace *pace, int64_t now);

/* A held slot is free from `free_at` on. */
void pace_give(struct pace *pace, int slot, int64_t free_at);

/* When the next slot is free; INT64_MAX: all are held. */
int64_t pace_next(const struct pace *pace);

/* Whether a slot is held: it may be given back at any time. */
bool pace_is_held(const struct pace *pace);

/* ---- Call (call.c) ------------------------------------------------------ */

enum call_state {
    CALL_RUNNING, /* a transfer is under way */
    CALL_WAITING, /* until turn_at */
    CALL_QUEUED,  /* for a slot of the pace */
    CALL_DONE,
};

/* One symbol of a press: its rounds and attempts. */
struct esp_call {
    struct esp_press *press;
    const char *symbol;
    struct esp_outcome *outcome;
    bool owns_outcome; /* it was allocated with the call */
    struct pool_entry entry;
    enum call_state state;
    int slot; /* of the pace; -1: none */
    struct esp_call *next_queued;
    int attempts;         /* of all rounds */
    int round_attempts;   /* of this round */
    bool reply_lost;      /* an attempt ended unknown */
    bool is_next_round;   /* the last attempt ended a round, another follows */
    bool last_had_orders; /* ... and it cancelled some */
    struct cJSON **rounds; /* the replies of the rounds that have ended */
    int round_count;
    int round_capacity;
    enum esp_sent worst;
    int64_t turn_at; /* RUNNING: this attempt's end; WAITING: the next start */
    uint32_t random;
};

/* A call of `press`, entered into the pool but not begun; its outcome is
 * `outcome`, or its own if NULL.  NULL: no memory, or the pool is closed. */
struct esp_call *call_new(struct esp_press *press, const char *symbol,
                          struct esp_outcome *outcome);

/* Begin an attempt; a slot is held for it. */
void call_go(struct esp_call *call, int slot);

/* There will be no slot in time: end with the last verdict. */
void call_give_up(struct esp_call *call);

/* Turns; no call that is done gets one. */
void call_on_socket(struct esp_call *call, int fd, bool readable,
                    bool writable);
void call_on_timer(struct esp_call *call, int64_t now);

/* When it needs a turn; INT64_MAX: when it gets a slot. */
int64_t call_turn_at(const struct esp_call *call);

/* Whether an attempt is under way and still looks up the name. */
bool call_looks_up(const struct esp_call *call);

/* Give its slot back if its request must have arrived by now.  When to look
 * again; INT64_MAX: no need. */
int64_t call_settle_slot(struct esp_call *call, int64_t now);

/* The attempt cancelled what it found, which is not yet what `confirm` asks
 * for: keep its reply and begin a new round.  False: no memory. */
bool call_end_round(struct esp_call *call);

/* Its slot, if it holds one, is free from `free_at` on. */
void call_give_slot(struct esp_call *call, int64_t free_at);

/* End the call with the verdict that its outcome holds. */
void call_end(struct esp_call *call);

/* End it with an outcome that no exchange has spoken to. */
void call_fail(struct esp_call *call, enum esp_kind kind, enum esp_sent sent,
               const char *message);

/* End it: the time of a confirmed call is over between two of its rounds. */
void call_end_unproven(struct esp_call *call);

/* End the call, if it is not done. */
void call_stop(struct esp_call *call, enum esp_kind kind, const char *message);

/* Free the call, which is done. */
void call_free(struct esp_call *call);

/* Milliseconds that an attempt needs at least, as far as `press` knows. */
int64_t call_least_ms(const struct esp_press *press);

/* ---- Attempt (attempt.c) ------------------------------------------------ */

/* Begin the next attempt of a call that has its lane and its slot. */
void attempt_begin(struct esp_call *call);

/* After a turn of libcurl; `ended`: the transfer is over. */
void attempt_turned(struct esp_call *call, bool ended);

/* The transfer is over: judge it, then end the call or wait for the next
 * attempt or round. */
void attempt_end(struct esp_call *call);

/* ---- Press (press.c) ---------------------------------------------------- */

struct esp_press {
    struct esp_press *next;      /* in the watcher's list */
    struct esp_watcher *watcher; /* NULL: a blocking press */
    void *user;
    bool is_reported; /* esp_watcher_next_done has named it */
    struct esp_pool *pool;
    struct esp_cancel cancel;
    bool is_warm_up;
    const char *const *symbols;
    size_t count;
    size_t begun;             /* calls that have been made */
    size_t running;           /* of these, not done */
    bool is_over;             /* no further call is made */
    bool is_stopped;          /* a hook said so */
    struct esp_outcome *rest; /* of the symbols whose turn never came */
    struct esp_outcome *only; /* the same, where there is one symbol: of its
                                 call, too; else NULL, each call has its own */
    bool owns_rest;           /* else it is the caller's */
    unsigned forks;           /* of the pool, when it began */
    struct esp_call *queue;   /* QUEUED, the one that waits longest in front */
    struct esp_call **queue_end;
    struct pace pace;
    int64_t started_at;
    int64_t deadline;
    int64_t look_at;          /* whoever waits for a slot must be served */
    struct esp_call *calls[]; /* `count` */
};

/* What a press is made of. */
struct press_plan {
    struct esp_pool *pool;
    struct esp_watcher *watcher; /* NULL: a blocking press */
    void *user;
    const struct esp_cancel *cancel;
    bool is_warm_up;
    const char *const *symbols; /* NULL: only that of `cancel` */
    size_t count;
    struct esp_outcome *only; /* of a single symbol, the caller's; or NULL */
};

/* Begin a press; NULL as for esp_cancel_list. */
struct esp_press *press_start(const struct press_plan *plan,
                              struct esp_outcome *refused);

/* A blocking press of cancel->symbol, or a warm-up, whose outcome is the
 * caller's. */
struct esp_press *press_start_one(struct esp_pool *pool,
                                  const struct esp_cancel *cancel,
                                  bool is_warm_up,
                                  struct esp_outcome *outcome);

/* Turns.  A call that is done gets none. */
void press_on_socket(struct esp_press *press, struct esp_call *call, int fd,
                     bool readable, bool writable);
void press_on_timer(struct esp_press *press);

/* esp_clock_ms at which press_on_timer must be called. */
int64_t press_turn_at(const struct esp_press *press);

/* Set what every outcome of a press that ends `now` says: attempts_max and
 * elapsed_s. */
void press_sign(const struct esp_press *press, struct esp_outcome *outcome,
                int64_t now);

/* `call` waits for a slot of the pace. */
void press_queue(struct esp_press *press, struct esp_call *call);

/* End it if its pool was closed or is drained, or a fork left it behind; true:
 * it has ended. */
bool press_must_end(struct esp_press *press);

/* ---- Watcher (watcher.c) ------------------------------------------------ */

void watcher_add(struct esp_watcher *watcher, struct esp_press *press);
void watcher_remove(struct esp_watcher *watcher, struct esp_press *press);

/* Room for one more descriptor of a lane; false: no memory. */
bool watcher_reserve(struct esp_watcher *watcher, int fd);

/* What a lane wants of `fd` from now on; false: no memory. */
bool watcher_want(struct esp_watcher *watcher, struct esp_lane *lane, int fd,
                  bool read, bool write);

/* libcurl has closed a descriptor that it had let `lane` watch: its number may
 * come again, and does nothing here if another lane has it already. */
void watcher_forget(struct esp_watcher *watcher, const struct esp_lane *lane,
                    int fd);

/* The loop is to close `fd`, after it has ceased to watch it. */
void watcher_close(struct esp_watcher *watcher, const struct esp_lane *lane,
                   int fd);

#endif
