//! Text keys and values in a JSONB column.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArgumentBuffer, PgHasArrayType, PgTypeInfo, PgValueRef};
use sqlx::types::Json;
use sqlx::{Decode, Encode, Postgres, Type};

/// Labels or options: a JSON object of strings, by key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(transparent)]
pub struct Labels(pub BTreeMap<String, String>);

impl Labels {
    /// Whether each of `wanted` is among these with the same value, as `@>` says of JSONB.
    pub fn contains(&self, wanted: &Self) -> bool {
        wanted.0.iter().all(|(key, value)| self.0.get(key) == Some(value))
    }
}

impl<K: Into<String>, V: Into<String>, const N: usize> From<[(K, V); N]> for Labels {
    fn from(pairs: [(K, V); N]) -> Self {
        Self(pairs.into_iter().map(|(key, value)| (key.into(), value.into())).collect())
    }
}

impl Type<Postgres> for Labels {
    fn type_info() -> PgTypeInfo {
        <Json<Self> as Type<Postgres>>::type_info()
    }
}

impl PgHasArrayType for Labels {
    fn array_type_info() -> PgTypeInfo {
        <Json<Self> as PgHasArrayType>::array_type_info()
    }
}

impl Encode<'_, Postgres> for Labels {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        Json(&self.0).encode_by_ref(buffer)
    }
}

impl Decode<'_, Postgres> for Labels {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        let Json(labels) = Json::decode(value)?;
        Ok(Self(labels))
    }
}
