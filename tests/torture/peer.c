/* peer.c - see peer.h.
 *
 * The child plays tests/c/server.c, with a relay in front of it that speaks
 * TLS: a thread for each connection, which carries bytes both ways. */
#include "peer.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define VALID_S (24 * 60 * 60)
#define WAIT_MS 10000
#define PATH_SIZE 64

struct peer {
    pid_t pid;
    int line; /* to the child: an order, then its answer */
    char url[64];
    char ca_file[PATH_SIZE];
    char stranger_file[PATH_SIZE];
};

struct order {
    bool counts; /* else it plays */
    const struct step *steps;
    size_t count;
};

/* ---- In the child ------------------------------------------------------- */

static SSL_CTX *context;
static atomic_int http_port;
static atomic_int relays;

/* A certificate for 127.0.0.1 that has signed itself, into `context`, in place
 * of what is there, and into `file`, which is closed. */
static bool
make_certificate(int file)
{
    FILE *stream = fdopen(file, "w");
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *certificate = X509_new();
    X509_NAME *name = X509_get_subject_name(certificate);
    X509_EXTENSION *host =
        X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, "IP:127.0.0.1");
    bool made;

    X509_set_version(certificate, X509_VERSION_3);
    ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1);
    X509_gmtime_adj(X509_getm_notBefore(certificate), -VALID_S);
    X509_gmtime_adj(X509_getm_notAfter(certificate), VALID_S);
    X509_set_pubkey(certificate, key);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC,
                               (const unsigned char *)"espresso torture", -1,
                               -1, 0);
    X509_set_issuer_name(certificate, name);
    X509_add_ext(certificate, host, -1);
    made = X509_sign(certificate, key, EVP_sha256()) > 0 &&
           PEM_write_X509(stream, certificate) == 1 &&
           SSL_CTX_use_certificate(context, certificate) == 1 &&
           SSL_CTX_use_PrivateKey(context, key) == 1;
    X509_EXTENSION_free(host);
    X509_free(certificate);
    EVP_PKEY_free(key);
    fclose(stream);
    return made;
}

static int
connect_to_http(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int at_once = 1;

    address.sin_port = htons((uint16_t)atomic_load(&http_port));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &at_once, sizeof at_once);
    if (connect(fd, (const struct sockaddr *)&address, sizeof address) == 0)
        return fd;
    close(fd);
    return -1;
}

/* Until the server ends its side.  The end of the client's is passed on, so
 * that the server has read all when it ends its own. */
static void
carry(SSL *session, int http)
{
    struct pollfd polled[2] = {{.fd = SSL_get_fd(session), .events = POLLIN},
                               {.fd = http, .events = POLLIN}};
    char piece[16384];
    ssize_t got;

    for (;;) {
        if (SSL_pending(session) == 0)
            poll(polled, 2, -1);
        if (polled[0].revents != 0 || SSL_pending(session) > 0) {
            got = SSL_read(session, piece, sizeof piece);
            if (got > 0 && send(http, piece, (size_t)got, 0) != got)
                return;
            if (got <= 0) {
                shutdown(http, SHUT_WR);
                polled[0].fd = -1;
                polled[0].revents = 0;
            }
        }
        if (polled[1].revents != 0) {
            got = recv(http, piece, sizeof piece, 0);
            if (got <= 0)
                return;
            if (polled[0].fd >= 0)
                SSL_write(session, piece, (int)got);
        }
    }
}

static void *
relay(void *user)
{
    int fd = (int)(intptr_t)user;
    SSL *session = SSL_new(context);
    int http;

    SSL_set_fd(session, fd);
    if (SSL_accept(session) == 1) {
        http = connect_to_http();
        if (http >= 0) {
            carry(session, http);
            SSL_shutdown(session);
            close(http);
        }
    }
    ERR_clear_error();
    SSL_free(session);
    close(fd);
    atomic_fetch_sub(&relays, 1);
    return NULL;
}

static void *
greet(void *user)
{
    int listener = (int)(intptr_t)user;
    pthread_t thread;
    int at_once = 1;
    int fd;

    while ((fd = accept(listener, NULL, NULL)) >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &at_once, sizeof at_once);
        atomic_fetch_add(&relays, 1);
        if (pthread_create(&thread, NULL, relay, (void *)(intptr_t)fd) != 0)
            abort();
        pthread_detach(thread);
    }
    return NULL;
}

