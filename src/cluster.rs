//! Those who know of pods and of who was given what, followed on a thread of their own.
//!
//! Each source is a task that publishes what it knows and keeps it while it is down. The sampling
//! thread only borrows the newest pictures: no cycle waits for the cluster.

pub mod sources;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::runtime;
use tokio::sync::{Notify, watch};

pub use self::sources::Sources;
use crate::attribute::family::Allocation;
use crate::attribute::holdings::{Holdings, Share};
use crate::attribute::owner::{Directory, Holder};
use crate::clock::Clock;
use crate::host::pod_logs::{self, LoggedContainers, LoggedPods};
use crate::kube;
use crate::kube::allocation::{Allocations, DeviceFacts, MemoryUnit, MigFacts, allocate};
use crate::kube::api::Address;
use crate::kube::assignments::{Assignments, Slices};
use crate::kube::kubelet_pods::KubeletPods;
use crate::kube::node_label::{self, Label, NodeLabel};
use crate::kube::pod_resources::{self, PodResources, Taken};
use crate::kube::pods::Pods;
use crate::kube::resource_slices::{self, ResourceSlices};
use crate::kube::retention::AllocationRetention;
use crate::kube::source::{Failure, Health, State};
use crate::kube::watch::PodWatch;
use crate::nvml::probe::mebibytes;
use crate::policy;
use crate::sample::Sample;
use crate::sample::device::DeviceSample;
use crate::sample::part::PartSample;
use crate::snapshot::SourceHealth;

/// The newest pictures of all sources.
pub struct Cluster {
    pods: Option<watch::Receiver<Pods>>,
    taken: Option<watch::Receiver<Taken>>,
    slices: Option<watch::Receiver<resource_slices::Taken>>,
    label: Option<(Label, watch::Receiver<node_label::Taken>)>,
    logs: watch::Receiver<Arc<Logs>>,
    hasten: Arc<Notify>,
    names_wanted: Arc<Notify>,
    slices_wanted: Arc<Notify>,
    began: Duration,
    memory_unit: MemoryUnit,
    retention: AllocationRetention,
    ledger: Option<Ledger>,
}

/// Names that the kubelet's log directories tell.
#[derive(Debug, Default)]
pub struct Logs {
    pods: Option<LoggedPods>,
    containers: Option<LoggedContainers>,
}

/// What was made of which pictures: it is made again when one of them changes.
struct Ledger {
    pods: Option<Pods>,
    assignments: Arc<Assignments>,
    slices: Option<Arc<Slices>>,
    devices: Vec<DeviceFacts>,
    /// It rests on something that is kept for a time only.
    expires: bool,
    holdings: Holdings,
    problems: BTreeMap<&'static str, u64>,
}

/// What the cluster says in one cycle.
pub struct View {
    pods: Option<Pods>,
    logs: Arc<Logs>,
    known: Known,
    /// How the sources fare.
    pub sources: Vec<SourceHealth>,
    /// Allocations that could not be understood, by reason.
    pub problems: BTreeMap<&'static str, u64>,
}

enum Known {
    Nobody,
    Pending,
    Holdings(Holdings),
}

impl Cluster {
    /// Starts to follow `sources`.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn follow(sources: Sources, clock: Clock) -> io::Result<Self> {
        let (hasten, names_wanted, slices_wanted) =
            (Arc::<Notify>::default(), Arc::<Notify>::default(), Arc::<Notify>::default());
        let memory_unit = sources.memory_unit;
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let spawn = |task: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>| runtime.spawn(task);

        let patience = sources.stage_patience;
        let pods = sources.pods.clone().map(|(address, node)| {
            let source = match &address {
                Address::Kubelet { .. } => kube::kubelet_pods::SOURCE,
                Address::InCluster
                | Address::Kubeconfig(_)
                | Address::Url(_)
                | Address::Exporter { .. } => kube::watch::SOURCE,
            };
            let (publish, pods) = watch::channel(Pods::unknown(source));
            let (pace, changed) = (sources.pace.clone(), Arc::clone(&hasten));
            spawn(if let Address::Kubelet { .. } = address {
                let every = policy::KUBELET_PODS_EVERY;
                Box::pin(KubeletPods { address, node, every, pace, clock }.run(publish, changed))
            } else {
                Box::pin(async move {
                    if let Address::Kubeconfig(file) = &address {
                        appearance(file, patience).await;
                    }
                    PodWatch { address, node, pace, clock }.run(publish, changed).await;
                })
            });
            pods
        });
        let taken = sources.pod_resources.clone().map(|socket| {
            let (publish, taken) = watch::channel(Taken::unknown());
            let (pace, hasten) = (pod_resources::Pace::default(), Arc::clone(&hasten));
            spawn(Box::pin(async move {
                appearance(&socket, patience).await;
                PodResources { socket, pace, clock }.run(publish, hasten).await;
            }));
            taken
        });
        let slices = sources.pods.clone().map(|(address, node)| {
            let (publish, slices) = watch::channel(resource_slices::Taken::unknown());
            let pace = sources.pace.clone();
            let wanted = Arc::clone(&slices_wanted);
            let (every, pause) = (policy::RESOURCE_SLICES_EVERY, policy::RESOURCE_SLICES_PAUSE);
            let slices_of = ResourceSlices { address, node, every, pause, pace, clock };
            spawn(Box::pin(slices_of.run(publish, wanted)));
            slices
        });
        let label = sources.pods.clone().zip(sources.label.clone());
        let label = label.filter(|((address, _), _)| !matches!(address, Address::Kubelet { .. }));
        let label = label.map(|((address, node), label)| {
            let (publish, taken) = watch::channel(node_label::Taken::unknown());
            let (pace, wanted) = (sources.pace.clone(), label.clone());
            spawn(Box::pin(async move {
                if let Address::Kubeconfig(file) = &address {
                    appearance(file, patience).await;
                }
                NodeLabel { address, node, label: wanted, pace, clock }.run(publish).await;
            }));
            (label, taken)
        });
        let (publish, logs) = watch::channel(Arc::new(Logs::default()));
        spawn(Box::pin(read_logs(sources, publish, Arc::clone(&names_wanted))));

