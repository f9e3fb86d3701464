//! The limit server: constants for Put and Range, and no for all else.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may stop where it stands, and looks at the real clock"
)]

mod common;

use std::net::SocketAddr;

use common::put_request as put;
use proto::etcdserverpb::kv_client::KvClient;
use proto::etcdserverpb::maintenance_client::MaintenanceClient;
use proto::etcdserverpb::watch_client::WatchClient;
use proto::etcdserverpb::{DeleteRangeRequest, RangeRequest, StatusRequest, WatchRequest};
use server::config::Action;
use server::run::Member;
use server::serve::limit::{self, VALUE_BYTES};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn start() -> (Member, SocketAddr) {
    let flags = ["--listen-client-urls=http://127.0.0.1:0".to_string()];
    let Action::Run(config) = limit::parse(&flags).unwrap() else { panic!("this is no help") };
    let limit = Member::limit(*config).unwrap();
    let address = limit.client_addresses()[0];
    (limit, address)
}

async fn channel(address: SocketAddr) -> tonic::transport::Channel {
    let address = format!("http://{address}");
    tonic::transport::Channel::from_shared(address).unwrap().connect().await.unwrap()
}

#[tokio::test(flavor = "current_thread")]
async fn a_put_changes_nothing_and_a_range_finds_one_value_whatever_it_asks_for() {
    let (limit, address) = start();
    let mut kv = KvClient::new(channel(address).await);
    for (key, value) in [("a", "1"), ("a", "2"), ("b", "")] {
        let done = kv.put(put(key, value)).await.unwrap().into_inner();
        let header = done.header.unwrap();
        assert!(header.cluster_id != 0 && header.member_id != 0 && header.raft_term > 0);
        assert_eq!((header.revision, done.prev_kv), (2, None));
    }
    for key in ["a", "never put"] {
        let asked = RangeRequest { key: key.into(), ..Default::default() };
        let found = kv.range(asked).await.unwrap().into_inner();
        assert_eq!((found.count, found.more, found.kvs.len()), (1, false, 1));
        assert_eq!((found.kvs[0].value.len(), found.kvs[0].version), (VALUE_BYTES, 1));
        assert_eq!(found.header.unwrap().revision, 2);
    }
    // They are read as a member reads them.
    let error = kv.put(put("", "1")).await.unwrap_err();
    assert_eq!(error.message(), "etcdserver: key is not provided");
    let error = kv.range(RangeRequest::default()).await.unwrap_err();
    assert_eq!(error.message(), "etcdserver: key is not provided");
    drop(kv);
    limit.stop();
}

#[tokio::test(flavor = "current_thread")]
async fn nothing_else_is_served() {
    let (limit, address) = start();
    let channel = channel(address).await;
    let mut refused = Vec::new();
    let delete = DeleteRangeRequest { key: "a".into(), ..Default::default() };
    refused.push(KvClient::new(channel.clone()).delete_range(delete).await.unwrap_err());
    let mut maintenance = MaintenanceClient::new(channel.clone());
    refused.push(maintenance.status(StatusRequest {}).await.unwrap_err());
    let watch = tokio_stream::once(WatchRequest::default());
    refused.push(WatchClient::new(channel).watch(watch).await.unwrap_err());
    for status in refused {
        assert_eq!(status.code(), tonic::Code::Unimplemented);
        assert!(status.message().starts_with(limit::ONLY), "{status}");
    }

    let mut tcp = tokio::net::TcpStream::connect(address).await.unwrap();
    tcp.write_all(b"GET /readyz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut page = String::new();
    tcp.read_to_string(&mut page).await.unwrap();
    assert!(page.starts_with("HTTP/1.1 501"), "{page}");
    limit.stop();
}

#[test]
fn its_help_is_its_own_and_a_flag_that_no_member_has_is_refused() {
    let text = |flag: &str| limit::parse(&[flag.to_string()]);
    let Ok(Action::Print(help)) = text("--help") else { panic!("help is printed") };
    assert!(help.starts_with("quorate limit") && help.contains("--listen-client-urls"));
    assert!(text("--listen-client-url").is_err());
}
