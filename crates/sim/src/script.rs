//! A hand on the world, for experiments: it holds letters back at their sender's door, stops a member between two
//! stages of its work, asks as a client, and keeps what the members tell of themselves.
//!
//! A world without a script runs as if this file did not exist; one with a script has no storm, and what happens in it
//! besides the members' own doing is what the experiment does.

use std::collections::BTreeMap;
use std::mem;

use raft::Message;
use replica::{Trace, Traces};

use crate::member::Worker;
use crate::network::{Fate, MEMBERS_EVER};
use crate::shard::{Ask, Call, Request, Told};
use crate::world::{Event, Whose, World};

/// How long a client does not notice that its connection is gone, in microseconds.
const BROKEN_US: u64 = 500;

/// Where a member can be stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stall {
    /// Before a worker runs its next batch.
    Worker(Worker),
    /// After the log worker has written its batch, before the batch is synced.
    Sync,
}

/// Which letters are held back.
pub type Which = fn(&Message) -> bool;

/// Something that an experiment hears of, and when.
pub struct Happening {
    /// Microseconds since the beginning of the world.
    pub at_us: u64,
    /// What.
    pub what: What,
}

/// What an experiment hears of.
pub enum What {
    /// A member tells a stage of its work.
    Stage(usize, Trace),
    /// Something came to the client.
    Told(Told),
    /// This connection of the client's is gone.
    Broken(u64),
}

struct Hold {
    from: usize,
    which: Which,
    letters: Vec<Message>,
}

struct Stopped {
    member: usize,
    life: u64,
    stall: Stall,
    event: Event,
}

/// What an experiment has arranged, and what has happened since it looked last.
#[derive(Default)]
pub struct Script {
    holds: Vec<Hold>,
    stalls: Vec<(usize, Stall)>,
    stopped: Vec<Stopped>,
    /// The client's connections: member and its life.
    connections: BTreeMap<u64, (usize, u64)>,
    next_connection: u64,
    happened: Vec<Happening>,
}

impl Script {
    fn note(&mut self, at_us: u64, what: What) {
        self.happened.push(Happening { at_us, what });
    }

    /// What has happened since this was last asked.
    pub fn take(&mut self) -> Vec<Happening> {
        mem::take(&mut self.happened)
    }

    /// Something has arrived at the client.
    pub fn on_told(&mut self, now: u64, connection: u64, told: Told) {
        if self.connections.contains_key(&connection) {
            self.note(now, What::Told(told));
        }
    }

    /// The client notices that a connection is gone.
    pub fn on_broken(&mut self, now: u64, connection: u64) {
        if self.connections.remove(&connection).is_some() {
            self.note(now, What::Broken(connection));
        }
    }
}

impl World {
    /// A script's own; only where there is one.
    fn script(&mut self) -> &mut Script {
        self.script.as_mut().expect("only an experiment reaches into the world")
    }

    // --- What an experiment does. ---

    /// From now on such letters of this member wait at its door.
    pub fn hold(&mut self, from: usize, which: Which) {
        self.script().holds.push(Hold { from, which, letters: Vec::new() });
    }

    /// Whatever of this member waits at its door goes out, in its order, and nothing is held any more.
    pub fn let_go(&mut self, from: usize) {
        let script = self.script();
        let (gone, stay): (Vec<Hold>, Vec<Hold>) =
            mem::take(&mut script.holds).into_iter().partition(|hold| hold.from == from);
        script.holds = stay;
        for message in gone.into_iter().flat_map(|hold| hold.letters) {
            self.send(from, message);
        }
    }

    /// How many letters of this member wait at its door.
    pub fn held(&self, from: usize) -> usize {
        let holds = self.script.iter().flat_map(|script| &script.holds);
        holds.filter(|hold| hold.from == from).map(|hold| hold.letters.len()).sum()
    }

    /// The member stops when it next comes to this stage.
    pub fn stall(&mut self, member: usize, stall: Stall) {
        self.script().stalls.push((member, stall));
    }

