//! One test per rule of the thesis (Ongaro, "Consensus: bridging theory and practice"), each on one node or a few, message
//! by message; and the races that asynchronous disks add to it.

#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use raft::*;

const ELECTION: u32 = 10;

fn plain(id: NodeId) -> Config {
    Config {
        id,
        election_ticks: ELECTION,
        check_quorum: false,
        pre_vote: false,
        apply_unstable: true,
        ..Config::default()
    }
}

/// A node of the group 1 to `size` whose log has entries of these terms, from 1 on.
fn node_with(config: Config, size: u64, term: u64, log: &[u64]) -> Raft {
    let entry = |(index, term): (u64, &u64)| Entry {
        term: Term(*term),
        index: Index(index),
        ..Entry::default()
    };
    let restored = Restored {
        hard_state: HardState { term: Term(term), ..HardState::default() },
        conf_state: ConfState { voters: (1..=size).collect(), ..ConfState::default() },
        entries: (1..).zip(log).map(entry).collect(),
        ..Restored::default()
    };
    Raft::new(config, restored).unwrap()
}

fn node(id: NodeId, size: u64, term: u64, log: &[u64]) -> Raft {
    node_with(plain(id), size, term, log)
}

/// Does at once whatever the node wants done, and returns what it sends.
fn settle(raft: &mut Raft) -> Vec<Message> {
    let mut sent = Vec::new();
    while raft.has_ready() {
        let ready = raft.ready();
        sent.extend(ready.messages);
        sent.extend(ready.messages_after_persist);
        if let Some(persisted) = ready.persisted {
            raft.on_persisted(persisted);
        }
        if let Some(last) = ready.committed.last() {
            raft.on_applied(last.index);
        }
    }
    sent
}

fn message(kind: MessageKind, from: NodeId, term: u64) -> Message {
    Message { kind, from, to: 1, term: Term(term), ..Message::default() }
}

fn kinds(messages: &[Message]) -> Vec<(MessageKind, NodeId)> {
    messages.iter().map(|message| (message.kind, message.to)).collect()
}

/// Node 1 of `size`, made leader of `term + 1` by all the others, who know nothing of it yet.
fn leader(size: u64, term: u64, log: &[u64]) -> Raft {
    let mut raft = node(1, size, term, log);
    raft.campaign();
    settle(&mut raft);
    for id in 2..=size {
        raft.step(message(MessageKind::VoteResp, id, term + 1)).unwrap();
    }
    assert_eq!(raft.role(), RoleKind::Leader);
    raft
}

/// Delivers all messages among these nodes (1 is the first) until none are left.
fn talk(nodes: &mut [Raft]) {
    loop {
        let sent: Vec<Message> = nodes.iter_mut().flat_map(settle).collect();
        if sent.is_empty() {
            return;
        }
        for message in sent {
            if let Some(raft) = nodes.get_mut(message.to as usize - 1) {
                raft.step(message).unwrap();
            }
        }
    }
}

fn terms(raft: &Raft) -> Vec<u64> {
    (1..=raft.last_index().0).map(|index| raft.term_at(Index(index)).unwrap().0).collect()
}

// --- §3.3: terms. ---

#[test]
fn a_newer_term_is_taken_up_in_every_role() {
    let mut candidate = node(1, 3, 1, &[]);
    candidate.campaign();
    for mut raft in [node(1, 3, 1, &[]), candidate, leader(3, 1, &[])] {
        raft.step(message(MessageKind::App, 2, 7)).unwrap();
        assert_eq!((raft.term(), raft.role()), (Term(7), RoleKind::Follower));
    }
}

#[test]
fn a_message_of_an_old_term_changes_nothing() {
    let mut raft = node(1, 3, 5, &[]);
    raft.step(Message { commit: Index(9), ..message(MessageKind::App, 2, 4) }).unwrap();
    assert_eq!((raft.term(), raft.leader(), raft.commit()), (Term(5), NONE, Index(0)));
    assert!(settle(&mut raft).is_empty());
}

