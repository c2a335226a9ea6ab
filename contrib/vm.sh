#!/bin/bash
# Runs the tests of tests/machine: a Debian 12 with its own kernels, 6.1 and 6.12, under qemu, with a real
# systemd and the shipped units. Everything is emulated, since a /dev/kvm within a virtual machine may
# be there and hang. Needs no root once the packages are there.
#
#   vm.sh                 all tests, on both kernels
#   vm.sh 6.1             all tests on one kernel
#   vm.sh 6.12 boot open  on one kernel the tests with one of these words in the name
#   vm.sh make            runs none, and only makes what contrib/test.sh needs: the machine (a minute)
#
# `KNOCKD_PROGRAMS=target/release` has the knockd of that folder tested, `KNOCKD_BEFORE=COMMIT` the upgrade from
# that commit.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=contrib/need.sh
. contrib/need.sh

# From here the tests upgrade: the last knockd of one process.
BEFORE=${KNOCKD_BEFORE:-6d7f389}

target=${CARGO_TARGET_DIR:-target}
machine=$target/machine
# The machine is made anew when this file changes.
recipe=$(sha256sum <contrib/vm.sh)

# The parts of a kernel's modules that are kept: what networking is made of, and the disk.
PARTS="net lib crypto arch/x86/crypto fs/ext4 fs/jbd2 fs/mbcache.ko drivers/virtio drivers/block/virtio_blk.ko
    drivers/net/bonding drivers/net/ipvlan drivers/net/ppp drivers/net/slip drivers/net/vxlan
    drivers/net/wireguard drivers/net/dummy.ko drivers/net/geneve.ko drivers/net/ifb.ko
    drivers/net/macvlan.ko drivers/net/net_failover.ko drivers/net/tun.ko drivers/net/veth.ko
    drivers/net/virtio_net.ko drivers/net/vrf.ko"

# kernel VERSION PACKAGE WORK: leaves machine/VERSION.kernel, machine/VERSION.initrd, and the modules in
# WORK/root.
kernel() {
    local version=$1 work=$3/$1 root=$3/root image release part patterns=() modules
    mkdir "$work"
    image=$(apt-cache depends "$2" | sed -n 's/.*Depends: \(linux-image-6.*\)/\1/p')
    release=${image#linux-image-}
    modules=lib/modules/$release
    fetch_package "$image" "$work"
    for part in $PARTS; do
        # A module may be compressed.
        [ "${part%.ko}" = "$part" ] || part="$part*"
        patterns+=("./$modules/kernel/$part")
    done
    dpkg-deb --fsys-tarfile "$work"/linux-image-*.deb |
        tar -C "$work" --wildcards -x ./boot/vmlinuz-* "./$modules/modules.*" "${patterns[@]}"
    cp -a "$work/$modules" "$root/lib/modules/"
    /sbin/depmod -b "$root" "$release"
    cp "$work/boot/vmlinuz-$release" "$machine/$version.kernel"

    # The first archive that the kernel unpacks mounts the disk. A test adds another, with what is to
    # lie on the disk before the first boot.
    local first=$work/first number=10 file name
    mkdir -p "$first"/{bin,dev,modules,proc,root,sys}
    cp "$root/bin/busybox" "$first/bin/"
    for part in virtio_pci virtio_blk ext4 virtio_net; do
        /sbin/modprobe -d "$root" -S "$release" --show-depends "$part"
    done | sed -n 's/^insmod \([^ ]*\).*/\1/p' | while read -r file; do
        name=$(basename "$file" .xz)
        ! compgen -G "$first/modules/*-$name" >/dev/null || continue
        number=$((number + 1))
        case $file in
        *.xz) xz -dc "$file" ;;
        *) cat "$file" ;;
        esac >"$first/modules/$number-$name"
    done
    init >"$first/init"
    chmod 0755 "$first/init"
    (cd "$first" && find . | cpio --quiet -o -H newc -R 0:0) >"$machine/$version.initrd"
}

