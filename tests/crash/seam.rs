//! Where the controller's side effects pass: counted by kind, and the place where it dies at one of them.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use tokio::sync::watch;

/// Longer than a pass that is under way needs for its last side effects.
const REST: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(30);

/// How a side effect and its answer meet the end of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The process dies before anything happened.
    Lost,
    /// It happened; the process dies before it learns so.
    AnswerLost,
}

/// At which side effect the process dies: the `nth` of its kind, from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub kind: String,
    pub nth: usize,
    pub fault: Fault,
}

/// The seam of one process. Once it is dead nothing passes any more: its callers wait until they are dropped with it.
pub(crate) struct Seam {
    target: Option<Target>,
    passed: Mutex<Vec<String>>,
    dead: watch::Sender<bool>,
}

impl Seam {
    pub(crate) fn new(target: Option<Target>) -> Self {
        Self { target, passed: Mutex::default(), dead: watch::channel(false).0 }
    }

    /// Goes before a side effect; tells whether its answer is to be lost.
    pub(crate) async fn before(&self, kind: String) -> bool {
        self.alive().await;
        match self.note(kind) {
            Some(Fault::Lost) => self.die().await,
            Some(Fault::AnswerLost) => true,
            None => false,
        }
    }

    /// Goes between a side effect and its answer.
    pub(crate) async fn after(&self, lost: bool) {
        if lost {
            self.die().await;
        }
        self.alive().await;
    }

    /// Returns at once, or never.
    pub(crate) async fn alive(&self) {
        if *self.dead.borrow() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits for the death of the process.
    pub(crate) async fn death(&self) {
        self.dead.subscribe().wait_for(|dead| *dead).await.unwrap();
    }

    /// Waits until nothing has passed for [`REST`], or the process is dead.
    pub(crate) async fn rest(&self) {
        let until = Instant::now() + PATIENCE;
        let mut before = None;
        while !self.is_dead() && before != Some(self.passed().len()) {
            assert!(Instant::now() < until, "side effects without end: {:?}", self.passed());
            before = Some(self.passed().len());
            tokio::time::sleep(REST).await;
        }
    }

    pub(crate) fn is_dead(&self) -> bool {
        *self.dead.borrow()
    }

    /// The kinds of the side effects so far, in their order.
    pub(crate) fn passed(&self) -> Vec<String> {
        self.passed.lock().unwrap().clone()
    }

    fn note(&self, kind: String) -> Option<Fault> {
        let mut passed = self.passed.lock().unwrap();
        passed.push(kind);
        let kind = passed.last()?;
        let nth = passed.iter().filter(|other| *other == kind).count();
        let target = self.target.as_ref()?;
        (target.kind == *kind && target.nth == nth).then_some(target.fault)
    }

    async fn die(&self) -> bool {
        self.dead.send_replace(true);
        std::future::pending().await
    }
}
