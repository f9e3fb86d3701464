//! The small tables: their numbers, and how their rows are written. This file is the only one that knows.
//!
//! ```text
//! table               key                               value
//! 1 leases            id, i64 big endian                ttl, i64 big endian ‖ remaining ttl, i64 big endian
//! 2 members           id, u64 big endian                etcd's member JSON
//! 3 removed members   id, u64 big endian                (empty)
//! 4 cluster           "clusterVersion"                  the version's text
//!                     "downgrade"                       etcd's downgrade JSON
//!                     "compactedAtZero"                 (empty)
//! 5 alarms            member id, u64 big endian ‖
//!                     alarm type, i32 big endian        (empty)
//! 6 conf state        (empty)                           raftpb.ConfState
//! ```
//!
//! `docs/format/tables.md` says the same for those who read a data directory. Integers are big endian so
//! that a dump is sorted by them; members and downgrade are etcd's own JSON, because they go into a bbolt
//! file unchanged when a Go member asks for a snapshot. Numbers are never used anew; 16 to 31 are kept
//! for users, roles and the auth switch.

use prost::Message;
use proto::raftpb;
use serde::{Deserialize, Serialize};

use crate::cluster::{ConfState, Downgrade, Member, Version};

/// Lease id → granted and remaining time.
pub const LEASES: u8 = 1;
/// Member id → member.
pub const MEMBERS: u8 = 2;
/// The ids that were members once, and never will be again.
pub const REMOVED_MEMBERS: u8 = 3;
/// Facts about the cluster.
pub const CLUSTER: u8 = 4;
/// The alarms that are up.
pub const ALARMS: u8 = 5;
/// Who votes, as raft needs it at start.
pub const CONF_STATE: u8 = 6;

/// The key of the version's row in [`CLUSTER`].
pub const CLUSTER_VERSION_KEY: &[u8] = b"clusterVersion";
/// The key of the downgrade's row in [`CLUSTER`].
pub const DOWNGRADE_KEY: &[u8] = b"downgrade";

/// The key of the row in [`CLUSTER`] that says that the keyspace was compacted at revision 0. That removes
/// nothing, but it succeeds only once, so members must remember it; the store's own mark cannot tell it from
/// no mark.
pub const COMPACTED_AT_ZERO_KEY: &[u8] = b"compactedAtZero";

/// The name of a table, if there is one of this number.
pub fn name(table: u8) -> Option<&'static str> {
    Some(match table {
        LEASES => "leases",
        MEMBERS => "members",
        REMOVED_MEMBERS => "removed members",
        CLUSTER => "cluster",
        ALARMS => "alarms",
        CONF_STATE => "conf state",
        _ => return None,
    })
}

/// What a row says, in words.
///
/// # Errors
/// It cannot be read by this version.
pub fn describe(table: u8, key: &[u8], value: &[u8]) -> Result<String, BadRow> {
    let ids = |ids: &[u64]| ids.iter().map(|id| format!("{id:x}")).collect::<Vec<_>>().join(",");
    Ok(match Row::decode(table, key, value)? {
        Row::Lease { id, ttl, remaining: 0 } => format!("lease {id:x} of {ttl} s"),
        Row::Lease { id, ttl, remaining } => {
            format!("lease {id:x} of {ttl} s, {remaining} s left at its last checkpoint")
        }
        Row::Member(member) => {
            let role = if member.is_learner { "learner" } else { "member" };
            let mut words = format!("{role} {:x} {:?}", member.id, member.name);
            for (name, urls) in [("peers", member.peer_urls), ("clients", member.client_urls)] {
                if !urls.is_empty() {
                    words.push_str(&format!(" {name} {}", urls.join(",")));
                }
            }
            words
        }
        Row::Removed(id) => format!("member {id:x} was removed"),
        Row::Version(version) => format!("cluster version {version}"),
        Row::Downgrade(downgrade) => {
            format!("downgrade to {:?}, enabled {}", downgrade.target_version, downgrade.enabled)
        }
        Row::Alarm { member, alarm } => format!("alarm {alarm} of member {member:x}"),
        Row::ConfState(state) => {
            let lists = [
                ("voters", &state.voters),
                ("learners", &state.learners),
                ("outgoing voters", &state.voters_outgoing),
                ("learners to be", &state.learners_next),
            ];
            let lists = lists.iter().filter(|(_, list)| !list.is_empty());
            lists.map(|(name, list)| format!("{name} {}", ids(list))).collect::<Vec<_>>().join(", ")
        }
        Row::CompactedAtZero => "compacted at revision 0".to_owned(),
    })
}