// --- §3.4: elections. ---

#[test]
fn a_node_starts_as_follower() {
    assert_eq!(node(1, 3, 4, &[]).role(), RoleKind::Follower);
}

#[test]
fn a_leader_sends_heartbeats_to_all_others() {
    let mut raft = leader(3, 1, &[]);
    settle(&mut raft);
    raft.tick();
    let beats = [(MessageKind::Heartbeat, 2), (MessageKind::Heartbeat, 3)];
    assert_eq!(kinds(&settle(&mut raft)), beats);
}

#[test]
fn who_hears_no_leader_campaigns_in_the_next_term_and_again_in_the_one_after() {
    let mut raft = node(1, 3, 1, &[]);
    for term in [2, 3] {
        for _ in 0..2 * ELECTION {
            raft.tick();
            if raft.term() == Term(term) {
                break;
            }
        }
        assert_eq!((raft.role(), raft.term()), (RoleKind::Candidate, Term(term)));
        assert_eq!(raft.status().vote, 1);
        let requests = [(MessageKind::Vote, 2), (MessageKind::Vote, 3)];
        assert_eq!(kinds(&settle(&mut raft)), requests);
    }
}

#[test]
fn election_timeouts_differ_and_lie_within_their_range() {
    let timeout = |seed| {
        let mut raft = node_with(Config { seed, ..plain(1) }, 3, 0, &[]);
        (1..).find(|_| {
            raft.tick();
            raft.role() == RoleKind::Candidate
        })
    };
    let mut timeouts: Vec<u32> = (0..500).map(|seed| timeout(seed).unwrap()).collect();
    assert_eq!(timeout(3), timeout(3), "the same seed draws the same");
    timeouts.sort_unstable();
    timeouts.dedup();
    assert_eq!(timeouts, (ELECTION..2 * ELECTION).collect::<Vec<_>>());
}

#[test]
fn a_majority_makes_a_leader_and_less_does_not() {
    for (size, yes, no, role) in [
        (1, 0, 0, RoleKind::Leader),
        (3, 1, 1, RoleKind::Leader),
        (3, 0, 1, RoleKind::Candidate),
        (3, 0, 2, RoleKind::Follower),
        (5, 2, 2, RoleKind::Leader),
        (5, 1, 2, RoleKind::Candidate),
        (5, 1, 3, RoleKind::Follower),
    ] {
        let mut raft = node(1, size, 0, &[]);
        raft.campaign();
        settle(&mut raft);
        for id in 2..2 + yes + no {
            let reject = id >= 2 + yes;
            raft.step(Message { reject, ..message(MessageKind::VoteResp, id, 1) }).unwrap();
        }
        assert_eq!(raft.role(), role, "{yes} yes and {no} no of {size}");
    }
}

#[test]
fn a_node_votes_once_in_a_term() {
    let mut raft = node(1, 3, 0, &[]);
    for (from, refused) in [(2, false), (2, false), (3, true)] {
        raft.step(message(MessageKind::Vote, from, 1)).unwrap();
        let answer = settle(&mut raft).remove(0);
        assert_eq!((answer.kind, answer.reject), (MessageKind::VoteResp, refused), "{from}");
    }
}

#[test]
fn a_candidate_yields_to_the_leader_of_its_term() {
    let mut raft = node(1, 3, 0, &[]);
    raft.campaign();
    settle(&mut raft);
    raft.step(message(MessageKind::App, 2, 1)).unwrap();
    assert_eq!((raft.role(), raft.leader()), (RoleKind::Follower, 2));
}

// --- §3.5: replication. ---

#[test]
fn an_entry_is_committed_when_a_majority_has_it_durably() {
    for (size, others, committed) in [(1, 0, true), (3, 0, false), (3, 1, true), (5, 1, false)] {
        let mut raft = leader(size, 0, &[]);
        settle(&mut raft);
        raft.propose(vec![Bytes::from_static(b"x")]).unwrap();
        settle(&mut raft);
        for id in 2..2 + others {
            let answer = message(MessageKind::AppResp, id, 1);
            raft.step(Message { index: Index(2), ..answer }).unwrap();
        }
        assert_eq!(raft.commit() == Index(2), committed, "{others} others of {size}");
    }
}

