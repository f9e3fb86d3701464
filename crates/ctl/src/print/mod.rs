//! Printing answers: one file per format, all of them etcdctl's to the byte.

use proto::etcdserverpb as pb;

mod fields;
pub(crate) mod json;
mod protobuf;
mod simple;
pub(crate) mod table;

/// An answer to print.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Answer {
    Put(pb::PutResponse),
    Get(pb::RangeResponse),
    Del(pb::DeleteRangeResponse),
    Txn(pb::TxnResponse),
    Watch(pb::WatchResponse),
    Grant(pb::LeaseGrantResponse),
    Revoke(i64, pb::LeaseRevokeResponse),
    KeepAlive(pb::LeaseKeepAliveResponse),
    TimeToLive { response: pb::LeaseTimeToLiveResponse, keys: bool },
    Leases(pb::LeaseLeasesResponse),
    Members(pb::MemberListResponse),
    Health(Vec<Health>),
    Status(Vec<(String, pb::StatusResponse)>),
    HashKv(Vec<(String, pb::HashKvResponse)>),
}

/// Whether one endpoint serves.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Health {
    pub(crate) endpoint: String,
    pub(crate) healthy: bool,
    /// How long the read took, as text.
    pub(crate) took: String,
    /// Why it does not, or nothing.
    pub(crate) error: String,
}

/// A way to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Simple,
    Fields,
    Json,
    Protobuf,
    Table,
}

/// The format that was chosen, and its options.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Printer {
    pub(crate) format: Format,
    /// Keys and values, or ids, in hexadecimal.
    pub(crate) hex: bool,
    /// Values without keys; for [`Format::Simple`].
    pub(crate) value_only: bool,
}

/// What an answer looks like: for the standard output, and in one case for the standard error.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Printed {
    pub(crate) out: Vec<u8>,
    pub(crate) err: String,
}

/// The format has no form for this answer; its name is inside.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unsupported(pub(crate) &'static str);

impl Format {
    pub(crate) fn parse(name: &str) -> Option<Format> {
        Some(match name {
            "simple" => Format::Simple,
            "fields" => Format::Fields,
            "json" => Format::Json,
            "protobuf" => Format::Protobuf,
            "table" => Format::Table,
            _ => return None,
        })
    }
}

impl Printer {
    pub(crate) fn print(&self, answer: &Answer) -> Result<Printed, Unsupported> {
        let out = match self.format {
            Format::Simple => return Ok(simple::print(answer, self.hex, self.value_only)),
            Format::Fields => fields::print(answer, self.hex).into_bytes(),
            Format::Json => json::print(answer, self.hex).into_bytes(),
            Format::Protobuf => protobuf::print(answer).ok_or(Unsupported("protobuf"))?,
            Format::Table => table::print(answer).ok_or(Unsupported("table"))?.into_bytes(),
        };
        Ok(Printed { out, err: String::new() })
    }
}

