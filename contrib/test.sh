#!/bin/bash
# Installs what is missing on Debian 12, then checks and tests everything: what CI runs.
# The tests need no root; they make network namespaces of their own.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=contrib/need.sh
. contrib/need.sh

# shellcheck disable=SC2086 # a list of words
need $BUILD nftables iproute2 tcpdump nmap hping3 socat mandoc procps systemd ca-certificates
need_rust fmt clippy
need_namespaces

# Debian's knock 0.8, to compare with: unpacked, not installed.
if [ -z "${KNOCK_0_8:-}" ]; then
    KNOCK_0_8=$(cargo locate-project --message-format plain)
    KNOCK_0_8=${CARGO_TARGET_DIR:-${KNOCK_0_8%/*}/target}/knock-0.8
    if [ ! -d "$KNOCK_0_8" ]; then
        work=$(mktemp -d)
        fetch() (cd "$work" && apt-get -qq download knockd)
        fetch 2>/dev/null || { as_root apt-get -qq update && fetch; }
        mkdir -p "${KNOCK_0_8%/*}"
        dpkg-deb -x "$work"/knockd_*.deb "$KNOCK_0_8"
        rm -r "$work"
    fi
    export KNOCK_0_8
fi

step() {
    printf '\n\033[1m%s\033[0m\n' "$*"
    "$@"
}

for script in contrib/*.sh .ci/run; do
    step bash -n "$script"
done
step cargo fmt --all --check
step cargo clippy --locked --all-targets -- -D warnings
# The client alone: no libpcap, no libnftnl.
step cargo clippy --locked --no-default-features --bin knock -- -D warnings
RUSTDOCFLAGS="-D warnings" step cargo doc --locked --no-deps
step cargo test --locked --doc
step cargo test --locked --no-fail-fast --lib --bins --tests --examples
