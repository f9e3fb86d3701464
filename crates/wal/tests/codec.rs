//! raftpb in bytes: what every version of raft writes is understood, what nobody writes is refused, and nothing
//! panics.

#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use proptest::prelude::*;
use raft::{
    ConfState, Entry, EntryKind, HardState, Index, Message, MessageKind, Snapshot,
    SnapshotMetadata, Term,
};
use wal::codec::*;
use wal::{Metadata, SnapshotRecord};

fn hex(digits: &str) -> Bytes {
    let digits: Vec<u8> = digits.bytes().filter(u8::is_ascii_hexdigit).collect();
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(pair).collect::<Vec<u8>>().into()
}

fn encoded(encode: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut out = Vec::new();
    encode(&mut out);
    out.into()
}

fn heartbeat() -> Message {
    Message { kind: MessageKind::Heartbeat, ..Message::default() }
}

/// The link heartbeat of each generation: raft 3.5 with its empty snapshot, 3.6 with its vote, 3.7 with nothing
/// but the type. Ours is that of 3.6.
#[test]
fn every_flavour_of_a_heartbeat_is_one() {
    let scalars = "0808 1000 1800 2000 2800 3000 4000";
    let of_3_5 = format!("{scalars} 4a0a 1208 0a02 2800 1000 1800 5000 5800");
    let of_3_6 = format!("{scalars} 5000 5800 6800");
    for bytes in [of_3_5.as_str(), of_3_6.as_str(), "0808", "0808 6200"] {
        assert_eq!(decode_message(&hex(bytes)), Ok(heartbeat()), "{bytes}");
    }
    assert_eq!(encoded(|out| encode_message(&heartbeat(), out)), hex(&of_3_6));
}

/// Numbers written one by one and packed, unknown fields of every wire type, fields twice and out of order.
#[test]
fn decoders_take_what_protobuf_allows() {
    let expected = ConfState { voters: vec![1, 300, 5], auto_leave: true, ..ConfState::default() };
    let unpacked = "0801 08ac02 0805 2801";
    let packed = "0a03 01ac02 0805 2801";
    let noisy = "2800 0801 3807 79 0102030405060708 82 01 03 616263 08ac02 95 01 01020304
                 93 01 0801 9b01 0802 9c01 9401 0805 2801";
    for bytes in [unpacked, packed, noisy] {
        assert_eq!(decode_conf_state(&hex(bytes)), Ok(expected.clone()), "{bytes}");
    }
    assert_eq!(encoded(|out| encode_conf_state(&expected, out)), hex(unpacked));

    let entry = decode_entry(&hex("2203 616263 1807 1002 1809 0801")).unwrap();
    assert_eq!((entry.kind, entry.index, entry.term), (EntryKind::ConfChange, Index(9), Term(2)));
    assert_eq!(entry.data, "abc");
}

/// Entries as etcd writes them into its log, and the record of a snapshot.
#[test]
fn golden_bytes() {
    let entry = Entry { term: Term(2), index: Index(300), ..Entry::default() };
    assert_eq!(encoded(|out| encode_entry(&entry, out)), hex("0800 1002 18ac02"));
    let entry = Entry { data: Bytes::from_static(b"xy"), ..entry };
    assert_eq!(encoded(|out| encode_entry(&entry, out)), hex("0800 1002 18ac02 2202 7879"));
    let state = HardState { term: Term(2), vote: 0x80, commit: Index(0) };
    assert_eq!(encoded(|out| encode_hard_state(&state, out)), hex("0802 108001 1800"));
    let record = SnapshotRecord {
        index: Index(51),
        term: Term(2),
        conf_state: Some(ConfState { voters: vec![7], ..ConfState::default() }),
    };
    let bytes = hex("0833 1002 1a04 0807 2800");
    assert_eq!(encoded(|out| encode_snapshot_record(&record, out)), bytes);
    assert_eq!(decode_snapshot_record(&bytes), Ok(record));
    let metadata = Metadata { node_id: 1, cluster_id: 2 };
    assert_eq!(encoded(|out| encode_metadata(&metadata, out)), hex("0801 1002"));
    assert_eq!(decode_metadata(&hex("1002 0801")), Ok(metadata));
}

