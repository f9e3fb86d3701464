//! trace, slow: what a request went through, member by member.
//!
//! The member that was asked tells its part with the answer. The others are asked what they know of the entry, until all
//! have it on disk or our patience is over; then everything is laid on the clock of one of them ([`timeline`]) and
//! read ([`explain`]).

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use client::{Client, Config, Error};
use futures_util::future::join_all;
use proto::etcdserverpb::Member;
use proto::quorate::v1::{
    Record, StageKind, TraceRequest, TraceResponse, trace_request::Request,
    trace_response::Response,
};
use serde_json::json;

mod explain;
mod timeline;

use self::timeline::{Timeline, Told};
use crate::{
    Exit,
    config::{Connection, Session, new_client},
    flags::Verb,
    go, kv, maintenance,
    print::{
        Answer, Format,
        table::{Table, draw},
    },
    txn,
};

/// How long members are asked for what they have not seen yet, and for their first word, if no `--command-timeout` says it.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long it takes to ask again.
const PAUSE: Duration = Duration::from_millis(20);

pub(crate) async fn trace(mut session: Session) -> Result<(), Exit> {
    let request = match session.parsed.command().verb {
        Verb::TracePut => Request::Put(kv::put_request(&session.parsed, &mut session.streams)?),
        Verb::TraceGet => Request::Range(kv::range_request(&session.parsed)?),
        Verb::TraceDel => Request::DeleteRange(kv::delete_request(&session.parsed)?),
        _ => {
            let interactive = session.parsed.bool("interactive");
            Request::Txn(txn::read(&mut session.streams, interactive)?.into())
        }
    };
    let Connection { config, printer } = session.connection()?;
    let patience = match session.parsed.is_set("command-timeout") {
        true => session.parsed.duration("command-timeout"),
        false => PATIENCE,
    };
    let client = new_client(config.clone())?;
    let request = TraceRequest { request: Some(request) };
    let TraceResponse { response, record } = client.trace(request).await.map_err(not_here)?;
    let record = record.ok_or_else(|| Exit::error("the member sent no trace"))?;
    let members = members(&client, &config, patience).await;
    let told = ask_all(&members, &record, patience).await;
    let timeline = Timeline::new(&record, told);
    let is_json = printer.format == Format::Json;
    if let Some(response) = response {
        let answer = match response {
            Response::Range(range) => Answer::Get(range),
            Response::Put(put) => Answer::Put(put),
            Response::DeleteRange(deleted) => Answer::Del(deleted),
            Response::Txn(txn) => Answer::Txn(txn),
        };
        session.print(&printer, &answer)?;
    }
    let text = match is_json {
        true => format!("{}\n", timeline.json(&record)),
        false => {
            let explained = explain::explain(&timeline, session.parsed.bool("explain"));
            format!("\n{}\n{explained}", timeline.text(&record))
        }
    };
    session.streams.print(text.as_bytes())?;
    match record.code {
        0 => Ok(()),
        _ => Err(Exit::error(record.error)),
    }
}

/// A member of etcd has no such service; say so in other words than its own.
fn not_here(error: Error) -> Exit {
    match error.is_status("unknown service quorate.v1.Trace") {
        true => Exit::new(Exit::BAD_FEATURE, "the member is not a Quorate, and cannot trace"),
        false => Exit::error(error),
    }
}

/// A member, and a client of it alone if it has an address.
struct Peer {
    id: u64,
    name: String,
    client: Option<Client>,
}

/// The members of the cluster, as far as they can be learnt, and who is at the endpoints that were given besides: members
/// may advertise addresses that cannot be reached from here.
async fn members(client: &Client, config: &Config, patience: Duration) -> Vec<Peer> {
    let members = client.member_list(false).await.map(|list| list.members).unwrap_or_default();
    let of = |endpoints: Vec<String>| {
        let config = Config {
            endpoints,
            command_timeout: Some(patience),
            on_failed_try: None,
            ..config.clone()
        };
        Client::new(config).ok()
    };
    let bare = |url: &str| url.rsplit("://").next().unwrap_or_default().to_owned();
    let listed: Vec<String> =
        members.iter().flat_map(|member| &member.client_ur_ls).map(|url| bare(url)).collect();
    let besides = config.endpoints.iter().filter(|endpoint| !listed.contains(&bare(endpoint)));
    let besides =
        besides.map(|given| Peer { id: 0, name: given.clone(), client: of(vec![given.clone()]) });
    let peer = |member: Member| {
        let urls = member.client_ur_ls;
        Peer {
            id: member.id,
            name: member.name,
            client: (!urls.is_empty()).then(|| of(urls)).flatten(),
        }
    };
    members.into_iter().map(peer).chain(besides).collect()
}

