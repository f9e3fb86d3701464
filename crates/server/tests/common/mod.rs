//! A lone member in this process, on ports that the system chooses, and an h2 client to talk to it.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use h2::client::SendRequest;
use http::{HeaderMap, Request};
use server::config::{self, Action};
use server::handle::{Node, ShardEvent};
use server::run::Member;
use server::serve::shard::Shard;

/// A member and the directory that goes with it.
pub struct Lone {
    pub member: Option<Member>,
    pub address: SocketAddr,
    flags: Vec<String>,
    directory: tempfile::TempDir,
}

impl Lone {
    /// Starts one with these flags besides the necessary ones.
    #[allow(dead_code)]
    pub fn start(flags: &[&str]) -> Lone {
        let directory = tempfile::tempdir().unwrap();
        let flags: Vec<String> = flags.iter().map(ToString::to_string).collect();
        let member = run(&flags, &directory);
        let address = member.client_addresses()[0];
        Lone { member: Some(member), address, flags, directory }
    }

    /// Ends the member and starts it again on its directory.
    #[allow(dead_code)]
    pub fn restart(&mut self) {
        self.member.take().unwrap().stop();
        let member = run(&self.flags, &self.directory);
        self.address = member.client_addresses()[0];
        self.member = Some(member);
    }

    /// An HTTP/2 connection.
    #[allow(dead_code)]
    pub async fn connect(&self) -> SendRequest<Bytes> {
        let tcp = tokio::net::TcpStream::connect(self.address).await.unwrap();
        let (client, connection) = h2::client::handshake(tcp).await.unwrap();
        tokio::spawn(async move {
            // The connection ends with the test, by whichever side.
            drop(connection.await);
        });
        client.ready().await.unwrap()
    }
}

impl Drop for Lone {
    fn drop(&mut self) {
        if let Some(member) = self.member.take() {
            member.stop();
        }
    }
}

fn run(flags: &[String], directory: &tempfile::TempDir) -> Member {
    let mut arguments: Vec<String> = [
        "--listen-client-urls=http://127.0.0.1:0",
        "--advertise-client-urls=http://127.0.0.1:1",
        "--listen-peer-urls=http://127.0.0.1:0",
        "--initial-advertise-peer-urls=http://127.0.0.1:2",
        "--unsafe-no-fsync",
    ]
    .iter()
    .map(ToString::to_string)
    .collect();
    arguments.extend_from_slice(flags);
    arguments.push(format!("--data-dir={}", directory.path().join("data").display()));
    let Action::Run(mut config) = config::parse(&arguments, []).unwrap() else {
        panic!("these flags start a member")
    };
    // Whole-sized files would be preallocated again and again.
    config.segment_bytes = Some(replica::SegmentBytes { wal: 4 << 20, store: 4 << 20 });
    Member::start(*config).unwrap()
}

/// A channel for the generated client stubs.
#[allow(dead_code)]
pub async fn channel(lone: &Lone) -> tonic::transport::Channel {
    let address = format!("http://{}", lone.address);
    tonic::transport::Channel::from_shared(address).unwrap().connect().await.unwrap()
}

/// A put, for the generated client stubs.
#[allow(dead_code)]
pub fn put_request(key: &str, value: &str) -> proto::etcdserverpb::PutRequest {
    proto::etcdserverpb::PutRequest {
        key: key.to_string().into(),
        value: value.to_string().into(),
        ..Default::default()
    }
}

/// A message with gRPC's prefix.
#[allow(dead_code)]
pub fn framed(message: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(0);
    out.put_u32(message.len() as u32);
    out.put_slice(message);
    out.freeze()
}

/// A gRPC request's head.
#[allow(dead_code)]
pub fn head(path: &str) -> Request<()> {
    Request::post(format!("http://member{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .unwrap()
}

/// What a call came to: the body, and code and text from trailers or, if there was nothing else, the head.
#[allow(dead_code)]
pub struct Outcome {
    pub body: Bytes,
    pub code: u32,
    pub text: String,
}

/// Makes a unary call with these body bytes.
#[allow(dead_code)]
pub async fn call(client: &mut SendRequest<Bytes>, request: Request<()>, body: Bytes) -> Outcome {
    let (response, mut send) = client.send_request(request, false).unwrap();
    send.send_data(body, true).unwrap();
    outcome(response).await
}

/// Waits for a call's end.
#[allow(dead_code)]
pub async fn outcome(response: h2::client::ResponseFuture) -> Outcome {
    let response = response.await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/grpc");
    let (head, mut stream) = response.into_parts();
    let mut body = BytesMut::new();
    while let Some(chunk) = stream.data().await {
        let chunk = chunk.unwrap();
        stream.flow_control().release_capacity(chunk.len()).unwrap();
        body.extend_from_slice(&chunk);
    }
    let trailers: HeaderMap = stream.trailers().await.unwrap().unwrap_or(head.headers);
    let code = trailers["grpc-status"].to_str().unwrap().parse().unwrap();
    let text = trailers.get("grpc-message").map_or("", |text| text.to_str().unwrap()).to_string();
    Outcome { body: body.freeze(), code, text }
}

/// A shard of a member whose other threads do not run: what is proposed stays where it was put.
#[allow(dead_code)]
pub struct Still {
    pub node: Arc<Node>,
    /// The shard, until it has ended. It would be patient for an hour with who is being served then.
    pub shard: tokio::task::JoinHandle<()>,
    listener: tokio::net::TcpListener,
    address: SocketAddr,
}

#[allow(dead_code)]
impl Still {
    /// On the current local set.
    pub async fn start(flags: &[&str]) -> Still {
        let mut arguments: Vec<String> = flags.iter().map(ToString::to_string).collect();
        arguments.push("--data-dir=/data".to_string());
        let Action::Run(config) = config::parse(&arguments, []).unwrap() else {
            panic!("these flags start a member")
        };
        let vfs: Arc<dyn vfs::Vfs> = Arc::new(vfs::memory::Memory::new(1));
        let (identity, founders) = server::identity::of(&config).unwrap();
        let mut made = replica::Config::new(identity, config.data_dir.clone());
        made.shards = 1;
        made.segment_bytes = replica::SegmentBytes { wal: 4 << 20, store: 4 << 20 };
        let opened =
            replica::open(vfs.clone(), made.clone(), replica::Bootstrap::New(founders)).unwrap();
        let node = Arc::new(Node::new(*config, vfs, made, opened.view));
        let shard = Shard::new(node.clone(), replica::Shard(0), 1);
        let patience = std::time::Duration::from_secs(3_600);
        let shard = tokio::task::spawn_local(shard.run(patience));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        Still { node, shard, listener, address }
    }

    /// A connection of which the shard has the other end.
    pub async fn tcp(&self) -> tokio::net::TcpStream {
        let (client, accepted) =
            tokio::join!(tokio::net::TcpStream::connect(self.address), self.listener.accept());
        let accepted = accepted.unwrap().0.into_std().unwrap();
        self.node.tell(replica::Shard(0), ShardEvent::Connection(accepted));
        client.unwrap()
    }

    /// An HTTP/2 connection.
    pub async fn connect(&self) -> SendRequest<Bytes> {
        let (client, connection) = h2::client::handshake(self.tcp().await).await.unwrap();
        tokio::spawn(async move {
            // The connection ends with the test, by whichever side.
            drop(connection.await);
        });
        client.ready().await.unwrap()
    }
}
