//! `volumeviz scan` beside other tools that tell how big directories are. Run by `make bench`, which builds the others;
//! `docker system df -v`, which needs a Docker, by `make bench-docker`.
//!
//! `BENCH_SCALE` makes the sets smaller (0.01), `BENCH_ROUNDS` the runs fewer or more, `BENCH_PATIENCE` the seconds after which a
//! set gets no further round, `BENCH_SEED` sets and orders. At full scale the tables go into `docs/benchmarks.md`, always into `target/bench`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    unreachable_pub,
    reason = "a measurement fails by panicking, and needs no last digit"
)]

mod calls;
mod compare;
mod docker;
mod harm;
mod process;
mod report;
mod sets;
mod tools;

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;

use compare::{Compared, Comparison};
use sets::{Set, Shelf};
use tools::{ALL, Toolbox};

/// Scans of the small tree take so little that many cost nothing.
const ROUNDS_OF_STARTS: usize = 101;

/// What all parts need.
struct Bench {
    /// `target/bench`.
    folder: PathBuf,
    scratch: PathBuf,
    shelf: Shelf,
    scale: f64,
    rounds: usize,
    seed: u64,
}

fn main() {
    let bench = Bench::new();
    if env::args().any(|argument| argument == "docker") { bench.docker() } else { bench.walk() }
}

fn variable<T: FromStr>(name: &str, default: T) -> T {
    env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is {text}")))
}

impl Bench {
    fn new() -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench");
        let scratch = folder.join("scratch");
        fs::create_dir_all(&scratch).unwrap();
        let (scale, seed) = (variable("BENCH_SCALE", 1.0), variable("BENCH_SEED", 1));
        assert!(scale > 0.0, "BENCH_SCALE is {scale}");
        let rounds = variable("BENCH_ROUNDS", 7_usize).max(1);
        let shelf = Shelf::new(folder.join("sets").join(scale.to_string()), scale, seed);
        Self { folder, scratch, shelf, scale, rounds, seed }
    }

    fn rng(&self) -> StdRng {
        StdRng::seed_from_u64(self.seed)
    }

    /// The comparison with du and its like.
    fn walk(&self) {
        let toolbox = Toolbox::new(self.folder.join("bin"));
        let sets = self.shelf.all();
        let mut comparison = Comparison {
            toolbox: &toolbox,
            rounds: self.rounds,
            patience: Duration::from_secs(variable("BENCH_PATIENCE", 100)),
            scratch: &self.scratch,
            log: File::create(self.folder.join("walk.csv")).unwrap(),
            rng: self.rng(),
        };
        let mut tables = Tables::new(self.folder.join("walk.md"));
        tables.add(&self.conditions(&toolbox));
        let with_threads = compare::with_threads();
        let warm: Vec<Compared> = sets.iter().map(|set| comparison.of(set, &with_threads, false)).collect();
        tables.add(&format!("{}### Warm\n{}", report::sets(&sets, &warm), report::times(&warm)));
        tables.add(&(report::memory(&warm) + &report::ratios(&warm, &[Some(1), Some(2)])));
        if compare::can_be_cold() {
            let by_default = compare::by_default();
            let cold: Vec<Compared> = sets.iter().map(|set| comparison.of(set, &by_default, true)).collect();
            tables.add(&format!("### Cold\nEach with as many threads as it likes.\n\n{}", report::times(&cold)));
            tables.add(&report::ratios(&cold, &[None]));
        }
        let small = self.shelf.small();
        let start = Comparison { rounds: ROUNDS_OF_STARTS, ..comparison }.of(&small, &compare::by_default(), false);
        tables.add(&format!("### Start\n200 files, {ROUNDS_OF_STARTS} rounds.\n\n{}", report::start(&start)));
        tables.add(&self.calls(&toolbox));
        tables.add(&self.harm(&toolbox));
        self.publish("walk", &tables);
    }

    fn calls(&self, toolbox: &Toolbox) -> String {
        let sample = self.shelf.sample();
        let calls: Vec<_> = ALL.iter().map(|&tool| calls::count(toolbox, tool, &sample, &self.scratch)).collect();
        format!(
            "### System calls\n{} names, {}; two threads.\n\n{}",
            sample.names,
            sample.what,
            report::calls(&calls, sample.names)
        )
    }

    fn harm(&self, toolbox: &Toolbox) -> String {
        if !compare::can_be_cold() {
            return "### Harm\nNot measured: caches cannot be dropped here.\n\n".to_owned();
        }
        let set: Set = self.shelf.modules();
        let harm = harm::measure(toolbox, &set, self.rounds, &self.scratch, &mut self.rng());
        format!(
            "### Harm\nThe set {}, cold, over and over; {} rounds.\n\n{}",
            set.name,
            self.rounds,
            report::harm(&harm, harm::SECONDS)
        )
    }

    /// `docker system df -v`.
    fn docker(&self) {
        let volumes = self.shelf.volumes();
        let docker = docker::Docker::start(&self.shelf.data_root(), &self.scratch);
        let mut rng = self.rng();
        let mut tables = Tables::new(self.folder.join("walk-docker.md"));
        tables.add(&format!("{} volumes, {} names, {} rounds:\n\n", volumes.paths.len(), volumes.names, self.rounds));
        let mut rows = Vec::new();
        for cold in [false, true] {
            if cold && !compare::can_be_cold() {
                continue;
            }
            let runs = docker::compare(&docker, self.rounds, cold, &self.scratch, &mut rng);
            rows.extend(report::docker(&runs, cold));
        }
        let head = ["", "wall, ms", "user and system, ms", "times ours"].map(str::to_owned);
        tables.add(&report::table(1, &head, &rows));
        self.publish("walk-docker", &tables);
    }

    /// What the figures are of.
    fn conditions(&self, toolbox: &Toolbox) -> String {
        let versions: Vec<String> =
            ALL.iter().map(|&tool| format!("{} {}", tool.name(), toolbox.version(tool))).collect();
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        // What follows the version is the distribution's.
        let kernel = kernel.trim().split('-').next().unwrap_or_default();
        let (_, floor) = process::run(&mut Command::new("true"), &self.scratch).unwrap();
        let of = ["--noheadings", "--output=FSTYPE", "--target"];
        let (filesystem, _) = process::run(Command::new("findmnt").args(of).arg(&self.folder), &self.scratch).unwrap();
        format!(
            "{processors} processors, Linux {}, {}, scale {}, seed {}. {}. Peaks below {:.1} MiB cannot be told.\n\n",
            kernel,
            filesystem.trim(),
            self.scale,
            self.seed,
            versions.join(", "),
            floor.peak_bytes as f64 / f64::from(1 << 20)
        )
    }

    /// Puts what was measured at full scale into the documentation.
    fn publish(&self, mark: &str, tables: &Tables) {
        if (self.scale - 1.0).abs() < f64::EPSILON {
            report::put(&Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/benchmarks.md"), mark, &tables.text);
        }
    }
}

/// Tables are printed and kept as they come: a run that is broken off has shown what it had.
struct Tables {
    file: PathBuf,
    text: String,
}

impl Tables {
    const fn new(file: PathBuf) -> Self {
        Self { file, text: String::new() }
    }

    fn add(&mut self, part: &str) {
        print!("{part}");
        self.text += part;
        fs::write(&self.file, &self.text).unwrap();
    }
}
