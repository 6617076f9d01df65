//! What was measured, as tables in Markdown.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::calls::Calls;
use crate::compare::{Case, Cell, Compared};
use crate::harm::Harm;
use crate::process::{Took, median};
use crate::sets::Set;
use crate::tools::Tool;

/// What a cell says when a tool's total is not du's.
const VOID: &str = "void";

/// Milliseconds; those below ten with a decimal.
fn ms(duration: Duration) -> String {
    let ms = duration.as_secs_f64() * 1000.0;
    if ms < 10.0 { format!("{ms:.1}") } else { format!("{ms:.0}") }
}

fn mib(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / f64::from(1 << 20))
}

/// A table; its first columns are text, all others are numbers.
pub fn table(texts: usize, head: &[String], rows: &[Vec<String>]) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let rule: Vec<String> = (0..head.len()).map(|n| if n < texts { "---" } else { "---:" }.to_owned()).collect();
    let body: String = rows.iter().map(|row| line(row)).collect();
    format!("{}{}{body}\n", line(head), line(&rule))
}

fn head(first: &str, others: impl IntoIterator<Item = impl Into<String>>) -> Vec<String> {
    std::iter::once(first.to_owned()).chain(others.into_iter().map(Into::into)).collect()
}

fn case_name(case: Case) -> String {
    match case.threads {
        Some(1) => format!("{}, 1 thread", case.tool.name()),
        Some(threads) => format!("{}, {threads} threads", case.tool.name()),
        None => case.tool.name().to_owned(),
    }
}

/// The sets: what they are, and what du says of them.
pub fn sets(sets: &[Set], compared: &[Compared]) -> String {
    let row = |(set, compared): (&Set, &Compared)| {
        vec![set.name.to_owned(), set.what.clone(), set.names.to_string(), mib(compared.total)]
    };
    let rows: Vec<_> = sets.iter().zip(compared).map(row).collect();
    table(2, &head("set", ["what", "names", "MiB on disk"]), &rows)
}

/// A figure of every case on every set: medians.
pub fn figures(compared: &[Compared], figure: impl Fn(&[Took]) -> String) -> String {
    let cell = |cell: &Cell| if cell.void.is_some() { VOID.to_owned() } else { figure(&cell.runs) };
    let row =
        |n: usize, first: &Cell| head(&case_name(first.case), compared.iter().map(|compared| cell(&compared.cells[n])));
    let rows: Vec<_> = compared[0].cells.iter().enumerate().map(|(n, first)| row(n, first)).collect();
    let rounds = head("rounds", compared.iter().map(|compared| compared.rounds().to_string()));
    table(1, &head("", compared.iter().map(|compared| compared.set)), &[rows, vec![rounds]].concat())
}

/// Wall and processor time of all cases, and what is void.
pub fn times(compared: &[Compared]) -> String {
    let least = |runs: &[Took]| runs.iter().map(|run| run.wall).min().unwrap_or_default();
    let wall = figures(compared, |runs| format!("{} ({})", ms(median(runs, |run| run.wall)), ms(least(runs))));
    let cpu = figures(compared, |runs| ms(median(runs, |run| run.cpu)));
    let voids = voids(compared);
    format!("Wall, ms: the median, and the least of all rounds:\n\n{wall}User and system time, ms:\n\n{cpu}{voids}")
}

/// Peak memory of all cases.
pub fn memory(compared: &[Compared]) -> String {
    format!("Peak memory, MiB:\n\n{}", figures(compared, |runs| mib(median(runs, |run| run.peak_bytes))))
}

/// All of one set.
pub fn start(compared: &Compared) -> String {
    let row = |cell: &Cell| {
        let figures = |runs: &[Took]| {
            let (wall, cpu) = (median(runs, |run| run.wall), median(runs, |run| run.cpu));
            [ms(wall), ms(cpu), mib(median(runs, |run| run.peak_bytes))]
        };
        let void = [VOID, VOID, VOID].map(str::to_owned);
        head(&case_name(cell.case), if cell.void.is_some() { void } else { figures(&cell.runs) })
    };
    let rows: Vec<_> = compared.cells.iter().map(row).collect();
    table(1, &head("", ["wall, ms", "user and system, ms", "peak, MiB"]), &rows)
        + &voids(std::slice::from_ref(compared))
}

fn voids(compared: &[Compared]) -> String {
    let mut text = String::new();
    for compared in compared {
        for cell in &compared.cells {
            if let Some(why) = &cell.void {
                let _ = writeln!(text, "Void: {} on {}: {why}.", case_name(cell.case), compared.set);
            }
        }
    }
    if text.is_empty() { text } else { text + "\n" }
}

