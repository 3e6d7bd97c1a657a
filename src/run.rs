//! The composition root: threads, tasks, channels, and the end of it all.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::args::Config;
use crate::attribute::family::Allocation;
use crate::attribute::{Grain, Terms, attribute};
use crate::clock::Clock;
use crate::cluster::{Cluster, Sources, View, devices};
use crate::host::ProcRoot;
use crate::host::hpc_jobs::Jobs;
use crate::labels::Schema;
use crate::model::Missing;
use crate::nvml::mock::Stage;
use crate::policy;
use crate::publish::Published;
use crate::render::{self, Part};
use crate::sample::Sampler;
use crate::scope::Scope;
use crate::selection::{Selection, preset};
use crate::serve::{Site, serve};
use crate::snapshot::Snapshot;
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
        grain,
        cluster,
        mock,
        library,
        procfs,
        own_path,
        once,
        debug,
    } = config;
    start_log(debug);
    let clock = Clock::start();
    let stage = mock.as_deref().map(Stage::set_up).transpose()?;
    let library = stage.as_ref().map_or(library, |stage| vec![stage.library()]);
    let procfs = procfs
        .or_else(|| stage.as_ref().map(Stage::procfs))
        .unwrap_or_else(|| PathBuf::from("/proc"));
    let cluster = match &stage {
        Some(stage) => Sources::staged(stage.directory())?,
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
    let sampling = Sampling {
        sampler: Sampler::new(clock, interval, library, proc_root.clone())?,
        cluster: cluster.map(|sources| Cluster::follow(sources, clock)).transpose()?,
        proc_root,
        selection: Arc::new(Selection::of(&preset(&schema.dialect), Scope::all())),
        jobs: Jobs::new(),
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
    let listener = listen(&addresses)?;
    tracing::info!(address = %listener.local_addr()?, "serving");
    let (publish, published) = watch::channel(None);
    let (stop, stopped) = mpsc::channel();
    let sampler = thread::Builder::new()
        .name("sampler".to_owned())
        .spawn(move || sampling.publish_until(&stopped, &publish))?;
    serve_until_told(listener, Site { published, max_age, clock, own_path })?;
    drop(stop);
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

struct Sampling {
    sampler: Sampler,
    cluster: Option<Cluster>,
    proc_root: ProcRoot,
    selection: Arc<Selection>,
    jobs: Jobs,
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

    fn snapshot(&mut self) -> Snapshot {
        let sample = self.sampler.cycle(&self.selection);
        let view =
            self.cluster.as_mut().map(|cluster| cluster.view(devices(&sample), sample.at.mono));
        let (sources, problems) = (Vec::new(), BTreeMap::new());
        let terms = Terms {
            selection: &self.selection,
            schema: &self.schema,
            device_pods: None,
            jobs: &self.jobs,
            max_age: self.max_age,
            grain: self.grain,
            directory: view.as_ref().map(View::directory).unwrap_or_default(),
            allocation: view
                .as_ref()
                .map_or(Allocation::Nobody { cluster: false }, View::allocation),
            host_pids: self.proc_root.in_init_pid_namespace(),
            sources: view.as_ref().map_or(&sources, |view| &view.sources),
            problems: view.as_ref().map_or(&problems, |view| &view.problems),
        };
        let snapshot = attribute(sample, &terms);
        if let Some(cluster) = &self.cluster {
            cluster.hasten(!snapshot.health.census.unresolved.is_empty());
        }
        snapshot
    }

    fn publish_until(
        mut self,
        stopped: &Receiver<()>,
        publish: &watch::Sender<Option<Arc<Published>>>,
    ) {
        let reads = policy::ring_reads(self.interval);
        let mut next = self.clock.now().mono;
        for turn in (0..reads).cycle() {
            if turn == 0 {
                publish.send_replace(Some(self.cycle()));
            } else {
                self.sampler.read_rings();
            }
            // A turn that took longer than its time is not made up for.
            next = (next + self.interval / reads).max(self.clock.now().mono);
            if stopped.recv_timeout(self.clock.until(next)) != Err(RecvTimeoutError::Timeout) {
                break;
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

fn start_log(debug: bool) {
    let level = if debug { tracing::Level::DEBUG } else { tracing::Level::INFO };
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(io::stderr)
        .with_target(false)
        .init();
}

fn listen(addresses: &[SocketAddr]) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(addresses).with_context(|| {
        let all: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        format!("--address {}: cannot listen; is another exporter running there?", all.join(", "))
    })?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn serve_until_told(listener: TcpListener, site: Site) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let stop = async move {
            tokio::select! {
                _ = terminate.recv() => tracing::info!("SIGTERM: stopping"),
                _ = interrupt.recv() => tracing::info!("SIGINT: stopping"),
            }
        };
        serve(tokio::net::TcpListener::from_std(listener)?, site, stop).await;
        Ok(())
    })
}
