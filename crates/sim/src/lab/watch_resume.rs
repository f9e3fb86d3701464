//! `watch-resume`: a watch whose member dies goes on at another one, and misses nothing.

use bytes::Bytes;
use client::resume::{Resume, Step};
use proto::etcdserverpb::{ResponseHeader, WatchCreateRequest, WatchResponse};
use proto::mvccpb::Event;
use replica::Trace;

use crate::lab::Experiment;
use crate::lab::bench::{Lab, News};
use crate::scenario::Mutant;

pub const EXPERIMENT: Experiment = Experiment {
    name: "watch-resume",
    question: "The member that a watch hangs on dies while things change: does the watcher miss anything?",
    mutant: Mutant::ResumeFromNow,
    arrange: |_| {},
    run,
};

/// One watch across its streams, as the client crate keeps it.
struct Watcher {
    resume: Resume,
    stream: u32,
    /// The revisions that were handed on.
    revisions: Vec<i64>,
}

impl Watcher {
    fn new() -> Watcher {
        let request = WatchCreateRequest {
            key: Bytes::from_static(b"job/"),
            range_end: Bytes::from_static(b"job0"),
            ..WatchCreateRequest::default()
        };
        Watcher { resume: Resume::new(request, false), stream: 0, revisions: Vec::new() }
    }

    /// Opens a stream at a member, and asks for what it has not seen.
    fn open(&mut self, lab: &mut Lab, member: usize) {
        let request = self.resume.request();
        let resumes = self.stream > 0;
        self.stream += 1;
        let from = match resumes && lab.has(Mutant::ResumeFromNow) {
            true => 0,
            false => request.start_revision,
        };
        lab.watch(member, self.stream, ("job/", "job0"), from);
    }

    /// Takes what has come.
    fn take(&mut self, lab: &mut Lab) {
        let id = i64::from(self.stream);
        for news in lab.news(self.stream) {
            let response = match news {
                News::Created { from } => WatchResponse {
                    header: Some(ResponseHeader { revision: from - 1, ..Default::default() }),
                    watch_id: id,
                    created: true,
                    ..Default::default()
                },
                News::Events(events) => WatchResponse {
                    header: Some(ResponseHeader::default()),
                    watch_id: id,
                    events: events
                        .into_iter()
                        .map(|kv| Event { kv: Some(kv), ..Event::default() })
                        .collect(),
                    ..Default::default()
                },
                News::Canceled { mark } => WatchResponse {
                    watch_id: id,
                    canceled: true,
                    compact_revision: mark,
                    ..Default::default()
                },
            };
            if let Step::Deliver(response) = self.resume.on_response(response) {
                let kvs = response.events.into_iter().filter_map(|event| event.kv);
                self.revisions.extend(kvs.map(|kv| kv.mod_revision));
            }
        }
    }
}

fn run(lab: &mut Lab) {
    let leader = lab.settle();
    let [first, second] = lab.others(leader);
    lab.begin();
    lab.show(|trace| matches!(trace, Trace::Applied { .. } | Trace::Answered { .. }));
    let mut watcher = Watcher::new();
    let put = |lab: &mut Lab, number: u64| {
        let op = lab.put(leader, &format!("job/{number}"), "new");
        lab.until("the put is done", |lab| lab.done_at(op).is_some());
        lab.run_ms(3);
    };

    lab.step(format!("the client watches job/ at member {}", first + 1));
    watcher.open(lab, first);
    lab.run_ms(2);
    put(lab, 1);
    put(lab, 2);
    watcher.take(lab);
    let live = watcher.revisions.clone();
    lab.claim(
        format!("While the stream stands, events come as they happen: revisions {live:?}."),
        live == [2, 3],
    );

    lab.step(format!("member {} dies, and nobody watches while two more are put", first + 1));
    lab.world().kill(first, false);
    lab.until("the client notices", |lab| lab.broken(first));
    let over = watcher.resume.on_broken(None).is_err();
    let next = watcher.resume.next_revision();
    put(lab, 3);
    put(lab, 4);
    lab.step(format!("the client goes on at member {}, from revision {next}", second + 1));
    watcher.open(lab, second);
    lab.run_ms(5);
    watcher.take(lab);
    lab.claim(
        format!(
            "The client knows where it was, and asks for revision {next} on. The member has the history, and sends what \
             happened meanwhile."
        ),
        !over && next == 4 && watcher.revisions.starts_with(&[2, 3, 4, 5]),
    );
    lab.step("and one more, live again");
    put(lab, 5);
    watcher.take(lab);
    lab.claim(
        format!(
            "Each change came once, in order, without a gap, over two members: revisions {:?}.",
            watcher.revisions
        ),
        watcher.revisions == [2, 3, 4, 5, 6],
    );
}
