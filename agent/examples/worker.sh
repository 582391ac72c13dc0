#!/bin/sh
# A worker that knows of Handover's lease only what `handover-agent lease exec` tells it: it runs while the lease is held,
# SIGTERM means "finish the present unit", and the fencing token is in HANDOVER_LEASE_TOKEN. In the agent's config:
#
#   command = ["handover-agent", "lease", "exec", "--restart", "--", "{builds}/{version}/worker.sh"]
#   [lease]
#   service = "pull"

trap 'stop=1' TERM
stop=
# Its first statement would install the token: SELECT handover.fence_install('billing', $HANDOVER_LEASE_TOKEN, '…')
while [ -z "$stop" ]; do
    read -r up _ < /proc/uptime
    echo "$HANDOVER_INSTANCE $(( (${up%.*} * 100 + 1${up#*.} - 100) * 10000000 )) $HANDOVER_LEASE_TOKEN 0" >> "$WORK_LOG"
    sleep 0.03
done
