//! endpoint health, status, hashkv: questions to single members.

use std::time::Instant;

use client::{Client, Config};
use futures_util::future::join_all;
use proto::etcdserverpb::{AlarmType, RangeRequest};

use crate::{
    Exit,
    config::{Connection, Session, new_client},
    go,
    print::{Answer, Health},
};

pub(crate) async fn health(mut session: Session) -> Result<(), Exit> {
    let Connection { config, printer } = session.connection()?;
    let endpoints = endpoints(&session, &config).await?;
    let clients: Vec<_> =
        endpoints.iter().map(|endpoint| one(&config, endpoint)).collect::<Result<_, _>>()?;
    let endpoints: Vec<_> = join_all(clients.iter().map(examine)).await;
    let ill = endpoints.iter().any(|health| !health.error.is_empty());
    session.print(&printer, &Answer::Health(endpoints))?;
    if ill { Err(Exit::error("unhealthy cluster")) } else { Ok(()) }
}

/// A member is healthy if it answers a linearizable read, whatever the answer, and has no alarm.
async fn examine(client: &Client) -> Health {
    let start = Instant::now();
    let read = client.range(RangeRequest { key: "health".into(), ..Default::default() }).await;
    let took = go::duration(start.elapsed());
    let error = match read {
        Err(error) if !error.is_status("etcdserver: permission denied") => error.to_string(),
        _ => match client.alarms().await {
            Err(_) => "Unable to fetch the alarm list".to_owned(),
            Ok(response) if response.alarms.is_empty() => String::new(),
            Ok(response) => {
                let names = response.alarms.iter().map(|alarm| match alarm.alarm() {
                    AlarmType::Nospace => "NOSPACE ",
                    AlarmType::Corrupt => "CORRUPT ",
                    AlarmType::None => "UNKNOWN ",
                });
                format!("Active Alarm(s): {}", names.collect::<String>())
            }
        },
    };
    Health { endpoint: client.endpoints()[0].clone(), healthy: error.is_empty(), took, error }
}

pub(crate) async fn status(mut session: Session) -> Result<(), Exit> {
    let Connection { config, printer } = session.connection()?;
    let mut answers = Vec::new();
    let mut failed = false;
    for endpoint in endpoints(&session, &config).await? {
        match one(&config, &endpoint)?.status().await {
            Ok(status) => answers.push((endpoint, status)),
            Err(error) => {
                failed = true;
                let line = format!("Failed to get the status of endpoint {endpoint} ({error})\n");
                session.streams.complain(&line);
            }
        }
    }
    session.print(&printer, &Answer::Status(answers))?;
    if failed { Err(Exit::silent(Exit::ERROR)) } else { Ok(()) }
}

pub(crate) async fn hash_kv(mut session: Session) -> Result<(), Exit> {
    let Connection { config, printer } = session.connection()?;
    let revision = session.parsed.int("rev");
    let mut answers = Vec::new();
    let mut failed = None;
    for endpoint in endpoints(&session, &config).await? {
        match one(&config, &endpoint)?.hash_kv(revision).await {
            Ok(hash) => answers.push((endpoint, hash)),
            Err(error) => {
                let line = format!("Failed to get the hash of endpoint {endpoint} ({error})\n");
                session.streams.complain(&line);
                failed = Some(error);
            }
        }
    }
    session.print(&printer, &Answer::HashKv(answers))?;
    failed.map_or(Ok(()), |error| Err(Exit::error(error)))
}

/// A client of this endpoint alone.
pub(crate) fn one(config: &Config, endpoint: &str) -> Result<Client, Exit> {
    new_client(Config { endpoints: vec![endpoint.to_owned()], ..config.clone() })
}

/// The endpoints to ask: those given, or with `--cluster` those of all members.
pub(crate) async fn endpoints(session: &Session, config: &Config) -> Result<Vec<String>, Exit> {
    if !session.parsed.bool("cluster") {
        return Ok(config.endpoints.clone());
    }
    let members = new_client(config.clone())?.member_list(true).await.map_err(|error| {
        let what = "failed to fetch endpoints from etcd cluster member list";
        Exit::error(format!("{what}: {error}"))
    })?;
    Ok(members.members.into_iter().flat_map(|member| member.client_ur_ls).collect())
}
