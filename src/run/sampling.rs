//! The pipeline from the driver to what is published, cycle by cycle.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

use anyhow::bail;
use tokio::sync::watch;

use super::patience::Patience;
use crate::accounts::Accounts;
use crate::args::ReadConfig;
use crate::attribute::family::Allocation;
use crate::attribute::{DevicePods, Grain, Terms, attribute};
use crate::clock::Clock;
use crate::cluster::{Cluster, View, devices};
use crate::counters::follow::{Followed, News, Source};
use crate::host::ProcRoot;
use crate::host::hpc_jobs::JobDirectory;
use crate::kube::source::Failure;
use crate::kube::{kubelet_pods, watch as pod_watch};
use crate::labels::{Dialect, Schema};
use crate::model::Missing;
use crate::nvml::mock::Stage;
use crate::output::print;
use crate::policy;
use crate::publish::Published;
use crate::release::{Order, Requests};
use crate::render::{self, Part};
use crate::reserved_labels::ReservedLabels;
use crate::sample::{DriverState, Sample, Sampler};
use crate::selection::{Frame, Selection, preset};
use crate::serve::refusals::Refusals;
use crate::snapshot::{Snapshot, SourceHealth};
use crate::telemetry;

/// The pipeline, and what outlives a cycle.
pub(super) struct Sampling {
    sampler: Sampler,
    cluster: Option<Cluster>,
    proc_root: ProcRoot,
    selection: Arc<Selection>,
    counters: Option<Followed>,
    counters_up: bool,
    refused: Arc<Refusals>,
    device_pods: Option<DevicePods>,
    jobs: Option<JobDirectory>,
    accounts: Accounts,
    requests: Requests,
    schema: Schema,
    reserved: ReservedLabels,
    grain: Grain,
    clock: Clock,
    interval: Duration,
    max_age: Duration,
    last: Option<Arc<Published>>,
    /// Of the simulated node; gone with it.
    _stage: Option<Stage>,
}

impl Sampling {
    /// Everything that is read, opened or about to be.
    ///
    /// # Errors
    /// A counters file or a cluster's address that cannot be used.
    pub(super) fn set_up(
        config: ReadConfig,
        stage: Option<Stage>,
        clock: Clock,
    ) -> anyhow::Result<Self> {
        let proc_root = ProcRoot::new(&config.proc_root());
        let ReadConfig {
            interval,
            max_age,
            schema,
            counters,
            frame,
            device_pods,
            job_directory,
            grain,
            cluster,
            mock: _,
            library,
            askers,
            procfs: _,
        } = config;
        let (selection, counters) = selection(counters, frame, &schema.dialect)?;
        Ok(Self {
            sampler: Sampler::new(clock, interval, library, proc_root.clone())?,
            cluster: cluster.map(|sources| Cluster::follow(sources, clock)).transpose()?,
            proc_root,
            selection,
            counters,
            counters_up: true,
            refused: Arc::default(),
            device_pods,
            jobs: job_directory.map(JobDirectory::new),
            accounts: Accounts::default(),
            requests: Requests::new(askers.file),
            reserved: ReservedLabels::of(&schema.dialect).with(&schema.extra),
            schema,
            grain,
            clock,
            interval,
            max_age,
            last: None,
            _stage: stage,
        })
    }

    /// Has the counters file read again, if there is one.
    pub(super) fn reload(&self) -> Option<mpsc::Sender<()>> {
        self.counters.as_ref().map(Followed::reload)
    }

    /// Where refusals are counted.
    pub(super) fn refused(&self) -> Arc<Refusals> {
        Arc::clone(&self.refused)
    }

    fn cycle(&mut self) -> Arc<Published> {
        let sample = self.sample();
        self.published(sample)
    }

    fn published(&mut self, sample: Sample) -> Arc<Published> {
        let snapshot = self.labelled(sample);
        telemetry::log_changes(self.last.as_deref().map(Published::snapshot), &snapshot);
        let published = Arc::new(Published::new(snapshot));
        self.last = Some(Arc::clone(&published));
        published
    }

