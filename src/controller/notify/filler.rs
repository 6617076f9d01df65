//! Has the templates of Secrets filled in by processes of their own: whatever one does, only its process ends.
//!
//! Templates are written by others, and no count of instructions bounds what their values take: the process limits its own memory and time
//! (`volumeviz fill-template`), has no environment, and is given up after a while.

use std::collections::HashMap;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::sample;
use super::template::{Filled, Mistake, Templates};
use crate::domain::alert::notification::Notification;

/// Of what a process writes to, in bytes, its stack apart. As many as may be at a time fit beside the controller into what the chart gives it.
pub const MAX_MEMORY: u64 = 128 << 20;
/// Of processor time.
pub const MAX_SECONDS: u64 = 1;
/// Of what is asked and answered, in bytes.
pub const MAX_TRANSFER: u64 = 4 << 20;
/// The subcommand that fills in.
const SUBCOMMAND: &str = "fill-template";
/// Of one process, from its start to its end.
const DEADLINE: Duration = Duration::from_secs(10);
/// Processes at a time.
const MAX_AT_A_TIME: usize = 2;
/// Of what a process says before it is killed.
const MAX_LAST_WORDS: u64 = 4096;
/// How long what was found out about templates is believed.
const KEEP: Duration = Duration::from_secs(600);
const MAX_KNOWN: usize = 1024;

/// Fills in templates.
pub struct Filler {
    program: PathBuf,
    turns: Arc<Semaphore>,
    known: Mutex<HashMap<Key, Verdict>>,
}

/// Which templates.
type Key = [u8; 32];

struct Verdict {
    at: Instant,
    outcome: Result<(), Problem>,
}

/// Why templates are not filled in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// They say so.
    #[error(transparent)]
    Mistake(#[from] Mistake),
    /// The process did not say.
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// How a process failed to fill in templates.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It has only so much.
    #[error("took more than {MAX_SECONDS} s of processor time")]
    Time,
    /// It has only so much.
    #[error("took more than {} MiB of memory", MAX_MEMORY >> 20)]
    Memory,
    /// Values that hold values, or themselves.
    #[error("went too deep for the stack")]
    Depth,
    /// Somebody else ended it, who was in want of memory, say.
    #[error("was ended by signal {0}")]
    Signal(i32),
    /// It ended without an answer.
    #[error("ended with {0}")]
    Ended(ExitStatus),
    /// Others took the processors.
    #[error("took longer than {DEADLINE:?}")]
    Late,
    /// There is none.
    #[error("needs a process, which cannot be started: {0}")]
    NotStarted(io::ErrorKind),
}

impl Fault {
    /// Whether it would happen again.
    pub const fn is_of_the_templates(&self) -> bool {
        matches!(self, Self::Time | Self::Memory | Self::Depth | Self::Ended(_))
    }
}

impl Filler {
    /// The program that this process runs, even if its file is another by now.
    pub const THIS_PROGRAM: &str = "/proc/self/exe";

    /// Has them filled in by this program, which is `volumeviz`.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), turns: Arc::new(Semaphore::new(MAX_AT_A_TIME)), known: Mutex::default() }
    }

    /// What they make of a notification. Those that lately took too much are not tried again before they are changed: they keep no others
    /// from their turn.
    pub async fn fill_in(
        self: &Arc<Self>,
        templates: &Templates,
        notification: &Notification,
    ) -> Result<Filled, Problem> {
        if templates.are_plain() {
            return Ok(templates.fill_in(notification)?);
        }
        // It is never closed.
        let turn = Arc::clone(&self.turns).acquire_owned().await.ok();
        let key = key(templates);
        if let Some(Err(problem @ Problem::Fault(_))) = self.known(&key) {
            return Err(problem);
        }
        let (child, request) = (self.start()?, json!((templates, notification)).to_string());
        let filler = Arc::clone(self);
        // It goes on when nobody waits for it any more: the next to ask is told at once what it ended with.
        let asked = tokio::spawn(async move {
            let _turn = turn;
            let answer = timeout(DEADLINE, converse(child, request)).await.unwrap_or(Err(Fault::Late));
            if let Err(fault) = &answer {
                filler.learn(key, Err(fault.clone().into()));
            }
            answer
        });
        Ok(asked.await.unwrap_or(Err(Fault::Late))??)
    }

    /// Whether they can be filled in, found out once for the same templates.
    pub async fn check(self: &Arc<Self>, templates: &Templates) -> Result<(), Problem> {
        let key = key(templates);
        if let Some(outcome) = self.known(&key) {
            return outcome;
        }
        let outcome = self.try_out(templates).await;
        self.learn(key, outcome.clone());
        outcome
    }

    async fn try_out(self: &Arc<Self>, templates: &Templates) -> Result<(), Problem> {
        for example in [sample::full(), sample::bare()] {
            self.fill_in(templates, &example).await?;
        }
        Ok(())
    }

    fn start(&self) -> Result<Child, Fault> {
        let mut command = Command::new(&self.program);
        command.arg(SUBCOMMAND).env_clear().kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().map_err(|error| Fault::NotStarted(error.kind()))
    }

    fn known(&self, key: &Key) -> Option<Result<(), Problem>> {
        let known = self.verdicts();
        known.get(key).filter(|verdict| verdict.at.elapsed() < KEEP).map(|verdict| verdict.outcome.clone())
    }

    /// Keeps what is the templates' doing.
    fn learn(&self, key: Key, outcome: Result<(), Problem>) {
        if matches!(&outcome, Err(Problem::Fault(fault)) if !fault.is_of_the_templates()) {
            return;
        }
        let mut known = self.verdicts();
        known.retain(|_, verdict| verdict.at.elapsed() < KEEP);
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.insert(key, Verdict { at: Instant::now(), outcome });
    }

    fn verdicts(&self) -> MutexGuard<'_, HashMap<Key, Verdict>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(templates: &Templates) -> Key {
    Sha256::digest(json!(templates).to_string()).into()
}

