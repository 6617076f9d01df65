//! The outbox: order within a receiver, shares of targets, outcomes that are noted once, and what status reads of it.

use std::time::Duration;

use sqlx::PgConnection;
use volumeviz::domain::alert::notification::{Channel, Notification, Occasion, Receiver};
use volumeviz::domain::alert::{Scope, Severity};
use volumeviz::store::notifications::{self, Pending, Queued};

use super::*;

const DAY: Duration = Duration::from_secs(86_400);
const SHARE: i64 = 4;

fn receiver(name: &str, secret: &str) -> Receiver {
    Receiver {
        name: name.to_owned(),
        channel: Channel::Webhook,
        secret_name: Some(secret.to_owned()),
        repeat_every_seconds: None,
        send_resolved: true,
    }
}

fn notification(alert: &str, number: u128, event: Occasion) -> Notification {
    Notification {
        version: "1".to_owned(),
        id: Uuid::from_u128(number),
        event,
        alert: alert.to_owned(),
        alert_uid: format!("{alert}-uid"),
        severity: Severity::Warning,
        rule: "sizeAbove".to_owned(),
        scope: Scope::Volume,
        unit: "bytes".to_owned(),
        text: "told".to_owned(),
        time: chrono::DateTime::from_timestamp(1_700_000_000, 0).unwrap(),
        subjects: Vec::new(),
        subjects_omitted: 0,
    }
}

async fn put(conn: &mut PgConnection, receiver: &Receiver, notification: &Notification) -> u64 {
    notifications::put(conn, &[Queued { receiver, notification }]).await.unwrap()
}

async fn due(conn: &mut PgConnection, under_way: &[u128]) -> Vec<u128> {
    let under_way: Vec<Uuid> = under_way.iter().copied().map(Uuid::from_u128).collect();
    let due = notifications::due(conn, &under_way, SHARE, 100, DAY).await.unwrap();
    due.iter().map(|due| due.notification_id.as_u128()).collect()
}

#[tokio::test]
async fn what_is_put_down_twice_is_there_once_and_as_it_was() {
    let database = Database::new().await;
    let mut conn = database.controller().await;
    let (chat, firing) = (receiver("chat", "chat"), notification("big", 1, Occasion::Firing));
    assert_eq!(put(&mut conn, &chat, &firing).await, 1);
    assert_eq!(put(&mut conn, &chat, &Notification { text: "other".to_owned(), ..firing.clone() }).await, 0);
    let due = notifications::due(&mut conn, &[], SHARE, 100, DAY).await.unwrap();
    assert_eq!(serde_json::from_value::<Notification>(due[0].payload.clone()).unwrap(), firing);
    assert_eq!(serde_json::from_value::<Receiver>(due[0].receiver.clone()).unwrap(), chat);
    assert_eq!((due.len(), due[0].alert_name.as_str(), due[0].attempts, due[0].overdue), (1, "big", 0, false));
}

#[tokio::test]
async fn an_older_one_that_waits_holds_back_the_later_of_its_receiver_only() {
    let database = Database::new().await;
    let mut conn = database.controller().await;
    let (chat, pager) = (receiver("chat", "chat"), receiver("pager", "pager"));
    let told = [
        (&chat, notification("big", 3, Occasion::Firing)),
        (&chat, notification("big", 2, Occasion::Resolved)),
        (&pager, notification("big", 1, Occasion::Firing)),
    ];
    let queued: Vec<_> = told.iter().map(|(receiver, notification)| Queued { receiver, notification }).collect();
    assert_eq!(notifications::put(&mut conn, &queued).await.unwrap(), 3);
    assert_eq!(due(&mut conn, &[]).await, [3, 1]);
    assert!(notifications::failed(&mut conn, Uuid::from_u128(3), "why", Duration::from_secs(60)).await.unwrap());
    assert_eq!(due(&mut conn, &[]).await, [1], "the end does not overtake the beginning");
    assert!(notifications::failed(&mut conn, Uuid::from_u128(3), "why", Duration::ZERO).await.unwrap());
    assert_eq!(due(&mut conn, &[]).await, [1, 3]);
    assert_eq!(due(&mut conn, &[3]).await, [1], "nor while that is under way");
    assert!(notifications::delivered(&mut conn, Uuid::from_u128(3)).await.unwrap());
    assert_eq!(due(&mut conn, &[]).await, [2, 1]);
}

#[tokio::test]
async fn an_outcome_is_noted_once() {
    let database = Database::new().await;
    let mut conn = database.controller().await;
    for (number, name) in [(1, "chat"), (2, "pager")] {
        put(&mut conn, &receiver(name, name), &notification("big", number, Occasion::Firing)).await;
    }
    let (told, lost) = (Uuid::from_u128(1), Uuid::from_u128(2));
    assert!(notifications::delivered(&mut conn, told).await.unwrap());
    assert!(notifications::give_up(&mut conn, lost, "why").await.unwrap());
    for id in [told, lost] {
        assert!(!notifications::delivered(&mut conn, id).await.unwrap());
        assert!(!notifications::failed(&mut conn, id, "late", Duration::ZERO).await.unwrap());
        assert!(!notifications::give_up(&mut conn, id, "late").await.unwrap());
    }
    assert_eq!(due(&mut conn, &[]).await, [0; 0]);
}

