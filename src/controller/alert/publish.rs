//! The only writer of a VolumeAlert's status.

use std::time::Duration;

use kube::ResourceExt;

use super::status::{self, Judged};
use crate::controller::ALERTS;
use crate::controller::context::Context;
use crate::controller::patch::{self, Error};
use crate::crd::VolumeAlert;

/// How often a status is written: whoever edits the spec all the time does not make us write as often.
const WRITE_EVERY: Duration = Duration::from_secs(1);

/// Writes the status when it says something new; else returns when what is held back may be written.
pub async fn publish(context: &Context, alert: &VolumeAlert, judged: &Judged) -> Result<Option<Duration>, Error> {
    let next = status::next(alert, judged);
    let uid = alert.uid().unwrap_or_default();
    if Some(&next) == alert.status.as_ref() {
        return Ok(None);
    }
    if let Some(left) = context.until_written(&uid, WRITE_EVERY) {
        return Ok(Some(left));
    }
    let version = patch::status::<VolumeAlert>(context, (&alert.name_any(), Some(&uid)), &next).await?;
    context.wrote(ALERTS, uid, version.as_deref(), next);
    Ok(None)
}
