//! An object that does not fit its type: it was stored under another version's schema. It must not stop the others, and its status says so.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;
use kube::Resource;
use kube::api::{Api, DynamicObject};
use kube::core::error_boundary::InvalidObject;
use kube::core::{ApiResource, ClusterResourceScope};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::context::Context;
use super::patch::{self, Error};
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
    let name = invalid.metadata.name.as_deref().unwrap_or_default();
    let objects: Api<DynamicObject> = Api::all_with(context.client.clone(), &ApiResource::erase::<K>(&()));
    let read = timeout(patch::TIMEOUT, objects.get_opt(name)).await.map_err(|_| Error::late::<K>(name))?;
    let Some(object) = read.map_err(|source| Error::failed::<K>(name, source))? else { return Ok(()) };
    let Some(status) = next(&object.data["status"], invalid, state) else { return Ok(()) };
    patch::status::<K>(context, (name, invalid.metadata.uid.as_deref()), &status).await?;
    tracing::warn!(object.kind = %K::kind(&()), object.name = name, "an object does not fit this version's schema: {}", invalid.error);
    Ok(())
}

/// The status that says so; `None`: it says so already.
fn next(before: &Value, invalid: &InvalidObject, state: Option<impl Serialize>) -> Option<Value> {
    let said: Vec<Condition> = serde_json::from_value(before["conditions"].clone()).unwrap_or_default();
    let say = |type_, holds| Statement {
        type_,
        holds,
        reason: reason::INVALID_SPEC.to_owned(),
        message: format!("the object does not fit this version's schema: {}", invalid.error),
    };
    let told = vec![say(conditions::READY, false), say(conditions::STALLED, true)];
    let mut conditions = build(told, &said, invalid.metadata.generation, Timestamp::now());
    let replaced = [conditions::READY, conditions::RECONCILING, conditions::STALLED];
    conditions.extend(said.iter().filter(|old| !replaced.contains(&old.type_.as_str())).cloned());
    if conditions == said {
        return None;
    }
    let mut status = before.as_object().cloned().unwrap_or_default();
    status.insert("conditions".to_owned(), json!(conditions));
    if let Some(state) = state {
        status.insert("state".to_owned(), json!(state));
    }
    status.insert("observedGeneration".to_owned(), json!(invalid.metadata.generation));
    Some(status.into())
}