#[test]
fn a_follower_takes_only_what_follows_on_its_log() {
    for (index, log_term, reject, hint) in
        [(0, 0, false, 0), (1, 1, false, 0), (2, 2, false, 0), (2, 3, true, 2), (3, 3, true, 2)]
    {
        let mut raft = node(1, 3, 2, &[1, 2]);
        let append = message(MessageKind::App, 2, 3);
        let (index, log_term) = (Index(index), Term(log_term));
        raft.step(Message { index, log_term, ..append }).unwrap();
        let answer = settle(&mut raft).remove(0);
        assert_eq!((answer.reject, answer.reject_hint), (reject, Index(hint)), "{index}");
    }
}

#[test]
fn conflicting_entries_are_replaced_and_equal_ones_kept() {
    for (index, log_term, entries, kept) in [
        (2, 2, vec![3], vec![1, 2, 3]),
        (1, 1, vec![3, 4], vec![1, 3, 4]),
        (0, 0, vec![1], vec![1, 2]),
        (0, 0, vec![3], vec![3]),
    ] {
        let mut raft = node(1, 3, 2, &[1, 2]);
        let entry = |(place, term)| Entry {
            index: Index(index + place),
            term: Term(term),
            ..Entry::default()
        };
        let append = Message {
            index: Index(index),
            log_term: Term(log_term),
            entries: (1..).zip(entries).map(entry).collect(),
            ..message(MessageKind::App, 2, 4)
        };
        raft.step(append).unwrap();
        assert_eq!(terms(&raft), kept);
    }
}

/// Figure 3.6, and a few rounds at most although the logs differ in many places.
#[test]
fn a_leader_brings_every_follower_s_log_to_its_own() {
    let own = [1, 1, 1, 4, 4, 5, 5, 6, 6, 6];
    for theirs in [
        &own[..9],
        &own[..4],
        &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6][..],
        &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7],
        &[1, 1, 1, 4, 4, 4, 4],
        &[1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3],
    ] {
        let mut nodes = [node(1, 3, 7, &own), node(2, 3, 7, theirs), node(3, 3, 7, &own[..2])];
        nodes[0].campaign();
        talk(&mut nodes);
        if nodes[0].role() != RoleKind::Leader {
            // Its log was behind; with the third node's vote it has the majority in a later term.
            nodes[0].campaign();
            talk(&mut nodes);
        }
        nodes[0].tick();
        talk(&mut nodes);
        assert_eq!(nodes[0].role(), RoleKind::Leader);
        assert_eq!(terms(&nodes[1]), terms(&nodes[0]), "{theirs:?}");
        assert_eq!(nodes[1].commit(), nodes[0].last_index());
    }
}

// --- §3.6: safety. ---

#[test]
fn a_vote_goes_only_to_a_log_that_is_at_least_as_complete() {
    for (log, last_term, last, refused) in [
        (&[1][..], 1, 1, false),
        (&[1], 1, 2, false),
        (&[1, 1], 1, 1, true),
        (&[1], 2, 1, false),
        (&[2], 1, 2, true),
    ] {
        let mut raft = node(1, 3, 2, log);
        let request = message(MessageKind::Vote, 2, 3);
        raft.step(Message { log_term: Term(last_term), index: Index(last), ..request }).unwrap();
        assert_eq!(settle(&mut raft)[0].reject, refused, "{log:?} against {last_term}/{last}");
    }
}

