//! `volumeviz scan`: the volumes of this machine's Docker, or directories, without a cluster or a database.

mod du;
mod progress;
mod report;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::{ValueEnum, value_parser};
use futures::stream::{self, StreamExt};
use tokio::sync::Mutex;

use self::du::Comparison;
use self::progress::Progress;
use self::report::{Line, Report, Row, Totals};
use crate::agent::docker::{self, DEFAULT_DATA_ROOT, DEFAULT_SOCKET, Docker};
use crate::agent::measure::{Measurer, Target};
use crate::agent::walk::{Threads, Walker, Wanted};
use crate::domain::measurement::VolumeReason;
use crate::domain::work::WorkOrder;
use crate::output;

/// A walk without a deadline ends after this all the same.
const DEADLINE: Duration = Duration::from_hours(24 * 7);
/// Threads when nobody says how many, and volumes that are read at a time then: small ones are over before threads for each would pay.
const MAX_THREADS: usize = 16;
const VOLUMES_AT_A_TIME: usize = 8;

/// Options of `volumeviz scan`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  volumeviz scan                          the volumes of this machine's Docker
  volumeviz scan /srv /var/lib/postgresql two directories, each as one volume
  volumeviz scan --top 10 --histogram /srv
                                          the biggest files and directories; sizes, ages, owners, extensions
  volumeviz scan --threads 1 --entries-per-second 5000
                                          gently, beside other work
  volumeviz scan --compare-du /srv        the same as `du -sxB1 /srv`?
  volumeviz scan --output json | jq '.volumes[] | select(.completeness != \"Complete\")'
  volumeviz scan --output jsonl | jq 'select(.type == \"volume\") | .allocated_bytes'

Exit codes: 0 everything is complete, 1 something is partial or unknown or du differs, 2 wrong usage or nothing could be done.")]
pub struct Args {
    /// How the result is printed
    #[arg(long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
    /// Docker's socket
    #[arg(long, default_value = DEFAULT_SOCKET, value_name = "SOCKET", conflicts_with = "paths")]
    pub docker: PathBuf,
    /// Read with exactly so many threads (1 to 256), whatever others do [default: as many as make it faster, at most 16, which leave the disk
    /// to others and slow down while these wait]
    #[arg(long, value_name = "N", value_parser = value_parser!(u16).range(1..=256))]
    pub threads: Option<u16>,
    /// Look at no more than so many files and directories a second
    #[arg(long, value_name = "N", value_parser = value_parser!(i32).range(1..))]
    pub entries_per_second: Option<i32>,
    /// Also list each volume's biggest files, and the directories with most in the files directly in them (1 to 1000 of each)
    #[arg(long, value_name = "N", value_parser = value_parser!(u16).range(1..=1000))]
    pub top: Option<u16>,
    /// Also tell how each volume's files spread over sizes, ages, owners and extensions
    #[arg(long)]
    pub histogram: bool,
    /// Also run `du -sxB1` on each volume and compare; a difference makes exit code 1
    #[arg(long)]
    pub compare_du: bool,
    /// Directories to measure, each as one volume, instead of Docker's volumes
    #[arg(value_name = "PATH")]
    pub paths: Vec<PathBuf>,
}

/// How the result is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people: biggest first.
    Table,
    /// For programs: one document.
    Json,
    /// For programs: a line for each volume as soon as it is measured, then one with the totals; `type` tells which.
    Jsonl,
}

/// A volume and what is known of it.
struct Volume {
    target: Target,
    path: String,
    driver: Option<String>,
}

