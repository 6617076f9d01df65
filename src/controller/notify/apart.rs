//! Notifications told from memory, for when the database, and with it the outbox, is away: the same order within a receiver, the same tries.
//!
//! A process that ends forgets them; whoever hands them in does so again, and a receiver knows a repetition by its id.

use std::collections::{HashMap, HashSet, VecDeque};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};
use uuid::Uuid;

use super::changes::Changes;
use super::courier::{Courier, Failure};
use super::retry::{KEEP, MAX_UNDER_WAY, SHARE, backoff};
use crate::domain::alert::notification::{Notification, Receiver};

const TICK: Duration = Duration::from_secs(1);
/// Ids of a line that are remembered, so that what is handed in again is not told again.
const MAX_KNOWN: usize = 1024;

/// How telling an alert's receivers from memory stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Apart {
    /// When a receiver was last told something.
    pub delivered_at: Option<DateTime<Utc>>,
    /// Not told yet.
    pub open: usize,
    /// Why the last try of those failed, or why one was given up since something was told.
    pub last_error: Option<String>,
}

/// One receiver of one alert, by the alert's uid and the receiver's name.
type Key = (String, String);

/// What is to be told from memory.
#[derive(Default)]
pub(super) struct Lines {
    lines: Mutex<HashMap<Key, Line>>,
    added: Notify,
}

#[derive(Default)]
struct Line {
    waiting: VecDeque<Waiting>,
    known: VecDeque<Uuid>,
    /// Those of them that were delivered.
    delivered: HashSet<Uuid>,
    under_way: bool,
    delivered_at: Option<DateTime<Utc>>,
    last_error: Option<String>,
}

struct Waiting {
    receiver: Receiver,
    notification: Notification,
    since: Instant,
    next: Instant,
    attempts: u32,
}

impl Lines {
    /// Puts one at the end of its receiver's line, unless it was there before.
    pub(super) fn add(&self, receiver: Receiver, notification: Notification) {
        let mut lines = self.lines();
        let line = lines.entry((notification.alert_uid.clone(), receiver.name.clone())).or_default();
        if line.known.contains(&notification.id) {
            return;
        }
        line.known.push_back(notification.id);
        if line.known.len() > MAX_KNOWN
            && let Some(oldest) = line.known.pop_front()
        {
            line.delivered.remove(&oldest);
        }
        let now = Instant::now();
        line.waiting.push_back(Waiting { receiver, notification, since: now, next: now, attempts: 0 });
        drop(lines);
        self.added.notify_one();
    }

    /// Takes back what still waits, but for what is under way.
    pub(super) fn withdraw(&self, alert_uid: &str) {
        let mut lines = self.lines();
        for (_, line) in lines.iter_mut().filter(|((uid, _), _)| uid == alert_uid) {
            line.waiting.truncate(usize::from(line.under_way));
        }
    }

    /// Whether this one was handed in and delivered.
    pub(super) fn was_delivered(&self, receiver: &Receiver, notification: &Notification) -> bool {
        let key = (notification.alert_uid.clone(), receiver.name.clone());
        self.lines().get(&key).is_some_and(|line| line.delivered.contains(&notification.id))
    }

    /// How telling an alert's receivers stands.
    pub(super) fn standing(&self, alert_uid: &str) -> Apart {
        let lines = self.lines();
        let of_alert = || lines.iter().filter(|((uid, _), _)| uid == alert_uid).map(|(_, line)| line);
        Apart {
            delivered_at: of_alert().filter_map(|line| line.delivered_at).max(),
            open: of_alert().map(|line| line.waiting.len()).sum(),
            last_error: of_alert().find_map(|line| line.last_error.clone()),
        }
    }

    /// Forgets alerts that are gone, once their receivers were told.
    pub(super) fn forget(&self, live_uids: &[String]) {
        self.lines().retain(|(uid, _), line| live_uids.contains(uid) || !line.waiting.is_empty());
    }

    /// Takes those whose turn has come, as many as may be under way.
    fn start(&self) -> Vec<(Key, Receiver, Notification)> {
        let (now, mut lines) = (Instant::now(), self.lines());
        let mut busy: HashMap<_, usize> = HashMap::new();
        for line in lines.values().filter(|line| line.under_way) {
            *busy.entry(line.target()).or_default() += 1;
        }
        let mut free = MAX_UNDER_WAY.saturating_sub(busy.values().sum());
        let mut started = Vec::new();
        let due = lines.iter_mut().filter(|(_, line)| !line.under_way);
        for (key, line) in due {
            let target = line.target();
            let Some(head) = line.waiting.front().filter(|head| head.next <= now) else { continue };
            let taken = busy.entry(target).or_default();
            if free == 0 || *taken >= SHARE {
                continue;
            }
            (free, *taken) = (free - 1, *taken + 1);
            started.push((key.clone(), head.receiver.clone(), head.notification.clone()));
            line.under_way = true;
        }
        started
    }

    /// Notes how a line's head fared; `true`: it was given up.
    fn settle(&self, key: &Key, outcome: &Result<(), Failure>) -> bool {
        let mut lines = self.lines();
        let Some(line) = lines.get_mut(key) else { return false };
        line.under_way = false;
        let Some(head) = line.waiting.front_mut() else { return false };
        let Err(error) = outcome else {
            line.delivered.insert(head.notification.id);
            (line.delivered_at, line.last_error) = (Some(Utc::now()), None);
            line.waiting.pop_front();
            return false;
        };
        line.last_error = Some(error.of(&head.receiver));
        if head.since.elapsed() >= KEEP {
            line.waiting.pop_front();
            return true;
        }
        head.next = Instant::now() + backoff(head.attempts);
        head.attempts = head.attempts.saturating_add(1);
        false
    }

