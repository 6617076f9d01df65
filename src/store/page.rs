//! How lists of volumes are sorted and cut into pages.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::filter::{Sql, VolumeFilter};

/// What a list of volumes is sorted by. Each has an index that ends in the id, which makes the order total.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum VolumeSort {
    /// Docker's name, by bytes.
    #[default]
    Name,
    /// The node's name, by bytes.
    Node,
    /// When it was listed first.
    FirstSeen,
    /// Its last known size; volumes of unknown size come last.
    Size,
    /// Its growth; volumes of unknown growth come last.
    Growth,
}

/// Which end of the list comes first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Smallest, earliest first.
    #[default]
    Asc,
    /// Biggest, latest first.
    Desc,
}

/// A list: which volumes, in which order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VolumeList {
    /// Which.
    pub filter: VolumeFilter,
    /// By what.
    pub sort: VolumeSort,
    /// Which end first.
    pub direction: Direction,
}

/// Which part of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Page {
    /// So many rows after skipping others; the total is counted.
    Offset {
        /// At most this many rows.
        limit: i64,
        /// Rows before them.
        offset: i64,
    },
    /// So many rows after the last one of another page.
    After {
        /// At most this many rows.
        limit: i64,
        /// Where that page ended; absent: the first page.
        cursor: Option<Cursor>,
        /// Whether to count the total.
        count: bool,
    },
}

/// Where a page ended. It belongs to one list: its order and its filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    key: Key,
    id: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Key {
    Text(String),
    Time(DateTime<Utc>),
    Number(i64),
}

/// A cursor that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCursor {
    /// It is not one of ours.
    #[error("the cursor cannot be read")]
    Unreadable,
    /// It was made for another list.
    #[error("the cursor belongs to another list, or to one with another sort, direction or filter")]
    OtherList,
}

#[derive(Serialize, Deserialize)]
struct Encoded {
    list: String,
    key: Key,
    id: i64,
}

/// A place in a list as text for the outside.
pub(super) fn seal(place: &impl Serialize) -> String {
    URL_SAFE_NO_PAD.encode(serde_json::json!(place).to_string())
}

/// The place that [`seal`] made a cursor of.
pub(super) fn unseal<T: DeserializeOwned>(cursor: &str) -> Result<T, InvalidCursor> {
    let json = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| InvalidCursor::Unreadable)?;
    serde_json::from_slice(&json).map_err(|_| InvalidCursor::Unreadable)
}

impl Page {
    /// The first page.
    pub const fn first(limit: i64) -> Self {
        Self::After { limit, cursor: None, count: false }
    }

    /// The page after `cursor`.
    pub const fn after(limit: i64, cursor: Cursor) -> Self {
        Self::After { limit, cursor: Some(cursor), count: false }
    }
}

impl VolumeList {
    /// Reads a cursor that [`Self::encode`] made for this very list.
    pub fn decode(&self, cursor: &str) -> Result<Cursor, InvalidCursor> {
        let Encoded { list, key, id } = unseal(cursor)?;
        let fits = matches!(
            (self.sort, &key),
            (VolumeSort::Name | VolumeSort::Node, Key::Text(_))
                | (VolumeSort::FirstSeen, Key::Time(_))
                | (VolumeSort::Size | VolumeSort::Growth, Key::Number(_))
        );
        if list == self.fingerprint() && fits { Ok(Cursor { key, id }) } else { Err(InvalidCursor::OtherList) }
    }

    pub(super) fn encode(&self, key: Key, id: i64) -> String {
        seal(&Encoded { list: self.fingerprint(), key, id })
    }

    fn fingerprint(&self) -> String {
        let list = serde_json::json!([self.sort, self.direction, self.filter]).to_string();
        URL_SAFE_NO_PAD.encode(&Sha256::digest(list)[..9])
    }

    /// Whether sizes or growth are looked at.
    pub(super) const fn is_ranked(&self) -> bool {
        self.filter.is_ranked() || matches!(self.sort, VolumeSort::Size | VolumeSort::Growth)
    }

    /// The key of a row, and the id that ends it.
    pub(super) const fn key_columns(&self) -> &'static str {
        match (self.sort, self.direction) {
            (VolumeSort::Name, _) => "volume.name, volume.id",
            (VolumeSort::Node, _) => "volume.node, volume.id",
            (VolumeSort::FirstSeen, _) => "volume.first_seen_at, volume.id",
            (VolumeSort::Size, Direction::Asc) => {
                "coalesce(ranking.allocated_bytes, 9223372036854775807), ranking.volume_id"
            }
            (VolumeSort::Size, Direction::Desc) => "coalesce(ranking.allocated_bytes, -1), ranking.volume_id",
            (VolumeSort::Growth, Direction::Asc) => {
                "coalesce(ranking.growth_bytes_per_day, 9223372036854775807), ranking.volume_id"
            }
            (VolumeSort::Growth, Direction::Desc) => {
                "coalesce(ranking.growth_bytes_per_day, -9223372036854775808), ranking.volume_id"
            }
        }
    }

    /// The same for ORDER BY.
    pub(super) const fn order(&self) -> &'static str {
        match (self.sort, self.direction) {
            (VolumeSort::Name, Direction::Desc) => "volume.name DESC, volume.id DESC",
            (VolumeSort::Node, Direction::Desc) => "volume.node DESC, volume.id DESC",
            (VolumeSort::FirstSeen, Direction::Desc) => "volume.first_seen_at DESC, volume.id DESC",
            (VolumeSort::Size, Direction::Desc) => "coalesce(ranking.allocated_bytes, -1) DESC, ranking.volume_id DESC",
            (VolumeSort::Growth, Direction::Desc) => {
                "coalesce(ranking.growth_bytes_per_day, -9223372036854775808) DESC, ranking.volume_id DESC"
            }
            (_, Direction::Asc) => self.key_columns(),
        }
    }

    pub(super) fn seek(&self, sql: &mut Sql, Cursor { key, id }: &Cursor) {
        let compare = match self.direction {
            Direction::Asc => ") > (",
            Direction::Desc => ") < (",
        };
        sql.push(" AND (").push(self.key_columns()).push(compare);
        match key {
            Key::Text(text) => sql.bind(text.clone()),
            Key::Time(time) => sql.bind(*time),
            Key::Number(number) => sql.bind(*number),
        };
        sql.push(", ").bind(*id).push(")");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_bound_to_its_list() {
        let list = VolumeList::default();
        let cursor = list.encode(Key::Text("v".to_owned()), 7);
        assert_eq!(list.decode(&cursor), Ok(Cursor { key: Key::Text("v".to_owned()), id: 7 }));
        for other in [
            VolumeList { sort: VolumeSort::Node, ..list.clone() },
            VolumeList { direction: Direction::Desc, ..list.clone() },
            VolumeList { filter: VolumeFilter { orphaned: Some(true), ..VolumeFilter::default() }, ..list.clone() },
        ] {
            assert_eq!(other.decode(&cursor), Err(InvalidCursor::OtherList));
        }
        for broken in ["", "%%%", "eyJ9", "AAAA"] {
            assert_eq!(list.decode(broken), Err(InvalidCursor::Unreadable));
        }
    }

    #[test]
    fn a_cursor_with_a_key_of_another_type_is_refused() {
        let list = VolumeList::default();
        assert_eq!(list.decode(&list.encode(Key::Number(1), 7)), Err(InvalidCursor::OtherList));
    }
}
