//! Scenarios in a small language: each file of `tests/scripts` is one, named by the sentence that it shows.
//!
//! ```text
//! put KEY VALUE [lease=N] [prev] [ignore_value] [ignore_lease]
//! get KEY [end=KEY] [rev=N] [limit=N] [sort=TARGET[:ORDER]] [keys_only] [count_only] [serializable]
//!         [min_mod=N] [max_mod=N] [min_create=N] [max_create=N]
//! del KEY [end=KEY] [prev]
//! txn "COMPARES ? OPERATIONS : OPERATIONS"
//!     a compare is  value(a) = x,  version(a,z) > 0,  mod(a) != unset;  compares are joined by &
//!     an operation is a put, get, del, none, or txn { … };  operations are joined by ;
//! flush, die       a frame is written; the process dies, and starts from what was
//! again            the entry that was applied last comes once more
//! elsewhere        goes on with a new member; received: the one before takes this one's state
//! ```
//!
//! A request is checked as for a client; with the prefix `log:` it stands in the log unchecked. What comes
//! out is printed from the public response message, decoded by a generated decoder, so that what clients
//! see is what is tested. `UPDATE_GOLDENFILES=1` writes what comes out into the files.

#![allow(clippy::unwrap_used)]

mod member;
#[path = "../../vfs/tests/script/mod.rs"]
mod script;

use std::error::Error as StdError;
use std::fmt::Write as _;

use bytes::Bytes;
use goldenscript::Command;
use member::Member;
use prost::Message;
use proto::etcdserverpb as pb;
use proto::mvccpb::KeyValue;
use state_machine::{
    Answer, ChangeKind, Effort, Error, Header, LeaseChange, Member as ClusterMember,
    MembershipChange, Outcome, Payload, Reply, Request, RequestId, Verdict,
};

type Result<T> = std::result::Result<T, Box<dyn StdError>>;

#[test]
fn scripts() {
    script::run_all(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scripts"), || Script {
        member: Member::new(),
        aside: None,
    });
}

struct Script {
    member: Member,
    /// The member that was left for another.
    aside: Option<Member>,
}

impl goldenscript::Runner for Script {
    fn run(&mut self, command: &Command) -> Result<String> {
        let words: Vec<String> = command
            .args
            .iter()
            .map(|argument| match &argument.key {
                Some(key) => format!("{key}={}", argument.value),
                None => argument.value.clone(),
            })
            .collect();
        let checked = command.prefix.as_deref() != Some("log");
        match self.run_command(&command.name, &words, checked) {
            Ok(text) => Ok(text),
            Err(error) => match error.downcast::<Error>() {
                Ok(refused) => Ok(format!("not proposed: {}\n", show_error(*refused))),
                Err(error) => Err(error),
            },
        }
    }
}

