//! What it costs that every member notes what its requests go through, in instructions per put.
//!
//! `scripts/tracing-cost.sh` runs members under callgrind with tracing on and off, each time with few and with many
//! puts, so that start and end fall out of the difference. The members are this process and are counted; their
//! client is another process and is not.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test may stop where it stands, and looks at the real clock"
)]

#[path = "../../../tests/src/address.rs"]
mod address;
mod common;

use std::net::SocketAddrV4;
use std::process::Command;

use address::own_address;
use common::{call, framed, head, put_request};
use prost::Message;
use server::config::{self, Action};
use server::run::Member;

/// What the script says, or what makes a short trial of the measurement itself.
fn setting(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.to_owned())
}

fn members(count: usize, tracing: replica::Tracing, directory: &tempfile::TempDir) -> Vec<Member> {
    let addresses: Vec<SocketAddrV4> = (0..count).map(|_| own_address()).collect();
    let url = |number: usize| format!("http://{}", addresses[number]);
    let cluster: Vec<String> =
        (0..count).map(|number| format!("m{number}={}", url(number))).collect();
    let start = |number| {
        let arguments = [
            format!("--name=m{number}"),
            format!("--data-dir={}", directory.path().join(format!("m{number}")).display()),
            "--listen-client-urls=http://127.0.0.1:0".to_owned(),
            "--advertise-client-urls=http://127.0.0.1:1".to_owned(),
            format!("--listen-peer-urls={}", url(number)),
            format!("--initial-advertise-peer-urls={}", url(number)),
            format!("--initial-cluster={}", cluster.join(",")),
            // Under valgrind everything takes fifty times as long.
            "--heartbeat-interval=1000".to_owned(),
            "--election-timeout=10000".to_owned(),
            "--unsafe-no-fsync".to_owned(),
        ];
        let Action::Run(mut config) = config::parse(&arguments, []).unwrap() else {
            panic!("these flags start a member")
        };
        config.tracing = tracing;
        Member::start(*config).unwrap()
    };
    (0..count).map(start).collect()
}

#[test]
#[ignore = "a measurement, see scripts/tracing-cost.sh"]
fn members_serve_puts() {
    let tracing = match setting("QUORATE_TRACING", "batches").as_str() {
        "off" => replica::Tracing::Off,
        "batches" => replica::Tracing::Batches,
        other => panic!("QUORATE_TRACING is off or batches, not {other}"),
    };
    let directory = tempfile::tempdir().unwrap();
    let count = setting("QUORATE_MEMBERS", "1").parse().unwrap();
    let members = members(count, tracing, &directory);
    let address = members[0].client_addresses()[0].to_string();
    let client = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "a_client_puts"])
        .env("QUORATE_ADDRESS", address)
        .status()
        .unwrap();
    assert!(client.success(), "the client failed");
    members.into_iter().for_each(Member::stop);
}

/// The other half of the measurement: it does nothing where it is started alone.
#[tokio::test(flavor = "current_thread")]
#[ignore = "a measurement, see scripts/tracing-cost.sh"]
async fn a_client_puts() {
    let Ok(address) = std::env::var("QUORATE_ADDRESS") else { return };
    let puts: usize = setting("QUORATE_PUTS", "100").parse().unwrap();
    let at_once: usize = setting("QUORATE_AT_ONCE", "1").parse().unwrap();
    // Sixteen streams a connection, as in the comparison with etcd.
    let connections = at_once.div_ceil(16);
    let body = |n: usize| {
        framed(&put_request(&format!("key-{:08}", n % 10_000), &"v".repeat(256)).encode_to_vec())
    };
    let mut clients = Vec::new();
    for _ in 0..connections {
        let tcp = tokio::net::TcpStream::connect(&address).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        let (client, connection) = h2::client::handshake(tcp).await.unwrap();
        tokio::spawn(async move {
            // The connection ends with the test.
            drop(connection.await);
        });
        clients.push(client);
    }
    // There is a leader once a put is done; the time until then is the same for few puts and for many.
    let mut first = clients[0].clone().ready().await.unwrap();
    while call(&mut first, head("/etcdserverpb.KV/Put"), body(0)).await.code != 0 {
        first = first.ready().await.unwrap();
    }
    let each = puts.div_ceil(at_once);
    let loops: Vec<_> = (0..at_once)
        .map(|n| {
            let client = clients[n % connections].clone();
            tokio::spawn(async move {
                for k in 0..each {
                    let mut client = client.clone().ready().await.unwrap();
                    let done =
                        call(&mut client, head("/etcdserverpb.KV/Put"), body(n * each + k)).await;
                    assert_eq!((done.code, done.text.as_str()), (0, ""));
                }
            })
        })
        .collect();
    for one in loops {
        one.await.unwrap();
    }
}