/// What no version writes is refused, and says why.
#[test]
fn nonsense_is_refused() {
    let cases = [
        ("08", "a number without an end"),
        ("08ffffffffffffffffff7f", "a number of more than 64 bits"),
        ("ffffffffffffffffffffff", "a number of more than 64 bits"),
        ("00", "a field of an impossible number"),
        ("2205 61", "a field that is longer than the message"),
        ("22ffffffffffffffffff01", "a field that is longer than the message"),
        ("2001", "bytes of another wire type"),
        ("0a00", "a number of another wire type"),
        ("0803", "an entry of unknown type"),
        ("0f", "an unknown wire type"),
        ("0c", "an unknown wire type"),
        ("2b 2b 2b", "a number without an end"),
    ];
    for (bytes, why) in cases {
        assert_eq!(decode_entry(&hex(bytes)), Err(DecodeError(why)), "{bytes}");
    }
    assert_eq!(decode_message(&hex("0818")), Err(DecodeError("a message of unknown type")));
    let unknown = DecodeError("a state with an unknown field");
    assert_eq!(decode_hard_state(&hex("0801 2200")), Err(unknown));
}

/// Groups within groups, as many as a message can hold, end in an answer and not in the stack.
#[test]
fn nested_groups_do_not_exhaust_the_stack() {
    let deep = Bytes::from(vec![0x7b; 1_000_000]);
    assert!(decode_message(&deep).is_err());
    let closed: Vec<u8> = [vec![0x7b; 500_000], vec![0x7c; 500_000], vec![0x08, 0x08]].concat();
    assert_eq!(decode_message(&closed.into()), Ok(heartbeat()));
}

/// Data are slices of what was received, not copies.
#[test]
fn decoding_shares_the_buffer() {
    let entry = Entry { index: Index(1), data: Bytes::from(vec![7; 1000]), ..Entry::default() };
    let message = Message { kind: MessageKind::App, entries: vec![entry], ..Message::default() };
    let bytes = encoded(|out| encode_message(&message, out));
    let decoded = decode_message(&bytes).unwrap();
    let data = decoded.entries[0].data.as_ptr_range();
    assert!(bytes.as_ptr_range().contains(&data.start));
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0..3u64, any::<u64>(), (0..64u32).prop_map(|bits| 1 << bits)]
}

fn some_bytes() -> impl Strategy<Value = Bytes> {
    proptest::collection::vec(any::<u8>(), 0..300).prop_map(Bytes::from)
}

prop_compose! {
    fn an_entry()(kind in 0..3usize, term in number(), index in number(), data in some_bytes()) -> Entry {
        let kind = [EntryKind::Normal, EntryKind::ConfChange, EntryKind::ConfChangeV2][kind];
        Entry { kind, term: Term(term), index: Index(index), data }
    }
}

prop_compose! {
    fn a_conf_state()(
        lists in proptest::collection::vec(proptest::collection::vec(number(), 0..5), 4),
        auto_leave in any::<bool>(),
    ) -> ConfState {
        let [voters, learners, voters_outgoing, learners_next] = lists.try_into().unwrap();
        ConfState { voters, learners, voters_outgoing, learners_next, auto_leave }
    }
}

prop_compose! {
    fn a_snapshot()(data in some_bytes(), conf_state in a_conf_state(), index in 1..=u64::MAX, term in number()) -> Snapshot {
        Snapshot { data, metadata: SnapshotMetadata { conf_state, index: Index(index), term: Term(term) } }
    }
}

