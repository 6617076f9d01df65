//! The nodes of the cluster and the agent on each, as one value that changes only when something we use changes.
//!
//! Reflectors keep stripped copies: nodes report their health every few seconds, and none of that may wake the reconcilers.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Event as CoreEvent, Node as KubeNode, Pod};
use kube::api::ListParams;
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use tokio::sync::watch;

use crate::domain::selector::LabelSelector;

/// How long changes are collected before the fleet is made anew: a rollout changes many pods at once.
const COLLECT: Duration = Duration::from_millis(200);
/// How often a DaemonSet that lacks pods is asked why.
const FORBIDDEN_POLL: Duration = Duration::from_secs(10);

/// The nodes that could have an agent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fleet {
    /// By name; Linux nodes only.
    pub nodes: BTreeMap<String, Node>,
    /// What Pod Security says about agent pods it refuses, and the command that allows them.
    pub forbidden: Option<String>,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// `metadata.uid`: a node that comes back as another machine has another one.
    pub uid: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Its agent pod, when there is one.
    pub agent: Option<Agent>,
}

/// The agent pod of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agent {
    /// `metadata.uid` of the pod.
    pub pod_uid: String,
    /// The pod's address, once it has one.
    pub address: Option<IpAddr>,
    /// Whether its readiness probe passes.
    pub ready: bool,
}

impl Fleet {
    /// Names and uids of the selected nodes, by name.
    pub fn select<'a>(&'a self, selector: Option<&'a LabelSelector>) -> impl Iterator<Item = (&'a String, &'a Node)> {
        self.nodes.iter().filter(move |(_, node)| selector.is_none_or(|selector| selector.matches(&node.labels)))
    }
}

/// Where the agents are found.
#[derive(Debug, Clone)]
pub struct AgentPods {
    /// The installation's namespace.
    pub namespace: String,
    /// Label selector of the agent pods.
    pub selector: String,
    /// Name of their DaemonSet.
    pub daemonset: String,
}

/// A watch that ended although nobody stopped it.
#[derive(Debug, thiserror::Error)]
#[error("the watch of nodes and agent pods ended")]
pub struct WatchEnded;

/// Keeps `fleet` right until it is dropped; the value stays `None` until both caches are filled.
pub async fn watch(
    client: Client,
    agents: AgentPods,
    fleet: watch::Sender<Option<Arc<Fleet>>>,
) -> Result<(), WatchEnded> {
    let (node_store, node_writer) = reflector::store::<KubeNode>();
    let (pod_store, pod_writer) = reflector::store::<Pod>();
    let linux = watcher::Config::default().labels("kubernetes.io/os=linux");
    let nodes = watcher(Api::<KubeNode>::all(client.clone()), linux)
        .default_backoff()
        .modify(strip_node)
        .reflect(node_writer)
        .touched_objects()
        .map_ok(|_| ());
    let pods = watcher(
        Api::<Pod>::namespaced(client.clone(), &agents.namespace),
        watcher::Config::default().labels(&agents.selector),
    )
    .default_backoff()
    .modify(strip_pod)
    .reflect(pod_writer)
    .touched_objects()
    .map_ok(|_| ());
    let changes = pin!(futures::stream::select(nodes, pods));
    let caches = Caches { nodes: node_store, pods: pod_store };
    tokio::select! {
        ended = follow(changes, &caches, &fleet) => ended,
        never = explain_missing_pods(client, &agents, &fleet) => match never {},
    }
}

struct Caches {
    nodes: Store<KubeNode>,
    pods: Store<Pod>,
}

async fn follow(
    mut changes: impl Stream<Item = Result<(), watcher::Error>> + Unpin,
    caches: &Caches,
    fleet: &watch::Sender<Option<Arc<Fleet>>>,
) -> Result<(), WatchEnded> {
    loop {
        match changes.next().await {
            Some(Ok(())) => {}
            Some(Err(error)) => tracing::warn!("unable to watch nodes and agent pods, trying again: {error}"),
            None => return Err(WatchEnded),
        }
        // Whatever else comes within COLLECT goes into the same value.
        let collect = tokio::time::sleep(COLLECT);
        tokio::pin!(collect);
        loop {
            tokio::select! {
                () = &mut collect => break,
                change = changes.next() => if change.is_none() { return Err(WatchEnded) },
            }
        }
        if caches.are_filled() {
            let nodes = caches.read();
            change(fleet, |fleet| fleet.nodes = nodes);
        }
    }
}

/// Wakes the receivers only when the value really changed.
fn change(fleet: &watch::Sender<Option<Arc<Fleet>>>, edit: impl FnOnce(&mut Fleet)) {
    fleet.send_if_modified(|current| {
        let mut next = current.as_deref().cloned().unwrap_or_default();
        edit(&mut next);
        let changed = current.as_deref() != Some(&next);
        if changed {
            *current = Some(Arc::new(next));
        }
        changed
    });
}

impl Caches {
    fn are_filled(&self) -> bool {
        use futures::FutureExt;
        let filled = |ready: Option<Result<(), reflector::store::WriterDropped>>| matches!(ready, Some(Ok(())));
        filled(self.nodes.wait_until_ready().now_or_never()) && filled(self.pods.wait_until_ready().now_or_never())
    }

