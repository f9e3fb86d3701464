//! Every refusal a client can meet, with the gRPC code and the text that etcd sends for it.
//!
//! The texts are API: etcd's Go client turns a text back into a typed error, so a letter more or less is
//! a different error to it. The code is the one *on the wire*: two of etcd's errors are declared with one
//! code and leave with another, because the server hands over the client-side type; [`Error::code`] gives
//! what leaves. Errors that only the floors above can raise (timeouts, leadership, membership checks)
//! stand here as well, so that a code and a text have one home.

use std::fmt;

/// gRPC status codes, by their names in the gRPC specification.
pub mod code {
    /// The operation was cancelled, usually by the caller.
    pub const CANCELED: u32 = 1;
    /// An error that belongs to no other code.
    pub const UNKNOWN: u32 = 2;
    /// The request is wrong, whatever the state of the system.
    pub const INVALID_ARGUMENT: u32 = 3;
    /// The deadline passed before the operation was done.
    pub const DEADLINE_EXCEEDED: u32 = 4;
    /// What was asked for does not exist.
    pub const NOT_FOUND: u32 = 5;
    /// The caller may not do this.
    pub const PERMISSION_DENIED: u32 = 7;
    /// Space or a quota is used up.
    pub const RESOURCE_EXHAUSTED: u32 = 8;
    /// The system is not in the state that the operation needs.
    pub const FAILED_PRECONDITION: u32 = 9;
    /// The operation reaches past the valid range.
    pub const OUT_OF_RANGE: u32 = 11;
    /// The operation is not implemented.
    pub const UNIMPLEMENTED: u32 = 12;
    /// The service cannot answer now; trying again may help.
    pub const UNAVAILABLE: u32 = 14;
    /// Data is lost or corrupt.
    pub const DATA_LOSS: u32 = 15;
    /// The caller is not known.
    pub const UNAUTHENTICATED: u32 = 16;
}

