//! The exporter, fed with the responses of kubelet, API server, driver and `/proc` at virtual times. This
//! module is the only one of the attribution simulation that uses the exporter's code.

mod claim_reader;
mod gpu_reader;

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use nvml_exporter::accumulators::UsageAccumulators;
use nvml_exporter::attribute::{AttributionContext, ProcessSeries, attribute};
use nvml_exporter::cluster::{Cluster, ClusterState, PodLogNames, SourceChannels};
use nvml_exporter::host::hpc_jobs::Jobs;
use nvml_exporter::host::pod_logs::{LoggedContainers, LoggedPod};
use nvml_exporter::kube::allocation::AllocationOptions;
use nvml_exporter::kube::assignments::Assignments;
use nvml_exporter::kube::json_stream::JsonFrame;
use nvml_exporter::kube::node_label::{LabelRequirement, NodeLabelState};
use nvml_exporter::kube::pod_resources::PodResourcesState;
use nvml_exporter::kube::pod_resources::messages::{
    ClaimResource, ContainerDevices, ContainerResources, DynamicResource, ListPodResourcesResponse,
    PodResources,
};
use nvml_exporter::kube::pods::PodSnapshot;
use nvml_exporter::kube::pods::store::PodStore;
use nvml_exporter::kube::sharing::SharingStrategy::{Mps, TimeSlicing};
use nvml_exporter::kube::source::FailureReason;
use nvml_exporter::kube::watch_event::PodWatchState;
use nvml_exporter::labels::{Dialect, LabelOptions, LabelSchema};
use nvml_exporter::model::{Moment, PodUid, Problem};
use nvml_exporter::nvml::inventory::DriverInfo;
use nvml_exporter::policy;
use nvml_exporter::render::{PageScope, exposition};
use nvml_exporter::reserved_labels::ReservedLabels;
use nvml_exporter::sample::{DriverState, Sample};
use nvml_exporter::selection::{FamilyRequest, Selection, SelectionScope};
use nvml_exporter::snapshot::Snapshot;
use prost::Message as _;
use tokio::sync::{Notify, watch};

use self::claim_reader::ClaimReader;
use self::gpu_reader::GpuReader;
use super::node::{ListedPod, Node};
use super::timeline::{Ms, Pod, RESOURCES, World};

/// The interval between two cycles.
pub(crate) const INTERVAL: Duration = Duration::from_secs(5);
/// The wall clock at the start of a world, microseconds.
pub(crate) const WALL_US: u64 = 1_790_000_000_000_000;
const SELECTED: [&str; 10] = [
    "DCGM_FI_DEV_GPU_UTIL",
    "DCGM_CUSTOM_PROCESS_SM_UTIL",
    "DCGM_CUSTOM_PROCESS_MEM_USED",
    "DCGM_CUSTOM_ILLEGAL_PROCESS_SM_UTIL",
    "DCGM_CUSTOM_ILLEGAL_PROCESS_MEM_USED",
    "DCGM_CUSTOM_CONTAINER_MEM_ALLOCATED",
    "DCGM_CUSTOM_CONTAINER_CP_ALLOCATED",
    "DCGM_CUSTOM_DEV_FB_ALLOCATED",
    "DCGM_CUSTOM_ALLOCATE_MODE",
    "DCGM_CUSTOM_CONTAINER_IDLE_SECONDS_TOTAL",
];

/// An exporter process.
pub(crate) struct Exporter {
    started: Ms,
    cluster: Cluster,
    pods: PodWatchState,
    publish_pods: watch::Sender<PodSnapshot>,
    assignments: PodResourcesState,
    publish_assignments: watch::Sender<PodResourcesState>,
    publish_logs: watch::Sender<Arc<PodLogNames>>,
    allocatable: BTreeMap<Box<str>, Vec<Box<str>>>,
    refresh: Arc<Notify>,
    refresh_logs: Arc<Notify>,
    claims: ClaimReader,
    gpus: Vec<GpuReader>,
    schema: LabelSchema,
    reserved: ReservedLabels,
    selection: Arc<Selection>,
    process_series: ProcessSeries,
    accumulators: UsageAccumulators,
    cycles: u64,
    last: Option<Arc<Snapshot>>,
}

