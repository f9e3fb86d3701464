//! Who the members are, which version they have agreed on, and what a membership change does to that.
//!
//! Membership has one truth: the rows of these tables. A change is checked against them when its entry is
//! applied, on every member alike, because what was true when it was proposed may be no longer. The
//! verdict goes back to raft: an accepted change switches the configuration, a refused one does not.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bytes::Bytes;

use crate::command::RequestId;
use crate::error::Error;
use crate::tables::{MemberJson, Row};

/// A member of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: u64,
    /// Its name; empty until it has started for the first time.
    pub name: String,
    /// Where its peers reach it.
    pub peer_urls: Vec<String>,
    /// Where clients reach it; empty until it has started for the first time.
    pub client_urls: Vec<String>,
    /// It receives the log and does not vote.
    pub is_learner: bool,
}

impl Member {
    /// The JSON that etcd puts into the context of a change that adds or updates this member.
    pub fn to_context(&self) -> Bytes {
        let json = serde_json::to_vec(&MemberJson::from(self.clone()))
            .expect("strings and numbers can always be written as JSON");
        Bytes::from(json)
    }
}

impl From<&Member> for proto::etcdserverpb::Member {
    fn from(member: &Member) -> Self {
        proto::etcdserverpb::Member {
            id: member.id,
            name: member.name.clone(),
            peer_ur_ls: member.peer_urls.clone(),
            client_ur_ls: member.client_urls.clone(),
            is_learner: member.is_learner,
        }
    }
}

/// Who votes: raft's configuration, as plain data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfState {
    /// The voters; of a joint configuration, the incoming ones.
    pub voters: Vec<u64>,
    /// The learners.
    pub learners: Vec<u64>,
    /// The outgoing voters of a joint configuration.
    pub voters_outgoing: Vec<u64>,
    /// Those who become learners when the joint configuration ends.
    pub learners_next: Vec<u64>,
    /// The joint configuration ends by itself.
    pub auto_leave: bool,
}

/// What a membership change does. The numbers are raft's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// Adds a voter, or promotes a learner if the context says so.
    AddNode = 0,
    /// Removes a member for ever.
    RemoveNode = 1,
    /// Changes a member's peer URLs.
    UpdateNode = 2,
    /// Adds a learner.
    AddLearnerNode = 3,
}

/// A membership change, as its entry says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MembershipChange {
    /// Who waits for the answer; zero in the changes that bootstrap a cluster.
    pub id: RequestId,
    /// What it does.
    pub kind: ChangeKind,
    /// To whom.
    pub node_id: u64,
    /// etcd's JSON of the member; empty when one is removed.
    pub context: Bytes,
}

impl MembershipChange {
    /// The context of a promotion, as etcd writes it.
    pub fn promote_context(node_id: u64) -> Bytes {
        Bytes::from(format!(r#"{{"id":{node_id},"peerURLs":null,"isPromote":true}}"#))
    }
}

/// What an accepted change does to the tables.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Effect {
    /// Stores the member, new or changed.
    Store(Member),
    /// Takes the member away and remembers its id.
    Remove(u64),
}

/// The cluster's version: three numbers, and whatever a pre-release adds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// The first number.
    pub major: u64,
    /// The second number; two members may differ by one.
    pub minor: u64,
    /// The third number; 0 in a cluster version.
    pub patch: u64,
    /// From the first `-` or `+` on, with it; empty in a cluster version.
    pub suffix: String,
}

impl Version {
    /// A release.
    pub fn new(major: u64, minor: u64, patch: u64) -> Version {
        Version { major, minor, patch, suffix: String::new() }
    }

    /// Reads `major.minor.patch`, with or without a suffix.
    pub fn parse(text: &str) -> Option<Version> {
        let (numbers, suffix) = match text.find(['-', '+']) {
            Some(at) => text.split_at(at),
            None => (text, ""),
        };
        let mut parts = numbers.split('.');
        let mut number = || -> Option<u64> {
            let part = parts.next()?;
            part.bytes().all(|b| b.is_ascii_digit()).then(|| part.parse().ok())?
        };
        let version = Version {
            major: number()?,
            minor: number()?,
            patch: number()?,
            suffix: suffix.to_string(),
        };
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-+.".contains(&b);
        (parts.next().is_none() && suffix.bytes().all(plain)).then_some(version)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}{}", self.major, self.minor, self.patch, self.suffix)
    }
}

/// Whether the cluster is on its way one minor version down.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Downgrade {
    /// It is.
    pub enabled: bool,
    /// To which version; empty when it is not.
    pub target_version: String,
}

/// The tables of the cluster. Small, and replaced as a whole for readers whenever one row changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cluster {
    /// The members by id.
    pub members: BTreeMap<u64, Member>,
    /// The ids that were members once. They never become members again.
    pub removed: BTreeSet<u64>,
    /// The agreed version; none until the first leader has decided.
    pub version: Option<Version>,
    /// The downgrade under way.
    pub downgrade: Downgrade,
    /// The alarms that are up: type and member.
    pub alarms: BTreeSet<(i32, u64)>,
    /// Who votes.
    pub conf_state: ConfState,
}

