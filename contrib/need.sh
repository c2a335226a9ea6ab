# Sourced by the scripts beside it: installs what is missing, by Debian's package names. On a
# terminal it asks first. In CI, and where nobody can answer, it does not ask.
# shellcheck shell=bash

# Build: a linker, pkg-config, and the headers of libpcap, libnftnl and libmnl; libclang
# reads the kernel's headers for rustables.
BUILD="gcc libc6-dev pkg-config libpcap-dev libnftnl-dev libmnl-dev libclang-dev"

# As root, or through sudo.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        echo "${0##*/}: there is no sudo here. As root:  $*" >&2
        return 1
    fi
}

# may_install PACKAGE...: whether whoever sits at the terminal agrees. Without one, or with CI
# set, nobody is asked.
may_install() {
    if [ -n "${CI:-}" ] || ! [ -t 0 ] || ! [ -t 2 ]; then
        return 0
    fi
    local answer
    read -r -p "${0##*/}: to be installed: $*. Go on? [Y/n] " answer || return 1
    case $answer in
    "" | [Yy]*) ;;
    *)
        echo "${0##*/}: nothing is installed" >&2
        return 1
        ;;
    esac
}

# need PACKAGE...: each is there when this returns.
need() {
    if ! command -v dpkg-query >/dev/null; then
        echo "${0##*/}: not Debian: make sure that what these packages hold is here: $*" >&2
        return
    fi
    local package missing=()
    for package; do
        [ "$(dpkg-query -Wf '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] ||
            missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return
    may_install "${missing[@]}" || return 1
    echo "${0##*/}: installing ${missing[*]}"
    as_root apt-get -qq update
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get -qq install --yes --no-install-recommends "${missing[@]}" >/dev/null
}

# need_rust [COMPONENT...]: cargo, and these parts of the toolchain.
need_rust() {
    if ! command -v cargo >/dev/null; then
        echo "${0##*/}: Rust is not here: see https://rustup.rs; or, on Debian 12, as root:" \
            "apt install rustc-web cargo-web" >&2
        return 1
    fi
    local component
    for component; do
        cargo "$component" --version >/dev/null 2>&1 && continue
        component=${component/fmt/rustfmt}
        may_install "$component (a component of rustup)" || return 1
        rustup component add "$component"
    done
}

# need_namespaces: an ordinary user may make network namespaces here, as the tests do. With
# arguments of unshare(1): they may be made so.
need_namespaces() {
    [ $# -gt 0 ] || set -- --user --map-root-user
    unshare "$@" --net true && return
    if [ "$(id -u)" -eq 0 ]; then
        echo "${0##*/}: no namespaces can be made here: a container must be privileged" >&2
    else
        echo "${0##*/}: user namespaces are not allowed here. As root:" \
            "sysctl kernel.unprivileged_userns_clone=1 (a container must be privileged)" >&2
    fi
    return 1
}

# fetch_package PACKAGE FOLDER: Debian's package lies in that folder. Nothing is installed.
fetch_package() {
    fetch() (cd "$2" && apt-get -qq download "$1")
    fetch "$@" 2>/dev/null || { as_root apt-get -qq update && fetch "$@"; }
}

# need_knock_0_8: Debian's package of it, to compare with, is unpacked in $KNOCK_0_8. Nothing
# is installed; one that is installed may have been edited.
need_knock_0_8() {
    [ -n "${KNOCK_0_8:-}" ] && return
    KNOCK_0_8=$(cargo locate-project --message-format plain)
    KNOCK_0_8=${CARGO_TARGET_DIR:-${KNOCK_0_8%/*}/target}/knock-0.8
    if [ ! -d "$KNOCK_0_8" ]; then
        local work
        work=$(mktemp -d)
        fetch_package knockd "$work"
        mkdir -p "${KNOCK_0_8%/*}"
        dpkg-deb -x "$work"/knockd_*.deb "$KNOCK_0_8"
        rm -r "$work"
    fi
    export KNOCK_0_8
}
