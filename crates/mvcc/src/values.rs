//! Values in memory: those of frames not yet written, and others within a budget.
//!
//! A slab of slots. An entry of the index remembers its slot, and a slot remembers whose value it holds, by
//! revision; so a slot can be given to another value without finding the entry that points to it. The hand of a
//! clock goes round: a value that was read since it last came by is spared once.
//!
//! Invariant: a value whose frame has not been written is never dropped by the clock, whatever the budget.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use bytes::Bytes;
use store::Revision;

/// The slot of a value that never was in memory.
pub(crate) const NO_SLOT: u32 = u32::MAX;
/// What a value costs besides its bytes.
const SLOT_BYTES: usize = 64;
/// Slots that the hand passes at most for one new value.
const STEPS_MAX: usize = 16;

#[derive(Debug)]
struct Slot {
    revision: Revision,
    /// Empty if the slot is free: no `KeyValue` is empty.
    bytes: Bytes,
    used: AtomicBool,
}

/// The slab.
#[derive(Debug)]
pub(crate) struct Values {
    slots: Vec<Slot>,
    free: Vec<u32>,
    hand: usize,
    bytes: usize,
    bytes_max: usize,
}

impl Values {
    pub fn new(bytes_max: usize) -> Values {
        Values { slots: Vec::new(), free: Vec::new(), hand: 0, bytes: 0, bytes_max }
    }

    /// Keeps a value. Everything at or below the main revision `written` may be dropped for it.
    pub fn insert(&mut self, revision: Revision, bytes: Bytes, written: i64) -> u32 {
        self.bytes += bytes.len() + SLOT_BYTES;
        self.shrink(written, STEPS_MAX);
        let slot = Slot { revision, bytes, used: AtomicBool::new(false) };
        match self.free.pop() {
            Some(place) => {
                self.slots[place as usize] = slot;
                place
            }
            None => {
                let place = u32::try_from(self.slots.len()).ok().filter(|place| *place != NO_SLOT);
                self.slots.push(slot);
                place.expect("values in memory are fewer than 2^32")
            }
        }
    }

    /// The value of `revision`, if it still stands in `slot`.
    pub fn get(&self, slot: u32, revision: Revision) -> Option<&Bytes> {
        let slot = self.slots.get(slot as usize)?;
        if slot.revision != revision || slot.bytes.is_empty() {
            return None;
        }
        if !slot.used.load(Relaxed) {
            slot.used.store(true, Relaxed);
        }
        Some(&slot.bytes)
    }

    /// The value of `revision` is needed no more.
    pub fn remove(&mut self, slot: u32, revision: Revision) {
        if self.slots.get(slot as usize).is_some_and(|s| s.revision == revision) {
            self.drop_slot(slot as usize);
        }
    }

    /// Moves the hand at most `steps` slots, until the budget is kept.
    pub fn shrink(&mut self, written: i64, steps: usize) {
        for _ in 0..steps.min(self.slots.len()) {
            if self.bytes <= self.bytes_max {
                return;
            }
            let place = self.hand;
            self.hand = (self.hand + 1) % self.slots.len();
            let slot = &mut self.slots[place];
            if slot.revision.main <= written && !std::mem::take(slot.used.get_mut()) {
                self.drop_slot(place);
            }
        }
    }

    fn drop_slot(&mut self, place: usize) {
        let slot = &mut self.slots[place];
        if !slot.bytes.is_empty() {
            self.bytes -= slot.bytes.len() + SLOT_BYTES;
            slot.bytes = Bytes::new();
            self.free.push(u32::try_from(place).expect("it was given out as one"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(main: i64) -> Revision {
        Revision { main, sub: 0 }
    }

    #[test]
    fn what_is_not_written_stays_and_what_was_read_is_spared_once() {
        let value = Bytes::from(vec![1; 36]);
        let mut values = Values::new(400);
        let slots: Vec<u32> = (0..8).map(|n| values.insert(at(n), value.clone(), -1)).collect();
        assert!((0..8).all(|n| values.get(slots[n as usize], at(n)).is_some()), "none is written");
        values.shrink(7, 8);
        assert_eq!(values.bytes, 800, "the first round only takes the marks");
        assert!(values.get(slots[0], at(0)).is_some());
        values.shrink(7, 100);
        assert_eq!(values.bytes, 400);
        assert!(values.get(slots[0], at(0)).is_some(), "read since the hand came by");
        assert!(values.get(slots[1], at(1)).is_none());

        let reused = values.insert(at(9), value, -1);
        assert!(slots.contains(&reused));
        assert!(values.get(reused, at(i64::from(reused))).is_none(), "the slot has another owner");
        values.remove(reused, at(9));
        assert!(values.get(reused, at(9)).is_none());
    }
}
