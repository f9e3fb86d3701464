//! Histories that no store can have that keeps its promises, and such as one can have though they look odd.
//!
//! A pair of numbers is an operation's call and return; a third number its revision.

use bytes::Bytes;
use prost::Message;
use proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use proto::etcdserverpb::request_op::Request as Op;
use proto::etcdserverpb::response_op::Response as OpAnswer;
use proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, Compare, DeleteRangeRequest, DeleteRangeResponse,
    PutRequest, PutResponse, RangeRequest, RangeResponse, RequestOp, ResponseHeader, ResponseOp,
    TxnRequest, TxnResponse,
};
use proto::mvccpb::KeyValue;
use sim::history::{Answer, Operation, Outcome, Request};

/// Operations, and what the members applied, where that matters.
pub type History = (Vec<Operation>, Option<Vec<Bytes>>);

/// Whether the search, which is shown no revisions, can see what is wrong.
pub enum Seen {
    Refused,
    /// It cannot, and why.
    Blind(#[expect(dead_code, reason = "for the reader of the table")] &'static str),
}

pub struct Bad {
    pub name: &'static str,
    pub history: fn() -> History,
    /// Words of the witness's sentence when it has no log.
    pub why: &'static str,
    pub search: Seen,
}

pub struct Good {
    pub name: &'static str,
    pub history: fn() -> History,
}

const NO_REVISIONS: Seen = Seen::Blind("it is shown no revisions");

pub const BAD: &[Bad] = &[
    Bad {
        name: "a stale read",
        history: || {
            (
                vec![
                    put((0, 1, 2), "x", "1"),
                    put((2, 3, 3), "x", "2"),
                    get((4, 5, 2), "x", &[kv("x", "1", 2, 2, 1)]),
                ],
                None,
            )
        },
        why: "is of revision 2, and 3 had returned before it was called",
        search: Seen::Refused,
    },
    Bad {
        name: "a leader of yesterday reads without asking anybody",
        history: || {
            (
                vec![
                    put((0, 1, 2), "x", "1"),
                    unknown(2, put_of("x", "2")),
                    get((3, 4, 3), "x", &[kv("x", "2", 2, 3, 2)]),
                    get((5, 6, 2), "x", &[kv("x", "1", 2, 2, 1)]),
                ],
                None,
            )
        },
        why: "is of revision 2, and 3 had returned before it was called",
        search: Seen::Refused,
    },
    Bad {
        name: "a write that was overwritten by nobody is lost",
        history: || {
            (
                vec![
                    put((0, 1, 2), "x", "1"),
                    put((2, 3, 3), "x", "2"),
                    get((4, 5, 3), "x", &[kv("x", "1", 2, 2, 1)]),
                ],
                None,
            )
        },
        why: "was answered",
        search: Seen::Refused,
    },
    Bad {
        name: "a write was acknowledged, and forgotten in a restart",
        history: || {
            (
                vec![put((0, 1, 2), "x", "1"), put((2, 3, 2), "y", "1"), get((4, 5, 2), "x", &[])],
                Some(log(&[put_of("y", "1")])),
            )
        },
        why: "revision 2 was made twice",
        search: Seen::Refused,
    },
    Bad {
        name: "a read from the future",
        history: || {
            (vec![get((0, 1, 2), "x", &[kv("x", "1", 2, 2, 1)]), put((2, 3, 2), "x", "1")], None)
        },
        why: "made revision 2, and 2 had returned before it was called",
        search: Seen::Refused,
    },
    Bad {
        name: "a write of unknown outcome took effect before it was asked for",
        history: || {
            (
                vec![get((0, 1, 2), "x", &[kv("x", "1", 2, 2, 1)]), unknown(2, put_of("x", "1"))],
                Some(log(&[put_of("x", "1")])),
            )
        },
        why: "nobody asked for revision 2",
        search: Seen::Refused,
    },
    Bad {
        name: "a put that was sent again took effect twice",
        history: || {
            (
                vec![put((0, 1, 2), "x", "1"), get((2, 3, 3), "x", &[kv("x", "1", 2, 3, 2)])],
                Some(log(&[put_of("x", "1"), put_of("x", "1")])),
            )
        },
        why: "nobody asked for revision 3",
        search: Seen::Refused,
    },
    Bad {
        name: "a write that was turned away took effect",
        history: || {
            let turned = Operation { outcome: Outcome::NotTaken, ..unknown(2, put_of("x", "2")) };
            (
                vec![
                    put((0, 1, 2), "x", "1"),
                    turned,
                    get((4, 5, 3), "x", &[kv("x", "2", 2, 3, 2)]),
                ],
                Some(log(&[put_of("x", "1"), put_of("x", "2")])),
            )
        },
        why: "nobody asked for revision 3",
        search: Seen::Refused,
    },
    Bad {
        name: "a value from nowhere",
        history: || (vec![get((0, 1, 2), "x", &[kv("x", "9", 2, 2, 1)])], None),
        why: "nobody asked for revision 2",
        search: Seen::Refused,
    },
    Bad {
        name: "a transaction of which a range sees one half",
        history: || {
            (
                vec![
                    txn((0, 1, 2), always(&[("x", "1"), ("y", "1")]), puts_done(2, 2)),
                    range((2, 3, 2), "x", "z", &[kv("x", "1", 2, 2, 1)]),
                ],
                None,
            )
        },
        why: "was answered",
        search: Seen::Refused,
    },
    Bad {
        name: "a transaction under way of which first one half is seen, and then not the other",
        history: || {
            (
                vec![
                    txn((0, 9, 2), always(&[("x", "1"), ("y", "1")]), puts_done(2, 2)),
                    get((1, 2, 2), "x", &[kv("x", "1", 2, 2, 1)]),
                    get((3, 4, 1), "y", &[]),
                ],
                None,
            )
        },
        why: "is of revision 1, and 2 had returned before it was called",
        search: Seen::Refused,
    },
    Bad {
        name: "two writes seen in one order here and in the other there",
        history: || {
            (
                vec![
                    put((0, 9, 2), "x", "1"),
                    put((0, 9, 3), "y", "1"),
                    range((1, 2, 2), "x", "z", &[kv("x", "1", 2, 2, 1)]),
                    range((1, 2, 3), "x", "z", &[kv("y", "1", 3, 3, 1)]),
                ],
                None,
            )
        },
        why: "was answered",
        search: Seen::Refused,
    },
    Bad {
        name: "a compare that does not hold holds",
        history: || {
            (
                vec![
                    put((0, 1, 2), "x", "1"),
                    txn((2, 3, 3), if_version("x", 0, &[("x", "2")]), puts_done(3, 1)),
                ],
                None,
            )
        },
        why: "should have made revision 3, but changes nothing there",
        search: Seen::Refused,
    },
    Bad {
        name: "two swaps of the same version both succeed",
        history: || {
            (
                vec![
                    put((0, 1, 2), "x", "1"),
                    txn((2, 9, 3), if_version("x", 1, &[("x", "a")]), puts_done(3, 1)),
                    txn((2, 9, 4), if_version("x", 1, &[("x", "b")]), puts_done(4, 1)),
                ],
                None,
            )
        },
        why: "should have made revision 4, but changes nothing there",
        search: Seen::Refused,
    },
    Bad {
        name: "two swaps of the same revision both succeed",
        history: || {
            (
                vec![
                    put((0, 1, 2), "x", "1"),
                    txn((2, 9, 3), if_modified("x", 2, &[("x", "a")]), puts_done(3, 1)),
                    txn((2, 9, 4), if_modified("x", 2, &[("x", "b")]), puts_done(4, 1)),
                ],
                None,
            )
        },
        why: "should have made revision 4, but changes nothing there",
        search: Seen::Blind("a compare of revisions is believed, as it is shown none"),
    },
    Bad {
        name: "a key is deleted twice",
        history: || {
            (
                vec![
                    put((0, 1, 2), "x", "1"),
                    delete((2, 9, 3), "x", 1),
                    delete((2, 9, 4), "x", 1),
                ],
                None,
            )
        },
        why: "should have made revision 4, but changes nothing there",
        search: Seen::Refused,
    },
    Bad {
        name: "a delete does not find what is there",
        history: || (vec![put((0, 1, 2), "x", "1"), delete((2, 3, 2), "x", 0)], None),
        why: "changed nothing, it says, but at revision 2 it would have",
        search: Seen::Refused,
    },
    Bad {
        name: "a deleted key comes back",
        history: || {
            (
                vec![
                    put((0, 1, 2), "x", "1"),
                    delete((2, 3, 3), "x", 1),
                    get((4, 5, 3), "x", &[kv("x", "1", 2, 2, 1)]),
                ],
                None,
            )
        },
        why: "was answered",
        search: Seen::Refused,
    },
    Bad {
        name: "a put does not tell of what it replaced",
        history: || {
            let request = PutRequest {
                key: "x".into(),
                value: "2".into(),
                prev_kv: true,
                ..PutRequest::default()
            };
            let answer = Answer::Put(PutResponse { header: header(3), prev_kv: None });
            let second = answered((2, 3), Request::Put(request), answer);
            (vec![put((0, 1, 2), "x", "1"), second], None)
        },
        why: "was answered",
        search: Seen::Refused,
    },
    Bad {
        name: "the revision goes back",
        history: || (vec![put((0, 1, 3), "x", "1"), put((2, 3, 2), "y", "1")], None),
        why: "is of revision 2, and 3 had returned before it was called",
        search: NO_REVISIONS,
    },
    Bad {
        name: "two writes of one revision",
        history: || (vec![put((0, 1, 2), "x", "1"), put((0, 1, 2), "y", "1")], None),
        why: "revision 2 was made twice",
        search: NO_REVISIONS,
    },
    Bad {
        name: "a revision that nobody made",
        history: || (vec![put((0, 1, 2), "x", "1"), put((2, 3, 4), "x", "2")], None),
        why: "nobody asked for revision 3",
        search: NO_REVISIONS,
    },
    Bad {
        name: "a key is told with another revision than that of its write",
        history: || {
            (
                vec![
                    put((0, 1, 2), "x", "1"),
                    put((2, 3, 3), "y", "1"),
                    get((4, 5, 3), "x", &[kv("x", "1", 2, 3, 1)]),
                ],
                None,
            )
        },
        why: "was answered",
        search: NO_REVISIONS,
    },
    Bad {
        name: "a read of what had been compacted away",
        history: || {
            (
                vec![
                    put((0, 1, 2), "x", "1"),
                    put((2, 3, 3), "x", "2"),
                    compact((4, 5, 3), 3),
                    get_at((6, 7, 3), "x", 2, &[kv("x", "1", 2, 2, 1)]),
                ],
                Some(log(&[put_of("x", "1"), put_of("x", "2"), compact_of(3)])),
            )
        },
        why: "reads revision 2, compacted at 3",
        search: Seen::Blind("it knows no past"),
    },
    Bad {
        name: "what nobody asked to compact is compacted",
        history: || {
            let read = get_at((6, 7, 3), "x", 2, &[]);
            (
                vec![
                    put((0, 1, 2), "x", "1"),
                    put((2, 3, 3), "x", "2"),
                    refused((6, 7), read.request, COMPACTED),
                ],
                None,
            )
        },
        why: "finds revision 2 compacted",
        search: Seen::Blind("it knows no past"),
    },
    Bad {
        name: "a mark is set twice",
        history: || {
            let puts = [put_of("x", "1"), put_of("x", "2")];
            let compactions = [compact_of(3), compact_of(3)];
            (
                vec![
                    put((0, 1, 2), "x", "1"),
                    put((2, 3, 3), "x", "2"),
                    compact((4, 5, 3), 3),
                    compact((6, 7, 3), 3),
                ],
                Some(log(&[&puts[..], &compactions[..]].concat())),
            )
        },
        why: "moves the mark to 3 at revision 3, and stood at 3",
        search: Seen::Blind("it knows no past"),
    },
];

pub const GOOD: &[Good] = &[
    Good {
        name: "reads beside a write see it or do not",
        history: || {
            (
                vec![
                    put((0, 9, 2), "x", "1"),
                    get((1, 6, 2), "x", &[kv("x", "1", 2, 2, 1)]),
                    get((2, 5, 1), "x", &[]),
                    get((3, 8, 1), "x", &[]),
                ],
                None,
            )
        },
    },
    Good {
        name: "what returns in the moment of a call has not returned before",
        history: || (vec![put((0, 5, 2), "x", "1"), get((5, 6, 1), "x", &[])], None),
    },
    Good {
        name: "writes beside each other take effect against the order of their calls",
        history: || {
            (
                vec![
                    put((0, 9, 4), "x", "1"),
                    put((1, 8, 3), "x", "2"),
                    put((2, 7, 2), "x", "3"),
                    get((10, 11, 4), "x", &[kv("x", "1", 2, 4, 3)]),
                ],
                None,
            )
        },
    },
    Good {
        name: "a write of unknown outcome takes effect late",
        history: || {
            (
                vec![
                    unknown(0, put_of("x", "1")),
                    get((2, 3, 1), "x", &[]),
                    get((4, 5, 2), "x", &[kv("x", "1", 2, 2, 1)]),
                ],
                None,
            )
        },
    },
    Good {
        name: "a write of unknown outcome takes effect behind one that was asked for later",
        history: || {
            (
                vec![
                    unknown(0, put_of("x", "1")),
                    put((1, 2, 2), "x", "2"),
                    get((3, 4, 2), "x", &[kv("x", "2", 2, 2, 1)]),
                    get((5, 6, 3), "x", &[kv("x", "1", 2, 3, 2)]),
                ],
                Some(log(&[put_of("x", "2"), put_of("x", "1")])),
            )
        },
    },
    Good {
        name: "a write of unknown outcome never takes effect",
        history: || {
            (
                vec![
                    put((0, 1, 2), "x", "1"),
                    unknown(2, put_of("x", "2")),
                    get((3, 4, 2), "x", &[kv("x", "1", 2, 2, 1)]),
                    get((50, 51, 2), "x", &[kv("x", "1", 2, 2, 1)]),
                ],
                None,
            )
        },
    },
    Good {
        name: "a delete of unknown outcome, of which nothing is left to be seen",
        history: || {
            (
                vec![
                    put((0, 1, 2), "x", "1"),
                    unknown(2, delete_of("x")),
                    get((3, 4, 2), "x", &[kv("x", "1", 2, 2, 1)]),
                    get((5, 6, 3), "x", &[]),
                    put((7, 8, 4), "x", "2"),
                    get((9, 10, 4), "x", &[kv("x", "2", 4, 4, 1)]),
                ],
                None,
            )
        },
    },
    Good {
        name: "a transaction of unknown outcome, of which one branch is seen",
        history: || {
            (
                vec![
                    put((0, 1, 2), "x", "1"),
                    unknown(2, if_version("x", 1, &[("x", "2"), ("y", "2")])),
                    range((5, 6, 3), "x", "z", &[kv("x", "2", 2, 3, 2), kv("y", "2", 3, 3, 1)]),
                ],
                None,
            )
        },
    },
    Good {
        name: "of two swaps beside each other one succeeds",
        history: || {
            let lost = TxnResponse { header: header(3), succeeded: false, responses: Vec::new() };
            (
                vec![
                    put((0, 1, 2), "x", "1"),
                    txn((2, 9, 3), if_modified("x", 2, &[("x", "b")]), puts_done(3, 1)),
                    txn((2, 9, 3), if_modified("x", 2, &[("x", "a")]), lost),
                ],
                None,
            )
        },
    },
    Good {
        name: "a serializable read of long ago",
        history: || {
            let mut old = get((6, 7, 2), "x", &[kv("x", "1", 2, 2, 1)]);
            let Request::Range(range) = &mut old.request else { unreachable!() };
            range.serializable = true;
            (vec![put((0, 1, 2), "x", "1"), put((2, 3, 3), "x", "2"), old], None)
        },
    },
    Good {
        name: "a read of the past, and of a past that is being compacted",
        history: || {
            let read = get_at((8, 9, 3), "x", 2, &[]);
            (
                vec![
                    put((0, 1, 2), "x", "1"),
                    put((2, 3, 3), "x", "2"),
                    get_at((4, 5, 3), "x", 2, &[kv("x", "1", 2, 2, 1)]),
                    unknown(6, compact_of(3)),
                    refused((8, 9), read.request, COMPACTED),
                ],
                None,
            )
        },
    },
    Good {
        name: "what was refused or turned away did nothing",
        history: || {
            let keep = PutRequest { key: "x".into(), ignore_value: true, ..PutRequest::default() };
            let turned = Operation { outcome: Outcome::NotTaken, ..unknown(2, put_of("x", "2")) };
            let keep = Request::Put(keep);
            (
                vec![
                    refused((0, 1), keep.clone(), "etcdserver: key not found"),
                    turned,
                    put((3, 4, 2), "x", "1"),
                    delete((5, 6, 3), "x", 1),
                    delete((7, 8, 3), "x", 0),
                    get((9, 10, 3), "x", &[]),
                ],
                Some(log(&[keep, put_of("x", "1"), delete_of("x"), delete_of("x")])),
            )
        },
    },
];

pub const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";

/// The entries of members that applied these.
pub fn log(requests: &[Request]) -> Vec<Bytes> {
    let entries = requests.iter().map(|request| request.to_entry().unwrap());
    entries.map(|entry| entry.encode_to_vec().into()).collect()
}

pub fn header(revision: i64) -> Option<ResponseHeader> {
    // What belongs to whoever answered matters to nobody.
    Some(ResponseHeader { revision, member_id: 7, raft_term: 3, ..ResponseHeader::default() })
}

/// A key-value with its create and modification revision and its version.
pub fn kv(key: &str, value: &str, create: i64, modified: i64, version: i64) -> KeyValue {
    KeyValue {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        create_revision: create,
        mod_revision: modified,
        version,
        lease: 0,
    }
}

fn answered((call, at): (u64, u64), request: Request, answer: Answer) -> Operation {
    Operation { client: 1, call, request, outcome: Outcome::Answered { at, answer } }
}

fn refused((call, at): (u64, u64), request: Request, error: &str) -> Operation {
    Operation {
        client: 1,
        call,
        request,
        outcome: Outcome::Refused { at, error: error.to_owned() },
    }
}

pub fn unknown(call: u64, request: Request) -> Operation {
    Operation { client: 2, call, request, outcome: Outcome::Unknown }
}

pub fn put_of(key: &str, value: &str) -> Request {
    Request::Put(PutRequest {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        ..PutRequest::default()
    })
}

pub fn put((call, at, revision): (u64, u64, i64), key: &str, value: &str) -> Operation {
    let answer = PutResponse { header: header(revision), prev_kv: None };
    answered((call, at), put_of(key, value), Answer::Put(answer))
}

fn delete_of(key: &str) -> Request {
    let key = key.to_owned().into();
    Request::DeleteRange(DeleteRangeRequest { key, ..DeleteRangeRequest::default() })
}

fn delete((call, at, revision): (u64, u64, i64), key: &str, deleted: i64) -> Operation {
    let answer = DeleteRangeResponse { header: header(revision), deleted, prev_kvs: Vec::new() };
    answered((call, at), delete_of(key), Answer::DeleteRange(answer))
}

pub fn get(times: (u64, u64, i64), key: &str, found: &[KeyValue]) -> Operation {
    range(times, key, "", found)
}

fn get_at(times: (u64, u64, i64), key: &str, revision: i64, found: &[KeyValue]) -> Operation {
    let mut operation = get(times, key, found);
    if let Request::Range(range) = &mut operation.request {
        range.revision = revision;
    }
    operation
}

fn range(
    (call, at, revision): (u64, u64, i64),
    key: &str,
    end: &str,
    found: &[KeyValue],
) -> Operation {
    let request = RangeRequest {
        key: key.to_owned().into(),
        range_end: end.to_owned().into(),
        ..RangeRequest::default()
    };
    let answer = RangeResponse {
        header: header(revision),
        kvs: found.to_vec(),
        count: found.len() as i64,
        more: false,
    };
    answered((call, at), Request::Range(request), Answer::Range(answer))
}

fn compact_of(revision: i64) -> Request {
    Request::Compact(CompactionRequest { revision, physical: false })
}

fn compact((call, at, revision): (u64, u64, i64), mark: i64) -> Operation {
    let answer = CompactionResponse { header: header(revision) };
    answered((call, at), compact_of(mark), Answer::Compact(answer))
}

fn txn((call, at, _): (u64, u64, i64), request: Request, answer: TxnResponse) -> Operation {
    answered((call, at), request, Answer::Txn(answer))
}

fn always(puts: &[(&str, &str)]) -> Request {
    if_all(Vec::new(), puts)
}

fn if_version(key: &str, version: i64, puts: &[(&str, &str)]) -> Request {
    let union = TargetUnion::Version(version);
    if_all(vec![equals(key, CompareTarget::Version, union)], puts)
}

fn if_modified(key: &str, revision: i64, puts: &[(&str, &str)]) -> Request {
    let union = TargetUnion::ModRevision(revision);
    if_all(vec![equals(key, CompareTarget::Mod, union)], puts)
}

fn equals(key: &str, target: CompareTarget, union: TargetUnion) -> Compare {
    Compare {
        result: CompareResult::Equal as i32,
        target: target as i32,
        key: key.to_owned().into(),
        target_union: Some(union),
        ..Compare::default()
    }
}

fn if_all(compare: Vec<Compare>, puts: &[(&str, &str)]) -> Request {
    let puts = puts.iter().map(|(key, value)| match put_of(key, value) {
        Request::Put(put) => RequestOp { request: Some(Op::RequestPut(put)) },
        _ => unreachable!(),
    });
    Request::Txn(TxnRequest { compare, success: puts.collect(), failure: Vec::new() })
}

/// The answer to a transaction that did so many puts.
fn puts_done(revision: i64, puts: usize) -> TxnResponse {
    // The headers inside know nothing but the revision.
    let inside = Some(ResponseHeader { revision, ..ResponseHeader::default() });
    let put = OpAnswer::ResponsePut(PutResponse { header: inside, prev_kv: None });
    let responses = vec![ResponseOp { response: Some(put) }; puts];
    TxnResponse { header: header(revision), succeeded: true, responses }
}
