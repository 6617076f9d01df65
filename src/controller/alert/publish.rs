//! The only writer of a VolumeAlert's status, and the Events that tell why it cannot do what it should.

use std::time::Duration;

use kube::runtime::events::EventType;
use kube::{Resource, ResourceExt};

use super::conditions::obstacle;
use super::status::{self, Judged};
use crate::controller::ALERTS;
use crate::controller::context::Context;
use crate::controller::patch::{self, Error};
use crate::controller::report::Notice;
use crate::crd::VolumeAlert;
use crate::crd::conditions::{MAX_MESSAGE_CHARS, READY, reason, shorten};

/// How often a status is written: whoever edits the spec all the time does not make us write as often.
const WRITE_EVERY: Duration = Duration::from_secs(1);

/// Writes the status when it says something new, then tells what is in the alert's way; else returns when what is held back may be written.
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
    if let Some(notice) = notice(alert, judged) {
        context.reporter.tell(&alert.object_ref(&()), notice).await;
    }
    Ok(None)
}

/// What its users have to mend, when the status did not say so before. A database that is away is not theirs, and told by itself.
pub(super) fn notice(alert: &VolumeAlert, judged: &Judged) -> Option<Notice> {
    let (reason, note) = obstacle(alert, judged)?;
    if [reason::DATABASE_NOT_READY, reason::RECEIVERS_NOT_CHECKED].contains(&reason) {
        return None;
    }
    let message = shorten(&note, MAX_MESSAGE_CHARS);
    let told = alert
        .status
        .iter()
        .flat_map(|status| &status.conditions)
        .any(|old| (old.type_.as_str(), old.reason.as_str(), &old.message) == (READY, reason, &message));
    (!told).then_some(Notice { type_: EventType::Warning, reason, note })
}
