//! Everything one pass looks at, read once at its beginning. That the database is away is a value here, not an error.

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::{DateTime, Utc};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use sqlx::PgConnection;

use super::Shared;
use super::findings::{self, Figures};
use super::plan::{Evaluation, FOLLOWED};
use crate::controller::fleet::Fleet;
use crate::controller::health::DatabaseHealth;
use crate::crd::{VolumeAlert, VolumeAlertSpec, VolumeScan};
use crate::domain::alert::rule::Rule;
use crate::domain::alert::{NoData, Scope};
use crate::domain::selector::{VolumeFacts, VolumeKind, VolumeMatcher, VolumeUsage};
use crate::store::samples::{self, Facts, Query, Runs, Selected, View};
use crate::store::{self, alerts, notifications};

/// All reads of one pass share one connection and end within this time, so that a pass never lasts over 5 s.
const READ_DEADLINE: Duration = Duration::from_secs(3);
/// How many subjects without a figure are named.
const NAMED_WITHOUT_FIGURE: i64 = 3;

/// What one pass knows.
#[derive(Debug, Clone)]
pub struct Observed {
    /// When the pass began, by the controller's clock.
    pub now: Timestamp,
    /// The database.
    pub database: DatabaseHealth,
    /// What was read; absent while the database cannot be used.
    pub read: Option<Read>,
}

/// What was read from the database.
#[derive(Debug, Clone)]
pub struct Read {
    /// What is to be judged.
    pub evaluation: Evaluation,
    /// What it is judged by.
    pub rule: Rule,
    /// How many VolumeScans are selected.
    pub scans: usize,
    /// Names in the spec that no VolumeScan has.
    pub unknown_scans: Vec<String>,
    /// The newest run it is from.
    pub last_run: Option<(i64, DateTime<Utc>)>,
    /// Subjects that were looked at.
    pub evaluated: i64,
    /// Those of them without a figure.
    pub missing: i64,
    /// The first of these, by name.
    pub without_figure: Vec<String>,
    /// Those beyond the limit.
    pub beyond: i64,
    /// How telling people stands.
    pub deliveries: notifications::Summary,
}

impl Observed {
    /// The same when the database refused what was to be written.
    pub fn refused_by(&mut self, error: &store::Error) {
        self.database = self.database.clone().with_problem(error.into(), self.now);
        self.read = None;
    }
}

/// The scans that an alert looks at, as the API server tells.
#[derive(Debug, Clone, Default)]
pub struct Scans {
    /// Their uids.
    pub uids: Vec<String>,
    /// When the oldest of them was made.
    pub oldest: Option<DateTime<Utc>>,
    /// Each with the nodes it selects.
    pub selected: Vec<Selected>,
    /// Names that are asked for and that none has.
    pub unknown: Vec<String>,
}

/// Reads everything.
pub async fn observe(shared: &Shared, alert: &VolumeAlert, rule: Rule, matcher: Option<&VolumeMatcher>) -> Observed {
    let now = Timestamp::now();
    let database = shared.context.health();
    if database.problem.is_some() {
        return Observed { now, database, read: None };
    }
    let fleet = shared.context.fleet();
    let scans = scans(shared, &alert.spec, &fleet);
    let read = shared.context.store.snapshot("read what an alert judges", READ_DEADLINE, async |conn| {
        Reader { alert, rule, matcher, scans: &scans, fleet: &fleet }.read(conn).await
    });
    match read.await {
        Ok(read) => Observed { now, database, read: Some(read) },
        Err(error) => Observed { now, database: database.with_problem((&error).into(), now), read: None },
    }
}

/// A scan that cannot be read for what it selects is taken to select every node: it has results only of those that it measured.
fn scans(shared: &Shared, spec: &VolumeAlertSpec, fleet: &Fleet) -> Scans {
    let mut selected = Scans { unknown: asked_for(spec), ..Scans::default() };
    for scan in shared.scans.state() {
        let (name, labels) = (scan.name_any(), scan.labels());
        selected.unknown.retain(|unknown| *unknown != name);
        let wanted = spec.scan_selector.as_ref().is_none_or(|selector| {
            selector.names.as_ref().is_none_or(|names| names.iter().any(|wanted| wanted.0 == name))
                && selector.labels.as_ref().is_none_or(|selector| selector.matches(labels))
        });
        let (Some(uid), true) = (scan.uid(), wanted) else { continue };
        let made = scan.creation_timestamp().and_then(|time| DateTime::from_timestamp(time.0.as_second(), 0));
        selected.oldest = [selected.oldest, made].into_iter().flatten().min();
        let readable: Option<&VolumeScan> = scan.0.as_ref().ok();
        let node_selector = readable.and_then(|scan| scan.spec.node_selector.as_ref());
        let days = readable.map_or_else(
            || crate::crd::VolumeScanSpec::default().unused_after_days,
            |scan| scan.spec.unused_after_days,
        );
        for (node, _) in fleet.select(node_selector) {
            selected.selected.push(Selected { scan: uid.clone(), node: node.clone(), unused_after_days: days });
        }
        selected.uids.push(uid);
    }
    selected
}