/// §3.6.2, figure 3.7: an entry of a former term on a majority may still be replaced.
#[test]
fn only_entries_of_its_own_term_are_committed_by_counting() {
    let mut raft = leader(3, 2, &[1, 2]);
    settle(&mut raft);
    for (acknowledged, committed) in [(1, 0), (2, 0), (3, 3)] {
        let answer = message(MessageKind::AppResp, 2, 3);
        raft.step(Message { index: Index(acknowledged), ..answer }).unwrap();
        assert_eq!(raft.commit(), Index(committed), "{acknowledged} is acknowledged");
    }
}

// --- §3.8: what must be durable first. ---

#[test]
fn votes_and_acknowledgements_wait_for_the_disk() {
    let mut raft = node(1, 3, 0, &[]);
    raft.step(message(MessageKind::Vote, 2, 1)).unwrap();
    let ready = raft.ready();
    assert!(ready.messages.is_empty() && ready.must_sync);
    assert_eq!(kinds(&ready.messages_after_persist), [(MessageKind::VoteResp, 2)]);

    let entries = vec![Entry { index: Index(1), term: Term(1), ..Entry::default() }];
    raft.step(Message { entries, ..message(MessageKind::App, 2, 1) }).unwrap();
    let ready = raft.ready();
    assert!(ready.messages.is_empty() && ready.must_sync);
    assert_eq!(kinds(&ready.messages_after_persist), [(MessageKind::AppResp, 2)]);
}

#[test]
fn a_leader_does_not_count_itself_before_its_own_append_is_durable() {
    let mut raft = node(1, 1, 0, &[]);
    raft.campaign();
    let vote = raft.ready().persisted.unwrap();
    assert_eq!(raft.role(), RoleKind::Candidate);
    raft.on_persisted(vote);
    assert_eq!(raft.role(), RoleKind::Leader);
    let append = raft.ready().persisted.unwrap();
    assert_eq!(raft.commit(), Index(0));
    raft.on_persisted(append);
    assert_eq!(raft.commit(), Index(1));
}

/// The others' votes suffice, but a crash now would let the same node win the same term again, and fill it anew.
#[test]
fn nobody_leads_before_its_own_vote_is_durable() {
    let mut raft = node(1, 3, 0, &[]);
    raft.campaign();
    let vote = raft.ready().persisted.unwrap();
    raft.step(message(MessageKind::VoteResp, 2, 1)).unwrap();
    raft.step(message(MessageKind::VoteResp, 3, 1)).unwrap();
    assert_eq!(raft.role(), RoleKind::Candidate);
    raft.on_persisted(vote);
    assert_eq!(raft.role(), RoleKind::Leader);
}

/// The nine steps told at [`Persisted`].
#[test]
fn a_receipt_of_a_former_term_does_not_speak_for_entries() {
    let mut raft = node_with(Config { apply_unstable: false, ..plain(1) }, 3, 0, &[]);
    let mut append = |leader, term, of_term| {
        let entries = vec![Entry { index: Index(1), term: Term(of_term), ..Entry::default() }];
        let commit = Index(u64::from(term == 3));
        raft.step(Message { entries, commit, ..message(MessageKind::App, leader, term) }).unwrap();
        raft.ready().persisted.unwrap()
    };
    let first = append(2, 1, 1);
    let second = append(3, 2, 2);
    let third = append(2, 3, 1);
    raft.on_persisted(first);
    assert!(raft.ready().committed.is_empty(), "the second append may yet overwrite it");
    raft.on_persisted(second);
    assert!(raft.ready().committed.is_empty());
    raft.on_persisted(third);
    assert_eq!(raft.ready().committed.len(), 1);
}

// --- §3.10: handing over. ---

#[test]
fn leadership_goes_to_a_node_with_the_whole_log_and_meanwhile_nothing_is_proposed() {
    let mut raft = leader(3, 0, &[]);
    settle(&mut raft);
    raft.transfer_leader(2);
    assert_eq!(raft.propose(vec![Bytes::new()]), Err(StepError::ProposalDropped));
    assert!(!settle(&mut raft).iter().any(|sent| sent.kind == MessageKind::TimeoutNow));
    raft.step(Message { index: Index(1), ..message(MessageKind::AppResp, 2, 1) }).unwrap();
    assert!(kinds(&settle(&mut raft)).contains(&(MessageKind::TimeoutNow, 2)));
    // Whoever did not manage within an election timeout will not.
    (0..ELECTION).for_each(|_| raft.tick());
    assert_eq!(raft.propose(vec![Bytes::new()]), Ok(()));
}

