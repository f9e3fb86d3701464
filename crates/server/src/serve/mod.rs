//! How clients are served: shards, connections, and gRPC over the `h2` crate.
//!
//! ```text
//!  acceptor ──▶ shard (a thread) ──▶ connection (a task) ──▶ requests, served or submitted in place
//!                 ▲      │                 ▲
//!     replies, events   proposals, reads   answers are put into h2's streams; the task wakes once, h2 writes
//!     (one batch)       (one batch a turn)  them into the corked socket, and one write takes them out
//! ```
//!
//! Framing, HPACK and flow control are h2's; [`authority`] mends what old clients say and h2 would not take. gRPC is what [`stream`] and [`status`] add: five bytes before
//! each message, and trailers after the last. [`limit`] answers with constants, to measure what all this costs.

pub mod authority;
pub mod connection;
pub mod http1;
pub mod limit;
pub mod limits;
pub mod seat;
pub mod shard;
pub mod socket;
pub mod status;
pub mod story;
pub mod stream;
