#!/usr/bin/env bash
# Instructions per put with tracing as members have it, and without: callgrind counts them, in members alone.
# FEW and MANY puts are run and subtracted, so that start and end do not count.
set -euo pipefail
cd "$(dirname "$0")/.."
FEW=${FEW:-2000} MANY=${MANY:-10000}

binary=$(cargo test --release -p server --test tracing_cost --no-run 2>&1 |
    sed -n 's/.*Executable.*(\(.*\))/\1/p')
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

instructions() { # tracing members at_once puts
    QUORATE_TRACING=$1 QUORATE_MEMBERS=$2 QUORATE_AT_ONCE=$3 QUORATE_PUTS=$4 \
        valgrind --tool=callgrind --callgrind-out-file="$out/callgrind" \
        "$binary" --ignored --exact members_serve_puts >"$out/log" 2>&1 || { cat "$out/log" >&2; exit 1; }
    sed -n 's/^==.*Collected : \([0-9]*\).*/\1/p' "$out/log"
}

per_put() { # tracing members at_once
    echo $((($(instructions "$1" "$2" "$3" "$MANY") - $(instructions "$1" "$2" "$3" "$FEW")) / (MANY - FEW)))
}

echo "members  at once  off      batches  more"
for members in ${MEMBERS:-1 3}; do
    for at_once in ${AT_ONCE:-1 256}; do
        off=$(per_put off "$members" "$at_once")
        on=$(per_put batches "$members" "$at_once")
        awk -v m="$members" -v a="$at_once" -v off="$off" -v on="$on" \
            'BEGIN { printf "%-8d %-8d %-8d %-8d %.2f %%\n", m, a, off, on, (on - off) * 100 / off }'
    done
done
