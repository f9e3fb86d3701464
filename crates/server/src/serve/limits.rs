//! What a client may take, by name: each limit with what happens when it is met.

use std::time::Duration;

/// How long a new connection may stay silent, or drip its first bytes. Then it is closed.
pub const FIRST_BYTES_DEADLINE: Duration = Duration::from_secs(10);
/// How long an HTTP/1.1 client may take over its header. Then it is closed.
pub const HTTP1_HEADER_DEADLINE: Duration = Duration::from_secs(30);
/// Connections of one shard. One more is closed at once, with a line in the log.
pub const CONNECTIONS_PER_SHARD: usize = 16_384;
/// Connections that were accepted and not yet taken by their shard. One more is closed.
pub const ACCEPTED_MAX: usize = 1_024;
/// Bytes of one request's header list. h2 answers more with 431.
pub const HEADER_LIST_BYTES: u32 = 64 << 10;
/// Receive window of a connection. Half of it is also h2's budget for small DATA frames that nobody has read.
pub const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// Receive window of a stream.
pub const STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// Streams that a client reset before we took them. More end the connection (rapid reset).
pub const PENDING_RESETS: usize = 1_024;
/// Streams that we reset for the client's errors. More end the connection (made-you-reset).
pub const LOCAL_ERROR_RESETS: usize = 1_024;
/// Bytes h2 keeps for a stream that its reader does not take; a streaming method stops filling it then.
pub const SEND_BUFFER_BYTES: usize = 256 << 10;
/// Bytes of messages queued for one stream besides. A watcher that meets it lags, and reads on from history.
pub const STREAM_QUEUE_BYTES: usize = 1 << 20;
/// Bytes gathered for one socket before they are written without waiting for the end of the turn.
pub const CORK_BYTES: usize = 256 << 10;
/// Requests that one connection may have served in one turn, so that it does not keep the shard from others.
pub const REQUESTS_PER_TURN: usize = 256;
/// Proposals of one shard that wait for their reply. One more is refused with `too many requests`.
pub const WAITERS_PER_SHARD: usize = 65_536;
/// Bytes of proposals that one shard gathers, or keeps while the replica has no room. One more is refused with
/// `too many requests`.
pub const PROPOSAL_BYTES_PER_SHARD: usize = 32 << 20;
/// Reads of one shard that wait for a read index or for apply. One more is refused with `too many requests`.
pub const READS_PER_SHARD: usize = 65_536;
/// Watchers of one shard. One more is refused on its stream.
pub const WATCHERS_PER_SHARD: usize = 1 << 20;
/// Length of a client-api-version that is looked at; longer ones count as unknown.
pub const API_VERSION_BYTES: usize = 32;

const _: () = assert!(STREAM_WINDOW_BYTES <= CONNECTION_WINDOW_BYTES);