impl Script {
    fn run_command(&mut self, name: &str, words: &[String], checked: bool) -> Result<String> {
        let word = |at: usize| words.get(at).map(String::as_str).ok_or("a word is missing");
        let number = |at: usize| -> Result<i64> { Ok(word(at)?.parse()?) };
        let id = |at: usize| -> Result<u64> { Ok(word(at)?.parse()?) };
        let request = match name {
            "put" | "del" | "get" => match parse_op(name, words)? {
                Op::RequestPut(put) if checked => put.try_into()?,
                Op::RequestPut(put) => Request::Put(put),
                Op::RequestDeleteRange(delete) if checked => delete.try_into()?,
                Op::RequestDeleteRange(delete) => Request::DeleteRange(delete),
                Op::RequestRange(range) if !checked => Request::Range(range),
                Op::RequestRange(range) => {
                    state_machine::check_range(&range)?;
                    return Ok(show_answer(self.member.view().range(&range, Effort::Disk)));
                }
                Op::RequestTxn(_) => unreachable!(),
            },
            "txn" => {
                let txn = parse_txn(&mut words.join(" ").split_whitespace())?;
                if !checked {
                    Request::Txn(txn)
                } else {
                    let request = Request::txn(txn.clone(), 8)?;
                    if state_machine::is_read_only(&txn) {
                        return Ok(show_answer(self.member.view().txn(&txn, Effort::Disk)));
                    }
                    request
                }
            }
            "compact" => pb::CompactionRequest { revision: number(0)?, physical: false }.into(),
            "grant" => {
                let grant = pb::LeaseGrantRequest { id: number(0)?, ttl: number(1)? };
                match checked {
                    true => Request::lease_grant(grant, RequestId(u64::MAX - 54)),
                    false => Request::LeaseGrant(grant),
                }
            }
            "revoke" => pb::LeaseRevokeRequest { id: number(0)? }.into(),
            "checkpoint" => Request::LeaseCheckpoint(pb::LeaseCheckpointRequest {
                checkpoints: vec![pb::LeaseCheckpoint {
                    id: number(0)?,
                    remaining_ttl: number(1)?,
                }],
            }),
            "alarm" => {
                let action = match word(0)? {
                    "get" => 0,
                    "activate" => 1,
                    "deactivate" => 2,
                    other => other.parse()?,
                };
                let alarm = match word(2)? {
                    "none" => 0,
                    "nospace" => 1,
                    "corrupt" => 2,
                    other => other.parse()?,
                };
                pb::AlarmRequest { action, member_id: id(1)?, alarm }.into()
            }
            "version" => {
                Request::ClusterVersionSet(proto::membershippb::ClusterVersionSetRequest {
                    ver: word(0)?.into(),
                })
            }
            "attributes" => {
                Request::MemberAttributesSet(proto::membershippb::ClusterMemberAttrSetRequest {
                    member_id: id(0)?,
                    member_attributes: Some(proto::membershippb::Attributes {
                        name: word(1)?.into(),
                        client_urls: words[2..].to_vec(),
                    }),
                })
            }
            "downgrade" => {
                Request::DowngradeInfoSet(proto::membershippb::DowngradeInfoSetRequest {
                    enabled: word(0)? == "enable",
                    ver: words.get(1).cloned().unwrap_or_default(),
                })
            }
            "version_test" => Request::DowngradeVersionTest,
            "auth" => Request::Auth { field: id(0)? as u32, message: Bytes::new() },
            "add" | "add_learner" | "update" => {
                let member = ClusterMember {
                    id: id(0)?,
                    peer_urls: words[1..].to_vec(),
                    is_learner: name == "add_learner",
                    ..ClusterMember::default()
                };
                let kind = match name {
                    "add" => ChangeKind::AddNode,
                    "add_learner" => ChangeKind::AddLearnerNode,
                    _ => ChangeKind::UpdateNode,
                };
                return Ok(show(self.member.change(kind, id(0)?, member.to_context())));
            }
            "promote" => {
                let context = MembershipChange::promote_context(id(0)?);
                return Ok(show(self.member.change(ChangeKind::AddNode, id(0)?, context)));
            }
            "remove" => {
                let outcome = self.member.change(ChangeKind::RemoveNode, id(0)?, Bytes::new());
                return Ok(show(outcome));
            }
            "change" => {
                let context = Bytes::from(word(1)?.to_owned());
                return Ok(show(self.member.change(ChangeKind::AddNode, id(0)?, context)));
            }
            "entry" => {
                let hex: String = words.concat();
                let digits = hex.as_bytes().chunks(2);
                let byte = |pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16);
                let data: std::result::Result<Vec<u8>, _> = digits.map(byte).collect();
                let data = Bytes::from(data?);
                return Ok(show(self.member.apply(Payload::Normal(&data), true)));
            }
            "v2" => {
                let data = Bytes::from([b"\x08\x07\x12\x03", word(0)?.as_bytes()].concat());
                return Ok(show(self.member.apply(Payload::Normal(&data), true)));
            }
            "unreadable" => return Ok(show(self.member.apply(Payload::Unreadable, true))),
            "silently" => {
                // The same put, on a member where nobody waits.
                let Op::RequestPut(put) = parse_op("put", words)? else { unreachable!() };
                let command = state_machine::Command {
                    id: RequestId(77),
                    caller: Default::default(),
                    request: Request::Put(put),
                };
                return Ok(show(self.member.apply(Payload::Normal(&command.encode()), false)));
            }
            "flush" => {
                self.member.flush();
                return Ok("written\n".into());
            }
            "die" => return Ok(format!("applied {}\n", self.member.die())),
            "again" => {
                let (index, term) = self.member.machine().applied();
                let outcome = self.member.machine().apply(index, term, Payload::Unreadable, true);
                return Ok(show(outcome?));
            }
            "elsewhere" => {
                self.aside = Some(std::mem::replace(&mut self.member, Member::new()));
                return Ok("a new member\n".into());
            }
            "received" => {
                let before = self.aside.take().ok_or("nobody was left")?;
                let other = std::mem::replace(&mut self.member, before);
                self.member.replace(other);
                return Ok("received\n".into());
            }
            "restart" => {
                let before = self.member.state();
                self.member.restart();
                assert_eq!(self.member.state(), before, "a restart changes nothing");
                return Ok("as before\n".into());
            }
            "state" => {
                let state = self.member.state();
                let mut text = format!(
                    "applied {} revision {} compacted {}\n",
                    state.applied.0, state.revision, state.compact_revision
                );
                for (lease, keys) in state.leases {
                    writeln!(
                        text,
                        "lease {} ttl {} remaining {} keys {keys:?}",
                        lease.id, lease.ttl, lease.remaining
                    )?;
                }
                return Ok(text);
            }
            "cluster" => {
                let cluster = self.member.view().cluster();
                let mut text = String::new();
                for member in cluster.members.values() {
                    writeln!(text, "{member:?}")?;
                }
                writeln!(text, "removed {:?}", cluster.removed)?;
                let version = cluster.version.as_ref().map(ToString::to_string);
                writeln!(text, "version {version:?} {:?}", cluster.downgrade)?;
                writeln!(
                    text,
                    "voters {:?} learners {:?}",
                    cluster.conf_state.voters, cluster.conf_state.learners
                )?;
                return Ok(text);
            }
            "hash" => {
                return Ok(show_answer(self.member.view().hash_kv(number(0)?).map(Answer::Ready)));
            }
            other => return Err(format!("unknown command {other}").into()),
        };
        Ok(show(self.member.request(request)))
    }
}

