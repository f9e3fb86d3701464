//! What holds for any entries whatever: none stops apply, each moves the applied index, and members that
//! apply the same ones are the same, whether or not somebody waits for answers and however often they
//! restart.

#![allow(clippy::unwrap_used)]

mod member;

use bytes::Bytes;
use member::Member;
use pb::request_op::Request as Op;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use prost::Message;
use proto::etcdserverpb as pb;
use state_machine::{
    Caller, ChangeKind, Command, ConfState, MembershipChange, Payload, Request, RequestId,
};

/// Few keys, so that operations meet.
fn key() -> impl Strategy<Value = Bytes> {
    select(vec!["a", "b", "bb", "c", "d", "\0", ""]).prop_map(Bytes::from)
}

fn range_end() -> impl Strategy<Value = Bytes> {
    select(vec!["", "", "\0", "b", "c", "z"]).prop_map(Bytes::from)
}

fn value() -> impl Strategy<Value = Bytes> {
    select(vec!["", "1", "2", "a longer value"]).prop_map(Bytes::from)
}

fn lease() -> impl Strategy<Value = i64> {
    select(vec![0, 0, 0, 1, 2, -1, 99, i64::MIN, i64::MAX])
}

fn revision() -> impl Strategy<Value = i64> {
    prop_oneof![4 => Just(0), 4 => -2..12i64, 1 => Just(i64::MAX), 1 => Just(i64::MIN)]
}

fn put() -> impl Strategy<Value = pb::PutRequest> {
    let flags = (any::<bool>(), prop::bool::weighted(0.2), prop::bool::weighted(0.2));
    (key(), value(), lease(), flags).prop_map(|(key, value, lease, flags)| {
        let (prev_kv, ignore_value, ignore_lease) = flags;
        pb::PutRequest { key, value, lease, prev_kv, ignore_value, ignore_lease }
    })
}

fn delete() -> impl Strategy<Value = pb::DeleteRangeRequest> {
    (key(), range_end(), any::<bool>())
        .prop_map(|(key, range_end, prev_kv)| pb::DeleteRangeRequest { key, range_end, prev_kv })
}

fn range() -> impl Strategy<Value = pb::RangeRequest> {
    let how = (-1..5i64, revision(), -1..4i32, -1..7i32);
    (key(), range_end(), how, any::<bool>(), any::<bool>(), 0..6i64).prop_map(
        |(
            key,
            range_end,
            (limit, revision, sort_order, sort_target),
            keys_only,
            count_only,
            min,
        )| {
            pb::RangeRequest {
                key,
                range_end,
                limit,
                revision,
                sort_order,
                sort_target,
                keys_only,
                count_only,
                min_mod_revision: min,
                ..Default::default()
            }
        },
    )
}

fn compare() -> impl Strategy<Value = pb::Compare> {
    use pb::compare::TargetUnion;
    let union = prop_oneof![
        Just(None),
        revision().prop_map(|n| Some(TargetUnion::Version(n))),
        revision().prop_map(|n| Some(TargetUnion::CreateRevision(n))),
        revision().prop_map(|n| Some(TargetUnion::ModRevision(n))),
        value().prop_map(|v| Some(TargetUnion::Value(v))),
        lease().prop_map(|n| Some(TargetUnion::Lease(n))),
    ];
    (-1..5i32, -1..6i32, key(), range_end(), union).prop_map(
        |(result, target, key, range_end, target_union)| pb::Compare {
            result,
            target,
            key,
            range_end,
            target_union,
        },
    )
}

fn txn() -> impl Strategy<Value = pb::TxnRequest> {
    let op = |request| pb::RequestOp { request };
    let leaf = prop_oneof![
        3 => put().prop_map(move |put| op(Some(Op::RequestPut(put)))),
        2 => delete().prop_map(move |delete| op(Some(Op::RequestDeleteRange(delete)))),
        2 => range().prop_map(move |range| op(Some(Op::RequestRange(range)))),
        1 => Just(op(None)),
    ];
    let ops = leaf.prop_recursive(3, 24, 4, move |inner| {
        (vec(compare(), 0..2), vec(inner.clone(), 0..4), vec(inner, 0..4)).prop_map(
            move |(compare, success, failure)| {
                op(Some(Op::RequestTxn(pb::TxnRequest { compare, success, failure })))
            },
        )
    });
    (vec(compare(), 0..3), vec(ops.clone(), 0..5), vec(ops, 0..5))
        .prop_map(|(compare, success, failure)| pb::TxnRequest { compare, success, failure })
}

