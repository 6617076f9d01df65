//! A budget of entries a second, shared by every walk that has the same handle.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::lock;

/// How long a thread sleeps before it looks whether its walk is over.
const NAP: Duration = Duration::from_millis(50);
/// Parts of a second after which the budget is looked at, so that a low one does not come in long bursts.
const LOOKS_A_SECOND: u64 = 10;

/// Lets so many entries pass a second: whoever has taken some waits until those before them are paid for.
#[derive(Debug)]
pub(super) struct Pace {
    entries_per_second: u64,
    paid_until: Mutex<Instant>,
}

impl Pace {
    pub(super) fn new(entries_per_second: u64) -> Self {
        Self { entries_per_second: entries_per_second.max(1), paid_until: Mutex::new(Instant::now()) }
    }

    /// Entries after which [`Self::spend`] should be called.
    pub(super) fn look_every(&self) -> u64 {
        (self.entries_per_second / LOOKS_A_SECOND).max(1)
    }

    /// Pays for entries; waits while others before them are being paid for, or until the walk is over.
    pub(super) fn spend(&self, entries: u64, is_over: impl Fn() -> bool) {
        let cost = Duration::from_nanos(entries.saturating_mul(1_000_000_000) / self.entries_per_second);
        let due = {
            let mut paid_until = lock(&self.paid_until);
            *paid_until = (*paid_until).max(Instant::now()) + cost;
            *paid_until
        };
        wait_until(due, is_over);
    }
}

/// Sleeps until then, or until the walk is over.
pub(super) fn wait_until(due: Instant, is_over: impl Fn() -> bool) {
    loop {
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() || is_over() {
            return;
        }
        std::thread::sleep(left.min(NAP));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_paid_for_by_all_who_share_the_budget() {
        let pace = Pace::new(10_000);
        let started = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..5).for_each(|_| pace.spend(100, || false)));
            }
        });
        assert!(started.elapsed() >= Duration::from_millis(200), "2,000 entries at 10,000 a second");
    }

    #[test]
    fn a_walk_that_is_over_waits_for_nothing() {
        let pace = Pace::new(1);
        pace.spend(1_000_000, || true);
        assert_eq!(pace.look_every(), 1);
    }
}