use pb::request_op::Request as Op;

/// Key and value, then flags in any order.
fn parse_op(name: &str, words: &[String]) -> Result<Op> {
    let mut plain = Vec::new();
    let mut flags = Vec::new();
    for word in words {
        let names =
            ["prev", "ignore_value", "ignore_lease", "keys_only", "count_only", "serializable"];
        match word.split_once('=') {
            Some((key, value)) => flags.push((key, value)),
            None if names.contains(&&word[..]) => flags.push((word, "")),
            None => plain.push(Bytes::from(word.clone())),
        }
    }
    let key = plain.first().cloned().unwrap_or_default();
    match name {
        "put" => {
            let value = plain.get(1).cloned().unwrap_or_default();
            let mut put = pb::PutRequest { key, value, ..Default::default() };
            for (flag, value) in flags {
                match flag {
                    "lease" => put.lease = value.parse()?,
                    "prev" => put.prev_kv = true,
                    "ignore_value" => put.ignore_value = true,
                    "ignore_lease" => put.ignore_lease = true,
                    other => return Err(format!("put has no {other}").into()),
                }
            }
            Ok(Op::RequestPut(put))
        }
        "del" => {
            let mut delete = pb::DeleteRangeRequest { key, ..Default::default() };
            for (flag, value) in flags {
                match flag {
                    "end" => delete.range_end = Bytes::from(value.to_owned()),
                    "prev" => delete.prev_kv = true,
                    other => return Err(format!("del has no {other}").into()),
                }
            }
            Ok(Op::RequestDeleteRange(delete))
        }
        "get" => {
            let mut range = pb::RangeRequest { key, ..Default::default() };
            for (flag, value) in flags {
                match flag {
                    "end" => range.range_end = Bytes::from(value.to_owned()),
                    "rev" => range.revision = value.parse()?,
                    "limit" => range.limit = value.parse()?,
                    "sort" => {
                        let (target, order) = value.split_once(':').unwrap_or((value, "none"));
                        let targets = ["key", "version", "create", "mod", "value"];
                        let orders = ["none", "ascend", "descend"];
                        let place = |names: &[&str], name: &str| {
                            names.iter().position(|n| *n == name).unwrap_or(99) as i32
                        };
                        range.sort_target = place(&targets, target);
                        range.sort_order = place(&orders, order);
                    }
                    "keys_only" => range.keys_only = true,
                    "count_only" => range.count_only = true,
                    "serializable" => range.serializable = true,
                    "min_mod" => range.min_mod_revision = value.parse()?,
                    "max_mod" => range.max_mod_revision = value.parse()?,
                    "min_create" => range.min_create_revision = value.parse()?,
                    "max_create" => range.max_create_revision = value.parse()?,
                    other => return Err(format!("get has no {other}").into()),
                }
            }
            Ok(Op::RequestRange(range))
        }
        other => Err(format!("{other} is no operation").into()),
    }
}

