//! What is still to be told, to one receiver each (`alert_notifications`): put down with the state it tells about, taken off when it was told.
//!
//! Rows are named by their stable id, not by their number, which a restored database gives again. Every outcome is a compare-and-set on a row
//! that is still open.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::types::Json;
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;

use crate::domain::alert::notification::{Notification, Receiver};

/// A notification and who is to be told.
#[derive(Debug, Clone, Copy)]
pub struct Queued<'a> {
    /// As the spec has it.
    pub receiver: &'a Receiver,
    /// What it is told; `id` is this receiver's alone.
    pub notification: &'a Notification,
}

/// A notification whose turn has come.
#[derive(Debug, Clone, PartialEq, FromRow)]
pub struct Due {
    /// [`Notification::id`].
    pub notification_id: Uuid,
    /// Name of the VolumeAlert.
    pub alert_name: String,
    /// A [`Receiver`], unless another version wrote it.
    pub receiver: Value,
    /// A [`Notification`], unless another version wrote it.
    pub payload: Value,
    /// How often it failed.
    pub attempts: i32,
    /// It was put down longer ago than it is tried.
    pub overdue: bool,
}

/// How telling a VolumeAlert's receivers stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, FromRow)]
pub struct Summary {
    /// When a receiver was last told something.
    pub delivered_at: Option<DateTime<Utc>>,
    /// Not told yet.
    pub open: i64,
    /// Of these, tried in vain at least once.
    pub failing: i64,
    /// Given up since their receiver was last told something.
    pub given_up: i64,
    /// Why the last of the failing or given up ones failed.
    pub last_error: Option<String>,
}

/// What is to be told, of all alerts.
#[derive(Debug, Clone, Copy, Default, PartialEq, FromRow)]
pub struct Pending {
    /// How many.
    pub open: i64,
    /// How long the oldest waits; 0 when there is none.
    pub oldest_seconds: f64,
}

/// Puts notifications down, in this order. One that is there already stays as it is. Returns how many are new.
pub async fn put(conn: &mut PgConnection, queued: &[Queued<'_>]) -> sqlx::Result<u64> {
    if queued.is_empty() {
        return Ok(0);
    }
    let notifications = || queued.iter().map(|queued| queued.notification);
    let receivers = || queued.iter().map(|queued| queued.receiver);
    let put = sqlx::query(
        "INSERT INTO alert_notifications (notification_id, alert_uid, alert_name, event, payload, receiver_name, receiver)
         SELECT id, alert_uid, alert_name, event, payload, receiver_name, receiver
         FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::jsonb[], $6::text[], $7::jsonb[]) WITH ORDINALITY
             AS queued (id, alert_uid, alert_name, event, payload, receiver_name, receiver, position)
         ORDER BY position ON CONFLICT (notification_id) DO NOTHING",
    )
    .bind(notifications().map(|notification| notification.id).collect::<Vec<_>>())
    .bind(notifications().map(|notification| notification.alert_uid.as_str()).collect::<Vec<_>>())
    .bind(notifications().map(|notification| notification.alert.as_str()).collect::<Vec<_>>())
    .bind(notifications().map(|notification| notification.event.as_str()).collect::<Vec<_>>())
    .bind(notifications().map(Json).collect::<Vec<_>>())
    .bind(receivers().map(|receiver| receiver.name.as_str()).collect::<Vec<_>>())
    .bind(receivers().map(Json).collect::<Vec<_>>())
    .execute(conn)
    .await?;
    Ok(put.rows_affected())
}

/// At most `limit` open ones whose turn has come: of each receiver of each alert only the oldest, and none while that waits for its next
/// attempt. Receivers with the same Secret lead to the same place, and get `share` turns at a time together with those `under_way`, which are
/// not listed again. One that waits for longer than `keep` is overdue.
pub async fn due(
    conn: &mut PgConnection,
    under_way: &[Uuid],
    share: i64,
    limit: i64,
    keep: Duration,
) -> sqlx::Result<Vec<Due>> {
    // From receiver to receiver by the index: what waits behind a dead one's head is not read.
    sqlx::query_as(
        "WITH RECURSIVE head AS (
             (SELECT id, notification_id, alert_uid, receiver_name, receiver, next_attempt_at FROM alert_notifications
              WHERE delivered_at IS NULL AND given_up_at IS NULL ORDER BY alert_uid, receiver_name, id LIMIT 1)
             UNION ALL
             SELECT next.* FROM head CROSS JOIN LATERAL (
                 SELECT id, notification_id, alert_uid, receiver_name, receiver, next_attempt_at FROM alert_notifications AS next
                 WHERE delivered_at IS NULL AND given_up_at IS NULL
                     AND (next.alert_uid, next.receiver_name) > (head.alert_uid, head.receiver_name)
                 ORDER BY alert_uid, receiver_name, id LIMIT 1) AS next
         ), turn AS (
             SELECT id, next_attempt_at, notification_id = ANY ($1) AS under_way,
                 row_number() OVER (PARTITION BY receiver ->> 'type', receiver ->> 'secretName'
                     ORDER BY notification_id = ANY ($1) DESC, next_attempt_at, id) AS place
             FROM head WHERE next_attempt_at <= clock_timestamp() OR notification_id = ANY ($1)
         )
         SELECT due.notification_id, due.alert_name, due.receiver, due.payload, due.attempts,
             due.created_at + make_interval(secs => $4) < clock_timestamp() AS overdue
         FROM turn JOIN alert_notifications AS due ON due.id = turn.id
         WHERE NOT turn.under_way AND turn.place <= $2 ORDER BY turn.next_attempt_at, due.id LIMIT $3",
    )
    .bind(under_way)
    .bind(share)
    .bind(limit)
    .bind(keep.as_secs_f64())
    .fetch_all(conn)
    .await
}

