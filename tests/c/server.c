/* server.c - see server.h. */
#include "server.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define CONNECTIONS_MAX 128
#define REQUEST_MAX 8192
#define DRIP_MS 5
#define WAIT_MS 10000
#define LOG_MAX 512
#define SCRIPTS_MAX 8
#define SYMBOL_SIZE 128

struct connection {
    int fd; /* -1: free */
    char request[REQUEST_MAX + 1];
    size_t length;
    const struct step *endless; /* a drip or a flood under way */
    size_t at;                  /* in its `more` */
};

struct script {
    const char *symbol;
    const struct step *steps;
    size_t count;
    size_t next;
};

/* A POST that came. */
struct record {
    char symbol[SYMBOL_SIZE];
    int64_t at_ms;
};

struct server {
    pthread_t thread;
    pthread_mutex_t lock;  /* guards all below */
    struct script general; /* of symbols that have none of their own */
    struct script scripts[SCRIPTS_MAX];
    int script_count;
    int listener;
    int stop[2];
    int port;
    char url[64];
    int posts;
    int heads;
    int requests;
    int accepted;
    int echoes;
    char last[REQUEST_MAX + 1];
    struct record log[LOG_MAX];
    struct connection connections[CONNECTIONS_MAX];
};

static void
pause_ms(long milliseconds)
{
    struct timespec pause = {.tv_sec = milliseconds / 1000,
                             .tv_nsec = milliseconds % 1000 * 1000000};

    nanosleep(&pause, NULL);
}

/* ---- One connection ----------------------------------------------------- */

static void
hang_up(struct connection *connection)
{
    if (connection->fd >= 0)
        close(connection->fd);
    connection->fd = -1;
    connection->length = 0;
    connection->endless = NULL;
}

/* A peer that has gone is no error here. */
static void
say(const struct connection *connection, const char *text)
{
    ssize_t sent = send(connection->fd, text, strlen(text), MSG_NOSIGNAL);

    (void)sent;
}

static void
reset(struct connection *connection)
{
    struct linger at_once = {.l_onoff = 1};

    setsockopt(connection->fd, SOL_SOCKET, SO_LINGER, &at_once,
               sizeof at_once);
    hang_up(connection);
}

static void
echo(struct server *server, const struct connection *connection,
     const char *symbol)
{
    char json[320];
    char answer[512];

    snprintf(json, sizeof json,
             "{\"symbol\":\"%s\",\"order_ids\":[\"%s-%d\"]}", symbol, symbol,
             ++server->echoes);
    snprintf(answer, sizeof answer,
             "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n%s", strlen(json),
             strncmp(connection->request, "HEAD", 4) == 0 ? "" : json);
    say(connection, answer);
}

/* The symbol of the first request in the buffer, "" if it names none. */
static void
read_symbol(const struct connection *connection, char *symbol)
{
    const char *body = strstr(connection->request, "\r\n\r\n");

    symbol[0] = '\0';
    if (body != NULL)
        sscanf(body, "\r\n\r\n{\"symbol\":\"%127[^\"]", symbol);
}

static const struct step *
next_step(struct server *server, const char *symbol)
{
    static const struct step usual = {.act = ACT_ECHO};
    struct script *script = &server->general;
    int i;

    for (i = 0; i < server->script_count; i++) {
        if (strcmp(server->scripts[i].symbol, symbol) == 0)
            script = &server->scripts[i];
    }
    return script->next < script->count ? &script->steps[script->next++]
                                        : &usual;
}

static void
play(struct server *server, struct connection *connection, const char *symbol)
{
    const struct step *step = next_step(server, symbol);

    if (step->text != NULL)
        say(connection, step->text);
    switch (step->act) {
    case ACT_ECHO:
        echo(server, connection, symbol);
        break;
    case ACT_ANSWER:
    case ACT_HANG:
        break;
    case ACT_ANSWER_CLOSE:
    case ACT_CLOSE:
        hang_up(connection);
        break;
    case ACT_RESET:
        reset(connection);
        break;
    case ACT_DRIP:
    case ACT_FLOOD:
        connection->endless = step;
        connection->at = 0;
        break;
    }
}

/* Bytes of the first request in the buffer, 0: it is not whole yet.  What is
 * no HTTP (a TLS handshake) counts as one. */
