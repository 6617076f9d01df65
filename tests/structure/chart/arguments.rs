//! The binary knows every argument and every environment variable that the chart gives it, and takes their values.

use std::collections::BTreeSet;

use clap::{ArgAction, Command, CommandFactory};
use serde_json::{Value, json};
use volumeviz::cli::Cli;

use super::{Rendered, list};

/// Releases in which every variable is set that the chart knows.
const RELEASES: [&[&str]; 3] = [
    &[],
    &["database.mode=bundled", "database.existingSecrets.superuser=superuser", "database.existingSecrets.tls=tls"],
    &[
        "alerts.alertmanagerUrl=http://alertmanager.monitoring.svc:9093",
        "alerts.allow={hooks.example.internal:8080}",
        "database.external.caSecret=ca",
        "database.external.clientCertificates=true",
        "database.external.sslMode=verify-full",
        "database.external.pooler=transaction",
        "database.external.direct.host=direct.example.com",
    ],
];
/// The containers that run our binary.
const OURS: [&str; 5] = ["agent", "check-installation", "controller", "docker-proxy", "maintain"];

/// A container's environment; what Kubernetes fills in stands for any name.
fn environment(container: &Value) -> Vec<(&str, &str)> {
    let variables = list(&container["env"]).iter();
    variables
        .map(|variable| (variable["name"].as_str().unwrap(), variable["value"].as_str().unwrap_or("name")))
        .collect()
}

/// The container's command line, with an option for each variable; names of variables that no option has.
fn command_line(container: &Value) -> (Vec<String>, Vec<String>) {
    let args = list(&container["args"]).iter().map(|arg| arg.as_str().unwrap().to_owned());
    let (mut line, mut unknown): (Vec<_>, _) =
        (std::iter::once("volumeviz".to_owned()).chain(args).collect(), Vec::new());
    let mut cli = Cli::command();
    cli.build();
    let role = cli.find_subcommand(&line[1]).unwrap_or_else(|| panic!("no subcommand {}", line[1]));
    for (name, value) in environment(container) {
        match option(role, name, value) {
            Some(options) => line.extend(options),
            None => unknown.push(name.to_owned()),
        }
    }
    (line, unknown)
}

/// The options that say the same as this variable; `None`: there is none.
fn option(role: &Command, variable: &str, value: &str) -> Option<Vec<String>> {
    let arg = role.get_arguments().find(|arg| arg.get_env().is_some_and(|name| name == variable))?;
    let name = format!("--{}", arg.get_long()?);
    Some(match arg.get_action() {
        ArgAction::SetTrue => (value == "true").then_some(name).into_iter().collect(),
        _ => vec![format!("{name}={value}")],
    })
}

#[test]
fn the_binary_knows_and_takes_what_the_chart_gives_it() {
    let mut seen = BTreeSet::new();
    for values in RELEASES {
        let rendered = Rendered::with(values);
        for name in OURS {
            let container = &rendered.0[name].0;
            let (line, unknown) = command_line(container);
            assert_eq!(unknown, [""; 0], "{name} gets variables that no option has");
            let taken = Cli::command().try_get_matches_from(&line);
            assert!(taken.is_ok(), "{name}: {line:?}: {}", taken.unwrap_err());
            seen.extend(environment(container).into_iter().map(|(name, _)| name.to_owned()));
        }
    }
    for name in ["VOLUMEVIZ_MAX_RUNNING_JOBS", "VOLUMEVIZ_NOTIFY_ALLOW", "DB_POOLER", "DB_SSLCERT", "POD_UID"] {
        assert!(seen.contains(name), "{name} is in no release: {seen:?}");
    }
}

#[test]
fn the_values_arrive() {
    let rendered = Rendered::with(&["controller.maxRunningJobs=7", "maintain.rawRetentionDays=3"]);
    let given = |container: &str, id: &str| {
        let matches = Cli::command().try_get_matches_from(command_line(&rendered.0[container].0).0).unwrap();
        let (_, role) = matches.subcommand().unwrap();
        role.get_raw(id).unwrap().next().unwrap().to_str().unwrap().to_owned()
    };
    assert_eq!(given("controller", "max_running_jobs"), "7");
    assert_eq!(given("maintain", "raw_retention_days"), "3");
    assert_eq!(given("agent", "docker_socket"), "/run/volumeviz/docker.sock");
}

#[test]
fn a_misspelt_variable_would_be_seen() {
    let container = |variable: &str| json!({"args": ["controller"], "env": [{"name": variable, "value": "7"}]});
    assert_eq!(command_line(&container("VOLUMEVIZ_MAX_RUNNING_JOBS")).1, [""; 0]);
    assert_eq!(command_line(&container("VOLUMEVIZ_MAX_RUNING_JOBS")).1, ["VOLUMEVIZ_MAX_RUNING_JOBS"]);
}
