//! Told from memory, while the database is away.

use crate::webhook::{Answer, Webhook};
use crate::*;

#[tokio::test]
async fn without_the_database_it_is_told_once_and_in_order() {
    let (operator, hook) = (Operator::new(&[]).await, Webhook::on("11.0.0.1").await);
    operator.secret("hook", &[("url", &hook.url("public.test"))]).await;
    operator.database_is_away(true);
    let _leading = operator.lead();
    let (firing, resolved) = (told("down", Occasion::Firing), told("down", Occasion::Resolved));
    let hand_in = |notification: &Notification| operator.notifier.tell_apart(webhook("hook"), notification.clone());
    hand_in(&firing);
    hand_in(&firing);
    hook.told(1).await;
    hand_in(&resolved);
    hand_in(&firing);
    hook.told(2).await;
    let standing = wait("both to be told", async || {
        Some(operator.notifier.apart("down-uid")).filter(|standing| standing.open == 0)
    })
    .await;
    assert!(standing.delivered_at.is_some() && standing.last_error.is_none(), "{standing:?}");
    let events: Vec<_> = hook.seen().iter().map(|request| request.json()["event"].clone()).collect();
    assert_eq!(events, ["Firing", "Resolved"]);
}

#[tokio::test]
async fn what_fails_is_shown_and_tried_again() {
    let (operator, hook) = (Operator::new(&[]).await, Webhook::on("11.0.0.1").await);
    operator.secret("hook", &[("url", &hook.url("public.test"))]).await;
    hook.answers([Answer::Status(503)]);
    let _leading = operator.lead();
    operator.notifier.tell_apart(webhook("hook"), told("down", Occasion::Firing));
    let failing = wait("it to fail", async || {
        Some(operator.notifier.apart("down-uid")).filter(|standing| standing.last_error.is_some())
    })
    .await;
    assert_eq!((failing.open, failing.delivered_at), (1, None));
    assert_eq!(failing.last_error.as_deref(), Some("spec.notify[hook]: the receiver answered 503 Service Unavailable"));
    let seen = hook.told(2).await;
    assert_eq!(seen[0].json()["id"], seen[1].json()["id"]);
}

#[tokio::test]
async fn the_outbox_waits_for_the_database() {
    let (operator, hook) = (Operator::new(&[]).await, Webhook::on("11.0.0.1").await);
    operator.secret("hook", &[("url", &hook.url("public.test"))]).await;
    operator.database_is_away(true);
    let _leading = operator.lead();
    let firing = told("big", Occasion::Firing);
    operator.put(&webhook("hook"), &firing).await;
    // Told from memory meanwhile: the leader is at work.
    operator.notifier.tell_apart(webhook("hook"), told("down", Occasion::Firing));
    hook.told(1).await;
    assert_eq!(operator.row(&firing).await.attempts, 0);
    operator.database_is_away(false);
    operator.delivered(&firing).await;
}
