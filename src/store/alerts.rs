//! The state of each subject under each VolumeAlert.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{FromRow, PgConnection};

/// What a rule says of one subject now.
#[derive(Debug, Clone, PartialEq)]
pub struct Judgement {
    /// `metadata.uid` of the VolumeAlert.
    pub alert_uid: String,
    /// Its name, for people.
    pub alert_name: String,
    /// `Volume`, `Node` or `Cluster`.
    pub scope: String,
    /// A volume's `node/name`, a node's name, or empty.
    pub subject: String,
    /// `volumes.id` of a volume.
    pub volume_id: Option<i64>,
    /// `Pending`, `Firing` or `NoData`.
    pub state: String,
    /// `Info`, `Warning` or `Critical`.
    pub severity: String,
    /// The figure, in the rule's unit.
    pub value: Option<f64>,
    /// Its limit.
    pub threshold: Option<f64>,
    /// For people.
    pub message: String,
}

/// A subject that an alert is, or was, about.
#[derive(Debug, Clone, PartialEq, Serialize, FromRow)]
pub struct Alert {
    /// `alerts.id`.
    pub id: i64,
    /// The VolumeAlert.
    pub alert_name: String,
    /// `Volume`, `Node` or `Cluster`.
    pub scope: String,
    /// A volume's `node/name`, a node's name, or empty.
    pub subject: String,
    /// `Pending`, `Firing`, `NoData` or `Resolved`.
    pub state: String,
    /// `Info`, `Warning` or `Critical`.
    pub severity: String,
    /// The figure.
    pub value: Option<f64>,
    /// Its limit.
    pub threshold: Option<f64>,
    /// For people.
    pub message: String,
    /// When it was noticed first.
    pub created_at: DateTime<Utc>,
    /// When it fired first.
    pub fired_at: Option<DateTime<Utc>>,
    /// When it was over.
    pub resolved_at: Option<DateTime<Utc>>,
}

/// Notes what a rule says of a subject: opens its state or changes it. Returns its id.
pub async fn note(conn: &mut PgConnection, judgement: &Judgement) -> sqlx::Result<i64> {
    sqlx::query_scalar(
        "INSERT INTO alerts AS open (alert_uid, alert_name, scope, subject, volume_id, state, severity, value, threshold, message, fired_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, CASE WHEN $6 = 'Firing' THEN clock_timestamp() END)
         ON CONFLICT (alert_uid, scope, subject) WHERE resolved_at IS NULL DO UPDATE SET
             state = excluded.state, severity = excluded.severity, value = excluded.value, threshold = excluded.threshold,
             message = excluded.message, volume_id = coalesce(excluded.volume_id, open.volume_id),
             fired_at = coalesce(open.fired_at, excluded.fired_at)
         RETURNING id",
    )
    .bind(&judgement.alert_uid)
    .bind(&judgement.alert_name)
    .bind(&judgement.scope)
    .bind(&judgement.subject)
    .bind(judgement.volume_id)
    .bind(&judgement.state)
    .bind(&judgement.severity)
    .bind(judgement.value)
    .bind(judgement.threshold)
    .bind(&judgement.message)
    .fetch_one(conn)
    .await
}

/// Ends a state; `false`: it was over already.
pub async fn resolve(conn: &mut PgConnection, id: i64, message: &str) -> sqlx::Result<bool> {
    let resolved = sqlx::query(
        "UPDATE alerts SET state = 'Resolved', resolved_at = clock_timestamp(), message = $2 WHERE id = $1 AND resolved_at IS NULL",
    )
    .bind(id)
    .bind(message)
    .execute(conn)
    .await?;
    Ok(resolved.rows_affected() == 1)
}

/// What is open under one VolumeAlert, by subject.
pub async fn open(conn: &mut PgConnection, alert_uid: &str) -> sqlx::Result<Vec<Alert>> {
    sqlx::query_as(
        "SELECT id, alert_name, scope, subject, state, severity, value, threshold, message, created_at, fired_at, resolved_at
         FROM alerts WHERE alert_uid = $1 AND resolved_at IS NULL ORDER BY scope, subject",
    )
    .bind(alert_uid)
    .fetch_all(conn)
    .await
}
