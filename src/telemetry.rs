//! Logs: one line an event on standard error, as text for people or JSON for collectors. What is logged can be changed while the process runs.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use tracing::Subscriber;
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::{DefaultFields, Writer};
use tracing_subscriber::fmt::{self, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, reload};

use crate::domain::text::{showable, showable_json};

/// How the process logs.
#[derive(Debug, Clone, Args)]
pub struct LogArgs {
    /// What to log: a level (error, warn, info, debug, trace) or a filter such as `info,volumeviz::agent=debug`.
    #[arg(
        long = "log",
        env = "VOLUMEVIZ_LOG",
        default_value = "info",
        global = true,
        value_name = "FILTER",
        help_heading = "Logging"
    )]
    pub filter: String,
    /// A file that holds the filter, instead of --log; a change of it takes effect within seconds.
    #[arg(
        long = "log-filter-file",
        env = "VOLUMEVIZ_LOG_FILTER_FILE",
        global = true,
        value_name = "FILE",
        help_heading = "Logging"
    )]
    pub filter_file: Option<PathBuf>,
    /// How a log line looks.
    #[arg(
        long = "log-format",
        env = "VOLUMEVIZ_LOG_FORMAT",
        default_value = "text",
        global = true,
        help_heading = "Logging"
    )]
    pub format: LogFormat,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// A JSON object a line.
    Json,
}

/// What is logged when the file holds no filter.
const STAND_IN: &str = "info";
/// How often the filter's file is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// A filter that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be parsed.
    #[error("{filter:?} is not a log filter: {problem}")]
    Invalid {
        /// As it was given.
        filter: String,
        /// Why.
        problem: String,
    },
    /// Its file cannot be read.
    #[error("failed to read the log filter in {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file cannot be looked at again and again.
    #[error("failed to follow the log filter in {path}: {source}")]
    Follow {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A problem that lasts: it is told once, and again when it is another one.
#[derive(Debug, Default)]
pub struct Repeated(Option<String>);

impl Repeated {
    /// Notes how it stands; whether there is a problem that was not told.
    pub fn is_news(&mut self, problem: Option<&str>) -> bool {
        let is_news = problem.is_some() && self.0.as_deref() != problem;
        self.0 = problem.map(str::to_owned);
        is_news
    }
}

/// Installs the process's only log subscriber. A file without a filter that can be used is no reason not to start: `info` stands in, and it is said.
pub fn install(args: &LogArgs) -> Result<(), Error> {
    let from_file = args.filter_file.as_deref().map(|path| read(path).and_then(|text| Ok((parse(&text)?, text))));
    let (filter, text, problem) = match from_file {
        Some(Ok((filter, text))) => (filter, text, None),
        Some(Err(error)) => (EnvFilter::new(STAND_IN), STAND_IN.to_owned(), Some(error)),
        None => (parse(&args.filter)?, String::new(), None),
    };
    let (filter, handle) = reload::Layer::new(filter);
    let lines = lines(args.format, io::stderr().is_terminal(), io::stderr);
    tracing_subscriber::registry().with(filter).with(lines).init();
    if let Some(problem) = problem {
        tracing::error!("logs by {STAND_IN:?} instead: {problem}");
    }
    let set = move |filter| handle.reload(filter).map_err(|error| error.to_string());
    match args.filter_file.clone() {
        Some(path) => follow(path, text, set),
        None => Ok(()),
    }
}

/// Lines for people, or for programs. Names from elsewhere are in many of them: none begins another line, and a terminal obeys none.
fn lines<S, W>(
    format: LogFormat,
    in_colour: bool,
    to: impl Fn() -> W + Send + Sync + 'static,
) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: io::Write + 'static,
{
    // The two formats are two types.
    match format {
        LogFormat::Json => {
            let lines = fmt::Layer::default().with_writer(move || ShowableJson(to())).json();
            lines.flatten_event(true).with_current_span(true).with_span_list(false).boxed()
        }
        LogFormat::Text => {
            fmt::Layer::default().with_writer(to).fmt_fields(ShowableFields).with_ansi(in_colour).boxed()
        }
    }
}

/// Fields as they usually are, and showable.
struct ShowableFields;

impl<'a> FormatFields<'a> for ShowableFields {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'a>, fields: R) -> std::fmt::Result {
        let mut told = String::new();
        DefaultFields::new().format_fields(Writer::new(&mut told), fields)?;
        writer.write_str(&showable(&told))
    }
}

/// Passes on events, which come one by one and whole.
struct ShowableJson<W>(W);

