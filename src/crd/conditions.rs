//! Names of condition types and of their reasons, and the one way to build a condition.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

use crate::domain::text::showable;

/// The object does what its spec asks for (one-shot: it is done).
pub const READY: &str = "Ready";
/// Work is under way (kstatus: present only when true).
pub const RECONCILING: &str = "Reconciling";
/// Nothing more will happen without a change of the spec (kstatus: present only when true).
pub const STALLED: &str = "Stalled";
/// A one-shot scan has ended with figures.
pub const COMPLETE: &str = "Complete";
/// A one-shot scan has ended without figures.
pub const FAILED: &str = "Failed";
/// How the last finished run ended; changes only when a run ends.
pub const LAST_RUN_SUCCEEDED: &str = "LastRunSucceeded";
/// The controller can use the database.
pub const DATABASE_READY: &str = "DatabaseReady";
/// The schedule is followed (only with `spec.schedule`).
pub const SCHEDULED: &str = "Scheduled";
/// Every selected node has a ready agent.
pub const AGENTS_READY: &str = "AgentsReady";

/// Some subject of an alert fires.
pub const FIRING: &str = "Firing";
/// Every subject of an alert has a figure.
pub const DATA_AVAILABLE: &str = "DataAvailable";
/// Receivers were told all there is to tell.
pub const NOTIFICATIONS_DELIVERED: &str = "NotificationsDelivered";

/// Reasons of conditions that are not the name of a run's or a job's reason.
pub mod reason {
    /// The controller has not looked at the object yet.
    pub const PENDING: &str = "Pending";
    /// A run is under way.
    pub const RUN_ACTIVE: &str = "RunActive";
    /// A run is about to start.
    pub const RUN_PENDING: &str = "RunPending";
    /// The database cannot be used; the condition `DatabaseReady` says why.
    pub const DATABASE_NOT_READY: &str = "DatabaseNotReady";
    /// No selected node has a ready agent; the condition `AgentsReady` says why.
    pub const AGENTS_NOT_READY: &str = "AgentsNotReady";
    /// No new run starts: `spec.suspend`.
    pub const SUSPENDED: &str = "Suspended";
    /// The schedule's next time is waited for.
    pub const WAITING_FOR_SCHEDULE: &str = "WaitingForSchedule";
    /// The schedule or its time zone cannot be used.
    pub const INVALID_SCHEDULE: &str = "InvalidSchedule";
    /// A selector in the spec cannot be used.
    pub const INVALID_SELECTOR: &str = "InvalidSelector";
    /// The object does not fit its schema (it was stored under an older one).
    pub const INVALID_SPEC: &str = "InvalidSpec";
    /// The database answers and its schema fits.
    pub const CONNECTED: &str = "Connected";
    /// The database can be used and does not hold the last run: it was restored to an earlier time.
    pub const RESULTS_MISSING: &str = "ResultsMissing";
    /// Every selected node has a ready agent.
    pub const ALL_AGENTS_READY: &str = "AllAgentsReady";
    /// Some selected nodes have no ready agent.
    pub const SOME_AGENTS_NOT_READY: &str = "SomeAgentsNotReady";
    /// Pod Security refuses the agents' pods.
    pub const PODS_FORBIDDEN: &str = "PodsForbidden";
    /// The latest results are held against the rule.
    pub const WATCHING: &str = "Watching";
    /// A subject is above the limit.
    pub const ABOVE_LIMIT: &str = "AboveLimit";
    /// No subject is above the limit for long enough.
    pub const NOTHING_FIRES: &str = "NothingFires";
    /// Every subject has a figure.
    pub const ALL_MEASURED: &str = "AllMeasured";
    /// Some subjects have no figure from the last run.
    pub const SOME_WITHOUT_FIGURE: &str = "SomeWithoutFigure";
    /// The same, and `spec.noData` says that it does not matter.
    pub const MISSING_IGNORED: &str = "MissingIgnored";
    /// Nothing is selected, or no selected scan has results.
    pub const NO_SUBJECTS: &str = "NoSubjects";
    /// The spec cannot be used, or the alert is suspended.
    pub const NOT_JUDGED: &str = "NotJudged";
    /// Every receiver was told.
    pub const ALL_DELIVERED: &str = "AllDelivered";
    /// There was nothing to tell yet.
    pub const NOTHING_TO_TELL: &str = "NothingToTell";
    /// A VolumeScan that is asked for by name does not exist.
    pub const SCAN_NOT_FOUND: &str = "ScanNotFound";
    /// A receiver's Secret does not exist.
    pub const SECRET_MISSING: &str = "SecretMissing";
    /// A receiver's Secret lacks the label that lets it be used.
    pub const SECRET_NOT_LABELLED: &str = "SecretNotLabelled";
    /// The API server does not give a receiver's Secret.
    pub const SECRET_UNREADABLE: &str = "SecretUnreadable";
    /// A value in a receiver's Secret cannot be used.
    pub const SECRET_INVALID: &str = "SecretInvalid";
    /// A receiver is where notifications may not go.
    pub const RECEIVER_REFUSED: &str = "ReceiverRefused";
    /// A receiver means this installation's Alertmanager, and there is none.
    pub const RECEIVER_NOT_CONFIGURED: &str = "ReceiverNotConfigured";
    /// It took too long to find out whether receivers can be told.
    pub const RECEIVERS_NOT_CHECKED: &str = "ReceiversNotChecked";
    /// A receiver could not be told, and is tried again.
    pub const DELIVERY_FAILING: &str = "DeliveryFailing";
    /// A receiver could not be told for so long that it is not tried again.
    pub const GIVEN_UP: &str = "GivenUp";
    /// No node is selected.
    pub const NO_MATCHING_NODES: &str = "NoMatchingNodes";
}

