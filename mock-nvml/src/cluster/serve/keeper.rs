//! Keeps what is served in step with world time.

use std::{cell::RefCell, future::pending, path::PathBuf, sync::Arc, time::Duration};

use tokio::sync::watch;

use super::super::{
    api::{History, Kind},
    logs::Logs,
    pods::Teller,
};
use crate::{
    clock::Now,
    number::float,
    scenario::{
        Scenario,
        cluster::{Server, Trouble},
    },
    stage,
    world::{World, complain},
};

/// How often the scenario's file is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// What the servers share.
#[derive(Debug)]
pub(super) struct Keeper {
    world: &'static World,
    home: PathBuf,
    kept: RefCell<Kept>,
    changes: watch::Sender<u64>,
}

#[derive(Debug)]
struct Kept {
    pods: History,
    nodes: History,
    logs: Logs,
    /// When the world began, in seconds since the epoch.
    epoch: Option<f64>,
    /// The scenario that all this was last brought in step with, and until when it is so.
    current: Option<(Arc<Scenario>, f64)>,
    /// What was last seen, to tell whether anything has changed.
    seen: Option<([u64; 2], [Option<Trouble>; 2])>,
    /// What was last complained of.
    complaint: Option<String>,
}

impl Keeper {
    /// Of the cluster of a world, in the stage `home`.
    pub(super) fn new(world: &'static World, home: PathBuf) -> Self {
        let (pods, nodes) = (History::new(Kind::Pod), History::new(Kind::Node));
        let logs = Logs::new(home.clone());
        let kept =
            Kept { pods, nodes, logs, epoch: None, current: None, seen: None, complaint: None };
        Self { world, home, kept: RefCell::new(kept), changes: watch::Sender::new(0) }
    }

    /// Brings everything to the present, and wakes who waits for a change if there is one.
    pub(super) fn refresh(&self) -> (Arc<Scenario>, Now) {
        let (scenario, now) = self.world.scene();
        let mut kept = self.kept.borrow_mut();
        let holds = |(last, until): &(Arc<Scenario>, f64)| {
            Arc::ptr_eq(last, &scenario) && now.world < *until
        };
        if kept.current.as_ref().is_some_and(holds) {
            drop(kept);
            return (scenario, now);
        }
        let cluster = scenario.cluster.as_deref();
        let until = cluster.and_then(|cluster| cluster.next_change(now.world));
        kept.current = Some((Arc::clone(&scenario), until.unwrap_or(f64::INFINITY)));
        let epoch = *kept.epoch.get_or_insert(float(now.wall) / 1e6 - now.world);
        let pods = cluster
            .map(|cluster| Teller { cluster, gpus: &scenario.gpus, epoch, time: now.world }.pods());
        kept.pods.update(pods.unwrap_or_default());
        let node = cluster.map(|cluster| cluster.node_object(now.world));
        kept.nodes.update(node.into_iter().collect());
        let synced = kept.logs.sync(cluster, now.world);
        let complaint = synced.as_ref().err().map(|error| format!("cluster: logs: {error}"));
        if let Err(error) = synced {
            if kept.complaint != complaint {
                complain(&error);
            }
            // It is tried again.
            kept.current = None;
        }
        kept.complaint = complaint;
        let trouble = |server| cluster.and_then(|cluster| cluster.trouble(server, now.world));
        let gone = cluster.is_none().then_some(Trouble::Absent);
        let troubles =
            [Server::Kubelet, Server::Api].map(|server| gone.or_else(|| trouble(server)));
        let seen = Some(([kept.pods.version(), kept.nodes.version()], troubles));
        if kept.seen != seen {
            kept.seen = seen;
            self.changes.send_modify(|change| *change += 1);
        }
        drop(kept);
        (scenario, now)
    }

    /// What is wrong with a server now.
    pub(super) fn trouble(&self, server: Server) -> Option<Trouble> {
        let (scenario, now) = self.refresh();
        match scenario.cluster.as_deref() {
            None => Some(Trouble::Absent),
            Some(cluster) => cluster.trouble(server, now.world),
        }
    }

    /// Waits while a server hangs, then as long as it is slow. Then tells what else is wrong with it.
    pub(super) async fn delay(&self, server: Server) -> Option<Trouble> {
        let mut changes = self.changes();
        loop {
            match self.trouble(server) {
                Some(Trouble::Hang) => {
                    let _ = changes.changed().await;
                }
                Some(Trouble::Slow(seconds)) => {
                    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
                    return None;
                }
                other => return other,
            }
        }
    }

    /// Hears of every change from now on.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Looks into the history of the objects of a kind.
    pub(super) fn history<T>(&self, kind: Kind, look: impl FnOnce(&History) -> T) -> T {
        let kept = self.kept.borrow();
        look(match kind {
            Kind::Pod => &kept.pods,
            Kind::Node => &kept.nodes,
        })
    }

    /// Refreshes whenever something is due, or may have become so in a scenario that can change. Ends
    /// when the stage is there no more.
    pub(super) async fn keep(&self) {
        let look = self.world.follows_file().then_some(LOOK);
        while stage::stands(&self.home) {
            let (scenario, now) = self.refresh();
            let cluster = scenario.cluster.as_deref().filter(|_| !now.held);
            let due = cluster.and_then(|cluster| cluster.next_change(now.world));
            let due = due.and_then(|due| Duration::try_from_secs_f64(due - now.world).ok());
            match [due, look].into_iter().flatten().min() {
                Some(wait) => tokio::time::sleep(wait).await,
                None => pending().await,
            }
        }
    }
}
