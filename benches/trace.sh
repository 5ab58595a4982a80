#!/bin/sh
# reachwhy trace beside traceroute, tracepath, nmap, mtr, scamper and trippy, on one lab of network namespaces in one run.
#
# usage: benches/trace.sh [REACHWHY]     as root; needs ip, iptables and, for each peer, the peer
#
# For each case: seconds of wall clock (the middle of RUNS runs) and how many of the hops that can answer were listed.
# Everything happens in namespaces that this script makes and that lead nowhere.
set -eu
PROGRAM=$(realpath "${1:-target/release/reachwhy}")
RUNS=${RUNS:-5}
SLOW_RUNS=${SLOW_RUNS:-1}
[ "${INSIDE:-}" ] || exec env INSIDE=1 unshare --net --mount sh "$0" "$PROGRAM"
mount -t tmpfs none /run
mkdir -p /run/netns

quiet() { "$@" >/dev/null 2>&1 || true; }
host() {
    ip netns add "$1"
    ip -n "$1" link set lo up
    ip netns exec "$1" sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.disable_ipv6=1 net.ipv4.fib_multipath_hash_policy=1 \
        net.ipv4.icmp_ratelimit=0 net.ipv4.icmp_msgs_per_sec=1000000 net.ipv4.icmp_msgs_burst=100000
}
# cable A DEV ADDRESS B DEV ADDRESS
cable() {
    ip link add name "$2" netns "$1" type veth peer name "$5" netns "$4"
    ip -n "$1" addr add "$3" dev "$2"; ip -n "$1" link set dev "$2" up
    ip -n "$4" addr add "$6" dev "$5"; ip -n "$4" link set dev "$5" up
}
# row N: client - r1 … rN - server
row() {
    N=$1; host client; host server
    n=1; while [ "$n" -le "$N" ]; do host "r$n"; n=$((n + 1)); done
    cable client eth0 10.1.0.2/24 r1 up 10.1.0.1/24
    ip -n client route add default via 10.1.0.1
    n=1; while [ "$n" -lt "$N" ]; do
        m=$((n + 1)); cable "r$n" down "10.0.$n.1/24" "r$m" up "10.0.$n.2/24"
        ip -n "r$n" route add default via "10.0.$n.2"; ip -n "r$m" route add 10.1.0.0/24 via "10.0.$n.1"
        n=$m
    done
    cable "r$N" down 10.2.0.1/24 server eth0 10.2.0.2/24
    ip -n server route add default via 10.2.0.1
}
clear_all() { for one in $(ip netns list | cut -d' ' -f1); do ip netns del "$one"; done; }
silent() { for one in "$@"; do ip netns exec "$one" iptables -A OUTPUT -p icmp --icmp-type time-exceeded -j DROP; done; }

# measure RUNS HOPS command…: the middle time and the hops listed
measure() {
    runs=$1; shift
    command -v "$1" >/dev/null || [ -x "$1" ] || { printf '%10s %5s  %s (not installed)\n' - - "$1"; return; }
    : >/run/times
    i=0; while [ "$i" -lt "$runs" ]; do
        start=$(date +%s%N)
        quiet ip netns exec client timeout 60 "$@" >/run/out 2>&1
        end=$(date +%s%N); echo "$((end - start))" >>/run/times; i=$((i + 1))
    done
    ip netns exec client timeout 60 "$@" >/run/out 2>/dev/null || true
    middle=$(sort -n /run/times | sed -n "$(((runs + 1) / 2))p")
    hops=$(grep -oE '10\.[0-9]+\.[0-9]+\.[0-9]+' /run/out | sort -u | grep -cvE '10\.1\.0\.2$' || true)
    printf '%10.4f %5s  %s\n' "$(echo "$middle" | awk '{print $1 / 1e9}')" "$hops" "$(echo "$*" | sed "s|$PROGRAM|reachwhy|")"
}
peers() {
    measure "$RUNS" "$PROGRAM" trace -n "$1"
    measure "$RUNS" traceroute -n -I "$1"
    measure "$RUNS" traceroute -n "$1"
    measure "$SLOW_RUNS" tracepath -n "$1"
    measure "$SLOW_RUNS" nmap -n -sn --traceroute "$1"
    measure "$SLOW_RUNS" mtr -n -r -c1 "$1"
    measure "$SLOW_RUNS" scamper -p 10000 -c "trace -P icmp-paris -w 1" -i "$1"
    measure "$SLOW_RUNS" trip -m csv -C1 "$1"
}
title() { printf '\n%s\n%10s %5s\n' "$1" seconds hops; }

row 12; quiet ip netns exec client ping -c1 -W1 10.2.0.2
title '12 hops, all answer'; peers 10.2.0.2
silent r3 r6 r8
title '12 hops, 3 of them silent'; peers 10.2.0.2
ip netns exec server iptables -A INPUT -j DROP
title '12 hops, the destination dead'
measure "$SLOW_RUNS" "$PROGRAM" trace -n 10.2.0.2
measure 1 traceroute -n -I 10.2.0.2
measure 1 nmap -n -sn -Pn --traceroute 10.2.0.2
measure 1 mtr -n -r -c1 10.2.0.2
measure 1 scamper -p 10000 -c "trace -P icmp-paris -w 1" -i 10.2.0.2
clear_all

row 3
i=1; while [ "$i" -le 100 ]; do ip -n server addr add "10.2.1.$i/32" dev lo; i=$((i + 1)); done
ip -n r3 route add 10.2.1.0/24 via 10.2.0.2
all=$(i=1; while [ "$i" -le 100 ]; do echo "10.2.1.$i"; i=$((i + 1)); done)
title '100 targets at once'
# shellcheck disable=SC2086
measure "$RUNS" "$PROGRAM" trace -n $all
echo "$all" >/run/all
measure "$SLOW_RUNS" sh -c 'xargs -P 100 -n 1 traceroute -n -I </run/all'
# shellcheck disable=SC2086
measure "$SLOW_RUNS" nmap -n -sn --traceroute $all
measure "$SLOW_RUNS" scamper -p 10000 -c "trace -P icmp-paris -w 1" -f /run/all
clear_all

host client; host a; host b; host server
cable client eth0 10.1.0.2/24 a up 10.1.0.1/24; ip -n client route add default via 10.1.0.1
cable b down 10.2.0.1/24 server eth0 10.2.0.2/24; ip -n server route add default via 10.2.0.1
ways=
i=1; while [ "$i" -le 16 ]; do
    host "m$i"; cable a "d$i" "10.3.$i.1/24" "m$i" up "10.3.$i.2/24"; cable "m$i" down "10.4.$i.1/24" b "u$i" "10.4.$i.2/24"
    ip -n "m$i" route add 10.1.0.0/24 via "10.3.$i.1"; ip -n "m$i" route add default via "10.4.$i.2"
    ways="$ways nexthop via 10.3.$i.2 weight 1"; i=$((i + 1))
done
# shellcheck disable=SC2086
ip -n a route add default $ways
ip -n b route add 10.1.0.0/24 via 10.4.1.1
title 'a diamond 16 wide: all paths (19 addresses: 1 + 16 + 1 + the destination)'
measure "$RUNS" "$PROGRAM" trace -n --paths 10.2.0.2
measure "$SLOW_RUNS" scamper -p 10000 -c "tracelb -P udp-dport" -i 10.2.0.2
