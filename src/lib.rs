//! VolumeViz: sizes, users and growth of the Docker volumes of every node of a Kubernetes cluster.
//!
//! One binary with a role a subcommand. `controller` reconciles `VolumeScan` objects and dispatches jobs, `agent` runs on every node and
//! measures, beside it `docker-proxy` holds Docker's socket, `maintain` owns the database's schema; `scan` measures one machine without any of these. `ARCHITECTURE.md` tells how they
//! work together; dependencies point `domain` ← `crd` ← `controller` and `domain` ← `store` ← `controller`, `agent`, and a test keeps
//! them so.

pub mod agent;
pub mod api;
pub mod audit;
pub mod check_installation;
pub mod cli;
pub mod config;
pub mod controller;
pub mod crd;
pub mod docker_proxy;
pub mod domain;
pub mod fill_template;
pub mod http;
pub mod maintain;
pub mod migrate;
pub mod output;
pub mod packaging;
pub mod sandbox;
pub mod scan;
pub mod store;
pub mod telemetry;
pub mod tls;

#[cfg(test)]
#[path = "../tests/kit/hostile.rs"]
mod hostile;
