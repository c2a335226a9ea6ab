#!/bin/bash
# Checks and tests everything: what CI runs. Installs what is missing on Debian 12, and asks
# first on a terminal. The tests need no root; they make network namespaces of their own.
#
# `test.sh quick` checks what can be checked without installing anything: format, lints, unit
# tests. It needs what the build needs, and no root.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=contrib/need.sh
. contrib/need.sh

case ${1-} in
"" | quick) ;;
*)
    echo "usage: ${0##*/} [quick]" >&2
    exit 64
    ;;
esac

step() {
    printf '\n\033[1m%s\033[0m\n' "$*"
    "$@"
}

scripts() {
    local script
    for script in contrib/*.sh .ci/run; do
        step bash -n "$script"
    done
}

if [ "${1-}" = quick ]; then
    scripts
    step cargo fmt --all --check
    step cargo clippy --locked --all-targets -- -D warnings
    # A test that cannot run says that it is left out.
    step cargo test --locked --lib
    echo
    echo "Only a part is tested. Everything: contrib/test.sh; one test: contrib/CONTRIBUTING.md"
    exit
fi

# First what cannot be installed from here.
need_rust fmt clippy
need_namespaces
# shellcheck disable=SC2086 # a list of words
need $BUILD nftables iproute2 iptables tcpdump nmap hping3 socat strace ppp wireguard-tools mandoc procps systemd tzdata valgrind ca-certificates
need_knock_0_8
# The machine of tests/machine, and tests that run within it.
contrib/vm.sh make
# All is there: from here on a test that cannot run fails.
export CI=true

scripts
step cargo fmt --all --check
step cargo clippy --locked --all-targets -- -D warnings
# Licences, sources and versions of crates. tests/house holds as much without it.
if cargo deny --version >/dev/null 2>&1; then
    step cargo deny --offline --config contrib/deny.toml check licenses bans sources
else
    echo "left out: cargo deny, which is not installed (cargo install --locked cargo-deny)"
fi
# The client alone: no libpcap, no libnftnl.
step cargo clippy --locked --no-default-features --bin knock -- -D warnings
step cargo clippy --locked --no-default-features --tests -- -D warnings
RUSTDOCFLAGS="-D warnings" step cargo doc --locked --no-deps
step cargo test --locked --doc
step cargo test --locked --no-fail-fast --lib --bins --tests --examples
# libnftnl is C: no read or write beside what is ours, nothing left behind.
memcheck="valgrind -q --error-exitcode=9 --leak-check=full --show-leak-kinds=definite"
step cargo test --locked --lib \
    --config "target.'cfg(unix)'.runner = '$memcheck --errors-for-leak-kinds=definite'" \
    -- --test-threads=1 fuzz::corpus::nft firewall::netlink
# What a packet and an opening cost, in instructions.
step cargo bench --locked --profile count --bench instructions
# Whether a step can be told from another port by the time that a packet to it takes.
step cargo bench --locked --profile count --bench compare -- timing --test
