//! lease grant, revoke, timetolive, list, keep-alive.

use proto::etcdserverpb::{LeaseGrantRequest, LeaseTimeToLiveRequest};

use crate::{
    Exit,
    config::Session,
    go,
    print::{Answer, Format},
};

pub(crate) async fn grant(mut session: Session) -> Result<(), Exit> {
    let [ttl] = session.parsed.arguments.as_slice() else {
        return Err(Exit::bad_arguments("lease grant command needs TTL argument"));
    };
    let ttl = go::parse_int(&String::from_utf8_lossy(ttl), 10)
        .map_err(|why| Exit::bad_arguments(format!("bad TTL ({why})")))?;
    let (client, printer) = session.connect()?;
    let response = client
        .lease_grant(LeaseGrantRequest { ttl, id: 0 })
        .await
        .map_err(|error| Exit::error(format!("failed to grant lease ({error})")))?;
    session.print(&printer, &Answer::Grant(response))
}

pub(crate) async fn revoke(mut session: Session) -> Result<(), Exit> {
    let id = lease(&session, "lease revoke command needs 1 argument")?;
    let (client, printer) = session.connect()?;
    let response = client
        .lease_revoke(id)
        .await
        .map_err(|error| Exit::error(format!("failed to revoke lease ({error})")))?;
    session.print(&printer, &Answer::Revoke(id, response))
}

pub(crate) async fn time_to_live(mut session: Session) -> Result<(), Exit> {
    let keys = session.parsed.bool("keys");
    let id = lease(&session, "lease timetolive command needs lease ID as argument")?;
    let (client, printer) = session.connect()?;
    let request = LeaseTimeToLiveRequest { id, keys };
    let response =
        client.with_timeout(None).lease_time_to_live(request).await.map_err(not_connected)?;
    session.print(&printer, &Answer::TimeToLive { response, keys })
}

pub(crate) async fn list(mut session: Session) -> Result<(), Exit> {
    let (client, printer) = session.connect()?;
    let response = client.with_timeout(None).leases().await.map_err(not_connected)?;
    session.print(&printer, &Answer::Leases(response))
}

pub(crate) async fn keep_alive(mut session: Session) -> Result<(), Exit> {
    let id = lease(&session, "lease keep-alive command needs lease ID as argument")?;
    let once = session.parsed.bool("once");
    let (client, printer) = session.connect()?;
    if once {
        let response =
            client.with_timeout(None).keep_alive_once(id).await.map_err(not_connected)?;
        return session.print(&printer, &Answer::KeepAlive(response));
    }
    let mut keeper = client.keep_alive(id);
    while let Some(response) = keeper.next().await {
        session.print(&printer, &Answer::KeepAlive(response))?;
    }
    match printer.format {
        Format::Simple => {
            session.streams.print(format!("lease {id:016x} expired or revoked.\n").as_bytes())
        }
        _ => Ok(()),
    }
}

fn lease(session: &Session, needs: &str) -> Result<i64, Exit> {
    let [id] = session.parsed.arguments.as_slice() else {
        return Err(Exit::bad_arguments(needs));
    };
    go::parse_int(&String::from_utf8_lossy(id), 16).map_err(|why| {
        Exit::bad_arguments(format!("bad lease ID arg ({why}), expecting ID in Hex"))
    })
}

/// The lease commands that have no time limit take every error for a bad connection.
fn not_connected(error: client::Error) -> Exit {
    Exit::new(Exit::BAD_CONNECTION, error)
}
