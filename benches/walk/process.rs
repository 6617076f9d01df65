//! Runs a program to its end and tells what it took.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use wait4::Wait4;

/// What one run took.
#[derive(Debug, Clone, Copy)]
pub struct Took {
    /// From before the process is made until it has ended.
    pub wall: Duration,
    /// User and system time of the process and its children.
    pub cpu: Duration,
    /// `ru_maxrss` in bytes. Never less than what this process itself had when it made the child.
    pub peak_bytes: u64,
}

/// Runs a command; what it printed, and what it took. An error says how it failed, with its last words.
pub fn run(command: &mut Command, scratch: &Path) -> Result<(String, Took), String> {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let failed = |what: String| format!("{program}: {what}");
    // Not a pipe: nobody would read it while the output is read.
    let words = scratch.join("stderr");
    let stderr = File::create(&words).map_err(|error| failed(error.to_string()))?;
    let started = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(stderr)
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    let mut output = Vec::new();
    child
        .stdout
        .take()
        .map_or(Ok(0), |mut stdout| stdout.read_to_end(&mut output))
        .map_err(|e| failed(e.to_string()))?;
    let used = child.wait4().map_err(|error| failed(error.to_string()))?;
    let wall = started.elapsed();
    if !used.status.success() {
        let words = std::fs::read_to_string(&words).unwrap_or_default();
        return Err(failed(format!("{}: {}", used.status, words.lines().last().unwrap_or("it says nothing"))));
    }
    let usage = used.rusage;
    let took = Took { wall, cpu: usage.utime + usage.stime, peak_bytes: usage.maxrss };
    Ok((String::from_utf8_lossy(&output).into_owned(), took))
}

/// The median by some figure; runs are never none.
pub fn median<T: Copy + PartialOrd>(runs: &[Took], figure: impl Fn(&Took) -> T) -> T {
    let mut figures: Vec<T> = runs.iter().map(figure).collect();
    figures.sort_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
    figures[figures.len() / 2]
}
