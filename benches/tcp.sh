#!/usr/bin/env bash
# tcp read beside tshark and tcptrace on the same files in the same run: packets a second, octets a second, memory.
# Usage: benches/tcp.sh [FOLDER FOR THE CAPTURES]. Builds the release binary where there is none.
set -euo pipefail
cd "$(dirname "$0")/.."
work=${1:-$(mktemp -d)}
mkdir -p "$work"
[ -n "${REACHWHY:-}" ] || [ -x target/release/reachwhy ] || cargo build --release
bin=${REACHWHY:-$PWD/target/release/reachwhy}

python3 - "$work" <<'PY'
import os, struct, sys
work = sys.argv[1]
def make(name, count, size, flows):
    path = os.path.join(work, name)
    if os.path.exists(path): return
    with open(path, 'wb') as out:
        out.write(struct.pack('<IHHiIII', 0xa1b2c3d4, 2, 4, 0, 0, 262144, 1))
        seq, chunk, link = [1] * flows, [], b'\x02' * 12 + b'\x08\x00'
        sums = {True: size // 2 * 0x7878 + size % 2 * 0x7800, False: 0}
        for i in range(count):
            k, us = i % flows, 1600000000 * 10**6 + i
            up = (i // flows) % 2 == 0
            data = b'x' * size if up else b''
            src, dst = 0x0a000001 + k, 0x0b000001
            if not up: src, dst = dst, src
            ports = (1024 + k % 60000, 80) if up else (80, 1024 + k % 60000)
            ip = struct.pack('>BBHHHBBHII', 0x45, 0, 40 + len(data), i & 0xffff, 0x4000, 64, 6, 0, src, dst)
            numbers = (seq[k], 1) if up else (1, seq[k])
            # Right checksums: they are checked.
            words = (src, dst, 6 + 20 + len(data), *ports, *numbers, 0x5018 if up else 0x5010, 500, sums[up])
            total = sum((word >> 16) + (word & 0xffff) for word in words)
            while total > 0xffff: total = (total & 0xffff) + (total >> 16)
            tcp = struct.pack('>HHIIBBHHH', *ports, *numbers, 0x50, 0x18 if up else 0x10, 500, total ^ 0xffff, 0)
            seq[k] = (seq[k] + len(data)) & 0xffffffff
            frame = link + ip + tcp + data
            chunk.append(struct.pack('<IIII', us // 10**6, us % 10**6, len(frame), len(frame)) + frame)
            if len(chunk) == 20000: out.write(b''.join(chunk)); chunk = []
        out.write(b''.join(chunk))
make('small.pcap', 3_000_000, 10, 2000)
make('large.pcap', 900_000, 1400, 200)
make('many.pcap', 2_000_000, 0, 1_000_000)
# HUGE=7000000 makes one of 10 GB.
if os.environ.get('HUGE'): make('huge.pcap', int(os.environ['HUGE']), 1400, 1000)
PY

declare -A counts
measure() { # name file command…
    local name=$1 file=$2 packets octets; shift 2
    packets=${counts[$file]:-$(capinfos -c -M -T -r "$file" 2>/dev/null | awk '{print $2}')}
    counts[$file]=$packets
    octets=$(stat -c %s "$file")
    cat "$file" >/dev/null
    local out; out=$(python3 - "$@" <<'PY'
import os, resource, subprocess, sys, time
start = time.time()
subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
print(f"{time.time() - start:.3f} {usage.ru_utime + usage.ru_stime:.3f} {usage.ru_maxrss // 1024}")
PY
)
    read -r wall cpu rss <<<"$out"
    awk -v n="$name" -v w="$wall" -v c="$cpu" -v r="$rss" -v p="$packets" -v o="$octets" \
        'BEGIN { printf "  %-28s %7.2f s  cpu %7.2f s  %8.3f Mpackets/s  %8.1f MB/s  %6d MB\n", n, w, c, p / w / 1e6, o / w / 1e6, r }'
}

for file in small large many ${HUGE:+huge}; do
    echo "$file.pcap"
    measure "reachwhy tcp read" "$work/$file.pcap" "$bin" tcp read "$work/$file.pcap"
    command -v tcptrace >/dev/null && measure "tcptrace -n -l" "$work/$file.pcap" tcptrace -n -l "$work/$file.pcap"
    # tshark keeps the whole file in memory: not for the huge one.
    [ "$file" != huge ] && command -v tshark >/dev/null && measure "tshark -q -z expert" "$work/$file.pcap" tshark -n -q -z expert -r "$work/$file.pcap"
done
