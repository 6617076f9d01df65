//! The state of each subject under each VolumeAlert.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::types::Json;
use sqlx::{FromRow, PgConnection, Postgres, Row};

use crate::domain::alert::notification::Receiver;
use crate::domain::alert::{Scope, Severity, Standing};

/// Which VolumeAlert a state is of, and what all its states have in common.
#[derive(Debug, Clone, Copy)]
pub struct Alert<'a> {
    /// `metadata.uid` of the VolumeAlert.
    pub uid: &'a str,
    /// Its name, for people.
    pub name: &'a str,
    /// The rule's name.
    pub rule: &'a str,
    /// `Volume`, `Node` or `Cluster`.
    pub scope: &'a str,
    /// How much it matters.
    pub severity: Severity,
    /// Its limit in the rule's unit.
    pub threshold: f64,
    /// Who is told of the end of its states, should it be gone by then.
    pub receivers: &'a [Receiver],
}

impl<'a> Alert<'a> {
    /// Gives a statement its `$1` to `$7`, in the order of the fields.
    fn bind_to(self, query: Query<'a, Postgres, PgArguments>) -> Query<'a, Postgres, PgArguments> {
        let Self { uid, name, rule, scope, severity, threshold, receivers } = self;
        query.bind(uid).bind(name).bind(rule).bind(scope).bind(severity.as_str()).bind(threshold).bind(Json(receivers))
    }
}

/// A state to open, or to change.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    /// A volume's `node/name`, a node's name, or empty.
    pub subject: String,
    /// `volumes.id` of a volume.
    pub volume_id: Option<i64>,
    /// Pending or Firing.
    pub standing: Standing,
    /// The figure, in the rule's unit; `None`: it is open for want of one.
    pub value: Option<f64>,
    /// For people.
    pub message: String,
    /// Its notifications are put down in the same transaction.
    pub told: bool,
    /// `updated_at` of the row that was judged; `None`: there was none.
    pub seen: Option<DateTime<Utc>>,
}

/// A state that has not ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Open {
    /// `alerts.id`.
    pub id: i64,
    /// The VolumeAlert's name.
    pub alert_name: String,
    /// The rule's name as it was judged by.
    pub rule: String,
    /// What the subject is.
    pub scope: Scope,
    /// A volume's `node/name`, a node's name, or empty.
    pub subject: String,
    /// `volumes.id` of a volume.
    pub volume_id: Option<i64>,
    /// The volume's node and name.
    pub volume: Option<(String, String)>,
    /// The volume was found to be gone.
    pub volume_gone: bool,
    /// Pending or Firing.
    pub standing: Standing,
    /// How much it matters.
    pub severity: Severity,
    /// The figure that was judged last.
    pub value: Option<f64>,
    /// Its limit.
    pub threshold: f64,
    /// For people.
    pub message: String,
    /// Since when it is open.
    pub created_at: DateTime<Utc>,
    /// Since when it fires.
    pub fired_at: Option<DateTime<Utc>>,
    /// When its notifications were put down.
    pub told_at: Option<DateTime<Utc>>,
    /// Of the row, which changes with every write.
    pub updated_at: DateTime<Utc>,
    /// Who is told.
    pub receivers: Vec<Receiver>,
}

/// A state to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// `alerts.id`.
    pub id: i64,
    /// Why, for people.
    pub message: String,
    /// `updated_at` of the row that was judged.
    pub seen: DateTime<Utc>,
}

/// A state, open or over, as people see it.
#[derive(Debug, Clone, PartialEq, Serialize, FromRow, utoipa::ToSchema)]
pub struct AlertRow {
    /// `alerts.id`.
    pub id: i64,
    /// The VolumeAlert.
    pub alert: String,
    /// The rule's name, which tells the unit of `value` and `threshold`.
    pub rule: String,
    /// `Volume`, `Node` or `Cluster`.
    pub scope: String,
    /// A volume's `node/name`, a node's name, or empty.
    pub subject: String,
    /// `Pending`, `Firing` or `Resolved`.
    pub state: String,
    /// `Info`, `Warning` or `Critical`.
    pub severity: String,
    /// The last figure; absent when it is open for want of one.
    pub value: Option<f64>,
    /// Its limit.
    pub threshold: f64,
    /// For people.
    pub message: String,
    /// When it was noticed first.
    pub created_at: DateTime<Utc>,
    /// When it began to fire.
    pub fired_at: Option<DateTime<Utc>>,
    /// When it was over.
    pub resolved_at: Option<DateTime<Utc>>,
}

