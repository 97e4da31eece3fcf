/* loop.c - see loop.h. */
#include "loop.h"

#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define RINGS_MAX 1000 /* a timer that is due for ever rings oftener */

/* ---- What the watcher asks for ------------------------------------------ */

static void
refuse(const struct esp_change *change, const char *what)
{
    fail_msg("descriptor %d: %s (remove %d %d close %d add %d %d)", change->fd,
             what, change->remove_reader, change->remove_writer, change->close,
             change->add_reader, change->add_writer);
}

static void
remove_one(const struct esp_change *change, bool *watched)
{
    if (!*watched)
        refuse(change, "removed, and never added");
    *watched = false;
}

/* What an open descriptor is; 0: it is not open. */
static ino_t
inode_of(int fd)
{
    struct stat about;

    return fstat(fd, &about) == 0 ? about.st_ino : 0;
}

static void
add_one(struct loop *loop, const struct esp_change *change, bool *watched)
{
    if (*watched)
        refuse(change, "added twice");
    loop->inodes[change->fd] = inode_of(change->fd);
    if (loop->inodes[change->fd] == 0)
        refuse(change, "added, and not open");
    *watched = true;
    loop->added[change->fd]++;
    if (change->fd > loop->highest)
        loop->highest = change->fd;
}

static void
apply(struct loop *loop, const struct esp_change *change)
{
    int fd = change->fd;

    if (fd < 0 || fd >= LOOP_DESCRIPTORS)
        refuse(change, "no descriptor");
    if (change->remove_reader)
        remove_one(change, &loop->reads[fd]);
    if (change->remove_writer)
        remove_one(change, &loop->writes[fd]);
    if (change->close) {
        if (loop->reads[fd] || loop->writes[fd])
            refuse(change, "closed, and still watched");
        if (close(fd) != 0)
            refuse(change, "closed, and not open");
        loop->closed++;
    }
    if (change->add_reader)
        add_one(loop, change, &loop->reads[fd]);
    if (change->add_writer)
        add_one(loop, change, &loop->writes[fd]);
}

void
loop_settle(struct loop *loop)
{
    struct esp_change change;
    struct pressed *pressed;

    while (esp_watcher_next_change(loop->watcher, &change))
        apply(loop, &change);
    while ((pressed = esp_watcher_next_done(loop->watcher)) != NULL) {
        if (++pressed->named > 1)
            fail_msg("a press has ended twice");
    }
}

/* ---- Turns -------------------------------------------------------------- */

/* What poll(2) found of one descriptor. */
struct ready {
    int fd;
    unsigned added;
    bool readable;
    bool writable;
};

static bool
is_current(const struct loop *loop, const struct ready *ready)
{
    return loop->is_late || loop->added[ready->fd] == ready->added;
}

/* As asyncio does: the reader and the writer of a descriptor one by one, and
 * none that has been removed since. */
static void
bring(struct loop *loop, const struct ready *ready)
{
    int fd = ready->fd;

    if (ready->readable && is_current(loop, ready) &&
        (loop->reads[fd] || loop->is_late)) {
        esp_watcher_on_socket(loop->watcher, fd, true, false);
        loop_settle(loop);
    }
    if (ready->writable && is_current(loop, ready) &&
        (loop->writes[fd] || loop->is_late)) {
        esp_watcher_on_socket(loop->watcher, fd, false, true);
        loop_settle(loop);
    }
}

static int
wait_for(struct loop *loop, struct pollfd *polled, int limit_ms)
{
    int64_t left = esp_watcher_timer_ms(loop->watcher);
    int count = 1;
    int fd;

    polled[0] = (struct pollfd){.fd = loop->wake, .events = POLLIN};
    for (fd = 0; fd <= loop->highest; fd++) {
        if (!loop->reads[fd] && !loop->writes[fd])
            continue;
        if (inode_of(fd) != loop->inodes[fd])
            fail_msg("descriptor %d is another one than was added", fd);
        polled[count++] = (struct pollfd){
            .fd = fd,
            .events = (short)((loop->reads[fd] ? POLLIN : 0) |
                              (loop->writes[fd] ? POLLOUT : 0))};
    }
    if (left < 0 || left > limit_ms)
        left = limit_ms;
    loop->rang = poll(polled, (nfds_t)count, (int)left) == 0 && left == 0
                     ? loop->rang + 1
                     : 0;
    if (loop->rang > RINGS_MAX)
        fail_msg("the timer is due for ever");
    return count;
}