/// An event's type as a word.
fn event_type(event: &proto::mvccpb::Event) -> String {
    match event.r#type {
        0 => "PUT".to_owned(),
        1 => "DELETE".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use proto::mvccpb::{Event, KeyValue};

    use super::*;

    fn printed(answer: &Answer, format: Format, hex: bool) -> String {
        let printed = Printer { format, hex, value_only: false }.print(answer).unwrap();
        assert_eq!(printed.err, "");
        String::from_utf8(printed.out).unwrap()
    }

    fn header(revision: i64) -> Option<pb::ResponseHeader> {
        Some(pb::ResponseHeader {
            cluster_id: 15118495548433857066,
            member_id: 13668033151171901709,
            revision,
            raft_term: 2,
        })
    }

    fn kv(key: &str, create: i64, modified: i64, version: i64, value: &str) -> KeyValue {
        KeyValue {
            key: key.to_owned().into(),
            create_revision: create,
            mod_revision: modified,
            version,
            value: value.to_owned().into(),
            lease: 0,
        }
    }

    fn get() -> Answer {
        let kvs = vec![kv("foo", 2, 3, 2, "baz")];
        Answer::Get(pb::RangeResponse { header: header(3), kvs, more: false, count: 1 })
    }

    #[test]
    fn a_read_in_each_format() {
        assert_eq!(printed(&get(), Format::Simple, false), "foo\nbaz\n");
        assert_eq!(printed(&get(), Format::Simple, true), "\\x66\\x6f\\x6f\n\\x62\\x61\\x7a\n");
        assert_eq!(
            printed(&get(), Format::Json, false),
            concat!(
                r#"{"header":{"cluster_id":15118495548433857066,"member_id":13668033151171901709,"revision":3,"raft_term":2},"#,
                r#""kvs":[{"key":"Zm9v","create_revision":2,"mod_revision":3,"version":2,"value":"YmF6"}],"count":1}"#,
                "\n"
            )
        );
        assert_eq!(
            printed(&get(), Format::Fields, false),
            r#""ClusterID" : 15118495548433857066
"MemberID" : 13668033151171901709
"Revision" : 3
"RaftTerm" : 2
"Key" : "foo"
"CreateRevision" : 2
"ModRevision" : 3
"Version" : 2
"Value" : "baz"
"Lease" : 0
"More" : false
"Count" : 1
"#
        );
        let table = Printer { format: Format::Table, hex: false, value_only: false };
        assert_eq!(table.print(&get()), Err(Unsupported("table")));
        let values = Printer { format: Format::Simple, hex: false, value_only: true };
        assert_eq!(values.print(&get()).unwrap().out, b"baz\n");
    }

    #[test]
    fn a_transaction_in_each_format() {
        let delete = pb::DeleteRangeResponse {
            header: Some(pb::ResponseHeader { revision: 5, ..Default::default() }),
            deleted: 1,
            prev_kvs: vec![kv("foo", 2, 4, 3, "x")],
        };
        let response = pb::response_op::Response::ResponseDeleteRange(delete);
        let answer = Answer::Txn(pb::TxnResponse {
            header: header(5),
            succeeded: false,
            responses: vec![pb::ResponseOp { response: Some(response) }],
        });
        assert_eq!(printed(&answer, Format::Simple, false), "FAILURE\n\n1\nfoo\nx\n");
        assert_eq!(
            printed(&answer, Format::Json, false),
            concat!(
                r#"{"header":{"cluster_id":15118495548433857066,"member_id":13668033151171901709,"revision":5,"raft_term":2},"#,
                r#""responses":[{"Response":{"response_delete_range":{"header":{"revision":5},"deleted":1,"#,
                r#""prev_kvs":[{"key":"Zm9v","create_revision":2,"mod_revision":4,"version":3,"value":"eA=="}]}}}]}"#,
                "\n"
            )
        );
    }

    #[test]
    fn a_watch_in_each_format() {
        let event = Event {
            r#type: 1,
            kv: Some(kv("w", 0, 8, 0, "")),
            prev_kv: Some(kv("w", 6, 7, 2, "2")),
        };
        let answer = Answer::Watch(pb::WatchResponse {
            header: header(8),
            events: vec![event],
            ..Default::default()
        });
        assert_eq!(printed(&answer, Format::Simple, false), "DELETE\nw\n2\nw\n\n");
        assert_eq!(
            printed(&answer, Format::Json, false),
            concat!(
                r#"{"Header":{"cluster_id":15118495548433857066,"member_id":13668033151171901709,"revision":8,"raft_term":2},"#,
                r#""Events":[{"type":1,"kv":{"key":"dw==","mod_revision":8},"#,
                r#""prev_kv":{"key":"dw==","create_revision":6,"mod_revision":7,"version":2,"value":"Mg=="}}],"#,
                r#""CompactRevision":0,"Canceled":false,"Created":false,"CancelReason":""}"#,
                "\n"
            )
        );
        let cancel = Answer::Watch(pb::WatchResponse {
            header: header(0),
            canceled: true,
            compact_revision: 2,
            ..Default::default()
        });
        assert_eq!(
            printed(&cancel, Format::Json, false),
            concat!(
                r#"{"Header":{"cluster_id":15118495548433857066,"member_id":13668033151171901709,"raft_term":2},"#,
                r#""Events":null,"CompactRevision":2,"Canceled":true,"Created":false,"CancelReason":""}"#,
                "\n"
            )
        );
    }

    #[test]
    fn leases_in_each_format() {
        let gone = Answer::TimeToLive {
            response: pb::LeaseTimeToLiveResponse {
                header: header(3),
                id: 1,
                ttl: -1,
                granted_ttl: 0,
                keys: Vec::new(),
            },
            keys: false,
        };
        assert_eq!(
            printed(&gone, Format::Simple, false),
            "lease 0000000000000001 already expired\n"
        );
        assert_eq!(
            printed(&gone, Format::Json, false),
            concat!(
                r#"{"cluster_id":15118495548433857066,"member_id":13668033151171901709,"revision":3,"raft_term":2,"#,
                r#""id":1,"ttl":-1,"granted-ttl":0,"keys":null}"#,
                "\n"
            )
        );
        let alive = Answer::TimeToLive {
            response: pb::LeaseTimeToLiveResponse {
                header: header(9),
                id: 0x390d_a204_a586_bd3b,
                ttl: 99,
                granted_ttl: 100,
                keys: vec!["lk".into(), "m".into()],
            },
            keys: true,
        };
        assert_eq!(
            printed(&alive, Format::Simple, false),
            "lease 390da204a586bd3b granted with TTL(100s), remaining(99s), attached keys([lk m])\n"
        );
        let grant = Answer::Grant(pb::LeaseGrantResponse {
            header: header(3),
            id: 7,
            ttl: 30,
            error: String::new(),
        });
        assert_eq!(
            printed(&grant, Format::Json, false),
            concat!(
                r#"{"cluster_id":15118495548433857066,"member_id":13668033151171901709,"revision":3,"raft_term":2,"#,
                r#""ID":7,"TTL":30,"Error":""}"#,
                "\n"
            )
        );
    }

    #[test]
    fn members_in_each_format() {
        let members = Answer::Members(pb::MemberListResponse {
            header: header(0),
            members: vec![pb::Member {
                id: 0xbdae_9bbc_11dd_390d,
                name: "default".to_owned(),
                peer_ur_ls: vec!["http://127.0.0.1:23801".to_owned()],
                client_ur_ls: vec!["http://127.0.0.1:23791".to_owned()],
                is_learner: false,
            }],
        });
        assert_eq!(
            printed(&members, Format::Simple, false),
            "bdae9bbc11dd390d, started, default, http://127.0.0.1:23801, http://127.0.0.1:23791, false\n"
        );
        assert_eq!(
            printed(&members, Format::Table, false),
            "\
┌──────────────────┬─────────┬─────────┬────────────────────────┬────────────────────────┬────────────┐
│        ID        │ STATUS  │  NAME   │       PEER ADDRS       │      CLIENT ADDRS      │ IS LEARNER │
├──────────────────┼─────────┼─────────┼────────────────────────┼────────────────────────┼────────────┤
│ bdae9bbc11dd390d │ started │ default │ http://127.0.0.1:23801 │ http://127.0.0.1:23791 │      false │
└──────────────────┴─────────┴─────────┴────────────────────────┴────────────────────────┴────────────┘
"
        );
        assert_eq!(
            printed(&members, Format::Json, true),
            concat!(
                r#"{"header":{"cluster_id":"d1cfaf999eb97a2a","member_id":"bdae9bbc11dd390d","raft_term":2},"#,
                r#""members":[{"ID":"bdae9bbc11dd390d","name":"default","#,
                r#""peerURLs":["http://127.0.0.1:23801"],"clientURLs":["http://127.0.0.1:23791"]}]}"#,
                "\n"
            )
        );
    }

    #[test]
    fn status_in_each_format() {
        let status = pb::StatusResponse {
            header: header(3),
            version: "3.7.3".to_owned(),
            db_size: 20480,
            leader: 13668033151171901709,
            raft_index: 8,
            raft_term: 2,
            raft_applied_index: 8,
            errors: Vec::new(),
            db_size_in_use: 16384,
            is_learner: false,
            storage_version: "3.7.0".to_owned(),
            db_size_quota: 2147483648,
            downgrade_info: Some(pb::DowngradeInfo::default()),
        };
        let answer = Answer::Status(vec![("127.0.0.1:23791".to_owned(), status)]);
        assert_eq!(
            printed(&answer, Format::Simple, false),
            "127.0.0.1:23791, bdae9bbc11dd390d, 3.7.3, 3.7.0, 20 kB, 16 kB, 20%, 2.1 GB, true, false, 2, 8, 8, , , false\n"
        );
        assert_eq!(
            printed(&answer, Format::Json, false),
            concat!(
                r#"[{"Endpoint":"127.0.0.1:23791","Status":{"#,
                r#""header":{"cluster_id":15118495548433857066,"member_id":13668033151171901709,"revision":3,"raft_term":2},"#,
                r#""version":"3.7.3","dbSize":20480,"leader":13668033151171901709,"raftIndex":8,"raftTerm":2,"#,
                r#""raftAppliedIndex":8,"dbSizeInUse":16384,"storageVersion":"3.7.0","dbSizeQuota":2147483648,"downgradeInfo":{}}}]"#,
                "\n"
            )
        );
    }

    #[test]
    fn bytes_that_are_no_text_survive() {
        let kvs = vec![KeyValue { key: (&b"\xff<&>"[..]).into(), ..Default::default() }];
        let answer = Answer::Get(pb::RangeResponse { header: None, kvs, more: true, count: 2 });
        assert_eq!(
            printed(&answer, Format::Json, false),
            "{\"kvs\":[{\"key\":\"/zwmPg==\"}],\"more\":true,\"count\":2}\n"
        );
        let simple = Printer { format: Format::Simple, hex: false, value_only: false };
        assert_eq!(simple.print(&answer).unwrap().out, b"\xff<&>\n\n");
    }
}
