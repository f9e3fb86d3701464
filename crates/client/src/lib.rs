//! The Rust client: etcd's API over several endpoints, with what a careful caller would do itself.
//!
//! ```text
//!   kv  watch  lease  cluster  maintenance     one file per service; thin, over tonic's stubs
//!          │        │
//!       resume  keep_alive                     machines: a watch across streams, a lease in time
//!          └────────┤
//!               connection                     dials, sends, waits; owns the only sockets
//!          ┌────────┴───────┐
//!       balance           retry                machines: which endpoint, and whether again
//! ```
//!
//! The machines are plain structs without clock, sockets or tokio, so that a simulator can drive them
//! as well. Requests and answers are the messages of [`proto`]; nothing is renamed on the way.

#![allow(
    clippy::disallowed_methods,
    reason = "a client lives in the real time; its machines deny this again"
)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

pub mod balance;
mod cluster;
mod connection;
mod error;
pub mod keep_alive;
mod kv;
mod lease;
mod maintenance;
pub mod resume;
pub mod retry;
mod trace;
mod watch;

pub use crate::{
    error::{Code, Error},
    kv::{Compare, Txn, prefix_end},
    lease::LeaseKeeper,
    watch::Watch,
};

use crate::{balance::Balancer, connection::Endpoint};

/// A request that was sent, or could not be, and was not answered; for the log.
#[derive(Debug, Clone)]
pub struct FailedTry<'a> {
    /// All endpoints of the client.
    pub endpoints: &'a [String],
    /// The endpoint that failed; `None` if none could be reached.
    pub peer: Option<&'a str>,
    /// The method's path, such as `/etcdserverpb.KV/Put`.
    pub method: &'static str,
    /// How many tries were sent before.
    pub attempt: u32,
    /// What came back.
    pub error: &'a Error,
}

/// Called with every failed try, on the task that made the request.
pub type OnFailedTry = Arc<dyn Fn(&FailedTry<'_>) + Send + Sync>;

/// What a client is made from.
#[derive(Clone)]
pub struct Config {
    /// Members' client addresses: `host:port`, `http://host:port` or `unix:/path`.
    pub endpoints: Vec<String>,
    /// The longest time one connection attempt may take.
    pub dial_timeout: Duration,
    /// The time of one request, including dialing; `None` waits for ever.
    pub command_timeout: Option<Duration>,
    /// The time between pings on a connection that carries requests; at least [`PING_INTERVAL_MIN`].
    pub keepalive_time: Duration,
    /// A ping not answered in this time breaks the connection.
    pub keepalive_timeout: Duration,
    /// The largest request in bytes; larger ones are refused here. 0 means 2 MiB.
    pub max_request_bytes: usize,
    /// The largest answer in bytes. 0 means no limit but gRPC's (2³¹−1).
    pub max_receive_bytes: usize,
    /// Members without a leader are to refuse watches instead of staying quiet.
    pub require_leader: bool,
    /// Told of every failed try.
    pub on_failed_try: Option<OnFailedTry>,
}

/// Members close connections that ping more often than they like; no client pings more often than this.
pub const PING_INTERVAL_MIN: Duration = Duration::from_secs(10);

const REQUEST_BYTES_DEFAULT: usize = 2 * 1024 * 1024;
const RECEIVE_BYTES_DEFAULT: usize = i32::MAX as usize;

impl Config {
    /// The defaults of etcdctl for these endpoints.
    pub fn new<E: Into<String>>(endpoints: impl IntoIterator<Item = E>) -> Config {
        Config {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            dial_timeout: Duration::from_secs(2),
            command_timeout: Some(Duration::from_secs(5)),
            keepalive_time: Duration::from_secs(2),
            keepalive_timeout: Duration::from_secs(6),
            max_request_bytes: 0,
            max_receive_bytes: 0,
            require_leader: false,
            on_failed_try: None,
        }
    }
}

/// A client of one cluster. Clones share their connections; connections are made when first needed.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
    /// As [`Config::command_timeout`].
    timeout: Option<Duration>,
}

struct Shared {
    config: Config,
    endpoints: Vec<Endpoint>,
    /// The moment that the balancer's times count from.
    start: Instant,
    /// Guards picks and health, a few instructions at a time; never held across an await.
    balancer: Mutex<Balancer>,
}

impl Client {
    /// A client over the configured endpoints. Nothing is dialed yet.
    ///
    /// # Errors
    /// [`Error::NoEndpoints`], or [`Error::BadEndpoint`] for one that is none.
    pub fn new(mut config: Config) -> Result<Client, Error> {
        if config.endpoints.is_empty() {
            return Err(Error::NoEndpoints);
        }
        if config.max_request_bytes == 0 {
            config.max_request_bytes = REQUEST_BYTES_DEFAULT;
        }
        if config.max_receive_bytes == 0 {
            config.max_receive_bytes = RECEIVE_BYTES_DEFAULT;
        }
        let endpoints: Vec<_> = config
            .endpoints
            .iter()
            .map(|endpoint| Endpoint::parse(endpoint, &config))
            .collect::<Result<_, _>>()?;
        let timeout = config.command_timeout;
        let balancer = Mutex::new(Balancer::new(endpoints.len()));
        let shared = Shared { config, endpoints, start: Instant::now(), balancer };
        Ok(Client { shared: Arc::new(shared), timeout })
    }

    /// The same client and connections with another time for each request.
    pub fn with_timeout(&self, timeout: Option<Duration>) -> Client {
        Client { shared: self.shared.clone(), timeout }
    }

    /// The endpoints as configured.
    pub fn endpoints(&self) -> &[String] {
        &self.shared.config.endpoints
    }
}