static void
bring_sockets(struct loop *loop, const struct pollfd *polled, int count)
{
    struct ready ready[LOOP_DESCRIPTORS];
    int i;

    for (i = 1; i < count; i++) {
        short found = polled[i].revents;

        if (found & POLLNVAL)
            fail_msg("descriptor %d was closed while it is watched",
                     polled[i].fd);
        ready[i] = (struct ready){.fd = polled[i].fd,
                                  .added = loop->added[polled[i].fd],
                                  .readable = (found & ~POLLOUT) != 0,
                                  .writable = (found & ~POLLIN) != 0};
    }
    for (i = 1; i < count; i++)
        bring(loop, &ready[i]);
}

void
loop_turn(struct loop *loop, int limit_ms)
{
    struct pollfd polled[LOOP_DESCRIPTORS + 1];
    int count = wait_for(loop, polled, limit_ms);

    bring_sockets(loop, polled, count);
    if (esp_watcher_timer_ms(loop->watcher) == 0) {
        esp_watcher_on_timer(loop->watcher);
        loop_settle(loop);
    }
    if (polled[0].revents != 0) {
        loop->wake = -1; /* it is readable for good */
        esp_watcher_on_wake(loop->watcher);
        loop_settle(loop);
    }
}

void
loop_run(struct loop *loop, struct pressed *pressed)
{
    while (!esp_press_is_done(pressed->press))
        loop_turn(loop, ESP_TIMEOUT_MAX_MS);
    loop_settle(loop);
    assert_int_equal(pressed->named, 1);
}

/* ---- Lives -------------------------------------------------------------- */

void
loop_open(struct loop *loop, struct esp_pool *pool)
{
    memset(loop, 0, sizeof *loop);
    loop->watcher = esp_watcher_new(pool);
    assert_non_null(loop->watcher);
    loop->wake = esp_watcher_wake_fd(loop->watcher);
}

void
loop_close(struct loop *loop)
{
    loop_settle(loop);
    memset(loop->reads, 0, sizeof loop->reads);
    memset(loop->writes, 0, sizeof loop->writes);
    esp_watcher_free(loop->watcher);
    loop->watcher = NULL;
}

void
loop_press(struct loop *loop, const struct esp_cancel *cancel,
           const char *const *symbols, size_t count, struct pressed *pressed)
{
    *pressed = (struct pressed){.named = 0};
    pressed->press =
        count > 0 ? esp_watcher_cancel(loop->watcher, cancel, symbols, count,
                                       pressed, &pressed->refused)
                  : esp_watcher_warm_up(loop->watcher, cancel, pressed,
                                        &pressed->refused);
    loop_settle(loop);
}

void
loop_free(struct loop *loop, struct pressed *pressed)
{
    esp_press_free(pressed->press);
    pressed->press = NULL;
    loop_settle(loop);
}

static bool
is_watched(const struct loop *loop, int fd)
{
    return loop->reads[fd] || loop->writes[fd];
}

int
loop_watches(const struct loop *loop)
{
    int count = 0;
    int fd;

    for (fd = 0; fd <= loop->highest; fd++)
        count += is_watched(loop, fd);
    return count;
}

bool
loop_is_connection(int fd)
{
    struct sockaddr_storage name = {.ss_family = AF_UNIX};
    socklen_t size = sizeof name;

    return getsockname(fd, (struct sockaddr *)&name, &size) == 0 &&
           name.ss_family != AF_UNIX;
}

int
loop_connections(const struct loop *loop)
{
    int count = 0;
    int fd;

    for (fd = 0; fd <= loop->highest; fd++)
        count += is_watched(loop, fd) && loop_is_connection(fd);
    return count;
}