impl Exporter {
    pub(crate) fn start(world: &World, started: Ms) -> Self {
        let pods = PodWatchState::new(PodStore::new("pods", "node-1"));
        let (publish_pods, receive_pods) = watch::channel(PodSnapshot::unknown("pods"));
        let assignments = PodResourcesState::unknown();
        let (publish_assignments, pod_resources) = watch::channel(assignments.clone());
        let (publish_logs, logs) = watch::channel(Arc::new(PodLogNames::default()));
        let (refresh, refresh_logs) = (Arc::<Notify>::default(), Arc::<Notify>::default());
        let strategy = if world.has_mps_replicas { Mps } else { TimeSlicing };
        let mut label = NodeLabelState::unknown();
        label.sharing = Some(strategy);
        let (claims, dra) = ClaimReader::new();
        let channels = SourceChannels {
            pods: Some(receive_pods),
            pods_api: None,
            pod_resources: Some(pod_resources),
            dra: Some(dra),
            label: LabelRequirement::parse("released=").zip(Some(watch::channel(label).1)),
            logs,
            logs_health: None,
            refresh: Arc::clone(&refresh),
            refresh_logs: Arc::clone(&refresh_logs),
        };
        let requests: Vec<FamilyRequest> =
            SELECTED.iter().map(|name| FamilyRequest::named(name).unwrap()).collect();
        Self {
            started,
            cluster: Cluster::new(channels, AllocationOptions::default()),
            pods,
            publish_pods,
            assignments,
            publish_assignments,
            publish_logs,
            allocatable: allocatable(world),
            refresh,
            refresh_logs,
            claims,
            gpus: world.gpus.iter().map(|_| GpuReader::default()).collect(),
            schema: LabelSchema {
                dialect: Dialect::Ack,
                hostname: "node-1".to_owned(),
                node_name: "node-1".to_owned(),
                extra: Vec::new(),
                options: LabelOptions::default(),
            },
            reserved: ReservedLabels::of(&Dialect::Ack),
            selection: Arc::new(Selection::of(&requests, SelectionScope::default())),
            process_series: if world.per_container {
                ProcessSeries::PerContainer
            } else {
                ProcessSeries::PerProcess
            },
            accumulators: UsageAccumulators::default(),
            cycles: 0,
            last: None,
        }
    }

    fn moment(&self, at: Ms) -> Moment {
        let mono = Duration::from_millis(at - self.started);
        Moment { mono, wall_us: WALL_US + at * 1000 }
    }

    /// The API server sends the complete list.
    pub(crate) fn list_pods(&mut self, objects: &[serde_json::Value], at: Ms) {
        let now = self.moment(at).mono;
        self.pods.begin_list();
        for object in objects {
            self.pods.apply_list_item(&frame(object), now);
        }
        let rest = br#"{"kind":"PodList","metadata":{"resourceVersion":"1"}}"#;
        self.pods.end_list(rest, now).unwrap();
        self.publish_pods(now);
    }

    /// A watch event arrives.
    pub(crate) fn pod_event(&mut self, kind: &str, object: &serde_json::Value, at: Ms) {
        let now = self.moment(at).mono;
        let event = serde_json::json!({ "type": kind, "object": object });
        self.pods.apply_event(&frame(&event), now).unwrap();
        self.publish_pods(now);
    }

    /// The watch ends with an error.
    pub(crate) fn pods_fail(&mut self, at: Ms) {
        let problem = Problem::without_remedy("connection refused");
        let now = self.moment(at).mono;
        self.pods.store.health.record_failure(FailureReason::Connection, &problem, now);
        self.publish_pods.send_replace(self.pods.store.snapshot(now));
    }

