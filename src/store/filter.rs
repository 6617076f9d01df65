//! Which volumes a list is about, and the only place where SQL is put together at run time.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgArguments;
use sqlx::query::QueryAs;
use sqlx::{Encode, FromRow, Postgres, QueryBuilder, Type};

use super::labels::Labels;

/// Which volumes; what is absent does not narrow.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeFilter {
    /// Docker's name; `*` stands for any characters, `?` for one.
    pub name: Option<String>,
    /// The node.
    pub node: Option<String>,
    /// Docker's driver.
    pub driver: Option<String>,
    /// All of these are among its Docker labels.
    pub labels: Labels,
    /// Mounted by a running container when last listed.
    pub is_active: Option<bool>,
    /// Held by no container, running or stopped.
    pub orphaned: Option<bool>,
    /// Named by Docker, not by a person.
    pub anonymous: Option<bool>,
    /// Last known size in bytes, at least.
    pub min_bytes: Option<i64>,
    /// Last known size in bytes, at most.
    pub max_bytes: Option<i64>,
    /// Measured last before this time, or never.
    pub scanned_before: Option<DateTime<Utc>>,
    /// Measured last at this time or later.
    pub scanned_after: Option<DateTime<Utc>>,
}

/// SQL under construction: text is static, everything else is bound.
pub(super) struct Sql(QueryBuilder<Postgres>);

impl Sql {
    pub(super) fn new(sql: &'static str) -> Self {
        Self(QueryBuilder::new(sql))
    }

    pub(super) fn push(&mut self, sql: &'static str) -> &mut Self {
        self.0.push(sql);
        self
    }

    pub(super) fn bind<'a, T>(&mut self, value: T) -> &mut Self
    where
        T: 'a + Encode<'a, Postgres> + Type<Postgres>,
    {
        self.0.push_bind(value);
        self
    }

    pub(super) fn query_as<T>(&mut self) -> QueryAs<'_, Postgres, T, PgArguments>
    where
        T: for<'r> FromRow<'r, sqlx::postgres::PgRow>,
    {
        self.0.build_query_as()
    }
}

impl VolumeFilter {
    /// Whether it looks at sizes.
    pub(super) const fn is_ranked(&self) -> bool {
        self.min_bytes.is_some() || self.max_bytes.is_some()
    }

    /// Adds the conditions on `volume` and `ranking`, each beginning with AND.
    pub(super) fn restrict(&self, sql: &mut Sql) {
        if let Some(name) = &self.name {
            sql.push(" AND volume.name LIKE ").bind(like(name));
        }
        if let Some(node) = &self.node {
            sql.push(" AND volume.node = ").bind(node.clone());
        }
        if let Some(driver) = &self.driver {
            sql.push(" AND volume.driver = ").bind(driver.clone());
        }
        if !self.labels.0.is_empty() {
            sql.push(" AND volume.labels @> ").bind(self.labels.clone());
        }
        if let Some(active) = self.is_active {
            sql.push(" AND volume.is_active = ").bind(active);
        }
        if let Some(orphaned) = self.orphaned {
            sql.push(
                " AND NOT EXISTS (SELECT FROM container_volumes JOIN containers ON containers.id = container_volumes.container_id
                      WHERE container_volumes.volume_id = volume.id AND containers.deleted_at IS NULL) = ",
            )
            .bind(orphaned);
        }
        if let Some(anonymous) = self.anonymous {
            sql.push(" AND volume.is_anonymous = ").bind(anonymous);
        }
        if let Some(bytes) = self.min_bytes {
            sql.push(" AND ranking.allocated_bytes >= ").bind(bytes);
        }
        if let Some(bytes) = self.max_bytes {
            sql.push(" AND ranking.allocated_bytes <= ").bind(bytes);
        }
        if let Some(before) = self.scanned_before {
            sql.push(" AND (volume.last_scanned IS NULL OR volume.last_scanned < ").bind(before).push(")");
        }
        if let Some(after) = self.scanned_after {
            sql.push(" AND volume.last_scanned >= ").bind(after);
        }
    }
}

/// A glob of `*` and `?` as a pattern for LIKE.
fn like(glob: &str) -> String {
    let mut pattern = String::with_capacity(glob.len());
    for character in glob.chars() {
        match character {
            '*' => pattern.push('%'),
            '?' => pattern.push('_'),
            '%' | '_' | '\\' => pattern.extend(['\\', character]),
            other => pattern.push(other),
        }
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_like_takes_for_its_own_is_escaped() {
        assert_eq!(like("a*b?c"), "a%b_c");
        assert_eq!(like(r"100%_\x"), r"100\%\_\\x");
    }
}
