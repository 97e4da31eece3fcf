/* server.h - a small HTTP server on loopback that plays a script.
 *
 * One thread serves all connections.  Each request, on whatever connection,
 * takes the next step of the script; after the last one every request gets a
 * 200 that names its symbol and an order id of its own.  A symbol may have a
 * script for itself: its requests take no step of the other. */
#ifndef SERVER_H
#define SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum act {
    ACT_ECHO,         /* the usual 200 */
    ACT_ANSWER,       /* send `text`, keep the connection */
    ACT_ANSWER_CLOSE, /* send `text`, then end the connection */
    ACT_CLOSE,        /* end the connection without a word */
    ACT_RESET,        /* the same by RST */
    ACT_HANG,         /* say nothing more */
    ACT_DRIP,         /* send `text`, then `more` for ever, a byte at a time */
    ACT_FLOOD,        /* the same as fast as it goes */
};

struct step {
    enum act act;
    const char *text;
    const char *more;
};

/* An answer with this status line and JSON body, as a string literal. */
#define HEAD(status, length)                                                  \
    "HTTP/1.1 " status "\r\nContent-Type: application/json\r\n"               \
    "Content-Length: " length "\r\n\r\n"

struct server;

/* Listen on 127.0.0.1 (`ipv6`: ::1) and play the `count` steps, which must
 * outlive the server.  NULL: this machine has no such address. */
struct server *server_start(const struct step *steps, size_t count, bool ipv6);

/* Play these steps for requests of `symbol` (of this process's memory, as the
 * steps are); at most eight symbols. */
void server_script(struct server *server, const char *symbol,
                   const struct step *steps, size_t count);

/* End its connections and its thread; NULL is fine. */
void server_stop(struct server *server);

/* `http://127.0.0.1:<port>`; server_port the number alone. */
const char *server_url(const struct server *server);
int server_port(const struct server *server);

/* What has come so far. */
int server_posts(struct server *server);
int server_heads(struct server *server);
int server_connections(struct server *server);

/* Of POST `index` (from 0, at most 512 are kept): whether it has come, for
 * which symbol (at least 128 bytes), and when (CLOCK_MONOTONIC). */
bool server_post(struct server *server, int index, char *symbol,
                 int64_t *at_ms);

/* Copy the last request, head and body, into `text`. */
void server_last_request(struct server *server, char *text, size_t size);

/* Whether `count` requests have come. */
bool server_has_requests(struct server *server, int count);

/* Wait until `count` requests have come; false: not within ten seconds. */
bool server_wait_requests(struct server *server, int count);

/* Send `text` on every connection; NULL: end them (FIN). */
void server_push(struct server *server, const char *text);

#endif