        thread::Builder::new().name("cluster".to_owned()).spawn(move || {
            // The tasks never end by themselves; the thread ends with the process.
            runtime.block_on(std::future::pending::<()>());
        })?;
        let began = clock.now().mono;
        Ok(Self {
            pods,
            taken,
            slices,
            label,
            logs,
            hasten,
            names_wanted,
            slices_wanted,
            began,
            memory_unit,
            retention: AllocationRetention::default(),
            ledger: None,
        })
    }
}

impl Cluster {
    /// What is known of who lives here and who was given which of `devices`, for a cycle that
    /// began at `now` (monotonic). `tells_of_containers` says whether more is asked for than who holds
    /// a device.
    pub fn view(
        &mut self,
        devices: Vec<DeviceFacts>,
        now: Duration,
        tells_of_containers: bool,
    ) -> View {
        let pods = self.pods.as_ref().map(|pods| pods.borrow().clone());
        let taken = self.taken.as_ref().map(|taken| taken.borrow().clone());
        let slices = self.slices.as_ref().map(|slices| slices.borrow().clone());
        let label = self.label.as_ref().map(|(_, taken)| taken.borrow().health.clone());
        // What not every node has is told of once it has been there.
        let seldom = slices.as_ref().map(|taken| taken.health.clone()).into_iter().chain(label);
        let sources = (pods.iter().map(|pods| &pods.health))
            .chain(taken.iter().map(|taken| &taken.health))
            .map(|health| source_health(health, now))
            .chain(seldom.filter(|h| h.contact.is_some()).map(|h| source_health(&h, now)))
            .collect();
        let known = match taken {
            None => Known::Nobody,
            Some(Taken { assignments: Some(assignments), .. }) => {
                let slices = slices.and_then(|taken| taken.slices);
                self.want_slices(&assignments, slices.as_deref());
                let as_of = assignments.taken;
                let fresh = now.saturating_sub(as_of) <= policy::ALLOCATION_MAX_AGE;
                let asked = pods.clone().filter(|pods| tells_of_containers || !shuts_out(pods));
                let holdings = self.book(asked, assignments, slices, devices);
                Known::Holdings(holdings.as_of(as_of, fresh))
            }
            // Whoever has not answered for so long is not there to give anything out.
            Some(Taken { assignments: None, .. })
                if now.saturating_sub(self.began) > policy::KUBELET_PATIENCE =>
            {
                Known::Nobody
            }
            Some(Taken { assignments: None, .. }) => Known::Pending,
        };
        let problems = match (&known, &self.ledger) {
            (Known::Holdings(_), Some(ledger)) => ledger.problems.clone(),
            _ => BTreeMap::new(),
        };
        let logs = Arc::clone(&self.logs.borrow());
        View { pods, logs, known, sources, problems }
    }

    /// The label of the node that is looked out for, if the node has it at `now` (monotonic).
    #[must_use]
    pub fn label(&self, now: Duration) -> Option<Arc<str>> {
        let (label, taken) = self.label.as_ref()?;
        taken.borrow().is_set(now).then(|| Arc::clone(&label.text))
    }

    /// Has those asked again who may know by now what was not known in the last cycle.
    pub fn hasten(&self, unresolved: bool) {
        if unresolved {
            self.hasten.notify_one();
            self.names_wanted.notify_one();
        }
    }

    /// Devices that are claimed have to be looked up; most clusters have none.
    fn want_slices(&self, assignments: &Assignments, slices: Option<&Slices>) {
        let mut claims = assignments.containers.iter().flat_map(|one| &one.claims);
        if claims.any(|claim| slices.is_none_or(|slices| slices.get(claim).is_none())) {
            self.slices_wanted.notify_one();
        }
    }