// --- §4: membership. ---

#[test]
fn one_change_at_a_time_and_a_second_one_becomes_an_empty_entry() {
    let mut raft = node(1, 1, 1, &[1]);
    raft.campaign();
    let vote = raft.ready().persisted.unwrap();
    raft.on_persisted(vote);
    let change = |node_id| ConfChange { node_id, ..ConfChange::default() };
    raft.propose_conf_change(&change(2)).unwrap();
    raft.propose_conf_change(&change(3)).unwrap();
    let ready = raft.ready();
    let kinds: Vec<EntryKind> = ready.entries.iter().map(|entry| entry.kind).collect();
    // The first is untimely, too: there may be another in what the leader found in its log and has not yet applied.
    assert_eq!(kinds, [EntryKind::Normal; 3]);
    raft.on_persisted(ready.persisted.unwrap());
    settle(&mut raft);
    raft.propose_conf_change(&change(2)).unwrap();
    raft.propose_conf_change(&change(3)).unwrap();
    let ready = raft.ready();
    let kinds: Vec<EntryKind> = ready.entries.iter().map(|entry| entry.kind).collect();
    assert_eq!(kinds, [EntryKind::ConfChange, EntryKind::Normal]);
}

/// A crash tore what was written last: the second change was kept, and the commit index that came with it was lost. With the
/// votes of two of the first three it would lead without what a majority of the five may have committed.
#[test]
fn who_finds_two_changes_in_its_log_knows_that_the_first_is_committed() {
    let add = |index, node_id| {
        let data = ConfChange { node_id, ..ConfChange::default() }.encode();
        Entry { kind: EntryKind::ConfChange, term: Term(1), index: Index(index), data }
    };
    let restored = Restored {
        hard_state: HardState { term: Term(1), ..HardState::default() },
        conf_state: ConfState { voters: vec![1, 2, 3], ..ConfState::default() },
        entries: vec![add(1, 4), add(2, 5)],
        ..Restored::default()
    };
    let mut raft = Raft::new(plain(1), restored).unwrap();
    raft.campaign();
    assert_eq!(raft.role(), RoleKind::Follower, "first it applies what is committed");
    let ready = raft.ready();
    assert_eq!(ready.hard_state.unwrap().commit, Index(1));
    assert_eq!(ready.committed.len(), 1);
    let change = ConfChangeV2::of_entry(&ready.committed[0]).unwrap().unwrap();
    raft.apply_conf_change(&change).unwrap();
    raft.on_applied(Index(1));
    ready.persisted.into_iter().for_each(|persisted| raft.on_persisted(persisted));

    raft.campaign();
    settle(&mut raft);
    raft.step(message(MessageKind::VoteResp, 2, 2)).unwrap();
    assert_eq!(raft.role(), RoleKind::Candidate, "two of four");
    raft.step(message(MessageKind::VoteResp, 4, 2)).unwrap();
    assert_eq!(raft.role(), RoleKind::Leader);
}

// --- §4.2.3, §6.2, §9.6: who is disturbed, and who is not. ---

#[test]
fn who_hears_a_leader_ignores_candidates_unless_the_leader_hands_over() {
    let mut raft = node_with(Config { check_quorum: true, ..plain(1) }, 3, 1, &[]);
    raft.step(message(MessageKind::Heartbeat, 2, 1)).unwrap();
    settle(&mut raft);
    raft.step(message(MessageKind::Vote, 3, 2)).unwrap();
    assert!(settle(&mut raft).is_empty());
    let context = Bytes::from_static(b"CampaignTransfer");
    raft.step(Message { context, ..message(MessageKind::Vote, 3, 2) }).unwrap();
    assert!(!settle(&mut raft)[0].reject);
}