/// Hands a process the request, and takes its answer or its last words.
async fn converse(mut child: Child, request: String) -> Result<Result<Filled, Mistake>, Fault> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let asking = async {
        if let Some(mut stdin) = stdin {
            // One that ended says so itself.
            drop(stdin.write_all(request.as_bytes()).await);
        }
    };
    let (mut answer, mut last_words) = (Vec::new(), Vec::new());
    let ((), (), (), ended) = tokio::join!(
        asking,
        read(stdout, MAX_TRANSFER, &mut answer),
        read(stderr, MAX_LAST_WORDS, &mut last_words),
        child.wait()
    );
    let status = ended.map_err(|error| Fault::NotStarted(error.kind()))?;
    if !status.success() {
        return Err(fault(status, &String::from_utf8_lossy(&last_words)));
    }
    serde_json::from_slice(&answer).map_err(|_| Fault::Ended(status))
}

/// Reads as much as may be; what is cut makes no sense, and is found out by that.
async fn read(from: Option<impl AsyncReadExt + Unpin>, most_bytes: u64, into: &mut Vec<u8>) {
    if let Some(from) = from {
        drop(from.take(most_bytes).read_to_end(into).await);
    }
}

/// What a process died of: its runtime says why it aborts.
fn fault(status: ExitStatus, last_words: &str) -> Fault {
    match status.signal() {
        Some(libc::SIGXCPU) => Fault::Time,
        Some(libc::SIGABRT) if last_words.contains("memory allocation of") => Fault::Memory,
        Some(libc::SIGABRT) if last_words.contains("overflowed its stack") => Fault::Depth,
        Some(libc::SIGSEGV) => Fault::Depth,
        Some(signal @ libc::SIGKILL) => Fault::Signal(signal),
        _ => Fault::Ended(status),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_died_of_is_told() {
        let signalled = |signal: i32| ExitStatus::from_raw(signal);
        let failed = ExitStatus::from_raw(101 << 8);
        for (status, last_words, told) in [
            (signalled(libc::SIGXCPU), "", "took more than 1 s of processor time"),
            (signalled(libc::SIGABRT), "memory allocation of 8 bytes failed\n", "took more than 128 MiB of memory"),
            (signalled(libc::SIGABRT), "\nthread 'main' has overflowed its stack\n", "went too deep for the stack"),
            (signalled(libc::SIGSEGV), "", "went too deep for the stack"),
            (signalled(libc::SIGKILL), "", "was ended by signal 9"),
            (signalled(libc::SIGBUS), "canary", "ended with signal: 7 (SIGBUS)"),
            (failed, "canary", "ended with exit status: 101"),
        ] {
            assert_eq!(fault(status, last_words).to_string(), told);
        }
    }

    #[tokio::test]
    async fn only_what_is_the_templates_doing_is_kept() {
        let filler = Filler::new("/nonexistent");
        let templates = Templates { headers: Vec::new(), body: Some("{{ alert }}".to_owned()) };
        let not_started = Err(Problem::Fault(Fault::NotStarted(io::ErrorKind::NotFound)));
        assert_eq!(Arc::new(filler).check(&templates).await, not_started);
        let filler = Filler::new("/nonexistent");
        for (outcome, kept) in [
            (not_started, false),
            (Err(Problem::Fault(Fault::Late)), false),
            (Err(Problem::Fault(Fault::Signal(9))), false),
            (Err(Problem::Fault(Fault::Time)), true),
            (Ok(()), true),
        ] {
            filler.learn(key(&templates), outcome.clone());
            assert_eq!(filler.known(&key(&templates)) == Some(outcome), kept);
        }
        assert_eq!(filler.known(&key(&Templates::default())), None);
    }
}
