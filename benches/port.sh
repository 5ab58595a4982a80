#!/bin/sh
# Port scans beside nmap (and masscan and RustScan, where they are installed), in one run on one lab:
# two network namespaces joined by a veth pair, nothing leads out of them.
#
#   sudo benches/port.sh [REACHWHY] [LOSS_RUNS]
#
# Prints seconds for each tool (best of three) and their ratio to reachwhy's.
set -eu
reachwhy=${1:-target/release/reachwhy}
runs=${2:-100}
pc=rwbench-pc-$$ server=rwbench-server-$$
at=10.91.7.2

cleanup() {
    [ -n "${service:-}" ] && kill "$service" 2>/dev/null || true
    ip netns del "$pc" 2>/dev/null || true
    ip netns del "$server" 2>/dev/null || true
}
trap cleanup EXIT INT TERM
ip netns add "$pc"
ip netns add "$server"
ip -n "$pc" link add v0 type veth peer name v0 netns "$server"
ip -n "$pc" addr add 10.91.7.1/24 dev v0
ip -n "$server" addr add $at/24 dev v0
for ns in "$pc" "$server"; do
    ip -n "$ns" link set lo up
    ip -n "$ns" link set v0 up
done
sleep 1
rules() { ip netns exec "$server" iptables "$@"; }
in_pc() { ip netns exec "$pc" "$@"; }
# 20 services, spread out.
ip netns exec "$server" python3 -c '
import signal, socket
held = []
for at in range(20):
    one = socket.socket(); one.bind(("0.0.0.0", 2000 + 13 * at)); one.listen(64); held.append(one)
signal.pause()' &
service=$!
in_pc "$reachwhy" port --connect --wait=30 $at 2000,2247 >/dev/null

seconds() {
    start=$(date +%s.%N)
    "$@" >/dev/null 2>&1 || true
    end=$(date +%s.%N)
    awk "BEGIN { printf \"%.3f\", $end - $start }"
}
best() {
    low=
    for _ in 1 2 3; do
        now=$(seconds "$@")
        low=$(awk "BEGIN { print (\"$low\" == \"\" || $now < \"$low\" + 0) ? \"$now\" : \"$low\" }")
    done
    echo "$low"
}
row() { awk -v name="$1" -v t="$2" -v own="$3" 'BEGIN { printf "  %-34s %8.3f s   %6.2f x\n", name, t, t / own }'; }

echo "65535 ports, closed but for 20"
own=$(best in_pc "$reachwhy" port --syn $at -)
row "reachwhy port --syn -" "$own" "$own"
row "nmap -n -Pn -sS -p-" "$(best in_pc nmap -n -Pn -sS -p- $at)" "$own"
own_connect=$(best in_pc "$reachwhy" port --connect $at -)
row "reachwhy port --connect -" "$own_connect" "$own"
row "nmap -n -Pn -sT -p-" "$(best in_pc nmap -n -Pn -sT -p- $at)" "$own"
if command -v rustscan >/dev/null; then
    row "rustscan" "$(best in_pc rustscan -a $at -r 1-65535 -b 4500 --scripts none -g)" "$own"
fi
if command -v masscan >/dev/null; then
    # It does not end by itself on a quiet link; its wait of 1 s is taken off.
    own_wait=$(seconds in_pc timeout 20 masscan $at -p1-65535 --rate 300000 --wait 1 -e v0)
    row "masscan --rate 300000 (wait 1 s)" "$own_wait" "$own"
fi

echo "2000 filtered ports"
rules -A INPUT -p tcp --dport 10000:12999 -j DROP
own=$(best in_pc "$reachwhy" port --syn $at 10000-11999)
row "reachwhy port --syn" "$own" "$own"
row "nmap -n -Pn -sS (default timing)" "$(seconds in_pc nmap -n -Pn -sS -p 10000-11999 $at)" "$own"
rules -F

echo "20 open ports of 300 on a link that loses 5 % each way, $runs runs"
for chain in INPUT OUTPUT; do
    rules -A $chain -p tcp -m statistic --mode random --probability 0.05 -j DROP
done
whole=0 n=0
while [ $n -lt "$runs" ]; do
    n=$((n + 1))
    open=$(in_pc "$reachwhy" port --syn --open --json $at 2000-2299 | grep -c '"state": "open"' || true)
    [ "$open" = 20 ] && whole=$((whole + 1))
done
echo "  reachwhy: all 20 found in $whole of $n runs"