/// One row, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Row {
    Lease { id: i64, ttl: i64, remaining: i64 },
    Member(Member),
    Removed(u64),
    Version(Version),
    Downgrade(Downgrade),
    Alarm { member: u64, alarm: i32 },
    ConfState(ConfState),
    CompactedAtZero,
}

/// A row that cannot be read: its checksum was right, so another version wrote it, or this one did wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRow {
    /// The table's number.
    pub table: u8,
    /// The row's key.
    pub key: Vec<u8>,
}

impl std::fmt::Display for BadRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the row {:x?} of table {} cannot be read by this version", self.key, self.table)
    }
}

impl std::error::Error for BadRow {}

impl Row {
    /// Reads a row of any table.
    pub(crate) fn decode(table: u8, key: &[u8], value: &[u8]) -> Result<Row, BadRow> {
        Row::parse(table, key, value).ok_or_else(|| BadRow { table, key: key.to_vec() })
    }

    fn parse(table: u8, key: &[u8], value: &[u8]) -> Option<Row> {
        match table {
            LEASES => {
                let (ttl, remaining) = value.split_first_chunk::<8>()?;
                Some(Row::Lease {
                    id: i64::from_be_bytes(key.try_into().ok()?),
                    ttl: i64::from_be_bytes(*ttl),
                    remaining: i64::from_be_bytes(remaining.try_into().ok()?),
                })
            }
            MEMBERS => {
                let member: MemberJson = serde_json::from_slice(value).ok()?;
                let id = u64::from_be_bytes(key.try_into().ok()?);
                (member.id == id).then(|| Row::Member(member.into()))
            }
            REMOVED_MEMBERS => Some(Row::Removed(u64::from_be_bytes(key.try_into().ok()?))),
            CLUSTER if key == CLUSTER_VERSION_KEY => {
                Some(Row::Version(Version::parse(std::str::from_utf8(value).ok()?)?))
            }
            CLUSTER if key == DOWNGRADE_KEY => {
                let downgrade: DowngradeJson = serde_json::from_slice(value).ok()?;
                Some(Row::Downgrade(Downgrade {
                    enabled: downgrade.enabled,
                    target_version: downgrade.target_version,
                }))
            }
            CLUSTER if key == COMPACTED_AT_ZERO_KEY => Some(Row::CompactedAtZero),
            ALARMS => {
                let (member, alarm) = key.split_first_chunk::<8>()?;
                Some(Row::Alarm {
                    member: u64::from_be_bytes(*member),
                    alarm: i32::from_be_bytes(alarm.try_into().ok()?),
                })
            }
            CONF_STATE => {
                let state = raftpb::ConfState::decode(value).ok()?;
                Some(Row::ConfState(ConfState {
                    voters: state.voters,
                    learners: state.learners,
                    voters_outgoing: state.voters_outgoing,
                    learners_next: state.learners_next,
                    auto_leave: state.auto_leave.unwrap_or_default(),
                }))
            }
            _ => None,
        }
    }

