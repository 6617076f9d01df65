//! Alertmanager forgets what it is not told again: what fires is posted again each [`PERIOD`], from memory.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::courier::Courier;
use crate::domain::alert::notification::{Channel, Notification, Receiver};

/// How often Alertmanager is told again.
const PERIOD: Duration = Duration::from_secs(60);
/// When it is told for the first time: it may have been told last long before this process.
const FIRST: Duration = Duration::from_secs(5);
const TICK: Duration = Duration::from_secs(1);
/// Posts at the same time.
const MAX_UNDER_WAY: usize = 64;

/// What fires, by the uid of its VolumeAlert.
#[derive(Default)]
pub(super) struct Kept(Mutex<HashMap<String, Entry>>);

struct Entry {
    receivers: Vec<Receiver>,
    firing: Vec<Notification>,
    next: Instant,
}

impl Kept {
    /// Replaces what fires of an alert; receivers other than Alertmanagers are left out.
    pub(super) fn set(&self, alert_uid: &str, mut receivers: Vec<Receiver>, firing: Vec<Notification>) {
        receivers.retain(|receiver| receiver.channel == Channel::Alertmanager);
        let mut kept = self.kept();
        if receivers.is_empty() || firing.is_empty() {
            kept.remove(alert_uid);
            return;
        }
        let next = kept.get(alert_uid).map_or_else(|| Instant::now() + FIRST, |entry| entry.next);
        kept.insert(alert_uid.to_owned(), Entry { receivers, firing, next });
    }

    /// What fires of an alert now.
    pub(super) fn firing(&self, alert_uid: &str) -> Vec<Notification> {
        self.kept().get(alert_uid).map_or_else(Vec::new, |entry| entry.firing.clone())
    }

    /// Takes out what this says is over.
    pub(super) fn strike(&self, over: &Notification) {
        let over_now: HashSet<_> = over.subjects.iter().map(|subject| (&subject.node, &subject.volume)).collect();
        if let Some(entry) = self.kept().get_mut(&over.alert_uid) {
            for notification in &mut entry.firing {
                notification.subjects.retain(|subject| !over_now.contains(&(&subject.node, &subject.volume)));
            }
            entry.firing.retain(|notification| !notification.subjects.is_empty());
        }
    }

    fn has(&self, alert_uid: &str) -> bool {
        self.kept().contains_key(alert_uid)
    }

    /// Forgets alerts that are gone.
    pub(super) fn forget(&self, live_uids: &[String]) {
        self.kept().retain(|uid, _| live_uids.contains(uid));
    }

    /// The alerts, with their receivers, that are to be told again now.
    fn due(&self) -> Vec<(String, Receiver)> {
        let now = Instant::now();
        let mut due = Vec::new();
        for (uid, entry) in self.kept().iter_mut().filter(|(_, entry)| entry.next <= now) {
            entry.next = now + PERIOD;
            due.extend(entry.receivers.iter().map(|receiver| (uid.clone(), receiver.clone())));
        }
        due
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, HashMap<String, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One Alertmanager of one alert, by uid and name of the receiver, and how telling it again ended.
type Outcome = ((String, String), Result<(), String>);

/// Tells for ever.
pub(super) async fn run(courier: Arc<Courier>) -> Infallible {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut waiting, mut posts, mut problems) = (Vec::new(), JoinSet::<Outcome>::new(), HashMap::new());
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            Some(done) = posts.join_next() => if let Ok((key, told)) = done { log_change(&mut problems, key, told) },
        }
        problems.retain(|(uid, _), _| courier.kept.has(uid));
        for due in courier.kept.due() {
            // One that a dead Alertmanager still holds up is not asked for twice.
            if !waiting.contains(&due) {
                waiting.push(due);
            }
        }
        while posts.len() < MAX_UNDER_WAY
            && let Some((uid, receiver)) = waiting.pop()
        {
            let courier = Arc::clone(&courier);
            posts.spawn(async move {
                let told = courier.repeat(&receiver, &uid).await.map_err(|failure| failure.to_string());
                ((uid, receiver.name), told)
            });
        }
    }
}

/// Once for each change: what is told again each minute would fail each minute.
fn log_change(problems: &mut HashMap<(String, String), String>, key: (String, String), told: Result<(), String>) {
    let (uid, receiver) = key.clone();
    match told {
        Ok(()) if problems.remove(&key).is_some() => {
            tracing::info!(alert.uid = uid, receiver.name = receiver, "Alertmanager is told again what fires");
        }
        Ok(()) => {}
        Err(problem) => {
            let before = problems.insert(key, problem.clone());
            if before.as_ref() != Some(&problem) {
                tracing::warn!(
                    alert.uid = uid,
                    receiver.name = receiver,
                    "unable to tell Alertmanager again what fires: {problem}"
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;
    use crate::domain::alert::notification::Subject;

    fn alertmanager() -> Receiver {
        Receiver { name: "am".to_owned(), channel: Channel::Alertmanager, ..Receiver::event() }
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_due_each_minute_however_often_it_is_set() {
        let kept = Kept::default();
        let set = || kept.set("uid", vec![alertmanager(), Receiver::event()], vec![sample::bare()]);
        set();
        tokio::time::advance(FIRST).await;
        assert_eq!(kept.due().len(), 1, "soon");
        tokio::time::advance(Duration::from_secs(59)).await;
        set();
        assert_eq!(kept.due(), []);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(kept.due(), [("uid".to_owned(), alertmanager())]);
        assert_eq!(kept.due(), []);
    }

    #[tokio::test]
    async fn what_is_over_is_taken_out() {
        let kept = Kept::default();
        let on = |node: &str| Subject { node: Some(node.to_owned()), ..sample::bare().subjects[0].clone() };
        let of = |subjects: Vec<Subject>| Notification { subjects, ..sample::bare() };
        kept.set("uid", vec![alertmanager()], vec![of(vec![on("a"), on("b")]), of(vec![on("c")])]);
        kept.strike(&of(vec![on("b"), on("c")]));
        assert_eq!(kept.firing("uid"), [of(vec![on("a")])]);
        kept.strike(&of(vec![on("a")]));
        assert_eq!(kept.firing("uid"), []);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_that_fires_or_nobody_to_tell_stops_it() {
        let kept = Kept::default();
        for (receivers, firing) in [(vec![alertmanager()], vec![]), (vec![Receiver::event()], vec![sample::bare()])] {
            kept.set("uid", vec![alertmanager()], vec![sample::bare()]);
            kept.set("uid", receivers, firing);
            tokio::time::advance(PERIOD * 2).await;
            assert_eq!(kept.due(), []);
        }
        kept.set("uid", vec![alertmanager()], vec![sample::bare()]);
        kept.forget(&["other".to_owned()]);
        assert_eq!(kept.firing("uid"), []);
    }

    #[test]
    fn a_failure_is_told_when_it_changes() {
        let (mut problems, key) = (HashMap::new(), || ("uid".to_owned(), "am".to_owned()));
        log_change(&mut problems, key(), Err("a".to_owned()));
        log_change(&mut problems, key(), Err("b".to_owned()));
        assert_eq!(problems[&key()], "b");
        log_change(&mut problems, key(), Ok(()));
        assert!(problems.is_empty());
    }
}