/// What a condition says, without its bookkeeping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// One of this module's types.
    pub type_: &'static str,
    /// Whether it holds. (`Unknown` is said by the schema's default only: the controller always knows.)
    pub holds: bool,
    /// CamelCase.
    pub reason: String,
    /// For people; at most [`MAX_MESSAGE_CHARS`].
    pub message: String,
}

/// The longest message of a condition, in characters.
pub const MAX_MESSAGE_CHARS: usize = 256;

/// Turns statements into conditions; `lastTransitionTime` moves only when `status` flips, as `metav1.Condition` demands.
pub fn build(
    statements: Vec<Statement>,
    previous: &[Condition],
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    statements
        .into_iter()
        .map(|Statement { type_, holds, reason, message }| {
            let status = if holds { "True" } else { "False" };
            let unchanged = previous.iter().find(|old| old.type_ == type_ && old.status == status);
            Condition {
                type_: type_.to_owned(),
                status: status.to_owned(),
                reason,
                message: shorten(&message, MAX_MESSAGE_CHARS),
                observed_generation: generation,
                last_transition_time: unchanged
                    .map_or_else(|| Time(to_seconds(now)), |old| old.last_transition_time.clone()),
            }
        })
        .collect()
}

/// Kubernetes keeps times in whole seconds: a status with more would differ from its own copy read back.
pub fn to_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// Characters of a node's name in a status: Kubernetes takes no longer one, but the database has it, too.
pub const MAX_NODE_CHARS: usize = 253;

/// Text as a status or an Event tells it: `kubectl` prints it into terminals, so nothing in it is obeyed; and cut to `max` characters,
/// marking the cut.
pub fn shorten(text: &str, max: usize) -> String {
    let shown = showable(text);
    if shown.chars().count() <= max {
        return shown;
    }
    shown.chars().take(max.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(holds: bool) -> Statement {
        Statement { type_: READY, holds, reason: "Because".to_owned(), message: String::new() }
    }

    #[test]
    fn transition_time_moves_only_when_status_flips() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let first = build(vec![ready(false)], &[], Some(1), at(100));
        let same = build(vec![ready(false)], &first, Some(2), at(200));
        assert_eq!(same[0].last_transition_time.0, at(100));
        assert_eq!(same[0].observed_generation, Some(2));
        let flipped = build(vec![ready(true)], &same, Some(2), at(300));
        assert_eq!(flipped[0].last_transition_time.0, at(300));
    }

    #[test]
    fn long_messages_are_cut_at_a_character() {
        assert_eq!(shorten("ääää", 3), "ää…");
        assert_eq!(shorten("äää", 3), "äää");
        assert_eq!(shorten("a\u{1b}]8;;", 8), "a\\u{1b}…");
    }
}
