//! The pipeline: in each cycle, reads the driver, attributes the sample and publishes a snapshot.

mod file_sources;
mod recording;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};

use anyhow::{Context, bail};
use tokio::sync::watch;

use super::NO_THREAD;
use super::completeness::{has_idle, has_pods, has_responded, is_ready};
use super::slow_notice::SlowNotice;
use crate::accumulators::UsageAccumulators;
use crate::args::ReadConfig;
use crate::attribute::allocation_state::AllocationState;
use crate::attribute::owner::OwnerResolver;
use crate::attribute::{AttributionContext, attribute};
use crate::clock::Clock;
use crate::cluster::{Cluster, ClusterState, Sources};
use crate::counters::watcher::{CountersHandle, CountersSource, CountersUpdate};
use crate::driver_release::{ReleaseCommand, ReleaseRequests};
use crate::host::ProcRoot;
use crate::host::hpc_jobs::JobDirectory;
use crate::host::own_process::OwnProcessReader;
use crate::host::pci_bus::PciBus;
use crate::model::PodUid;
use crate::nvml::mock::MockEnv;
use crate::policy;
use crate::publish::Published;
use crate::render::{self, PageScope};
use crate::reserved_labels::ReservedLabels;
use crate::sample::{DriverState, Sample, Sampler};
use crate::selection::Selection;
use crate::serve::reject_counters::RejectCounters;
use crate::serve::web_config_health::WebConfigHealth;
use crate::snapshot::Snapshot;
use crate::stdout::print;
use crate::telemetry;
use crate::view::recent_use::UseRecorder;
use crate::worker;

/// The stages of the pipeline and the state that is kept between cycles.
pub(super) struct Pipeline {
    sampler: Sampler,
    cluster: Option<Cluster>,
    /// The sources of the cluster while they are not needed: the node has no GPU.
    unused_sources: Option<Sources>,
    proc_root: ProcRoot,
    /// Pods that the node itself runs in.
    node_pods: Vec<PodUid>,
    selection: Arc<Selection>,
    counters: Option<CountersHandle>,
    reject_counters: Arc<RejectCounters>,
    web_config_health: Arc<WebConfigHealth>,
    own_process: OwnProcessReader,
    jobs: Option<JobDirectory>,
    accumulators: UsageAccumulators,
    use_recorder: UseRecorder,
    requests: ReleaseRequests,
    reserved: ReservedLabels,
    config: ReadConfig,
    clock: Clock,
    last: Option<Arc<Published>>,
    /// Whether it prints once, and returns why the driver is down as its error instead of logging it.
    is_once: bool,
    /// The simulated node; its files are removed when this is dropped.
    _mock_env: Option<MockEnv>,
}

impl Pipeline {
    /// Reads the counters file and starts the threads that read the driver and the cluster.
    ///
    /// # Errors
    /// The counters file cannot be used, or the system cannot start a thread.
    pub(super) fn start(
        config: ReadConfig,
        mock_env: Option<MockEnv>,
        clock: Clock,
    ) -> anyhow::Result<Self> {
        // Of the thread that samples until a condition is met.
        worker::touch_thread_locals();
        let proc_root = ProcRoot::new(&config.proc_root());
        let source = config.driver_source();
        let lacks_gpu = source.pci_bus.as_ref().and_then(PciBus::devices_without_gpu).is_some();
        let mut sampler = Sampler::new(clock, config.interval, source).context(NO_THREAD)?;
        if mock_env.is_some() {
            serve_config_map(&mut sampler, config.counters.as_ref());
        }
        let (selection, counters) = selection(&config, clock)?;
        let (unused_sources, sources) =
            if lacks_gpu { (config.cluster.clone(), None) } else { (None, config.cluster.clone()) };
        let cluster = sources
            .map(|sources| Cluster::start(sources, config.allocation_options.clone(), clock));
        let jobs = config.job_directory.clone().map(JobDirectory::start);
        Ok(Self {
            node_pods: proc_root.node_pods(),
            sampler,
            cluster: cluster.transpose().context(NO_THREAD)?,
            unused_sources,
            proc_root,
            selection,
            counters,
            reject_counters: Arc::default(),
            web_config_health: Arc::default(),
            own_process: OwnProcessReader::new(),
            jobs: jobs.transpose().context(NO_THREAD)?,
            accumulators: UsageAccumulators::default(),
            use_recorder: UseRecorder::default(),
            requests: ReleaseRequests::start(config.release_triggers.file.clone())
                .context(NO_THREAD)?,
            reserved: ReservedLabels::of(&config.schema.dialect).with(&config.schema.extra),
            config,
            clock,
            last: None,
            is_once: false,
            _mock_env: mock_env,
        })
    }

