//! What a scan does to a neighbour: the latency of random reads beside it.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use serde_json::Value;

use crate::compare::forget;
use crate::sets::Set;
use crate::tools::{Tool, Toolbox};

/// What runs beside the neighbour.
pub const BESIDE: [Option<Tool>; 4] = [None, Some(Tool::Du), Some(Tool::Volumeviz), Some(Tool::Diskus)];
/// How long the neighbour reads each time.
pub const SECONDS: u32 = 8;
/// How often it is looked whether the neighbour is done.
const LOOK: Duration = Duration::from_millis(10);

/// What the neighbour saw beside something.
#[derive(Debug, Clone)]
pub struct Harm {
    /// What ran beside it, over and over.
    pub beside: Option<Tool>,
    /// 99th percentile of the latency in microseconds, one a round.
    pub p99: Vec<f64>,
    /// The median latency in microseconds, one a round.
    pub p50: Vec<f64>,
    /// Scans that ended meanwhile, over all rounds.
    pub scans: u32,
}

/// Reads beside everything, in another order each round. Scans start cold.
pub fn measure(toolbox: &Toolbox, set: &Set, rounds: usize, scratch: &Path, rng: &mut StdRng) -> Vec<Harm> {
    let nothing = |beside: Option<Tool>| Harm { beside, p99: Vec::new(), p50: Vec::new(), scans: 0 };
    let mut all: Vec<Harm> = BESIDE.into_iter().map(nothing).collect();
    read(scratch);
    rustix::fs::sync();
    for _ in 0..rounds {
        let mut order: Vec<usize> = (0..all.len()).collect();
        order.shuffle(rng);
        for n in order {
            let harm = &mut all[n];
            let (latency, scans) = beside(toolbox, harm.beside, set, scratch);
            harm.p50.push(latency.0);
            harm.p99.push(latency.1);
            harm.scans += scans;
        }
    }
    all
}

/// The neighbour's p50 and p99, and how many scans ended beside it.
fn beside(toolbox: &Toolbox, tool: Option<Tool>, set: &Set, scratch: &Path) -> ((f64, f64), u32) {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let scans = scope.spawn(|| tool.map_or(0, |tool| scan_until(&done, toolbox, tool, set)));
        let latency = read(scratch);
        done.store(true, Ordering::Relaxed);
        (latency, scans.join().unwrap())
    })
}

/// Scans over and over; the last one is stopped when the neighbour is done.
fn scan_until(done: &AtomicBool, toolbox: &Toolbox, tool: Tool, set: &Set) -> u32 {
    let mut scans = 0;
    while !done.load(Ordering::Relaxed) {
        forget();
        let mut command = toolbox.command(tool, None, &set.paths);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        scans += u32::from(ends_before(done, &mut child));
    }
    scans
}

fn ends_before(done: &AtomicBool, child: &mut Child) -> bool {
    loop {
        if child.try_wait().unwrap().is_some() {
            return true;
        }
        if done.load(Ordering::Relaxed) {
            child.kill().unwrap();
            child.wait().unwrap();
            return false;
        }
        std::thread::sleep(LOOK);
    }
}

/// Reads 4 KiB at random places of a file, one after the other, past the page cache; p50 and p99 in microseconds.
fn read(scratch: &Path) -> (f64, f64) {
    let output = Command::new("fio")
        .args(["--name=neighbour", "--size=512M", "--direct=1", "--ioengine=psync", "--rw=randread", "--bs=4k"])
        .args(["--iodepth=1", "--time_based", "--percentile_list=50:99", "--output-format=json"])
        .arg(format!("--runtime={SECONDS}"))
        .arg(format!("--filename={}", scratch.join("neighbour").display()))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let report: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("fio: {error}: {text}"));
    let percentile = |name: &str| report["jobs"][0]["read"]["clat_ns"]["percentile"][name].as_f64().unwrap() / 1000.0;
    (percentile("50.000000"), percentile("99.000000"))
}
