//! What all members told of one request, on one axis of time.
//!
//! Members' clocks differ. Leader and follower exchange two messages about an entry, and neither comes before it was
//! sent:
//!
//! ```text
//!   leader     sent ──╮                            ╭──▶ has it
//!   follower          ╰──▶ in memory … said so ────╯
//! ```
//!
//! so the follower's clock is ahead of the leader's by at most `in memory − sent`, and at least `said so − has it`. If 0 lies
//! between them the clocks are taken to agree; else the middle is taken off, as NTP does.

use std::cmp::Reverse;

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use proto::quorate::v1::{Record, Stage, StageKind};
use serde_json::{Value, json};

use super::stage_name;
use crate::go;

/// What one member told.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) id: u64,
    pub(super) name: String,
    /// Members with a vote, as far as it knows.
    pub(super) voters: Vec<u64>,
    pub(super) stages: Vec<Stage>,
    /// Why it told nothing.
    pub(super) silent: Option<String>,
}

impl Told {
    pub(super) fn of(id: u64, name: &str, stages: Vec<Stage>) -> Told {
        Told { id, name: name.to_owned(), stages, ..Told::default() }
    }

    pub(super) fn silent(id: u64, name: &str, why: &str) -> Told {
        Told { silent: Some(why.to_owned()), ..Told::of(id, name, Vec::new()) }
    }

    /// Whether there is nothing to wait for: it has the entry on disk and applied, and as leader knows that all have.
    pub(super) fn is_whole(&self, leader: u64) -> bool {
        let has = |kind: StageKind| self.at(kind, None).is_some();
        has(StageKind::Synced)
            && has(StageKind::Applied)
            && (self.id != leader
                || self.voters.iter().all(|id| self.at(StageKind::Matched, Some(*id)).is_some()))
    }

    /// When a stage was, by the member's clock.
    fn at(&self, kind: StageKind, peer: Option<u64>) -> Option<u64> {
        let is_it =
            |stage: &&Stage| stage.kind() == kind && peer.is_none_or(|peer| peer == stage.peer);
        self.stages.iter().find(is_it).map(|stage| stage.at_us)
    }
}

/// One member's part of a request.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) id: u64,
    pub(super) name: String,
    pub(super) silent: Option<String>,
    /// By how much its clock was ahead of the leader's, in microseconds, if that was put right.
    pub(super) ahead_us: i64,
    /// Kind, other member and microseconds since the request was received; in order of time.
    pub(super) stages: Vec<(StageKind, u64, i64)>,
}

impl Part {
    /// When a stage was, in microseconds since the request was received.
    pub(super) fn at(&self, kind: StageKind, peer: Option<u64>) -> Option<i64> {
        let is_it = |stage: &&(StageKind, u64, i64)| {
            stage.0 == kind && peer.is_none_or(|peer| peer == stage.1)
        };
        self.stages.iter().find(is_it).map(|stage| stage.2)
    }
}

/// One request, on the axis of the leader's clock.
#[derive(Debug)]
pub(super) struct Timeline {
    /// The member that was asked.
    pub(super) asked: u64,
    /// Who led, 0 if nobody.
    pub(super) leader: u64,
    /// Who has a vote, as the leader says, or else somebody who answered; also those who are silent.
    pub(super) voters: Vec<u64>,
    pub(super) took_us: u64,
    pub(super) parts: Vec<Part>,
}

impl Timeline {
    /// Lays the record of the member that was asked, and what all told, beside each other.
    pub(super) fn new(record: &Record, mut told: Vec<Told>) -> Timeline {
        if !told.iter().any(|part| part.id == record.member_id) {
            told.push(Told::of(record.member_id, "", Vec::new()));
        }
        for part in told.iter_mut().filter(|part| part.id == record.member_id) {
            // The request's own stages are in the record alone; of the others the record has the first, too.
            part.stages.retain(|stage| {
                !record.stages.iter().any(|of| of.kind == stage.kind && of.peer == stage.peer)
            });
            part.stages.extend(&record.stages);
            part.silent = None;
        }
        // Whoever put it into memory and sent it led; that may be another than who leads now.
        let leads = |part: &&Told| part.at(StageKind::Sent, None).is_some();
        let leader = told.iter().find(leads).map_or(record.leader, |part| part.id);
        let voters = told
            .iter()
            .find(|part| part.id == leader && !part.voters.is_empty())
            .or_else(|| told.iter().find(|part| !part.voters.is_empty()))
            .map_or_else(Vec::new, |part| part.voters.clone());
        let ahead: Vec<i64> = match told.iter().find(|part| part.id == leader) {
            Some(of) => told.iter().map(|part| ahead_us(of, part)).collect(),
            None => vec![0; told.len()],
        };
        let asked_ahead = told
            .iter()
            .zip(&ahead)
            .find(|(part, _)| part.id == record.member_id)
            .map_or(0, |a| *a.1);
        let origin = record.began_us as i64 - asked_ahead;
        let mut parts: Vec<Part> = told
            .into_iter()
            .zip(ahead)
            .map(|(told, ahead_us)| {
                let on_axis = |stage: &Stage| {
                    (stage.kind(), stage.peer, stage.at_us as i64 - ahead_us - origin)
                };
                let mut stages: Vec<_> = told.stages.iter().map(on_axis).collect();
                stages.sort_by_key(|stage| (stage.2, stage.0));
                let name = match told.name.is_empty() {
                    true => format!("{:x}", told.id),
                    false => told.name,
                };
                let Told { id, silent, .. } = told;
                Part { id, name, silent, ahead_us, stages }
            })
            .collect();
        parts.sort_by_key(|part| (Reverse(part.id == leader), part.name.clone()));
        Timeline { asked: record.member_id, leader, voters, took_us: record.took_us, parts }
    }