fn request() -> impl Strategy<Value = Request> {
    let grant = (lease(), revision()).prop_map(|(id, ttl)| pb::LeaseGrantRequest { id, ttl });
    let checkpoint = vec((lease(), revision()), 0..3).prop_map(|list| pb::LeaseCheckpointRequest {
        checkpoints: list
            .into_iter()
            .map(|(id, remaining_ttl)| pb::LeaseCheckpoint { id, remaining_ttl })
            .collect(),
    });
    let alarm = (-1..4i32, 0..3u64, -1..4i32)
        .prop_map(|(action, member_id, alarm)| pb::AlarmRequest { action, member_id, alarm });
    prop_oneof![
        12 => put().prop_map(Request::Put),
        6 => delete().prop_map(Request::DeleteRange),
        12 => txn().prop_map(Request::Txn),
        2 => range().prop_map(Request::Range),
        2 => revision().prop_map(|revision| {
            Request::Compact(pb::CompactionRequest { revision, physical: false })
        }),
        4 => grant.prop_map(Request::LeaseGrant),
        2 => lease().prop_map(|id| Request::LeaseRevoke(pb::LeaseRevokeRequest { id })),
        1 => checkpoint.prop_map(Request::LeaseCheckpoint),
        1 => alarm.prop_map(Request::Alarm),
        1 => Just(Request::DowngradeVersionTest),
        1 => select(vec!["3.6.0", "3.7.0", "x", ""]).prop_map(|ver| {
            Request::ClusterVersionSet(proto::membershippb::ClusterVersionSetRequest {
                ver: ver.into(),
            })
        }),
        1 => (0..4u64).prop_map(|member_id| {
            Request::MemberAttributesSet(proto::membershippb::ClusterMemberAttrSetRequest {
                member_id,
                member_attributes: None,
            })
        }),
        1 => select(vec![1000, 1011, 1012, 1100, 1107, 1200, 1204]).prop_map(|field| Request::Auth { field, message: Bytes::new() }),
    ]
}

#[derive(Clone, Debug)]
enum Entry {
    Data(Bytes),
    Change(MembershipChange),
    Restart,
}

fn encode(request: Request) -> Bytes {
    Command { id: RequestId(5), caller: Caller::default(), request }.encode()
}

