//! What the node's Docker Engine has, from its socket or through `docker-proxy`. Reads only: `/version`, `/info`, `/volumes`,
//! `/containers/json`; never `/system/df`, which walks every volume inside dockerd.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bollard::errors::Error::DockerResponseServerError;
use bollard::models::{ContainerSummary, MountPoint, SystemInfo, Volume, VolumeListResponse};
use bollard::query_parameters::{ListContainersOptions, ListVolumesOptions};
use bollard::{API_DEFAULT_VERSION, Docker as Client};

use super::walk::Identity;
use crate::domain::contract::{Engine, InventoryContainer, InventoryMount, InventoryVolume};
use crate::domain::selector::VolumeKind;
use crate::domain::text::{bounded, storable};

/// Where dockerd listens unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/var/run/docker.sock";
/// Where docker-proxy listens unless told otherwise.
pub const PROXY_SOCKET: &str = "/run/volumeviz/docker.sock";
/// Where dockerd keeps its data unless told otherwise.
pub const DEFAULT_DATA_ROOT: &str = "/var/lib/docker";
/// The label of volumes that Docker named itself (Engine 23 and newer).
const ANONYMOUS_LABEL: &str = "com.docker.volume.anonymous";
/// Bytes of a name, an id, a driver, an image. Names are in keys of the database's indexes, which take 2.7 kB in all; file systems allow 255.
pub const MAX_NAME: usize = 512;
/// Bytes of a path inside a container, which is in such a key as well.
pub const MAX_DESTINATION: usize = 1024;
/// Bytes of a path on the node: the kernel takes no longer one.
pub const MAX_PATH: usize = 4096;
/// Bytes of a label's or an option's key.
pub const MAX_KEY: usize = 317;
/// Bytes of a label's or an option's value.
pub const MAX_VALUE: usize = 4096;
/// Labels, or options, of one object; one more says how many were left out.
pub const MAX_LABELS: usize = 256;
/// The label that says how many others were left out.
const LEFT_OUT_LABEL: &str = "volumeviz.io/left-out";
const CALL_TIMEOUT: Duration = Duration::from_secs(25);
/// The HTTP status by which `docker-proxy` says that Docker's socket does not exist; dockerd itself answers these calls otherwise.
pub const NO_SOCKET: u16 = 503;

/// What is said of a socket that does not exist.
pub fn no_socket(socket: &Path) -> String {
    format!("its socket {} does not exist", socket.display())
}

/// How to reach the engine. Nothing is kept open: dockerd makes a new socket when it starts.
#[derive(Debug, Clone)]
pub struct Docker {
    socket: PathBuf,
    data_root: PathBuf,
    /// The socket is docker-proxy's.
    behind_proxy: bool,
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
    #[error("there is no Docker Engine: {problem}, and no volumes are below {data_root}")]
    Absent {
        /// What was seen of the socket.
        problem: String,
        /// Where the data would be.
        data_root: PathBuf,
    },
    /// An engine was here, and its socket is gone: it is stopped.
    #[error("the Docker Engine is stopped: {problem}")]
    Stopped {
        /// What was seen of the socket.
        problem: String,
    },
    /// The container that holds Docker's socket does not serve its own.
    #[error("docker-proxy does not run: its socket {socket} does not exist")]
    NoProxy {
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
        Self { socket, data_root, behind_proxy: false }
    }

    /// The same through the socket of `docker-proxy`, without which nothing is known of an engine.
    pub const fn behind_proxy(socket: PathBuf, data_root: PathBuf) -> Self {
        Self { socket, data_root, behind_proxy: true }
    }

    /// Where the engine's data must be to be measured.
    pub fn data_root(&self) -> &Path {
        &self.data_root
    }

    /// Connects and agrees on a version of the API.
    pub async fn connect(&self) -> Result<Connection, Error> {
        match (self.socket.exists(), self.behind_proxy) {
            (true, _) => {}
            (false, true) => return Err(Error::NoProxy { socket: self.socket.clone() }),
            (false, false) => return Err(self.without_socket(no_socket(&self.socket))),
        }
        let path = self.socket.to_string_lossy();
        let client = Client::connect_with_unix(&path, CALL_TIMEOUT.as_secs(), API_DEFAULT_VERSION);
        let client = client.map_err(|source| self.failed("connect", source))?;
        match self.call("read the API version", client.negotiate_version()).await {
            Err(Error::Call { source: DockerResponseServerError { status_code: NO_SOCKET, message }, .. }) => {
                Err(self.without_socket(message))
            }
            negotiated => Ok(Connection { client: negotiated? }),
        }
    }

    /// What a missing socket means, by what is left of an engine.
    fn without_socket(&self, problem: String) -> Error {
        if self.data_root.join("volumes").is_dir() {
            Error::Stopped { problem }
        } else {
            Error::Absent { problem, data_root: self.data_root.clone() }
        }
    }

