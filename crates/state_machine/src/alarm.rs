//! Alarms: which are up, and what they forbid.
//!
//! An alarm that any member has raised binds every member: whether a write is refused must be the same
//! everywhere, so it hangs on the table and never on a member's own disk.
//!
//! | alarm | refused |
//! |---|---|
//! | `CORRUPT` | put, range, delete, transaction, compaction, lease grant and revoke |
//! | `NOSPACE` | put, lease grant, a transaction with a put on either branch, however deep |

use proto::etcdserverpb::alarm_request::AlarmAction;
use proto::etcdserverpb::{AlarmMember, AlarmRequest, AlarmType};

use crate::cluster::Cluster;
use crate::command::Request;
use crate::error::Error;
use crate::tables::Row;
use crate::txn;

/// What an alarm request does to the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Nothing changes.
    None,
    /// An alarm goes up.
    Raise(Row),
    /// An alarm is taken back: its type and member.
    Lower(i32, u64),
}

/// Refuses what an alarm forbids. The worse alarm speaks first.
pub(crate) fn gate(cluster: &Cluster, request: &Request) -> Result<(), Error> {
    if cluster.alarms.is_empty() {
        return Ok(());
    }
    let touches_keys = matches!(
        request,
        Request::Put(_)
            | Request::Range(_)
            | Request::DeleteRange(_)
            | Request::Txn(_)
            | Request::Compact(_)
            | Request::LeaseGrant(_)
            | Request::LeaseRevoke(_)
    );
    if touches_keys && cluster.has_alarm(AlarmType::Corrupt as i32) {
        return Err(Error::Corrupt);
    }
    let takes_space = match request {
        Request::Put(_) | Request::LeaseGrant(_) => true,
        Request::Txn(request) => txn::puts(request),
        _ => false,
    };
    if takes_space && cluster.has_alarm(AlarmType::Nospace as i32) {
        return Err(Error::NoSpace);
    }
    Ok(())
}

/// What a request does, and the alarms it is answered with. Lists are sorted by type and member; etcd's
/// come in any order.
pub(crate) fn decide(cluster: &Cluster, request: &AlarmRequest) -> (Effect, Vec<AlarmMember>) {
    let (alarm, member) = (request.alarm, request.member_id);
    let named = || vec![AlarmMember { member_id: member, alarm }];
    let up = cluster.alarms.contains(&(alarm, member));
    match AlarmAction::try_from(request.action) {
        Ok(AlarmAction::Get) => {
            let wanted = |found: i32| alarm == AlarmType::None as i32 || found == alarm;
            let alarms = cluster.alarms.iter().filter(|(found, _)| wanted(*found));
            let list = alarms.map(|&(alarm, member_id)| AlarmMember { member_id, alarm }).collect();
            (Effect::None, list)
        }
        Ok(AlarmAction::Activate) if alarm == AlarmType::None as i32 => (Effect::None, Vec::new()),
        Ok(AlarmAction::Activate) if up => (Effect::None, named()),
        Ok(AlarmAction::Activate) => (Effect::Raise(Row::Alarm { member, alarm }), named()),
        Ok(AlarmAction::Deactivate) if up => (Effect::Lower(alarm, member), named()),
        Ok(AlarmAction::Deactivate) | Err(_) => (Effect::None, Vec::new()),
    }
}
