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
        let deadline = deadline.unwrap_or_else(|| Instant::now() + FOREVER);
        Self { walker, walk, turn, device, team, deadline, patience: None }
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
                self.lead();
                None
            }
        }
    }

    fn lead(&mut self) {
        let most = self.walker.threads.most();
        let wanted = self.team.as_mut().map_or(most, |team| team.tick(self.walk.seen_since()));
        let brake = self.walker.brake.as_ref();
        let allowed = brake.map_or(Allowed { threads: most, rest: 0 }, |brake| brake.allowed(most));
        self.walk.keep_awake(wanted.min(allowed.threads), allowed.rest);
    }

    fn give_up(&self) -> Outcome {
        let mut hung = self.walker.hung();
        if !self.walk.is_finished() {
            hung.insert(self.device.clone());
        }
        drop(hung);
        self.turn.give_up();
        Outcome::Measured(self.walk.so_far(Some(CutShort::Deadline)))
    }

    /// What the outcome that was told means, since the deadline may have passed.
    pub fn ended(self, told: Outcome) -> Outcome {
        match told {
            Outcome::Measured(measured) if self.patience.is_some() => {
                Outcome::Measured(Measured { cut_short: Some(CutShort::Deadline), ..measured })
            }
            told => told,
        }
    }

    /// The outcome of a walk that will tell none, for its thread panicked.
    pub fn panicked(self) -> Outcome {
        self.walk.count_panic();
        Outcome::Measured(self.walk.so_far(None))
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        self.walk.stop();
    }
}
