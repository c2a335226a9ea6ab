#!/bin/bash
# Shows what knockd does, on real packets and the real kernel, in network namespaces of
# its own: no root needed, and nothing on this machine is touched. Installs what is
# missing on Debian 12 (and asks first on a terminal), and builds. It looks first for what it
# cannot install.
set -euo pipefail
cd "$(dirname "$0")/.."

# Outside: prepare, then run this script again as the root of a namespace.
if [ -z "${KNOCKD_DEMO:-}" ]; then
    # Root needs no user namespace, and may not have any.
    user=(--user --map-root-user)
    [ "$(id -u)" -ne 0 ] || user=()
    apart=("${user[@]}" --net --mount --pid --fork --kill-child)
    # Where the programs are. A test sets it, and nothing is built.
    if [ -z "${KNOCKD_PROGRAMS:-}" ]; then
        # shellcheck source=contrib/need.sh
        . contrib/need.sh
        need_rust
        need_namespaces "${apart[@]}"
        # shellcheck disable=SC2086 # a list of words
        need $BUILD nftables iproute2 perl-base ca-certificates
        cargo build --locked --bins
        KNOCKD_PROGRAMS=${CARGO_TARGET_DIR:-target}/debug
    fi
    KNOCKD_DEMO=$(mktemp -d)
    export KNOCKD_DEMO KNOCKD_PROGRAMS
    trap 'rm -r "$KNOCKD_DEMO"' EXIT
    # A process namespace, so that with this script everything it began ends.
    unshare "${apart[@]}" --mount-proc bash contrib/demo.sh
    exit
fi

PATH=$PATH:/usr/sbin:/sbin
work=$KNOCKD_DEMO
umask 077

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
indent() { sed -u 's/^/    /'; }
fail() {
    printf '\nThis should not have happened: %s\n\nThe log of knockd:\n' "$*"
    indent <"$work/log"
    exit 1
}
# soon WHAT COMMAND...: waits until the command succeeds, ten seconds at most.
soon() {
    local what=$1 tries
    shift
    for ((tries = 0; tries < 200; tries++)); do
        "$@" >/dev/null 2>&1 && return
        sleep 0.05
    done
    fail "waited in vain for $what"
}
client() { nsenter --target "$client" --net "$@"; }
# connect: a client begins a session, and prints the first line it is told.
connect() {
    # shellcheck disable=SC2016 # for the inner shell
    client timeout 3 bash -c 'exec 3<>/dev/tcp/192.0.2.1/22 && read -r line <&3 && echo "$line"' 2>&1 |
        sed 's|^.*/dev/tcp/192.0.2.1/22: ||' | tail -n 1 | tee "$work/connected" | indent || true
}
knocker_may() { nft list set inet knockd openings_v4 | grep 192.0.2.77 >/dev/null; }

# Two hosts and a wire. The server is here, the client in a second namespace.
unshare --net sleep infinity &
client=$!
apart() { [ "$(readlink "/proc/$client/ns/net")" != "$(readlink /proc/self/ns/net)" ]; }
soon "the client's namespace" apart
ip link set lo up
ip link add eth0 type veth peer name eth0 netns "$client"
ip address add 192.0.2.1/24 dev eth0
ip link set eth0 up
client ip address add 192.0.2.77/24 dev eth0
client ip link set eth0 up

# What stands in for sshd: a greeting, and then it says everything back.
perl -MIO::Socket::INET -e '
    $SIG{CHLD} = "IGNORE";
    my $server = IO::Socket::INET->new(LocalPort => 22, Listen => 9) or die "22/tcp: $!";
    while (my $session = $server->accept) {
        next if fork;
        print $session "SSH-2.0-demo\n";
        print $session $_ while <$session>;
        exit;
    }' &

say "A server, 192.0.2.1, has a service at 22/tcp, and anybody can reach it:"
soon "the service" client bash -c ': <>/dev/tcp/192.0.2.1/22'
connect
grep -q SSH "$work/connected" || fail "the service is out of reach"

say "Now knockd guards it, told so by this file:"
tee "$work/knockd.toml" <<'TOML' | indent
[firewall]
guard = "reject"                # or "drop": no answer at all

[door.ssh]
sequence = ["17301/tcp", "4022/udp", "39855/tcp"]
open     = ["22/tcp"]
open_for = "5s"
TOML
"$KNOCKD_PROGRAMS/knockd" -v -c "$work/knockd.toml" \
    --state-dir "$work/state" --run-dir "$work/run" >"$work/log" 2>&1 &
soon "knockd" grep "listening on" "$work/log"

say "A client, 192.0.2.77, tries to connect:"
connect
grep -q "refused" "$work/connected" || fail "the guard let it in"

say "It knocks:  knock -v 192.0.2.1 17301 4022:udp 39855"
client "$KNOCKD_PROGRAMS/knock" -v 192.0.2.1 17301 4022:udp 39855 | indent

say "knockd has seen it:"
soon "the knock" grep "OPEN SESAME" "$work/log"
grep "192.0.2.77" "$work/log" | indent

say "The port is open, for this client and for five seconds:  nft list set inet knockd openings_v4"
soon "the opening" knocker_may
nft list set inet knockd openings_v4 | indent

say "It connects, and keeps the session:"
# shellcheck disable=SC2016 # for the inner shell
coproc session { client bash -c '
    exec 3<>/dev/tcp/192.0.2.1/22
    while read -r line <&3; do echo "$line"; read -r line && echo "$line" >&3; done'; }
read -r -t 5 line <&"${session[0]}" || fail "no session"
echo "$line" | indent

say "Another client, 192.0.2.78, has not knocked:"
client ip address add 192.0.2.78/24 dev eth0
client ip route change 192.0.2.0/24 dev eth0 src 192.0.2.78
connect
grep -q "refused" "$work/connected" || fail "the guard let it in"
client ip route change 192.0.2.0/24 dev eth0 src 192.0.2.77

say "Five seconds later the kernel has taken the opening away:"
closed() { ! knocker_may; }
soon "the end of the opening" closed
nft list set inet knockd openings_v4 | indent

say "The first client tries to connect anew:"
connect
grep -q "refused" "$work/connected" || fail "the guard let it in"

say "But the session it has lives on:"
echo "still there?" >&"${session[1]}"
read -r -t 5 line <&"${session[0]}" || fail "the session is dead"
echo "$line" | indent

say "That is all. Your own: see README.md."
