//! Threads that walk, kept for a moment after each walk: most volumes are small, and starting a thread costs as much as reading a hundred files.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{lock, sys};

/// How long a thread waits for more before it ends.
const LINGER: Duration = Duration::from_millis(100);

type Job = Box<dyn FnOnce() + Send>;

/// Shared by all walks of a walker.
#[derive(Debug)]
pub(super) struct Pool {
    /// Whether its threads leave the disk to others.
    is_kind: bool,
    /// Walks at a time; further ones wait for their turn.
    most_walks: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Walks under way that were not given up.
    walks: usize,
    /// Threads that have something to do, those that hang among them.
    busy: usize,
    /// Walks whose turn has not come.
    queue: VecDeque<(Arc<Turn>, Job)>,
    /// The threads that have nothing to do: a number and the way to each.
    waiting: Vec<(u64, Sender<Job>)>,
    last: u64,
}

/// A walk's turn, which ends once: when the walk does, or is given up.
#[derive(Debug)]
pub(super) struct Turn {
    pool: Arc<Pool>,
    /// Changed while the pool's state is held.
    stage: Mutex<Stage>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Waiting,
    Walking,
    Over,
}

impl Pool {
    pub(super) fn new(is_kind: bool, most_walks: usize) -> Self {
        Self { is_kind, most_walks, state: Mutex::default() }
    }

    /// Threads that have something to do, those that hang among them.
    pub(super) fn busy(&self) -> usize {
        lock(&self.state).busy
    }

    /// Has a thread do a walk's work, once it is its turn.
    pub(super) fn walk(self: &Arc<Self>, work: impl FnOnce() + Send + 'static) -> io::Result<Arc<Turn>> {
        let turn = Arc::new(Turn { pool: Arc::clone(self), stage: Mutex::new(Stage::Waiting) });
        let job: Job = Box::new({
            let turn = Arc::clone(&turn);
            move || {
                // A panic is told by what `work` drops.
                drop(catch_unwind(AssertUnwindSafe(work)));
                turn.end();
            }
        });
        lock(&self.state).queue.push_back((Arc::clone(&turn), job));
        while let Some((next, job)) = { self.next_walk(&mut lock(&self.state)) } {
            let started = self.run(job);
            if started.is_err() {
                // Who waits for it learns it from what is dropped.
                next.end();
            }
            if Arc::ptr_eq(&next, &turn) {
                return started.map(|()| turn);
            }
        }
        Ok(turn)
    }

    /// Has a thread help a walk.
    pub(super) fn help(self: &Arc<Self>, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
        self.run(Box::new(move || drop(catch_unwind(AssertUnwindSafe(work)))))
    }

    /// Has a thread that waits do it, or a new one.
    fn run(self: &Arc<Self>, mut job: Job) -> io::Result<()> {
        let waiting = {
            let mut state = lock(&self.state);
            state.busy += 1;
            state.waiting.pop()
        };
        if let Some((_, thread)) = waiting {
            match thread.send(job) {
                Ok(()) => return Ok(()),
                Err(refused) => job = refused.0,
            }
        }
        let pool = Arc::clone(self);
        let started = std::thread::Builder::new().name("walk".to_owned()).spawn(move || pool.work(job));
        started.map(drop).inspect_err(|_| lock(&self.state).busy -= 1)
    }

    /// A thread's life.
    fn work(&self, first: Job) {
        if self.is_kind
            && let Err(error) = sys::yield_the_disk()
        {
            // A seccomp profile may refuse it. Walks are as right without it.
            tracing::debug!("unable to leave the disk to others: {error}");
        }
        let mut next = Some(first);
        while let Some(job) = next {
            job();
            next = self.next();
        }
    }

    /// The next walk whose turn it is, or whatever comes; `None` when nothing comes.
    fn next(&self) -> Option<Job> {
        let (sender, receiver) = channel();
        let number = {
            let mut state = lock(&self.state);
            if let Some((_, job)) = self.next_walk(&mut state) {
                return Some(job);
            }
            state.busy -= 1;
            state.last += 1;
            let number = state.last;
            state.waiting.push((number, sender));
            number
        };
        match receiver.recv_timeout(LINGER) {
            Ok(job) => Some(job),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => {
                lock(&self.state).waiting.retain(|(other, _)| *other != number);
                // Whoever had taken the way to us before sends.
                receiver.recv().ok()
            }
        }
    }

    /// The walk whose turn begins now, if any. Those that were given up meanwhile are dropped.
    fn next_walk(&self, pool: &mut State) -> Option<(Arc<Turn>, Job)> {
        while pool.walks < self.most_walks {
            let (turn, job) = pool.queue.pop_front()?;
            let mut stage = lock(&turn.stage);
            if *stage == Stage::Waiting {
                *stage = Stage::Walking;
                pool.walks += 1;
                drop(stage);
                return Some((turn, job));
            }
        }
        None
    }
}

