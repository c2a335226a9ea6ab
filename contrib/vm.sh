#!/bin/bash
# Boots Debian 12's own kernel (6.1) under qemu, emulated, and checks what the
# kernel of a test machine may lack: that a VRF is guarded. Needs no root once the packages are there.
# The first run makes the system (two minutes); it is kept in target/vm.cpio.gz. A run takes half a minute.
set -euo pipefail

if [ "${1:-}" != inside ]; then
    cd "$(dirname "$0")/.."
    # shellcheck source=contrib/need.sh
    . contrib/need.sh
    need_rust
    need_namespaces
    # shellcheck disable=SC2086 # a list of words
    need $BUILD mmdebstrap qemu-system-x86 cpio kmod
    cargo build --quiet --locked --release
    target=$(realpath "${CARGO_TARGET_DIR:-target}")
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    if [ ! -e "$target/vm.cpio.gz" ]; then
        root=$work/root
        mkdir "$root" "$work/kernel"
        mmdebstrap --quiet --variant=minbase \
            --include=nftables,iproute2,socat,kmod,procps,libpcap0.8,libnftnl11,libmnl0 \
            bookworm "$work/root.tar"
        tar -C "$root" --exclude='./dev/*' --exclude='./usr/share/*' --exclude='./var/lib/apt/*' \
            -xf "$work/root.tar"
        image=$(apt-cache depends linux-image-amd64 | sed -n 's/.*Depends: \(linux-image-6.*\)/\1/p')
        (cd "$work" && apt-get -qq download "$image")
        dpkg-deb -x "$work"/linux-image-*.deb "$work/kernel"
        release=$(ls "$work/kernel/lib/modules")
        # The parts of the kernel that networking is made of.
        modules=lib/modules/$release
        for part in net lib crypto arch/x86/crypto drivers/net/veth.ko drivers/net/vrf.ko; do
            mkdir -p "$root/$modules/kernel/$(dirname "$part")"
            cp -a "$work/kernel/$modules/kernel/$part" "$root/$modules/kernel/$(dirname "$part")/"
        done
        cp "$work/kernel/$modules"/modules.{order,builtin,builtin.modinfo} "$root/$modules/"
        /sbin/depmod -b "$root" "$release"
        cp "$work/kernel/boot/vmlinuz-$release" "$target/vm.kernel"
        (cd "$root" && find . | cpio --quiet -o -H newc -R 0:0 | gzip -1) >"$work/vm.cpio.gz"
        mv "$work/vm.cpio.gz" "$target/vm.cpio.gz"
    fi
    # A second archive, unpacked over the first.
    mkdir -p "$work/ours/usr/sbin"
    install -t "$work/ours/usr/sbin" "$target/release/knockd"
    install contrib/vm.sh "$work/ours/checks"
    printf '#!/bin/bash\nexec /bin/bash /checks inside\n' >"$work/ours/begin"
    chmod 0755 "$work/ours/begin"
    (cd "$work/ours" && find . | cpio --quiet -o -H newc -R 0:0 | gzip -1) >"$work/ours.cpio.gz"
    cat "$target/vm.cpio.gz" "$work/ours.cpio.gz" >"$work/all"
    # Emulated: a /dev/kvm within a virtual machine may be there and hang.
    timeout 600 qemu-system-x86_64 -accel tcg -m 2048 -smp 2 -display none -no-reboot \
        -serial "file:$work/console" -kernel "$target/vm.kernel" -initrd "$work/all" \
        -append 'console=ttyS0 rdinit=/begin quiet loglevel=3' </dev/null || true
    tr -d '\r' <"$work/console" >"$work/said"
    grep -E '^(ok|FAILED|kernel|all is well)' "$work/said" || tail -n 40 "$work/said"
    grep -qx 'all is well' "$work/said" || { tail -n 40 "$work/said"; exit 1; }
    exit
fi

# From here on: inside, as the first process.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
trap 'echo o >/proc/sysrq-trigger; sleep 60' EXIT
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /run
exec >/dev/console 2>&1
echo "kernel $(uname -r)"
failed=0
# check WHAT COMMAND...: it succeeds.
check() {
    local what=$1
    shift
    if "$@"; then
        echo "ok: $what"
    else
        echo "FAILED: $what ($*)"
        failed=1
    fi
}
refused() { ! "$@"; }
# until_true SECONDS COMMAND...
until_true() {
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        [ $SECONDS -lt $end ] || return 1
        sleep 0.2
    done
}
client() { timeout 10 ip netns exec client "$@"; }
tcp() { client socat -u "TCP:192.0.2.1:$1,connect-timeout=3" - </dev/null 2>/dev/null | grep -q hello; }
# The server writes down what comes: whether an answer finds its way is another question.
udp() {
    local before after
    before=$(wc -l </run/datagrams)
    echo x | client socat -u - UDP:192.0.2.1:53
    sleep 1
    after=$(wc -l </run/datagrams)
    [ "$after" -gt "$before" ]
}
answers() { knockd status >/run/status 2>/dev/null; }
open() { nft list set inet knockd openings_v4 | grep -q 192.0.2.77; }
knock() {
    client socat -u /dev/null TCP:192.0.2.1:61724,connect-timeout=1 2>/dev/null || true
    echo x | client socat -u - UDP:192.0.2.1:28117
    client socat -u /dev/null TCP:192.0.2.1:40961,connect-timeout=1 2>/dev/null || true
}

for module in veth vrf nf_tables nft_fib_inet nft_ct af_packet; do
    modprobe "$module"
done
ip link set lo up
ip netns add client
ip link add red type vrf table 10
ip link set red up
ip link add eth0 type veth peer name eth0 netns client
ip link set eth0 master red
ip address add 192.0.2.1/24 dev eth0
ip link set eth0 up
ip -n client address add 192.0.2.77/24 dev eth0
ip -n client link set eth0 up
: >/run/datagrams
socat TCP-LISTEN:22,fork,reuseaddr,so-bindtodevice=red SYSTEM:'echo hello' &
socat -u UDP-RECV:53,so-bindtodevice=red OPEN:/run/datagrams,append &
mkdir -p /etc /var/lib/knockd
cat >/etc/knockd.toml <<'FILE'
[firewall]

[door.ssh]
sequence = ["61724/tcp", "28117/udp", "40961/tcp"]
open     = ["22/tcp", "53/udp"]
FILE
chmod 0600 /etc/knockd.toml

check "TCP is answered without a guard" until_true 20 tcp 22
check "UDP comes in without a guard" until_true 20 udp
knockd -v &
check "the daemon runs" until_true 60 answers
check "TCP to a VRF is guarded" refused tcp 22
check "UDP to a VRF is guarded" refused udp
knock
check "a knock at a VRF opens" until_true 20 open
check "TCP is answered then" until_true 10 tcp 22
check "UDP comes in then" udp
check "knockd check says so" knockd check
[ $failed -eq 0 ] && echo "all is well"
