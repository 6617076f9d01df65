//! Containers, and which volumes they mount; kept for a while when they are gone.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::{FromRow, PgConnection};

use super::labels::Labels;
use super::page::{InvalidCursor, seal, unseal};

/// A query of how many running and how many stopped containers hold the volume of the row `volume`.
macro_rules! holders {
    () => {
        "SELECT count(DISTINCT containers.id) FILTER (WHERE containers.is_running) AS running,
             count(DISTINCT containers.id) FILTER (WHERE NOT containers.is_running) AS stopped
         FROM container_volumes JOIN containers ON containers.id = container_volumes.container_id
         WHERE container_volumes.volume_id = volume.id AND containers.deleted_at IS NULL"
    };
}
pub(super) use holders;

/// A container that mounts a volume, or did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, FromRow, utoipa::ToSchema)]
pub struct Attachment {
    /// Docker's 64-digit id.
    pub container_id: String,
    /// Its node.
    pub node: String,
    /// Name without the leading slash.
    pub name: String,
    /// Image reference as given at creation.
    pub image: String,
    /// Docker's state when last listed.
    pub state: String,
    /// Docker labels.
    pub labels: Labels,
    /// Where the container has the volume.
    pub mount_path: String,
    /// Whether it may write.
    pub read_write: bool,
    /// When it was listed first.
    pub first_seen_at: DateTime<Utc>,
    /// When it was listed last.
    pub last_seen_at: DateTime<Utc>,
    /// When it was found to be gone.
    pub deleted_at: Option<DateTime<Utc>>,
    #[serde(skip)]
    #[sqlx(flatten)]
    place: Place,
}

/// Where a page of attachments ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    volume: i64,
    deleted_at: Option<DateTime<Utc>>,
    place: Place,
}

/// `containers.id` and `container_volumes.id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, FromRow)]
struct Place {
    container: i64,
    mount: i64,
}

impl Cursor {
    /// Reads what [`Attachment::cursor`] made for this volume.
    pub fn decode(cursor: &str, volume: i64) -> Result<Self, InvalidCursor> {
        let cursor: Self = unseal(cursor)?;
        if cursor.volume == volume { Ok(cursor) } else { Err(InvalidCursor::OtherList) }
    }
}

impl Attachment {
    /// The cursor of the page that begins after it.
    pub fn cursor(&self, volume: i64) -> String {
        seal(&Cursor { volume, deleted_at: self.deleted_at, place: self.place })
    }
}

/// Who mounts a volume, or did, after the one where a page ended: those that are there first, then newest first.
pub async fn of_volume(
    conn: &mut PgConnection,
    volume: i64,
    after: Option<&Cursor>,
    limit: i64,
) -> sqlx::Result<Vec<Attachment>> {
    let place = after.map_or(Place { container: i64::MAX, mount: i64::MAX }, |cursor| cursor.place);
    sqlx::query_as(
        "SELECT container.container_id, container.node, container.name, container.image, container.state, container.labels,
             mount.mount_path, mount.read_write, container.first_seen_at, container.last_seen_at, container.deleted_at,
             container.id AS container, mount.id AS mount
         FROM container_volumes AS mount JOIN containers AS container ON container.id = mount.container_id
         WHERE mount.volume_id = $1
             AND (coalesce(container.deleted_at, 'infinity'), container.id, mount.id) < (coalesce($2, 'infinity'::timestamptz), $3, $4)
         ORDER BY coalesce(container.deleted_at, 'infinity') DESC, container.id DESC, mount.id DESC LIMIT $5",
    )
    .bind(volume)
    .bind(after.and_then(|cursor| cursor.deleted_at))
    .bind(place.container)
    .bind(place.mount)
    .bind(limit)
    .fetch_all(conn)
    .await
}
