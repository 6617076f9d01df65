//! Writes statuses: by server-side apply, whole, in our name.

use std::fmt::Debug;
use std::time::Duration;

use kube::api::{Api, Patch, PatchParams};
use kube::core::ClusterResourceScope;
use kube::{Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::context::{Context, FIELD_MANAGER};

/// A pass must not wait for a status much longer than for its reads.
pub(super) const PATCH_TIMEOUT: Duration = Duration::from_secs(3);

/// The status could not be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused or failed.
    #[error("failed to write the status of {kind} {name}: {source}")]
    Patch {
        /// Plural, as in commands.
        kind: String,
        /// The object.
        name: String,
        /// Why.
        source: Box<kube::Error>,
    },
    /// No answer in time.
    #[error("failed to write the status of {kind} {name} within {PATCH_TIMEOUT:?}")]
    Timeout {
        /// Plural, as in commands.
        kind: String,
        /// The object.
        name: String,
    },
}

/// Writes the status of an object; returns the version of the object that came of it.
pub(super) async fn status<K>(context: &Context, object: &K, status: &impl Serialize) -> Result<Option<String>, Error>
where
    K: Resource<DynamicType = (), Scope = ClusterResourceScope> + Clone + Debug + DeserializeOwned,
{
    let (kind, name) = (K::plural(&()).into_owned(), object.name_any());
    let patch = json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        // Guards against an object that was deleted and made anew under its name.
        "metadata": {"uid": object.uid()},
        "status": status,
    });
    let objects: Api<K> = Api::all(context.client.clone());
    // The status is ours alone: force takes back what anybody else wrote into it.
    let params = PatchParams::apply(FIELD_MANAGER).force();
    let written =
        tokio::time::timeout(PATCH_TIMEOUT, objects.patch_status(&name, &params, &Patch::Apply(&patch))).await;
    context.metrics.status_written();
    match written {
        Ok(Ok(object)) => Ok(object.resource_version()),
        // Deleted meanwhile: nobody is left to read it.
        Ok(Err(kube::Error::Api(answer))) if answer.is_not_found() || answer.is_conflict() => Ok(None),
        Ok(Err(source)) => Err(Error::Patch { kind, name, source: Box::new(source) }),
        Err(_) => Err(Error::Timeout { kind, name }),
    }
}
