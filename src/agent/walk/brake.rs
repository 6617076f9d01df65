//! Backs off when workloads of the node have to wait (pressure stall information, Linux 4.20).
//!
//! `/proc/pressure/*` tells how long some task of the whole system had to wait for I/O, CPU or memory; `*.pressure` of the own cgroup (version 2)
//! how long our own had to. What is left is at least what others had to wait. Where the own share cannot be told there is no brake: a walk
//! that brakes for itself would never end.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::lock;

/// How often it is looked.
const EVERY: Duration = Duration::from_secs(1);
/// Share of the time that others wait at which we back off by a step, and below which we come forward by one.
const BACK_OFF: f64 = 0.20;
const COME_FORWARD: f64 = 0.10;
/// One thread that rests seven times as long as it works.
const LAST_STEP: u32 = 8;
const RESOURCES: [&str; 3] = ["io", "cpu", "memory"];

/// Shared by all walks of a process.
#[derive(Debug)]
pub(super) struct Brake {
    system: PathBuf,
    own: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last: Option<(Instant, Waits)>,
    step: u32,
}

/// Microseconds waited by resource: by anybody, and by us.
type Waits = [(u64, u64); RESOURCES.len()];

/// How much of its speed a walk may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Allowed {
    /// Threads, at least one.
    pub(super) threads: usize,
    /// How many times as long as it has worked a thread rests.
    pub(super) rest: u32,
}

impl Brake {
    /// By the kernel's files; `None` where they do not tell what is ours.
    pub(super) fn of_this_process() -> Option<Self> {
        let cgroups = fs::read_to_string("/proc/self/cgroup").ok()?;
        let own = cgroups.lines().find_map(|line| line.strip_prefix("0::/"))?;
        Self::at("/proc/pressure".into(), Path::new("/sys/fs/cgroup").join(own))
    }

    fn at(system: PathBuf, own: PathBuf) -> Option<Self> {
        waits(&system, &own)?;
        Some(Self { system, own, state: Mutex::default() })
    }

    /// What a walk of so many threads may do now.
    pub(super) fn allowed(&self, threads: usize) -> Allowed {
        let mut state = lock(&self.state);
        let now = Instant::now();
        if state.last.is_none_or(|(at, _)| now - at >= EVERY)
            && let Some(waits) = waits(&self.system, &self.own)
        {
            if let Some((at, before)) = state.last {
                state.step = next_step(state.step, others(&before, &waits, now - at));
            }
            state.last = Some((now, waits));
        }
        allowed(state.step, threads)
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
        _ if others >= BACK_OFF => (step + 1).min(LAST_STEP),
        _ if others < COME_FORWARD => step.saturating_sub(1),
        _ => step,
    }
}

/// The share of the time that others had to wait for the scarcest resource, at least.
fn others(before: &Waits, after: &Waits, elapsed: Duration) -> f64 {
    let waited = |((all, own), (all_before, own_before)): (&(u64, u64), &(u64, u64))| {
        all.saturating_sub(*all_before).saturating_sub(own.saturating_sub(*own_before))
    };
    let most = after.iter().zip(before).map(waited).max().unwrap_or(0);
    Duration::from_micros(most).as_secs_f64() / elapsed.as_secs_f64().max(f64::EPSILON)
}

fn waits(system: &Path, own: &Path) -> Option<Waits> {
    let mut waits = Waits::default();
    for (waited, resource) in waits.iter_mut().zip(RESOURCES) {
        *waited = (total(&system.join(resource))?, total(&own.join(format!("{resource}.pressure")))?);
    }
    Some(waits)
}

/// Of the line `some avg10=0.00 avg60=0.00 avg300=0.00 total=518266134`.
fn total(path: &Path) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find(|line| line.starts_with("some "))?.rsplit_once("total=")?.1.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tell(folder: &Path, suffix: &str, io: u64, cpu: u64) {
        for (resource, total) in [("io", io), ("cpu", cpu), ("memory", 0)] {
            let text = format!(
                "some avg10=1.00 avg60=0.00 avg300=0.00 total={total}\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=9\n"
            );
            fs::write(folder.join(format!("{resource}{suffix}")), text).unwrap();
        }
    }

    #[test]
    fn without_the_own_share_there_is_no_brake() {
        let folder = tempfile::tempdir().unwrap();
        tell(folder.path(), "", 5, 5);
        assert!(Brake::at(folder.path().into(), folder.path().join("none")).is_none());
        tell(folder.path(), ".pressure", 5, 5);
        assert!(Brake::at(folder.path().into(), folder.path().into()).is_some());
    }

    #[test]
    fn what_others_wait_is_what_we_did_not() {
        let second = Duration::from_secs(1);
        let waits = |io, cpu| [io, cpu, (0, 0)];
        let others = |io, cpu| others(&waits((0, 0), (0, 0)), &waits(io, cpu), second);
        assert!(others((900_000, 900_000), (10_000, 0)) < 0.02, "all that waits is ours");
        assert!((others((900_000, 500_000), (0, 0)) - 0.4).abs() < 0.001);
        assert!((others((0, 0), (300_000, 0)) - 0.3).abs() < 0.001);
        assert!(others((5, 900_000), (0, 0)) < 0.001, "never negative");
    }

    #[test]
    fn it_backs_off_by_steps_and_comes_forward_again() {
        let steps = [0.5, 0.5, 0.15, 0.0, 0.0, 0.0].iter().scan(0, |step, others| {
            *step = next_step(*step, *others);
            Some(*step)
        });
        assert_eq!(steps.collect::<Vec<_>>(), [1, 2, 2, 1, 0, 0]);
        let allowed: Vec<_> = (0..=8).map(|step| allowed(step, 8)).map(|a| (a.threads, a.rest)).collect();
        assert_eq!(allowed, [(8, 0), (4, 0), (2, 0), (1, 0), (1, 1), (1, 3), (1, 7), (1, 7), (1, 7)]);
    }

    #[test]
    fn the_kernels_files_are_read() {
        let folder = tempfile::tempdir().unwrap();
        tell(folder.path(), "", 0, 0);
        tell(folder.path(), ".pressure", 0, 0);
        let brake = Brake::at(folder.path().into(), folder.path().into()).unwrap();
        assert_eq!(brake.allowed(2), Allowed { threads: 2, rest: 0 });
        tell(folder.path(), "", 900_000_000, 0);
        let look = Instant::now().checked_sub(EVERY).unwrap();
        lock(&brake.state).last.as_mut().unwrap().0 = look;
        assert_eq!(brake.allowed(2), Allowed { threads: 1, rest: 0 });
    }
}
