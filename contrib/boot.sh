#!/bin/bash
# Boots a Debian 12 of its own with the shipped units, under a real systemd (systemd-nspawn(1)), and
# checks what only systemd can show: enabled units, READY, a reload that is refused, a restart with a
# broken file, the watchdog, a stop; that the commands which people run can do their work under the
# unit, and others cannot; that the drop-ins work. Needs root. Installs what is missing; nothing of the
# host changes beyond that. The first run makes the system (two minutes); it is kept in target/boot-*.tar.
set -euo pipefail

if [ "${1:-}" != inside ]; then
    cd "$(dirname "$0")/.."
    # shellcheck source=contrib/need.sh
    . contrib/need.sh
    [ "$(id -u)" -eq 0 ] || { echo "boot.sh: systemd-nspawn needs root" >&2; exit 77; }
    need_rust
    # shellcheck disable=SC2086 # a list of words
    need $BUILD mmdebstrap systemd-container
    cargo build --quiet --locked --release
    target=${CARGO_TARGET_DIR:-target}
    packages=systemd,systemd-sysv,dbus,nftables,libpcap0.8,libnftnl11,libmnl0,procps,iproute2
    # What commands of doors run.
    packages+=,iptables,ipset,ufw,conntrack,etherwake,sudo,postfix,bsd-mailx,kmod
    system=$target/boot-$(cksum <<<"$packages" | cut -d' ' -f1).tar
    if [ ! -e "$system" ]; then
        mmdebstrap --quiet --variant=minbase --include="$packages" bookworm "$target/boot.part.tar"
        mv "$target/boot.part.tar" "$system"
    fi
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    root=$work/root
    mkdir "$root"
    tar -C "$root" --exclude='./dev/*' -xf "$system"
    install -t "$root/usr/sbin" "$target/release/knockd"
    install -m 0644 -t "$root/usr/lib/systemd/system" contrib/systemd/*.service
    install -m 0755 -t "$root/root" contrib/boot.sh
    install -m 0644 -t "$root/root" contrib/systemd/drop-ins/*.conf
    install -D -m 0644 contrib/systemd/knockd.sysusers "$root/usr/lib/sysusers.d/knockd.conf"
    install -D -m 0644 contrib/systemd/knockd.tmpfiles "$root/usr/lib/tmpfiles.d/knockd.conf"
    # What Debian's package would do at `systemctl enable`.
    systemctl --quiet --root="$root" enable knockd.service knockd-guard.service
    cat >"$root/etc/knockd.toml" <<'FILE'
[firewall]

[door.ssh]
sequence = ["61724/tcp", "28117/udp", "40961/tcp"]
open     = ["22/tcp"]
FILE
    chmod 0600 "$root/etc/knockd.toml"
    # What ProtectKernelModules= hides, if it is there when the unit starts.
    mkdir -p "$root/usr/lib/modules"
    touch "$root/usr/lib/modules/knocked"
    # A watchdog that is soon over.
    mkdir "$root/etc/systemd/system/knockd.service.d"
    printf '[Service]\nWatchdogSec=2s\n' >"$root/etc/systemd/system/knockd.service.d/soon.conf"
    cat >"$root/etc/systemd/system/checks.service" <<'UNIT'
[Unit]
After=multi-user.target
[Service]
Type=oneshot
ExecStart=/bin/bash /root/boot.sh inside
StandardOutput=file:/root/said
StandardError=file:/root/said
ExecStopPost=/bin/systemctl poweroff --no-block
[Install]
WantedBy=multi-user.target
UNIT
    systemctl --quiet --root="$root" enable checks.service
    timeout 300 systemd-nspawn --quiet --register=no --keep-unit --directory="$root" \
        --machine=knockd-boot --private-network --capability=CAP_NET_ADMIN,CAP_NET_RAW \
        --system-call-filter='landlock_add_rule landlock_create_ruleset landlock_restrict_self' --boot \
        >"$work/console" 2>&1 || true
    cat "$root/root/said" 2>/dev/null || tail -n 30 "$work/console"
    grep -qx 'all is well' "$root/root/said"
    exit
fi

# From here on: inside, as the unit checks.service.
failed=0
# check WHAT COMMAND...: it succeeds.
check() {
    local what=$1
    shift
    if "$@" >/dev/null 2>&1; then
        echo "ok: $what"
    else
        echo "FAILED: $what ($*)"
        failed=1
    fi
}
refused() { ! "$@"; }
status_text() { systemctl show knockd -p StatusText | grep -qF "$1"; }
says() { knockd status | grep -qF "$1"; }
guarded() { nft list set inet knockd guarded | grep -q '22'; }
main_pid() { systemctl show -P MainPID knockd; }
# until_true SECONDS COMMAND...
until_true() {
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        [ $SECONDS -lt $end ] || return 1
        sleep 0.1
    done
}
other_pid() { [ "$(main_pid)" != "$1" ] && [ "$(main_pid)" != 0 ]; }

check "the unit of the guard has run" systemctl is-active knockd-guard
check "the daemon is ready" systemctl is-active knockd
check "the port is guarded" guarded
check "a reload of a good file" systemctl reload knockd

cp /etc/knockd.toml /root/good.toml
echo 'nonsense = 1' >>/etc/knockd.toml
check "a reload of a broken file fails" refused systemctl reload knockd
check "the daemon goes on" systemctl is-active knockd
check "systemctl status tells it" status_text 'IS REFUSED, in use is the configuration that was running'
check "knockd status tells it" says 'unknown key `nonsense`'
check "a restart with a broken file" systemctl restart knockd
check "what is in use then is told" status_text 'in use is the last configuration that was good'
check "the port is still guarded" guarded
cp /root/good.toml /etc/knockd.toml
check "a reload of the repaired file" systemctl reload knockd
check "and all is forgotten" refused status_text REFUSED

pid=$(main_pid)
kill -STOP "$pid"
check "a daemon that hangs is replaced" until_true 30 other_pid "$pid"
check "its successor is ready" until_true 30 systemctl is-active knockd
check "the port is guarded after it" guarded
pid=$(main_pid)
kill -KILL "$pid"
check "a daemon that was killed is replaced" until_true 30 other_pid "$pid"
check "its successor is ready, too" until_true 30 systemctl is-active knockd

# run NAME COMMAND: the door NAME has a command that runs this script of sh, with the address in
# place of %IP%.
count=0
doors=/root/with-commands.toml
run() {
    count=$((count + 1))
    printf '%s\n' "$2" | sed 's/%IP%/$1/g' >"/root/bin/$1"
    printf '\n[door.%s]\nsequence = ["%s/tcp", "%s/udp", "%s/tcp"]\n' \
        "$1" $((20000 + count * 7)) $((30011 + count * 13)) $((10007 + count * 11))
    printf 'start_command = "sh -e /root/bin/%s %%IP%%; echo $? >/root/ran/%s"\n' "$1" "$1"
} >>$doors
ended() { [ -s "/root/ran/$1" ]; }
# has_run NAME TEST...: the door's command has run, and its exit code passes the test.
has_run() {
    knockd open "$1" 192.0.2.7 && until_true 20 ended "$1" && [ "$(cat "/root/ran/$1")" "$2" 0 ]
}
can() { check "a command can use $1" has_run "$2" -eq; }
cannot() { check "a command cannot $1" has_run "$2" -ne; }

# What the commands meet: a link, a mail server, a unit, sets, processes.
ip link add knock0 type veth peer name knock1
ip link set knock0 up
ip link set knock1 up
postconf -e 'mydestination = localhost' 'inet_interfaces = loopback-only' 'myhostname = localhost'
systemctl restart postfix
ipset create allowed hash:ip
nft add table inet own
nft 'add set inet own allowed { type ipv4_addr; }'
printf '[Service]\nType=oneshot\nExecStart=/bin/touch /root/ran/unit\n' \
    >/run/systemd/system/other.service
systemctl daemon-reload
mkdir -p /root/bin /root/ran /home/someone
sleep 600 &
echo $! >/run/own.pid
cp /etc/knockd.toml $doors
run iptables 'iptables -I INPUT -s %IP% -p tcp --dport 22 -j ACCEPT
    iptables -D INPUT -s %IP% -p tcp --dport 22 -j ACCEPT'
run ip6tables 'ip6tables -A INPUT -p tcp --dport 22 -j ACCEPT'
run ufw 'ufw allow from %IP% to any port 22 proto tcp; grep -q %IP% /etc/ufw/user.rules'
run ipset 'ipset add allowed %IP%'
run nft 'nft add element inet own allowed { %IP% }'
run conntrack 'conntrack -L -s %IP%'
run ip 'ip route add blackhole 198.51.100.0/24'
run sysctl 'sysctl -w net.ipv4.ip_forward=1'
run etherwake 'etherwake -i knock0 00:11:22:33:44:55'
run mail 'echo %IP% | mail -s knock root
    for n in $(seq 100); do grep -q %IP% /var/mail/* && exit; sleep 0.1; done; exit 1'
run tcp 'bash -c "exec 3<>/dev/tcp/127.0.0.1/25"'
run logger 'logger -t knocked %IP%; journalctl --sync; journalctl -t knocked | grep -q %IP%'
run systemctl 'systemctl start other; test -e /root/ran/unit'
run systemd_run 'systemd-run --wait true'
run sudo 'sudo -u nobody touch /tmp/of-nobody; test "$(stat -c %U /tmp/of-nobody)" = nobody'
run scripts 'python3 -c "open(\"/root/list\", \"a\").write(\"%IP%\")"; perl -e 1'
run files 'for f in /etc /var/log /var/tmp /tmp /home/someone /srv /opt /run; do
    echo %IP% >$f/knocked; done'
run nice 'nice -n 5 ionice -c 3 taskset 1 true'
run pidof 'pidof systemd; pgrep -u root knockd'
run signal 'kill "$(cat /run/own.pid)"'
run usr 'touch /usr/knocked'
run modules 'test -e /usr/lib/modules/knocked'
run module 'cp /bin/true /tmp/x.ko; insmod /tmp/x.ko'
run clock 'date -s @0'
run hostname 'hostname knocked'
run namespaces 'unshare --net true'
run realtime 'chrt -f 1 true'
run suid 'cp /bin/true /root/true; chmod u+s /root/true'
run vsock 'python3 -c "import socket; socket.socket(socket.AF_VSOCK)"'
run mount 'mount -t tmpfs tmpfs /mnt'
run others 'pgrep -u postfix'
chmod 0600 $doors
cp $doors /etc/knockd.toml
check "a reload that brings commands" systemctl reload knockd

can iptables iptables
can ip6tables ip6tables
can ufw ufw
can ipset ipset
can nft nft
can conntrack conntrack
can ip ip
can sysctl sysctl
can etherwake etherwake
can "mail, which is delivered" mail
can TCP tcp
can logger logger
can systemctl systemctl
can systemd-run systemd_run
can sudo sudo
can "scripts of Python and Perl" scripts
can "files in /etc, /var, /tmp, /home, /srv, /opt, /run" files
can "nice, ionice and taskset" nice
can "pidof and pgrep on processes of root" pidof
can "pgrep on processes of others" others
can "a signal to a process of root" signal
cannot "write to /usr" usr
cannot "see modules" modules
cannot "load a module" module
cannot "set the clock" clock
cannot "change the host's name" hostname
cannot "make namespaces" namespaces
cannot "have real-time scheduling" realtime
cannot "make a file setuid" suid
cannot "open a socket of vsock" vsock
cannot "mount" mount
cp /root/good.toml /etc/knockd.toml

# drop_in [FILE]: the daemon runs with this drop-in, or with none.
drop_in() {
    rm -f /etc/systemd/system/knockd.service.d/{typed,iptables}.conf
    [ -z "${1:-}" ] || install -m 0644 "/root/$1" /etc/systemd/system/knockd.service.d/
    systemctl daemon-reload
    systemctl restart knockd
}
owned() { [ "$(stat -c %U:%a "$1")" = "$2" ]; }
main_is() { [ "$(ps -o user= -p "$(main_pid)")" = "$1" ]; }
may_load() { systemctl show -P CapabilityBoundingSet knockd | grep -q cap_sys_module; }
is_open() { knockd list | grep -q "$1"; }
kept() { knockd status | grep -F "could not"; }

check "nothing is kept that was to be given up" refused kept
check "the drop-in for iptables starts" drop_in iptables.conf
check "with it modules may be loaded" may_load
systemd-sysusers
chgrp knockd /etc/knockd.toml
chmod 0640 /etc/knockd.toml
check "the drop-in for typed configurations starts" drop_in typed.conf
check "with it no modules may be loaded" refused may_load
check "the daemon is knockd's" main_is knockd
check "the state is knockd's" owned /var/lib/knockd knockd:700
check "the run directory is knockd's" owned /run/knockd knockd:700
check "a reload works there" systemctl reload knockd
check "a door opens there" knockd open ssh 192.0.2.7
check "and is open" is_open 192.0.2.7
check "nothing is kept there that was to be given up" refused kept
check "the guard beside it does no harm" systemctl restart knockd-guard
pid=$(main_pid)
kill -KILL "$pid"
check "it is replaced there when it dies" until_true 30 other_pid "$pid"
check "its successor is ready there" until_true 30 systemctl is-active knockd
check "and what was open still is" is_open 192.0.2.7
echo 'nonsense = 1' >>/etc/knockd.toml
check "a reload of a broken file fails there" refused systemctl reload knockd
check "a restart takes the last good file there" systemctl restart knockd
check "and tells it there" status_text 'in use is the last configuration that was good'
systemctl stop knockd
nft delete table inet knockd
check "the guard takes the last good file of knockd's" systemctl restart knockd-guard
check "and guards" guarded
cp /root/good.toml /etc/knockd.toml
chown root:root /etc/knockd.toml
chmod 0600 /etc/knockd.toml
check "it starts without a drop-in again" drop_in
check "the state is root's again" owned /var/lib/knockd root:700
check "the run directory is root's again" owned /run/knockd root:700
steps_told() { journalctl | grep -E '61724|28117|40961'; }
check "the journal names no step" refused steps_told

check "it stops" systemctl stop knockd
check "the guard outlives it" guarded
rm /etc/knockd.toml
rm -rf /var/lib/knockd
check "a start without a configuration fails" refused systemctl start knockd
check "and the guard stands" guarded

if [ $failed -ne 0 ]; then
    journalctl --no-pager -u knockd -u knockd-guard | tail -n 60
    exit 1
fi
echo 'all is well'