fn asked_for(spec: &VolumeAlertSpec) -> Vec<String> {
    let names = spec.scan_selector.as_ref().and_then(|selector| selector.names.as_ref());
    names.into_iter().flatten().map(|name| name.0.clone()).collect()
}

/// What is read by.
#[derive(Clone, Copy)]
pub struct Reader<'a> {
    /// The alert.
    pub alert: &'a VolumeAlert,
    /// Its rule.
    pub rule: Rule,
    /// Its volumeSelector.
    pub matcher: Option<&'a VolumeMatcher>,
    /// The scans it looks at.
    pub scans: &'a Scans,
    /// The nodes there are.
    pub fleet: &'a Fleet,
}

impl Reader<'_> {
    /// Reads everything that is in the database.
    pub async fn read(&self, conn: &mut PgConnection) -> sqlx::Result<Read> {
        let uid = self.alert.uid().unwrap_or_default();
        let receivers = self.alert.spec.receivers();
        let names: Vec<&str> = receivers.iter().map(|receiver| receiver.name.as_str()).collect();
        let runs = samples::runs(conn, &self.scans.uids).await?;
        let open = alerts::open(conn, &uid).await?;
        let deliveries = notifications::summary(conn, &uid, &names).await?;
        let last_told = notifications::last_told(conn, &uid, &names).await?;
        // A node without a Docker Engine has nothing that could be missing.
        let without_engine = samples::without_engine(conn).await?;
        let mut selected = self.scans.selected.clone();
        selected.retain(|of| !without_engine.contains(&of.node));
        let view = samples::view(conn, &selected).await?;
        let nodes: BTreeSet<&str> = selected.iter().map(|of| of.node.as_str()).collect();
        // Without a scan there is nobody to look.
        let figures = match self.scans.uids.as_slice() {
            [] => Figures::default(),
            _ => self.figures(conn, &view, &nodes, &runs, &open).await?,
        };
        let beyond = figures.beyond(&self.rule.limit(None));
        let mut findings = figures.findings;
        findings.extend(findings::of_others(&open, &findings, self.fleet, &view.fresh_nodes(), self.scans));
        Ok(Read {
            rule: self.rule,
            evaluation: Evaluation { now: runs.now, open, findings, last_told },
            scans: self.scans.uids.len(),
            unknown_scans: self.scans.unknown.clone(),
            last_run: runs.last_id.zip(runs.last_completed_at),
            evaluated: figures.evaluated,
            missing: figures.missing,
            without_figure: figures.without_figure,
            beyond,
            deliveries,
        })
    }

    async fn figures(
        &self,
        conn: &mut PgConnection,
        view: &View,
        nodes: &BTreeSet<&str>,
        runs: &Runs,
        open: &[alerts::Open],
    ) -> sqlx::Result<Figures> {
        let spec = &self.alert.spec;
        let chosen = match self.matcher {
            None => None,
            Some(matcher) => Some(chosen(matcher, &samples::facts(conn, view).await?)),
        };
        match (self.rule, spec.scope) {
            (Rule::ScanOlderThan { .. }, Scope::Node) => {
                let completed = samples::last_completed(conn, view).await?;
                Ok(findings::ages(nodes, &completed, runs.now))
            }
            (Rule::ScanOlderThan { .. }, _) => Ok(findings::age(runs.last_useful_at.or(self.scans.oldest), runs.now)),
            (Rule::FailedNodesAbove { .. }, _) => Ok(findings::failed_nodes(runs)),
            (rule, Scope::Volume) => {
                let open: Vec<i64> = open.iter().filter_map(|open| open.volume_id).collect();
                let missing = if spec.no_data == NoData::Alert { FOLLOWED_ROWS } else { NAMED_WITHOUT_FIGURE };
                let query = Query {
                    volumes: chosen.as_deref(),
                    open: &open,
                    min_bytes: spec.min_bytes,
                    beyond: FOLLOWED_ROWS,
                    missing,
                };
                Ok(samples::of_volumes(conn, view, rule, query).await?.map(findings::volumes).unwrap_or_default())
            }
            (rule, scope) => {
                let samples = samples::of_nodes(conn, view, rule, chosen.as_deref(), spec.min_bytes).await?;
                let samples = samples.unwrap_or_default();
                let of_nodes = findings::nodes(nodes, &samples);
                Ok(if scope == Scope::Node { of_nodes } else { findings::cluster(&of_nodes, &samples, rule) })
            }
        }
    }
}

#[expect(clippy::cast_possible_wrap, reason = "a small constant")]
const FOLLOWED_ROWS: i64 = FOLLOWED as i64;

fn chosen(matcher: &VolumeMatcher, facts: &[Facts]) -> Vec<i64> {
    let selected = facts.iter().filter(|facts| {
        matcher.matches(VolumeFacts {
            name: &facts.name,
            driver: &facts.driver,
            labels: &facts.labels.0,
            kind: if facts.is_anonymous { VolumeKind::Anonymous } else { VolumeKind::Named },
            usage: if facts.is_active { VolumeUsage::InUse } else { VolumeUsage::Unused },
        })
    });
    selected.map(|facts| facts.id).collect()
}