    /// Lets NVML go, or takes it up again, as is asked; whether there is news of it to publish.
    fn hear_requests(&mut self) -> bool {
        let now = self.clock.now().mono;
        let labelled = self.cluster.as_ref().and_then(|cluster| cluster.label(now));
        self.sampler.release(self.requests.standing(labelled, now))
    }

    /// Takes up other counters, if there are some.
    fn hear_counters(&mut self) {
        for news in self.counters.iter().flat_map(Followed::news) {
            self.counters_up = !matches!(news, News::Trouble);
            if let News::Counters(selection) = news {
                self.selection = selection;
            }
        }
    }

    /// What the driver says now.
    fn sample(&mut self) -> Sample {
        self.hear_counters();
        self.sampler.cycle(&self.selection)
    }

    /// What is known of whose it is.
    fn labelled(&mut self, sample: Sample) -> Snapshot {
        let jobs = self.jobs.as_mut().map(|jobs| jobs.read().clone()).unwrap_or_default();
        let jobs_up = self.jobs.as_ref().map(JobDirectory::is_up);
        let more = self.selection.tells_of_containers();
        let view = self
            .cluster
            .as_mut()
            .map(|cluster| cluster.view(devices(&sample), sample.at.mono, more));
        let now = sample.at.mono;
        let problems = BTreeMap::new();
        let mut sources = view.as_ref().map(|view| view.sources.clone()).unwrap_or_default();
        if self.counters.is_some() {
            sources.push(SourceHealth::plain("counters", self.counters_up));
        }
        if let Some(up) = jobs_up {
            sources.push(SourceHealth::plain("hpc_jobs", up));
        }
        let terms = Terms {
            selection: &self.selection,
            schema: &self.schema,
            device_pods: self.device_pods.as_ref(),
            reserved: &self.reserved,
            jobs: &jobs,
            max_age: self.max_age,
            grain: self.grain,
            directory: view.as_ref().map(|view| view.directory(now)).unwrap_or_default(),
            allocation: view
                .as_ref()
                .map_or(Allocation::Nobody { cluster: false }, View::allocation),
            host_pids: self.sees_processes(),
            sources: &sources,
            problems: view.as_ref().map_or(&problems, |view| &view.problems),
        };
        let (mut snapshot, activity) = attribute(sample, &terms);
        snapshot.tables.accounts = self.accounts.book(&self.selection, &activity, now);
        snapshot.health.refusals = self.refused.counts();
        if let Some(cluster) = &self.cluster {
            cluster.hasten(!snapshot.health.census.unresolved.is_empty());
        }
        snapshot
    }

    /// Whether the driver lets all processes be seen; none where nobody looks for them.
    fn sees_processes(&self) -> Option<bool> {
        if self.selection.wants_processes() { self.proc_root.in_init_pid_namespace() } else { None }
    }