/// Many alerts lead to one Secret: one that does not answer must not take every turn.
#[tokio::test]
async fn a_target_gets_its_share_of_turns() {
    let database = Database::new().await;
    let mut conn = database.controller().await;
    for number in 1..=10 {
        put(&mut conn, &receiver("chat", "dead"), &notification(&format!("a{number}"), number, Occasion::Firing)).await;
    }
    put(&mut conn, &receiver("chat", "live"), &notification("z", 11, Occasion::Firing)).await;
    assert_eq!(due(&mut conn, &[]).await, [1, 2, 3, 4, 11]);
    assert_eq!(due(&mut conn, &[2, 9]).await, [1, 3, 11], "together with what is under way");
    assert_eq!(due(&mut conn, &[1, 2, 3, 4]).await, [11]);
    assert_eq!(notifications::due(&mut conn, &[], SHARE, 2, DAY).await.unwrap().len(), 2);
}

#[tokio::test]
async fn what_waits_for_too_long_is_overdue() {
    let database = Database::new().await;
    let mut conn = database.controller().await;
    put(&mut conn, &receiver("chat", "chat"), &notification("big", 1, Occasion::Firing)).await;
    let earlier = "UPDATE alert_notifications SET created_at = created_at - interval '23 hours 59 minutes'";
    database::execute(&mut *database.superuser().await, earlier.to_owned()).await;
    assert!(!notifications::due(&mut conn, &[], SHARE, 1, DAY).await.unwrap()[0].overdue);
    let later = "UPDATE alert_notifications SET created_at = created_at - interval '1 minute'";
    database::execute(&mut *database.superuser().await, later.to_owned()).await;
    assert!(notifications::due(&mut conn, &[], SHARE, 1, DAY).await.unwrap()[0].overdue);
}

#[tokio::test]
async fn status_reads_what_is_open_failing_and_given_up_since_the_last_delivery() {
    let database = Database::new().await;
    let mut conn = database.controller().await;
    let summary = async |conn: &mut PgConnection| {
        notifications::summary(conn, "big-uid", &["chat", "pager", "new"]).await.unwrap()
    };
    assert_eq!(summary(&mut conn).await, notifications::Summary::default());
    let (chat, pager, removed) = (receiver("chat", "a"), receiver("pager", "b"), receiver("removed", "c"));
    for number in 1..=3 {
        put(&mut conn, &chat, &notification("big", number, Occasion::Firing)).await;
    }
    put(&mut conn, &pager, &notification("big", 4, Occasion::Firing)).await;
    put(&mut conn, &removed, &notification("big", 5, Occasion::Firing)).await;
    put(&mut conn, &chat, &notification("other", 6, Occasion::Firing)).await;
    notifications::give_up(&mut conn, Uuid::from_u128(1), "first").await.unwrap();
    notifications::failed(&mut conn, Uuid::from_u128(2), "second", Duration::ZERO).await.unwrap();
    let seen = summary(&mut conn).await;
    assert_eq!((seen.open, seen.failing, seen.given_up), (3, 1, 1));
    assert_eq!((seen.last_error.as_deref(), seen.delivered_at), (Some("second"), None));
    notifications::delivered(&mut conn, Uuid::from_u128(4)).await.unwrap();
    let seen = summary(&mut conn).await;
    assert_eq!((seen.open, seen.given_up), (2, 1), "another receiver's delivery makes up for nothing");
    notifications::delivered(&mut conn, Uuid::from_u128(2)).await.unwrap();
    let seen = summary(&mut conn).await;
    assert_eq!((seen.open, seen.failing, seen.given_up, seen.last_error), (1, 0, 0, None));
    assert!(seen.delivered_at.is_some());
    assert_eq!(notifications::queue(&mut conn).await.unwrap().open, 3);
}

#[tokio::test]
async fn a_receiver_was_last_told_by_its_last_firing_or_reminder() {
    let database = Database::new().await;
    let mut conn = database.controller().await;
    let chat = receiver("chat", "chat");
    for (number, event) in [(1, Occasion::Firing), (2, Occasion::Reminder), (3, Occasion::Resolved)] {
        put(&mut conn, &chat, &notification("big", number, event)).await;
    }
    let age = "UPDATE alert_notifications SET created_at = '2026-01-01T00:00:00Z'::timestamptz + make_interval(hours => id::integer)";
    database::execute(&mut *database.superuser().await, age.to_owned()).await;
    let told = notifications::last_told(&mut conn, "big-uid", &["chat", "pager"]).await.unwrap();
    assert_eq!(told, [("chat".to_owned(), "2026-01-01T02:00:00Z".parse().unwrap())]);
}

#[tokio::test]
async fn the_queue_is_counted_with_the_age_of_its_oldest() {
    let database = Database::new().await;
    let mut conn = database.controller().await;
    assert_eq!(notifications::queue(&mut conn).await.unwrap(), Pending::default());
    put(&mut conn, &receiver("chat", "chat"), &notification("big", 1, Occasion::Firing)).await;
    let age = "UPDATE alert_notifications SET created_at = created_at - interval '1 hour'";
    database::execute(&mut *database.superuser().await, age.to_owned()).await;
    let Pending { open, oldest_seconds } = notifications::queue(&mut conn).await.unwrap();
    assert!(open == 1 && (3600.0..3660.0).contains(&oldest_seconds), "{open} {oldest_seconds}");
}
