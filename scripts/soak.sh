#!/usr/bin/env bash
# Simulates for hours, seeds that no soak has run before: `scripts/soak.sh [HOURS]`, two if nothing is said.
#
# Each soak is a row of docs/soaks.tsv (`minutes` of the machine), written anew after each batch of seeds, so that little is lost if it is stopped;
# the next soak goes on with the seed behind it. The sum of all rows stands in RELIABILITY.md. A broken promise ends the soak:
# its seed is printed with the flags that repeat it, and the row is kept.
set -euo pipefail
cd "$(dirname "$0")/.."

hours=${1:-2}
# Simulated seconds of each seed's storm, and seeds between two looks at the clock: a minute or two.
seconds=61
batch=${QUORATE_SOAK_BATCH:-500}
# Where soaks begin: far from the seeds that are run for each change.
first_ever=1000000
table=docs/soaks.tsv
columns='date\tcommit\tfirst_seed\tseeds\tseconds\tsimulated_hours\tbroken\tinconclusive\toperations\tminutes\tfaults'

limit=$(awk -v hours="$hours" 'BEGIN { if (hours !~ /^[0-9.]+$/ || hours <= 0) exit 1; print int(hours * 3600) }') ||
    { echo "soak.sh: $hours is no number of hours" >&2; exit 64; }
scripts/figures.sh soaks --check

cargo build --quiet --release --package sim
sim=${CARGO_TARGET_DIR:-target}/release/sim

[ -f "$table" ] || printf "$columns\n" >"$table"
before=$(cat "$table")
first=$(awk -F'\t' -v first="$first_ever" 'NR > 1 && $3 + $4 > first { first = $3 + $4 } END { print first }' "$table")
date=$(date -u +%Y-%m-%d)
commit=$(git describe --always --dirty=+)
said=$(mktemp)
trap 'rm -f "$said"' EXIT

# The value that a line of the summary begins with.
value() { sed -nE "s/^$1 +([0-9.]+).*/\1/p" "$said"; }

# Adds the counts of `name=count;…` and of the summary's `name count, …`.
add_faults() {
    sed -nE 's/^survived +//p' "$said" | awk -v sum="$faults" '
        function take(name, count) { if (!(name in all)) order[++n] = name; all[name] += count }
        BEGIN { parts = split(sum, old, ";"); for (i = 1; i <= parts; i++) { split(old[i], pair, "="); take(pair[1], pair[2]) } }
        { parts = split($0, new, ", "); for (i = 1; i <= parts; i++) {
            count = new[i]; sub(/.* /, "", count); name = new[i]; sub(/ [0-9]+$/, "", name); gsub(/ /, "-", name); take(name, count) } }
        END { for (i = 1; i <= n; i++) printf "%s%s=%d", (i > 1 ? ";" : ""), order[i], all[order[i]] }'
}

# The sum of all soaks, for people.
summary() {
    awk -F'\t' '
        NR > 1 { soaks++; seeds += $4; hours += $6; broken += $7; inconclusive += $8; operations += $9
            minutes += $10; last = $1 " (" $2 ")"; kept = $7 ? 0 : kept + $4
            parts = split($11, pairs, ";")
            for (i = 1; i <= parts; i++) { split(pairs[i], pair, "="); name = pair[1]; gsub(/-/, " ", name)
                if (!(name in all)) order[++n] = name; all[name] += pair[2] } }
        END {
            for (i = 1; i <= n; i++) faults = faults (i > 1 ? ", " : "") order[i] " " all[order[i]]
            print "| what | how much |\n|---|---|"
            printf "| soaks | %d in %.1f hours, the last %s |\n| seeds | %d |\n| simulated | %.1f hours |\n", soaks, minutes / 60, last, seeds, hours
            printf "| broken promises | %d |\n| inconclusive | %d (%.2f %%) |\n", broken, inconclusive, 100 * inconclusive / seeds
            printf "| operations of clients | %d |\n| faults | %s |\n", operations, faults
            if (kept) printf "| since the last broken promise | %d seeds; so, with 95 %% certainty, fewer than %.4f %% of seeds break one |\n", kept, 300 / kept
        }' "$table"
}

next=$first seeds=0 simulated=0 broken=0 inconclusive=0 operations=0 faults=
echo "soak from seed $first on, for $hours hours"
while [ "$SECONDS" -lt "$limit" ] && [ "$broken" -eq 0 ]; do
    status=0
    "$sim" --seed "$next" --seeds "$batch" --seconds "$seconds" >"$said" || status=$?
    # Broken promises and too many inconclusive seeds are results; anything else is not.
    [ "$status" -le 2 ] || { cat "$said"; echo "soak.sh: the simulator ended with $status" >&2; exit 1; }
    [ "$status" -eq 0 ] || cat "$said"
    counts=$(sed -nE 's/^seeds +([0-9]+) from .*: ([0-9]+) broken, ([0-9]+) inconclusive.*/\1 \2 \3/p' "$said")
    read -r ran failed open <<<"$counts"
    next=$((next + ran)) seeds=$((seeds + ran)) broken=$((broken + failed)) inconclusive=$((inconclusive + open))
    operations=$((operations + $(value operations)))
    simulated=$(awk -v a="$simulated" -v b="$(value simulated)" 'BEGIN { printf "%.2f", a + b }')
    faults=$(add_faults)
    {
        printf '%s\n' "$before"
        printf '%s\t' "$date" "$commit" "$first" "$seeds" "$seconds" "$simulated" "$broken" "$inconclusive" "$operations" "$((SECONDS / 60))"
        printf '%s\n' "$faults"
    } >"$table"
    summary | scripts/figures.sh soaks
    echo "$seeds seeds, $simulated hours simulated in $((SECONDS / 60)) minutes, $broken broken, $inconclusive inconclusive"
done
[ "$broken" -eq 0 ]
