#!/bin/sh
# A scheduler under Handover's lease, with nothing but a shell, the file lease.json, and curl for the acknowledgements.
# The agent starts it, with `service = "pull"` under [lease] in its config. One thing after the other: whenever it
# answers, no unit is under way.

# CLOCK_BOOTTIME in nanoseconds. /proc/uptime is cut off at hundredths, so one is added: late is the safe side.
boot_ns() {
    read -r up _ < /proc/uptime
    echo $(( (${up%.*} * 100 + 1${up#*.} - 100 + 1) * 10000000 ))
}

field() {
    printf '%s' "$record" | sed -n "s/.*\"$1\":\"\{0,1\}\([^\",}]*\).*/\1/p"
}

acknowledge() {
    quoted=null
    [ "$token" = null ] || quoted="\"$token\""
    curl -sS --max-time 2 -o /dev/null --unix-socket "$HANDOVER_LEASE_SOCKET" \
        -d "{\"v\":1,\"token\":$quoted,\"seq\":$seq,\"state\":\"$1\",\"c_unit_ms\":200,\"progress\":$done}" \
        "http://agent/v1/ack?instance=$HANDOVER_INSTANCE"
    acknowledged=$seq
}

unit() {
    # One transaction that begins with SELECT handover.fence_check('billing', $token). Here: a line.
    echo "$HANDOVER_INSTANCE $now $token $soft" >> "$WORK_LOG"
    sleep 0.03
    done=$((done + 1))
}

acknowledged=0 done=0
read -r boot_id < /proc/sys/kernel/random/boot_id
while :; do
    record=$(cat "$HANDOVER_LEASE_FILE" 2>/dev/null)
    state=$(field state) token=$(field token) seq=$(field seq) soft=$(field soft_deadline_boot_ns)
    # Never act on what another instance was told, nor on a deadline of another boot: as if there were no record.
    if [ "$(field instance)" != "$HANDOVER_INSTANCE" ] || [ "$(field boot_id)" != "$boot_id" ]; then state='' seq=''; fi
    if [ -n "$seq" ] && [ "$seq" != "$acknowledged" ]; then
        # A new token would be installed in the database here, before STARTED (docs/postgresql.md).
        if [ "$state" = ACTIVE ]; then acknowledge STARTED; else acknowledge QUIESCED; fi
    fi
    now=$(boot_ns)
    if [ "$state" = ACTIVE ] && [ "$now" -lt "$soft" ]; then unit; fi
    sleep 0.02
done
