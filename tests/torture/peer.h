/* peer.h - an exchange behind TLS, in a process of its own: what it allocates
 * is none of ours. */
#ifndef PEER_H
#define PEER_H

#include "server.h"

struct peer;

/* Fork it off; NULL: it could not begin.  Not after a thread was made. */
struct peer *peer_start(void);

/* From now on it plays these steps (of memory from before the fork) to all
 * requests of all new connections, and counts from zero. */
void peer_play(struct peer *peer, const struct step *steps, size_t count);

/* POSTs that have come since, those on their way included: waits until every
 * connection has been closed by its client. */
int peer_posts(struct peer *peer);

/* `https://127.0.0.1:<port>`, and the file of the certificate to trust. */
const char *peer_url(const struct peer *peer);
const char *peer_ca_file(const struct peer *peer);

/* The file of a certificate of the same name that has signed nothing. */
const char *peer_stranger_file(const struct peer *peer);

/* End it; NULL is fine. */
void peer_stop(struct peer *peer);

#endif