fn parse_txn<'a>(words: &mut impl Iterator<Item = &'a str>) -> Result<pb::TxnRequest> {
    let mut txn = pb::TxnRequest::default();
    let mut compare: Vec<&str> = Vec::new();
    for word in words.by_ref() {
        match word {
            "&" | "?" => {
                if !compare.is_empty() {
                    txn.compare.push(parse_compare(&compare)?);
                    compare.clear();
                }
                if word == "?" {
                    break;
                }
            }
            word => compare.push(word),
        }
    }
    let (ops, last) = parse_ops(words)?;
    txn.success = ops;
    if last == Some(":") {
        (txn.failure, _) = parse_ops(words)?;
    }
    Ok(txn)
}

/// Operations up to `:`, `}` or the end, and which of these it was.
fn parse_ops<'a>(
    words: &mut impl Iterator<Item = &'a str>,
) -> Result<(Vec<pb::RequestOp>, Option<&'a str>)> {
    let mut ops = Vec::new();
    let mut op: Vec<String> = Vec::new();
    loop {
        let word = words.next();
        match word {
            Some(";" | ":" | "}") | None => {
                if let Some((name, rest)) = op.split_first() {
                    let request = if name == "none" { None } else { Some(parse_op(name, rest)?) };
                    ops.push(pb::RequestOp { request });
                    op.clear();
                }
                if word != Some(";") {
                    return Ok((ops, word));
                }
            }
            Some("txn") => {
                assert_eq!(words.next(), Some("{"));
                // The nested transaction ends at its brace, which its own reading takes.
                let nested = parse_txn_in_braces(words)?;
                ops.push(pb::RequestOp { request: Some(Op::RequestTxn(nested)) });
            }
            Some(word) => op.push(word.into()),
        }
    }
}

fn parse_txn_in_braces<'a>(words: &mut impl Iterator<Item = &'a str>) -> Result<pb::TxnRequest> {
    let mut depth = 1;
    let mut inner = Vec::new();
    for word in words.by_ref() {
        match word {
            "{" => depth += 1,
            "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            break;
        }
        inner.push(word);
    }
    let mut inner: Box<dyn Iterator<Item = &str>> = Box::new(inner.into_iter());
    parse_txn(&mut inner)
}

