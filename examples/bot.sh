#!/bin/sh
# A bot in another language (a shell will do), under a guard:
#
#     espresso guard ADAUSDM --heartbeat 10 -- examples/bot.sh ADAUSDM
#
# It beats by writing a byte to the descriptor named in ESPRESSO_BEAT_FD. Any
# language can: the number is that of an open pipe, and one byte is one beat.
set -eu

symbol=$1
turns=${TURNS:-}
turn=0

beat() {
    [ -z "${ESPRESSO_BEAT_FD:-}" ] || echo >&"$ESPRESSO_BEAT_FD"
}

while [ -z "$turns" ] || [ "$turn" -lt "$turns" ]; do
    echo "$symbol: quote $turn" # here your bot places its orders
    beat
    sleep "${PAUSE:-1}"
    turn=$((turn + 1))
done
