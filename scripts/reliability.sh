#!/usr/bin/env bash
# Runs what RELIABILITY.md tells the figures of, and writes them there: `scripts/reliability.sh [WHAT…]`, where WHAT is
# simulation, crash-states, mutants or chaos; all four if nothing is said, a quarter of an hour of two cores. (Soaks write
# their own: scripts/soak.sh.) A run that fails leaves the page's figures as they were.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TERM_COLOR=never

said=$(mktemp)
trap 'rm -f "$said"' EXIT

# The lines of what was said that match, as a block of text; there must be some.
block() { # PATTERN [COMMAND]
    grep -qE "^(test .* \.\.\. )?($1)" "$said" || { echo "reliability.sh: nothing was said like $1" >&2; return 1; }
    echo '```'
    [ -z "${2:-}" ] || echo "\$ $2"
    sed -nE "s/^(test .* \.\.\. )?($1)/\2/p" "$said"
    echo '```'
}

# Nothing is written of a run that said nothing.
write() { # NAME
    local figures
    figures=$(cat) && [ -n "$figures" ] && scripts/figures.sh "$1" <<<"$figures"
}

simulation() {
    cargo build --quiet --release --package sim
    local command='sim --seed 1 --seeds 1300 --seconds 61'
    "${CARGO_TARGET_DIR:-target}"/release/$command >"$said"
    block '[a-z]+ +.*' "$command" | write simulation
}

crash_states() {
    cargo test --workspace --test crash_states -- --nocapture >"$said" 2>&1
    block 'crash states: .*|  (log|store|member): .*|[0-9]+ programs, .*' | write crash-states
}

mutants() {
    cargo xtask mutants --write
    local table=docs/mutants.md
    {
        sed -nE 's/^([0-9]+) of ([0-9]+) are found\.$/\1 of the \2 in [docs\/mutants.md](docs\/mutants.md) are found by simulation alone,/p' $table
        awk -F'|' '$6 + 0 > most { most = $6 + 0 } END { print "after " most " seeds at most. `cargo xtask mutants` looks for all of them, each full run of `.ci/run` for eight." }' $table
    } | write mutants
}

chaos() {
    cargo build --quiet --release --package quorate --package sim --package raftexample
    QUORATE_BINARY=$PWD/${CARGO_TARGET_DIR:-target}/release/quorate QUORATE_TESTS_STRICT= \
        QUORATE_FAULT_PAIRS=28 QUORATE_POWER_CUTS=50 QUORATE_OPERATIONS=25000 \
        cargo test -p tests --test chaos -- --test-threads=1 --nocapture >"$said" 2>&1
    block '(power_cuts|fault_pairs|lying_disk): (.*(operations|faults that|acknowledged|linearizable|longest|pairs of|cut [0-9]+ left).*)' |
        write chaos
}

[ $# -gt 0 ] || set -- simulation crash-states mutants chaos
for what in "$@"; do
    case $what in
    simulation | crash-states | mutants | chaos) scripts/figures.sh "$what" --check ;;
    *) echo "reliability.sh: $what is none of simulation, crash-states, mutants, chaos" >&2 && exit 64 ;;
    esac
done
for what in "$@"; do "${what//-/_}"; done