fn parse_compare(words: &[&str]) -> Result<pb::Compare> {
    use pb::compare::TargetUnion;
    let [about, operator, operand] = words else { return Err(format!("{words:?}").into()) };
    let (target, keys) = about.trim_end_matches(')').split_once('(').ok_or("a compare is T(K)")?;
    let (key, range_end) = keys.split_once(',').unwrap_or((keys, ""));
    let number = || operand.parse::<i64>();
    let unset = *operand == "unset";
    let (target, target_union) = match target {
        "version" if unset => (0, None),
        "create" if unset => (1, None),
        "mod" if unset => (2, None),
        "value" if unset => (3, None),
        "lease" if unset => (4, None),
        "version" => (0, Some(TargetUnion::Version(number()?))),
        "create" => (1, Some(TargetUnion::CreateRevision(number()?))),
        "mod" => (2, Some(TargetUnion::ModRevision(number()?))),
        "value" => (3, Some(TargetUnion::Value(Bytes::from(operand.to_string())))),
        "lease" => (4, Some(TargetUnion::Lease(number()?))),
        other => (other.parse()?, None),
    };
    let result = match *operator {
        "=" => 0,
        ">" => 1,
        "<" => 2,
        "!=" => 3,
        other => other.parse()?,
    };
    let (key, range_end) = (Bytes::from(key.to_owned()), Bytes::from(range_end.to_owned()));
    Ok(pb::Compare { result, target, key, range_end, target_union })
}

fn show(outcome: Outcome) -> String {
    let mut text = match outcome.reply {
        Some((_, Ok(reply))) => show_reply(&reply),
        Some((_, Err(error))) => format!("refused: {}\n", show_error(error)),
        None => "applied\n".into(),
    };
    for change in outcome.leases {
        let line = match change {
            LeaseChange::Granted { id, ttl } => format!("clock: granted {id} for {ttl} s"),
            LeaseChange::Revoked { id } => format!("clock: revoked {id}"),
            LeaseChange::Checkpointed { id, remaining } => format!("clock: {id} has {remaining} s"),
        };
        writeln!(text, "{line}").unwrap();
    }
    match outcome.membership {
        None => {}
        Some(Verdict::Accepted) => text.push_str("raft: switch\n"),
        Some(Verdict::Refused(_)) => text.push_str("raft: stay\n"),
    }
    text
}

fn show_answer(answer: std::result::Result<Answer, Error>) -> String {
    match answer {
        Ok(Answer::Ready(reply)) => show_reply(&reply),
        Ok(other) => format!("{other:?}\n"),
        Err(error) => format!("refused: {}\n", show_error(error)),
    }
}

fn show_error(error: Error) -> String {
    format!("{error} (code {})", error.code())
}

/// Prints the public message, decoded.
fn show_reply(reply: &Reply) -> String {
    let header = Header { cluster_id: 11, member_id: 12, revision: 99, raft_term: 13 };
    let bytes = reply.to_bytes(&header);
    let mut text = String::new();
    let at = |header: Option<pb::ResponseHeader>| {
        let header = header.expect("every response has a header");
        assert_eq!((header.cluster_id, header.member_id, header.raft_term), (11, 12, 13));
        header.revision
    };
    match reply {
        Reply::Range(_) => {
            let message = pb::RangeResponse::decode(bytes).unwrap();
            writeln!(text, "revision {}", at(message.header)).unwrap();
            show_range(&message, 0, &mut text);
        }
        Reply::Put(_) => {
            let message = pb::PutResponse::decode(bytes).unwrap();
            writeln!(text, "revision {}", at(message.header)).unwrap();
            show_previous(message.prev_kv.as_slice(), 0, &mut text);
        }
        Reply::DeleteRange(_) => {
            let message = pb::DeleteRangeResponse::decode(bytes).unwrap();
            writeln!(text, "revision {} deleted {}", at(message.header), message.deleted).unwrap();
            show_previous(&message.prev_kvs, 0, &mut text);
        }
        Reply::Txn(_) => {
            let message = pb::TxnResponse::decode(bytes).unwrap();
            writeln!(text, "revision {}", at(message.header)).unwrap();
            show_txn(&message, 0, &mut text);
        }
        Reply::Compact { .. } => {
            let message = pb::CompactionResponse::decode(bytes).unwrap();
            writeln!(text, "revision {}", at(message.header)).unwrap();
        }
        Reply::LeaseGrant { .. } => {
            let message = pb::LeaseGrantResponse::decode(bytes).unwrap();
            let (id, ttl) = (message.id, message.ttl);
            writeln!(text, "revision {} lease {id} ttl {ttl}", at(message.header)).unwrap();
        }
        Reply::LeaseRevoke { .. } => {
            let message = pb::LeaseRevokeResponse::decode(bytes).unwrap();
            writeln!(text, "revision {}", at(message.header)).unwrap();
        }
        Reply::LeaseCheckpoint { .. } => {
            let message = pb::LeaseCheckpointResponse::decode(bytes).unwrap();
            writeln!(text, "revision {}", at(message.header)).unwrap();
        }
        Reply::Alarm { .. } => {
            let message = pb::AlarmResponse::decode(bytes).unwrap();
            writeln!(text, "revision {}", at(message.header)).unwrap();
            for alarm in message.alarms {
                writeln!(text, "  member {} alarm {}", alarm.member_id, alarm.alarm).unwrap();
            }
        }
        Reply::MemberList { .. } => {
            let message = pb::MemberListResponse::decode(bytes).unwrap();
            assert_eq!(at(message.header), 0);
            for member in message.members {
                let learner = if member.is_learner { " learner" } else { "" };
                writeln!(text, "  member {} {:?}{learner}", member.id, member.peer_ur_ls).unwrap();
            }
        }
        Reply::HashKv { .. } => {
            let message = pb::HashKvResponse::decode(bytes).unwrap();
            let (hash, compacted, hashed) =
                (message.hash, message.compact_revision, message.hash_revision);
            let revision = at(message.header);
            writeln!(
                text,
                "revision {revision} hash {hash:#010x} at {hashed} compacted {compacted}"
            )
            .unwrap();
        }
        Reply::Done => text.push_str("done\n"),
        other => panic!("{other:?} does not come from apply"),
    }
    text
}