prop_compose! {
    fn a_message()(
        kind in 0..24u64,
        numbers in proptest::collection::vec(number(), 8),
        entries in proptest::collection::vec(an_entry(), 0..4),
        snapshot in proptest::option::of(a_snapshot().prop_map(Box::new)),
        reject in any::<bool>(),
        context in some_bytes(),
    ) -> Message {
        let kind = decode_message(&Bytes::from(vec![8, kind as u8])).unwrap().kind;
        let [to, from, term, log_term, index, commit, reject_hint, vote] = numbers.try_into().unwrap();
        Message {
            kind, to, from, term: Term(term), log_term: Term(log_term), index: Index(index), entries,
            commit: Index(commit), snapshot, reject, reject_hint: Index(reject_hint), context, vote,
            responses: Vec::new(),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// What is encoded is as long as foretold, and decodes to what it was.
    #[test]
    fn a_message_makes_the_round(message in a_message()) {
        let bytes = encoded(|out| encode_message(&message, out));
        prop_assert_eq!(bytes.len(), message_len(&message));
        prop_assert_eq!(decode_message(&bytes), Ok(message));
    }

    #[test]
    fn an_entry_makes_the_round(entry in an_entry()) {
        let bytes = encoded(|out| encode_entry(&entry, out));
        prop_assert_eq!(bytes.len(), entry_len(&entry));
        prop_assert_eq!(decode_entry_copied(&bytes), Ok(entry.clone()));
        prop_assert_eq!(decode_entry(&bytes), Ok(entry));
    }

    #[test]
    fn a_snapshot_makes_the_round(snapshot in a_snapshot(), with_conf_state in any::<bool>()) {
        let bytes = encoded(|out| encode_snapshot(&snapshot, out));
        prop_assert_eq!(bytes.len(), snapshot_len(&snapshot));
        prop_assert_eq!(decode_snapshot(&bytes), Ok(snapshot.clone()));
        let metadata = snapshot.metadata;
        let conf_state = with_conf_state.then_some(metadata.conf_state);
        let record = SnapshotRecord { index: metadata.index, term: metadata.term, conf_state };
        let bytes = encoded(|out| encode_snapshot_record(&record, out));
        prop_assert_eq!(decode_snapshot_record(&bytes), Ok(record));
    }

    #[test]
    fn a_state_makes_the_round(term in number(), vote in number(), commit in number()) {
        let state = HardState { term: Term(term), vote, commit: Index(commit) };
        let bytes = encoded(|out| encode_hard_state(&state, out));
        prop_assert_eq!(decode_hard_state(&bytes), Ok(state));
    }

    /// Any bytes are an answer, and what decodes encodes to something that decodes to the same.
    #[test]
    fn any_bytes_are_answered(bytes in some_bytes()) {
        if let Ok(message) = decode_message(&bytes) {
            let again = encoded(|out| encode_message(&message, out));
            prop_assert_eq!(decode_message(&again), Ok(message));
        }
        if let Ok(snapshot) = decode_snapshot(&bytes) {
            let again = encoded(|out| encode_snapshot(&snapshot, out));
            prop_assert_eq!(decode_snapshot(&again), Ok(snapshot));
        }
        if let Ok(entry) = decode_entry(&bytes) {
            let again = encoded(|out| encode_entry(&entry, out));
            prop_assert_eq!(decode_entry(&again), Ok(entry));
        }
        if let Ok(state) = decode_hard_state(&bytes) {
            let again = encoded(|out| encode_hard_state(&state, out));
            prop_assert_eq!(decode_hard_state(&again), Ok(state));
        }
    }

    /// A message that was changed somewhere is refused or decodes to something that makes the round.
    #[test]
    fn a_damaged_message_is_answered(message in a_message(), at in any::<prop::sample::Index>(), with in any::<u8>(), cut in any::<bool>()) {
        let mut bytes = encoded(|out| encode_message(&message, out)).to_vec();
        let at = at.index(bytes.len());
        bytes[at] = with;
        if cut {
            bytes.truncate(at + 1);
        }
        if let Ok(message) = decode_message(&bytes.into()) {
            let again = encoded(|out| encode_message(&message, out));
            prop_assert_eq!(decode_message(&again), Ok(message));
        }
    }
}