fn entry() -> impl Strategy<Value = Entry> {
    let mutated = (request(), any::<prop::sample::Index>(), any::<u8>(), any::<bool>()).prop_map(
        |(request, at, byte, cut)| {
            let mut data = encode(request).to_vec();
            let at = at.index(data.len());
            data[at] = byte;
            if cut {
                data.truncate(at);
            }
            Bytes::from(data)
        },
    );
    let context = prop_oneof![
        4 => (0..4u64, 0..3u8, any::<bool>()).prop_map(|(id, url, promote)| {
            format!(r#"{{"id":{id},"peerURLs":["u{url}"],"isPromote":{promote}}}"#)
        }),
        1 => Just("{".to_string()),
    ];
    let kind = select(vec![
        ChangeKind::AddNode,
        ChangeKind::RemoveNode,
        ChangeKind::UpdateNode,
        ChangeKind::AddLearnerNode,
    ]);
    let change = (kind, 0..4u64, context).prop_map(|(kind, node_id, context)| MembershipChange {
        id: RequestId(6),
        kind,
        node_id,
        context: context.into(),
    });
    prop_oneof![
        20 => request().prop_map(|request| Entry::Data(encode(request))),
        4 => mutated.prop_map(Entry::Data),
        1 => vec(any::<u8>(), 0..40).prop_map(|data| Entry::Data(data.into())),
        2 => change.prop_map(Entry::Change),
        2 => Just(Entry::Restart),
    ]
}

/// Applies an entry; that the index moves is asserted there.
fn apply(member: &mut Member, entry: &Entry, want_reply: bool) {
    match entry {
        Entry::Data(data) => {
            member.apply(Payload::Normal(data), want_reply);
        }
        Entry::Change(change) => {
            let conf_state = ConfState { voters: vec![change.node_id], ..ConfState::default() };
            member.apply(Payload::Membership { change, conf_state }, want_reply);
        }
        Entry::Restart => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// One member answers and never stops; nobody waits on the other, and it starts again and again.
    #[test]
    fn members_that_apply_the_same_entries_are_the_same(entries in vec(entry(), 1..60)) {
        let (mut one, mut other) = (Member::new(), Member::new());
        for entry in &entries {
            apply(&mut one, entry, true);
            apply(&mut other, entry, false);
            if matches!(entry, Entry::Restart) {
                other.restart();
            }
        }
        prop_assert_eq!(one.state(), other.state());
        other.restart();
        prop_assert_eq!(one.state(), other.state());
    }

    /// An imported state takes the place of whatever was there, also for a window opened before; and what
    /// is applied on top of it is applied alike.
    #[test]
    fn a_replaced_member_is_the_other(
        entries in vec(entry(), 0..20),
        old in vec(entry(), 0..20),
        more in vec(entry(), 0..10),
    ) {
        let (mut one, mut same, mut other) = (Member::new(), Member::new(), Member::new());
        for entry in &entries {
            apply(&mut one, entry, true);
            apply(&mut same, entry, true);
        }
        old.iter().for_each(|entry| apply(&mut other, entry, true));
        let window = other.view();
        other.replace(same);
        prop_assert_eq!(one.state(), other.state());
        prop_assert_eq!(window.revision(), one.view().revision());
        prop_assert_eq!(window.leases(), one.view().leases());
        prop_assert_eq!(window.cluster(), one.view().cluster());
        for entry in &more {
            apply(&mut one, entry, true);
            apply(&mut other, entry, true);
        }
        prop_assert_eq!(one.state(), other.state());
        other.restart();
        prop_assert_eq!(one.state(), other.state());
    }
}

/// As deep as transactions are read, they are applied and answered.
#[test]
fn the_deepest_transaction_is_applied() {
    let put = pb::PutRequest { key: "k".into(), value: "v".into(), ..Default::default() };
    let op = |request| pb::RequestOp { request: Some(request) };
    let mut txn = pb::TxnRequest { success: vec![op(Op::RequestPut(put))], ..Default::default() };
    for _ in 0..state_machine::TXN_DEPTH_MAX {
        txn = pb::TxnRequest { success: vec![op(Op::RequestTxn(txn))], ..Default::default() };
    }
    let mut member = Member::new();
    let outcome = member.request(Request::txn(txn, state_machine::TXN_DEPTH_MAX + 1).unwrap());
    let (_, reply) = outcome.reply.unwrap();
    let reply = reply.unwrap().to_bytes(&Default::default());
    assert_eq!(member.view().revision(), 2);
    assert!(reply.len() > 4 * state_machine::TXN_DEPTH_MAX);
}

proptest! {
    /// The decoder reads what the generated one reads.
    #[test]
    fn the_decoder_agrees_with_the_generated_one(request in request()) {
        let data = encode(request.clone());
        let generated = pb::InternalRaftRequest::decode(data.clone()).unwrap();
        prop_assert_eq!(generated.header.unwrap().id, 5);
        match (&request, generated.put, generated.txn, generated.range, generated.alarm) {
            (Request::Put(put), Some(other), None, None, None) => prop_assert_eq!(put, &other),
            (Request::Txn(txn), None, Some(other), None, None) => prop_assert_eq!(txn, &other),
            (Request::Range(range), None, None, Some(other), None) => {
                prop_assert_eq!(range, &other);
            }
            (Request::Alarm(alarm), None, None, None, Some(other)) => {
                prop_assert_eq!(alarm, &other);
            }
            (Request::Put(_) | Request::Txn(_) | Request::Range(_) | Request::Alarm(_), ..) => {
                prop_assert!(false, "{:?} was read as something else", request);
            }
            _ => {}
        }
        prop_assert_eq!(Command::decode(&data).request, request);
    }

    /// Any bytes at all are some command.
    #[test]
    fn the_decoder_reads_anything(data in vec(any::<u8>(), 0..200)) {
        let data = Bytes::from(data);
        let command = Command::decode(&data);
        prop_assert_eq!(command.clone(), Command::decode(&data));
    }

    /// Whatever a client sends is checked without a panic.
    #[test]
    fn the_front_checks_anything(txn in txn()) {
        let checked = Request::txn(txn.clone(), 16);
        prop_assert_eq!(checked.is_ok(), Request::txn(txn, 16).is_ok());
    }
}