fn show_txn(message: &pb::TxnResponse, indent: usize, text: &mut String) {
    use pb::response_op::Response;
    let space = " ".repeat(indent);
    writeln!(text, "{space}{}", if message.succeeded { "success" } else { "failure" }).unwrap();
    let inner = |header: &Option<pb::ResponseHeader>| {
        let header = header.as_ref().expect("inner responses have headers");
        assert_eq!((header.cluster_id, header.member_id, header.raft_term), (0, 0, 0));
        header.revision
    };
    for response in &message.responses {
        match &response.response {
            Some(Response::ResponseRange(range)) => {
                writeln!(text, "{space}  range at {}", inner(&range.header)).unwrap();
                show_range(range, indent + 2, text);
            }
            Some(Response::ResponsePut(put)) => {
                writeln!(text, "{space}  put at {}", inner(&put.header)).unwrap();
                show_previous(put.prev_kv.as_slice(), indent + 2, text);
            }
            Some(Response::ResponseDeleteRange(delete)) => {
                let (at, deleted) = (inner(&delete.header), delete.deleted);
                writeln!(text, "{space}  delete at {at} deleted {deleted}").unwrap();
                show_previous(&delete.prev_kvs, indent + 2, text);
            }
            Some(Response::ResponseTxn(txn)) => {
                assert_eq!(inner(&txn.header), 0);
                show_txn(txn, indent + 2, text);
            }
            None => writeln!(text, "{space}  nothing").unwrap(),
        }
    }
}

fn show_range(message: &pb::RangeResponse, indent: usize, text: &mut String) {
    let space = " ".repeat(indent);
    let more = if message.more { " more" } else { "" };
    for kv in &message.kvs {
        writeln!(text, "{space}  {}", show_key_value(kv)).unwrap();
    }
    writeln!(text, "{space}  count {}{more}", message.count).unwrap();
}

fn show_previous(previous: &[KeyValue], indent: usize, text: &mut String) {
    for kv in previous {
        writeln!(text, "{}  previous {}", " ".repeat(indent), show_key_value(kv)).unwrap();
    }
}

fn show_key_value(kv: &KeyValue) -> String {
    let lease = if kv.lease == 0 { String::new() } else { format!(" lease {}", kv.lease) };
    format!(
        "{}={} create {} mod {} version {}{lease}",
        kv.key.escape_ascii(),
        kv.value.escape_ascii(),
        kv.create_revision,
        kv.mod_revision,
        kv.version
    )
}
