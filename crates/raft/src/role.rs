//! The four roles, each with what belongs to it alone, and the ways from one to another.
//!
//! ```text
//!                 timeout                    quorum                    quorum
//!   ┌──────────┐ ─────────▶ ┌──────────────┐ ───────▶ ┌───────────┐ ─────────▶ ┌────────┐
//!   │ Follower │            │ PreCandidate │          │ Candidate │            │ Leader │
//!   └──────────┘ ◀───────── └──────────────┘          └───────────┘            └────────┘
//!        ▲         lost, leader heard, newer term           │ the same               │ newer term, no quorum,
//!        └──────────────────────────────────────────────────┴────────────────────────┘ removed
//! ```

use crate::leader::Leader;
use crate::message::*;
use crate::ready::RoleKind;
use crate::{Raft, quorum::VoteResult};

/// What this node is.
#[derive(Debug)]
pub(crate) enum Role {
    /// Follows this leader; nobody (0) if it waits for one.
    Follower { leader: NodeId },
    /// Asks whether a campaign could succeed. Neither its term nor its vote has changed.
    PreCandidate(Votes),
    /// Campaigns in its term, in which it has voted for itself.
    Candidate(Votes),
    /// Leads in its term.
    Leader(Box<Leader>),
}

impl Role {
    pub fn kind(&self) -> RoleKind {
        match self {
            Role::Follower { .. } => RoleKind::Follower,
            Role::PreCandidate(_) => RoleKind::PreCandidate,
            Role::Candidate(_) => RoleKind::Candidate,
            Role::Leader(_) => RoleKind::Leader,
        }
    }
}

/// The answers to a campaign; the first one of each node counts.
#[derive(Debug, Default)]
pub(crate) struct Votes {
    votes: Vec<(NodeId, bool)>,
}

impl Votes {
    pub fn record(&mut self, from: NodeId, granted: bool) {
        if self.of(from).is_none() {
            self.votes.push((from, granted));
        }
    }

    pub fn of(&self, id: NodeId) -> Option<bool> {
        self.votes.iter().find(|vote| vote.0 == id).map(|vote| vote.1)
    }
}

/// Why a node campaigns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Campaign {
    /// To learn whether it could win.
    PreElection,
    /// To win.
    Election,
    /// To win although there is a leader: it asked for it (thesis §3.10).
    Transfer,
}

/// What a vote request carries when the leader itself asked for the campaign; it breaks the lease.
pub(crate) const TRANSFER_CONTEXT: &[u8] = b"CampaignTransfer";

impl Raft {
    pub(crate) fn become_follower(&mut self, term: Term, leader: NodeId) {
        self.reset(term);
        self.role = Role::Follower { leader };
    }

    pub(crate) fn become_pre_candidate(&mut self) {
        assert!(!self.is_leader(), "a leader does not campaign");
        // No clock, term or vote changes: whoever hears of it, and this node itself, may go on with a leader.
        self.role = Role::PreCandidate(Votes::default());
    }

    pub(crate) fn become_candidate(&mut self) {
        assert!(!self.is_leader(), "a leader does not campaign");
        self.reset(self.term_after());
        self.vote = self.config.id;
        self.role = Role::Candidate(Votes::default());
    }

    pub(crate) fn become_leader(&mut self) {
        assert!(matches!(self.role, Role::Candidate(_)), "only a candidate becomes leader");
        self.reset(self.term);
        // There may be a membership change anywhere in the uncommitted tail; assuming one at its end saves looking.
        self.role = Role::Leader(Box::new(Leader::new(self.log.last())));
        let id = self.config.id;
        let own = self.membership.progress_mut(id).expect("a candidate is in the configuration");
        own.become_replicate();
        own.recent_active = true;
        // Entries of former terms are committed by this one, which alone counts (thesis §3.6.2).
        let accepted = self.append_own(vec![(EntryKind::Normal, Default::default())]);
        assert!(accepted, "an empty entry is never too much");
    }

    /// What a change of role or term wipes out.
    fn reset(&mut self, term: Term) {
        assert!(term >= self.term, "terms do not go back, from {} to {term}", self.term);
        if self.term != term {
            self.term = term;
            self.vote = NONE;
        }
        self.election_elapsed = 0;
        self.heartbeat_elapsed = 0;
        self.draw_election_timeout();
        self.membership.reset_progress(self.config.id, self.log.last());
        // What the former leader wanted to read back is of no use to anybody.
        self.fetches.clear();
    }

    pub(crate) fn draw_election_timeout(&mut self) {
        let ticks = u64::from(self.config.election_ticks);
        let drawn = u32::try_from(self.random.next() % ticks).expect("below election_ticks");
        self.election_timeout = self.config.election_ticks + drawn;
    }

    pub(crate) fn term_after(&self) -> Term {
        Term(self.term.0 + 1)
    }

    /// Campaigns unless this node leads, may not vote, or does not know its own configuration yet.
    pub(crate) fn hup(&mut self, campaign: Campaign) {
        if self.is_leader() || !self.is_promotable() || self.log.has_unapplied_conf_change() {
            return;
        }
        self.start_campaign(campaign);
    }

    /// Whether this node could become leader: a voter, not a snapshot behind (C40), that has all that it acknowledged.
    pub(crate) fn is_promotable(&self) -> bool {
        let own = self.membership.progress(self.config.id);
        own.is_some_and(|progress| !progress.learner)
            && !self.log.snapshot_pending()
            && !self.is_forgetful()
    }

    /// Whether entries that this node acknowledged may be missing here, so that its vote could lose them. A later leader was
    /// elected without it, and so has all of them that were committed; whoever has an entry of that leader's own term
    /// has them, too.
    pub(crate) fn is_forgetful(&self) -> bool {
        self.forgot_in.is_some_and(|term| self.log.last_term() <= term)
    }

    pub(crate) fn start_campaign(&mut self, campaign: Campaign) {
        let (request, response, term) = match campaign {
            Campaign::PreElection => {
                self.become_pre_candidate();
                (MessageKind::PreVote, MessageKind::PreVoteResp, self.term_after())
            }
            Campaign::Election | Campaign::Transfer => {
                self.become_candidate();
                (MessageKind::Vote, MessageKind::VoteResp, self.term)
            }
        };
        let context = match campaign {
            Campaign::Transfer => bytes::Bytes::from_static(TRANSFER_CONTEXT),
            _ => bytes::Bytes::new(),
        };
        for to in self.membership.voters().ids() {
            if to == self.config.id {
                // One's own vote, too, counts only when it is durable.
                self.send(Message { kind: response, to, term, ..Message::default() });
                continue;
            }
            self.send(Message {
                kind: request,
                to,
                term,
                index: self.log.last(),
                log_term: self.log.last_term(),
                context: context.clone(),
                ..Message::default()
            });
        }
    }

    /// How the campaign under way stands.
    pub(crate) fn tally(&self, votes: &Votes) -> VoteResult {
        self.membership.voters().vote_result(|id| votes.of(id))
    }
}

/// Numbers that look random and are the same for the same seed (splitmix64).
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// Nodes with one seed and different names draw differently.
    pub fn new(seed: u64, id: NodeId) -> Random {
        Random(seed ^ id.wrapping_mul(0xd134_2543_de82_ef95))
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
