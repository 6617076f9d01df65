//! How many threads a walk should have: as few as give nearly its speed.
//!
//! A cold device answers many requests at a time as fast as one, so it wants depth; a tree that is in memory wants no more threads than there
//! are cores. Nobody can know which it is, so it is tried. Too many cost a tree in memory two percent, too few a cold device most of its speed:
//! so a walk that lasts gets all, then half as many stay when they do as well, and twice as many when they pay.

use std::time::Duration;

/// How often the speed is looked at.
pub(super) const TICK: Duration = Duration::from_millis(25);
/// Ticks after a change before the speed counts, and ticks over which it counts then.
const SETTLE: u32 = 1;
const LOOK: u32 = 4;
/// Twice as many threads stay when they are faster by this factor.
const PAYS: f64 = 1.1;
/// Half as many threads stay when they are not slower than by this factor.
const AS_WELL: f64 = 0.98;
/// Ticks until the next try; doubled each time that nothing came of it.
const FIRST_HOLD: u32 = 20;
const LONGEST_HOLD: u32 = 1200;

/// Decides, tick by tick; without a clock.
#[derive(Debug)]
pub(super) struct Team {
    most: usize,
    awake: usize,
    stage: Stage,
    /// Entries since the speed counts.
    entries: u64,
    ticks: u32,
    hold: u32,
    /// Whether the next try is with more threads.
    up: bool,
}

#[derive(Debug, Clone, Copy)]
enum Stage {
    /// Most walks are over before it ends.
    Begin,
    /// Nothing is tried; for so many ticks.
    Held(u32),
    /// Another number is tried, after this speed with that many.
    Trying { before: f64, from: usize },
}

impl Team {
    /// One thread at first, and at most so many.
    pub(super) const fn new(most: usize) -> Self {
        Self { most, awake: 1, stage: Stage::Begin, entries: 0, ticks: 0, hold: FIRST_HOLD, up: false }
    }

    /// How many threads there should be.
    pub(super) const fn awake(&self) -> usize {
        self.awake
    }

    /// Takes the entries seen since the last tick; how many threads there should be from now on.
    pub(super) fn tick(&mut self, entries: u64) -> usize {
        if matches!(self.stage, Stage::Begin) {
            (self.awake, self.stage) = (self.most, Stage::Held(self.hold));
            return self.awake;
        }
        self.ticks += 1;
        if self.ticks > SETTLE {
            self.entries = self.entries.saturating_add(entries);
        }
        if self.ticks >= SETTLE + LOOK {
            #[expect(clippy::cast_precision_loss, reason = "entries of some ticks")]
            let speed = self.entries as f64;
            (self.entries, self.ticks) = (0, 0);
            self.decide(speed);
        }
        self.awake
    }

    fn decide(&mut self, speed: f64) {
        match self.stage {
            Stage::Begin => {}
            Stage::Held(left) if left > SETTLE + LOOK => self.stage = Stage::Held(left - SETTLE - LOOK),
            Stage::Held(_) => self.try_another(speed),
            Stage::Trying { before, from } => {
                let stays = if self.awake > from { speed > before * PAYS } else { speed >= before * AS_WELL };
                if stays {
                    self.hold = FIRST_HOLD;
                    self.try_another(speed);
                } else {
                    // Back, and the other way next time.
                    (self.awake, self.up) = (from, !self.up);
                    self.stage = Stage::Held(self.hold);
                    self.hold = (self.hold * 2).min(LONGEST_HOLD);
                }
            }
        }
    }

    /// Twice as many or half as many, whichever is the turn of and can be had.
    fn try_another(&mut self, before: f64) {
        let from = self.awake;
        let next = |up: bool| if up { (from * 2).min(self.most) } else { (from / 2).max(1) };
        if next(self.up) == from {
            self.up = !self.up;
        }
        self.awake = next(self.up);
        self.stage = if self.awake == from { Stage::Held(self.hold) } else { Stage::Trying { before, from } };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The number of threads after so many ticks, on a device that makes this of a number of threads.
    fn after(team: &mut Team, ticks: usize, speed: impl Fn(usize) -> u64) -> Vec<usize> {
        let mut awake = team.awake;
        (0..ticks)
            .map(|_| {
                awake = team.tick(speed(awake));
                awake
            })
            .collect()
    }

    /// Which number it had most of the time.
    fn mostly(awake: &[usize]) -> usize {
        let count = |n| awake.iter().filter(|awake| **awake == n).count();
        (1..=64).max_by_key(|n| count(*n)).unwrap()
    }

    const fn cold(threads: usize) -> u64 {
        100 * threads as u64
    }

    const fn warm_on_two_cores(threads: usize) -> u64 {
        if threads < 2 { 10_000 } else { 19_000 }
    }

    #[test]
    fn a_device_with_depth_gets_all_threads_within_half_a_second() {
        let awake = after(&mut Team::new(16), 20, cold);
        assert_eq!(awake.last(), Some(&16), "{awake:?}");
        assert!(awake.iter().all(|awake| *awake <= 16));
    }

    #[test]
    fn cores_bound_it_where_everything_is_in_memory() {
        let awake = after(&mut Team::new(16), 2000, warm_on_two_cores);
        assert_eq!(mostly(&awake), 2, "{awake:?}");
        let tries = awake.iter().filter(|awake| **awake != 2).count();
        assert!(tries < 200, "{tries} of 2000 ticks");
    }

    #[test]
    fn what_changes_is_noticed() {
        let mut team = Team::new(16);
        after(&mut team, 100, cold);
        let awake = after(&mut team, 2000, warm_on_two_cores);
        assert_eq!(mostly(&awake[1000..]), 2, "half as many do as well");
        let awake = after(&mut team, 4000, cold);
        assert_eq!(mostly(&awake[2000..]), 16, "twice as many pay");
    }

    #[test]
    fn one_thread_is_all_there_is() {
        assert!(after(&mut Team::new(1), 500, cold).iter().all(|awake| *awake == 1));
    }

    #[test]
    fn a_device_that_does_not_answer_keeps_what_it_has() {
        assert!(after(&mut Team::new(8), 500, |_| 0).iter().all(|awake| *awake >= 1 && *awake <= 8));
    }
}
