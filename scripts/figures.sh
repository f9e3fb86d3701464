#!/usr/bin/env bash
# Puts what it reads between two marks of RELIABILITY.md: `scripts/figures.sh NAME <FIGURES` writes between
# `<!-- figures:NAME -->` and the `<!-- end -->` behind it, and fails if the marks are not there. `--check` only looks.
set -euo pipefail
page=$(cd "$(dirname "$0")/.." && pwd)/RELIABILITY.md

name=${1:?usage: scripts/figures.sh NAME [--check]}
begin="<!-- figures:$name -->"
[ -f "$page" ] || { echo "figures.sh: there is no $page" >&2; exit 1; }
awk -v begin="$begin" '$0 == begin { on = 1 } on && $0 == "<!-- end -->" { found = 1 } END { exit !found }' "$page" ||
    { echo "figures.sh: $page has no \"$begin\" with \"<!-- end -->\" behind it" >&2; exit 1; }
[ "${2:-}" != --check ] || exit 0

figures=$(mktemp) && new=$(mktemp)
trap 'rm -f "$figures" "$new"' EXIT
cat >"$figures"
awk -v begin="$begin" -v figures="$figures" '
    on && $0 == "<!-- end -->" { on = 0 }
    !on
    $0 == begin { on = 1; while ((getline line <figures) > 0) print line }
' "$page" >"$new"
cat "$new" >"$page"