    /// It goes on from there.
    pub fn unstall(&mut self, member: usize, stall: Stall) {
        let script = self.script();
        script.stalls.retain(|stalled| *stalled != (member, stall));
        let here = |stopped: &mut Stopped| stopped.member == member && stopped.stall == stall;
        let goes_on: Vec<Stopped> = script.stopped.extract_if(.., here).collect();
        for Stopped { life, event, .. } in goes_on {
            self.after(1, Whose::Life(member, life), event);
        }
    }

    /// The client opens a connection to a member; `None` if nobody is there.
    pub fn connect(&mut self, member: usize) -> Option<u64> {
        let client = MEMBERS_EVER;
        let life = self.members[member].life;
        if !self.members[member].is_up() || !self.network.is_whole(client, member) {
            return None;
        }
        let script = self.script();
        script.next_connection += 1;
        script.connections.insert(script.next_connection, (member, life));
        Some(script.next_connection)
    }

    /// The client asks something over a connection. False if the connection is known to be gone.
    pub fn ask_over(&mut self, connection: u64, op: u64, ask: Ask) -> bool {
        let Some(&(member, life)) = self.script().connections.get(&connection) else {
            return false;
        };
        let (revision, mark, index) = self.truth.least_read();
        let call = Call { client: 0, conn: connection, op, revision, mark, index };
        let request = Box::new(Request { call, ask });
        let client = MEMBERS_EVER;
        match self.network.send(client, member, self.now) {
            Fate::Arrives { at, .. } => {
                self.at(at, Whose::Life(member, life), Event::Ask(0, request));
            }
            Fate::Cut | Fate::Lost => self.break_soon(connection),
        }
        true
    }

    // --- What the world tells its script. ---

    /// A member tells what it has done.
    pub fn tell_trace(&mut self, member: usize, trace: Traces) {
        let now = self.now;
        if let Some(script) = &mut self.script {
            trace.into_iter().for_each(|event| script.note(now, What::Stage(member, event)));
        }
    }

    /// A letter is about to leave; what is held back stays.
    pub fn at_the_door(&mut self, from: usize, message: Message) -> Option<Message> {
        let Some(script) = &mut self.script else { return Some(message) };
        let holds = |hold: &&mut Hold| hold.from == from && (hold.which)(&message);
        match script.holds.iter_mut().find(holds) {
            Some(hold) => {
                hold.letters.push(message);
                None
            }
            None => Some(message),
        }
    }

    /// A member comes to a stage of its work, now and then so much later.
    pub fn soon_unless_stalled(&mut self, member: usize, delay: u64, stall: Stall, event: Event) {
        let life = self.members[member].life;
        match &mut self.script {
            Some(script) if script.stalls.contains(&(member, stall)) => {
                script.stopped.push(Stopped { member, life, stall, event });
            }
            _ => self.soon(member, delay, event),
        }
    }

    /// Something goes from a member to the client.
    pub fn reach_reader(&mut self, member: usize, connection: u64, told: Told) {
        let client = MEMBERS_EVER;
        match self.network.send(member, client, self.now) {
            Fate::Arrives { at, .. } => {
                self.at(at, Whose::World, Event::Tell(0, connection, Box::new(told)));
            }
            Fate::Cut | Fate::Lost => self.break_soon(connection),
        }
    }

    /// A process has ended: its letters, whatever it was about to do, and its connections.
    pub fn scripted_connections_end(&mut self, member: usize, life: u64) {
        let Some(script) = &mut self.script else { return };
        script.holds.retain(|hold| hold.from != member);
        script.stopped.retain(|stopped| (stopped.member, stopped.life) != (member, life));
        let dead: Vec<u64> = script
            .connections
            .iter()
            .filter(|(_, end)| **end == (member, life))
            .map(|(connection, _)| *connection)
            .collect();
        dead.into_iter().for_each(|connection| self.break_soon(connection));
    }

    fn break_soon(&mut self, connection: u64) {
        self.after(BROKEN_US, Whose::World, Event::Broken(0, connection));
    }
}