macro_rules! errors {
    ($( $(#[doc = $doc:literal])+ $name:ident = $code:ident $text:literal; )+) => {
        /// A refusal: what was wrong, as etcd says it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Error {
            $( $(#[doc = $doc])+ $name, )+
        }

        impl Error {
            /// Every variant, in the order of their declaration.
            pub const ALL: &[Error] = &[ $( Error::$name, )+ ];

            /// The gRPC status code as it stands on the wire.
            pub fn code(self) -> u32 {
                match self { $( Error::$name => code::$code, )+ }
            }

            /// The status message, etcd's to the letter.
            pub fn text(self) -> &'static str {
                match self { $( Error::$name => $text, )+ }
            }
        }
    };
}

errors! {
    /// A range, put, delete, compare or txn operation without a key.
    EmptyKey = INVALID_ARGUMENT "etcdserver: key is not provided";
    /// `ignore_value` or `ignore_lease` on an absent key; a txn operation with no request set.
    KeyNotFound = INVALID_ARGUMENT "etcdserver: key not found";
    /// `ignore_value` together with a value.
    ValueProvided = INVALID_ARGUMENT "etcdserver: value is provided";
    /// `ignore_lease` together with a lease.
    LeaseProvided = INVALID_ARGUMENT "etcdserver: lease is provided";
    /// A compare list or a branch of a txn is longer than allowed.
    TooManyOps = INVALID_ARGUMENT "etcdserver: too many operations in txn request";
    /// One txn puts a key twice, or puts a key that it also deletes.
    DuplicateKey = INVALID_ARGUMENT "etcdserver: duplicate key given in txn request";
    /// The client's API version is not valid text.
    InvalidClientApiVersion = INVALID_ARGUMENT "etcdserver: invalid client api version";
    /// A sort order or target outside its enum.
    InvalidSortOption = INVALID_ARGUMENT "etcdserver: invalid sort option";
    /// The revision lies below the compaction mark.
    Compacted = OUT_OF_RANGE "etcdserver: mvcc: required revision has been compacted";
    /// The revision lies above the current one.
    FutureRevision = OUT_OF_RANGE "etcdserver: mvcc: required revision is a future revision";
    /// The quota is used up, or an alarm says so.
    NoSpace = RESOURCE_EXHAUSTED "etcdserver: mvcc: database space exceeded";
    /// The lease does not exist.
    LeaseNotFound = NOT_FOUND "etcdserver: requested lease not found";
    /// The id of the lease is taken.
    LeaseExists = FAILED_PRECONDITION "etcdserver: lease already exists";
    /// The TTL is above 9,000,000,000 seconds.
    LeaseTtlTooLarge = OUT_OF_RANGE "etcdserver: too large lease TTL";
    /// The server ended the watch stream.
    WatchCanceled = CANCELED "etcdserver: watch canceled";
    /// The member that is to be added exists.
    MemberExists = FAILED_PRECONDITION "etcdserver: member ID already exist";
    /// Another member has one of the peer URLs.
    PeerUrlExists = FAILED_PRECONDITION "etcdserver: Peer URLs already exists";
    /// The change would leave too few started members. etcd declares it as a failed precondition and
    /// sends it as unknown.
    NotEnoughStartedMembers = UNKNOWN
        "etcdserver: re-configuration failed due to not enough started members";
    /// A peer URL cannot be parsed.
    BadMemberUrls = INVALID_ARGUMENT "etcdserver: given member URLs are invalid";
    /// The member is unknown or was removed.
    MemberNotFound = NOT_FOUND "etcdserver: member not found";
    /// Only a learner can be promoted.
    MemberNotLearner = FAILED_PRECONDITION "etcdserver: can only promote a learner member";
    /// The learner lags too far behind the leader.
    LearnerNotReady = FAILED_PRECONDITION
        "etcdserver: can only promote a learner member which is in sync with leader";
    /// The cluster has its learners already.
    TooManyLearners = FAILED_PRECONDITION "etcdserver: too many learner members in cluster";
    /// The peer belongs to another cluster.
    ClusterIdMismatch = FAILED_PRECONDITION "etcdserver: cluster ID mismatch";
    /// The encoded request is larger than `max-request-bytes`.
    RequestTooLarge = INVALID_ARGUMENT "etcdserver: request is too large";
    /// Apply lags too far behind commit. Declared as exhausted, sent as unknown.
    TooManyRequests = UNKNOWN "etcdserver: too many requests";
    /// Auth cannot be enabled without a root user.
    RootUserNotExist = FAILED_PRECONDITION "etcdserver: root user does not exist";
    /// Auth cannot be enabled unless root has the role root.
    RootRoleNotExist = FAILED_PRECONDITION "etcdserver: root user does not have root role";
    /// The user exists.
    UserAlreadyExists = FAILED_PRECONDITION "etcdserver: user name already exists";
    /// The user has no name; or a call came without a token while auth is on.
    UserEmpty = INVALID_ARGUMENT "etcdserver: user name is empty";
    /// The user does not exist.
    UserNotFound = FAILED_PRECONDITION "etcdserver: user name not found";
    /// The role exists.
    RoleAlreadyExists = FAILED_PRECONDITION "etcdserver: role name already exists";
    /// The role does not exist.
    RoleNotFound = FAILED_PRECONDITION "etcdserver: role name not found";
    /// The role has no name.
    RoleEmpty = INVALID_ARGUMENT "etcdserver: role name is empty";
    /// Wrong password or unknown user.
    AuthFailed = INVALID_ARGUMENT
        "etcdserver: authentication failed, invalid user ID or password";
    /// A grant without a permission.
    PermissionNotGiven = INVALID_ARGUMENT "etcdserver: permission not given";
    /// The caller may not do this.
    PermissionDenied = PERMISSION_DENIED "etcdserver: permission denied";
    /// The user does not have the role.
    RoleNotGranted = FAILED_PRECONDITION "etcdserver: role is not granted to the user";
    /// The role does not have the permission.
    PermissionNotGranted = FAILED_PRECONDITION
        "etcdserver: permission is not granted to the role";
    /// Auth is off.
    AuthNotEnabled = FAILED_PRECONDITION "etcdserver: authentication is not enabled";
    /// The token is unknown or has expired.
    InvalidAuthToken = UNAUTHENTICATED "etcdserver: invalid auth token";
    /// A change that would cut off root; or a bad range.
    InvalidAuthManagement = INVALID_ARGUMENT "etcdserver: invalid auth management";
    /// The token was made before a change of users or roles.
    AuthOldRevision = INVALID_ARGUMENT "etcdserver: revision of auth store is old";
    /// There is no leader.
    NoLeader = UNAVAILABLE "etcdserver: no leader";
    /// This member is not the leader.
    NotLeader = FAILED_PRECONDITION "etcdserver: not leader";
    /// The leader changed while the request waited.
    LeaderChanged = UNAVAILABLE "etcdserver: leader changed";
    /// The cluster's version does not allow the feature, or is not known yet.
    NotCapable = FAILED_PRECONDITION "etcdserver: not capable";
    /// The server is stopping.
    Stopped = UNAVAILABLE "etcdserver: server stopped";
    /// The request waited too long.
    Timeout = UNAVAILABLE "etcdserver: request timed out";
    /// The request waited too long, and a leader was lost meanwhile.
    TimeoutDueToLeaderFail = UNAVAILABLE
        "etcdserver: request timed out, possibly due to previous leader failure";
    /// The request waited too long, and peers are disconnected.
    TimeoutDueToConnectionLost = UNAVAILABLE
        "etcdserver: request timed out, possibly due to connection lost";
    /// Applying what is committed took too long.
    TimeoutWaitAppliedIndex = UNAVAILABLE
        "etcdserver: request timed out, waiting for the applied index took too long";
    /// Handing leadership over took too long.
    TimeoutLeaderTransfer = UNKNOWN
        "etcdserver: request timed out, leader transfer took too long";
    /// Too few peers are connected for the change.
    Unhealthy = UNAVAILABLE "etcdserver: unhealthy cluster";
    /// An alarm says that members' data differ.
    Corrupt = DATA_LOSS "etcdserver: corrupt cluster";
    /// A learner does not answer this.
    NotSupportedForLearner = FAILED_PRECONDITION "etcdserver: rpc not supported for learner";
    /// The target of a leader transfer is no voter.
    BadLeaderTransferee = FAILED_PRECONDITION "etcdserver: bad leader transferee";
    /// The target version of a downgrade cannot be read.
    WrongDowngradeVersionFormat = INVALID_ARGUMENT
        "etcdserver: wrong downgrade target version format";
    /// The target version of a downgrade is not one minor version below.
    InvalidDowngradeTargetVersion = INVALID_ARGUMENT
        "etcdserver: invalid downgrade target version";
    /// The cluster has no version yet.
    ClusterVersionUnavailable = FAILED_PRECONDITION
        "etcdserver: cluster version not found during downgrade";
    /// A downgrade is under way.
    DowngradeInProcess = FAILED_PRECONDITION
        "etcdserver: cluster has a downgrade job in progress";
    /// No downgrade is under way.
    NoInflightDowngrade = FAILED_PRECONDITION "etcdserver: no inflight downgrade job";
    /// The request was cancelled inside the server.
    Canceled = CANCELED "etcdserver: request canceled";
    /// The deadline passed inside the server.
    DeadlineExceeded = DEADLINE_EXCEEDED "etcdserver: context deadline exceeded";
    /// The caller went away.
    ContextCanceled = CANCELED "context canceled";
    /// The caller's deadline passed.
    ContextDeadlineExceeded = DEADLINE_EXCEEDED "context deadline exceeded";
    /// A downgrade action outside its enum.
    UnknownMethod = UNKNOWN "etcdserver: unknown method";
    /// A lease call reached a member that is no longer the leader.
    NotPrimaryLessor = UNKNOWN "not a primary lessor";
    /// Raft did not take the proposal.
    ProposalDropped = UNKNOWN "raft proposal dropped";
    /// A password was given for a user who has none.
    NoPasswordUser = UNKNOWN
        "auth: authentication failed, password was given for no password user";
    /// bcrypt takes no more than 72 bytes.
    PasswordTooLong = UNKNOWN "bcrypt: password length exceeds 72 bytes";
    /// A streamed range cannot be sorted.
    RangeStreamSorted = UNIMPLEMENTED "RangeStream does not support custom sort orders";
    /// A streamed range cannot be filtered by revision.
    RangeStreamFiltered = UNIMPLEMENTED "RangeStream does not support revision filters";
    /// Users, roles and tokens are not part of this version. Every auth command in the log is answered
    /// so, on every member alike, and changes nothing.
    AuthUnsupported = UNIMPLEMENTED "etcdserver: authentication is not supported by this version";
    /// A request of etcd's version 2 API, which is gone.
    V2Unsupported = UNIMPLEMENTED "etcdserver: the version 2 API is not supported";
    /// An entry of the log, or a request, that cannot be read: skipped, changing nothing.
    Undecodable = INVALID_ARGUMENT "etcdserver: request cannot be decoded";
    /// An entry of the log that asks for something that this version does not know.
    UnknownRequest = UNIMPLEMENTED "etcdserver: unknown request";
    /// A version that is not three numbers with points between them.
    BadVersion = INVALID_ARGUMENT "etcdserver: version cannot be parsed";
    /// A range was pinned so long without being read on that its revision was given up.
    ReadRevoked = UNAVAILABLE "etcdserver: read took too long, its revision is no longer kept";
    /// A record could not be read from disk, or its checksum does not match.
    Storage = DATA_LOSS "etcdserver: stored data cannot be read";
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Two errors with one text could not be told apart by a client.
    #[test]
    fn texts_are_distinct() {
        let texts: BTreeSet<_> = Error::ALL.iter().map(|error| error.text()).collect();
        assert_eq!(texts.len(), Error::ALL.len());
    }

    /// What etcd declares with one code and sends with another.
    #[test]
    fn wire_quirks() {
        assert_eq!(Error::TooManyRequests.code(), 2);
        assert_eq!(Error::NotEnoughStartedMembers.code(), 2);
        assert_eq!(Error::KeyNotFound.code(), 3);
        assert_eq!(Error::UserEmpty.code(), 3);
        assert_eq!(Error::AuthOldRevision.code(), 3);
    }
}
