//! How a container that hangs is found.

use clap::Parser;
use volumeviz::cli::Cli;

use super::{BUNDLED, Rendered, list};

/// A busy node takes more than Kubernetes' default of a second.
#[test]
fn whatever_stays_is_asked_whether_it_lives_and_given_time_to_answer() {
    let rendered = Rendered::with(&BUNDLED);
    let mut alive = Vec::new();
    for (name, (container, _)) in &rendered.0 {
        for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
            let Some(probe) = container.get(probe) else { continue };
            assert!(probe["timeoutSeconds"].as_u64() >= Some(5), "{name}: {probe}");
        }
        if container.get("livenessProbe").is_some() {
            alive.push(name.as_str());
        }
    }
    assert_eq!(alive, ["agent", "controller", "docker-proxy", "maintain", "postgres"]);
}

/// The binary takes what the chart has it asked.
#[test]
fn the_proxy_is_asked_at_the_socket_that_it_serves() {
    let rendered = Rendered::with(&[]);
    let command = list(&rendered.0["docker-proxy"].0["livenessProbe"]["exec"]["command"]);
    let command: Vec<&str> = command.iter().map(|word| word.as_str().unwrap()).collect();
    assert_eq!(command, ["/volumeviz", "docker-proxy", "--check"]);
    Cli::try_parse_from(command).unwrap();
    assert!(!rendered.variable("docker-proxy", "VOLUMEVIZ_DOCKER_PROXY_SOCKET").is_empty());
}
