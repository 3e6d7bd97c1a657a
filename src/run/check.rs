//! The subcommand `check`: checks everything that the exporter depends on, once.

use std::io;
use std::time::Duration;

use tokio::runtime;

use super::install_seccomp_filter;
use super::pipeline::Pipeline;
use super::slow_notice::SlowNotice;
use crate::args::{Args, Config, ReadConfig};
use crate::check::rights::FeaturesInUse;
use crate::check::{
    Finding, Report, Topic, api, clock, driver, gpus, host, kubelet, library, mig, port,
};
use crate::clock::Clock;
use crate::cluster::Sources;
use crate::counters::watcher::CountersSource;
use crate::host::ProcRoot;
use crate::model::{Moment, Problem};
use crate::policy;
use crate::sample::Sample;
use crate::snapshot::Snapshot;

/// The parts of the configuration that checks need, and when checking started.
struct CheckContext {
    library: Vec<std::path::PathBuf>,
    proc_root: ProcRoot,
    simulated: bool,
    cluster: Option<Sources>,
    uses: FeaturesInUse,
    started: Moment,
}

/// Checks driver, GPUs, host, cluster and port, and returns the findings. Invalid flags are a finding
/// as well.
#[must_use]
pub fn check(args: Args) -> Report {
    match args.into_config().map_err(anyhow::Error::from).and_then(checked) {
        Ok(findings) => Report::new(findings),
        Err(error) => {
            let problem = error
                .downcast()
                .unwrap_or_else(|error| Problem::without_remedy(format!("{error:#}")));
            Report::new(vec![Finding::of_problem(Topic::Flags, FLAGS, &problem)])
        }
    }
}

/// Subject of findings about flags.
const FLAGS: &str = "command line and environment";

fn checked(config: Config) -> anyhow::Result<Vec<Finding>> {
    let Config { read, serve, once: _, debug, log_format, warnings: remarks } = config;
    if debug {
        super::start_log(tracing::Level::WARN, log_format);
    }
    let mut findings = flags(&remarks);
    install_seccomp_filter();
    let clock = Clock::start();
    findings.push(port::finding(&serve, clock));
    let (mut read, mock_env) = read.with_mock_env()?;
    // No start jitter: it protects the API server from a thousand exporters that start together.
    if let Some(cluster) = &mut read.cluster {
        cluster.timings.start_jitter = Duration::ZERO;
    }
    let context = CheckContext::of(&read, clock.now());
    // With an unusable counters file, the preset of the dialect is checked.
    if let Some(Err(error)) = read.counters.as_ref().map(CountersSource::read) {
        findings.push(Finding::of_problem(Topic::Flags, "counters", &error.problem()));
        read.counters = None;
    }
    let mut pipeline = Pipeline::start(read, mock_env, clock)?;
    let notice = SlowNotice::start("the driver and the cluster", policy::ONCE_STARTUP_TIMEOUT)?;
    let (sample, snapshot) = pipeline.sample_for_check(|| drop(notice));
    findings.extend(context.node(&sample, &snapshot, clock.now()));
    findings.extend(context.cluster()?);
    Ok(findings)
}

fn flags(remarks: &[String]) -> Vec<Finding> {
    if remarks.is_empty() {
        return vec![Finding::ok(Topic::Flags, FLAGS, "valid")];
    }
    remarks.iter().map(|remark| Finding::note(Topic::Flags, FLAGS, remark)).collect()
}

impl CheckContext {
    fn of(read: &ReadConfig, started: Moment) -> Self {
        let config_map = match &read.counters {
            Some(CountersSource::ConfigMap { namespace, name, .. }) => {
                Some((namespace.clone(), name.clone()))
            }
            Some(CountersSource::File(_)) | None => None,
        };
        Self {
            library: read.library.clone(),
            proc_root: ProcRoot::new(&read.proc_root()),
            simulated: read.mock.is_some(),
            uses: FeaturesInUse {
                claims: false,
                release_label: read
                    .cluster
                    .as_ref()
                    .is_some_and(|sources| sources.release_label.is_some()),
                config_map,
            },
            cluster: read.cluster.clone(),
            started,
        }
    }

    /// Findings about driver, GPUs and host.
    fn node(&self, sample: &Sample, snapshot: &Snapshot, now: Moment) -> Vec<Finding> {
        let (driver, root) = (&snapshot.health.driver, self.proc_root.path());
        let needs_processes = snapshot.selection.needs_processes();
        [
            library::findings(&self.library, driver, root),
            driver::findings(driver, root, self.simulated),
            gpus::findings(sample, snapshot),
            mig::findings(sample),
            host::findings(&self.proc_root, needs_processes, sample, &snapshot.health.attribution),
            clock::findings(self.started, now, &snapshot.health.gpus),
        ]
        .concat()
    }

    /// Findings about the kubelet, the API server and the log directories.
    fn cluster(&self) -> io::Result<Vec<Finding>> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let sources = self.cluster.as_ref();
        let socket = sources.and_then(|sources| sources.pod_resources.as_ref());
        let pods = sources.and_then(|sources| sources.pods.as_ref());
        let notice =
            SlowNotice::start("the kubelet and the API server", policy::CHECK_API_TIMEOUT)?;
        let (kubelet_response, api_responses) = runtime
            .block_on(async { tokio::join!(kubelet::list(socket), api::probe(pods, &self.uses)) });
        drop(notice);
        let uses =
            FeaturesInUse { claims: kubelet::has_claims(&kubelet_response), ..self.uses.clone() };
        let mut findings = vec![kubelet::socket_finding(sources, &kubelet_response)];
        findings.extend(kubelet::log_findings(sources));
        findings.extend(api::findings(pods.map(|(_, node)| node), &api_responses, &uses));
        Ok(findings)
    }
}