    /// Reads and publishes, and does what it is ordered, until the order is none.
    pub(super) fn publish_until_told(
        mut self,
        orders: &Receiver<Option<Order>>,
        publish: &watch::Sender<Option<Arc<Published>>>,
    ) {
        let reads = policy::ring_reads(self.interval);
        let mut next = self.clock.now().mono;
        for turn in (0..reads).cycle() {
            if self.hear_requests() || turn == 0 {
                publish.send_replace(Some(self.cycle()));
            } else {
                self.sampler.read_rings();
            }
            // A turn that took longer than its time is not made up for.
            next = (next + self.interval / reads).max(self.clock.now().mono);
            match orders.recv_timeout(self.clock.until(next)) {
                Ok(Some(order)) => {
                    next = self.clock.now().mono;
                    self.requests.take(order, next);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Ok(None) | Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.sampler.quiesce(self.clock.now().mono + policy::QUIESCE_GRACE);
    }

    /// What is known once the driver and the cluster have answered, or are not about to. Utilization needs
    /// a window, so it is that of the cycle after.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub(super) fn settled(&mut self) -> io::Result<Arc<Published>> {
        let patience = Patience::for_others("the driver and the cluster", policy::ONCE_OPEN)?;
        self.settle(|_, snapshot| is_settled(snapshot, |source| source.up));
        drop(patience);
        wait_for_window();
        Ok(self.cycle())
    }

    /// What one cycle tells to whoever looks into everything, as read and as published; `settled` is
    /// called when nobody has to be waited for any more.
    pub(super) fn look(&mut self, settled: impl FnOnce()) -> (Sample, Snapshot) {
        self.hear_requests();
        self.settle(|own, snapshot| {
            // Whoever wants NVML let go wants it of all.
            own.hear_requests();
            is_settled(snapshot, has_spoken) && is_told_of_pods(snapshot)
        });
        settled();
        wait_for_window();
        let sample = self.sample();
        let snapshot = self.labelled(sample.clone());
        (sample, snapshot)
    }

    /// Goes through cycles until one is settled and its GPUs are counted, but for no longer than a
    /// driver may take to open.
    fn settle(&mut self, mut is_settled: impl FnMut(&mut Self, &Snapshot) -> bool) {
        let patience = self.clock.now().mono + policy::ONCE_OPEN;
        let (_never, pause) = mpsc::channel::<()>();
        loop {
            let sample = self.sample();
            let is_counted =
                sample.gpu_count.is_some() || !matches!(sample.driver, DriverState::Up(_));
            let published = self.published(sample);
            let is_over = is_settled(self, published.snapshot()) && is_counted;
            if is_over || self.clock.now().mono >= patience {
                break;
            }
            let _ = pause.recv_timeout(policy::ONCE_WINDOW / 4);
        }
    }

    /// Prints one page.
    pub(super) fn print_once(mut self) -> anyhow::Result<()> {
        let published = self.settled()?;
        let snapshot = published.snapshot();
        if let Err(reason) = snapshot.ready() {
            bail!("nothing to read: {reason}");
        }
        if snapshot.tables.devices.is_empty() {
            bail!("nothing to read: the driver is up and names no GPU");
        }
        let page = render::page(&Arc::new(snapshot.clone()), Part::Whole)?;
        print(page.as_bytes())
    }
}

/// Whether a source is up, or is not and will not soon be. A server that is only asked the wrong way is
/// asked again at once.
fn has_spoken(source: &SourceHealth) -> bool {
    let passes = [Failure::Unsupported, Failure::Expired].map(Failure::reason);
    source.up || source.failures.iter().any(|(reason, n)| *n > 0 && !passes.contains(reason))
}

/// Whether all pods are known, unless those who know them are down.
fn is_told_of_pods(snapshot: &Snapshot) -> bool {
    let knows =
        |source: &SourceHealth| [pod_watch::SOURCE, kubelet_pods::SOURCE].contains(&source.name);
    let is_up = snapshot.health.sources.iter().any(|source| source.up && knows(source));
    snapshot.health.pods.is_some() || !is_up
}

/// Utilization is a mean over some time.
fn wait_for_window() {
    let (_never, pause) = mpsc::channel::<()>();
    let _ = pause.recv_timeout(policy::ONCE_WINDOW);
}

/// Waiting longer would tell no more; `heard` says so of a source.
fn is_settled(snapshot: &Snapshot, heard: impl Fn(&SourceHealth) -> bool) -> bool {
    use DriverState::{Down, Up};
    match &snapshot.health.driver {
        Down { reason, .. } => !matches!(*reason, "starting" | "hung"),
        Up(_) => {
            snapshot.health.unidentified.values().all(|why| *why != Missing::Pending)
                && snapshot.health.sources.iter().all(heard)
        }
    }
}

/// What to show, and the place to follow where that is written down.
fn selection(
    source: Option<Source>,
    frame: Frame,
    dialect: &Dialect,
) -> anyhow::Result<(Arc<Selection>, Option<Followed>)> {
    let Some(source) = source else {
        return Ok((Arc::new(Selection::of(&preset(dialect), frame)), None));
    };
    let counters = source.read()?;
    source.log_remarks(&counters);
    let selection = Arc::new(Selection::of(&counters.requests, frame.clone()));
    Ok((selection, Some(Followed::start(source, counters, frame)?)))
}
