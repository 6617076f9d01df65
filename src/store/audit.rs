//! Who decided what: rows are only ever added, in the transaction of the change they tell about.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use sqlx::types::Json;
use sqlx::{FromRow, PgConnection};

/// What the controller decides. The database itself adds `Migrated`, `MigrationReverted`, `RetentionDropped` and `NodeRetired`, and, of a job that
/// its agent gave back, `JobRetried` and `JobFailed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// A spec was seen for the first time.
    SpecSeen,
    /// A run was planned.
    RunPlanned,
    /// A run was cancelled.
    RunCancelled,
    /// A job got a new ticket.
    JobRetried,
    /// A job was to be tried again and had no attempt left.
    JobFailed,
    /// The database was given to another cluster.
    Adopted,
}

impl Action {
    /// The name in the table.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SpecSeen => "SpecSeen",
            Self::RunPlanned => "RunPlanned",
            Self::RunCancelled => "RunCancelled",
            Self::JobRetried => "JobRetried",
            Self::JobFailed => "JobFailed",
            Self::Adopted => "Adopted",
        }
    }
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, FromRow)]
pub struct Event {
    /// In the order of their beginning.
    pub id: i64,
    /// When, by the database's clock.
    pub created_at: DateTime<Utc>,
    /// The login.
    pub actor: String,
    /// What was done.
    pub action: String,
    /// To what: `volumescan/NAME`, `run/ID`, `job/ID`, `partition/NAME`, `node/NAME`, `migration/N`, `installation`, `rows`.
    pub subject: String,
    /// The particulars.
    pub detail: Value,
}

/// Adds an event.
pub async fn record(conn: &mut PgConnection, action: Action, subject: &str, detail: Value) -> sqlx::Result<()> {
    sqlx::query("INSERT INTO audit_events (action, subject, detail) VALUES ($1, $2, $3)")
        .bind(action.as_str())
        .bind(subject)
        .bind(Json(detail))
        .execute(conn)
        .await
        .map(|_| ())
}

/// Adds the spec of a scan unless this generation of it was seen before; tells whether it was new.
pub async fn spec_seen(
    conn: &mut PgConnection,
    name: &str,
    uid: &str,
    generation: i64,
    spec: Value,
) -> sqlx::Result<bool> {
    let seen: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM audit_events WHERE subject = $1 AND action = $2 AND detail @> $3)",
    )
    .bind(format!("volumescan/{name}"))
    .bind(Action::SpecSeen.as_str())
    .bind(Json(serde_json::json!({"uid": uid, "generation": generation})))
    .fetch_one(&mut *conn)
    .await?;
    if !seen {
        let detail = serde_json::json!({"uid": uid, "generation": generation, "spec": spec});
        record(conn, Action::SpecSeen, &format!("volumescan/{name}"), detail).await?;
    }
    Ok(!seen)
}

/// Events before the one with this id, newest first; of one subject where it is given.
pub async fn list(conn: &mut PgConnection, subject: Option<&str>, before: i64, limit: i64) -> sqlx::Result<Vec<Event>> {
    sqlx::query_as(
        "SELECT id, created_at, actor, action, subject, detail FROM audit_events
         WHERE id < $1 AND ($2::text IS NULL OR subject = $2) ORDER BY id DESC LIMIT $3",
    )
    .bind(before)
    .bind(subject)
    .bind(limit)
    .fetch_all(conn)
    .await
}