    fn publish_pods(&mut self, now: Duration) {
        self.pods.store.health.record_success(now);
        self.publish_pods.send_replace(self.pods.store.snapshot(now));
        if std::mem::take(&mut self.pods.changed) {
            self.refresh.notify_one();
        }
    }

    /// The kubelet returns a List, or does not respond.
    pub(crate) fn list_resources(
        &mut self,
        world: &World,
        list: Option<Vec<ListedPod<'_>>>,
        at: Ms,
    ) {
        let Moment { mono: now, wall_us } = self.moment(at);
        let Some(list) = list else {
            let problem = Problem::without_remedy("connection refused");
            self.assignments.health.record_failure(FailureReason::Connection, &problem, now);
            self.publish_assignments.send_replace(self.assignments.clone());
            return;
        };
        let pod_resources = list.iter().map(|pod| pod_resources(world, pod).encode_to_vec().into());
        let response = ListPodResourcesResponse { pod_resources: pod_resources.collect() };
        let list = response.into_list().unwrap();
        self.assignments.health.record_success(now);
        self.assignments.assignments = Some(Arc::new(Assignments {
            pods: list.pods,
            ambiguous: list.ambiguous,
            unconfirmed: BTreeSet::new(),
            unlisted: BTreeMap::new(),
            containers: list.containers,
            allocatable: self.allocatable.clone(),
            requested_at: now,
            requested_at_wall_us: wall_us,
        }));
        self.publish_assignments.send_replace(self.assignments.clone());
    }

    /// The API server returns the objects to which the claims of the node refer.
    pub(crate) fn read_claims(&mut self, world: &World, at: Ms) {
        let now = self.moment(at).mono;
        self.claims.read(world, now);
    }

    /// The log directories are read.
    pub(crate) fn read_logs(&mut self, logged: &[(&Pod, Vec<(&str, &str)>)]) {
        let pods = logged.iter().map(|(pod, started)| {
            let uid = pod.hash.as_deref().unwrap_or(&pod.uid);
            let mut containers: Vec<Arc<str>> = started.iter().map(|(n, _)| (*n).into()).collect();
            containers.sort_unstable();
            containers.dedup();
            let (namespace, name) = (pod.namespace.as_str().into(), pod.name.as_str().into());
            (PodUid::parse(uid.as_bytes()).unwrap(), LoggedPod { namespace, name, containers })
        });
        let link = |pod: &Pod, (name, id): &(&str, &str)| {
            format!("{}_{}_{name}-{id}.log", pod.name, pod.namespace)
        };
        let links: Vec<String> = logged
            .iter()
            .flat_map(|(pod, started)| started.iter().map(|container| link(pod, container)))
            .collect();
        let containers = LoggedContainers::from_links(links.iter().map(String::as_str));
        let names = PodLogNames { pods: Some(pods.collect()), containers: Some(containers) };
        self.publish_logs.send_replace(Arc::new(names));
    }

    /// Whether an early List was requested since the last call.
    pub(crate) fn wants_list(&self) -> bool {
        pin!(self.refresh.notified()).enable()
    }

    /// Whether an early read of the log directories was requested since the last call.
    pub(crate) fn wants_logs(&self) -> bool {
        pin!(self.refresh_logs.notified()).enable()
    }

