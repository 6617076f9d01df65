//! The conditions that follow from what was judged.
//!
//! | situation | Ready | Stalled |
//! |---|---|---|
//! | invalid spec | False | True |
//! | suspended | True `Suspended` | – |
//! | database away (but for `databaseDown`) | False `DatabaseNotReady` | – |
//! | a VolumeScan that is asked for by name does not exist; the others are judged | False `ScanNotFound` | – |
//! | a receiver cannot be told, e.g. its Secret is missing; rules are judged all the same | False | – |
//! | otherwise | True `Watching` | – |

use super::status::{Delivery, Found, Judged};
use crate::crd::conditions::{self as kind, Statement, reason};
use crate::crd::{AlertCounts, VolumeAlert, VolumeAlertStatus};
use crate::domain::alert::{NoData, Scope};

/// Every condition of the alert. `status` is the next status but for its conditions.
pub(super) fn statements(alert: &VolumeAlert, judged: &Judged, status: &VolumeAlertStatus) -> Vec<Statement> {
    let mut statements = ready(alert, judged);
    statements.push(firing(status));
    statements.push(data_available(alert, judged, status));
    statements.extend(judged.delivery.as_ref().map(delivered));
    statements.extend(judged.database.as_ref().map(|database| match &database.problem {
        None => say(kind::DATABASE_READY, true, reason::CONNECTED, "the database can be used"),
        Some(problem) => say(kind::DATABASE_READY, false, problem.reason, &problem.message),
    }));
    // What this pass could not know stays said.
    let kept = [kind::NOTIFICATIONS_DELIVERED, kind::DATABASE_READY];
    let unsaid = status.conditions.iter().filter_map(|old| {
        let type_ = kept.into_iter().find(|kept| *kept == old.type_)?;
        let said = statements.iter().any(|statement| statement.type_ == type_);
        (!said).then(|| say(type_, old.status == "True", &old.reason, &old.message))
    });
    let unsaid: Vec<_> = unsaid.collect();
    statements.extend(unsaid);
    statements
}

fn say(type_: &'static str, holds: bool, reason: &str, message: &str) -> Statement {
    Statement { type_, holds, reason: reason.to_owned(), message: message.to_owned() }
}

fn ready(alert: &VolumeAlert, judged: &Judged) -> Vec<Statement> {
    match obstacle(alert, judged) {
        Some((reason, message)) => {
            let stalled = judged.invalid.as_ref().map(|_| (kind::STALLED, true));
            let types = [(kind::READY, false)].into_iter().chain(stalled);
            types.map(|(type_, holds)| say(type_, holds, reason, &message)).collect()
        }
        None if alert.spec.suspend => {
            vec![say(kind::READY, true, reason::SUSPENDED, "nothing is judged: spec.suspend")]
        }
        None => vec![say(kind::READY, true, reason::WATCHING, "the latest results are held against the rule")],
    }
}

/// Why the alert cannot do what its spec asks for: reason and message.
pub(super) fn obstacle(alert: &VolumeAlert, judged: &Judged) -> Option<(&'static str, String)> {
    if let Some(invalid) = &judged.invalid {
        return Some((invalid.reason, invalid.message.clone()));
    }
    if alert.spec.suspend {
        return None;
    }
    let Some(found) = &judged.found else {
        let problem = judged.database.as_ref().and_then(|database| database.problem.as_ref());
        return Some((reason::DATABASE_NOT_READY, problem.map_or_else(String::new, |problem| problem.message.clone())));
    };
    if !found.unknown_scans.is_empty() {
        let names = found.unknown_scans.join(", ");
        return Some((reason::SCAN_NOT_FOUND, format!("spec.scanSelector.names: there is no VolumeScan {names}")));
    }
    judged.problem.as_ref().map(|problem| (problem.reason, problem.message.clone()))
}