impl<W: io::Write> io::Write for ShowableJson<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        self.0.write_all(showable_json(&String::from_utf8_lossy(event)).as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn read(path: &Path) -> Result<String, Error> {
    let text = std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    Ok(text.trim().to_owned())
}

/// A filter such as `info` or `volumeviz=debug,sqlx=warn`.
pub fn parse(filter: &str) -> Result<EnvFilter, Error> {
    // Of a directive with blanks around it the library takes another part than it looked at, which may begin within a character.
    let directives: Vec<&str> = filter.split(',').map(str::trim).collect();
    EnvFilter::try_new(directives.join(","))
        .map_err(|error| Error::Invalid { filter: filter.to_owned(), problem: error.to_string() })
}

/// On a thread of its own: a role's runtime is not there yet, and may be busy.
fn follow(
    path: PathBuf,
    mut current: String,
    set: impl Fn(EnvFilter) -> Result<(), String> + Send + 'static,
) -> Result<(), Error> {
    let file = path.clone();
    let look = move || {
        let mut problem = Repeated::default();
        loop {
            std::thread::sleep(LOOK_EVERY);
            let changed = read(&file).and_then(|text| Ok((parse(&text)?, text)));
            let failed = match changed {
                Ok((_, text)) if text == current => None,
                Ok((filter, text)) => set(filter)
                    .map(|()| {
                        tracing::info!(filter = text, "logs by another filter");
                        current = text;
                    })
                    .err(),
                Err(error) => Some(error.to_string()),
            };
            if problem.is_news(failed.as_deref()) {
                tracing::warn!("goes on with the log filter {current:?}: {}", failed.unwrap_or_default());
            }
        }
    };
    let started = std::thread::Builder::new().name("log-filter".to_owned()).spawn(look);
    started.map(drop).map_err(|source| Error::Follow { path, source })
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex, PoisonError};

    use serde_json::Value;

    use super::*;
    use crate::hostile::{TEXTS, harm};

    /// What was logged.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, event: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).write(event)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Log {
        /// Its lines, when each text is logged in all the ways there are.
        fn of_everything(format: LogFormat, in_colour: bool) -> Vec<String> {
            let log = Self::default();
            let to = log.clone();
            let lines = lines(format, in_colour, move || to.clone());
            tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), || {
                for text in TEXTS {
                    let error = io::Error::other(*text);
                    let within = tracing::info_span!("within", %text, debugged = ?text, plain = text).entered();
                    tracing::info!(%text, debugged = ?text, plain = text, %error, cause = &error as &dyn std::error::Error, "{text}");
                    drop(within);
                }
            });
            let logged = log.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
            String::from_utf8(logged).unwrap().split_terminator('\n').map(str::to_owned).collect()
        }
    }

    #[test]
    fn blanks_around_a_directive_mean_nothing() {
        for (filter, plain) in [("info, kube=debug", "info,kube=debug"), (" a", "a"), ("info, é=debug", "info,é=debug")]
        {
            assert_eq!(parse(filter).unwrap().to_string(), parse(plain).unwrap().to_string(), "{filter:?}");
        }
    }

    #[test]
    fn an_event_is_one_line_of_which_a_terminal_obeys_nothing() {
        let lines = Log::of_everything(LogFormat::Text, false);
        assert_eq!(lines.len(), TEXTS.len());
        assert_eq!(lines.iter().flat_map(|line| harm(line)).collect::<Vec<_>>(), [""; 0]);
        assert!(lines[0].contains(r" text=\u{1b}[2J "), "{}", lines[0]);

        let lines = Log::of_everything(LogFormat::Text, true);
        assert_eq!(lines.len(), TEXTS.len());
        let colours = ["\u{1b}[0m", "\u{1b}[1m", "\u{1b}[2m", "\u{1b}[32m", "\u{1b}[3m"];
        let plain = lines.iter().map(|line| colours.iter().fold(line.clone(), |line, colour| line.replace(colour, "")));
        assert_eq!(plain.flat_map(|line| harm(&line)).collect::<Vec<_>>(), [""; 0]);
    }

    #[test]
    fn an_event_in_json_is_one_line_that_says_what_was_logged() {
        let lines = Log::of_everything(LogFormat::Json, false);
        assert_eq!(lines.len(), TEXTS.len());
        for (line, text) in lines.iter().zip(TEXTS) {
            assert_eq!(harm(line), [""; 0]);
            let event: Value = serde_json::from_str(line).unwrap();
            for found in [&event["message"], &event["text"], &event["plain"], &event["error"], &event["span"]["plain"]]
            {
                assert_eq!(found, text, "{line}");
            }
        }
    }

    #[test]
    fn a_problem_is_news_until_it_was_told_and_again_once_it_was_over() {
        let mut problem = Repeated::default();
        let news = [None, Some("a"), Some("a"), Some("b"), None, Some("b")].map(|now| problem.is_news(now));
        assert_eq!(news, [false, true, false, true, false, true]);
    }
}
