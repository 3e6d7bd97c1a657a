//! The composition root: threads, tasks, channels, and the end of it all.

mod signals;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::sync::watch;

use crate::accounts::Accounts;
use crate::args::Config;
use crate::args::dcgm_exporter::LogFormat;
use crate::attribute::family::Allocation;
use crate::attribute::{DevicePods, Grain, Terms, attribute};
use crate::clock::Clock;
use crate::cluster::{Cluster, Sources, View, devices};
use crate::counters::follow::{Followed, News, Source};
use crate::host::ProcRoot;
use crate::host::hpc_jobs::JobDirectory;
use crate::kube::api::Address;
use crate::labels::{Dialect, Schema};
use crate::model::Missing;
use crate::nvml::mock::Stage;
use crate::policy;
use crate::publish::Published;
use crate::release::{Order, Requests};
use crate::render::{self, Part};
use crate::sample::Sampler;
use crate::seal::seal;
use crate::selection::{Frame, Selection, preset};
use crate::serve::Site;
use crate::serve::refusals::Refusals;
use crate::snapshot::{Snapshot, SourceHealth};
use crate::telemetry;

/// Does what the configuration says, until it is done or told to stop.
///
/// # Errors
/// What keeps the exporter from serving, or `--once` from printing; a driver that is not there
/// keeps it from neither serving nor waiting for the driver.
pub fn run(config: Config) -> anyhow::Result<()> {
    let Config {
        addresses,
        interval,
        max_age,
        schema,
        counters,
        frame,
        device_pods,
        job_directory,
        grain,
        cluster,
        mock,
        library,
        askers,
        procfs,
        own_path,
        web,
        systemd_socket,
        once,
        debug,
        log_format,
        remarks,
    } = config;
    start_log(debug, log_format);
    for remark in remarks {
        tracing::warn!("{remark}");
    }
    // Before any thread or library, so that it holds for all of them.
    if let Err(error) = seal() {
        tracing::warn!(%error, "programs could be executed, though none is");
    }
    let clock = Clock::start();
    let stage = mock.as_deref().map(Stage::set_up).transpose()?;
    let library = stage.as_ref().map_or(library, |stage| vec![stage.library()]);
    let procfs = procfs
        .or_else(|| stage.as_ref().map(Stage::procfs))
        .unwrap_or_else(|| PathBuf::from("/proc"));
    let cluster = match &stage {
        Some(stage) => Sources::staged(stage.directory(), askers.label)?,
        None => cluster,
    };
    let schema = match &cluster {
        // A simulated node has a name of its own.
        Some(Sources { pods: Some((_, node)), .. }) if schema.node_name.is_empty() => {
            schema.of_node(node.as_str())
        }
        _ => schema,
    };
    let proc_root = ProcRoot::new(Path::new(&procfs));
    let counters = counters.map(|source| staged_source(source, stage.as_ref()));
    let (selection, counters) = selection(counters, frame, &schema.dialect)?;
    let reload = counters.as_ref().map(Followed::reload);
    let refused = Arc::<Refusals>::default();
    let sampling = Sampling {
        sampler: Sampler::new(clock, interval, library, proc_root.clone())?,
        cluster: cluster.map(|sources| Cluster::follow(sources, clock)).transpose()?,
        proc_root,
        selection,
        counters,
        counters_up: true,
        refused: Arc::clone(&refused),
        device_pods,
        jobs: job_directory.map(JobDirectory::new),
        accounts: Accounts::default(),
        requests: Requests::new(askers.file),
        schema,
        grain,
        clock,
        interval,
        max_age,
        last: None,
    };
    if once {
        return sampling.print_once();
    }
    let listener = if systemd_socket { handed_over()? } else { listen(&addresses)? };
    tracing::info!(address = %listener.local_addr()?, "serving");
    let (publish, published) = watch::channel(None);
    let (order, orders) = mpsc::channel();
    let sampler = thread::Builder::new()
        .name("sampler".to_owned())
        .spawn(move || sampling.publish_until_told(&orders, &publish))?;
    let site = Site { published, max_age, clock, own_path, refused };
    signals::serve_until_told(listener, reload, order, site, web)?;
    // Bounded: a cycle ends by its deadline, and so does the wait for calls in flight.
    if sampler.join().is_err() {
        bail!("the sampling thread has panicked; this is a defect, please report it");
    }
    Ok(())
}