#[test]
fn a_leader_that_no_quorum_answers_steps_down() {
    let config = Config { check_quorum: true, ..plain(1) };
    let mut raft = node_with(config, 3, 0, &[]);
    raft.campaign();
    settle(&mut raft);
    raft.step(message(MessageKind::VoteResp, 2, 1)).unwrap();
    raft.step(message(MessageKind::HeartbeatResp, 2, 1)).unwrap();
    (0..ELECTION).for_each(|_| raft.tick());
    assert_eq!(raft.role(), RoleKind::Leader);
    (0..ELECTION).for_each(|_| raft.tick());
    assert_eq!(raft.role(), RoleKind::Follower);
}

/// A link that is cut half-way kept a cluster in elections for hours, once: one node did not hear the leader, and another heard
/// both. Here every link of three nodes is whole or cut, each direction by itself. Where two nodes hear each other there is one
/// leader, it commits, and it and its term stay.
#[test]
fn whatever_links_are_left_of_three_a_connected_majority_has_one_leader() {
    const LINKS: [(NodeId, NodeId); 6] = [(1, 2), (1, 3), (2, 1), (2, 3), (3, 1), (3, 2)];
    for graph in 0..1u32 << LINKS.len() {
        let is_up = |from, to| {
            LINKS.iter().position(|link| *link == (from, to)).is_some_and(|at| graph >> at & 1 == 1)
        };
        let pairs = [(1, 2), (1, 3), (2, 3)];
        if !pairs.iter().any(|(one, other)| is_up(*one, *other) && is_up(*other, *one)) {
            continue;
        }
        for first in 1..=3 {
            let config = |id| Config { pre_vote: true, check_quorum: true, seed: id, ..plain(id) };
            let mut nodes: Vec<Raft> = (1..=3).map(|id| node_with(config(id), 3, 1, &[])).collect();
            // Links are cut when somebody leads already.
            nodes[first as usize - 1].campaign();
            talk(&mut nodes);
            assert_eq!(nodes[first as usize - 1].role(), RoleKind::Leader);
            let tick = |nodes: &mut [Raft]| {
                nodes.iter_mut().for_each(Raft::tick);
                loop {
                    let mut sent: Vec<Message> = nodes.iter_mut().flat_map(settle).collect();
                    if sent.is_empty() {
                        return;
                    }
                    sent.retain(|message| is_up(message.from, message.to));
                    sent.into_iter().for_each(|m| nodes[m.to as usize - 1].step(m).unwrap());
                }
            };
            (0..20 * ELECTION).for_each(|_| tick(&mut nodes));
            let serving = |nodes: &mut [Raft]| {
                let leads = |raft: &&mut Raft| raft.role() == RoleKind::Leader;
                let leaders: Vec<&mut Raft> = nodes.iter_mut().filter(leads).collect();
                let newest = leaders.into_iter().max_by_key(|raft| raft.term());
                newest.map(|raft| (raft.id(), raft.term(), raft.commit()))
            };
            let said = format!("links {graph:06b}, {first} led");
            let (id, term, before) = serving(&mut nodes).expect(&said);
            let proposed = nodes[id as usize - 1].propose(vec![Bytes::from_static(b"x")]);
            proposed.expect(&said);
            (0..20 * ELECTION).for_each(|_| tick(&mut nodes));
            let (same, still, after) = serving(&mut nodes).expect(&said);
            assert_eq!((same, still), (id, term), "{said}: the leader does not stay");
            assert!(after > before, "{said}: nothing is committed");
        }
    }
}

#[test]
fn a_pre_vote_disturbs_nobody() {
    let mut raft = node_with(Config { pre_vote: true, ..plain(1) }, 3, 1, &[]);
    raft.campaign();
    let asked = settle(&mut raft);
    assert!(asked.iter().all(|sent| sent.kind == MessageKind::PreVote && sent.term == Term(2)));
    assert_eq!((raft.term(), raft.status().vote), (Term(1), NONE));
    raft.step(message(MessageKind::PreVoteResp, 2, 2)).unwrap();
    assert_eq!((raft.role(), raft.term()), (RoleKind::Candidate, Term(2)));
}

