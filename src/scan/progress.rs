//! A line on the terminal that tells how far a measurement is.

use std::borrow::Cow;
use std::io::{IsTerminal, Write, stderr};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::Volume;
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
    began: Instant,
    /// The only volume, or nothing.
    name: Option<String>,
    volumes: usize,
    done: usize,
    /// When it is written next, and whether it can be seen.
    next: Instant,
    is_there: bool,
}

/// How far it is.
struct SoFar<'a> {
    what: &'a str,
    entries: i64,
    bytes: i64,
    elapsed: Duration,
}

impl Progress {
    /// Of the measurement of these volumes.
    pub(super) fn new(volumes: &[Volume]) -> Self {
        let shown = stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|kind| kind != "dumb");
        let name = if let [volume] = volumes { Some(volume.target.volume.clone()) } else { None };
        let began = Instant::now();
        Self { shown, began, name, volumes: volumes.len(), done: 0, next: began + EVERY, is_there: false }
    }

    /// One more volume is done.
    pub(super) const fn count(&mut self) {
        self.done += 1;
    }

    fn what(&self) -> Cow<'_, str> {
        match &self.name {
            Some(name) => name.into(),
            None => format!("{} of {} volumes", self.done, self.volumes).into(),
        }
    }

    /// Shows how far `measurer` gets until this is done.
    pub(super) async fn show_while<T>(&mut self, measurer: &Measurer, work: impl Future<Output = T>) -> T {
        if !self.shown {
            return work.await;
        }
        tokio::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                () = sleep_until(self.next) => {
                    let (entries, bytes, elapsed) = (measurer.entries(), measurer.bytes(), self.began.elapsed());
                    let line = SoFar { what: &self.what(), entries, bytes, elapsed }.line(columns());
                    write(&format!("{BEGIN}{line}{CLEAR}"));
                    self.next = Instant::now() + EVERY;
                    self.is_there = true;
                }
            }
        }
    }

    /// Erases the line, before something else is printed.
    pub(super) fn erase(&mut self) {
        if std::mem::take(&mut self.is_there) {
            write(&format!("{BEGIN}{CLEAR}"));
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
        for name in crate::hostile::TEXTS {
            assert_eq!(crate::hostile::harm(&line(name, 200)), [""; 0]);
        }
        assert!(line("a\u{1b}[2Jb\r", 80).starts_with("a\\u{1b}[2Jb\\r: "));
    }
}
