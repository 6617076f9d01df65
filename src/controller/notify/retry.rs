//! When what was told in vain is tried again, and for how long. The outbox and what is told apart from it have the same rules.

use std::time::Duration;

const FIRST_BACKOFF: Duration = Duration::from_secs(5);
const MAX_BACKOFF: Duration = Duration::from_secs(300);
/// How long a receiver is tried.
pub(super) const KEEP: Duration = Duration::from_secs(86_400);
/// Deliveries to one target at a time, so that one that hangs holds up itself only.
pub(super) const SHARE: usize = 4;
/// Deliveries at a time, to all targets.
pub(super) const MAX_UNDER_WAY: usize = 256;

/// The wait before the next try, after so many in vain before this one: 5 s, doubling to 5 min, less up to a quarter by lot.
pub(super) fn backoff(attempts: u32) -> Duration {
    let wait = FIRST_BACKOFF.saturating_mul(1 << attempts.min(6)).min(MAX_BACKOFF);
    wait.mul_f64(rand::random_range(0.75..=1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_from_five_seconds_to_five_minutes() {
        for (attempts, most) in [(0, 5), (1, 10), (2, 20), (5, 160), (6, 300), (7, 300), (u32::MAX, 300)] {
            let (wait, most) = (backoff(attempts), Duration::from_secs(most));
            assert!(wait <= most && wait >= most.mul_f64(0.75), "{attempts}: {wait:?}");
        }
    }
}
