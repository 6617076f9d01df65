//! What the node's Docker Engine has, from its socket or through `docker-proxy`. Reads only: `/version`, `/info`, `/volumes`,
//! `/containers/json`; never `/system/df`, which walks every volume inside dockerd.

mod listed;
mod wire;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;

pub(super) use self::listed::Weight;
use self::listed::{Containers, Info, Version, Volumes};
pub use self::listed::{
    MAX_DESTINATION, MAX_KEPT, MAX_KEY, MAX_LABELS, MAX_LABELS_BYTES, MAX_NAME, MAX_PATH, MAX_VALUE,
};
use self::wire::Problem;
pub use self::wire::{Broken, MAX_ANSWER, ask};
use super::walk::Identity;
use crate::domain::contract::{Engine, InventoryContainer, InventoryVolume};

/// Where dockerd listens unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/var/run/docker.sock";
/// Where docker-proxy listens unless told otherwise.
pub const PROXY_SOCKET: &str = "/run/volumeviz/docker.sock";
/// Where dockerd keeps its data unless told otherwise.
pub const DEFAULT_DATA_ROOT: &str = "/var/lib/docker";
/// The newest version of the API whose answers are known; with an older engine its own is spoken.
const NEWEST_API: (u16, u16) = (1, 53);
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
    api: (u16, u16),
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
        source: Problem,
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

impl Error {
    /// Whether the engine would say the same again at once.
    pub const fn is_final(&self) -> bool {
        matches!(self, Self::Call { source: Problem::TooLong | Problem::Answer(_) | Problem::Version(_), .. })
    }
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
        match self.get("read the API version", "/version").await {
            Err(Error::Call { source: Problem::Status { status: NO_SOCKET, message }, .. }) => {
                Err(self.without_socket(message))
            }
            version => {
                let Version { api_version } = version?;
                let api =
                    number(&api_version.0).ok_or_else(|| self.failed("connect", Problem::Version(api_version.0)))?;
                Ok(Connection { api: api.min(NEWEST_API) })
            }
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
    pub async fn inventory(&self, Connection { api: (major, minor) }: &Connection) -> Result<Inventory, Error> {
        let path = |call: &str| format!("/v{major}.{minor}{call}");
        let info: Info = self.get("read the engine's properties", &path("/info")).await?;
        let volumes: Volumes = self.get("list volumes", &path("/volumes")).await?;
        let all = path("/containers/json?all=true&size=false");
        let containers: Containers = self.get("list containers", &all).await?;
        Ok(Inventory::of(info, volumes, containers))
    }

    async fn get<T>(&self, operation: &'static str, path: &str) -> Result<T, Error>
    where
        T: DeserializeOwned + Send + 'static,
    {
        match tokio::time::timeout(CALL_TIMEOUT, wire::get(&self.socket, path, CALL_TIMEOUT)).await {
            Ok(answer) => answer.map_err(|source| self.failed(operation, source)),
            Err(_) => Err(Error::Timeout { operation, socket: self.socket.clone() }),
        }
    }

    fn failed(&self, operation: &'static str, source: Problem) -> Error {
        Error::Call { operation, socket: self.socket.clone(), source }
    }
}

impl Inventory {
    /// Of the answers to `/info`, `/volumes` and `/containers/json`, within bounds whatever they say. A mountpoint is looked at, if it is there.
    pub fn decode(info: &[u8], volumes: &[u8], containers: &[u8]) -> serde_json::Result<Self> {
        let (info, volumes) = (serde_json::from_reader(info)?, serde_json::from_reader(volumes)?);
        Ok(Self::of(info, volumes, serde_json::from_reader(containers)?))
    }

    fn of(info: Info, volumes: Volumes, containers: Containers) -> Self {
        let mut volumes = volumes.volumes.0;
        volumes.iter_mut().for_each(identify);
        volumes.sort_by(|a, b| a.name.cmp(&b.name));
        Self { engine: info.into(), volumes, containers: containers.0 }
    }
}

/// `1.47` as numbers, which compare.
fn number(version: &str) -> Option<(u16, u16)> {
    let (major, minor) = version.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Looks at the volume's directory, as far as it can be.
fn identify(volume: &mut InventoryVolume) {
    let identity = Identity::of(Path::new(&volume.mountpoint));
    volume.inode = identity.and_then(|identity| i64::try_from(identity.inode).ok());
    volume.birth_time_ns = identity.and_then(|identity| identity.birth_time_ns);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_numbers() {
        assert!(number("1.9") < number("1.47") && number("1.53") < number("2.0"));
        assert_eq!(["", "1", "1.x", "-1.4", "1.99999"].map(number), [None; 5]);
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
