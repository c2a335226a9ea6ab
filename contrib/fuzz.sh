#!/bin/bash
# Gives every reader of bytes from outside bytes of a fuzzer's making, with AddressSanitizer on:
#
#     fuzz.sh [SECONDS [TARGET...]]   ten minutes for each target, if nothing is said
#     fuzz.sh keep [TARGET...]        takes what was found into tests/fuzz/corpus: the smallest
#                                     inputs that reach as many places
#
# The targets are those of tests/fuzz; what each asks stands in src/fuzz.rs. What is found lies in
# target/fuzz/found until it is kept. An input that breaks something lies in tests/fuzz/artifacts.
# Needs cargo-fuzz, which is installed if you agree, and a nightly toolchain, or else has the usual
# one behave like a nightly.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=contrib/need.sh
. contrib/need.sh

# longest TARGET: the longest input. One that is longer finds little more, and takes room in the corpus.
longest() {
    case $1 in
    # More than a packet holds.
    helper_report) echo 12288 ;;
    *) echo 4096 ;;
    esac
}

work=600
case ${1-} in
"") ;;
keep)
    work=keep
    shift
    ;;
*[!0-9]*)
    echo "usage: ${0##*/} [SECONDS | keep] [TARGET...]" >&2
    exit 64
    ;;
*)
    work=$1
    shift
    ;;
esac
mapfile -t targets < <(cd tests/fuzz/fuzz_targets && printf '%s\n' *.rs | sed 's/\.rs$//')
[ $# -eq 0 ] || targets=("$@")

need_rust
# shellcheck disable=SC2086 # a list of words
need $BUILD g++
if ! cargo fuzz --version >/dev/null 2>&1; then
    may_install "cargo-fuzz (from crates.io)" || exit 1
    cargo install --locked cargo-fuzz
fi
if [ -z "${RUSTUP_TOOLCHAIN-}" ] && rustup run nightly rustc --version >/dev/null 2>&1; then
    export RUSTUP_TOOLCHAIN=nightly
fi
# The options of the sanitizer are nightly's.
export RUSTC_BOOTSTRAP=1

# The crates that are fuzzed are those that are shipped.
cp Cargo.lock tests/fuzz/Cargo.lock

# fuzz COMMAND TARGET ARGUMENT...
fuzz() {
    local command=$1
    shift
    nice -n 19 cargo fuzz "$command" --fuzz-dir tests/fuzz --target-dir target/fuzz "$@"
}

failed=()
for target in "${targets[@]}"; do
    corpus=tests/fuzz/corpus/$target
    found=target/fuzz/found/$target
    log=target/fuzz/$target.log
    mkdir -p "$corpus" "$found"
    printf '\n\033[1m%s\033[0m\n' "$target"
    if [ "$work" = keep ]; then
        merged=$(mktemp -d)
        fuzz run "$target" "$merged" "$corpus" "$found" -- -merge=1 -use_counters=0 -max_len="$(longest "$target")" 2>"$log" ||
            { tail -n 20 "$log"; exit 1; }
        rm -r "$corpus"
        mv "$merged" "$corpus"
        chmod 755 "$corpus"
        echo "$(find "$corpus" -type f | wc -l) inputs, $(du -sb "$corpus" | cut -f1) bytes"
        continue
    fi
    if fuzz run "$target" "$found" "$corpus" -- -max_len="$(longest "$target")" -max_total_time="$work" \
        -timeout=20 -print_final_stats=1 2>"$log"; then
        grep -E '^#[0-9]+\s+DONE|^stat::number_of_executed_units' "$log"
    else
        tail -n 60 "$log"
        failed+=("$target")
    fi
done
[ ${#failed[@]} -eq 0 ] || {
    echo "${0##*/}: failed: ${failed[*]}" >&2
    exit 1
}