/// Opens states and changes them as of `now`, in one statement. Returns how many: fewer than given when another process has judged a subject
/// meanwhile.
pub async fn note(
    conn: &mut PgConnection,
    alert: Alert<'_>,
    states: &[State],
    now: DateTime<Utc>,
) -> sqlx::Result<usize> {
    if states.is_empty() {
        return Ok(0);
    }
    let column = |pick: fn(&State) -> &str| -> Vec<&str> { states.iter().map(pick).collect() };
    let noted = sqlx::query(
        "INSERT INTO alerts AS open (created_at, alert_uid, alert_name, rule, scope, severity, threshold, receivers, subject, volume_id, state,
             value, message, fired_at, told_at)
         SELECT $15, $1, $2, $3, $4, $5, $6, $7, state.subject, state.volume_id, state.state, state.value, state.message,
             CASE WHEN state.state = 'Firing' THEN $15 END, CASE WHEN state.told THEN $15 END
         FROM unnest($8::text[], $9::bigint[], $10::text[], $11::double precision[], $12::text[], $13::boolean[])
             AS state (subject, volume_id, state, value, message, told)
         ON CONFLICT (alert_uid, scope, subject) WHERE resolved_at IS NULL DO UPDATE SET
             alert_name = excluded.alert_name, severity = excluded.severity, threshold = excluded.threshold, receivers = excluded.receivers,
             state = excluded.state, value = excluded.value, message = excluded.message,
             fired_at = coalesce(open.fired_at, excluded.fired_at), told_at = coalesce(open.told_at, excluded.told_at)
         WHERE EXISTS (SELECT FROM unnest($8::text[], $14::timestamptz[]) AS judged (subject, seen)
             WHERE judged.subject = open.subject AND judged.seen = open.updated_at)",
    );
    let noted = alert
        .bind_to(noted)
        .bind(column(|state| &state.subject))
        .bind(states.iter().map(|state| state.volume_id).collect::<Vec<_>>())
        .bind(column(|state| state.standing.as_str()))
        .bind(states.iter().map(|state| state.value).collect::<Vec<_>>())
        .bind(column(|state| &state.message))
        .bind(states.iter().map(|state| state.told).collect::<Vec<_>>())
        .bind(states.iter().map(|state| state.seen).collect::<Vec<_>>())
        .bind(now)
        .execute(conn)
        .await?;
    Ok(usize::try_from(noted.rows_affected()).unwrap_or(usize::MAX))
}

/// Ends states as of `now`, in one statement. Returns how many: fewer than given when another process has judged a subject meanwhile.
pub async fn end(conn: &mut PgConnection, ends: &[End], now: DateTime<Utc>) -> sqlx::Result<usize> {
    if ends.is_empty() {
        return Ok(0);
    }
    let ended = sqlx::query(
        "UPDATE alerts SET state = 'Resolved', resolved_at = $4, message = ended.message
         FROM unnest($1::bigint[], $2::text[], $3::timestamptz[]) AS ended (id, message, seen)
         WHERE alerts.id = ended.id AND alerts.updated_at = ended.seen AND resolved_at IS NULL",
    )
    .bind(ends.iter().map(|end| end.id).collect::<Vec<_>>())
    .bind(ends.iter().map(|end| end.message.as_str()).collect::<Vec<_>>())
    .bind(ends.iter().map(|end| end.seen).collect::<Vec<_>>())
    .bind(now)
    .execute(conn)
    .await?;
    Ok(usize::try_from(ended.rows_affected()).unwrap_or(usize::MAX))
}

/// Writes down a state of the cluster that began and ended while nothing could be written; `false`: it is there already.
pub async fn note_past(
    conn: &mut PgConnection,
    alert: Alert<'_>,
    fired_at: DateTime<Utc>,
    message: &str,
) -> sqlx::Result<bool> {
    let noted = sqlx::query(
        "INSERT INTO alerts (created_at, alert_uid, alert_name, rule, scope, severity, threshold, receivers, subject, state, value, message, fired_at,
             told_at, resolved_at)
         SELECT $8, $1, $2, $3, $4, $5, $6, $7, '', 'Resolved', 1, $9, $8, $8, clock_timestamp()
         WHERE NOT EXISTS (SELECT FROM alerts WHERE alert_uid = $1 AND fired_at = $8)",
    );
    let noted = alert.bind_to(noted).bind(fired_at).bind(message).execute(conn).await?;
    Ok(noted.rows_affected() == 1)
}