    /// The configuration that it was started with.
    pub(super) fn config(&self) -> &ReadConfig {
        &self.config
    }

    /// A message on this channel reloads the counters file; `None` if there is none.
    pub(super) fn reload_sender(&self) -> Option<mpsc::Sender<()>> {
        self.counters.as_ref().map(CountersHandle::reload)
    }

    /// The counters of refused connections and requests.
    pub(super) fn reject_counters(&self) -> Arc<RejectCounters> {
        Arc::clone(&self.reject_counters)
    }

    /// Where the server records whether its configuration can be read.
    pub(super) fn web_config_health(&self) -> Arc<WebConfigHealth> {
        Arc::clone(&self.web_config_health)
    }

    fn cycle(&mut self) -> Arc<Published> {
        let sample = self.sample();
        self.publish(sample)
    }

    fn publish(&mut self, sample: Sample) -> Arc<Published> {
        let snapshot = self.attribute(sample);
        let recent_use = self.use_recorder.record(&snapshot);
        let is_down = matches!(snapshot.health.driver, DriverState::Down(_));
        if !(self.is_once && is_down) {
            telemetry::log_changes(self.last.as_deref().map(Published::snapshot), &snapshot);
        }
        let published = Arc::new(Published::new(snapshot).with_recent_use(recent_use));
        self.last = Some(Arc::clone(&published));
        published
    }

    /// Releases or reacquires NVML according to the current requests. Returns whether the change has to
    /// be published before the next regular cycle.
    fn apply_release_requests(&mut self) -> bool {
        let now = self.clock.now().mono;
        let label = self.cluster.as_ref().and_then(|cluster| cluster.release_label(now));
        self.sampler.set_release_request(self.requests.active(label, now))
    }

    /// Applies a changed counters file.
    fn apply_counters(&mut self) {
        let Some(counters) = &mut self.counters else { return };
        for update in counters.updates(self.clock.now().mono) {
            if let CountersUpdate::Changed(selection) = update {
                self.selection = selection;
            }
        }
    }

    /// Reads the driver.
    fn sample(&mut self) -> Sample {
        self.apply_counters();
        let sample = self.sampler.cycle(&self.selection);
        if sample.driver.is_known_with_gpu() {
            self.start_cluster();
        }
        sample
    }

    /// Starts the sources of the cluster if a GPU has appeared on a node that had none.
    fn start_cluster(&mut self) {
        if let Some(sources) = self.unused_sources.take() {
            let options = self.config.allocation_options.clone();
            match Cluster::start(sources.clone(), options, self.clock) {
                Ok(cluster) => self.cluster = Some(cluster),
                Err(error) => {
                    tracing::error!(%error, "{NO_THREAD}");
                    self.unused_sources = Some(sources);
                }
            }
        }
    }