/// Writes an error and its causes to standard error, in one line.
pub fn complain(error: &anyhow::Error) {
    // There is nowhere left to complain to if this fails.
    let _ = writeln!(io::stderr(), "nvml-exporter: {error:#}");
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

/// A simulated node asks its own cluster's API server.
fn staged_source(source: Source, stage: Option<&Stage>) -> Source {
    match (source, stage) {
        (Source::ConfigMap { namespace, name, .. }, Some(stage)) => {
            let address = Address::Kubeconfig(stage.directory().join("kubeconfig"));
            Source::ConfigMap { address, namespace, name }
        }
        (source, _) => source,
    }
}

struct Sampling {
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
    grain: Grain,
    clock: Clock,
    interval: Duration,
    max_age: Duration,
    last: Option<Arc<Published>>,
}

impl Sampling {
    fn cycle(&mut self) -> Arc<Published> {
        let snapshot = self.snapshot();
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

    fn snapshot(&mut self) -> Snapshot {
        self.hear_counters();
        let jobs = self.jobs.as_mut().map(|jobs| jobs.read().clone()).unwrap_or_default();
        let jobs_up = self.jobs.as_ref().map(JobDirectory::is_up);
        let sample = self.sampler.cycle(&self.selection);
        let more = self.selection.tells_of_containers();
        let view = self
            .cluster
            .as_mut()
            .map(|cluster| cluster.view(devices(&sample), sample.at.mono, more));
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
            jobs: &jobs,
            max_age: self.max_age,
            grain: self.grain,
            directory: view.as_ref().map(View::directory).unwrap_or_default(),
            allocation: view
                .as_ref()
                .map_or(Allocation::Nobody { cluster: false }, View::allocation),
            host_pids: self.sees_processes(),
            sources: &sources,
            problems: view.as_ref().map_or(&problems, |view| &view.problems),
        };
        let (mut snapshot, activity) = attribute(sample, &terms);
        let now = snapshot.at.mono;
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
    fn publish_until_told(
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

    /// Utilization needs a window, so the page that is printed is the second one.
    fn print_once(mut self) -> anyhow::Result<()> {
        let patience = self.clock.now().mono + policy::ONCE_OPEN;
        let (_never, pause) = mpsc::channel::<()>();
        while !settled(self.cycle().snapshot()) && self.clock.now().mono < patience {
            let _ = pause.recv_timeout(policy::ONCE_WINDOW / 4);
        }
        let _ = pause.recv_timeout(policy::ONCE_WINDOW);
        let published = self.cycle();
        let snapshot = published.snapshot();
        if let Err(reason) = snapshot.ready() {
            bail!("nothing to read: {reason}");
        }
        if snapshot.tables.devices.is_empty() {
            bail!("nothing to read: the driver is up and names no GPU");
        }
        let page = render::page(&Arc::new(snapshot.clone()), Part::Whole)?;
        io::stdout().write_all(page.as_bytes()).context("standard output")
    }
}

/// Waiting longer would tell no more.
fn settled(snapshot: &Snapshot) -> bool {
    use crate::sample::DriverState::{Down, Up};
    match &snapshot.health.driver {
        Down { reason, .. } => !matches!(*reason, "starting" | "hung"),
        Up(_) => {
            snapshot.health.unidentified.values().all(|why| *why != Missing::Pending)
                && snapshot.health.sources.iter().all(|source| source.up)
        }
    }
}

fn start_log(debug: bool, format: LogFormat) {
    let level = if debug { tracing::Level::DEBUG } else { tracing::Level::INFO };
    let log =
        tracing_subscriber::fmt().with_max_level(level).with_writer(io::stderr).with_target(false);
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
}

fn listen(addresses: &[SocketAddr]) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(addresses).with_context(|| {
        let all: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        format!("--address {}: cannot listen; is another exporter running there?", all.join(", "))
    })?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// The socket that systemd hands over.
fn handed_over() -> anyhow::Result<TcpListener> {
    let mut handed = listenfd::ListenFd::from_env();
    let listener = handed.take_tcp_listener(0).context("--web-systemd-socket")?;
    let listener = listener.context(
        "--web-systemd-socket: no listening TCP socket is handed over; give ListenStream= a port",
    )?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}