impl Turn {
    /// Whether the walk had begun and not ended.
    fn end(&self) -> bool {
        let mut state = lock(&self.pool.state);
        let was_walking = std::mem::replace(&mut *lock(&self.stage), Stage::Over) == Stage::Walking;
        state.walks -= usize::from(was_walking);
        was_walking
    }

    /// It is the next one's turn, whatever the walk's thread does. Whether it does anything: it hangs then.
    pub(super) fn give_up(&self) -> bool {
        let hangs = self.end();
        while let Some((turn, job)) = { self.pool.next_walk(&mut lock(&self.pool.state)) } {
            match self.pool.run(job) {
                Ok(()) => break,
                // Who waits for the walk learns it from what is dropped.
                Err(error) => tracing::debug!("unable to start a thread: {error}"),
            }
            turn.end();
        }
        hangs
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("walks", &self.walks).field("busy", &self.busy).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::Receiver;
    use std::thread::{ThreadId, current};
    use std::time::Instant;

    use super::*;

    const LONG: Duration = Duration::from_secs(10);

    fn eventually(holds: impl Fn() -> bool) {
        let until = Instant::now() + LONG;
        while !holds() {
            assert!(Instant::now() < until);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn pool(most_walks: usize) -> Arc<Pool> {
        Arc::new(Pool::new(false, most_walks))
    }

    fn thread_of(pool: &Arc<Pool>) -> ThreadId {
        let (sender, receiver) = channel();
        pool.walk(move || sender.send(current().id()).unwrap()).unwrap();
        receiver.recv_timeout(LONG).unwrap()
    }

    /// A walk that lasts until something is sent; what it tells when it begins.
    fn lasting(pool: &Arc<Pool>) -> (Arc<Turn>, Sender<()>, Receiver<()>) {
        let (end, until) = channel();
        let (sender, begun) = channel();
        let turn = pool.walk(move || {
            sender.send(()).unwrap();
            _ = until.recv();
        });
        (turn.unwrap(), end, begun)
    }

    #[test]
    fn a_thread_that_waits_is_taken_and_one_that_waits_for_long_ends() {
        let pool = pool(1);
        // Unless this one comes too late.
        eventually(|| {
            let first = thread_of(&pool);
            eventually(|| lock(&pool.state).busy == 0);
            thread_of(&pool) == first
        });
        let last = thread_of(&pool);
        eventually(|| Arc::strong_count(&pool) == 1 && lock(&pool.state).waiting.is_empty());
        assert_ne!(thread_of(&pool), last);
    }

    #[test]
    fn the_threads_of_a_kind_walker_leave_the_disk_to_others() {
        for is_kind in [true, false] {
            let (sender, receiver) = channel();
            Arc::new(Pool::new(is_kind, 1)).walk(move || sender.send(sys::yields_the_disk()).unwrap()).unwrap();
            assert_eq!(receiver.recv_timeout(LONG), Ok(is_kind));
        }
    }

    #[test]
    fn each_walk_is_done_once_however_threads_come_and_go() {
        for most in [1, 3, usize::MAX] {
            let (pool, done) = (pool(most), Arc::new(AtomicUsize::new(0)));
            for n in 0..200 {
                let done = Arc::clone(&done);
                pool.walk(move || _ = done.fetch_add(1, Ordering::SeqCst)).unwrap();
                if n % 50 == 0 {
                    std::thread::sleep(LINGER);
                }
            }
            eventually(|| done.load(Ordering::SeqCst) == 200 && pool.busy() == 0);
            assert_eq!(lock(&pool.state).walks, 0);
        }
    }

    #[test]
    fn a_walk_waits_for_its_turn_which_comes_when_another_ends_panics_or_is_given_up() {
        let pool = pool(1);
        let (_first, end, begun) = lasting(&pool);
        begun.recv_timeout(LONG).unwrap();
        let (second, _, begun) = lasting(&pool);
        assert!(begun.recv_timeout(Duration::from_millis(50)).is_err(), "two at a time");
        end.send(()).unwrap();
        begun.recv_timeout(LONG).unwrap();
        drop(second);

        let (hung, end, begun) = lasting(&pool);
        begun.recv_timeout(LONG).unwrap();
        let (_next, next_end, begun) = lasting(&pool);
        assert!(hung.give_up());
        assert!(!hung.give_up());
        begun.recv_timeout(LONG).unwrap();
        assert_eq!(lock(&pool.state).walks, 1);
        end.send(()).unwrap();
        eventually(|| pool.busy() == 1);
        assert_eq!(lock(&pool.state).walks, 1, "what was given up ends no turn when it comes back");

        let (queued, _, begun) = lasting(&pool);
        assert!(!queued.give_up(), "it had not begun");
        drop(next_end);
        assert!(
            begun.recv_timeout(LONG) == Err(RecvTimeoutError::Disconnected),
            "what was given up before it began never does"
        );
        pool.walk(|| panic!("as asked")).unwrap();
        thread_of(&pool);
        eventually(|| pool.busy() == 0);
    }
}