// --- §6.4: reads. ---

/// Also when the node votes alone: its commit index on disk may be older than what it answered before (C33).
#[test]
fn a_read_waits_until_an_entry_of_the_leader_s_term_is_committed() {
    let mut raft = node(1, 1, 1, &[1, 1]);
    raft.campaign();
    let vote = raft.ready().persisted.unwrap();
    raft.on_persisted(vote);
    assert_eq!((raft.role(), raft.commit()), (RoleKind::Leader, Index(0)));
    raft.read_index(Bytes::from_static(b"x"));
    let ready = raft.ready();
    assert!(ready.read_states.is_empty());
    raft.on_persisted(ready.persisted.unwrap());
    let read = ReadState { index: Index(3), context: Bytes::from_static(b"x") };
    assert_eq!(raft.ready().read_states, [read]);
}

#[test]
fn a_read_is_answered_after_a_round_of_heartbeats_of_its_own() {
    let mut raft = leader(3, 0, &[]);
    settle(&mut raft);
    raft.step(Message { index: Index(1), ..message(MessageKind::AppResp, 2, 1) }).unwrap();
    settle(&mut raft);
    let ask = |raft: &mut Raft| {
        raft.read_index(Bytes::from_static(b"the same"));
        settle(raft).into_iter().find(|sent| sent.kind == MessageKind::Heartbeat).unwrap().context
    };
    let (first, second) = (ask(&mut raft), ask(&mut raft));
    for (context, answers) in [(first.clone(), 1), (first, 0), (second, 1)] {
        raft.step(Message { context, ..message(MessageKind::HeartbeatResp, 2, 1) }).unwrap();
        assert_eq!(raft.ready().read_states.len(), answers);
    }
}

// --- Entries no longer in memory, and forged messages. ---

#[test]
fn evicted_entries_are_fetched_and_released_ones_lead_to_a_snapshot() {
    let mut raft = leader(3, 0, &[]);
    for _ in 0..3 {
        raft.propose(vec![Bytes::from_static(b"data")]).unwrap();
    }
    let ready = raft.ready();
    let log = ready.entries;
    raft.on_persisted(ready.persisted.unwrap());
    settle(&mut raft);
    raft.step(Message { index: Index(4), ..message(MessageKind::AppResp, 2, 1) }).unwrap();
    settle(&mut raft);
    assert_eq!(raft.applied(), Index(4));
    raft.evict(0);
    assert_eq!(raft.bytes_in_memory(), 0);

    // The third node has nothing and says so.
    let nothing = Message { index: Index(4), reject: true, ..message(MessageKind::AppResp, 3, 1) };
    raft.report_unreachable(3);
    raft.step(Message { index: Index(0), ..nothing }).unwrap();
    raft.step(message(MessageKind::HeartbeatResp, 3, 1)).unwrap();
    let ready = raft.ready();
    let [Fetch { to: 3, low, high, .. }] = ready.fetches[..] else {
        panic!("{:?}", ready.fetches);
    };
    assert_eq!((low, high), (Index(1), Index(5)));
    raft.on_fetched(3, low, log.clone());
    let sent = settle(&mut raft);
    let append = sent.iter().find(|sent| sent.kind == MessageKind::App && sent.to == 3).unwrap();
    assert_eq!((append.index, &append.entries), (Index(0), &log));

    raft.release(Index(4));
    raft.report_unreachable(3);
    raft.step(message(MessageKind::HeartbeatResp, 3, 1)).unwrap();
    let sent = settle(&mut raft);
    let snapshot = sent.iter().find(|sent| sent.kind == MessageKind::Snap).unwrap();
    assert_eq!(snapshot.snapshot.as_ref().unwrap().metadata.index, Index(4));
}

