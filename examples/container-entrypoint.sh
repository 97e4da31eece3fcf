#!/bin/sh
# The entry point of a container in which a bot trades:
#
#     ENTRYPOINT ["/app/container-entrypoint.sh"]
#     CMD ["python", "/app/bot.py"]
#
# SYMBOLS, DELTADEFI_API_KEY: from the container's environment.
#
# `exec` makes the guard process 1. That matters: when process 1 ends, the kernel
# kills whatever else is in the container, the guard's watchdog too. As process 1
# the guard outlives the bot, passes `docker stop` on to it, buries orphans, and
# does not end before it is proven that nothing is open.
#
# What it cannot do: `docker kill`, the end of the machine, or a stop time-out
# shorter than a bot's end and a cancel take (`docker stop --time 30`) end all of
# the container at once, and nobody cancels then.
set -eu

: "${SYMBOLS:?the symbols to guard, such as \"ADAUSDM NIGHTUSDM\"}"
exec ${ESPRESSO:-espresso} guard $SYMBOLS --at-start -- "$@"
