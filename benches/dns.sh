#!/usr/bin/env bash
# How fast names are resolved, beside the tools people use, in one run and in a namespace that leads nowhere.
#   benches/dns.sh [path of a release reachwhy]
# Needs root (or a user namespace) and unshare; dig, getent, dnsx and doggo are measured where they are installed.
set -euo pipefail
program=$(realpath "${1:-target/release/reachwhy}")
names=${NAMES:-10000}
if [ -z "${INSIDE:-}" ]; then
    exec env INSIDE=1 NAMES="$names" unshare --net --mount ${USER_NS:+--map-root-user} "$0" "$program"
fi
ip link set lo up
work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$work"' EXIT
echo "hosts: files dns" >"$work/nsswitch.conf"
echo "nameserver 127.0.0.1" >"$work/resolv.conf"
{ echo "127.0.0.1 localhost"; echo "10.9.9.9 www.example.com"; } >"$work/hosts"
for file in nsswitch.conf resolv.conf hosts; do mount --bind "$work/$file" "/etc/$file"; done
seq 0 $((names - 1)) | while read -r n; do
    echo "h$n.lab A 10.0.$((n / 250)).$((n % 250))" >>"$work/records"
    echo "h$n.lab" >>"$work/names"
done
# The server on the first core, whoever asks on the last.
taskset -c 0 "$program" lab service dns --listen 127.0.0.1:53 --zone lab. --records "$work/records" >"$work/ready" &
until grep -q ready "$work/ready"; do sleep 0.05; done
last=$(($(nproc) - 1))

rate() { # name, command…: names a second, best of five
    local best=0 label=$1
    shift
    for _ in 1 2 3 4 5; do
        local from to
        from=$(date +%s%N)
        taskset -c "$last" "$@" >"$work/out" 2>/dev/null || true
        to=$(date +%s%N)
        local now=$((names * 1000000000 / (to - from)))
        [ "$now" -gt "$best" ] && best=$now
    done
    local right
    right=$(grep -c "10\.0\." "$work/out" || true)
    printf '%-34s %9d names/s   %6d of %d answered\n' "$label" "$best" "$right" "$names"
}

one() { # name, command…: milliseconds for one process, least and middle of 101; without the shell's own forks
    python3 - "$@" <<'PY'
import os, sys, time
label, command = sys.argv[1], sys.argv[2:]
null = os.open('/dev/null', os.O_RDWR)
took = []
for _ in range(101):
    start = time.perf_counter()
    child = os.posix_spawnp(command[0], command, os.environ,
                            file_actions=[(os.POSIX_SPAWN_DUP2, null, 1), (os.POSIX_SPAWN_DUP2, null, 2)])
    os.waitpid(child, 0)
    took.append((time.perf_counter() - start) * 1000)
took.sort()
print(f'{label:34} {took[0]:9.2f} ms least {took[50]:9.2f} ms middle')
PY
}

echo "$names names, A, from a file, on one core:"
rate "reachwhy dns --batch" "$program" dns --batch "$work/names" A
rate "reachwhy dns --batch --json" "$program" dns --batch "$work/names" A --json
sed 's/$/ A/' "$work/names" >"$work/dig"
command -v dig >/dev/null && rate "dig -f +short" dig @127.0.0.1 -f "$work/dig" +short
command -v dnsx >/dev/null && rate "dnsx" dnsx -l "$work/names" -a -resp -silent -r 127.0.0.1
echo
echo "a name in /etc/hosts, the whole process:"
one "reachwhy dns localhost" "$program" dns localhost
one "reachwhy dns www.example.com" "$program" dns www.example.com
one "getent ahosts localhost" getent ahosts localhost
echo
echo "a name in the DNS, the whole process:"
one "reachwhy dns h7.lab" "$program" dns h7.lab
one "reachwhy dns --no-compare h7.lab" "$program" dns --no-compare h7.lab
one "getent ahosts h7.lab" getent ahosts h7.lab
command -v dig >/dev/null && one "dig h7.lab" dig h7.lab
command -v doggo >/dev/null && one "doggo h7.lab" doggo h7.lab
exit 0
