#!/usr/bin/env bash
# Puts and linearizable ranges beside the real etcd, in one run: rate and server CPU per request.
# h2load, 16 connections x 16 streams, 256-byte values; each server afresh, in turn, in ROUNDS rounds.
# Needs: target/release/quorate, scripts/reference.sh, h2load (Debian: nghttp2-client), python3.
set -euo pipefail
cd "$(dirname "$0")/.."
exec python3 scripts/speed.py "$@"
