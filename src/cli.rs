//! The command line: one subcommand a role.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::sandbox::Confined;
use crate::telemetry::{self, LogArgs};
use crate::{
    agent, audit, check_installation, controller, crd, docker_proxy, fill_template, maintain, migrate, output,
    packaging, sandbox, scan, tls,
};

/// Sizes, users and growth of the Docker volumes of every node of a Kubernetes cluster.
#[derive(Debug, Parser)]
#[command(name = "volumeviz", version, about, max_term_width = 120)]
#[command(after_help = "Every option that names an environment variable can be given by it; the option wins.")]
pub struct Cli {
    #[command(flatten)]
    log: LogArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Reconcile VolumeScans: plan runs, dispatch them to the agents, write status (runs in the cluster)
    Controller(controller::Args),
    /// Measure this node's Docker volumes when the controller asks for it (runs on every node)
    Agent(agent::Args),
    /// Hold Docker's socket, and pass on to it the few things that the agent beside it reads (runs on every node)
    DockerProxy(docker_proxy::Args),
    /// Keep the database's schema, partitions and retention in order (runs beside the controller, as owner of the schema)
    Maintain(maintain::Args),
    /// Show or change the version of the database's schema
    Migrate(migrate::Args),
    /// List who decided what: specs seen, runs planned and cancelled, retention, migrations
    Audit(audit::Args),
    /// Make a VolumeScan, wait for it, look for it in the database, delete it: what `helm test` runs
    CheckInstallation(check_installation::Args),
    /// Fill in a Secret's templates: how the controller calls itself
    #[command(hide = true)]
    FillTemplate,
    /// Print the CustomResourceDefinitions as YAML
    Crds {
        /// Write each into a file of this directory instead
        #[arg(long, value_name = "DIRECTORY")]
        dir: Option<PathBuf>,
    },
    /// Measure the Docker volumes of this machine, or directories, without a cluster or database
    Scan(scan::Args),
    /// Print what makes a shell complete this command line
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the manual page
    Man {
        /// Write it, and one for each subcommand, into files of this directory instead
        #[arg(long, value_name = "DIRECTORY")]
        dir: Option<PathBuf>,
    },
}

impl Command {
    /// What runs on every node refuses itself what it never needs.
    fn confined(&self) -> Option<Confined<'_>> {
        match self {
            Self::Agent(_) => Some(Confined::Agent),
            Self::DockerProxy(args) if !args.check => {
                Some(Confined::DockerProxy(args.listen.parent().unwrap_or_else(|| Path::new("/"))))
            }
            _ => None,
        }
    }
}

/// To what is allowed: the usual limit is for programs that `select`, and each thread of a walk keeps a hundred directories open.
fn raise_limit_of_descriptors() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
    {
        tracing::debug!("unable to raise the limit of open files: {error}");
    }
}

/// Why a long-running role ended with a failure.
type Failure = Box<dyn std::error::Error>;

/// Runs what the command line asks for. Exit codes: 0 success; 1 failure (`scan`: something is partial or unknown); 2 usage (`scan`: or
/// nothing could be done).
pub fn run() -> ExitCode {
    let Cli { log, command } = Cli::parse();
    // Before there is a second thread.
    let confinement = match command.confined().map(sandbox::enter).transpose() {
        Ok(confinement) => confinement,
        Err(error) => return fail(error.into()),
    };
    if let Err(error) = telemetry::install(&log) {
        output::print_error(&error);
        return ExitCode::from(2);
    }
    if let Some(confinement) = confinement {
        confinement.log();
    }
    raise_limit_of_descriptors();
    tls::choose_provider();
    let outcome = match command {
        // One thread: most scans are over before others had begun.
        Command::Scan(args) => {
            return block_on_with(&mut Builder::new_current_thread(), scan::run(args)).unwrap_or_else(fail);
        }
        Command::FillTemplate => fill_template::run().map_err(Failure::from),
        Command::Crds { dir } => print_crds(dir.as_deref()),
        Command::Completions { shell } => packaging::completions(Cli::command(), shell).map_err(Failure::from),
        Command::Man { dir } => packaging::manual(Cli::command(), dir.as_deref()).map_err(Failure::from),
        Command::Migrate(args) => block_on(migrate::run(args)).and_then(|done| done.map_err(Failure::from)),
        Command::Audit(args) => block_on(audit::run(args)).and_then(|done| done.map_err(Failure::from)),
        Command::CheckInstallation(args) => {
            serve(async |stop| check_installation::run(args, stop).await.map_err(Failure::from))
        }
        Command::Controller(args) => {
            serve(async |stop| Box::pin(controller::run(args, stop)).await.map_err(Failure::from))
        }
        Command::Agent(args) => serve(async |stop| agent::run(args, stop).await.map_err(Failure::from)),
        Command::DockerProxy(args) if args.check => docker_proxy::check(&args.listen).map_err(Failure::from),
        Command::DockerProxy(args) => serve(async |stop| docker_proxy::run(args, stop).await.map_err(Failure::from)),
        Command::Maintain(args) => serve(async |stop| maintain::run(args, stop).await.map_err(Failure::from)),
    };
    outcome.map_or_else(fail, |()| ExitCode::SUCCESS)
}

#[expect(clippy::needless_pass_by_value, reason = "the end of an error's way")]
fn fail(error: Failure) -> ExitCode {
    output::print_error(&error);
    ExitCode::FAILURE
}

fn print_crds(dir: Option<&Path>) -> Result<(), Failure> {
    for manifest in crd::manifests()? {
        match dir {
            None => output::print(std::iter::once("---").chain(manifest.yaml.lines()))?,
            Some(dir) => {
                let file = dir.join(&manifest.file_name);
                std::fs::write(&file, manifest.yaml)
                    .map_err(|error| format!("failed to write {}: {error}", file.display()))?;
            }
        }
    }
    Ok(())
}

/// Runs a role until it ends, or until SIGTERM or SIGINT asks it to.
fn serve(role: impl AsyncFnOnce(CancellationToken) -> Result<(), Failure>) -> Result<(), Failure> {
    block_on(async {
        let stop = CancellationToken::new();
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let asked = stop.clone();
        let watching = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            asked.cancel();
            std::future::pending::<std::convert::Infallible>().await
        };
        tokio::select! {
            ended = role(stop) => ended,
            never = watching => match never {},
        }
    })?
}

fn block_on<T>(future: impl Future<Output = T>) -> Result<T, Failure> {
    block_on_with(&mut Builder::new_multi_thread(), future)
}

fn block_on_with<T>(runtime: &mut Builder, future: impl Future<Output = T>) -> Result<T, Failure> {
    let runtime = runtime.enable_all().build()?;
    let outcome = runtime.block_on(future);
    // A thread that hangs in the kernel on a dead mount must not hold up the end of the process.
    runtime.shutdown_background();
    Ok(outcome)
}