    /// Lists everything.
    pub async fn inventory(&self, Connection { client }: &Connection) -> Result<Inventory, Error> {
        let info = self.call("read the engine's properties", client.info()).await?;
        let volumes = self.call("list volumes", client.list_volumes(None::<ListVolumesOptions>)).await?;
        let all = ListContainersOptions { all: true, ..ListContainersOptions::default() };
        let containers = self.call("list containers", client.list_containers(Some(all))).await?;
        Ok(Inventory::of(info, volumes, containers))
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

impl Inventory {
    /// What these answers say, within bounds whatever they say. A mountpoint is looked at, if it is there.
    pub fn of(info: SystemInfo, volumes: VolumeListResponse, containers: Vec<ContainerSummary>) -> Self {
        let engine =
            Engine { id: name(info.id), version: name(info.server_version), data_root: path(info.docker_root_dir) };
        let mut volumes: Vec<_> = volumes.volumes.unwrap_or_default().into_iter().map(volume).collect();
        volumes.sort_by(|a, b| a.name.cmp(&b.name));
        Self { engine, volumes, containers: containers.into_iter().filter_map(container).collect() }
    }
}

/// Text that PostgreSQL can store, of at most `most` bytes. Docker itself bounds next to nothing.
fn text(text: Option<String>, most: usize) -> String {
    bounded(storable(&text.unwrap_or_default()), most).into_owned()
}

fn name(name: Option<String>) -> String {
    text(name, MAX_NAME)
}

fn path(path: Option<String>) -> String {
    text(path, MAX_PATH)
}

/// Labels or options; of too many, the first by key, and how many there were besides.
fn map(labels: HashMap<String, String>) -> BTreeMap<String, String> {
    let mut labels: BTreeMap<_, _> =
        labels.into_iter().map(|(key, value)| (text(Some(key), MAX_KEY), text(Some(value), MAX_VALUE))).collect();
    let left_out = labels.len().saturating_sub(MAX_LABELS);
    if left_out > 0 {
        labels = labels.into_iter().take(MAX_LABELS).collect();
        labels.insert(LEFT_OUT_LABEL.to_owned(), left_out.to_string());
    }
    labels
}

fn volume(volume: Volume) -> InventoryVolume {
    let identity = Identity::of(Path::new(&volume.mountpoint));
    let to_i64 = |inode: u64| i64::try_from(inode).ok();
    InventoryVolume {
        kind: kind(&volume.name, &volume.labels),
        name: name(Some(volume.name)),
        driver: name(Some(volume.driver)),
        mountpoint: path(Some(volume.mountpoint)),
        scope: volume.scope.map_or_else(String::new, |scope| scope.to_string()),
        labels: map(volume.labels),
        options: map(volume.options),
        selected: false,
        created_at: volume.created_at.map(|date| name(Some(date))),
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
    let first = container.names.unwrap_or_default().into_iter().next().unwrap_or_default();
    Some(InventoryContainer {
        container_id: name(Some(container.id?)),
        name: name(Some(first.trim_start_matches('/').to_owned())),
        image: name(container.image),
        state: container.state.map_or_else(String::new, |state| state.to_string()),
        labels: map(container.labels.unwrap_or_default()),
        mounts: container.mounts.unwrap_or_default().into_iter().filter_map(mount).collect(),
    })
}

/// Only mounts of volumes have a name.
fn mount(mount: MountPoint) -> Option<InventoryMount> {
    let volume = mount.name.filter(|name| !name.is_empty())?;
    Some(InventoryMount {
        volume: name(Some(volume)),
        destination: text(mount.destination, MAX_DESTINATION),
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

    #[test]
    fn what_docker_says_is_bounded_and_what_is_cut_is_flagged() {
        let long = "x".repeat(1 << 20);
        let labels = (0..1000).map(|n| (format!("{n:04}{long}"), long.clone())).collect();
        let options = HashMap::from([("device".to_owned(), long.clone())]);
        let listed = volume(Volume {
            name: long.clone(),
            driver: long.clone(),
            mountpoint: long.clone(),
            labels,
            options,
            ..Volume::default()
        });
        assert_eq!((listed.name.len(), listed.driver.len(), listed.mountpoint.len()), (MAX_NAME, MAX_NAME, MAX_PATH));
        assert!(listed.name.contains("[cut, 1048576 bytes, "), "{}", listed.name);
        assert_eq!(listed.options["device"].len(), MAX_VALUE);
        assert_eq!((listed.labels.len(), listed.labels[LEFT_OUT_LABEL].as_str()), (MAX_LABELS + 1, "744"));
        for (key, value) in listed.labels.iter().filter(|(key, _)| key.as_str() != LEFT_OUT_LABEL) {
            assert_eq!((key.len(), value.len()), (MAX_KEY, MAX_VALUE));
            assert!(key.contains("[cut, ") && value.contains("[cut, "));
        }
        let mounted = MountPoint { name: Some(long.clone()), destination: Some(long.clone()), ..MountPoint::default() };
        let listed = container(ContainerSummary {
            id: Some(long.clone()),
            names: Some(vec![format!("/{long}")]),
            image: Some(long),
            mounts: Some(vec![mounted]),
            ..ContainerSummary::default()
        });
        let listed = listed.unwrap();
        assert_eq!([listed.container_id.len(), listed.name.len(), listed.image.len()], [MAX_NAME; 3]);
        assert_eq!((listed.mounts[0].volume.len(), listed.mounts[0].destination.len()), (MAX_NAME, MAX_DESTINATION));
    }

    #[tokio::test]
    async fn no_socket_means_absent_or_stopped_by_what_is_left_of_an_engine() {
        let folder = tempfile::tempdir().unwrap();
        let docker = Docker::new(folder.path().join("docker.sock"), folder.path().to_path_buf());
        assert!(matches!(docker.connect().await, Err(Error::Absent { .. })));
        std::fs::create_dir(folder.path().join("volumes")).unwrap();
        assert!(matches!(docker.connect().await, Err(Error::Stopped { .. })));
        let proxied = Docker::behind_proxy(folder.path().join("docker.sock"), folder.path().to_path_buf());
        assert!(matches!(proxied.connect().await, Err(Error::NoProxy { .. })), "it says nothing of an engine");
        std::fs::write(folder.path().join("docker.sock"), "").unwrap();
        assert!(matches!(docker.connect().await, Err(Error::Call { .. })));
    }
}
