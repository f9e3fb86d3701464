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
/// Streams that one connection is allowed, whatever `--max-concurrent-streams` says. More wait at the client.
pub const STREAMS_PER_CONNECTION: u32 = 16_384;
/// Streams of one shard that are not answered at once: those of streaming calls, and requests that are not whole. One
/// more is refused with `too many requests`.
pub const STREAMS_PER_SHARD: usize = 262_144;
/// Pages of one shard under way over HTTP/2. One more is answered with 503.
pub const PAGES_PER_SHARD: usize = 1_024;
/// How long the bytes of a unary request may take to come. Then it is answered that its deadline is exceeded, as it is
/// before if the client's own deadline is.
pub const REQUEST_DEADLINE: Duration = Duration::from_secs(60);
/// Bytes of one connection's requests that are not whole, or large and waiting. What would be more is refused with
/// `too many requests`.
pub const REQUEST_BYTES_PER_CONNECTION: usize = 64 << 20;
/// The same for all connections of a shard.
pub const REQUEST_BYTES_PER_SHARD: usize = 256 << 20;
/// Bytes of a request that waits from which on they are counted.
pub const LARGE_REQUEST_BYTES: usize = 4 << 10;
/// Bytes of answers that one client has not taken. Above, its reads rest until it takes some or their time is over, and
/// its writes are refused with `too many requests`.
pub const ANSWER_BYTES_PER_CONNECTION: usize = 16 << 20;
/// Bytes of answers that no client has taken. Above, each client that has not taken all of its answers rests.
pub const ANSWER_BYTES_MAX: usize = 1 << 30;
/// Bytes of an answer from which on they are counted. Smaller ones are bounded by [`STREAMS_PER_CONNECTION`].
pub const COUNTED_BYTES: usize = 1 << 10;
/// How long a client that has too many answers waiting may take nothing at all. Then its connection is closed.
pub const ANSWER_DEADLINE: Duration = Duration::from_secs(60);
/// Reads of one connection that are under way on read threads. More rest.
pub const COLD_READS_PER_CONNECTION: usize = 8;
/// HashKV and Hash requests that wait or are under way. One more is refused with `too many requests`.
pub const HASHES_MAX: usize = 16;
/// Pings that come too soon, one after the other, before the connection is closed; grpc-go's two and one.
pub const PING_STRIKES: u32 = 2;
/// Time between pings of a client that has no open stream; grpc-go's.
pub const IDLE_PING_TIME: Duration = Duration::from_secs(2 * 60 * 60);
/// How long a connection that we end may take to close its side, so that our last words reach it.
pub const LINGER: Duration = Duration::from_secs(1);
/// Silence of a TCP peer before it is asked whether it is there.
pub const TCP_KEEPALIVE_TIME: Duration = Duration::from_secs(30);
/// Time between two such questions.
pub const TCP_KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// How many such questions stay without an answer before the connection is given up.
pub const TCP_KEEPALIVE_RETRIES: u32 = 3;
/// How long what was sent may stay unacknowledged, or unsent because the peer's TCP takes nothing.
pub const TCP_USER_TIMEOUT: Duration = Duration::from_secs(60);
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
/// Bytes of JSON that are read for each byte that a message may have: its bytes in base64, every character of it
/// written as an escape. A longer body is refused with 429.
pub const JSON_BYTES_PER_BYTE: usize = 8;
/// Lines of JSON that are gathered for one stream before they are sent.
pub const JSON_PIECE_BYTES: usize = 64 << 10;

const _: () = assert!(STREAM_WINDOW_BYTES <= CONNECTION_WINDOW_BYTES);
