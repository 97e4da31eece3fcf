/* wire.c - a whole HTTP answer, as bytes, through libcurl and a real lane.
 *
 *     1 byte   flags
 *     1 byte   in what pieces the answer comes (0: in one)
 *     1 byte   how many of its last bytes come after the call
 *     the rest the raw answer, as a file of espresso/sandbox/replies
 *
 * Two calls through one pool: the first gets the input as its answer, the
 * second a good one.  Neither may take for its own what was not meant for it.
 *
 * There is no network: socket, connect and getpeername of libc are replaced by
 * one end of a socketpair, whose other end is played here, on the same thread.  So nothing
 * depends on time, and no port is used up. */
#include "fuzz.h"

#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "answer.h"
#include "contract.h"
#include "shape.h"

#define PORT 9 /* of a URL that nobody connects to */
#define PEERS_MAX 8
#define REQUEST_MAX 4096
#define TURNS_MAX 100000

#define SECOND_BODY "{\"symbol\":\"ADAUSDM\",\"order_ids\":[\"second\"]}"
#define SECOND "HTTP/1.1 200 OK\r\nContent-Length: 43\r\n\r\n" SECOND_BODY

enum flag {
    FLAG_END = 1,      /* the server ends the connection after the answer */
    FLAG_END_LATE = 2, /* ... or between the calls */
};

/* The server's side of one connection. */
struct peer {
    int fd; /* -1: ended */
    char request[REQUEST_MAX + 1];
    size_t used;
};

static struct wire {
    struct peer peers[PEERS_MAX];
    size_t count;
    int posts;
    const char *answer; /* what the next request gets */
    size_t length;      /* of it, before the call has ended */
    size_t sent;
    size_t piece;
    bool is_asked;
    bool ends; /* the connection, after the answer */
} wire;

/* ---- In place of the network -------------------------------------------- */

