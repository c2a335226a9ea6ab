#!/bin/bash
# Floods, knocks, reloads, changes of interfaces, commands and orders together, for so many seconds
# (1800). Prints the seed and what it has seen, and fails if a knock opened nothing, if anything is open
# that should not be, or if memory or descriptors have grown. Needs no root.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=contrib/need.sh
. contrib/need.sh

case ${1-1800} in
"" | *[!0-9]* | 0*)
    echo "usage: ${0##*/} [SECONDS]" >&2
    exit 64
    ;;
esac

need_rust
need_namespaces
# shellcheck disable=SC2086 # a list of words
need $BUILD nftables iproute2 procps
export KNOCKD_SOAK=${1-1800}
cargo test --locked --test soak -- --exact soak --nocapture
