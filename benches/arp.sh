#!/bin/bash
# reachwhy arp beside arp-scan, nmap -PR and arping, in one run, on links made here and led nowhere.
# Needs root, iproute2, and what of the peers is installed. Usage: benches/arp.sh [REACHWHY-BINARY]
set -u
program=$(readlink -f "${1:-target/release/reachwhy}")
work=$(mktemp -d)
client=reachwhy-bench-$$-c server=reachwhy-bench-$$-s relay=reachwhy-bench-$$-r
trap 'ip netns del $client 2>/dev/null; ip netns del $server 2>/dev/null; ip netns del $relay 2>/dev/null; rm -rf "$work"; kill $(jobs -p) 2>/dev/null' EXIT
export XDG_DATA_HOME=/nonexistent

# link HOSTS PREFIX: a cable between 10.80.0.1/PREFIX and a host that has HOSTS addresses of the same net.
link() {
    ip netns del $client 2>/dev/null; ip netns del $server 2>/dev/null
    ip netns add $client; ip netns add $server
    ip -n $client link add eth0 type veth peer name eth0 netns $server
    ip -n $client addr add 10.80.0.1/"$2" dev eth0
    ip -n $client link set eth0 up; ip -n $server link set eth0 up
    awk -v hosts="$1" -v prefix="$2" 'BEGIN {
        size = 2 ^ (32 - prefix); srand(1)
        while (n < hosts) { i = 2 + int(rand() * (size - 3)); if (!(i in seen)) { seen[i] = 1; n++
            ip = "10.80." int(i / 256) "." i % 256
            print "addr add " ip "/" prefix " dev eth0" > "'"$work"'/batch"; print ip > "'"$work"'/truth" } } }'
    ip -n $server -batch "$work/batch"
    sort "$work/truth" -o "$work/truth"
    sleep 1
}

# race NAME COMMAND…: seconds and hosts found; the addresses are read out of what it prints.
race() {
    local name=$1 begun ended found
    shift
    command -v "$1" >/dev/null || { printf '  %-34s not installed\n' "$name"; return; }
    begun=$(date +%s.%N)
    ip netns exec $client "$@" >"$work/out" 2>/dev/null
    ended=$(date +%s.%N)
    found=$(grep -oE '10\.80\.[0-9]+\.[0-9]+' "$work/out" | sort -u | comm -12 - "$work/truth" | wc -l)
    seconds=$(awk -v a="$begun" -v b="$ended" 'BEGIN { printf "%.3f", b - a }')
    [ -n "${ours:-}" ] || ours=$seconds
    awk -v n="$name" -v s="$seconds" -v o="$ours" -v f="$found" -v t="$(wc -l <"$work/truth")" \
        'BEGIN { printf "  %-34s %8.3f s  %6.1f x  %5d of %d found\n", n, s, s / o, f, t }'
}

echo "/24, 50 hosts"; link 50 24; ours=
race "reachwhy arp scan" "$program" arp scan 10.80.0.0/24
race "arp-scan" arp-scan -q -I eth0 10.80.0.0/24
race "nmap -sn -PR" nmap -n -sn -PR 10.80.0.0/24

echo "/16, 2000 hosts"; link 2000 16; ours=
race "reachwhy arp scan" "$program" arp scan 10.80.0.0/16
race "arp-scan --bandwidth 10M" arp-scan -q -I eth0 -B 10M 10.80.0.0/16
race "arp-scan --interval 10u" arp-scan -q -I eth0 -i 10u 10.80.0.0/16
[ -n "${SLOW:-}" ] && race "nmap -sn -PR (slow)" nmap -n -sn -PR 10.80.0.0/16

echo "one address"; ours=
one=$(head -1 "$work/truth"); echo "$one" >"$work/truth"
race "reachwhy arp lookup" "$program" arp lookup "$one"
race "arping -c 1" arping -c 1 -I eth0 "$one"
race "arp-scan one" arp-scan -q -I eth0 "$one"
race "nmap -sn -PR one" nmap -n -sn -PR "$one"

# A cable that loses 5 % of the frames each way: two links and a relay (the lab's) between them.
echo "/24, 50 hosts, 5 % of frames lost each way (five runs)"
link 50 24
ip netns add $relay
ip -n $client link del eth0
ip -n $client link add eth0 type veth peer name w0 netns $relay
ip -n $server link add eth0 type veth peer name w1 netns $relay
ip -n $client addr add 10.80.0.1/24 dev eth0
for end in "$client eth0" "$server eth0" "$relay w0" "$relay w1"; do set -- $end; ip -n "$1" link set "$2" up; done
ip -n $server -batch "$work/batch"
ip netns exec $relay "$program" lab service cable w0 w1 --impair '{"loss":0.05,"delay_ms":0.3,"seed":7}' >/dev/null &
sleep 1.5
for run in 1 2 3 4 5; do
    ours=
    race "reachwhy arp scan" "$program" arp scan -i eth0 10.80.0.0/24
    race "arp-scan" arp-scan -q -I eth0 10.80.0.0/24
    race "nmap -sn -PR" nmap -n -sn -PR -e eth0 10.80.0.0/24
done