    fn read(&self) -> BTreeMap<String, Node> {
        let mut agents: BTreeMap<String, (bool, Agent)> = BTreeMap::new();
        for pod in self.pods.state() {
            let Some(node) = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()) else { continue };
            let candidate = (pod.metadata.deletion_timestamp.is_none(), agent(&pod));
            // While a pod is replaced there are two: the one that stays, and of these the ready one.
            let better = |old: &(bool, Agent)| (candidate.0, candidate.1.ready) > (old.0, old.1.ready);
            if agents.get(&node).is_none_or(better) {
                agents.insert(node, candidate);
            }
        }
        self.nodes
            .state()
            .into_iter()
            .map(|node| {
                let name = node.name_any();
                let agent = agents.remove(&name).map(|(_, agent)| agent);
                let uid = node.uid().unwrap_or_default();
                (name, Node { uid, labels: node.labels().clone(), agent })
            })
            .collect()
    }
}

fn agent(pod: &Pod) -> Agent {
    let status = pod.status.as_ref();
    let ready = status
        .and_then(|status| status.conditions.as_ref())
        .is_some_and(|conditions| conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True"));
    let address = status.and_then(|status| status.pod_ip.as_ref()).and_then(|ip| ip.parse().ok());
    Agent { pod_uid: pod.uid().unwrap_or_default(), address, ready }
}

fn strip_node(node: &mut KubeNode) {
    node.metadata.managed_fields = None;
    node.metadata.annotations = None;
    node.spec = None;
    node.status = None;
}

fn strip_pod(pod: &mut Pod) {
    pod.metadata.managed_fields = None;
    pod.metadata.annotations = None;
    pod.metadata.labels = None;
    if let Some(spec) = pod.spec.as_mut() {
        *spec = k8s_openapi::api::core::v1::PodSpec { node_name: spec.node_name.take(), ..Default::default() };
    }
    if let Some(status) = pod.status.as_mut() {
        *status = k8s_openapi::api::core::v1::PodStatus {
            pod_ip: status.pod_ip.take(),
            conditions: status.conditions.take(),
            ..Default::default()
        };
    }
}

/// A DaemonSet says nowhere in its status that its pods are refused; only its Events do.
async fn explain_missing_pods(
    client: Client,
    agents: &AgentPods,
    fleet: &watch::Sender<Option<Arc<Fleet>>>,
) -> std::convert::Infallible {
    let daemonsets = Api::<DaemonSet>::namespaced(client.clone(), &agents.namespace);
    let events = Api::<CoreEvent>::namespaced(client, &agents.namespace);
    loop {
        tokio::time::sleep(FORBIDDEN_POLL).await;
        let lacking =
            fleet.borrow().as_ref().is_some_and(|fleet| fleet.nodes.values().any(|node| node.agent.is_none()));
        let asked = tokio::time::timeout(FORBIDDEN_POLL, refusal(&daemonsets, &events, &agents.daemonset));
        let forbidden = if lacking { asked.await.unwrap_or(Ok(None)) } else { Ok(None) };
        match forbidden {
            Ok(forbidden) if fleet.borrow().is_some() => {
                let forbidden = forbidden.map(|message| explain(&agents.namespace, &message));
                change(fleet, |fleet| fleet.forbidden = forbidden);
            }
            Ok(_) => {}
            Err(error) => tracing::warn!("unable to learn why agent pods are missing: {error}"),
        }
    }
}

/// What to do comes first: the message may be cut. What stands before the refusal itself names another pod at every try.
fn explain(namespace: &str, message: &str) -> String {
    let message = message.find("violates PodSecurity").map_or(message, |start| &message[start..]);
    format!(
        "run `kubectl label namespace {namespace} pod-security.kubernetes.io/enforce=privileged --overwrite`: {message}"
    )
}

async fn refusal(
    daemonsets: &Api<DaemonSet>,
    events: &Api<CoreEvent>,
    name: &str,
) -> Result<Option<String>, kube::Error> {
    let status = daemonsets.get_opt(name).await?.and_then(|daemonset| daemonset.status).unwrap_or_default();
    if status.current_number_scheduled >= status.desired_number_scheduled {
        return Ok(None);
    }
    let fields = format!("reason=FailedCreate,involvedObject.kind=DaemonSet,involvedObject.name={name}");
    let refused = events.list(&ListParams::default().fields(&fields)).await?;
    let newest = refused
        .into_iter()
        .filter_map(|event| event.message.map(|message| (event.last_timestamp, message)))
        .filter(|(_, message)| message.contains("PodSecurity"))
        .max_by(|a, b| a.0.cmp(&b.0));
    Ok(newest.map(|(_, message)| message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fleet() -> watch::Sender<Option<Arc<Fleet>>> {
        watch::channel(None).0
    }

    fn node(uid: &str) -> Node {
        Node { uid: uid.to_owned(), labels: BTreeMap::new(), agent: None }
    }

    #[test]
    fn a_refusal_repeated_for_another_pod_says_the_same() {
        let refused = |pod: &str| {
            explain(
                "ns",
                &format!("Error creating: pods \"{pod}\" is forbidden: violates PodSecurity \"baseline\": hostPath"),
            )
        };
        assert_eq!(refused("agent-a"), refused("agent-b"));
        assert!(refused("agent-a").starts_with("run `kubectl label namespace ns "));
    }

    #[test]
    fn an_equal_fleet_wakes_nobody() {
        let sender = fleet();
        let mut receiver = sender.subscribe();
        change(&sender, |fleet| _ = fleet.nodes.insert("a".to_owned(), node("1")));
        assert!(receiver.has_changed().unwrap());
        receiver.mark_unchanged();
        change(&sender, |fleet| _ = fleet.nodes.insert("a".to_owned(), node("1")));
        assert!(!receiver.has_changed().unwrap());
        change(&sender, |fleet| _ = fleet.nodes.insert("a".to_owned(), node("2")));
        assert!(receiver.has_changed().unwrap());
    }
}