/// Notes that one was told; `false`: it is no longer open.
pub async fn delivered(conn: &mut PgConnection, id: Uuid) -> sqlx::Result<bool> {
    let changed = sqlx::query(
        "UPDATE alert_notifications SET delivered_at = clock_timestamp(), attempts = attempts + 1, last_error = NULL
         WHERE notification_id = $1 AND delivered_at IS NULL AND given_up_at IS NULL",
    )
    .bind(id)
    .execute(conn)
    .await?;
    Ok(changed.rows_affected() == 1)
}

/// Notes that one was tried in vain, and gets its next turn after `wait`; `false`: it is no longer open.
pub async fn failed(conn: &mut PgConnection, id: Uuid, error: &str, wait: Duration) -> sqlx::Result<bool> {
    let changed = sqlx::query(
        "UPDATE alert_notifications SET attempts = attempts + 1, last_error = left($2, 1024),
             next_attempt_at = clock_timestamp() + make_interval(secs => $3)
         WHERE notification_id = $1 AND delivered_at IS NULL AND given_up_at IS NULL",
    )
    .bind(id)
    .bind(error)
    .bind(wait.as_secs_f64())
    .execute(conn)
    .await?;
    Ok(changed.rows_affected() == 1)
}

/// Notes that one was tried in vain for the last time; `false`: it is no longer open.
pub async fn give_up(conn: &mut PgConnection, id: Uuid, error: &str) -> sqlx::Result<bool> {
    let changed = sqlx::query(
        "UPDATE alert_notifications SET attempts = attempts + 1, last_error = left($2, 1024), given_up_at = clock_timestamp()
         WHERE notification_id = $1 AND delivered_at IS NULL AND given_up_at IS NULL",
    )
    .bind(id)
    .bind(error)
    .execute(conn)
    .await?;
    Ok(changed.rows_affected() == 1)
}

/// How telling these receivers of a VolumeAlert stands; what is open for others, which the spec no longer has, is not counted.
pub async fn summary(conn: &mut PgConnection, alert_uid: &str, receivers: &[&str]) -> sqlx::Result<Summary> {
    // A receiver is told in order, so what came after the last that was delivered is open or given up.
    sqlx::query_as(
        "WITH receiver AS (
             SELECT receiver.name, last.id, last.delivered_at FROM unnest($2::text[]) AS receiver (name) LEFT JOIN LATERAL (
                 SELECT id, delivered_at FROM alert_notifications
                 WHERE alert_uid = $1 AND receiver_name = receiver.name AND delivered_at IS NOT NULL ORDER BY id DESC LIMIT 1) AS last ON true
         ), since AS (
             SELECT told.* FROM receiver JOIN LATERAL (
                 SELECT given_up_at, attempts, last_error, updated_at FROM alert_notifications
                 WHERE alert_uid = $1 AND receiver_name = receiver.name AND id > coalesce(receiver.id, 0)) AS told ON true
         )
         SELECT (SELECT max(delivered_at) FROM receiver) AS delivered_at,
             count(*) FILTER (WHERE given_up_at IS NULL) AS open,
             count(*) FILTER (WHERE given_up_at IS NULL AND attempts > 0) AS failing,
             count(*) FILTER (WHERE given_up_at IS NOT NULL) AS given_up,
             (array_agg(last_error ORDER BY updated_at DESC) FILTER (WHERE last_error IS NOT NULL))[1] AS last_error
         FROM since",
    )
    .bind(alert_uid)
    .bind(receivers)
    .fetch_one(conn)
    .await
}

/// When these receivers of a VolumeAlert were last to be told that it fires; those that never were are left out.
pub async fn last_told(
    conn: &mut PgConnection,
    alert_uid: &str,
    receivers: &[&str],
) -> sqlx::Result<Vec<(String, DateTime<Utc>)>> {
    sqlx::query_as(
        "SELECT receiver.name, last.created_at FROM unnest($2::text[]) AS receiver (name) JOIN LATERAL (
             SELECT created_at FROM alert_notifications
             WHERE alert_uid = $1 AND receiver_name = receiver.name AND event <> 'Resolved' ORDER BY id DESC LIMIT 1) AS last ON true",
    )
    .bind(alert_uid)
    .bind(receivers)
    .fetch_all(conn)
    .await
}

/// What is to be told, of all alerts.
pub async fn queue(conn: &mut PgConnection) -> sqlx::Result<Pending> {
    sqlx::query_as(
        "SELECT count(*) AS open, coalesce(extract(epoch FROM clock_timestamp() - min(created_at)), 0)::double precision AS oldest_seconds
         FROM alert_notifications WHERE delivered_at IS NULL AND given_up_at IS NULL",
    )
    .fetch_one(conn)
    .await
}
