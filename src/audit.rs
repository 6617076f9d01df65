//! Lists the audit trail.

use std::time::Duration;

use clap::ValueEnum;

use crate::config::database::{DatabaseArgs, Role};
use crate::domain::text;
use crate::output;
use crate::store::{self, Store, audit::Event};

const DEADLINE: Duration = Duration::from_secs(10);

/// Options of `volumeviz audit`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Only what was done to this, e.g. volumescan/nightly, run/12, installation
    #[arg(long, value_name = "SUBJECT")]
    subject: Option<String>,
    /// At most so many events, the newest
    #[arg(long, default_value_t = 50, value_name = "N", value_parser = clap::value_parser!(i64).range(1..=10_000))]
    limit: i64,
    /// How to print them
    #[arg(long, short, value_enum, default_value_t = Output::Table, value_name = "FORMAT")]
    output: Output,
    /// The database, in the name of a member of volumeviz_owner, volumeviz_controller or volumeviz_readonly
    #[command(flatten)]
    database: DatabaseArgs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Output {
    /// For people, newest first.
    Table,
    /// One JSON object a line, newest first.
    Json,
}

/// The trail could not be listed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database refused or cannot be used.
    #[error(transparent)]
    Read(#[from] store::Error),
    /// Nobody takes the list.
    #[error(transparent)]
    Print(#[from] output::Error),
}

/// Prints the newest events.
pub async fn run(args: Args) -> Result<(), Error> {
    let store = Store::connect_lazy(&args.database, Role::Controller)?;
    let events = store
        .run("list audit events", DEADLINE, async |conn| {
            store::audit::list(conn, args.subject.as_deref(), i64::MAX, args.limit).await
        })
        .await?;
    match args.output {
        Output::Table => {
            let head = format!("{:<20}  {:<18}  {:<18}  {:<28}  DETAIL", "TIME", "ACTOR", "ACTION", "SUBJECT");
            output::print(std::iter::once(head).chain(events.iter().map(row)))?;
        }
        Output::Json => {
            for event in &events {
                if !output::print_json_line(event)? {
                    break;
                }
            }
        }
    }
    Ok(())
}

fn row(event: &Event) -> String {
    let time = event.created_at.format("%Y-%m-%dT%H:%M:%SZ");
    let [actor, action, subject] = [&event.actor, &event.action, &event.subject].map(|name| text::showable(name));
    format!("{time:<20}  {actor:<18}  {action:<18}  {subject:<28}  {}", text::showable_json(&event.detail.to_string()))
}
