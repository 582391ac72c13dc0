# The first process of a site of booted hosts. Everything of the site is in namespaces that end with this process, and it
# ends with its standard input: keeper.sh NAME HOSTS PROGRAMS UNITS SHARED
set -u
name=$1 hosts=$2 programs=$3 units=$4 shared=$5
fail() { echo "failed: $*"; exit 1; }
# The controllers' hierarchies differ from machine to machine; systemd needs one of its own, and it must be ours.
cg=/sys/fs/cgroup
if [ -d $cg/unified ]; then trees="unified systemd"; else trees=.; fi
declare -A nspawn=()

# The network between the hosts, and their addresses on it. We ourselves are 10.88.0.254.
mount -t tmpfs -o mode=755 none /run && mkdir /run/netns /run/hosts && ip link set lo up || fail "a /run of its own"
ip link add br0 type bridge && ip link set br0 up && ip addr add 10.88.0.254/24 dev br0 || fail "a bridge"

make_host() {
    local i=$1 dir=/run/hosts/$1 root=/run/hosts/$1/root generator
    ip netns add "h$i" && ip link add "p$i" type veth peer name eth0 netns "h$i" && ip link set "p$i" master br0 up &&
        ip -n "h$i" addr add "10.88.0.$i/24" dev eth0 && ip -n "h$i" link set eth0 up && ip -n "h$i" link set lo up ||
        fail "the network of host $i"
    # Its disk: this machine's own files, with what the host writes on top. It outlives the host's loss of power.
    mkdir "$dir" && mount -t tmpfs none "$dir" && mkdir "$dir/upper" "$dir/work" "$root" &&
        mount -t overlay overlay -o "lowerdir=/,upperdir=$dir/upper,workdir=$dir/work" "$root" || fail "the disk of host $i"
    printf 'app-%02d\n' "$i" >"$root/etc/hostname"
    rm -f "$root/etc/machine-id" "$root/etc/fstab"
    : >"$root/etc/machine-id"
    # Nothing starts but what a test asks for.
    rm -rf "$root"/etc/systemd/system/*.wants "$root"/etc/rc?.d/*
    mkdir -p "$root/etc/systemd/system-generators"
    for generator in systemd-sysv-generator postgresql-generator; do
        ln -sf /dev/null "$root/etc/systemd/system-generators/$generator"
    done
    for program in handover handover-agent billing; do
        ln -sf "/usr/lib/handover/$program" "$root/usr/bin/$program"
    done
    cp "$units"/*.service "$units"/*.socket "$root/lib/systemd/system/" || fail "the units of host $i"
}

boot() {
    (
        for tree in $trees; do
            mkdir -p "$cg/$tree/$name/$1" && echo "$BASHPID" >"$cg/$tree/$name/$1/cgroup.procs" || fail "a cgroup for host $1"
        done
        # Without a machined and the machine's own bus; so each host needs a cgroup of its own to stand in.
        SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 exec systemd-nspawn --quiet --register=no --keep-unit \
            --machine="$(printf 'app-%02d' "$1")" --directory="/run/hosts/$1/root" --network-namespace-path="/run/netns/h$1" \
            --bind-ro="$programs:/usr/lib/handover" --bind="$shared:/srv/site" --boot </dev/null >>"$shared/boot-$1.log" 2>&1
    ) &
    nspawn[$1]=$!
}

for i in $(seq "$hosts"); do make_host "$i"; done
echo ready
while read -r order i; do
    case $order in
    boot)
        # After a loss of power the kernel takes a moment to put the old one's namespaces away.
        [ -z "${nspawn[$i]:-}" ] || wait "${nspawn[$i]}"
        boot "$i"
        echo booting
        ;;
    *) fail "an unknown order $order" ;;
    esac
done
