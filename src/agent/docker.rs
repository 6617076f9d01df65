//! What the node's Docker Engine has. Reads only: `/version`, `/info`, `/volumes`, `/containers/json`; never `/system/df`, which walks
//! every volume inside dockerd.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bollard::models::{ContainerSummary, MountPoint, Volume};
use bollard::query_parameters::{ListContainersOptions, ListVolumesOptions};
use bollard::{API_DEFAULT_VERSION, Docker as Client};

use super::walk::Identity;
use crate::domain::contract::{Engine, InventoryContainer, InventoryMount, InventoryVolume};
use crate::domain::selector::VolumeKind;
use crate::domain::text::storable;

/// Where dockerd listens unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/var/run/docker.sock";
/// Where dockerd keeps its data unless told otherwise.
pub const DEFAULT_DATA_ROOT: &str = "/var/lib/docker";
/// The label of volumes that Docker named itself (Engine 23 and newer).
const ANONYMOUS_LABEL: &str = "com.docker.volume.anonymous";
const CALL_TIMEOUT: Duration = Duration::from_secs(25);

/// How to reach the engine. Nothing is kept open: dockerd makes a new socket when it starts.
#[derive(Debug, Clone)]
pub struct Docker {
    socket: PathBuf,
    data_root: PathBuf,
}

/// An engine that answered, in a version of the API that both sides speak.
#[derive(Debug)]
pub struct Connection {
    client: Client,
}

/// Everything on the node.
#[derive(Debug, Clone)]
pub struct Inventory {
    /// The engine.
    pub engine: Engine,
    /// All volumes by name; none is marked selected yet.
    pub volumes: Vec<InventoryVolume>,
    /// All containers, running or not.
    pub containers: Vec<InventoryContainer>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Neither a socket nor an engine's data: there is no Docker Engine here.
    #[error("there is no Docker Engine: no socket {socket} and no volumes below {data_root}")]
    Absent {
        /// Where the socket would be.
        socket: PathBuf,
        /// Where the data would be.
        data_root: PathBuf,
    },
    /// An engine was here, and its socket is gone: it is stopped.
    #[error("the Docker Engine is stopped: its socket {socket} does not exist")]
    Stopped {
        /// Where the socket would be.
        socket: PathBuf,
    },
    /// The engine refused or failed.
    #[error("failed to {operation} from Docker at {socket}: {source}")]
    Call {
        /// What was asked for.
        operation: &'static str,
        /// Where.
        socket: PathBuf,
        /// Why.
        source: bollard::errors::Error,
    },
    /// The engine did not answer in time.
    #[error("failed to {operation} from Docker at {socket} within {CALL_TIMEOUT:?}")]
    Timeout {
        /// What was asked for.
        operation: &'static str,
        /// Where.
        socket: PathBuf,
    },
}

impl Docker {
    /// An engine that listens at `socket` and keeps its volumes below `data_root`.
    pub const fn new(socket: PathBuf, data_root: PathBuf) -> Self {
        Self { socket, data_root }
    }

    /// Where the engine's data must be to be measured.
    pub fn data_root(&self) -> &Path {
        &self.data_root
    }

    /// Connects and agrees on a version of the API.
    pub async fn connect(&self) -> Result<Connection, Error> {
        if !self.socket.exists() {
            let (socket, data_root) = (self.socket.clone(), self.data_root.clone());
            let was_here = data_root.join("volumes").is_dir();
            return Err(if was_here { Error::Stopped { socket } } else { Error::Absent { socket, data_root } });
        }
        let path = self.socket.to_string_lossy();
        let client = Client::connect_with_unix(&path, CALL_TIMEOUT.as_secs(), API_DEFAULT_VERSION);
        let client = client.map_err(|source| self.failed("connect", source))?;
        let client = self.call("read the API version", client.negotiate_version()).await?;
        Ok(Connection { client })
    }

