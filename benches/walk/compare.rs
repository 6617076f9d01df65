//! Runs all tools on all sets, side by side, and keeps what each run took.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use crate::process::{self, Took};
use crate::report;
use crate::sets::Set;
use crate::tools::{ALL, Tool, Toolbox};

/// A tool with a number of threads, or as many as it likes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Case {
    /// The tool.
    pub tool: Tool,
    /// `None`: its own choice.
    pub threads: Option<usize>,
}

/// What a case took on a set.
#[derive(Debug, Clone)]
pub struct Cell {
    /// Which case.
    pub case: Case,
    /// One a round.
    pub runs: Vec<Took>,
    /// Why its runs count for nothing.
    pub void: Option<String>,
}

/// All cases on one set.
#[derive(Debug, Clone)]
pub struct Compared {
    /// The set's name.
    pub set: &'static str,
    /// What du says it comes to.
    pub total: u64,
    /// In the order of the cases.
    pub cells: Vec<Cell>,
}

impl Compared {
    /// The median that is least among the cases wanted; `None` when all are void.
    pub fn best(&self, figure: fn(&Took) -> f64, wanted: impl Fn(Case) -> bool) -> Option<f64> {
        let counts = |cell: &&Cell| cell.void.is_none() && wanted(cell.case);
        self.cells.iter().filter(counts).map(|cell| process::median(&cell.runs, figure)).min_by(f64::total_cmp)
    }

    /// Rounds made.
    pub fn rounds(&self) -> usize {
        self.cells.iter().map(|cell| cell.runs.len()).max().unwrap_or(0)
    }
}

/// Who runs what, how often.
pub struct Comparison<'a> {
    /// The tools.
    pub toolbox: &'a Toolbox,
    /// Rounds; every case is run once in each.
    pub rounds: usize,
    /// Rounds end after this time on a set, but not before the third.
    pub patience: Duration,
    /// For files of a moment.
    pub scratch: &'a Path,
    /// Gets a line a run.
    pub log: File,
    /// Shuffles each round.
    pub rng: StdRng,
}

/// Rounds that are made however long they take.
const FEWEST_ROUNDS: usize = 3;
/// Write 3 here and the kernel forgets all files and directories that it knows.
const DROP_CACHES: &str = "/proc/sys/vm/drop_caches";

/// At 1 and 2 threads; du has only the one.
pub fn with_threads() -> Vec<Case> {
    let cases = |tool: Tool| {
        let counts: &[usize] = if tool == Tool::Du { &[1] } else { &[1, 2] };
        counts.iter().map(move |&count| Case { tool, threads: Some(count) })
    };
    ALL.into_iter().flat_map(cases).collect()
}

/// Each tool as it comes.
pub fn by_default() -> Vec<Case> {
    ALL.into_iter().map(|tool| Case { tool, threads: None }).collect()
}

/// Whether caches can be dropped here.
pub fn can_be_cold() -> bool {
    fs::OpenOptions::new().write(true).open(DROP_CACHES).is_ok()
}

/// Makes the kernel forget what it knows of files.
pub fn forget() {
    fs::write(DROP_CACHES, "3").unwrap_or_else(|error| panic!("writing {DROP_CACHES}: {error}"));
}

impl Comparison<'_> {
    /// Runs the cases on a set, each round in another order; cold ones after the kernel was made to forget.
    pub fn of(&mut self, set: &Set, cases: &[Case], cold: bool) -> Compared {
        let total = self.total(&set.paths);
        let cell = |&case: &Case| Cell { case, runs: Vec::new(), void: None };
        let mut compared = Compared { set: set.name, total, cells: cases.iter().map(cell).collect() };
        // Access times that du has set; an inode that waits to be written is not forgotten.
        rustix::fs::sync();
        let started = Instant::now();
        for round in 0..self.rounds {
            if round >= FEWEST_ROUNDS && started.elapsed() > self.patience {
                break;
            }
            let mut order: Vec<usize> = (0..cases.len()).collect();
            order.shuffle(&mut self.rng);
            for n in order {
                let cell = &mut compared.cells[n];
                if cell.void.is_none() {
                    self.run(cell, set, total, cold);
                }
            }
        }
        let state = if cold { "cold" } else { "warm" };
        self.log.write_all(report::csv(state, &compared).as_bytes()).unwrap();
        eprintln!("{}, {state}: {:.0} s", set.name, started.elapsed().as_secs_f64());
        compared
    }

    /// What du says; also, the kernel knows all files then.
    fn total(&self, paths: &[PathBuf]) -> u64 {
        let (output, _) = process::run(&mut self.toolbox.command(Tool::Du, None, paths), self.scratch)
            .unwrap_or_else(|error| panic!("{error}"));
        Tool::Du.total(&output).unwrap()
    }

    fn run(&self, cell: &mut Cell, set: &Set, total: u64, cold: bool) {
        let Case { tool, threads } = cell.case;
        if cold {
            forget();
            self.toolbox.load(tool);
        }
        match process::run(&mut self.toolbox.command(tool, threads, &set.paths), self.scratch) {
            Err(error) => cell.void = Some(error),
            Ok((output, took)) => match tool.total(&output) {
                Some(found) if found == total => cell.runs.push(took),
                Some(found) => cell.void = Some(format!("{found} bytes instead of {total}")),
                None => cell.void = Some("its output tells no total".to_owned()),
            },
        }
    }
}