    /// Who holds what, reckoned anew only if something has changed.
    fn book(
        &mut self,
        pods: Option<Pods>,
        assignments: Arc<Assignments>,
        slices: Option<Arc<Slices>>,
        devices: Vec<DeviceFacts>,
    ) -> Holdings {
        let same = |ledger: &&Ledger| {
            let pods_are = match (&ledger.pods, &pods) {
                (Some(was), Some(is)) => was.same_as(is),
                (was, is) => was.is_none() && is.is_none(),
            };
            pods_are
                && ledger.assignments.says_the_same(&assignments)
                && ledger.slices.as_ref().map(Arc::as_ptr) == slices.as_ref().map(Arc::as_ptr)
                && ledger.devices == devices
                && !ledger.expires
        };
        if let Some(ledger) = self.ledger.as_ref().filter(same) {
            return ledger.holdings.clone();
        }
        let merged = self.retention.apply(&assignments, pods.as_ref());
        let expires = !merged.unconfirmed.is_empty();
        let found = allocate(&devices, &merged, pods.as_ref(), slices.as_deref(), self.memory_unit);
        let problems = found.problems.clone();
        let holdings = holdings(found);
        self.ledger = Some(Ledger {
            pods,
            assignments,
            slices,
            devices,
            expires,
            holdings: holdings.clone(),
            problems,
        });
        holdings
    }
}

impl View {
    /// Resolves owners at `now` (monotonic).
    #[must_use]
    pub fn directory(&self, now: Duration) -> Directory<'_> {
        Directory {
            now,
            pods: self.pods.as_ref(),
            logged_pods: self.logs.pods.as_ref(),
            logged_containers: self.logs.containers.as_ref(),
        }
    }

    /// Who was given what.
    #[must_use]
    pub fn allocation(&self) -> Allocation<'_> {
        match &self.known {
            Known::Nobody => Allocation::Nobody { cluster: self.pods.is_some() },
            Known::Pending => Allocation::Pending,
            Known::Holdings(holdings) => Allocation::Known(holdings),
        }
    }
}

fn holdings(found: Allocations) -> Holdings {
    let shares = found.shares.into_iter().map(|share| Share {
        holder: Holder { pod: share.pod, container: share.container },
        device: share.device,
        mode: share.mode,
        memory: share.memory,
        compute: share.compute,
        replica: share.replica.map(|n| n.to_string()).unwrap_or_default().into(),
        claim: share.claim,
        confirmed: share.confirmed,
        running: share.running,
    });
    Holdings::new(shares, found.doubtful, found.doubtful_node, found.coverage)
}

/// Whether an API server has never said anything and will not: for the holder of a device, the names
/// that the kubelet knows are enough then, as they are without an API server.
fn shuts_out(pods: &Pods) -> bool {
    !pods.synced && pods.health.state == State::Down(Failure::Denied)
}

fn source_health(health: &Health, now: Duration) -> SourceHealth {
    SourceHealth {
        name: health.source,
        up: health.state == State::Up,
        age: health.age(now),
        failures: health.failures().map(|(failure, n)| (failure.reason(), n)).collect(),
    }
}

/// Waits until a file is there, for no longer than `patience`.
async fn appearance(file: &Path, patience: Duration) {
    let _ = tokio::time::timeout(patience, async {
        while !file.exists() {
            tokio::time::sleep(policy::STAGE_LOOK).await;
        }
    })
    .await;
}

/// Reads the names of logs now and then, and when somebody misses one.
async fn read_logs(sources: Sources, publish: watch::Sender<Arc<Logs>>, wanted: Arc<Notify>) {
    let mut complained = false;
    while !publish.is_closed() {
        let read = pod_logs::read_pods(&sources.pod_logs).and_then(|pods| {
            let containers = pod_logs::read_containers(&sources.container_logs)?;
            Ok(Logs { pods, containers })
        });
        match read {
            Ok(logs) => {
                complained = false;
                publish.send_replace(Arc::new(logs));
            }
            Err(error) => {
                if !std::mem::replace(&mut complained, true) {
                    tracing::warn!("names of logs are not read: {error}");
                }
            }
        }
        tokio::time::sleep(policy::POD_LOGS_PAUSE).await;
        let _ = tokio::time::timeout(policy::POD_LOGS_EVERY, wanted.notified()).await;
    }
}

/// What of a node's GPUs can be given to containers, as they were last answered.
#[must_use]
pub fn devices(sample: &Sample) -> Vec<DeviceFacts> {
    let known = sample.gpus.iter().filter_map(|gpu| gpu.latest.as_ref()?.as_deref().ok());
    let facts = |answer: &DeviceSample| {
        let total = |part: &PartSample| part.framebuffer.ok().map(|m| mebibytes(m.total));
        let mig = |part: &PartSample| {
            let mig = part.mig.as_deref()?;
            Some(MigFacts {
                uuid: Arc::clone(&mig.uuid),
                gpu_instance: mig.gpu_instance,
                compute_instance: mig.compute_instance,
                framebuffer_mib: total(part),
                compute: None,
            })
        };
        let whole = answer.parts.iter().find(|part| part.mig.is_none());
        DeviceFacts {
            uuid: Arc::clone(&answer.gpu.uuid),
            minor: answer.gpu.minor,
            framebuffer_mib: whole.and_then(total),
            migs: answer.parts.iter().filter_map(mig).collect(),
        }
    };
    known.map(facts).collect()
}