    /// Lists everything.
    pub async fn inventory(&self, Connection { client }: &Connection) -> Result<Inventory, Error> {
        let info = self.call("read the engine's properties", client.info()).await?;
        let volumes = self.call("list volumes", client.list_volumes(None::<ListVolumesOptions>)).await?;
        let all = ListContainersOptions { all: true, ..ListContainersOptions::default() };
        let containers = self.call("list containers", client.list_containers(Some(all))).await?;
        let engine =
            Engine { id: text(info.id), version: text(info.server_version), data_root: text(info.docker_root_dir) };
        let mut volumes: Vec<_> = volumes.volumes.unwrap_or_default().into_iter().map(volume).collect();
        volumes.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Inventory { engine, volumes, containers: containers.into_iter().filter_map(container).collect() })
    }

    async fn call<T>(
        &self,
        operation: &'static str,
        call: impl Future<Output = Result<T, bollard::errors::Error>>,
    ) -> Result<T, Error> {
        match tokio::time::timeout(CALL_TIMEOUT, call).await {
            Ok(answer) => answer.map_err(|source| self.failed(operation, source)),
            Err(_) => Err(Error::Timeout { operation, socket: self.socket.clone() }),
        }
    }

    fn failed(&self, operation: &'static str, source: bollard::errors::Error) -> Error {
        Error::Call { operation, socket: self.socket.clone(), source }
    }
}

fn text(text: Option<String>) -> String {
    storable(&text.unwrap_or_default()).into_owned()
}

fn map(labels: HashMap<String, String>) -> BTreeMap<String, String> {
    labels.into_iter().map(|(key, value)| (text(Some(key)), text(Some(value)))).collect()
}

fn volume(volume: Volume) -> InventoryVolume {
    let identity = Identity::of(Path::new(&volume.mountpoint));
    let to_i64 = |inode: u64| i64::try_from(inode).ok();
    InventoryVolume {
        kind: kind(&volume.name, &volume.labels),
        name: text(Some(volume.name)),
        driver: text(Some(volume.driver)),
        mountpoint: text(Some(volume.mountpoint)),
        scope: volume.scope.map_or_else(String::new, |scope| scope.to_string()),
        labels: map(volume.labels),
        options: map(volume.options),
        selected: false,
        created_at: volume.created_at.map(|date| text(Some(date))),
        inode: identity.and_then(|identity| to_i64(identity.inode)),
        birth_time_ns: identity.and_then(|identity| identity.birth_time_ns),
    }
}

/// Engines before 23 did not label the volumes they named.
fn kind(name: &str, labels: &HashMap<String, String>) -> VolumeKind {
    let hexadecimal = name.len() == 64 && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if hexadecimal || labels.contains_key(ANONYMOUS_LABEL) { VolumeKind::Anonymous } else { VolumeKind::Named }
}

fn container(container: ContainerSummary) -> Option<InventoryContainer> {
    let name = container.names.unwrap_or_default().into_iter().next().unwrap_or_default();
    Some(InventoryContainer {
        container_id: text(Some(container.id?)),
        name: text(Some(name.trim_start_matches('/').to_owned())),
        image: text(container.image),
        state: container.state.map_or_else(String::new, |state| state.to_string()),
        labels: map(container.labels.unwrap_or_default()),
        mounts: container.mounts.unwrap_or_default().into_iter().filter_map(mount).collect(),
    })
}

/// Only mounts of volumes have a name.
fn mount(mount: MountPoint) -> Option<InventoryMount> {
    let name = mount.name.filter(|name| !name.is_empty())?;
    Some(InventoryMount {
        volume: text(Some(name)),
        destination: text(mount.destination),
        read_write: mount.rw.unwrap_or(true),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_that_docker_named_are_anonymous() {
        let (none, labelled) = (HashMap::new(), HashMap::from([(ANONYMOUS_LABEL.to_owned(), String::new())]));
        assert_eq!(kind(&"0123456789abcdef".repeat(4), &none), VolumeKind::Anonymous);
        assert_eq!(kind("short", &labelled), VolumeKind::Anonymous);
        assert_eq!(kind(&"0123456789ABCDEF".repeat(4), &none), VolumeKind::Named);
        assert_eq!(kind("db-data", &none), VolumeKind::Named);
    }

    #[tokio::test]
    async fn no_socket_means_absent_or_stopped_by_what_is_left_of_an_engine() {
        let folder = tempfile::tempdir().unwrap();
        let docker = Docker::new(folder.path().join("docker.sock"), folder.path().to_path_buf());
        assert!(matches!(docker.connect().await, Err(Error::Absent { .. })));
        std::fs::create_dir(folder.path().join("volumes")).unwrap();
        assert!(matches!(docker.connect().await, Err(Error::Stopped { .. })));
        std::fs::write(folder.path().join("docker.sock"), "").unwrap();
        assert!(matches!(docker.connect().await, Err(Error::Call { .. })));
    }
}
