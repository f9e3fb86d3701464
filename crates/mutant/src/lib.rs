//! Deliberate bugs, to see that the checks find them.
//!
//! A checker that has never found anything may be blind. So the code asks, at the very place where a bug would be,
//! whether it is to have that bug: `mutant::is(Mutant::LogUnsynced)`. Without the feature `on` the answer is a constant,
//! and the compiler leaves nothing of the question; with it the simulation chooses one bug per run. Only
//! `cargo xtask mutants` builds with it.
//!
//! A run stays in one thread, so what is chosen is the thread's own.

/// Whether this build can have a bug at all.
pub const ON: bool = cfg!(feature = "on");

/// Declares the bugs; each has a name, a sentence that says what is wrong, and what it stands for.
macro_rules! mutants {
    ($($(#[doc = $doc:literal])+ $variant:ident, $historic:literal;)+) => {
        /// A deliberate bug. Numbers that begin with C are those of the catalogue of historic bugs, I of invariants.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Mutant {
            $($(#[doc = $doc])+ $variant,)+
        }

        /// All of them.
        pub const ALL: &[Mutant] = &[$(Mutant::$variant),+];

        impl Mutant {
            /// Its name, as in the code.
            pub fn name(self) -> &'static str {
                match self { $(Mutant::$variant => stringify!($variant)),+ }
            }

            /// What is wrong, in a sentence.
            pub fn sentence(self) -> &'static str {
                match self { $(Mutant::$variant => concat!($($doc),+).trim_ascii()),+ }
            }

            /// The historic bug that it stands for, or the place in the thesis that it offends; or nothing.
            pub fn stands_for(self) -> &'static str {
                match self { $(Mutant::$variant => $historic),+ }
            }
        }
    };
}