/// Asks every member what it knows of the record's entry, if it has one.
async fn ask_all(members: &[Peer], record: &Record, patience: Duration) -> Vec<Told> {
    let asked = members.iter().map(|peer| async move {
        let silent = |why: &str| Told::silent(peer.id, &peer.name, why);
        let Some(client) = &peer.client else { return silent("it has no address for clients") };
        if record.index == 0 {
            return Told::of(peer.id, &peer.name, Vec::new());
        }
        let since = Instant::now();
        loop {
            match client.stages(record.term, record.index).await {
                Ok(said) => {
                    let told = Told::of(said.member_id, &said.name, said.stages);
                    let told = Told { voters: said.voters, ..told };
                    if told.is_whole(said.leader) || since.elapsed() > patience {
                        return told;
                    }
                }
                Err(error) if error.is_status("unknown service quorate.v1.Trace") => {
                    return silent("it is not a Quorate");
                }
                Err(error) => return silent(&error.to_string()),
            }
            tokio::time::sleep(PAUSE).await;
        }
    });
    let mut told = join_all(asked).await;
    // Each member once, and who spoke before who was silent, though it may be the same at another address. Of somebody at
    // an endpoint who was silent it is not known who it is.
    told.sort_by_key(|told| (told.id, told.silent.is_some()));
    told.dedup_by_key(|told| told.id);
    told.retain(|told| told.id != 0 || told.silent.is_some() && members.len() == 1);
    told
}

pub(crate) async fn slow(mut session: Session) -> Result<(), Exit> {
    let Connection { config, printer } = session.connection()?;
    let mut rows = Vec::new();
    let mut failed = false;
    for endpoint in maintenance::endpoints(&session, &config).await? {
        match maintenance::one(&config, &endpoint)?.slow().await {
            Ok(said) => {
                rows.extend(said.records.into_iter().map(|record| (said.name.clone(), record)))
            }
            Err(error) => {
                failed = true;
                let Exit { message, .. } = not_here(error);
                let why = message.unwrap_or_default();
                let line = format!("Failed to ask endpoint {endpoint} ({why})\n");
                session.streams.complain(&line);
            }
        }
    }
    rows.sort_by_key(|(_, record)| std::cmp::Reverse(record.took_us));
    rows.truncate(usize::try_from(session.parsed.int("limit")).unwrap_or(0));
    let names = members(&new_client(config.clone())?, &config, PATIENCE).await;
    let name = |id: u64| {
        let known = names.iter().find(|peer| peer.id == id && !peer.name.is_empty());
        known.map_or_else(|| format!("{id:x}"), |peer| peer.name.clone())
    };
    let text = match printer.format {
        Format::Json => {
            let rows = rows.iter().map(|(member, record)| {
                let stages = timeline::stages_json(&record.stages);
                let (longest, us) = explain::longest(record, &name);
                json!({
                    "member": member, "method": record.method, "key": BASE64.encode(&record.key),
                    "began_us": record.began_us, "took_us": record.took_us,
                    "term": record.term, "index": record.index, "revision": record.revision,
                    "code": record.code, "error": record.error, "stages": stages,
                    "longest": longest, "longest_us": us,
                })
            });
            format!("{}\n", serde_json::Value::from_iter(rows))
        }
        Format::Simple | Format::Table => slow_table(&rows, &name),
        Format::Fields | Format::Protobuf => {
            let message = "slow can be printed as simple, table or json";
            return Err(Exit::new(Exit::BAD_FEATURE, message));
        }
    };
    session.streams.print(text.as_bytes())?;
    if failed { Err(Exit::silent(Exit::ERROR)) } else { Ok(()) }
}

fn slow_table(rows: &[(String, Record)], name: &impl Fn(u64) -> String) -> String {
    let now_us = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
    let columns = ["took", "ago", "member", "method", "key", "longest stage", "outcome"].to_vec();
    let row = |(member, record): &(String, Record)| {
        let ago = now_us.saturating_sub(u128::from(record.began_us + record.took_us));
        let (longest, us) = explain::longest(record, name);
        vec![
            timeline::ms(record.took_us),
            format!("{} s", ago / 1_000_000),
            member.clone(),
            record.method.rsplit('/').next().unwrap_or_default().to_owned(),
            go::quote(&record.key),
            format!("{longest}, {}", timeline::ms(us)),
            match record.code {
                0 => "done".to_owned(),
                _ => record.error.clone(),
            },
        ]
    };
    draw(&Table { columns, rows: rows.iter().map(row).collect() })
}

/// What a stage is called. `peer` is the name of the other member.
fn stage_name(kind: StageKind, peer: Option<&str>) -> String {
    let peer = peer.unwrap_or("another member");
    match kind {
        StageKind::Unspecified => "something newer than this program".to_owned(),
        StageKind::Received => "received".to_owned(),
        StageKind::HandedIn => "handed in".to_owned(),
        StageKind::Forwarded => format!("passed on to {peer}"),
        StageKind::Appended => "in memory".to_owned(),
        StageKind::Sent => format!("sent to {peer}"),
        StageKind::Written => "written to the log".to_owned(),
        StageKind::Synced => "log synced".to_owned(),
        StageKind::Acknowledged => format!("said so to {peer}"),
        StageKind::Matched => format!("{peer} has it"),
        StageKind::Committed => "committed".to_owned(),
        StageKind::Applied => "applied".to_owned(),
        StageKind::Answered => "answered".to_owned(),
        StageKind::FrameWritten => "frame written".to_owned(),
        StageKind::FrameSynced => "frame synced".to_owned(),
        StageKind::ReadIndexAsked => "read index asked for".to_owned(),
        StageKind::ReadIndexConfirmed => "read index confirmed".to_owned(),
        StageKind::ReadBegun => "given to a read thread".to_owned(),
    }
}