/// What is open under one VolumeAlert, by subject.
pub async fn open(conn: &mut PgConnection, alert_uid: &str) -> sqlx::Result<Vec<Open>> {
    sqlx::query_as(
        "SELECT alerts.*, volumes.node AS volume_node, volumes.name AS volume_name, volumes.deleted_at IS NOT NULL AS volume_gone
         FROM alerts LEFT JOIN volumes ON volumes.id = alerts.volume_id
         WHERE alert_uid = $1 AND resolved_at IS NULL ORDER BY alerts.scope, alerts.subject",
    )
    .bind(alert_uid)
    .fetch_all(conn)
    .await
}

/// The uids of all VolumeAlerts under which something is open.
pub async fn with_open(conn: &mut PgConnection) -> sqlx::Result<Vec<String>> {
    // From uid to uid, past whatever many subjects each has.
    sqlx::query_scalar(
        "WITH RECURSIVE alert AS (
             SELECT min(alert_uid) AS uid FROM alerts WHERE resolved_at IS NULL
             UNION ALL
             SELECT (SELECT min(alert_uid) FROM alerts WHERE resolved_at IS NULL AND alert_uid > alert.uid) FROM alert WHERE uid IS NOT NULL
         )
         SELECT uid FROM alert WHERE uid IS NOT NULL",
    )
    .fetch_all(conn)
    .await
}

/// States by id, newest first. `$1` before which id, `$2` how many.
macro_rules! listed {
    ($condition:literal) => {
        concat!(
            "SELECT id, alert_name AS alert, rule, scope, subject, state, severity, value, threshold, message, created_at, fired_at, resolved_at
             FROM alerts WHERE id < $1 ",
            $condition,
            " ORDER BY id DESC LIMIT $2"
        )
    };
}

/// States by id, newest first, from before `before`; only those that are open, or only those that are over, and only those of one VolumeAlert,
/// where asked.
pub async fn list(
    conn: &mut PgConnection,
    alert: Option<&str>,
    open: Option<bool>,
    before: i64,
    limit: i64,
) -> sqlx::Result<Vec<AlertRow>> {
    // A statement each: one for all would be planned without the index that only one of them can use.
    let sql = match (alert, open) {
        (None, None) => listed!(""),
        (None, Some(true)) => listed!("AND resolved_at IS NULL"),
        (None, Some(false)) => listed!("AND resolved_at IS NOT NULL"),
        (Some(_), None) => listed!("AND alert_name = $3"),
        (Some(_), Some(true)) => listed!("AND alert_name = $3 AND resolved_at IS NULL"),
        (Some(_), Some(false)) => listed!("AND alert_name = $3 AND resolved_at IS NOT NULL"),
    };
    let query = sqlx::query_as(sql).bind(before).bind(limit);
    let query = if let Some(alert) = alert { query.bind(alert) } else { query };
    query.fetch_all(conn).await
}

impl FromRow<'_, sqlx::postgres::PgRow> for Open {
    fn from_row(row: &sqlx::postgres::PgRow) -> sqlx::Result<Self> {
        let (scope, state, severity): (String, String, String) =
            (row.try_get("scope")?, row.try_get("state")?, row.try_get("severity")?);
        let node: Option<String> = row.try_get("volume_node")?;
        let name: Option<String> = row.try_get("volume_name")?;
        Ok(Self {
            id: row.try_get("id")?,
            alert_name: row.try_get("alert_name")?,
            rule: row.try_get("rule")?,
            scope: [Scope::Volume, Scope::Node]
                .into_iter()
                .find(|known| known.as_str() == scope)
                .unwrap_or(Scope::Cluster),
            subject: row.try_get("subject")?,
            volume_id: row.try_get("volume_id")?,
            volume: node.zip(name),
            volume_gone: row.try_get("volume_gone")?,
            standing: if state == Standing::Firing.as_str() { Standing::Firing } else { Standing::Pending },
            severity: [Severity::Info, Severity::Warning]
                .into_iter()
                .find(|known| known.as_str() == severity)
                .unwrap_or(Severity::Critical),
            value: row.try_get("value")?,
            threshold: row.try_get("threshold")?,
            message: row.try_get("message")?,
            created_at: row.try_get("created_at")?,
            fired_at: row.try_get("fired_at")?,
            told_at: row.try_get("told_at")?,
            updated_at: row.try_get("updated_at")?,
            receivers: row.try_get::<Json<Vec<Receiver>>, _>("receivers")?.0,
        })
    }
}
