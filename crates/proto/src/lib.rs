//! The wire: our own transcription of etcd's public API and of what raft and the WAL write.
//!
//! Everything here is generated from `proto/*.proto` by `cargo xtask codegen` and committed, so that a
//! build needs no protoc. Byte fields are [`bytes::Bytes`]: decoding from `Bytes` shares, never copies.
//! The tonic client stubs stand behind the feature `client`; the server speaks gRPC over `h2` itself.

pub mod descriptor;

/// Key-value pairs and events.
pub mod mvccpb {
    include!("generated/mvccpb.rs");
}
/// Users, roles and permissions in their stored form.
pub mod authpb {
    include!("generated/authpb.rs");
}
/// The public services, and the request that stands in a raft entry.
pub mod etcdserverpb {
    include!("generated/etcdserverpb.rs");
}
/// Membership facts that travel through the log.
pub mod membershippb {
    include!("generated/membershippb.rs");
}
/// Raft's messages and entries.
pub mod raftpb {
    include!("generated/raftpb.rs");
}
/// The records of the write-ahead log.
pub mod walpb {
    include!("generated/walpb.rs");
}
/// The standard health service.
pub mod health {
    include!("generated/grpc.health.v1.rs");
}
/// The election service.
pub mod v3electionpb {
    include!("generated/v3electionpb.rs");
}
/// What is our own.
pub mod quorate {
    /// What single requests went through.
    pub mod v1 {
        include!("generated/quorate.v1.rs");
    }
}
/// The lock service.
pub mod v3lockpb {
    include!("generated/v3lockpb.rs");
}
