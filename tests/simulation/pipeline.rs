//! The whole pipeline in this process, on the mock library and its cluster, composed as in the program, with
//! all families selected. Cycles follow each other without a pause, and the clock runs many times as fast.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nvml_exporter::accumulators::UsageAccumulators;
use nvml_exporter::attribute::{AttributionContext, DevicePodLabels, ProcessSeries, attribute};
use nvml_exporter::catalog::{ACCUMULATED, DEVICE, EVENT};
use nvml_exporter::clock::Clock;
use nvml_exporter::cluster::{Cluster, ClusterState, Sources};
use nvml_exporter::host::ProcRoot;
use nvml_exporter::host::hpc_jobs::Jobs;
use nvml_exporter::kube::allocation::AllocationOptions;
use nvml_exporter::labels::{Dialect, LabelOptions, LabelSchema};
use nvml_exporter::nvml::raw::mock_env::set_up_mock;
use nvml_exporter::policy;
use nvml_exporter::publish::Published;
use nvml_exporter::render::PageScope;
use nvml_exporter::reserved_labels::ReservedLabels;
use nvml_exporter::sample::Sampler;
use nvml_exporter::sample::driver_source::DriverSource;
use nvml_exporter::selection::{FamilyRequest, Selection, SelectionScope, preset};
use nvml_exporter::snapshot::Snapshot;
use nvml_exporter::telemetry;

/// What the flags select, and how series are labelled.
pub(crate) struct Flags {
    pub(crate) selection: Arc<Selection>,
    pub(crate) schema: LabelSchema,
    pub(crate) device_pods: Option<DevicePodLabels>,
    pub(crate) reserved: ReservedLabels,
    pub(crate) jobs: Jobs,
    pub(crate) process_series: ProcessSeries,
}

impl Flags {
    /// All families of the ack dialect.
    pub(crate) fn everything() -> Self {
        let schema = LabelSchema {
            dialect: Dialect::Ack,
            hostname: "node-1".to_owned(),
            node_name: "node-1".to_owned(),
            extra: vec![("pool".to_owned(), "a".to_owned())],
            options: LabelOptions::default(),
        };
        let mut requests = preset(&schema.dialect);
        requests.extend(DEVICE.iter().filter_map(|metric| FamilyRequest::named(metric.name)));
        requests.extend(ACCUMULATED.iter().filter_map(|metric| FamilyRequest::named(metric.name)));
        requests.extend(EVENT.iter().filter_map(|metric| FamilyRequest::named(metric.name)));
        Self {
            selection: Arc::new(Selection::of(&requests, SelectionScope::default())),
            schema,
            // Series with labels of pods wait for the pods, on another clock.
            device_pods: None,
            reserved: ReservedLabels::of(&Dialect::Ack),
            jobs: Jobs::default(),
            process_series: ProcessSeries::PerProcess,
        }
    }
}

/// A pipeline, and the mock environment that it reads.
pub(crate) struct Pipeline {
    directory: tempfile::TempDir,
    pub(crate) clock: Clock,
    interval: Duration,
    sampler: Sampler,
    cluster: Cluster,
    accounts: UsageAccumulators,
    flags: Arc<Flags>,
    last: Option<Arc<Published>>,
}

impl Pipeline {
    /// A pipeline on the scenario `world`, with a clock that runs `rate` times as fast. The collection `interval`, on
    /// that clock, limits the wait for GPUs.
    pub(crate) fn new(world: &str, rate: u32, interval: Duration) -> Self {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let environment = directory.path().join("mock");
        fs::create_dir(&environment).unwrap();
        let scenario = directory.path().join("world.toml");
        fs::write(&scenario, world).unwrap();
        let binary = Path::new(env!("CARGO_BIN_EXE_nvml-exporter"));
        let library = binary.parent().unwrap().join("libmock_nvml.so");
        set_up_mock(&library, scenario.to_str().unwrap(), &environment).unwrap();
        let clock = Clock::with_rate(rate);
        let proc_root = ProcRoot::new(&environment.join("proc"));
        let libraries = vec![environment.join("libnvidia-ml.so.1")];
        let source = DriverSource { libraries, proc_root, pci_bus: None };
        let sampler = Sampler::new(clock, interval, source).unwrap();
        let sources = Sources::from_mock_env(&environment, None).unwrap().unwrap();
        Self {
            directory,
            clock,
            interval,
            sampler,
            cluster: Cluster::start(sources, AllocationOptions::default(), clock).unwrap(),
            accounts: UsageAccumulators::default(),
            flags: Arc::new(Flags::everything()),
            last: None,
        }
    }

    /// Replaces the scenario atomically.
    pub(crate) fn set_world(&self, world: &str) {
        let temporary = self.directory.path().join("temporary");
        fs::write(&temporary, world).unwrap();
        fs::rename(temporary, self.directory.path().join("world.toml")).unwrap();
    }

    /// Runs one collection cycle and publishes it.
    pub(crate) fn cycle(&mut self) {
        let flags = Arc::clone(&self.flags);
        let mut accounts = std::mem::take(&mut self.accounts);
        let snapshot = self.snapshot(&flags, &mut accounts);
        self.accounts = accounts;
        telemetry::log_changes(self.last.as_deref().map(Published::snapshot), &snapshot);
        self.last = Some(Arc::new(Published::new(snapshot)));
    }

    /// Runs one collection cycle of an exporter with these flags.
    pub(crate) fn snapshot(&mut self, flags: &Flags, accounts: &mut UsageAccumulators) -> Snapshot {
        let sample = self.sampler.cycle(&flags.selection);
        let view = self.cluster.state(&sample, sample.at.mono, true);
        let ClusterState { sources, problems, .. } = &view;
        let now = sample.at.mono;
        let terms = AttributionContext {
            selection: &flags.selection,
            schema: &flags.schema,
            device_pods: flags.device_pods.as_ref(),
            reserved: &flags.reserved,
            jobs: &flags.jobs,
            max_age: policy::default_max_age(Duration::from_secs(5)),
            process_series: flags.process_series,
            owner_resolver: view.owner_resolver(now),
            allocation: view.allocation(),
            host_pids: Some(true),
            sources,
            problems,
        };
        let (mut snapshot, activity) = attribute(sample, &terms);
        snapshot.tables.accumulated = accounts.accumulate(&flags.selection, &activity, now);
        self.cluster.request_refresh(!snapshot.health.attribution.unresolved.is_empty());
        snapshot
    }

    /// The newest exposition.
    pub(crate) fn exposition(&self) -> String {
        String::from_utf8(self.scrape(false).to_vec()).unwrap()
    }

    /// The newest exposition, as a scraper receives it.
    pub(crate) fn scrape(&self, gzip: bool) -> bytes::Bytes {
        let published = self.last.as_ref().unwrap();
        published.exposition(PageScope::All, self.clock.now().mono, self.interval, gzip)
    }
}