    /// Joins a sample with jobs and cluster state, and adds accumulators and HTTP counters.
    fn attribute(&mut self, sample: Sample) -> Snapshot {
        let read_at = self.clock.now().mono;
        let jobs = self.jobs.as_mut().map(|jobs| jobs.read(read_at)).unwrap_or_default();
        let needs_containers = self.selection.has_container_families();
        let view = self
            .cluster
            .as_mut()
            .map(|cluster| cluster.state(&sample, self.clock.now().mono, needs_containers));
        let now = sample.at.mono;
        let problems = BTreeMap::new();
        let mut sources = view.as_ref().map(|view| view.sources.clone()).unwrap_or_default();
        sources.extend(self.file_sources(now));
        let context = AttributionContext {
            selection: &self.selection,
            schema: &self.config.schema,
            device_pods: self.config.device_pods.as_ref(),
            reserved: &self.reserved,
            jobs: &jobs,
            max_age: self.config.max_age,
            process_series: self.config.process_series,
            owner_resolver: OwnerResolver {
                node_pods: &self.node_pods,
                ..view.as_ref().map(|view| view.owner_resolver(now)).unwrap_or_default()
            },
            allocation: view
                .as_ref()
                .map_or(AllocationState::NoSource { in_cluster: false }, ClusterState::allocation),
            host_pids: self.sees_host_pids(),
            sources: &sources,
            problems: view.as_ref().map_or(&problems, |view| &view.problems),
        };
        let (mut snapshot, activity) = attribute(sample, &context);
        snapshot.tables.accumulated = self.accumulators.accumulate(&self.selection, &activity, now);
        snapshot.health.interval = self.config.interval;
        snapshot.health.rejections = self.reject_counters.counts();
        snapshot.health.process = self.own_process.read();
        snapshot.health.process_series_max = self.config.max_process_series;
        if let Some(cluster) = &self.cluster {
            cluster.request_refresh(snapshot.health.attribution.may_resolve());
        }
        snapshot
    }

    /// Whether NVML lists the processes of all PID namespaces; `None` if no process series are selected.
    fn sees_host_pids(&self) -> Option<bool> {
        if self.selection.needs_processes() { self.proc_root.in_init_pid_namespace() } else { None }
    }

