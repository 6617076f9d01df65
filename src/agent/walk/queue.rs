//! Work for several threads: each takes the newest of its own, and the oldest of another's when it has none.

use std::sync::atomic::{AtomicUsize, Ordering, fence};
use std::sync::{Condvar, Mutex, PoisonError};

use crossbeam_deque::{Steal, Stealer, Worker};

use super::lock;

/// What all threads share.
pub(super) struct Queue<T> {
    stealers: Vec<Stealer<T>>,
    /// Handed to threads as they start.
    unclaimed: Mutex<Vec<(usize, Worker<T>)>>,
    /// Taken when nothing else waits.
    aside: Mutex<Vec<T>>,
    /// Put in and not done yet, whoever has them.
    open: AtomicUsize,
    /// Threads that sleep for want of a task, and those that rest; changed under the lock.
    asleep: AtomicUsize,
    resting: AtomicUsize,
    /// Threads beyond it rest.
    awake_at_most: AtomicUsize,
    lock: Mutex<()>,
    wake: Condvar,
    rest: Condvar,
}

/// One thread's end of the queue.
pub(super) struct Own<T> {
    index: usize,
    newest: Worker<T>,
}

impl<T> Own<T> {
    /// How many of its own wait.
    pub(super) fn len(&self) -> usize {
        self.newest.len()
    }
}

/// A task that is being done; it counts as done when this is dropped, also by a panic.
pub(super) struct Doing<'a, T>(&'a Queue<T>);

impl<T> Drop for Doing<'_, T> {
    fn drop(&mut self) {
        if self.0.open.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.wake_all();
        }
    }
}

impl<T> Queue<T> {
    /// For so many threads at most.
    pub(super) fn new(threads: usize) -> Self {
        let workers: Vec<_> = (0..threads).map(|_| Worker::new_lifo()).collect();
        Self {
            stealers: workers.iter().map(Worker::stealer).collect(),
            unclaimed: Mutex::new(workers.into_iter().enumerate().rev().collect()),
            aside: Mutex::default(),
            open: AtomicUsize::new(0),
            asleep: AtomicUsize::new(0),
            resting: AtomicUsize::new(0),
            awake_at_most: AtomicUsize::new(threads),
            lock: Mutex::default(),
            wake: Condvar::new(),
            rest: Condvar::new(),
        }
    }

    /// The next thread's end; `None` when all have one.
    pub(super) fn claim(&self) -> Option<Own<T>> {
        lock(&self.unclaimed).pop().map(|(index, newest)| Own { index, newest })
    }

    /// Tasks that wait or are being done.
    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Whether a thread has nothing to do.
    pub(super) fn has_idle(&self) -> bool {
        self.asleep.load(Ordering::Relaxed) > 0
    }

    /// Lets only the first so many threads take tasks; the others finish what they do, and rest.
    pub(super) fn keep_awake(&self, threads: usize) {
        self.awake_at_most.store(threads, Ordering::SeqCst);
        self.wake_all();
    }

    /// Puts in a task, to be taken next by this thread, or last by another.
    pub(super) fn push(&self, own: &Own<T>, task: T) {
        self.open.fetch_add(1, Ordering::SeqCst);
        own.newest.push(task);
        self.wake_one();
    }

    /// Puts in a task for when nothing else waits.
    pub(super) fn put_aside(&self, task: T) {
        self.open.fetch_add(1, Ordering::SeqCst);
        lock(&self.aside).push(task);
        self.wake_one();
    }

    /// Waits for a task; `None` when all are done, or `is_over`.
    pub(super) fn next(&self, own: &Own<T>, is_over: impl Fn() -> bool) -> Option<(T, Doing<'_, T>)> {
        loop {
            if is_over() {
                self.wake_all();
                return None;
            }
            if self.may_take(own) {
                let task = own.newest.pop().or_else(|| self.steal(own.index)).or_else(|| lock(&self.aside).pop());
                if let Some(task) = task {
                    return Some((task, Doing(self)));
                }
            }
            if !self.wait(own, &is_over) {
                return None;
            }
        }
    }

    fn may_take(&self, own: &Own<T>) -> bool {
        own.index < self.awake_at_most.load(Ordering::SeqCst)
    }

