//! The watch checker: for each promise histories that break it, which are refused by its name; odd ones that break none;
//! and what the watchers of the simulator were told.

#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use prost::Message;
use proto::etcdserverpb::watch_create_request::FilterType;
use proto::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, InternalRaftRequest, PutRequest, ResponseHeader,
    TxnRequest, WatchCreateRequest, WatchResponse,
};
use proto::mvccpb::event::EventType;
use proto::mvccpb::{Event, KeyValue};
use sim::history::watch::{Broken, PROMISES, Promise, Step, check};
use sim::history::witness::Log;
use sim::{Model, Plan, Verdict, Workload, record};

/// What happened: a is made at 2, b at 3, both are written at 4, a deleted at 5, c made at 6, a made again at 7; the last
/// thing is a compaction at 3.
fn happened() -> Model {
    use proto::etcdserverpb::RequestOp;
    use proto::etcdserverpb::request_op::Request;
    let put = |key: &'static str, value: &'static str| PutRequest {
        key: key.into(),
        value: value.into(),
        ..PutRequest::default()
    };
    let entry = InternalRaftRequest::default;
    let puts = [put("a", "2"), put("b", "2")];
    let success = puts.map(|put| RequestOp { request: Some(Request::RequestPut(put)) }).to_vec();
    let delete = DeleteRangeRequest { key: "a".into(), ..DeleteRangeRequest::default() };
    let compaction = CompactionRequest { revision: 3, physical: false };
    let entries: Vec<Bytes> = [
        InternalRaftRequest { put: Some(put("a", "1")), ..entry() },
        InternalRaftRequest { put: Some(put("b", "1")), ..entry() },
        InternalRaftRequest {
            txn: Some(TxnRequest { success, ..TxnRequest::default() }),
            ..entry()
        },
        InternalRaftRequest { delete_range: Some(delete), ..entry() },
        InternalRaftRequest { put: Some(put("c", "1")), ..entry() },
        InternalRaftRequest { put: Some(put("a", "3")), ..entry() },
        InternalRaftRequest { compaction: Some(compaction), ..entry() },
    ]
    .map(|entry| entry.encode_to_vec().into())
    .to_vec();
    let model = Log { entries: &entries, lease_ttl_min: 1 }.model().unwrap();
    assert_eq!(model.revision(), 7);
    model
}

/// Within one revision, 2, a is put and, with everything from there on, deleted; then that is compacted away as far as it may.
fn put_and_deleted() -> Model {
    use proto::etcdserverpb::RequestOp;
    use proto::etcdserverpb::request_op::Request;
    let put = PutRequest { key: "a".into(), value: "1".into(), ..PutRequest::default() };
    let from_a = ("a".into(), vec![0].into());
    let delete =
        DeleteRangeRequest { key: from_a.0, range_end: from_a.1, ..DeleteRangeRequest::default() };
    let ops = [Request::RequestPut(put), Request::RequestDeleteRange(delete)];
    let success = ops.map(|op| RequestOp { request: Some(op) }).to_vec();
    let compaction = CompactionRequest { revision: 2, physical: false };
    let entry = InternalRaftRequest::default;
    let entries = [
        InternalRaftRequest {
            txn: Some(TxnRequest { success, ..TxnRequest::default() }),
            ..entry()
        },
        InternalRaftRequest { compaction: Some(compaction), ..entry() },
    ]
    .map(|entry| entry.encode_to_vec().into());
    Log { entries: &entries, lease_ttl_min: 1 }.model().unwrap()
}

