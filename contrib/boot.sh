#!/bin/bash
# Boots a Debian 12 of its own with the shipped units, under a real systemd (systemd-nspawn(1)), and
# checks what only systemd can show: enabled units, READY, a reload that is refused, a restart with a
# broken file, the watchdog, a stop. Needs root. Installs what is missing; nothing of the host changes
# beyond that. The first run makes the system (two minutes); it is kept in target/boot.tar.
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
    if [ ! -e "$target/boot.tar" ]; then
        mmdebstrap --quiet --variant=minbase \
            --include=systemd,systemd-sysv,dbus,nftables,libpcap0.8,libnftnl11,libmnl0 \
            bookworm "$target/boot.part.tar"
        mv "$target/boot.part.tar" "$target/boot.tar"
    fi
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    root=$work/root
    mkdir "$root"
    tar -C "$root" --exclude='./dev/*' -xf "$target/boot.tar"
    install -t "$root/usr/sbin" "$target/release/knockd"
    install -m 0644 -t "$root/usr/lib/systemd/system" contrib/systemd/*.service
    install -m 0755 -t "$root/root" contrib/boot.sh
    # What Debian's package would do at `systemctl enable`.
    systemctl --quiet --root="$root" enable knockd.service knockd-guard.service
    cat >"$root/etc/knockd.toml" <<'FILE'
[firewall]

[door.ssh]
sequence = ["61724/tcp", "28117/udp", "40961/tcp"]
open     = ["22/tcp"]
FILE
    chmod 0600 "$root/etc/knockd.toml"
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
    timeout 180 systemd-nspawn --quiet --register=no --keep-unit --directory="$root" \
        --machine=knockd-boot --private-network --capability=CAP_NET_ADMIN,CAP_NET_RAW --boot \
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