    /// A member's part.
    pub(super) fn part(&self, id: u64) -> Option<&Part> {
        self.parts.iter().find(|part| part.id == id)
    }

    /// A member's name, as far as known.
    pub(super) fn name(&self, id: u64) -> String {
        self.part(id).map_or_else(|| format!("{id:x}"), |part| part.name.clone())
    }

    /// A line for each stage, and a column for each member that told any.
    pub(super) fn text(&self, record: &Record) -> String {
        let told: Vec<&Part> = self.parts.iter().filter(|part| !part.stages.is_empty()).collect();
        let mut lines: Vec<(i64, usize, String)> = told
            .iter()
            .enumerate()
            .flat_map(|(column, part)| {
                part.stages.iter().map(move |(kind, peer, at_us)| {
                    let peer = (*peer != 0).then(|| self.name(*peer));
                    (*at_us, column, stage_name(*kind, peer.as_deref()))
                })
            })
            .collect();
        lines.sort_by_key(|(at_us, ..)| *at_us);
        let heads: Vec<String> = told
            .iter()
            .map(|part| {
                let role = match (part.id == self.leader, part.id == self.asked) {
                    (true, true) => " (leader, asked)",
                    (true, false) => " (leader)",
                    (false, true) => " (asked)",
                    (false, false) => "",
                };
                format!("{}{role}", part.name)
            })
            .collect();
        let widths: Vec<usize> = heads
            .iter()
            .enumerate()
            .map(|(column, head)| {
                let of_column = lines.iter().filter(|line| line.1 == column);
                let widest = of_column.map(|line| line.2.chars().count()).max().unwrap_or(0);
                widest.max(head.chars().count()) + 2
            })
            .collect();
        let entry = match record.index {
            0 => String::new(),
            index => {
                format!(", entry {index} of term {}, revision {}", record.term, record.revision)
            }
        };
        let method = record.method.rsplit('/').next().unwrap_or_default();
        let mut text = format!(
            "{method} {} took {} at {}{entry}\n\n",
            go::quote(&record.key),
            ms(record.took_us),
            self.name(self.asked)
        );
        let row = |at: &str, cells: &dyn Fn(usize) -> String| {
            let cells: String = widths
                .iter()
                .enumerate()
                .map(|(n, width)| format!("{:<width$}", cells(n)))
                .collect();
            format!("{}\n", format!("{at:>12}  {cells}").trim_end())
        };
        text += &row("", &|column| heads[column].clone());
        for (at_us, at_column, what) in &lines {
            let cell = |column: usize| match column == *at_column {
                true => what.clone(),
                false => String::new(),
            };
            text += &row(&signed_ms(*at_us), &cell);
        }
        for part in &self.parts {
            if part.ahead_us != 0 {
                let by = signed_ms(part.ahead_us);
                text += &format!("\n{}'s clock is ahead by {by}; that is taken off.\n", part.name);
            }
            if let Some(why) = &part.silent {
                text += &format!("\n{} says nothing: {why}.\n", part.name);
            } else if part.stages.is_empty() && record.index != 0 {
                text += &format!("\n{} does not know the entry, or not any more.\n", part.name);
            }
        }
        text
    }

    /// The same for programs. Times are in microseconds since the request was received.
    pub(super) fn json(&self, record: &Record) -> Value {
        let part = |part: &Part| {
            let stages: Vec<_> = part
                .stages
                .iter()
                .map(|(kind, peer, at_us)| {
                    json!({"stage": kind.as_str_name(), "peer": peer, "at_us": at_us})
                })
                .collect();
            json!({
                "member_id": part.id, "name": part.name, "silent": part.silent,
                "clock_ahead_us": part.ahead_us, "stages": stages,
            })
        };
        json!({
            "method": record.method, "key": BASE64.encode(&record.key), "asked": self.asked,
            "leader": self.leader, "took_us": record.took_us, "term": record.term,
            "index": record.index, "revision": record.revision, "code": record.code,
            "error": record.error, "members": self.parts.iter().map(part).collect::<Vec<_>>(),
        })
    }
}

