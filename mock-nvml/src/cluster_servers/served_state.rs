//! The state that the servers publish, cached up to date with world time.

use std::{cell::RefCell, future::pending, path::PathBuf, sync::Arc, time::Duration};

use serde_json::{Value, json};
use tokio::sync::watch;

use crate::{
    clock::Now,
    cluster::{
        api::{ObjectKind, WatchCache},
        pods::PodSerializer,
    },
    cluster_servers::logs::LogDirectories,
    environment_dir,
    numeric::float,
    scenario::{
        Scenario,
        cluster::{Server, ServerFault},
    },
    stderr::log_error,
    world::World,
};

/// Poll interval for changes of the scenario file.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// State shared by the servers.
#[derive(Debug)]
pub(super) struct ServedState {
    world: &'static World,
    home: PathBuf,
    cached: RefCell<Cached>,
    changes: watch::Sender<u64>,
}

#[derive(Debug)]
struct Cached {
    pods: WatchCache,
    nodes: WatchCache,
    logs: LogDirectories,
    /// World time 0 in seconds since the Unix epoch.
    epoch: Option<f64>,
    /// The scenario of this state, and the world time until which the state is valid.
    valid: Option<(Arc<Scenario>, f64)>,
    /// Versions of the caches and faults of the servers at the last refresh; a difference is announced.
    published: Option<([u64; 2], [Option<ServerFault>; 5])>,
    /// The last error, which is logged once.
    last_error: Option<String>,
}

impl ServedState {
    /// `home` is the directory of the mock environment.
    pub(super) fn new(world: &'static World, home: PathBuf) -> Self {
        let (pods, nodes) = (WatchCache::new(ObjectKind::Pod), WatchCache::new(ObjectKind::Node));
        let logs = LogDirectories::new(home.clone());
        let cached = Cached {
            pods,
            nodes,
            logs,
            epoch: None,
            valid: None,
            published: None,
            last_error: None,
        };
        Self { world, home, cached: RefCell::new(cached), changes: watch::Sender::new(0) }
    }

    /// Brings the state up to date, and wakes the subscribers if it has changed.
    pub(super) fn refresh(&self) -> (Arc<Scenario>, Now) {
        let (scenario, now) = self.world.scenario_and_time();
        let mut cached = self.cached.borrow_mut();
        let is_valid = |(last, until): &(Arc<Scenario>, f64)| {
            Arc::ptr_eq(last, &scenario) && now.world < *until
        };
        if cached.valid.as_ref().is_some_and(is_valid) {
            drop(cached);
            return (scenario, now);
        }
        let cluster = scenario.cluster.as_deref();
        let until = cluster.and_then(|cluster| cluster.next_change(now.world));
        cached.valid = Some((Arc::clone(&scenario), until.unwrap_or(f64::INFINITY)));
        let epoch = *cached.epoch.get_or_insert(float(now.wall) / 1e6 - now.world);
        let pods = cluster.map(|cluster| {
            PodSerializer { cluster, gpus: &scenario.gpus, epoch, time: now.world }.pods()
        });
        cached.pods.update(pods.unwrap_or_default());
        let node = cluster.map(|cluster| cluster.node_object(now.world));
        cached.nodes.update(node.into_iter().collect());
        let failed = cached.logs.sync(cluster, now.world).err();
        let message = failed.as_ref().map(ToString::to_string);
        if let Some(error) = failed {
            if cached.last_error != message {
                log_error(&error);
            }
            // The next refresh retries.
            cached.valid = None;
        }
        cached.last_error = message;
        let fault = |server| cluster.and_then(|cluster| cluster.fault_at(server, now.world));
        let absent = cluster.is_none().then_some(ServerFault::Absent);
        let servers =
            [Server::Kubelet, Server::PodsApi, Server::Api, Server::Slices, Server::Claims];
        let faults = servers.map(|server| absent.or_else(|| fault(server)));
        let published = Some(([cached.pods.version(), cached.nodes.version()], faults));
        if cached.published != published {
            cached.published = published;
            self.changes.send_modify(|change| *change += 1);
        }
        drop(cached);
        (scenario, now)
    }

    /// The fault of a server at present.
    pub(super) fn fault(&self, server: Server) -> Option<ServerFault> {
        let (scenario, now) = self.refresh();
        match scenario.cluster.as_deref() {
            None => Some(ServerFault::Absent),
            Some(cluster) => cluster.fault_at(server, now.world),
        }
    }

    /// Waits while the server hangs or delays responses, then returns any other fault of it.
    pub(super) async fn apply_delay(&self, server: Server) -> Option<ServerFault> {
        let mut changes = self.subscribe();
        loop {
            match self.fault(server) {
                Some(ServerFault::Hang) => {
                    let _ = changes.changed().await;
                }
                Some(ServerFault::Slow(seconds)) => {
                    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
                    return None;
                }
                other => return other,
            }
        }
    }

    /// Counts a request among the calls of the client.
    pub(super) fn count_request(&self, method: &str, path: &str) {
        self.world.count_request(&format!("{method} {path}"));
    }

    /// Receives a notification for each later change.
    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Reads the watch cache of an object kind.
    pub(super) fn read_cache<T>(&self, kind: ObjectKind, read: impl FnOnce(&WatchCache) -> T) -> T {
        let cached = self.cached.borrow();
        read(match kind {
            ObjectKind::Pod => &cached.pods,
            ObjectKind::Node => &cached.nodes,
        })
    }

    /// The pods of the kubelet.
    pub(super) fn pods_of_kubelet(&self) -> Vec<Value> {
        let (scenario, now) = self.refresh();
        let epoch = self.cached.borrow().epoch.unwrap_or_default();
        let pods = scenario.cluster.as_deref().map(|cluster| {
            PodSerializer { cluster, gpus: &scenario.gpus, epoch, time: now.world }.kubelet_pods()
        });
        pods.unwrap_or_default()
    }

    /// The kubelet's list of pods.
    pub(super) fn kubelet_pods(&self) -> Value {
        json!({
            "kind": "PodList",
            "apiVersion": "v1",
            "metadata": {},
            "items": self.pods_of_kubelet(),
        })
    }

    /// Refreshes when the next change of the scenario is due, and periodically if the scenario is a file.
    /// Ends when the mock environment is removed.
    pub(super) async fn run(&self) {
        let poll = self.world.watches_file().then_some(POLL_INTERVAL);
        while environment_dir::exists(&self.home) {
            let (scenario, now) = self.refresh();
            let cluster = scenario.cluster.as_deref().filter(|_| !now.fixed);
            let due = cluster.and_then(|cluster| cluster.next_change(now.world));
            let due = due.and_then(|due| Duration::try_from_secs_f64(due - now.world).ok());
            match [due, poll].into_iter().flatten().min() {
                Some(wait) => tokio::time::sleep(wait).await,
                None => pending().await,
            }
        }
    }
}