mutants! {
    // --- raft ---
    /// A member forgets at each start for whom it has voted.
    ForgetVote, "thesis §3.8";
    /// A member votes although it has voted for another in this term.
    VoteTwice, "thesis §3.4";
    /// A vote is given to a candidate whose log is shorter.
    VoteForShorterLog, "thesis §3.6.1";
    /// One vote is enough to lead.
    MinorityElects, "thesis §3.4";
    /// A candidate leads before its own vote is durable.
    LeadBeforeOwnVote, "thesis §3.8";
    /// A new term or a vote alone does not make the log sync.
    BallotUnsynced, "C39";
    /// Votes and acknowledgements leave before what they vouch for is durable.
    AnswerBeforeSync, "C02";
    /// A leader commits what it alone has appended.
    CommitBeforeQuorum, "C56";
    /// What one voter has durably is committed.
    MinorityCommits, "C52";
    /// A leader commits an entry of a former term by counting.
    CommitFormerTerm, "C35";
    /// A leader counts the answer to a heartbeat as an acknowledgement of all that it has sent.
    HeartbeatAcknowledges, "thesis §3.5";
    /// A heartbeat tells a follower to commit what it has not acknowledged.
    HeartbeatBeyondMatch, "C47";
    /// A follower keeps entries without looking whether they follow on its own.
    AppendUnmatched, "thesis §3.5";
    /// A follower drops what follows an append, also where that is equal to what it has.
    TruncateMatching, "C51";
    /// A follower takes a snapshot although it has more than that.
    SnapshotOverNewer, "C57";
    /// An entry that is missing has term zero.
    MissingTermIsZero, "C36";
    /// Entries are applied before they are committed.
    ApplyBeforeCommit, "thesis §3.5";
    /// A read index is given without asking anybody whether this is still the leader.
    ReadWithoutRound, "C34";
    /// A late answer to an old heartbeat confirms reads that came after it.
    StaleReadAnswer, "C31";
    /// A leader answers reads before it has committed an entry of its own term.
    ReadBeforeOwnTerm, "C33";
    /// A leader appends a membership change while another may not be applied.
    ChangeBesideChange, "C44";
    /// What a learner has durably counts as a voter's.
    LearnerCounts, "thesis §4.2.1";

    // --- wal ---
    /// The log is not synced, and says that it is.
    LogUnsynced, "C02";
    /// A full file of the log is closed without a sync.
    FullLogUnsynced, "C17";
    /// The checksums of the log are not looked at.
    LogUnchecked, "C18";
    /// The name of a new file of the log is not made durable.
    LogNameUnsynced, "C14";

    // --- store ---
    /// The store is not synced, and says that it is.
    StoreUnsynced, "C02";
    /// A segment is sealed without a sync.
    SealUnsynced, "C16";
    /// The name of a new manifest is not made durable.
    ManifestNameUnsynced, "C14";
    /// The checksums of frames are not looked at.
    FrameUnchecked, "C18";
    /// A frame says that one entry less is applied than is.
    AppliedBehind, "C06";
    /// A frame says that one entry more is applied than is.
    AppliedAhead, "C01";
    /// A deleted row is forgotten while older records of it are still on disk.
    RowRises, "C62";
    /// Old segments go before that is durable on account of which records in them were dropped.
    ReclaimUnsynced, "C12";
    /// Old segments go before the copy of what lives in them is durable.
    CopyUnsynced, "C03";
    /// A received state keeps the applied index of the one that it replaces.
    ReceivedIndexForgotten, "C10";

    // --- replica ---
    /// A frame is written before the log has its entries.
    FrameBeforeLog, "C13";
    /// The log is marked, and released, at a place that the store has not reached.
    MarkBeforeStore, "C13";
    /// The record of a received snapshot is not synced before it is acknowledged.
    SnapshotRecordUnsynced, "C02";
    /// The name of a received snapshot is not made durable.
    ReceivedNameUnsynced, "C14";
    /// A new leader ends leases by its own clock as it ran before it led.
    LeaseByOwnClock, "C75";
    /// A keep-alive is answered before what was committed when it came is applied.
    KeepAliveBeforeApply, "C76";

    // --- mvcc ---
    /// Pruning goes one revision too far.
    CompactionOffByOne, "C04";
    /// Pruning takes away what somebody is reading.
    PinIgnored, "C60";
    /// A tombstone is dropped while puts of its key are still on disk.
    TombstoneTooEarly, "C62";
    /// A start forgets how often a key was changed.
    VersionForgotten, "C22";
    /// A start forgets what was compacted.
    MarkForgotten, "C05";
    /// The hash of the keyspace does not count deletions.
    HashWithoutTombstones, "C110";
    /// The last event of a batch is not told.
    DropEvent, "C60";
    /// The events of a batch are told backwards.
    ReorderEvents, "C58";
    /// An event is told twice.
    EventTwice, "C65";
    /// Who catches up is not told of the first revision that it missed.
    SkipMissed, "C61";
    /// Who has missed batches goes back to where it began.
    WatchGoesBack, "C58";
    /// Who watches from a revision to come is told of earlier ones.
    FutureWatchHearsPast, "C63";
    /// Who lags is told that it has been told everything.
    ProgressTooEarly, "C59";
    /// Who needs what was compacted is told what is left.
    CompactionHidden, "C60";
    /// The previous value of a key is looked for one revision too early.
    WrongPrevious, "";
    /// A read of the past answers with the present.
    IgnoreRevision, "";

    // --- state_machine ---
    /// Of several bounds of a range the first alone counts.
    OneBoundCounts, "C114";
    /// What is sorted downwards is cut off before it is sorted.
    LimitBeforeSort, "C114";
    /// A compare takes greater for less.
    CompareReversed, "";
    /// A transaction is done without looking whether all of it can be done.
    TxnUnchecked, "C19";
    /// Ranges in a transaction are left out where nobody waits for the answer.
    RangesLeftOut, "C20";
    /// A revoke leaves the first of a lease's keys.
    RevokeForgetsKey, "C79";
    /// A key stays with the lease that it was taken from.
    LeaseKeepsKey, "";
    /// A put that is to keep the key's lease takes it away.
    IgnoreLeaseForgotten, "";
    /// A delete of many keys answers that it deleted one.
    DeleteCountsWrong, "";
}

#[cfg(not(feature = "on"))]
mod chosen {
    use super::Mutant;

    /// Whether the code is to have this bug: never.
    #[inline(always)]
    pub const fn is(_: Mutant) -> bool {
        false
    }
}

#[cfg(feature = "on")]
mod chosen {
    use super::Mutant;
    use std::cell::Cell;

    thread_local! {
        static CHOSEN: Cell<Option<Mutant>> = const { Cell::new(None) };
    }

    /// Whether the code is to have this bug, in this thread.
    pub fn is(mutant: Mutant) -> bool {
        CHOSEN.get() == Some(mutant)
    }

    /// From now on this thread's code has this bug, and no other.
    pub fn choose(mutant: Option<Mutant>) {
        CHOSEN.set(mutant);
    }
}

pub use chosen::*;
