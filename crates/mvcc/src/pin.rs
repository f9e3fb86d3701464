//! Pins: a promise that a revision stays readable while somebody is reading at it.
//!
//! A pin is made while the index is locked for reading, or by the thread that prunes, and pruning asks for the lowest
//! pin while it has the index locked for writing. So pruning has either not begun when a pin is made, or it respects
//! it. The other way round: whoever finds his pin unrevoked while he holds the lock finds everything that the pin
//! protects.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Holds a revision alive until it is dropped: the compaction mark may pass it, but what is readable at it is
/// neither pruned nor reclaimed. A pin that is not used for too long is revoked; from then on reads through it
/// fail with [`crate::ReadError::Revoked`].
#[derive(Debug)]
pub struct Pin {
    revision: i64,
    number: u64,
    held: Arc<Held>,
    pins: Arc<Pins>,
}

impl Pin {
    /// The pinned main revision.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// Whether it holds no more.
    pub fn is_revoked(&self) -> bool {
        self.held.revoked.load(SeqCst)
    }

    /// Says that its reader is alive: something was taken.
    pub fn touch(&self) {
        self.held.touched.store(self.pins.ticks.load(SeqCst), SeqCst);
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.pins.lock().remove(&(self.revision, self.number));
    }
}

#[derive(Debug)]
struct Held {
    revoked: AtomicBool,
    /// The tick of the last use.
    touched: AtomicU64,
}

/// All pins. The mutex guards a small map and is never held across anything that waits.
#[derive(Debug, Default)]
pub(crate) struct Pins {
    held: Mutex<BTreeMap<(i64, u64), Arc<Held>>>,
    ticks: AtomicU64,
    made: AtomicU64,
}

impl Pins {
    /// Pins `revision`. The caller holds the index lock or is the thread that prunes, and knows that the revision is
    /// readable.
    pub fn pin(self: &Arc<Pins>, revision: i64) -> Pin {
        let held = Arc::new(Held {
            revoked: AtomicBool::new(false),
            touched: AtomicU64::new(self.ticks.load(SeqCst)),
        });
        let number = self.made.fetch_add(1, SeqCst);
        self.lock().insert((revision, number), held.clone());
        Pin { revision, number, held, pins: self.clone() }
    }

    /// The lowest pinned revision.
    pub fn lowest(&self) -> Option<i64> {
        self.lock().first_key_value().map(|((revision, _), _)| *revision)
    }

    /// One tick: revokes what was not used for `idle_max` ticks; returns how many.
    pub fn tick(&self, idle_max: u64) -> usize {
        let now = self.ticks.fetch_add(1, SeqCst) + 1;
        self.revoke(|held| now.saturating_sub(held.touched.load(SeqCst)) > idle_max)
    }

    /// Revokes all.
    pub fn revoke_all(&self) -> usize {
        self.revoke(|_| true)
    }

    fn revoke(&self, is_due: impl Fn(&Held) -> bool) -> usize {
        let mut pins = self.lock();
        let before = pins.len();
        pins.retain(|_, held| {
            let due = is_due(held);
            if due {
                held.revoked.store(true, SeqCst);
            }
            !due
        });
        before - pins.len()
    }

    /// A map is whole also after a panic elsewhere.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<(i64, u64), Arc<Held>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_counts_and_the_idle_are_revoked() {
        let pins = Arc::new(Pins::default());
        let (low, high) = (pins.pin(3), pins.pin(7));
        let second = pins.pin(3);
        assert_eq!(pins.lowest(), Some(3));
        drop(low);
        assert_eq!(pins.lowest(), Some(3), "two held it");
        assert_eq!(pins.tick(1), 0);
        high.touch();
        assert_eq!(pins.tick(1), 1);
        assert!(second.is_revoked() && !high.is_revoked());
        assert_eq!(pins.lowest(), Some(7));
        drop(second);
        assert_eq!(pins.lowest(), Some(7));
        drop(high);
        assert_eq!(pins.lowest(), None);
    }
}