    /// Runs cycles, and executes release commands, until the command is `None`.
    pub(super) fn run(
        mut self,
        commands: &Receiver<Option<ReleaseCommand>>,
        publish: &watch::Sender<Option<Arc<Published>>>,
    ) {
        // Reads of the driver's utilization samples per cycle: their ring buffer covers a few seconds.
        let reads = policy::ring_reads(self.config.interval);
        let mut next = self.clock.now().mono;
        let startup_end = next + policy::STARTUP_MAX;
        let (mut read, mut starting) = (0, self.cluster.is_some());
        loop {
            if self.apply_release_requests() || read == 0 || starting {
                publish.send_replace(Some(self.cycle()));
                starting = starting && next < startup_end && !self.has_settled();
            } else {
                self.sampler.read_utilization();
            }
            read = if starting { 0 } else { (read + 1) % reads };
            let pause = self.config.interval / reads;
            let pause = if starting { pause.min(policy::STARTUP_INTERVAL) } else { pause };
            // After a read that overran, the next one starts at once and the schedule shifts.
            next = (next + pause).max(self.clock.now().mono);
            match commands.recv_timeout(self.clock.until(next)) {
                Ok(Some(command)) => {
                    next = self.clock.now().mono;
                    self.requests.apply(command, next);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Ok(None) | Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.sampler.quiesce(self.clock.now().mono + policy::QUIESCE_GRACE);
    }

    /// Whether the last snapshot has what the cluster's sources know, or they will not respond soon.
    fn has_settled(&self) -> bool {
        self.last.as_ref().is_some_and(|published| {
            let snapshot = published.snapshot();
            is_ready(snapshot, has_responded) && has_pods(snapshot) && has_idle(snapshot)
        })
    }

    /// Runs cycles until driver and cluster are ready, or will not be soon, and returns the snapshot of
    /// one more cycle: utilization needs a window between two cycles.
    ///
    /// # Errors
    /// The system cannot start a thread.
    pub(super) fn sample_until_ready(&mut self) -> anyhow::Result<Arc<Published>> {
        let notice = SlowNotice::start("the driver and the cluster", policy::ONCE_STARTUP_TIMEOUT)?;
        self.run_until(|_, snapshot| {
            is_ready(snapshot, |source| source.settled) && has_pods(snapshot) && has_idle(snapshot)
        });
        drop(notice);
        wait_for_window();
        let published = self.cycle();
        // A source that has responded since may have added an allocation.
        if has_idle(published.snapshot()) {
            return Ok(published);
        }
        wait_for_window();
        Ok(self.cycle())
    }

    /// Like [`Pipeline::sample_until_ready`], for `check`: also returns the sample, does not wait for sources that
    /// have failed, and respects release requests. `ready` is called when the wait is over.
    pub(super) fn sample_for_check(&mut self, ready: impl FnOnce()) -> (Sample, Snapshot) {
        self.apply_release_requests();
        self.run_until(|pipeline, snapshot| {
            // A release request applies to every process that uses NVML, also to `check`.
            pipeline.apply_release_requests();
            is_ready(snapshot, has_responded) && has_pods(snapshot)
        });
        ready();
        wait_for_window();
        let sample = self.sample();
        let snapshot = self.attribute(sample.clone());
        (sample, snapshot)
    }

    /// Runs cycles until `is_done` and the number of GPUs is known, for at most [`policy::ONCE_STARTUP_TIMEOUT`].
    fn run_until(&mut self, mut is_done: impl FnMut(&mut Self, &Snapshot) -> bool) {
        let deadline = self.clock.now().mono + policy::ONCE_STARTUP_TIMEOUT;
        let (_never, pause) = mpsc::channel::<()>();
        loop {
            let sample = self.sample();
            let is_counted =
                sample.gpu_count.is_some() || !matches!(sample.driver, DriverState::Up(_));
            let published = self.publish(sample);
            let is_over = is_done(self, published.snapshot()) && is_counted;
            if is_over || self.clock.now().mono >= deadline {
                break;
            }
            let _ = pause.recv_timeout(policy::ONCE_WINDOW / 4);
        }
    }

    /// Prints the exposition of one snapshot.
    pub(super) fn print_once(mut self) -> anyhow::Result<()> {
        self.is_once = true;
        let published = self.sample_until_ready()?;
        let snapshot = published.snapshot();
        if let Err(reason) = snapshot.ready() {
            bail!("nothing to read: {reason}");
        }
        if let Some(why) = snapshot.health.driver.no_gpu() {
            bail!("nothing to read: {why}");
        }
        if snapshot.tables.devices.is_empty() {
            bail!("nothing to read: the driver is up and lists no GPU");
        }
        let exposition = render::exposition(&Arc::new(snapshot.clone()), PageScope::All)?;
        print(exposition.as_bytes())
    }
}

/// Loads the library of the mock, which serves the `ConfigMap` with the counters, if they are in one.
pub(super) fn serve_config_map(sampler: &mut Sampler, counters: Option<&CountersSource>) {
    if let Some(source @ CountersSource::ConfigMap { .. }) = counters {
        let _ = sampler.cycle(&Arc::default());
        source.wait_for_mock();
    }
}

/// Waits for one utilization window.
fn wait_for_window() {
    let (_never, pause) = mpsc::channel::<()>();
    let _ = pause.recv_timeout(policy::ONCE_WINDOW);
}

/// The selected families, and the follower of the counters file if one selects them.
fn selection(
    config: &ReadConfig,
    clock: Clock,
) -> anyhow::Result<(Arc<Selection>, Option<CountersHandle>)> {
    let scope = config.selection_scope.clone();
    let Some(source) = config.counters.clone() else {
        let requests = config.preset.requests(&config.schema.dialect);
        return Ok((Arc::new(Selection::of(&requests, scope)), None));
    };
    let counters = source.read()?;
    source.log_remarks(&counters);
    let selection = Arc::new(Selection::of(&counters.requests, scope.clone()));
    let handle =
        CountersHandle::start(source, counters, scope, clock.now().mono).context(NO_THREAD)?;
    Ok((selection, Some(handle)))
}
