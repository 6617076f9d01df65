//! The objects that there are now, as the API server tells: a cache that is behind must not end what belongs to a new one.

use std::fmt::Debug;
use std::time::Duration;

use kube::api::ListParams;
use kube::core::ClusterResourceScope;
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use super::context::Context;

const DEADLINE: Duration = Duration::from_secs(3);

/// They could not be listed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused or failed.
    #[error("unable to list {kind}: {source}")]
    List {
        /// Plural, as in commands.
        kind: String,
        /// Why.
        source: Box<kube::Error>,
    },
    /// No answer in time.
    #[error("unable to list {kind} within {DEADLINE:?}")]
    Timeout {
        /// Plural, as in commands.
        kind: String,
    },
}

/// Uids of all objects of a kind that are not being deleted.
pub(super) async fn uids<K>(context: &Context) -> Result<Vec<String>, Error>
where
    K: Resource<DynamicType = (), Scope = ClusterResourceScope> + Clone + Debug + DeserializeOwned,
{
    let kind = || K::plural(&()).into_owned();
    let objects: Api<K> = Api::all(context.client.clone());
    let listed = tokio::time::timeout(DEADLINE, objects.list_metadata(&ListParams::default())).await;
    let listed = listed.map_err(|_| Error::Timeout { kind: kind() })?;
    let listed = listed.map_err(|source| Error::List { kind: kind(), source: Box::new(source) })?;
    let live = listed.iter().filter(|object| object.metadata.deletion_timestamp.is_none());
    Ok(live.filter_map(ResourceExt::uid).collect())
}