    /// Sleeps until there may be something to do; `false`: all is done.
    fn wait(&self, own: &Own<T>, is_over: impl Fn() -> bool) -> bool {
        let guard = lock(&self.lock);
        if is_over() {
            // Since it was looked; whoever saw it has woken all that slept by then.
            return true;
        }
        if self.may_take(own) {
            // Told before looking once more: whoever puts in a task puts it in before looking who sleeps.
            self.asleep.fetch_add(1, Ordering::SeqCst);
            fence(Ordering::SeqCst);
            if self.open.load(Ordering::SeqCst) > 0 && !self.has_waiting() {
                drop(self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner));
            }
            self.asleep.fetch_sub(1, Ordering::SeqCst);
        } else if self.open.load(Ordering::SeqCst) > 0 {
            self.resting.fetch_add(1, Ordering::SeqCst);
            drop(self.rest.wait(guard).unwrap_or_else(PoisonError::into_inner));
            self.resting.fetch_sub(1, Ordering::SeqCst);
        }
        self.open.load(Ordering::SeqCst) > 0
    }

    fn has_waiting(&self) -> bool {
        self.stealers.iter().any(|stealer| !stealer.is_empty()) || !lock(&self.aside).is_empty()
    }

    /// The oldest task of the next thread that has one.
    fn steal(&self, thief: usize) -> Option<T> {
        let threads = self.stealers.len();
        (1..threads).find_map(|step| {
            let stealer = &self.stealers[(thief + step) % threads];
            loop {
                match stealer.steal() {
                    Steal::Success(task) => return Some(task),
                    Steal::Empty => return None,
                    Steal::Retry => {}
                }
            }
        })
    }

    fn wake_one(&self) {
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::SeqCst) > 0 {
            let _guard = lock(&self.lock);
            self.wake.notify_one();
        }
    }

    /// All of them, also to learn that this was the last task, or that it is over.
    pub(super) fn wake_all(&self) {
        let _guard = lock(&self.lock);
        // Most walks are over before a second thread has begun.
        if self.asleep.load(Ordering::SeqCst) > 0 {
            self.wake.notify_all();
        }
        if self.resting.load(Ordering::SeqCst) > 0 {
            self.rest.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;
    use std::time::Duration;

    use super::*;

    /// Each task `n` puts in two of `n - 1`: 2^n - 1 in all.
    fn grow(threads: usize, awake: usize, depth: u32) -> u64 {
        let (queue, done) = (Queue::new(threads), AtomicU64::new(0));
        queue.keep_awake(awake);
        let ends: Vec<_> = (0..threads).map(|_| queue.claim().unwrap()).collect();
        assert!(queue.claim().is_none());
        queue.push(&ends[0], depth);
        let (queue, done_by_all) = (&queue, &done);
        std::thread::scope(|scope| {
            for own in ends {
                scope.spawn(move || {
                    while let Some((n, _doing)) = queue.next(&own, || false) {
                        done_by_all.fetch_add(1, Ordering::Relaxed);
                        if n > 1 {
                            queue.push(&own, n - 1);
                            queue.put_aside(n - 1);
                        }
                    }
                });
            }
        });
        done.into_inner()
    }

    #[test]
    fn every_task_is_done_once_and_all_threads_end() {
        for _ in 0..50 {
            assert_eq!(grow(4, 4, 10), 1023);
        }
        assert_eq!(grow(1, 1, 10), 1023);
        assert_eq!(grow(4, 1, 10), 1023, "those that rest end as well");
    }

    #[test]
    fn a_task_that_panics_counts_as_done() {
        let queue = Queue::new(2);
        let (own, other) = (queue.claim().unwrap(), queue.claim().unwrap());
        queue.push(&own, "panic");
        let queue = &queue;
        std::thread::scope(|scope| {
            let ends = scope.spawn(move || {
                let (_task, _doing) = queue.next(&own, || false).unwrap();
                panic!("as asked");
            });
            assert!(ends.join().is_err());
        });
        assert!(queue.next(&other, || false).is_none());
    }

    #[test]
    fn what_is_over_just_before_a_thread_rests_is_noticed() {
        let queue = Queue::new(2);
        let (own, resting) = (queue.claim().unwrap(), queue.claim().unwrap());
        queue.push(&own, 1);
        queue.keep_awake(1);
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let looks = AtomicUsize::new(0);
            let task = queue.next(&resting, || looks.fetch_add(1, Ordering::Relaxed) > 0);
            sender.send(task.is_none()).unwrap();
        });
        assert_eq!(receiver.recv_timeout(Duration::from_secs(10)), Ok(true), "nobody else would ever wake it");
    }

    #[test]
    fn what_is_over_is_taken_no_more() {
        let queue = Queue::new(1);
        let own = queue.claim().unwrap();
        queue.push(&own, 1);
        assert!(queue.next(&own, || true).is_none());
    }
}