    /// Runs one cycle.
    pub(crate) fn cycle(&mut self, node: &Node<'_>) {
        let at = self.moment(node.at);
        self.cycles += 1;
        for (index, gpu) in self.gpus.iter_mut().enumerate() {
            gpu.read(index, node, at, &self.selection);
        }
        let count = f64::from(u32::try_from(self.gpus.len()).unwrap());
        let sample = Sample {
            at,
            duration: Duration::ZERO,
            driver: DriverState::Up(DriverInfo::default()),
            gpu_count: Some((Ok(count), at)),
            driver_request_duration: None,
            gpus: self.gpus.iter().map(|gpu| gpu.sampled.clone()).collect(),
            xids: BTreeMap::new(),
            clock_events: BTreeMap::new(),
            health: BTreeMap::new(),
            open_failures: BTreeMap::new(),
            cycles: self.cycles,
            abandoned_threads: 0,
        };
        let view = self.cluster.state(&sample, at.mono, true);
        let ClusterState { sources, problems, .. } = &view;
        let context = AttributionContext {
            selection: &self.selection,
            schema: &self.schema,
            device_pods: None,
            reserved: &self.reserved,
            jobs: &Jobs::default(),
            max_age: policy::default_max_age(INTERVAL),
            process_series: self.process_series,
            owner_resolver: view.owner_resolver(at.mono),
            allocation: view.allocation(),
            host_pids: Some(true),
            sources,
            problems,
        };
        let (mut snapshot, activity) = attribute(sample, &context);
        snapshot.tables.accumulated =
            self.accumulators.accumulate(&self.selection, &activity, at.mono);
        self.cluster.request_refresh(snapshot.health.attribution.may_resolve());
        self.last = Some(Arc::new(snapshot));
    }

    /// The exposition of the families of GPUs, processes and containers.
    pub(crate) fn scrape(&self) -> String {
        exposition(self.last.as_ref().unwrap(), PageScope::Gpus).unwrap()
    }

    /// The exposition of the exporter's own families.
    pub(crate) fn scrape_own(&self) -> String {
        exposition(self.last.as_ref().unwrap(), PageScope::Exporter).unwrap()
    }
}

/// The devices of the node, under each resource that allocates one exclusively, or the replicas of MPS.
fn allocatable(world: &World) -> BTreeMap<Box<str>, Vec<Box<str>>> {
    let devices = world.gpus.iter().flat_map(|gpu| {
        let instances = gpu.instances.iter().map(|instance| instance.uuid.as_str());
        let whole = gpu.instances.is_empty().then_some(gpu.uuid.as_str());
        instances.chain(whole)
    });
    let replicas = world.gpus.iter().filter(|_| world.has_mps_replicas).flat_map(|gpu| {
        let ids = |n| [format!("{}::{n}", gpu.uuid), format!("nvidia{}/vgpu{n}", gpu.minor)];
        (0..3).flat_map(ids).map(String::into_boxed_str)
    });
    let ids: Vec<Box<str>> = devices.map(Box::from).chain(replicas).collect();
    RESOURCES.map(|resource| (Box::from(resource), ids.clone())).into()
}

fn frame(value: &serde_json::Value) -> JsonFrame {
    JsonFrame::Value(serde_json::to_vec(value).unwrap())
}

fn pod_resources(world: &World, pod: &ListedPod<'_>) -> PodResources {
    let containers = pod.containers.iter().map(|container| ContainerResources {
        name: container.name.clone(),
        devices: container
            .listed
            .iter()
            .map(|(resource, ids)| ContainerDevices {
                resource_name: (*resource).to_owned(),
                device_ids: ids.clone(),
            })
            .collect(),
        dynamic_resources: {
            let resource = |claim: &str, driver: &str, device, share_id| DynamicResource {
                claim_name: claim.to_owned(),
                claim_namespace: pod.namespace.to_owned(),
                claim_resources: vec![ClaimResource {
                    driver_name: driver.to_owned(),
                    pool_name: "node-1".to_owned(),
                    device_name: world.claim_name(device),
                    share_id,
                }],
            };
            let gpus = container.claims.iter().map(|claimed| {
                resource(&claimed.claim, "gpu.nvidia.com", claimed.device, claimed.share_id())
            });
            let network = container.network.iter();
            let network =
                network.map(|(claim, device)| resource(claim, "net.example.com", *device, None));
            gpus.chain(network).collect()
        },
    });
    let (name, namespace) = (pod.name.to_owned(), pod.namespace.to_owned());
    PodResources { name, namespace, containers: containers.collect() }
}
