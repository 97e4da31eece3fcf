/* test_watcher.c - the face for event loops: what a loop is asked to watch and
 * to close, through whole lives of connections, presses and pools. */
#include "loop.h"

#include <fcntl.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *const symbols[] = {"AAA", "BBB", "CCC", "DDD", "EEE"};

/* ---- Connections that stay ---------------------------------------------- */

/* A connection that a blocking call left behind goes to a loop that has never
 * seen its number, and has ended meanwhile. */
static void
test_unwatched_connection_found_dead(void **state)
{
    struct world world;
    struct loop loop;
    struct pressed pressed;

    (void)state;
    world_open(&world, NULL, 0);
    world_press(&world);
    assert_int_equal(world.outcome.kind, ESP_OK);
    server_push(world.server, NULL);
    loop_open(&loop, world.pool);
    loop_press(&loop, &world.cancel, symbols, 1, &pressed);
    assert_non_null(pressed.press);
    loop_run(&loop, &pressed);
    assert_int_equal(esp_press_outcome(pressed.press, 0)->kind, ESP_OK);
    assert_int_equal(server_connections(world.server), 2);
    loop_free(&loop, &pressed);
    loop_close(&loop);
    world_close(&world);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unwatched_connection_found_dead),
    };

    return cmocka_run_group_tests_name("watcher", tests, NULL, NULL);
}
