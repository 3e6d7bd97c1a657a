//! The subcommand `check`: checks everything that the exporter depends on, once.

use anyhow::Context;
use tokio::runtime;

use super::install_seccomp_filter;
use super::interrupt::Interrupt;
use super::pipeline::Pipeline;
use super::slow_notice::SlowNotice;
use crate::args::log_level::LogLevel;
use crate::args::{Args, Config, ReadConfig};
use crate::check::rights::FeaturesInUse;
use crate::check::{
    Finding, Report, Topic, api, clock as clock_check, driver, gpus, host, kubelet, library, mig,
    port,
};
use crate::clock::Clock;
use crate::cluster::Sources;
use crate::counters::watcher::CountersSource;
use crate::host::ProcRoot;
use crate::model::Problem;
use crate::policy;
use crate::sample::Sample;
use crate::snapshot::Snapshot;

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
    let Config { read, serve, once: _, log_level, log_format, warnings: remarks } = config;
    if log_level == LogLevel::Debug {
        super::start_log(tracing::Level::WARN, log_format);
    }
    let mut findings = flags(&remarks);
    install_seccomp_filter();
    let clock = Clock::start();
    findings.extend(port::findings(&serve, clock));
    let interrupt = Interrupt::start(read.mock.is_some())?;
    let (mut read, mock_env) = read.with_mock_env(interrupt.files())?;
    let started = clock.now();
    let uses = features_in_use(&read);
    let config_map = uses.config_map.as_ref();
    // With an unusable counters file, the preset of the dialect is checked.
    // The API server of a simulated node starts with the pipeline.
    let counters = read.counters.as_ref().filter(|_| mock_env.is_none() || config_map.is_none());
    match counters.map(|source| (source, source.read())) {
        Some((source, Ok(counters))) => findings.extend(
            source
                .remarks(&counters)
                .map(|remark| Finding::note(Topic::Flags, "counters", &remark)),
        ),
        Some((_, Err(error))) => {
            findings.push(Finding::of_problem(Topic::Flags, "counters", &error.problem()));
            read.counters = None;
        }
        None => {}
    }
    let mut pipeline = Pipeline::start(read, mock_env, clock)?;
    let notice = SlowNotice::start("the driver and the cluster", policy::ONCE_STARTUP_TIMEOUT)?;
    let (sample, snapshot) = pipeline.sample_for_check(|| drop(notice));
    findings.extend(node(pipeline.config(), &sample, &snapshot));
    findings.extend(clock_check::findings(started, clock.now(), &snapshot.health.gpus));
    findings.extend(if snapshot.health.driver.no_gpu().is_some() {
        unused_cluster()
    } else {
        cluster(pipeline.config().cluster.as_ref(), &uses)?
    });
    Ok(findings)
}

fn flags(remarks: &[String]) -> Vec<Finding> {
    if remarks.is_empty() {
        return vec![Finding::ok(Topic::Flags, FLAGS, "valid")];
    }
    remarks.iter().map(|remark| Finding::note(Topic::Flags, FLAGS, remark)).collect()
}

/// The optional features that the configuration uses.
fn features_in_use(read: &ReadConfig) -> FeaturesInUse {
    let config_map = match &read.counters {
        Some(CountersSource::ConfigMap { namespace, name, .. }) => {
            Some((namespace.clone(), name.clone()))
        }
        Some(CountersSource::File(_)) | None => None,
    };
    let sources = read.cluster.as_ref();
    let release_label = sources.is_some_and(|sources| sources.release_label.is_some());
    FeaturesInUse { claims: false, release_label, config_map }
}

/// Findings about driver, GPUs and host.
fn node(config: &ReadConfig, sample: &Sample, snapshot: &Snapshot) -> Vec<Finding> {
    let proc_root = ProcRoot::new(&config.proc_root());
    let (driver, root) = (&snapshot.health.driver, proc_root.path());
    let needs_processes = snapshot.selection.needs_processes();
    [
        library::findings(&config.library, driver, root),
        driver::findings(driver, root, config.mock.is_some()),
        gpus::findings(sample, snapshot),
        mig::findings(sample),
        host::findings(&proc_root, needs_processes, sample, &snapshot.health.attribution),
    ]
    .concat()
}

/// On a node without a GPU, the exporter does not read the cluster.
fn unused_cluster() -> Vec<Finding> {
    let skipped =
        |topic| Finding::skipped(topic, "cluster", "not used: this node has no NVIDIA GPU");
    [Topic::Kubelet, Topic::Logs, Topic::Api, Topic::Rights, Topic::Node].map(skipped).to_vec()
}

/// Findings about the kubelet, the API server and the log directories.
fn cluster(sources: Option<&Sources>, uses: &FeaturesInUse) -> anyhow::Result<Vec<Finding>> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot probe the API server; raise the limit of open files")?;
    let socket = sources.and_then(|sources| sources.pod_resources.as_ref());
    let pods = sources.and_then(|sources| sources.pods.as_ref());
    let notice = SlowNotice::start("the kubelet and the API server", policy::CHECK_API_TIMEOUT)?;
    let (kubelet_response, api_responses) =
        runtime.block_on(async { tokio::join!(kubelet::list(socket), api::probe(pods, uses)) });
    // A file that does not respond is left behind.
    runtime.shutdown_background();
    drop(notice);
    let uses = FeaturesInUse { claims: kubelet::has_claims(&kubelet_response), ..uses.clone() };
    let mut findings = vec![kubelet::socket_finding(sources, &kubelet_response)];
    findings.extend(kubelet::log_findings(sources));
    findings.extend(api::findings(pods.map(|(_, node)| node), &api_responses, &uses));
    Ok(findings)
}
