//! An object that does not fit its type: it was stored under another version's schema. It must not stop the others, and its status says so.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;
use kube::Resource;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::core::error_boundary::InvalidObject;
use kube::core::{ApiResource, ClusterResourceScope};
use serde::Serialize;
use serde_json::json;

use super::context::{Context, FIELD_MANAGER};
use super::patch::{Error, PATCH_TIMEOUT};
use crate::crd::conditions::{self, Statement, build, reason};

/// Writes `Ready=False`, `Stalled=True` and the given state, unless the status says so already; everything else in it stays. It is applied
/// whole, as every status is, so that the next one can take it back.
pub(super) async fn tell<K>(
    context: &Context,
    invalid: &InvalidObject,
    state: Option<impl Serialize>,
) -> Result<(), Error>
where
    K: Resource<DynamicType = (), Scope = ClusterResourceScope>,
{
    let (kind, name) = (K::plural(&()).into_owned(), invalid.metadata.name.clone().unwrap_or_default());
    let told = tokio::time::timeout(PATCH_TIMEOUT, write::<K>(context, &name, invalid, state)).await;
    match told {
        Ok(Ok(())) => Ok(()),
        Ok(Err(kube::Error::Api(answer))) if answer.is_not_found() || answer.is_conflict() => Ok(()),
        Ok(Err(source)) => Err(Error::Patch { kind, name, source: Box::new(source) }),
        Err(_) => Err(Error::Timeout { kind, name }),
    }
}

async fn write<K>(
    context: &Context,
    name: &str,
    invalid: &InvalidObject,
    state: Option<impl Serialize>,
) -> kube::Result<()>
where
    K: Resource<DynamicType = (), Scope = ClusterResourceScope>,
{
    let objects: Api<DynamicObject> = Api::all_with(context.client.clone(), &ApiResource::erase::<K>(&()));
    let object = objects.get(name).await?;
    let before: Vec<Condition> =
        serde_json::from_value(object.data["status"]["conditions"].clone()).unwrap_or_default();
    let say = |type_, holds| Statement {
        type_,
        holds,
        reason: reason::INVALID_SPEC.to_owned(),
        message: format!("the object does not fit this version's schema: {}", invalid.error),
    };
    let said = vec![say(conditions::READY, false), say(conditions::STALLED, true)];
    let mut conditions = build(said, &before, invalid.metadata.generation, Timestamp::now());
    let replaced = [conditions::READY, conditions::RECONCILING, conditions::STALLED];
    conditions.extend(before.iter().filter(|old| !replaced.contains(&old.type_.as_str())).cloned());
    if conditions == before {
        return Ok(());
    }
    let mut status = object.data["status"].as_object().cloned().unwrap_or_default();
    status.insert("conditions".to_owned(), json!(conditions));
    if let Some(state) = state {
        status.insert("state".to_owned(), json!(state));
    }
    status.insert("observedGeneration".to_owned(), json!(invalid.metadata.generation));
    let patch = json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "metadata": {"uid": invalid.metadata.uid},
        "status": status,
    });
    objects.patch_status(name, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(&patch)).await?;
    context.metrics.status_written();
    tracing::warn!(object.kind = %K::kind(&()), object.name = name, "an object does not fit this version's schema: {}", invalid.error);
    Ok(())
}