/// By how much the clock of `part` is ahead of the leader's, as far as their messages tell.
fn ahead_us(leader: &Told, part: &Told) -> i64 {
    let bounds = || {
        let sent = leader.at(StageKind::Sent, Some(part.id))?;
        let has_it = leader.at(StageKind::Matched, Some(part.id))?;
        let came = part.at(StageKind::Appended, None)?;
        let said = part.at(StageKind::Acknowledged, None)?;
        Some((said as i64 - has_it as i64, came as i64 - sent as i64))
    };
    match bounds() {
        Some((least, most)) if part.id != leader.id && (least > 0 || most < 0) => {
            least + (most - least) / 2
        }
        _ => 0,
    }
}

/// A record's stages for programs; times in microseconds since 1970.
pub(super) fn stages_json(stages: &[Stage]) -> Value {
    let stage = |stage: &Stage| json!({"stage": stage.kind().as_str_name(), "peer": stage.peer, "at_us": stage.at_us});
    stages.iter().map(stage).collect()
}

/// Microseconds as milliseconds.
pub(super) fn ms(us: u64) -> String {
    format!("{}.{:03} ms", us / 1_000, us % 1_000)
}

fn signed_ms(us: i64) -> String {
    let sign = if us < 0 { "-" } else { "" };
    format!("{sign}{}", ms(us.unsigned_abs()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use StageKind::*;

    fn stage(kind: StageKind, peer: u64, at_us: u64) -> Stage {
        Stage { kind: kind.into(), peer, at_us }
    }

    /// A put through follower 2 of leader 1, whose clock is 50 ms behind the follower's.
    fn example(ahead: u64) -> Timeline {
        let record = Record {
            member_id: 2,
            leader: 1,
            began_us: 1_000_000 + ahead,
            took_us: 900,
            term: 3,
            index: 7,
            stages: vec![
                stage(Received, 0, 1_000_000 + ahead),
                stage(Appended, 0, 1_000_400 + ahead),
                stage(Answered, 0, 1_000_900 + ahead),
            ],
            ..Record::default()
        };
        let leader = vec![
            stage(Appended, 0, 1_000_200),
            stage(Sent, 2, 1_000_210),
            stage(Matched, 2, 1_000_700),
        ];
        let follower =
            vec![stage(Appended, 0, 1_000_400 + ahead), stage(Acknowledged, 1, 1_000_600 + ahead)];
        let told = vec![Told::of(2, "b", follower), Told::of(1, "a", leader)];
        Timeline::new(&record, told)
    }

    #[test]
    fn clocks_that_contradict_cause_and_effect_are_put_right() {
        let of = |timeline: &Timeline, id: u64| timeline.part(id).unwrap().stages.clone();
        let agreeing = example(0);
        assert_eq!(agreeing.part(2).unwrap().ahead_us, 0);
        let ahead = example(50_000);
        // Between 49,900 and 50,190; the middle is 45 microseconds from the truth.
        assert_eq!(ahead.part(2).unwrap().ahead_us, 50_045);
        assert_eq!(
            of(&ahead, 2),
            of(&agreeing, 2),
            "the origin moves with the clock that is put right"
        );
        let leaders = of(&agreeing, 1).into_iter().map(|(kind, peer, at)| (kind, peer, at + 45));
        assert_eq!(of(&ahead, 1), leaders.collect::<Vec<_>>());
    }

    #[test]
    fn the_text_has_a_column_for_each_member_and_names_who_is_silent() {
        let record = Record {
            member_id: 1,
            index: 4,
            term: 2,
            revision: 9,
            took_us: 1_500,
            key: "k".into(),
            method: "/etcdserverpb.KV/Put".into(),
            stages: vec![stage(Received, 0, 0), stage(Sent, 2, 20), stage(Answered, 0, 1_500)],
            ..Record::default()
        };
        let told = vec![
            Told::of(1, "a", Vec::new()),
            Told::of(2, "b", vec![stage(Synced, 0, 700)]),
            Told::silent(3, "c", "connection refused"),
        ];
        let timeline = Timeline::new(&record, told);
        assert_eq!(
            timeline.text(&record),
            "\
Put \"k\" took 1.500 ms at a, entry 4 of term 2, revision 9

              a (leader, asked)  b
    0.000 ms  received
    0.020 ms  sent to b
    0.700 ms                     log synced
    1.500 ms  answered

c says nothing: connection refused.
"
        );
        let json = timeline.json(&record);
        assert_eq!(json["members"][1]["stages"][0]["stage"], "SYNCED");
        assert_eq!(json["members"][2]["silent"], "connection refused");
    }
}
