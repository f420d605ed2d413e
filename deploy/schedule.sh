#!/bin/sh
# Runs command lines by the clock, for a container that has no cron:
#
#     schedule.sh every SECONDS LINE...     at once, and then so long after the end of the last one
#     schedule.sh daily HH:MM LINE...       each day at that time, in UTC
#
# The lines, one command each, are run one after the other, whatever the one before said; a code other than 0 is told on
# stderr. One run at a time, so none ever overlaps with the next. Stopping this (SIGTERM, SIGINT) stops the command that
# runs, waits for it to clean up, and ends with its code.
set -eu

usage() {
    echo "usage: schedule.sh every SECONDS LINE... | daily HH:MM LINE..." >&2
    exit 2
}

child=
stopped=

stop() {
    stopped=1
    [ -z "$child" ] || kill -TERM "$child" 2> /dev/null || true
}

# Waits for $child, again where a signal interrupted the wait; its code is left in $code.
finish() {
    [ -z "$stopped" ] || stop
    while :; do
        code=0
        wait "$child" || code=$?
        if [ "$code" -le 128 ] || ! kill -0 "$child" 2> /dev/null; then break; fi
    done
    child=
    [ -z "$stopped" ] || exit "$code"
}

# Seconds until a time of day, HH:MM: from 1 to 86400.
until_time() {
    hour=${1%:*} minute=${1#*:}
    wanted=$((${hour#0} * 3600 + ${minute#0} * 60))
    echo $(((wanted - $(date -u +%s) % 86400 + 86399) % 86400 + 1))
}

pause() {
    sleep "$1" &
    child=$!
    finish
}

[ $# -ge 3 ] || usage
kind=$1 when=$2
shift 2
case $kind:$when in
    every:*[!0-9]* | every:0* | every:) usage ;;
    every:*) ;;
    daily:[01][0-9]:[0-5][0-9] | daily:2[0-3]:[0-5][0-9]) ;;
    *) usage ;;
esac
trap stop TERM INT

while :; do
    [ "$kind" = every ] || pause "$(until_time "$when")"
    for line; do
        sh -c "exec $line" &
        child=$!
        finish
        [ "$code" = 0 ] || echo "schedule: \`$line\` ended with $code" >&2
    done
    [ "$kind" = daily ] || pause "$when"
done