    fn lines(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    /// What its head leads to.
    fn target(&self) -> Option<(&'static str, Option<String>)> {
        self.waiting.front().map(|head| (head.receiver.channel.as_str(), head.receiver.secret_name.clone()))
    }
}

/// Tells for ever.
pub(super) async fn run(courier: Arc<Courier>, lines: Arc<Lines>, changes: Changes) -> Infallible {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut deliveries = JoinSet::new();
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = lines.added.notified() => {}
            Some(_) = deliveries.join_next() => {}
        }
        for (key, receiver, notification) in lines.start() {
            let (courier, lines, changes) = (Arc::clone(&courier), Arc::clone(&lines), changes.clone());
            deliveries.spawn(async move {
                let outcome = courier.deliver(&receiver, &notification).await;
                let given_up = lines.settle(&key, &outcome);
                if given_up && let Err(failure) = &outcome {
                    courier.gave_up(&notification.alert, Some(&receiver), failure);
                }
                changes.note(&notification.alert);
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;
    use crate::domain::alert::notification::Occasion;

    fn told(alert: &str, number: u128) -> Notification {
        Notification { alert_uid: alert.to_owned(), id: Uuid::from_u128(number), ..sample::bare() }
    }

    fn started(lines: &Lines) -> Vec<u128> {
        let mut ids: Vec<_> = lines.start().iter().map(|(_, _, notification)| notification.id.as_u128()).collect();
        ids.sort_unstable();
        ids
    }

    fn key(alert: &str) -> Key {
        (alert.to_owned(), "event".to_owned())
    }

    #[test]
    fn what_waits_can_be_taken_back_but_not_what_is_under_way() {
        let lines = Lines::default();
        for number in [1, 2] {
            lines.add(Receiver::event(), told("a", number));
            lines.add(Receiver::event(), told("b", number));
        }
        lines.withdraw("b");
        assert_eq!((lines.standing("a").open, lines.standing("b").open), (2, 0));
        assert_eq!(started(&lines), [1]);
        lines.withdraw("a");
        assert_eq!(lines.standing("a").open, 1, "somebody is telling it");
        lines.settle(&key("a"), &Ok(()));
        assert_eq!(started(&lines), []);
    }

    #[tokio::test(start_paused = true)]
    async fn order_is_kept_and_what_was_handed_in_is_told_once() {
        let lines = Lines::default();
        let over = Notification { event: Occasion::Resolved, ..told("a", 2) };
        for notification in [told("a", 1), over.clone(), told("a", 1)] {
            lines.add(Receiver::event(), notification);
        }
        assert_eq!(started(&lines), [1]);
        assert_eq!(started(&lines), [], "its turn is under way");
        lines.settle(&key("a"), &Err(Failure::Late));
        assert_eq!(started(&lines), [], "the end does not overtake the beginning");
        assert_eq!((lines.standing("a").open, lines.standing("a").last_error.is_some()), (2, true));
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(started(&lines), [1]);
        lines.settle(&key("a"), &Ok(()));
        assert_eq!(lines.standing("a").last_error, None);
        lines.add(Receiver::event(), told("a", 1));
        let delivered = |notification: &Notification| lines.was_delivered(&Receiver::event(), notification);
        assert_eq!([told("a", 1), over, told("b", 1)].each_ref().map(delivered), [true, false, false]);
        assert_eq!(started(&lines), [2]);
        lines.settle(&key("a"), &Ok(()));
        assert_eq!((lines.standing("a").open, lines.standing("a").delivered_at.is_some()), (0, true));
    }

    #[tokio::test(start_paused = true)]
    async fn a_target_gets_its_share() {
        let lines = Lines::default();
        let dead = Receiver { secret_name: Some("dead".to_owned()), ..Receiver::event() };
        for number in 1..=10 {
            lines.add(dead.clone(), told(&format!("a{number}"), number));
        }
        lines.add(Receiver::event(), told("b", 99));
        let first = started(&lines);
        assert_eq!((first.len(), first.last()), (SHARE + 1, Some(&99)));
        assert_eq!(started(&lines), []);
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_given_up_after_a_day() {
        let lines = Lines::default();
        lines.add(Receiver::event(), told("a", 1));
        tokio::time::advance(KEEP).await;
        assert_eq!(started(&lines), [1]);
        lines.settle(&key("a"), &Err(Failure::Late));
        assert_eq!((lines.standing("a").open, lines.standing("a").last_error.is_some()), (0, true));
    }

    #[tokio::test(start_paused = true)]
    async fn an_alert_that_is_gone_is_forgotten_when_its_receivers_were_told() {
        let lines = Lines::default();
        lines.add(Receiver::event(), told("a", 1));
        lines.forget(&[]);
        assert_eq!(started(&lines), [1]);
        lines.settle(&key("a"), &Ok(()));
        lines.forget(&["a".to_owned()]);
        assert!(lines.standing("a").delivered_at.is_some());
        lines.forget(&[]);
        assert_eq!(lines.standing("a"), Apart::default());
    }
}
