#!/usr/bin/env bash
# Builds the real etcd that the tests compare with, from pinned versions, into target/reference:
# etcd, etcdctl (3.7.3), benchmark, etcd-dump-logs (3.6.8). Needs Go; fetches modules only.
# Debian's etcdctl 3.4 is linked in as etcdctl-3.4 when it is installed.
set -euo pipefail

server=v3.7.3
tools=v3.6.8

cd "$(dirname "$0")/.."
out=$PWD/target/reference
mkdir -p "$out/modules"
command -v go >/dev/null || { echo "reference.sh: Go is not installed" >&2; exit 1; }

# build NAME MODULE PACKAGE VERSION: one scratch module for each version of each module.
build() {
    local name=$1 module=$2 package=$3 version=$4
    local stamp="$out/.$name-$version"
    [ -f "$stamp" ] && [ -x "$out/$name" ] && return
    echo "reference.sh: building $name from $module@$version"
    local scratch=$out/modules/${module//\//_}-$version
    mkdir -p "$scratch"
    (
        cd "$scratch"
        export GOFLAGS=-mod=mod GOTOOLCHAIN=local
        [ -f go.mod ] || go mod init scratch >/dev/null 2>&1
        go get "$module@$version" >/dev/null 2>&1
        go build -o "$out/$name" "$package"
    )
    touch "$stamp"
}

build etcd go.etcd.io/etcd/server/v3 go.etcd.io/etcd/server/v3 $server
build etcdctl go.etcd.io/etcd/etcdctl/v3 go.etcd.io/etcd/etcdctl/v3 $server
build etcd-dump-logs go.etcd.io/etcd/v3 go.etcd.io/etcd/v3/tools/etcd-dump-logs $tools
build benchmark go.etcd.io/etcd/v3 go.etcd.io/etcd/v3/tools/benchmark $tools

if [ -x /usr/bin/etcdctl ] && ETCDCTL_API=3 /usr/bin/etcdctl version 2>/dev/null | grep -q '3\.4\.'; then
    ln -sf /usr/bin/etcdctl "$out/etcdctl-3.4"
fi
echo "reference.sh: ready in target/reference"