static void
wait_for_relays(void)
{
    int waited;

    for (waited = 0; waited < WAIT_MS * 10 && atomic_load(&relays) > 0;
         waited++)
        usleep(100);
    if (atomic_load(&relays) > 0)
        abort(); /* the count would not be the whole one */
}

static void
obey(int line)
{
    struct server *server = NULL;
    struct order order;
    int posts;

    while (read(line, &order, sizeof order) == (ssize_t)sizeof order) {
        posts = 0;
        if (order.counts) {
            wait_for_relays();
            posts = server_posts(server);
        }
        else {
            server_stop(server);
            server = server_start(order.steps, order.count, false);
            if (server == NULL)
                abort();
            atomic_store(&http_port, server_port(server));
        }
        if (write(line, &posts, sizeof posts) != (ssize_t)sizeof posts)
            break;
    }
}

static _Noreturn void
be_the_peer(int line, int listener, int ca_file, int stranger_file)
{
    pthread_t thread;
    char ready;

    signal(SIGPIPE, SIG_IGN);
    context = SSL_CTX_new(TLS_server_method());
    ready = make_certificate(stranger_file) && make_certificate(ca_file) ? 'y'
                                                                         : 'n';
    if (pthread_create(&thread, NULL, greet, (void *)(intptr_t)listener) ==
            0 &&
        write(line, &ready, 1) == 1)
        obey(line);
    _exit(0);
}

/* ---- In the parent ------------------------------------------------------ */

static int
listen_on_loopback(struct peer *peer)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (listener < 0 ||
        bind(listener, (const struct sockaddr *)&address, size) != 0 ||
        listen(listener, 128) != 0)
        return -1;
    getsockname(listener, (struct sockaddr *)&address, &size);
    snprintf(peer->url, sizeof peer->url, "https://127.0.0.1:%d",
             ntohs(address.sin_port));
    return listener;
}

/* An empty one, and its path (PATH_SIZE bytes). */
static int
make_file(char *path)
{
    snprintf(path, PATH_SIZE, "/%s/espresso-torture-XXXXXX", "tmp");
    return mkstemp(path);
}

struct peer *
peer_start(void)
{
    struct peer *peer = calloc(1, sizeof *peer);
    int listener = -1;
    int lines[2];
    char ready = 'n';
    int ca_file;
    int stranger_file;

    if (peer == NULL || (listener = listen_on_loopback(peer)) < 0 ||
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, lines) != 0 ||
        (ca_file = make_file(peer->ca_file)) < 0 ||
        (stranger_file = make_file(peer->stranger_file)) < 0)
        return NULL;
    peer->line = lines[0];
    peer->pid = fork();
    if (peer->pid == 0) {
        close(lines[0]);
        be_the_peer(lines[1], listener, ca_file, stranger_file);
    }
    close(ca_file);
    close(stranger_file);
    close(lines[1]);
    close(listener);
    if (peer->pid > 0 && read(peer->line, &ready, 1) == 1 && ready == 'y')
        return peer;
    peer_stop(peer);
    return NULL;
}

static int
tell(struct peer *peer, const struct order *order)
{
    int answer = 0;

    if (write(peer->line, order, sizeof *order) != (ssize_t)sizeof *order ||
        read(peer->line, &answer, sizeof answer) != (ssize_t)sizeof answer)
        abort(); /* without its server no test goes on */
    return answer;
}

void
peer_play(struct peer *peer, const struct step *steps, size_t count)
{
    tell(peer, &(struct order){.steps = steps, .count = count});
}

int
peer_posts(struct peer *peer)
{
    return tell(peer, &(struct order){.counts = true});
}

const char *
peer_url(const struct peer *peer)
{
    return peer->url;
}

const char *
peer_ca_file(const struct peer *peer)
{
    return peer->ca_file;
}

const char *
peer_stranger_file(const struct peer *peer)
{
    return peer->stranger_file;
}

void
peer_stop(struct peer *peer)
{
    if (peer == NULL)
        return;
    close(peer->line);
    if (peer->pid > 0)
        waitpid(peer->pid, NULL, 0);
    unlink(peer->ca_file);
    unlink(peer->stranger_file);
    free(peer);
}
