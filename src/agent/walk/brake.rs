//! Backs off when workloads of the node have to wait (pressure stall information, Linux 4.20).
//!
//! `/proc/pressure/*` tells how long some task of the whole system had to wait for I/O, CPU or memory, ours among them: a walk of a cold disk
//! waits all the time, and would hide what others wait. So now and then all our threads fall silent for a moment, and it is listened how long
//! anybody waits then.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::lock;

/// From the end of one silence to the next.
const EVERY: Duration = Duration::from_secs(1);
/// Until the calls that were under way have come back.
const HUSH: Duration = Duration::from_millis(20);
const LISTEN: Duration = Duration::from_millis(20);
/// Whoever leads may have to wait himself, for a database or a pipe.
const LONGEST_SILENCE: Duration = Duration::from_millis(250);
/// Share of the time that others wait at which we back off by a step, and below which we come forward by one.
const BACK_OFF: f64 = 0.20;
const COME_FORWARD: f64 = 0.10;
/// The first step back: one thread, whatever the number (up to 16).
const FIRST_STEP: u32 = 4;
/// One thread that rests seven times as long as it works.
const LAST_STEP: u32 = 8;
const RESOURCES: [&str; 3] = ["io", "cpu", "memory"];

/// Shared by all walks of a walker.
#[derive(Debug)]
pub(super) struct Brake {
    pressure: PathBuf,
    is_silent: AtomicBool,
    /// Until then at most, whoever should end it: milliseconds from `made` on.
    silent_until: AtomicU64,
    made: Instant,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    step: u32,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    WorkingUntil(Instant),
    SilentSince(Instant),
    ListeningSince(Instant, Waits),
}

/// Microseconds that some task of the system has waited, by resource.
type Waits = [u64; RESOURCES.len()];

/// How much of its speed a walk may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Allowed {
    /// Threads, at least one.
    pub(super) threads: usize,
    /// How many times as long as it has worked a thread rests.
    pub(super) rest: u32,
}

impl Brake {
    /// By the kernel's files; `None` where it does not tell.
    pub(super) fn of_this_system() -> Option<Self> {
        Self::at("/proc/pressure".into())
    }

    pub(super) fn at(pressure: PathBuf) -> Option<Self> {
        waits(&pressure)?;
        // It is listened as soon as a walk lasts.
        let made = Instant::now();
        let state = Mutex::new(State { phase: Phase::WorkingUntil(made), step: 0 });
        Some(Self { pressure, is_silent: AtomicBool::new(false), silent_until: AtomicU64::new(0), made, state })
    }

    /// Whether no thread may do anything now.
    pub(super) fn is_silent(&self) -> bool {
        self.is_silent.load(Ordering::Relaxed)
            && self.made.elapsed().as_millis() < u128::from(self.silent_until.load(Ordering::Relaxed))
    }

