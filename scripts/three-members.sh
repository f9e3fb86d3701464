#!/usr/bin/env bash
# Three members on one machine, in the current directory, until Ctrl-C ends them.
# QUORATE names the binary (default: the one that `cargo build --release` leaves here).
set -eu
quorate=${QUORATE:-$(dirname "$0")/../target/release/quorate}

PEERS=infra0=http://127.0.0.1:2380,infra1=http://127.0.0.1:2480,infra2=http://127.0.0.1:2580

start() { # NAME PEER-URL CLIENT-URL
    "$quorate" --name "$1" \
        --initial-advertise-peer-urls "$2" --listen-peer-urls "$2" \
        --listen-client-urls "$3" --advertise-client-urls "$3" \
        --initial-cluster-token etcd-cluster-1 --initial-cluster "$PEERS" \
        --initial-cluster-state new >"$1.log" 2>&1 &
}

start infra0 http://127.0.0.1:2380 http://127.0.0.1:2379
start infra1 http://127.0.0.1:2480 http://127.0.0.1:2479
start infra2 http://127.0.0.1:2580 http://127.0.0.1:2579
trap 'kill $(jobs -p) 2>/dev/null || true' INT TERM
echo "three members: 127.0.0.1:2379 127.0.0.1:2479 127.0.0.1:2579; logs in infra0.log infra1.log infra2.log"
# A signal interrupts it; it is over when all members have ended.
until wait; do :; done