#[test]
fn of_two_changes_of_a_key_in_the_revision_of_the_mark_the_first_need_not_come() {
    let model = put_and_deleted();
    let [put, delete] = model.changes(2, 2) else { panic!("{:?}", model.changes(2, 2)) };
    let event = |change: &sim::Change| {
        let kind = if change.is_put { EventType::Put } else { EventType::Delete };
        Event { r#type: kind as i32, kv: Some(change.kv.clone()), prev_kv: None }
    };
    let judge = |events: &[Event]| {
        let response = WatchResponse {
            header: header(2),
            events: events.to_vec(),
            ..WatchResponse::default()
        };
        check(&model, &[Step::Asked(ab(2)), Step::Told(created(2)), Step::Told(response)])
    };
    judge(&[event(put), event(delete)]).unwrap();
    judge(&[event(delete)]).unwrap();
    let without_the_last = judge(&[event(put)]).unwrap_err();
    assert_eq!(without_the_last.promise, Promise::Atomic);
}

/// A watch of a and b, without anything extra.
fn ab(start_revision: i64) -> WatchCreateRequest {
    WatchCreateRequest {
        key: "a".into(),
        range_end: "c".into(),
        start_revision,
        ..WatchCreateRequest::default()
    }
}

fn with_previous(start_revision: i64) -> WatchCreateRequest {
    WatchCreateRequest { prev_kv: true, ..ab(start_revision) }
}

fn without(filter: FilterType) -> WatchCreateRequest {
    WatchCreateRequest { filters: vec![filter as i32], ..ab(2) }
}

fn header(revision: i64) -> Option<ResponseHeader> {
    Some(ResponseHeader { revision, ..ResponseHeader::default() })
}

fn told(events: Vec<Event>) -> WatchResponse {
    WatchResponse { header: header(7), events, ..WatchResponse::default() }
}

fn fragment(events: Vec<Event>) -> WatchResponse {
    WatchResponse { fragment: true, ..told(events) }
}

fn created(revision: i64) -> WatchResponse {
    WatchResponse { header: header(revision), created: true, ..WatchResponse::default() }
}

fn progress(revision: i64) -> WatchResponse {
    WatchResponse { header: header(revision), ..WatchResponse::default() }
}

fn canceled(compact_revision: i64) -> WatchResponse {
    WatchResponse { canceled: true, compact_revision, ..WatchResponse::default() }
}

/// The event that truly happened to a key at a revision, without what was there before.
fn at(revision: i64, key: &'static str) -> Event {
    Event { prev_kv: None, ..fully(revision, key) }
}

/// The same with it.
fn fully(revision: i64, key: &'static str) -> Event {
    let model = happened();
    let change = model.changes(revision, revision).iter().find(|change| change.key == key).unwrap();
    let kind = if change.is_put { EventType::Put } else { EventType::Delete };
    Event { r#type: kind as i32, kv: Some(change.kv.clone()), prev_kv: change.previous.clone() }
}

/// An event that is told a little differently.
fn twisted(mut event: Event, twist: impl Fn(&mut KeyValue)) -> Event {
    twist(event.kv.as_mut().unwrap());
    event
}

fn judge(asked: WatchCreateRequest, responses: &[WatchResponse]) -> Result<(), Broken> {
    let told = responses.iter().cloned().map(Step::Told);
    let steps: Vec<Step> = [Step::Asked(asked)].into_iter().chain(told).collect();
    check(&happened(), &steps)
}

/// The first responses come on one connection, the others on the next.
fn judge_resumed(
    first: &[WatchResponse],
    next: i64,
    others: &[WatchResponse],
) -> Result<(), Broken> {
    let mut steps = vec![Step::Asked(ab(2))];
    steps.extend(first.iter().cloned().map(Step::Told));
    steps.push(Step::Asked(ab(next)));
    steps.extend(others.iter().cloned().map(Step::Told));
    check(&happened(), &steps)
}

#[test]
fn whatever_breaks_a_promise_is_refused_by_its_name() {
    use Promise::*;
    let to_three = || told(vec![at(2, "a"), at(3, "b")]);
    let to_four = || told(vec![at(2, "a"), at(3, "b"), at(4, "a"), at(4, "b")]);
    let mut early = told(vec![at(2, "a")]);
    early.header = header(1);
    let never = twisted(at(2, "a"), |kv| kv.mod_revision = 3);
    let bad: Vec<(Promise, &str, Result<(), Broken>)> = vec![
        (Ordered, "a later revision first", judge(ab(2), &[told(vec![at(3, "b"), at(2, "a")])])),
        (
            Ordered,
            "the changes of a revision in another order",
            judge(ab(4), &[told(vec![at(4, "b"), at(4, "a")])]),
        ),
        (Ordered, "events before it was created", judge(ab(0), &[told(vec![at(2, "a")])])),
        (
            Unique,
            "twice in a response",
            judge(ab(2), &[told(vec![at(2, "a"), at(2, "a"), at(3, "b")])]),
        ),
        (Unique, "again in the next response", judge(ab(2), &[to_three(), told(vec![at(3, "b")])])),
        (
            Unique,
            "after a progress that had covered it",
            judge(ab(2), &[to_four(), told(vec![at(5, "a")]), progress(6), told(vec![at(5, "a")])]),
        ),
        (
            Atomic,
            "a transaction in two responses",
            judge(ab(4), &[told(vec![at(4, "a")]), told(vec![at(4, "b")])]),
        ),
        (Atomic, "a fragment that nobody asked for", judge(ab(4), &[fragment(vec![at(4, "a")])])),
        (
            Reliable,
            "a gap between responses",
            judge(ab(2), &[told(vec![at(2, "a")]), told(vec![at(5, "a")])]),
        ),
        (Reliable, "a gap within one", judge(ab(2), &[told(vec![at(2, "a"), at(5, "a")])])),
        (Reliable, "a beginning that is left out", judge(ab(2), &[told(vec![at(3, "b")])])),
        (
            Reliable,
            "a delete that is left out",
            judge(ab(4), &[told(vec![at(4, "a"), at(4, "b")]), told(vec![at(7, "a")])]),
        ),
        (
            Resumable,
            "what was before the beginning",
            judge(ab(3), &[told(vec![at(2, "a"), at(3, "b")])]),
        ),
        (
            Resumable,
            "what was told on the connection before",
            judge_resumed(&[to_three()], 4, &[told(vec![at(3, "b"), at(4, "a"), at(4, "b")])]),
        ),
        (
            Resumable,
            "a gap between two connections",
            judge_resumed(&[to_three()], 4, &[told(vec![at(5, "a")])]),
        ),
        (Resumable, "a resumption from elsewhere", judge_resumed(&[to_three()], 5, &[])),
        (
            Resumable,
            "cancelled for a compaction that took nothing of it",
            judge(ab(3), &[canceled(3)]),
        ),
        (Resumable, "cancelled for a compaction that never was", judge(ab(2), &[canceled(5)])),
        (
            Bookmarkable,
            "progress past what never came",
            judge(ab(2), &[told(vec![at(2, "a")]), progress(3)]),
        ),
        (
            Bookmarkable,
            "progress to what is still to come",
            judge(ab(2), &[to_four(), progress(8)]),
        ),
        (Bookmarkable, "a header behind its events", judge(ab(2), &[early])),
        (
            Filtered,
            "a delete in spite of the filter",
            judge(without(FilterType::Nodelete), &[to_four(), told(vec![at(5, "a")])]),
        ),
        (
            Filtered,
            "a put in spite of the filter",
            judge(without(FilterType::Noput), &[told(vec![at(2, "a"), at(5, "a")])]),
        ),
        (Filtered, "a key of others", judge(ab(5), &[told(vec![at(5, "a"), at(6, "c")])])),
        (Previous, "unasked", judge(ab(5), &[told(vec![fully(5, "a")])])),
        (Previous, "not there", judge(with_previous(5), &[told(vec![at(5, "a")])])),
        (
            Previous,
            "another",
            judge(
                with_previous(5),
                &[told(vec![Event { prev_kv: fully(3, "b").kv, ..at(5, "a") }])],
            ),
        ),
        (
            Previous,
            "there where nothing was",
            judge(
                with_previous(7),
                &[told(vec![Event { prev_kv: fully(4, "a").kv, ..at(7, "a") }])],
            ),
        ),
        (
            Creation,
            "a key is made that was there",
            judge(
                ab(4),
                &[told(vec![
                    twisted(at(4, "a"), |kv| (kv.create_revision, kv.version) = (4, 1)),
                    at(4, "b"),
                ])],
            ),
        ),
        (
            Creation,
            "a key is not made that was not there",
            judge(
                ab(7),
                &[told(vec![twisted(at(7, "a"), |kv| (kv.create_revision, kv.version) = (2, 3))])],
            ),
        ),
        (
            True,
            "another value",
            judge(ab(7), &[told(vec![twisted(at(7, "a"), |kv| kv.value = "4".into())])]),
        ),
        (True, "what never happened", judge(ab(2), &[told(vec![at(2, "a"), never])])),
        (
            True,
            "a put where there was a delete",
            judge(ab(5), &[told(vec![Event { r#type: EventType::Put as i32, ..at(5, "a") }])]),
        ),
    ];
    for promise in PROMISES {
        assert!(bad.iter().any(|(broken, ..)| *broken == promise), "nothing breaks {promise:?}");
    }
    for (promise, name, found) in bad {
        let broken = found.expect_err(name);
        assert_eq!(broken.promise, promise, "{name}: {broken}");
    }
}

#[test]
fn what_looks_odd_and_breaks_nothing_is_accepted() {
    let to_three = || told(vec![at(2, "a"), at(3, "b")]);
    let in_fragments = WatchCreateRequest { fragment: true, ..ab(2) };
    let from_now = created(5);
    let good: Vec<(&str, Result<(), Broken>)> = vec![
        (
            "everything at once",
            judge(
                ab(1),
                &[
                    created(7),
                    told(vec![
                        at(2, "a"),
                        at(3, "b"),
                        at(4, "a"),
                        at(4, "b"),
                        at(5, "a"),
                        at(7, "a"),
                    ]),
                ],
            ),
        ),
        ("from now on, where now is 5", judge(ab(0), &[from_now, told(vec![at(7, "a")])])),
        ("from what is still to come", judge(ab(9), &[created(7), progress(7)])),
        (
            "a revision in fragments",
            judge(
                in_fragments,
                &[
                    fragment(vec![at(2, "a"), at(3, "b"), at(4, "a")]),
                    fragment(vec![at(4, "b")]),
                    told(vec![at(5, "a")]),
                    told(vec![at(7, "a")]),
                ],
            ),
        ),
        (
            "progress, an old progress, and on",
            judge(
                ab(2),
                &[
                    to_three(),
                    progress(3),
                    progress(2),
                    told(vec![at(4, "a"), at(4, "b")]),
                    progress(4),
                ],
            ),
        ),
        (
            "progress where nothing of it happened",
            judge(
                ab(2),
                &[
                    told(vec![at(2, "a"), at(3, "b"), at(4, "a"), at(4, "b"), at(5, "a")]),
                    progress(6),
                    told(vec![at(7, "a")]),
                ],
            ),
        ),
        (
            "puts alone",
            judge(
                without(FilterType::Nodelete),
                &[to_three(), told(vec![at(4, "a"), at(4, "b"), at(7, "a")])],
            ),
        ),
        (
            "deletes alone",
            judge(without(FilterType::Noput), &[progress(4), told(vec![at(5, "a")]), progress(7)]),
        ),
        (
            "what was before, as long as it is kept",
            judge(
                with_previous(3),
                &[
                    told(vec![fully(3, "b")]),
                    told(vec![fully(4, "a"), fully(4, "b")]),
                    told(vec![fully(5, "a")]),
                    told(vec![fully(7, "a")]),
                ],
            ),
        ),
        (
            "what was before a revision below the mark is gone",
            judge(with_previous(2), &[told(vec![at(2, "a"), at(3, "b")])]),
        ),
        ("a compaction that took what it needed", judge(ab(2), &[canceled(3)])),
        ("a cancel that was asked for", judge(ab(2), &[to_three(), canceled(0)])),
        (
            "a break, and on from there",
            judge_resumed(
                &[to_three()],
                4,
                &[created(7), told(vec![at(4, "a"), at(4, "b"), at(5, "a")])],
            ),
        ),
    ];
    for (name, found) in good {
        assert_eq!(found, Ok(()), "{name}");
    }
    let mut steps = vec![Step::Asked(WatchCreateRequest { fragment: true, ..ab(4) })];
    steps.push(Step::Told(fragment(vec![at(4, "a")])));
    steps.push(Step::Asked(WatchCreateRequest { fragment: true, ..ab(4) }));
    steps.push(Step::Told(told(vec![at(4, "a"), at(4, "b")])));
    assert_eq!(check(&happened(), &steps), Ok(()), "a break within a response in fragments");
}

/// What the watchers of storms were told breaks no promise; with one event less, or one more, it does.
#[test]
fn the_watches_of_storms_keep_every_promise_until_an_event_is_lost_or_doubled() {
    let (mut watches, mut events, mut spoiled) = (0, 0, 0);
    for seed in 1..=20 {
        let recording =
            record(&Plan { workload: Some(Workload::Everything), ..Plan::new(seed, 10) });
        if let Verdict::Broken { what, .. } = &recording.report.verdict {
            panic!("seed {seed}: {what}");
        }
        let model = recording.log().model().unwrap();
        for steps in &recording.watches {
            assert_eq!(check(&model, steps), Ok(()), "seed {seed}");
            watches += 1;
            events += steps.iter().map(Step::events).sum::<usize>();
            for (place, step) in steps.iter().enumerate() {
                let Step::Told(response) = step else { continue };
                // Of each watch, the first response with two events or more, of which the first is the only one of its key
                // there: of several a compaction may have left the last.
                let first = response.events.first().and_then(|event| event.kv.as_ref());
                let is_alone = first.is_some_and(|kv| {
                    let changes = model.changes(kv.mod_revision, kv.mod_revision).iter();
                    changes.filter(|change| change.key == kv.key).count() == 1
                });
                if response.events.len() < 2 || !is_alone {
                    continue;
                }
                let spoil = |change: fn(&mut Vec<Event>)| {
                    let mut bad = steps[..=place].to_vec();
                    let Step::Told(response) = &mut bad[place] else { unreachable!() };
                    change(&mut response.events);
                    check(&model, &bad).expect_err("an event is lost or doubled").promise
                };
                let lost = spoil(|events| drop(events.remove(0)));
                let missed = [Promise::Reliable, Promise::Resumable, Promise::Atomic];
                assert!(missed.contains(&lost), "{lost:?}");
                let doubled = spoil(|events| events.push(events[events.len() - 1].clone()));
                assert_eq!(doubled, Promise::Unique);
                spoiled += 2;
                break;
            }
        }
    }
    let figures = format!("{watches} watches of {events} events, {spoiled} spoiled");
    println!("{figures}");
    assert!(watches > 60 && events > 1_000 && spoiled > 60, "{figures}");
}
