//! One member's mind: inputs in, one output per turn out.

use crate::input::Input;
use crate::output::Output;

/// One member, without threads.
///
/// Inputs are [`Replica::handle`], called any number of times; then [`Replica::output`] takes what the turn has
/// decided. [`Replica::takes_proposals`] says whether the driver may take from its inbox of proposals.
pub struct Replica {}

impl Replica {
    /// Takes one input in. Nothing leaves before [`Replica::output`].
    pub fn handle(&mut self, _input: Input) {
        unimplemented!("Replica::handle")
    }

    /// Ends the turn: what must happen now. Call it after each batch of inputs, and once right after the start.
    pub fn output(&mut self) -> Output {
        unimplemented!("Replica::output")
    }

    /// Whether proposals are taken. While they are not, the driver leaves them in their inbox, which fills, and
    /// shards that meet it full stop reading the connections that propose.
    pub fn takes_proposals(&self) -> bool {
        unimplemented!("Replica::takes_proposals")
    }

    /// raft's standing: role, term, indexes, every peer's progress.
    pub fn status(&self) -> () {
        unimplemented!("Replica::status")
    }
}