fn firing(status: &VolumeAlertStatus) -> Statement {
    let counts = status.counts.unwrap_or_default();
    let more = if counts.not_followed == 0 {
        String::new()
    } else {
        format!("; {} more are above the limit and not followed: narrow volumeSelector", counts.not_followed)
    };
    match (counts.firing, &status.worst) {
        (0, _) => say(kind::FIRING, false, reason::NOTHING_FIRES, &format!("nothing fires{more}")),
        (1, Some(worst)) => say(kind::FIRING, true, reason::ABOVE_LIMIT, &format!("{worst}{more}")),
        (firing, worst) => {
            let worst = worst.as_deref().unwrap_or_default();
            say(kind::FIRING, true, reason::ABOVE_LIMIT, &format!("{firing} fire, the worst {worst}{more}"))
        }
    }
}

fn data_available(alert: &VolumeAlert, judged: &Judged, status: &VolumeAlertStatus) -> Statement {
    let counts = status.counts.unwrap_or_default();
    let no = |reason: &str, message: &str| say(kind::DATA_AVAILABLE, false, reason, message);
    let yes = |reason: &str, message: &str| say(kind::DATA_AVAILABLE, true, reason, message);
    let Some(found) = &judged.found else {
        return match &judged.invalid {
            Some(_) => no(reason::NOT_JUDGED, "the spec cannot be used"),
            None => no(reason::DATABASE_NOT_READY, "the database cannot be used; what fired stays as it was"),
        };
    };
    if alert.spec.suspend {
        return no(reason::NOT_JUDGED, "nothing is judged: spec.suspend");
    }
    if counts.evaluated == 0 {
        return no(
            reason::NO_SUBJECTS,
            nothing_from(found).unwrap_or("no selected scan has results of anything that is selected"),
        );
    }
    if counts.no_data == 0 {
        return yes(reason::ALL_MEASURED, "every subject has a figure");
    }
    let message = nothing_from(found).map_or_else(|| without_figure(alert.spec.scope, found), str::to_owned);
    match alert.spec.no_data {
        NoData::Ignore => yes(reason::MISSING_IGNORED, &message),
        NoData::Keep | NoData::Alert => no(reason::SOME_WITHOUT_FIGURE, &message),
    }
}

/// Why there can be no figure of anything.
fn nothing_from(found: &Found) -> Option<&'static str> {
    match (found.scans, &found.run) {
        (0, _) => Some("no VolumeScan is selected"),
        (_, None) => Some("no selected VolumeScan has ended a run yet"),
        _ => None,
    }
}

fn without_figure(scope: Scope, found: &Found) -> String {
    let AlertCounts { evaluated, no_data, .. } = found.counts;
    let (who, all) = match scope {
        Scope::Cluster => ("the cluster has".to_owned(), i64::try_from(found.without_figure.len()).unwrap_or(i64::MAX)),
        Scope::Node => (format!("{no_data} of {evaluated} nodes have"), no_data),
        Scope::Volume => (format!("{no_data} of {evaluated} volumes have"), no_data),
    };
    format!("{who} no figure from the last run{}", named(&found.without_figure, all))
}

/// The first of these, and how many more there are in all.
fn named(names: &[String], all: i64) -> String {
    let first: Vec<&str> = names.iter().map(String::as_str).filter(|name| !name.is_empty()).take(3).collect();
    let more = all.saturating_sub(i64::try_from(first.len()).unwrap_or(i64::MAX));
    match (first.as_slice(), more) {
        ([], _) => String::new(),
        (first, ..=0) => format!(": {}", first.join(", ")),
        (first, more) => format!(": {} and {more} more", first.join(", ")),
    }
}

fn delivered(delivery: &Delivery) -> Statement {
    let error = delivery.error.as_deref().unwrap_or_default();
    match delivery {
        Delivery { failing: 1.., .. } => {
            say(kind::NOTIFICATIONS_DELIVERED, false, reason::DELIVERY_FAILING, &format!("tried again: {error}"))
        }
        Delivery { given_up: given_up @ 1.., .. } => say(
            kind::NOTIFICATIONS_DELIVERED,
            false,
            reason::GIVEN_UP,
            &format!("{given_up} notification{} given up: {error}", if *given_up == 1 { " was" } else { "s were" }),
        ),
        Delivery { last: None, .. } => {
            say(kind::NOTIFICATIONS_DELIVERED, true, reason::NOTHING_TO_TELL, "nothing was told yet")
        }
        Delivery { .. } => say(kind::NOTIFICATIONS_DELIVERED, true, reason::ALL_DELIVERED, "every receiver was told"),
    }
}