/// Why nothing could be done.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{0}; give directories to measure them instead, e.g. `volumeviz scan /srv`")]
    Docker(#[from] docker::Error),
    #[error(transparent)]
    Du(#[from] du::Error),
    #[error(transparent)]
    Print(#[from] output::Error),
}

/// Scans and prints; the exit code tells how complete it is.
pub async fn run(args: Args) -> ExitCode {
    scan(args).await.unwrap_or_else(|error| {
        output::print_error(&error);
        ExitCode::from(2)
    })
}

async fn scan(mut args: Args) -> Result<ExitCode, Error> {
    if args.compare_du {
        du::check()?;
    }
    let paths = std::mem::take(&mut args.paths);
    let volumes = if paths.is_empty() { docker_volumes(&args).await? } else { directories(paths) };
    let report = measure(volumes, &args).await?;
    match args.output {
        Output::Table => output::print(table::lines(&report))?,
        Output::Json => output::print_json(&report)?,
        Output::Jsonl => _ = output::print_json_line(&Line::Totals(&report.totals))?,
    }
    Ok(report.totals.exit_code())
}

fn directories(paths: Vec<PathBuf>) -> Vec<Volume> {
    let directory = |path: PathBuf| {
        let name = path.to_string_lossy().into_owned();
        let target = Target::directory(name.clone(), path);
        Volume { target, path: name, driver: None }
    };
    paths.into_iter().map(directory).collect()
}

async fn docker_volumes(args: &Args) -> Result<Vec<Volume>, docker::Error> {
    let docker = Docker::new(args.docker.clone(), PathBuf::from(DEFAULT_DATA_ROOT));
    let inventory = docker.inventory(&docker.connect().await?).await?;
    let volume = |volume: &crate::domain::contract::InventoryVolume| Volume {
        target: Target::new(volume),
        path: volume.mountpoint.clone(),
        driver: Some(volume.driver.clone()),
    };
    Ok(inventory.volumes.iter().map(volume).collect())
}

/// Measures several volumes at a time; JSON Lines are printed as they come and keep no volumes.
async fn measure(volumes: Vec<Volume>, args: &Args) -> Result<Report, Error> {
    let (walker, at_a_time) = match args.threads.map(usize::from) {
        None => (Walker::new(Threads::UpTo(MAX_THREADS)).kind(), VOLUMES_AT_A_TIME),
        // More than have their turn, so that no thread waits for the next.
        Some(threads) => (Walker::new(Threads::Exactly(threads)), threads * 4),
    };
    let measurer = Measurer::new(walker, &work(args), Instant::now() + DEADLINE);
    let mut progress = Progress::new(&volumes);
    let (mut rows, mut totals) = (Vec::new(), Totals::default());
    let du = Mutex::new(());
    let measuring = volumes.into_iter().map(|volume| measure_one(volume, &measurer, args, &du));
    let mut ready = stream::iter(measuring).buffer_unordered(at_a_time);
    while let Some(row) = progress.show_while(&measurer, ready.next()).await {
        progress.count();
        totals.count(&row);
        if let Some(missing) = missing_directory(&row) {
            progress.erase();
            output::print_error(&missing);
        }
        if args.output != Output::Jsonl {
            rows.push(row);
            continue;
        }
        progress.erase();
        if !output::print_json_line(&Line::Volume(&row))? {
            break;
        }
    }
    progress.erase();
    drop(ready);
    rows.sort_by(|a, b| b.allocated_bytes.cmp(&a.allocated_bytes).then_with(|| a.name.cmp(&b.name)));
    Ok(Report { volumes: rows, totals })
}

/// Why there is no directory where somebody said that there is one.
fn missing_directory(row: &Row) -> Option<String> {
    if row.reason != Some(VolumeReason::Vanished) || row.driver.is_some() {
        return None;
    }
    let error = std::fs::read_dir(&row.path).err()?;
    Some(format!("unable to read {}: {error}", row.path))
}

/// `du` is for one at a time.
async fn measure_one(volume: Volume, measurer: &Measurer, args: &Args, du: &Mutex<()>) -> Row {
    let Volume { target, path, driver } = volume;
    let root = target.path.clone().ok();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let wanted = Wanted { top: args.top.unwrap_or(0).into(), histogram: args.histogram.then_some(now) };
    let (result, details) = measurer.measure_in_detail(target, wanted).await;
    let mut row = Row::new(result, details, path, driver);
    if let (true, Some(root), Some(bytes)) = (args.compare_du, root, row.allocated_bytes) {
        let _turn = du.lock().await;
        row.du = Some(Comparison::of(root, bytes).await);
    }
    row
}

fn work(args: &Args) -> WorkOrder {
    let mut work = WorkOrder::default();
    work.limits.volume_timeout_seconds = i32::MAX;
    work.limits.entries_per_second = args.entries_per_second;
    work
}
