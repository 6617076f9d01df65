//! Containers, and which volumes they mount; kept for a while when they are gone.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{FromRow, PgConnection};

use super::labels::Labels;

/// A query of how many running and how many stopped containers hold the volume of the row `volume`.
macro_rules! holders {
    () => {
        "SELECT count(DISTINCT containers.id) FILTER (WHERE containers.state IN ('running', 'paused', 'restarting')) AS running,
             count(DISTINCT containers.id) FILTER (WHERE containers.state NOT IN ('running', 'paused', 'restarting')) AS stopped
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
}

/// Who mounts a volume, or did: those that are there first, then newest first.
pub async fn of_volume(conn: &mut PgConnection, volume: i64, limit: i64) -> sqlx::Result<Vec<Attachment>> {
    sqlx::query_as(
        "SELECT container.container_id, container.node, container.name, container.image, container.state, container.labels,
             mount.mount_path, mount.read_write, container.first_seen_at, container.last_seen_at, container.deleted_at
         FROM container_volumes AS mount JOIN containers AS container ON container.id = mount.container_id
         WHERE mount.volume_id = $1
         ORDER BY container.deleted_at DESC NULLS FIRST, container.id DESC, mount.mount_path LIMIT $2",
    )
    .bind(volume)
    .bind(limit)
    .fetch_all(conn)
    .await
}