/// C27. Node 1 has acknowledged entry 5 and lost its disk; the leader that knows so dies, and node 3 never had the entry. With
/// node 1's vote it would lead without it.
#[test]
fn who_lost_what_it_acknowledged_votes_for_nobody_until_a_later_leader_has_restored_it() {
    let mut raft = node(1, 3, 2, &[1]);
    let beat = Message { commit: Index(5), ..message(MessageKind::Heartbeat, 2, 2) };
    let forgotten = StepError::Forgotten { acknowledged: Index(5), last: Index(1) };
    assert_eq!(raft.step(beat), Err(forgotten));
    assert_eq!(raft.commit(), Index(0));

    let asks = |raft: &mut Raft, term| {
        let ask = message(MessageKind::Vote, 3, term);
        raft.step(Message { index: Index(9), log_term: Term(term - 1), ..ask }).unwrap();
        let answers = settle(raft);
        let answer = answers.iter().find(|message| message.kind == MessageKind::VoteResp).unwrap();
        !answer.reject
    };
    assert!(!asks(&mut raft, 3), "a vote of somebody who forgets");
    for _ in 0..3 * ELECTION {
        raft.tick();
    }
    assert_eq!((raft.role(), raft.term()), (RoleKind::Follower, Term(3)), "nor does it campaign");

    // Node 2 is elected by node 3, and sends first what was before, then what is of its own term.
    let entries = |from: u64, terms: &[u64]| {
        let entry = |(index, term): (u64, &u64)| Entry {
            term: Term(*term),
            index: Index(index),
            ..Entry::default()
        };
        (from..).zip(terms).map(entry).collect()
    };
    let append = message(MessageKind::App, 2, 4);
    let before = Message { index: Index(1), log_term: Term(1), ..append.clone() };
    raft.step(Message { entries: entries(2, &[2, 2]), ..before }).unwrap();
    assert!(!asks(&mut raft, 5), "entries 4 and 5 may be missing still");
    let append = Message { term: Term(6), index: Index(3), log_term: Term(2), ..append };
    raft.step(Message { entries: entries(4, &[2, 2, 6]), ..append }).unwrap();
    assert!(asks(&mut raft, 7), "it is a voter as any other");
}

#[test]
fn what_no_correct_peer_says_is_refused() {
    let refused = |raft: &mut Raft, message| {
        assert!(matches!(raft.step(message), Err(StepError::Malformed(_))));
    };
    let mut raft = node(1, 3, 1, &[1]);
    // A commit index that nobody can have (C47), and a committed entry that is to change.
    let beat = message(MessageKind::Heartbeat, 2, 1);
    refused(&mut raft, Message { commit: Index(u64::MAX), ..beat.clone() });
    raft.step(Message { commit: Index(1), ..beat }).unwrap();
    let gap = vec![Entry { index: Index(9), term: Term(1), ..Entry::default() }];
    refused(&mut raft, Message { entries: gap, ..message(MessageKind::App, 2, 1) });
    refused(&mut raft, message(MessageKind::Heartbeat, 3, 1));
    refused(&mut raft, message(MessageKind::App, 2, 0));
    refused(&mut raft, message(MessageKind::Snap, 2, 1));
    refused(&mut raft, Message { to: 2, ..message(MessageKind::Vote, 3, 9) });
    assert_eq!((raft.term(), raft.commit()), (Term(1), Index(1)));

    let mut raft = leader(3, 0, &[]);
    let late = message(MessageKind::AppResp, 2, 1);
    refused(&mut raft, Message { index: Index(2), ..late });
    let context = Bytes::copy_from_slice(&9u64.to_le_bytes());
    refused(&mut raft, Message { context, ..message(MessageKind::HeartbeatResp, 2, 1) });
    assert_eq!(raft.step(message(MessageKind::Hup, 2, 1)), Err(StepError::LocalMessage));
    assert_eq!(raft.step(message(MessageKind::AppResp, 9, 1)), Err(StepError::PeerNotFound));
}
