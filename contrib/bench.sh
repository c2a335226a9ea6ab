#!/bin/bash
# Measures knock 0.8, nftables rules alone, and knockd side by side on this machine, and
# prints the table of the README. In network namespaces of its own, without root; two
# minutes once everything is built. Installs what is missing on Debian 12.
# The figures of a machine that is busy with other things mean little.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=contrib/need.sh
. contrib/need.sh

# shellcheck disable=SC2086 # a list of words
need $BUILD nftables iproute2 ca-certificates
need_rust
need_namespaces
need_knock_0_8
cargo bench --locked --bench compare
