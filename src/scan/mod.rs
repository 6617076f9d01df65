//! `volumeviz scan`: the volumes of this machine's Docker, or directories, without a cluster or a database.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use futures::stream::{self, StreamExt};
use serde::Serialize;

use crate::agent::docker::{DEFAULT_DATA_ROOT, DEFAULT_SOCKET, Docker, Error};
use crate::agent::measure::{Measurer, Target};
use crate::agent::walk::{Threads, Walker};
use crate::domain::bytes::HumanBytes;
use crate::domain::measurement::{Completeness, ErrorCount, Figures, Method, VolumeReason, VolumeResult};
use crate::domain::text::showable;
use crate::domain::work::WorkOrder;
use crate::output;

/// A walk without a deadline ends after this all the same.
const DEADLINE: Duration = Duration::from_hours(24 * 7);

/// Options of `volumeviz scan`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  volumeviz scan                          the volumes of this machine's Docker
  volumeviz scan /srv /var/lib/postgresql two directories, each as one volume
  volumeviz scan --output json | jq '.volumes[] | select(.completeness != \"Complete\")'

Exit codes: 0 everything is complete, 1 something is partial or unknown, 2 wrong usage or nothing could be done.")]
pub struct Args {
    /// How the result is printed
    #[arg(long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
    /// Docker's socket
    #[arg(long, default_value = DEFAULT_SOCKET, value_name = "SOCKET", conflicts_with = "paths")]
    pub docker: PathBuf,
    /// Directories to measure, each as one volume, instead of Docker's volumes
    #[arg(value_name = "PATH")]
    pub paths: Vec<PathBuf>,
}

/// How the result is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people: biggest first.
    Table,
    /// For programs.
    Json,
}

/// A volume and what is known of it.
struct Volume {
    target: Target,
    path: String,
    driver: Option<String>,
}

/// The JSON of one volume.
#[derive(Serialize)]
struct Row {
    name: String,
    path: String,
    driver: Option<String>,
    allocated_bytes: Option<u64>,
    apparent_bytes: Option<u64>,
    files: Option<u64>,
    directories: Option<u64>,
    completeness: Completeness,
    reason: Option<VolumeReason>,
    errors: Vec<ErrorCount>,
    skipped_mounts: Vec<String>,
    method: Option<Method>,
    duration_ms: u64,
}

/// Sums over the volumes that have figures, and how many have not.
#[derive(Serialize, Default)]
struct Totals {
    volumes: usize,
    complete: usize,
    partial: usize,
    unknown: usize,
    allocated_bytes: u64,
    apparent_bytes: u64,
    files: u64,
    directories: u64,
}

#[derive(Serialize)]
struct Report {
    volumes: Vec<Row>,
    totals: Totals,
}

/// Scans and prints; the exit code tells how complete it is.
pub async fn run(Args { output: format, docker, paths }: Args) -> ExitCode {
    let volumes = if paths.is_empty() { docker_volumes(docker).await } else { Ok(directories(paths)) };
    let volumes = match volumes {
        Ok(volumes) => volumes,
        Err(message) => {
            eprintln!("error: {message}");
            return ExitCode::from(2);
        }
    };
    let report = measure(volumes).await;
    let nothing = !report.volumes.is_empty() && report.totals.unknown == report.totals.volumes;
    let complete = report.totals.complete == report.totals.volumes;
    let printed = match format {
        Output::Table => output::print(table(&report)),
        Output::Json => output::print_json(&report),
    };
    match printed {
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
        Ok(()) if nothing => ExitCode::from(2),
        Ok(()) => ExitCode::from(u8::from(!complete)),
    }
}

fn directories(paths: Vec<PathBuf>) -> Vec<Volume> {
    let directory = |path: PathBuf| {
        let name = path.to_string_lossy().into_owned();
        let target = Target::directory(name.clone(), path);
        Volume { target, path: name, driver: None }
    };
    paths.into_iter().map(directory).collect()
}

async fn docker_volumes(socket: PathBuf) -> Result<Vec<Volume>, String> {
    let docker = Docker::new(socket, PathBuf::from(DEFAULT_DATA_ROOT));
    let list = async { docker.inventory(&docker.connect().await?).await };
    let inventory = list.await.map_err(|error: Error| {
        format!("{error}; give directories to measure them instead, e.g. `volumeviz scan /srv`")
    })?;
    let root = PathBuf::from(&inventory.engine.data_root);
    let volume = |volume: &crate::domain::contract::InventoryVolume| Volume {
        target: Target::new(volume, &inventory.engine, &root),
        path: volume.mountpoint.clone(),
        driver: Some(volume.driver.clone()),
    };
    Ok(inventory.volumes.iter().map(volume).collect())
}