int
socket(int domain, int type, int protocol)
{
    int ends[2];

    if ((domain != AF_INET && domain != AF_INET6) || (type & SOCK_STREAM) == 0)
        return (int)syscall(SYS_socket, domain, type, protocol);
    HOLDS(wire.count < PEERS_MAX);
    HOLDS(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    wire.peers[wire.count].fd = ends[1];
    wire.peers[wire.count].used = 0;
    wire.count++;
    return ends[0];
}

int
connect(int fd, const struct sockaddr *address, socklen_t length)
{
    (void)fd;
    (void)address;
    (void)length;
    return 0;
}

/* libcurl does not reuse a connection whose peer has no address. */
int
getpeername(int fd, struct sockaddr *address, socklen_t *length)
{
    struct sockaddr_in peer = {.sin_family = AF_INET,
                               .sin_port = htons(PORT),
                               .sin_addr = {htonl(INADDR_LOOPBACK)}};
    size_t size = *length < sizeof peer ? *length : sizeof peer;

    (void)fd;
    memcpy(address, &peer, size);
    *length = sizeof peer;
    return 0;
}

/* ---- The server --------------------------------------------------------- */

static void
peer_end(struct peer *peer)
{
    if (peer->fd >= 0)
        close(peer->fd);
    peer->fd = -1;
}

/* One POST, whole, and nothing behind it. */
static void
check_request(const struct peer *peer)
{
    static const char first[] = "POST /order/cancel-all HTTP/1.1\r\n";
    static const char header[] = "\r\nX-API-KEY: " KEY "\r\n";
    static const char body[] = "\r\n\r\n{\"symbol\":\"" SYMBOL "\"}";
    const char *key = strstr(peer->request, header);
    size_t length = sizeof body - 1;

    HOLDS(strlen(peer->request) == peer->used);
    HOLDS(strncmp(peer->request, first, sizeof first - 1) == 0);
    HOLDS(key != NULL && strstr(key + 2, KEY) != NULL &&
          strstr(key + sizeof header, KEY) == NULL);
    HOLDS(peer->used > length &&
          strcmp(peer->request + peer->used - length, body) == 0);
}

/* Whether the head and the body that it announces are there. */
static bool
has_request(const struct peer *peer)
{
    return peer->used > 0 && strstr(peer->request, "\r\n\r\n{") != NULL &&
           peer->request[peer->used - 1] == '}';
}

/* Send the next piece of the answer; false: there is none. */
static bool
answer(struct peer *peer)
{
    size_t length = wire.length - wire.sent;

    if (length == 0) {
        if (wire.ends)
            peer_end(peer);
        return false;
    }
    if (wire.piece > 0 && length > wire.piece)
        length = wire.piece;
    if (send(peer->fd, wire.answer + wire.sent, length, MSG_NOSIGNAL) < 0)
        wire.sent = wire.length; /* the client has closed it */
    else
        wire.sent += length;
    return true;
}

/* A turn of the server; false: it had nothing to do. */
static bool
serve(void)
{
    bool was_busy = false;
    struct peer *peer;
    ssize_t length;
    size_t i;

    for (i = 0; i < wire.count; i++) {
        peer = &wire.peers[i];
        if (peer->fd < 0)
            continue;
        length = recv(peer->fd, peer->request + peer->used,
                      REQUEST_MAX - peer->used, MSG_DONTWAIT);
        if (length > 0) {
            was_busy = true;
            peer->used += (size_t)length;
            peer->request[peer->used] = '\0';
        }
        if (has_request(peer)) {
            check_request(peer);
            peer->used = 0;
            wire.posts++;
            wire.is_asked = true;
        }
        /* Only the connection that was opened last can be waiting. */
        if (wire.is_asked && i + 1 == wire.count)
            was_busy = answer(peer) || was_busy;
    }
    return was_busy;
}

/* ---- The client --------------------------------------------------------- */

/* Give libcurl its turns for what is ready; false: nothing was. */
static bool
turn(struct esp_press *press)
{
    struct esp_call *call = press->calls[0];
    const struct esp_lane *lane = call->entry.lane;
    struct pollfd polled[ESP_WATCHES_MAX];
    size_t count = lane->watch_count;
    bool was_busy = press_turn_at(press) <= esp_clock_ms();
    size_t i;

    for (i = 0; i < count; i++)
        polled[i] = (struct pollfd){
            .fd = lane->watches[i].fd,
            .events = (short)((lane->watches[i].read ? POLLIN : 0) |
                              (lane->watches[i].write ? POLLOUT : 0))};
    if (poll(polled, (nfds_t)count, 0) > 0) {
        for (i = 0; i < count; i++) {
            if (polled[i].revents == 0)
                continue;
            was_busy = true;
            press_on_socket(press, call, polled[i].fd,
                            (polled[i].revents & ~POLLOUT) != 0,
                            (polled[i].revents & ~POLLIN) != 0);
        }
    }
    press_on_timer(press);
    return was_busy;
}

/* One call.  Where both sides wait for the other it is interrupted. */
static void
press_button(struct esp_pool *pool, struct esp_outcome *outcome)
{
    struct esp_cancel cancel = {.symbol = SYMBOL,
                                .api_key = KEY,
                                .timeout_ms = ESP_TIMEOUT_MAX_MS,
                                .connect_timeout_ms = ESP_TIMEOUT_MAX_MS};
    struct esp_press *press = press_start_one(pool, &cancel, false, outcome);
    int idle = 0;
    int turns = 0;

    HOLDS(press != NULL);
    while (!esp_press_is_done(press)) {
        HOLDS(++turns < TURNS_MAX);
        idle = turn(press) || serve() ? 0 : idle + 1;
        if (idle > 3)
            esp_press_interrupt(press);
    }
    esp_press_free(press);
}

/* ---- What must be true -------------------------------------------------- */

/* The words of an answer that is whole and in no doubt; false: it is not. */
static bool
read_answer(const char *bytes, size_t length, struct answer *read,
            struct shape *shape)
{
    char *body;
    size_t body_length;
    size_t used;

    answer_read(bytes, length, read);
    if (!read->is_http)
        return false;
    body = answer_body(bytes, length, read, &body_length, &used);
    if (body == NULL)
        return false;
    shape_read(body, body_length, shape);
    free(body);
    return true;
}

static void
check_first(const struct esp_outcome *outcome, const char *bytes,
            size_t length)
{
    struct answer read;
    struct shape shape = {.is_json = false};
    bool is_sure = read_answer(bytes, length, &read, &shape);
    int code = 0;
    bool has_code = is_sure && shape_code(&shape, &code);

    check_outcome(outcome);
    HOLDS(wire.posts == 1 && outcome->attempts == 1);
    HOLDS(outcome->sent != ESP_NOT_SENT);
    /* libcurl 7.88 may lose a NUL, and the CR behind it, that stands where a
     * packet ends: it hands out an empty line, and nobody can see the rest. */
    if (memchr(bytes, '\0', read.body) != NULL)
        return;
    if (outcome->kind == ESP_OK)
        HOLDS(is_sure && read.status == 200 && shape_is_readable(&shape) &&
              shape_is_success(&shape, SYMBOL));
    if (outcome->has_code)
        HOLDS(has_code && code == outcome->code && shape_is_readable(&shape) &&
              !shape_is_of_another(&shape, SYMBOL));
    if (outcome->sent == ESP_REJECTED && outcome->has_code)
        HOLDS(contract_refuses_by_code(code));
    if (outcome->sent == ESP_REJECTED && !outcome->has_code)
        HOLDS(contract_refuses_by_status(outcome->http_status) &&
              (!has_code || !shape_is_readable(&shape)));
}

/* The second call got its own answer, and asked once. */
static void
check_second(const struct esp_outcome *outcome)
{
    const cJSON *ids;

    check_outcome(outcome);
    HOLDS(wire.posts == 1 && outcome->attempts == 1);
    HOLDS(outcome->kind == ESP_OK);
    ids = cJSON_GetObjectItemCaseSensitive(outcome->json, "order_ids");
    HOLDS(cJSON_IsArray(ids) && cJSON_GetArraySize(ids) == 1 &&
          strcmp(ids->child->valuestring, "second") == 0);
}

/* What comes while nobody waits for it. */
static void
between(const char *bytes, size_t length, unsigned flags)
{
    size_t i;

    for (i = 0; i < wire.count; i++) {
        if (wire.peers[i].fd < 0)
            continue;
        if (length > 0)
            (void)!send(wire.peers[i].fd, bytes, length, MSG_NOSIGNAL);
        if (flags & FLAG_END_LATE)
            peer_end(&wire.peers[i]);
    }
}

static void
expect_request(const char *bytes, size_t length, size_t piece, bool ends)
{
    wire.answer = bytes;
    wire.length = length;
    wire.sent = 0;
    wire.piece = piece;
    wire.ends = ends;
    wire.is_asked = false;
    wire.posts = 0;
}

static struct esp_pool *
open_pool(void)
{
    static struct esp_group *group;
    struct esp_settings settings = {.base_url = "http://127.0.0.1:9",
                                    .user_agent = "espresso-fuzz"};
    struct esp_error error;

    if (group == NULL)
        group = esp_group_new();
    return esp_pool_new(group, &settings, &error);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input input = {data, size};
    unsigned flags = input_byte(&input);
    size_t piece = input_byte(&input);
    size_t late = input_byte(&input) % 64;
    const char *bytes = (const char *)input.at;
    size_t length = input.left > late ? input.left - late : 0;
    struct esp_pool *pool = open_pool();
    struct esp_outcome outcome;

    wire.count = 0;
    expect_request(bytes, length, piece, (flags & FLAG_END) != 0);
    press_button(pool, &outcome);
    check_first(&outcome, bytes, wire.sent);
    esp_outcome_free(&outcome);
    between(bytes + length, input.left - length, flags);
    expect_request(SECOND, sizeof SECOND - 1, 0, false);
    press_button(pool, &outcome);
    check_second(&outcome);
    esp_outcome_free(&outcome);
    esp_pool_release(pool);
    while (wire.count > 0)
        peer_end(&wire.peers[--wire.count]);
    return 0;
}
