//! `volumeviz check-installation`: what `helm test` runs. Applies a VolumeScan as a user would, waits for it, looks for what it left in the
//! database, and deletes it.

use std::time::Duration;

use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::config::database::{DatabaseArgs, Role};
use crate::crd::conditions::{COMPLETE, FAILED};
use crate::crd::{Measurement, VolumeScan, VolumeScanSpec, VolumeScanStatus};
use crate::domain::text::showable;
use crate::domain::work::Mode;
use crate::output;
use crate::store::runs::Run;
use crate::store::{self, Store};

const POLL: Duration = Duration::from_secs(1);
const QUERY_DEADLINE: Duration = Duration::from_secs(10);

/// Options of `volumeviz check-installation`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Name of the VolumeScan to make; one that an earlier check left is deleted first.
    #[arg(long, env = "VOLUMEVIZ_CHECK_SCAN", default_value = "volumeviz-test", value_name = "NAME")]
    scan: String,
    /// How long to wait for it.
    #[arg(long, env = "VOLUMEVIZ_CHECK_TIMEOUT", default_value = "5m", value_name = "DURATION", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// The database, in the name of the controller's role.
    #[command(flatten)]
    database: DatabaseArgs,
}

/// What is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The Kubernetes API refused.
    #[error("failed to {operation} VolumeScan {scan}: {source}")]
    Kubernetes {
        /// What was tried.
        operation: &'static str,
        /// On what.
        scan: String,
        /// Why not.
        source: Box<kube::Error>,
    },
    /// There is no way to the Kubernetes API.
    #[error("failed to set up the Kubernetes client: {0}")]
    Client(#[source] Box<kube::Error>),
    /// It neither completed nor failed.
    #[error("VolumeScan {scan} did not end within {timeout:?}: {conditions}")]
    Timeout {
        /// Which one.
        scan: String,
        /// How long was waited.
        timeout: Duration,
        /// What its status says.
        conditions: String,
    },
    /// It failed.
    #[error("VolumeScan {scan} failed: {conditions}")]
    Failed {
        /// Which one.
        scan: String,
        /// What its status says.
        conditions: String,
    },
    /// It was told to stop.
    #[error("stopped before there was a result")]
    Stopped,
    /// The database cannot be used from here.
    #[error(transparent)]
    Database(#[from] store::Error),
    /// It holds something else than the status tells.
    #[error("PostgreSQL has {found} of run {run}, and its VolumeScan tells of {told}")]
    Differs {
        /// `scan_runs.id`.
        run: i64,
        /// By the database.
        found: String,
        /// By the status.
        told: String,
    },
    /// Nobody takes the report.
    #[error(transparent)]
    Print(#[from] output::Error),
}

/// Checks the installation until `stop`; the scan is deleted whatever comes of it.
pub async fn run(args: Args, stop: CancellationToken) -> Result<(), Error> {
    let Args { scan, timeout, database } = args;
    let store = Store::connect_lazy(&database, Role::Controller)?;
    let client = Client::try_default().await.map_err(|error| Error::Client(Box::new(error)))?;
    let scans = Scans { api: Api::all(client), name: scan };
    scans.delete().await?;
    scans.create().await?;
    let checked = tokio::select! {
        checked = check(&scans, &store, timeout) => checked,
        () = stop.cancelled() => Err(Error::Stopped),
    };
    let deleted = scans.delete().await;
    checked.and(deleted)
}

async fn check(scans: &Scans, store: &Store, timeout: Duration) -> Result<(), Error> {
    let status = scans.ended(timeout).await?;
    let (Some(last), Some(totals)) = (&status.last_run, &status.totals) else {
        return Err(Error::Failed { scan: scans.name.clone(), conditions: conditions(&status) });
    };
    output::print([format!(
        "VolumeScan {}: run {} {}, {} volumes",
        scans.name,
        last.id,
        last.result.as_str(),
        totals.counts.volumes
    )])?;
    let (run, rows) = store
        .run("read the run", QUERY_DEADLINE, async |conn| {
            let run = store::runs::get(conn, last.id).await?;
            Ok((run, store::results::of_run(conn, last.id, 0, 1).await?.len()))
        })
        .await?;
    let Run { result, nodes, .. } = run;
    output::print([format!("PostgreSQL: {} of {} nodes succeeded", nodes.succeeded, nodes.total)])?;
    if result != Some(last.result) || (rows == 0) != (totals.counts.volumes == 0) {
        let found = format!("result {result:?} and {}", if rows == 0 { "no volume" } else { "volumes" });
        let told = format!("result {:?} and {} volumes", last.result, totals.counts.volumes);
        return Err(Error::Differs { run: last.id, found, told });
    }
    Ok(())
}

/// The scan of the check.
struct Scans {
    api: Api<VolumeScan>,
    name: String,
}

impl Scans {
    fn failed(&self, operation: &'static str) -> impl FnOnce(kube::Error) -> Error {
        let scan = self.name.clone();
        move |source| Error::Kubernetes { operation, scan, source: Box::new(source) }
    }

    /// Lists volumes and measures none: what is checked are the ways, and these are short also where volumes are big.
    async fn create(&self) -> Result<(), Error> {
        let measurement = Measurement { mode: Mode::Inventory, ..Measurement::default() };
        let scan = VolumeScan::new(&self.name, VolumeScanSpec { measurement, ..VolumeScanSpec::default() });
        self.api.create(&PostParams::default(), &scan).await.map(drop).map_err(self.failed("create"))
    }

    async fn delete(&self) -> Result<(), Error> {
        match self.api.delete(&self.name, &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            deleted => deleted.map(drop).map_err(self.failed("delete")),
        }
    }

    /// Its status once it is complete. An API server that fails now and then is asked again.
    async fn ended(&self, timeout: Duration) -> Result<VolumeScanStatus, Error> {
        let until = Instant::now() + timeout;
        let mut seen = "it could not be read".to_owned();
        loop {
            match tokio::time::timeout_at(until, self.api.get(&self.name)).await {
                Ok(Ok(scan)) => {
                    let status = scan.status.unwrap_or_default();
                    seen = conditions(&status);
                    if is_true(&status, COMPLETE) {
                        return Ok(status);
                    }
                    if is_true(&status, FAILED) {
                        return Err(Error::Failed { scan: self.name.clone(), conditions: seen });
                    }
                }
                Ok(Err(error)) => seen = self.failed("read")(error).to_string(),
                // What was seen last tells more than that time is over.
                Err(_) => {}
            }
            if Instant::now() >= until {
                return Err(Error::Timeout { scan: self.name.clone(), timeout, conditions: seen });
            }
            sleep(POLL).await;
        }
    }
}

fn is_true(status: &VolumeScanStatus, condition: &str) -> bool {
    status.conditions.iter().any(|found| found.type_ == condition && found.status == "True")
}

/// `DatabaseReady=False/Unreachable: …; AgentsReady=…`
fn conditions(status: &VolumeScanStatus) -> String {
    if status.conditions.is_empty() {
        return "it has no status: does a controller run?".to_owned();
    }
    let each = status.conditions.iter();
    let told = each.map(|c| format!("{}={}/{}: {}", c.type_, c.status, c.reason, showable(&c.message)));
    told.collect::<Vec<_>>().join("; ")
}
