//! Writes statuses: by server-side apply, whole, in our name.

use std::time::Duration;

use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, ClusterResourceScope};
use kube::{Resource, ResourceExt};
use serde::Serialize;
use serde_json::json;
use tokio::time::timeout;

use super::context::{Context, FIELD_MANAGER};

/// A pass must not wait for a status much longer than for its reads.
pub(super) const TIMEOUT: Duration = Duration::from_secs(3);

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
    #[error("failed to write the status of {kind} {name} within {TIMEOUT:?}")]
    Timeout {
        /// Plural, as in commands.
        kind: String,
        /// The object.
        name: String,
    },
}

impl Error {
    pub(super) fn failed<K: Resource<DynamicType = ()>>(name: &str, source: kube::Error) -> Self {
        Self::Patch { kind: K::plural(&()).into_owned(), name: name.to_owned(), source: Box::new(source) }
    }

    pub(super) fn late<K: Resource<DynamicType = ()>>(name: &str) -> Self {
        Self::Timeout { kind: K::plural(&()).into_owned(), name: name.to_owned() }
    }
}

/// Writes the status of the object with this name and uid; returns the version of the object that came of it.
pub(super) async fn status<K>(
    context: &Context,
    (name, uid): (&str, Option<&str>),
    status: &impl Serialize,
) -> Result<Option<String>, Error>
where
    K: Resource<DynamicType = (), Scope = ClusterResourceScope>,
{
    let patch = json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        // Guards against an object that was deleted and made anew under its name.
        "metadata": {"uid": uid},
        "status": status,
    });
    // What comes back need not fit the type: it may be of another version.
    let objects: Api<DynamicObject> = Api::all_with(context.client.clone(), &ApiResource::erase::<K>(&()));
    // The status is ours alone: force takes back what anybody else wrote into it.
    let params = PatchParams::apply(FIELD_MANAGER).force();
    let written = timeout(TIMEOUT, objects.patch_status(name, &params, &Patch::Apply(&patch))).await;
    context.metrics.status_written();
    match written {
        Ok(Ok(object)) => Ok(object.resource_version()),
        // Deleted meanwhile: nobody is left to read it.
        Ok(Err(kube::Error::Api(answer))) if answer.is_not_found() || answer.is_conflict() => Ok(None),
        Ok(Err(source)) => Err(Error::failed::<K>(name, source)),
        Err(_) => Err(Error::late::<K>(name)),
    }
}
