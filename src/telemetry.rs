//! Logs: one line an event on standard error, as text for people or JSON for collectors.

use std::io::IsTerminal;

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;

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

/// A filter that cannot be parsed.
#[derive(Debug, thiserror::Error)]
#[error("--log {filter:?} is not a log filter: {problem}")]
pub struct InvalidFilter {
    filter: String,
    problem: String,
}

/// Installs the process's only log subscriber.
pub fn install(args: &LogArgs) -> Result<(), InvalidFilter> {
    let filter = EnvFilter::try_new(&args.filter)
        .map_err(|error| InvalidFilter { filter: args.filter.clone(), problem: error.to_string() })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match args.format {
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(true).with_span_list(false).init(),
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).init(),
    }
    Ok(())
}