    /// Table, key and value, as they are stored.
    pub(crate) fn encode(&self) -> (u8, Vec<u8>, Vec<u8>) {
        match self {
            Row::Lease { id, ttl, remaining } => {
                let value = [ttl.to_be_bytes(), remaining.to_be_bytes()].concat();
                (LEASES, lease_key(*id), value)
            }
            Row::Member(member) => {
                let json = serde_json::to_vec(&MemberJson::from(member.clone()))
                    .expect("strings and numbers can always be written as JSON");
                (MEMBERS, member_key(member.id), json)
            }
            Row::Removed(id) => (REMOVED_MEMBERS, member_key(*id), Vec::new()),
            Row::Version(version) => {
                (CLUSTER, CLUSTER_VERSION_KEY.to_vec(), version.to_string().into_bytes())
            }
            Row::Downgrade(downgrade) => {
                let json = DowngradeJson {
                    target_version: downgrade.target_version.clone(),
                    enabled: downgrade.enabled,
                };
                let json = serde_json::to_vec(&json)
                    .expect("a string and a truth value can always be written as JSON");
                (CLUSTER, DOWNGRADE_KEY.to_vec(), json)
            }
            Row::CompactedAtZero => (CLUSTER, COMPACTED_AT_ZERO_KEY.to_vec(), Vec::new()),
            Row::Alarm { member, alarm } => (ALARMS, alarm_key(*member, *alarm), Vec::new()),
            Row::ConfState(state) => {
                let state = raftpb::ConfState {
                    voters: state.voters.clone(),
                    learners: state.learners.clone(),
                    voters_outgoing: state.voters_outgoing.clone(),
                    learners_next: state.learners_next.clone(),
                    auto_leave: Some(state.auto_leave),
                };
                (CONF_STATE, Vec::new(), state.encode_to_vec())
            }
        }
    }
}

pub(crate) fn lease_key(id: i64) -> Vec<u8> {
    id.to_be_bytes().to_vec()
}

pub(crate) fn member_key(id: u64) -> Vec<u8> {
    id.to_be_bytes().to_vec()
}

pub(crate) fn alarm_key(member: u64, alarm: i32) -> Vec<u8> {
    [&member.to_be_bytes()[..], &alarm.to_be_bytes()[..]].concat()
}

/// A member as etcd writes it into conf changes and into its own store: a flat object, empty fields left
/// out except the peer URLs, and the id as a number of up to 64 bits.
#[derive(Serialize, Deserialize)]
pub(crate) struct MemberJson {
    #[serde(default)]
    pub(crate) id: u64,
    #[serde(default, rename = "peerURLs")]
    pub(crate) peer_urls: Option<Vec<String>>,
    #[serde(default, rename = "isLearner", skip_serializing_if = "is_unset")]
    pub(crate) is_learner: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    #[serde(default, rename = "clientURLs", skip_serializing_if = "Option::is_none")]
    pub(crate) client_urls: Option<Vec<String>>,
    #[serde(default, rename = "isPromote", skip_serializing_if = "is_unset")]
    pub(crate) is_promote: Option<bool>,
}

fn is_unset(flag: &Option<bool>) -> bool {
    !flag.unwrap_or_default()
}

impl From<MemberJson> for Member {
    fn from(json: MemberJson) -> Member {
        Member {
            id: json.id,
            name: json.name.unwrap_or_default(),
            peer_urls: json.peer_urls.unwrap_or_default(),
            client_urls: json.client_urls.unwrap_or_default(),
            is_learner: json.is_learner.unwrap_or_default(),
        }
    }
}

impl From<Member> for MemberJson {
    fn from(member: Member) -> MemberJson {
        MemberJson {
            id: member.id,
            peer_urls: Some(member.peer_urls),
            is_learner: Some(member.is_learner),
            name: (!member.name.is_empty()).then_some(member.name),
            client_urls: (!member.client_urls.is_empty()).then_some(member.client_urls),
            is_promote: None,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct DowngradeJson {
    #[serde(default, rename = "target-version")]
    target_version: String,
    #[serde(default)]
    enabled: bool,
}
