//! A walk under way, and who looks after it: has its threads be as many as they should, ends it in time, gives it up when the kernel hangs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::brake::Allowed;
use super::pool::Turn;
use super::team::{TICK, Team};
use super::threads::Walk;
use super::{CutShort, Device, Measured, Outcome, Threads, Walker};

/// How long threads get to notice that a walk is over before they count as hung.
const NOTICE: Duration = Duration::from_millis(500);
/// The same when nobody could tell a slow disk from one that hangs: a walk that was dropped.
const LONG_NOTICE: Duration = Duration::from_secs(5);
/// Without a deadline a walk may take as long as this.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// A walk under way. Whoever started it calls [`Self::look`] whenever [`Self::next_look`] has passed, until the outcome is there; when this is
/// dropped before, the walk is stopped.
#[derive(Debug)]
pub struct Started {
    walker: Walker,
    walk: Arc<Walk>,
    turn: Arc<Turn>,
    device: Device,
    team: Option<Team>,
    deadline: Instant,
    /// From then on it rests no more: who is kind all the time has no result in the end.
    halfway: Instant,
    /// Nobody waits for it any more.
    is_over: bool,
    /// When it is given up: its threads were told that the deadline has passed.
    patience: Option<Instant>,
}

impl Started {
    pub(super) fn of(
        walker: Walker,
        walk: Arc<Walk>,
        turn: Arc<Turn>,
        device: Device,
        deadline: Option<Instant>,
    ) -> Self {
        let team = match walker.threads {
            Threads::UpTo(most) => Some(Team::new(most)),
            Threads::Exactly(_) => None,
        };
        let now = Instant::now();
        let deadline = deadline.unwrap_or_else(|| now + FOREVER);
        let halfway = now + deadline.saturating_duration_since(now) / 2;
        Self { walker, walk, turn, device, team, deadline, halfway, is_over: false, patience: None }
    }

    /// How long it may be left alone.
    pub fn next_look(&self) -> Duration {
        let until = self.patience.unwrap_or(self.deadline).saturating_duration_since(Instant::now());
        if self.patience.is_some() { until } else { until.min(TICK) }
    }

    /// Looks after it, without waiting for anything. With an outcome it was given up: a thread hangs in the kernel, and there will be no other.
    pub fn look(&mut self) -> Option<Outcome> {
        let now = Instant::now();
        match self.patience {
            Some(patience) => (now >= patience).then(|| self.give_up()),
            None if now >= self.deadline => {
                self.walk.stop();
                self.patience = Some(now + NOTICE);
                None
            }
            None => {
                self.lead(now);
                None
            }
        }
    }

    fn lead(&mut self, now: Instant) {
        let was_silent = self.walk.is_silent();
        let allowed = self.allowed(now);
        let seen = self.walk.seen_since();
        // What is seen in silence says nothing of a number of threads.
        let wanted = match &mut self.team {
            Some(team) if was_silent || self.walk.is_silent() => team.awake(),
            Some(team) => team.tick(seen),
            None => allowed.threads,
        };
        self.walk.keep_awake(wanted.min(allowed.threads), allowed.rest);
    }

    fn allowed(&self, now: Instant) -> Allowed {
        let most = self.walker.threads.most();
        let allowed = self.walker.brake.as_ref().map(|brake| brake.allowed(most));
        match allowed {
            Some(allowed) if now < self.halfway => allowed,
            Some(Allowed { threads, .. }) => Allowed { threads, rest: 0 },
            None => Allowed { threads: most, rest: 0 },
        }
    }

    fn give_up(&mut self) -> Outcome {
        self.is_over = true;
        if self.turn.give_up() {
            self.walker.abandon(&self.walk, &self.device, Instant::now());
        }
        Outcome::Measured(self.walk.so_far(Some(CutShort::Deadline)))
    }

    /// What the outcome that was told means, since the deadline may have passed.
    pub fn ended(mut self, told: Outcome) -> Outcome {
        self.is_over = true;
        match told {
            Outcome::Measured(measured) if self.patience.is_some() => {
                Outcome::Measured(Measured { cut_short: Some(CutShort::Deadline), ..measured })
            }
            told => told,
        }
    }

    /// The outcome of a walk that will tell none, for its thread panicked.
    pub fn panicked(mut self) -> Outcome {
        self.is_over = true;
        self.walk.count_panic();
        Outcome::Measured(self.walk.so_far(None))
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        self.walk.stop();
        if !self.is_over && self.turn.give_up() {
            self.walker.abandon(&self.walk, &self.device, Instant::now() + LONG_NOTICE);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::super::brake::{self, Brake};
    use super::super::{Handle, Options};
    use super::*;

    /// The brake's step after a walk of three seconds, while others wait for I/O so much of the time.
    fn step_beside(others: f64) -> u32 {
        let (root, pressure) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for n in 0..900 {
            std::fs::write(root.path().join(n.to_string()), "").unwrap();
        }
        brake::tell(pressure.path(), 0, 0);
        let brake = Arc::new(Brake::at(pressure.path().into()).unwrap());
        let walker = Walker { brake: Some(Arc::clone(&brake)), ..Walker::new(Threads::UpTo(4)) };
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let begin = Instant::now();
                while !over.load(Ordering::Relaxed) {
                    let waited = begin.elapsed().mul_f64(others).as_micros();
                    brake::tell(pressure.path(), u64::try_from(waited).unwrap(), 0);
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
            let options = Options { handle: Handle::with_budget(300), ..Options::default() };
            let outcome = walker.measure(root.path(), &options);
            over.store(true, Ordering::Relaxed);
            let Outcome::Measured(measured) = outcome else { panic!("{outcome:?}") };
            assert_eq!((measured.totals.files, measured.cut_short), (900, None), "silence ends");
        });
        brake.step()
    }

    #[test]
    fn a_walk_that_has_used_half_its_time_rests_no_more() {
        let pressure = tempfile::tempdir().unwrap();
        brake::tell(pressure.path(), 0, 0);
        let brake = Brake::at(pressure.path().into()).unwrap();
        brake.set_step(8);
        let walker = Walker { brake: Some(Arc::new(brake)), ..Walker::new(Threads::UpTo(8)) };
        let (begin, minute) = (Instant::now(), Duration::from_secs(60));
        let walk = Arc::new(Walk::new("/".into(), &walker, &Options::default()));
        let turn = walker.pool.walk(|| {}).unwrap();
        let started = Started::of(walker, walk, turn, String::new(), Some(begin + minute));
        assert_eq!(started.allowed(begin + minute / 3), Allowed { threads: 1, rest: 7 });
        assert_eq!(started.allowed(begin + minute * 2 / 3), Allowed { threads: 1, rest: 0 });
    }

    #[test]
    fn a_walk_listens_while_it_lasts_and_slows_down_when_others_wait() {
        assert!(step_beside(0.9) > 0);
        assert_eq!(step_beside(0.0), 0);
    }
}