impl Cluster {
    /// Takes a row into memory, when the tables are built and whenever one is written.
    pub(crate) fn load(&mut self, row: Row) {
        match row {
            Row::Member(member) => {
                self.members.insert(member.id, member);
            }
            Row::Removed(id) => {
                self.members.remove(&id);
                self.removed.insert(id);
            }
            Row::Version(version) => self.version = Some(version),
            Row::Downgrade(downgrade) => self.downgrade = downgrade,
            Row::Alarm { member, alarm } => {
                self.alarms.insert((alarm, member));
            }
            Row::ConfState(state) => self.conf_state = state,
            Row::Lease { .. } | Row::CompactedAtZero => {
                unreachable!("leases and the mark are kept elsewhere")
            }
        }
    }

    /// All members, as the API lists them: sorted by id.
    pub fn member_list(&self) -> Vec<proto::etcdserverpb::Member> {
        self.members.values().map(Into::into).collect()
    }

    /// Some alarm of this type is up, on whichever member.
    pub fn has_alarm(&self, alarm: i32) -> bool {
        self.alarms.range((alarm, 0)..=(alarm, u64::MAX)).next().is_some()
    }

    /// Checks a change against the membership as it stands and says which row it writes; and which one
    /// it deletes, when a member is removed.
    ///
    /// Where the context cannot be read, or speaks of another member than the change, etcd stops; here the
    /// change is refused.
    pub(crate) fn change(
        &self,
        change: &MembershipChange,
        learners_max: usize,
    ) -> Result<Row, Error> {
        match self.check(change, learners_max)? {
            Effect::Store(member) => Ok(Row::Member(member)),
            Effect::Remove(id) => Ok(Row::Removed(id)),
        }
    }

    fn check(&self, change: &MembershipChange, learners_max: usize) -> Result<Effect, Error> {
        let id = change.node_id;
        if self.removed.contains(&id) {
            return Err(Error::MemberNotFound);
        }
        let known = self.members.get(&id);
        match change.kind {
            ChangeKind::AddNode | ChangeKind::AddLearnerNode => {
                let json = parse_context(change)?;
                if json.is_promote.unwrap_or_default() {
                    let member = known.ok_or(Error::MemberNotFound)?;
                    if !member.is_learner {
                        return Err(Error::MemberNotLearner);
                    }
                    return Ok(Effect::Store(Member { is_learner: false, ..member.clone() }));
                }
                if known.is_some() {
                    return Err(Error::MemberExists);
                }
                let member = Member::from(json);
                self.check_urls(&member)?;
                if member.is_learner && change.kind == ChangeKind::AddLearnerNode {
                    let learners = self.members.values().filter(|m| m.is_learner).count();
                    if learners + 1 > learners_max {
                        return Err(Error::TooManyLearners);
                    }
                }
                Ok(Effect::Store(member))
            }
            ChangeKind::RemoveNode => {
                known.ok_or(Error::MemberNotFound)?;
                Ok(Effect::Remove(id))
            }
            ChangeKind::UpdateNode => {
                let member = known.ok_or(Error::MemberNotFound)?;
                let update = Member::from(parse_context(change)?);
                self.check_urls(&update)?;
                // Only the URLs: an update that carried the learner flag would promote in passing.
                Ok(Effect::Store(Member { peer_urls: update.peer_urls, ..member.clone() }))
            }
        }
    }

    /// No other member may have one of these peer URLs.
    fn check_urls(&self, member: &Member) -> Result<(), Error> {
        let taken = self
            .members
            .values()
            .filter(|other| other.id != member.id)
            .flat_map(|other| &other.peer_urls)
            .any(|url| member.peer_urls.contains(url));
        if taken { Err(Error::PeerUrlExists) } else { Ok(()) }
    }
}

fn parse_context(change: &MembershipChange) -> Result<MemberJson, Error> {
    let json: MemberJson =
        serde_json::from_slice(&change.context).map_err(|_| Error::Undecodable)?;
    if json.id == change.node_id { Ok(json) } else { Err(Error::Undecodable) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        let release = |text| Version::parse(text).map(|v| v.to_string());
        assert_eq!(release("3.7.0").as_deref(), Some("3.7.0"));
        assert_eq!(release("3.7.0-rc.1+sha").as_deref(), Some("3.7.0-rc.1+sha"));
        for bad in ["", "3", "3.7", "3.7.x", "3.7.0.1", "v3.7.0", "3..0", "3.7.0-\u{e4}", "-1.0.0"]
        {
            assert_eq!(release(bad), None, "{bad}");
        }
    }

    /// Ids use all 64 bits; JSON numbers of other writers would lose the low ones.
    #[test]
    fn member_json_keeps_large_ids() {
        let member = Member {
            id: u64::MAX,
            peer_urls: vec!["http://10.0.0.1:2380".into()],
            ..Member::default()
        };
        let context = member.to_context();
        assert_eq!(
            &context[..],
            br#"{"id":18446744073709551615,"peerURLs":["http://10.0.0.1:2380"]}"#
        );
        let change = MembershipChange {
            id: RequestId(1),
            kind: ChangeKind::AddNode,
            node_id: u64::MAX,
            context,
        };
        assert_eq!(Cluster::default().change(&change, 1), Ok(Row::Member(member)));
    }
}