static size_t
request_length(const struct connection *connection)
{
    const char *end = strstr(connection->request, "\r\n\r\n");
    const char *header = strcasestr(connection->request, "Content-Length:");
    size_t length;

    if (connection->length > 0 && (unsigned char)connection->request[0] < ' ')
        return connection->length;
    if (end == NULL)
        return 0;
    length = (size_t)(end + 4 - connection->request);
    if (header != NULL && header < end)
        length += strtoul(header + 15, NULL, 10);
    return length <= connection->length ? length : 0;
}

static void
write_log(struct server *server, const char *symbol)
{
    struct record *record;
    struct timespec now;

    if (server->posts >= LOG_MAX)
        return;
    clock_gettime(CLOCK_MONOTONIC, &now);
    record = &server->log[server->posts];
    snprintf(record->symbol, sizeof record->symbol, "%s", symbol);
    record->at_ms = (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void
take_requests(struct server *server, struct connection *connection)
{
    char symbol[SYMBOL_SIZE];
    size_t length;

    while ((length = request_length(connection)) > 0) {
        memcpy(server->last, connection->request, length);
        server->last[length] = '\0';
        read_symbol(connection, symbol);
        server->requests++;
        if (strncmp(server->last, "POST ", 5) == 0) {
            write_log(server, symbol);
            server->posts++;
        }
        server->heads += strncmp(server->last, "HEAD ", 5) == 0;
        play(server, connection, symbol);
        if (connection->fd < 0)
            return;
        connection->length -= length;
        memmove(connection->request, connection->request + length,
                connection->length + 1);
    }
}

static void
hear(struct server *server, struct connection *connection)
{
    ssize_t got =
        recv(connection->fd, connection->request + connection->length,
             REQUEST_MAX - connection->length, 0);

    if (got <= 0) {
        hang_up(connection);
        return;
    }
    connection->length += (size_t)got;
    connection->request[connection->length] = '\0';
    take_requests(server, connection);
}

/* One byte of a drip; of a flood, what the socket takes. */
static void
go_on(struct connection *connection)
{
    const struct step *step = connection->endless;
    size_t size = strlen(step->more);
    char piece[4096];
    size_t wanted = step->act == ACT_DRIP ? 1 : sizeof piece;
    ssize_t sent;
    size_t i;

    do {
        for (i = 0; i < wanted; i++)
            piece[i] = step->more[(connection->at + i) % size];
        sent =
            send(connection->fd, piece, wanted, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent > 0)
            connection->at += (size_t)sent;
    } while (sent > 0 && step->act == ACT_FLOOD);
    if (sent < 0 && errno != EAGAIN)
        hang_up(connection);
}

/* ---- The thread --------------------------------------------------------- */

static void
greet(struct server *server)
{
    int fd = accept(server->listener, NULL, NULL);
    int i = 0;

    if (fd < 0)
        return;
    while (i < CONNECTIONS_MAX && server->connections[i].fd >= 0)
        i++;
    if (i == CONNECTIONS_MAX) {
        close(fd);
        return;
    }
    server->connections[i].fd = fd;
    server->accepted++;
}

/* Fill `polled` with the listener, the stop pipe and the connections; true if
 * one of them drips. */
static bool
fill(struct server *server, struct pollfd *polled)
{
    bool drips = false;
    int i;

    polled[0] = (struct pollfd){.fd = server->stop[0], .events = POLLIN};
    polled[1] = (struct pollfd){.fd = server->listener, .events = POLLIN};
    for (i = 0; i < CONNECTIONS_MAX; i++) {
        polled[i + 2] =
            (struct pollfd){.fd = server->connections[i].fd, .events = POLLIN};
        drips = drips || server->connections[i].endless != NULL;
    }
    return drips;
}

static void
serve(struct server *server, const struct pollfd *polled)
{
    struct connection *connection;
    int i;

    for (i = 0; i < CONNECTIONS_MAX; i++) {
        connection = &server->connections[i];
        if (polled[i + 2].revents != 0 && connection->fd == polled[i + 2].fd)
            hear(server, connection);
        if (connection->endless != NULL)
            go_on(connection);
    }
    if (polled[1].revents != 0)
        greet(server);
}

static void *
run(void *user)
{
    struct server *server = user;
    struct pollfd polled[CONNECTIONS_MAX + 2];
    bool drips;

    for (;;) {
        pthread_mutex_lock(&server->lock);
        drips = fill(server, polled);
        pthread_mutex_unlock(&server->lock);
        poll(polled, CONNECTIONS_MAX + 2, drips ? DRIP_MS : -1);
        if (polled[0].revents != 0)
            return NULL;
        pthread_mutex_lock(&server->lock);
        serve(server, polled);
        pthread_mutex_unlock(&server->lock);
    }
}

/* ---- Its owner ---------------------------------------------------------- */

static bool
listen_on(struct server *server, bool ipv6)
{
    struct sockaddr_in6 six = {.sin6_family = AF_INET6,
                               .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    struct sockaddr_in four = {.sin_family = AF_INET,
                               .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const struct sockaddr *address =
        ipv6 ? (const struct sockaddr *)&six : (const struct sockaddr *)&four;
    socklen_t size = ipv6 ? sizeof six : sizeof four;
    struct sockaddr_in6 bound; /* the larger one; the port lies the same */

    server->listener =
        socket(ipv6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (server->listener < 0 || bind(server->listener, address, size) != 0 ||
        listen(server->listener, CONNECTIONS_MAX) != 0)
        return false;
    size = sizeof bound;
    getsockname(server->listener, (struct sockaddr *)&bound, &size);
    server->port = ntohs(bound.sin6_port);
    snprintf(server->url, sizeof server->url, "http://%s:%d",
             ipv6 ? "[::1]" : "127.0.0.1", server->port);
    return true;
}

struct server *
server_start(const struct step *steps, size_t count, bool ipv6)
{
    struct server *server = calloc(1, sizeof *server);
    int i;

    if (server == NULL)
        return NULL;
    server->general.steps = steps;
    server->general.count = count;
    for (i = 0; i < CONNECTIONS_MAX; i++)
        server->connections[i].fd = -1;
    pthread_mutex_init(&server->lock, NULL);
    if (!listen_on(server, ipv6) || pipe(server->stop) != 0) {
        if (server->listener >= 0)
            close(server->listener);
        free(server);
        return NULL;
    }
    pthread_create(&server->thread, NULL, run, server);
    return server;
}

void
server_script(struct server *server, const char *symbol,
              const struct step *steps, size_t count)
{
    pthread_mutex_lock(&server->lock);
    server->scripts[server->script_count++] =
        (struct script){.symbol = symbol, .steps = steps, .count = count};
    pthread_mutex_unlock(&server->lock);
}

void
server_stop(struct server *server)
{
    int i;

    if (server == NULL)
        return;
    close(server->stop[1]);
    pthread_join(server->thread, NULL);
    close(server->stop[0]);
    close(server->listener);
    for (i = 0; i < CONNECTIONS_MAX; i++)
        hang_up(&server->connections[i]);
    pthread_mutex_destroy(&server->lock);
    free(server);
}

const char *
server_url(const struct server *server)
{
    return server->url;
}

int
server_port(const struct server *server)
{
    return server->port;
}

static int
read_count(struct server *server, const int *count)
{
    int value;

    pthread_mutex_lock(&server->lock);
    value = *count;
    pthread_mutex_unlock(&server->lock);
    return value;
}

int
server_posts(struct server *server)
{
    return read_count(server, &server->posts);
}

int
server_heads(struct server *server)
{
    return read_count(server, &server->heads);
}

int
server_connections(struct server *server)
{
    return read_count(server, &server->accepted);
}

bool
server_post(struct server *server, int index, char *symbol, int64_t *at_ms)
{
    bool came;

    pthread_mutex_lock(&server->lock);
    came = index < server->posts && index < LOG_MAX;
    if (came) {
        memcpy(symbol, server->log[index].symbol, SYMBOL_SIZE);
        *at_ms = server->log[index].at_ms;
    }
    pthread_mutex_unlock(&server->lock);
    return came;
}

void
server_last_request(struct server *server, char *text, size_t size)
{
    pthread_mutex_lock(&server->lock);
    snprintf(text, size, "%s", server->last);
    pthread_mutex_unlock(&server->lock);
}

bool
server_has_requests(struct server *server, int count)
{
    return read_count(server, &server->requests) >= count;
}

bool
server_wait_requests(struct server *server, int count)
{
    int waited;

    for (waited = 0; waited < WAIT_MS; waited++) {
        if (server_has_requests(server, count))
            return true;
        pause_ms(1);
    }
    return false;
}

void
server_push(struct server *server, const char *text)
{
    struct connection *connection = server->connections;
    int i;

    pthread_mutex_lock(&server->lock);
    for (i = 0; i < CONNECTIONS_MAX; i++, connection++) {
        if (connection->fd >= 0 && text != NULL)
            say(connection, text);
        else if (connection->fd >= 0)
            shutdown(connection->fd, SHUT_WR);
    }
    pthread_mutex_unlock(&server->lock);
    pause_ms(20); /* until the kernel has carried it to the other side */
}
