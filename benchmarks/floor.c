/* The floor: what the same bytes cost a program that has nothing but OpenSSL.
 *
 *     floor HOST PORT PATH CA_FILE
 *
 * One connection, its peer verified; the request that the C loop sends, byte
 * for byte, in one write; the reply is read up to its Content-Length.  There
 * is no HTTP library, no time-out and no JSON: no client can be below it. */
#include "loop.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#include <arpa/inet.h>
#include <openssl/ssl.h>

#define NAME "floor"
#define REPLY_MAX 65536
#define BODY "{\"symbol\":\"ADAUSDM\"}"

struct link {
    SSL *ssl;
    char request[1024];
    int request_size;
    char reply[REPLY_MAX + 1];
    size_t size; /* bytes of the reply that are here */
};

/* Loopback's address in digits: nothing is looked up. */
static int
connect_to(const char *host, const char *port)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    int one = 1;
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    address.sin_port = htons((uint16_t)strtoul(port, NULL, 10));
    if (fd < 0 || inet_pton(AF_INET, host, &address.sin_addr) != 1 ||
        connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0 ||
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) != 0) {
        die(NAME, "no connection");
    }
    return fd;
}

static SSL *
shake_hands(SSL_CTX *context, const char *host, int fd)
{
    SSL *ssl = SSL_new(context);

    if (ssl == NULL || SSL_set_fd(ssl, fd) != 1 ||
        X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host) != 1 ||
        SSL_connect(ssl) != 1) {
        die(NAME, "no TLS, or not with whom was expected");
    }
    return ssl;
}

/* Read on; the text of the reply ends in a NUL. */
static void
read_more(struct link *link)
{
    int got = SSL_read(link->ssl, link->reply + link->size,
                       (int)(REPLY_MAX - link->size));

    if (got <= 0) {
        die(NAME, "the reply broke off");
    }
    link->size += (size_t)got;
    link->reply[link->size] = '\0';
}

/* The bytes of the whole reply, once its head is here; 0: it is not. */
static size_t
whole_size(const struct link *link)
{
    static const char name[] = "\r\nContent-Length:";
    const char *end = strstr(link->reply, "\r\n\r\n");
    const char *length = strcasestr(link->reply, name);

    if (end == NULL) {
        return 0;
    }
    if (length == NULL || length > end) {
        die(NAME, "a reply without a length");
    }
    return (size_t)(end + 4 - link->reply) +
           strtoul(length + sizeof(name) - 1, NULL, 10);
}

static void
call(void *context)
{
    struct link *link = context;
    size_t whole = 0;

    if (SSL_write(link->ssl, link->request, link->request_size) !=
        link->request_size) {
        die(NAME, "the request did not go out");
    }
    link->size = 0;
    while (whole == 0 || link->size < whole) {
        read_more(link);
        if (whole == 0) {
            whole = whole_size(link);
        }
        if (whole > REPLY_MAX) {
            die(NAME, "the reply is too large");
        }
    }
    if (link->size != whole ||
        strncmp(link->reply, "HTTP/1.1 200 ", 13) != 0 ||
        strstr(link->reply, "\"order_ids\":[\"") == NULL) {
        die(NAME, "not the answer that was expected");
    }
}

int
main(int argc, char **argv)
{
    static struct link link;
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());

    if (argc != 5) {
        die(NAME, "usage: floor HOST PORT PATH CA_FILE");
    }
    if (context == NULL || SSL_CTX_load_verify_file(context, argv[4]) != 1) {
        die(NAME, "no certificate authority");
    }
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
    link.request_size = snprintf(link.request, sizeof(link.request),
                                 "POST %s HTTP/1.1\r\n"
                                 "Host: %s:%s\r\n"
                                 "User-Agent: espresso-deltadefi/bench\r\n"
                                 "Content-Type: application/json\r\n"
                                 "X-API-KEY: sandbox-bench\r\n"
                                 "Accept: application/json\r\n"
                                 "Content-Length: %zu\r\n"
                                 "\r\n" BODY,
                                 argv[3], argv[1], argv[2], sizeof(BODY) - 1);
    if (link.request_size >= (int)sizeof(link.request)) {
        die(NAME, "the address is too long");
    }
    link.ssl = shake_hands(context, argv[1], connect_to(argv[1], argv[2]));
    serve(call, &link);
    SSL_free(link.ssl);
    SSL_CTX_free(context);
    return 0;
}