# init: prints the program that the kernel starts first.
init() {
    cat <<'INIT'
#!/bin/busybox sh
export PATH=/bin
for applet in cat chroot cp grep ip mount sleep switch_root umount insmod; do
    busybox ln -s busybox /bin/$applet
done
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
for module in /modules/*; do insmod "$module"; done
until [ -e /dev/vda ]; do sleep 0.05; done
mount -t ext4 -o noatime /dev/vda /root
if [ ! -e /root/furnished ]; then
    cp -a /disk/. /root/
    chroot /root /bin/bash /furnish
    : >/root/furnished
fi
# As where the root is mounted by network, or its passphrase is entered from afar.
if grep -qw network=early /proc/cmdline; then
    echo 0 >/proc/sys/net/ipv6/conf/all/accept_dad
    echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_dad
    ip link set eth0 up
    ip address add 192.0.2.1/24 dev eth0
    ip address add 2001:db8::1/64 dev eth0
fi
umount /sys
umount /proc
mount -o move /dev /root/dev
exec switch_root /root /sbin/init
INIT
}

make() {
    if [ "$(cat "$machine/recipe" 2>/dev/null)" = "$recipe" ]; then
        return
    fi
    need_namespaces
    need mmdebstrap uidmap qemu-system-x86 e2fsprogs cpio kmod xz-utils
    local work
    work=$(mktemp -d)
    # shellcheck disable=SC2064 # this one
    trap "rm -rf '$work'" EXIT
    rm -rf "$machine"
    mkdir -p "$machine" "$work/root"
    echo "${0##*/}: making the machine"
    mmdebstrap --quiet --variant=essential \
        --include=systemd,systemd-sysv,udev,kmod,busybox-static,libpcap0.8,libnftnl11,libmnl0 \
        --include=nftables,iproute2,procps,socat,ppp,wireguard-tools \
        bookworm "$work/root.tar"
    tar -C "$work/root" --no-same-owner --exclude='./dev/*' --exclude='./usr/share/*' \
        --exclude='./var/lib/apt/*' --exclude='./var/cache/*' -xf "$work/root.tar"
    mkdir -p "$work/root/lib/modules"
    kernel 6.1 linux-image-amd64 "$work"
    kernel 6.12 linux-image-6.12-amd64 "$work"
    # Within a user namespace all files are root's.
    unshare --user --map-root-user \
        /sbin/mke2fs -q -t ext4 -d "$work/root" "$machine/disk" 800M
    echo "$recipe" >"$machine/recipe"
    rm -r "$work"
    trap - EXIT
}

# before: leaves an earlier knockd and its units in target/before.
before() {
    [ "$(cat "$target/before/commit" 2>/dev/null)" = "$BEFORE" ] && return
    local source=$target/before.source
    echo "${0##*/}: building the knockd of $BEFORE, to upgrade from"
    rm -rf "$target/before" "$source"
    mkdir -p "$target/before" "$source"
    git archive "$BEFORE" | tar -C "$source" -x
    cargo build --quiet --locked --bin knockd --manifest-path "$source/Cargo.toml" \
        --target-dir "$target/before.build"
    cp "$target/before.build/debug/knockd" "$target/before/"
    cp -a "$source/contrib/systemd" "$target/before/"
    echo "$BEFORE" >"$target/before/commit"
    rm -r "$source" "$target/before.build"
}

# test_programs: leaves in target/test-programs the tests that are run within the machine.
test_programs() {
    local program name
    mkdir -p "$target/test-programs"
    cargo test --quiet --locked --no-run --test interfaces --test firewall --message-format=json |
        sed -n 's/.*"executable":"\([^"]*\/deps\/[^"]*\)".*/\1/p' | while read -r program; do
        name=${program##*/}
        ln -f "$program" "$target/test-programs/${name%-*}"
    done
}

need_rust
# shellcheck disable=SC2086 # a list of words
need $BUILD
make
test_programs
need_knock_0_8
[ "${1-}" != make ] || exit 0
before

kernel=linux_
case ${1-} in
6.1 | 6.12)
    kernel=linux_${1/./_}::
    shift
    ;;
esac
words=$(IFS='|' && echo "$*")
mapfile -t tests < <(cargo test --quiet --locked --test machine -- --list |
    sed -n 's/: test$//p' | grep "^$kernel" | grep -E -- "${words:-.}")
[ ${#tests[@]} -gt 0 ] || { echo "${0##*/}: no test has such a name" >&2; exit 64; }
cargo test --locked --test machine -- --include-ignored --exact "${tests[@]}"
