//! A line on the terminal that tells how far a measurement is.

use std::io::{IsTerminal, Write, stderr};
use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval_at};

use crate::agent::measure::Measurer;
use crate::domain::bytes::HumanBytes;
use crate::domain::text::showable;

/// How often the line is written anew.
const EVERY: Duration = Duration::from_millis(200);
/// Of a terminal that does not tell.
const USUAL_COLUMNS: usize = 80;
/// Back to the line's begin; and clear what follows.
const BEGIN: char = '\r';
const CLEAR: &str = "\u{1b}[K";

/// Tells it on standard error, when that is a terminal that can erase.
pub(super) struct Progress {
    shown: bool,
}

/// How far one volume is.
struct SoFar<'a> {
    what: &'a str,
    entries: i64,
    bytes: i64,
    elapsed: Duration,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self { shown: stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|kind| kind != "dumb") }
    }

    /// Shows how far `measurer` gets until this is done, and nothing after it.
    pub(super) async fn show_while<T>(&self, what: &str, measurer: &Measurer, work: impl Future<Output = T>) -> T {
        if !self.shown {
            return work.await;
        }
        let (began, entries, bytes) = (Instant::now(), measurer.entries(), measurer.bytes());
        let mut ticks = interval_at(tokio::time::Instant::now() + EVERY, EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tokio::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => {
                    write(&format!("{BEGIN}{CLEAR}"));
                    return done;
                }
                _ = ticks.tick() => {
                    let (entries, bytes) = (measurer.entries() - entries, measurer.bytes() - bytes);
                    let line = SoFar { what, entries, bytes, elapsed: began.elapsed() }.line(columns());
                    write(&format!("{BEGIN}{line}{CLEAR}"));
                }
            }
        }
    }
}

/// Without it the measurement goes on: a terminal that is gone is no reason to end.
fn write(text: &str) {
    let mut out = stderr().lock();
    drop(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
}

fn columns() -> usize {
    let told = rustix::termios::tcgetwinsize(stderr()).map_or(0, |size| size.ws_col);
    if told == 0 { USUAL_COLUMNS } else { told.into() }
}

impl SoFar<'_> {
    /// It never fills the last column, from which some terminals begin a new line.
    fn line(&self, columns: usize) -> String {
        let a_second = u128::from(self.entries.unsigned_abs()) * 1000 / self.elapsed.as_millis().max(1);
        let figures = format!(": {} entries, {}, {a_second} entries/s", self.entries, HumanBytes(self.bytes));
        let room = columns.saturating_sub(1);
        let name = cut(&showable(self.what), room.saturating_sub(figures.len()));
        cut(&format!("{name}{figures}"), room)
    }
}

/// What of a text fits; a character beyond ASCII may take two columns.
fn cut(text: &str, columns: usize) -> String {
    let width = |c: char| if c.is_ascii() { 1 } else { 2 };
    if text.chars().map(width).sum::<usize>() <= columns {
        return text.to_owned();
    }
    let Some(mut left) = columns.checked_sub(width('…')) else { return String::new() };
    let fits = |c: &char| {
        let rest = left.checked_sub(width(*c));
        left = rest.unwrap_or(0);
        rest.is_some()
    };
    text.chars().take_while(fits).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(what: &str, columns: usize) -> String {
        SoFar { what, entries: 12_345, bytes: 5 << 30, elapsed: Duration::from_millis(500) }.line(columns)
    }

    #[test]
    fn a_line_tells_how_far_it_is_and_fits() {
        assert_eq!(line("pgdata", 80), "pgdata: 12345 entries, 5.00 GiB, 24690 entries/s");
        let name = "volume-".repeat(20);
        let long = line(&name, 80);
        assert!(
            long.starts_with("volume-volume") && long.ends_with("…: 12345 entries, 5.00 GiB, 24690 entries/s"),
            "{long}"
        );
        for columns in 0..100 {
            for name in [&name, "ü漢".repeat(30).as_str(), ""] {
                let width: usize = line(name, columns).chars().map(|c| if c.is_ascii() { 1 } else { 2 }).sum();
                assert!(width < columns.max(1), "{width} of {columns}");
            }
        }
    }

    #[test]
    fn no_name_is_obeyed() {
        assert!(line("a\u{1b}[2Jb\r", 80).starts_with("a\\u{1b}[2Jb\\r: "));
    }
}