/// How many times as long as ours the others took, by set; below 1 we lose.
pub fn ratios(compared: &[Compared], threads: &[Option<usize>]) -> String {
    let wall: fn(&Took) -> f64 = |run| run.wall.as_secs_f64();
    let cpu: fn(&Took) -> f64 = |run| run.cpu.as_secs_f64();
    let mut rows = Vec::new();
    for &threads in threads {
        let of_du = |case: Case| case.tool == Tool::Du;
        let of_peers = |case: Case| case.tool.is_peer() && case.threads == threads;
        let ours = |case: Case| case.tool == Tool::Volumeviz && case.threads == threads;
        let suffix = match threads {
            Some(1) => ", 1 thread".to_owned(),
            Some(threads) => format!(", {threads} threads"),
            None => String::new(),
        };
        let mut row = |name: &str, figure: fn(&Took) -> f64, other: &dyn Fn(Case) -> bool| {
            let ratio = |compared: &Compared| {
                let both = compared.best(figure, other).zip(compared.best(figure, ours));
                both.map_or_else(|| VOID.to_owned(), |(other, ours)| format!("{:.2}", other / ours))
            };
            rows.push(head(&format!("{name}{suffix}"), compared.iter().map(ratio)));
        };
        row("wall, du ÷ ours", wall, &of_du);
        row("wall, fastest peer ÷ ours", wall, &of_peers);
        row("user and system, du ÷ ours", cpu, &of_du);
    }
    let table = table(1, &head("", compared.iter().map(|compared| compared.set)), &rows);
    format!("Times as long as ours:\n\n{table}")
}

/// System calls a name.
pub fn calls(calls: &[Calls], names: u64) -> String {
    let row = |calls: &Calls| {
        let share = |count: u64| format!("{:.3}", count as f64 / names as f64);
        let most: Vec<String> = calls.most.iter().map(|(name, count)| format!("{name} {}", share(*count))).collect();
        vec![calls.tool.name().to_owned(), most.join(", "), share(calls.total)]
    };
    let rows: Vec<_> = calls.iter().map(row).collect();
    table(2, &head("", ["most of them", "calls a name"]), &rows)
}

/// What the neighbour saw.
pub fn harm(all: &[Harm], seconds: u32) -> String {
    let middle = |figures: &[f64]| {
        let mut figures = figures.to_vec();
        figures.sort_by(f64::total_cmp);
        figures[figures.len() / 2]
    };
    let alone = middle(&all[0].p99);
    let row = |harm: &Harm| {
        let (p50, p99) = (middle(&harm.p50), middle(&harm.p99));
        let name = harm.beside.map_or("nothing", Tool::name);
        let scans = f64::from(harm.scans) * 60.0 / (f64::from(seconds) * harm.p99.len() as f64);
        vec![
            name.to_owned(),
            format!("{p50:.0}"),
            format!("{p99:.0}"),
            format!("{:+.0} %", (p99 / alone - 1.0) * 100.0),
            format!("{scans:.1}"),
        ]
    };
    let rows: Vec<_> = all.iter().map(row).collect();
    table(1, &head("beside", ["p50, µs", "p99, µs", "p99 added", "scans a minute"]), &rows)
}

/// One line of comma-separated values a run.
pub fn csv(state: &str, compared: &Compared) -> String {
    let mut text = String::new();
    for cell in &compared.cells {
        for run in &cell.runs {
            let (wall, cpu) = (run.wall.as_secs_f64(), run.cpu.as_secs_f64());
            let threads = cell.case.threads.map_or_else(String::new, |threads| threads.to_string());
            let (set, tool, peak) = (compared.set, cell.case.tool.name(), run.peak_bytes);
            let _ = writeln!(text, "{state},{set},{tool},{threads},{wall:.6},{cpu:.6},{peak}");
        }
    }
    text
}

/// Puts text between two marks of a document.
pub fn put(document: &Path, mark: &str, text: &str) {
    let (open, close) = (format!("<!-- {mark} -->\n"), format!("<!-- /{mark} -->"));
    let old = fs::read_to_string(document).unwrap_or_else(|error| panic!("reading {}: {error}", document.display()));
    let parts = old.split_once(&open).and_then(|(before, rest)| Some((before, rest.split_once(&close)?.1)));
    let (before, after) = parts.unwrap_or_else(|| panic!("{} has no {open}…{close}", document.display()));
    fs::write(document, format!("{before}{open}{text}{close}{after}")).unwrap();
}

/// Rows of what Docker and we took for all volumes.
pub fn docker([theirs, ours]: &[Vec<Took>; 2], cold: bool) -> Vec<Vec<String>> {
    let state = if cold { "cold" } else { "warm" };
    let wall = |runs: &[Took]| median(runs, |run| run.wall);
    let row = |name: &str, runs: &[Took]| {
        let times = wall(runs).as_secs_f64() / wall(ours).as_secs_f64();
        vec![format!("`{name}`, {state}"), ms(wall(runs)), ms(median(runs, |run| run.cpu)), format!("{times:.2}")]
    };
    vec![row("docker system df -v", theirs), row("volumeviz scan", ours)]
}
