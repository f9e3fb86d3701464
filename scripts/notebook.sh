#!/usr/bin/env bash
# The notebook that this project began with, typed: every command in it, in its order, each answer checked.
#
# It runs with our etcdctl first, and once more with the real ones where they are: 3.7.3 in QUORATE_REFERENCE_DIR (default:
# target/reference, where scripts/reference.sh leaves it) and Debian's 3.4. QUORATE_BINARY names the binary, beside which
# raftexample lies; without it both are built. Needs curl, and the notebook's own ports.
set -euo pipefail
cd "$(dirname "$0")/.."
here=$PWD

PORTS=(2379 2380 2479 2480 2579 2580 12379 12380 12479 12480 22379 22380 32379 32380)
# Bounds, in seconds, not expectations: for one command, for what takes a moment to come about, for an end.
COMMAND_MAX=60
WAIT_MAX=30
END_MAX=15

# ---- how it is told and checked

chapter() { printf '\n== %s\n' "$*"; }

fail() {
    printf '\nNOT SO: %s\nthe last answer:\n%s\n' "$1" "${out:-}" >&2
    tail -n 5 ./*.log >&2 2>/dev/null || true
    exit 1
}

# run COMMAND: shows it, runs it, shows what it says and keeps that in $out. It must succeed.
run() {
    printf '$ %s\n' "$1"
    out=$(timeout "$COMMAND_MAX" bash -c "$1" 2>stderr) || fail "it succeeds ($(cat stderr))"
    printf '%s\n' "$out"
}

# refused COMMAND: it must fail; why is in $out.
refused() {
    printf '$ %s\n' "$1"
    if out=$(timeout "$COMMAND_MAX" bash -c "$1" 2>&1); then fail "it is refused"; fi
    printf '%s\n' "$out"
}

# expect PATTERN…: the answer is, or as a pattern of the shell, matches each of these.
expect() {
    local pattern
    for pattern in "$@"; do
        # shellcheck disable=SC2053
        [[ $out == $pattern ]] || fail "the answer is: $pattern"
    done
}

# await COMMAND: as `run`, but until it succeeds.
await() {
    local end=$((SECONDS + WAIT_MAX))
    printf '$ %s   # until it succeeds\n' "$1"
    until out=$(timeout "$COMMAND_MAX" bash -c "$1" 2>&1); do
        ((SECONDS < end)) || fail "it succeeds within $WAIT_MAX seconds"
        sleep 0.1
    done
    printf '%s\n' "$out"
}

# start LOG COMMAND: runs it in the background, as with `&`; its process is $pid.
start() {
    printf '$ %s &\n' "$2"
    eval "$2 >>$1 2>&1 </dev/null &"
    pid=$!
}

# Whatever runs in the background is this shell's own job: these and no others are ended.
end_all() {
    local job end=$((SECONDS + END_MAX))
    for job in $(jobs -pr); do kill "$job" 2>/dev/null || true; done
    while [ -n "$(jobs -pr)" ]; do
        if ((SECONDS >= end)); then
            for job in $(jobs -pr); do kill -9 "$job" 2>/dev/null || true; done
            fail "what was started ends within $END_MAX seconds when it is told to"
        fi
        sleep 0.05
    done
}

# folder NAME: a fresh one, with the programs by the names that the notebook has for them.
folder() {
    mkdir "$work/$session/$1"
    cd "$work/$session/$1"
    ln -s "$binary" etcd
    ln -s "$etcdctl" etcdctl
    ln -s "$raftexample" raftexample
}

# The notebook's script, as it stands.
three_members() {
    cat >cluster.sh <<'SCRIPT'
set +x

NAME1=infra0
NAME2=infra1
NAME3=infra2
HOST1=http://127.0.0.1:2379
HOST2=http://127.0.0.1:2479
HOST3=http://127.0.0.1:2579
PEER1=http://127.0.0.1:2380
PEER2=http://127.0.0.1:2480
PEER3=http://127.0.0.1:2580

# nohup ./etcd &

function StartService() {
  nohup ./etcd --name $1 --initial-advertise-peer-urls $2 \
  --listen-peer-urls $2 \
  --listen-client-urls $3 \
  --advertise-client-urls $3 \
  --initial-cluster-token etcd-cluster-sakulali \
  --initial-cluster infra0=$PEER1,infra1=$PEER2,infra2=$PEER3 \
  --initial-cluster-state new &
}

StartService $NAME1 $PEER1 $HOST1
StartService $NAME2 $PEER2 $HOST2
StartService $NAME3 $PEER3 $HOST3

echo "hello etcd..."
SCRIPT
}

# Runs the script in this shell, so that its members are this shell's jobs; their processes are $members, in order.
run_three_members() {
    printf '$ . ./cluster.sh\n'
    # shellcheck disable=SC1091
    . ./cluster.sh >>cluster.log 2>&1 </dev/null
    # shellcheck disable=SC2207
    members=($(jobs -pr))
    await "etcdctl endpoint health --endpoints=$HOST1,$HOST2,$HOST3"
    expect "*$HOST1 is healthy*" "*$HOST2 is healthy*" "*$HOST3 is healthy*"
}

# The answer is a table of these three endpoints, one of which leads; the others are $follower and $other.
expect_one_leader() {
    expect "*$1*" "*$2*" "*$3*"
    leader=$(awk '/ true /{print $2}' <<<"$out")
    case $leader in
        "$1") follower=$2 other=$3 ;;
        "$2") follower=$3 other=$1 ;;
        "$3") follower=$1 other=$2 ;;
        *) fail "one of the three leads" ;;
    esac
}

# experiment NAME MORAL…: the laboratory shows it; the words may stand in other lines.
experiment() {
    run "quorate lab $1 --color never | sed -n '/What was to be seen/,\$p'"
    local said moral
    said=$(tr -s '[:space:]' ' ' <<<"$out")
    for moral in "${@:2}"; do
        [[ $said == *"✓ "*"$moral"* ]] || fail "the laboratory says: $moral"
    done
    [[ $said != *✗* ]] || fail "nothing was seen otherwise"
}

revision() { sed 's/.*"revision":\([0-9]*\).*/\1/' <<<"$out"; }

# ---- the notebook

install_and_run() {
    chapter "etcd安装运行 · Installing and running etcd"
    folder single
    start single.log "nohup ./etcd"
    await "etcdctl endpoint health"
    expect "*127.0.0.1:2379 is healthy*"
    run "etcdctl put hello world"
    expect "OK"
    run "etcdctl get hello"
    expect $'hello\nworld'
    end_all

    if [ "$etcdctl" = "$binary" ]; then
        folder ours
        start three.log "QUORATE=$binary $here/scripts/three-members.sh"
        await "etcdctl endpoint health --endpoints=127.0.0.1:2379,127.0.0.1:2479,127.0.0.1:2579"
        end_all
        # It ends its members, and does not wait for their end.
        await "! curl -s 127.0.0.1:2379/version && ! curl -s 127.0.0.1:2479/version && ! curl -s 127.0.0.1:2579/version"
    fi

    folder three
    three_members
    run_three_members
    grep -q '^hello etcd\.\.\.$' cluster.log || fail "the script says hello"
}

write_a_message() {
    chapter "etcd写入消息 · How a write goes: through the leader, through a follower"
    run "etcdctl endpoint status --cluster -w table"
    expect_one_leader "$HOST1" "$HOST2" "$HOST3"
    run "etcdctl put foo bar --endpoints=$leader"
    expect "OK"
    run "etcdctl put foo1 bar1 --endpoints=$follower"
    expect "OK"
    local host
    for host in "$HOST1" "$HOST2" "$HOST3"; do
        run "etcdctl get --prefix foo --endpoints=$host"
        expect $'foo\nbar\nfoo1\nbar1'
    done
}

questions_about_a_write() {
    chapter "问题 1、2，测试 1–3 · Questions 1 and 2, tests 1 to 3, by the laboratory"
    experiment write \
        "passes the put on as MsgProp, and the leader, member" \
        "The leader does not write first and send then" \
        "Committed means durable on a majority"
    experiment leader-dies \
        "It has the entry, and commits it" \
        "What a client was told OK is there" \
        "What was on one disk only was never promised"
    experiment when-written \
        "the WAL is written at the first MsgApp, not at the second" \
        "Its MsgAppResp comes after its sync" \
        "At the commit index they apply, and write nothing"
    experiment withhold-acks \
        "The leader asks nobody before it writes" \
        "So it does not commit, it does not apply, and the client hears nothing"
    experiment when-applied \
        "The leader applies after the MsgAppResp to the entries" \
        "It does not wait for the MsgAppResp to the commit index"
}

files() {
    chapter "WAL文件存储、KV数据存储 · WAL files, how keys and values are stored"
    run "quorate util wal dump infra0.etcd/member/wal --kind entry"
    expect '*foo*bar*foo1*bar1*'
    run "ls infra0.etcd/member"
    expect '*store*wal*'
    run "curl -s localhost:2379/metrics | grep -E 'wal_fsync|proposals'"
    expect '*etcd_disk_wal_fsync*' '*etcd_server_proposals_committed_total*'
}

snapshots() {
    chapter "etcd快照 · Snapshots: for a member that was away, and for a restart"
    end_all
    printf '$ export ETCD_SNAPSHOT_COUNT=10 ETCD_SNAPSHOT_CATCHUP_ENTRIES=5\n'
    export ETCD_SNAPSHOT_COUNT=10 ETCD_SNAPSHOT_CATCHUP_ENTRIES=5
    run_three_members
    run "etcdctl get --prefix foo --endpoints=$HOST2"
    expect $'foo\nbar\nfoo1\nbar1'
    # The third is killed; what the others take meanwhile is more than their logs keep for it.
    run "kill -9 ${members[2]}"
    wait "${members[2]}" 2>/dev/null || true
    run "for i in {1..40}; do etcdctl put away/\$i \$i --endpoints=$HOST1; done | uniq"
    expect "OK"
    start infra2.log "nohup ./etcd --name $NAME3 --initial-advertise-peer-urls $PEER3 --listen-peer-urls $PEER3 \
--listen-client-urls $HOST3 --advertise-client-urls $HOST3 --initial-cluster-token etcd-cluster-sakulali \
--initial-cluster infra0=$PEER1,infra1=$PEER2,infra2=$PEER3 --initial-cluster-state new"
    await "grep 'installed a snapshot' infra2.log"
    await "etcdctl get away/40 --consistency=s --endpoints=$HOST3 | grep '^40\$'"
    # Started again, it begins with that snapshot: no entry before it is in any log.
    end_all
    unset ETCD_SNAPSHOT_COUNT ETCD_SNAPSHOT_CATCHUP_ENTRIES
    run "quorate util wal dump infra2.etcd/member/wal --kind snapshot"
    expect '*snapshot index=[1-9]*'
    run_three_members
    run "etcdctl get --prefix foo --consistency=s --endpoints=$HOST3"
    expect $'foo\nbar\nfoo1\nbar1'
}

questions_about_snapshots() {
    experiment snapshot \
        "That is what a snapshot is for" \
        "A restart needs no snapshot from anybody"
    run "quorate lab snapshot --real --dir ."
    expect '*start from it*MiB*ms*'
}

use_the_client() {
    chapter "etcd客户端的使用 · Using the client"
    run "etcdctl get --prefix --rev=3 foo"
    expect $'foo\nbar\nfoo1\nbar1'

    start watch.log "etcdctl watch --rev=3 foo"
    local watch=$pid
    # The same value again is a new revision.
    run "etcdctl get foo -w=json"
    local before
    before=$(revision)
    run "etcdctl put foo bar"
    run "etcdctl get foo -w=json"
    expect "*\"revision\":$((before + 1)),*\"key\":\"Zm9v\",\"create_revision\":2,\"mod_revision\":$((before + 1)),\"version\":2,\"value\":\"YmFy\"*"
    run "etcdctl put foo later"
    await "grep later watch.log"
    run "cat watch.log"
    expect $'PUT\nfoo\nbar\nPUT\nfoo\nlater'
    run "kill $watch"
    # Whoever was away asks from where it stopped, and gets what it missed.
    start resumed.log "etcdctl watch --rev=$((before + 2)) foo"
    await "grep later resumed.log"
    run "cat resumed.log"
    expect $'PUT\nfoo\nlater'
    run "kill $pid"

    run "etcdctl compaction $((before + 2))"
    expect "compacted revision $((before + 2))"
    refused "etcdctl get --prefix --rev=3 foo"
    expect '*required revision has been compacted*'
    refused "etcdctl compaction 3"
    expect '*required revision has been compacted*'
    run "etcdctl get --prefix foo"
    expect $'foo\nlater\nfoo1\nbar1'
}

questions_about_the_past() {
    experiment watch-resume "Each change came once, in order, without a gap"
    experiment compaction "is refused by every member, as compacted" "it is cancelled, and told"
}

use_raftexample() {
    chapter "raftexample使用 · Using raftexample"
    folder raft
    local began=${EPOCHREALTIME/./} all=http://127.0.0.1:12379,http://127.0.0.1:22379,http://127.0.0.1:32379
    start 1.log "./raftexample --id 1 --cluster $all --port 12380 --join true"
    start 2.log "./raftexample --id 2 --cluster $all --port 22380 --join true"
    start 3.log "./raftexample --id 3 --cluster $all --port 32380 --join true"
    await "curl -s localhost:12380"
    run "curl -X PUT -d name=sakulali localhost:12380"
    expect ""
    local took_us=$((${EPOCHREALTIME/./} - began))
    ((took_us < 3000000)) || fail "it takes a change within three seconds, not $took_us µs"
    run 'curl -i -H "Accept: application/json" -H "Content-Type: application/json" -X GET localhost:12380'
    expect $'HTTP/1.1 200 OK*\nname=sakulali'
    await "curl -s localhost:32380 | grep name=sakulali"

    # A fourth one comes, and goes.
    run "curl -X POST -d http://127.0.0.1:12479 localhost:12380/4"
    expect ""
    start 4.log "./raftexample --id 4 --cluster $all,http://127.0.0.1:12479 --port 12480 --join true"
    await "curl -s localhost:12480 | grep name=sakulali"
    run "curl -X DELETE localhost:12380/4"
    expect ""
    await "! kill -0 $pid"
    run "cat 4.log"
    expect "*node 4 was removed from the cluster and ends*"
    end_all
}

test_the_client() {
    chapter "etcd测试 · Is there a connection pool in the client, how does it balance?"
    experiment balance \
        "over one connection to each, which is kept" \
        "A put that was sent and not answered may have been done, so it is not repeated"
}

look_inside() {
    chapter "etcd常用调试命令 · Commands for looking inside"
    cd "$work/$session/three"
    run_three_members
    run "ETCDCTL_API=3 etcdctl endpoint status --cluster -w table"
    expect_one_leader "$HOST1" "$HOST2" "$HOST3"
    end_all

    # The same with raftexample's ports, which it has left.
    folder ports
    three_members
    sed -i -e 's/:2379$/:12380/; s/:2479$/:22380/; s/:2579$/:32380/' \
        -e 's/:2380$/:12379/; s/:2480$/:22379/; s/:2580$/:32379/' cluster.sh
    run_three_members
    run "./etcdctl endpoint status -w table --endpoints=http://127.0.0.1:12380,http://127.0.0.1:22380,http://127.0.0.1:32380"
    expect_one_leader http://127.0.0.1:12380 http://127.0.0.1:22380 http://127.0.0.1:32380
    end_all

    run "./etcdctl version"
    expect $'etcdctl version: 3.*\nAPI version: 3.*'
    printf '$ export ETCDCTL_API=3\n'
    export ETCDCTL_API=3

    folder curl
    start v2.log "nohup ./etcd --enable-v2"
    await "./etcdctl endpoint health"
    run "curl -L http://localhost:2379/v3beta/kv/put -X POST -d '{\"key\": \"Zm9v\", \"value\": \"YmFy\"}'"
    expect '{"header":{"cluster_id":"*","member_id":"*","revision":"2","raft_term":"*"}}'
    run "./etcdctl get foo"
    expect $'foo\nbar'
    run "curl http://localhost:2379/v2/keys/hello -XPUT -d value=world"
    expect '{"action":"set","node":{"key":"/hello","value":"world","modifiedIndex":1,"createdIndex":1}}'
    run "curl http://localhost:2379/v2/keys/hello"
    expect '{"action":"get","node":{"key":"/hello","value":"world","modifiedIndex":1,"createdIndex":1}}'
    end_all
    unset ETCDCTL_API
}

# ---- what there is to run it with

# skip NAME WHY: says so, and fails where skips are forbidden, as in the tests.
skip() {
    echo "skipped: $1: $2"
    if [ -n "${QUORATE_TESTS_STRICT+set}" ] && [[ ,$QUORATE_TESTS_STRICT, != *,"$1",* ]]; then
        echo "$1 is not on the list of skips that are allowed: $QUORATE_TESTS_STRICT" >&2
        exit 1
    fi
}

for port in "${PORTS[@]}"; do
    if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
        echo "notebook.sh: somebody listens on port $port, which the notebook needs; nothing was started" >&2
        exit 1
    fi
done

if [ -z "${QUORATE_BINARY:-}" ]; then
    cargo build --release -p quorate -p raftexample
    QUORATE_BINARY=${CARGO_TARGET_DIR:-target}/release/quorate
fi
binary=$(realpath "$QUORATE_BINARY")
raftexample=$(dirname "$binary")/raftexample
[ -x "$raftexample" ] || { echo "notebook.sh: $raftexample is not there" >&2; exit 1; }
reference=$(realpath -m "${QUORATE_REFERENCE_DIR:-target/reference}")

# Nothing of the caller's etcd is meant for this one.
for name in $(compgen -e | grep -E '^(ETCD|ETCDCTL)_' || true); do unset "$name"; done
work=$(mktemp -d)
trap 'end_all; cd /; rm -rf "$work"' EXIT
mkdir "$work/bin"
ln -s "$binary" "$work/bin/quorate"
PATH=$work/bin:$PATH

# session NAME ETCDCTL CHAPTER…
session() {
    session=$1 etcdctl=$2
    mkdir "$work/$session"
    ln -sfn "$etcdctl" "$work/bin/etcdctl"
    printf '\n==== the notebook, etcdctl: %s\n' "$session"
    local part
    for part in "${@:3}"; do "$part"; done
    end_all
    if grep -rl --include='*.log' panicked "$work/$session"; then fail "nobody panics"; fi
}

session ours "$binary" \
    install_and_run write_a_message questions_about_a_write files \
    snapshots questions_about_snapshots use_the_client questions_about_the_past \
    end_all use_raftexample test_the_client look_inside

# With another etcdctl, what etcdctl does.
again=(install_and_run write_a_message snapshots use_the_client end_all look_inside)
if [ -x "$reference/etcdctl" ]; then
    session 3.7 "$reference/etcdctl" "${again[@]}"
else
    skip notebook "$reference/etcdctl is not there; scripts/reference.sh builds it"
fi
if [[ $(ETCDCTL_API=3 /usr/bin/etcdctl version 2>/dev/null || true) == *"etcdctl version: 3.4."* ]]; then
    session 3.4 /usr/bin/etcdctl "${again[@]}"
else
    skip notebook_3_4 "/usr/bin/etcdctl is not Debian's 3.4; it is in etcd-client"
fi

printf '\nThe notebook holds: every command ran, every answer was as it should be (%s s).\n' "$SECONDS"