    /// What a walk of so many threads may do. Whoever leads a walk asks every some milliseconds: it is also what makes silence begin and end.
    pub(super) fn allowed(&self, threads: usize) -> Allowed {
        let mut state = lock(&self.state);
        state.advance(Instant::now(), || waits(&self.pressure));
        if let Phase::SilentSince(begin) = state.phase {
            let end = (begin + LONGEST_SILENCE).saturating_duration_since(self.made);
            self.silent_until.store(u64::try_from(end.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
        self.is_silent.store(!matches!(state.phase, Phase::WorkingUntil(_)), Ordering::Relaxed);
        allowed(state.step, threads)
    }

    #[cfg(test)]
    pub(super) fn step(&self) -> u32 {
        lock(&self.state).step
    }

    #[cfg(test)]
    pub(super) fn set_step(&self, step: u32) {
        lock(&self.state).step = step;
    }
}

impl State {
    fn advance(&mut self, now: Instant, waits: impl FnOnce() -> Option<Waits>) {
        let working = Phase::WorkingUntil(now + EVERY);
        self.phase = match self.phase {
            Phase::WorkingUntil(end) if now >= end => Phase::SilentSince(now),
            Phase::SilentSince(begin) if now - begin >= HUSH => {
                waits().map_or(working, |waits| Phase::ListeningSince(now, waits))
            }
            Phase::ListeningSince(begin, before) if now - begin >= LISTEN => {
                if let Some(after) = waits() {
                    self.step = next_step(self.step, share(&before, &after, now - begin));
                }
                working
            }
            unchanged => unchanged,
        };
    }
}

/// First half as many threads a step, then twice the rest.
fn allowed(step: u32, threads: usize) -> Allowed {
    let threads = threads.max(1);
    let halvings = threads.ilog2();
    let rests = step.saturating_sub(halvings);
    Allowed { threads: (threads >> step.min(halvings)).max(1), rest: (1 << rests.min(3)) - 1 }
}

fn next_step(step: u32, others: f64) -> u32 {
    match others {
        _ if others >= BACK_OFF => (step + 1).clamp(FIRST_STEP, LAST_STEP),
        _ if others < COME_FORWARD => step.saturating_sub(1),
        _ => step,
    }
}

/// The share of the time that somebody had to wait for the scarcest resource.
fn share(before: &Waits, after: &Waits, elapsed: Duration) -> f64 {
    let most = after.iter().zip(before).map(|(after, before)| after.saturating_sub(*before)).max().unwrap_or(0);
    Duration::from_micros(most).as_secs_f64() / elapsed.as_secs_f64().max(f64::EPSILON)
}

fn waits(pressure: &Path) -> Option<Waits> {
    let mut waits = Waits::default();
    for (waited, resource) in waits.iter_mut().zip(RESOURCES) {
        *waited = total(&pressure.join(resource))?;
    }
    Some(waits)
}

/// Of the line `some avg10=0.00 avg60=0.00 avg300=0.00 total=518266134`.
fn total(path: &Path) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find(|line| line.starts_with("some "))?.rsplit_once("total=")?.1.trim().parse().ok()
}

/// Pressure as the kernel would tell it.
#[cfg(test)]
pub(super) fn tell(folder: &Path, io: u64, cpu: u64) {
    for (resource, total) in [("io", io), ("cpu", cpu), ("memory", 0)] {
        let text = format!(
            "some avg10=1.00 avg60=0.00 avg300=0.00 total={total}\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=9\n"
        );
        // Never half of it, as the kernel.
        let file = folder.join(format!("{resource}.new"));
        fs::write(&file, text).unwrap();
        fs::rename(&file, folder.join(resource)).unwrap();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_the_kernel_does_not_tell_there_is_no_brake() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Brake::at(folder.path().into()).is_none());
        tell(folder.path(), 5, 5);
        assert!(Brake::at(folder.path().into()).is_some());
        // As with `psi=0`.
        fs::write(folder.path().join("cpu"), "").unwrap();
        assert!(Brake::at(folder.path().into()).is_none());
    }

    #[test]
    fn the_scarcest_resource_counts() {
        let share = |io: u64, cpu: u64| share(&[5, 5, 0], &[5 + io, 5 + cpu, 0], Duration::from_secs(1));
        assert!((share(900_000, 500_000) - 0.9).abs() < 0.001);
        assert!((share(0, 300_000) - 0.3).abs() < 0.001);
        assert!(share(0, 0) < 0.001);
    }

    #[test]
    fn it_backs_off_at_once_then_by_steps_and_comes_forward_again() {
        let steps = [0.5, 0.5, 0.15, 0.0, 0.0, 0.9].iter().scan(0, |step, others| {
            *step = next_step(*step, *others);
            Some(*step)
        });
        assert_eq!(steps.collect::<Vec<_>>(), [4, 5, 5, 4, 3, 4]);
        assert_eq!((next_step(8, 1.0), next_step(0, 0.0)), (8, 0));
        let allowed: Vec<_> = (0..=8).map(|step| allowed(step, 8)).map(|a| (a.threads, a.rest)).collect();
        assert_eq!(allowed, [(8, 0), (4, 0), (2, 0), (1, 0), (1, 1), (1, 3), (1, 7), (1, 7), (1, 7)]);
    }

    #[test]
    fn what_counts_is_what_is_waited_in_silence() {
        let begin = Instant::now();
        let mut state = State { phase: Phase::WorkingUntil(begin), step: 0 };
        let mut at = |milliseconds, waited| {
            state.advance(begin + Duration::from_millis(milliseconds), || Some([waited, 0, 0]));
            (state.step, !matches!(state.phase, Phase::WorkingUntil(_)))
        };
        assert_eq!(at(0, 0), (0, true), "silence begins");
        assert_eq!(at(10, 10_000), (0, true), "what comes back late is not listened to");
        assert_eq!(at(25, 25_000), (0, true));
        assert_eq!(at(50, 26_000), (0, false), "nobody else waited");
        assert_eq!(at(1040, 1_000_000), (0, false), "what is waited meanwhile may be ours");
        assert_eq!(at(1050, 1_001_000), (0, true));
        assert_eq!(at(1070, 1_001_000), (0, true));
        assert_eq!(at(1090, 1_021_000), (4, false), "others wait");
    }

    #[test]
    fn silence_ends_though_nobody_ends_it() {
        let folder = tempfile::tempdir().unwrap();
        tell(folder.path(), 0, 0);
        let brake = Brake::at(folder.path().into()).unwrap();
        brake.allowed(1);
        let until = Instant::now() + Duration::from_secs(10);
        while brake.is_silent() {
            assert!(Instant::now() < until);
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(brake.is_silent.load(Ordering::Relaxed), "nobody ended it");
    }

    #[test]
    fn the_kernels_files_are_read() {
        let folder = tempfile::tempdir().unwrap();
        tell(folder.path(), 0, 0);
        let brake = Brake::at(folder.path().into()).unwrap();
        let before = Instant::now().checked_sub(LISTEN).unwrap();
        lock(&brake.state).phase = Phase::ListeningSince(before, [0; 3]);
        tell(folder.path(), 900_000_000, 0);
        assert_eq!(brake.allowed(16), Allowed { threads: 1, rest: 0 });
        assert!(!brake.is_silent());
    }
}
