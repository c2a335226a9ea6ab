#!/bin/bash
# Measures knock 0.8, nftables rules alone, and knockd side by side on this machine, and
# prints the table of contrib/SCALE.md. In network namespaces of its own, without root; two
# minutes once everything is built. Installs what is missing on Debian 12, and asks first on a
# terminal. The figures of a machine that is busy with other things mean little. --update puts the
# table into contrib/SCALE.md, and those rows of it that the README has into the README.
# `bench.sh timing` measures one thing more thoroughly, in some minutes: whether a step can be told
# from another port by the time that a packet to it takes the host.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=contrib/need.sh
. contrib/need.sh

# First what cannot be installed from here.
need_rust
need_namespaces
# shellcheck disable=SC2086 # a list of words
need $BUILD nftables iproute2 ca-certificates
need_knock_0_8
if [ "${1:-}" = timing ]; then
    exec cargo bench --locked --bench compare -- timing
fi
table=$(cargo bench --locked --bench compare)
printf '%s\n' "$table"
if [ "${1:-}" = --update ]; then
    # Between the two marks: what was there goes, the new table follows the first.
    sed -i -e '/^<!-- contrib\/bench.sh -->/,/^<!-- end -->/{//!d}' \
        -e '/^<!-- contrib\/bench.sh -->/r /dev/stdin' contrib/SCALE.md <<<"$table"
    # A row is known by its first cell.
    readme=$(awk -F'|' '
        NR == FNR { row[$2] = $0; next }
        /^<!-- / { between = /bench.sh/ }
        between && /^[|]/ && $2 in row { $0 = row[$2] }
        { print }' - README.md <<<"$table")
    printf '%s\n' "$readme" >README.md
fi
