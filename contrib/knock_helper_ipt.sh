#!/bin/sh
# Adds a rule to a chain of iptables that accepts a source at a port, or takes it away: for
# configurations that call the helper of this name in Debian's package of knock 0.8, by the
# same options. Written anew for knockd; a door with `open` needs neither rules nor this.
#
# Otherwise than Debian's: a rule that is there is not added twice, -x finds what -a has
# added, IPv6 goes to ip6tables, and the exit status is that of iptables.
set -eu

name=${0##*/}
PATH=$PATH:/usr/sbin:/sbin

usage() {
    cat <<TEXT
Usage: $name -a|-i|-x -f ADDRESS -d PORT [-p PROTO] [-c CHAIN] [-m[TEXT]] [-t] [-v]
  -a, --append          append the rule, unless it is there
  -i, --insert          put it first, unless it is there
  -x, --delete          take it away
  -f, --srcaddr ADDR    the source
  -d, --dstport PORT    the port
  -p, --proto PROTO     tcp (the default) or udp
  -c, --chain CHAIN     the chain (default: INPUT)
  -m, --comment[=TEXT]  a comment (default: "by knockd")
  -t, --test            print the command and change nothing
  -v, --verbose         print the command
  -h, --help            print this
TEXT
}

fail() {
    echo "$name: $*" >&2
    usage >&2
    exit 1
}

options=$(getopt -o aixf:d:p:c:m::thv -n "$name" \
    -l append,insert,delete,srcaddr:,dstport:,proto:,chain:,comment::,test,help,verbose \
    -- "$@") || fail "see above"
eval set -- "$options"

action='' source='' port='' proto=tcp chain=INPUT comment='' test='' verbose=''
while :; do
    case $1 in
    -a | --append) action=-A ;;
    -i | --insert) action=-I ;;
    -x | --delete) action=-D ;;
    -t | --test) test=yes ;;
    -v | --verbose) verbose=yes ;;
    -h | --help)
        usage
        exit
        ;;
    -f | --srcaddr) source=$2 && shift ;;
    -d | --dstport) port=$2 && shift ;;
    -p | --proto) proto=$2 && shift ;;
    -c | --chain) chain=$2 && shift ;;
    -m | --comment) comment=${2:-by knockd} && shift ;;
    --)
        shift
        break
        ;;
    esac
    shift
done
[ $# -eq 0 ] || fail "what is meant by '$1'?"
[ -n "$action" ] || fail "one of -a, -i and -x is needed"
[ -n "$source" ] || fail "the source (-f) is missing"
[ -n "$port" ] || fail "the port (-d) is missing"

case $source in
*:*) iptables=ip6tables ;;
*) iptables=iptables ;;
esac

# From here on "$@" is the rule.
set -- "$chain" -s "$source" -p "$proto" --dport "$port" -j ACCEPT
if [ -n "$comment" ]; then
    set -- "$@" -m comment --comment "$comment"
fi
if [ -n "$verbose$test" ]; then
    echo "$iptables $action $*"
fi
if [ -n "$test" ]; then
    exit
fi
# -w: two knocks at once; another rule is not refused for that.
if [ "$action" != -D ] && "$iptables" -w -C "$@" 2>/dev/null; then
    exit
fi
exec "$iptables" -w "$action" "$@"