async fn measure(volumes: Vec<Volume>) -> Report {
    let threads = Threads::UpTo(16);
    let measurer = &Measurer::new(Walker::new(threads), &unlimited(), Instant::now() + DEADLINE);
    let mut rows: Vec<Row> = stream::iter(volumes)
        .then(|volume| async move { Row::new(measurer.measure(volume.target).await, volume.path, volume.driver) })
        .collect()
        .await;
    rows.sort_by(|a, b| b.allocated_bytes.cmp(&a.allocated_bytes).then_with(|| a.name.cmp(&b.name)));
    let totals = Totals::of(&rows);
    Report { volumes: rows, totals }
}

fn unlimited() -> WorkOrder {
    let mut work = WorkOrder::default();
    work.limits.volume_timeout_seconds = i32::MAX;
    work
}

impl Row {
    fn new(result: VolumeResult, path: String, driver: Option<String>) -> Self {
        let VolumeResult {
            volume,
            completeness,
            reason,
            method,
            figures,
            errors,
            skipped_mounts,
            duration_ms,
            age_ms: _,
            filesystem: _,
        } = result;
        Self {
            name: volume,
            path,
            driver,
            allocated_bytes: figures.map(|figures| figures.allocated_bytes),
            apparent_bytes: figures.and_then(|figures| figures.apparent_bytes),
            files: figures.map(|figures| figures.files),
            directories: figures.and_then(|figures| figures.directories),
            completeness,
            reason,
            errors,
            skipped_mounts,
            method,
            duration_ms,
        }
    }

    fn figures(&self) -> Figures {
        Figures {
            allocated_bytes: self.allocated_bytes.unwrap_or(0),
            apparent_bytes: self.apparent_bytes,
            files: self.files.unwrap_or(0),
            directories: self.directories,
        }
    }
}

impl Totals {
    fn of(rows: &[Row]) -> Self {
        rows.iter().fold(Self { volumes: rows.len(), ..Self::default() }, |mut totals, row| {
            match row.completeness {
                Completeness::Complete => totals.complete += 1,
                Completeness::Partial => totals.partial += 1,
                Completeness::Unknown => totals.unknown += 1,
            }
            let figures = row.figures();
            totals.allocated_bytes = totals.allocated_bytes.saturating_add(figures.allocated_bytes);
            totals.apparent_bytes = totals.apparent_bytes.saturating_add(figures.apparent_bytes.unwrap_or(0));
            totals.files = totals.files.saturating_add(figures.files);
            totals.directories = totals.directories.saturating_add(figures.directories.unwrap_or(0));
            totals
        })
    }
}

fn table(report: &Report) -> Vec<String> {
    let name_width =
        report.volumes.iter().map(|row| showable(&row.name).chars().count()).max().unwrap_or(0).clamp(6, 64);
    let line = |name: &str, [allocated, apparent, files, directories]: [&str; 4], state: &str| {
        format!("{name:<name_width$}  {allocated:>11}  {apparent:>11}  {files:>10}  {directories:>9}  {state}")
    };
    let rows = report.volumes.iter().map(|row| {
        let cells = [size(row.allocated_bytes), size(row.apparent_bytes), number(row.files), number(row.directories)];
        line(&showable(&row.name), cells.each_ref().map(String::as_str), &state(row))
    });
    std::iter::once(line("VOLUME", ["SIZE", "APPARENT", "FILES", "DIRS"], "STATE"))
        .chain(rows)
        .chain([String::new(), summary(&report.totals)])
        .collect()
}

fn summary(totals: &Totals) -> String {
    let bound = if totals.partial + totals.unknown > 0 { "at least " } else { "" };
    format!(
        "{} volumes: {} complete, {} partial, {} unknown; {bound}{} on disk, {} files",
        totals.volumes,
        totals.complete,
        totals.partial,
        totals.unknown,
        human(totals.allocated_bytes),
        totals.files
    )
}

fn state(row: &Row) -> String {
    let errors: Vec<String> = row.errors.iter().map(|error| format!("{} {}", error.count, error.kind)).collect();
    let mut state = match row.reason {
        None => row.completeness.as_str().to_owned(),
        Some(reason) => format!("{} ({})", row.completeness.as_str(), reason.as_str()),
    };
    if !errors.is_empty() {
        state = format!("{state}: {}", errors.join(", "));
    }
    if !row.skipped_mounts.is_empty() {
        state = format!("{state}; {} mounts inside not entered", row.skipped_mounts.len());
    }
    showable(&state)
}

fn human(bytes: u64) -> HumanBytes {
    HumanBytes(i64::try_from(bytes).unwrap_or(i64::MAX))
}

fn size(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "?".to_owned(), |bytes| human(bytes).to_string())
}

fn number(number: Option<u64>) -> String {
    number.map_or_else(|| "?".to_owned(), |number| number.to_string())
}
